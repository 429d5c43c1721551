"""Logits to answers: the best spans of each window, and the answer of all windows of a question. NumPy only.

The score of a span is its start logit plus its end logit, each less its window's logit of [CLS]. Its probability is one
softmax over all allowed spans of all windows of the question: spans inside the context, in order, of at most
`max_answer_length` tokens. A window keeps its few best spans and the logarithm of its share of the softmax's
denominator, so logits need not be kept, and windows merge in any order. Two windows that overlap see a span
twice: it counts with its better score. Spans at several places that have one text are added up in answers.py.
"""

from bisect import bisect_left

import numpy as np


def relative_to_cls(logits: np.ndarray) -> np.ndarray:
    """(B, L) logits less each window's logit of its first token, [CLS]: training points there when the answer is in
    another window, so this is what makes windows comparable (measured: docs/EXPERIMENTS.md). Within one window nothing
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

    Returns first token and last token (inclusive) int64 (B, n_best), and score / temperature float64 (B, n_best),
    falling; 0, 0 and -inf where a window has no further span. log_normaliser float64 (B,): log of the sum of
    exp(score / temperature) over all allowed spans, -inf where there is none.
    """
    rows, length = start_logits.shape
    starts, ends = only_context(start_logits, end_logits, context_start, context_end, max_answer_length, temperature)
    log_normaliser = log_sum_of_spans(starts, ends, max_answer_length)

    # tables over all tokens of all rows in one line. Behind each row, and so before the next, stand as many tokens with
    # -inf as a span may leave its row by, at either end
    stride, width = length + max_answer_length - 1, np.arange(max_answer_length)
    best_from = np.full((rows, stride), -np.inf, dtype=starts.dtype)  # the best span from each token
    best_from[:, :length] = starts + reduce_windows(np.maximum, ends, max_answer_length)
    row, ends, flat = np.arange(rows) * stride, ends.ravel(), best_from.ravel()
    starts = np.pad(starts, ((0, 0), (0, max_answer_length - 1)), constant_values=-np.inf).ravel()
    first, last = np.zeros((2, rows, n_best), dtype=np.int64)
    best = np.full((rows, n_best), -np.inf)
    for n in range(n_best):
        i = best_from.argmax(axis=1)
        begin = row + i
        score = flat.take(begin)
        span = begin[:, None] + width  # (B, W)
        # the first end that makes this score: what lies beyond a chosen span comes after it
        j = (starts.take(begin)[:, None] + ends.take(span) == score[:, None]).argmax(axis=1)
        first[:, n], last[:, n], best[:, n] = i, i + j, score
        if n + 1 == n_best or score.max() == -np.inf:
            break
        # no later span may share a token with this one: none begins in it, ...
        flat[span[width <= j[:, None]]] = -np.inf
        # ... and those from before end before it, unless another one stops them earlier still, which scores no more
        before = begin[:, None] - 1 - width[:-1]  # (B, W - 1), falling
        best_end = np.maximum.accumulate(ends.take(before), axis=1)  # of the ends from each token to the one before i
        flat[before] = np.minimum(flat.take(before), starts.take(before) + best_end)
    first[best == -np.inf] = last[best == -np.inf] = 0
    return first, last, best, log_normaliser


def only_context(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    context_start: np.ndarray,
    context_end: np.ndarray,
    max_answer_length: int,
    temperature: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The logits over the temperature, -inf outside the context: starts (B, L), and ends
    (B, L + max_answer_length - 1), so that a span of that many tokens may begin anywhere. Arguments as for best_spans.
    """
    position = np.arange(start_logits.shape[1])
    inside = (position >= context_start[:, None]) & (position < context_end[:, None])
    starts = np.where(inside, start_logits, -np.inf) / temperature
    ends = np.where(inside, end_logits, -np.inf) / temperature
    return starts, np.pad(ends, ((0, 0), (0, max_answer_length - 1)), constant_values=-np.inf)


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
    start: np.ndarray, end: np.ndarray, score: np.ndarray, log_normaliser: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The spans of each question out of all its windows, each place once: first those that count, best first, then the
    others, which change nothing for them.

    start, end: int (Q, S), the spans of Q questions, characters into their contexts, end exclusive. score: float (Q, S)
    as best_spans gives it; -inf where there is no span. log_normaliser: float (Q, W), of each of W windows. counts:
    bool (Q, S).

    Returns which of the S spans, int64 (Q, S), and their scores, float64 (Q, S); -inf where there is no further one.
    log_total, float64 (Q,): log of the sum of exp(score) over all spans of all windows, each place once; -inf where
    there is none.
    """
    score = np.where(end > start, score, -np.inf)
    others = ~counts | (score == -np.inf)
    # by place, and of spans at one place the best first: all but the first of a place are repeated, as several windows
    # see the span, or several tokens make up one character
    column = np.lexsort((-score, others, end, start))
    start, end, score, others = (np.take_along_axis(array, column, axis=1) for array in (start, end, score, others))
    repeated = np.zeros(score.shape, dtype=bool)
    repeated[:, 1:] = (start[:, 1:] == start[:, :-1]) & (end[:, 1:] == end[:, :-1]) & (score[:, 1:] > -np.inf)

    with np.errstate(invalid="ignore"):  # -inf less -inf where there is nothing at all
        log_total = np.logaddexp.reduce(log_normaliser, axis=1, keepdims=True)
        lesser = np.where(repeated & ~others, np.exp(score - log_total), 0.0).sum(axis=1, keepdims=True)
        log_total += np.log1p(-np.minimum(lesser, 1 - 1e-12))  # a span counts once, with its best score
    score[repeated] = -np.inf
    log_total = np.maximum(log_total, score.max(axis=1, keepdims=True, initial=-np.inf))[:, 0]

    order = np.lexsort((-score, others | (score == -np.inf)))  # equal ones from left to right
    column, score = (np.take_along_axis(array, order, axis=1) for array in (column, score))
    return column, score, log_total


def take_place(taken: list[tuple[int, int]], place: tuple[int, int]) -> bool:
    """Whether a place, start and end (exclusive), holds something and overlaps none of those taken, which are kept from
    left to right: then it is one of them from now on."""
    i = bisect_left(taken, place)
    if place[0] == place[1] or (i and taken[i - 1][1] > place[0]):
        return False  # nothing, or it begins inside one, ...
    if i < len(taken) and taken[i][0] < place[1]:
        return False  # ... or reaches into one
    taken.insert(i, place)
    return True
