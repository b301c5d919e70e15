"""Files of features: arrays of rows, and beside them what there is to say about them.

Safetensors hold the metadata in their header, each value as JSON; npz files hold all of it as one
string of JSON in the array `metadata`. Arrays may be larger than memory: they grow on disk.

Source of the formats: https://github.com/huggingface/safetensors, numpy.lib.format.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["RowFile", "read_features", "read_metadata", "write_arrays"]

_SAFETENSORS_DTYPES = {"float32": "F32", "float64": "F64", "int64": "I64"}
_METADATA = "metadata.npy"


class RowFile:
    """An array that grows by rows, on disk; gone when it is closed or the process ends.

    Args:
        folder: where there is room for it.

    Attributes:
        shape: of the array so far.
        dtype: of the array; None before the first rows.
    """

    shape: tuple[int, ...] = (0,)
    dtype: np.dtype[Any] | None = None

    def __init__(self, folder: Path) -> None:
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115 - closed with this object

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows (n, ...), all of one dtype and shape."""
        self._file.write(np.ascontiguousarray(rows).data)
        self.dtype = rows.dtype
        self.shape = (self.shape[0] + len(rows), *rows.shape[1:])

    def copy_to(self, file: Any) -> None:
        """Write the rows to an open file."""
        self._file.seek(0)
        shutil.copyfileobj(self._file, file, 2**20)
        self._file.seek(0, os.SEEK_END)


def write_arrays(
    file: BinaryIO, arrays: Mapping[str, RowFile], metadata: Mapping[str, Any], *, npz: bool
) -> None:
    """Write arrays and metadata into an open file.

    Args:
        file: binary, at its beginning.
        arrays: by name, float32, float64 or int64.
        metadata: values as JSON has them.
        npz: whether to write NumPy's format, instead of safetensors.
    """
    (_write_npz if npz else _write_safetensors)(file, arrays, metadata)


def _write_safetensors(
    file: BinaryIO, arrays: Mapping[str, RowFile], metadata: Mapping[str, Any]
) -> None:
    # The package's writers take arrays in memory alone.
    header: dict[str, Any] = {"__metadata__": {k: json.dumps(v) for k, v in metadata.items()}}
    end = 0
    # Wide dtypes first, so that each array is aligned.
    names = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))  # type: ignore[union-attr]  # none is empty
    for name in names:
        dtype, shape = np.dtype(arrays[name].dtype), arrays[name].shape
        begin, end = end, end + int(np.prod(shape)) * dtype.itemsize
        header[name] = {
            "dtype": _SAFETENSORS_DTYPES[dtype.name],
            "shape": shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        arrays[name].copy_to(file)


def _write_npz(file: BinaryIO, arrays: Mapping[str, RowFile], metadata: Mapping[str, Any]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        with archive.open(_METADATA, "w") as entry:
            np.lib.format.write_array(entry, np.array(json.dumps(metadata)))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                dtype = np.lib.format.dtype_to_descr(np.dtype(array.dtype))
                np.lib.format.write_array_header_1_0(
                    entry, {"descr": dtype, "fortran_order": False, "shape": array.shape}
                )
                array.copy_to(entry)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a file says about its arrays.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no whole file of features.
    """
    try:
        with open(path, "rb") as file:
            if file.read(2) == b"PK":
                with zipfile.ZipFile(file) as archive, archive.open(_METADATA) as entry:
                    metadata: dict[str, Any] = json.loads(
                        np.lib.format.read_array(entry, allow_pickle=False).item()
                    )
                return metadata
        from safetensors import safe_open

        with safe_open(path, "np") as arrays:
            return {key: json.loads(text) for key, text in (arrays.metadata() or {}).items()}
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:  # of zipfile, NumPy, JSON, or safetensors' own
        raise ValueError(f"{path}: no whole file of features: {error}") from error


def read_features(
    path: str | os.PathLike[str],
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays of a file of features, and what it says about them.

    Args:
        path: a file that `tools/extract_features.py` wrote, in any of its formats.

    Returns:
        Arrays by name: `features` float32 (rows, D) (of segments (S, T, D) or, averaged, (S, D));
        `frames`, the number of each row's first frame, int64 (rows,) or (S, T); `seconds`, when it
        is shown, float64 likewise, where the frame rate is known; `verb` and `noun`, or `label`,
        logits float32 (rows, classes), where they were asked for. ActionFormer's format has `feats`
        in the place of the first three.

        The metadata are those of `engine.feature_writer.FeatureWriter` and
        `engine.request.describe_run`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no whole file of features.
        ModuleNotFoundError: if the package safetensors is needed and not installed.
    """
    metadata = read_metadata(path)
    with open(path, "rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name != "metadata"}
    else:
        from safetensors.numpy import load_file

        arrays = load_file(path)
    return arrays, metadata
