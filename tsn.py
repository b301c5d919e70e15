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
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from checkpoints.assign import init_empty, load_weights
from checkpoints.checkpoint import Checkpoint, read_checkpoint
from checkpoints.files import CheckpointError
from data.functional import Frames
from data.options import MODALITIES, default_length, one_of, positive_integer
from data.preprocessing import Preprocessing
from ops.backbones import (
    adapt_first_convolution,
    canonical_name,
    first_convolution,
    make_backbone,
)
from ops.consensus import CONSENSUS_TYPES
from ops.non_local import NonLocalBlock
from ops.relation import MultiScaleRelation, TemporalRelation
from presets import evaluation_transform, training_transform
from weights.download import fetch
from weights.published import PublishedWeights, find_published

__all__ = ["TSN"]

_logger = logging.getLogger(__name__)

_RELATIONAL = {"TRN": "TRN", "TRNMultiscale": "MTRN"}
"""Relational consensus types, and the variants that they make."""
_PUBLISHED = ("epic-kitchens", "epic-kitchens-100")
_PRETRAINED = (*_PUBLISHED, "imagenet", None)

Logits = Tensor | tuple[Tensor, ...]


def _probability(argument: str, value: object) -> float:
    number = float(value) if isinstance(value, Real) else -1.0
    if not 0 <= number <= 1:
        raise ValueError(f"{argument} must be a probability from 0 to 1, got {value!r}")
    return number


def _class_counts(num_class: object) -> int | tuple[int, int]:
    if isinstance(num_class, Sequence) and not isinstance(num_class, str):
        if len(num_class) != 2:
            raise ValueError(
                f"num_class must be a number of classes or a pair (verbs, nouns), got {num_class!r}"
            )
        verbs, nouns = (positive_integer("each of num_class", count) for count in num_class)
        return verbs, nouns
    return positive_integer("num_class", num_class)


