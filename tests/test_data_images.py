"""Folders of numbered images: which belong to a clip, in which order, and what is refused."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.numbered_images import save, values
from PIL import ExifTags, Image

from data.video import FlowFolder, FrameFolder, open_frames


@pytest.mark.parametrize(
    "name", ["frame_{:010d}.jpg", "img_{:05d}.jpg", "img_{}.JPEG", "P01_01 {}.Png", "{}.png"]
)
def test_rgb_folders_are_sorted_by_number(name, tmp_path):
    for number in (10, 9, 1, 100, 2):
        save(tmp_path, name.format(number), number)
    save(tmp_path, "cover.jpg", 0)  # no number
    save(tmp_path, "._" + name.format(3), 0)  # what some systems leave behind
    (tmp_path / "notes_1.txt").write_text("")
    (tmp_path / name.format(7)).mkdir()
    source = open_frames(tmp_path)
    assert isinstance(source, FrameFolder)
    assert (len(source), source.channels, source.fps) == (5, 3, None)
    assert values(source.read([0, 1, 2, 3, 4, 1])) == [[v] * 3 for v in (1, 2, 9, 10, 100, 2)]


def test_a_mixed_folder_has_rgb_and_flow(tmp_path):
    for number in range(1, 4):
        save(tmp_path, f"img_{number}.jpg", number)
        save(tmp_path, f"thumbnail_{number}.jpg", 99)  # frame_ and img_ come before others
    for number in range(1, 3):
        save(tmp_path, f"x_{number}.jpg", 10 + number, "L")
        save(tmp_path, f"y_{number}.jpg", 20 + number, "L")
    assert values(open_frames(tmp_path).read([0, 1, 2])) == [[1] * 3, [2] * 3, [3] * 3]
    assert values(open_frames(tmp_path, "Flow").read([1, 0])) == [[12, 22], [11, 21]]


@pytest.mark.parametrize(
    "names",
    [
        ("u/frame_{:010d}.jpg", "v/frame_{:010d}.jpg"),
        ("x_{:05d}.jpg", "y_{:05d}.jpg"),
        ("flow_x_{:05d}.jpg", "flow_y_{:05d}.jpg"),
        ("U_{}.PNG", "v_{}.jpg"),
    ],
)
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_flow_folders(names, mode, tmp_path):
    for number in (10, 9, 1):
        for base, name in zip((100, 200), names, strict=True):
            path = tmp_path / name.format(number)
            path.parent.mkdir(exist_ok=True)
            grey = Image.new("L", (12, 10), base + number)
            grey.convert(mode).save(path, format="PNG")
    source = open_frames(tmp_path, "flow")
    assert isinstance(source, FlowFolder)
    assert (len(source), source.channels) == (3, 2)
    assert source.read([0]).shape == (1, 2, 10, 12)
    assert values(source.read([2, 0, 1])) == [[110, 210], [101, 201], [109, 209]]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x_1.jpg", "x_2.jpg", "y_1.jpg"], r"x_\* has 2 images and y_\* has 1; y_\* lacks.*: 2"),
        (["u/1.jpg", "v/1.jpg", "v/5.jpg"], r"u/\* has 1 .* v/\* has 2; u/\* lacks 1 numbers: 5"),
        (["x_1.jpg", "y_2.jpg"], r"x_\* lacks 1 numbers: 2"),
        (["u/1.jpg", "u/2.jpg"], r"v/\* has 0; v/\* lacks 2 numbers: 1, 2"),
        (["u/notes.txt", "v/notes.txt"], r"u/ and v/ hold no numbered images"),
        (["a/u/1.jpg", "a/v/1.jpg", "b/x_1.jpg"], r"images in .*a and 1 more: give the folder of"),
        (["x_1.jpg", "y_1.jpg", "u/1.jpg", "v/1.jpg"], r"has x_\*, y_\* and u/\*, v/\*"),
        (["box_1.jpg", "boy_1.jpg"], "no flow images; accepted is one of"),
        (["img_1.jpg"], "no flow images; accepted is one of: a folder with sub-folders u/"),
        (["u/a_1.jpg", "u/b_1.jpg", "v/a_1.jpg"], r"several: a_\*, b_\*"),
    ],
)
def test_flow_folders_that_do_not_match(names, message, tmp_path):
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=message) as error:
        open_frames(tmp_path, "Flow")
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no numbered RGB images; accepted are"),
        (["notes.txt", "cover.jpg", "clip_1.mp4"], "no numbered RGB images; accepted are"),
        (["x_1.jpg", "y_1.jpg"], r"but flow images x_\*, which modality 'Flow' reads"),
        (["P01/P01_01/frame_1.jpg"], "no numbered RGB images; accepted are"),
        (
            ["P01_01/frame_1.jpg"],
            r"\(but there are images in .*P01_01: give the folder of one clip",
        ),
        (["img_1.jpg", "frame_1.jpg"], r"several: frame_\*, img_\*"),
        (["left_1.jpg", "right_1.jpg"], r"several: left_\*, right_\*"),
        (["img_1.jpg", "img_01.jpg"], r"img_.*1\.jpg has the same number as .*img_.*1\.jpg"),
    ],
)
def test_rgb_folders_that_are_none(names, message, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=message) as error:
        open_frames(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_images_that_cannot_be_read_are_named(tmp_path):
    save(tmp_path, "img_1.png", 1)
    (tmp_path / "img_2.png").write_bytes((tmp_path / "img_1.png").read_bytes()[:40])
    (tmp_path / "img_3.png").write_bytes(b"hello")
    Image.new("I;16", (12, 10), 300).save(tmp_path / "img_4.png")
    save(tmp_path, "img_5.png", 1, size=(12, 11))
    source = open_frames(tmp_path)
    for index in (1, 2, 3):
        with pytest.raises(ValueError, match=rf"img_{index + 1}\.png: not an 8-bit image"):
            source.read([index])
    with pytest.raises(ValueError, match=r"one size.*12 x 11.*12 x 10"):
        source.read([0, 4])


@pytest.mark.parametrize("linked", [False, True])
def test_a_named_pipe_among_images_is_refused(linked, tmp_path, monkeypatch):
    save(tmp_path, "img_1.png", 1)
    pipe = tmp_path / ("pipe" if linked else "img_2.png")
    os.mkfifo(pipe)
    if linked:
        (tmp_path / "img_2.png").symlink_to(pipe)
    source = open_frames(tmp_path)
    assert values(source.read([0])) == [[1] * 3]
    monkeypatch.setattr(Image, "open", lambda path: pytest.fail(f"{path} would never be read"))
    with pytest.raises(ValueError, match=r"img_2\.png: must be a regular file, not a pipe"):
        source.read([1])


def test_flow_images_of_different_sizes_are_refused(tmp_path):
    save(tmp_path, "x_1.png", 1, "L")
    save(tmp_path, "y_1.png", 1, "L", size=(12, 11))
    with pytest.raises(ValueError, match=r"x_1\.png: u is 12 x 10 and v 12 x 11"):
        open_frames(tmp_path, "Flow").read([0])


# --- flow beside flow ----------------------------------------------------------------------------


def flow(folder: Path, *clips: str) -> Path:
    """Three pairs of u (10 + number) and v (20 + number) for each clip."""
    for clip in clips:
        for number in (1, 2, 3):
            save(folder / "u" / clip, f"frame_{number}.jpg", 10 + number, "L")
            save(folder / "v" / clip, f"frame_{number}.jpg", 20 + number, "L")
    return folder


@pytest.mark.parametrize("place", ["u/P01_01", "v/P01_01/", "P01_01", "."])
def test_flow_of_a_clip_in_folders_of_all_u_and_v(place, tmp_path, monkeypatch):
    flow(tmp_path, "P01_01", *(["P01_02"] if "P01" in place else []))
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / place, place):
        source = open_frames(path, "Flow")
        assert values(source.read([0, 2])) == [[11, 21], [13, 23]]
        assert source.numbers.tolist() == [1, 2, 3]


def test_flow_of_linked_clips(tmp_path):
    """The two links lead far from one another, and from the folders that pair them."""
    flow(tmp_path / "far", "")
    for half in "uv":
        (tmp_path / half).mkdir()
        (tmp_path / half / "clip").symlink_to(tmp_path / "far" / half)
    for place in ("u/clip", "clip"):
        assert values(open_frames(tmp_path / place, "Flow").read([1])) == [[12, 22]]


def test_flow_of_several_clips_is_refused(tmp_path):
    flow(tmp_path, *(f"c{number}" for number in range(7)))
    message = rf"several clips, c0, c1, c2, c3, c4 and 2 more: give one .* such as {tmp_path}/c0"
    with pytest.raises(ValueError, match=message):
        open_frames(tmp_path, "Flow")
    with pytest.raises(FileNotFoundError, match="c7"):
        open_frames(tmp_path / "c7", "Flow")
    with pytest.raises(FileNotFoundError, match="c1"):
        open_frames(tmp_path / "c1")


def test_flow_of_a_clip_without_its_other_half_is_refused(tmp_path):
    flow(tmp_path, "clip")
    (tmp_path / "v/clip/frame_2.jpg").unlink()
    with pytest.raises(ValueError, match=r"u/clip/\* has 3 images and v/clip/\* has 2; .*: 2"):
        open_frames(tmp_path / "clip", "Flow")
    for image in (tmp_path / "v/clip").iterdir():
        image.unlink()
    (tmp_path / "v/clip").rmdir()
    with pytest.raises(ValueError, match=r"v/clip/\* has 0"):
        open_frames(tmp_path, "Flow")
    with pytest.raises(FileNotFoundError, match=r"clip: no such"):
        open_frames(tmp_path / "clip", "Flow")


FLOW_NAMES = ["ID-x_{:05d}.jpg", "a_b_flow_x_{}.png", "P01_01 u_{}.jpg", "flow_x_{}.jpg"]


@pytest.mark.parametrize("name", FLOW_NAMES)
def test_flow_names_with_a_common_beginning(name, tmp_path):
    for number in (1, 2):
        save(tmp_path, name.format(number), 10 + number, "L")
        other = name.replace("x_{", "y_{").replace("u_{", "v_{")
        save(tmp_path, other.format(number), 20 + number, "L")
    assert values(open_frames(tmp_path, "Flow").read([1, 0])) == [[12, 22], [11, 21]]
    with pytest.raises(ValueError, match="but flow images"):
        open_frames(tmp_path)
    for number in (1, 2):
        save(tmp_path, f"other_{number}.jpg", number)
    assert values(open_frames(tmp_path).read([1])) == [[2] * 3]


def test_flow_of_several_ids_is_refused(tmp_path):
    for name in ("a-x_1.jpg", "a-y_1.jpg", "b-x_1.jpg", "b-y_1.jpg"):
        save(tmp_path, name, 1, "L")
    with pytest.raises(ValueError, match=r"has a-x_\*, a-y_\* and b-x_\*, b-y_\*; accepted"):
        open_frames(tmp_path, "Flow")


@pytest.mark.parametrize("prefix", ["box_", "cam_x_", "menu_", "left-u_"])
def test_rgb_names_that_end_like_flow(prefix, tmp_path):
    for number in (1, 2):
        save(tmp_path, f"{prefix}{number}.jpg", number)
    assert values(open_frames(tmp_path).read([1])) == [[2] * 3]


# --- links, numbers, orientation -----------------------------------------------------------------


def test_dangling_links_keep_their_place(tmp_path):
    save(tmp_path / "real", "a.png", 1)
    for number in (1, 2, 3):
        target = tmp_path / "real" / ("a.png" if number != 2 else "missing.png")
        (tmp_path / f"img_{number}.png").symlink_to(target)
    source = open_frames(tmp_path)
    assert source.numbers.tolist() == [1, 2, 3]
    assert values(source.read([0, 2])) == [[1] * 3, [1] * 3]
    with pytest.raises(ValueError, match=r"img_2\.png: not an 8-bit image .*No such file"):
        source.read([1])


def test_listing_does_not_look_at_each_file(tmp_path, monkeypatch):
    for number in range(20):
        save(tmp_path / "real", f"{number}.png", number)
        (tmp_path / f"img_{number}.png").symlink_to(tmp_path / "real" / f"{number}.png")
    looks = []
    scandir = os.scandir

    class Entry:
        def __init__(self, entry):
            self.name = entry.name
            self._entry = entry

        def is_dir(self, *, follow_symlinks=True):
            looks.extend([self.name] * (follow_symlinks and self._entry.is_symlink()))
            return self._entry.is_dir(follow_symlinks=follow_symlinks)

    @contextlib.contextmanager
    def noted(path):
        with scandir(path) as entries:
            yield map(Entry, entries)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", noted)
        assert len(FrameFolder(tmp_path)) == 20
    assert not looks


def test_numbers_that_no_int64_holds_are_refused(tmp_path):
    save(tmp_path, f"img_{2**63 - 1}.png", 1)
    assert FrameFolder(tmp_path).numbers.tolist() == [2**63 - 1]
    save(tmp_path, f"img_{2**63}.png", 1)
    with pytest.raises(ValueError, match=rf"the number of img_{2**63}\.png must be at most"):
        FrameFolder(tmp_path)


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation, ending, tmp_path):
    upright = Image.fromarray((np.arange(24).reshape(2, 4, 3) * 10).astype(np.uint8))
    upright = upright.resize((64, 32), Image.Resampling.NEAREST)
    turn = {  # what undoes the orientation, reversed
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(turn[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored.save(tmp_path / f"img_1.{ending}", exif=exif, quality=100, subsampling=0)
    (frame,) = open_frames(tmp_path).read([0])
    difference = frame.permute(1, 2, 0).int() - torch.from_numpy(np.array(upright)).int()
    assert difference.abs().max() <= (3 if ending == "jpg" else 0)

    image = Image.open(tmp_path / f"img_1.{ending}")  # in memory: its owner has seen to it
    assert open_frames([image]).read([0]).shape[2:] == (stored.height, stored.width)


def test_flow_is_not_turned(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for half in "uv":
        Image.new("L", (8, 4)).save(tmp_path / f"{half}_1.png", exif=exif)
    assert open_frames(tmp_path, "Flow").read([0]).shape == (1, 2, 4, 8)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage!", b"\1\2", b"Exif\0\0"])
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_damaged_orientation_is_no_reason_to_refuse_an_image(exif, ending, tmp_path):
    Image.new("RGB", (8, 4), (7, 7, 7)).save(tmp_path / f"img_1.{ending}", exif=exif)
    assert values(open_frames(tmp_path).read([0])) == [[7] * 3]


def test_real_folder(epic_test_data):
    folder = epic_test_data / "clips" / "frames"
    rgb, flow = open_frames(folder), open_frames(folder, "Flow")
    assert rgb.numbers.tolist() == list(range(1, 11))
    assert flow.index_of(5) == 4
    assert torch.equal(torch.cat(list(rgb.blocks(4))), rgb.read(range(10)))
    assert open_frames(folder, short_side=120).read([0]).shape == (1, 3, 120, 160)
