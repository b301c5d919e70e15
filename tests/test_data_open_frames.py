"""What `open_frames` takes: paths, opened once, and file objects; and what it refuses."""

import io
import mmap
import os
import pickle
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from helpers.numbered_images import save, values
from helpers.tars import rgb, tar_of

from data.video import (
    FlowFolder,
    FrameArray,
    FrameFolder,
    FrameSource,
    VideoFile,
    keep_sources,
    open_frames,
)


class Stub(FrameSource):
    """In the place of `VideoFile`: notes what it is given."""

    channels = 3
    opened: list[object]

    def __init__(self, file: object, *, strict=False) -> None:
        self.name = f"stub of {file!r}"
        self.file = file
        self.opened.append(file)

    def __len__(self) -> int:
        return 1

    def _frames(self, indices):
        yield 0, torch.zeros(3, 4, 4, dtype=torch.uint8)


@pytest.fixture
def stub(monkeypatch) -> type[Stub]:
    monkeypatch.setattr("data.video.VideoFile", Stub)
    monkeypatch.setattr(Stub, "opened", [], raising=False)
    return Stub


@pytest.fixture
def counted(monkeypatch) -> list[str]:
    """The folders and tars that are listed."""
    listed: list[str] = []
    for kind in (FrameFolder, FlowFolder):
        original = kind.__init__

        def noted(self, path, original=original):
            listed.append(str(path))
            original(self, path)

        monkeypatch.setattr(kind, "__init__", noted)
    return listed


