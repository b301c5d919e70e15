"""Metrics are what a few lines of Python say they are, whatever form the scores have."""

import logging
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from data.segments import Segment
from epic.metrics import accuracy, epic_55_metrics, epic_100_metrics

V, N, S = 7, 9, 60


@pytest.fixture
def small() -> tuple[dict[str, Any], list[Segment]]:
    """Scores that know a little, of segments in another order."""
    generator = np.random.default_rng(0)
    segments = [
        Segment(
            f"s{row}",
            "P01_01",
            f"P{row % 3:02}",
            verb_class=int(generator.integers(V)),
            noun_class=int(generator.integers(N)),
        )
        for row in range(S)
    ]
    order = generator.permutation(S)
    scores = {
        "ids": [segments[row].id for row in order],
        "verb": generator.standard_normal((S, V)),
        "noun": generator.standard_normal((S, N)),
    }
    for row, segment in enumerate(segments[place] for place in order):
        scores["verb"][row, segment.verb_class] += 1
        scores["noun"][row, segment.noun_class] += 1
    return scores, segments


def ranked_classes(
    scores: dict[str, Any], priors: np.ndarray | None = None
) -> dict[str, dict[str, list[Any]]]:
    """Classes of each task by id, best first, found without any of the library."""
    ranked: dict[str, dict[str, list[Any]]] = {"verb": {}, "noun": {}, "action": {}}
    for id_, verb, noun in zip(scores["ids"], scores["verb"], scores["noun"], strict=True):
        ranked["verb"][id_] = sorted(range(V), key=lambda v: -verb[v])
        ranked["noun"][id_] = sorted(range(N), key=lambda n: -noun[n])
        chance = np.exp(verb)[:, None] * np.exp(noun) * (1 if priors is None else priors)
        pairs = [(v, n) for v in range(V) for n in range(N)]
        ranked["action"][id_] = sorted(pairs, key=lambda pair: -chance[pair])
    return ranked


def labels_of(segments: list[Segment]) -> dict[str, dict[str, Any]]:
    return {
        "verb": {s.id: s.verb_class for s in segments},
        "noun": {s.id: s.noun_class for s in segments},
        "action": {s.id: (s.verb_class, s.noun_class) for s in segments},
    }


