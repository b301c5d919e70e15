"""The table of published weights agrees with what was recorded from the original project."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from torch.hub import HASH_REGEX

from data.preprocessing import Preprocessing
from epic.datasets import DATASETS
from weights.published import PUBLISHED, Accuracies, PublishedWeights, find_published

BN_INCEPTION = Preprocessing(
    mean=(104.0, 117.0, 128.0), std=(1.0,), input_space="BGR", input_range=(0.0, 255.0)
)
RESNET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def find(variant: str, base_model: str, modality: str, **options: object) -> PublishedWeights:
    length = 5 if modality.lower() == "flow" else 1
    return find_published(
        variant, base_model, modality, **{"num_segments": 8, "new_length": length, **options}
    )


EPIC_55 = [entry for entry in PUBLISHED if entry.dataset == "epic-kitchens"]
EPIC_100 = [entry for entry in PUBLISHED if entry.dataset == "epic-kitchens-100"]


def test_there_are_fourteen_different_ones() -> None:
    configurations = {(e.variant, e.config.arch, e.config.modality) for e in EPIC_55}
    assert len(EPIC_55) == len(configurations) == 14
    both = {"BNInception", "resnet50"}
    backbones = {"TSN": both, "TRN": both, "MTRN": both, "TSM": {"resnet50"}}
    assert configurations == {
        (variant, base_model, modality)
        for variant, names in backbones.items()
        for base_model in names
        for modality in ("RGB", "Flow")
    }
    assert len({e.url for e in EPIC_55}) == len({e.sha256_prefix for e in EPIC_55}) == 14


def test_nothing_can_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PUBLISHED[0].url = "http://elsewhere"


@pytest.mark.parametrize("entry", EPIC_55, ids=lambda entry: entry.file_name)
def test_file_names_have_torch_hubs_form(entry: PublishedWeights) -> None:
    assert entry.file_name == (
        f"{entry.variant}_arch={entry.config.arch}_modality={entry.config.modality}"
        f"_segments=8-{entry.sha256_prefix}.pth.tar"
    )
    assert entry.url == (
        f"https://data.bris.ac.uk/datasets/2tw6gdvmfj3f12papdy24flvmo/{entry.file_name}"
    )
    match = HASH_REGEX.search(entry.file_name)
    assert match is not None
    assert match.group(1) == entry.sha256_prefix
    assert re.fullmatch("[0-9a-f]{8}", entry.sha256_prefix)


def test_two_hashes_as_published() -> None:
    # The full list is in the table alone; these catch rows or columns that were swapped.
    assert find("TSN", "resnet50", "RGB").sha256_prefix == "3ecf904f"
    assert find("TRN", "BNInception", "Flow").sha256_prefix == "4f84b178"
    assert find("MTRN", "resnet50", "Flow").sha256_prefix == "6667f285"
    assert find("TSM", "resnet50", "RGB").sha256_prefix == "cfc93918"


@pytest.mark.parametrize(
    ("base_model", "modality", "expected"),
    [
        ("BNInception", "RGB", BN_INCEPTION),
        ("BNInception", "Flow", dataclasses.replace(BN_INCEPTION, mean=(128.0,))),
        ("resnet50", "RGB", RESNET),
        ("resnet50", "Flow", dataclasses.replace(RESNET, mean=(0.5,), std=(0.226,))),
    ],
)
def test_preprocessing(base_model: str, modality: str, expected: Preprocessing) -> None:
    entries = [e for e in EPIC_55 if (e.config.arch, e.config.modality) == (base_model, modality)]
    assert entries
    for entry in entries:
        assert entry.config.preprocessing == expected


@pytest.mark.parametrize("entry", EPIC_55, ids=lambda entry: entry.file_name)
def test_what_the_entries_have_in_common(entry: PublishedWeights) -> None:
    assert entry.dataset == "epic-kitchens"
    assert entry.config.num_segments == 8
    assert entry.config.num_class == DATASETS["epic-kitchens-55"].num_class == (125, 352)
    assert entry.config.new_length == (1 if entry.config.modality == "RGB" else 5)
    assert "1908.00867" in entry.paper


def test_scores() -> None:
    assert find("MTRN", "resnet50", "RGB").scores["seen"] == Accuracies(
        verb=60.16, noun=38.36, action=28.23
    )
    assert find("TSM", "resnet50", "Flow").scores["unseen"] == Accuracies(
        verb=52.68, noun=20.83, action=14.27
    )
    assert find("TSN", "BNInception", "RGB").scores["unseen"].action is None, "a copied figure"
    for entry in EPIC_55:
        pairs = zip(*map(dataclasses.astuple, entry.scores.values()), strict=True)
        assert all(unseen is None or 0 < unseen < seen < 100 for seen, unseen in pairs)
        # Who gets an action right gets its noun and its verb right.
        assert entry.scores["seen"].action < entry.scores["seen"].noun < entry.scores["seen"].verb


def test_those_of_epic_kitchens_100() -> None:
    """Configurations, hyper-parameters and places, as C1 documents them."""
    assert [(e.variant, e.config.modality) for e in EPIC_100] == [
        (variant, modality) for variant in ("TSN", "MTRN", "TSM") for modality in ("RGB", "Flow")
    ]
    assert len({entry.url for entry in EPIC_100}) == 6
    for entry in EPIC_100:
        assert (entry.config.arch, entry.config.num_segments) == ("resnet50", 8)
        assert entry.config.num_class == DATASETS["epic-kitchens-100"].num_class == (97, 300)
        assert entry.config.new_length == (1 if entry.config.modality == "RGB" else 5)
        assert entry.sha256_prefix is None, "none is published"
        assert (
            entry.file_name
            == f"{entry.variant.removeprefix('M')}_{entry.config.modality}.ckpt".lower()
        )
        assert entry.url.startswith("https://www.dropbox.com/s/")
        assert entry.url.endswith(f"/{entry.file_name}?dl=1")
        rgb = dataclasses.replace(RESNET, std=RESNET.mean)
        flow = dataclasses.replace(RESNET, mean=(0.5,), std=(0.226,))
        assert entry.config.preprocessing == (rgb if entry.config.modality == "RGB" else flow)
        assert list(entry.scores) == ["validation"]
    tsm = find("TSM", "resnet50", "RGB", dataset="epic-kitchens-100")
    assert tsm.scores["validation"] == Accuracies(None, None, 35.75)
    mtrn = find("MTRN", "resnet50", "Flow", dataset="epic-kitchens-100")
    assert mtrn.config.classifier_pairing == "per-scale"
    assert find("MTRN", "resnet50", "Flow").config.classifier_pairing == "published"


def test_names_are_found_in_any_case() -> None:
    entry = find("tsn", "bninception", "rgb", dataset="EPIC-Kitchens")
    assert entry is find("TSN", "BNInception", "RGB")
    assert (entry.variant, entry.config.arch, entry.config.modality) == (
        "TSN",
        "BNInception",
        "RGB",
    )
    for entry in PUBLISHED:
        names = (entry.variant, entry.config.arch, entry.config.modality)
        assert find(*names, dataset=entry.dataset) is entry


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("TSM", "BNInception", "RGB"), {}, "base_model='BNInception'"),
        (("TSN", "resnet18", "RGB"), {}, "base_model='resnet18'"),
        (("TSN", "resnet50", "RGBDiff"), {}, "modality='RGBDiff'"),
        (("I3D", "resnet50", "RGB"), {}, "variant='I3D'"),
        (("TSN", "resnet50", "RGB"), {"num_segments": 5}, "num_segments=5"),
        (("TSN", "resnet50", "Flow"), {"new_length": 1}, "new_length=1"),
        (("TSN", "resnet50", "RGB"), {"dataset": "kinetics"}, "dataset='kinetics'"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(
    names: tuple[str, str, str], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        find(*names, **options)
    lines = str(error.value).splitlines()[1:]
    assert lines == [f"  {entry}" for entry in PUBLISHED]


def test_an_entry_prints_on_one_line() -> None:
    assert str(find("TSM", "resnet50", "Flow")) == (
        "epic-kitchens     TSM  resnet50    Flow num_segments=8 new_length=5 num_class=(125, 352)"
    )


def test_recorded_models() -> None:
    """Numbers recorded from the original project's own classes."""
    recorded_file = Path(__file__).parent / "reference" / "models.json"
    recorded = json.loads(recorded_file.read_text(encoding="utf-8"))
    assert len(recorded) == len(EPIC_55)
    for entry in EPIC_55:
        model = recorded[f"{entry.variant}_{entry.config.arch}_{entry.config.modality}"]
        preprocessing = entry.config.preprocessing
        assert list(entry.config.num_class) == model["num_class"]
        assert entry.config.num_segments == model["num_segments"]
        assert entry.config.new_length == model["new_length"]
        assert preprocessing.mean == pytest.approx(model["input_mean"])
        assert preprocessing.std == pytest.approx(model["input_std"])
        assert preprocessing.input_size == model["input_size"]
        assert preprocessing.scale_size == model["scale_size"]
