"""The documented format, in which checkpoints are written, and its older forms.

docs/checkpoints.md lists its entries. Class counts are read from the weights. Older forms: an
`img_feature_dim` that only `args` holds, model_type "tsn" with consensus_type "TRN" or
"TRNMultiscale", and "tsm" with `non_local`.
"""

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from checkpoints.architecture import infer_num_class, input_channels
from checkpoints.config import MODEL_OPTIONS, Checkpoint, ModelConfig
from checkpoints.converter import Converter, make_preprocessing
from checkpoints.errors import CheckpointError, key_to_str, show
from checkpoints.fields import Fields
from checkpoints.values import to_plain
from data.options import ClassNames, check_class_names
from data.preprocessing import Preprocessing

__all__ = ["DocumentedConverter", "to_dictionary"]

_FORMAT_VERSION = 2
"""1, and `shift_direction`. Files say 1 where readers of that version build the same model."""


class DocumentedConverter(Converter):
    """Reads the documented format."""

    strict = True

    @staticmethod
    def matches(contents: Mapping[Any, Any]) -> bool:
        """Return whether a file says which type of model it is for."""
        return "model_type" in contents

    def args(self) -> dict[str, Any]:
        """Return the training options, whether they are a Namespace or a dictionary."""
        args = self.contents.get("args")
        options = vars(args) if isinstance(args, Namespace) else args
        if not isinstance(options, Mapping):
            return {}
        return {key_to_str(key): value for key, value in options.items()}

    def config(self) -> ModelConfig:
        """Return what the file says of its model, checked by its weights where they tell."""
        args = self.args()
        own = self.fields
        # A value that the file does not hold itself may be among the training options.
        either = Fields(self.contents, fallback=args)
        model_type, consensus, non_local = self._model_type(either)
        relational, shifting = model_type in ("trn", "mtrn"), model_type == "tsm"
        if relational and own.get("img_feature_dim") is None and "img_feature_dim" in args:
            self.report.append("took img_feature_dim from the training options")
        segments = self.segments(own.int("segment_count", None), model_type)
        version = own.int("format_version", 1)
        if version not in range(1, _FORMAT_VERSION + 1):
            self.report.append(
                f"read format_version {version} as {_FORMAT_VERSION}, the newest known here"
            )
        modality = own.str("modality")
        num_class = infer_num_class(model_type, self.state)
        shift: dict[str, Any] = {
            "shift_div": either.int("shift_div", 8),
            "shift_place": either.str("shift_place", "blockres"),
            "shift_every": own.int("shift_every", 1),
            "shift_direction": own.str("shift_direction", "both"),
            "temporal_pool": either.bool("temporal_pool", False),
        } if shifting else {}  # fmt: skip
        return ModelConfig(
            model_type=model_type,
            num_class=num_class,
            num_segments=segments,
            modality=modality,
            arch=own.str("arch"),
            new_length=self._new_length(modality, either, args),
            dropout=either.float("dropout", None),
            before_softmax=own.bool("before_softmax", True),
            partial_bn=own.bool("partial_bn", True),
            consensus_type="avg" if relational else consensus,
            img_feature_dim=either.int("img_feature_dim", 256) if relational else 256,
            classifier_pairing=own.str("classifier_pairing", "published"),
            non_local=non_local and shifting,
            preprocessing=self._preprocessing(),
            class_names=self._class_names(num_class),
            **shift,
        )

    def _model_type(self, fields: Fields) -> tuple[str, str, bool]:
        """Return type, consensus and whether there are non-local blocks, also of older files."""
        model_type = self.fields.str("model_type").lower()
        consensus = fields.str("consensus_type", "avg")
        non_local = fields.bool("non_local", False)
        relation = {"trn": "trn", "trnmultiscale": "mtrn"}.get(consensus.lower())
        if model_type == "tsm-nl":
            model_type, non_local = "tsm", True
        elif model_type == "tsn" and relation:
            model_type = relation
            self.report.append(
                f"took model_type 'tsn' with consensus_type {consensus!r} as {model_type!r}"
            )
        elif model_type == "tsm" and non_local:
            self.report.append("took model_type 'tsm' with non_local as 'tsm-nl'")
        if model_type not in MODEL_OPTIONS:
            raise CheckpointError(
                f"model_type must be one of {(*MODEL_OPTIONS, 'tsm-nl')}, got "
                f"{show(self.contents['model_type'])}"
            )
        return model_type, consensus, non_local

    def _new_length(self, modality: str, fields: Fields, args: Mapping[str, Any]) -> int:
        """Return the frames of a snippet: recorded, or what the first convolution takes."""
        if modality.lower() == "rgb":
            return 1
        for recorded in (fields.int("new_length", None), Fields(args).int("flow_length", None)):
            if recorded is not None:
                return recorded
        channels = input_channels(self.state)
        if not channels:
            raise CheckpointError("the weights have no convolution")
        return channels // (2 if modality.lower() == "flow" else 3)

    def _preprocessing(self) -> Preprocessing | None:
        """Return the preprocessing that the file records, if it does."""
        entry = self.fields.get("preprocessing")
        if entry is None:
            return None
        names = [field.name for field in fields(Preprocessing)]
        if not isinstance(entry, Mapping) or set(entry) != set(names):
            raise CheckpointError(
                f"preprocessing must have the entries {', '.join(names)}, got {show(entry)}"
            )
        low_high = self.fields.floats("preprocessing.input_range")
        return make_preprocessing(
            "preprocessing",
            mean=self.fields.floats("preprocessing.mean"),
            std=self.fields.floats("preprocessing.std"),
            input_space=self.fields.str("preprocessing.input_space"),
            input_range=(low_high[0], low_high[-1]),
            input_size=self.fields.int("preprocessing.input_size"),
            scale_size=self.fields.int("preprocessing.scale_size"),
        )

    def _class_names(self, num_class: int | tuple[int, int]) -> ClassNames | None:
        """Return the class names that the file records, if it does."""
        entry = self.fields.get("class_names")
        if entry is None:
            return None
        try:
            return check_class_names(entry, num_class)
        except ValueError as error:
            raise CheckpointError(f"{error}; correct or remove this entry of the file") from error


