"""Where a model is right and where it is wrong: the figures of evaluate.py's report and of its comparison.

Numbers only, each with the number of questions behind it and an interval (see resampling.py); report.py shows them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from utils.calibration import calibration_error, reliability, selective_scores
from utils.metrics import exact_match_score, f1_score, normalize_answer
from utils.resampling import NORMAL, interval, randomization_test, resampled_means, resampled_sums, sums_by_context

QUESTION_WORDS = ("what", "who", "when", "where", "which", "how many/much", "how", "why", "other")
QUESTION_WORD = re.compile(r"\b(?:(how (?:many|much))|(who|whom|whose)|(what|when|where|which|how|why))\b")
SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*\s|[。！？\n]")
# a group has fewer: too few to be named as what to improve
QUESTIONS_TO_JUDGE, CONTEXTS_TO_JUDGE = 30, 10
# every mistake is of the first kind that fits
MISTAKES = {
    "no answer": "nothing was predicted, or no word",
    "too long": "holds the whole gold answer, and more",
    "too short": "a piece of the gold answer",
    "overlapping": "has a part of the gold answer, and something else beside it",
    "same words elsewhere": "another place, with some words of the gold answer",
    "same sentence": "another place in the gold answer's sentence, no word in common",
    "another sentence": "another sentence, no word in common",
    "not in the context": "a text that does not stand in the context, no word in common",
}
BOUNDARY = ("too long", "too short", "overlapping")
WRONG_PLACE = ("same words elsewhere", "same sentence", "another sentence", "not in the context")


@dataclass(frozen=True)
class Outcomes:
    """How Q questions were answered."""

    examples: Sequence[dict]
    texts: list[str]  # the predictions, "" where there is none
    spans: list[tuple[int, int] | None]  # where they stand in their contexts, characters; None where they don't
    probability: np.ndarray | None  # float (Q,); None where it is not known
    windows: np.ndarray | None  # int (Q,): windows that the context was cut into; None where no model was asked
    exact_match: np.ndarray  # float (Q,), 0 or 1
    f1: np.ndarray  # float (Q,), 0 to 1
    context: np.ndarray  # int (Q,): the number of the question's context, from 0

    @property
    def contexts(self) -> int:
        return int(self.context.max()) + 1


def judge(
    examples: Sequence[dict],
    predictions: Mapping[str, str],
    answers: Mapping[str, dict] | None = None,
    windows: np.ndarray | None = None,
) -> Outcomes:
    """The outcomes of `predictions` {id: text}. answers: {id: answer with start, end, probability} of all of them, where
    a model gave them; without, places are looked for in the contexts, nearest to a gold answer."""
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
        exact_match=np.array([exact_match_score(*pair) for pair in zip(texts, golds, strict=True)]),
        f1=np.array([f1_score(*pair) for pair in zip(texts, golds, strict=True)]),
        context=np.array([numbers.setdefault(example["context"], len(numbers)) for example in examples]),
    )


def gold_spans(example: dict) -> list[tuple[int, int]]:
    """Where the gold answers stand, characters into the context, end exclusive."""
    texts, starts = example["answers"]["text"], example["answers"]["answer_start"]
    return [(start, start + len(text)) for text, start in zip(texts, starts, strict=True)]


def overlap(one: tuple[int, int], other: tuple[int, int]) -> int:
    """Characters that two spans share; less than 0: as many lie between them."""
    return min(one[1], other[1]) - max(one[0], other[0])


def find_span(text: str, example: dict) -> tuple[int, int] | None:
    """Where `text` stands in the context: of several places the one nearest to a gold answer."""
    if not text:
        return None
    context, found = example["context"], []
    for gold in gold_spans(example):
        places = (
            context.find(text, max(0, gold[0] - len(text) + 1)),  # the first that ends after the gold answer's start
            context.rfind(text, 0, gold[1] - 1 + len(text)),  # the last that starts before its end
        )
        found += [(overlap((i, i + len(text)), gold), -i) for i in places if i >= 0]
    return (start := -max(found)[1], start + len(text)) if found else None


def kind_of_mistake(text: str, span: tuple[int, int] | None, example: dict) -> str:
    """The one of MISTAKES that a wrong answer is, measured against the gold answer that it is nearest to."""
    words = normalize_answer(text).split()
    if not words:
        return "no answer"
    golds = list(zip(gold_spans(example), example["answers"]["text"], strict=True))
    gold_span, gold = max(
        golds, key=lambda gold: (bool(span) and overlap(span, gold[0]) > 0, f1_score(text, [gold[1]]))
    )  # fmt: skip
    gold_words, shared = normalize_answer(gold).split(), f1_score(text, [gold]) > 0
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
    """Whether `part` stands in `words`, in one piece."""
    return any(words[i : i + len(part)] == part for i in range(len(words) - len(part) + 1))


def question_word(question: str) -> str:
    """The one of QUESTION_WORDS that comes first in the question."""
    found = QUESTION_WORD.search(" ".join(question.lower().split()))
    if not found:
        return "other"
    many, who, word = found.groups()
    return "how many/much" if many else "who" if who else word


def binned(values: np.ndarray, bounds: Sequence[float], unit: str) -> list[tuple[str, np.ndarray]]:
    """Groups of whole numbers, (name, members): from each bound to below the next; the last one is open."""
    groups = []
    for low, high in zip(bounds, [*bounds[1:], np.inf], strict=True):
        name = f"{low}" if high == low + 1 else f"{low} or more" if high == np.inf else f"{low} to {high - 1}"
        groups.append((f"{name} {unit}", (values >= low) & (values < high)))
    return groups


def groups_of(outcomes: Outcomes) -> list[tuple[str, str, np.ndarray]]:
    """(what by, name, members bool (Q,)): for each way to divide the questions, groups that sum to all of them."""
    examples = outcomes.examples
    words = np.array([question_word(example["question"]) for example in examples])
    answer_words = np.array([len(example["answers"]["text"][0].split()) for example in examples])
    context_words = np.array([len(example["context"].split()) for example in examples])
    place = np.array([example["answers"]["answer_start"][0] / len(example["context"]) for example in examples])
    fifth = np.minimum((5 * place).astype(int), 4)
    quarters = np.unique(np.quantile(context_words, [0, 0.25, 0.5, 0.75]).astype(int)).tolist()
    ways = {
        "question word": [(word, words == word) for word in QUESTION_WORDS],
        "answer length": binned(answer_words, [0, 2, 3, 5, 10], "words"),
        "context length": binned(context_words, quarters, "words"),
        "answer position": [(f"{20 * i} to {20 * i + 20} % of the context", fifth == i) for i in range(5)],
    }
    ways["answer length"][0] = ("1 word", ways["answer length"][0][1])  # text without spaces counts as one
    if outcomes.windows is not None:
        ways["windows"] = binned(outcomes.windows, [1, 2, 3, 5], "windows")
        ways["windows"][0] = ("1 window", ways["windows"][0][1])
    return [(by, name, members) for by, groups in ways.items() for name, members in groups if members.any()]


def scores(outcomes: Outcomes, members: np.ndarray) -> list[dict]:
    """Of each group, members bool (K, Q): `questions`, `contexts`, `exact_match`, `f1` in percent and their intervals
    `exact_match_interval`, `f1_interval` (None where there are too few to tell)."""
    rows = [{"questions": int(some.sum()), "contexts": len(np.unique(outcomes.context[some]))} for some in members]
    for name in ("exact_match", "f1"):
        values = 100 * getattr(outcomes, name)
        draws = resampled_means(values, outcomes.context, members)
        for k, row in enumerate(rows):
            row[name] = float(values[members[k]].mean())
            row[f"{name}_interval"] = interval(draws[:, k], row["contexts"])
    return rows


def group_scores(outcomes: Outcomes) -> list[dict]:
    """`by`, `group`, what `scores` gives, and against the rest of the questions: `rest` (their EM), `lost` (points of
    EM of all that are lost as this group is worse than the rest) and `stands_out`: worse beyond chance, though so many
    groups are looked at (Bonferroni's bound)."""
    found = groups_of(outcomes)
    members = np.stack([some for _, _, some in found])
    values = 100 * outcomes.exact_match
    draws = resampled_means(values, outcomes.context, np.concatenate([members, ~members]))
    bound = NORMAL.inv_cdf(1 - 0.025 / len(found))
    rows = []
    for k, row in enumerate(scores(outcomes, members)):
        by, name, some = found[k]
        enough = row["questions"] >= QUESTIONS_TO_JUDGE and row["contexts"] >= CONTEXTS_TO_JUDGE
        rest = float(values[~some].mean()) if not some.all() else None
        stands_out = False
        if enough and rest is not None and row["exact_match"] < rest:
            differences = draws[:, len(found) + k] - draws[:, k]
            stands_out = bool(rest - row["exact_match"] > bound * np.nanstd(differences))
        lost = (rest - row["exact_match"]) * some.mean() if rest is not None else 0.0
        rows.append({"by": by, "group": name, **row, "enough": enough, "rest": rest, "lost": float(lost),
                     "stands_out": stands_out})  # fmt: skip
    return rows


def mistakes(outcomes: Outcomes) -> list[dict]:
    """The confusions, in the order of MISTAKES: `kind`, `count`, `share` of all mistakes in percent with its interval
    `share_interval`, `f1` (mean, percent). An answer is a mistake where it is no exact match; each is of one kind."""
    wrong = np.flatnonzero(outcomes.exact_match == 0)
    kinds = np.array([kind_of_mistake(outcomes.texts[q], outcomes.spans[q], outcomes.examples[q]) for q in wrong])
    if not len(wrong):
        return []
    is_kind = np.stack([kinds == kind for kind in MISTAKES], axis=1)  # (wrong, kinds)
    columns = np.hstack([is_kind, np.ones((len(wrong), 1))])
    numbers, context = np.unique(outcomes.context[wrong], return_inverse=True)
    sums = resampled_sums(sums_by_context(columns, context))  # (B, kinds + 1)
    draws = 100 * sums[:, :-1] / sums[:, -1:]
    return [
        {
            "kind": kind,
            "count": int(is_kind[:, k].sum()),
            "share": 100 * float(is_kind[:, k].mean()),
            "share_interval": interval(draws[:, k], len(numbers)),
            "f1": 100 * float(outcomes.f1[wrong[is_kind[:, k]]].mean()),
        }
        for k, kind in enumerate(MISTAKES)
        if is_kind[:, k].any()
    ]


def confidence(outcomes: Outcomes) -> dict | None:
    """`reliability` (points of the diagram), `calibration_error`, `mean` confidence, and `thresholds`: as
    selective_scores gives them, with `questions` and `exact_match_interval`. None where no probability is known."""
    if outcomes.probability is None:
        return None
    rows = selective_scores(outcomes.probability, outcomes.exact_match)
    answered = [row for row in rows if row["exact_match"] is not None]
    members = np.stack([outcomes.probability >= row["min_confidence"] for row in answered])
    for row, of_those in zip(answered, scores(outcomes, members), strict=True):
        row |= {name: of_those[name] for name in ("questions", "exact_match_interval")}
    return {
        "reliability": reliability(outcomes.probability, outcomes.exact_match),
        "calibration_error": calibration_error(outcomes.probability, outcomes.exact_match),
        "mean": float(outcomes.probability.mean()),
        "thresholds": answered,
    }


def worst(outcomes: Outcomes, count: int) -> list[int]:
    """The questions of the worst mistakes: wrong although sure, by confidence times what F1 lacks. Where no confidence
    is known, some of the mistakes with the least F1, spread over the file."""
    wrong = np.flatnonzero(outcomes.exact_match == 0)
    if outcomes.probability is not None:
        badness = outcomes.probability[wrong] * (1 - outcomes.f1[wrong])
        return wrong[np.argsort(-badness, kind="stable")][:count].tolist()
    lowest = wrong[np.argsort(outcomes.f1[wrong], kind="stable")]
    nothing_right = wrong[outcomes.f1[wrong] == 0]
    return spread(nothing_right, count) if len(nothing_right) >= count else lowest[:count].tolist()


def spread(questions: np.ndarray, count: int) -> list[int]:
    """`count` of the questions (all where there are fewer), at even distances."""
    return questions[np.linspace(0, len(questions) - 1, min(count, len(questions))).astype(int)].tolist()


def analyse(outcomes: Outcomes, shown: int = 20) -> dict:
    """All figures of one run: `scores`, `groups`, `mistakes`, `confidence`, and `worst`, the questions of `shown`
    mistakes."""
    everything = np.ones((1, len(outcomes.examples)), dtype=bool)
    return {
        "scores": scores(outcomes, everything)[0],
        "groups": group_scores(outcomes),
        "mistakes": mistakes(outcomes),
        "confidence": confidence(outcomes),
        "worst": worst(outcomes, shown),
    }


def compare(this: Outcomes, other: Outcomes, shown: int = 10) -> dict:
    """Two runs on the same questions. `scores`: of `exact_match` and `f1`, percent, `this`, `other`, `difference` with
    its `interval` and its `p` (randomization_test); `groups`: the same of EM for each group, without p; `counts`:
    questions that both, only one or none got right (exact match); `only_this`, `only_other`: some of those questions."""
    right, others = this.exact_match > 0, other.exact_match > 0
    everything = [("all", "all questions", np.ones(len(right), dtype=bool))]

    def differences(name: str, groups: list) -> list[dict]:
        values = 100 * getattr(this, name), 100 * getattr(other, name)
        draws = resampled_means(values[0] - values[1], this.context, np.stack([some for *_, some in groups]))
        return [
            {
                "by": by,
                "group": group,
                "questions": int(some.sum()),
                "this": float(values[0][some].mean()),
                "other": float(values[1][some].mean()),
                "difference": float((values[0] - values[1])[some].mean()),
                "interval": interval(draws[:, k], len(np.unique(this.context[some]))),
            }
            for k, (by, group, some) in enumerate(groups)
        ]

    rows = []
    for name in ("exact_match", "f1"):
        p = randomization_test(getattr(this, name) - getattr(other, name), this.context)
        rows.append({**differences(name, everything)[0], "score": name, "p": p})
    return {
        "scores": rows,
        "groups": differences("exact_match", groups_of(this)),
        "counts": {
            "both": int((right & others).sum()),
            "only_this": int((right & ~others).sum()),
            "only_other": int((~right & others).sum()),
            "neither": int((~right & ~others).sum()),
        },
        "only_this": spread(np.flatnonzero(right & ~others), shown),
        "only_other": spread(np.flatnonzero(~right & others), shown),
    }
