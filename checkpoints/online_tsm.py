"""MIT's online TSM: a MobileNetV2 that shifts from the past alone, to be run a frame at a time.

A file is the weights alone, or {state_dict: weights}: `features.N.conv.K.*`, and `classifier.*` for
the head. Its names tell neither that channels shift nor from where: both are assumed, and reported.

Source: https://github.com/mit-han-lab/temporal-shift-module, online_demo (arXiv:1811.08383).
"""

from collections.abc import Mapping
from typing import Any

from checkpoints.architecture import MOBILENET_SHORTCUTS
from checkpoints.converter import has_names
from checkpoints.releases import ReleaseConverter

__all__ = ["OnlineTSMConverter"]


class OnlineTSMConverter(ReleaseConverter):
    """Reads the online release of TSM."""

    shift_direction = "past"

    @staticmethod
    def matches(contents: Mapping[Any, Any]) -> bool:
        """Return whether the weights are a MobileNetV2's with its classifier, under plain names."""
        plain = has_names(contents, r"features\.18\.0\.weight$", r"classifier\.weight$")
        return plain and not has_names(contents, r".*\.net\.")

    def clean(self) -> tuple[float | None, bool]:
        """Rename the weights to those of a shift network."""
        # 1000 classes are ImageNet's: under its own names, it is refused as an image classifier.
        if self.state["classifier.weight"].shape[:1] != (1000,):
            self.report.append("took the file as the online release of MIT's TSM")
            shifted = "|".join(map(str, MOBILENET_SHORTCUTS))
            self.rename(rf"features\.({shifted})\.conv\.0\.", r"base_model.features.\1.conv.0.net.")
            self.rename(r"features\.", "base_model.features.")
            self.rename(r"classifier\.", "new_fc.")
        return super().clean()

    def shift(self) -> dict[str, Any]:
        """Return no options: the release shifts where the defaults do."""
        self.report_assumed(["shift_place 'blockres' and shift_every 1"])
        return {}
