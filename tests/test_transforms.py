from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.frame_forms import arrays, images, pairs, seeded, tensor
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from transforms import (
    GroupCenterCrop,
    GroupFullResSample,
    GroupMultiScaleCrop,
    GroupNormalize,
    GroupOverSample,
    GroupRandomCrop,
    GroupRandomHorizontalFlip,
    GroupRandomSizedCrop,
    GroupScale,
    Stack,
    ToTorchFormatTensor,
)

pytestmark = pytest.mark.essential


def channels(frames: list | torch.Tensor) -> np.ndarray:
    """Any form as (frames * channels, H, W) of signed numbers, to compare forms."""
    frames = frames if isinstance(frames, torch.Tensor) else tensor(frames)
    return frames.flatten(0, 1).numpy().astype(int)


def coordinates(width: int, height: int, count: int = 2) -> list:
    """RGB images whose pixels hold (x, y, number of the image): crops say where they are from."""
    y, x = np.mgrid[:height, :width]
    return [
        Image.fromarray(np.stack([x, y, np.full_like(x, i)], axis=2).astype(np.uint8))
        for i in range(count)
    ]


def places(frames: list) -> list[tuple[int, int]]:
    return [image.getpixel((0, 0))[:2] for image in frames]


# Deterministic transforms


@pytest.mark.parametrize("size", [13, 20, 31, [13], (13, 17), (17, 13)])
@pytest.mark.parametrize(("width", "height"), [(35, 20), (20, 35), (20, 20), (31, 30)])
def test_scale_is_torchvisions(size: object, width: int, height: int) -> None:
    frames = images("RGB", 2, width, height)
    expected = Resize(size, InterpolationMode.BILINEAR, antialias=True)
    scaled = GroupScale(size)(frames)
    assert [image.size for image in scaled] == [expected(image).size for image in frames]
    assert np.array_equal(arrays(scaled), arrays([expected(image) for image in frames]))


def test_scale_rounds_the_longer_side_down() -> None:
    assert GroupScale(256)(images("RGB", 1, 640, 360))[0].size == (455, 256)
    assert GroupScale(256)(images("RGB", 1, 342, 257))[0].size == (340, 256)


@given(st.integers(9, 30), st.integers(7, 30))
def test_centre_crop_is_torchvisions(width: int, height: int) -> None:
    frames = images("RGB", 1, width, height)
    expected = CenterCrop((7, 9))(frames[0])
    assert np.array_equal(arrays(GroupCenterCrop((7, 9))(frames))[0], np.asarray(expected))


def rows(frames: list) -> list[list[int]]:
    """The pixels of images one pixel high."""
    return [np.asarray(image)[0].tolist() for image in frames]


def test_over_sample_order_by_hand() -> None:
    # Pixel (x, y) of frame i holds 100 i + 10 y + x. The steps are (6 - 2) // 4 = 1 and
    # (5 - 1) // 4 = 1, so the corners are 4 away, and the centre 2.
    y, x = np.mgrid[:5, :6]
    first, second = (Image.fromarray((100 * i + 10 * y + x).astype(np.uint8)) for i in range(2))
    cut = [[0, 1], [4, 5], [40, 41], [44, 45], [22, 23]]
    crops = rows(GroupOverSample((2, 1), flip=False)([first, second]))
    assert crops == [[i + a, i + b] for a, b in cut for i in (0, 100)]

    # Mode L is flow: of the flipped crops, those of the even frame are inverted.
    crops = rows(GroupOverSample((2, 1))([first, second]))
    expected = []
    for a, b in cut:
        expected += [[a, b], [100 + a, 100 + b], [255 - b, 255 - a], [100 + b, 100 + a]]
    assert crops == expected
    # On pairs of u and v the axis is (crop, flip, frame, channel).
    crops = GroupOverSample((2, 1))(pairs([first, second]))
    assert crops.shape == (10, 2, 1, 2)
    assert crops.flatten(0, 2).tolist() == expected


