"""Annotations: the segments that a file lists, official or one's own.

The official files are at https://github.com/epic-kitchens/annotations (EPIC-KITCHENS-55) and
https://github.com/epic-kitchens/epic-kitchens-100-annotations (EPIC-KITCHENS-100). They differ in
their columns alone, as do files for other data: `read_annotations` lists them.
"""

import io
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from data.options import first_few
from data.segments import Segment
from data.timestamps import nominal_rate, parse_timestamp, seconds_to_frame
from epic.tables import Table, parse_table, read_table

__all__ = ["read_annotations"]

_logger = logging.getLogger(__name__)

_ID_COLUMNS = ("narration_id", "uid", "id")
_SECONDS_COLUMNS = (("start_timestamp", "stop_timestamp"), ("start", "stop"))
_FRAMES_COLUMNS = (("start_frame", "stop_frame"),)
_PARTICIPANT_COLUMNS = ("participant_id", "participant")
_NAME_COLUMNS = ("verb", "noun", "label")
_CLASS_COLUMNS = ("verb_class", "noun_class", "label_class")
_COLUMNS = {
    *("path", "video_id", "narration", *_ID_COLUMNS, *_PARTICIPANT_COLUMNS),
    *(column for pair in _SECONDS_COLUMNS + _FRAMES_COLUMNS for column in pair),
    *(*_NAME_COLUMNS, *_CLASS_COLUMNS),
}

_INTEGER = re.compile(r"([0-9]{1,18})(?:\.0*)?")  # pandas writes 3.0 where others are missing
_MAX_FAULTS = 10  # in one message

_Number = TypeVar("_Number", int, float)


def read_annotations(path: str | os.PathLike[str], *, trust: bool = False) -> list[Segment]:
    """Read the segments of an annotation file, in the order of its rows.

    The file is an official CSV of EPIC-KITCHENS-55 or -100 (training, validation, or test without
    labels), or a CSV of one's own. Columns may come in any order, and others are ignored:

    - `path` of the clip, as seen from the folder of all clips, or `video_id`; one must be there;
    - `narration_id`, `uid` or `id`, different in each row; else ids are made: "clip.mp4#0", with
      the number of the row;
    - `start_timestamp` and `stop_timestamp`, or `start` and `stop`: seconds or HH:MM:SS.ss;
    - `start_frame` and `stop_frame`: file numbers of RGB frames. Where they are missing for a video
      of EPIC-KITCHENS, they are computed from the times, as the organisers did;
    - a row with neither times nor frames is a whole clip;
    - `participant_id` or `participant`; known for videos of EPIC-KITCHENS;
    - `narration`;
    - `verb`, `noun` (names) and `verb_class`, `noun_class` (class ids) or, in data with one task,
      `label` and `label_class`. A file that has one of these columns has it filled in every row.

    Example:
        >>> segments = read_annotations("EPIC_train_action_labels.csv")
        >>> segments[0].video, segments[0].frames, segments[0].verb
        ('P01_01', (8, 202), 'open')

        The organisers' advice for a split of EPIC-KITCHENS-55's training set, 23,191 and 5,281
        segments:

        >>> train = [segment for segment in segments if segment.participant <= "P25"]
        >>> validation = [segment for segment in segments if segment.participant > "P25"]

    Args:
        path: CSV file in UTF-8, separated by commas; or a pickle (.pkl) of the organisers.
        trust: reads a pickle, which can run any code, with the package pandas.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: a pickle is to be read, and pandas is not installed.
        ValueError: it is a pickle that is not trusted, not a table of segments, or some of its rows
            are malformed: lists these by line (of a pickle: of the same table as CSV). Seconds must
            grow from start to stop; frames may be equal, since some weights include the stop frame.
    """
    path = Path(path)
    is_pickle = path.suffix.lower() in (".pkl", ".pickle")
    table = _read_pickle(path, trust) if is_pickle else read_table(path, str(path))
    _check_columns(table, path)
    segments: list[Segment] = []
    lines: dict[str, int] = {}
    faults: list[str] = []
    for index, (line, cells) in enumerate(table.rows):
        try:
            if len(cells) != len(table.columns):
                raise ValueError(f"has {len(cells)} cells, but {len(table.columns)} columns")
            segment = _to_segment(dict(zip(table.columns, cells, strict=True)), index)
            if lines.setdefault(segment.id, line) != line:
                raise ValueError(f"the id {segment.id} is that of line {lines[segment.id]} too")
            segments.append(segment)
        except ValueError as error:
            faults.append(f"line {line}: {error}")
    if faults:
        raise ValueError(
            f"{path}: {len(faults):,} of {len(table.rows):,} rows are malformed:\n  "
            + first_few(faults, _MAX_FAULTS, "\n  ")
        )
    if not segments:
        raise ValueError(f"{path} has no rows below the names of its columns")
    ignored = [column for column in table.columns if column and column not in _COLUMNS]
    if ignored and not any(segment.seconds or segment.frames for segment in segments):
        # Perhaps they hold the times, under other names.
        _logger.warning("%s: whole clips; ignored columns: %s", path, ", ".join(ignored))
    return segments


