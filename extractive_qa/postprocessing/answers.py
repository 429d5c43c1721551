"""The answers of questions, collected from their windows' spans."""

from collections.abc import Sequence
from unicodedata import category

import numpy as np

from extractive_qa.postprocessing.calibration import any_reference_probabilities
from extractive_qa.postprocessing.spans import best_spans, log_normalisers, merge_windows

SPANS_KEPT = 5  # of each window, at least: enough to see which spans two windows share
SPANS_SPARE = 2  # more than asked for, as one of six is punctuation
WINDOWS_AT_ONCE = 128  # whose spans are looked for together: NumPy's calls take as long for a batch of 16


def only_punctuation(text: str) -> bool:
    """Whether a text that is not empty has no letter, digit or symbol: the full stop between two answers."""
    return not text[:1].isalnum() and text != "" and all(category(c)[0] in "PZ" for c in text)


def apply_minimum_confidence(answers: list[dict], min_confidence: float) -> list[dict]:
    """The answers to a question, or, where the best one's probability is below `min_confidence`, in its place one with
    no text that keeps its probability."""
    if answers[0]["probability"] >= min_confidence:
        return answers
    return [{"text": "", "start": 0, "end": 0, "probability": answers[0]["probability"]}]


class AnswerCollector:
    """The best spans of the questions of `features` (preprocessing.windows.Features), collected batch by batch, and at
    last their top_k best answers. No scores are kept but those of the spans, and of the last few batches. temperatures:
    as Reader.answer_all has them."""

    def __init__(self, features, settings: dict, top_k: int = 1, temperatures: Sequence[float] = ()):
        self.features, self.settings, self.top_k, self.temperatures = features, settings, top_k, temperatures
        self.context_start = features.context_start
        # some are left out at the end; a window has no more than it has tokens
        shape = len(features), min(max(top_k + SPANS_SPARE, SPANS_KEPT), settings["max_length"])
        self.start, self.end = np.zeros((2, *shape), dtype=np.int64)  # characters into the contexts
        self.score = np.full(shape, -np.inf)
        self.log_normaliser = np.full(len(features), -np.inf)
        self.log_normalisers = np.full((len(features), len(temperatures)), -np.inf)
        self.waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, windows: np.ndarray, start_scores: np.ndarray, end_scores: np.ndarray) -> None:
        """The windows' scores of every token, (B, L), on a scale that all windows of a question share."""
        self.waiting.append((windows, start_scores, end_scores))
        if sum(len(some) for some, *_ in self.waiting) >= WINDOWS_AT_ONCE:
            self.find_spans()

    def find_spans(self) -> None:
        """Finds the best spans of the windows that wait."""
        features = self.features
        if not self.waiting or not len(features.context_offsets):
            return  # nothing to do, or no context has a token
        windows = np.concatenate([some for some, *_ in self.waiting])
        length = max(scores.shape[1] for _, scores, _ in self.waiting)
        start_scores, end_scores = (
            np.concatenate([np.pad(some[i], ((0, 0), (0, length - some[i].shape[1]))) for some in self.waiting])
            for i in (1, 2)
        )
        self.waiting.clear()
        context_start, first_token = self.context_start[windows], features.first_token[windows]
        context_end = context_start + features.last_token[windows] - first_token
        logits, longest = (start_scores, end_scores, context_start, context_end), self.settings["max_answer_length"]
        first, last, score, log_normaliser = best_spans(
            *logits, n_best=self.score.shape[1], max_answer_length=longest, temperature=self.settings["temperature"]
        )
        if len(self.temperatures):
            self.log_normalisers[windows] = log_normalisers(*logits, self.temperatures, longest)
        # tokens of windows to characters of contexts; where there is no span (score -inf) any token will do
        shift = np.where(score > -np.inf, (first_token - context_start)[:, None], 0)  # (B, n)
        self.start[windows] = features.context_offsets[np.minimum(first + shift, len(features.context_offsets) - 1), 0]
        self.end[windows] = features.context_offsets[np.minimum(last + shift, len(features.context_offsets) - 1), 1]
        self.score[windows], self.log_normaliser[windows] = score, log_normaliser

    def answers(self, contexts: Sequence[str]) -> list[list[dict]]:
        """Each question's best answers: text, start, end, probability; [] where no window has a span."""
        self.find_spans()
        self.trim(contexts)
        impossible = self.settings["handle_impossible_answer"]
        windows_of = np.bincount(self.features.example_index, minlength=len(contexts))
        first_window = np.cumsum(windows_of) - windows_of
        answers: list[list[dict]] = [[] for _ in contexts]
        for count in np.unique(windows_of):  # questions with as many windows together
            questions = np.flatnonzero(windows_of == count)
            windows = first_window[questions, None] + np.arange(count)  # (Q, count)
            spans = [array[windows].reshape(len(questions), -1) for array in (self.start, self.end, self.score)]
            log_normalisers = self.log_normalisers[windows]  # (Q, count, temperatures)
            log_normaliser = self.log_normaliser[windows]
            if impossible:  # one more candidate, seen by all windows with the same score: that of [CLS], less itself
                spans = [
                    np.pad(array, ((0, 0), (0, 1)), constant_values=v)
                    for array, v in zip(spans, (-1, 0, 0), strict=True)
                ]
                log_normaliser = np.pad(log_normaliser, ((0, 0), (0, 1)))
                log_normalisers = np.pad(log_normalisers, ((0, 0), (0, 1), (0, 0)))
            candidates = self.score.shape[1] if self.top_k > 1 else 1
            start, end, probability = merge_windows(*spans, log_normaliser, candidates)
            probability = any_reference_probabilities(probability, self.settings["references"])
            columns = np.maximum(start, 0), end, probability, end > start  # no answer begins at -1
            for question, *best in zip(questions.tolist(), *(array.tolist() for array in columns), strict=True):
                context = contexts[question]
                found = [
                    {"text": context[start:end], "start": start, "end": end, "probability": probability}
                    for start, end, probability, there in zip(*best, strict=True)
                    if there
                ]
                others = [answer for answer in found[1:] if not only_punctuation(answer["text"])]
                answers[question] = found[:1] + others[: self.top_k - 1]
            if len(self.temperatures):
                self.add_probabilities([answers[question] for question in questions], *spans, log_normalisers)
        return answers

    def trim(self, contexts: Sequence[str]) -> None:
        """Takes white space off both ends of every span: to byte-level and Unigram tokenizers the space before a word
        may belong to it."""
        window, n = np.nonzero(self.score > -np.inf)
        question, start, end = self.features.example_index[window], self.start[window, n], self.end[window, n]
        for i, (q, first, last) in enumerate(zip(*(a.tolist() for a in (question, start, end)), strict=True)):
            context = contexts[q]
            if first < last and (context[first].isspace() or context[last - 1].isspace()):
                text = context[first:last]
                start[i] = last - len(text.lstrip())
                end[i] = max(start[i], first + len(text.rstrip()))
        self.start[window, n], self.end[window, n] = start, end

    def add_probabilities(
        self, answers: list[list[dict]], start: np.ndarray, end: np.ndarray, score: np.ndarray, normalisers: np.ndarray
    ) -> None:
        """Gives the best answer of each of Q questions its `probabilities`. start, end, score: (Q, spans); normalisers:
        (Q, W, temperatures)."""
        at_each = []
        for number, temperature in enumerate(self.temperatures):
            rescaled = score * (self.settings["temperature"] / temperature)  # spans' scores are over the reader's own
            _, _, probability = merge_windows(start, end, rescaled, normalisers[:, :, number])
            at_each.append(probability[:, 0])
        for found, probabilities in zip(answers, np.stack(at_each, axis=1).tolist(), strict=True):
            if found:
                found[0]["probabilities"] = probabilities