def test_offsets_are_rounded_down() -> None:
    # (9 - 2) // 4 = 1 and (8 - 1) // 4 = 1: the right crop starts at 4 rather than at 7.
    crops = GroupOverSample((2, 1), flip=False)(coordinates(9, 8, count=1))
    assert places(crops) == [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2)]


def test_full_resolution_offsets_by_hand() -> None:
    # Steps (14 - 4) // 4 = 2 and (9 - 5) // 4 = 1: left, right, centre, all two down.
    frames = coordinates(14, 9, count=2)
    crops = GroupFullResSample((4, 5), None, flip=False)(frames)
    assert places(crops) == [(0, 2)] * 2 + [(8, 2)] * 2 + [(4, 2)] * 2
    assert {image.size for image in crops} == {(4, 5)}
    flipped = GroupFullResSample((4, 5), None)(frames)
    assert places(flipped)[::2] == [(0, 2), (3, 2), (8, 2), (11, 2), (4, 2), (7, 2)]
    assert [image.getpixel((0, 0))[2] for image in flipped] == [0, 1] * 6


# Random transforms


def test_random_crop_reaches_every_place_with_all_frames_together() -> None:
    torch.manual_seed(0)
    seen = set()
    for _ in range(200):
        crops = GroupRandomCrop((3, 4))(coordinates(6, 5))
        assert {image.size for image in crops} == {(4, 3)}
        assert len(set(places(crops))) == 1
        seen.add(places(crops)[0])
    assert seen == {(x, y) for x in range(3) for y in range(3)}


@pytest.mark.parametrize("is_flow", [False, True])
def test_flip_is_one_coin_and_inverts_u(is_flow: bool) -> None:
    flow = images("L", 4)
    kept = arrays(flow)
    flipped = kept[:, :, ::-1].copy()
    if is_flow:
        flipped[::2] = 255 - flipped[::2]
    torch.manual_seed(0)
    outcomes = [arrays(GroupRandomHorizontalFlip(is_flow)(flow)) for _ in range(50)]
    heads = [np.array_equal(outcome, flipped) for outcome in outcomes]
    assert all(head or np.array_equal(o, kept) for head, o in zip(heads, outcomes, strict=True))
    assert 10 < sum(heads) < 40


def test_flip_refuses_rgb_as_flow_whatever_the_coin_says() -> None:
    for seed in range(4):
        with pytest.raises(ValueError, match="is_flow"):
            seeded(GroupRandomHorizontalFlip(is_flow=True), images("RGB"), seed)


def test_multi_scale_sizes_by_hand() -> None:
    crop = GroupMultiScaleCrop(224)
    # 256, 224, 192 and int(0.66 * 256) = 168; neighbours may be combined.
    assert sorted(crop.crop_sizes(340, 256)) == sorted(
        [(s, s) for s in (256, 224, 192, 168)]
        + [(256, 224), (224, 256), (224, 192), (192, 224), (192, 168), (168, 192)]
    )
    assert GroupMultiScaleCrop(224, [1, 0.5], max_distort=0).crop_sizes(300, 100) == [
        (100, 100),
        (50, 50),
    ]
    # Less than three pixels away counts as equal, side by side.
    assert GroupMultiScaleCrop((224, 200), [1]).crop_sizes(300, 226) == [(224, 226)]
    assert GroupMultiScaleCrop(224, [1]).crop_sizes(300, 227) == [(227, 227)]
    # But no side gets longer than the image.
    assert GroupMultiScaleCrop(224, [1]).crop_sizes(300, 222) == [(224, 222)]


