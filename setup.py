"""The package `epic_action_models`: this folder, and those in it that have `__init__.py`."""

from pathlib import Path
from tempfile import TemporaryDirectory

from setuptools import setup

_FOLDERS = sorted(path.parent.name for path in Path().glob("*/__init__.py"))

_BUILD = TemporaryDirectory()  # what an earlier build left in the clone would be packed again

setup(
    options={"build": {"build_base": _BUILD.name}},
    packages=["epic_action_models", *(f"epic_action_models.{name}" for name in _FOLDERS)],
    package_dir={"epic_action_models": "."},
    script_name="setup.py",  # which is left out
)
