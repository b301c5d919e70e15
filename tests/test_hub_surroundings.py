"""Hub models among other people's modules, versions, processes and threads."""

import ast
import copy
import copyreg
import importlib
import pickle
import pickletools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import hub_programs
from helpers.hub_models import CLIP, KINDS, logits, make, module_of
from helpers.hub_processes import described, pool, read, workers
from helpers.interpreter import Interpreter, ProgramError
from helpers.repository import (
    REPOSITORY,
    TRIPLED,
    copy_repository,
    library_modules,
    top_level_names,
)
from helpers.small_models import replicated

MODEL = "TSM"
HUB_AND_CLONE = ["hub", pytest.param("clone", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def model() -> Any:
    return make(REPOSITORY, MODEL)


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    """Another interpreter, in a folder with nothing in it."""
    interpreter = Interpreter(tmp_path_factory.mktemp("elsewhere"))
    yield interpreter
    interpreter.close()


# Names


@pytest.mark.parametrize("situation", hub_programs.SITUATIONS)
def test_the_callers_modules_stay_the_callers(situation: str, interpreter: Interpreter) -> None:
    expected = logits(make(REPOSITORY, "MTRN"))
    outcome = interpreter.run(hub_programs.collide, str(REPOSITORY), situation, expected)
    assert outcome == []


def test_all_our_names_collide() -> None:
    assert {"tsn", "ops", "data", "hubconf", "tools", "tests"} <= set(top_level_names())


# Versions


def test_two_versions_live_in_one_process(tmp_path: Path, interpreter: Interpreter) -> None:
    plain = str(copy_repository(tmp_path / "plain"))
    tripled = str(copy_repository(tmp_path / "tripled", TRIPLED))
    for threads in (1, 2):
        interpreter.run(hub_programs.two_versions, [plain, tripled], threads, plain)


def test_two_versions_read_checkpoints_at_once(tmp_path: Path, interpreter: Interpreter) -> None:
    other = copy_repository(tmp_path / "other")
    interpreter.run(hub_programs.two_readers, str(REPOSITORY), str(other))


def test_what_is_loaded_stays_when_the_clone_is_edited(
    tmp_path: Path, interpreter: Interpreter
) -> None:
    clone = copy_repository(tmp_path / "clone")
    interpreter.run(hub_programs.edited, str(clone))


def test_links_to_nowhere_are_no_code(tmp_path: Path) -> None:
    clone = copy_repository(tmp_path / "clone")
    (clone / ".#tsn.py").symlink_to("user@host.1234")  # Emacs, while the file is being edited
    assert type(make(clone, MODEL)).__name__ == MODEL


# Pickles


def picklable(repository: Path | None) -> dict[str, Any]:
    """Objects of all sorts of classes, from torch.hub or a plain import."""
    model = make(repository, "TSM", non_local=True, temporal_pool=False)

    def module(name: str) -> Any:
        return module_of(model, name)

    transforms, lightning = module("transforms"), module("checkpoints.stand_ins")
    label = module("predictor").Label("wash plate", (2, 8), 0.5)
    inception, _ = module("ops.backbones").make_backbone("BNInception", imagenet=False)
    error = module("weights.download")._TransferError("no answer", retryable=True, retry_after=3)
    things = {kind: make(repository, kind) for kind in KINDS}
    things |= {
        "non-local": model,
        "backbone": model.base_model,
        "another backbone": inception,
        "evaluation transform": model.evaluation_transform(10),
        "full-height crops": model.evaluation_transform(3),
        "stack": transforms.Stack(),
        "preprocessing": model.preprocessing,
        "prediction": module("predictor").Prediction(actions=(label,)),
        "published weights": module("weights.published").PUBLISHED[0],
        "named tuple": module("ops.bn_inception")._Block("inception", *range(7)),
        "stand-in": lightning.ConfigNode(),
        "refusal": module("checkpoints.files").CheckpointError("not a checkpoint"),
        "system error": module("weights.download").DownloadError(2, "no such file", "a.pth"),
        "error with attributes": error,
    }
    return things


@pytest.fixture(scope="module")
def things() -> dict[str, Any]:
    return picklable(REPOSITORY)


def globals_of(stream: bytes) -> list[str]:
    """What a pickle imports."""
    strings: list[str] = []
    found = []
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "GLOBAL":
            found.append(argument)
        elif opcode.name == "STACK_GLOBAL":
            found.append(" ".join(strings[-2:]))
        if isinstance(argument, str):
            strings.append(argument)
    return found


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_loads_the_package_once_and_names_nothing_in_it(
    protocol: int, things: dict[str, Any]
) -> None:
    for name, thing in things.items():
        if isinstance(thing, torch.nn.Module):
            thing = copy.deepcopy(thing).to("meta")  # the weights are of no interest here
        stream = pickle.dumps([thing, copy.copy(thing)], protocol)
        names = globals_of(stream)
        assert stream.count(b"_package") == 1, name
        assert not [imported for imported in names if "epic_kitchens" in imported], name


@pytest.mark.parametrize("source", HUB_AND_CLONE)
def test_another_process_reads_pickles_and_files_of_torch_save(
    source: str, things: dict[str, Any], tmp_path: Path, interpreter: Interpreter
) -> None:
    clone = str(REPOSITORY) if source == "clone" else None
    things = picklable(None) if clone else things
    expected, paths = [], []
    first = ("MTRN", "refusal")  # each is the first to load the package
    for index, (name, thing) in enumerate(things.items()):
        suffixes = ("pickle", "pt") if name in ("MTRN", "evaluation transform") else ("pickle",)
        for suffix in suffixes:
            path = tmp_path / f"{index}.{suffix}"
            if suffix == "pt":
                torch.save(thing, path)
            else:
                path.write_bytes(pickle.dumps(thing, protocol=2 + index % 4))
            paths.append(str(path))
            expected.append(described(thing))
            if name in first:
                assert interpreter.run(read, paths[-1:], clone) == expected[-1:]
    assert interpreter.run(read, paths, clone) == expected


def test_pickles_of_a_clone_that_is_gone_say_so(tmp_path: Path, interpreter: Interpreter) -> None:
    clone = copy_repository(tmp_path / "clone")
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps(make(clone, "TSN").preprocessing))
    shutil.rmtree(clone)
    with pytest.raises(ProgramError, match=rf"\nFileNotFoundError: .*{re.escape(str(clone))}"):
        interpreter.run(read, [str(path)], None)


def test_pickles_are_read_with_the_code_that_is_there_now(
    tmp_path: Path, interpreter: Interpreter
) -> None:
    clone = copy_repository(tmp_path / "clone")
    path = tmp_path / "model.pickle"
    old = make(clone, "TSN")
    path.write_bytes(pickle.dumps(old))
    copy_repository(clone, TRIPLED)
    ((kind, _, values),) = interpreter.run(read, [str(path)], None)
    assert kind == "TSN"
    assert values == pytest.approx([3 * value for value in logits(old)], abs=1e-3)


def test_every_class_can_be_pickled(model: Any) -> None:
    """The private package takes care of classes at the top level of modules, made plainly."""
    for name in library_modules():
        module = module_of(model, name)
        tree = ast.parse(Path(module.__file__).read_text())
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                assert getattr(module, node.name) in copyreg.dispatch_table, node.name
                assert not [inner for inner in node.body if isinstance(inner, ast.ClassDef)]
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert not functions & {"__reduce__", "__reduce_ex__", "__getnewargs_ex__"}


@pytest.mark.slow
@pytest.mark.parametrize("source", ["hub", "clone"])
def test_workers_of_a_data_loader(source: str, interpreter: Interpreter) -> None:
    hub, clone = (str(REPOSITORY), None) if source == "hub" else (None, str(REPOSITORY))
    loaders = [("fork", 2, "transform"), ("fork", 2, "model"), ("spawn", 1, "model")]
    if hub:
        loaders += [("spawn", 2, "transform"), ("forkserver", 1, "transform")]
    outcome = interpreter.run(workers, hub, clone, loaders)
    assert outcome == [True] * len(loaders) + [True], outcome


@pytest.mark.slow
@pytest.mark.parametrize("source", ["hub", "clone"])
def test_results_and_errors_return_from_spawned_processes(
    source: str, interpreter: Interpreter
) -> None:
    hub, clone = (str(REPOSITORY), None) if source == "hub" else (None, str(REPOSITORY))
    size, table, kind, message = interpreter.run(pool, hub, clone)
    assert size == 224
    assert "wash" in table
    assert kind == "CheckpointError"
    assert "is not a file" in message


# Copies and programs in this process


def test_copies_are_of_the_same_class(model: Any) -> None:
    for twin in (
        copy.copy(model),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        replicated(model),
    ):
        assert type(twin) is type(model)
        assert isinstance(twin, module_of(model, "tsn").TSN)
        assert logits(twin) == logits(model)


def test_deepcopy_needs_no_hub(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor any file: it stays as fast as for other models."""
    monkeypatch.setattr(torch.hub, "_load_local", lambda *_: pytest.fail("deepcopy loads"))
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("deepcopy reads"))
    assert type(copy.deepcopy(model)) is type(model)


@torch.no_grad()
def test_export_and_compile(model: Any) -> None:
    expected = model(CLIP)
    assert torch.equal(torch.export.export(model, (CLIP,)).module()(CLIP), expected)
    assert torch.equal(torch.compile(model, backend="eager", fullgraph=True)(CLIP), expected)
    torch._dynamo.reset()


# Threads and the rest of the process


@pytest.mark.slow
@pytest.mark.parametrize("source", ["hub", "clone"])
def test_threads_build_save_and_load(source: str, interpreter: Interpreter) -> None:
    hub, clone = (str(REPOSITORY), None) if source == "hub" else (None, str(REPOSITORY))
    interpreter.run(hub_programs.threads, hub, clone)


def test_hub_changes_nothing_of_the_process(
    model: Any, tmp_path: Path, interpreter: Interpreter
) -> None:
    path = module_of(model, "model_loader").save_checkpoint(model, tmp_path / "model.pth")
    outcome = interpreter.run(hub_programs.quiet, str(REPOSITORY), str(path))
    assert outcome == {"loading": [], "building": ["torch's random generator"]}


def test_private_modules_come_from_here_alone(model: Any) -> None:
    for name in library_modules():
        module = module_of(model, name)
        assert Path(module.__file__).is_relative_to(REPOSITORY)
        for key, value in vars(module).items():
            owner = "" if key.startswith("__") else getattr(value, "__module__", None) or ""
            assert str(owner).partition(".")[0] not in top_level_names(), (name, value)
    assert importlib.import_module("tsn") is not module_of(model, "tsn")