CORNERS_AND_CENTRE = {(0, 0), (8, 0), (0, 8), (8, 8), (4, 4)}
EDGES = {(0, 4), (8, 4), (4, 0), (4, 8)}
QUARTERS = {(2, 2), (6, 2), (2, 6), (6, 6)}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, CORNERS_AND_CENTRE | EDGES | QUARTERS),
        ({"more_fix_crop": False}, CORNERS_AND_CENTRE),
        ({"fix_crop": False}, {(x, y) for x in range(11) for y in range(11)}),
    ],
    ids=["13 places", "5 places", "any place"],
)
def test_multi_scale_places_by_hand(options: dict, expected: set) -> None:
    # A crop of 10 x 10 out of 20 x 20: steps of 10 // 4 = 2.
    crop = GroupMultiScaleCrop(10, [0.5], **options)
    frames = coordinates(20, 20)
    torch.manual_seed(0)
    drawn = [places(crop(frames)) for _ in range(1500 if "fix_crop" in options else 300)]
    assert all(first == second for first, second in drawn)
    assert {first for first, _ in drawn} == expected


def test_random_sized_crop_keeps_area_and_ratio() -> None:
    frames = coordinates(200, 100, count=2)
    torch.manual_seed(0)
    seen = []
    for _ in range(100):
        crops = arrays(GroupRandomSizedCrop(32)(frames)).astype(float)
        assert crops.shape == (2, 32, 32, 3)
        assert np.array_equal(crops[0, ..., :2], crops[1, ..., :2])
        # The pictures are ramps, so the slope in the result is the size of what was cut out.
        width = (crops[0, 16, 24, 0] - crops[0, 16, 8, 0]) * 2
        height = (crops[0, 24, 16, 1] - crops[0, 8, 16, 1]) * 2
        seen.append((width * height / 20000, width / height))
    areas, ratios = np.array(seen).T
    assert 0.07 < areas.min() < 0.15
    assert 0.4 < areas.max() < 0.7  # 133 x 100 is the most that fits
    assert 0.65 < ratios.min() < 0.85 < 1.15 < ratios.max() < 1.5


@pytest.mark.parametrize(("swap", "size"), [(0, (80, 60)), (1, (60, 80))])
def test_random_sized_crop_by_hand(swap: int, size: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    # 0.24 of 200 x 100 at 4:3 is 80 x 60. The first draw, 300 x 1, does not fit.
    between, below = iter([0.015, 300.0, 0.24, 4 / 3]), iter([0, swap, 7, 5])
    monkeypatch.setattr("transforms.uniform", lambda low, high: next(between))
    monkeypatch.setattr("transforms.randint", lambda count: next(below))
    (image,) = images("RGB", 1, 200, 100)
    expected = image.crop((7, 5, 7 + size[0], 5 + size[1])).resize((32, 32), Image.BILINEAR)
    assert np.array_equal(arrays(GroupRandomSizedCrop(32)([image]))[0], np.asarray(expected))


def test_random_sized_crop_falls_back_to_scale_and_crop() -> None:
    # In 100 x 4 pixels nothing of 8 % of the area and a ratio of 3/4 fits.
    frames = coordinates(100, 4)
    torch.manual_seed(0)
    for _ in range(10):
        crop = arrays(GroupRandomSizedCrop(4)(frames))[0]
        x = crop[0, 0, 0]
        assert crop[..., 0].tolist() == [[x, x + 1, x + 2, x + 3]] * 4
        assert crop[:, 0, 1].tolist() == [0, 1, 2, 3]


def test_draws_come_from_the_cpus_generator_wherever_the_default_device_is() -> None:
    crop = GroupRandomSizedCrop(8)
    expected = channels(seeded(crop, images(), 3))
    with torch.device("meta"):
        assert np.array_equal(channels(seeded(crop, images(), 3)), expected)


# From frames to tensors


@pytest.mark.parametrize("div", [False, True])
def test_to_torch_format_tensor(div: bool) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    expected = np.moveaxis(array, 2, 0).astype(np.float32) / (255 if div else 1)
    frozen = array.copy()
    frozen.flags.writeable = False
    chw = torch.from_numpy(np.moveaxis(array, 2, 0).copy())
    for stacked in (array, frozen, array[:, ::-1][:, ::-1], chw):
        converted = ToTorchFormatTensor(div)(stacked)
        assert converted.dtype == torch.float32
        assert converted.is_contiguous()
        assert np.array_equal(converted.numpy(), expected)
    backwards = ToTorchFormatTensor(div)(array[..., ::-1])
    assert np.array_equal(backwards.numpy(), expected[::-1])
    assert array[0, 1, 0] == 30


def test_normalize_by_hand_and_not_in_place() -> None:
    stacked = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).view(6, 1, 1).expand(6, 2, 2).clone()
    before = stacked.clone()
    normalised = GroupNormalize([1, 2, 3], [2, 4])(stacked)
    assert normalised[:, 0, 0].tolist() == [0, 0, 0, 0.75, 1.5, 0.75]
    assert torch.equal(stacked, before)
    assert GroupNormalize([0.5], [0.25])(stacked.double()).dtype == torch.float64


