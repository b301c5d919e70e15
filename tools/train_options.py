"""The options of `train.py`, those of the recipe made from its fields."""

import argparse
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from checkpoints.config import MODEL_OPTIONS
from ops.relation import CLASSIFIER_PAIRINGS
from ops.temporal_shift import SHIFT_DIRECTIONS
from tools.options import add_clip_options, add_run_options
from training.recipes import RECIPES, Recipe

__all__ = ["make_recipe", "train_parser"]

_HELP = {
    "pretrained": "start of the weights: a checkpoint file, the file name of published weights, "
    "epic-kitchens, epic-kitchens-100, imagenet, or none for random ones",
    "dropout": "probability with which features are dropped",
    "partial_bn": "whether all 2-D batch norms of the backbone but the first are frozen",
    "freeze_backbone": "whether the heads alone learn",
    "sampling": "how frames are drawn: train, one from each segment, or dense, around one place",
    "flip": "whether half of the clips are flipped; not where left and right are labels",
    "epochs": "how often all clips are seen",
    "batch_size": "clips of a step of the optimiser, over all processes",
    "accumulate": "parts that a batch is computed in, to need less memory",
    "drop_last": "whether the last batch of an epoch is left out where it is smaller",
    "lr": "learning rate, for the batch size",
    "momentum": "of SGD",
    "weight_decay": "of SGD",
    "factors": "whether biases learn twice as fast and do not decay, and so on, as in TSN",
    "fc_lr5": "whether the heads learn five times as fast (TSM)",
    "schedule": "of the learning rate: step (x 0.1 at the milestones), cosine or constant",
    "milestones": "epochs after which the schedule step multiplies by 0.1",
    "warmup_epochs": "epochs in which the learning rate grows linearly to the schedule's",
    "warmup_factor": "share of the learning rate that the growth starts from",
    "clip_norm": "norm of all gradients that is not exceeded; none: any",
    "label_smoothing": "share of the target that all classes get alike",
    "precision": "float32; bfloat16 or float16 computes most of the network in that",
    "compile": "whether the model is compiled by torch.compile",
    "channels_last": "whether images lie in memory as their channels, which some GPUs prefer",
    "sync_bn": "whether batch norms that are not frozen share statistics among processes (GPUs)",
    "seed": "of fresh weights, the order of clips, crops, flips and dropout",
}
"""Field of a recipe -> what its option says."""


def train_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line. A recipe's fields are there only where given."""
    parser = argparse.ArgumentParser(
        description="Train a model on EPIC-KITCHENS or on clips of your own.",
        epilog="Stopped at any moment, the same command with --resume goes on. Under torchrun, the "
        "processes share each batch.",
    )
    add = parser.add_argument
    add(
        "model",
        metavar="MODEL",
        type=str.lower,
        choices=MODEL_OPTIONS,
        help=", ".join(MODEL_OPTIONS),
    )
    add(
        "--train", metavar="CSV", type=Path, required=True,
        help="labelled clips: an official file of EPIC-KITCHENS, or one of your own with the "
        "columns path and label, or path, verb and noun (all columns: epic/annotations.py)",
    )  # fmt: skip
    add(
        "--validation", metavar="CSV", type=Path,
        help="clips that are not trained on; the best epoch is chosen by them",
    )  # fmt: skip
    add("--out", metavar="OUT", type=Path, required=True, help="folder of the run")
    add(
        "--resume", action="store_true",
        help="go on with the run in OUT; start one if there is none",
    )  # fmt: skip
    add("--recipe", metavar="NAME", choices=RECIPES, default="tsm-finetune",
        help="how to train (default: %(default)s; see --list-recipes)")  # fmt: skip
    add("--list-recipes", action=_ListRecipes, nargs=0, help="print all recipes and end")
    _add_recipe_options(parser)
    _add_model_options(parser)
    add_clip_options(parser)
    add_run_options(parser, precision=False)
    add(
        "--minutes", metavar="N", type=float, default=10.0,
        help="at most so long from one checkpoint to the next (default: %(default)g)",
    )  # fmt: skip
    add(
        "--tensorboard", action="store_true",
        help="also write OUT/tensorboard, with the package tensorboard",
    )  # fmt: skip
    return parser


