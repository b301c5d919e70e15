"""The table of published weights: their URLs, configurations, preprocessing and scores.

Sources: W. Price and D. Damen, "An Evaluation of Action Recognition Models on EPIC-Kitchens",
arXiv:1908.00867, and its checkpoints in the data repository of the University of Bristol; for
EPIC-KITCHENS-100, D. Damen et al., "Rescaling Egocentric Vision", arXiv:2006.13256, and the
checkpoints of its action recognition challenge (C1).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from checkpoints.checkpoint import read_checkpoint
from checkpoints.config import MODEL_OPTIONS, Checkpoint, ModelConfig
from checkpoints.errors import CheckpointError
from data.preprocessing import CAFFE, TORCHVISION
from weights.download import fetch

__all__ = ["PUBLISHED", "Accuracies", "PublishedWeights", "find_published"]


@dataclass(frozen=True)
class Accuracies:
    """Top-1 accuracies in percent; None where the source has no usable figure."""

    verb: float | None
    noun: float | None
    action: float | None


@dataclass(frozen=True)
class PublishedWeights:
    """One published checkpoint.

    Attributes:
        dataset: the dataset trained on, as `pretrained=` names it.
        config: the model, with the preprocessing of the frames in training.
        url: URL of the file.
        sha256_prefix: first digits of the file's SHA-256, None where no hash is published. They are
            in the file's name in torch.hub's form, from which it is inferred that they are a hash.
        scores: accuracies by test set: with 10 crops on "seen" kitchens, which occur in training
            too, and on "unseen" ones; or on "validation".
        paper: URL of the paper that describes training and scores.
    """

    dataset: str
    config: ModelConfig
    url: str
    sha256_prefix: str | None
    scores: Mapping[str, Accuracies] = field(hash=False)
    paper: str

    @property
    def variant(self) -> str:
        """Kind of model: "TSN", "TRN", "MTRN" or "TSM"."""
        return self.config.model_type.upper()

    @property
    def file_name(self) -> str:
        """Name of the file, on the server and in torch.hub's folder of checkpoints."""
        return PurePosixPath(urlsplit(self.url).path).name

    def read(self) -> Checkpoint:
        """Return the checkpoint, from the cache or downloaded into it.

        Raises:
            weights.download.DownloadError: if it cannot be fetched.
            checkpoints.errors.CheckpointError: if the file of that name holds something else.
        """
        path = fetch(self.url, sha256_prefix=self.sha256_prefix)
        advice = "Delete the file to have it fetched anew"
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError as error:
            raise CheckpointError(f"{error}. {advice}") from error
        names = ("model_type", "arch", "modality", "num_segments", "num_class")
        for option in (*names, *MODEL_OPTIONS[self.config.model_type]):
            found, wanted = getattr(checkpoint.config, option), getattr(self.config, option)
            if str(found).lower() != str(wanted).lower():
                raise CheckpointError(
                    f"{path} does not hold the published weights of that name: {option} is "
                    f"{found!r} there, not {wanted!r}. {advice}"
                )
        return checkpoint

    def __str__(self) -> str:
        config = self.config
        return (
            f"{self.dataset:<17} {self.variant:<4} {config.arch:<11} {config.modality:<4} "
            f"num_segments={config.num_segments} new_length={config.new_length} "
            f"num_class={config.num_class}"
        )


def _make_config(variant: str, arch: str, modality: str, **options: Any) -> ModelConfig:
    """Return the config of published weights; both releases have the options of the defaults."""
    new_length = 5 if modality == "Flow" else 1
    preprocessing = CAFFE if arch == "BNInception" else TORCHVISION
    return ModelConfig(
        model_type=variant.lower(),
        num_segments=8,
        modality=modality,
        arch=arch,
        new_length=new_length,
        preprocessing=preprocessing.for_modality(modality, new_length),
        **options,
    )


def _epic_kitchens_55(
    variant: str, arch: str, modality: str, sha256_prefix: str, seen: Accuracies, unseen: Accuracies
) -> PublishedWeights:
    """Return the entry of a checkpoint of arXiv:1908.00867."""
    file_name = f"{variant}_arch={arch}_modality={modality}_segments=8-{sha256_prefix}.pth.tar"
    return PublishedWeights(
        dataset="epic-kitchens",
        config=_make_config(variant, arch, modality, num_class=(125, 352)),
        url=f"https://data.bris.ac.uk/datasets/2tw6gdvmfj3f12papdy24flvmo/{file_name}",
        sha256_prefix=sha256_prefix,
        scores={"seen": seen, "unseen": unseen},
        paper="https://arxiv.org/abs/1908.00867",
    )


