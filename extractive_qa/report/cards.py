"""What of the data stands in the report: questions, answers and contexts, escaped, cut to a length, marked."""

import html
import re
from itertools import pairwise

from extractive_qa.report.outcomes import Outcomes, gold_spans, kind_of_mistake, overlap

AROUND = 160  # characters of context on each side of an answer
LONGEST = {"question": 400, "answer": 300, "id": 80}  # characters shown
# what a browser drops, or lets a text reorder the letters around it with
HIDDEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
LEGEND = (
    '<p class="soft">In the context: <mark class="gold">gold answer</mark>, <mark class="predicted">predicted</mark>, '
    '<mark class="both">both</mark>.</p>'
)


def escape(text: str, longest: int | None = None) -> str:
    """The first `longest` characters of any text as HTML, in an element or an attribute. Control characters, marks of
    direction and lone surrogates are shown as \\u202e."""
    cut = text if longest is None or len(text) <= longest else text[:longest] + " …"
    return html.escape(HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", cut))


def question_card(outcomes: Outcomes, q: int, other: Outcomes | None = None) -> str:
    """One question: the context around the marked answers, prediction (the other run's too), gold, confidence."""
    example, text, span = outcomes.examples[q], outcomes.texts[q], outcomes.spans[q]
    golds = list(dict.fromkeys(example["answers"]["text"]))
    facts = [f"predicted {answer(text)}"]
    if other:
        facts.append(f"the other run {answer(other.texts[q])}")
    facts.append("gold " + (" | ".join(answer(gold) for gold in golds[:5]) or answer("")))
    if outcomes.probability is not None:
        facts.append(f"confidence {100 * outcomes.probability[q]:.0f} %")
    if not outcomes.exact_match[q]:
        facts.append(f"F1 {100 * outcomes.f1[q]:.0f}")
        facts.append(kind_of_mistake(text, span, example))
    facts.append(f"id <bdi>{escape(example['id'], LONGEST['id'])}</bdi>")
    return (
        f'<article>\n<p class="question"><bdi>{escape(example["question"].strip(), LONGEST["question"])}</bdi></p>\n'
        f'<p class="context" dir="auto">{marked_context(example, span)}</p>\n'
        f'<p class="facts">{" · ".join(facts)}</p>\n</article>'
    )


def answer(text: str) -> str:
    return f"“<bdi>{escape(text, LONGEST['answer'])}</bdi>”" if text.strip() else "nothing"


def marked_context(example: dict, span: tuple[int, int] | None) -> str:
    """The context around the predicted span and the gold one it is nearest to, both marked, the rest left out."""
    context, golds = example["context"], gold_spans(example)
    gold = max(golds, key=lambda gold: overlap(gold, span), default=None) if span else next(iter(golds), None)
    marks = [mark for mark in (gold, span) if mark] or [(0, 0)]  # the beginning, where there is nothing to mark
    pieces: list[list[int]] = []  # of the context, from left to right, none touching another
    for start, end in sorted(marks):
        left, right = max(0, start - AROUND), min(len(context), min(end, start + LONGEST["answer"]) + AROUND)
        left, right = at_spaces(context, left, right, start, end)
        if pieces and left <= pieces[-1][1]:
            pieces[-1][1] = max(right, pieces[-1][1])
        else:
            pieces.append([left, right])
    shown = []
    for left, right in pieces:
        cuts = sorted({left, right, *(place for mark in marks for place in mark if left < place < right)})
        shown.append("".join(marked(context, a, b, gold, span) for a, b in pairwise(cuts)))
    before, after = ("… " if pieces[0][0] else ""), (" …" if pieces[-1][1] < len(context) else "")
    return before + " … ".join(shown) + after


def at_spaces(context: str, left: int, right: int, start: int, end: int) -> tuple[int, int]:
    """`left` and `right` moved towards the answer, so that no word is cut where a space is near."""
    if left and (space := context.find(" ", left, min(left + 20, start))) >= 0:
        left = space + 1
    if right < len(context) and (space := context.rfind(" ", max(right - 20, end), right)) >= 0:
        right = space
    return left, right


def marked(context: str, start: int, end: int, gold: tuple[int, int] | None, span: tuple[int, int] | None) -> str:
    """A piece of the context that lies wholly inside or outside of either span."""
    in_gold, in_span = (mark is not None and mark[0] <= start < mark[1] for mark in (gold, span))
    text = escape(context[start:end])
    if not (in_gold or in_span):
        return text
    return f'<mark class="{"both" if in_gold and in_span else "gold" if in_gold else "predicted"}">{text}</mark>'
