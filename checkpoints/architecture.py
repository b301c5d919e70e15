"""What the names and shapes of weights say of the network that they belong to.

The names are those of this library's models, without prefixes: `base_model.*`, `new_fc.*`,
`fc_verb.*`, `fc_noun.*` and `consensus.*`. Weights that no model here has are a CheckpointError.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from checkpoints.errors import CheckpointError

__all__ = [
    "MOBILENET_SHORTCUTS",
    "infer_backbone",
    "infer_modality",
    "infer_model_type",
    "infer_num_class",
    "infer_relation",
    "infer_shift",
    "input_channels",
]

State = Mapping[str, Tensor]

_BOTTLENECKS = {"trn": 512, "mtrn": 256}  # widths of the relations, which no project varies
# Whether blocks have three convolutions, and how many blocks there are in each stage.
_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
_VGGS = {8: "vgg11", 10: "vgg13", 13: "vgg16", 16: "vgg19"}  # by the number of convolutions
_FIRST = re.compile(
    r"base_model\.(?:conv1|conv1_7x7_s2|_features\.0|Conv2d_1a_3x3\.conv|features\.0\.0)\.weight"
)
"""The first convolution of ResNets, BN-Inception, VGGs, Inception-V3 and MobileNetV2."""
_BLOCK = re.compile(
    r"base_model\.layer([1-4])\.(?:net\.)?(\d{1,4})\.(?:block\.)?(?:(net|conv1\.net)\.)?"
)
"""Stage, position and shift of a residual block; `net` behind the stage is temporal pooling."""
_INVERTED = re.compile(r"base_model\.features\.(\d{1,2})\.conv\.(0\.net\.)?")
"""Number and shift of a block of MobileNetV2."""
MOBILENET_SHORTCUTS = (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)
"""Numbers of the blocks of MobileNetV2 that have a shortcut, and so can shift."""


def infer_model_type(state: State) -> str:
    """Return which of `checkpoints.config.MODEL_OPTIONS` has weights of such names."""
    if any(name.startswith("consensus.fc_fusion_scales.") for name in state):
        return "mtrn"
    if any(name.startswith("consensus.pre_classifier.") for name in state):
        return "trn"
    return "tsm" if any(".net." in name or ".nl." in name for name in state) else "tsn"


def infer_num_class(model_type: str, state: State) -> int | tuple[int, int]:
    """Return the numbers of classes, from the shapes of the heads."""
    prefix = {"trn": "consensus.classifiers.", "mtrn": "consensus.classifiers.0."}.get(model_type)
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
        f"the weights have no head that fits model_type {model_type!r}: expected {expected}"
    )


def infer_relation(model_type: str, state: State) -> tuple[int | None, int]:
    """Return T and `img_feature_dim` of a relational head; None and the default without one."""
    if model_type not in _BOTTLENECKS:
        return None, 256
    width = len(_matrix(state, "new_fc.weight"))
    if model_type == "trn":
        name = "consensus.pre_classifier.1.weight"
        segments = _matrix(state, name).shape[1] // max(width, 1)
        expected = {name: segments}
    else:
        place = "consensus.fc_fusion_scales."
        scales = {name.removeprefix(place).split(".")[0] for name in state if place in name}
        segments = len(scales) + 1
        expected = {f"{place}{i}.1.weight": segments - i for i in range(len(scales))}
    for name, count in expected.items():
        found, needed = tuple(_matrix(state, name).shape), (_BOTTLENECKS[model_type], count * width)
        if found != needed:
            raise CheckpointError(
                f"the relation cannot be built here: for {segments} segments of {width} features "
                f"each, {name} must be {needed}, got {found}"
            )
    return segments, width


def _matrix(state: State, name: str) -> Tensor:
    """Return the weight of a linear layer, (outputs, inputs), that has to be there."""
    if name not in state or state[name].ndim != 2:
        found = f"{name} {tuple(state[name].shape)}" if name in state else f"no {name}"
        raise CheckpointError(f"expected {name} to be the weight of a linear layer, got {found}")
    return state[name]


def input_channels(state: State) -> int:
    """Return how many channels the first convolution takes; 0 if there is no convolution.

    It is known by its name, since not every format keeps the order of weights; in networks that are
    not known here, it is the first.
    """
    convolutions = {name: tensor for name, tensor in state.items() if tensor.ndim == 4}
    named = [tensor for name, tensor in convolutions.items() if _FIRST.fullmatch(name)]
    first = next(iter(named or convolutions.values()), None)
    return 0 if first is None else first.shape[1]


def infer_modality(state: State) -> tuple[str, int]:
    """Return modality and `new_length`, from the input channels of the first convolution.

    An even number of channels is taken for flow, although 6 and 12 could be RGBDiff too: with the
    usual lengths of 5, flow has 10 and RGBDiff 15.
    """
    channels = input_channels(state)
    if channels == 3:
        return "RGB", 1
    if channels and channels % 2 == 0:
        return "Flow", channels // 2
    if channels and channels % 3 == 0:
        return "RGBDiff", channels // 3
    raise CheckpointError(
        f"the first convolution must take 3 channels (RGB), an even number (flow) or a multiple of "
        f"3 (RGBDiff), got {channels}"
    )


def infer_backbone(state: State) -> str | None:
    """Return the name of the backbone that has weights of such names; None if none is known."""
    if any(name.startswith("base_model.conv1_7x7_s2.") for name in state):
        return "BNInception"
    if any(name.startswith("base_model.Mixed_") for name in state):
        for name in ("Conv2d_1a_3x3.conv.weight", "AuxLogits.conv0.conv.weight"):
            if f"base_model.{name}" not in state:
                raise CheckpointError(
                    f"the names of the weights (base_model.Mixed_*, but no base_model.{name}) are "
                    f"those of an Inception-V3 that is not torchvision's, as TRN's Moments in Time "
                    f"release has it: this backbone is not built here"
                )
        return "inceptionv3"
    if "base_model.features.18.0.weight" in state:
        return "mobilenetv2"
    vgg = [name for name in state if name.startswith("base_model._features.")]
    if vgg:
        depth = _VGGS.get(sum(state[name].ndim == 4 for name in vgg))
        batch_norm = any(name.endswith(".running_mean") for name in vgg)
        return f"{depth}_bn" if depth and batch_norm else depth
    stages = _residual_blocks(state)
    depths = tuple(len(stages[stage]) for stage in sorted(stages))
    return _RESNETS.get((any(".conv3." in name for name in state), depths))


def infer_shift(state: State) -> dict[str, Any]:
    """Return shift_place, shift_every, temporal_pool and non_local, by the names of weights."""
    stages = _residual_blocks(state)
    places = {place for blocks in stages.values() for found in blocks.values() for place in found}
    if len(places) != 1:
        found = "in two different places, of which one is possible" if places else "nowhere"
        raise CheckpointError(
            f"the weights have names of a shift network, but residual blocks shift {found} here"
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
    return {
        "shift_place": "block" if places == {"net"} else "blockres",
        "shift_every": every,
        "temporal_pool": any(re.match(r"base_model\.layer2\.net\.\d", name) for name in state),
        "non_local": any(".nl." in name for name in state),
    }


def _residual_blocks(state: State) -> dict[int, dict[int, set[str]]]:
    """Return stage -> position -> where the residual block shifts, by its weights' names."""
    stages: dict[int, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in state:
        if match := _BLOCK.match(name):
            stage, position, place = match.groups()
            stages[int(stage)][int(position)].update([place] if place else [])
        elif (match := _INVERTED.match(name)) and int(match[1]) in MOBILENET_SHORTCUTS:
            # Its ten blocks with a shortcut count as one stage.
            position = MOBILENET_SHORTCUTS.index(int(match[1]))
            stages[1][position].update([match[2]] if match[2] else [])
    return stages
