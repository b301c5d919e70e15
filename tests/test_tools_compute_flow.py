import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import programs
from helpers.flow_stand_in import BothFrames, save_frames
from helpers.interpreter import ENVIRONMENT
from helpers.numbered_images import values
from helpers.repository import REPOSITORY
from helpers.tars import rgb, tar_of
from PIL import Image

from data.synthetic import make_flow
from data.video import open_frames
from tools import compute_flow

LEVELS = range(10, 250, 10)  # of 24 frames
EXACT = ["--bound", "127.5", "--size", "8"]  # grey levels of flow are then those of the frames
PAIRS = [[LEVELS[i], LEVELS[i + 3]] for i in range(0, 21, 2)]


def run(*arguments: object, method: BothFrames | None = None) -> tuple[int, BothFrames]:
    method = method or BothFrames()
    return compute_flow.main([*map(str, arguments), *EXACT], method=method), method


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def frames(tmp_path) -> Path:
    return save_frames(tmp_path / "clip", LEVELS)


@pytest.fixture
def whole(frames, tmp_path) -> dict[str, bytes]:
    """The files of a run without interruptions."""
    assert run(frames, tmp_path / "whole")[0] == 0
    return contents(tmp_path / "whole")


def test_images_are_what_flow_models_read(frames, tmp_path, capsys) -> None:
    out = tmp_path / "new" / "flow"
    status, method = run(frames, out, "--jobs", 3)
    assert status == 0
    assert sorted(method.calls) == [tuple(pair) for pair in PAIRS]
    names = [f"frame_{number:010d}.jpg" for number in range(1, 12)]
    assert sorted(os.listdir(out / "u")) == sorted(os.listdir(out / "v")) == names
    source = open_frames(out, "Flow")
    assert source.numbers.tolist() == list(range(1, 12))
    read = source.read(range(11))
    assert read.shape == (11, 2, 8, 9)
    assert values(read) == PAIRS
    with Image.open(out / "u" / names[0]) as image:
        assert (image.format, image.mode) == ("JPEG", "L")
    shown = capsys.readouterr()
    assert "11 flow frames of 1 video, 0 of them there already\n" in shown.out
    assert "the others will take about 0:00:00 (h:mm:ss) with 3 jobs\n" in shown.out
    assert "11 of 11 flow frames" in shown.err


def test_of_a_video_file_with_a_preset(tmp_path) -> None:
    from helpers.videos import encode

    pictures = [np.full((48, 64, 3), 20 * number, np.uint8) for number in range(6)]
    video = encode(tmp_path / "clip.mp4", "mpeg4", pictures=pictures)
    assert run(video, tmp_path / "one", "--preset", "extension")[0] == 0
    assert len(open_frames(tmp_path / "one", "Flow")) == 5
    assert run(video, tmp_path / "two", "--preset", "extension", "--rate", 50)[0] == 0
    assert len(open_frames(tmp_path / "two", "Flow")) == 11


def test_videos_of_epic_kitchens_get_what_is_published_for_them(tmp_path) -> None:
    from helpers.epic_dataset import write_video

    for video in ("P01_01", "P01_101"):
        write_video(tmp_path / "videos" / f"{video}.MP4", 10, 30)
    assert run(tmp_path / "videos", tmp_path / "out")[0] == 0
    # 20 frames at 60 a second, 2 apart, each spanning 3; 17 at 50, of which each spans 1
    assert len(open_frames(tmp_path / "out" / "P01_01", "Flow")) == 9
    assert len(open_frames(tmp_path / "out" / "P01_101", "Flow")) == 16


@pytest.mark.essential
def test_of_a_folder_of_videos(tmp_path, capsys) -> None:
    root, out = tmp_path / "videos", tmp_path / "out"
    save_frames(root / "long", LEVELS)
    save_frames(root / "short", LEVELS[:4])
    tar_of(root / "packed.tar", rgb([1, 2, 3, 4]))
    (root / "notes.txt").write_text("no video")
    assert run(root, out)[0] == 0
    assert sorted(os.listdir(out)) == ["long", "packed", "short"]
    assert [len(open_frames(out / name, "Flow")) for name in sorted(os.listdir(out))] == [11, 1, 1]
    assert "13 flow frames of 3 videos" in capsys.readouterr().out


# Going on


