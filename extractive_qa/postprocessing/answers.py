"""The answers of questions, collected from their windows' spans."""

import math
import re
from collections.abc import Sequence
from itertools import combinations
from operator import itemgetter

import numpy as np

from extractive_qa.postprocessing.confidence import (
    FEATURES,
    apply_calibrator,
    features_of,
    set_confidence,
    spread_confidence,
)
from extractive_qa.postprocessing.spans import best_spans, merge_windows, take_place
from extractive_qa.postprocessing.tidy import answer_key, says_nothing, tidy

SPANS_KEPT = 5  # of each window, at least: enough to see which spans two windows share
NEAR = 10.0  # of a score, less than the window's best: what scores less adds nothing to a probability
SPANS_SPARE = 2  # more than asked for, as one of six is punctuation
# window, start, end, score, counts: no span
EMPTY = np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64), np.full(1, -np.inf), np.zeros(1, bool)
WINDOWS_AT_ONCE = 128  # whose spans are looked for together: NumPy's calls take as long for a batch of 16


def apply_minimum_confidence(answers: list[dict], min_confidence: float) -> list[dict]:
    """The answers to a question, or, where the best one's probability is below `min_confidence`, in its place one with
    no text that keeps its probability."""
    if answers[0]["probability"] >= min_confidence:
        return answers
    return [answers[0] | {"text": "", "start": 0, "end": 0, "places": []}]


