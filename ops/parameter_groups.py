"""Parameter groups for optimisers, each with factors of learning rate and weight decay."""

from collections.abc import Collection
from typing import Any

from torch import nn

__all__ = ["parameter_groups"]


def parameter_groups(
    model: nn.Module,
    *,
    first_convolution: nn.Module,
    first_lr_mult: int,
    frozen: Collection[nn.Module],
) -> list[dict[str, Any]]:
    """Sort a model's parameters by the rate at which they are to learn.

    Args:
        model: a whole network.
        first_convolution: the layer of it that sees the image.
        first_lr_mult: factor of that layer's learning rate.
        frozen: layers whose parameters are in no group.

    Returns:
        Groups with `params`, `lr_mult`, `decay_mult` and `name`, in the order in which training
        scripts of this family of models expect them. Biases learn twice as fast, without decay.
    """
    groups: dict[str, tuple[list[nn.Parameter], int, int]] = {
        "first_conv_weight": ([], first_lr_mult, 1),
        "first_conv_bias": ([], 2 * first_lr_mult, 0),
        "normal_weight": ([], 1, 1),
        "normal_bias": ([], 2, 0),
        "BN scale/shift": ([], 1, 0),
    }
    for module in model.modules():
        if module in frozen:
            continue
        prefix = "first_conv" if module is first_convolution else "normal"
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim > 1:
                group = f"{prefix}_weight"
            elif name == "bias" and getattr(module, "weight", parameter).ndim > 1:
                group = f"{prefix}_bias"
            else:  # scale or shift of a normalisation, slope of an activation
                group = "BN scale/shift"
            groups[group][0].append(parameter)
    return [
        {"params": parameters, "lr_mult": rate, "decay_mult": decay, "name": name}
        for name, (parameters, rate, decay) in groups.items()
    ]
