"""How each question was answered, kinds of mistakes, kinds of questions: what statistics.py counts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from extractive_qa.metrics import choose_f1_unit, exact_match_score, f1_score, normalize_answer

QUESTION_WORDS = ("what", "who", "when", "where", "which", "how many/much", "how", "why", "other")
QUESTION_WORD = re.compile(r"\b(?:how many|how much|who|whom|whose|what|when|where|which|how|why)\b")
SAME_WORD = {"how many": "how many/much", "how much": "how many/much", "whom": "who", "whose": "who"}
# the same in Chinese, Japanese and Thai; of words that begin alike the longest comes first
QUESTION_WORDS_WITHOUT_SPACES = {
    "why": "为什么|為什麼|為什么|为何|為何|なぜ|どうして|ทำไม",
    "when": "什么时候|什麼時候|何时|何時|哪年|哪一年|哪天|いつ|เมื่อไร|เมื่อไหร่|เมื่อใด",
    "where": "哪里|哪裡|哪裏|哪儿|哪兒|何处|何處|什么地方|什麼地方|どこ|ที่ไหน|ที่ใด",
    "how many/much": "多少|几|幾|多长|多長|多大|多高|多久|多远|多遠|いくつ|いくら|何人|何年|กี่|เท่าไร|เท่าไหร่|เท่าใด",
    "how": "怎么|怎麼|怎样|怎樣|如何|どのように|どうやって|どう|อย่างไร|ยังไง",
    "who": "谁|誰|だれ|ใคร",
    "which": "哪|どの|どちら|どれ|ไหน|ใด",
    "what": "什么|什麼|何|なに|なん|อะไร",
}
SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*\s|[。！？\n]")
# every mistake is of the first kind that fits
MISTAKES = {
    "no answer": "nothing was predicted, or no word",
    "no gold answer": "something was predicted where the text holds no answer (SQuAD 2)",
    "too long": "holds the whole gold answer, and more",
    "too short": "a piece of the gold answer",
    "overlapping": "has a part of the gold answer, and something else beside it",
    "same words elsewhere": "another place, with some words of the gold answer",
    "same sentence": "another place in the gold answer's sentence, no word in common",
    "another sentence": "another sentence, no word in common",
    "not in the context": "a text that is not in the context, no word in common",
}
BOUNDARY = ("too long", "too short", "overlapping")
WRONG_PLACE = ("same words elsewhere", "same sentence", "another sentence", "not in the context")


@dataclass(frozen=True)
class Outcomes:
    """How Q questions were answered."""

    examples: Sequence[dict]
    texts: list[str]  # the predictions, "" where there is none
    spans: list[tuple[int, int] | None]  # in their contexts, characters, end exclusive; None where they are not there
    probability: np.ndarray | None  # float (Q,); None where it is not known
    windows: np.ndarray | None  # int (Q,): windows that the context was cut into; None where no model was asked
    exact_match: np.ndarray  # float (Q,), 0 or 1
    f1: np.ndarray  # float (Q,), 0 to 1
    context: np.ndarray  # int (Q,): the number of the question's context, from 0
    f1_unit: str = "word"  # what EM, F1 and lengths count: "word" or "character"


def collect_outcomes(
    examples: Sequence[dict],
    predictions: Mapping[str, str],
    answers: Mapping[str, dict] | None = None,
    windows: np.ndarray | None = None,
    f1_unit: str = "auto",
) -> Outcomes:
    """The outcomes of `predictions` {id: text}. answers: {id: answer with start, end, probability} of all examples,
    where a model gave them; without, places are looked for in the contexts, nearest to a gold answer. f1_unit: as
    compute_metrics has it."""
    f1_unit = choose_f1_unit(examples, f1_unit)
    texts = [predictions.get(example["id"], "") for example in examples]
    golds = [example["answers"]["text"] for example in examples]
    if answers:
        best = [answers[example["id"]] for example in examples]
        spans = [(answer["start"], answer["end"]) if answer["text"] else None for answer in best]
    else:
        spans = [find_span(text, example) for text, example in zip(texts, examples, strict=True)]
    numbers: dict[str, int] = {}
    return Outcomes(
        examples=examples,
        texts=texts,
        spans=spans,
        probability=np.array([answer["probability"] for answer in best]) if answers else None,
        windows=windows,
        exact_match=np.array([exact_match_score(*pair, f1_unit) for pair in zip(texts, golds, strict=True)]),
        f1=np.array([f1_score(*pair, f1_unit) for pair in zip(texts, golds, strict=True)]),
        context=np.array([numbers.setdefault(example["context"], len(numbers)) for example in examples]),
        f1_unit=f1_unit,
    )


def gold_spans(example: dict) -> list[tuple[int, int]]:
    """Where the gold answers are, characters into the context, end exclusive."""
    texts, starts = example["answers"]["text"], example["answers"]["answer_start"]
    return [(start, start + len(text)) for text, start in zip(texts, starts, strict=True)]


def overlap(one: tuple[int, int], other: tuple[int, int]) -> int:
    """Characters that two spans share; less than 0: as many lie between them."""
    return min(one[1], other[1]) - max(one[0], other[0])


def find_span(text: str, example: dict) -> tuple[int, int] | None:
    """Where `text` is in the context: of several places the one nearest to a gold answer, or to the beginning."""
    if not text:
        return None
    context, found = example["context"], []
    for gold in gold_spans(example) or [(0, 0)]:
        places = (
            context.find(text, max(0, gold[0] - len(text) + 1)),  # the first that ends after the gold answer's start
            context.rfind(text, 0, gold[1] - 1 + len(text)),  # the last that starts before its end
        )
        found += [(overlap((i, i + len(text)), gold), -i) for i in places if i >= 0]
    return (start := -max(found)[1], start + len(text)) if found else None


def kind_of_mistake(text: str, span: tuple[int, int] | None, example: dict, f1_unit: str = "word") -> str:
    """The one of MISTAKES that a wrong answer is, measured against the gold answer that it is nearest to."""
    words = normalize_answer(text, f1_unit).split()
    if not words:
        return "no answer"
    if not example["answers"]["text"]:
        return "no gold answer"
    golds = list(zip(gold_spans(example), example["answers"]["text"], strict=True))
    gold_span, gold = max(
        golds, key=lambda gold: (bool(span) and overlap(span, gold[0]) > 0, f1_score(text, [gold[1]], f1_unit))
    )  # fmt: skip
    gold_words, shared = normalize_answer(gold, f1_unit).split(), f1_score(text, [gold], f1_unit) > 0
    if span is None or overlap(span, gold_span) > 0:
        if gold_words and contains(words, gold_words):
            return "too long"
        if contains(gold_words, words):
            return "too short"
        return "overlapping" if shared or span else "not in the context"
    if shared:
        return "same words elsewhere"
    between = example["context"][min(span[1], gold_span[1]) : max(span[0], gold_span[0])]
    return "another sentence" if SENTENCE_END.search(between) else "same sentence"


def contains(words: list[str], part: list[str]) -> bool:
    """Whether `part` is in `words`, in one piece."""
    return any(words[i : i + len(part)] == part for i in range(len(words) - len(part) + 1))


def question_word(question: str, f1_unit: str = "word") -> str:
    """The one of QUESTION_WORDS that comes first in the question. f1_unit "character": of a language without spaces,
    of which Chinese, Japanese and Thai are known."""
    if f1_unit == "character":
        found = re.search("|".join(f"({words})" for words in QUESTION_WORDS_WITHOUT_SPACES.values()), question)
        return list(QUESTION_WORDS_WITHOUT_SPACES)[found.lastindex - 1] if found else "other"
    found = QUESTION_WORD.search(" ".join(question.lower().split()))
    return SAME_WORD.get(found[0], found[0]) if found else "other"


def binned(values: np.ndarray, bounds: Sequence[float], unit: str) -> list[tuple[str, np.ndarray]]:
    """Groups of whole numbers, (name, members): from each bound to below the next; the last one is open."""
    groups = []
    for low, high in pairwise([*bounds, np.inf]):
        name = f"{low}" if high == low + 1 else f"{low} or more" if high == np.inf else f"{low} to {high - 1}"
        groups.append((f"{name} {unit}" if name == "1" else f"{name} {unit}s", (values >= low) & (values < high)))
    return groups


def length(text: str, f1_unit: str) -> int:
    """Words, or characters that are no white space."""
    words = text.split()
    return len(words) if f1_unit == "word" else sum(map(len, words))


def groups_of(outcomes: Outcomes) -> list[tuple[str, str, np.ndarray]]:
    """(what by, name, members bool (Q,)): for each way to divide the questions, groups that sum to all of them."""
    examples = outcomes.examples
    words = np.array([question_word(example["question"], outcomes.f1_unit) for example in examples])
    context_length = np.array([length(example["context"], outcomes.f1_unit) for example in examples])
    answer_length, fifth = np.full((2, len(examples)), -1)  # of the first gold answer, -1 where there is none
    for q, example in enumerate(examples):
        for start, end in gold_spans(example)[:1]:
            answer_length[q] = length(example["context"][start:end], outcomes.f1_unit)
            fifth[q] = min(5 * start // len(example["context"]), 4)
    quarters = np.unique(np.quantile(context_length, [0, 0.25, 0.5, 0.75]).astype(int)).tolist()
    ways = {
        "question word": [(word, words == word) for word in QUESTION_WORDS],
        "answer length": binned(answer_length, [1, 2, 3, 5, 10], outcomes.f1_unit),
        "context length": binned(context_length, quarters, outcomes.f1_unit),
        "position of the answer in the context": [(f"{20 * i} to {20 * i + 20} %", fifth == i) for i in range(5)],
    }
    for way in ("answer length", "position of the answer in the context"):
        ways[way].append(("no answer", fifth < 0))
    if outcomes.windows is not None:
        ways["windows"] = binned(outcomes.windows, [1, 2, 3, 5], "window")
    return [(by, name, members) for by, groups in ways.items() for name, members in groups if members.any()]
