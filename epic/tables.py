"""Tables: CSV files as people and spreadsheets write them."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Table", "parse_table", "read_table"]


class Table(NamedTuple):
    """A table of text, without spaces around names and cells.

    Attributes:
        columns: names of the columns in lower case, no two the same, perhaps empty ones.
        rows: line number in the file (the last one of a row of several lines), and the cells, of
            each row that is not blank. A malformed row has more or fewer cells than columns.
    """

    columns: tuple[str, ...]
    rows: list[tuple[int, list[str]]]

    @property
    def found(self) -> str:
        """Names of the columns, for the error that others were expected."""
        return ", ".join(self.columns)[:200] or "none"


def read_table(path: Path, name: str) -> Table:
    """Read a UTF-8 CSV file with column names in its first line; a byte order mark is skipped.

    Args:
        path: the file.
        name: what errors call it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as `parse_table`, or the file is not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{name}: there is no such file")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # -sig: Excel writes a BOM
            return parse_table(file, name)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not a UTF-8 CSV file: {error}") from error


def parse_table(lines: Iterable[str], name: str) -> Table:
    """Parse the lines of a CSV file.

    Raises:
        ValueError: the quotes do not match, or two columns have the same name.
    """
    reader = csv.reader(lines, strict=True)  # else an unclosed quote takes in all that follows
    try:
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise ValueError(
            f"{name} is not a UTF-8 CSV file: {error}, line {reader.line_num}"
        ) from error
    rows = [(line, cells) for line, cells in rows if any(cells)]
    columns = tuple(column.lower() for column in rows[0][1]) if rows else ()
    for column in filter(None, columns):
        if columns.count(column) > 1:
            raise ValueError(f"{name} has several columns {column}: remove all but one")
    return Table(columns, rows[1:])
