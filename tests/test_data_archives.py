"""Tars of numbered images, read in place."""

import io
import multiprocessing
import pickle
import random
import tarfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from helpers.numbered_images import save, values
from helpers.tars import image, rgb, tar_of

from data.archives import is_tar
from data.video import FlowFolder, FrameFolder, load_clip, open_frames


def link(target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
@pytest.mark.parametrize("name", ["frame_{:010d}.jpg", "./img_{}.png", "/img_{}.png"])
def test_frames_of_a_tar_in_any_order(name, tar_format, tmp_path):
    members = rgb([12, 1, 3, 2, 7], name) | {"./._frame_4.jpg": b"", "notes.txt": b"0"}
    path = tar_of(tmp_path / "P01_01.tar", members, format=tar_format)
    source = open_frames(path)
    assert isinstance(source, FrameFolder)
    assert (len(source), source.channels, source.name) == (5, 3, str(path))
    assert source.numbers.tolist() == [1, 2, 3, 7, 12]
    assert values(source.read([4, 0, 1, 4])) == [[12] * 3, [1] * 3, [2] * 3, [12] * 3]
    frames = load_clip(path, num_segments=3, start=2, stop=8, by_number=True)
    assert values(frames) == [[3] * 3, [3] * 3, [7] * 3]  # 3, 5 and 7


@pytest.mark.parametrize(
    "names",
    [
        ("u/frame_{:010d}.jpg", "v/frame_{:010d}.jpg"),
        ("./u/frame_{}.jpg", "./v/frame_{}.jpg"),
        ("x_{:05d}.jpg", "y_{:05d}.jpg"),
    ],
)
def test_flow_of_a_tar(names, tmp_path):
    members = {}
    for number in (2, 1, 3):
        for base, name in zip((100, 200), names, strict=True):
            members[name.format(number)] = image(base + number, "L")
    path = tar_of(tmp_path / "flow", members)  # whatever it is called
    source = open_frames(path, "Flow")
    assert isinstance(source, FlowFolder)
    assert source.numbers.tolist() == [1, 2, 3]
    assert values(source.read([2, 0])) == [[103, 203], [101, 201]]


def test_a_tar_made_of_a_folder_is_like_the_folder(tmp_path):
    for number in (1, 2):
        save(tmp_path / "clip", f"u/img_{number}.png", 10 + number, "L")
        save(tmp_path / "clip", f"v/img_{number}.png", 20 + number, "L")
    with tarfile.open(tmp_path / "clip.tar", "w") as tar:
        tar.add(tmp_path / "clip", arcname=".")
    folder, archive = (open_frames(tmp_path / name, "Flow") for name in ("clip", "clip.tar"))
    assert torch.equal(archive.read([0, 1]), folder.read([0, 1]))


def test_the_last_of_members_with_one_name_counts(tmp_path):
    path = tar_of(tmp_path / "a.tar", rgb([1, 2]))
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("./frame_0000000001.jpg")
        info.size = len(image(9))
        tar.addfile(info, io.BytesIO(image(9)))
    assert values(open_frames(path).read([0, 1])) == [[9] * 3, [2] * 3]


def test_links_in_a_tar(tmp_path):
    members = rgb([1]) | {
        "frame_2.jpg": link("./frame_0000000001.jpg", tarfile.LNKTYPE),
        "frame_3.jpg": link("frame_0000000001.jpg", tarfile.SYMTYPE),
    }
    source = open_frames(tar_of(tmp_path / "a.tar", members))
    assert values(source.read([0, 1])) == [[1] * 3, [1] * 3]
    with pytest.raises(ValueError, match=r"a\.tar: frame_3\.jpg: is no plain file .* unpack it"):
        source.read([2])


@pytest.mark.parametrize(
    ("members", "modality", "message"),
    [
        ({}, "RGB", "accepted are a video file"),  # nothing but zeros
        ({"notes.txt": b"1"}, "RGB", r"no numbered RGB images; accepted are"),
        (rgb([1], "P01_01/img_{}.jpg"), "RGB", r"images in .*a\.tar: P01_01: give the folder of"),
        (rgb([1]) | rgb([1], "img_{}.jpg"), "RGB", r"several: frame_\*, img_\*"),
        (rgb([1]) | rgb([1], "frame_{}.jpg"), "RGB", r"frame_1\.jpg has the same number as"),
        (rgb([1]), "Flow", "no flow images; accepted is one of"),
        (rgb([1, 2], "u/{}.jpg") | rgb([1], "v/{}.jpg"), "Flow", r"v/\* lacks 1 numbers: 2"),
    ],
)
def test_tars_that_hold_no_clip(members, modality, message, tmp_path):
    pytest.importorskip("av")
    path = tar_of(tmp_path / "a.tar", members)
    with pytest.raises(ValueError, match=message) as error:
        open_frames(path, modality)
    assert str(path) in str(error.value)


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    path = tar_of(tmp_path / "a.tar", rgb([1]) | {"frame_2.jpg": b"hello"})
    with pytest.raises(ValueError, match=r"a\.tar: frame_2\.jpg: not an 8-bit image"):
        open_frames(path).read([1])


def test_damaged_tars_are_named(tmp_path):
    sound = tar_of(tmp_path / "a.tar", rgb([1, 2, 3])).read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        third, end = tar.getmembers()[2], tar.offset
    assert len(open_frames(io.BytesIO(sound[:end]))) == 3  # some programs write no end
    for data in (
        sound[: third.offset_data + 10],
        sound[: third.offset + 100],
        sound[: third.offset] + random.Random(0).randbytes(2000),
    ):
        path = tmp_path / "cut.tar"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"cut\.tar: .*damaged"):
            open_frames(path)