def touch(path: Path) -> None:
    """Moves the times of a file or folder, which a change in the same tick of the clock may not."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))


# --- opening again -------------------------------------------------------------------------------


def test_a_folder_is_opened_once_until_it_changes(counted, tmp_path, monkeypatch):
    for number in (1, 2):
        save(tmp_path / "clip", f"img_{number}.png", number)
    (tmp_path / "link").symlink_to(tmp_path / "clip")
    monkeypatch.chdir(tmp_path)
    source = open_frames(tmp_path / "clip")
    for same in ("clip", "./clip/", str(tmp_path / "clip"), "link", tmp_path / "link/../clip"):
        assert open_frames(same) is source
        assert open_frames(same, "RGBDiff") is source
    assert len(counted) == 1

    save(tmp_path / "clip", "img_3.png", 3)
    touch(tmp_path / "clip")
    changed = open_frames("clip")
    assert (len(source), len(changed), len(counted)) == (2, 3, 2)
    (tmp_path / "clip/img_1.png").unlink()
    touch(tmp_path / "clip")
    assert values(open_frames("clip").read([0])) == [[2] * 3]


def test_the_kinds_of_one_folder_are_opened_apart(counted, tmp_path):
    for name in ("img_1.png", "x_1.png", "y_1.png"):
        save(tmp_path, name, 1)
    for _ in range(2):
        assert open_frames(tmp_path).channels == 3
        assert open_frames(tmp_path, "Flow").channels == 2
    assert len(counted) == 2


@pytest.mark.parametrize("layout", ["{}/img_{}.png", "{}/clip/img_{}.png"])
@pytest.mark.parametrize("half", ["u", "v"])
def test_flow_is_opened_anew_when_either_folder_changes(layout, half, counted, tmp_path):
    for number in (1, 2, 3):
        for folder in "uv":
            save(tmp_path, layout.format(folder, number), number, "L")
    places = [tmp_path, *([tmp_path / "clip", tmp_path / "u/clip"] if "clip" in layout else [])]
    for place in places:
        counted.clear()
        assert open_frames(place, "Flow") is open_frames(place, "Flow")
        assert len(counted) == 1
    changed = tmp_path / layout.format(half, 3)
    changed.unlink()
    touch(changed.parent)
    for place in places:
        with pytest.raises(ValueError, match="lacks 1 numbers: 3"):
            open_frames(place, "Flow")


def test_another_clip_beside_does_not_matter(counted, tmp_path):
    for clip in ("one", "two"):
        for half in "uv":
            save(tmp_path / half / clip, "1.png", 1, "L")
        if clip == "one":
            source = open_frames(tmp_path / "one", "Flow")
    assert open_frames(tmp_path / "one", "Flow") is source
    with pytest.raises(ValueError, match="several clips"):
        open_frames(tmp_path, "Flow")


def test_a_replaced_file_is_opened_anew(stub, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"first")
    first = open_frames(path)
    assert open_frames(str(path)) is first
    other = tmp_path / "other"
    other.write_bytes(b"other")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)  # of the same size and time
    second = open_frames(path)
    assert second is not first
    assert open_frames(path) is second
    path.write_bytes(b"grown since")
    assert open_frames(path) is not second
    assert stub.opened == [str(path)] * 3


def test_a_changed_tar_is_opened_anew(counted, tmp_path):
    path = tar_of(tmp_path / "a.tar", rgb([1]))
    assert open_frames(path) is open_frames(path)
    tar_of(path, rgb([1, 2], "img_{}.jpg") | {"notes": bytes(20_000)})
    assert len(open_frames(path)) == 2
    assert len(counted) == 2


def test_a_vanished_file_is_not_remembered(stub, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"video")
    open_frames(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"clip\.mp4: no such"):
        open_frames(path)


def test_a_failure_is_not_remembered(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="no numbered RGB images"):
        open_frames(tmp_path)
    save(tmp_path, "img_1.png", 1)
    assert len(open_frames(tmp_path)) == 1


def test_sixteen_sources_are_kept(stub, tmp_path):
    keep_sources(16)  # whatever ran before
    paths = [tmp_path / str(number) for number in range(17)]
    for path in paths:
        path.write_bytes(b"video")
    sources = [open_frames(path) for path in paths[:16]]
    assert [open_frames(path) for path in paths[:16]] == sources
    open_frames(paths[16])
    assert open_frames(paths[15]) is sources[15]
    assert open_frames(paths[0]) is not sources[0]


def test_more_sources_are_kept_on_request(stub, tmp_path):
    paths = [tmp_path / str(number) for number in range(17)]
    for path in paths:
        path.write_bytes(b"video")
    keep_sources(17)
    try:
        sources = [open_frames(path) for path in paths]
        assert [open_frames(path) for path in paths] == sources
    finally:
        keep_sources(16)


def test_threads_share_a_source(counted, tmp_path):
    for number in range(8):
        save(tmp_path, f"img_{number}.png", number)
    together = threading.Barrier(4)

    def read(index: int) -> tuple[FrameSource, list[list[int]]]:
        together.wait()
        source = open_frames(tmp_path)
        return source, values(source.read([index]))

    with ThreadPoolExecutor(4) as pool:
        first = list(pool.map(read, range(4)))
        again = list(pool.map(read, range(4)))
    assert [shown for _, shown in first + again] == [[[index] * 3] for index in [*range(4)] * 2]
    assert len({id(source) for source, _ in again}) == 1
    assert len(counted) <= 4  # those that came at once; nobody waits for another


def test_a_pickled_source_is_itself_alone(tmp_path):
    for clip in "ab":
        save(tmp_path / clip, "img_1.png", 1)
    alone = len(pickle.dumps(FrameFolder(tmp_path / "a")))
    open_frames(tmp_path / "b")
    source = open_frames(tmp_path / "a")
    assert len(pickle.dumps(source)) == alone
    copy = pickle.loads(pickle.dumps(source))
    assert values(copy.read([0])) == [[1] * 3]


def test_a_relative_path_stays_where_it_was(tmp_path, monkeypatch):
    save(tmp_path / "clip", "img_1.png", 1)
    for half in "uv":
        save(tmp_path / "flow" / half, "img_1.png", 1, "L")
    monkeypatch.chdir(tmp_path)
    rgb_source, flow_source = open_frames("clip"), open_frames("flow", "Flow")
    monkeypatch.chdir("/")
    assert values(rgb_source.read([0])) == [[1] * 3]
    assert values(flow_source.read([0])) == [[1, 1]]


# --- file objects --------------------------------------------------------------------------------


class OwnFile:
    """What a library for remote files may hand out: neither of `io` nor with a name."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


