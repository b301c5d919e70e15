from collections import Counter

import numpy as np
import pytest
import torch
from helpers.small_tsn import small_tsn

from data.dataset import ClipDataset
from data.sampling import segment_indices
from data.synthetic_actions import ACTION_PAIRS, draw_action, make_actions
from data.video import open_frames
from epic.annotations import read_annotations
from trn import TRN

FORWARDS = [forwards for forwards, _ in ACTION_PAIRS]


def draw_clips(action: str, count: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    return np.stack([draw_action(action, generator) for _ in range(count)])


def is_object(frame: np.ndarray) -> np.ndarray:
    return frame.min(axis=-1) > 150


def place_of(frame: np.ndarray) -> float:
    """Return where the object is in the round; the ground, which is everywhere, has no say."""
    return float(np.angle(is_object(frame).sum(0) @ np.exp(2j * np.pi * (np.arange(64) / 64))))


def area_of(frame: np.ndarray) -> float:
    return float(is_object(frame).sum())


def extent_of(frame: np.ndarray) -> float:
    return float(np.ptp(np.flatnonzero(is_object(frame).any(0))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_actions(
        tmp_path_factory.mktemp("actions"), train_count=2, validation_count=1, seed=3
    )


def twin_path(path: str) -> str:
    for first, second in ACTION_PAIRS:
        path = path.replace(first.replace(" ", "-"), second.replace(" ", "-"))
    return path


def test_clips_are_frames_of_64_pixels_that_all_differ() -> None:
    for action in FORWARDS:
        clip = draw_clips(action, 1)[0]
        assert clip.shape == (12, 64, 64, 3)
        assert clip.dtype == np.uint8
        assert len(np.unique(clip, axis=0)) == 12


@pytest.mark.parametrize(
    ("action", "measure"), [("move right", place_of), ("grow", area_of), ("open", extent_of)]
)
def test_actions_are_what_they_are_called(action, measure) -> None:
    steps = np.diff([[measure(frame) for frame in clip] for clip in draw_clips(action, 20)])
    assert ((steps < 0).sum(axis=1) <= 1).all()  # where a new round starts
    assert 0.2 < (steps < 0).any(axis=1).mean() < 0.8


def test_the_classes_of_a_pair_have_the_same_files_in_reverse_order(folder) -> None:
    paths = [segment.video for segment in read_annotations(folder / "train.csv")]
    assert len(paths) == 12
    for path in paths[::2]:
        files = sorted((folder / path).iterdir())
        twins = sorted((folder / twin_path(path)).iterdir())
        assert twin_path(path) in paths
        assert [file.name for file in files] == [file.name for file in twins]
        assert [file.read_bytes() for file in files] == [t.read_bytes() for t in reversed(twins)]
        assert torch.equal(
            open_frames(folder / path).read(range(12)),
            open_frames(folder / twin_path(path)).read(range(12)).flip(0),
        )


def test_every_class_has_as_many_clips_and_no_scene_occurs_twice(folder) -> None:
    scenes = []
    for name, count in (("train", 2), ("validation", 1)):
        segments = read_annotations(folder / f"{name}.csv")
        labels = Counter(segment.label for segment in segments)
        assert labels == {label: count for pair in ACTION_PAIRS for label in pair}
        scenes += [(folder / s.video / "frame_0000000006.jpg").read_bytes() for s in segments]
    assert len(set(scenes)) == 18


def test_the_set_is_a_clip_dataset_and_depends_on_the_seed_alone(folder, tmp_path) -> None:
    def load(root):
        segments = read_annotations(root / "train.csv")
        clips = ClipDataset(segments, root, modality="RGB", num_segments=4)
        assert not clips.problems()
        return torch.stack([item["clip"] for item in clips])

    clips = load(folder)
    assert clips.shape == (12, 4, 3, 64, 64)
    assert torch.equal(
        load(make_actions(tmp_path, train_count=2, validation_count=1, seed=3)), clips
    )
    other = make_actions(tmp_path, train_count=2, validation_count=1, seed=4)  # replaces
    assert not torch.equal(load(other), clips)


@pytest.mark.parametrize("num_segments", [4, 8])
def test_tsn_cannot_tell_a_clip_from_its_reverse_and_trn_can(num_segments) -> None:
    indices = segment_indices(12, num_segments, 1).flatten()
    assert torch.equal(11 - indices.flip(0), indices)
    clip = torch.from_numpy(draw_clips("move right", 1)[0]).permute(0, 3, 1, 2)
    torch.manual_seed(0)
    trn = TRN(6, num_segments, "RGB", base_model="resnet18", pretrained=None).eval()
    for model, is_blind in ((small_tsn(6, num_segments).eval(), True), (trn, False)):
        transform = model.evaluation_transform()
        with torch.inference_mode():
            logits, twin = (
                model(transform(frames[indices]).unsqueeze(0)) for frames in (clip, clip.flip(0))
            )
        assert torch.allclose(logits, twin, atol=1e-6) is is_blind


@pytest.mark.parametrize("action", FORWARDS)
def test_a_linear_probe_of_one_frame_does_not_tell_the_class(action: str) -> None:
    """Where the object is, at 8 x 8 places, in the first, a middle or the last frame."""
    clips = is_object(draw_clips(action, 300))
    marks = clips.reshape(300, 12, 8, 8, 8, 8).mean((3, 5)).reshape(300, 12, 64)
    marks = np.concatenate([marks, np.ones((300, 12, 1))], axis=2)
    labels = np.tile([1.0, -1.0], (300, 1))  # of twins
    for frame in (0, 5, 11):
        features = marks[:, [frame, 11 - frame]]
        weights = np.linalg.lstsq(
            features[:200].reshape(400, 65), labels[:200].ravel(), rcond=None
        )[0]
        accuracy = (np.sign(features[200:] @ weights) == labels[200:]).mean()
        assert 0.4 < accuracy < 0.6


def test_unknown_actions_and_counts_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="action must be"):
        draw_action("close", np.random.default_rng(0))
    with pytest.raises(ValueError, match="train_count"):
        make_actions(tmp_path, train_count=0)
