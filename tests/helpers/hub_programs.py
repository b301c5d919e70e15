"""Programs that tests of torch.hub run in other processes: `interpreter.run("collisions", ...)`.

A program is a function here whose arguments and result go through JSON. It begins with nothing but
torch and torchvision imported; `forked` gives each part of it a process that begins there again.
"""

import importlib
import json
import multiprocessing
import os
import pickle
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from helpers.global_state import changes, snapshot
from helpers.small_models import randomised

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = {"TSN": "tsn", "TRN": "trn", "MTRN": "trn", "TSM": "tsm"}
"""Models, and the modules that define them."""
T = 3
FRAMES = torch.arange(T * 3 * 256 * 300, dtype=torch.int64).remainder(251).to(torch.uint8)
FRAMES = FRAMES.view(T, 3, 256, 300)
CLIP = (FRAMES[..., :64, :64].float() / 250).reshape(1, T * 3, 64, 64)


def source_files() -> list[Path]:
    """The files of the library and its programs: at the top level, and in folders of ours."""
    folders = [REPOSITORY, *(path.parent for path in sorted(REPOSITORY.glob("*/__init__.py")))]
    return [
        path.relative_to(REPOSITORY) for folder in folders for path in sorted(folder.glob("*.py"))
    ]


def top_level_names() -> list[str]:
    """What this repository's modules and folders of modules are called."""
    files = [path.stem for path in REPOSITORY.glob("*.py") if path.stem != "__init__"]
    folders = {path.parent.name for path in REPOSITORY.glob("*/*.py")}
    return sorted(name for name in {*files, *folders} if name.isidentifier())


def library_modules() -> list[str]:
    """Dotted names of the modules that can be imported, from a clone and from the package."""
    return [
        ".".join(path.with_suffix("").parts)
        for path in source_files()
        if path.stem not in ("__init__", "hubconf", "setup")
    ]


def copy_repository(folder: Path, appended: dict[str, str] | None = None) -> Path:
    """A copy of the library in a new folder, with code appended to some of its files."""
    for file in source_files():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        text = (REPOSITORY / file).read_text() + (appended or {}).get(str(file), "")
        (folder / file).write_text(text)
    return folder


TRIPLED = {
    "ops/consensus.py": "\n\nAverageConsensus.forward = lambda self, scores: scores.sum(dim=1)\n"
}
"""Another version of the code: with T = 3, TSN's and TSM's logits are three times as large."""

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "tests")}
"""As it was before any test; more threads would not survive a fork."""


class Interpreter:
    """An interpreter with nothing but torch and torchvision imported, in which programs run."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd=folder, env=ENVIRONMENT, text=True,
        )  # fmt: skip

    def run(self, program: str, *arguments: Any) -> Any:
        """The result of a program, which runs in a fork and has to be silent."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps([program, *arguments]), file=self._process.stdin, flush=True)
        answer, printed = json.loads(self._process.stdout.readline())
        assert printed == ""
        return answer

    def close(self) -> None:
        self._process.communicate()


def _serve() -> None:
    for line in sys.stdin:
        program, *arguments = json.loads(line)
        with tempfile.TemporaryFile("w+") as printed:
            answer = forked(globals()[program], *arguments, printed=printed.fileno())
            printed.seek(0)
            print(json.dumps([answer, printed.read()]), flush=True)


