"""What the converters of all checkpoint layouts have in common."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from checkpoints.architecture import infer_backbone, infer_shift
from checkpoints.config import Checkpoint, ModelConfig
from checkpoints.errors import CheckpointError, UnknownSegmentsError
from checkpoints.fields import Fields
from checkpoints.state_dict import clean_state_dict
from data.preprocessing import Preprocessing

__all__ = ["Converter", "find_names", "has_names", "make_preprocessing"]


class Converter(ABC):
    """One file on its way to a `Checkpoint`. Each layout has a subclass.

    Args:
        contents: the dictionary in the file, with the weights under `state_dict`.
        num_segments: T according to the caller; None where it is left to the file.
        report: gets one message per change: what was renamed, split, left out or assumed.
    """

    strict = False
    """Whether nothing but the network's weights is expected in the file."""

    def __init__(
        self, contents: Mapping[Any, Any], num_segments: int | None, report: list[str]
    ) -> None:
        self.contents = contents
        self.num_segments = num_segments
        self.report = report
        self.fields = Fields(contents)
        self.state, dropped = clean_state_dict(contents["state_dict"], strict=self.strict)
        self.report += dropped

    @staticmethod
    @abstractmethod
    def matches(contents: Mapping[Any, Any]) -> bool:
        """Return whether a file has this layout."""

    @abstractmethod
    def config(self) -> ModelConfig:
        """Return what to build, and leave the weights for it in `state`."""

    def convert(self) -> Checkpoint:
        """Return the checkpoint in the terms of this library."""
        config = self.config()
        return Checkpoint(
            config=config,
            state_dict=self.state,
            epoch=self.fields.int("epoch", None),
            args=self.args(),
            optimizer=self.contents.get("optimizer"),
            report=tuple(self.report),
            contents=self.contents,
        )

    def args(self) -> dict[str, Any]:
        """Return the training options, as far as the layout has such."""
        return {}

    def segments(self, recorded: int | None, model_type: str) -> int:
        """Return the number of segments to build the model for, given what the file records.

        The weights of a TSN or TSM do not depend on it; those of a TRN or MTRN do.
        """
        given = recorded if self.num_segments is None else self.num_segments
        if given is None:
            raise UnknownSegmentsError(
                "the file does not record its number of segments: pass num_segments, as in "
                "load_checkpoint(path, num_segments=8); programs: --num-segments 8"
            )
        if recorded in (None, given):
            return given
        if model_type in ("trn", "mtrn"):
            raise CheckpointError(
                f"num_segments must be {recorded} or left out, got {given}: the file holds a "
                f"{model_type.upper()}, whose relations have weights for {recorded} segments alone"
            )
        self.report.append(f"took num_segments as {given}, as asked; the file records {recorded}")
        return given

    def backbone(self, recorded: str | None) -> str:
        """Return the backbone by its weights, or else the one that the file records."""
        found = infer_backbone(self.state) or recorded
        if found is None:
            raise CheckpointError(
                "the file does not record its backbone (arch), and its weights have the names "
                "of none that is known by them: ResNets, VGGs, BN-Inception, Inception-V3 and "
                "MobileNetV2"
            )
        if recorded is None or recorded.lower() != found.lower():
            said = "" if recorded is None else f", although the file records {recorded!r}"
            self.report.append(f"took the backbone as {found} by its weights{said}")
        return found

    def shift(self) -> dict[str, Any]:
        """Return the options of a shift network that the names of its weights tell."""
        options = infer_shift(self.state)
        place, every = options["shift_place"], options["shift_every"]
        self.report.append(f"read shift_place {place!r} and shift_every {every} off the names")
        for name in ("temporal_pool", "non_local"):
            if options[name]:
                self.report.append(f"found {name} in the names")
        return options

    def rename(self, pattern: str, name: str | Callable[[re.Match[str]], str]) -> int:
        """Rename the weights whose names begin with a pattern, and return how many do.

        Args:
            pattern: regular expression.
            name: what takes its place, as for `re.sub`.
        """
        pattern = rf"^(?:{pattern})"
        old = find_names(self.state, pattern)
        self.state = {re.sub(pattern, name, key): value for key, value in self.state.items()}
        if old:
            first, new = (key.rpartition(".")[0] for key in (old[0], re.sub(pattern, name, old[0])))
            self.report.append(f"renamed {len(old)} weights like {first} to {new}")
        return len(old)

    def report_assumed(self, assumed: list[str]) -> None:
        """Report what the file does not record, and what it is taken to be."""
        if assumed:
            self.report.append(f"assumed what the file does not record: {', '.join(assumed)}")


def make_preprocessing(place: str, **values: Any) -> Preprocessing:
    """Return the preprocessing that the entry `place` of a file gives."""
    try:
        return Preprocessing(**values)
    except ValueError as error:
        raise CheckpointError(f"{place} makes no sense: {error}") from error


def find_names(names: Iterable[str], pattern: str) -> list[str]:
    """Return the names that begin with a regular expression."""
    return [name for name in names if re.match(pattern, name)]


def has_names(contents: Mapping[Any, Any], *patterns: str) -> bool:
    """Return whether each pattern begins the name of a weight in a file, behind any wrappers'."""
    weights = contents["state_dict"]
    names = list(map(str, weights)) if isinstance(weights, Mapping) else []
    return all(find_names(names, rf"(?:module\.|model\.)*(?:{pattern})") for pattern in patterns)
