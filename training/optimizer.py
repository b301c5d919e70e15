"""Optimiser and learning rates of a recipe.

Sources: the policies of tsn-pytorch (TSN, arXiv:1608.00859) and TSM (arXiv:1811.08383) for the
factors of parameter groups; Goyal et al. (arXiv:1706.02677) for linear warm-up; Loshchilov and
Hutter (arXiv:1608.03983) for the cosine, here without restarts.
"""

import math

import torch
from torch.optim.lr_scheduler import LambdaLR

from data.options import positive_integer
from training.recipes import Recipe
from tsm import TSM
from tsn import TSN

__all__ = ["make_optimizer", "make_schedule"]


def make_optimizer(model: TSN, recipe: Recipe) -> torch.optim.SGD:
    """Return SGD over the parameters that learn, with each group's own rate and decay.

    PyTorch's optimisers do not apply `lr_mult` and `decay_mult` of `TSN.get_optim_policies`, so
    `lr` and `weight_decay` of the groups are multiplied by them here.

    Args:
        model: a TSN, TRN, MTRN or TSM, frozen where it is to be. The `fc_lr5` of a TSM is set to
            the recipe's.
        recipe: its `lr`, `momentum`, `weight_decay`, `factors` and `fc_lr5` count.

    Returns:
        An optimiser whose groups have a `name` each and are not empty. Each parameter with
        `requires_grad` is in one of them, the others in none.

    Raises:
        ValueError: if the recipe has `fc_lr5` and the model is no TSM, no parameter learns, or the
            model is `inference_only`.
    """
    if isinstance(model, TSM):
        model.fc_lr5 = recipe.fc_lr5
    elif recipe.fc_lr5:
        raise ValueError(f"fc_lr5 must be False for a {model.variant}, got True: TSM alone has it")
    groups = []
    for group in model.get_optim_policies():
        parameters = [parameter for parameter in group["params"] if parameter.requires_grad]
        lr_mult, decay_mult = group["lr_mult"], group["decay_mult"]
        if not recipe.factors:
            lr_mult = decay_mult = 1
        if parameters:
            groups.append(
                {
                    "name": group["name"],
                    "params": parameters,
                    "lr": recipe.lr * lr_mult,
                    "weight_decay": recipe.weight_decay * decay_mult,
                }
            )
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)


def make_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int
) -> LambdaLR:
    """Return the learning rates of a training, one for each step of its optimiser.

    To resume, make optimiser and schedule first and load the states of both afterwards: making a
    schedule sets the optimiser's learning rates to those of the first step.

    Args:
        optimizer: as `make_optimizer` returns it.
        recipe: its `epochs`, `schedule`, `milestones`, `warmup_epochs` and `warmup_factor` count.
        steps_per_epoch: steps of the optimiser in an epoch.

    Returns:
        A schedule whose `step()` is to be called after every step of the optimiser.

    Raises:
        ValueError: if `steps_per_epoch` is no positive integer.
    """
    steps_per_epoch = positive_integer("steps_per_epoch", steps_per_epoch)
    milestones = [epoch * steps_per_epoch for epoch in recipe.milestones]
    warmup = recipe.warmup_epochs * steps_per_epoch
    total = recipe.epochs * steps_per_epoch

    def factor(step: int) -> float:
        share = 1.0
        if recipe.schedule == "step":
            share = 0.1 ** sum(step >= milestone for milestone in milestones)
        elif recipe.schedule == "cosine":
            progress = min(max((step - warmup) / (total - warmup), 0.0), 1.0)
            share = (1 + math.cos(math.pi * progress)) / 2
        if step < warmup:
            share *= recipe.warmup_factor + (1 - recipe.warmup_factor) * step / warmup
        return share

    return LambdaLR(optimizer, factor)
