"""Windows along videos: the logits of each as a clip, each frame read once and seen once."""

import copy
from itertools import zip_longest
from typing import Any

import pytest
import torch
from helpers.counting import CountedFrames, NoiseFrames, counted_images, tiny
from helpers.peak_memory import peak_memory
from helpers.small_models import assert_close
from torch import Tensor, nn

from data.frames import FrameSource
from data.sampling import segment_indices
from data.video import load_clip
from long_videos import window_logits
from ops.inference import optimize_for_inference
from predictor import Predictor
from tsn import TSN

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "TSN": ("RGB", {}),
    "TSN max": ("RGB", {"consensus_type": "max"}),
    "TSN identity": ("RGB", {"consensus_type": "identity"}),
    "TSN probabilities": ("RGB", {"before_softmax": False}),
    "TSN flow": ("Flow", {"new_length": 5}),
    "TRN difference": ("RGBDiff", {"new_length": 2}),
    "TRN": ("RGB", {}),
    "MTRN": ("RGB", {}),
    "MTRN flow": ("Flow", {"new_length": 3}),
    "TSM": ("RGB", {}),
    "TSM past": ("RGB", {"shift_direction": "past"}),
    "TSM pooled": ("RGB", {"temporal_pool": True}),
    "TSM identity": ("RGB", {"consensus_type": "identity"}),
    "TSM flow": ("Flow", {"new_length": 2}),
}
GRIDS = [
    # frames, window, stride, hop
    (13, 4, 1, 1),
    (13, 7, 1, 3),
    (14, 12, 3, 3),
    (22, 10, 2, 4),
    (21, 4, 1, 6),  # windows with gaps between them
    (15, 2, 1, 5),  # fewer frames than segments
]


def make(kind: str) -> TSN:
    modality, options = KINDS[kind]
    return tiny(kind.split()[0], modality, **options)


def frames_for(model: TSN, count: int) -> CountedFrames:
    return CountedFrames(NoiseFrames(count, 2 if model.modality == "Flow" else 3))


def collect(*arguments: Any, **options: Any) -> tuple[list[int], tuple[Tensor, ...]]:
    starts, logits = zip(*window_logits(*arguments, **options), strict=True)
    return torch.cat(starts).tolist(), tuple(map(torch.cat, zip(*logits, strict=True)))


@torch.inference_mode()
def logits_of(model: TSN, clips: list[Tensor], crops: int = 1) -> tuple[Tensor, ...]:
    """Logits of clips, one at a time, averaged over crops, and over segments where they are."""
    each = []
    for clip in clips:
        frames = load_clip(
            clip,
            num_segments=model.num_segments,
            new_length=model.new_length,
            modality=model.modality,
        )
        # (crops * T*L*C, H, W) -> (crops, T*L*C, H, W)
        outputs = model(model.evaluation_transform(crops)(frames).unflatten(0, (crops, -1)))
        each.append([task.flatten(0, -2).mean(0) for task in outputs])
    return tuple(torch.stack(task) for task in zip(*each, strict=True))


def starts_by_hand(count: int, window: int, stride: int, hop: int) -> list[int]:
    """Return the first frames of windows, by trying all frames that count."""
    counted = list(range(0, count, stride))
    full = [start for start in counted if start % hop == 0 and start + window - stride in counted]
    return sorted({*full, max(counted[-1] - window + stride, 0)})


