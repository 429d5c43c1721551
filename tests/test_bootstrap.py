"""Intervals hold what they promise, and the test cries neither wolf nor nothing: tried on simulated questions."""

import numpy as np
import pytest

from extractive_qa import bootstrap
from extractive_qa.bootstrap import interval, randomization_test, resampled_means, student_t


def simulate(rng, contexts: int, spread: float = 1.5, most: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chances of being right (Q,), alike within a context, answers drawn from them, contexts: (Q,)."""
    size = rng.integers(1, most + 1, size=contexts)
    context = np.repeat(np.arange(contexts), size)
    chance = 1 / (1 + np.exp(-(0.5 + spread * rng.normal(size=contexts))[context]))
    return chance, (rng.random(len(chance)) < chance).astype(float), context


def coverage(contexts: int, runs: int, by_context: bool = True) -> float:
    """How often the interval holds the true mean."""
    rng = np.random.default_rng(7)
    # of all contexts there could be: every size is as likely as the next, whatever the chances
    truth = (1 / (1 + np.exp(-(0.5 + 1.5 * rng.normal(size=1_000_000))))).mean()
    held = 0
    for run in range(runs):
        _, right, context = simulate(rng, contexts)
        if not by_context:
            context = np.arange(len(right))
        draws = resampled_means(right, context, np.ones((1, len(right)), dtype=bool), seed=run)[:, 0]
        low, high = interval(draws, context.max() + 1)
        held += low <= truth <= high
    return held / runs


@pytest.mark.parametrize("contexts", [8, 25])
def test_an_interval_holds_the_truth_as_often_as_it_says(monkeypatch, contexts):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 1000)
    assert 0.92 <= coverage(contexts, runs=400) <= 0.98


def test_drawing_single_questions_would_promise_too_much(monkeypatch):
    """Why contexts are drawn."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 400)
    assert coverage(30, runs=100, by_context=False) < 0.9


def test_equal_systems_give_uniform_p_values():
    rng = np.random.default_rng(3)
    p_values = []
    for run in range(400):
        chance, right, context = simulate(rng, contexts=40)
        other = (rng.random(len(right)) < chance).astype(float)  # as good, with mistakes of its own
        right, other = (scores * rng.uniform(0.3, 1, size=len(scores)) for scores in (right, other))  # F1: few ties
        p_values.append(randomization_test(right - other, context, shuffles=500, seed=run))
    p_values = np.array(p_values)
    for level in (0.05, 0.25, 0.5, 0.75):
        chance_error = (level * (1 - level) / len(p_values)) ** 0.5
        assert (p_values <= level).mean() == pytest.approx(level, abs=3.3 * chance_error)


def test_different_systems_give_a_small_p_value_and_an_interval_without_zero():
    rng = np.random.default_rng(4)
    _, right, context = simulate(rng, contexts=300)
    better = np.maximum(right, rng.random(len(right)) < 0.2)
    assert randomization_test(better - right, context) == pytest.approx(1 / 10_001)
    draws = resampled_means(better - right, context, np.ones((1, len(right)), dtype=bool))[:, 0]
    low, high = interval(draws, 300)
    assert 0 < low < (better - right).mean() < high
    assert randomization_test(right - right, context) == 1


def test_the_same_questions_give_the_same_figures_whatever_fits_the_memory(monkeypatch):
    _, right, context = simulate(np.random.default_rng(5), contexts=30)
    members = np.stack([np.ones(len(right), dtype=bool), context < 10])
    draws, p = resampled_means(right, context, members), randomization_test(right - 0.5, context)
    monkeypatch.setattr(bootstrap, "DRAWS_AT_ONCE", 3000)
    again, p_again = resampled_means(right, context, members), randomization_test(right - 0.5, context)
    assert np.array_equal(draws, again) and p == p_again
    assert draws.mean(axis=0) == pytest.approx([right[members[0]].mean(), right[members[1]].mean()], abs=0.02)


def test_nothing_is_said_where_nothing_is_known():
    one = resampled_means(np.array([1.0, 0.0]), np.zeros(2, dtype=int), np.ones((1, 2), dtype=bool))[:, 0]
    assert interval(one, 1) is None
    assert interval(np.ones(100), 5) is None
    assert interval(np.full(100, np.nan), 5) is None


def test_students_quantiles():
    """Against published tables."""
    for freedom, expected in ((3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (10_000, 1.960)):
        assert student_t(0.975, freedom) == pytest.approx(expected, rel=0.015)
