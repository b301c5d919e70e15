"""torch.hub entry points, as a notebook far away from the clone uses them."""

import doctest
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.hub_cache import hub_cache_fixture, write_class_names  # noqa: F401 -- a fixture
from helpers.repository import REPOSITORY

from model_loader import save_checkpoint

ENTRY_POINTS = [
    "MTRN",
    "Predictor",
    "TRN",
    "TSM",
    "TSN",
    "fetch_class_names",
    "load_checkpoint",
    "load_clip",
    "open_frames",
    "read_class_names",
    "save_checkpoint",
]
"""The public names, of torch.hub and of the package."""


def load(name: str, *args: object, **kwargs: object) -> Any:
    return torch.hub.load(str(REPOSITORY), name, *args, source="local", **kwargs)


@pytest.fixture
def as_if_on_github(monkeypatch: pytest.MonkeyPatch) -> str:
    """list() and help() have no source="local": pretend that the clone was downloaded."""
    monkeypatch.setattr(torch.hub, "_get_cache_or_reload", lambda *_, **__: str(REPOSITORY))
    return "owner/repository"


@pytest.mark.essential
def test_list_shows_the_entry_points_and_nothing_else(as_if_on_github: str) -> None:
    assert sorted(torch.hub.list(as_if_on_github, trust_repo=True)) == ENTRY_POINTS


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_help_documents_a_call(name: str, as_if_on_github: str) -> None:
    text = torch.hub.help(as_if_on_github, name, trust_repo=True)
    assert ">>> " in text
    assert "Args:" in text


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_the_docstrings_example_runs_when_pasted(
    name: str, as_if_on_github: str, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clone's folder, with the official files beside it.
    folder = hub_cache.parent / "epic_kitchens_annotations"
    folder.mkdir()
    write_class_names(folder)
    (folder / "hubconf.py").symlink_to(REPOSITORY / "hubconf.py")
    monkeypatch.chdir(folder)
    text = inspect.cleandoc(torch.hub.help(as_if_on_github, name, trust_repo=True))
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert example.examples
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert results.failed == 0


@pytest.mark.essential
def test_models_of_all_kinds_run() -> None:
    clips = torch.randn(2, 3 * 3, 64, 64)
    for name in ("TSN", "TRN", "MTRN", "TSM"):
        model = load(name, (5, 7), 3, "RGB", base_model="resnet18", pretrained=None).eval()
        assert [tuple(task.shape) for task in model(clips)] == [(2, 5), (2, 7)]


@pytest.mark.essential
def test_checkpoints_through_hub(tmp_path: Path) -> None:
    model = load("TRN", (5, 7), 3, "Flow", base_model="resnet18", pretrained=None).eval()
    path = load("save_checkpoint", model, tmp_path / "trn.pth.tar")
    loaded = load("load_checkpoint", path)
    clips = torch.randn(1, 3 * 10, 64, 64)
    for expected, actual in zip(model(clips), loaded(clips), strict=True):
        assert torch.equal(expected, actual)


def test_a_clone_saves_models_of_hub(tmp_path: Path) -> None:
    model = load("TSM", (5, 7), 3, "RGB", base_model="resnet18", pretrained=None).eval()
    path = save_checkpoint(model, tmp_path / "model.safetensors")
    clips = torch.randn(1, 9, 64, 64)
    for expected, actual in zip(model(clips), load("load_checkpoint", path)(clips), strict=True):
        assert torch.equal(expected, actual)
