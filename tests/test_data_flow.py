import math
import sys
from pathlib import Path
from threading import Event, Timer

import numpy as np
import pytest
import torch
from helpers.flow_stand_in import EXACT, BothFrames, save_frames
from helpers.numbered_images import save, values

from data.flow import PRESETS, TVL1, ComputedFlow, FlowConfig, quantize_flow
from data.frames import FrameSource
from data.video import FrameArray, FrameFolder, load_clip, open_frames

LEVELS = range(10, 250, 10)  # of 24 frames


def grey(levels=LEVELS, side: int = 8) -> torch.Tensor:
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, side, side)


def computed(clip, **options) -> ComputedFlow:
    config = FlowConfig(**{"bound": 127.5, "size": 8, **options})
    return ComputedFlow(clip, config, method=BothFrames())


# Which frames


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2, 3, 7])
def test_count_is_that_of_the_frames_whose_end_exists(stride, dilation) -> None:
    for count in range(dilation + 1, 30):
        flow = computed(
            torch.zeros(count, 3, 8, 8, dtype=torch.uint8), stride=stride, dilation=dilation
        )
        assert len(flow) == sum(start + dilation < count for start in range(0, count, stride))


def test_count_of_the_presets() -> None:
    for count in (4, 5, 6, 7, 100, 101):
        clip = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
        lengths = [len(ComputedFlow(clip, p, method=BothFrames())) for p in PRESETS.values()]
        assert lengths == [math.ceil((count - 3) / 2), count - 1]


def test_pairs_of_frames() -> None:
    flow = computed(grey(), stride=2, dilation=3)
    pairs = [[LEVELS[i], LEVELS[i + 3]] for i in range(0, 21, 2)]
    assert values(flow.read(range(len(flow)))) == pairs
    assert values(flow.read([7, 0, 7])) == [pairs[7], pairs[0], pairs[7]]
    flow = computed(grey(), stride=4, dilation=1)
    assert values(flow.read(range(len(flow)))) == [
        [LEVELS[i], LEVELS[i + 1]] for i in range(0, 23, 4)
    ]


def test_numbers_begin_at_one_as_in_published_folders() -> None:
    flow = computed(grey())
    assert flow.numbers.tolist() == list(range(1, 12))
    clip = load_clip(
        flow, num_segments=2, new_length=1, modality="Flow", start=3, stop=5, by_number=True
    )
    assert values(clip) == [[LEVELS[4], LEVELS[7]], [LEVELS[6], LEVELS[9]]]


class Counted(FrameArray):
    """Frames that count how often each is read."""

    def __init__(self, frames: torch.Tensor) -> None:
        super().__init__(frames, 3)
        self.counts = [0] * len(frames)

    def _frames(self, indices):
        for index, frame in super()._frames(indices):
            self.counts[index] += 1
            yield index, frame


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize(("stride", "dilation"), [(2, 3), (1, 1), (1, 7), (7, 2)])
def test_each_frame_is_read_once_and_only_if_needed(jobs, stride, dilation) -> None:
    source = Counted(grey())
    config = FlowConfig(stride=stride, dilation=dilation, bound=127.5, size=8)
    flow = ComputedFlow(source, config, method=BothFrames(), jobs=jobs)
    starts = range(0, 24 - dilation, stride)
    needed = {*starts, *(start + dilation for start in starts)}
    read = torch.cat(list(flow.blocks(4)))
    assert values(read) == [[LEVELS[start], LEVELS[start + dilation]] for start in starts]
    assert source.counts == [int(index in needed) for index in range(24)]
    source.counts = [0] * 24
    flow.read([1, 0])
    assert sum(source.counts) == len({0, stride, dilation, stride + dilation})


def test_frames_are_resized_as_they_are_read() -> None:
    flow = computed(torch.zeros(4, 3, 20, 30, dtype=torch.uint8), size=10)
    assert flow.read([0]).shape == (1, 2, 10, 15)


# The rate of videos


@pytest.fixture
def video(tmp_path) -> Path:
    """Twelve frames at 25 a second, each of one grey level."""
    from helpers.videos import encode

    pictures = [np.full((48, 64, 3), 20 + 20 * number, np.uint8) for number in range(12)]
    return encode(tmp_path / "clip.mp4", "mpeg4", pictures=pictures)


def frames_of(flow: ComputedFlow) -> list[list[int]]:
    levels = flow.read(range(len(flow)))[:, :, 2, 2].float()
    return ((levels - 20) / 20).round().int().tolist()


def test_every_frame_of_a_video_without_rate(video) -> None:
    flow = computed(video, stride=2, dilation=3)
    assert frames_of(flow) == [[0, 3], [2, 5], [4, 7], [6, 9], [8, 11]]
    assert flow.fps == 12.5


