"""Video files: every frame by its index, whatever is jumped over, and nothing left behind.

The library must give the frames that PyAV alone gives when it decodes the file from its start.
"""

import gc
import logging
import multiprocessing
import os
import pickle
import random
import resource
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.repository import REPOSITORY
from helpers.video_kinds import VIDEOS, videos_fixture  # noqa: F401 -- a fixture
from helpers.videos import COUNT, encode, number_in, patch

from data.decoder import Decoder
from data.video import VideoFile, load_clip


def work(caplog) -> list[tuple[int, int]]:
    """Return (frames decoded, jumps) of each pass over a file since the last call."""
    done = [record.args[2:] for record in caplog.records if "frames read" in record.msg]
    caplog.clear()
    return done


@pytest.mark.parametrize("kind", VIDEOS)
def test_every_frame_is_the_one_that_decoding_from_the_start_gives(kind, videos):
    path, expected = videos(kind)
    source = VideoFile(path)
    assert len(source) == len(expected)
    chance = random.Random(0)
    for index in chance.sample(range(len(source)), len(source)):
        assert torch.equal(source.read([index])[0], expected[index]), index
    for _ in range(5):
        indices = [chance.randrange(len(source)) for _ in range(6)]
        assert torch.equal(source.read(indices), expected[indices])
    together = source.read(range(len(source)))
    assert torch.equal(together, expected)
    assert_presentation_order(kind, [number_in(frame) for frame in together])


def assert_presentation_order(kind: str, numbers: list[int]) -> None:
    if "cut off" in kind:  # among the last ones, those stored behind the cut are missing
        assert 10 < len(numbers) < COUNT
        assert numbers[:-4] == list(range(len(numbers) - 4))
    else:
        others = {
            "edit list": [*range(17, 37)],
            "edit list in the first group": [*range(5, 50)],
            "a single frame": [0],
            "timestamps that jump back": [*range(25), *range(25)],
        }
        assert numbers == others.get(kind, [*range(COUNT)])


