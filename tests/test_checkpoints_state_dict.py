"""Weights of files are dense tensors, under the names of the network without wrappers."""

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.original_format import write
from helpers.small_contents import contents, weights
from torch import nn
from torch.optim.swa_utils import AveragedModel

from checkpoints.checkpoint import read_checkpoint
from checkpoints.errors import CheckpointError
from checkpoints.state_dict import clean_state_dict
from ops.loading import load_weights


class Wrapper(nn.Module):
    """A module that has the model under a name of its choice."""

    def __init__(self, name: str, model: nn.Module) -> None:
        super().__init__()
        self.add_module(name, model)


def wrapped(name: str, **parts: str) -> nn.Module:
    """A small network in wrappers: `name` around it, `parts` around its parts."""
    network: Any = nn.Module()
    network.base_model = nn.Sequential(OrderedDict(conv1=nn.Linear(2, 2)))
    network.fc_verb = nn.Linear(2, 2)
    for part, wrappers in parts.items():
        setattr(network, part, wrap(wrappers, getattr(network, part)))
    return wrap(name, network)


def wrap(names: str, module: nn.Module) -> nn.Module:
    for name in reversed(names.split(".")):
        module = {
            "": lambda module: module,
            "compile": lambda module: torch.compile(module, backend="eager"),
            "parallel": nn.DataParallel,
            "average": AveragedModel,
            "lightning": lambda module: Wrapper("model", module),
        }[name](module)
    return module


@pytest.mark.parametrize(
    ("wrappers", "parts", "prefixes"),
    [
        ("compile", {}, "prefixes '_orig_mod.' from 4 of 4 names"),
        ("parallel.compile", {}, "prefixes '_orig_mod.' and 'module.' from 4 of 4 names"),
        ("compile.parallel", {}, "prefixes '_orig_mod.' and 'module.' from 4 of 4 names"),
        ("average", {}, "prefixes 'module.' from 4 of 4 names; left out what .*: n_averaged"),
        ("average.compile.parallel", {}, "prefixes '_orig_mod.' and 'module.' .*: n_averaged"),
        ("compile.average", {}, "prefixes '_orig_mod.' and 'module.' .*: _orig_mod.n_averaged"),
        ("lightning", {}, "prefixes 'model.' from 4 of 4 names"),
        ("parallel.lightning.compile", {}, "'_orig_mod.' and 'module.' and 'model.' from 4 of 4"),
        ("average.lightning", {}, "'module.' and 'model.' from 4 of 4 names; .*: n_averaged"),
        ("", {"base_model": "compile"}, "prefixes '_orig_mod.' from 2 of 4 names"),
        ("", {"base_model": "parallel"}, "prefixes 'module.' from 2 of 4 names"),
        ("lightning", {"base_model": "compile.parallel", "fc_verb": "compile"}, "from 4 of 4"),
    ],
)  # fmt: skip
def test_names_in_wrappers(wrappers: str, parts: dict[str, str], prefixes: str) -> None:
    expected = wrapped("").state_dict()
    state, report = clean_state_dict(wrapped(wrappers, **parts).state_dict())
    assert list(state) == list(expected)
    assert len(report) == 1
    assert re.search(prefixes, report[0])


def test_names_without_wrappers() -> None:
    names = ["base_model.layer1.0.conv1.net.weight", "base_model.modules.weight"]
    state = dict.fromkeys(names, torch.ones(9))
    assert clean_state_dict(state) == (state, [])


@pytest.mark.parametrize("prefix", ["model.", "model.model.", "module.", ""])
def test_weights_beside_the_model(prefix: str) -> None:
    others = ["criterion.weight", "ema.module.fc_verb.weight", "model.loss.weight", "n_averaged"]
    state = {name: torch.ones(2) for name in [f"{prefix}fc_verb.weight", *others]}
    cleaned, report = clean_state_dict(state)
    assert list(cleaned) == ["fc_verb.weight"]
    assert report[0].endswith(f"left out what is not the model's: {', '.join(others)}")


def test_what_a_documented_file_holds_besides_is_refused_later() -> None:
    names = ["fc_verb.weight", "fc_action.weight"]
    state = dict.fromkeys(names, torch.ones(2))
    assert list(clean_state_dict(state, strict=True)[0]) == names
    wrapped_state = {f"module.{name}": tensor for name, tensor in state.items()}
    assert list(clean_state_dict(wrapped_state, strict=True)[0]) == names[:1]


@pytest.mark.parametrize(
    "names", [("module.a.weight", "a.weight"), ("model.a.weight", "model._orig_mod.a.weight")]
)
def test_names_that_collide(names: tuple[str, str]) -> None:
    state = {name: torch.ones(2) for name in names}
    message = f"two weights for 'a.weight': '{names[0]}' and '{names[1]}'"
    with pytest.raises(CheckpointError, match=message):
        clean_state_dict(state)


STATE = weights()


@pytest.mark.filterwarnings(
    "ignore:torch.quantize", "ignore:Validating sparse", "ignore:The PyTorch API of nested"
)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.ones(2).to_sparse(), "torch.sparse_coo"),
        (lambda: torch.ones(2, device="meta"), "on the meta"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "a nested tensor"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantized"),
    ],
)
def test_weights_that_are_not_dense_are_refused(tmp_path: Path, make: Any, message: str) -> None:
    path = write(contents(state_dict={"a": make()}), tmp_path / "file", legacy=False)
    with pytest.raises(CheckpointError, match=f"{message}.* under 'a'"):
        read_checkpoint(path)


UNUSUAL = [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", [*UNUSUAL, torch.complex32], ids=str)
def test_weights_of_unusual_dtypes_are_read_as_what_they_are(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    weight = torch.ones(4).to(dtype)
    path = write(
        {**contents(), "state_dict": {**STATE, "a": weight}}, tmp_path / "file", legacy=False
    )
    assert read_checkpoint(path).state_dict["a"].dtype == dtype
    model = nn.Linear(1, 4, bias=False)
    state = {"weight": weight[:, None]}
    if dtype.is_floating_point:
        load_weights(model, state, source="file")
        assert torch.equal(model.weight, torch.ones(4, 1))
    else:
        with pytest.raises(CheckpointError, match=f"another type: weight {dtype} instead of"):
            load_weights(model, state, source="file")


def test_parameters_with_attributes_are_read(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.ones(4))
    weight.note = "of a program"  # type: ignore[attr-defined]
    path = write(
        {**contents(), "state_dict": {**STATE, "a": weight}}, tmp_path / "file", legacy=False
    )
    assert torch.equal(read_checkpoint(path).state_dict["a"], torch.ones(4))