def test_only_what_is_missing_or_does_not_open_is_computed(frames, tmp_path, whole, capsys) -> None:
    out = tmp_path / "whole"
    (out / "u" / "frame_0000000002.jpg").unlink()
    (out / "v" / "frame_0000000005.jpg").write_bytes(whole["v/frame_0000000005.jpg"][:-5])
    (out / "v" / "frame_0000000007.jpg").write_bytes(b"")
    left = out / "u" / "frame_0000000007.jpg.0123456789abcdef0123456789abcdef.partial"
    left.write_bytes(b"of a killed run")
    capsys.readouterr()
    status, method = run(frames, out, "--jobs", 1)
    assert status == 0
    assert method.calls == [tuple(PAIRS[index]) for index in (1, 4, 6)]
    assert contents(out) == whole
    assert "11 flow frames of 1 video, 8 of them there already" in capsys.readouterr().out
    status, method = run(frames, out)
    assert (status, method.calls) == (0, [])


def test_parts_of_a_video_add_up_to_the_whole(frames, tmp_path, whole) -> None:
    out = tmp_path / "parts"
    other = out / "u" / "frame_0000000001.jpg.0123.partial"
    for start, stop, count in ((9, 16, 3), (0, 9, 5), (16, 24, 3)):
        status, method = run(frames, out, "--start", start, "--stop", stop)
        assert (status, len(method.calls)) == (0, count)
        if start == 9:  # another machine writes it now, perhaps
            other.touch()
            assert run(frames, out, "--start", start, "--stop", stop)[0] == 0
            assert other.exists()
    assert contents(out) == whole


def test_another_request_is_refused_by_naming_the_difference(
    frames, tmp_path, whole, capsys
) -> None:
    out = tmp_path / "whole"
    assert run(frames, out, "--stride", 1, "--rate", 30)[0] == 1
    assert "rate is for video files" in capsys.readouterr().err
    assert run(frames, out, "--stride", 1)[0] == 1
    assert "stride was 2, now 1." in capsys.readouterr().err
    newer = BothFrames()
    newer.name = "both frames 2"
    assert run(frames, out, method=newer)[0] == 1
    assert "method was 'both frames', now 'both frames 2'" in capsys.readouterr().err
    assert run(save_frames(tmp_path / "other", LEVELS[1:]), out)[0] == 1
    error = capsys.readouterr().err
    assert "frames was 24, now 23; video was 'clip', now 'other'" in error
    assert contents(out) == whole


def test_ctrl_c_ends_with_one_message(frames, tmp_path, whole, capsys) -> None:
    class Interrupted(BothFrames):
        def __call__(self, first, second):
            if len(self.calls) == 4:
                signal.raise_signal(signal.SIGINT)
            return super().__call__(first, second)

    out = tmp_path / "out"
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        capsys.readouterr()
        status, method = run(frames, out, "--jobs", 2, method=Interrupted())
    finally:
        signal.signal(signal.SIGINT, handler)
    assert status == 130
    assert len(method.calls) < 11
    error = capsys.readouterr().err
    assert error.endswith(f"stopped; the same command goes on from what is in {out}\n")
    assert error.count("\n") == 2
    found = contents(out)
    assert found.items() <= whole.items()
    assert run(frames, out)[0] == 0
    assert contents(out) == whole


def test_full_disk(frames, tmp_path, whole, capsys, monkeypatch) -> None:
    out, save = tmp_path / "out", Image.Image.save
    written = []

    def fill(image, file, *arguments, **options):
        written.append(file)
        if len(written) == 8:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        save(image, file, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", fill)
    capsys.readouterr()
    assert run(frames, out)[0] == 1
    full = written[-1].name.partition(".jpg")[0]  # the file, under its temporary name
    assert capsys.readouterr().err.endswith(f"No space left on device: '{full}.jpg'\n")
    assert contents(out).items() < whole.items()
    assert run(frames, out)[0] == 0
    assert contents(out) == whole


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from helpers import programs
from helpers.flow_stand_in import BothFrames
from tools import compute_flow

class Slow(BothFrames):
    def __call__(self, first, second):
        time.sleep(0.005)
        return super().__call__(first, second)

frames, out = map(Path, sys.argv[1:])
command = [str(frames), str(out), "--bound", "127.5", "--size", "8", "--jobs", "2"]
finished, counts, random = {}, [], random.Random(0)
limit = time.monotonic() + 60
for kill in range(20):
    child = os.fork()
    if not child:
        os._exit(compute_flow.main(command, method=Slow()))
    goal = len(finished) + random.randrange(1, 10)
    while len(list(out.glob("v/*.jpg"))) < goal and time.monotonic() < limit:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.01))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    pairs = [path for path in found if path.parts[-2] == "u" and out / "v" / path.name in found]
    assert all(found[path] == time for path, time in finished.items()), "computed again"
    finished = {path: found[path] for path in pairs}
    counts.append(len(pairs))
