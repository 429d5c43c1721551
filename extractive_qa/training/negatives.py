"""Contexts that lack a question's answer: a model that is asked of them too learns that the answer may be absent, and
what it says of several passages can be compared.

Most are hard: among the question's best of the file by BM25, of its own article and of others, as a retriever would
give them. The others are any of the file. Clark & Gardner, 2018 (arXiv 1710.10723); Wang et al., 2019 (arXiv
1908.08167).
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from tokenizers import Tokenizer

from extractive_qa.documents.index import best_first
from extractive_qa.errors import QAError
from extractive_qa.metrics import normalize_answer
from extractive_qa.preprocessing.windows import Features, cut_windows, tokenize
from extractive_qa.progress import NoProgress

logger = logging.getLogger(__name__)

HARD = 0.75  # the share of contexts that are drawn from a question's best
POOL = 8  # of which there are so many
DEPTH = 4 * POOL  # contexts that are looked at for them: some hold the answer
TRIES = 20  # to draw any context that lacks the answer


class Negatives:
    """The contexts that questions are asked of beside their own, drawn again each epoch: a function of seed and epoch.

    examples: Q questions to train on, and features: the windows of their own contexts. contexts: what to draw from, all
    different. share: contexts a question; with 0.5 every second question has one. A context that is cut into several
    windows takes part with one of them, drawn too, so that every epoch has as many windows. A question that has no
    answer is asked of its own context alone.

    Raises QAError where no context lacks an answer.
    """

    def __init__(
        self, examples: Sequence[dict], features: Features, contexts: Sequence[str], tokenizer: Tokenizer,
        max_length: int, doc_stride: int, share: float, seed: int, progress: Callable = NoProgress,
    ):  # fmt: skip
        self.texts = [forms(context) for context in contexts]
        self.references = [list(map(forms, example["answers"]["text"])) for example in examples]
        self.seed, self.own = seed, len(features)
        self.questions, self.pools = self.find_pools([example["question"] for example in examples], contexts, progress)
        self.count = round(share * len(self.questions))  # windows without the answer in an epoch

        # all contexts' tokens, behind those that the features have
        ids, offsets, splits = tokenize(tokenizer, list(contexts), with_offsets=True)
        self.first_token, self.lengths = len(features.context_ids) + splits[:-1], np.diff(splits)
        self.window_settings = features.template.size, max_length, doc_stride
        self.features = replace(
            features, context_ids=np.concatenate([features.context_ids, ids]),
            context_offsets=np.concatenate([features.context_offsets, offsets]),
        )  # fmt: skip

    def find_pools(
        self, questions: Sequence[str], contexts: Sequence[str], progress: Callable
    ) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the questions that have a context without their answer, int (A,), and the best of these, int
        (A, POOL), repeated where there are fewer."""
        numbers, pools = [], []
        settings = {"total": len(questions), "desc": "finding contexts", "unit": " questions", "leave": False}
        for number, best in enumerate(progress(best_contexts(questions, contexts, DEPTH), **settings)):
            if not self.references[number]:
                continue
            # where all of the best hold the answer, the first of the file that lack it
            if pool := self.lacking(best.tolist(), number) or self.lacking(range(len(contexts)), number):
                numbers.append(number)
                pools.append(np.resize(pool, POOL))
        answered = sum(map(bool, self.references))
        found = f"{answered - len(numbers)} of {answered} question(s) find their answer in all {len(contexts)} contexts"
        if not numbers:
            raise QAError(
                f"{found} of the training file. Expected contexts without it for negative_contexts. Use a file of more "
                "contexts, or leave negative_contexts out."
            )
        if len(numbers) < answered:
            logger.warning(f"{found} of the training file: they are asked of their own alone")
        return np.array(numbers), np.array(pools)

    def lacking(self, contexts: Iterable[int], question: int) -> list[int]:
        """The first POOL of the contexts without the question's answer."""
        return list(islice((context for context in contexts if not self.holds(context, question)), POOL))

    def holds(self, context: int, question: int) -> bool:
        """Whether one of the question's references is in the context."""
        return any(is_in(reference, self.texts[context]) for reference in self.references[question])

    def draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
        """The epoch's pairs: numbers of questions and of contexts, int (M,); and what draws on. Every question is in as
        many pairs, or in one more."""
        random = np.random.default_rng([self.seed, epoch, 1])  # not the numbers that order the windows
        times, rest = divmod(self.count, len(self.questions))
        everyone = np.arange(len(self.questions))
        rows = np.concatenate([np.tile(everyone, times), random.permutation(everyone)[:rest]])
        questions, contexts = self.questions[rows], self.pools[rows, random.integers(POOL, size=len(rows))]
        for i in np.flatnonzero(random.random(len(rows)) >= HARD):
            drawn = random.integers(len(self.texts), size=TRIES)
            contexts[i] = next((c for c in drawn if not self.holds(c, questions[i])), contexts[i])
        return questions, contexts, random

    def of_epoch(self, epoch: int) -> Features:
        """The windows of the questions' own contexts, and behind them one of each of the epoch's pairs, whose positions
        are 0, the [CLS] token."""
        features = self.features
        questions, contexts, random = self.draw(epoch)
        question_lengths = np.diff(features.question_splits)[questions]
        pair, first, last = cut_windows(question_lengths, self.lengths[contexts], *self.window_settings)
        count = np.bincount(pair)
        window = np.cumsum(count) - count + random.integers(count)  # one of each pair's
        base, no_answer = self.first_token[contexts], np.zeros(len(pair[window]), dtype=np.int64)
        more = {
            "example_index": questions.astype(np.int32), "first_token": base + first[window],
            "last_token": base + last[window], "start_position": no_answer, "end_position": no_answer,
        }  # fmt: skip
        return replace(
            features, **{name: np.concatenate([getattr(features, name), array]) for name, array in more.items()}
        )


def forms(text: str) -> tuple[str, str]:
    """A text as is_in compares it: in any case, and in the form in which answers are compared."""
    return text.casefold(), normalize_answer(text)


def is_in(answer: tuple[str, str], context: tuple[str, str]) -> bool:
    """Whether an answer is in a context, given the forms of both, in one form at least."""
    return any(form and form in text for form, text in zip(answer, context, strict=True))


def best_contexts(questions: Sequence[str], contexts: Sequence[str], most: int) -> Iterator[np.ndarray]:
    """For each question the numbers of up to `most` contexts by BM25, best first, int (up to most,): those that share a
    word with it. Equal ones in their order."""
    import bm25s

    index = bm25s.BM25()
    words, asked = (
        bm25s.tokenize(list(texts), stopwords=None, return_ids=False, show_progress=False)
        for texts in (contexts, questions)
    )
    index.index(words, show_progress=False)
    for question in asked:
        scores = index.get_scores(question) if question else np.zeros(len(contexts))
        yield best_first(scores, most)