def to_dictionary(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return a checkpoint in the documented format.

    What the original reads stands where the original expects it: `args` always is a Namespace
    with `flow_length` and `dropout`. Paths and NumPy scalars in it become plain values.

    Raises:
        ValueError: if `checkpoint.args` holds something that could not be read without running
            code, such as a function.
    """
    config = checkpoint.config
    args = Namespace()
    vars(args).update(to_plain(checkpoint.args, "args"))
    # For RGB nobody reads it: what was recorded stays.
    if config.modality.lower() != "rgb" or "flow_length" not in args:
        args.flow_length = config.new_length
    contents: dict[str, Any] = {
        "format_version": 1 if config.shift_direction == "both" else _FORMAT_VERSION,
        "model_type": "tsm-nl" if config.non_local else config.model_type,
        "epoch": checkpoint.epoch,
        "segment_count": config.num_segments,
        "modality": config.modality,
        "arch": config.arch,
        "args": args,
        "new_length": config.new_length,
        "before_softmax": config.before_softmax,
        "partial_bn": config.partial_bn,
        **{name: getattr(config, name) for name in MODEL_OPTIONS[config.model_type]},
        "state_dict": OrderedDict(checkpoint.state_dict),
    }
    if config.dropout is not None:
        args.dropout = contents["dropout"] = config.dropout
    if config.preprocessing is not None:
        contents["preprocessing"] = asdict(config.preprocessing)
    if config.class_names is not None:
        contents["class_names"] = [
            name if isinstance(name, str) else list(name) for name in config.class_names
        ]
    if checkpoint.optimizer is not None:
        contents["optimizer"] = checkpoint.optimizer
    if checkpoint.training is not None:
        contents["training"] = to_plain(checkpoint.training, "training")
    return contents