status = compute_flow.main(command, method=Slow())
print(counts)
sys.exit(status)
"""


@pytest.mark.slow
def test_twenty_kills_lose_nothing_and_repeat_nothing(tmp_path) -> None:
    frames = save_frames(tmp_path / "clip", range(0, 250))
    assert run(frames, tmp_path / "whole")[0] == 0
    command = [sys.executable, "-c", KILLS, str(frames), str(tmp_path / "out")]
    path = os.pathsep.join([str(REPOSITORY), ENVIRONMENT["PYTHONPATH"]])
    environment = {**ENVIRONMENT, "PYTHONPATH": path}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    print(result.stdout.splitlines()[-1])
    counts = json.loads(result.stdout.splitlines()[-1])
    assert len(set(counts)) > 5  # kills came in the midst of the work
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


# What goes wrong


def test_a_broken_video_costs_only_itself(tmp_path, capsys) -> None:
    root = tmp_path / "videos"
    (root / "a.mp4").parent.mkdir()
    (root / "a.mp4").write_bytes(b"no video" * 100)
    broken = save_frames(root / "b", LEVELS)
    (broken / "frame_0000000012.jpg").write_bytes(b"no image")
    save_frames(root / "c", LEVELS)
    save_frames(root / "d", LEVELS[:2])
    assert run(root, tmp_path / "out")[0] == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2].partition(":")[0] for line in lines if str(root) in line] == [
        str(root / "a.mp4"), str(root / "d"), str(broken / "frame_0000000012.jpg"),
    ]  # fmt: skip
    assert len(open_frames(tmp_path / "out" / "c", "Flow")) == 11
    assert len(open_frames(tmp_path / "out" / "b", "Flow")) == 4
    assert not (tmp_path / "out" / "d").exists()


def test_a_video_whose_first_image_is_broken(frames, tmp_path, capsys) -> None:
    (frames / "frame_0000000001.jpg").write_bytes(b"no image")
    assert run(frames, tmp_path / "out")[0] == 1
    assert "not an 8-bit image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--start", "24"], "0 <= start < stop <= 24 frames, got 24 and 24"),
        (["--start", "5", "--stop", "4"], "got 5 and 4"),
        (["--stride", "0"], "stride must be a positive integer, got 0"),
        (["--jobs", "0"], "jobs must be a positive integer, got 0"),
        (["--rate", "nan"], "rate must be a positive number, got nan"),
    ],
)
def test_options_that_make_no_sense(frames, tmp_path, capsys, options, message) -> None:
    assert run(frames, tmp_path / "out", *options)[0] == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_wrong_option_is_said_once(tmp_path, capsys) -> None:
    for name in ("a", "b"):
        save_frames(tmp_path / "videos" / name, LEVELS)
    assert run(tmp_path / "videos", tmp_path / "out", "--jobs", "0")[0] == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_no_video(tmp_path, capsys) -> None:
    assert run(tmp_path / "none", tmp_path / "out")[0] == 1
    assert "none: no such file or folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", tmp_path / "out")[0] == 1
    assert "no numbered RGB images" in capsys.readouterr().err


def test_flow_of_flow(tmp_path, capsys) -> None:
    (tmp_path / "flow").mkdir()
    make_flow(tmp_path / "flow", 5)
    assert run(tmp_path / "flow", tmp_path / "out")[0] == 1
    assert "holds flow already (u/ and v/)" in capsys.readouterr().err


def test_a_folder_of_something_else_is_no_place_for_flow(frames, tmp_path, capsys) -> None:
    assert run(frames, frames)[0] == 1
    assert "holds files of something else" in capsys.readouterr().err
    assert len(os.listdir(frames)) == 24


def test_help(capsys) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        compute_flow.main(["--help"])
    shown = capsys.readouterr().out
    for word in ("--preset", "epic-kitchens-55", "--rate", "opencv-contrib-python-headless"):
        assert word in shown


def test_with_opencv(frames, tmp_path) -> None:
    pytest.importorskip("cv2", reason="opencv-contrib-python-headless is not installed")
    out = tmp_path / "out"
    assert compute_flow.main([str(frames), str(out), "--size", "32"]) == 0
    read = open_frames(out, "Flow").read(range(11))
    assert read.shape == (11, 2, 32, 38)
    assert (read == 128).all()  # nothing in these frames moves
    request = json.loads((out / "request.json").read_text())
    assert request["method"].startswith("TV-L1 of OpenCV ")


@pytest.mark.slow
def test_as_a_program_from_another_folder(tmp_path) -> None:
    program = REPOSITORY / "tools" / "compute_flow.py"
    assert "usage: compute_flow.py" in programs.run(tmp_path, sys.executable, program, "--help")
