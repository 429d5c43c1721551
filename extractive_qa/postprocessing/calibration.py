"""Does a confidence mean what it says? Calibration error, reliability, and two numbers that fix them. NumPy only.

Of all answers given with a confidence of 70 %, 70 % should be right. Two things stand in the way: a model may be too
sure of itself or not sure enough (its temperature), and it learns one reference for each question, while an answer is
right when it matches any (its references: any_reference_probability). Sources: Guo et al., 2017 (arXiv 1706.04599) for
temperature scaling and the expected calibration error; Nguyen and O'Connor, 2015 (arXiv 1508.05154) for bins that hold
equally many answers.
"""

import random
from collections.abc import Sequence

import numpy as np

from extractive_qa.errors import QAError

# what a temperature is chosen from: 2 ** (k / 8), from 1/4 (surer than trained) over 1 to 4 (less sure)
TEMPERATURES = 2.0 ** np.arange(-2, 2.0625, 0.125)
# how many references an answer may match, chosen likewise, from 1 to 16
REFERENCES = 2.0 ** np.arange(0, 4.0625, 0.125)


def fit_confidence(
    probability: np.ndarray, correct: np.ndarray, references: np.ndarray = REFERENCES
) -> tuple[float, float]:
    """The one of TEMPERATURES and the one of `references` (for any_reference_probability) whose confidences fit best:
    the least mean log loss of `correct` given the confidence.

    probability: float (TEMPERATURES, Q), of the best answer of each of Q questions at each temperature. correct: bool
    (Q,). Raises ValueError where there is no question.
    """
    if not len(correct):
        raise ValueError("a temperature can't be fitted to no question")
    best = np.inf, 1.0, 1.0
    for temperature, given in zip(TEMPERATURES, probability, strict=True):
        sure = np.clip(any_reference_probability(given, references[:, None]), 1e-6, 1 - 1e-6)  # (R, Q)
        loss = -np.where(correct, np.log(sure), np.log1p(-sure)).mean(axis=1)
        best = min(best, (loss.min(), float(temperature), float(references[loss.argmin()])))
    return best[1:]


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


def report_calibration(confidence: np.ndarray, uncalibrated: np.ndarray, correct: np.ndarray, settings: dict) -> dict:
    """What metrics.json says of confidences. confidence, uncalibrated: float (Q,), of the best answers with the
    `temperature` and `references` of a reader's `settings`, and with neither. correct: bool (Q,)."""
    return {
        "temperature": settings["temperature"],
        "references": settings["references"],
        "error": calibration_error(confidence, correct),
        "error_uncalibrated": calibration_error(uncalibrated, correct),
        "reliability": reliability(confidence, correct),
        "thresholds": selective_scores(confidence, correct),
    }


def fit_and_report(
    probability: np.ndarray,
    correct: np.ndarray,
    fitted_on: np.ndarray,
    measured_on: np.ndarray,
    references: np.ndarray = REFERENCES,
) -> dict:
    """What report_calibration says of the questions `measured_on`, with what fit_confidence finds on `fitted_on`; and
    how many these are. Both bool (Q,), the others as fit_confidence has them."""
    found = fit_confidence(probability[:, fitted_on], correct[fitted_on], references)
    fitted = dict(zip(("temperature", "references"), found, strict=True))
    softmax, uncalibrated = (
        probability[np.searchsorted(TEMPERATURES, some), measured_on] for some in (fitted["temperature"], 1.0)
    )
    confidence = any_reference_probability(softmax, fitted["references"])
    report = report_calibration(confidence, uncalibrated, correct[measured_on], fitted)
    return report | {"fitted_on": int(fitted_on.sum()), "measured_on": int(measured_on.sum())}


def describe_calibration(report: dict) -> str:
    """A line for people out of what report_calibration gives."""
    line = f"calibration error of the confidences: {report['error']:.3f}"
    fitted = (report["temperature"], report["references"]) != (1, 1)
    return f"{line} ({report['error_uncalibrated']:.3f} as trained)" if fitted else line


def any_reference_probability(probability: np.ndarray, references: float | np.ndarray) -> np.ndarray:
    """The probability that an answer equals at least one of several references, when it equals each with `probability`,
    independently: 1 - (1 - p) ** references. A softmax is trained on one reference, but an answer is right when it
    matches any. `references`, at least 1, need not be whole."""
    with np.errstate(divide="ignore"):  # log(0) where p is 1
        return -np.expm1(references * np.log1p(-probability))


def any_reference_probabilities(probability: np.ndarray, references: float) -> np.ndarray:
    """The same for the best answers of each question, (Q, n_best) with the best first: each as the best of what those
    before it leave over, so that the first k together have that of their sum. Order and a sum of at most 1 stay. 1
    reference changes nothing, to the last bit."""
    if references == 1:
        return probability
    taken = np.cumsum(probability, axis=1)[:, :-1]
    left = np.maximum(1 - np.pad(taken, ((0, 0), (1, 0))), np.finfo(float).tiny)
    matched = left**references * any_reference_probability(np.minimum(probability / left, 1), references)
    return np.minimum.accumulate(matched, axis=1)  # as it is, but for rounding
