"""Peer of speed/spans.py: answers from logits, as question-answering scripts commonly find them.

dataset: windows (padded to 384, with their offsets) are rows of a `datasets.Dataset`; every pair of the 20 highest
starts and the 20 highest ends of a window is looked at in Python, the candidates of a question are sorted, and as many
of the best as are asked for are kept with their texts and a softmax over them. lists: the same at its best, everything
without padding in Python lists beforehand.
"""

import sys
import time

import datasets
import numpy as np
from worker import serve

HIGHEST = 20  # starts and ends of a window that are looked at, as is common, however many answers are kept

logits_file, max_answer_length = sys.argv[1], int(sys.argv[2])
found: list[list[dict]] = []
with np.load(logits_file) as file:
    arrays = dict(file)
contexts = [str(context) for context in arrays["contexts"]]
splits = np.cumsum(arrays["lengths"])[:-1]
windows_of = [[] for _ in contexts]  # question -> its windows
for number, question in enumerate(arrays["example_index"].tolist()):
    windows_of[question].append(number)
starts, ends = (np.split(arrays[name], splits) for name in ("start", "end"))
offsets_of = np.split(arrays["offsets"], splits)  # characters; None outside the context
offsets_of = [[tuple(pair) if pair[0] >= 0 else None for pair in offsets.tolist()] for offsets in offsets_of]


# the same padded: logits (windows, length), and the windows as rows of a dataset
length = max(384, *map(len, starts))
padded_starts, padded_ends = (
    np.stack([np.pad(row, (0, length - len(row)), constant_values=-100) for row in some]) for some in (starts, ends)
)
padding = [[0] * (length - len(offsets)) for offsets in offsets_of]
features = datasets.Dataset.from_dict({
    "input_ids": [[100] * len(offsets) + rest for offsets, rest in zip(offsets_of, padding, strict=True)],
    "token_type_ids": [[0] * length for _ in offsets_of],
    "attention_mask": [[1] * len(offsets) + rest for offsets, rest in zip(offsets_of, padding, strict=True)],
    "offset_mapping": [offsets + [None] * len(rest) for offsets, rest in zip(offsets_of, padding, strict=True)],
})  # fmt: skip


def candidates_of(start_logits: np.ndarray, end_logits: np.ndarray, offsets: list) -> list[dict]:
    """Every allowed pair of one of the HIGHEST highest starts and one of the HIGHEST highest ends of a window."""
    candidates = []
    firsts = np.argsort(start_logits)[-1 : -HIGHEST - 1 : -1].tolist()
    lasts = np.argsort(end_logits)[-1 : -HIGHEST - 1 : -1].tolist()
    for first in firsts:
        for last in lasts:
            if first >= len(offsets) or last >= len(offsets) or offsets[first] is None or offsets[last] is None:
                continue
            if last < first or last - first + 1 > max_answer_length:
                continue
            score = start_logits[first] + end_logits[last]
            candidates.append({"start": offsets[first][0], "end": offsets[last][1], "score": score})
    return candidates


def best_of(candidates: list[dict], context: str, n_best: int) -> list[dict]:
    """The n_best best candidates with their texts and a softmax over them."""
    answers = sorted(candidates, key=lambda candidate: candidate["score"], reverse=True)[:n_best]
    for answer in answers:
        answer["text"] = context[answer["start"] : answer["end"]]
    scores = np.array([answer["score"] for answer in answers])
    weights = np.exp(scores - scores.max(initial=-np.inf))
    for answer, probability in zip(answers, weights / weights.sum(), strict=True):
        answer["probability"] = probability
    return [
        {name: float(value) if isinstance(value, np.floating) else value for name, value in answer.items()}
        for answer in answers
    ]


def decode(way: str, n_best: int) -> dict:
    """Seconds for the n_best best answers to all questions, and how many that were."""
    found.clear()
    began = time.perf_counter()
    for context, windows in zip(contexts, windows_of, strict=True):
        candidates = []
        for number in windows:
            if way == "lists":
                candidates += candidates_of(starts[number], ends[number], offsets_of[number])
            else:
                offsets = features[number]["offset_mapping"]
                candidates += candidates_of(padded_starts[number], padded_ends[number], offsets)
        found.append(best_of(candidates, context, n_best))
    return {"seconds": time.perf_counter() - began, "answers": sum(map(len, found))}


def best() -> dict:
    """Start and end of the best answer to every question, as they were found last."""
    return {"spans": [[answers[0]["start"], answers[0]["end"]] if answers else [0, 0] for answers in found]}


serve(("datasets", "numpy"), decode=decode, best=best)
