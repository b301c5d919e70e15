#!/usr/bin/env python
"""Print what a checkpoint file holds: config, training arguments, optimiser, weights.

    python tools/print_checkpoint_details.py CHECKPOINT [--json] [--num-segments T] [--trust]

Files that `load_checkpoint` does not load are shown too, with the reason. No model is built, and
no code from the file runs (unless `--trust` allows it).
"""

import argparse
import itertools
import json
import math
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

if not __package__:  # run as a program, when Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from checkpoints.checkpoint import parse_checkpoint
from checkpoints.config import Checkpoint
from checkpoints.documented import to_dictionary
from checkpoints.errors import CheckpointError, UnknownSegmentsError, key_to_str, show
from checkpoints.files import read_file
from checkpoints.stand_ins import ConfigNode
from data.options import first_few
from tools.options import add_segments_option, add_trust_option, find_format
from weights.published import find_published

__all__ = ["describe", "main"]

_SHOWN_APART = ("state_dict", "args", "optimizer", "preprocessing", "format_version")
_SUMMARISED = ("state_dict", "args", "hyper_parameters", "optimizer", "optimizer_states")
_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")
"""Ends of the names of batch norm's statistics, which are no parameters."""
_MAX_DEPTH, _MAX_ITEMS, _MAX_VALUES = 20, 1000, 100_000
"""Levels of nested values, items of one value, and values in all that are shown."""


def describe(
    path: str | os.PathLike[str], *, num_segments: int | None = None, trust: bool = False
) -> dict[str, Any]:
    """Describe a checkpoint file.

    Args:
        path: the file.
        num_segments: as for `load_checkpoint`.
        trust: whether the file may run any code while it is read.

    Returns:
        Values that `json.dumps` accepts. `config` is the config with which `load_checkpoint`
        would build the model, or None; `problem` is why it cannot; `notes` is what it would rename.
        A file that needs `num_segments` has both `config` and `problem`.

    Raises:
        FileNotFoundError: if there is no such file.
        checkpoints.errors.CheckpointError: if the file is not a checkpoint, or could run code.
    """
    contents = read_file(path, trust=trust)
    checkpoint, problem = None, None
    try:
        checkpoint = parse_checkpoint(contents, num_segments=num_segments)
    except UnknownSegmentsError as error:
        problem = str(error)
        checkpoint = parse_checkpoint(contents, num_segments=1)  # in the place of the unknown
    except CheckpointError as error:
        problem = str(error)
    if checkpoint is not None:
        contents = checkpoint.contents
    weights = contents.get("state_dict") if isinstance(contents, Mapping) else None
    if not isinstance(weights, Mapping) or not weights:
        raise CheckpointError(f"{path}: {problem}")
    preprocessing, source = _preprocessing(checkpoint)
    return {
        "path": str(path),
        "file_bytes": Path(path).stat().st_size,
        "serialization": find_format(path),
        "variant": _variant(contents, checkpoint),
        "epoch": _to_plain(contents.get("epoch")),
        "config": None if checkpoint is None else _config(checkpoint, problem is None),
        "preprocessing": preprocessing,
        "preprocessing_source": source,
        "notes": [] if checkpoint is None else list(checkpoint.report),
        "problem": problem,
        "entries": {
            key_to_str(name): _to_plain(value)
            for name, value in contents.items()
            if name not in _SUMMARISED
        },
        "args": _to_plain(contents.get("args", contents.get("hyper_parameters"))),
        "optimizer": _optimizer(_optimizer_state(contents)),
        "weights": [_weight(name, value) for name, value in weights.items()],
        "totals": _totals(weights),
    }


def _variant(contents: Mapping[Any, Any], checkpoint: Checkpoint | None) -> str | None:
    """Return the kind of model, or else what the file says that it is."""
    if checkpoint is None:
        model_type = contents.get("model_type")
        return None if model_type is None else key_to_str(model_type).upper()
    config = checkpoint.config
    return "TSM-NL" if config.non_local else config.model_type.upper()


def _config(checkpoint: Checkpoint, with_segments: bool) -> dict[str, Any]:
    """Return the config of the model: the documented fields, and class counts."""
    entries = to_dictionary(replace(checkpoint, args={}))
    config = {name: value for name, value in entries.items() if name not in _SHOWN_APART}
    del config["epoch"]
    if not with_segments:
        config["segment_count"] = None
    return {**config, "num_class": _to_plain(checkpoint.config.num_class)}


