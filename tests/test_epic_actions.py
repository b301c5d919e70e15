"""Action scores are those of the challenge's server."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epic.actions import action_scores

RECORDED = np.load(Path(__file__).parent / "reference" / "evaluation" / "action_scores.npz")


@pytest.mark.essential
@pytest.mark.parametrize(
    ("program", "dataset", "priors", "tolerance"),
    [
        ("server", "e100", None, 1e-13),  # float64
        ("e55", "e55", None, 1e-5),  # float32
        ("e55_prior", "e55", RECORDED["e55_prior"], 1e-5),
    ],
)
def test_the_official_programs_action_scores(
    program: str, dataset: str, priors: Any, tolerance: float
) -> None:
    verbs, nouns, scores = action_scores(
        RECORDED[f"{dataset}_verb"], RECORDED[f"{dataset}_noun"], priors=priors
    )
    np.testing.assert_array_equal(verbs, RECORDED[f"{program}_verbs"])
    np.testing.assert_array_equal(nouns, RECORDED[f"{program}_nouns"])
    np.testing.assert_allclose(scores, RECORDED[f"{program}_scores"], rtol=tolerance, atol=0)
    assert (verbs.dtype, nouns.dtype, scores.dtype) == (np.int64, np.int64, np.float64)


def test_the_official_offline_program_ranks_alike() -> None:
    verbs, nouns, scores = action_scores(RECORDED["e100_verb"], RECORDED["e100_noun"])
    np.testing.assert_array_equal(verbs, RECORDED["c1_verbs"])
    np.testing.assert_array_equal(nouns, RECORDED["c1_nouns"])
    assert not np.allclose(scores, RECORDED["c1_scores"], rtol=0.1), "one softmax of 12 segments"


def by_definition(
    verb: np.ndarray, noun: np.ndarray, top_k: int, priors: np.ndarray | None
) -> list[tuple[int, int]]:
    """Pairs of one segment of whole-numbered scores, best first, equal ones by rank."""
    verbs = sorted(range(len(verb)), key=lambda v: -verb[v])[:top_k]
    nouns = sorted(range(len(noun)), key=lambda n: -noun[n])[:top_k]
    weight = np.zeros((len(verb), len(noun))) if priors is None else np.log(priors)
    pairs = [(v, n) for v in verbs for n in nouns]
    return sorted(pairs, key=lambda p: -(verb[p[0]] + noun[p[1]] + weight[p]))[:top_k]


@given(st.data(), st.integers(1, 12), st.integers(1, 12), st.integers(1, 15), st.booleans())
def test_ties_and_the_cut_by_definition(
    data: st.DataObject, verbs: int, nouns: int, top_k: int, with_priors: bool
) -> None:
    """Few whole numbers: many ties. The cut matters with priors, and never changes the rest."""
    numbers = st.integers(-3, 3)
    verb = np.array(data.draw(st.lists(numbers, min_size=verbs, max_size=verbs)), dtype=np.float32)
    noun = np.array(data.draw(st.lists(numbers, min_size=nouns, max_size=nouns)), dtype=np.float32)
    seed = data.draw(st.integers(0, 99))
    priors = np.random.default_rng(seed).random((verbs, nouns)) + 0.1 if with_priors else None
    best = action_scores(verb[None], noun[None], top_k, priors)
    expected = by_definition(verb, noun, top_k, priors)
    assert list(zip(best[0][0], best[1][0], strict=True)) == expected
    assert len(expected) == min(top_k, min(verbs, top_k) * min(nouns, top_k))
    assert np.all(np.diff(best[2]) <= 0)


def test_all_actions_are_a_distribution() -> None:
    generator = np.random.default_rng(0)
    verb, noun = generator.standard_normal((3, 4)), generator.standard_normal((3, 5))
    scores = action_scores(verb, noun, 20)[2]
    assert scores.shape == (3, 20)
    np.testing.assert_allclose(scores.sum(axis=1), 1)


def test_segments_of_several_blocks_do_not_mix() -> None:
    generator = np.random.default_rng(0)
    verb, noun = generator.standard_normal((600, 11)), generator.standard_normal((600, 12))
    together = action_scores(verb, noun, 5)
    for row in (0, 255, 256, 599):
        alone = action_scores(verb[row, None], noun[row, None], 5)
        for one, all_ in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], all_[row])


def test_sharp_scores_keep_their_order() -> None:
    """Products below the smallest float64 are 0 and still ranked."""
    verbs, nouns, scores = action_scores([[0.0, 900.0, 500.0]], [[0.0, 400.0]], 6)
    ranked = [(1, 1), (1, 0), (2, 1), (2, 0), (0, 1), (0, 0)]
    assert list(zip(verbs[0], nouns[0], strict=True)) == ranked
    assert scores[0].tolist() == [1, np.exp(-400.0), np.exp(-400.0), 0, 0, 0]


def test_priors_of_zero_rule_actions_out() -> None:
    priors = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    verbs, nouns, scores = action_scores(torch.zeros(1, 2), torch.zeros(1, 2), 3, priors)
    assert (verbs[0, :2].tolist(), nouns[0, :2].tolist()) == ([0, 1], [1, 0])
    np.testing.assert_allclose(scores[0], [0.5, 0.25, 0])


OK = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("verb", "noun", "options", "message"),
    [
        (OK, OK[:1], {}, "a row for each segment, got 2 and 1 rows"),
        (OK[:0], OK[:0], {}, "got 0 and 0 rows"),
        (OK, OK[0], {}, r"noun must be real numbers .* got float64 \(3,\)"),
        (OK > 0, OK, {}, r"verb must be real numbers .* got bool \(2, 3\)"),
        (torch.zeros(2, 3, dtype=torch.complex64), OK, {}, "verb must be real .* torch.complex64"),
        (np.array([["1", "2"]] * 2), OK, {}, "verb must be real numbers .* got <U1"),
        (OK, OK[:, :0], {}, r"noun must be .* got float64 \(2, 0\)"),
        (OK, OK, {"top_k": 0}, "top_k must be a positive integer, got 0"),
        (OK, OK, {"priors": np.ones((2, 3))}, r"= \(3, 3\), got the shape \(2, 3\)"),
        (OK, OK, {"priors": np.full((3, 3), np.nan)}, "action priors must be finite"),
        (
            [[0, np.nan], [0, 1]],
            [[1, 0], [np.inf, 0]],
            {},
            r"rows of verb .*\(1\): 0; rows of noun.*\(1\): 1$",
        ),
        (OK, [[-np.inf, -np.inf], [-np.inf, 0]], {}, r"rows of noun .* or no number \(1\): 0$"),
    ],
)
def test_what_cannot_be_scored(verb: Any, noun: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        action_scores(verb, noun, **options)
