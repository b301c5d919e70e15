"""Models over live streams: each frame is seen once, as it comes.

Sources: Lin et al., "TSM: Temporal Shift Module for Efficient Video Understanding", 2019
(arXiv:1811.08383), online models; the papers of TSN and TRN for what joins the segments of a clip.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from data.frames import is_integer
from data.options import MODALITIES, positive_integer
from ops.history import History, State, blank_state, check_shapes, check_state, put_stream
from ops.inference import check_model
from ops.inputs import to_streams
from ops.streaming_shift import streaming_copy
from tsn import TSN, Logits

__all__ = ["Stream"]


class Stream:
    """A model over live streams: called with the next frames, it returns the scores of each.

    A TSM with `shift_direction="past"` remembers the channels that it shifts, and scores each frame
    as the network trained on whole clips would. TSN, TRN and MTRN remember the last T frames'
    scores or features, and score each frame as the last of a clip.

    Example:
        >>> import torch
        >>> model = torch.hub.load(
        ...     ".", "MTRN", (125, 352), 8, "RGB", base_model="resnet18", pretrained=None,
        ...     source="local",
        ... )
        >>> stream = torch.hub.load(".", "Stream", model, stride=4, source="local")
        >>> frames = torch.zeros(3, 3, 256, 456, dtype=torch.uint8)  # as they come
        >>> # (t*C, H, W) -> (t, C, H, W)
        >>> inputs = model.evaluation_transform()(frames).unflatten(0, (-1, 3))
        >>> verbs, nouns = stream(inputs)
        >>> verbs.shape, nouns.shape
        (torch.Size([3, 125]), torch.Size([3, 352]))

    Args:
        model: a TSN, TRN, MTRN or uni-directional TSM in any precision, also an optimised copy. It
            evaluates whatever its mode, which stays. Its weights are used where they are, also if
            they change later; other options are those that it has now. Threads may have a stream
            each of one model.
        streams: n, streams that are run side by side.
        stride: frames from one that the model sees to the next: a TSM shifts from the frame
            `stride` before, the others see T frames that far apart.
        window: return the mean over the scores of this many frames, or of as many as have come;
            None for each frame's own.

    Raises:
        ValueError: if the model is of another kind or looks ahead, or for an option out of its
            range.
    """

    def __init__(
        self, model: TSN, streams: int = 1, stride: int = 1, window: int | None = None
    ) -> None:
        check_model(model)
        _refuse_looking_ahead(model)
        self._streams = positive_integer("streams", streams)
        self._stride = positive_integer("stride", stride)
        self._window = None if window is None else positive_integer("window", window)
        self._history = History(self._streams)
        self._model = streaming_copy(model, self._history, self._stride)
        self._state = blank_state(self._streams)

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Logits:
        """Score the next frames. A call that fails changes nothing.

        Args:
            frames: float, in the model's own preprocessing: (L*C, H, W), (t, L*C, H, W) or, with n
                streams, (n, t, L*C, H, W). L is `frames_per_snippet`: a frame of a model with more
                than one is a snippet. Their size stays the same until `reset`.

        Returns:
            Logits (t, classes) of each frame, with two tasks a tuple of verbs' and nouns';
            probabilities with `before_softmax=False`. (n, t, classes) if the frames were 5-D.
            Before T frames have come, TRN and MTRN repeat the first one, and TSN takes those that
            have come; with consensus "identity" it scores each frame alone.

        Raises:
            ValueError: for any other shape or dtype, no frames, or another size than before.
        """
        clips = self._to_clips(frames)
        last = self._state.get("input")
        if last is not None and last.shape[2:] != clips.shape[2:]:
            raise ValueError(
                f"frames must be {tuple(last.shape[2:])} as before, got {tuple(clips.shape[2:])}: "
                f"reset() begins anew"
            )
        tasks, self._state = self._step(self._state, clips)
        if frames.ndim < 5:
            tasks = tuple(task[0] for task in tasks)
        return tasks if isinstance(self._model.num_class, tuple) else tasks[0]

    def _step(self, state: State, clips: Tensor) -> tuple[tuple[Tensor, ...], State]:
        """Return each task's scores (n, t, classes) of frames that follow `state`, and the next."""
        model, history, shape = self._model, self._history, clips.shape[:2]
        history.begin(state)
        history.extend("input", clips[:, :0], 0)  # their size
        features = model._backbone(clips, clips.shape[1])
        if model.variant in ("TRN", "MTRN"):
            reduced = model.new_fc(features).unflatten(0, shape)
            windows = history.windows(
                "features", reduced, model.num_segments, self._stride, fill=reduced[:, :1]
            )
            # (n, t, D, T) -> (n*t, T, D)
            outputs = model.consensus(windows.transpose(2, 3).flatten(0, 1))
            tasks = [output.unflatten(0, shape) for output in outputs]
        else:
            tasks = [
                self._score_last(name, getattr(model, name)(features).unflatten(0, shape))
                for name in model._head_names
            ]
        if self._window is not None:
            tasks = [history.mean("window", task, self._window, 1) for task in tasks]
        return tuple(tasks), history.finish(clips.shape[1])

    def _score_last(self, head: str, scores: Tensor) -> Tensor:
        """Apply the consensus to the last T of each frame's scores (n, t, classes)."""
        model, history = self._model, self._history
        if not model.before_softmax:
            scores = scores.softmax(dim=-1)
        if model.variant == "TSM" or model.consensus_type == "identity":
            return scores
        if model.consensus_type == "avg":
            return history.mean(head, scores, model.num_segments, self._stride)
        windows = history.windows(
            head, scores, model.num_segments, self._stride, fill=-float("inf")
        )
        return windows.amax(-1)

    def reset(self, index: int | None = None) -> None:
        """Forget what was seen, as at the beginning of a stream.

        Args:
            index: which stream, from 0; None for all of them.

        Raises:
            ValueError: if there is no such stream.
        """
        blank = blank_state(self._streams)
        if index is not None:
            state = put_stream(self._state, self._check_index(index))
            blank = state if state["frames_seen"].any() else blank
        self._state = blank

    def state_dict(self, index: int | None = None) -> dict[str, Tensor]:
        """Return a copy of what is remembered.

        Args:
            index: of which stream, from 0; None for all of them.

        Returns:
            Tensors by name: "frames_seen", int64 (n,), and once frames have come "input" (n, 0,
            L*C, H, W), whose shape is theirs, and for each place in the network the values of the
            last frames, (n, frames, ...). n is 1 for one stream.

        Raises:
            ValueError: if there is no such stream.
        """
        place = slice(None)
        if index is not None:
            index = self._check_index(index)
            place = slice(index, index + 1)
        return {name: values[place].clone() for name, values in self._state.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor], index: int | None = None) -> None:
        """Go on where another stream of the same model and options was, in any precision.

        Args:
            state: what `state_dict` returned, of all streams or of one.
            index: which stream goes on from the state of one; None for all from that of all.

        Raises:
            ValueError: if the state is of other streams, another model, other options or, with an
                index, frames of another size than those of the other streams. Nothing is changed.
        """
        if index is not None:
            index = self._check_index(index)
        check_state(state, self._streams if index is None else 1)
        if not state["frames_seen"].any():
            self.reset(index)
            return
        if "input" not in state:
            raise ValueError("state must have 'input' where frames were seen, got none")
        own, size = self._state, state["input"].shape[2:]
        whole = index is None or self._streams == 1
        if "input" not in own or (whole and own["input"].shape[2:] != size):
            own = self._make_template(size)
        check_shapes(state, own)
        if index is None:
            self._state = {n: state[n].to(own[n].device, copy=True) for n in own}
        else:
            self._state = put_stream(own, index, state)

    def _make_template(self, size: Sequence[int]) -> State:
        """Return the state after a frame of a size, (L*C, H, W), with zeros in it."""
        zeros = next(self._model.parameters()).new_zeros(self._streams, 1, *size)
        try:
            _, state = self._step(blank_state(self._streams), self._to_clips(zeros))
        except ValueError as error:
            raise ValueError(f"state must be that of a Stream of this model: {error}") from error
        return {name: torch.zeros_like(values) for name, values in state.items()}

    def _to_clips(self, frames: Tensor) -> Tensor:
        model = self._model
        channels = MODALITIES[model.modality]
        return to_streams(frames, self._streams, model.frames_per_snippet, channels)

    def _check_index(self, index: int) -> int:
        if not is_integer(index) or not 0 <= index < self._streams:
            raise ValueError(f"index must be a stream, 0 to {self._streams - 1}, got {index!r}")
        return int(index)


def _refuse_looking_ahead(model: TSN) -> None:
    """Raise ValueError if the scores of a frame depend on frames behind it."""
    ahead = {"shift_direction": "both", "temporal_pool": True, "non_local": True}
    found = [
        f"{name}={value!r}" for name, value in ahead.items() if getattr(model, name, None) == value
    ]
    if found:
        raise ValueError(
            f"model must be one that does not look ahead, got a TSM with {', '.join(found)}: "
            f"stream one that was trained with shift_direction='past' alone, or use "
            f"long_videos.window_logits, which runs any model over windows of a video"
        )