@pytest.mark.parametrize(
    "normalise", [GroupNormalize([1, 2, 3], [1]), GroupNormalize([1], [1] * 3)]
)
def test_normalize_wants_whole_repetitions(normalise: GroupNormalize) -> None:
    with pytest.raises(ValueError, match="4 channels are not a multiple of the 3 values of"):
        normalise(torch.zeros(4, 2, 2))


def test_every_repr_shows_the_arguments() -> None:
    assert repr(GroupScale(256)) == "GroupScale(size=256)"
    assert repr(GroupRandomSizedCrop(224)) == "GroupRandomSizedCrop(size=224)"
    assert repr(GroupRandomHorizontalFlip(True)) == "GroupRandomHorizontalFlip(is_flow=True)"
    assert repr(GroupFullResSample(256, 256, False)) == (
        "GroupFullResSample(crop_size=256, scale_size=256, flip=False)"
    )
    assert repr(GroupMultiScaleCrop(224, [1, 0.5], 2, False, False)) == (
        "GroupMultiScaleCrop(input_size=224, scales=[1, 0.5], max_distort=2, fix_crop=False, "
        "more_fix_crop=False)"
    )
    assert repr(Stack(True)) == "Stack(roll=True)"
    assert repr(ToTorchFormatTensor(False)) == "ToTorchFormatTensor(div=False)"
    assert repr(GroupNormalize([0.5], [0.2])) == "GroupNormalize(mean=[0.5], std=[0.2])"


# Bad input


GROUP_TRANSFORMS = [
    GroupScale(8),
    GroupCenterCrop(8),
    GroupRandomCrop(8),
    GroupRandomHorizontalFlip(),
    GroupOverSample(8),
    GroupFullResSample(8, 8),
    GroupMultiScaleCrop(8),
    GroupRandomSizedCrop(8),
    Stack(),
]
BAD_FRAMES = {
    "empty list": ([], "at least one frame, got an empty list"),
    "mixed sizes": (images("RGB", 1) + images("RGB", 1, 30), r"got .*\(30, 20\) and \(35, 20\)"),
    "mixed modes": (images("RGB", 1) + images("L", 1), r"\['L', 'RGB'\]; convert"),
    "other mode": ([images("RGB", 1)[0].convert("P")], r"\['P'\]; convert"),
    "one image": (images("RGB", 1)[0], "list of PIL images .* got Image"),
    "array": (
        np.zeros((2, 3, 9, 9), np.uint8),
        "list of PIL images .* got ndarray; torch.from_numpy makes a tensor",
    ),
    "sparse": (torch.zeros(2, 3, 9, 9, dtype=torch.uint8).to_sparse(), "dense, got torch.sparse"),
    "list of arrays": ([np.zeros((9, 9, 3), np.uint8)], r"PIL images, got \['ndarray'\]"),
    "float tensor": (torch.zeros(2, 3, 9, 9), "uint8, got torch.float32"),
    "3-D": (torch.zeros(3, 9, 9, dtype=torch.uint8), r"H, W\) .* got \(3, 9, 9\)"),
    "channels last": (
        torch.zeros(2, 9, 9, 3, dtype=torch.uint8),
        r"3 channels .* got \(2, 9, 9, 3\); frames.permute\(0, 3, 1, 2\) puts channels first",
    ),
    "no frames": (torch.zeros(0, 3, 9, 9, dtype=torch.uint8), r"got \(0, 3, 9, 9\)"),
}


