"""What the names and shapes of weights tell of the network that they belong to.

The names are those of this library's models, without prefixes: `base_model.*`, `new_fc.*`,
`fc_verb.*`, `fc_noun.*` and `consensus.*`. What is read that a file does not record, or records
otherwise, is reported.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from checkpoints.files import CheckpointError

__all__ = [
    "class_counts",
    "infer_backbone",
    "infer_modality",
    "infer_model_type",
    "infer_relation",
    "infer_shift",
    "input_channels",
    "matrix",
]

_BOTTLENECKS = {"trn": 512, "mtrn": 256}
"""Widths of the relations, which none of the projects varies."""

_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
"""Whether blocks have three convolutions, and how many there are in each stage."""
_VGGS = {8: "vgg11", 10: "vgg13", 13: "vgg16", 16: "vgg19"}
"""Number of convolutions."""
_FIRST = re.compile(r"base_model\.(?:conv1|conv1_7x7_s2|_features\.0|Conv2d_1a_3x3\.conv)\.weight")
"""The first convolution of ResNets, BN-Inception, VGGs and Inception-V3."""
_BLOCK = re.compile(
    r"base_model\.layer([1-4])\.(?:net\.)?(\d{1,4})\.(?:block\.)?(?:(net|conv1\.net)\.)?"
)
"""Stage, position and shift of a residual block; `net` behind the stage is temporal pooling."""


def infer_model_type(state: Mapping[str, Tensor]) -> str:
    """Which of the models has weights of such names: one of `checkpoints.settings.MODEL_TYPES`."""
    if any(name.startswith("consensus.fc_fusion_scales.") for name in state):
        return "mtrn"
    if any(name.startswith("consensus.pre_classifier.") for name in state):
        return "trn"
    return "tsm" if any(".net." in name or ".nl." in name for name in state) else "tsn"


def matrix(state: Mapping[str, Tensor], name: str) -> Tensor:
    """The weight of a linear layer, (outputs, inputs), that has to be there.

    Raises:
        CheckpointError: if it is not, or has another number of axes.
    """
    if name not in state or state[name].ndim != 2:
        found = f"{name} {tuple(state[name].shape)}" if name in state else f"no {name}"
        raise CheckpointError(f"expected {name} to be the weight of a linear layer, got {found}")
    return state[name]


def class_counts(kind: str, state: Mapping[str, Tensor]) -> int | tuple[int, int]:
    """Numbers of classes, from the shapes of the heads.

    Raises:
        CheckpointError: if there are none.
    """
    prefix = {"trn": "consensus.classifiers.", "mtrn": "consensus.classifiers.0."}.get(kind)
    if prefix is None:
        candidates = [("fc_verb.weight", "fc_noun.weight"), ("new_fc.weight",)]
    else:
        candidates = [(f"{prefix}0.weight", f"{prefix}1.weight"), (f"{prefix}0.weight",)]
    for names in candidates:
        if all(name in state and state[name].ndim == 2 for name in names):
            counts = tuple(state[name].shape[0] for name in names)
            return (counts[0], counts[1]) if len(counts) == 2 else counts[0]
    expected = " or ".join(" and ".join(names) for names in candidates)
    raise CheckpointError(
        f"the weights have no head that fits model_type {kind!r}: expected {expected}"
    )


def infer_relation(kind: str, state: Mapping[str, Tensor]) -> tuple[int | None, int]:
    """Segments and width of the segments' features, from the shapes of a relational head.

    Args:
        kind: the type of model.
        state: its weights.

    Returns:
        T and `img_feature_dim`; None and the default for models without a relation.

    Raises:
        CheckpointError: if the relation's widths are not those of the models here.
    """
    if kind not in _BOTTLENECKS:
        return None, 256
    width = len(matrix(state, "new_fc.weight"))
    if kind == "trn":
        name = "consensus.pre_classifier.1.weight"
        segments = matrix(state, name).shape[1] // max(width, 1)
        expected = {name: segments}
    else:
        place = "consensus.fc_fusion_scales."
        scales = {name.removeprefix(place).split(".")[0] for name in state if place in name}
        segments = len(scales) + 1
        expected = {f"{place}{i}.1.weight": segments - i for i in range(len(scales))}
    for name, count in expected.items():
        found, needed = tuple(matrix(state, name).shape), (_BOTTLENECKS[kind], count * width)
        if found != needed:
            raise CheckpointError(
                f"the relation cannot be built here: for {segments} segments of {width} features "
                f"each, {name} must be {needed}, got {found}"
            )
    return segments, width


def input_channels(state: Mapping[str, Tensor]) -> int:
    """Channels that the first convolution takes; 0 if there is no convolution.

    It is known by its name, since not every format keeps the order of weights; in networks that are
    not known here, it is the first.
    """
    convolutions = {name: tensor for name, tensor in state.items() if tensor.ndim == 4}
    named = [tensor for name, tensor in convolutions.items() if _FIRST.fullmatch(name)]
    first = next(iter(named or convolutions.values()), None)
    return 0 if first is None else first.shape[1]


def infer_modality(state: Mapping[str, Tensor], report: list[str]) -> tuple[str, int]:
    """Modality and frames of a snippet, from the input channels of the first convolution.

    Args:
        state: the weights, in any order.
        report: what was read is added here, unless it is plain RGB.

    Returns:
        The modality and `new_length`. An even number of channels is taken for flow, although 6 and
        12 could be RGBDiff too: with the usual lengths of 5, flow has 10 and RGBDiff 15.

    Raises:
        CheckpointError: if no modality has so many channels.
    """
    channels = input_channels(state)
    if channels == 3:
        return "RGB", 1
    if channels and channels % 2 == 0:
        modality, length = "Flow", channels // 2
    elif channels and channels % 3 == 0:
        modality, length = "RGBDiff", channels // 3
    else:
        raise CheckpointError(
            f"the first convolution must take 3 channels (RGB), an even number (flow) or a "
            f"multiple of 3 (RGBDiff), got {channels}"
        )
    report.append(
        f"read modality {modality} with new_length {length} off the first convolution, which "
        f"takes {channels} channels"
    )
    return modality, length


def infer_backbone(state: Mapping[str, Tensor], recorded: str | None, report: list[str]) -> str:
    """The backbone that has weights of such names, or else the one that the file records.

    Args:
        state: the weights.
        recorded: what the file says; None where it says nothing.
        report: what was read otherwise than the file says it is added here.

    Raises:
        CheckpointError: if neither tells.
    """
    stages = _blocks(state)
    depths = tuple(len(stages[stage]) for stage in sorted(stages))
    found = _RESNETS.get((any(".conv3." in name for name in state), depths))
    if any(name.startswith("base_model.conv1_7x7_s2.") for name in state):
        found = "BNInception"
    elif any(name.startswith("base_model.Mixed_") for name in state):
        found = _inception_v3(state)
    elif any(name.startswith("base_model._features.") for name in state):
        found = _vgg(state)
    if found is None:
        if recorded is None:
            raise CheckpointError(
                "the file does not record its backbone (arch), and its weights have the names "
                "of none that is known by them: ResNets, VGGs, BN-Inception and Inception-V3"
            )
        return recorded
    if recorded is None or recorded.lower() != found.lower():
        said = "" if recorded is None else f", although the file records {recorded!r}"
        report.append(f"took the backbone as {found} by its weights{said}")
    return found


def _inception_v3(state: Mapping[str, Tensor]) -> str:
    """Return the name of torchvision's Inception-V3, or refuse those of others."""
    for name in ("Conv2d_1a_3x3.conv.weight", "AuxLogits.conv0.conv.weight"):
        if f"base_model.{name}" not in state:
            raise CheckpointError(
                f"the names of the weights (base_model.Mixed_*, but no base_model.{name}) are "
                f"those of an Inception-V3 that is not torchvision's, as TRN's Moments in Time "
                f"release has it: this backbone is not built here"
            )
    return "inceptionv3"