@pytest.mark.parametrize(
    ("kind", "grid"),
    [(kind, GRIDS[place % len(GRIDS)]) for place, kind in enumerate(KINDS)]
    + [(kind, grid) for kind in ("MTRN", "TSN flow", "TSM") for grid in GRIDS],
    ids=str,
)
def test_windows_have_the_logits_of_their_clips_and_snippets_are_seen_once(
    kind: str, grid: tuple[int, int, int, int]
) -> None:
    count, window, stride, hop = grid
    model = make(kind)
    source = frames_for(model, count)
    with counted_images(model) as seen:
        starts, logits = collect(model, source, window=window, stride=stride, hop=hop, batch_size=5)
    assert starts == starts_by_hand(count, window, stride, hop)
    read, source.decoded = source.decoded, []
    clips = [source.read(list(range(start, start + window, stride))) for start in starts]
    assert_close(logits, logits_of(model, clips))

    clip = stride * segment_indices(window // stride, 4, model.frames_per_snippet)
    # (T, L') -> (N, T, L')
    windows = torch.tensor(starts)[:, None, None] + clip
    snippets = {tuple(frames) for frames in windows.flatten(0, 1).tolist()}
    assert sum(seen) == (4 * len(starts) if model.variant == "TSM" else len(snippets))
    assert read == sorted({frame for snippet in snippets for frame in snippet})


@pytest.mark.parametrize("variant", ["TSN", "TRN", "MTRN"])
def test_at_hop_1_each_frame_of_the_video_is_seen_once(variant: str) -> None:
    with counted_images(tiny(variant)) as seen:
        starts, _ = collect(tiny(variant), NoiseFrames(30), hop=1)
    assert (len(starts), sum(seen)) == (27, 30)


@pytest.mark.parametrize("count", [1, 2, 5, 9])
@pytest.mark.parametrize("kind", ["TSN", "TSN flow", "TRN difference", "MTRN", "TSM", "TSM flow"])
def test_a_shorter_video_is_one_window_which_repeats_frames_as_short_clips_do(
    kind: str, count: int
) -> None:
    model = make(kind)
    source = frames_for(model, count)
    starts, logits = collect(model, source, window=10, hop=2)
    assert starts == [0]
    assert_close(logits, logits_of(model, [source.read(list(range(count)))]))


@pytest.mark.parametrize("crops", [3, 10])
@pytest.mark.parametrize("kind", ["MTRN", "TSN max", "TSN probabilities", "TSM pooled"])
def test_logits_are_averaged_over_crops(kind: str, crops: int) -> None:
    model = make(kind)
    source = frames_for(model, 9)
    starts, logits = collect(model, source, hop=2, crop_count=crops, batch_size=6)
    clips = [source.read(list(range(start, start + 4))) for start in starts]
    assert_close(logits, logits_of(model, clips, crops))


@pytest.mark.parametrize("variant", ["TSN", "MTRN", "TSM"])
def test_predictor_agrees(variant: str) -> None:
    source = NoiseFrames(17, size=(50, 41))
    model = tiny(variant)
    predictor = Predictor(model, crop_count=3)
    starts, logits = collect(predictor.model, source, window=8, hop=3, crop_count=3)
    clips = [predictor.load(source, start=start, stop=start + 8) for start in starts]
    assert_close(tuple(task.softmax(-1) for task in logits), predictor.probabilities(clips))


def test_half_precision_is_within_its_rounding() -> None:
    model = tiny("MTRN")
    fast = optimize_for_inference(model, dtype=torch.bfloat16)
    _, expected = collect(model, NoiseFrames(12), hop=1)
    _, logits = collect(fast, NoiseFrames(12), hop=1)
    for ours, theirs in zip(logits, expected, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).abs().max() < 0.05 * theirs.abs().max()


def test_one_task_gives_a_tensor() -> None:
    model = TSN(6, 2, "RGB", base_model="resnet18", pretrained=None).eval()
    ((starts, logits),) = window_logits(model, NoiseFrames(5))
    assert isinstance(logits, Tensor)
    assert (starts.tolist(), tuple(logits.shape)) == ([0, 2, 3], (3, 6))


def test_windows_are_the_last_ones_that_fit_and_one_that_ends_with_the_video() -> None:
    assert collect(tiny("TSN"), NoiseFrames(12))[0] == [0, 4, 8]
    assert collect(tiny("TSN"), NoiseFrames(13))[0] == [0, 4, 8, 9]
    # Of every third frame: 0, 3, ... 36.
    assert collect(tiny("TSN"), NoiseFrames(39), stride=3)[0] == [0, 12, 24, 27]


@pytest.mark.parametrize("kind", ["TSN flow", "MTRN", "TSM"])
def test_batches_do_not_matter(kind: str) -> None:
    model = make(kind)
    source = frames_for(model, 20)
    starts, one = collect(model, source, window=6, hop=1, batch_size=1)
    parts = [len(part) for part, _ in window_logits(model, source, window=6, hop=1, batch_size=8)]
    assert max(parts) == (2 if kind == "TSM" else 8)
    many_starts, many = collect(model, source, window=6, hop=1, batch_size=50)
    assert many_starts == starts
    assert_close(many, one)


def test_a_model_is_in_evaluation_mode_meanwhile_and_keeps_its_own() -> None:
    model = copy.deepcopy(tiny("TSN")).train()
    source = NoiseFrames(6)
    _, logits = collect(model, source)
    assert model.training
    assert not any(task.requires_grad for task in logits)
    assert_close(logits, collect(tiny("TSN"), source)[1])


def test_runs_side_by_side_of_a_model_in_training_do_not_disturb_it_or_one_another() -> None:
    model = copy.deepcopy(tiny("TSN")).train()
    before = copy.deepcopy(model.state_dict())
    _, expected = collect(tiny("TSN"), NoiseFrames(20))
    short, long = (window_logits(model, NoiseFrames(count), batch_size=1) for count in (8, 20))
    logits = []
    for _, (_, part) in zip_longest(short, long):
        assert model.training
        logits.append(part[1])
    assert_close(torch.cat(logits), expected[1])
    assert all(values.equal(before[name]) for name, values in model.state_dict().items())


def test_what_is_no_model_is_refused_at_once() -> None:
    for model in (nn.DataParallel(tiny("TSN")), "TSN"):
        with pytest.raises(ValueError, match=f"got {type(model).__name__} .*the module inside"):
            window_logits(model, NoiseFrames(9))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be a positive integer, got 0"),
        ({"window": 2.5}, "window must be a positive integer, got 2.5"),
        ({"window": 10, "stride": 4}, "window must be a multiple of stride, 4, got 10"),
        ({"hop": 6, "stride": 4}, "hop must be a multiple of stride, 4, got 6"),
        ({"hop": 0}, "hop must be a positive integer, got 0"),
        ({"stride": 0}, "stride must be a positive integer, got 0"),
        ({"crop_count": 2}, "crop_count must be 1, 3 or 10, got 2"),
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
    ],
)
def test_wrong_options_are_refused_at_once(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        window_logits(tiny("TSN"), NoiseFrames(9), **options)


def test_frames_of_another_modality_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="noise"):
        window_logits(tiny("TSN"), NoiseFrames(9, channels=2))