def forked(function: Callable[..., Any], *arguments: Any, printed: int | None = None) -> Any:
    """The result of a function in a copy of this process, or the text of its exception."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for stream in (1, 2) if printed else ():
                os.dup2(printed, stream)
            answer = json.dumps(function(*arguments))
        except BaseException:
            answer = json.dumps(traceback.format_exc())
        with open(writer, "w") as pipe:
            print(answer, file=pipe)
        sys.stdout.flush()
        os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        answer = pipe.readline()  # not to the end, which workers keep open for a while
    os.waitpid(child, 0)
    return json.loads(answer or '"the process ended before its time"')


# Models


def hub(repository: str | Path, entry: str, *arguments: Any, **options: Any) -> Any:
    """What an entry point of a repository returns."""
    return torch.hub.load(str(repository), entry, *arguments, source="local", **options)


def make(repository: str | Path | None, kind: str, **options: Any) -> Any:
    """A small model with weights that can be recognised; from a plain import without repository."""
    arguments = (5, T, "RGB", "resnet18")
    if repository:
        model = hub(repository, kind, *arguments, pretrained=None, **options)
    else:
        plain = getattr(importlib.import_module(KINDS[kind]), kind)
        model = plain(*arguments, pretrained=None, **options)
    return randomised(model, seed=len(kind))


def module_of(model: object, name: str) -> Any:
    """A module from where the class of a model is, be that a private package or not."""
    package, dot, _ = type(model).__module__.rpartition(KINDS.get(type(model).__name__, "?"))[0:3]
    return importlib.import_module(f"{package if dot else ''}{name}")


@torch.no_grad()
def logits(model: nn.Module) -> list[float]:
    outputs = model(CLIP)
    return [round(value, 4) for value in outputs[0].tolist()]


def digest(model: nn.Module) -> int:
    """Checksum of the weights and their names."""
    value = 0
    for name, tensor in model.state_dict().items():
        value = zlib.crc32(name.encode(), value)
        value = zlib.crc32(tensor.contiguous().numpy(), value)
    return value


# Names that collide


SITUATIONS = (
    "imported before",
    "imported after",
    "module in the working directory",
    "package in the working directory",
)
COLLISIONS = [(name, situation) for name in top_level_names() for situation in SITUATIONS]
"""Every way in which a module of somebody else can have a name of ours."""


def collisions(repository: str) -> dict[str, Any]:
    """For each situation, the names whose module did not stay the caller's, or what went wrong."""
    expected = forked(_undisturbed, repository)
    return {
        situation: forked(_collide, repository, situation, expected) for situation in SITUATIONS
    }


def _undisturbed(repository: str) -> list[float]:
    return logits(make(repository, "MTRN"))


def _collide(repository: str, situation: str, expected: list[float]) -> list[str]:
    names = top_level_names()
    lying = "working directory" in situation
    code = "raise AssertionError(__file__)\n" if lying else "OWNER = 'caller'\n"
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            file = Path(folder, name, "__init__.py" if "package" in situation else "")
            file = file if "package" in situation else file.with_suffix(".py")
            file.parent.mkdir(exist_ok=True)
            file.write_text(code)
        os.chdir(folder)
        sys.path.insert(0, folder)
        theirs = {}
        if situation == "imported before":
            theirs = {name: importlib.import_module(name) for name in names}
        content = {name: set(vars(module)) for name, module in theirs.items()}

        model = make(repository, "MTRN")
        assert logits(model) == expected
        wrong = [name for name in names if sys.modules.get(name) is not theirs.get(name)]
        if situation == "imported after":
            theirs = {name: importlib.import_module(name) for name in names}
            content = {name: set(vars(module)) for name, module in theirs.items()}
        for name in library_modules():
            module_of(model, name)
        twin = pickle.loads(pickle.dumps(make(repository, "MTRN")))
        assert logits(twin) == logits(model) == expected
        assert model.evaluation_transform(10)(FRAMES).shape == (10 * T * 3, 224, 224)
        for name in names:
            module = sys.modules.get(name)
            if module is not theirs.get(name) or (
                module and (module.OWNER != "caller" or set(vars(module)) != content[name])
            ):
                wrong.append(name)
        os.chdir("/")
    return wrong


# Two versions in one process


def versions(plain: str, tripled: str) -> dict[str, Any]:
    """What goes wrong with two versions, loaded one after the other and at once."""
    return {
        "plain first": forked(_two_versions, [plain, tripled], 1, plain),
        "tripled first": forked(_two_versions, [tripled, plain], 1, plain),
        "at once": forked(_two_versions, [plain, tripled], 2, plain),
    }


def _two_versions(repositories: list[str], workers: int, plain: str) -> str:
    barrier = threading.Barrier(workers)

    def load(repository: str) -> Any:
        barrier.wait()
        return make(repository, "TSN")

    with ThreadPoolExecutor(workers) as pool:
        models = dict(zip(repositories, pool.map(load, repositories), strict=True))
    ours = models.pop(plain)
    (theirs,) = models.values()
    assert type(ours) is not type(theirs)
    for model, other in ((ours, theirs), (theirs, ours)):
        assert module_of(model, "tsn").TSN is type(model)
        assert isinstance(model, module_of(model, "tsn").TSN)
        assert not isinstance(other, module_of(model, "tsn").TSN)
        assert type(pickle.loads(pickle.dumps([other, model]))[1]) is type(model)
    with torch.no_grad():
        torch.testing.assert_close(theirs(CLIP), T * ours(CLIP))
        again = make(plain, "TSN")
        assert type(again) is type(ours)
        assert torch.equal(again(CLIP), ours(CLIP))
    with tempfile.TemporaryDirectory() as folder:
        path = module_of(theirs, "model_loader").save_checkpoint(theirs, f"{folder}/theirs.pth")
        loaded = module_of(ours, "model_loader").load_checkpoint(path)
    assert type(loaded) is type(ours)
    assert digest(loaded) == digest(theirs)
    return ""


