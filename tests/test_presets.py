"""Presets: what they are made of, what they refuse, and what they cost."""

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.frame_forms import images, pairs, seeded, tensor
from helpers.peak_memory import peak_memory
from PIL import Image

from data.preprocessing import Preprocessing
from presets import RequireModality, ToModelInput, evaluation_transform, training_transform

pytestmark = pytest.mark.essential

IMAGENET = Preprocessing(
    (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "RGB", (0.0, 1.0), input_size=16, scale_size=20
)
BGR_255 = Preprocessing(
    (104.0, 117.0, 128.0), (1.0,), "BGR", (0.0, 255.0), input_size=16, scale_size=20
)
MODELS = {
    "resnet-rgb": SimpleNamespace(preprocessing=IMAGENET, modality="RGB"),
    "bninception-rgb": SimpleNamespace(preprocessing=BGR_255, modality="RGB"),
    "resnet-flow": SimpleNamespace(preprocessing=IMAGENET.for_modality("Flow", 5), modality="Flow"),
    "bninception-flow": SimpleNamespace(
        preprocessing=BGR_255.for_modality("Flow", 5), modality="Flow"
    ),
    "resnet-rgbdiff": SimpleNamespace(
        preprocessing=IMAGENET.for_modality("RGBDiff", 5), modality="RGBDiff"
    ),
    "bninception-rgbdiff": SimpleNamespace(
        preprocessing=BGR_255.for_modality("RGBDiff", 5), modality="RGBDiff"
    ),
}


def grey_level(model: SimpleNamespace) -> float:
    """How much one grey level is, at most, in the input of the model."""
    size = model.preprocessing.input_range[1] / 255
    return size if model.modality == "RGBDiff" else size / min(model.preprocessing.std)


def test_presets_refuse_what_the_model_does_not_take() -> None:
    rgb, flow = MODELS["resnet-rgb"], MODELS["resnet-flow"]
    for model, frames in ((rgb, images("L")), (flow, images("RGB")), (flow, tensor(images()))):
        for transform in (evaluation_transform(model, 10), training_transform(model)):
            with pytest.raises(ValueError, match=f"a model of modality {model.modality} got"):
                transform(frames)
    with pytest.raises(ValueError, match=r"in pairs u0, v0.*got 3 images"):
        evaluation_transform(flow)(images("L", 3))
    assert evaluation_transform(flow)(pairs(images("L", 6))[:1]).shape == (2, 16, 16)
    for crop_count in (5, True, 10.0, "10"):
        with pytest.raises(ValueError, match=f"crop_count must be 1, 3 or 10, got {crop_count!r}"):
            evaluation_transform(rgb, crop_count)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"modality must be .*'Depth'"):
        training_transform(SimpleNamespace(preprocessing=IMAGENET, modality="Depth"))


@pytest.mark.parametrize("modality", ["RGB", "Flow"])
def test_clips_are_flipped_unless_left_and_right_are_labels(modality: str) -> None:
    """The right half is bright; a flipped flow clip has it on the left, and u inverted."""
    frames = torch.zeros(1, 3 if modality == "RGB" else 2, 64, 64, dtype=torch.uint8)
    frames[..., 32:] = 255
    preprocessing = replace(IMAGENET.for_modality(modality, 1), input_size=64)
    model = SimpleNamespace(preprocessing=preprocessing, modality=modality)
    for flip, expected in ((True, {True, False}), (False, {False})):
        transform = training_transform(model, flip=flip)
        torch.manual_seed(0)
        flipped = set()
        for _ in range(20):
            last = transform(frames)[-1]
            flipped.add(bool(last[:, 0].mean() > last[:, -1].mean()))
        assert flipped == expected


@pytest.mark.parametrize("name", MODELS)
def test_presets_can_be_printed_copied_and_pickled(name: str) -> None:
    model = MODELS[name]
    frames = images("L" if model.modality == "Flow" else "RGB", 4)
    presets = [evaluation_transform(model, count) for count in (1, 3, 10)]
    for preset in [*presets, training_transform(model)]:
        assert "ToModelInput(mean=(" in repr(preset)
        expected = seeded(preset, frames, 0)
        for twin in (pickle.loads(pickle.dumps(preset)), copy.deepcopy(preset)):
            assert torch.equal(seeded(twin, frames, 0), expected)
    assert "GroupScale(size=20)" in repr(presets[2])
    assert "GroupOverSample(crop_size=16, scale_size=None, flip=True)" in repr(presets[2])
    if name == "bninception-rgb":
        assert "input_space='BGR', input_range=(0.0, 255.0)" in repr(presets[0])


def test_preset_on_real_frames(epic_test_data: Path) -> None:
    paths = sorted((epic_test_data / "clips" / "frames").glob("img_*.jpg"))[:8]
    frames = [Image.open(path).convert("RGB") for path in paths]
    preprocessing = Preprocessing(IMAGENET.mean, IMAGENET.std)
    model = SimpleNamespace(preprocessing=preprocessing, modality="RGB")
    for crop_count, side in ((1, 224), (3, 256), (10, 224)):
        transform = evaluation_transform(model, crop_count)
        from_list, from_tensor = transform(frames), transform(tensor(frames))
        assert from_list.shape == (crop_count * 8 * 3, side, side)
        torch.testing.assert_close(from_tensor, from_list, rtol=0, atol=1.001 * grey_level(model))


@pytest.mark.skipif(torch.__version__ < "2.7", reason="PyTorch 2.6 copies what it resizes")
@pytest.mark.parametrize("size", [(456, 256), (1920, 1080)])
def test_ten_crops_take_less_than_twice_the_memory_of_the_result(size: tuple[int, int]) -> None:
    preprocessing = Preprocessing(IMAGENET.mean, IMAGENET.std)
    transform = evaluation_transform(
        SimpleNamespace(preprocessing=preprocessing, modality="RGB"), 10
    )
    frames = torch.zeros(8, *reversed(size), 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    used = peak_memory(lambda: transform(frames))
    if used is None:
        pytest.skip("only Linux tells")
    output = 10 * 8 * 3 * 224 * 224 * 4
    # The system may take other memory of the process away meanwhile.
    assert output / 2 < used < 2 * output


@pytest.mark.parametrize("transform", [RequireModality("RGB"), ToModelInput([0.5], [0.2])])
def test_frames_that_are_none(transform: RequireModality | ToModelInput) -> None:
    with pytest.raises(ValueError, match=f"^{type(transform).__name__}: .* got an empty list"):
        transform([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.5, 0.2), "mean and std must be lists"),
        (([0.5], [0]), "std positive"),
        (([0.5], [1], "bgr"), "input_space must be 'RGB' or 'BGR', got 'bgr'"),
        (([0.5], [1], "RGB", (-1, 1)), r"input_range must be .*, got \(-1, 1\)"),
    ],
)
def test_arguments_that_cannot_be(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ToModelInput(*arguments)
