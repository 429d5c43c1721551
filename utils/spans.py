"""Logits to answers: the best spans of each window, and the answer of all windows of a question. NumPy only.

The score of a span is its start logit plus its end logit, each less its window's logit of [CLS]. Its probability is one
softmax over all allowed spans of all windows of the question: spans inside the context, in order, of at most
`max_answer_length` tokens. A window keeps its few best spans and the logarithm of its share of the softmax's
denominator, so logits need not outlive their batch, and windows merge in any order. Two windows that overlap see a span
twice: it counts with its better score.
"""

from collections.abc import Sequence

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

    row, width = np.arange(rows), np.arange(max_answer_length)
    best_from = starts + reduce_windows(np.maximum, ends, max_answer_length)  # (B, L): the best span from each token
    limit = np.repeat(position[None] + max_answer_length - 1, rows, axis=0)  # (B, L): the last token it may reach
    first = np.zeros((rows, n_best), dtype=np.int64)
    last = np.zeros((rows, n_best), dtype=np.int64)
    best = np.full((rows, n_best), -np.inf)
    for n in range(n_best):
        i = best_from.argmax(axis=1)
        best[:, n] = best_from[row, i]
        reachable = i[:, None] + width  # (B, W)
        after = np.where(reachable <= limit[row, i][:, None], ends[row[:, None], reachable], -np.inf)
        j = i + after.argmax(axis=1)
        first[:, n], last[:, n] = i, j
        if n + 1 == n_best or not np.isfinite(best[:, n]).any():
            break
        # no later span may share a token with i to j: none begins there, ...
        best_from[(position >= i[:, None]) & (position <= j[:, None])] = -np.inf
        # ... and those from before end before i, unless another span stops them earlier still
        before = i[:, None] - 1 - width[:-1]  # (B, W - 1), falling
        in_row, before = before >= 0, np.maximum(before, 0)
        cut = in_row & (limit[row[:, None], before] >= i[:, None])
        r, k = np.nonzero(cut)
        best_end = np.maximum.accumulate(ends[row[:, None], before], axis=1)  # of the ends from each token to i - 1
        tokens = before[r, k]
        still_free = best_from[r, tokens] > -np.inf
        best_from[r, tokens] = np.where(still_free, starts[r, tokens] + best_end[r, k], -np.inf)
        limit[r, tokens] = i[r] - 1
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
    candidates = sorted(
        ((score, start, end) for start, end, score in spans if end > start and score > -np.inf),
        key=lambda candidate: (-candidate[0], candidate[1], candidate[2]),
    )
    log_total = np.logaddexp.reduce(np.asarray(log_normalisers, dtype=np.float64)) if candidates else 0.0
    # a span that several windows see is one span: its lesser scores leave the sum
    seen, repeated = set(), 0.0
    for score, start, end in candidates:
        repeated += np.exp(score - log_total) if (start, end) in seen else 0.0
        seen.add((start, end))
    if candidates:
        log_total = max(log_total + np.log1p(-min(repeated, 1 - 1e-12)), candidates[0][0])
    answers: list[dict] = []
    for score, start, end in candidates:
        if any(start < answer["end"] and answer["start"] < end for answer in answers):
            continue  # the same span from another window, or a near-duplicate
        probability = min(1.0, float(np.exp(score - log_total)))
        answers.append({"text": context[start:end], "start": start, "end": end, "probability": probability})
        if len(answers) == n_best:
            break
    return answers
