"""Logits of all segments of a dataset: what they are, and what a run that was stopped leaves."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.peak_memory import peak_memory
from helpers.synthetic_clips import SyntheticClips, noise, tiny_tsn
from torch import Tensor, nn

from engine import evaluate as module
from engine.evaluate import evaluate, merge_batches
from engine.output_folder import OutputFolder
from engine.processes import Processes
from predictor import Predictor

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU, 1)


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    return OutputFolder(tmp_path / "run", {})


@contextmanager
def counted_calls(model: nn.Module) -> Iterator[list[int]]:
    """Collect the numbers of clips that a model is called with."""
    calls: list[int] = []
    handle = model.register_forward_hook(lambda _, inputs, output: calls.append(len(inputs[0])))
    yield calls
    handle.remove()


def run(model: Any, clips: SyntheticClips, folder: OutputFolder, **options: Any) -> dict[str, str]:
    return evaluate(model, clips, folder, ALONE, batch_size=4, **{"workers": 0, **options})


def merged(clips: SyntheticClips, folder: OutputFolder, num_class: Any = (5, 7)) -> dict[str, Any]:
    return merge_batches(folder, [s.id for s in clips.segments], num_class, 4)


def contents(folder: OutputFolder) -> dict[str, Any]:
    """Return all that the batch files hold; the order of metadata in a file is a random one."""
    files = {}
    for path in sorted(folder.path.glob("batches/*")):
        arrays, metadata = folder.read(f"batches/{path.name}")
        files[path.name] = {name: array.tolist() for name, array in arrays.items()}, metadata
    return files


@pytest.mark.parametrize("crop_count", [1, 3, 10])
def test_logits_are_those_of_the_predictor(folder: OutputFolder, crop_count: int) -> None:
    model, clips = tiny_tsn(), SyntheticClips(6)
    assert run(model, clips, folder, crop_count=crop_count) == {}
    scores = merged(clips, folder)
    assert scores["ids"] == [segment.id for segment in clips.segments]
    predictor = Predictor(model, crop_count=crop_count, optimize=False)
    for index in range(6):
        verbs, nouns = predictor.probabilities([noise(2, index)])
        assert torch.from_numpy(scores["verb"][index]).softmax(0).equal(verbs[0])
        assert torch.from_numpy(scores["noun"][index]).softmax(0).equal(nouns[0])


def test_logits_of_two_clips_of_a_segment_are_averaged(folder: OutputFolder) -> None:
    model, clips = tiny_tsn(9), SyntheticClips(1, frames=4)
    run(model, clips, folder)
    transform = model.evaluation_transform()
    with torch.no_grad():
        one, other = (model(transform(clip)[None]) for clip in noise(4, 0).split(2))
    expected = ((one + other) / 2).numpy()
    np.testing.assert_allclose(merged(clips, folder, 9)["label"], expected, rtol=1e-5, atol=1e-6)


def test_models_of_probabilities_are_refused(folder: OutputFolder) -> None:
    with pytest.raises(ValueError, match="model must give logits"):
        run(tiny_tsn(before_softmax=False), SyntheticClips(1), folder)


def test_processes_share_batches_and_results_do_not_depend_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Processes, "gather", lambda self, items: list(items))
    model, clips, results = tiny_tsn(), SyntheticClips(17), []
    for count in (1, 2, 3):
        folder = OutputFolder(tmp_path / str(count), {})
        for rank in range(count):
            shared = Processes(rank, count, CPU, 1)
            with counted_calls(model) as calls:
                evaluate(model, clips, folder, shared, batch_size=4, workers=count - 1)
            assert sum(calls) == sum(min(4, 17 - 4 * k) for k in range(rank, 5, count))
        results.append(contents(folder))
    assert results[0] == results[1] == results[2]
    assert len(results[0]) == 5


def test_finished_batches_are_not_computed_again(folder: OutputFolder) -> None:
    model, clips = tiny_tsn(), SyntheticClips(10)
    run(model, clips, folder)
    whole = contents(folder)
    (folder.path / "batches" / "000001.safetensors").unlink()
    with counted_calls(model) as calls:
        run(model, clips, folder)
    assert sum(calls) == 4
    assert contents(folder) == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_segments_that_cannot_be_read_are_tried_again(folder: OutputFolder, workers: int) -> None:
    model, clips = tiny_tsn(), SyntheticClips(10, bad={2, 8, 9})
    reasons = run(model, clips, folder, workers=workers)
    assert reasons == dict.fromkeys(("P01_2", "P01_8", "P01_9"), "P01_01.MP4: no frame of it")
    assert len(contents(folder)) == 2  # the last batch has none that could be read
    assert len(merged(clips, folder)["ids"]) == 7
    with counted_calls(model) as calls:
        assert run(model, SyntheticClips(10), folder) == {}
    assert sum(calls) == 3
    uninterrupted = OutputFolder(folder.path / "other", {})
    run(model, SyntheticClips(10), uninterrupted)
    assert contents(folder) == contents(uninterrupted)


def test_segments_to_skip_are_left_out_until_they_are_wanted(folder: OutputFolder) -> None:
    model, clips = tiny_tsn(), SyntheticClips(5)
    assert run(model, clips, folder, skip={"P01_1", "P01_4"}) == {}
    assert merged(clips, folder)["ids"] == ["P01_0", "P01_2", "P01_3"]
    run(model, clips, folder)
    assert merged(clips, folder)["ids"] == [segment.id for segment in clips.segments]


def test_a_full_disk_loses_nothing_that_was_finished(
    folder: OutputFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, clips, written = tiny_tsn(), SyntheticClips(12), []
    replace = module.OutputFolder.write

    def write(self: OutputFolder, name: str, arrays: dict[str, Tensor], **metadata: Any) -> None:
        written.append(name)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(self, name, arrays, **metadata)

    monkeypatch.setattr(OutputFolder, "write", write)
    with pytest.raises(OSError, match="No space left"):
        run(model, clips, folder)
    with counted_calls(model) as calls:
        run(model, clips, folder)
    assert sum(calls) == 8


class ConstantModel(nn.Module):
    """A network whose logits cost nothing."""

    before_softmax, num_segments, frames_per_snippet, modality = True, 2, 1, "RGB"
    num_class = (97, 300)

    def __init__(self) -> None:
        super().__init__()
        self.preprocessing = tiny_tsn().preprocessing
        self.logits = nn.Parameter(torch.zeros(1, 97)), nn.Parameter(torch.zeros(1, 300))
        self.verb, self.noun = self.logits

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return self.logits


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_segments(tmp_path: Path) -> None:
    peaks = []
    for count in (2000, 2000, 20000):  # the first run fills caches
        folder = OutputFolder(tmp_path / str(len(peaks)), {})
        clips = SyntheticClips(count)
        peaks.append(
            peak_memory(
                lambda f=folder, c=clips: evaluate(ConstantModel(), c, f, ALONE, batch_size=100)
            )
        )  # type: ignore[misc]
    if None in peaks:
        pytest.skip("this system does not tell the peak of memory")
    print(peaks)
    assert peaks[2] < peaks[1] + 5e6