def _vgg(state: Mapping[str, Tensor]) -> str | None:
    """Return the name of a VGG by its convolutions and batch norms; None for none of them."""
    features = [name for name in state if name.startswith("base_model._features.")]
    name = _VGGS.get(sum(state[feature].ndim == 4 for feature in features))
    batch_norm = any(feature.endswith(".running_mean") for feature in features)
    return f"{name}_bn" if name and batch_norm else name


def _blocks(state: Mapping[str, Tensor]) -> dict[int, dict[int, set[str]]]:
    """Stage -> position -> where the residual block shifts, as its weights' names have it."""
    stages: dict[int, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in state:
        if match := _BLOCK.match(name):
            stage, position, place = match.groups()
            stages[int(stage)][int(position)].update([place] if place else [])
    return stages


def infer_shift(state: Mapping[str, Tensor], report: list[str]) -> dict[str, Any]:
    """Options of a shift network that the names of its weights tell.

    Args:
        state: the weights.
        report: what was read is added here.

    Returns:
        shift_place, shift_every, temporal_pool and non_local.

    Raises:
        CheckpointError: if no residual block shifts, or not as the models here can.
    """
    stages = _blocks(state)
    places = {place for blocks in stages.values() for found in blocks.values() for place in found}
    if len(places) != 1:
        raise CheckpointError(
            "the weights have names of a shift network, but no residual block of a ResNet shifts"
            if not places
            else "residual blocks shift in two different places, of which one is possible here"
        )
    shifted = {
        stage: [position for position in sorted(blocks) if blocks[position]]
        for stage, blocks in stages.items()
    }
    for every in range(1, 1 + max(map(len, stages.values()))):
        if all(shifted[s] == list(range(0, len(stages[s]), every)) for s in stages):
            break
    else:
        raise CheckpointError(
            f"channels shift in blocks {shifted[max(shifted)]} of stage {max(shifted)}; expected "
            f"every block, every second, third, ... one of all stages, from the first on"
        )
    place = "block" if places == {"net"} else "blockres"
    blocks = "all blocks" if every == 1 else f"blocks 0, {every}, {2 * every}, ... of every stage"
    report.append(f"read shift_place {place!r} and shift_every {every} ({blocks}) off the names")
    options = {
        "temporal_pool": any(re.match(r"base_model\.layer2\.net\.\d", name) for name in state),
        "non_local": any(".nl." in name for name in state),
    }
    report += [f"found {name} in the names" for name, present in options.items() if present]
    return {"shift_place": place, "shift_every": every, **options}
