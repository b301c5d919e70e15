"""Recipes: how a model is trained, by the names of the projects and papers that published them.

Sources: tsn-pytorch (TSN, arXiv:1608.00859), TRN-pytorch (arXiv:1711.08496), TSM
(arXiv:1811.08383), mmaction2, and C1-Action-Recognition, which trained the models of
EPIC-KITCHENS-100 (arXiv:2006.13256). `synthetic-actions` is of this library: it trains small models
from random weights on the clips of `data.synthetic_actions`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any

from data.options import fraction, one_of, positive_integer, positive_number

__all__ = ["KINETICS", "PRECISIONS", "RECIPES", "SAMPLINGS", "SCHEDULES", "Recipe"]

KINETICS = "kinetics"
"""`Recipe.pretrained` of those that start from a TSM trained on Kinetics, a file of one's own."""

SAMPLINGS = ("train", "dense")
"""The values of `Recipe.sampling`: the modes of `data.sampling` that draw at random."""

SCHEDULES = ("step", "cosine", "constant")
"""The values of `Recipe.schedule`."""

PRECISIONS = ("float32", "bfloat16", "float16")
"""The values of `Recipe.precision`."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training depends on beside its model and its clips.

    Attributes:
        pretrained: what the weights start from, as models take it, or `KINETICS`; None: random.
        dropout: probability with which features are dropped.
        partial_bn: whether all 2-D batch norms of the backbone but the first are frozen.
        freeze_backbone: whether the heads alone learn.
        sampling: one of `SAMPLINGS`.
        flip: whether half of the clips are flipped.
        epochs: how often all clips are seen.
        batch_size: clips of a step of the optimiser, over all processes.
        accumulate: parts that a batch is computed in, to need less memory; at most `batch_size`.
        drop_last: whether the last batch of an epoch is left out where it is smaller.
        lr: learning rate.
        momentum: of SGD.
        weight_decay: of SGD.
        factors: whether `lr_mult` and `decay_mult` of `TSN.get_optim_policies` are applied. C1 did
            not: its biases and batch norms learned and decayed as all else.
        fc_lr5: whether the heads of a TSM learn five times as fast, as they did in TSM.
        schedule: one of `SCHEDULES`. "cosine" begins after the warm-up and reaches 0 after
            the last step.
        milestones: epochs after which "step" multiplies the learning rate by 0.1, ascending.
        warmup_epochs: in which the learning rate grows linearly to the schedule's; fewer than
            `epochs`.
        warmup_factor: share of it that the growth starts from.
        clip_norm: the norm of all gradients that is not exceeded; None: any.
        label_smoothing: share of the target that all classes get alike.
        precision: one of `PRECISIONS`; the lower two compute most of the network in that.
        compile: whether the model is compiled by torch.compile.
        channels_last: whether images lie in memory as their channels, which some devices prefer.
        sync_bn: whether batch norms that are not frozen share statistics among processes (GPUs).
        seed: of the order of clips, of crops, flips, dropout and fresh weights; below 2**63.

    Raises:
        ValueError: for a value out of range.
    """

    pretrained: str | None = "imagenet"
    dropout: float
    partial_bn: bool = True
    freeze_backbone: bool = False
    sampling: str = "train"
    flip: bool = True
    epochs: int
    batch_size: int
    accumulate: int = 1
    drop_last: bool = False
    lr: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    factors: bool = True
    fc_lr5: bool = False
    schedule: str = "step"
    milestones: tuple[int, ...] = ()
    warmup_epochs: float = 0.0
    warmup_factor: float = 0.1
    clip_norm: float | None = 20.0
    label_smoothing: float = 0.0
    precision: str = "float32"
    compile: bool = False
    channels_last: bool = False
    sync_bn: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        """Check all values, and spell names and milestones in one way."""

        def check(function: Callable[..., Any], *names: str, **options: Any) -> None:
            for name in names:
                object.__setattr__(self, name, function(name, getattr(self, name), **options))

        check(positive_integer, "epochs", "batch_size", "accumulate")
        check(positive_number, "lr", *["clip_norm"] * (self.clip_norm is not None))
        check(fraction, "dropout", "label_smoothing", "warmup_factor")
        check(one_of, "sampling", choices=SAMPLINGS)
        check(one_of, "schedule", choices=SCHEDULES)
        check(one_of, "precision", choices=PRECISIONS)
        check(_ascending, "milestones")
        check(_boolean, *(field.name for field in fields(self) if field.type is bool))
        check(_at_least_0, "momentum", below=1)
        check(_at_least_0, "weight_decay", "warmup_epochs")
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate must be at most the batch_size, {self.batch_size}, got "
                f"{self.accumulate}"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs must be fewer than the epochs, {self.epochs}, got "
                f"{self.warmup_epochs}"
            )
        if not (isinstance(self.seed, int) and 0 <= self.seed < 2**63):
            raise ValueError(f"seed must be an integer from 0 to 2**63 - 1, got {self.seed!r}")


def _ascending(argument: str, values: Any) -> tuple[int, ...]:
    try:
        numbers = tuple(positive_integer(argument, value) for value in values)
    except (TypeError, ValueError):
        numbers = (0, 0)
    if list(numbers) != sorted(set(numbers)):
        raise ValueError(f"{argument} must be ascending positive integers, got {values!r}")
    return numbers


def _at_least_0(argument: str, value: object, *, below: float = math.inf) -> float:
    number = float(value) if isinstance(value, Real) else math.nan
    if not 0 <= number < below:
        raise ValueError(f"{argument} must be at least 0 and below {below}, got {value!r}")
    return number


def _boolean(argument: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{argument} must be True or False, got {value!r}")
    return value


_C1 = Recipe(
    lr=0.01, milestones=(20, 40), epochs=80, batch_size=128, dropout=0.7, factors=False
)  # fmt: skip
_TSN = Recipe(lr=0.001, milestones=(30, 60), epochs=80, batch_size=128, dropout=0.8)
_TSM = Recipe(
    lr=0.01, milestones=(20, 40), epochs=50, batch_size=64, dropout=0.5, partial_bn=False,
    fc_lr5=True, drop_last=True,
)  # fmt: skip

RECIPES: dict[str, Recipe] = {
    "c1-tsn": _C1,
    "c1-mtrn": _C1,
    "c1-tsm": replace(_C1, batch_size=64, pretrained=KINETICS),
    "tsn-rgb": _TSN,
    "tsn-flow": replace(_TSN, milestones=(190, 300), epochs=340, dropout=0.7),
    "tsn-rgbdiff": replace(_TSN, milestones=(80, 160), epochs=180, clip_norm=40.0),
    "trn": replace(_TSN, milestones=(50, 100), epochs=120, batch_size=64),
    "tsm-kinetics": replace(_TSM, lr=0.02, batch_size=128, weight_decay=1e-4),
    "tsm-something": replace(_TSM, flip=False),
    "tsm-finetune": replace(
        _TSM, lr=0.001, milestones=(10, 20), epochs=25, dropout=0.8, partial_bn=True,
        pretrained=KINETICS,
    ),
    "mmaction2-tsm": replace(
        _TSM, lr=0.02, milestones=(25, 45), batch_size=128, weight_decay=1e-4, warmup_epochs=5.0
    ),
    "synthetic-actions": Recipe(
        lr=0.01, schedule="cosine", warmup_epochs=2.0, warmup_factor=0.05, epochs=25, batch_size=16,
        drop_last=True, dropout=0.0, partial_bn=False, pretrained=None, flip=False,
    ),
}  # fmt: skip
"""The published recipes by name, each for the machine, data and start that it was published for."""
