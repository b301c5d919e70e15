"""Checkpoints of mmaction2 1.x: TSN, TSM and TRN on ResNets.

A file is {meta, state_dict}; those of training runs hold objects of mmengine too, and are refused.
Names: `backbone.conv1.conv.weight`, `backbone.layer1.0.conv1.bn.weight`,
`backbone.layer1.0.downsample.conv.weight`; the head is `cls_head.fc_cls`, a TRN's relation
`cls_head.consensus`, whose classifiers are paired with their own scales.

Source: https://github.com/open-mmlab/mmaction2. The weights tell neither the segments of a TSN or
TSM nor the preprocessing: RGB in 0..255 with ImageNet's statistics, which is what ResNets here
expect, in another unit.
"""

from collections.abc import Mapping
from typing import Any

from checkpoints.converter import find_names
from checkpoints.errors import CheckpointError, list_names
from checkpoints.releases import ReleaseConverter
from checkpoints.state_dict import clean_state_dict

__all__ = ["MMActionConverter"]

_PREFIX = r"(?:module\.|model\.)*"
_RENAMED = (
    (r"backbone\.(layer\d\.\d+)\.downsample\.conv\.", r"base_model.\1.downsample.0."),
    (r"backbone\.(layer\d\.\d+)\.downsample\.bn\.", r"base_model.\1.downsample.1."),
    (r"backbone\.(layer\d\.\d+\.)?conv(\d)\.conv\.", r"base_model.\1conv\2."),
    (r"backbone\.(layer\d\.\d+\.)?conv(\d)\.bn\.", r"base_model.\1bn\2."),
    (r"cls_head\.fc_cls\.", "new_fc."),
    (r"cls_head\.consensus\.", "consensus."),
)


class MMActionConverter(ReleaseConverter):
    """Reads checkpoints of mmaction2."""

    @staticmethod
    def matches(contents: Mapping[Any, Any]) -> bool:
        """Return whether the weights have names that only mmaction2 gives."""
        weights = contents["state_dict"]
        names = list(map(str, weights)) if isinstance(weights, Mapping) else []
        return bool(find_names(names, rf"{_PREFIX}(?:cls_head\.|backbone\..*\.conv\.)"))

    def clean(self) -> tuple[float | None, bool]:
        """Rename the weights, and leave out what else a training run holds."""
        if find_names(self.state, r"backbone\.layer\d\.\d+\.conv\.\d"):
            raise CheckpointError(
                "the names of the weights are those of a MobileNetV2 of mmaction2: this backbone "
                "is not built here"
            )
        if not find_names(self.state, r"backbone\.layer1\.0\.conv1\.conv\."):
            raise CheckpointError(
                f"the names of the weights are those of an mmaction2 checkpoint, but not of a TSN, "
                f"TSM or TRN on a ResNet, got {list_names(self.state)}"
            )
        self.report.append("took the file as an mmaction2 checkpoint")
        for pattern, name in _RENAMED:
            self.rename(pattern, name)
        # Under our names, what is not the model's shows.
        self.state, left_out = clean_state_dict(self.state)
        self.report += left_out
        return super().clean()
