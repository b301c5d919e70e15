#!/usr/bin/env python
"""Print what a checkpoint file holds: settings, training arguments, optimiser, weights.

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
from tools.options import add_segments_option, add_trust_option, find_format
from weights.published import find_published

__all__ = ["describe", "main"]

_SHOWN_APART = ("state_dict", "args", "optimizer", "preprocessing", "format_version")
_SUMMARISED = ("state_dict", "args", "hyper_parameters", "optimizer", "optimizer_states")
_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")
"""Ends of the names of batch norm's statistics, which are no parameters."""
_DEEPEST, _LONGEST, _MOST = 20, 1000, 100_000
"""Levels of nested values, entries of one value, and values in all that are shown."""


def describe(
    path: str | os.PathLike[str], *, num_segments: int | None = None, trust: bool = False
) -> dict[str, Any]:
    """Everything that is to be said of a checkpoint file.

    Args:
        path: the file.
        num_segments: as for `load_checkpoint`.
        trust: whether the file may run any code while it is read.

    Returns:
        Plain values, which `json.dumps` accepts: `settings` as `load_checkpoint` understands them,
        or None and the reason under `problem`; under `notes`, what it would rename. A file that
        needs `num_segments` has both: everything else is known of it.

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
        "epoch": _plain(contents.get("epoch")),
        "settings": None if checkpoint is None else _settings(checkpoint, problem is None),
        "preprocessing": preprocessing,
        "preprocessing_source": source,
        "notes": [] if checkpoint is None else list(checkpoint.report),
        "problem": problem,
        "entries": {
            key_to_str(name): _plain(value)
            for name, value in contents.items()
            if name not in _SUMMARISED
        },
        "args": _plain(contents.get("args", contents.get("hyper_parameters"))),
        "optimizer": _optimizer(_optimizer_state(contents)),
        "weights": [_weight(name, value) for name, value in weights.items()],
        "totals": _totals(weights),
    }


def _variant(contents: Mapping[Any, Any], checkpoint: Checkpoint | None) -> str | None:
    """Name of the kind of model: the one that it is, or else what the file says."""
    if checkpoint is None:
        model_type = contents.get("model_type")
        return None if model_type is None else key_to_str(model_type).upper()
    settings = checkpoint.config
    return "TSM-NL" if settings.non_local else settings.model_type.upper()


def _settings(checkpoint: Checkpoint, with_segments: bool) -> dict[str, Any]:
    """The model as `load_checkpoint` would build it: the documented entries, and class counts."""
    entries = to_dictionary(replace(checkpoint, args={}))
    settings = {name: value for name, value in entries.items() if name not in _SHOWN_APART}
    del settings["epoch"]
    if not with_segments:
        settings["segment_count"] = None
    return {**settings, "num_class": _plain(checkpoint.config.num_class)}


def _preprocessing(checkpoint: Checkpoint | None) -> tuple[dict[str, Any] | None, str | None]:
    """The input that the weights expect, where that is known, and who says so."""
    if checkpoint is None:
        return None, None
    settings = checkpoint.config
    if settings.preprocessing is not None:
        return _plain(asdict(settings.preprocessing)), "recorded in the file"
    try:
        published = find_published(
            settings.model_type,
            settings.arch,
            settings.modality,
            num_segments=settings.num_segments,
            new_length=settings.new_length,
        )
    except ValueError:
        return None, None
    theirs = asdict(published.config)["preprocessing"]
    return _plain(theirs), "that of the published weights of this kind"


def _optimizer_state(contents: Mapping[Any, Any]) -> Any:
    """State of the optimiser; Lightning has a list of them, usually of one."""
    states = contents.get("optimizer_states")
    if "optimizer" not in contents and isinstance(states, list) and len(states) == 1:
        return states[0]
    return contents.get("optimizer", states)


def _optimizer(state: Any) -> dict[str, Any] | None:
    """Parameter groups without their parameters, and a summary of the state."""
    if state is None:
        return None
    if not isinstance(state, Mapping) or not isinstance(state.get("param_groups"), list):
        return {"unknown": _plain(state)}
    groups = []
    for group in state["param_groups"]:
        options = _plain(group)
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


def _plain(value: Any) -> Any:
    """A value of any kind in the kinds that JSON has, cut short where it is very large."""
    return _json_value(value, 0, itertools.count())


def _json_value(value: Any, depth: int, values: "itertools.count[int]") -> Any:
    if depth > _DEEPEST or next(values) > _MOST:
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
            for key, item in itertools.islice(items, _LONGEST)
        }
        if len(value) > _LONGEST:
            parts["..."] = f"{len(value) - _LONGEST:,} more"
        return parts if isinstance(value, Mapping) else list(parts.values())
    if isinstance(value, Tensor):
        if value.numel() == 1 and value.device.type != "meta":
            return _json_value(value.item(), depth, values)
        return f"{_dtype(value)} tensor of shape {tuple(value.shape)}"
    return str(value) if isinstance(value, torch.dtype | torch.device) else show(value)


def _text(details: Mapping[str, Any]) -> str:
    """The details for people: a section each, in aligned columns."""
    file = {
        "file": details["path"],
        "size": f"{details['file_bytes']:,} bytes, {details['serialization']} serialisation",
        "variant": details["variant"],
        "epoch": details["epoch"],
    }
    sections = [_columns(file)]
    if details["problem"] is not None:
        sections += [f"load_checkpoint cannot load it: {details['problem']}"]
    if details["settings"] is None:
        sections += ["Entries\n" + _columns(details["entries"])]
    else:
        settings = dict(details["settings"])
        if isinstance(settings["num_class"], list):
            settings["num_class"] = "{} verbs, {} nouns".format(*settings["num_class"])
        sections += ["Settings\n" + _columns(settings)]
        extra = {
            name: value
            for name, value in details["entries"].items()
            if name not in (*settings, *_SHOWN_APART, "epoch")
        }
        if extra:
            sections += ["Other entries\n" + _columns(extra)]
    if details["preprocessing"] is not None:
        title = f"Preprocessing ({details['preprocessing_source']})"
        sections += [f"{title}\n{_columns(details['preprocessing'])}"]
    sections += ["Training arguments\n" + _columns(_named("args", details["args"]))]
    sections += ["Optimizer\n" + _optimizer_text(details["optimizer"])]
    notes = "".join(f"\n  on loading: {note}" for note in details["notes"])
    sections += [f"Weights{notes}\n{_weights_text(details['weights'])}"]
    totals = details["totals"]
    sections += ["{tensors:,} tensors, {parameters:,} parameters, {bytes:,} bytes".format(**totals)]
    return "\n\n".join(sections)


def _optimizer_text(optimizer: Mapping[str, Any] | None) -> str:
    if optimizer is None or "unknown" in optimizer:
        return _columns(optimizer or {})
    rows = {f"group {index}": group for index, group in enumerate(optimizer["param_groups"])}
    rows["state"] = ", ".join(f"{count:,} {what}" for what, count in optimizer["state"].items())
    return _columns(rows)


def _named(name: str, value: Any) -> Mapping[str, Any]:
    """A value as rows; one of its own for what is no dictionary, and none for None."""
    if isinstance(value, Mapping):
        return value
    return {} if value is None else {name: value}


def _weights_text(weights: list[dict[str, Any]]) -> str:
    rows = [
        (
            _shown(weight["name"]),
            "" if weight["shape"] is None else _shown(weight["shape"]),
            weight["dtype"],
        )
        for weight in weights
    ]
    names, shapes = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"  {name:<{names}}  {shape:<{shapes}}  {kind}" for name, shape, kind in rows)


def _columns(values: Mapping[str, Any]) -> str:
    if not values:
        return "  none"
    rows = [(_shown(name), _shown(value)) for name, value in values.items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _shown(value: Any) -> str:
    """A value on one line, without anything that a terminal would obey."""
    if isinstance(value, Mapping):
        # Options of an optimiser that are not in use would fill the line.
        used = {name: item for name, item in value.items() if item is not None}
        return ", ".join(f"{_shown(name)}={_shown(item)}" for name, item in used.items())
    if isinstance(value, list):
        return f"({', '.join(map(_shown, value))}{',' if len(value) == 1 else ''})"
    text = "-" if value is None else str(value)
    return text if text.isprintable() else ascii(text)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit status."""
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
    text = json.dumps(details, indent=2) if options.json else _text(details)
    encoding = sys.stdout.encoding or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)  # not every terminal is UTF-8
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `| head` has seen enough; nor shall Python complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
