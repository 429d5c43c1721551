"""Calibration: known cases by hand, and what must hold for any answers."""

import numpy as np
import pytest

from utils.calibration import TEMPERATURES, calibration_error, fit_temperature, reliability, selective_scores


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


def test_the_temperature_that_made_the_answers_is_found():
    rng = np.random.default_rng(1)
    logit = rng.normal(0.5, 2, size=20_000)
    correct = rng.random(20_000) < 1 / (1 + np.exp(-logit / 2))  # the true temperature is 2
    probability = 1 / (1 + np.exp(-logit / TEMPERATURES[:, None]))
    fitted = fit_temperature(probability, correct)
    assert fitted == pytest.approx(2, rel=0.1)
    before, after = (calibration_error(1 / (1 + np.exp(-logit / t)), correct) for t in (1, fitted))
    assert after < 0.02 and before > 0.08
    assert 1.0 in TEMPERATURES


def test_the_surest_and_wrong_answer_costs_no_infinity():
    fit_temperature(np.ones((len(TEMPERATURES), 2)), np.array([True, False]))
    with pytest.raises(ValueError, match="no question"):
        fit_temperature(np.ones((len(TEMPERATURES), 0)), np.zeros(0, dtype=bool))


def test_a_higher_threshold_answers_less():
    probability = np.array([0.1, 0.4, 0.6, 0.9])
    rows = selective_scores(probability, np.array([0, 0, 1, 1]), thresholds=[0, 0.5, 0.95])
    assert [row["answered"] for row in rows] == [1.0, 0.5, 0.0]
    assert [row["exact_match"] for row in rows] == [50.0, 100.0, None]