def _epic_kitchens_100(variant: str, modality: str, path: str, action: float) -> PublishedWeights:
    """Return the entry of a checkpoint of EPIC-KITCHENS-100's C1."""
    pairing = "per-scale" if variant == "MTRN" else "published"
    config = _make_config(
        variant, "resnet50", modality, num_class=(97, 300), classifier_pairing=pairing
    )
    if modality == "RGB":
        # Kept: the std equals the mean, evidently by mistake, but the weights were trained with it
        # (test_those_of_epic_kitchens_100).
        preprocessing = replace(TORCHVISION, std=TORCHVISION.mean)
        config = replace(config, preprocessing=preprocessing)
    return PublishedWeights(
        dataset="epic-kitchens-100",
        config=config,
        url=f"https://www.dropbox.com/s/{path}?dl=1",
        sha256_prefix=None,
        scores={"validation": Accuracies(None, None, action)},
        paper="https://arxiv.org/abs/2006.13256",
    )


PUBLISHED: tuple[PublishedWeights, ...] = tuple(
    _epic_kitchens_55(
        variant, arch, modality, sha256_prefix, Accuracies(*seen), Accuracies(*unseen)
    )
    for variant, arch, modality, sha256_prefix, seen, unseen in (
        # TSN, BNInception, RGB: the source repeats 22.39, the action score of seen kitchens, for
        # unseen ones. No other network comes near it: a mistake, so left out.
        ("TSN", "BNInception", "RGB", "efb96e64", (47.97, 38.85, 22.39), (36.46, 22.64, None)),
        ("TSN", "BNInception", "Flow", "4c720ee3", (51.68, 26.82, 16.76), (47.35, 21.20, 13.49)),
        ("TSN", "resnet50", "RGB", "3ecf904f", (49.71, 39.85, 23.97), (36.70, 23.11, 12.77)),
        ("TSN", "resnet50", "Flow", "4317bc4a", (53.14, 27.76, 20.28), (47.56, 20.28, 13.11)),
        ("TRN", "BNInception", "RGB", "a770bfbd", (58.26, 36.32, 25.46), (47.29, 22.91, 15.06)),
        ("TRN", "BNInception", "Flow", "4f84b178", (55.20, 23.95, 16.03), (50.32, 19.02, 12.77)),
        ("TRN", "resnet50", "RGB", "c8176b38", (58.82, 37.27, 26.62), (47.32, 23.69, 15.71)),
        ("TRN", "resnet50", "Flow", "c0a2821c", (55.16, 23.19, 15.77), (50.39, 18.50, 12.02)),
        ("MTRN", "BNInception", "RGB", "8933f99e", (55.76, 37.94, 26.62), (45.41, 23.90, 15.57)),
        ("MTRN", "BNInception", "Flow", "c0cea7e1", (55.92, 24.88, 16.78), (51.38, 20.69, 14.00)),
        ("MTRN", "resnet50", "RGB", "46337796", (60.16, 38.36, 28.23), (46.94, 24.41, 16.32)),
        ("MTRN", "resnet50", "Flow", "6667f285", (56.79, 25.00, 17.24), (50.36, 20.28, 13.42)),
        ("TSM", "resnet50", "RGB", "cfc93918", (57.88, 40.84, 28.22), (43.50, 23.32, 14.99)),
        ("TSM", "resnet50", "Flow", "e09c2d3a", (58.08, 27.49, 19.14), (52.68, 20.83, 14.27)),
    )
) + tuple(
    _epic_kitchens_100(*details)
    for details in (
        ("TSN", "RGB", "4i99mzddk95edyq/tsn_rgb.ckpt", 27.40),
        ("TSN", "Flow", "res0i1ns7v30g9y/tsn_flow.ckpt", 22.86),
        # Called trn_*.ckpt, but multi-scale.
        ("MTRN", "RGB", "l1cs7kozz3f03r4/trn_rgb.ckpt", 32.64),
        ("MTRN", "Flow", "4rehj36vyip82mu/trn_flow.ckpt", 22.97),
        ("TSM", "RGB", "5yxnzubch7b6niu/tsm_rgb.ckpt", 35.75),
        ("TSM", "Flow", "8x9hh404k641rqj/tsm_flow.ckpt", 27.79),
    )
)
"""All published weights, by dataset and variant."""


def find_published(
    variant: str,
    base_model: str,
    modality: str,
    *,
    num_segments: int,
    new_length: int,
    dataset: str = "epic-kitchens",
) -> PublishedWeights:
    """Return the published weights of one configuration; names match in any case.

    Raises:
        ValueError: there are no such weights; the message lists those that exist.
    """
    wanted = [name.lower() for name in (dataset, variant, base_model, modality)]
    for entry in PUBLISHED:
        config = entry.config
        names = (entry.dataset, config.model_type, config.arch, config.modality)
        lengths = (config.num_segments, config.new_length)
        if [name.lower() for name in names] == wanted and lengths == (num_segments, new_length):
            return entry
    raise ValueError(
        f"there are no published weights for dataset={dataset!r}, variant={variant!r}, "
        f"base_model={base_model!r}, modality={modality!r}, num_segments={num_segments!r}, "
        f"new_length={new_length!r}; there are:\n" + "\n".join(f"  {entry}" for entry in PUBLISHED)
    )