@pytest.mark.parametrize("transform", GROUP_TRANSFORMS, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("what", BAD_FRAMES)
def test_frames_that_are_none(transform: Callable, what: str) -> None:
    frames, message = BAD_FRAMES[what]
    with pytest.raises(ValueError, match=f"^{type(transform).__name__}: .*{message}"):
        transform(frames)


@pytest.mark.parametrize(
    "transform",
    [
        GroupCenterCrop((21, 5)),
        GroupRandomCrop(21),
        GroupOverSample((36, 5)),
        GroupOverSample(16, 15),
        GroupFullResSample(21, None),
    ],
    ids=repr,
)
def test_crop_larger_than_the_frames(transform: Callable) -> None:
    for frames in (images(), tensor(images())):
        with pytest.raises(
            ValueError, match=r"does not fit into frames of .*GroupScale.*scale_size"
        ):
            transform(frames)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GroupScale(0), "GroupScale: size must be a positive .* got 0"),
        (lambda: GroupCenterCrop((3, 4, 5)), r"GroupCenterCrop: size .* got \(3, 4, 5\)"),
        (lambda: GroupRandomCrop(2.5), r"GroupRandomCrop: size .* got 2\.5"),
        (lambda: GroupRandomSizedCrop("8"), "GroupRandomSizedCrop: size .* got '8'"),
        (lambda: GroupOverSample(()), r"GroupOverSample: crop_size .* got \(\)"),
        (lambda: GroupOverSample(8, -1), "GroupOverSample: scale_size .* got -1"),
        (lambda: GroupFullResSample(8, [8, 0]), r"GroupFullResSample: scale_size .* got \[8, 0\]"),
        (lambda: GroupMultiScaleCrop(None), "GroupMultiScaleCrop: input_size .* got None"),
        (lambda: GroupMultiScaleCrop(8, []), r"scales must be .* got \[\]"),
        (lambda: GroupMultiScaleCrop(8, [1.5, 1]), r"scales must be .* got \[1\.5, 1\]"),
        (lambda: GroupMultiScaleCrop(8, [1], -1), "max_distort must be 0 or more, got -1"),
        (lambda: GroupNormalize([], [1]), r"GroupNormalize: mean and std .* mean=\[\]"),
        (lambda: GroupNormalize([0.5], [0]), r"std positive, got .* std=\[0\]"),
        (lambda: GroupNormalize(0.5, 0.2), r"GroupNormalize: mean and std must be lists"),
    ],
)
def test_arguments_that_cannot_be(make: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_numpy_integers_are_sizes() -> None:
    assert GroupCenterCrop(np.int64(8))(images())[0].size == (8, 8)


def test_conversions_refuse_other_types_and_shapes() -> None:
    convert, normalise = ToTorchFormatTensor(), GroupNormalize([0.5], [0.2])
    for wrong in (images()[0], np.zeros((2, 2, 3)), torch.zeros(3, 2, 2)):
        with pytest.raises(ValueError, match="ToTorchFormatTensor: expected a uint8"):
            convert(wrong)
    for wrong in (np.zeros((2, 2), np.uint8), torch.zeros(1, 3, 2, 2, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"ToTorchFormatTensor: expected .* of shape"):
            convert(wrong)
    for wrong in (np.zeros((3, 2, 2)), torch.zeros(3, 2, 2, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="GroupNormalize: expected a floating-point tensor"):
            normalise(wrong)
    with pytest.raises(ValueError, match=r"\(channels, H, W\) .*, got .* \(1, 3, 2, 2\)"):
        normalise(torch.zeros(1, 3, 2, 2))


def test_what_tsn_pytorch_passes() -> None:
    assert GroupMultiScaleCrop(224, None) == GroupMultiScaleCrop(224)
    stacked = Stack()([Image.new("RGB", (3, 2))] * 2)
    assert stacked.flags.c_contiguous
    assert stacked.shape == (2, 3, 6)
