"""The answers of questions, collected from their windows' spans."""

from collections.abc import Sequence

import numpy as np

from extractive_qa.postprocessing.confidence import apply_calibrator, features_of, set_confidence, spread_confidence
from extractive_qa.postprocessing.spans import best_spans, merge_windows
from extractive_qa.postprocessing.tidy import says_nothing, tidy

SPANS_KEPT = 5  # of each window, at least: enough to see which spans two windows share
SPANS_SPARE = 2  # more than asked for, as one of six is punctuation
WINDOWS_AT_ONCE = 128  # whose spans are looked for together: NumPy's calls take as long for a batch of 16


def apply_minimum_confidence(answers: list[dict], min_confidence: float) -> list[dict]:
    """The answers to a question, or, where the best one's probability is below `min_confidence`, in its place one with
    no text that keeps its probability."""
    if answers[0]["probability"] >= min_confidence:
        return answers
    return [answers[0] | {"text": "", "start": 0, "end": 0}]


class AnswerCollector:
    """The best spans of the questions of `features` (preprocessing.windows.Features), collected batch by batch, and at
    last their top_k best answers. No scores are kept but those of the spans, and of the last few batches.

    question_of: int (N,), the question of each window, rising, where that is another than the features have; shift: int
    (N,), what is added to the places that the features have in each window's context. So several contexts are as one.
    """

    def __init__(
        self, features, settings: dict, top_k: int = 1, question_of: np.ndarray | None = None,
        shift: np.ndarray | None = None,
    ):  # fmt: skip
        self.features, self.settings, self.top_k = features, settings, top_k
        self.question_of = features.example_index if question_of is None else question_of
        self.shift = np.zeros(len(features), dtype=np.int64) if shift is None else shift
        self.context_start = features.context_start
        # some are left out at the end; a window has no more than it has tokens
        shape = len(features), min(max(top_k + SPANS_SPARE, SPANS_KEPT), settings["max_length"])
        self.start, self.end = np.zeros((2, *shape), dtype=np.int64)  # characters into the contexts
        self.score = np.full(shape, -np.inf)
        self.log_normaliser = np.full(len(features), -np.inf)
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
        # tokens of windows to characters of contexts; where there is no span (score -inf) any token will do
        shift = np.where(score > -np.inf, (first_token - context_start)[:, None], 0)  # (B, n)
        for places, token, side in ((self.start, first, 0), (self.end, last, 1)):
            characters = features.context_offsets[np.minimum(token + shift, len(features.context_offsets) - 1), side]
            places[windows] = characters + self.shift[windows, None]
        self.score[windows], self.log_normaliser[windows] = score, log_normaliser

    def answers(self, contexts: Sequence[str]) -> list[list[dict]]:
        """Each question's best answers: text, start, end, probability, answerable; [] where no window has a span."""
        self.find_spans()
        self.trim(contexts)
        impossible, calibrator = self.settings["handle_impossible_answer"], self.settings["calibrator"]
        windows_of = np.bincount(self.question_of, minlength=len(contexts))
        first_window = np.cumsum(windows_of) - windows_of
        answers: list[list[dict]] = [[] for _ in contexts]
        for count in np.unique(windows_of):  # questions with as many windows together
            questions = np.flatnonzero(windows_of == count)
            windows = first_window[questions, None] + np.arange(count)  # (Q, count)
            spans = [array[windows].reshape(len(questions), -1) for array in (self.start, self.end, self.score)]
            log_normaliser = self.log_normaliser[windows]
            known = None
            if calibrator and count:
                known = apply_calibrator(calibrator, self.calibration_features(windows))
            if impossible:  # one more candidate, seen by all windows with the same score: that of [CLS], less itself
                spans = [
                    np.pad(array, ((0, 0), (0, 1)), constant_values=v)
                    for array, v in zip(spans, (-1, 0, 0), strict=True)
                ]
                log_normaliser = np.pad(log_normaliser, ((0, 0), (0, 1)))
            candidates = self.score.shape[1] if self.top_k > 1 else 1
            start, end, probability = merge_windows(*spans, log_normaliser, candidates)
            answerable: list[float | None] = [None] * len(questions)
            if known is not None:
                right, any_there = known
                found_none = start[:, 0] < 0  # "" is the best candidate
                probability = set_confidence(probability, np.where(found_none, 1 - any_there, right))
                answerable = any_there.tolist()
            else:
                probability = spread_confidence(probability, self.settings["references"])
            columns = np.maximum(start, 0), end, probability, end > start  # no answer begins at -1
            lists = (array.tolist() for array in columns)
            for question, there, *best in zip(questions.tolist(), answerable, *lists, strict=True):
                answers[question] = self.list_answers(contexts[question], there, *best)
        return answers

    def calibration_features(self, windows: np.ndarray) -> np.ndarray:
        """What a calibrator judges by, float (Q, F), of questions whose windows are given, int (Q, W), W at least 1.
        Where there is no span, the best score is 0, that of [CLS]."""
        best = self.score[windows].max(axis=(1, 2))
        normaliser = np.logaddexp.reduce(self.log_normaliser[windows], axis=1)
        best, normaliser = (np.where(np.isfinite(best), part, 0.0) for part in (best, normaliser))
        return features_of(best, normaliser, np.full(len(windows), windows.shape[1]))

    def features_of_questions(self, questions: int) -> np.ndarray:
        """The same of all questions, (Q, F), once all scores were seen."""
        rows = [np.flatnonzero(self.question_of == question)[None] for question in range(questions)]
        return np.concatenate([self.calibration_features(windows) for windows in rows])

    def list_answers(
        self, context: str, answerable: float | None, starts: list[int], ends: list[int], probabilities: list[float],
        there: list[bool],
    ) -> list[dict]:  # fmt: skip
        """The top_k best answers out of a question's candidates, tidied."""
        found: list[dict] = []
        for start, end, probability, exists in zip(starts, ends, probabilities, there, strict=True):
            if not exists or len(found) == self.top_k:
                continue
            first, last = tidy(context, start, end)
            answer = {"text": context[first:last], "start": first, "end": last, "probability": probability}
            if not found or not says_nothing(answer["text"]):
                found.append(answer | {"answerable": answerable})
        return found

    def trim(self, contexts: Sequence[str]) -> None:
        """Takes white space off both ends of every span: to byte-level and Unigram tokenizers the space before a word
        may belong to it."""
        window, n = np.nonzero(self.score > -np.inf)
        question, start, end = self.question_of[window], self.start[window, n], self.end[window, n]
        for i, (q, first, last) in enumerate(zip(*(a.tolist() for a in (question, start, end)), strict=True)):
            context = contexts[q]
            if first < last and (context[first].isspace() or context[last - 1].isspace()):
                text = context[first:last]
                start[i] = last - len(text.lstrip())
                end[i] = max(start[i], first + len(text.rstrip()))
        self.start[window, n], self.end[window, n] = start, end