def _read_pickle(path: Path, trust: bool) -> Table:
    """Read a pickled pandas.DataFrame, whose index is uid or narration_id, as the CSV it equals."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    csv_name = path.with_suffix(".csv").name
    if not trust:
        raise ValueError(
            f"{path} is a pickle, which can run any code when it is read: use {csv_name}, which is "
            "published beside it, or pass trust=True if you trust where it comes from"
        )
    try:
        import pandas  # type: ignore[import-untyped]  # not installed where types are checked
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"pickled annotations need the package pandas: pip install pandas, or use {csv_name}"
        ) from error
    try:
        text = pandas.read_pickle(path).to_csv()
    except Exception as error:  # a pickle can raise anything
        raise ValueError(
            f"{path} is no table that pandas {pandas.__version__} reads, use {csv_name}: {error}"
        ) from error
    return parse_table(io.StringIO(text, newline=""), str(path))


def _check_columns(table: Table, path: Path) -> None:
    """Raise a ValueError if a table is not one of segments; says what it looks like."""
    columns = set(table.columns)
    other = ""
    if columns == {"video_id", "duration", "fps", "resolution"}:
        other = "a list of videos"
    elif columns >= {"frame", "bounding_boxes"}:
        other = "a list of objects"
    elif columns & {"path", "video_id"}:
        return
    elif columns & {"class_key", "instances"}:
        other = "the names of classes"
    elif columns <= {*_NAME_COLUMNS, *_CLASS_COLUMNS, "action_class", "participant_id"}:
        other = "a list of classes or participants"
    hint = f"; this looks like {other}" if other and columns else ""
    if separator := re.search(r"[;\t]", table.found):
        hint = f"; cells must be separated by commas, not by {separator[0]!r}"
    raise ValueError(
        f"{path} must list segments, with the column path or video_id, found: {table.found}{hint}"
    )


def _to_segment(cells: Mapping[str, str], index: int) -> Segment:
    """Make a segment of a row, whose number in the file is `index`, from 0.

    Raises:
        ValueError: the row is malformed; says how, without its line.
    """
    for column in ("path", "video_id", *_ID_COLUMNS, *_NAME_COLUMNS, *_CLASS_COLUMNS):
        if cells.get(column) == "":
            raise ValueError(f"{column} is empty")
    video = cells.get("path") or cells["video_id"]
    ids = [cells[column] for column in _ID_COLUMNS if column in cells]
    seconds = _parse_span(cells, _SECONDS_COLUMNS, parse_timestamp)
    frames = _parse_span(cells, _FRAMES_COLUMNS, _parse_integer)
    if seconds and seconds[0] == seconds[1]:
        raise ValueError(f"starts and stops at {seconds[0]} seconds")
    rate = nominal_rate(video)
    if rate and seconds and not frames:
        frames = seconds_to_frame(seconds[0], rate), seconds_to_frame(seconds[1], rate)
    participants = [cells[column] for column in _PARTICIPANT_COLUMNS if cells.get(column)]
    return Segment(
        id=ids[0] if ids else f"{video}#{index}",
        video=video,
        participant=participants[0] if participants else video[:3] if rate else None,
        frames=frames,
        seconds=seconds,
        narration=cells.get("narration") or None,
        verb=cells.get("verb"),
        verb_class=_parse(cells, "verb_class", _parse_integer),
        noun=cells.get("noun"),
        noun_class=_parse(cells, "noun_class", _parse_integer),
        label=cells.get("label"),
        label_class=_parse(cells, "label_class", _parse_integer),
    )


def _parse_span(
    cells: Mapping[str, str],
    pairs: Iterable[tuple[str, str]],
    parse: Callable[[str], _Number],
) -> tuple[_Number, _Number] | None:
    """Return start and stop of the first pair of columns that is filled, None if none is."""
    for start_column, stop_column in pairs:
        start, stop = _parse(cells, start_column, parse), _parse(cells, stop_column, parse)
        if start is None and stop is None:
            continue
        if start is None or stop is None:
            raise ValueError(f"{start_column} and {stop_column} must both be given, or neither")
        if stop < start:
            raise ValueError(f"{stop_column} {stop} is before {start_column} {start}")
        return start, stop
    return None


def _parse(
    cells: Mapping[str, str], column: str, parse: Callable[[str], _Number]
) -> _Number | None:
    """Return what a cell holds, None if it is empty or missing."""
    text = cells.get(column)
    try:
        return parse(text) if text else None
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from error


def _parse_integer(text: str) -> int:
    match = _INTEGER.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no integer of at least 0")
    return int(match[1])
