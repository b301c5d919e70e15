"""Official files: beside the annotations, or fetched into the cache."""

from pathlib import Path

import pytest
import torch

from epic import official_files
from epic.official_files import find_official_file

URL = "https://example.org/master/EPIC_100_tail_verbs.csv"


def test_files_beside_the_annotations_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fetch(url: str, directory: Path, progress: bool) -> Path:
        fetched.append((url, directory))
        return directory / "fetched"

    monkeypatch.setattr(official_files, "fetch", fetch)
    folders = [tmp_path / "none", tmp_path]
    assert find_official_file(URL, folders).name == "fetched"
    assert fetched == [(URL, Path(torch.hub.get_dir()) / "epic_kitchens_annotations")]
    (tmp_path / "EPIC_100_tail_verbs.csv").touch()
    assert find_official_file(URL, folders) == tmp_path / "EPIC_100_tail_verbs.csv"
    assert len(fetched) == 1
