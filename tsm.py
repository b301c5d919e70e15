"""Temporal shift networks: TSN whose backbone shifts channels through time.

Source: Lin et al., "TSM: Temporal Shift Module for Efficient Video Understanding", 2019
(arXiv:1811.08383).

Differences from the original: see `ops.temporal_shift` and `ops.non_local`.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from data.options import one_of, positive_integer
from ops.non_local import add_non_local
from ops.temporal_shift import (
    SHIFT_DIRECTIONS,
    SHIFT_PLACES,
    add_temporal_pool,
    add_temporal_shift,
)
from tsn import TSN

__all__ = ["TSM"]


class TSM(TSN):
    """Temporal shift network.

    Example:
        >>> import torch
        >>> model = torch.hub.load(
        ...     ".", "TSM", (125, 352), 8, "RGB", base_model="resnet50", pretrained=None,
        ...     source="local",
        ... ).eval()
        >>> verbs, nouns = model(torch.randn(1, 8 * 3, 224, 224))
        >>> verbs.shape, nouns.shape
        (torch.Size([1, 125]), torch.Size([1, 352]))

    Published weights, all with base_model "resnet50": 8 segments, modality "RGB" or "Flow".
    `pretrained="epic-kitchens"` has 125 verbs and 352 nouns, "epic-kitchens-100" 97 and 300.

    Paper: arXiv:1811.08383.

    Args:
        num_class: as for `tsn.TSN`, and so on for every argument but these.
        num_segments: T, through which channels shift.
        modality: "RGB", "Flow" or "RGBDiff".
        base_model: a ResNet, "BNInception" with `shift_place="block"`, or "mobilenetv2" with
            "blockres".
        new_length: L, frames of a snippet.
        consensus_type: "avg", "max" or "identity".
        before_softmax: whether the outputs are logits.
        dropout: probability with which features are dropped while training.
        partial_bn: freeze every 2-D batch norm of the backbone but the first.
        shift_div: one part in `shift_div` of the channels moves each way.
        shift_place: "blockres" shifts inside the residual branch, "block" in front of the block.
        fc_lr5: put the heads into optimiser groups with five times the learning rate.
        temporal_pool: halve the segments in front of the second stage (ResNets, even T).
        non_local: add non-local blocks to the second and third stage (ResNets).
        pretrained: "epic-kitchens", "epic-kitchens-100", "imagenet" or None.
        shift_every: 1 shifts in every residual block (of mobilenetv2, in all ten that have a
            shortcut); 2 in every second one, as the ResNet-101
            and -152 weights of the TSM authors do.
        shift_direction: "both" shifts channels from the future and the past, as all published
            weights need it; "past" from the past alone, so that the model can see each frame of a
            live stream once (`streaming.Stream`). Weights of one do not fit the other.

    Raises:
        ValueError: as `tsn.TSN`, and where a shift, pooling or non-local block is not possible:
            these two look into the future, which "past" must not.
    """

    _read_only: ClassVar[frozenset[str]] = TSN._read_only | {
        "shift_div",
        "shift_place",
        "shift_every",
        "shift_direction",
        "temporal_pool",
        "non_local",
    }

    def __init__(
        self,
        num_class: int | Sequence[int],
        num_segments: int,
        modality: str,
        base_model: str = "resnet50",
        new_length: int | None = None,
        consensus_type: str = "avg",
        before_softmax: bool = True,
        dropout: float = 0.8,
        partial_bn: bool = True,
        shift_div: int = 8,
        shift_place: str = "blockres",
        fc_lr5: bool = False,
        temporal_pool: bool = False,
        non_local: bool = False,
        pretrained: str | None = "imagenet",
        *,
        shift_every: int = 1,
        shift_direction: str = "both",
    ) -> None:
        # Plain values, wanted while the base class builds the network.
        self.shift_div = positive_integer("shift_div", shift_div)
        self.shift_place = one_of("shift_place", shift_place, SHIFT_PLACES)
        self.shift_every = positive_integer("shift_every", shift_every)
        self.shift_direction = one_of("shift_direction", shift_direction, SHIFT_DIRECTIONS)
        self.temporal_pool = bool(temporal_pool)
        self.non_local = bool(non_local)
        if self.shift_direction == "past":
            for option in ("temporal_pool", "non_local"):
                if getattr(self, option):
                    raise ValueError(
                        f"{option} must be False with shift_direction='past', got True: it looks "
                        f"at frames that come later"
                    )
        self.fc_lr5 = bool(fc_lr5)
        one_of("consensus_type", consensus_type, ("avg", "max", "identity"))
        super().__init__(
            num_class,
            num_segments,
            modality,
            base_model=base_model,
            new_length=new_length,
            consensus_type=consensus_type,
            before_softmax=before_softmax,
            dropout=dropout,
            partial_bn=partial_bn,
            pretrained=pretrained,
        )

    def _build_modules(self, *, imagenet: bool) -> None:
        super()._build_modules(imagenet=imagenet)
        add_temporal_shift(
            self.base_model,
            self.num_segments,
            shift_div=self.shift_div,
            shift_place=self.shift_place,
            shift_every=self.shift_every,
            shift_direction=self.shift_direction,
            temporal_pool=self.temporal_pool,
        )
        if self.non_local:
            add_non_local(self.base_model, self._feature_segments)
        if self.temporal_pool:
            add_temporal_pool(self.base_model, self.num_segments)

    @property
    def variant(self) -> str:
        """Kind of model: "TSM"."""
        return "TSM"

    @property
    def _feature_segments(self) -> int:
        return self.num_segments // 2 if self.temporal_pool else self.num_segments

    def _snippets(self, inputs: Tensor, segments: int | None) -> Tensor:
        snippets = super()._snippets(inputs, segments)
        count, items, t = snippets.shape[0], inputs.shape[0], self.num_segments
        # Single snippets may stand in a row; longer items must not run into each other.
        if segments is None and (count % t or (count != items and count // items % t)):
            raise ValueError(
                f"expected whole clips, since channels shift through their segments: items of a "
                f"multiple of {t} snippets, or a multiple of {t} items of one snippet, got "
                f"{items} x {count // items} snippets in {tuple(inputs.shape)}"
            )
        return snippets

    def get_optim_policies(self) -> list[dict[str, Any]]:
        """Return parameter groups for an optimiser.

        Returns:
            As `tsn.TSN.get_optim_policies`, and the groups "custom_ops" (empty; the shift has no
            parameters), "lr5_weight" and "lr10_bias", which hold the heads with `fc_lr5=True`.
        """
        groups = super().get_optim_policies()
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        if self.fc_lr5:
            weights = [head.weight for head in self._heads()]
            biases = [head.bias for head in self._heads()]
            fast = {id(parameter) for parameter in weights + biases}
            for group in groups:
                group["params"] = [p for p in group["params"] if id(p) not in fast]
        return [
            *groups,
            {"params": [], "lr_mult": 1, "decay_mult": 1, "name": "custom_ops"},
            {"params": weights, "lr_mult": 5, "decay_mult": 1, "name": "lr5_weight"},
            {"params": biases, "lr_mult": 10, "decay_mult": 0, "name": "lr10_bias"},
        ]
