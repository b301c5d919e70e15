"""Loss and accuracies of a validation set."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.training_runs import ALONE, clips, small_model
from torch import Tensor
from torch.nn.functional import cross_entropy

from engine.processes import Processes
from epic.metrics import accuracy
from training.validation import clip_losses, validate


class Together(Processes):
    """Processes that run one after the other, and hear from one another by a list."""

    said: list[list[Any]]

    def gather(self, items: Any) -> list[Any]:
        self.said.append(list(items))
        return list(items)


@pytest.mark.parametrize("two_tasks", [False, True])
def test_metrics_are_those_of_evaluations(actions: Path, two_tasks: bool) -> None:
    dataset = clips(actions, two_tasks=two_tasks)
    model = small_model("TSN", (6, 2) if two_tasks else 6)
    generator = torch.Generator().manual_seed(0)
    seen: list[tuple[Tensor, ...]] = []

    def compute(inputs: Tensor) -> tuple[Tensor, ...]:
        counts = (6, 2) if two_tasks else (6,)
        seen.append(tuple(torch.randn(len(inputs), n, generator=generator) for n in counts))
        return seen[-1]

    result = validate(model, dataset, ALONE, compute=compute, batch_size=5, workers=0)
    tasks = ("verb", "noun") if two_tasks else ("label",)
    logits = [torch.cat(scores) for scores in zip(*seen, strict=True)]
    scores = {task: each.numpy() for task, each in zip(tasks, logits, strict=True)}
    expected = accuracy({"ids": [s.id for s in dataset.segments], **scores}, dataset.segments)
    for task in (*tasks, *["action"] * two_tasks):
        assert result.metrics[f"{task}_top1"] == pytest.approx(100 * expected[task][0])
        if task != "action":
            assert result.metrics[f"{task}_top5"] == pytest.approx(100 * expected[task][1])
    assert set(result.metrics) >= {f"{task}_top1" for task in tasks}
    losses = []
    for task, each in zip(tasks, logits, strict=True):
        labels, chosen = result.predictions[task]
        assert labels.tolist() == [getattr(s, f"{task}_class") for s in dataset.segments]
        assert chosen.equal(each.argmax(1))
        losses.append(cross_entropy(each, labels))
    assert result.loss == pytest.approx(torch.stack(losses).mean().item())


def test_each_clip_counts_once_whatever_the_number_of_processes(actions: Path) -> None:
    model, dataset = small_model("TSN"), clips(actions)
    sizes: list[int] = []

    def compute(inputs: Tensor) -> tuple[Tensor, ...]:
        sizes.append(len(inputs))
        return (torch.zeros(len(inputs), 6),)

    for rank in range(5):  # 12 clips
        processes = Together(rank, 5, torch.device("cpu"), 1)
        object.__setattr__(processes, "said", [])
        validate(model, dataset, processes, compute=compute, batch_size=2, workers=0)
        assert len(processes.said[1]) == len(range(rank, 12, 5))
    assert sum(sizes) == 12


def test_the_loss_of_a_clip_is_the_mean_of_its_tasks() -> None:
    verbs, nouns = torch.randn(3, 4).bfloat16(), torch.randn(3, 5).bfloat16()
    labels = {"verb": torch.tensor([0, 1, 2]), "noun": torch.tensor([4, 3, 2])}
    losses = clip_losses((verbs, nouns), labels, label_smoothing=0.1)
    expected = [
        cross_entropy(scores.float()[n], label[n], label_smoothing=0.1)
        for n in range(3)
        for scores, label in ((verbs, labels["verb"]), (nouns, labels["noun"]))
    ]
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, torch.stack(expected).view(3, 2).mean(1))


def test_ties_count_for_the_class_that_is_predicted(actions: Path) -> None:
    model, dataset = small_model("TSN"), clips(actions)
    result = validate(
        model, dataset, ALONE, compute=lambda inputs: (torch.zeros(len(inputs), 6),),
        batch_size=4, workers=0,
    )  # fmt: skip
    assert result.metrics["label_top1"] == pytest.approx(100 / 6)
    assert result.metrics["label_top5"] == pytest.approx(500 / 6)
    assert np.asarray(result.predictions["label"][1]).max() == 0


def test_clips_that_cannot_be_read_are_named(actions: Path, tmp_path: Path) -> None:
    dataset, model = clips(actions), small_model("TSN")
    segment = dataset.segments[4]
    dataset.segments[4] = type(segment)(segment.id, "missing", label_class=1)

    def check(**options: bool) -> Any:
        return validate(
            model, dataset, ALONE, compute=lambda x: (torch.zeros(len(x), 6),), batch_size=4,
            workers=0, **options,
        )  # fmt: skip

    with pytest.raises(OSError, match=f"1 segments cannot be read.*\n  {segment.id}: .*missing"):
        check()
    result = check(skip_unreadable=True)
    assert list(result.unreadable) == [segment.id]
    assert len(result.predictions["label"][0]) == 11
    dataset.segments = dataset.segments[4:5]
    with pytest.raises(OSError, match="1 segments cannot be read"):
        check(skip_unreadable=True)