def share(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


@pytest.mark.essential
@pytest.mark.parametrize("with_priors", [False, True])
def test_epic_55_by_definition(
    small: tuple[dict[str, Any], list[Segment]], with_priors: bool
) -> None:
    scores, segments = small
    priors = np.random.default_rng(1).integers(0, 4, (V, N)) + 0.5 if with_priors else None
    many_shot: dict[str, list[Any]] = {
        "verb": [0, 2, 5],
        "noun": [8, 1],
        "action": [(v, n) for v in (0, 2, 5) for n in (8, 1)],
    }
    metrics = epic_55_metrics(
        scores,
        segments,
        many_shot_verbs=many_shot["verb"],
        many_shot_nouns=many_shot["noun"],
        many_shot_actions=many_shot["action"],
        action_priors=priors,
    )
    ranked = ranked_classes(scores, priors)
    for task, labels in labels_of(segments).items():
        assert metrics["accuracy"][task] == [
            share([label in ranked[task][id_][:k] for id_, label in labels.items()]) for k in (1, 5)
        ]
        precision, recall = {}, {}
        for each in sorted(set(many_shot[task]) & set(labels.values())):
            found = [id_ for id_ in labels if ranked[task][id_][0] == each]
            wanted = [id_ for id_, label in labels.items() if label == each]
            correct = len(set(found) & set(wanted))
            precision[str(each)] = correct / len(found) if found else 0.0
            recall[str(each)] = correct / len(wanted)
        for measure, values in (("precision", precision), ("recall", recall)):
            assert metrics[measure][task] == pytest.approx(sum(values.values()) / len(values))
            if task == "verb":
                assert metrics[measure]["verb_per_class"] == values


@pytest.mark.essential
def test_epic_100_by_definition(small: tuple[dict[str, Any], list[Segment]]) -> None:
    scores, segments = small
    metrics = epic_100_metrics(
        scores, segments, tail_verbs=[1, 4], tail_nouns=[0], unseen_participants=["P02", "P77"]
    )
    ranked = ranked_classes(scores)
    tail = {
        "verb": {s.id for s in segments if s.verb_class in (1, 4)},
        "noun": {s.id for s in segments if s.noun_class == 0},
    }
    tail["action"] = tail["verb"] | tail["noun"]
    unseen = {s.id for s in segments if s.participant == "P02"}
    expected = {}
    for task, labels in labels_of(segments).items():
        for subset, ids in (("all", set(labels)), ("tail", tail[task]), ("unseen", unseen)):
            for k in (1, 5) if subset == "all" else (1,):
                hits = [labels[id_] in ranked[task][id_][:k] for id_ in ids]
                expected[f"{subset}_{task}_accuracy_at_{k}"] = pytest.approx(100 * share(hits))
    assert metrics == expected
    assert len(metrics) == 12


LISTS_100: dict[str, Any] = {"tail_verbs": [1], "tail_nouns": [0], "unseen_participants": ["P02"]}
LISTS_55: dict[str, Any] = {
    "many_shot_verbs": [0, 1],
    "many_shot_nouns": [2],
    "many_shot_actions": [(0, 2), (1, 2)],
}


def test_subsets_without_a_segment_are_left_out(
    small: tuple[dict[str, Any], list[Segment]],
) -> None:
    metrics = epic_100_metrics(
        *small, tail_verbs=[], tail_nouns=[0], unseen_participants=["P33", "P34", "P36"]
    )
    assert not [name for name in metrics if name.startswith(("unseen", "tail_verb"))]
    assert {"tail_noun_accuracy_at_1", "tail_action_accuracy_at_1"} <= metrics.keys()


def test_no_many_shot_class_among_the_labels(small: tuple[dict[str, Any], list[Segment]]) -> None:
    with warnings.catch_warnings(action="error"):
        metrics = epic_55_metrics(*small, **{**LISTS_55, "many_shot_verbs": []})
    assert math.isnan(metrics["precision"]["verb"])
    assert metrics["precision"]["verb_per_class"] == {}


@pytest.mark.parametrize(
    "actions",
    [[2, N + 2], np.array([[0, 2], [1, 2]]), torch.tensor([[0, 2], [1, 2]]), np.array([2, N + 2])],
    ids=["numbers", "an array of pairs", "a tensor of pairs", "an array of numbers"],
)
def test_forms_of_many_shot_actions(
    small: tuple[dict[str, Any], list[Segment]], actions: Any
) -> None:
    expected = epic_55_metrics(*small, **LISTS_55)
    assert epic_55_metrics(*small, **{**LISTS_55, "many_shot_actions": actions}) == expected


@pytest.mark.parametrize(
    "convert",
    [
        torch.from_numpy,
        lambda x: torch.from_numpy(x).requires_grad_(),
        lambda x: torch.from_numpy(x.copy()).T.contiguous().T,
        lambda x: x.astype(">f8"),
        lambda x: x[::-1][::-1],
        lambda x: x.tolist(),
    ],
    ids=["tensor", "with gradient", "transposed", "big endian", "negative strides", "lists"],
)
def test_forms_of_scores(small: tuple[dict[str, Any], list[Segment]], convert: Any) -> None:
    scores, segments = small
    expected = epic_55_metrics(scores, segments, **LISTS_55)
    other = {
        "ids": np.array(scores["ids"]),
        "verb": convert(scores["verb"]),
        "noun": convert(scores["noun"]),
        "video_ids": ["ignored"],
    }
    assert epic_55_metrics(other, segments, **LISTS_55) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes(small: tuple[dict[str, Any], list[Segment]], dtype: torch.dtype) -> None:
    """Scores of 16 bits give what the same numbers give in float64."""
    scores, segments = small
    low = {task: torch.from_numpy(scores[task]).to(dtype) for task in ("verb", "noun")}
    high = {task: low[task].double().numpy() for task in low}
    results = [
        epic_100_metrics({"ids": scores["ids"], **each}, segments, **LISTS_100)
        for each in (low, high)
    ]
    assert results[0] == results[1]


def test_of_equal_scores_the_lower_class_comes_first() -> None:
    segments = [Segment(f"{label}", "v", label_class=label) for label in range(6)]
    scores = {"ids": [str(label) for label in range(6)], "label": np.zeros((6, 9), np.float16)}
    assert accuracy(scores, segments) == {"label": [1 / 6, 5 / 6]}


def test_accuracy_of_the_tasks_that_have_scores(
    small: tuple[dict[str, Any], list[Segment]],
) -> None:
    scores, segments = small
    everything = epic_55_metrics(scores, segments, **LISTS_55)["accuracy"]
    assert accuracy(scores, segments) == everything
    del scores["verb"]
    assert accuracy(scores, segments) == {"noun": everything["noun"]}


def test_action_scores_of_the_callers(small: tuple[dict[str, Any], list[Segment]]) -> None:
    scores, segments = small
    sums = scores["verb"][:, :, None] + scores["noun"][:, None]
    expected = epic_55_metrics(scores, segments, **LISTS_55)
    supplied = {**scores, "action": sums.reshape(S, -1)}
    assert epic_55_metrics(supplied, segments, **LISTS_55) == expected
    worst = epic_55_metrics({**scores, "action": -sums.reshape(S, -1)}, segments, **LISTS_55)
    assert worst["accuracy"]["verb"] == expected["accuracy"]["verb"]
    assert worst["accuracy"]["action"] == [0, 0]
    with pytest.raises(
        ValueError, match=r"\(segments, verbs \* nouns\) = \(60, 63\), got \(60, 7\)"
    ):
        accuracy({**scores, "action": scores["verb"]}, segments)
    with pytest.raises(ValueError, match=r"leave out scores\['action'\]"):
        epic_55_metrics(supplied, segments, **LISTS_55, action_priors=np.ones((V, N)))
    supplied["action"][3, 0] = np.nan
    with pytest.raises(ValueError, match=rf"NaN, .* the action scores \(1\): {scores['ids'][3]}$"):
        accuracy(supplied, segments)


def test_what_is_missing_can_be_allowed(small: tuple[dict[str, Any], list[Segment]]) -> None:
    scores, segments = small
    some = {key: values[:9] for key, values in scores.items()}
    scored = [segment for segment in segments if segment.id in some["ids"]]
    for metric, lists in (
        (accuracy, {}),
        (epic_55_metrics, LISTS_55),
        (epic_100_metrics, LISTS_100),
    ):
        with pytest.raises(ValueError, match=r"segments without scores \(51\): s"):
            metric(some, segments, **lists)
        expected = metric(some, scored, **lists)
        assert metric(some, segments, **lists, allow_missing=True) == expected


def test_probabilities_are_evaluated_with_a_warning(
    small: tuple[dict[str, Any], list[Segment]], caplog: pytest.LogCaptureFixture
) -> None:
    scores, segments = small
    with caplog.at_level(logging.WARNING):
        expected = accuracy(scores, segments)
    assert not caplog.records
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        caplog.clear()
        once = {
            task: torch.from_numpy(scores[task]).softmax(1).to(dtype) for task in ("verb", "noun")
        }
        metrics = accuracy({**scores, **once}, segments)
        assert "look like probabilities" in caplog.text
    caplog.clear()
    accuracy({**scores, "noun": once["noun"]}, segments)
    assert "look like probabilities" in caplog.text, "one of the two is enough"
    assert metrics["verb"] == pytest.approx(expected["verb"], abs=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tail_verbs": [V]}, r"tail_verbs must be classes from 0 to 6, got \[7\]"),
        ({"tail_nouns": ["1"]}, r"tail_nouns must be classes from 0 to 8, got \['1'\]"),
        ({"tail_nouns": [1.0]}, r"tail_nouns must be classes .* got \[1.0\]"),
        ({"unseen_participants": "P02"}, "unseen_participants must be several, got 'P02'"),
    ],
)
def test_wrong_lists_of_epic_100(
    small: tuple[dict[str, Any], list[Segment]], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        epic_100_metrics(*small, **{**LISTS_100, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"many_shot_verbs": [-1]}, r"many_shot_verbs must be classes from 0 to 6, got \[-1\]"),
        ({"many_shot_actions": [(0, N)]}, r"nouns of many_shot_actions must be .* got \[9\]"),
        ({"many_shot_actions": [V * N]}, r"verbs of many_shot_actions must be .* got \[7\]"),
        ({"many_shot_actions": ["(0, 2)"]}, r"many_shot_actions must be pairs \(verb, noun\)"),
        ({"many_shot_actions": [(0, 1, 2)]}, r"many_shot_actions must be pairs \(verb, noun\)"),
        ({"action_priors": np.ones((N, V))}, r"\(verbs, nouns\) = \(7, 9\), got .*\(9, 7\)"),
        ({"action_priors": -np.ones((V, N))}, "action priors must be finite, not negative"),
    ],
)
def test_wrong_lists_of_epic_55(
    small: tuple[dict[str, Any], list[Segment]], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        epic_55_metrics(*small, **{**LISTS_55, **change})