def _preprocessing(checkpoint: Checkpoint | None) -> tuple[dict[str, Any] | None, str | None]:
    """Return the input that the weights expect, where that is known, and who says so."""
    if checkpoint is None:
        return None, None
    config = checkpoint.config
    if config.preprocessing is not None:
        return _to_plain(asdict(config.preprocessing)), "recorded in the file"
    try:
        published = find_published(
            config.model_type,
            config.arch,
            config.modality,
            num_segments=config.num_segments,
            new_length=config.new_length,
        )
    except ValueError:
        return None, None
    theirs = asdict(published.config)["preprocessing"]
    return _to_plain(theirs), "that of the published weights of this kind"


def _optimizer_state(contents: Mapping[Any, Any]) -> Any:
    """Return the state of the optimiser; Lightning has a list of them, usually of one."""
    states = contents.get("optimizer_states")
    if "optimizer" not in contents and isinstance(states, list) and len(states) == 1:
        return states[0]
    return contents.get("optimizer", states)


def _optimizer(state: Any) -> dict[str, Any] | None:
    """Return the parameter groups without their parameters, and a summary of the state."""
    if state is None:
        return None
    if not isinstance(state, Mapping) or not isinstance(state.get("param_groups"), list):
        return {"unknown": _to_plain(state)}
    groups = []
    for group in state["param_groups"]:
        options = _to_plain(group)
        if isinstance(options, dict) and isinstance(options.get("params"), list):
            options["params"] = len(options["params"])
        groups.append(options)
    slots = state.get("state")
    values = list(slots.values()) if isinstance(slots, Mapping) else []
    tensors = [
        value
        for slot in values
        if isinstance(slot, Mapping)
        for value in slot.values()
        if isinstance(value, Tensor)
    ]
    return {
        "param_groups": groups,
        "state": {
            "parameters": len(values),
            "tensors": len(tensors),
            "bytes": _bytes(tensors),
        },
    }


def _weight(name: Any, value: Any) -> dict[str, Any]:
    if not isinstance(value, Tensor):
        return {"name": key_to_str(name), "shape": None, "dtype": type(value).__name__}
    return {"name": key_to_str(name), "shape": list(value.shape), "dtype": _dtype(value)}


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _totals(weights: Mapping[Any, Any]) -> dict[str, int]:
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    return {
        "tensors": len(tensors),
        "parameters": sum(
            value.numel() for name, value in tensors.items() if not str(name).endswith(_STATISTICS)
        ),
        "bytes": _bytes(tensors.values()),
    }


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _to_plain(value: Any) -> Any:
    """Return a value in the kinds that JSON has, cut short where it is very large."""
    return _json_value(value, 0, itertools.count())


def _json_value(value: Any, depth: int, values: "itertools.count[int]") -> Any:
    if depth > _MAX_DEPTH or next(values) > _MAX_VALUES:
        return "..."
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, ConfigNode):
        value = value.content
    if isinstance(value, Namespace):
        value = vars(value)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < 64 else show(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping | list | tuple | set):
        # Once for each way to a value, of which a small file can have 2^100.
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        parts = {
            key_to_str(key): _json_value(item, depth + 1, values)
            for key, item in itertools.islice(items, _MAX_ITEMS)
        }
        if len(value) > _MAX_ITEMS:
            parts["..."] = f"{len(value) - _MAX_ITEMS:,} more"
        return parts if isinstance(value, Mapping) else list(parts.values())
    if isinstance(value, Tensor):
        if value.numel() == 1 and value.device.type != "meta":
            return _json_value(value.item(), depth, values)
        return f"{_dtype(value)} tensor of shape {tuple(value.shape)}"
    return str(value) if isinstance(value, torch.dtype | torch.device) else show(value)