class AnswerCollector:
    """The best spans of the questions of `features` (preprocessing.windows.Features), collected batch by batch, and at
    last their top_k best answers. No scores are kept but those of the spans, and of the last few batches.

    Spans of one text (tidy.answer_key) are one answer, with the sum of their shares in the softmax. So a window's spans
    are its best ones, and the others of the same tokens.

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
        self.kept = min(max(top_k + SPANS_SPARE, SPANS_KEPT), settings["max_length"])
        self.log_normaliser = np.full(len(features), -np.inf)
        # of spans: window, start, end (characters into the contexts), score, and whether it counts. What only a longer
        # list of answers needs does not, or an answer's probability would depend on top_k
        self.spans: list[tuple[np.ndarray, ...]] = []
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
        temperature = self.settings["temperature"]
        first, last, score, self.log_normaliser[windows] = best_spans(
            *logits, n_best=self.kept, max_answer_length=longest, temperature=temperature
        )
        again, across, counts = self.same_tokens(windows, first - context_start[:, None], last - first + 1, score)
        row, n = np.nonzero(score > -np.inf)
        row, first, last = np.concatenate([[row, first[row, n], last[row, n]], again], axis=1)
        more, between = ((r, i + context_start[r], j + context_start[r]) for r, i, j in (again, across))
        first[len(n) :], last[len(n) :] = more[1:]
        of_more, of_between = (
            start_scores[r, i] / temperature + end_scores[r, j] / temperature for r, i, j in (more, between)
        )
        share = np.exp(of_between.astype(float) - self.log_normaliser[windows[between[0]]])
        left = 1 - np.bincount(between[0], share, minlength=len(windows))
        self.log_normaliser[windows] += np.log(np.maximum(left, 1e-9))
        # tokens of windows to characters of contexts
        shift = (first_token - context_start)[row]
        start, end = (features.context_offsets[token + shift, side] for side, token in enumerate((first, last)))
        self.spans.append((
            windows[row], start + self.shift[windows[row]], end + self.shift[windows[row]],
            np.append(score[score > -np.inf], of_more), np.append(counts[score > -np.inf], np.ones(len(of_more), bool)),
        ))  # fmt: skip

    def same_tokens(
        self, windows: np.ndarray, begin: np.ndarray, size: np.ndarray, score: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Spans of windows, int (3, M): row, first and last token of the window's piece of context. The further ones of
        the same tokens as one of the first SPANS_KEPT; and those from one such place to a later one. These are no
        answers: where a text comes again and again, its beginnings and ends pair up. And whether each of the n spans is
        one of the first, or of the same tokens, bool (B, n). begin, size: in tokens, (B, n), as the score."""
        features, again, across = self.features, [], []
        counts = np.zeros(score.shape, dtype=bool)
        counts[:, :SPANS_KEPT] = True
        for row, window in enumerate(windows.tolist()):
            ids = features.context_ids[features.first_token[window] : features.last_token[window]]
            tokens = ids.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")  # a character for each
            near = (score[row] > -np.inf) & (score[row] >= score[row, 0] - NEAR)
            known = dict(zip(zip(begin[row].tolist(), size[row].tolist(), strict=True), range(len(near)), strict=True))
            # no set: its order is another in each process, and with it the last digits of sums over the places
            pieces = dict.fromkeys(
                tokens[first : first + count] for (first, count), n in known.items() if n < SPANS_KEPT and near[n]
            )
            for piece in pieces:
                count = len(piece)
                places = [found.start() for found in re.finditer(re.escape(piece), tokens)]
                for place in places:
                    if (place, count) not in known:
                        again.append((row, place, place + count - 1))
                    elif known[place, count] >= SPANS_KEPT:
                        counts[row, known[place, count]] = True
                for one, other in combinations(places, 2):
                    if other + count - one <= self.settings["max_answer_length"]:
                        across.append((row, one, other + count - 1))
        return *(np.array(some, dtype=np.int64).reshape(-1, 3).T for some in (again, across)), counts

    def answers(self, contexts: Sequence[str]) -> list[list[dict]]:
        """Each question's best answers: text, start, end, places (all of them from left to right, each with start and
        end), probability, answerable; [] where no window has a span."""
        self.find_spans()
        window, start, end, score, counts = (np.concatenate(column) for column in zip(*self.spans, EMPTY, strict=True))
        question = self.question_of[window[:-1]]
        trim(contexts, question, start, end)
        spans_of, windows_of = (np.bincount(of, minlength=len(contexts)) for of in (question, self.question_of))
        order = np.append(np.lexsort((window[:-1], question)), -1)  # the last one is no span: it fills up
        first_span, first_window = np.cumsum(spans_of) - spans_of, np.cumsum(windows_of) - windows_of
        answers: list[list[dict]] = [[] for _ in contexts]
        self.judged = np.zeros((len(contexts), len(FEATURES)))
        # questions with as many windows, and about as many spans, together; for np.unique numpy.ma would be imported
        sizes = np.frexp(spans_of)[1]  # bits
        for count, size in sorted(set(zip(windows_of.tolist(), sizes.tolist(), strict=True))):
            questions = np.flatnonzero((windows_of == count) & (sizes == size))
            column = np.arange(spans_of[questions].max())
            place = np.where(column < spans_of[questions, None], first_span[questions, None] + column, len(order) - 1)
            spans = [array[order[place]] for array in (start, end, score, counts)]
            log_normaliser = self.log_normaliser[first_window[questions, None] + np.arange(count)]
            best, scores, log_total = merge_windows(*spans[:3], log_normaliser, spans[3])
            columns = [np.take_along_axis(spans[i], best, axis=1).tolist() for i in (0, 1, 3)]
            found = [
                group_places(contexts[q], self.kept, *of_question)
                for q, *of_question in zip(questions.tolist(), *columns, scores.tolist(), strict=True)
            ]
            self.set_probabilities(found, log_total, questions, count)
            for q, some in zip(questions.tolist(), found, strict=True):
                answers[q] = self.list_answers(some)
        return answers

    def set_probabilities(
        self, found: list[list[dict]], log_total: np.ndarray, questions: np.ndarray, windows: int
    ) -> None:
        """Has the answers that were found to `questions`, int (Q,), each of so many windows, hold their probability and
        answerable in place of their score. log_total: float (Q,), of all spans."""
        best = np.array([some[0]["score"] if some else -np.inf for some in found])
        log_total = np.maximum(log_total, best)
        judged = [np.where(np.isfinite(best), part, 0.0) for part in (best, log_total)]  # 0, the score of [CLS]
        self.judged[questions] = features_of(*judged, np.full(len(found), windows))
        if self.settings["handle_impossible_answer"]:  # one more candidate, with the score of [CLS], less itself
            log_total = np.logaddexp(log_total, 0.0)
            for some in found:
                some.append({"text": "", "start": 0, "end": 0, "places": [], "score": 0.0})
                some.sort(key=lambda answer: (-answer["score"], answer["text"] != ""))
        scores = np.full((len(found), max([1, *map(len, found)])), -np.inf)
        for row, some in enumerate(found):
            scores[row, : len(some)] = [answer["score"] for answer in some]
        total = np.maximum(log_total, np.logaddexp.reduce(scores, axis=1))[:, None]
        probability = np.exp(scores - np.where(np.isfinite(total), total, 0.0))
        answerable: list[float | None] = [None] * len(found)
        if (calibrator := self.settings["calibrator"]) and windows:
            right, any_there = apply_calibrator(calibrator, self.judged[questions])
            found_none = np.array([bool(some) and not some[0]["text"] for some in found])  # "" is the best candidate
            probability = set_confidence(probability, np.where(found_none, 1 - any_there, right))
            answerable = any_there.tolist()
        else:
            probability = spread_confidence(probability, self.settings["references"])
        for some, chances, there in zip(found, probability.tolist(), answerable, strict=True):
            for answer, chance in zip(some, chances, strict=False):
                del answer["score"]
                answer |= {"probability": chance, "answerable": there}

    def features_of_questions(self, questions: int) -> np.ndarray:
        """What a calibrator judges by, float (Q, F), of all questions, once their answers were asked for."""
        return self.judged[:questions]

    def list_answers(self, found: list[dict]) -> list[dict]:
        """The top_k best answers out of a question's candidates."""
        listed = found[:1]
        for answer in found[1:]:
            if len(listed) == self.top_k:
                break
            if not says_nothing(answer["text"]):
                listed.append(answer)
        return listed


