"""Temporal segment networks, the base of every model here.

Source: Wang et al., "Temporal Segment Networks: Towards Good Practices for Deep Action
Recognition", 2016 (arXiv:1608.00859).

Differences from the original:
    - Partial batch norm holds from construction on, and `partialBN(False)` undoes it.
    - `train()` and `eval()` return the model.
    - `before_softmax=False` applies the softmax with one task too.
    - RGBDiff works (the original cannot be built); flow and RGBDiff share one code path.
    - Inputs are checked, and refused with the shape that was expected.
"""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from checkpoints.checkpoint import read_checkpoint
from checkpoints.config import Checkpoint
from checkpoints.errors import UnknownSegmentsError
from data.functional import Frames
from data.options import (
    MODALITIES,
    ClassNames,
    check_class_names,
    class_counts,
    default_length,
    fraction,
    one_of,
    positive_integer,
)
from data.preprocessing import Preprocessing
from ops.backbones import (
    adapt_first_convolution,
    canonical_name,
    first_convolution,
    make_backbone,
)
from ops.consensus import CONSENSUS_TYPES
from ops.inputs import check_features, explain_dtype, to_snippets
from ops.loading import init_empty, load_weights
from ops.parameter_groups import parameter_groups
from ops.partial_batch_norm import partial_batch_norms, warn_of_fresh_statistics
from ops.relation import MultiScaleRelation, TemporalRelation
from ops.transfer import check_options, fit_weights
from presets import evaluation_transform, training_transform
from weights.published import find_published

__all__ = ["TSN", "Logits", "to_tasks"]

_logger = logging.getLogger(__name__)

_RELATIONAL = {"TRN": "TRN", "TRNMultiscale": "MTRN"}
"""Relational consensus types, and the variants that they make."""
_PUBLISHED = ("epic-kitchens", "epic-kitchens-100")
_PRETRAINED = (*_PUBLISHED, "imagenet", None)
_CANNOT_BE_TRAINED = (
    "a model optimised for inference has no batch norms left and cannot be trained; train the one "
    "that it was made from"
)

Logits = Tensor | tuple[Tensor, ...]


def to_tasks(outputs: Logits) -> tuple[Tensor, ...]:
    """Return a model's outputs of each task, also where there is one."""
    return outputs if isinstance(outputs, tuple) else (outputs,)


