"""Logits to answers: the best spans of each window, and the answer of all windows of a question. NumPy only.

The score of a span is its start logit plus its end logit, each less its window's logit of [CLS]. Its probability is one
softmax over all allowed spans of all windows of the question: spans inside the context, in order, of at most
`max_answer_length` tokens. A window keeps its few best spans and the logarithm of its share of the softmax's
denominator, so logits need not outlive their batch, and windows merge in any order. Two windows that overlap see a span
twice: it counts with its better score.
"""

from bisect import bisect_left
from collections.abc import Sequence
from math import exp, inf, log1p

import numpy as np


def relative_to_cls(logits: np.ndarray) -> np.ndarray:
    """(B, L) logits less each window's logit of its first token, [CLS]: training points there when the answer is in
    another window, so this is what makes windows comparable (measured: docs/RESULTS.md). Within one window nothing
    changes."""
    return logits - logits[:, :1]


def best_spans(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    context_start: np.ndarray,
    context_end: np.ndarray,
    n_best: int = 1,
    max_answer_length: int = 30,
    temperature: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The n_best best spans of each window that share no token, chosen greedily from the best down.

    start_logits, end_logits: float (B, L). context_start, context_end: int (B,), the context's tokens in each window,
    end exclusive. max_answer_length: tokens.

    Returns first token and last token (inclusive) int64 (B, n_best); score / temperature float64 (B, n_best), falling,
    -inf where a window has no further span; log_normaliser float64 (B,): log of the sum of exp(score / temperature)
    over all allowed spans, -inf where there is none.
    """
    rows, length = start_logits.shape
    position = np.arange(length)
    inside = (position >= context_start[:, None]) & (position < context_end[:, None])
    starts = np.where(inside, start_logits, -np.inf) / temperature  # (B, L)
    ends = np.where(inside, end_logits, -np.inf) / temperature
    ends = np.pad(ends, ((0, 0), (0, max_answer_length - 1)), constant_values=-np.inf)
    log_normaliser = log_sum_of_spans(starts, ends, max_answer_length)

    # tables over all tokens of all rows in one line; a row is `stride` long, so that no span leaves it at the end
    stride, width = length + max_answer_length - 1, np.arange(max_answer_length)
    best_from = np.full((rows, stride), -np.inf, dtype=starts.dtype)  # the best span from each token
    best_from[:, :length] = starts + reduce_windows(np.maximum, ends, max_answer_length)
    limit = np.tile(np.arange(stride) + max_answer_length - 1, rows)  # the last token that a span from each may reach
    row, ends, flat = np.arange(rows) * stride, ends.ravel(), best_from.ravel()
    starts = np.pad(starts, ((0, 0), (0, max_answer_length - 1)), constant_values=-np.inf).ravel()
    first = np.zeros((rows, n_best), dtype=np.int64)
    last = np.zeros((rows, n_best), dtype=np.int64)
    best = np.full((rows, n_best), -np.inf)
    for n in range(n_best):
        i = best_from.argmax(axis=1)
        best[:, n] = flat[row + i]
        span = (row + i)[:, None] + width  # (B, W)
        room = (limit[row + i] - i)[:, None]
        j = np.where(width <= room, ends[np.minimum(span, len(ends) - 1)], -np.inf).argmax(axis=1)
        first[:, n], last[:, n] = i, i + j
        if n + 1 == n_best or best[:, n].max() == -np.inf:
            break
        # no later span may share a token with this one: none begins in it, ...
        flat[span[width <= j[:, None]]] = -np.inf
        # ... and those from before end before it, unless another one stops them earlier still
        before = np.maximum(i[:, None] - 1 - width[:-1], 0)  # (B, W - 1), falling
        tokens = row[:, None] + before
        r, k = np.nonzero((limit[tokens] >= i[:, None]) & (width[:-1] < i[:, None]))
        best_end = np.maximum.accumulate(ends[tokens], axis=1)  # of the ends from each token to the one before i
        tokens = tokens[r, k]
        free = flat[tokens] > -np.inf
        flat[tokens] = np.where(free, starts[tokens] + best_end[r, k], -np.inf)
        limit[tokens] = i[r] - 1
    return first, last, best, log_normaliser


def reduce_windows(reduce: np.ufunc, values: np.ndarray, width: int) -> np.ndarray:
    """`reduce` (np.add or np.maximum) over each window of `width` neighbours, (B, L) from (B, L + width - 1), in about
    log2(width) steps: windows of 1, 2, 4, ... are made of two halves, and the wanted ones of those."""
    length = values.shape[1] - width + 1
    total, done, size = None, 0, 1
    while done < width:
        if width & size:
            part = values[:, done : done + length]
            total = part if total is None else reduce(total, part)
            done += size
        values = reduce(values[:, :-size], values[:, size:]) if size * 2 <= width else values
        size *= 2
    return total


def log_sum_of_spans(starts: np.ndarray, ends: np.ndarray, max_answer_length: int) -> np.ndarray:
    """log of the sum of exp(start + end) over all allowed spans, (B,), from (B, L) and (B, L + max_answer_length - 1)
    with -inf at what is not allowed."""
    highest_start = starts.max(axis=1, initial=-1e30, keepdims=True)
    highest_end = ends.max(axis=1, initial=-1e30, keepdims=True)
    weights = np.exp((ends - highest_end).astype(np.float64))
    sums = reduce_windows(np.add, weights, max_answer_length)  # (B, L)
    total = (np.exp((starts - highest_start).astype(np.float64)) * sums).sum(axis=1)
    with np.errstate(divide="ignore"):
        log_sum = np.log(np.where(total > 1e-200, total, 0)) + (highest_start + highest_end)[:, 0]
    for b in np.flatnonzero(log_sum == -np.inf):  # its best start and best end lie in no span: too small a sum
        spans = starts[b][:, None] + np.lib.stride_tricks.sliding_window_view(ends[b], max_answer_length)
        finite = spans[np.isfinite(spans)].astype(np.float64)
        log_sum[b] = np.logaddexp.reduce(finite) if len(finite) else -np.inf
    return log_sum


def merge_windows(
    spans: Sequence[tuple[int, int, float]], log_normalisers: Sequence[float], context: str, n_best: int = 1
) -> list[dict]:
    """The n_best best answers of a question from the spans of all its windows, best first, none overlapping another.

    spans: (start, end, score) with characters into `context`, end exclusive, the score as best_spans gives it.
    log_normalisers: one for each window.

    Returns dicts of text, start, end, probability; [] where no window has a span.
    """
    candidates = sorted((-score, start, end) for start, end, score in spans if end > start and score > -inf)
    if not candidates:
        return []
    log_total = float(np.logaddexp.reduce(log_normalisers)) if len(log_normalisers) > 1 else log_normalisers[0]
    # a span that several windows see, or several tokens of one character, is one span: its lesser scores leave the sum
    seen, repeated = set(), 0.0
    for negative_score, start, end in candidates:
        repeated += exp(-negative_score - log_total) if (start, end) in seen else 0.0
        seen.add((start, end))
    log_total += log1p(-min(repeated, 1 - 1e-12))
    log_total = max(log_total, -candidates[0][0])
    answers: list[dict] = []
    taken: list[tuple[int, int]] = []  # from left to right
    for negative_score, start, end in candidates:
        place = bisect_left(taken, (start, end))
        if (place and taken[place - 1][1] > start) or (place < len(taken) and taken[place][0] < end):
            continue  # the same span from another window, or a near-duplicate
        taken.insert(place, (start, end))
        probability = min(1.0, exp(-negative_score - log_total))
        answers.append({"text": context[start:end], "start": start, "end": end, "probability": probability})
        if len(answers) == n_best:
            break
    return answers
