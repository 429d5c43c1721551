"""The calibrator: what is found again in made-up answers, and what must hold for any."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractive_qa.postprocessing.calibration import calibration_error
from extractive_qa.postprocessing.confidence import (
    FEATURES,
    apply_calibrator,
    check_calibrator,
    features_of,
    fit_calibrator,
    logistic_regression,
    set_confidence,
    sigmoid,
    spread_confidence,
)

WEIGHTS = {"intercept": -1.0, "log_odds": 0.5, "margin": 0.25, "log_windows": -0.75}
TRUE = {"right": WEIGHTS, "answerable": WEIGHTS | {"intercept": 1.0}}


def questions(count: int, seed: int = 0) -> np.ndarray:
    """Features of so many made-up questions."""
    random = np.random.default_rng(seed)
    score, windows = random.normal(2, 4, count), random.integers(1, 20, count)
    return features_of(score, score + random.gamma(1, 1, count), windows)


def test_the_weights_that_made_the_answers_are_found():
    features, random = questions(20_000), np.random.default_rng(1)
    right, answerable = (random.random(20_000) < chance for chance in apply_calibrator(TRUE, features))
    found = fit_calibrator(features, right, answerable, np.ones((2, 20_000)))
    for target, weights in TRUE.items():
        assert found[target] == pytest.approx(weights, abs=0.12)
    others = questions(5_000, 2)
    right = random.random(5_000) < apply_calibrator(TRUE, others)[0]
    assert calibration_error(apply_calibrator(found, others)[0], right) < 0.03


def test_a_row_that_counts_twice_is_as_two_rows():
    features, random = questions(200), np.random.default_rng(3)
    truth, twice = random.random(200) < 0.4, np.arange(200) % 3 == 0
    prior = np.zeros(len(FEATURES))
    weighted = logistic_regression(features, truth, 1.0 + twice, prior)
    rows = np.concatenate([np.arange(200), np.flatnonzero(twice)])
    assert weighted == pytest.approx(
        logistic_regression(features[rows], truth[rows], np.ones(len(rows)), prior), abs=1e-5
    )


@pytest.mark.parametrize("right", [np.ones(50, bool), np.zeros(50, bool), np.arange(50) < 25])
def test_where_nothing_or_everything_tells_right_from_wrong_the_weights_stay_finite(right):
    features = questions(50)
    features[:, 2] = np.where(right, 1e4, -1e4)
    found = fit_calibrator(features, right, right, np.ones((2, 50)))
    assert np.isfinite([*found["right"].values()]).all()
    chance, _ = apply_calibrator(found, features)
    assert ((chance > 0.5) == right).all()


def test_without_a_question_the_earlier_calibrator_stays_and_without_that_the_softmax():
    nothing = np.zeros((0, len(FEATURES))), np.zeros(0, bool), np.zeros(0, bool), np.zeros((2, 0))
    assert fit_calibrator(*nothing, earlier=TRUE) == TRUE
    score, normaliser = np.array([1.0, 3.0]), np.array([2.0, 3.5])
    right = fit_calibrator(*nothing)["right"]
    assert sigmoid(features_of(score, normaliser, np.ones(2)) @ [right[name] for name in FEATURES]) == pytest.approx(
        np.exp(score - normaliser)
    )


def test_an_answer_is_right_no_more_likely_than_there_is_any():
    features = questions(100)
    right, answerable = apply_calibrator({"right": TRUE["answerable"], "answerable": TRUE["right"]}, features)
    assert (right == answerable).all()


@pytest.mark.parametrize(("score", "normaliser"), [(0.0, 0.0), (5.0, 5.0), (-1e6, 1e6), (3.0, 3.0 - 1e-9)])
def test_features_of_any_scores_are_finite(score, normaliser):
    assert np.isfinite(features_of(np.array([score]), np.array([normaliser]), np.array([0]))).all()


SOFTMAX = st.lists(st.floats(0, 1), min_size=1, max_size=5).map(
    lambda parts: -np.sort(-np.array(parts)) / max(1.0, sum(parts))
)


@given(SOFTMAX, st.floats(0, 1))
def test_the_best_has_its_confidence_and_the_others_fall_behind_it(probability, confidence):
    found = set_confidence(probability[None], np.array([confidence]))[0]
    assert found[0] == (confidence if probability[0] > 0 else 0)
    assert (np.diff(found) <= 0).all() and found.sum() <= 1 + 1e-9 and (found >= 0).all()


def test_an_answer_matches_any_of_several_references():
    assert spread_confidence(np.array([[0], [0.5], [1]]), 2)[:, 0] == pytest.approx([0, 0.75, 1])
    assert spread_confidence(np.array([[1e-12]]), 3)[0, 0] == pytest.approx(3e-12)
    probability = np.array([[0.5, 0.3, 0.2], [1, 0, 0], [0.2, 0.2, 0.1]])
    assert spread_confidence(probability, 1.0) is probability
    found = spread_confidence(probability, 2.5)
    assert (np.diff(found, axis=1) <= 0).all() and (found.sum(axis=1) <= 1 + 1e-12).all()
    # the first k together match any reference as one answer with their sum would
    assert np.cumsum(found, axis=1) == pytest.approx(1 - (1 - np.cumsum(probability, axis=1).clip(max=1)) ** 2.5)
    rounded = spread_confidence(np.array([[0.6, 0.3, 0.1 + 1e-12]]), 3)  # a sum of 1, and a little more
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
    for given_ in (spread_confidence(softmax, 3), set_confidence(softmax, 1 - (1 - softmax[:, 0]) ** 3)):
        for k in range(3):
            assert given_[:, k].mean() == pytest.approx((first_right == k).mean(), abs=0.01)
            assert calibration_error(given_[:, k], first_right == k) < 0.02


@pytest.mark.parametrize(
    "calibrator",
    [
        {}, [], "yes", 3, {"right": WEIGHTS}, TRUE | {"answerable": None}, TRUE | {"right": WEIGHTS | {"margin": "1"}},
        TRUE | {"right": WEIGHTS | {"margin": float("nan")}}, TRUE | {"right": {"intercept": 1.0}},
        TRUE | {"right": WEIGHTS | {"margin": 10**400}},
    ],
)  # fmt: skip
def test_a_damaged_calibrator_is_named(calibrator):
    (problem,) = check_calibrator(calibrator)
    assert "expected right and answerable" in problem


def test_a_calibrator_or_none_is_taken():
    assert check_calibrator(None) == check_calibrator(TRUE) == []