def two_readers(first: str, second: str) -> str:
    """What goes wrong if one version clears torch's allow-list while another is reading."""
    return forked(_two_readers, first, second)


def _two_readers(first: str, second: str) -> str:
    models = [make(repository, "TSN") for repository in (first, second)]
    loaders = [module_of(model, "model_loader") for model in models]
    listed = set(torch.serialization.get_safe_globals())
    second_reads, first_is_done = threading.Event(), threading.Event()
    torch_load = torch.load

    def slow_load(path: Any, **options: Any) -> Any:
        if Path(path).stem == "0":
            second_reads.wait(2)  # or the second may not read before the first is done
        else:
            second_reads.set()
            first_is_done.wait(20)
        return torch_load(path, **options)

    def first_load(path: Path) -> Any:
        try:
            return loaders[0].load_checkpoint(path)
        finally:
            first_is_done.set()

    def second_load(path: Path) -> Any:
        time.sleep(0.2)
        return loaders[1].load_checkpoint(path)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        paths = [
            loader.save_checkpoint(model, f"{folder}/{index}.pth")
            for index, (loader, model) in enumerate(zip(loaders, models, strict=True))
        ]
        torch.load = slow_load
        futures = [pool.submit(first_load, paths[0]), pool.submit(second_load, paths[1])]
        loaded = [future.result() for future in futures]
    assert [digest(model) for model in loaded] == [digest(model) for model in models]
    assert set(torch.serialization.get_safe_globals()) == listed
    return ""


def edited(repository: str) -> str:
    """A notebook goes on while somebody edits the clone: old models stay, new ones are new."""
    old = make(repository, "TSN")
    path = Path(repository, "ops", "consensus.py")
    path.write_text(path.read_text() + TRIPLED["ops/consensus.py"])
    new = make(repository, "TSN")
    assert type(old) is not type(new)
    with torch.no_grad():
        torch.testing.assert_close(new(CLIP), T * old(CLIP))
    for model in (old, new):
        assert type(pickle.loads(pickle.dumps(model))) is type(model)
    Path(repository, "predictor.py").write_text("raise ImportError('of neither')\n")
    for model in (old, new):
        module_of(model, "predictor")
    return ""


# Other processes


def read(paths: list[str], clone: str | None) -> list[Any]:
    """What files of pickles and of torch.save hold, in a process that has loaded nothing before."""
    sys.path[:0] = [clone] if clone else []
    return [
        described(
            torch.load(path, weights_only=False)
            if path.endswith(".pt")
            else pickle.loads(Path(path).read_bytes())
        )
        for path in paths
    ]


def described(found: Any) -> Any:
    """What a test can compare of an object from another process."""
    if isinstance(found, nn.Module):
        if hasattr(found, "num_class"):
            return [type(found).__name__, digest(found), logits(found)]
        return [type(found).__name__, digest(found)]
    if callable(found):
        return [type(found).__name__, zlib.crc32(found(FRAMES).numpy())]
    text = re.sub(r" at 0x\w+", "", repr(found))
    return [type(found).__name__, text, repr(getattr(found, "__dict__", None))]


class Transformed(Dataset[Tensor]):
    """Clips through a model's transform."""

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(FRAMES.roll(index, -1)).mean()


class Classified(Dataset[Tensor]):
    """Clips through a model, and for index 3 an error of its checkpoint reader."""

    def __init__(self, model: nn.Module, failing: bool = False) -> None:
        self.model = model
        self.failing = failing

    def __len__(self) -> int:
        return 3

    @torch.no_grad()
    def __getitem__(self, index: int) -> Tensor:
        if self.failing:
            module_of(self.model, "model_loader").load_checkpoint(os.devnull)
        return self.model(CLIP.roll(index, -1))


