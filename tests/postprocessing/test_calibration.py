"""Calibration: known cases by hand, and what must hold for any answers."""

import numpy as np
import pytest

from extractive_qa.errors import QAError
from extractive_qa.postprocessing.calibration import (
    REFERENCES,
    TEMPERATURES,
    any_reference_probabilities,
    any_reference_probability,
    calibration_error,
    fit_and_report,
    fit_confidence,
    reliability,
    selective_scores,
    split_in_halves,
)


def test_answers_as_sure_as_they_are_right_have_no_error():
    probability = np.repeat([0.2, 0.8], 10)
    correct = np.tile(np.arange(10) < 2, 2) ^ np.repeat([False, True], 10)  # 2 of 10, then 8 of 10
    assert calibration_error(probability, correct, bins=2) == pytest.approx(0)


def test_the_error_of_certain_answers_is_the_share_of_wrong_ones():
    correct = np.arange(20) < 15
    assert calibration_error(np.ones(20), correct) == pytest.approx(0.25)
    assert calibration_error(np.ones(0), correct[:0]) == 0


def test_bins_hold_equally_many_answers_in_order():
    rng = np.random.default_rng(0)
    points = reliability(rng.random(103), rng.random(103) < 0.5)
    assert sorted({point["count"] for point in points}) == [10, 11] and sum(p["count"] for p in points) == 103
    confidences = [point["confidence"] for point in points]
    assert confidences == sorted(confidences)
    assert len(reliability(np.array([0.5]), np.array([True]))) == 1


@pytest.mark.parametrize(("temperature", "references"), [(2.0, 1.0), (0.5, 1.0), (1.0, 4.0), (2.0, 4.0)])
def test_the_temperature_and_references_that_made_the_answers_are_found(temperature, references):
    rng = np.random.default_rng(1)
    logit = rng.normal(-0.5, 2, size=8_000)
    probability = 1 / (1 + np.exp(-logit / TEMPERATURES[:, None]))
    correct = rng.random(8_000) < any_reference_probability(1 / (1 + np.exp(-logit / temperature)), references)
    found = fit_confidence(probability, correct)
    assert found == pytest.approx((temperature, references), rel=0.2)
    half = np.arange(8_000) < 4_000
    report = fit_and_report(probability, correct, half, ~half)
    assert (report["fitted_on"], report["measured_on"]) == (4_000, 4_000)
    assert report["error"] < 0.03
    assert report["error_uncalibrated"] > 0.05
    assert 1.0 in TEMPERATURES and 1.0 in REFERENCES


def test_an_answer_matches_any_of_several_references():
    assert any_reference_probability(np.array([0, 0.5, 1]), 2) == pytest.approx([0, 0.75, 1])
    assert any_reference_probability(np.array([1e-12]), 3) == pytest.approx([3e-12])
    probability = np.array([[0.5, 0.3, 0.2], [1, 0, 0], [0.2, 0.2, 0.1]])
    assert any_reference_probabilities(probability, 1.0) is probability
    found = any_reference_probabilities(probability, 2.5)
    assert found[:, 0] == pytest.approx(any_reference_probability(probability[:, 0], 2.5))
    assert (np.diff(found, axis=1) <= 0).all() and (found.sum(axis=1) <= 1 + 1e-12).all()
    # the first k together match any reference as one answer with their sum would
    assert np.cumsum(found, axis=1) == pytest.approx(
        any_reference_probability(np.cumsum(probability, axis=1).clip(max=1), 2.5)
    )
    assert any_reference_probabilities(np.array([[0.5, 1e-12]]), 3)[0, 1] == pytest.approx(0.25 * 3e-12)
    rounded = any_reference_probabilities(np.array([[0.6, 0.3, 0.1 + 1e-12]]), 3)  # a sum of 1, and a little more
    assert np.isfinite(rounded).all() and rounded.sum() == pytest.approx(1)


def test_second_answers_are_right_as_often_as_they_say():
    rng = np.random.default_rng(5)
    softmax = rng.dirichlet([0.6, 0.4, 0.3, 2.0], 40_000)
    softmax = -np.sort(-softmax[:, :3], axis=1)  # the fourth stands for all other spans
    # three references, each drawn by the softmax: the first answer that is among them is the right one
    thrown = rng.random((3, 40_000, 1))
    edges = np.cumsum(softmax, axis=1)
    drawn = (thrown[..., None] < edges[:, None, :]).argmax(-1) + 3 * (thrown >= edges[:, -1:])
    first_right = drawn.min(axis=(0, 2))
    given = any_reference_probabilities(softmax, 3)
    for k in range(3):
        assert given[:, k].mean() == pytest.approx((first_right == k).mean(), abs=0.01)
        assert calibration_error(given[:, k], first_right == k) < 0.02


def texts(*counts: int) -> list[dict]:
    """So many questions on each of several texts, mixed; two texts make an article."""
    rows = [{"context": f"text {i}", "title": f"article {i // 2}"} for i, n in enumerate(counts) for _ in range(n)]
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]


@pytest.mark.parametrize("name", ["title", "context"])
def test_halves_share_no_article_and_no_text(name):
    examples = texts(*range(1, 25))
    if name == "context":
        examples = [{"context": example["context"]} for example in examples]
    drawn = [split_in_halves(examples, seed) for seed in range(3)]
    for first in drawn:
        one, other = ({examples[i][name] for i in np.flatnonzero(half)} for half in (first, ~first))
        assert not one & other
        assert abs(first.mean() - 0.5) < 0.1
    assert np.array_equal(drawn[0], split_in_halves(examples)) and not np.array_equal(drawn[0], drawn[1])


def test_one_article_is_split_by_its_texts_and_one_text_is_not():
    assert split_in_halves(texts(5, 5)).sum() == 5
    with pytest.raises(QAError, match="one text"):
        split_in_halves(texts(9))


def test_the_surest_and_wrong_answer_costs_no_infinity():
    fit_confidence(np.ones((len(TEMPERATURES), 2)), np.array([True, False]))
    with pytest.raises(ValueError, match="no question"):
        fit_confidence(np.ones((len(TEMPERATURES), 0)), np.zeros(0, dtype=bool))


def test_a_higher_threshold_answers_less():
    probability = np.array([0.1, 0.4, 0.6, 0.9])
    rows = selective_scores(probability, np.array([0, 0, 1, 1]), thresholds=[0, 0.5, 0.95])
    assert [row["answered"] for row in rows] == [1.0, 0.5, 0.0]
    assert [row["exact_match"] for row in rows] == [50.0, 100.0, None]
