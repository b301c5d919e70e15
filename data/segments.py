"""Segments: the parts of videos that an annotation file lists."""

from dataclasses import dataclass

__all__ = ["Segment"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a video, as one row of an annotation file has it.

    Attributes:
        id: name of the segment, unlike any other of its file: narration_id in EPIC-KITCHENS-100,
            uid in EPIC-KITCHENS-55.
        video: id of the video, such as "P01_11"; of other data, path of the clip.
        participant: who recorded it, such as "P01".
        frames: start_frame and stop_frame as annotated, file numbers of RGB frames. Whether the
            stop frame belongs to the segment depends on the weights.
        seconds: start and stop, in seconds since the beginning of the video. Where neither
            `frames` nor `seconds` is given, the segment is the whole clip.
        narration: what the narrator said.
        verb: the verb of the narration.
        verb_class: its class id.
        noun: the first noun of the narration.
        noun_class: its class id.
        label: name of the class, in data with one task.
        label_class: its class id.
    """

    id: str
    video: str
    participant: str | None = None
    frames: tuple[int, int] | None = None
    seconds: tuple[float, float] | None = None
    narration: str | None = None
    verb: str | None = None
    verb_class: int | None = None
    noun: str | None = None
    noun_class: int | None = None
    label: str | None = None
    label_class: int | None = None