def workers(repository: str | None, clone: str | None, loaders: list[list[Any]]) -> list[Any]:
    """Whether workers do what this process does, and the error of one that fails.

    Args:
        repository: where torch.hub finds the model.
        clone: what is imported instead.
        loaders: for each, the way to start workers, their number, and what the dataset holds.
    """
    sys.path[:0] = [clone] if clone else []
    model = make(repository, "TSM")
    error = module_of(model, "checkpoints.files").CheckpointError
    datasets = {
        "transform": Transformed(model.evaluation_transform()),
        "model": Classified(model),
    }
    answers: list[Any] = []
    for method, count, held in loaders:
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(["torch"])
        dataset = datasets[held]
        loader = DataLoader(dataset, None, num_workers=count, multiprocessing_context=context)
        expected = [dataset[index] for index in range(len(dataset))]
        answers.append(torch.equal(torch.stack(expected), torch.stack(list(loader))))
    try:
        list(DataLoader(Classified(model, failing=True), None, num_workers=1))
    except error as refusal:
        answers.append(os.devnull in str(refusal))
    return answers


def _preprocessing(repository: str | None, clone: str | None) -> Any:
    sys.path[:0] = [clone] if clone else []
    model = make(repository, "TSN")
    prediction = module_of(model, "predictor").Prediction
    label = module_of(model, "predictor").Label
    return model.preprocessing, prediction(classes=(label("wash", (3,), 0.5),))


def _refused(repository: str | None, clone: str | None) -> None:
    sys.path[:0] = [clone] if clone else []
    model = make(repository, "TSN")
    module_of(model, "model_loader").load_checkpoint(os.devnull)


def pool(repository: str | None, clone: str | None) -> list[Any]:
    """What comes back from a spawned process, in one that has loaded nothing itself."""
    sys.path[:0] = [clone] if clone else []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        preprocessing, prediction = executor.submit(_preprocessing, repository, clone).result()
        error = executor.submit(_refused, repository, clone).exception()
    return [preprocessing.input_size, str(prediction), type(error).__name__, str(error)]


# Threads


class _SlowList(list[Any]):
    """Lets other threads in between a question and the answer."""

    def __contains__(self, element: object) -> bool:
        found = super().__contains__(element)
        time.sleep(0.05)
        return found


def threads(repository: str) -> dict[str, Any]:
    """What goes wrong when eight threads build, save and load, from hub and from a clone."""
    return {
        "hub": forked(_threads, repository, None),
        "clone": forked(_threads, None, repository),
    }


def _threads(repository: str | None, clone: str | None) -> str:
    sys.path[:0] = [clone] if clone else []
    sys.meta_path = _SlowList(sys.meta_path)
    sys.setswitchinterval(1e-5)
    torch.serialization.add_safe_globals([random.Random])
    barrier = threading.Barrier(8)
    kinds = list(KINDS) * 2
    before = snapshot()

    def build_and_save(kind: str, path: str) -> Any:
        barrier.wait()
        model = make(repository, kind)
        module_of(model, "model_loader").save_checkpoint(model, path)
        return model

    def load(path: str) -> Any:
        if repository:
            return hub(repository, "load_checkpoint", path)
        return importlib.import_module("model_loader").load_checkpoint(path)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(8) as executor:
        paths = [f"{folder}/{index}.pth" for index in range(8)]
        built = list(executor.map(build_and_save, kinds, paths))
        assert set(changes(before)) <= {"torch's random generator"}, changes(before)
        before = snapshot()
        loaded = list(executor.map(load, paths))
        assert not changes(before), changes(before)
    alone = {kind: make(repository, kind) for kind in KINDS}
    for kind, model, again in zip(kinds, built, loaded, strict=True):
        assert type(model) is type(again) is type(alone[kind])
        assert digest(model) == digest(again) == digest(alone[kind])
    finders = [str(f) for f in sys.meta_path if "epic_kitchens" in getattr(f, "package", "")]
    assert len(finders) == (1 if repository else 0), finders
    return ""


# Nothing else changes


def quiet(repository: str, path: str) -> dict[str, list[str]]:
    """What torch.hub changes of the process by loading a checkpoint, and by building models."""
    before = snapshot()
    hub(repository, "load_checkpoint", path)
    loading = changes(before)
    for kind in KINDS:
        make(repository, kind)
    return {"loading": loading, "building": changes(before)}


if __name__ == "__main__":
    importlib.import_module("torchvision.transforms.v2")  # which changes filters and environment
    _serve()