@pytest.mark.parametrize("behind", ["zeros", "hole", "archive"])
def test_a_tar_that_goes_on_behind_its_end_is_refused(behind, tmp_path):
    path = tar_of(tmp_path / "x.tar", rgb(list(range(1, 9))))
    data = path.read_bytes()
    if behind == "hole":  # where a header should be
        with tarfile.open(path) as tar:
            place = tar.getmembers()[4].offset
        data = data[:place] + bytes(512) + data[place + 512 :]
    else:
        data += bytes(2 << 20) if behind == "zeros" else data
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.tar: a tar file that is damaged or incomplete"):
        open_frames(path)


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_compressed_tars_are_refused(compression, tmp_path):
    path = tar_of(tmp_path / "frames.tar", rgb([1]), mode=f"w:{compression}")
    assert tarfile.is_tarfile(path)
    for clip in (path, path.read_bytes()):
        for modality in ("RGB", "Flow"):
            with pytest.raises(ValueError, match=r"compressed file \(\w+\): unpack it first"):
                open_frames(clip, modality)


def test_only_tars_are_taken_for_tars(tmp_path):
    chance = random.Random(0)
    old = bytearray(tar_of(tmp_path / "a.tar", rgb([1])).read_bytes()[:512])
    assert is_tar(io.BytesIO(old))
    old[257:265] = bytes(8)  # as before POSIX, with no magic
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old)
    assert is_tar(io.BytesIO(old))
    old[3] ^= 1
    for data in (old, b"", bytes(512), b"\0\0\0\x20ftypisom" + chance.randbytes(600)):
        assert not is_tar(io.BytesIO(data))


def test_a_tar_is_pickled_without_its_images(tmp_path):
    path = tar_of(tmp_path / "a.tar", rgb([1, 2]) | {"big.bin": bytes(100_000)})
    data = pickle.dumps(open_frames(path))
    assert len(data) < 5000
    assert values(pickle.loads(data).read([1])) == [[2] * 3]


class Slow(io.BytesIO):
    """A file object that other threads come between when it has been put in its place."""

    def seek(self, *place: int) -> int:
        position = super().seek(*place)
        time.sleep(0.0001)
        return position


def read_all(source: FrameFolder, order: list[int]) -> list[list[int]]:
    return values(torch.cat([source.read([index]) for index in order]))


@pytest.mark.parametrize(
    "opened", [str, lambda path: Slow(path.read_bytes()), lambda path: path.open("rb")]
)
def test_threads_do_not_disturb_one_another(opened, tmp_path):
    path = tar_of(tmp_path / "a.tar", rgb(list(range(40))))
    source = open_frames(opened(path))
    together = threading.Barrier(4)

    def work(seed: int) -> bool:
        order = random.Random(seed).sample(range(40), 40)
        together.wait()
        return read_all(source, order) == [[index] * 3 for index in order]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def check_in_process(source: FrameFolder, seed: int, barrier: object, wrong: object) -> None:
    order = random.Random(seed).sample(range(40), 40) * 5
    barrier.wait()
    try:
        right = read_all(source, order) == [[index] * 3 for index in order]
    except ValueError:
        right = False
    if not right:
        wrong.set()


@pytest.mark.parametrize("opened", [str, lambda path: path.open("rb")])
def test_forked_processes_do_not_disturb_one_another(opened: Callable[[Path], object], tmp_path):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this system")
    context = multiprocessing.get_context("fork")
    source = open_frames(opened(tar_of(tmp_path / "a.tar", rgb(list(range(40))))))
    barrier, wrong = context.Barrier(2), context.Event()
    workers = [
        context.Process(target=check_in_process, args=(source, seed, barrier, wrong))
        for seed in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert not wrong.is_set()
