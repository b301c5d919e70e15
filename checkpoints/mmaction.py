"""Checkpoints of mmaction2 1.x: TSN, TSM and TRN on ResNets and MobileNetV2.

A file is {meta, state_dict}; those of training runs hold objects of mmengine too, and are refused.
Names: `backbone.conv1.conv.weight`, `backbone.layer1.0.conv1.bn.weight`,
`backbone.layer1.0.downsample.conv.weight`; the head is `cls_head.fc_cls`, a TRN's relation
`cls_head.consensus`, whose classifiers are paired with their own scales. MobileNetV2 has
`backbone.layer2.1.conv.0.bn.weight`, with a shift `backbone.layer2.1.conv.0.net.bn.weight`.

Source: https://github.com/open-mmlab/mmaction2. The weights tell neither the segments of a TSN or
TSM nor the preprocessing: RGB in 0..255 with ImageNet's statistics, which is what these backbones
expect here, in another unit.
"""

import re
from collections.abc import Mapping
from typing import Any

from checkpoints.converter import find_names, has_names
from checkpoints.errors import CheckpointError, list_names
from checkpoints.releases import ReleaseConverter
from checkpoints.state_dict import clean_state_dict

__all__ = ["MMActionConverter"]

_HEADS = ((r"cls_head\.fc_cls\.", "new_fc."), (r"cls_head\.consensus\.", "consensus."))
_RESNET = (
    (r"backbone\.(layer\d\.\d+)\.downsample\.conv\.", r"base_model.\1.downsample.0."),
    (r"backbone\.(layer\d\.\d+)\.downsample\.bn\.", r"base_model.\1.downsample.1."),
    (r"backbone\.(layer\d\.\d+\.)?conv(\d)\.conv\.", r"base_model.\1conv\2."),
    (r"backbone\.(layer\d\.\d+\.)?conv(\d)\.bn\.", r"base_model.\1bn\2."),
)
_DEPTHS = (1, 2, 3, 4, 3, 3, 1)  # of MobileNetV2's stages
_BLOCKS = [f"{stage}.{block}" for stage, depth in enumerate(_DEPTHS, 1) for block in range(depth)]


def _inverted_residual(match: re.Match[str]) -> str:
    """Return our name of a layer of MobileNetV2's blocks, which are numbered through here."""
    block, part, net, kind = match.groups(default="")
    # Each part is a convolution, a batch norm and an activation. A shift wraps all three there.
    layer = f"{3 * int(part)}.{net}" if kind == "conv" else f"{3 * int(part) + 1}."
    return f"base_model.features.{1 + _BLOCKS.index(block)}.conv.{layer}"


_MOBILENET = (
    (
        rf"backbone\.layer({'|'.join(map(re.escape, _BLOCKS))})\.conv\.(\d)\.(net\.)?(conv|bn)\.",
        _inverted_residual,
    ),
    (r"backbone\.conv1\.conv\.", "base_model.features.0.0."),
    (r"backbone\.conv1\.bn\.", "base_model.features.0.1."),
    (r"backbone\.conv2\.conv\.", "base_model.features.18.0."),
    (r"backbone\.conv2\.bn\.", "base_model.features.18.1."),
)


class MMActionConverter(ReleaseConverter):
    """Reads checkpoints of mmaction2."""

    @staticmethod
    def matches(contents: Mapping[Any, Any]) -> bool:
        """Return whether the weights have names that only mmaction2 gives."""
        return has_names(contents, r"cls_head\.|backbone\..*\.conv\.")

    def clean(self) -> tuple[float | None, bool]:
        """Rename the weights, and leave out what else a training run holds."""
        self.report.append("took the file as an mmaction2 checkpoint")
        is_mobilenet = bool(find_names(self.state, r"backbone\.layer\d\.\d\.conv\.\d"))
        for pattern, name in (*_HEADS, *(_MOBILENET if is_mobilenet else _RESNET)):
            self.rename(pattern, name)
        others = find_names(self.state, r"backbone\.")
        if others or not find_names(self.state, r"base_model\."):
            raise CheckpointError(
                f"the names of the weights are those of an mmaction2 checkpoint, but not of a TSN, "
                f"TSM or TRN on a ResNet or MobileNetV2, got {list_names(others or self.state)}"
            )
        # Under our names, what is not the model's shows.
        self.state, left_out = clean_state_dict(self.state)
        self.report += left_out
        return super().clean()
