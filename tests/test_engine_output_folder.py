"""Output folders: small finished files that belong to one request."""

from pathlib import Path

import pytest
import torch

from engine.output_folder import OutputFolder

REQUEST = {"weights": "ab12", "crops": 10, "weights_of_models": [1.0, 1.5]}


@pytest.mark.essential
def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "a" / "b", REQUEST)
    assert not folder.has("batches/0.safetensors")
    folder.write("batches/0.safetensors", {"verb": torch.arange(6.0).view(2, 3)}, ids=["x", "y"])
    again = OutputFolder(tmp_path / "a" / "b", REQUEST)
    assert again.has("batches/0.safetensors")
    arrays, metadata = again.read("batches/0.safetensors")
    assert arrays["verb"].equal(torch.arange(6.0).view(2, 3))
    assert metadata == {"ids": ["x", "y"]}


def test_another_request_is_refused_by_its_differences(tmp_path: Path) -> None:
    OutputFolder(tmp_path, REQUEST).begin()
    with pytest.raises(ValueError, match=r"another request: crops was 10, now 1\. Give another"):
        OutputFolder(tmp_path, {**REQUEST, "crops": 1})
    with pytest.raises(ValueError, match=r"modality was None, now 'RGB'"):
        OutputFolder(tmp_path, {**REQUEST, "modality": "RGB"})


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"holds files of something else \(thesis.tex\)"):
        OutputFolder(tmp_path, REQUEST)


def test_hidden_files_are_nobodys(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").touch()
    OutputFolder(tmp_path, REQUEST)


@pytest.mark.parametrize("text", ["", "[]", "\xff"])
def test_a_damaged_request_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "request.json").write_text(text, "latin-1")
    with pytest.raises(ValueError, match=r"request\.json is damaged: .* give a new folder"):
        OutputFolder(tmp_path, REQUEST)


@pytest.mark.parametrize("damage", ["empty", "cut", "other request"])
def test_only_whole_files_of_this_request_count(tmp_path: Path, damage: str) -> None:
    folder = OutputFolder(tmp_path / "run", REQUEST)
    folder.write("0.safetensors", {"verb": torch.zeros(3)})
    file = tmp_path / "run" / "0.safetensors"
    if damage == "other request":
        other = OutputFolder(tmp_path / "other", {**REQUEST, "crops": 1})
        other.write("0.safetensors", {"verb": torch.zeros(3)})
        file.write_bytes((tmp_path / "other" / "0.safetensors").read_bytes())
    else:
        file.write_bytes(b"" if damage == "empty" else file.read_bytes()[:-1])
    assert not folder.has("0.safetensors")
