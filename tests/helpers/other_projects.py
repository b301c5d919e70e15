"""Checkpoints as other projects write them, made from models of this one."""

import json
import re
import sys
import typing
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from reference.fill import tensor_for
from torch import Tensor

from helpers.original_format import make
from model_loader import get_config
from tsn import TSN

C1_CLASSES = (97, 300)

RELEASES: dict[str, tuple[str, dict[str, Any]]] = {
    "TSN": ("tsn", {"consensus_type": "avg"}),
    "TRN": ("trn", {}),
    "multi-scale TRN": ("mtrn", {"classifier_pairing": "per-scale"}),
    "TSM": ("tsm", {"shift_place": "blockres"}),
    "TSM in front of blocks": ("tsm", {"shift_place": "block"}),
    "TSM in every second block": ("tsm", {"shift_place": "blockres", "shift_every": 2}),
    "TSM before every second block": ("tsm", {"shift_place": "block", "shift_every": 2}),
    "TSM, non-local, pooled": ("tsm-nl", {}),
    "TSM, non-local, before blocks": ("tsm-nl", {"shift_place": "block", "temporal_pool": False}),
}
"""Kinds of releases: model_type, and options that a release leaves its reader to find out."""

OWN: dict[str, dict[str, Any]] = {
    "tsn": {"consensus_type": "avg"},
    "trn": {},
    "mtrn": {},
    "tsm": {"shift_div": 8},
    "tsm-nl": {"shift_div": 8},
}
"""model_type, and the options that its weights do not tell, as they are assumed."""


def small(kind: str, modality: str = "RGB", num_class: Any = 3, **options: Any) -> TSN:
    """A small model of a kind of release, with the dropout that a reader assumes."""
    model_type, own_options = RELEASES[kind]
    defaults: dict[str, Any] = {"dropout": 0.7}
    if model_type.startswith("tsm"):
        defaults = {"dropout": 0.8, "shift_div": 8}
    return make(model_type, modality, num_class, **{**defaults, **own_options, **options})


def their_names(state: Mapping[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    """Weights of a model with one task under the names of TSN, TRN and MIT-TSM."""
    patterns = (
        (r"^consensus\.classifiers\.(\d+)\.0\.", r"consensus.fc_fusion_scales.\1.3."),
        (r"^consensus\.classifiers\.0\.", "consensus.classifier.3."),
        (r"^consensus\.pre_classifier\.1\.", "consensus.classifier.1."),
    )
    renamed = {}
    for name, tensor in state.items():
        for pattern, theirs in patterns:
            name = re.sub(pattern, theirs, name)
        renamed[prefix + name] = tensor
    return renamed


def release(model: TSN, **entries: Any) -> dict[str, Any]:
    """What TSN, TRN and MIT-TSM save."""
    return {
        "epoch": 49,
        "arch": model.arch,
        "best_prec1": torch.tensor(45.6),
        "state_dict": their_names(model.state_dict()),
        **entries,
    }


def one_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a model for verbs and nouns with one head for both, as C1 has it."""
    joined: dict[str, Tensor] = {}
    for name, tensor in state.items():
        verbs = re.sub(r"^(consensus\.classifiers\.(?:\d+\.)?)1\.(\w+)$", r"\g<1>0.\2", name)
        if name.startswith("fc_"):
            verbs = re.sub(r"^fc_(verb|noun)", "new_fc", name)
        joined[verbs] = torch.cat([joined[verbs], tensor]) if verbs in joined else tensor
    return joined


def hyper_parameters(model: TSN, model_type: str, **of_model: Any) -> dict[str, Any]:
    """C1's tree, as far as anybody reads it and a little further; for flow it has no `bgr`."""
    preprocessing = model.preprocessing
    bgr = {} if model.modality == "Flow" else {"bgr": preprocessing.input_space == "BGR"}
    return {
        "modality": model.modality,
        "data": {
            "frame_count": model.num_segments,
            "segment_length": model.new_length,
            "train_gulp_dir": "${data._root_gulp_dir}/train",
            "preprocessing": {
                **bgr,
                "rescale": preprocessing.input_range[1] == 1,
                "input_size": preprocessing.input_size,
                "scale_size": preprocessing.scale_size,
                "mean": list(preprocessing.mean),
                "std": list(preprocessing.std),
            },
        },
        "model": {
            "type": model_type,
            "backbone": model.arch,
            "dropout": model.dropout,
            **of_model,
        },
        "learning": {"lr": 0.01, "optimizer": {"weight_decay": "5e-4"}},
    }


def lightning(model: TSN, model_type: str, **of_model: Any) -> dict[str, Any]:
    """What Lightning saves of a C1 model, all in plain values."""
    return {
        "epoch": 79,
        "global_step": 31600,
        "pytorch-lightning_version": "1.1.4",
        "callbacks": {},
        "optimizer_states": [
            {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"params": [0]}]}
        ],
        "lr_schedulers": [{"gamma": 0.1, "last_epoch": 80}],
        "state_dict": their_names(one_head(model.state_dict()), "model."),
        "hyper_parameters": hyper_parameters(model, model_type, **of_model),
    }


