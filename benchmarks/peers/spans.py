"""Peer of benchmarks/spans.py: answers from logits, as question-answering scripts usually find them.

dataset: questions and windows (padded to 384, with their offsets) are rows of a `datasets.Dataset`; the 20 highest
starts and the 20 highest ends of every window, every pair of them looked at in Python, the candidates of a question
sorted, as many of the best as are asked for kept with their texts and a softmax over them. lists: the same at its best,
everything without padding in Python lists beforehand. pipeline: transformers' own vectorised search, window by window,
as its question-answering pipeline calls it.
"""

import sys
import time

import datasets
import numpy as np
from transformers.pipelines.question_answering import select_starts_ends
from worker import serve

HIGHEST = 20  # starts and ends of a window that the loops look at, as usual, however many answers are kept

logits_file, max_answer_length = sys.argv[1], int(sys.argv[2])
found: list[list[dict]] = []


def load() -> list[tuple[str, list[dict]]]:
    """Each question's context and its windows: logits, offsets as a list with None outside the context, and a mask."""
    with np.load(logits_file) as file:
        arrays = dict(file)
    questions = [(str(context), []) for context in arrays["contexts"]]
    begin = 0
    for length, question in zip(arrays["lengths"].tolist(), arrays["example_index"].tolist(), strict=True):
        window = slice(begin, begin + length)
        pairs = [tuple(pair) if pair[0] >= 0 else None for pair in arrays["offsets"][window].tolist()]
        outside = np.array([[pair is None for pair in pairs]], dtype=np.int64)
        outside[0, 0] = 0  # the pipeline leaves [CLS] to its search, which then ignores it
        start, end = arrays["start"][window].copy(), arrays["end"][window].copy()
        questions[question][1].append({"start": start, "end": end, "offsets": pairs, "outside": outside})
        begin += length
    return questions


def load_datasets() -> tuple[datasets.Dataset, datasets.Dataset, np.ndarray, np.ndarray]:
    """Questions and windows as rows, every window padded to the same length, and logits (windows, length)."""
    windows = [(number, window) for number, (_, some) in enumerate(questions) for window in some]
    length = max(384, *(len(window["start"]) for _, window in windows))
    logits = np.full((2, len(windows), length), -100.0, dtype=np.float32)
    rows: dict[str, list] = {name: [] for name in ("input_ids", "token_type_ids", "attention_mask", "offset_mapping")}
    for row, (_, window) in enumerate(windows):
        real = len(window["start"])
        logits[0, row, :real], logits[1, row, :real] = window["start"], window["end"]
        rows["input_ids"].append([100] * real + [0] * (length - real))
        rows["token_type_ids"].append([0] * length)
        rows["attention_mask"].append([1] * real + [0] * (length - real))
        rows["offset_mapping"].append(window["offsets"] + [None] * (length - real))
    rows["example_id"] = [str(number) for number, _ in windows]
    examples = {"id": [str(n) for n in range(len(questions))], "context": [context for context, _ in questions]}
    return datasets.Dataset.from_dict(examples), datasets.Dataset.from_dict(rows), *logits


questions = load()
examples, features, all_start_logits, all_end_logits = load_datasets()


def candidates_of(start_logits: np.ndarray, end_logits: np.ndarray, offsets: list) -> list[dict]:
    """Every allowed pair of one of the HIGHEST highest starts and one of the HIGHEST highest ends of a window."""
    candidates = []
    starts = np.argsort(start_logits)[-1 : -HIGHEST - 1 : -1].tolist()
    ends = np.argsort(end_logits)[-1 : -HIGHEST - 1 : -1].tolist()
    for first in starts:
        for last in ends:
            if first >= len(offsets) or last >= len(offsets) or offsets[first] is None or offsets[last] is None:
                continue
            if last < first or last - first + 1 > max_answer_length:
                continue
            candidates.append(
                {
                    "start": offsets[first][0],
                    "end": offsets[last][1],
                    "score": start_logits[first] + end_logits[last],
                }
            )
    return candidates


def best_of(candidates: list[dict], context: str, n_best: int) -> list[dict]:
    """The n_best best candidates with their texts and a softmax over them."""
    answers = sorted(candidates, key=lambda candidate: candidate["score"], reverse=True)[:n_best]
    if not answers:
        return [{"start": 0, "end": 0, "score": 0.0, "text": "", "probability": 0.0}]
    weights = np.exp(np.array([answer["score"] for answer in answers]) - answers[0]["score"])
    for answer, probability in zip(answers, weights / weights.sum(), strict=True):
        answer["text"] = context[answer["start"] : answer["end"]]
        answer["probability"] = probability
    # plain numbers, to be written as JSON
    return [
        {name: float(value) if isinstance(value, np.floating) else value for name, value in answer.items()}
        for answer in answers
    ]


def by_dataset(n_best: int) -> None:
    windows_of: dict[str, list[int]] = {}
    for number, question in enumerate(features["example_id"]):
        windows_of.setdefault(question, []).append(number)
    for example in examples:
        candidates = []
        for number in windows_of[example["id"]]:
            offsets = features[number]["offset_mapping"]
            candidates += candidates_of(all_start_logits[number], all_end_logits[number], offsets)
        found.append(best_of(candidates, example["context"], n_best))


def by_lists(n_best: int) -> None:
    for context, windows in questions:
        candidates = []
        for window in windows:
            candidates += candidates_of(window["start"], window["end"], window["offsets"])
        found.append(best_of(candidates, context, n_best))


def by_pipeline(n_best: int) -> None:
    for context, windows in questions:
        found.append(pipeline_answers(context, windows, n_best))


def pipeline_answers(context: str, windows: list[dict], n_best: int) -> list[dict]:
    answers = []
    for window in windows:
        mask = np.ones((1, len(window["start"])), dtype=np.int64)
        starts, ends, scores, _ = select_starts_ends(
            window["start"][None], window["end"][None], window["outside"], mask,
            top_k=n_best, max_answer_len=max_answer_length,
        )  # fmt: skip
        for first, last, score in zip(starts.tolist(), ends.tolist(), scores.tolist(), strict=True):
            if window["offsets"][first] and window["offsets"][last]:
                begin, end = window["offsets"][first][0], window["offsets"][last][1]
                answers.append({"start": begin, "end": end, "score": score, "text": context[begin:end]})
    return sorted(answers, key=lambda answer: answer["score"], reverse=True)[:n_best]


def decode(way: str, n_best: int) -> dict:
    """Seconds for the n_best best answers to all questions, and how many that were."""
    found.clear()
    search = {"dataset": by_dataset, "lists": by_lists, "pipeline": by_pipeline}[way]
    began = time.perf_counter()
    search(n_best)
    return {"seconds": time.perf_counter() - began, "answers": sum(map(len, found))}


def best() -> dict:
    """Start and end of the best answer to every question, as they were found last."""
    return {"spans": [[answers[0]["start"], answers[0]["end"]] if answers else [0, 0] for answers in found]}


serve(("transformers", "datasets", "numpy"), decode=decode, best=best)
