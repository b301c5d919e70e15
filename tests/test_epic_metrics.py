"""Metrics equal those of the official programs, and of a few lines that say what they are."""

import hashlib
import json
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.segments import Segment
from epic.annotations import read_annotations
from epic.class_lists import CLASS_LISTS, read_class_list
from epic.metrics import accuracy, epic_55_metrics, epic_100_metrics

REFERENCE = json.loads(
    (Path(__file__).parent / "reference" / "evaluation" / "evaluation.json").read_text()
)
CASES_100 = REFERENCE["epic_kitchens_100"]["cases"]
CASES_55 = REFERENCE["epic_kitchens_55"]["cases"]


def official_lists(folder: Path, dataset: str) -> dict[str, Any]:
    return {
        name: read_class_list(name, folder / official.url.rsplit("/", 1)[1])
        for name, official in CLASS_LISTS[dataset].items()
    }


def made(seed: int, classes: int, labels: list[int | None]) -> np.ndarray:
    """Scores by the formula of the recorded cases."""
    scores = np.random.RandomState(seed).standard_normal((len(labels), classes))
    scores[np.arange(len(labels)), labels] += 2.5
    return scores


def assert_recorded_inputs(scores: dict[str, Any], case: dict[str, Any]) -> None:
    for task in ("verb", "noun"):
        digest = hashlib.sha256(np.ascontiguousarray(scores[task]).tobytes()).hexdigest()
        assert digest == case[f"{task}_sha256"]


@pytest.fixture(scope="module")
def validation(epic_test_data: Path) -> tuple[list[Segment], np.ndarray, np.ndarray]:
    """EPIC-KITCHENS-100's validation set and the recorded cases' scores."""
    segments = read_annotations(epic_test_data / "annotations" / "EPIC_100_validation.csv")
    verb = made(0, 97, [segment.verb_class for segment in segments])
    noun = made(1, 300, [segment.noun_class for segment in segments])
    return segments, verb, noun


def with_minus_infinity(verb: np.ndarray) -> np.ndarray:
    verb = verb.astype(np.float32)
    verb[0, 5] = -np.inf
    return verb


def offsets(seed: int, rows: int) -> np.ndarray:
    return np.random.RandomState(seed).uniform(-60, 60, (rows, 1))


FORMULAS_100: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain_float32": lambda x: x.astype(np.float32),
    "plain_float64": lambda x: x,
    "sharp_float32": lambda x: (8 * x).astype(np.float32),
    "very_sharp_float32": lambda x: (20 * x).astype(np.float32),
    "row_offset_float32": lambda x: (x + offsets(2, len(x))).astype(np.float32),
    "one_minus_inf": lambda x: with_minus_infinity(x) if x.shape[1] == 97 else x.astype(np.float32),
}
"""Of all recorded cases that have no ties, NaN or repeated rows."""


@pytest.mark.parametrize("name", FORMULAS_100)
def test_official_results_of_epic_kitchens_100(
    validation: tuple[list[Segment], np.ndarray, np.ndarray], epic_test_data: Path, name: str
) -> None:
    segments, verb, noun = validation
    case, formula = CASES_100[name], FORMULAS_100[name]
    scores = {"ids": [s.id for s in segments], "verb": formula(verb), "noun": formula(noun)}
    assert_recorded_inputs(scores, case)
    lists = official_lists(epic_test_data / "annotations", "epic-kitchens-100")
    expected = case.get("with_per_segment_softmax", case.get("official"))
    assert epic_100_metrics(scores, segments, **lists) == expected


def test_official_results_with_repeated_rows(
    validation: tuple[list[Segment], np.ndarray, np.ndarray], epic_test_data: Path
) -> None:
    """Refused as they are. Under ids of their own the repeated rows count twice, as officially."""
    segments, verb, noun = validation
    rows = [*range(len(segments)), *range(332)]
    scores = {
        "ids": [segments[row].id for row in rows],
        "verb": verb.astype(np.float32)[rows],
        "noun": noun.astype(np.float32)[rows],
    }
    case = CASES_100["padded_with_duplicates"]
    assert_recorded_inputs(scores, case)
    lists = official_lists(epic_test_data / "annotations", "epic-kitchens-100")
    with pytest.raises(ValueError, match=r"ids scored more than once \(332\): P01_11_0, "):
        epic_100_metrics(scores, segments, **lists)
    again = [replace(segment, id=f"{segment.id} again") for segment in segments[:332]]
    scores["ids"][-332:] = [segment.id for segment in again]
    assert epic_100_metrics(scores, segments + again, **lists) == case["official"]


@pytest.fixture(scope="module")
def training(epic_test_data: Path) -> tuple[list[Segment], np.ndarray, np.ndarray]:
    """EPIC-KITCHENS-55's training set and the recorded cases' scores."""
    segments = read_annotations(epic_test_data / "annotations" / "EPIC_train_action_labels.csv")
    verb = made(10, 125, [segment.verb_class for segment in segments])
    noun = made(11, 352, [segment.noun_class for segment in segments])
    return segments, verb, noun


@pytest.mark.parametrize("name", [name for name, case in CASES_55.items() if case["portable"]])
def test_official_results_of_epic_kitchens_55(
    training: tuple[list[Segment], np.ndarray, np.ndarray], epic_test_data: Path, name: str
) -> None:
    segments, verb, noun = training
    if "offset" in name:
        offset = offsets(12, len(verb))
        verb, noun = verb + offset, noun + offset
    if "rulstm" in name:
        videos = set(REFERENCE["epic_kitchens_55"]["rulstm_validation_videos"])
        rows = [row for row, segment in enumerate(segments) if segment.video in videos]
    elif "participants" in name:
        rows = [row for row, segment in enumerate(segments) if segment.participant >= "P25"]
    else:
        rows = list(range(len(segments)))
    dtype = CASES_55[name]["dtype"]
    chosen = [segments[row] for row in rows]
    scores = {
        "ids": [segment.id for segment in chosen],
        "verb": verb.astype(dtype)[rows],
        "noun": noun.astype(dtype)[rows],
    }
    assert_recorded_inputs(scores, CASES_55[name])
    lists = official_lists(epic_test_data / "annotations", "epic-kitchens-55")
    metrics = epic_55_metrics(scores, chosen, **lists)
    expected = CASES_55[name]["official"]
    assert metrics.keys() == expected.keys()
    assert metrics["accuracy"] == {
        task: pytest.approx(value, abs=1e-12) for task, value in expected["accuracy"].items()
    }
    for measure in ("precision", "recall"):
        per_class = metrics[measure].pop("verb_per_class")
        per_class_expected = dict(expected[measure])
        assert per_class == pytest.approx(per_class_expected.pop("verb_per_class"), abs=1e-12)
        assert metrics[measure] == pytest.approx(per_class_expected, abs=1e-12)


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