def make_recipe(options: argparse.Namespace) -> Recipe:
    """Return the recipe that the command line asks for.

    Raises:
        ValueError: if a value is out of its range.
    """
    given = vars(options)
    recipe = RECIPES[options.recipe]
    if options.model != "tsm":  # of any other model, only if it is asked for, to be refused
        recipe = replace(recipe, fc_lr5=False)
    return replace(recipe, **{f.name: given[f.name] for f in fields(Recipe) if f.name in given})


def _add_recipe_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recipe (default of each: what the recipe says)")
    kinds: dict[Any, dict[str, Any]] = {
        bool: {"action": argparse.BooleanOptionalAction},
        int: {"type": int, "metavar": "N"},
        float: {"type": float, "metavar": "X"},
        float | None: {"type": _parse_limit, "metavar": "X"},
        str: {"type": str.lower, "metavar": "NAME"},
        str | None: {"type": _parse_start, "metavar": "START"},
        tuple[int, ...]: {"type": int, "metavar": "N", "nargs": "*"},
    }
    for field in fields(Recipe):
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            default=argparse.SUPPRESS, help=_HELP[field.name], **kinds[field.type],
        )  # fmt: skip


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "model (default of each: what the start says, or in brackets)"
    )
    add = group.add_argument
    add("--base-model", metavar="NAME", help="backbone, such as resnet50 or BNInception (resnet50)")
    add("--modality", metavar="NAME", help="RGB, Flow or RGBDiff (RGB)")
    add("--num-segments", metavar="T", type=int, help="segments of a clip (8)")
    add("--new-length", metavar="L", type=int, help="frames of a snippet (RGB 1, others 5)")
    add("--shift-direction", choices=SHIFT_DIRECTIONS,
        help="of a TSM: past for live streams (both)")  # fmt: skip
    add("--shift-div", metavar="N", type=int,
        help="of a TSM: one in N channels shifts each way (8)")  # fmt: skip
    # The default is the constructor's: another would make an MTRN that gives other scores in the
    # original code, which has published pairing alone.
    add("--classifier-pairing", choices=CLASSIFIER_PAIRINGS,
        help="of an MTRN: per-scale as C1 and TRN-pytorch have it (published)")  # fmt: skip
    add("--input-size", metavar="PIXELS", type=int, help="side of the square input (224)")
    add("--scale-size", metavar="PIXELS", type=int,
        help="shorter side of frames before they are cropped (256)")  # fmt: skip


class _ListRecipes(argparse.Action):
    """Printing of all recipes, in the place of a run."""

    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any) -> None:
        print(_format_recipes())
        parser.exit()


def _format_recipes() -> str:
    """Return a table of what differs between recipes, above what all have."""
    recipes = {name: asdict(recipe) for name, recipe in RECIPES.items()}
    values = {
        field.name: [_show(recipe[field.name]) for recipe in recipes.values()]
        for field in fields(Recipe)
    }
    columns = {"recipe": [*recipes]}
    columns |= {name: column for name, column in values.items() if len({*column}) > 1}
    # The words of a heading stand below one another, so that columns are narrow.
    headings = zip_longest(*(name.split("_") for name in columns), fillvalue="")
    rows = [*headings, *zip(*columns.values(), strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    same = [f"{name.replace('_', ' ')} {v[0]}" for name, v in values.items() if name not in columns]
    return "\n".join([*lines, "", f"All: {', '.join(same)}."])


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return " ".join(map(str, value)) or "-"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _parse_limit(text: str) -> float | None:
    try:
        return None if text.lower() == "none" else float(text) or None
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number or none, got {text!r}") from None


def _parse_start(text: str) -> str | None:
    return None if text.lower() == "none" else text
