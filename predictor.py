"""From a clip to the names of its most probable verbs, nouns and actions.

The probability of an action is the product of its verb's and its noun's, as in the EPIC-KITCHENS
challenges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from data.options import ClassNames, check_class_names, positive_integer
from data.video import load_clip, open_frames
from ops.inference import check_model, evaluation_mode, optimize_for_inference
from presets import evaluation_transform
from tsn import TSN, to_tasks

__all__ = ["Label", "Prediction", "Predictor", "TimedPrediction"]


@dataclass(frozen=True)
class Label:
    """One predicted class.

    Attributes:
        name: name of the class; for an action, of its verb and its noun.
        classes: class id; for an action, those of its verb and its noun.
        probability: from 0 to 1.
    """

    name: str
    classes: tuple[int, ...]
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of a clip, in descending order.

    A model with two tasks fills `verbs`, `nouns` and `actions`, one with a single task `classes`.
    """

    verbs: tuple[Label, ...] = ()
    nouns: tuple[Label, ...] = ()
    actions: tuple[Label, ...] = ()
    classes: tuple[Label, ...] = ()

    def __str__(self) -> str:
        """Return a table: a line for each class, with its probability in percent."""
        lines = []
        for title in ("verbs", "nouns", "actions", "classes"):
            labels: tuple[Label, ...] = getattr(self, title)
            for rank, label in enumerate(labels):
                heading = title if rank == 0 else ""
                lines.append(f"{heading:<8} {100 * label.probability:7.3g} %  {label.name}")
        return "\n".join(lines)


@dataclass(frozen=True)
class TimedPrediction:
    """The most probable classes of a part of a video.

    Attributes:
        start: seconds from the first frame of the video (of a live source, from its opening).
        stop: the same, of the part's end.
        prediction: its most probable classes.
    """

    start: float
    stop: float
    prediction: Prediction


