"""The package `epic_action_models`: linked, installed, and beside other people's modules."""

import importlib
import runpy
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers.hub_models import CLIP, digest, make
from helpers.programs import run
from helpers.public_names import PUBLIC_NAMES
from helpers.repository import REPOSITORY, source_files

INSTALLED = {file for file in source_files() if file.name != "setup.py"}

PROGRAM = """
import pickle
import sys

import data
import ops
import torch
import torchvision
import transforms
from torch.utils.data import DataLoader, Dataset

LOADED = set(sys.modules)  # older torchvisions import av

import epic_action_models
from epic_action_models import TSN, load_checkpoint, save_checkpoint
from epic_action_models.data.video import load_clip


class Classified(Dataset):
    def __init__(self, model, clips):
        assert type(model) is TSN
        self.model = model
        self.clips = clips

    def __len__(self):
        return len(self.clips)

    @torch.inference_mode()
    def __getitem__(self, index):
        return self.model(self.clips[index : index + 1]).clone()


if __name__ == "__main__":
    heavy = {"av", "matplotlib", "pretrainedmodels", "safetensors"} & set(sys.modules)
    assert heavy <= LOADED, heavy
    assert load_clip is epic_action_models.load_clip
    model = TSN(5, 3, "RGB", base_model="resnet18", pretrained=None).eval()
    assert type(model).__module__ == "epic_action_models.tsn"
    loaded = load_checkpoint(save_checkpoint(model, "model.pth"))
    clips = Classified(pickle.loads(pickle.dumps(loaded)), torch.rand(2, 9, 64, 64))
    if sys.argv[1:] == ["workers"]:
        workers = DataLoader(clips, None, num_workers=1, multiprocessing_context="spawn")
        assert torch.equal(torch.cat(list(workers)), torch.cat([clips[0], clips[1]]))
    assert ops.OWNER == data.OWNER == transforms.OWNER == "caller"
    ours = [name for name in ("tsn", "weights", "package_loader") if name in sys.modules]
    assert not ours, ours
"""
"""Of a project that has folders and modules with names of ours."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for file in ("data/__init__.py", "ops/__init__.py", "transforms.py"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("OWNER = 'caller'\n")
    (folder / "program.py").write_text(PROGRAM)
    return folder


# Linked


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The package in this process, through a link to the clone."""
    folder = tmp_path_factory.mktemp("linked")
    (folder / "epic_action_models").symlink_to(REPOSITORY)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(sys, "meta_path", list(sys.meta_path))
        yield importlib.import_module("epic_action_models")
    for name in [name for name in sys.modules if name.split(".")[0] == "epic_action_models"]:
        del sys.modules[name]


def test_public_names(package: ModuleType) -> None:
    assert sorted(package.__all__) == PUBLIC_NAMES
    for name in package.__all__:
        assert getattr(package, name).__module__.startswith("epic_action_models.")


def test_every_module_is_within_the_package(package: ModuleType) -> None:
    for file in INSTALLED - {Path("hubconf.py")}:  # for torch.hub alone
        name = ".".join(("epic_action_models", *file.with_suffix("").parts))
        module = importlib.import_module(name.removesuffix(".__init__"))
        for value in vars(module).values():
            owner = str(getattr(value, "__module__", None)).replace(".", "/")
            assert Path(f"{owner}.py") not in INSTALLED, (name, value)


def test_torch_hub_and_the_package_keep_their_own_classes(package: Any, tmp_path: Path) -> None:
    theirs = make(REPOSITORY, "TSN")
    assert not isinstance(theirs, package.TSN)
    path = package.save_checkpoint(theirs, tmp_path / "model.pth")
    ours = package.load_checkpoint(path)
    assert type(ours) is package.TSN
    assert digest(ours) == digest(theirs)
    with torch.no_grad():
        assert torch.equal(ours(CLIP), theirs.eval()(CLIP))
    assert type(make(REPOSITORY, "TSN")) is type(theirs)


def test_beside_modules_of_these_names(project: Path) -> None:
    (project / "epic_action_models").symlink_to(REPOSITORY)
    assert run(project, sys.executable, "program.py") == ""


# Any folder


@pytest.fixture
def any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules like this repository's, in a package of somebody else."""
    folder = tmp_path / "somebody" / "vendored"
    (folder / "parts").mkdir(parents=True)
    loader = "from .package_loader import install\ninstall(__spec__)\n"
    (folder / "__init__.py").write_text(loader + "from .model import LAYERS\n")
    (folder / "model.py").write_text("from parts.layers import LAYERS\n")
    (folder / "parts" / "__init__.py").touch()
    (folder / "parts" / "layers.py").write_text("LAYERS = 1\n")
    shutil.copy(REPOSITORY / "package_loader.py", folder)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "somebody"]:
        del sys.modules[name]


def test_any_name_will_do(any_folder: Path) -> None:
    assert importlib.import_module("somebody.vendored").LAYERS == 1
    assert sys.modules["somebody.vendored.parts.layers"].__file__ == str(
        any_folder / "parts" / "layers.py"
    )
    assert "parts" not in sys.modules
    assert importlib.util.find_spec("somebody.vendored.absent") is None