def _format(details: Mapping[str, Any]) -> str:
    """Format the details for people: a section each, in aligned columns."""
    file = {
        "file": details["path"],
        "size": f"{details['file_bytes']:,} bytes, {details['serialization']} serialisation",
        "variant": details["variant"],
        "epoch": details["epoch"],
    }
    sections = [_format_columns(file)]
    if details["problem"] is not None:
        sections += [f"load_checkpoint cannot load it: {details['problem']}"]
    if details["config"] is None:
        sections += ["Entries\n" + _format_columns(details["entries"])]
    else:
        config = dict(details["config"])
        if isinstance(config["num_class"], list):
            config["num_class"] = "{} verbs, {} nouns".format(*config["num_class"])
        if names := config.get("class_names"):
            tasks = [names] if isinstance(names[0], str) else names
            config["class_names"] = "; ".join(f"{len(task)}: {first_few(task)}" for task in tasks)
        sections += ["Config\n" + _format_columns(config)]
        extra = {
            name: value
            for name, value in details["entries"].items()
            if name not in (*config, *_SHOWN_APART, "epoch")
        }
        training = extra.get("training")
        if isinstance(training, Mapping) and isinstance(training.get("progress"), Mapping):
            # Of `training.state`: the request and all epochs would fill a page.
            extra["training"] = {
                name: value
                for name, value in training["progress"].items()
                if name in ("epoch", "step", "best_epoch")
            }
        if extra:
            sections += ["Other entries\n" + _format_columns(extra)]
    if details["preprocessing"] is not None:
        title = f"Preprocessing ({details['preprocessing_source']})"
        sections += [f"{title}\n{_format_columns(details['preprocessing'])}"]
    sections += ["Training arguments\n" + _format_columns(_as_rows("args", details["args"]))]
    sections += ["Optimizer\n" + _format_optimizer(details["optimizer"])]
    notes = "".join(f"\n  on loading: {note}" for note in details["notes"])
    sections += [f"Weights{notes}\n{_format_weights(details['weights'])}"]
    totals = details["totals"]
    sections += ["{tensors:,} tensors, {parameters:,} parameters, {bytes:,} bytes".format(**totals)]
    return "\n\n".join(sections)


def _format_optimizer(optimizer: Mapping[str, Any] | None) -> str:
    if optimizer is None or "unknown" in optimizer:
        return _format_columns(optimizer or {})
    rows = {f"group {index}": group for index, group in enumerate(optimizer["param_groups"])}
    rows["state"] = ", ".join(f"{count:,} {what}" for what, count in optimizer["state"].items())
    return _format_columns(rows)


def _as_rows(name: str, value: Any) -> Mapping[str, Any]:
    """Return a value as rows: one for what is no dictionary, none for None."""
    if isinstance(value, Mapping):
        return value
    return {} if value is None else {name: value}


def _format_weights(weights: list[dict[str, Any]]) -> str:
    rows = [
        (
            _format_value(weight["name"]),
            "" if weight["shape"] is None else _format_value(weight["shape"]),
            weight["dtype"],
        )
        for weight in weights
    ]
    names, shapes = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"  {name:<{names}}  {shape:<{shapes}}  {kind}" for name, shape, kind in rows)


def _format_columns(values: Mapping[str, Any]) -> str:
    if not values:
        return "  none"
    rows = [(_format_value(name), _format_value(value)) for name, value in values.items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _format_value(value: Any) -> str:
    """Format a value on one line, without anything that a terminal would obey."""
    if isinstance(value, Mapping):
        # Options of an optimiser that are not in use would fill the line.
        used = {name: item for name, item in value.items() if item is not None}
        return ", ".join(
            f"{_format_value(name)}={_format_value(item)}" for name, item in used.items()
        )
    if isinstance(value, list):
        return f"({', '.join(map(_format_value, value))}{',' if len(value) == 1 else ''})"
    text = "-" if value is None else str(value)
    return text if text.isprintable() else ascii(text)


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return the exit status."""
    parser = argparse.ArgumentParser(
        description="Print what a checkpoint file holds, without building a model.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_segments_option(parser)
    add_trust_option(parser)
    options = parser.parse_args(arguments)
    try:
        details = describe(
            options.checkpoint, num_segments=options.num_segments, trust=options.trust
        )
    except (CheckpointError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    text = json.dumps(details, indent=2) if options.json else _format(details)
    encoding = sys.stdout.encoding or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)  # not every terminal is UTF-8
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `| head` has seen enough; nor shall Python complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
