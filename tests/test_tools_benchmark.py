"""The benchmark measures what it says, and its plain ways give the numbers of the fast ones."""

import json
import multiprocessing
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from data.synthetic import make_video
from ops.temporal_shift import temporal_shift
from presets import evaluation_transform
from tools import benchmark, comparisons
from tools.comparisons import SECTIONS, Case, Comparison
from tools.measure import (
    OwnProcess,
    Timing,
    _ctrl_c_later,
    count_flops,
    describe_machine,
    matmul_peak,
    peak_memory,
    take_turns,
    tf32,
)
from tsn import TSN

CPU = torch.device("cpu")


# How it is measured


def test_ratios_are_medians_of_rounds() -> None:
    """So a slow minute that befalls both does not count."""
    ours, theirs = Timing((1.0, 10.0, 2.0)), Timing((3.0, 30.0, 4.0))
    assert ours.times_as_fast_as(theirs) == 3
    assert ours.median == 2


def test_calls_take_turns() -> None:
    order: list[str] = []
    calls = {name: partial(order.append, name) for name in "abc"}
    timings = take_turns(calls, rounds=3, device=CPU)
    assert "".join(order) == "abcbcacab"
    assert {name: len(timing.seconds) for name, timing in timings.items()} == dict.fromkeys(
        calls, 3
    )
    assert all(seconds > 0 for timing in timings.values() for seconds in timing.seconds)


def test_memory_is_what_a_call_takes_at_most() -> None:
    used = peak_memory(lambda: torch.ones(3, 10, 2**21).sum(0), CPU)
    if used is None:
        pytest.skip("this system does not tell")
    # 240 MiB, and 80 for their sum; pages that the process had, or takes besides, are a few MiB.
    assert 314 * 2**20 <= used <= 345 * 2**20


def test_a_process_of_its_own() -> None:
    """It keeps what was made there, passes on what is raised, and is gone when it is closed."""
    before = set(multiprocessing.active_children())
    with closing(OwnProcess(partial(eval, "iter('ab').__next__"), CPU)) as process:
        process()
        assert len(set(multiprocessing.active_children()) - before) == 1
        assert peak_memory(process, CPU) is not None or sys.platform != "linux"
        with pytest.raises(StopIteration):
            process()
    assert set(multiprocessing.active_children()) == before


