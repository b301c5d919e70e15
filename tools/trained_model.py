"""The model that a command line asks to train, and what its weights start from."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from checkpoints.checkpoint import read_checkpoint
from checkpoints.config import MODEL_OPTIONS, ModelConfig
from checkpoints.errors import UnknownSegmentsError
from data.options import MODALITIES, ClassNames, one_of
from epic.datasets import OF_PUBLISHED_WEIGHTS
from model_loader import MODELS
from ops.backbones import canonical_name
from tools.options import find_checkpoint
from training.recipes import KINETICS, Recipe
from tsn import TSN

__all__ = ["Start", "build_model", "find_start"]

_OPTIONS = {
    "base_model": (*MODELS,),
    "modality": (*MODELS,),
    "num_segments": (*MODELS,),
    "new_length": (*MODELS,),
    "shift_direction": ("tsm",),
    "shift_div": ("tsm",),
    "classifier_pairing": ("mtrn",),
}
"""Option -> the models that have it."""
_DEFAULTS: dict[str, Any] = {"base_model": "resnet50", "modality": "RGB", "num_segments": 8}
_KINETICS_URL = (
    "https://hanlab18.mit.edu/projects/tsm/models/"
    "TSM_kinetics_{}_resnet50_shift8_blockres_avg_segment8_e50.pth"
)


@dataclass(frozen=True)
class Start:
    """What a model is before its training.

    Attributes:
        model_type: "tsn", "trn", "mtrn" or "tsm".
        options: of its constructor, as JSON has them; others keep their defaults.
        weights: what it takes as `pretrained`.
        class_names: those of the checkpoint file that the weights come from.
    """

    model_type: str
    options: dict[str, Any]
    weights: str | Path | None
    class_names: ClassNames | None = None


def find_start(options: argparse.Namespace, recipe: Recipe) -> Start:
    """Return what the model is: as the command line says, or the file that it starts from.

    Raises:
        ValueError: if an option is another model's, or the recipe starts from a file that has to be
            given, or the file is no checkpoint.
        FileNotFoundError: if there is no such file.
    """
    given: dict[str, Any] = {
        name: getattr(options, name) for name in _OPTIONS if getattr(options, name) is not None
    }
    for name in given:
        if options.model not in _OPTIONS[name]:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} is for {', '.join(_OPTIONS[name])}, not {options.model}")
    # As a run's request has them, which a run that goes on compares.
    if "modality" in given:
        given["modality"] = one_of("--modality", given["modality"], MODALITIES)
    if "base_model" in given:
        given["base_model"] = canonical_name(given["base_model"])
    if recipe.pretrained == KINETICS:
        url = _KINETICS_URL.format("Flow" if given.get("modality") == "Flow" else "RGB")
        raise ValueError(
            f"recipe {options.recipe} starts from a TSM trained on Kinetics: download {url} and "
            f"give its path, as in --pretrained {url.rpartition('/')[2]}, or start from other "
            f"weights, as in --pretrained imagenet"
        )
    if recipe.pretrained is None or recipe.pretrained in ("imagenet", *OF_PUBLISHED_WEIGHTS):
        return Start(options.model, {**_DEFAULTS, **given}, recipe.pretrained)
    path = find_checkpoint(recipe.pretrained)
    config = _read_config(path, given.get("num_segments", _DEFAULTS["num_segments"]))
    recorded: dict[str, Any] = {"base_model": config.arch, "modality": config.modality}
    if given.get("modality", config.modality) == config.modality:
        recorded["new_length"] = config.new_length
    if config.model_type == options.model:
        own = MODEL_OPTIONS[config.model_type]
        recorded |= {name: getattr(config, name) for name in ("num_segments", *own)}
    return Start(options.model, {**_DEFAULTS, **recorded, **given}, path, config.class_names)


def build_model(
    start: Start,
    recipe: Recipe,
    num_class: int | tuple[int, int],
    sizes: Mapping[str, Any],
) -> TSN:
    """Build the model with the weights that it starts from, or random ones of the recipe's seed.

    Args:
        start: what to build.
        recipe: how it will be trained.
        num_class: number of classes, or (verbs, nouns).
        sizes: `input_size` and `scale_size` in pixels, in the place of those of the weights; None:
            those of the weights.

    Raises:
        ValueError: if the options contradict each other or the weights, or frames would be smaller
            than the input.
        weights.download.DownloadError: if weights are asked for and cannot be fetched.
    """
    torch.manual_seed(recipe.seed)
    model = MODELS[start.model_type](
        num_class,
        dropout=recipe.dropout,
        partial_bn=recipe.partial_bn,
        pretrained=start.weights,
        **start.options,
    )
    model.preprocessing = replace(
        model.preprocessing, **{name: size for name, size in sizes.items() if size is not None}
    )
    input_size, scale_size = model.preprocessing.input_size, model.preprocessing.scale_size
    if scale_size < input_size:
        raise ValueError(
            f"--scale-size must be at least --input-size, {input_size}, got {scale_size}"
        )
    return model


def _read_config(path: Path, num_segments: int) -> ModelConfig:
    """Return what a checkpoint says; `num_segments` is what a file without a record is for."""
    try:
        return read_checkpoint(path).config
    except UnknownSegmentsError:
        return read_checkpoint(path, num_segments=num_segments).config
