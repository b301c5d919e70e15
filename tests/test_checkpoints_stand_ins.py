"""What Lightning writes beside weights is read without Lightning or omegaconf, and runs nothing."""

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.original_format import Global, write
from helpers.other_projects import OMEGACONF, configuration, packages

from checkpoints.checkpoint import parse_checkpoint
from checkpoints.errors import CheckpointError
from checkpoints.files import read_file
from checkpoints.stand_ins import ConfigNode
from checkpoints.values import to_plain

TREE = {
    "modality": "RGB",
    "data": {"frame_count": 8, "mean": [0.485, 0.456], "train": "${data.root}", "none": None},
    "model": {"dropout": 0.7, "partial_bn": True, "empty": {}, "names": ["a", {"b": 1}]},
}
both_serialisations = pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])


@both_serialisations
def test_omegaconf_trees(tmp_path: Path, legacy: bool) -> None:
    with packages(OMEGACONF) as classes:
        contents = {
            "hyper_parameters": configuration(TREE, classes),
            "hparams_type": classes["DictConfig"],
        }
        path = write(contents, tmp_path / "file", legacy=legacy)
    assert "omegaconf" not in sys.modules
    plain = to_plain(read_file(path))
    assert plain == {"hyper_parameters": TREE, "hparams_type": "omegaconf"}
    assert read_file(write(plain, tmp_path / "again")) == plain


@both_serialisations
@pytest.mark.parametrize(
    "name",
    [
        "pytorch_lightning.utilities.parsing.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
    ],
)
def test_attribute_dictionaries(tmp_path: Path, name: str, legacy: bool) -> None:
    with packages({name: dict, **OMEGACONF}) as classes:
        value = classes["AttributeDict"](rate=0.1, tree=configuration(TREE, classes))
        path = write({"hyper_parameters": value}, tmp_path / "file", legacy=legacy)
    plain = to_plain(read_file(path))["hyper_parameters"]
    assert (type(plain), plain) == (dict, {"rate": 0.1, "tree": TREE})


def test_callbacks_and_schedulers(tmp_path: Path) -> None:
    names = (
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
        "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    )
    states = ({"best_model_score": torch.tensor(0.3), "dirpath": Path("runs")}, {"patience": 3})
    with packages(dict.fromkeys(names, object)) as classes:
        contents = {
            "callbacks": dict(zip(classes.values(), states, strict=True)),
            "lr_schedulers": [{"milestones": Counter({20: 1, 40: 1}), "gamma": 0.1}],
        }
        path = write(contents, tmp_path / "file")
    read = to_plain(read_file(path))
    assert list(read["callbacks"]) == list(names)
    assert read["callbacks"][names[1]] == {"patience": 3}
    assert read["lr_schedulers"] == [{"milestones": {20: 1, 40: 1}, "gamma": 0.1}]


def test_other_classes_are_refused_by_name(tmp_path: Path) -> None:
    with packages({"pytorch_lightning.callbacks.base.Mine": object}) as classes:
        path = write({"callbacks": {classes["Mine"]: {}}}, tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"'pytorch_lightning\.callbacks\.base\.Mine'"):
        read_file(path)


@both_serialisations
def test_nothing_in_a_tree_runs(tmp_path: Path, legacy: bool) -> None:
    marker = tmp_path / "marker"
    payload = Global(os.system, f"touch '{marker}'")
    with packages(OMEGACONF) as classes:
        tree = configuration({"a": payload}, classes)
        path = write({"hyper_parameters": tree}, tmp_path / "file", legacy=legacy)
    with pytest.raises(CheckpointError, match=r"posix\.system"):
        read_file(path)
    assert not marker.exists()


@pytest.mark.parametrize("state", [{}, [1], None, 3])
def test_nodes_of_another_kind(tmp_path: Path, state: Any) -> None:
    with packages(OMEGACONF) as classes:
        node = Global(classes["DictConfig"], state=state if state else {"_other": state})
        path = write({"hyper_parameters": node}, tmp_path / "file")
    with pytest.raises(CheckpointError, match="damaged"):
        read_file(path)


def test_types_cannot_be_called(tmp_path: Path) -> None:
    path = write({"hyper_parameters": Global(list, (1, 2))}, tmp_path / "file")
    with pytest.raises(CheckpointError, match="damaged"):
        read_file(path)


def node(content: Any) -> ConfigNode:
    made = ConfigNode()
    made.__setstate__({"_content": content, "_parent": None, "_metadata": None})
    return made


def test_trees_that_contain_themselves() -> None:
    content: dict[str, Any] = {}
    content["self"] = node(content)
    plain = to_plain(node(content))
    assert plain["self"] is plain
    itself = node(None)
    itself.content = itself
    assert to_plain(itself) is None
    loop: list[Any] = []
    loop.append(loop)
    plain = to_plain(loop)
    assert plain[0] is plain


@pytest.mark.parametrize(
    "pair",
    [lambda tree: node([tree, tree]), lambda tree: [tree, tree], lambda tree: (tree, tree),
     lambda tree: {"a": tree, "b": tree}],
    ids=["node", "list", "tuple", "dict"],
)  # fmt: skip
def test_a_small_tree_with_many_paths(pair: Callable[[Any], Any]) -> None:
    tree = pair(node({"leaf": 1}))
    for _ in range(100):
        tree = pair(tree)
    plain = to_plain(tree)
    first, second = plain.values() if isinstance(plain, dict) else plain
    assert first is second


def test_deep_trees() -> None:
    tree: Any = node({})
    for _ in range(5000):
        tree = node({"a": tree})
    with pytest.raises(CheckpointError, match="nested too deeply"):
        parse_checkpoint({"state_dict": {"a": torch.ones(1)}, "hyper_parameters": tree})
