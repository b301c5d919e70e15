"""Output folders: small finished files that belong to one request.

A run writes each result that took work as a file of its own, under a temporary name that is then
changed. Killed at any moment and started again, it computes only what is missing. `request.json`
says what the files belong to; another request is refused.
"""

import glob
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from checkpoints.files import atomic_write
from data.options import first_few
from engine.feature_files import RowFile, read_metadata, write_arrays
from engine.request import describe_differences

__all__ = ["OutputFolder"]

_REQUEST = "request.json"


class OutputFolder:
    """A folder with the results of one request.

    Args:
        path: the folder; made, with the record of the request, when the first file is written.
        request: everything that the results depend on, as JSON has it.

    Raises:
        ValueError: if it holds the results of another request, or files of something else.
        OSError: if it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], request: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._request = json.dumps(request, indent=2, sort_keys=True)
        self._digest = sha256(self._request.encode()).hexdigest()
        self._record = self.path / _REQUEST
        if self._record.exists():
            recorded = _read_request(self._record)
            if differences := describe_differences(recorded, json.loads(self._request)):
                raise ValueError(
                    f"{self.path} holds results of another request: {differences}. Give another "
                    f"folder, or the same options"
                )
        elif self.path.exists():
            strangers = sorted(
                file.name
                for file in self.path.iterdir()
                if not file.name.startswith((_REQUEST, "."))
            )
            if strangers and not self._record.exists():  # another process may have begun meanwhile
                raise ValueError(
                    f"{self.path} holds files of something else ({first_few(strangers, 3)}): give "
                    f"a new folder"
                )

    def begin(self) -> None:
        """Make the folder, and record the request, unless that is done."""
        if not self._record.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._record) as file:
                file.write(self._request.encode())

    def has(self, name: str) -> bool:
        """Return whether a file is there, opens, and belongs to this request."""
        try:
            return read_metadata(self.path / name).get("request") == self._digest
        except (FileNotFoundError, ValueError):
            return False

    def write(self, name: str, arrays: Mapping[str, Tensor], **metadata: Any) -> None:
        """Write a file of arrays, whole or not at all.

        Args:
            name: path in the folder, which ends in `.safetensors`.
            arrays: contiguous, by name.
            metadata: what is to be said about them, as JSON has it.
        """
        from safetensors.torch import save

        metadata["request"] = self._digest
        data = save(dict(arrays), {key: json.dumps(value) for key, value in metadata.items()})
        with self._replace(name) as file:
            file.write(data)

    def write_rows(self, name: str, arrays: Mapping[str, RowFile], **metadata: Any) -> None:
        """Write a file of arrays that may be larger than memory, whole or not at all.

        Args:
            name: path in the folder, which ends in `.safetensors` or `.npz`.
            arrays: by name.
            metadata: what is to be said about them, as JSON has it.
        """
        metadata["request"] = self._digest
        with self._replace(name) as file:
            write_arrays(file, arrays, metadata, npz=name.endswith(".npz"))

    @contextmanager
    def _replace(self, name: str) -> Iterator[BinaryIO]:
        self.begin()
        path = self.path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        # What a killed run was writing; nobody else writes this file.
        for partial in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
            partial.unlink(missing_ok=True)
        with atomic_write(path) as file:
            yield file

    def read(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the arrays of a file, and what is said about them."""
        from safetensors import safe_open

        with safe_open(self.path / name, "pt") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        metadata = read_metadata(self.path / name)
        del metadata["request"]
        return arrays, metadata


def _read_request(record: Path) -> dict[str, Any]:
    try:
        request = json.loads(record.read_text())
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise ValueError(
            f"{record} is damaged: what is beside it cannot be used, give a new folder"
        )
    return request