def test_after_a_failed_import_files_are_read_again(any_folder: Path) -> None:
    (any_folder / "parts" / "layers.py").write_text("raise ImportError('a slip')\n")
    for _ in range(2):
        with pytest.raises(ImportError, match="a slip"):
            importlib.import_module("somebody.vendored")
    (any_folder / "parts" / "layers.py").write_text("LAYERS = 2\n")
    assert importlib.import_module("somebody.vendored").LAYERS == 2
    finders = [finder for finder in sys.meta_path if "somebody" in getattr(finder, "package", "")]
    assert len(finders) == 1


def test_modules_stay_as_they_were_when_the_package_was_imported(any_folder: Path) -> None:
    (any_folder / "late.py").write_text("from parts.layers import LAYERS\n")
    importlib.import_module("somebody.vendored")
    (any_folder / "late.py").write_text("raise ImportError('of another version')\n")
    assert importlib.import_module("somebody.vendored.late").LAYERS == 1


# pytest


def test_pytest_does_not_import_the_clones_folder() -> None:
    file = str(REPOSITORY / "__init__.py")
    names = [name for name, module in sys.modules.items() if vars(module).get("__file__") == file]
    assert not [name for name in names if not name.startswith("epic_kitchens_models_")]


def test_the_file_by_itself_is_nothing() -> None:
    """So does pytest run it, without our conftest.py, where the folder's name is no identifier."""
    assert "TSN" not in runpy.run_path(str(REPOSITORY / "__init__.py"))


# Installed


def setuptools_version() -> int:
    try:
        return int(metadata.version("setuptools").partition(".")[0])
    except metadata.PackageNotFoundError:
        return 0


needs_setuptools = pytest.mark.skipif(
    setuptools_version() < 77, reason="setuptools 77 or newer is not installed"
)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone without .git, with what lies around in one."""
    folder = tmp_path / "some-clone"
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(REPOSITORY / name, folder)
    for file in [*source_files(), *map(Path, ("tests/test_tsn.py", "tests/helpers/hub_cache.py"))]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / file, folder / file)
    for name in ("benchmark.json", "demo.png", "data/clip.mp4", "notes/notes.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of a fresh environment, which sees the packages of this one too."""
    run(tmp_path, sys.executable, "-m", "venv", "--without-pip", "venv")
    paths = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    site_packages = Path(sysconfig.get_path("purelib", "venv", paths))
    here = sysconfig.get_path("purelib")
    (site_packages / "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    return Path(sysconfig.get_path("scripts", "venv", paths)) / Path(sys.executable).name


def install(python: Path, *what: str | Path) -> Path:
    """Install and return where packages lie."""
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    options += ("--disable-pip-version-check",)
    run(python.parent, python, "-m", "pip", "install", *options, *what)
    print_path = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(run(python.parent, python, "-c", print_path).strip())


@pytest.mark.slow
@needs_setuptools
@pytest.mark.parametrize("source", ["folder", "sdist"])
def test_installed(source: str, clone: Path, python: Path, project: Path) -> None:
    what = clone
    stale = clone / "build" / "lib" / "epic_action_models" / "stale.py"  # of an earlier build
    stale.parent.mkdir(parents=True)
    stale.touch()
    if source == "sdist":
        build = "from setuptools.build_meta import build_sdist; build_sdist('..')"
        run(clone, python, "-Wignore", "-c", build)
        (what,) = clone.parent.glob("*.tar.gz")
    site_packages = install(python, what)
    shutil.rmtree(clone)

    assert sorted(path.name.partition("-")[0] for path in site_packages.iterdir()) == [
        "epic_action_models",
        "epic_action_models",  # its metadata
        "here.pth",
    ]
    package = site_packages / "epic_action_models"
    files = {path.relative_to(package) for path in package.rglob("*") if path.is_file()}
    assert {file for file in files if file.parent.name != "__pycache__"} == INSTALLED
    assert run(project, python, "program.py", "workers") == ""
    program = "epic_action_models.tools.print_checkpoint_details"
    assert "resnet18" in run(project, python, "-m", program, "model.pth")


@pytest.mark.slow
@needs_setuptools
def test_installed_to_be_edited(clone: Path, python: Path, project: Path) -> None:
    site_packages = install(python, "--editable", clone)
    assert not (site_packages / "epic_action_models").exists()
    assert run(project, python, "program.py", "workers") == ""
    with open(clone / "ops" / "consensus.py", "a") as file:
        file.write("\nEDITED = True\n")
    (clone / "new_place").mkdir()
    (clone / "new_place" / "__init__.py").touch()
    (clone / "new_place" / "train.py").write_text("from ops.consensus import EDITED\n")
    edited = "from epic_action_models.new_place.train import EDITED; print(EDITED)"
    assert run(project, python, "-c", edited) == "True\n"
    for name in ("tsn", "weights"):
        absent = f"import importlib.util; print(importlib.util.find_spec({name!r}))"
        assert run(project, python, "-c", absent) == "None\n"