FILES = {
    "bytes": lambda path: path.read_bytes(),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "buffered file": lambda path: path.open("rb"),
    "raw file": lambda path: path.open("rb", buffering=0),
    "read and written": lambda path: path.open("r+b"),
    "another": lambda path: OwnFile(path.read_bytes()),
    "memory map": mapped,
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_object_of_a_tar_is_read_as_its_path(kind, tmp_path):
    path = tar_of(tmp_path / "a.tar", rgb([3, 1, 2]))
    file = FILES[kind](path)
    if kind != "bytes":
        file.seek(700)
    source = open_frames(file)
    assert torch.equal(source.read([2, 0]), open_frames(path).read([2, 0]))
    assert source.index_of(3) == 2
    if "file" in kind:
        assert source.name == str(path)


def test_a_file_object_of_flow_is_read_as_its_path(tmp_path):
    path = tar_of(tmp_path / "a.tar", rgb([1], "u/{}.jpg") | rgb([1], "v/{}.jpg"))
    assert values(open_frames(path.read_bytes(), "Flow").read([0])) == [[1, 1]]


def test_a_file_object_in_memory_can_be_pickled(tmp_path):
    data = tar_of(tmp_path / "a.tar", rgb([1, 2])).read_bytes()
    source = pickle.loads(pickle.dumps(open_frames(data)))
    assert values(source.read([1])) == [[2] * 3]


@pytest.mark.parametrize("kind", FILES)
def test_other_file_objects_are_videos(kind, stub, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"a video " * 100)
    file = FILES[kind](path)
    source = open_frames(file)
    if kind == "bytes":
        assert source.file.getvalue() == file
    else:
        assert source.file is file
    assert open_frames(file) is not source  # what a file object holds may change unseen
    with pytest.raises(ValueError, match="a flow model cannot read a video"):
        open_frames(file, "Flow")


def text_file(path: Path) -> object:
    return path.open()


def closed_file(path: Path) -> object:
    with path.open("rb") as file:
        return file


def pipe(path: Path) -> object:
    reading, writing = os.pipe()
    os.close(writing)
    return open(reading, "rb")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (text_file, "must be a binary file, got .*: open it with mode 'rb'"),
        (lambda path: io.StringIO("text"), "must be a binary file"),
        (closed_file, "must be an open file, got .*, which is closed"),
        (pipe, r"must be a seekable file, got .*: give its bytes, file\.read\(\)"),
    ],
)
def test_file_objects_that_cannot_be_read(make, message, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"video")
    file = make(path)
    with pytest.raises(ValueError, match=message):
        open_frames(file)
    if hasattr(file, "close"):
        file.close()


# --- paths ---------------------------------------------------------------------------------------


def named_pipe(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    "make", [named_pipe, unix_socket, lambda path: path.symlink_to("/dev/null")]
)
@pytest.mark.parametrize("modality", ["RGB", "Flow"])
def test_pipes_sockets_and_devices_are_refused(make, modality, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = Path("clip.mp4")
    make(path)
    with pytest.raises(ValueError, match="is no regular file"):
        open_frames(path, modality)


@pytest.mark.parametrize("address", ["http://host/clip.mp4", "file:///data/clip.mp4", "s3:/b/c"])
def test_addresses_are_no_clips(address):
    with pytest.raises(ValueError, match=f"got the URL {address}: download it"):
        open_frames(address)


def test_a_missing_path_is_named(tmp_path):
    for modality in ("RGB", "Flow"):
        with pytest.raises(FileNotFoundError, match="nothing here"):
            open_frames(tmp_path / "nothing here", modality)
    for source in (VideoFile, FrameFolder, FlowFolder):
        with pytest.raises(FileNotFoundError, match="nothing here"):
            source(tmp_path / "nothing here")


def test_sources_pass_through_if_their_channels_fit(six_frames):
    source = FrameArray(six_frames)
    assert open_frames(source) is source
    assert open_frames(source, "rgbdiff") is source
    with pytest.raises(ValueError, match=r"'Flow' needs frames of 2 channels.*has 3"):
        open_frames(source, "Flow")


@pytest.mark.parametrize("modality", ["depth", "", None])
def test_modality_must_be_known(modality, six_frames):
    with pytest.raises(ValueError, match="modality must be one of RGB, Flow, RGBDiff"):
        open_frames(six_frames, modality)