class Predictor:
    """A model with its preprocessing and the names of its classes: called with a clip, it predicts.

    Example:
        >>> import torch
        >>> model = torch.hub.load(
        ...     ".", "TSM", (125, 352), 8, "RGB", base_model="resnet18", pretrained=None,
        ...     source="local",
        ... )
        >>> names = torch.hub.load(".", "fetch_class_names", source="local")
        >>> predictor = torch.hub.load(".", "Predictor", model, names, source="local")
        >>> clip = torch.zeros(40, 3, 256, 456, dtype=torch.uint8)  # or "clip.mp4"
        >>> labels = [action.name for action in predictor(clip, top_k=10).actions]
        >>> len(labels)
        10

    Args:
        model: a TSN, TRN, MTRN or TSM in any precision, also an optimised copy. Clips are processed
            on its device, in evaluation mode; afterwards it is in the mode that it was in.
        class_names: (verbs, nouns), a list of names each, such as `fetch_class_names` returns; for
            a model with one task, a list of names. None: the model's own `class_names`; without
            such, "verb 0", "noun 0", ... ("class 0", ...).
        crop_count: 1 (the centre), 3 (full height) or 10 (corners and centre, and the same
            flipped); the crops' logits are averaged.
        optimize: whether to use a copy of the model made by `ops.inference.optimize_for_inference`,
            which is faster and does not follow later changes of the model.

    Attributes:
        model: the model in use, the given one or its optimised copy.
        transform: the evaluation preset, which turns the frames of `load` into the model's input.
        crop_count: as given.
        class_names: the names of each task's classes: verbs and nouns, or those of the one task.

    Raises:
        ValueError: if the model or an option is none of these, or the class names do not fit it.
    """

    def __init__(
        self,
        model: TSN,
        class_names: ClassNames | None = None,
        *,
        crop_count: int = 1,
        optimize: bool = True,
    ) -> None:
        check_model(model)
        if not isinstance(optimize, bool):
            raise ValueError(
                f"optimize must be True or False, got {optimize!r} (for another precision, give "
                f"the model that optimize_for_inference(model, dtype=...) returns)"
            )
        self.model = optimize_for_inference(model) if optimize else model
        self.transform = evaluation_transform(model, crop_count)
        self.crop_count = crop_count
        names = model.class_names if class_names is None else class_names
        self.class_names = _get_task_names(names, model.num_class)

    def load(
        self,
        clip: Any,
        *,
        start: int | None = None,
        stop: int | None = None,
        by_number: bool = False,
    ) -> Tensor:
        """Load the frames of a clip that the model sees, resized for it.

        Args:
            clip: what `data.video.open_frames` takes: a video file, a folder or tar of images, a
                file object, an array or tensor, a list of PIL images.
            start: index of the clip's first frame; 0 if None.
            stop: index after its last frame; the number of frames if None.
            by_number: whether `start` and `stop` are file numbers of images instead of indices, as
                for `data.video.load_clip`.

        Returns:
            uint8 (T * frames per snippet, C, H, W), the shorter side `scale_size` pixels long.

        Raises:
            FileNotFoundError: if the clip does not exist.
            ValueError: if it has no frames of the model's modality, or the range is outside it.
        """
        scale_size = self.model.preprocessing.scale_size
        return load_clip(
            # Frames are resized as they are read: all together they may need much memory.
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

        Raises:
            FileNotFoundError: if the clip does not exist.
            ValueError: as for `load`.
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
            FileNotFoundError: if a clip does not exist.
            ValueError: as for `probabilities`, or if `top_k` is not a positive integer.
        """
        top_k = positive_integer("top_k", top_k)
        return [
            self.to_prediction(tasks, top_k=top_k)
            for tasks in zip(*self.probabilities(clips), strict=True)
        ]

    @torch.inference_mode()
    def probabilities(self, clips: Sequence[Any]) -> tuple[Tensor, ...]:
        """Return the probabilities of all classes.

        Args:
            clips: a list of clips, each as `load` takes or returns it. A tensor (frames, C, H, W)
                with as many frames as the model sees is used as it is, any other clip is sampled.

        Returns:
            float32 (clips, classes) on the CPU, a tensor for each task.

        Raises:
            FileNotFoundError: if a clip does not exist.
            ValueError: if `clips` is not a list of at least one clip, or as for `load`.
        """
        if not isinstance(clips, list | tuple) or not clips:
            got = "an empty one" if isinstance(clips, list | tuple) else type(clips).__name__
            raise ValueError(
                f"clips must be a list of at least one clip, got {got}; a single clip goes to "
                f"predictor(clip)"
            )
        first = next(self.model.parameters())
        # 8-bit frames go to the accelerator, which crops and normalises them.
        inputs = (
            self.transform(self._load_unless_loaded(clip).to(first.device)).to(first.dtype)
            for clip in clips
        )
        # (crops * T*L*C, H, W) -> (crops, T*L*C, H, W) of each clip
        crops = (clip.unflatten(0, (self.crop_count, -1)) for clip in inputs)
        with evaluation_mode(self.model):
            if first.device.type == "cpu":
                # One crop at a time takes less memory, and less time unless freed memory is kept
                # (ops.memory).
                outputs = [self.model(crop) for clip in crops for crop in clip.split(1)]
            else:
                outputs = [self.model(torch.cat(list(crops)))]
        tasks = map(to_tasks, outputs)
        return tuple(
            self._average_crops(torch.cat(scores), len(clips))
            for scores in zip(*tasks, strict=True)
        )

    def to_prediction(self, probabilities: Sequence[Tensor], *, top_k: int = 5) -> Prediction:
        """Name the most probable classes of a clip.

        Args:
            probabilities: float (classes,) on the CPU, a tensor for each task.
            top_k: how many classes to return.
        """
        best = [
            _top_labels(task, names, top_k)
            for task, names in zip(probabilities, self.class_names, strict=True)
        ]
        if len(best) == 1:
            return Prediction(classes=best[0])
        verbs, nouns = best
        # No other verb or noun is in the best actions. Of equal ones, that of the best verb and the
        # best noun comes first, since sorting is stable.
        actions = sorted(
            (
                Label(f"{v.name} {n.name}", v.classes + n.classes, v.probability * n.probability)
                for v, n in product(verbs, nouns)
            ),
            key=lambda action: -action.probability,
        )
        return Prediction(verbs=verbs, nouns=nouns, actions=tuple(actions[:top_k]))

    def _load_unless_loaded(self, clip: Any) -> Tensor:
        if isinstance(clip, Tensor) and clip.ndim == 4:
            frames = self.model.num_segments * self.model.frames_per_snippet
            if len(clip) == frames and clip.shape[1] <= 3:  # else channels are last: not loaded yet
                return clip
        return self.load(clip)

    def _average_crops(self, scores: Tensor, clips: int) -> Tensor:
        """Average scores over crops (with identity consensus, over segments too) and normalise."""
        # (clips * crops, ..., classes) -> (clips, classes)
        mean = scores.float().reshape(clips, -1, scores.shape[-1]).mean(dim=1)
        # Without `before_softmax` the scores are probabilities already.
        return (mean.softmax(dim=-1) if self.model.before_softmax else mean).cpu()


def _top_labels(probabilities: Tensor, names: Sequence[str], top_k: int) -> tuple[Label, ...]:
    """Return the most probable classes, equal ones by id, unlike `topk`."""
    values, ids = probabilities.sort(descending=True, stable=True)
    return tuple(
        Label(names[i], (i,), value)
        for value, i in zip(values[:top_k].tolist(), ids[:top_k].tolist(), strict=True)
    )


def _get_task_names(
    class_names: ClassNames | None, num_class: int | tuple[int, int]
) -> Sequence[Sequence[str]]:
    """Return the names of each task; raise ValueError unless they fit the numbers of classes."""
    counts = num_class if isinstance(num_class, tuple) else (num_class,)
    if class_names is None:
        titles = ("class",) if len(counts) == 1 else ("verb", "noun")
        return [
            [f"{title} {index}" for index in range(count)]
            for title, count in zip(titles, counts, strict=True)
        ]
    names: Any = check_class_names(class_names, num_class)
    return [names] if len(counts) == 1 else names