@contextmanager
def packages(names: Mapping[str, type]) -> Iterator[dict[str, type]]:
    """Modules that hold classes of these names while a file is written, and then are gone."""
    modules: dict[str, ModuleType] = {}
    classes = {}
    for full_name, base in names.items():
        module, _, name = full_name.rpartition(".")
        classes[name] = type(name, (base,), {"__module__": module})
        setattr(modules.setdefault(module, ModuleType(module)), name, classes[name])
    parents = {module.split(".")[0]: ModuleType(module.split(".")[0]) for module in modules}
    with mock.patch.dict(sys.modules, {**parents, **modules}):
        yield classes


OMEGACONF = {
    "omegaconf.dictconfig.DictConfig": object,
    "omegaconf.listconfig.ListConfig": object,
    "omegaconf.nodes.AnyNode": object,
    "omegaconf.base.Metadata": object,
    "omegaconf.base.ContainerMetadata": object,
}


def configuration(value: Any, classes: Mapping[str, type], parent: Any = None) -> Any:
    """A tree with the attributes that omegaconf 2's nodes have when they are pickled."""
    container = isinstance(value, dict | list)
    names = {dict: "DictConfig", list: "ListConfig"}
    node = classes[names.get(type(value), "AnyNode")]()
    metadata = classes["ContainerMetadata" if container else "Metadata"]()
    metadata.__dict__.update(ref_type=typing.Any, object_type=None, optional=True, flags={})
    if container:
        metadata.__dict__.update(
            object_type=type(value),
            key_type=typing.Any,
            element_type=typing.Any,
            resolver_cache=defaultdict(dict),
        )
    node.__dict__.update(_metadata=metadata, _parent=parent, _flags_cache=None)
    if isinstance(value, dict):
        content: Any = {key: configuration(item, classes, node) for key, item in value.items()}
        node.__dict__["_content"] = content
    elif isinstance(value, list):
        node.__dict__["_content"] = [configuration(item, classes, node) for item in value]
    else:
        node.__dict__["_val"] = value
    return node


def c1_small(
    kind: str, modality: str = "RGB", dropout: float = 0.3, **options: Any
) -> tuple[TSN, dict[str, Any]]:
    if modality == "Flow":
        options.setdefault("new_length", 5)
    model = small(kind, modality, C1_CLASSES, dropout=dropout, **options)
    of_model = {}
    if kind.startswith("TSM"):
        config = get_config(model)
        names = ("shift_div", "non_local", "temporal_pool")
        of_model = {name: getattr(config, name) for name in names}
    names_of_types = {"multi-scale TRN": "MTRN"}
    return model, lightning(model, names_of_types.get(kind, kind[:3]), **of_model)


def changed(tree: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A tree with another value, or none, at a place."""
    first, _, rest = path.partition(".")
    if rest:
        return {**tree, first: changed(tree[first], rest, value)}
    tree = {name: item for name, item in tree.items() if name != first}
    return tree if value is None else {**tree, first: value}


REFERENCE = Path(__file__).resolve().parents[1] / "reference"
_FILES = ("foreign", "more_checkpoints")
RECORDED: dict[str, dict[str, Any]] = {
    name: recorded
    for file in _FILES
    for name, recorded in json.loads((REFERENCE / f"{file}.json").read_text()).items()
}
"""Checkpoints of other projects: names and shapes as in the files."""


def recorded_outputs(name: str) -> np.ndarray:
    """What another project's network made of a checkpoint of `RECORDED`."""
    for file in _FILES:
        with np.load(REFERENCE / f"{file}.npz") as outputs:
            if name in outputs:
                return outputs[name]
    raise KeyError(name)


def recorded_contents(name: str) -> dict[str, Any]:
    """A file of another project as it was recorded: names and shapes, and made-up weights."""
    recorded = RECORDED[name]
    state = {
        key: tensor_for(key, tuple(shape), getattr(torch, dtype))
        for key, (shape, dtype) in recorded["state_dict"].items()
    }
    if "hyper_parameters" in recorded:
        return {"state_dict": state, "hyper_parameters": recorded["hyper_parameters"]}
    return {"epoch": 1, "arch": recorded["base_model"], "best_prec1": 1.0, "state_dict": state}
