"""Calibration: known cases by hand, and what must hold for any answers."""

import numpy as np
import pytest

from extractive_qa.errors import QAError
from extractive_qa.postprocessing.calibration import (
    calibration_error,
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


def test_a_higher_threshold_answers_less():
    probability = np.array([0.1, 0.4, 0.6, 0.9])
    rows = selective_scores(probability, np.array([0, 0, 1, 1]), thresholds=[0, 0.5, 0.95])
    assert [row["answered"] for row in rows] == [1.0, 0.5, 0.0]
    assert [row["exact_match"] for row in rows] == [50.0, 100.0, None]