def group_places(
    context: str, most: int, starts: list[int], ends: list[int], counts: list[bool], scores: list[float]
) -> list[dict]:
    """A question's spans, as merge_windows gives them, as answers by falling `score`: tidied, each text once, at its
    best place that overlaps no better span, with the logarithm of the sum of its spans' shares; no more than `most`.
    counts: whether a span is added to others."""
    # by text: the place that is shown and its score, and places and scores of the spans that are added
    groups: dict[str, list] = {}
    taken: list[tuple[int, int]] = []
    for start, end, counted, score in zip(starts, ends, counts, scores, strict=True):
        if score == -math.inf:
            break  # so are all that follow
        place = tidy(context, start, end)
        key = answer_key(context[place[0] : place[1]])
        group = groups.get(key)
        if group is None:
            group = groups[key] = [None, score, [], []]
        if counted:
            group[2].append(place)
            group[3].append(score)
        if take_place(taken, place) and group[0] is None:
            group[:2] = place, score
    found = []
    for shown, score, places, added in groups.values():
        if shown is None:
            continue
        if len(added) > 1:
            total = added[0] + math.log(math.fsum(math.exp(score - added[0]) for score in added))
        else:
            total = added[0] if added else score
        found.append((-total, shown, places))
    found.sort(key=itemgetter(0))
    if found and says_nothing(context[slice(*found[0][1])]):  # no answer, where there is another
        found = [one for one in found if not says_nothing(context[slice(*one[1])])] or found
    answers = []
    for score, (start, end), added in found[:most]:
        places = [{"start": first, "end": last} for first, last in sorted({*added, (start, end)})]
        answers.append({"text": context[start:end], "start": start, "end": end, "places": places, "score": -score})
    return answers


def trim(contexts: Sequence[str], question: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
    """Takes white space off both ends of spans of questions, in place: to byte-level and Unigram tokenizers it may be a
    token of its own."""
    for i, (q, first, last) in enumerate(zip(question.tolist(), start.tolist(), end.tolist(), strict=False)):
        context = contexts[q]
        if first < last and (context[first].isspace() or context[last - 1].isspace()):
            text = context[first:last]
            start[i] = last - len(text.lstrip())
            end[i] = max(start[i], first + len(text.rstrip()))
