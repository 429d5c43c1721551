"""Does a confidence mean what it says? Calibration error, reliability, and the temperature that mends them. NumPy only.

Of all answers given with a confidence of 70 %, 70 % should be right. Sources: Guo et al., 2017 (arXiv 1706.04599) for
temperature scaling and the expected calibration error; Nguyen and O'Connor, 2015 (arXiv 1508.05154) for bins that hold
equally many answers.
"""

from collections.abc import Sequence

import numpy as np

# what a temperature is chosen from: 2 ** (k / 8), from 1/4 (surer than trained) over 1 to 4 (less sure)
TEMPERATURES = 2.0 ** np.arange(-2, 2.0625, 0.125)


def fit_temperature(probability: np.ndarray, correct: np.ndarray) -> float:
    """The one of TEMPERATURES whose confidences fit best: the least mean log loss of `correct` given the confidence.

    probability: float (T, Q), of the best answer of each of Q questions at each of T temperatures. correct: bool (Q,).
    Raises ValueError where there is no question.
    """
    if not len(correct):
        raise ValueError("a temperature can't be fitted to no question")
    sure = np.clip(probability, 1e-6, 1 - 1e-6)
    loss = -np.where(correct, np.log(sure), np.log1p(-sure)).mean(axis=1)  # (T,)
    return float(TEMPERATURES[loss.argmin()])


def reliability(probability: np.ndarray, correct: np.ndarray, bins: int = 10) -> list[dict]:
    """The reliability diagram's points, from the least sure answers to the surest: `bins` bins of equal mass (fewer
    where there are fewer answers), each with `confidence` (mean), `accuracy` (share of correct ones) and `count`.

    probability: float (Q,) in [0, 1]. correct: bool (Q,).
    """
    order = np.argsort(probability, kind="stable")
    return [
        {
            "confidence": float(probability[some].mean()),
            "accuracy": float(np.asarray(correct)[some].mean()),
            "count": len(some),
        }
        for some in np.array_split(order, bins)
        if len(some)
    ]


def calibration_error(probability: np.ndarray, correct: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error in [0, 1]: the mean over all answers of |confidence - accuracy| of their bin. 0 where
    there is no answer. Arguments as for `reliability`."""
    points = reliability(probability, correct, bins)
    return sum(abs(point["confidence"] - point["accuracy"]) * point["count"] for point in points) / max(
        1, len(probability)
    )


def selective_scores(
    probability: np.ndarray, exact_match: np.ndarray, thresholds: Sequence[float] = tuple(np.arange(0, 1, 0.1))
) -> list[dict]:
    """What `--min_confidence` buys, each threshold: `min_confidence`, `answered` (share of questions whose answer is
    at least so sure, in [0, 1]), `exact_match` of those in percent (None where none is answered).

    probability: float (Q,). exact_match: bool or 0/1 (Q,).
    """
    rows = []
    for threshold in thresholds:
        kept = probability >= threshold
        rows.append(
            {
                "min_confidence": round(float(threshold), 4),
                "answered": float(kept.mean()) if len(kept) else 0.0,
                "exact_match": 100 * float(np.asarray(exact_match)[kept].mean()) if kept.any() else None,
            }
        )
    return rows