def test_a_video_is_read_as_frames_extracted_at_the_rate_are(video) -> None:
    twice = computed(video, stride=2, dilation=3, rate=50)
    assert twice.num_rgb_frames == 24
    assert frames_of(twice) == [[i, i + 1] for i in range(11)]  # the frame is shown twice
    again = computed(video, stride=1, dilation=1, rate=50)
    assert frames_of(again) == [[i // 2, (i + 1) // 2] for i in range(23)]
    half = computed(video, stride=1, dilation=1, rate=12.5)
    assert frames_of(half) == [[0, 2], [2, 4], [4, 6], [6, 8], [8, 10]]
    assert half.fps == 12.5


# Grey levels


@pytest.mark.parametrize("bound", [25, 8, 20.3, 1 / 3, 1e-3, 127.5])
def test_no_motion_is_128_and_the_bound_is_the_end_of_the_scale(bound) -> None:
    motion = np.array([0, -bound, bound, -9 * bound, 9 * bound, -np.inf, np.inf], np.float32)
    assert quantize_flow(motion, bound).tolist() == [128, 0, 255, 0, 255, 0, 255]


def test_grey_levels_are_even_steps() -> None:
    motion = np.linspace(-25, 25, 256, dtype=np.float64)
    assert quantize_flow(motion, 25).tolist() == list(range(256))
    step = 50 / 255
    assert quantize_flow(np.array([0.9, 1.1, -0.9, -1.1]) * step, 25).tolist() == [
        128,
        129,
        127,
        126,
    ]


# The order in which flow is computed


class Failing(BothFrames):
    def __call__(self, first, second):
        super().__call__(first, second)
        if first[0, 0] == LEVELS[4]:
            raise ValueError("no flow")
        return super().__call__(first, second)


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_what_came_before_a_failure_is_yielded(jobs) -> None:
    flow = ComputedFlow(grey(), EXACT, method=Failing(), jobs=jobs)
    got = []
    with pytest.raises(ValueError, match="no flow"):
        got.extend(index for index, _ in flow.compute(range(len(flow))))
    assert got == [0, 1]


class Waiting(BothFrames):
    """Computes one flow frame, the number of which is given, only after `event`."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.event, self.number = Event(), number

    def __call__(self, first, second):
        flow = super().__call__(first, second)
        if len(self.calls) == self.number:
            self.event.wait()
        return flow


def test_what_nobody_waits_for_is_not_computed() -> None:
    method = Waiting(2)
    frames = ComputedFlow(grey(range(200)), EXACT, method=method).compute(range(98))
    next(frames)
    Timer(0.2, method.event.set).start()
    frames.close()
    assert len(method.calls) <= 2


def test_frames_are_not_read_long_before_they_are_needed() -> None:
    source, method = Counted(grey(range(200))), Waiting(1)
    frames = ComputedFlow(source, EXACT, method=method).compute(range(98))
    Timer(0.2, method.event.set).start()
    next(frames)
    assert sum(source.counts) <= 8  # of three pairs
    frames.close()


# What is refused


def refused(clip, match: str, **options) -> None:
    with pytest.raises(ValueError, match=match):
        computed(clip, **options)


def test_options() -> None:
    for name in ("stride", "dilation", "size"):
        for value in (0, -1, 1.5):
            refused(grey(), f"^{name} must be a positive integer, got {value}$", **{name: value})
    for name in ("bound", "rate"):
        for value in (0, -1.0, math.nan, math.inf):
            refused(grey(), f"^{name} must be a positive number, got {value}$", **{name: value})
    with pytest.raises(ValueError, match=r"^jobs must be"):
        ComputedFlow(grey(), method=BothFrames(), jobs=0)


def test_clips_that_are_too_short() -> None:
    refused(grey([1, 2, 3]), r"flow that spans 3 frames needs 4 of them, got 3$")


def test_rates_of_images(tmp_path) -> None:
    refused(
        save_frames(tmp_path, LEVELS), "rate is for video files, whose frames have times", rate=60
    )


def test_gaps_in_numbers(tmp_path) -> None:
    save_frames(tmp_path, LEVELS)
    (tmp_path / "frame_0000000007.jpg").unlink()
    refused(tmp_path, "none has a number between 6 and 8$")
    (tmp_path / "frame_0000000009.jpg").unlink()
    refused(FrameFolder(tmp_path), r"between 6 and 8 \(the first of 2 gaps\)$")


def test_numbers_may_begin_anywhere(tmp_path) -> None:
    for number in range(100, 110):
        save(tmp_path, f"img_{number}.png", number)
    flow = computed(tmp_path)
    assert flow.numbers.tolist() == [1, 2, 3, 4]
    assert values(flow.read([0])) == [[100, 103]]


def test_flow_of_flow(tmp_path) -> None:
    clip = torch.zeros(9, 2, 8, 8, dtype=torch.uint8)
    flow: FrameSource = FrameArray(clip, 2)
    refused(flow, "needs frames of 3 channels")
    save(tmp_path, "x_00001.jpg", 5, "L")
    save(tmp_path, "y_00001.jpg", 5, "L")
    refused(tmp_path, "flow images")


def test_without_opencv_the_error_names_the_package(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match="pip install opencv-contrib-python-headless"):
        ComputedFlow(grey())


# TV-L1


@pytest.fixture(scope="module")
def tvl1() -> TVL1:
    try:
        return TVL1()
    except ImportError as error:
        pytest.skip(str(error))


def texture(shift_x: int, shift_y: int) -> torch.Tensor:
    """RGB frame (1, 3, 96, 128) of a smooth random texture, moved right and down."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 1, 40, 50, generator=generator)
    smooth = torch.nn.functional.interpolate(noise, scale_factor=4, mode="bicubic").clamp(0, 1)
    x, y = 20 - shift_x, 20 - shift_y
    return (
        (255 * smooth[..., y : y + 96, x : x + 128]).round().to(torch.uint8).expand(-1, 3, -1, -1)
    )


@pytest.mark.parametrize(("x", "y"), [(2, 0), (-2, 0), (0, 2), (3, -1)])
def test_a_texture_that_moves(tvl1, x, y) -> None:
    clip = torch.cat([texture(0, 0), texture(x, y)])
    config = FlowConfig(stride=1, dilation=1, bound=8, size=96)
    flow = ComputedFlow(clip, config, method=tvl1).read([0])[0, :, 8:-8, 8:-8].float()
    expected = torch.tensor([127.5 + 127.5 * motion / 8 for motion in (x, y)])
    assert (flow.flatten(1).median(1).values - expected).abs().max() <= 1
    assert (flow - expected[:, None, None]).abs().mean() < 1


def test_a_still_clip_has_no_motion(tvl1) -> None:
    clip = texture(0, 0).expand(4, -1, -1, -1)
    assert (ComputedFlow(clip, method=tvl1).read([0]) == 128).all()


@pytest.mark.slow
def test_how_far_parameters_move_the_images_of_a_real_clip(tvl1, epic_test_data, capsys) -> None:
    """Print what is known of the distance to other programs; `docs/` cites it.

    The flow images beside the real frames are of another clip: they agree with no pair of them.
    """
    import cv2

    def variant(**options):
        def compute(first, second):
            method = cv2.optflow.DualTVL1OpticalFlow_create()
            for name, value in options.items():
                getattr(method, f"set{name}")(value)
            return method.calc(first, second, None)

        compute.name = "variant"
        return compute

    def compare(ours: torch.Tensor, others: torch.Tensor) -> tuple[float, float]:
        """Return the correlation, and the mean absolute difference in grey levels."""
        both = torch.stack([ours.flatten().double(), others.flatten().double()])
        return float(torch.corrcoef(both)[0, 1]), float((both[0] - both[1]).abs().mean())

    variants = {
        "without median filter": {
            "MedianFiltering": 1,
            "InnerIterations": 300,
            "OuterIterations": 1,
        },
        "lambda 0.3": {"Lambda": 0.3},
    }
    source = open_frames(epic_test_data / "clips" / "arm_wrestling.mp4", short_side=256)
    indices = [10, 70, 130]
    ours = ComputedFlow(source, method=tvl1).read(indices)
    lines = [f"grey levels: mean distance from 128 {(ours.float() - 128).abs().mean():.2f}"]
    for name, options in variants.items():
        others = ComputedFlow(source, method=variant(**options)).read(indices)
        correlation, difference = compare(ours, others)
        lines.append(f"{name}: correlation {correlation:.3f}, difference {difference:.2f}")
        assert correlation > 0.8
    frames = epic_test_data / "clips" / "frames"
    published = open_frames(frames, "Flow").read(range(5))
    best = [0.0] * 5
    config = FlowConfig(stride=1, dilation=1, bound=20, size=240)
    for _, own in ComputedFlow(frames, config, method=tvl1).compute(range(9)):
        for number, image in enumerate(published):
            best[number] = max(best[number], compare(own, image)[0])
    lines.append(
        f"images beside the frames, best correlation of each: {np.round(best, 2).tolist()}"
    )
    with capsys.disabled():
        print("", *lines, sep="\n")