class TSN(nn.Module):
    """Temporal segment network: a backbone over T snippets of a clip, then a consensus.

    Example:
        >>> import torch
        >>> model = torch.hub.load(
        ...     ".", "TSN", (125, 352), 8, "RGB", base_model="resnet50", pretrained=None,
        ...     source="local",
        ... ).eval()
        >>> verbs, nouns = model(torch.randn(1, 8 * 3, 224, 224))
        >>> verbs.shape, nouns.shape
        (torch.Size([1, 125]), torch.Size([1, 352]))

    Published weights: 8 segments, modality "RGB" or "Flow". `pretrained="epic-kitchens"` has 125
    verbs and 352 nouns, with base_model "resnet50" or "BNInception"; "epic-kitchens-100" has 97 and
    300, with "resnet50".

    Paper: arXiv:1608.00859.

    Args:
        num_class: number of classes, or a pair (verbs, nouns) for two tasks.
        num_segments: T, snippets of a clip.
        modality: "RGB", "Flow" or "RGBDiff", in any case.
        base_model: name of the backbone, in any case (`ops.backbones.BACKBONES`, or any of
            pretrainedmodels that ends in a `last_linear`).
        new_length: L, frames of a snippet (flow: pairs of u and v). 1 for RGB, and 5 unless given
            otherwise.
        consensus_type: "avg", "max" or "identity"; "TRN" and "TRNMultiscale" make the relational
            heads of `trn.TRN` and `trn.MTRN`.
        before_softmax: whether the outputs are logits; if not, segments' probabilities are
            averaged (consensus "avg" only).
        dropout: probability with which features are dropped while training.
        img_feature_dim: width to which features are reduced for the relational heads.
        partial_bn: freeze every 2-D batch norm of the backbone but the first.
        pretrained: "epic-kitchens" or "epic-kitchens-100" for the published weights of exactly
            this configuration (with other class counts, of everything but the heads), "imagenet"
            for those of the backbone, None for random ones, or the path of any file that
            `load_checkpoint` reads. A file of the same kind of model gives everything, or with
            other class counts everything but the heads; the other options must be the file's. One
            of another kind gives its backbone; where only one of both shifts, fine-tuning has to
            make up for that. RGB weights also start flow and RGBDiff models: the first convolution
            gets their mean over its input channels. `load_report` says what starts anew.

    What the constructor took cannot be set later, but for `dropout` and `preprocessing`: modules
    were built for it.

    Attributes:
        arch: canonical name of the backbone.
        feature_dim: D, width of `features`.
        preprocessing: what the weights expect of the input; `input_mean`, `input_std`,
            `input_size`, `crop_size` and `scale_size` show the parts that the original has.
        class_names: names of the classes, (verbs, nouns) or with one task a tuple; None where they
            are not known. May be set; checkpoints keep them.
        frames_per_snippet: frames to load for a snippet: L, and one more for RGBDiff.
        inference_only: whether this is a copy of `ops.inference.optimize_for_inference`, which
            cannot be trained or saved.
        load_report: what was renamed, split or assumed of a checkpoint's weights, and what starts
            anew, one message per change.

    Raises:
        ValueError: for any argument out of its range, and for combinations that cannot be; the
            message names the argument and the valid choices.
        weights.download.DownloadError: if weights are asked for and cannot be fetched.
        checkpoints.errors.CheckpointError: if the file under their name holds something else.
    """

    num_class: int | tuple[int, int]
    base_model: nn.Module
    consensus: nn.Module
    preprocessing: Preprocessing
    feature_dim: int
    load_report: tuple[str, ...] = ()
    inference_only = False
    _class_names: ClassNames | None = None
    _pairing = "published"
    _read_only: ClassVar[frozenset[str]] = frozenset(
        {
            "num_class",
            "num_segments",
            "modality",
            "arch",
            "new_length",
            "feature_dim",
            "consensus_type",
            "before_softmax",
            "img_feature_dim",
            "classifier_pairing",
        }
    )

    def __init__(
        self,
        num_class: int | Sequence[int],
        num_segments: int,
        modality: str,
        base_model: str = "resnet50",
        new_length: int | None = None,
        consensus_type: str = "avg",
        before_softmax: bool = True,
        dropout: float = 0.7,
        img_feature_dim: int = 256,
        partial_bn: bool = True,
        pretrained: str | os.PathLike[str] | None = "imagenet",
    ) -> None:
        super().__init__()
        if pretrained not in _PRETRAINED:
            is_path = isinstance(pretrained, str | os.PathLike)
            if not is_path or not os.path.isfile(pretrained):
                raise ValueError(
                    f"pretrained must be one of {_PRETRAINED} or the path of a checkpoint file, "
                    f"got {pretrained!r}{', where no file is' if is_path else ''}"
                )
        self.num_class = class_counts(num_class)
        self.num_segments = positive_integer("num_segments", num_segments)
        self.modality = one_of("modality", modality, MODALITIES)
        self.arch = canonical_name(base_model)
        if new_length is None:
            new_length = default_length(self.modality)
        self.new_length = positive_integer("new_length", new_length)
        if self.modality == "RGB" and self.new_length != 1:
            raise ValueError(f"new_length must be 1 for modality RGB, got {new_length!r}")
        self.consensus_type = one_of(
            "consensus_type", consensus_type, [*CONSENSUS_TYPES, *_RELATIONAL]
        )
        if not before_softmax and self.consensus_type != "avg":
            raise ValueError(
                f"before_softmax=False needs consensus_type='avg', got {consensus_type!r}"
            )
        self.before_softmax = bool(before_softmax)
        dropout = fraction("dropout", dropout)
        self.img_feature_dim = positive_integer("img_feature_dim", img_feature_dim)
        self._partial_bn = bool(partial_bn)
        self._training_began = [False]  # a list, which replicas of DataParallel share

        self._build(pretrained)
        self.dropout = dropout
        self.partialBN(partial_bn)

    def _build(self, pretrained: str | os.PathLike[str] | None) -> None:
        """Make the network, with the weights asked for."""
        if pretrained in _PUBLISHED:
            self._build_published(str(pretrained))
        elif pretrained is None:
            self._build_modules(imagenet=False)
        elif pretrained == "imagenet":
            # A rehearsal without memory: options that contradict each other are refused before
            # anything is fetched.
            with init_empty():
                self._build_modules(imagenet=False)
            self._build_modules(imagenet=True)
        else:
            self._build_from_file(pretrained)

    def _build_published(self, dataset: str) -> None:
        """Make the network with the weights published for this configuration."""
        published = find_published(
            self.variant,
            self.arch,
            self.modality,
            num_segments=self.num_segments,
            new_length=self.new_length,
            dataset=dataset,
        )
        check_options(self, published.config, f"the published weights {published.file_name}")
        checkpoint = published.read()
        with init_empty():  # the file has the weights
            self._build_modules(imagenet=False)
        self.preprocessing = published.config.preprocessing or self.preprocessing
        self.load_weights(checkpoint, source=published.file_name)

    def _build_from_file(self, path: str | os.PathLike[str]) -> None:
        """Make the network, with those weights of a checkpoint file that fit it."""
        try:
            checkpoint = read_checkpoint(path)
        except UnknownSegmentsError:  # whose weights fit any number
            checkpoint = read_checkpoint(path, num_segments=self.num_segments)
        check_options(self, checkpoint.config, f"the weights of {path}")
        with init_empty():  # the file has the weights
            self._build_modules(imagenet=False)
        self.load_weights(checkpoint, source=str(path))
        if self.load_report == checkpoint.report:
            self.load_report += (f"all weights of {path} were loaded",)
            _logger.info("%s", self.load_report[-1])

    def load_weights(self, checkpoint: Checkpoint, *, source: str) -> None:
        """Take the weights of a checkpoint, its preprocessing, class names and report.

        Where it has other class counts, the heads start anew; where it is of another kind of model,
        everything but the backbone does.

        Args:
            checkpoint: of options that fit (`ops.transfer.check_options`), not to be used any more.
            source: where it comes from, for messages.

        Raises:
            checkpoints.errors.CheckpointError: if its weights do not fit this model.
        """
        config = checkpoint.config
        state, anew, changes = fit_weights(self, checkpoint, source)
        if changes:
            _logger.warning("%s", "; ".join(changes))
        load_weights(self, state, source=source, absent=anew)
        for name, module in self.named_modules():
            if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
                module.to_empty(device="cpu")
                cast(Any, module).reset_parameters()
                self._initialise_head(name, module)
        self.to(torch.empty(0).device)
        if (preprocessing := config.preprocessing) is not None:
            if config.modality.lower() != self.modality.lower():
                preprocessing = preprocessing.for_modality(self.modality, self.new_length)
            self.preprocessing = preprocessing
        self.class_names = None if anew else config.class_names
        self.load_report = (*checkpoint.report, *changes)

    def _build_modules(self, *, imagenet: bool) -> None:
        """Make backbone, heads and consensus."""
        self.base_model, preprocessing = make_backbone(self.arch, imagenet=imagenet)
        self.preprocessing = preprocessing.for_modality(self.modality, self.new_length)
        if self.modality != "RGB":
            adapt_first_convolution(self.base_model, self.new_length * self._frame_channels)
        classifier = cast(nn.Linear | nn.Conv2d, self.base_model.last_linear)
        # A few architectures classify with a 1x1 convolution.
        self.feature_dim = int(
            classifier.in_features if isinstance(classifier, nn.Linear) else classifier.in_channels
        )
        self.base_model.last_linear = nn.Dropout()  # of a rate that is set afterwards

        if self.consensus_type in _RELATIONAL:
            self.new_fc = nn.Linear(self.feature_dim, self.img_feature_dim)
            self.consensus = self._make_relation()
        else:
            for name, count in zip(self._head_names, self._class_counts, strict=True):
                self.add_module(name, nn.Linear(self.feature_dim, count))
            self.consensus = CONSENSUS_TYPES[self.consensus_type]()
        for name, module in self.named_children():
            self._initialise_head(name, module)

    def _make_relation(self) -> nn.Module:
        """Return the relational consensus that `consensus_type` names."""
        relation = TemporalRelation if self.consensus_type == "TRN" else MultiScaleRelation
        return relation(self.img_feature_dim, self.num_segments, self._class_counts)

    @staticmethod
    def _initialise_head(name: str, module: nn.Module) -> None:
        """Start the model's own linear layers small; leave other modules as they are."""
        if isinstance(module, nn.Linear) and "." not in name:
            nn.init.normal_(module.weight, 0, 0.001)
            nn.init.zeros_(module.bias)

    def forward(self, inputs: Tensor) -> Logits:
        """Classify clips.

        Args:
            inputs: float, in the model's own preprocessing, one of
                (N, k*T*L*C, H, W), where k crops of a clip count as k clips (and so twice the
                    frames as two crops: `data.video.load_clip` chooses those that a model takes);
                (N, T, L*C, H, W);
                (N, T, L, C, H, W).
                L is `frames_per_snippet`, C 3 (flow: 2, in the order u, v), H and W best
                `input_size`. Channels are frame-major: u0, v0, u1, v1, ...

        Returns:
            Logits (N*k, classes), with two tasks a tuple of verbs' and nouns'; probabilities with
            `before_softmax=False`; (N*k, T, classes) with consensus "identity".

        Raises:
            ValueError: for any other shape, an empty batch, or a dtype that is not floating-point
                or not that of the weights (under autocast, one that it does not cast).
        """
        return self.logits(self._backbone(inputs, self.num_segments))

    def features(self, inputs: Tensor) -> Tensor:
        """Return features of snippets, before heads and consensus.

        Args:
            inputs: as for `forward`, but with any number of snippets (`tsm.TSM`: of whole clips).

        Returns:
            float (snippets, D), D = `feature_dim`; the snippets of a clip are neighbours.

        Raises:
            ValueError: as `forward`.
        """
        return self._backbone(inputs, None)

    def logits(self, features: Tensor) -> Logits:
        """Classify clips from their snippets' features.

        Args:
            features: float (N*T, D), as `features` returns them.

        Returns:
            As `forward`.

        Raises:
            ValueError: for any other shape or dtype.
        """
        segments = self._feature_segments
        check_features(features, segments, self.feature_dim)
        if self.consensus_type in _RELATIONAL:
            # (N*T, D) -> (N, T, img_feature_dim)
            outputs = self.consensus(self.new_fc(features).unflatten(0, (-1, segments)))
        else:
            outputs = [self._apply_consensus(head(features)) for head in self._heads()]
        return tuple(outputs) if isinstance(self.num_class, tuple) else cast(Tensor, outputs[0])

    def _heads(self) -> list[nn.Linear]:
        return [cast(nn.Linear, getattr(self, name)) for name in self._head_names]

    def _apply_consensus(self, scores: Tensor) -> Tensor:
        """Reduce segments' scores (N*T, classes) to their clips' (N, classes)."""
        scores = scores.unflatten(0, (-1, self._feature_segments))
        if not self.before_softmax:
            scores = scores.softmax(dim=-1)
        return cast(Tensor, self.consensus(scores))

    def _backbone(self, inputs: Tensor, segments: int | None) -> Tensor:
        """Check the inputs, and run the backbone on their snippets: (M, D)."""
        snippets = self._snippets(inputs, segments)
        if self.modality == "RGBDiff":
            # (M, (L+1)*3, H, W) -> (M, L*3, H, W)
            frames = snippets.unflatten(1, (-1, self._frame_channels))
            snippets = (frames[:, 1:] - frames[:, :-1]).flatten(1, 2)
        if torch.compiler.is_compiling():
            return cast(Tensor, self.base_model(snippets))
        if self.training and not self._training_began[0]:
            self._training_began[0] = True
            if self._partial_bn:
                warn_of_fresh_statistics(partial_batch_norms(self.base_model))
        try:
            return cast(Tensor, self.base_model(snippets))
        except RuntimeError as error:
            explain_dtype(error, inputs, first_convolution(self.base_model)[1].weight.dtype)
            raise

    def _snippets(self, inputs: Tensor, segments: int | None) -> Tensor:
        """Check clips of `segments` (None: any number), and return them as (M, L*C, H, W)."""
        return to_snippets(inputs, segments, self.frames_per_snippet, self._frame_channels)

    @property
    def variant(self) -> str:
        """Kind of model: "TSN", "TRN", "MTRN" or "TSM"."""
        return _RELATIONAL.get(self.consensus_type, "TSN")

    @property
    def _class_counts(self) -> tuple[int, ...]:
        return self.num_class if isinstance(self.num_class, tuple) else (self.num_class,)

    @property
    def _head_names(self) -> tuple[str, ...]:
        return ("fc_verb", "fc_noun") if isinstance(self.num_class, tuple) else ("new_fc",)

    @property
    def _frame_channels(self) -> int:
        return MODALITIES[self.modality]

    @property
    def _feature_segments(self) -> int:
        """Segments that features have; fewer than `num_segments` after temporal pooling."""
        return self.num_segments

    @property
    def frames_per_snippet(self) -> int:
        """Frames (flow: pairs of u and v) to load for a snippet: L, or L + 1 for RGBDiff."""
        return self.new_length + (self.modality == "RGBDiff")

    @property
    def input_mean(self) -> list[float]:
        """Mean of the input, in the units of `preprocessing.input_range`."""
        return list(self.preprocessing.mean)

    @property
    def input_std(self) -> list[float]:
        """Standard deviation of the input, in the same units."""
        return list(self.preprocessing.std)

    @property
    def input_size(self) -> int:
        """Side of the square input in pixels."""
        return self.preprocessing.input_size

    @property
    def crop_size(self) -> int:
        """Side of the square crop in pixels; another name for `input_size`."""
        return self.preprocessing.input_size

    @property
    def scale_size(self) -> int:
        """Length in pixels of a frame's shorter side before cropping."""
        return self.preprocessing.scale_size

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, unless modules were built for what it is.

        Raises:
            AttributeError: if it is an option of the constructor.
        """
        if name in self._read_only and hasattr(self, name):
            built = getattr(self, name)
            if built != value:
                raise AttributeError(
                    f"{name} is {built!r} for good, since the model was built for it, got "
                    f"{value!r}: build another model, or load its checkpoint with other options"
                )
            return
        super().__setattr__(name, value)

    @property
    def dropout(self) -> float:
        """Probability with which features are dropped while training; may be set at any time."""
        last = self.base_model.last_linear
        return last.p if isinstance(last, nn.Dropout) else 0.0

    @dropout.setter
    def dropout(self, value: float) -> None:
        last = self.base_model.last_linear
        if not isinstance(last, nn.Dropout):
            raise ValueError(f"dropout cannot be set: base_model.last_linear is {last}")
        last.p = fraction("dropout", value)

    @property
    def class_names(self) -> ClassNames | None:
        """Names of the classes, (verbs, nouns) or with one task a tuple; None if not known."""
        return self._class_names

    @class_names.setter
    def class_names(self, value: ClassNames | None) -> None:
        self._class_names = None if value is None else check_class_names(value, self.num_class)

    @property
    def partial_bn(self) -> bool:
        """Whether partial batch norm is on; `partialBN` sets it."""
        return self._partial_bn

    @property
    def classifier_pairing(self) -> str:
        """Which scale of a multi-scale relation uses which classifier; an option of `trn.MTRN`."""
        return self._pairing

    def evaluation_transform(self, crop_count: int = 1) -> Callable[[Frames], Tensor]:
        """Return the transform from 8-bit frames to this model's input.

        Args:
            crop_count: 1, 3 or 10.

        Returns:
            A callable from frames to float32 (crops*T*L*C, H, W); add a batch axis for `forward`.
        """
        return evaluation_transform(self, crop_count)

    def training_transform(self, *, flip: bool = True) -> Callable[[Frames], Tensor]:
        """Return the same transform with random crops and flips.

        Args:
            flip: whether to flip half of the clips; False where left and right are labels.

        Returns:
            A callable from frames to float32 (T*L*C, H, W).
        """
        return training_transform(self, flip=flip)

    def partialBN(self, enable: bool = True) -> None:  # noqa: N802 - the original's name
        """Freeze every 2-D batch norm of the backbone but the first, or undo that.

        Frozen layers use their running statistics while training too, and their scale and shift
        get no gradient. It holds from now on, whenever the model is put in training mode, also for
        the layers that `nn.SyncBatchNorm.convert_sync_batchnorm` puts in their places.

        Args:
            enable: whether to freeze.
        """
        if enable or self._partial_bn:  # otherwise what a user froze stays so
            for batch_norm in partial_batch_norms(self.base_model):
                batch_norm.train(self.training and not enable)
                batch_norm.requires_grad_(not enable)
        self._partial_bn = bool(enable)

    def train(self, mode: bool = True) -> Self:
        """Put the model in training (or evaluation) mode, partial batch norm respected.

        Raises:
            ValueError: for training, if the model is `inference_only`.
        """
        if mode and self.inference_only:
            raise ValueError(f"mode must be False: {_CANNOT_BE_TRAINED}")
        super().train(mode)
        if mode and self._partial_bn:
            self.partialBN(True)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze all parameters or, by default, let them learn.

        Raises:
            ValueError: for parameters that learn, if the model is `inference_only`.
        """
        if requires_grad and self.inference_only:
            raise ValueError(f"requires_grad must be False: {_CANNOT_BE_TRAINED}")
        return super().requires_grad_(requires_grad)

    def get_optim_policies(self) -> list[dict[str, Any]]:
        """Return parameter groups for an optimiser.

        Returns:
            Groups, in the original's order, each with `params`, `name`, and the factors `lr_mult`
            and `decay_mult` by which learning rate and weight decay are to be multiplied. PyTorch's
            optimisers carry such factors along but do not apply them: set `lr` and `weight_decay`
            of each group from them, as in the example. What partial batch norm froze is in none of
            the groups, everything else in exactly one.

        Example:
            >>> from tsn import TSN
            >>> model = TSN(5, 3, "RGB", base_model="resnet18", pretrained=None, partial_bn=False)
            >>> groups = [
            ...     {**g, "lr": 0.01 * g["lr_mult"], "weight_decay": 5e-4 * g["decay_mult"]}
            ...     for g in model.get_optim_policies()
            ... ]
            >>> optimizer = torch.optim.SGD(groups, momentum=0.9)
            >>> [group["lr"] for group in optimizer.param_groups]
            [0.01, 0.02, 0.01, 0.02, 0.01]

        Raises:
            ValueError: if the model is `inference_only`.
        """
        if self.inference_only:
            raise ValueError(_CANNOT_BE_TRAINED)
        return parameter_groups(
            self,
            first_convolution=first_convolution(self.base_model)[1],
            first_lr_mult=5 if self.modality == "Flow" else 1,
            frozen=set(partial_batch_norms(self.base_model)) if self._partial_bn else (),
        )
