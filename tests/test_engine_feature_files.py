"""Files of features: both formats, whole or refused, and larger than memory."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.peak_memory import peak_memory

from engine.feature_files import RowFile, read_features, read_metadata, write_arrays

METADATA = {"video": "P01_01", "fps": 59.94, "ids": ["a", "b"], "tsm_windows": None}
ARRAYS = {
    "features": np.arange(24, dtype=np.float32).reshape(4, 2, 3),
    "frames": np.arange(4),
    "seconds": np.linspace(0, 1, 4),
    "label": np.zeros((4, 1), dtype=np.float32),
}


def write(folder: Path, suffix: str) -> Path:
    rows = {name: RowFile(folder) for name in ARRAYS}
    for name, array in ARRAYS.items():
        rows[name].append(array[:1])
        rows[name].append(array[1:])
        assert rows[name].shape == array.shape
    path = folder / f"features.{suffix}"
    with path.open("wb") as file:
        write_arrays(file, rows, METADATA, npz=suffix == "npz")
    assert list(folder.iterdir()) == [path]  # nothing is left beside it
    return path


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix)
    arrays, metadata = read_features(path)
    assert metadata == METADATA == read_metadata(path)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)
    assert path.read_bytes() == write(tmp_path, suffix).read_bytes()


def test_each_format_is_read_by_its_own_library(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(write(tmp_path, "safetensors"))
    assert tensors["features"].numpy().tolist() == ARRAYS["features"].tolist()
    (tmp_path / "features.safetensors").unlink()
    with np.load(write(tmp_path, "npz")) as archive:
        assert json.loads(str(archive["metadata"])) == METADATA
        assert archive["frames"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_damaged_files_are_refused(tmp_path: Path, suffix: str, damage: str) -> None:
    path = write(tmp_path, suffix)
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": data[:-1], "text": b"verb,noun\n" * 9}[damage])
    for read in (read_metadata, read_features):
        with pytest.raises(ValueError, match=r"features\..*: no whole file of features"):
            read(path)
    with pytest.raises(FileNotFoundError):
        read_metadata(tmp_path / "other.npz")


def test_an_array_may_be_larger_than_memory(tmp_path: Path) -> None:
    rows = RowFile(tmp_path)
    block = np.zeros((64, 2048), dtype=np.float32)

    def run() -> None:
        for _ in range(200):
            rows.append(block)
        for npz in (False, True):
            with (tmp_path / "large").open("wb") as file:
                write_arrays(file, {"features": rows}, {}, npz=npz)

    peak = peak_memory(run)
    assert rows.shape == (12800, 2048)
    assert (tmp_path / "large").stat().st_size > 100 * 2**20
    if peak is None:
        pytest.skip("this system does not tell the peak of memory")
    assert peak < 16 * 2**20


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    rows = RowFile(tmp_path)
    rows.append(np.zeros((1000, 100)))
    with pytest.raises(OSError, match="No space left"), full.open("wb") as file:
        write_arrays(file, {"features": rows}, {}, npz=False)
    write_arrays(io.BytesIO(), {"features": rows}, {}, npz=False)  # nothing is lost