class MeanColours(nn.Module):
    """The cheapest of backbones."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)).repeat(1, 171)[:, :512]


class GreyFrames(FrameSource):
    """One grey frame, again and again."""

    name, channels = "grey", 3

    def __init__(self, count: int) -> None:
        self.count, self.frame = count, torch.full((3, 36, 36), 128, dtype=torch.uint8)

    def __len__(self) -> int:
        return self.count

    def _frames(self, indices: list[int]) -> Any:
        return ((index, self.frame) for index in indices)


def memory_of(model: TSN, source: FrameSource, **options: Any) -> int:
    peak = peak_memory(lambda: [None for _ in window_logits(model, source, **options)])
    if peak is None:
        pytest.skip("this system does not tell the peak of memory")
    return peak


@pytest.mark.parametrize("variant", ["TSN", "TSM"])
def test_memory_does_not_grow_with_the_video(variant: str) -> None:
    model, size = tiny(variant), (144, 160)
    memory_of(model, NoiseFrames(20, size=size))  # what the first run alone takes
    short = memory_of(model, NoiseFrames(20, size=size), hop=2)
    long = memory_of(model, NoiseFrames(400, size=size), hop=2)
    assert long < short + 16 * 2**20  # all frames are 28 MB


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["TSN", "TSM"])
def test_an_hour_takes_no_more_than_the_index_of_its_frames(variant: str) -> None:
    """At 60 frames per second and hop 1: less than one batch of a real backbone takes."""
    model = copy.deepcopy(tiny(variant))
    model.base_model = MeanColours()
    minute, hour = (memory_of(model, GreyFrames(60 * 60 * m), hop=1) for m in (1, 60))
    assert hour < minute + 64 * 2**20
