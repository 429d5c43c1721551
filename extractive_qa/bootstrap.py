"""How sure a score is, and whether two differ: the bootstrap and a randomization test over contexts. NumPy only.

Questions about one paragraph are not independent: a paragraph that is hard to read is hard for all of its questions.
So whole contexts are drawn, with all their questions; single questions would give intervals that are too narrow.

Sources: Efron and Tibshirani, 1993 (percentile intervals; clusters are resampled whole); Hesterberg, 2015 (arXiv
1411.5279: percentile intervals of few observations are too narrow, and by how much to expand them); Noreen, 1989
(approximate randomization).
"""

from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

SEED, RESAMPLES, SHUFFLES = 20, 2000, 10_000
DRAWS_AT_ONCE = 4_000_000  # numbers, whatever the number of contexts
NORMAL = NormalDist()


def resampled_sums(values: np.ndarray, context: np.ndarray, seed: int = SEED) -> np.ndarray:
    """(B, K): the sums of `values` (Q, K) over as many contexts as there are, drawn with replacement, B times. Columns
    share their draws. context: int (Q,), the number of each question's context, from 0."""
    sums = sums_by_context(values, context)
    contexts = len(sums)
    rng = np.random.default_rng(seed)
    even = np.full(contexts, 1 / contexts)
    return np.concatenate([rng.multinomial(contexts, even, size=some) @ sums for some in parts(RESAMPLES, contexts)])


def parts(count: int, width: int) -> Iterator[int]:
    """`count` rows of `width` numbers, in parts that fit the memory."""
    at_once = max(1, DRAWS_AT_ONCE // width)
    for done in range(0, count, at_once):
        yield min(at_once, count - done)


def sums_by_context(values: np.ndarray, context: np.ndarray) -> np.ndarray:
    """(C, K): what each context adds to the sums of values (Q, K)."""
    sums = np.zeros((context.max(initial=-1) + 1, values.shape[1]))
    np.add.at(sums, context, values)
    return sums


def resampled_means(values: np.ndarray, context: np.ndarray, members: np.ndarray, seed: int = SEED) -> np.ndarray:
    """(B, K): the mean of `values` over the questions of each of K groups, in each of B draws; NaN where a draw holds
    none of them. Groups and calls with the same contexts share their draws, so differences may be taken.

    values: float (Q,). context: int (Q,), from 0. members: bool (K, Q).
    """
    of_groups = members.T.astype(float)  # (Q, K)
    sums = resampled_sums(np.hstack([of_groups * values[:, None], of_groups]), context, seed)
    totals, counts = np.hsplit(sums, 2)
    with np.errstate(invalid="ignore"):
        return totals / counts


def interval(draws: np.ndarray, contexts: int) -> tuple[float, float] | None:
    """The 95 % percentile interval of bootstrap draws (B,), expanded as few contexts ask for. None from a single
    context, or where all draws are the same: then nothing is known of the spread."""
    draws = draws[np.isfinite(draws)]
    if contexts < 2 or not len(draws) or draws.min() == draws.max():
        return None
    wide = student_t(0.975, contexts - 1) * (contexts / (contexts - 1)) ** 0.5
    tail = NORMAL.cdf(-wide)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def student_t(level: float, freedom: int) -> float:
    """The quantile of Student's t, by the expansion 26.7.5 of Abramowitz and Stegun: within 1 % from 3 degrees on, and
    too small below, where the draws' extremes are the interval anyway."""
    z = NORMAL.inv_cdf(level)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom ** (i + 1) for i, term in enumerate(terms))


def randomization_test(
    difference: np.ndarray, context: np.ndarray, shuffles: int = SHUFFLES, seed: int = SEED
) -> float:
    """The p-value of two systems' mean difference: how often it is at least as large when chance decides, for each
    context, which system gave which answers. Two-sided.

    difference: float (Q,), one system's scores less the other's. context: int (Q,), from 0.
    """
    sums = sums_by_context(difference[:, None], context)[:, 0]
    found = abs(sums.sum()) - 1e-9  # sums in another order may differ in the last digit
    rng = np.random.default_rng(seed)
    as_large = sum(
        int((np.abs((rng.integers(0, 2, size=(some, len(sums))) * 2 - 1) @ sums) >= found).sum())
        for some in parts(shuffles, len(sums))
    )
    return (as_large + 1) / (shuffles + 1)
