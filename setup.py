"""The package `epic_action_models`: this folder, and those in it that have `__init__.py`."""

from pathlib import Path

from setuptools import setup

_FOLDERS = sorted(path.parent.name for path in Path().glob("*/__init__.py"))

setup(
    packages=["epic_action_models", *(f"epic_action_models.{name}" for name in _FOLDERS)],
    package_dir={"epic_action_models": "."},
    script_name="setup.py",  # which is left out
)