@pytest.mark.parametrize("kind", VIDEOS)
def test_the_first_read_of_a_source_is_right_wherever_it_begins(kind, videos):
    path, expected = videos(kind)
    for index in range(len(expected) * 3 // 4, len(expected)):
        assert torch.equal(VideoFile(path).read([index])[0], expected[index]), index


@pytest.mark.parametrize(
    ("kind", "counted"),
    {
        "h264 in MP4": False,
        "h264, open groups of pictures": False,
        "hevc, open groups of pictures": False,
        "mpeg4 in MP4": False,
        "motion jpeg in AVI": False,
        "motion jpeg without sound timestamps": False,
        "edit list": False,
        "edit list in the first group": False,
        "first timestamp above zero": False,
        "h264, raw": True,
        "mpeg4 in AVI": False,
        "vp8 in WebM": False,
        "h264 in a transport stream": False,
        "duplicated timestamps": True,
        "timestamps in file order": True,
        "timestamps that jump back": True,
        "cut off MP4": True,
    }.items(),
)
def test_only_what_cannot_be_trusted_is_decoded_to_count(kind, counted, videos, caplog):
    with caplog.at_level(logging.INFO):
        VideoFile(videos(kind)[0])
    assert ("decoded once to count its frames" in caplog.text) == counted


@pytest.mark.parametrize(
    "kind",
    [
        "h264 in MP4",
        "h264 in Matroska",
        "h264, open groups of pictures",
        "h264, raw",
        "h264 in AVI",
        "h264 in a transport stream",
        "mpeg4 in AVI",
        "motion jpeg in AVI",
        "duplicated timestamps",
        "timestamps in file order",
        "no index",
    ],
)
def test_few_frames_of_a_video_are_read_with_few_decoded(kind, videos, caplog):
    source = VideoFile(videos(kind)[0])
    with caplog.at_level(logging.DEBUG):
        source.read([COUNT - 2, 1])
        ((frames_decoded, jumps),) = work(caplog)
    assert jumps >= 1
    assert frames_decoded < COUNT // 2


@pytest.mark.essential
def test_going_on_is_preferred_to_jumping_where_it_decodes_as_little(videos, caplog):
    source = VideoFile(videos("h264 in MP4")[0])
    with caplog.at_level(logging.DEBUG):
        source.read(range(COUNT))
        assert work(caplog) == [(COUNT, 0)]
        source.read(list(range(13, 36)))
        ((frames_decoded, jumps),) = work(caplog)
    assert jumps == 1
    assert frames_decoded < 36


def test_a_jump_that_fails_falls_back_and_is_not_tried_again(videos, caplog):
    path, expected = videos("h264, intra refresh")  # nothing can be decoded from its marks on
    source = VideoFile(path)
    with caplog.at_level(logging.DEBUG):
        for again in (True, True, False):  # from the marks at 24, 12 and 0
            caplog.clear()
            assert torch.equal(source.read([30])[0], expected[30])
            assert ("decoded from its start" in caplog.text) == again


@pytest.mark.parametrize(
    "kind",
    ["h264 in MP4", "h264 in Matroska", "edit list in the first group", "mpeg4 in AVI", "no index"],
)
def test_a_sound_file_is_read_without_warnings(kind, videos, caplog):
    VideoFile(videos(kind)[0]).read([3, 40])
    assert not caplog.records


def test_titles_in_any_encoding_are_no_reason_to_refuse_a_file(videos, tmp_path):
    path, expected = videos("mpeg4 in MP4")

    def spoil(data: bytearray) -> None:
        place = data.find(b"Lavf")
        data[place : place + 4] = b"\xff\xfe\xe9f"

    assert VideoFile(patch(path, tmp_path / "title.mp4", spoil)).read([5]).equal(expected[5:6])


def test_a_source_can_be_pickled(videos):
    path, expected = videos("h264 in MP4")
    source = pickle.loads(pickle.dumps(VideoFile(path)))
    assert torch.equal(source.read([30, 2, 30]), expected[[30, 2, 30]])


def threads_and_bytes() -> tuple[int, int]:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(list(Path("/proc/self/task").iterdir())), pages * resource.getpagesize()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_leaves_nothing_behind_before_the_collector_runs(tmp_path, monkeypatch):
    """Threads would hang a process that is forked later; memory would grow with every read."""
    greys = [np.full((1088, 1920, 3), 9 * number, dtype=np.uint8) for number in range(12)]
    path = encode(tmp_path / "large.mp4", "mpeg4", pictures=greys)
    decoders = []

    def noted(*arguments):
        decoder = Decoder(*arguments)
        decoders.append(weakref.ref(decoder))
        return decoder

    monkeypatch.setattr("data.video_file.Decoder", noted)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):  # the allocator settles
            load_clip(path, num_segments=2)
        threads, memory = threads_and_bytes()
        for _ in range(20):
            load_clip(path, num_segments=2)
            with pytest.raises(ValueError, match="indices"):
                VideoFile(path).read([12])
        assert threads_and_bytes()[0] == threads
        assert threads_and_bytes()[1] - memory < 50e6
        assert len(decoders) > 60
        assert not any(decoder() for decoder in decoders)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "method",
    ["fork", *(pytest.param(name, marks=pytest.mark.slow) for name in ("forkserver", "spawn"))],
)
def test_data_loaders_work_after_videos_were_read(method, videos, tmp_path):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    program = (
        "import sys\n"
        "from torch.utils.data import DataLoader\n"
        "from data.video import VideoFile, load_clip\n"
        "class Clips(list):\n"
        "    def __getitem__(self, index):\n"
        "        return load_clip(list.__getitem__(self, index), num_segments=2)\n"
        "if __name__ == '__main__':\n"
        "    path, method = sys.argv[1:]\n"
        "    for _ in range(50): expected = load_clip(path, num_segments=2)\n"
        "    workers = {'num_workers': 2, 'multiprocessing_context': method}\n"
        "    for batch in DataLoader(Clips([path] * 4), **workers):\n"
        "        assert batch[0].equal(expected)\n"
    )
    script = tmp_path / "loader.py"
    script.write_text(program)
    path, _ = videos("h264 in MP4")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, script, path, method], check=True, timeout=120, env=environment)
