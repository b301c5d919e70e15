"""Transfer report: what a training starts from, what of the model learns, and what is frozen."""

from torch import nn

from data.options import first_few
from training.optimizer import make_optimizer
from training.recipes import Recipe
from tsn import TSN

__all__ = ["describe_transfer"]

_STARTS = {None: "random weights", "imagenet": "ImageNet weights of the backbone, random heads"}
_BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def describe_transfer(model: TSN, recipe: Recipe) -> str:
    """Describe what a model starts from, what of it learns, and what is frozen.

    What learns are the parameters that the optimiser gets. A layer is a module with parameters of
    its own; all layers outside of the backbone are heads.

    Args:
        model: as it is trained, with frozen parameters frozen.
        recipe: what it is trained by.

    Returns:
        Lines of text: the start; a table of layers and parameters; the memory of these; and with
        which learning rate, at its highest, and which weight decay they learn.

    Raises:
        ValueError: as `training.optimizer.make_optimizer`.
    """
    groups = make_optimizer(model, recipe).param_groups
    learning = {id(parameter) for group in groups for parameter in group["params"]}
    table = {part: [0, 0, 0, 0] for part in ("backbone", "batch norms", "heads")}
    frozen_heads: list[str] = []
    for name, module in model.named_modules():
        part = "backbone" if f"{name}.".startswith("base_model.") else "heads"
        if isinstance(module, _BATCH_NORMS):
            part = "batch norms"
        for column, learns in ((0, True), (2, False)):
            own = module.parameters(recurse=False)
            sizes = [p.numel() for p in own if (id(p) in learning) == learns]
            table[part][column] += bool(sizes)
            table[part][column + 1] += sum(sizes)
            if sizes and part == "heads" and not learns:
                frozen_heads.append(name)
    table["all"] = [sum(column) for column in zip(*table.values(), strict=True)]

    rates: dict[tuple[float, float], list[str]] = {}
    for group in groups:
        rates.setdefault((group["lr"], group["weight_decay"]), []).append(group["name"])
    start = _STARTS.get(recipe.pretrained, recipe.pretrained)
    if recipe.pretrained in _STARTS and model.load_report:  # which says what was loaded after all
        start = "a checkpoint"
    _, learned, _, frozen = table["all"]
    lines = [
        f"start: {start}",
        *(f"  {change}" for change in model.load_report),
        f"{'':12}{'learns':>22}{'frozen':>22}",
        f"{'':12}{'layers':>8}{'parameters':>14}{'layers':>8}{'parameters':>14}",
        *(
            f"{part:12}{row[0]:8,}{row[1]:14,}{row[2]:8,}{row[3]:14,}"
            for part, row in table.items()
        ),
        f"{learned:,} of {learned + frozen:,} parameters learn "
        f"({learned / (learned + frozen):.2%}); all take "
        f"{sum(p.nbytes for p in model.parameters()):,} bytes",
        *(
            f"lr {lr:g}, weight decay {decay:g}: {', '.join(names)}"
            for (lr, decay), names in rates.items()
        ),
    ]
    if frozen_heads:
        unused = model.variant == "MTRN" and model.classifier_pairing == "published"
        lines.append(
            f"frozen heads: {first_few(frozen_heads)}"
            + " (classifier_pairing='published' does not use the last classifiers)" * unused
        )
    return "\n".join(lines)
