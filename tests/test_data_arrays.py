"""Frames in memory: arrays and tensors in both layouts, lists of images."""

import numpy as np
import pytest
import torch
from helpers.numbered_images import values
from PIL import Image

from data.video import FrameArray, FrameImages, open_frames


@pytest.mark.parametrize(("modality", "channels"), [("RGB", 3), ("Flow", 2), ("RGBDiff", 3)])
@pytest.mark.parametrize("kind", ["array", "tensor", "flipped", "read-only"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_arrays_in_both_layouts(modality, channels, kind, channels_last):
    first = torch.arange(5 * channels * 6 * 7, dtype=torch.uint8).reshape(5, channels, 6, 7)
    clip = first.permute(0, 2, 3, 1) if channels_last else first
    if kind != "tensor":
        clip = clip.numpy()
    if kind == "flipped":
        clip, first = clip[::-1], first.flip(0)
    if kind == "read-only":
        clip.flags.writeable = False
    source = open_frames(clip, modality)
    assert isinstance(source, FrameArray)
    assert (len(source), source.channels) == (5, channels)
    frames = source.read([4, 0, 4])
    assert torch.equal(frames, first[[4, 0, 4]])
    frames.zero_()  # a copy
    assert torch.equal(source.read([1]), first[[1]])


def test_channels_first_wins_where_both_could_be_meant():
    clip = torch.randint(256, (2, 3, 8, 3), dtype=torch.uint8)
    assert torch.equal(open_frames(clip).read([1]), clip[[1]])


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), "uint8.*float32"),
        (torch.zeros(2, 3, 8, 8), "uint8.*torch.float32"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "uint8.*torch.int64"),
        (np.zeros((8, 8, 3), np.uint8), r"at least one frame.*\(8, 8, 3\)"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"\(frames, 3, H, W\).*\(2, 8, 8, 4\)"),
        (np.zeros((2, 8, 8, 2), np.uint8), r"\(frames, 3, H, W\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"at least one frame.*\(0, 8, 8, 3\)"),
        (np.zeros((2, 0, 8, 3), np.uint8), "at least one frame and pixel"),
        ([], "list of PIL images, got an empty one"),
        ([np.zeros((8, 8, 3), np.uint8)], "list of PIL images, got one with a ndarray"),
        (7, "clip must be a video file, .*, got a int"),
        (None, "clip must be .* got a NoneType"),
        (Image.new("RGB", (8, 8)), "clip must be .* got a Image"),  # which can seek, not read
    ],
)
def test_things_that_are_no_clip(clip, message):
    with pytest.raises(ValueError, match=message):
        open_frames(clip)


def test_lists_of_images():
    images = [Image.new(mode, (7, 6), 40 + i) for i, mode in enumerate(["L", "L"])]
    images.append(Image.new("RGB", (7, 6), (1, 2, 3)))
    source = open_frames(images)
    assert isinstance(source, FrameImages)
    assert values(source.read([2, 0, 1])) == [[1, 2, 3], [40] * 3, [41] * 3]


def test_lists_of_flow_images():
    images = [Image.new("L", (7, 6), value) for value in range(6)]
    source = open_frames(tuple(images), "Flow")
    assert (len(source), source.channels) == (3, 2)
    assert values(source.read([2, 0])) == [[4, 5], [0, 1]]
    for wrong in (images[:5], [image.convert("RGB") for image in images]):
        with pytest.raises(ValueError, match=r"u, v, u, v, \.\.\., got \d images of mode"):
            open_frames(wrong, "Flow")


def test_sparse_tensors_are_no_clips():
    frames = torch.zeros(4, 3, 8, 8, dtype=torch.uint8).to_sparse()
    with pytest.raises(ValueError, match=r"dense tensor, got one of layout torch\.sparse_coo"):
        open_frames(frames)