BLOCKED = "lambda: __import__('signal').SIGINT in __import__('signal').pthread_sigmask(0, ())"
PARENT = """
from functools import partial
from torch import device
from tools.measure import OwnProcess
sleep = "lambda: (print('asleep', flush=True), __import__('time').sleep(600))"
OwnProcess(partial(eval, sleep), device("cpu"))()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("ending", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_a_process_of_its_own_ends_with_its_parent(ending: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"asleep\n"
            parent.send_signal(signal.Signals[ending])
            parent.communicate(timeout=60)  # as long as anybody can write there
        finally:
            parent.kill()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_process_that_begins_knows_nothing_of_ctrl_c() -> None:
    """It would print where it was interrupted, somewhere among its imports."""
    with _ctrl_c_later():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with closing(OwnProcess(partial(eval, BLOCKED), CPU)) as process:
        assert process() is False


def test_operations_are_counted() -> None:
    layer, frames = nn.Conv2d(3, 8, 5, bias=False), torch.zeros(2, 3, 12, 12)
    assert count_flops(lambda: layer(frames)) == 2 * (2 * 8 * 8 * 8) * (3 * 5 * 5)


def test_tf32_is_left_as_it_was() -> None:
    def allowed() -> list[bool]:
        return [b.allow_tf32 for b in (torch.backends.cuda.matmul, torch.backends.cudnn)]

    def fail(wanted: bool) -> None:
        with tf32(wanted):
            assert allowed() == [wanted, wanted]
            raise KeyError

    before = allowed()
    for wanted in (True, False):
        with pytest.raises(KeyError):
            fail(wanted)
        assert allowed() == before


def test_the_machine_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.measure._MATMUL_SIDE", {"cpu": 64})
    assert matmul_peak("float32", CPU) > 0
    machine = describe_machine(CPU)
    assert machine["PyTorch"] == torch.__version__
    assert f"PyTorch uses {torch.get_num_threads()}" in machine["CPU"]


# What is compared


@pytest.mark.parametrize("backbone", ["resnet18", "BNInception"])
@pytest.mark.parametrize("crop_count", [1, 10])
@pytest.mark.parametrize("size", [(456, 256), (256, 300), (500, 300)])
def test_the_plain_transforms_give_the_same_input(
    backbone: str, crop_count: int, size: tuple[int, int]
) -> None:
    with torch.device("meta"):  # no more than its preprocessing is looked at
        model = TSN(5, 2, "RGB", backbone, pretrained=None)
    pixels = torch.randint(0, 256, (2, *reversed(size), 3), dtype=torch.uint8)
    images = [Image.fromarray(frame.numpy()) for frame in pixels]
    frames = pixels.permute(0, 3, 1, 2)
    transform = evaluation_transform(model, crop_count)
    assert transform(images).equal(comparisons._image_by_image(model, images, crop_count))
    assert transform(frames).equal(comparisons._tensor_by_tensor(model, frames, crop_count))


def options(folder: Path, **others: object) -> Namespace:
    defaults = {"device": CPU, "models": ["TSN"], "backbones": ["resnet18"], "segments": 2}
    sizes = {"crops": [1], "frames": [(300, 260)], "batches": [1], "precisions": ["float32"]}
    rest = {"compile": False, "folder": folder, "rounds": 1, "peaks": {"float32": 1e9}}
    return Namespace(**defaults | sizes | rest | others)


def test_all_sections_can_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "peak_memory", lambda *_: None)  # slow in a large process
    monkeypatch.setattr(comparisons, "OwnProcess", lambda make, *_, **__: make())  # slow to start
    given = options(tmp_path, models=["TSN", "MTRN"], video=make_video(tmp_path / "clip.mp4", 6))
    found: dict[str, list[benchmark.Row]] = {}
    for section in ("transforms", "models", "memory", "shift", "video"):
        for comparison in SECTIONS[section](given):
            found[comparison.title] = benchmark.measure(section, comparison, given)
    assert list(found) == [
        "2 frames of 300x260, 1 crop for resnet18",
        "TSN resnet18, 1 clip",
        "MTRN resnet18, 1 clip",
        "TSN resnet18, 1 clip, in own processes",
        "resnet18, inference",
        "resnet18, training step",
        "decode the frames of a clip",
        "TSN resnet18, 1 crop",
        "MTRN resnet18, 1 crop",
    ]
    rows = {row.case: row for row in found["MTRN resnet18, 1 clip"]}
    assert list(rows) == [
        *("plain", "optimised, float32", "its features", "its heads"),
        *("its heads, drawing three relations", "bare backbone"),
    ]
    assert rows["plain"].speed == rows["bare backbone"].of_bare == 1
    assert rows["plain"].of_peak > 0
    assert rows["its heads"].speed is None
    assert 0 < rows["its heads"].share < 1


def test_processes_that_keep_memory_are_those_that_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []

    def own_process(make: Callable[[], object], device: torch.device, *, keep_memory=False):
        kept.append(keep_memory)
        return make()

    monkeypatch.setattr(comparisons, "OwnProcess", own_process)
    (comparison,) = SECTIONS["memory"](options(tmp_path))
    rows = comparison.cases()
    assert list(rows) == ["plain", "plain, memory kept", "optimised", "optimised, memory kept"]
    assert kept == ["kept" in row for row in rows]
    assert not list(SECTIONS["memory"](options(tmp_path, device=torch.device("cuda"))))


def test_models_in_other_precisions_and_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda module: None)
    given = options(tmp_path, precisions=["float32", "bfloat16"], compile=True, batches=[2])
    (comparison,) = SECTIONS["models"](given)
    cases = comparison.cases()
    for case in cases.values():
        case.call()
    assert [name for name, case in cases.items() if case.precision == "bfloat16"] == [
        *("optimised, bfloat16", "compiled, bfloat16")
    ]
    # Of one clip of two frames: 2 * 1.8e9 multiplications and additions each.
    assert cases["plain"].flops == pytest.approx(2 * 2 * 2 * 1.8e9, rel=0.02)


def test_loading_is_compared_with_the_least_that_pytorch_can_do(tmp_path: Path) -> None:
    loading, importing = SECTIONS["loading"](options(tmp_path))
    for case in loading.cases().values():
        case.call()
    assert len(loading.cases()) == 4
    assert len(importing.cases()) == 3


def test_all_ways_to_shift_shift() -> None:
    x = torch.randn(6, 16, 3, 2)
    for way in (comparisons._shift_by_slices, comparisons._shift_by_concatenation):
        assert way(x, 3).equal(temporal_shift(x, 3))


@pytest.mark.parametrize("training", [False, True])
def test_models_shift_in_the_way_that_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: bool
) -> None:
    calls: list[int] = []

    def way(x: torch.Tensor, num_segments: int) -> torch.Tensor:
        calls.append(num_segments)
        return temporal_shift(x, num_segments)

    monkeypatch.setattr(comparisons, "_WAYS", {"another": way})
    monkeypatch.setattr(comparisons, "OwnProcess", lambda make, *_, **__: make())
    compared = comparisons._shift_in_training if training else comparisons._shift_in_inference
    compared("resnet18", options(tmp_path))["another"].call()
    assert calls == 8 * [2]


@pytest.mark.parametrize("backbone", ["resnet18", "BNInception"])
def test_models_that_shift_in_other_ways_are_otherwise_the_same(
    tmp_path: Path, backbone: str
) -> None:
    cases = comparisons._shift_in_inference(backbone, options(tmp_path))
    assert len(cases) == 5
    (tsn, _), *tsms = (case.call() for case in cases.values())
    for verbs, nouns in tsms:
        assert not torch.allclose(verbs, tsn, rtol=1e-3)
        torch.testing.assert_close((verbs, nouns), tsms[0])


def test_the_bare_network_is_somebody_elses_and_folded() -> None:
    for backbone in ("resnet18", "BNInception"):
        network = comparisons._bare(backbone)
        kinds = {type(module) for module in network.modules()}
        assert nn.Conv2d in kinds
        assert nn.BatchNorm2d not in kinds
        with torch.inference_mode():
            assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)


# The program


def too_large() -> dict[str, Case]:
    raise torch.OutOfMemoryError("CUDA out of memory")


def interrupted() -> dict[str, Case]:
    raise KeyboardInterrupt


def product() -> dict[str, Case]:
    square = torch.randn(64, 64)
    return {
        "plain": Case(lambda: square @ square, flops=2 * 64**3),
        "a part": Case(lambda: square.sum(), part_of="plain"),
        "bare": Case(lambda: None, elsewhere=True),
    }


def synthetic(_: Namespace) -> Iterator[Comparison]:
    yield Comparison("too large", too_large)
    yield Comparison("a product", product, bare="bare")


def made_up_to_be_interrupted(_: Namespace) -> Iterator[Comparison]:
    yield Comparison("interrupted", interrupted)


def test_tables_json_and_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SECTIONS, "transforms", synthetic)
    monkeypatch.setattr("tools.measure._MATMUL_SIDE", {"cpu": 64})
    report, plot = tmp_path / "figures.json", tmp_path / "figures.png"
    arguments = ["--rounds", "3", "--json", str(report), "--plot", str(plot)]
    assert benchmark.main(["--sections", "transforms", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "too large: does not fit into the memory" in printed
    contents = json.loads(report.read_text())
    assert contents["machine"] == describe_machine(CPU)
    assert contents["options"]["rounds"] == 3
    assert contents["options"]["frames"] == [[456, 256], [1920, 1080]]
    plain, part, bare = contents["rows"]
    assert [row["case"] for row in contents["rows"]] == ["plain", "a part", "bare"]
    assert len(plain["seconds"]) == 3
    assert plain["of_peak"] == pytest.approx(
        2 * 64**3 / plain["median"] / contents["matmul_peak"]["float32"]
    )
    assert bare["speed"] == pytest.approx(1 / plain["of_bare"])
    assert bare["memory"] is None
    assert f"| bare | {1000 * bare['median']:,.1f} ms | {bare['speed']:.2f} | 1.00 |" in printed
    assert f"| a part | {1000 * part['median']:,.1f} ms | {100 * part['share']:.1f} % |" in printed
    with Image.open(plot) as image:
        assert image.format == "PNG"
        assert len(image.convert("L").getcolors(256)) > 10


@pytest.mark.slow
def test_what_was_measured_before_an_interruption_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SECTIONS, "transforms", synthetic)
    monkeypatch.setitem(SECTIONS, "shift", made_up_to_be_interrupted)
    monkeypatch.setattr("tools.measure._MATMUL_SIDE", {"cpu": 64})
    report, plot = tmp_path / "figures.json", tmp_path / "figures.png"
    arguments = ["--rounds", "1", "--json", str(report), "--plot", str(plot)]
    assert benchmark.main(["--sections", "transforms", "shift", "video", *arguments]) == 130
    assert "interrupted\n" in capsys.readouterr().out
    assert len(json.loads(report.read_text())["rows"]) == 3
    assert plot.is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sections", "everything"], "invalid choice: 'everything'"),
        (["--frames", "456"], "WIDTHxHEIGHT"),
        (["--rounds", "0"], "positive"),
        (["--backbones", "resnet1"], "resnet1"),
        (["--device", "cuda:17"], "cuda:17"),
        (["--video", "nowhere.mp4"], "nowhere.mp4"),
        (["--video", __file__], "not a video file that can be read"),
        (["--video", "."], "'.' is a folder"),
        (["--device", "meta"], "only cpu and cuda"),
        (["--precisions", "tf32"], "tf32 needs --device cuda"),
        (["--precisions", "float16"], "float16 needs --device cuda"),
        (["--segments", "1"], "MTRN takes 2 to 20, got 1"),
        (["--segments", "21"], "MTRN takes 2 to 20, got 21"),
        (["--json", "."], "'.' is a folder"),
        (["--plot", "nowhere/figures.png"], "nowhere"),
        (["--plot", "figures"], "must end in one of"),
        (["--plot", "figures.xyz"], "must end in one of"),
    ],
)
def test_bad_arguments_are_named_at_once(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
