"""A clip in, named verbs, nouns and actions out.

Source of the action score: the EPIC-KITCHENS challenges rank actions by the product of the
probabilities of their verb and noun.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from data.options import positive_integer
from data.video import load_clip, open_frames
from epic.classes import ClassNames, index_names
from ops.inference import optimize_for_inference
from presets import evaluation_transform
from tsn import TSN

__all__ = ["Label", "Prediction", "Predictor"]


@dataclass(frozen=True)
class Label:
    """One class with its probability.

    Attributes:
        name: of the class; for an action, of its verb and noun.
        classes: its class id; for an action, those of its verb and noun.
        probability: from 0 to 1.
    """

    name: str
    classes: tuple[int, ...]
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of a clip, most probable first.

    A model with one task has `classes` alone; one with two has `verbs`, `nouns` and `actions`.
    """

    verbs: tuple[Label, ...] = ()
    nouns: tuple[Label, ...] = ()
    actions: tuple[Label, ...] = ()
    classes: tuple[Label, ...] = ()

    def __str__(self) -> str:
        """A table: a line for each class, with its probability in percent."""
        lines = []
        for title in ("verbs", "nouns", "actions", "classes"):
            labels: tuple[Label, ...] = getattr(self, title)
            for rank, label in enumerate(labels):
                heading = title if rank == 0 else ""
                lines.append(f"{heading:<8} {100 * label.probability:7.3g} %  {label.name}")
        return "\n".join(lines)


