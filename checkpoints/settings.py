"""What it takes to build a model, apart from its weights."""

from dataclasses import dataclass

from data.preprocessing import Preprocessing

__all__ = ["MODEL_TYPES", "ModelConfig"]

MODEL_TYPES = ("tsn", "trn", "mtrn", "tsm")


@dataclass(frozen=True)
class ModelConfig:
    """What it takes to build a model, apart from its weights; names as in the constructors.

    `model_type` is one of `MODEL_TYPES`; options of other model types keep their defaults.
    `dropout` and `preprocessing` are None where a file does not tell: the model's own hold then.
    """

    model_type: str
    num_class: int | tuple[int, int]
    num_segments: int
    modality: str
    arch: str
    new_length: int
    dropout: float | None = None
    before_softmax: bool = True
    consensus_type: str = "avg"
    img_feature_dim: int = 256
    classifier_pairing: str = "published"
    shift_div: int = 8
    shift_place: str = "blockres"
    shift_every: int = 1
    temporal_pool: bool = False
    non_local: bool = False
    preprocessing: Preprocessing | None = None