_CANNOT_BE_TRAINED = (
    "a model optimised for inference has no batch norms left and cannot be trained; train the one "
    "that it was made from"
)


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
            for those of the backbone, or None.

    What the constructor took cannot be set later, but for `dropout` and `preprocessing`: modules
    were built for it.

    Attributes:
        arch: canonical name of the backbone.
        feature_dim: D, width of `features`.
        preprocessing: what the weights expect of the input; `input_mean`, `input_std`,
            `input_size`, `crop_size`, `scale_size`, `input_space` and `input_range` show its parts.
        frames_per_snippet: frames to load for a snippet: L, and one more for RGBDiff.
        inference_only: whether this is a copy of `ops.inference.optimize_for_inference`, which
            cannot be trained or saved.
        load_report: what was renamed, split or assumed of a checkpoint's weights, a sentence each.

    Raises:
        ValueError: for any argument out of its range, and for combinations that cannot be; the
            message names the argument and the valid choices.
        weights.download.DownloadError: if weights are asked for and cannot be fetched.
        checkpoints.files.CheckpointError: if the file under their name holds something else.
    """

    num_class: int | tuple[int, int]
    base_model: nn.Module
    consensus: nn.Module
    preprocessing: Preprocessing
    feature_dim: int
    load_report: tuple[str, ...] = ()
    inference_only = False
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
        pretrained: str | None = "imagenet",
    ) -> None:
        super().__init__()
        if pretrained not in _PRETRAINED:
            raise ValueError(f"pretrained must be one of {_PRETRAINED}, got {pretrained!r}")
        self.num_class = _class_counts(num_class)
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
        dropout = _probability("dropout", dropout)
        self.img_feature_dim = positive_integer("img_feature_dim", img_feature_dim)
        self._partial_bn = bool(partial_bn)
        self._training_began = [False]  # a list, which replicas of DataParallel share

        self._build(pretrained)
        self.dropout = dropout
        self.partialBN(partial_bn)

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
        last.p = _probability("dropout", value)

    @property
    def classifier_pairing(self) -> str:
        """Which scale of a multi-scale relation uses which classifier; an option of `trn.MTRN`."""
        return self._pairing

    def _build(self, pretrained: str | None) -> None:
        """Make the network, with the weights asked for."""
        if pretrained in _PUBLISHED:
            self._build_published(pretrained)
            return
        if pretrained == "imagenet":
            # A rehearsal without memory: options that contradict each other are refused before
            # anything is fetched.
            with init_empty():
                self._build_modules(imagenet=False)
        self._build_modules(imagenet=pretrained == "imagenet")

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
        for option, trained in published.options.items():
            if getattr(self, option) != trained:
                raise ValueError(
                    f"{option} must be {trained!r} for the published weights "
                    f"{published.file_name}, got {getattr(self, option)!r}"
                )
        checkpoint = _fetch_published(published)
        state = checkpoint.state_dict
        heads: tuple[str, ...] = ()
        report = list(checkpoint.report)
        if self.num_class != published.num_class:
            heads = ("fc_verb.", "fc_noun.", "consensus.classifiers.")
            if self.consensus_type not in _RELATIONAL:
                heads += ("new_fc.",)
            state = {key: value for key, value in state.items() if not key.startswith(heads)}
            sentence = (
                f"{published.file_name} was trained on {published.num_class} classes and "
                f"{self.num_class} were asked for: all weights but the heads' were loaded, the "
                f"heads start anew"
            )
            _logger.warning("%s", sentence)
            report.append(sentence)
        with init_empty():  # which the file has
            self._build_modules(imagenet=False)
        self.preprocessing = checkpoint.settings.preprocessing or published.preprocessing
        self.load_report = tuple(report)
        load_weights(self, state, source=published.file_name, absent=heads)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and f"{name}.".startswith(heads):
                module.to_empty(device="cpu")
                module.reset_parameters()
                self._initialise_head(name, module)
        self.to(torch.empty(0).device)

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

        counts = self._class_counts
        if self.consensus_type in _RELATIONAL:
            self.new_fc = nn.Linear(self.feature_dim, self.img_feature_dim)
            self.consensus = self._make_relation()
        else:
            names = ("fc_verb", "fc_noun") if len(counts) == 2 else ("new_fc",)
            for name, count in zip(names, counts, strict=True):
                self.add_module(name, nn.Linear(self.feature_dim, count))
            self.consensus = CONSENSUS_TYPES[self.consensus_type]()
        for name, module in self.named_children():
            if isinstance(module, nn.Linear):
                self._initialise_head(name, module)

    def _make_relation(self) -> nn.Module:
        """The relational consensus that `consensus_type` names."""
        relation = TemporalRelation if self.consensus_type == "TRN" else MultiScaleRelation
        return relation(self.img_feature_dim, self.num_segments, self._class_counts)

    @staticmethod
    def _initialise_head(name: str, linear: nn.Linear) -> None:
        """The model's own linear layers start small; those of a consensus as PyTorch has them."""
        if "." not in name:
            nn.init.normal_(linear.weight, 0, 0.001)
            nn.init.zeros_(linear.bias)

    @property
    def variant(self) -> str:
        """Kind of model: "TSN", "TRN", "MTRN" or "TSM"."""
        return _RELATIONAL.get(self.consensus_type, "TSN")

    @property
    def _class_counts(self) -> tuple[int, ...]:
        return self.num_class if isinstance(self.num_class, tuple) else (self.num_class,)

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
        """Mean of the input, in the units of `input_range`."""
        return list(self.preprocessing.mean)

    @property
    def input_std(self) -> list[float]:
        """Standard deviation of the input, in the units of `input_range`."""
        return list(self.preprocessing.std)

    @property
    def input_space(self) -> str:
        """Order of the colour channels: "RGB" or "BGR"."""
        return self.preprocessing.input_space

    @property
    def input_range(self) -> list[float]:
        """What the 8-bit values 0 and 255 become before normalisation."""
        return list(self.preprocessing.input_range)

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

    def evaluation_transform(self, crop_count: int = 1) -> Callable[[Frames], Tensor]:
        """What turns 8-bit frames into input for this model: `transforms.evaluation_transform`.

        Args:
            crop_count: 1, 3 or 10.

        Returns:
            A callable from frames to float32 (crops*T*L*C, H, W); add a batch axis for `forward`.
        """
        return evaluation_transform(self, crop_count)

    def training_transform(self, *, flip: bool = True) -> Callable[[Frames], Tensor]:
        """The same with random crops and flips: `transforms.training_transform`.

        Args:
            flip: whether to mirror half of the clips; False where left and right are labels.

        Returns:
            A callable from frames to float32 (T*L*C, H, W).
        """
        return training_transform(self, flip=flip)

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
        """Features of snippets, before heads and consensus.

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
        _require_floating_point("features", features, "model.features(inputs) returns such")
        if features.ndim != 2 or features.shape[1] != self.feature_dim:
            raise ValueError(
                f"expected features (N*{segments}, {self.feature_dim}), got {_shape(features)}"
            )
        if features.shape[0] == 0 or features.shape[0] % segments:
            raise ValueError(
                f"expected features of whole clips, (N*{segments}, {self.feature_dim}) = N x "
                f"{segments} segments, got {_shape(features)}"
            )
        if self.consensus_type in _RELATIONAL:
            # (N*T, D) -> (N, T, img_feature_dim)
            outputs = self.consensus(self.new_fc(features).unflatten(0, (-1, segments)))
        else:
            outputs = [self._apply_consensus(head(features)) for head in self._heads()]
        return tuple(outputs) if isinstance(self.num_class, tuple) else cast(Tensor, outputs[0])

    def _heads(self) -> list[nn.Linear]:
        names = ("fc_verb", "fc_noun") if isinstance(self.num_class, tuple) else ("new_fc",)
        return [cast(nn.Linear, getattr(self, name)) for name in names]

    def _apply_consensus(self, scores: Tensor) -> Tensor:
        """Consensus of segments' scores: (N*T, classes) to (N, classes)."""
        scores = scores.unflatten(0, (-1, self._feature_segments))
        if not self.before_softmax:
            scores = scores.softmax(dim=-1)
        return cast(Tensor, self.consensus(scores))

    def _backbone(self, inputs: Tensor, segments: int | None) -> Tensor:
        """Check the inputs, and run the backbone on their snippets."""
        snippets = self._snippets(inputs, segments)
        if self.training and not torch.compiler.is_compiling():
            self._warn_of_fresh_statistics()
        if self.modality == "RGBDiff":
            # (M, (L+1)*3, H, W) -> (M, L*3, H, W)
            frames = snippets.unflatten(1, (-1, self._frame_channels))
            snippets = (frames[:, 1:] - frames[:, :-1]).flatten(1, 2)
        if torch.compiler.is_compiling():
            return cast(Tensor, self.base_model(snippets))
        try:
            return cast(Tensor, self.base_model(snippets))
        except RuntimeError as error:
            self._explain(error, inputs)
            raise

    def _warn_of_fresh_statistics(self) -> None:
        """Say once, when training begins, if partial batch norm keeps a fresh layer's statistics.

        Activations then grow or shrink from block to block, and the loss stays ln(classes).
        """
        began, self._training_began[0] = self._training_began[0], True
        if began or not self._partial_bn:
            return
        try:
            fresh = [
                bool((layer.running_mean == 0).all() and (layer.running_var == 1).all())
                for layer in self._partial_batch_norms()
                if layer.running_mean is not None and layer.running_var is not None
            ]
        except RuntimeError:  # without values, as on the meta device or under torch.vmap
            return
        if fresh and all(fresh):
            _logger.warning(
                "training begins with partial batch norm, but its %d frozen layers have the "
                "statistics of fresh ones: the network can hardly learn. Start from trained "
                "weights (pretrained='imagenet'), or build the model with partial_bn=False",
                len(fresh),
            )

    def _explain(self, error: RuntimeError, inputs: Tensor) -> None:
        """Name the inputs where PyTorch only says that two dtypes differ.

        Looked at once something failed: with autocast, or weights that are sharded and cast as they
        are used, nothing tells beforehand which dtype the backbone takes.
        """
        expected = first_convolution(self.base_model)[1].weight.dtype
        of_dtypes = str(error).startswith(("Input type", "expected scalar type"))
        if of_dtypes and inputs.dtype != expected:
            raise ValueError(
                f"inputs must be {expected}, as the model's weights are, got {inputs.dtype}: "
                f"convert the inputs, or the model with model.to({inputs.dtype})"
            ) from error

    def _snippets(self, inputs: Tensor, segments: int | None) -> Tensor:
        """Any documented layout, of clips of `segments` (None: any number), to (M, L*C, H, W)."""
        frames, depth = self.frames_per_snippet, self._frame_channels
        channels = frames * depth
        _require_floating_point(
            "inputs", inputs, "transforms.evaluation_transform(model) turns 8-bit frames into one"
        )
        shape = inputs.shape
        if inputs.ndim == 4:
            fits = shape[1] % ((segments or 1) * channels) == 0
        elif inputs.ndim == 5:
            fits = shape[2] == channels and segments in (None, shape[1])
        elif inputs.ndim == 6:
            fits = tuple(shape[2:4]) == (frames, depth) and segments in (None, shape[1])
        else:
            fits = False
        if not fits:
            t = segments or "T"
            remedy = "; inputs.unsqueeze(0) adds the batch axis" if inputs.ndim == 3 else ""
            product = segments * channels if segments else f"T*{channels}"
            raise ValueError(
                f"expected (N, {product}, H, W) = {t} segment{'s' * (t != 1)} x {frames} "
                f"frame{'s' * (frames != 1)} x {depth} channels, (N, {t}, {channels}, H, W) or "
                f"(N, {t}, {frames}, {depth}, H, W), got {_shape(inputs)}{remedy}"
            )
        if 0 in shape:
            raise ValueError(f"inputs must not be empty, got {_shape(inputs)}")
        # The sides stay as they are, which exporters need to know, whatever the batch.
        snippets = inputs.flatten(2, -3) if inputs.ndim > 4 else inputs.unflatten(1, (-1, channels))
        return cast(Tensor, snippets.flatten(0, 1))

    def partialBN(self, enable: bool = True) -> None:  # noqa: N802 - the original's name
        """Freeze every 2-D batch norm of the backbone but the first, or undo that.

        Frozen layers use their running statistics while training too, and their scale and shift
        get no gradient. It holds from now on, whenever the model is put in training mode, also for
        the layers that `nn.SyncBatchNorm.convert_sync_batchnorm` puts in their places.

        Args:
            enable: whether to freeze.
        """
        thaw = self._partial_bn and not enable
        self._partial_bn = bool(enable)
        for batch_norm in self._partial_batch_norms():
            if enable or thaw:
                batch_norm.train(self.training and not enable)
                for parameter in batch_norm.parameters():
                    parameter.requires_grad_(not enable)

    def _partial_batch_norms(self) -> list[nn.BatchNorm2d | nn.SyncBatchNorm]:
        """The batch norms that `partialBN` freezes: by place, for conversions change classes."""
        modules = list(self.base_model.modules())
        blocks = (module for module in modules if isinstance(module, NonLocalBlock))
        non_local = {inner for block in blocks for inner in block.modules()}
        return [
            module
            for module in modules
            if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm) and module not in non_local
        ][1:]

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
        """Parameter groups for an optimiser.

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
        groups: dict[str, list[nn.Parameter]] = {
            "first_conv_weight": [],
            "first_conv_bias": [],
            "normal_weight": [],
            "normal_bias": [],
            "BN scale/shift": [],
        }
        _, first = first_convolution(self.base_model)
        frozen: set[nn.Module] = set(self._partial_batch_norms()) if self._partial_bn else set()
        for module in self.modules():
            prefix = "first_conv" if module is first else "normal"
            for name, parameter in module.named_parameters(recurse=False):
                if module in frozen:
                    continue
                if parameter.ndim > 1:
                    groups[f"{prefix}_weight"].append(parameter)
                elif name == "bias" and getattr(module, "weight", parameter).ndim > 1:
                    groups[f"{prefix}_bias"].append(parameter)
                else:  # scale or shift of a normalisation, slope of an activation
                    groups["BN scale/shift"].append(parameter)
        first_rate = 5 if self.modality == "Flow" else 1
        rates = {
            "first_conv_weight": (first_rate, 1),
            "first_conv_bias": (2 * first_rate, 0),
            "normal_weight": (1, 1),
            "normal_bias": (2, 0),
            "BN scale/shift": (1, 0),
        }
        return [
            {"params": parameters, "lr_mult": rate, "decay_mult": decay, "name": name}
            for (name, parameters), (rate, decay) in zip(
                groups.items(), rates.values(), strict=True
            )
        ]


def _fetch_published(published: PublishedWeights) -> Checkpoint:
    """The checkpoint of published weights, known to be one of their configuration."""
    path = fetch(published.url, sha256_prefix=published.sha256_prefix)
    try:
        checkpoint = read_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. Delete the file to have it fetched anew") from error
    for option, wanted in (
        ("model_type", published.variant.lower()),
        ("arch", published.base_model),
        ("modality", published.modality),
        ("num_segments", published.num_segments),
        ("num_class", published.num_class),
        *published.options.items(),
    ):
        found = getattr(checkpoint.settings, option)
        if str(found).lower() != str(wanted).lower():
            raise CheckpointError(
                f"{path} does not hold the published weights of that name: {option} is {found!r} "
                f"there, not {wanted!r}. Delete the file to have it fetched anew"
            )
    return checkpoint


def _require_floating_point(argument: str, value: object, remedy: str) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(
            f"{argument} must be a floating-point tensor, got {type(value).__name__} "
            f"(torch.from_numpy makes one of an array): {remedy}"
        )
    if not value.is_floating_point():
        raise ValueError(f"{argument} must be a floating-point tensor, got {value.dtype}: {remedy}")
    if value.layout != torch.strided:
        raise ValueError(
            f"{argument} must be a dense tensor, got one of layout {value.layout}: use "
            f"{argument}.to_dense()"
        )


def _shape(tensor: Tensor) -> tuple[int, ...]:
    """A shape that prints without torch.Size around it."""
    return tuple(tensor.shape)
