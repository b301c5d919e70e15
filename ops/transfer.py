"""Weights of one model as the start of another: which of them fit, and under which names.

A temporal shift puts `net` into the names of what it wraps, a non-local block `block`; what is
wrapped is the same without.
"""

import re
from typing import Any

from torch import Tensor

from checkpoints.config import MODEL_OPTIONS, Checkpoint, ModelConfig
from ops.backbones import average_channels, first_convolution

__all__ = ["check_options", "fit_weights"]

_RELATIONAL = ("trn", "mtrn")


def check_options(model: Any, config: ModelConfig, source: str) -> None:
    """Refuse weights that were trained with other options than those of a model.

    The backbone must be the same and, of the same kind of model, all options that its weights
    depend on. RGB weights fit every modality.

    Args:
        model: a TSN, TRN, MTRN or TSM, of which only the options need to be set.
        config: of the weights.
        source: what the error calls them.

    Raises:
        ValueError: naming each option that differs, what the weights need and what it is.
    """
    options = ["arch"]
    if config.modality.lower() != "rgb":
        options += ["modality", "new_length"]
    if config.model_type == model.variant.lower():
        options += MODEL_OPTIONS[config.model_type]
        if config.model_type in _RELATIONAL:
            options += ["num_segments"]
    needed, given = [], []
    for option in options:
        trained, asked = getattr(config, option), getattr(model, option)
        # A consensus without weights may be another one.
        if option != "consensus_type" and str(trained).lower() != str(asked).lower():
            argument = "base_model" if option == "arch" else option
            needed.append(f"{argument} must be {trained!r}")
            given.append(repr(asked))
    if needed:
        raise ValueError(f"{', '.join(needed)} for {source}, got {', '.join(given)}")


def fit_weights(
    model: Any, checkpoint: Checkpoint, source: str
) -> tuple[dict[str, Tensor], tuple[str, ...], list[str]]:
    """Return those weights of a checkpoint that fit a model, under the model's names.

    Args:
        model: a TSN, TRN, MTRN or TSM, with modules.
        checkpoint: of options that `check_options` accepts.
        source: where it comes from, for messages.

    Returns:
        The weights; prefixes of the names of those that start anew, because the model has other
        classes or is of another kind; and what differs from the checkpoint, one message per change.
    """
    config, state = checkpoint.config, checkpoint.state_dict
    anew: tuple[str, ...] = ()
    changes: list[str] = []
    if config.model_type != model.variant.lower():
        changes.append(
            f"{source} holds a {config.model_type.upper()}: the weights of its backbone were "
            f"loaded, everything else starts anew"
        )
        names = list(model.state_dict())
        anew = tuple(name for name in names if not _is_of_backbone(name))
        state = _rename_backbone(state, names, changes)
    elif model.num_class != config.num_class:
        changes.append(
            f"{source} was trained on {config.num_class} classes and {model.num_class} were asked "
            f"for: all weights but the heads' were loaded, the heads start anew"
        )
        anew = ("fc_verb.", "fc_noun.", "consensus.classifiers.")
        if config.model_type not in _RELATIONAL:
            anew += ("new_fc.",)
        state = {name: tensor for name, tensor in state.items() if not name.startswith(anew)}
    if config.modality.lower() != model.modality.lower():
        changes.append(
            f"{source} was trained on RGB: the first convolution got the mean of its weights over "
            f"the input channels, and the preprocessing is that of {model.modality}"
        )
        name, convolution = first_convolution(model.base_model)
        name = f"base_model.{name}.weight"
        weight = state.get(name)
        # Anything else is refused where weights are put into the model.
        if weight is not None and weight.is_floating_point() and weight.shape[1:2] == (3,):
            state = {**state, name: average_channels(weight, convolution.in_channels)}
    return state, anew, changes


def _is_of_backbone(name: str) -> bool:
    """Return whether a weight is the backbone's, and not of what is put into it."""
    return name.startswith("base_model.") and ".nl." not in name


def _rename_backbone(
    state: dict[str, Tensor], names: list[str], changes: list[str]
) -> dict[str, Tensor]:
    """Return a backbone's weights under those of `names` that differ by wrappers alone."""
    wanted = {_unwrapped(name): name for name in names if _is_of_backbone(name)}
    renamed = {n: wanted.get(_unwrapped(n), n) for n in state if _is_of_backbone(n)}
    if pairs := [pair for pair in renamed.items() if pair[0] != pair[1]]:
        old, new = (name.rpartition(".")[0] for name in pairs[0])
        changes.append(f"renamed {len(pairs)} weights like {old} to {new}")
    if count := sum(".nl." in name for name in state):
        changes.append(f"left out {count} weights of non-local blocks")
    return {new: state[old] for old, new in renamed.items()}


def _unwrapped(name: str) -> str:
    return re.sub(r"\.(?:net|block)(?=\.)", "", name)
