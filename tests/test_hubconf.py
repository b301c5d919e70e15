"""torch.hub entry points, as a notebook far away from the clone uses them."""

import doctest
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.hub_cache import hub_cache_fixture, write_class_names  # noqa: F401 -- a fixture
from helpers.programs import run
from helpers.public_names import PUBLIC_NAMES
from helpers.repository import REPOSITORY

from model_loader import save_checkpoint


def load(name: str, *args: object, **kwargs: object) -> Any:
    return torch.hub.load(str(REPOSITORY), name, *args, source="local", **kwargs)


@pytest.fixture
def as_if_on_github(monkeypatch: pytest.MonkeyPatch) -> str:
    """list() and help() have no source="local": pretend that the clone was downloaded."""
    monkeypatch.setattr(torch.hub, "_get_cache_or_reload", lambda *_, **__: str(REPOSITORY))
    return "owner/repository"


@pytest.mark.essential
def test_list_shows_the_entry_points_and_nothing_else(as_if_on_github: str) -> None:
    assert sorted(torch.hub.list(as_if_on_github, trust_repo=True)) == PUBLIC_NAMES


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_help_documents_a_call(name: str, as_if_on_github: str) -> None:
    text = torch.hub.help(as_if_on_github, name, trust_repo=True)
    assert ">>> " in text
    assert "Args:" in text


@pytest.mark.parametrize("name", PUBLIC_NAMES)
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
    assert any(f'"{name}"' in line.source for line in example.examples), "a call through torch.hub"
    assert not any(line.source.startswith("from ") for line in example.examples)
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert results.failed == 0


CLIP_TO_LABELS = """
import sys

import torch


def hub(name, *arguments, **options):
    return torch.hub.load(sys.argv[1], name, *arguments, source="local", **options)


model = hub("TSM", (125, 352), 2, "RGB", base_model="resnet18", pretrained=None).eval()
video = torch.randint(0, 256, (20, 3, 90, 120), dtype=torch.uint8)
clip = hub("load_clip", video, num_segments=model.num_segments, modality=model.modality)
verbs, nouns = model(model.evaluation_transform(crop_count=3)(clip).unsqueeze(0))
assert verbs.shape == (3, 125), verbs.shape
assert model.training_transform()(clip).shape == (2 * 3, 224, 224)
assert hub("open_frames", video, short_side=45).read([7]).shape == (1, 3, 45, 60)

official = hub("read_class_names", "EPIC_verb_classes.csv", "EPIC_noun_classes.csv")
own = [f"my verb{index}" for index in range(125)], [f"noun{index}" for index in range(352)]
for names in (official, own):
    action = hub("Predictor", model, names, optimize=False)(video).actions[0]
    verb, noun = action.classes
    assert action.name == f"{names[0][verb]} {names[1][noun]}", action
assert not {"data", "epic", "ops", "predictor", "transforms", "tsm", "tsn"} & set(sys.modules)
"""
"""Everything through torch.hub: no name of ours is imported."""


def test_from_a_clip_to_labels_without_a_clone_on_the_path(tmp_path: Path) -> None:
    write_class_names(tmp_path)
    run(tmp_path, sys.executable, "-c", CLIP_TO_LABELS, REPOSITORY)


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
