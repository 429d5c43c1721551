"""How likely an answer is right, and how likely any answer is there: a logistic regression each. NumPy only.

A softmax over the spans of a text says which span is best, given that one is. That is no chance of being right: the
text may lack the answer, a model is too sure of itself or not sure enough, and an answer is right when it matches any
of several references. So a calibrator learns that chance from questions whose answers are known, from a few features of
the scores. Platt, 1999; Guo et al., 2017 (arXiv 1706.04599); Kamath et al., 2020 (arXiv 2006.09462).
"""

import numpy as np

# each a float of the question: see features_of
FEATURES = ("intercept", "log_odds", "margin", "log_windows")
TARGETS = ("right", "answerable")
PENALTY = 1.0  # on the squared distance of the weights from those at the start, halved
LARGEST = 30.0  # of a log-odds: beyond it float64 can't tell 1 - p from 0


def features_of(best_score: np.ndarray, log_normaliser: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """float64 (Q, FEATURES) of Q questions: 1; the log-odds of the best span in the softmax over all spans; its score,
    which is its margin over [CLS]; the logarithm of the number of windows.

    best_score: float (Q,), the start logit plus the end logit, each less its window's logit of [CLS]. log_normaliser:
    float (Q,), of all spans of all windows, at least best_score. windows: int (Q,).
    """
    log_probability = np.minimum(best_score - log_normaliser, 0.0)
    with np.errstate(divide="ignore"):  # log(0) where there is one span alone
        log_odds = log_probability - np.log(-np.expm1(log_probability))
    ones, logarithm = np.ones(len(best_score)), np.log(np.maximum(windows, 1))
    return np.stack([ones, np.clip(log_odds, -LARGEST, LARGEST), best_score, logarithm], axis=1)


def apply_calibrator(calibrator: dict, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chance that the best span is right, and that any answer is there, float (Q,) each, the first no more than
    the second. calibrator: {target: {feature: weight}}, as fit_calibrator gives it."""
    right, answerable = (
        sigmoid(features @ np.array([calibrator[target][name] for name in FEATURES])) for target in TARGETS
    )
    return np.minimum(right, answerable), answerable


def is_absent(answerable: float | None) -> bool:
    """Whether a text is said to hold no answer, by the chance that it holds one; None: not known."""
    return answerable is not None and answerable < 0.5


def fit_calibrator(
    features: np.ndarray, right: np.ndarray, answerable: np.ndarray, weights: np.ndarray, earlier: dict | None = None
) -> dict[str, dict[str, float]]:
    """The calibrator that fits best: logistic regressions of `right` and of `answerable`, bool (Q,), on the features,
    float (Q, FEATURES), with a small penalty on leaving `earlier`, or where there is none the softmax as it is.

    weights: float (2, Q), how much each question counts for either target. Where all or no questions are right or
    answerable, that target is fitted likewise, and the penalty keeps its weights finite.
    """
    fitted = {}
    for target, truth, counts in zip(TARGETS, (right, answerable), weights, strict=True):
        start = earlier[target] if earlier else {"log_odds": float(target == "right")}
        prior = np.array([start.get(name, 0.0) for name in FEATURES])
        fitted[target] = dict(zip(FEATURES, logistic_regression(features, truth, counts, prior).tolist(), strict=True))
    return fitted


def logistic_regression(features: np.ndarray, truth: np.ndarray, weights: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """The weights of the features, float (F,), that maximize the weighted likelihood of `truth`, bool (Q,), less
    PENALTY / 2 times their squared distance from `prior`. By Newton's method on columns of like size, the steps halved
    where they lead nowhere."""
    scale = np.maximum(np.abs(features).max(axis=0, initial=0.0), 1e-9)
    columns, penalty, beta = features / scale, PENALTY / scale**2, prior * scale

    def loss(beta: np.ndarray) -> float:
        log_odds = columns @ beta
        likelihood = weights @ (np.logaddexp(0, log_odds) - truth * log_odds)
        return float(likelihood + penalty @ (beta - prior * scale) ** 2 / 2)

    for _ in range(100):
        chance = sigmoid(columns @ beta)
        gradient = columns.T @ (weights * (chance - truth)) + penalty * (beta - prior * scale)
        hessian = (columns * (weights * chance * (1 - chance))[:, None]).T @ columns + np.diag(penalty)
        step, size, before = np.linalg.solve(hessian, gradient), 1.0, loss(beta)
        while size > 1e-6 and loss(beta - size * step) > before:
            size /= 2
        beta = beta - size * step
        if before - loss(beta) < 1e-10 * max(1.0, before):
            break
    return beta / scale


def sigmoid(log_odds: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-log_odds)), without overflow."""
    return np.exp(-np.logaddexp(0, -log_odds))


def spread_confidence(probability: np.ndarray, references: float | np.ndarray) -> np.ndarray:
    """The confidences of the best answers of each question, (Q, n_best) with the best first, from their softmax: the
    chance that an answer matches one of `references`, at least 0 and not always whole, when it matches each with
    `probability`: 1 - (1 - p) ** references. Each is as the best of what those before it leave over, so that the first
    k together have that of their sum. Order and a sum of at most 1 stay. references: a number, or (Q,); 1 changes
    nothing, to the last bit."""
    if isinstance(references, float | int) and references == 1:
        return probability
    references = np.reshape(references, (-1, 1))
    taken = np.cumsum(probability, axis=1)[:, :-1]
    left = np.maximum(1 - np.pad(taken, ((0, 0), (1, 0))), np.finfo(float).tiny)
    with np.errstate(divide="ignore"):  # log(0) where nothing is left
        matched = -(left**references) * np.expm1(references * np.log1p(-np.minimum(probability / left, 1)))
    return np.minimum.accumulate(matched, axis=1)  # as it is, but for rounding


def set_confidence(probability: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """The same where the best answer's confidence is known, float (Q,): the others' follow from it."""
    nearly = 1 - 1e-12
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 where there is no answer
        references = np.log1p(-np.minimum(confidence, nearly)) / np.log1p(-np.minimum(probability[:, 0], nearly))
    spread = spread_confidence(probability, np.where(np.isfinite(references), references, 1.0))
    first = np.where(probability[:, 0] > 0, confidence, 0.0)
    return np.minimum.accumulate(np.concatenate([first[:, None], spread[:, 1:]], axis=1), axis=1)


def check_calibrator(calibrator: object) -> list[str]:
    """What is wrong with a calibrator out of a file; None is that there is none."""
    if calibrator is None:
        return []
    expected = f"expected {' and '.join(TARGETS)}, each with numbers for {', '.join(FEATURES)}"
    for target in TARGETS:
        weights = calibrator.get(target) if isinstance(calibrator, dict) else None
        numbers = [weights.get(name) for name in FEATURES] if isinstance(weights, dict) else [None]
        if not all(type(number) in (int, float) and abs(number) < 1e9 for number in numbers):
            return [f"calibrator's {target} is {weights!r:.60}, {expected}"]
    return []