class Predictor:
    """A model, its preprocessing and the names of its classes.

    Example:
        >>> import torch
        >>> from predictor import Predictor
        >>> from tsm import TSM
        >>> model = TSM((125, 352), 8, "RGB", base_model="resnet18", pretrained=None)
        >>> predictor = Predictor(model, crop_count=3)
        >>> clip = torch.zeros(40, 3, 256, 456, dtype=torch.uint8)  # or "clip.mp4"
        >>> len(predictor(clip, top_k=10).actions)
        10

    Args:
        model: a TSN, TRN, MTRN or TSM, also an optimised copy of one, in half precision too. Clips
            are processed on the device that it is on, in evaluation mode; the model is left in
            the mode that it is in.
        class_names: names of the verbs and nouns (`epic.classes`), or for a model with one task a
            sequence of names. Plain indices unless given.
        crop_count: 1 (the centre), 3 (full height) or 10 (corners, centre, and their mirror
            images); the crops' logits are averaged.
        optimize: whether to work with a copy that `ops.inference.optimize_for_inference` makes now,
            which is faster and knows nothing of later changes of the model.

    Attributes:
        model: the model that is used, the given one or its optimised copy.

    Raises:
        ValueError: if the model is of another kind, the names' number is not the model's number
            of classes, for another crop count, or if `optimize` is not a bool.
    """

    def __init__(
        self,
        model: TSN,
        class_names: ClassNames | Sequence[str] | None = None,
        *,
        crop_count: int = 1,
        optimize: bool = True,
    ) -> None:
        # Not isinstance: a model from torch.hub is of the same class in another package.
        if not hasattr(model, "preprocessing"):
            raise ValueError(
                f"model must be a TSN, TRN, MTRN or TSM, got {type(model).__name__} (of a wrapped "
                f"model, give the module inside)"
            )
        if not isinstance(optimize, bool):
            raise ValueError(
                f"optimize must be True or False, got {optimize!r} (for another precision, give "
                f"the model that optimize_for_inference(model, dtype=...) returns)"
            )
        self.model = optimize_for_inference(model) if optimize else model
        self.transform = evaluation_transform(model, crop_count)
        self.crop_count = crop_count
        self._names = _task_names(class_names, model.num_class)

    def load(
        self,
        clip: Any,
        *,
        start: int | None = None,
        stop: int | None = None,
        by_number: bool = False,
    ) -> Tensor:
        """The frames of a clip that the model sees, resized as its preprocessing says.

        Args:
            clip: whatever `data.video.open_frames` takes: a video file, a folder or tar of frames
                or flow images, a file object, an array or tensor, a list of images.
            start: index of the first frame of the clip; None, the first there is.
            stop: index behind the last of the clip; None, to the end.
            by_number: whether `start` and `stop` are file numbers instead, as for
                `data.video.load_clip`.

        Returns:
            uint8 (T * frames per snippet, channels, H, W), the shorter side `scale_size` pixels.
        """
        scale_size = self.model.preprocessing.scale_size
        return load_clip(
            # Frames are resized one by one: all of them together may be large.
            open_frames(clip, self.model.modality, short_side=scale_size),
            num_segments=self.model.num_segments,
            new_length=self.model.new_length,
            modality=self.model.modality,
            start=start,
            stop=stop,
            by_number=by_number,
        )

    def __call__(
        self,
        clip: Any,
        *,
        start: int | None = None,
        stop: int | None = None,
        by_number: bool = False,
        top_k: int = 5,
    ) -> Prediction:
        """Classify a clip.

        Args:
            clip: as for `load`.
            start: as for `load`.
            stop: as for `load`.
            by_number: as for `load`.
            top_k: how many classes to return.

        Returns:
            The most probable verbs, nouns and actions (with one task: classes).

        Raises:
            FileNotFoundError: if the clip does not exist.
            ValueError: if it holds no frames of the model's kind, or a range that it does not have.
        """
        frames = self.load(clip, start=start, stop=stop, by_number=by_number)
        return self.predict([frames], top_k=top_k)[0]

    def predict(self, clips: Sequence[Any], *, top_k: int = 5) -> list[Prediction]:
        """Classify several clips in one batch.

        Args:
            clips: as for `probabilities`.
            top_k: how many classes to return.

        Returns:
            A prediction for each clip.

        Raises:
            ValueError: for anything else, or if one of them cannot be read.
            FileNotFoundError: if one of them does not exist.
        """
        top_k = positive_integer("top_k", top_k)
        probabilities = self.probabilities(clips)
        return [
            self._prediction([task[index] for task in probabilities], top_k)
            for index in range(len(clips))
        ]

    @torch.inference_mode()
    def probabilities(self, clips: Sequence[Any]) -> tuple[Tensor, ...]:
        """Probabilities of all classes.

        Args:
            clips: a list of clips, each as `load` takes or returns it: a tensor of exactly the
                frames that the model sees is taken for them, any other clip is sampled.

        Returns:
            float32 (clips, classes) on the CPU, a tensor for each task.

        Raises:
            ValueError: for anything else, or if one of them cannot be read.
            FileNotFoundError: if one of them does not exist.
        """
        if not isinstance(clips, list | tuple) or not clips:
            kind = "an empty one" if isinstance(clips, list | tuple) else type(clips).__name__
            raise ValueError(
                f"clips must be a list of at least one clip, got {kind}; a single clip goes to "
                f"predictor(clip)"
            )
        first = next(self.model.parameters())
        # 8-bit frames travel to the accelerator; cropping and normalising happen there.
        inputs = (
            self.transform(self._sampled(clip).to(first.device)).to(first.dtype) for clip in clips
        )
        # (crops * T*L*C, H, W) -> (crops, T*L*C, H, W) of each clip
        crops = (clip.unflatten(0, (self.crop_count, -1)) for clip in inputs)
        with _evaluating(self.model):
            if first.device.type == "cpu":
                # One at a time, which takes less memory, and less time unless the process keeps
                # what it frees: the larger tensors are, the more of them go back to the system
                # (ops.memory).
                outputs = [self.model(crop) for clip in crops for crop in clip.split(1)]
            else:
                outputs = [self.model(torch.cat(list(crops)))]
        tasks = [output if isinstance(output, tuple) else (output,) for output in outputs]
        return tuple(
            self._average(torch.cat(scores), len(clips)) for scores in zip(*tasks, strict=True)
        )

    def _sampled(self, clip: Any) -> Tensor:
        """The frames that the model sees, of a clip of which they may have been loaded before."""
        frames = self.model.num_segments * self.model.frames_per_snippet
        loaded = isinstance(clip, Tensor) and clip.ndim == 4 and len(clip) == frames
        loaded = loaded and clip.shape[1] <= 3  # channels, which are last in other clips
        return cast(Tensor, clip) if loaded else self.load(clip)

    def _average(self, scores: Tensor, clips: int) -> Tensor:
        """Scores of crops (and of segments, where the consensus is none) to probabilities."""
        # (clips * crops, ..., classes) -> (clips, classes)
        mean = scores.float().reshape(clips, -1, scores.shape[-1]).mean(dim=1)
        # Without `before_softmax` the scores are probabilities already.
        return (mean.softmax(dim=-1) if self.model.before_softmax else mean).cpu()

    def _prediction(self, probabilities: list[Tensor], top_k: int) -> Prediction:
        best = [
            _best(task, names, top_k)
            for task, names in zip(probabilities, self._names, strict=True)
        ]
        if len(best) == 1:
            return Prediction(classes=best[0])
        # An action is among the k best only if its verb and its noun are.
        candidates = [
            Label(
                f"{verb.name} {noun.name}",
                verb.classes + noun.classes,
                verb.probability * noun.probability,
            )
            for verb in best[0]
            for noun in best[1]
        ]
        actions = sorted(candidates, key=lambda label: -label.probability)[:top_k]
        return Prediction(verbs=best[0], nouns=best[1], actions=tuple(actions))


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, and each of its modules back into its own mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _best(probabilities: Tensor, names: Sequence[str], top_k: int) -> tuple[Label, ...]:
    """The most probable classes of one task, from probabilities (classes,)."""
    values, classes = probabilities.topk(min(top_k, len(names)))
    return tuple(
        Label(names[index], (index,), value)
        for value, index in zip(values.tolist(), classes.tolist(), strict=True)
    )


def _task_names(
    class_names: ClassNames | Sequence[str] | None, num_class: int | tuple[int, int]
) -> list[Sequence[str]]:
    """A sequence of names for each task, checked against the model's class counts."""
    counts = num_class if isinstance(num_class, tuple) else (num_class,)
    if class_names is None:
        if len(counts) == 1:
            return [[f"class {index}" for index in range(counts[0])]]
        class_names = index_names(counts)
    names: list[Sequence[str]]
    if isinstance(class_names, ClassNames):
        names = [class_names.verbs, class_names.nouns]
    elif isinstance(class_names, list | tuple):
        names = [class_names]
    else:
        raise ValueError(
            f"class_names must be ClassNames(verbs, nouns) or, for a model with one task, a list "
            f"of names in the order of the class ids, got {type(class_names).__name__}"
        )
    found = tuple(len(task) for task in names)
    if found != counts:
        raise ValueError(
            f"class_names must name the model's {counts} classes, got names of {found}"
        )
    return names
