"""What runs in another process, where torch.hub meets other modules, versions and threads."""

import importlib
import inspect
import os
import pickle
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from helpers.global_state import changes, snapshot
from helpers.hub_models import CLIP, FRAMES, KINDS, T, digest, hub, logits, make, module_of
from helpers.repository import TRIPLED, library_modules, top_level_names

# Names that collide


SITUATIONS = ("imported before", "imported after", "in the working directory")
"""Where a module of somebody else, with a name of ours, may be."""


def collide(repository: str, situation: str, expected: list[float]) -> list[str]:
    """Return the names whose module did not stay the caller's."""
    names = top_level_names()
    imported = situation != "in the working directory"
    code = "OWNER = 'caller'\n" if imported else "raise AssertionError(__file__)\n"
    with tempfile.TemporaryDirectory() as folder:
        for index, name in enumerate(names):  # a module, a package, a module, ...
            file = Path(folder, f"{name}/__init__.py" if index % 2 else f"{name}.py")
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
        twin = pickle.loads(pickle.dumps(model))
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


def two_versions(repositories: list[str], workers: int, plain: str) -> None:
    """Load two versions one after the other, or at once: each keeps to itself."""
    barrier = threading.Barrier(workers)

    def load(repository: str) -> Any:
        barrier.wait()
        return make(repository, "TSN")

    with ThreadPoolExecutor(workers) as pool:
        models = dict(zip(repositories, pool.map(load, repositories), strict=True))
    ours = models.pop(plain)
    (theirs,) = models.values()
    assert type(ours) is not type(theirs)
    assert inspect.getfile(type(ours)) == str(Path(plain, "tsn.py"))
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


def two_readers(first: str, second: str) -> None:
    """Let one version clear torch's allow-list while another is reading."""
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


def edited(repository: str) -> None:
    """Go on while somebody edits the clone: old models stay, new ones are new."""
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


# Threads


class _SlowList(list[Any]):
    """Lets other threads in between a question and the answer."""

    def __contains__(self, element: object) -> bool:
        found = super().__contains__(element)
        time.sleep(0.05)
        return found


def threads(repository: str | None, clone: str | None) -> None:
    """Let eight threads build, save and load at once."""
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


# Nothing else changes


def quiet(repository: str, path: str) -> dict[str, list[str]]:
    """Return what of the process loading a checkpoint changes, and building models."""
    before = snapshot()
    hub(repository, "load_checkpoint", path)
    loading = changes(before)
    for kind in KINDS:
        make(repository, kind)
    return {"loading": loading, "building": changes(before)}
