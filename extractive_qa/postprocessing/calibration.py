"""Do confidences mean what they say? Calibration error and reliability. NumPy only.

Of all answers given with a confidence of 70 %, 70 % should be right. Sources: Guo et al., 2017 (arXiv 1706.04599) for
the expected calibration error; Nguyen and O'Connor, 2015 (arXiv 1508.05154) for bins that hold equally many answers.
"""

import random
from collections.abc import Sequence

import numpy as np

from extractive_qa.errors import QAError


def split_in_halves(examples: Sequence[dict], seed: int = 0) -> np.ndarray:
    """Two halves of about equally many questions, to fit on the one and measure on the other: bool (Q,), drawn by
    `seed`. All questions on one text are on one side, and so are all texts of one article where the examples have
    `title`s.

    Raises QAError where there is only one text to ask about.
    """
    articles = [example.get("title") for example in examples]
    if None in articles or len(set(articles)) < 2:
        articles = [example["context"] for example in examples]
    questions: dict[str, list[int]] = {}
    for number, article in enumerate(articles):
        questions.setdefault(article, []).append(number)
    if len(questions) < 2:
        raise QAError(
            "Confidences can't be fitted: all questions are on one text. Expected questions on several texts."
        )
    halves: tuple[list[int], list[int]] = [], []
    order = list(questions.values())
    random.Random(seed).shuffle(order)
    for numbers in order:
        min(halves, key=len).extend(numbers)
    first = np.zeros(len(examples), dtype=bool)
    first[halves[0]] = True
    return first


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
    return sum(abs(p["confidence"] - p["accuracy"]) * p["count"] for p in points) / max(1, len(probability))


def selective_scores(
    probability: np.ndarray, exact_match: np.ndarray, thresholds: Sequence[float] = tuple(np.arange(0, 1, 0.1))
) -> list[dict]:
    """What `--min_confidence` buys, for each threshold: `min_confidence`, `answered` (share of questions whose answer
    is at least so sure, in [0, 1]), `exact_match` of those in percent (None where none is answered).

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


def report_calibration(confidence: np.ndarray, correct: np.ndarray) -> dict:
    """What metrics.json says of confidences. confidence: float (Q,), of the best answers. correct: bool (Q,)."""
    return {
        "error": calibration_error(confidence, correct),
        "reliability": reliability(confidence, correct),
        "thresholds": selective_scores(confidence, correct),
    }


def describe_calibration(report: dict) -> str:
    """A line for people out of what report_calibration gives."""
    return f"calibration error of the confidences: {report['error']:.3f}"
