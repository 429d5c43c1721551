"""Where an answer is in its context, told by its text where the offset that came with it is wrong.

What is certain is repaired, nothing else: a repair that is wrong is worse than a record that is refused. An answer is
where its offset says, give or take three characters; else where its text occurs, if that is one place. A text that
differs from the context only in white space, Unicode form, typography or case is taken as the context has it.
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from extractive_qa.text import in_surroundings

NEAR = 3  # characters: so far off, a label is a slip and means no other place
BY_NEAR, BY_TEXT = f"offset wrong by up to {NEAR} characters", "offset wrong, but the text occurs once"
CANDIDATES = 5  # shown
# what word processors and spreadsheets make of quotes and dashes
TYPOGRAPHY = str.maketrans("‘’‚‛´`“”„‟«»‐‑‒–—―−", "''''''" + '"' * 6 + "-" * 7)


class Place(NamedTuple):
    """Where an answer is, or why it can't be told. `context[start : start + len(text)] == text` where there is no
    fault."""

    start: int
    text: str
    repair: str  # what kind of repair that took, "" for none
    fault: str


def find_place(text: str, start: int | None, context: str) -> Place:
    """The place of an answer with words in it. start: characters into `context`; None where none was given."""
    if start is not None and start >= 0 and context.startswith(text, start):
        return Place(start, text, "", "")
    exact = list(islice(occurrences(text, context), 1000))
    similar = similar_spans(text, context) if start is not None or not exact else []
    if start is not None:
        # at the place that is named, as the context has it; or to the letter, close by
        spans = {strip(context, begin, begin + len(text)) for begin in exact if abs(begin - start) <= NEAR}
        spans |= {span for span in similar if starts_at(span, start, context)}
        spans = spans or {span for span in similar if abs(span[0] - start) <= NEAR}
        if len(spans) == 1:
            return placed(text, *spans.pop(), start, context)
        if spans:
            return Place(-1, text, "", f"occurs at {shown_places(sorted(spans), context)}")
    spans = [(begin, begin + len(text)) for begin in exact] or similar
    if len(spans) == 1 and not cuts_a_word(context, *spans[0]):
        return placed(text, *spans[0], start, context)
    if not spans:
        return Place(-1, text, "", explain_absence(text, start, context))
    return Place(-1, text, "", f"occurs {'inside a word ' if len(spans) == 1 else ''}at {shown_places(spans, context)}")


def placed(text: str, begin: int, end: int, start: int | None, context: str) -> Place:
    """The place of an answer that is at begin..end, with the kind of repair that says so."""
    found = context[begin:end]
    if found != text and (found.strip() != text.strip() or start == begin):
        return Place(begin, found, f"other {kind_of_difference(text, found)}", "")
    if start is None:
        return Place(begin, found, "", "")
    return Place(begin, found, BY_NEAR if abs(begin - start) <= NEAR else BY_TEXT, "")


def occurrences(text: str, context: str) -> Iterator[int]:
    """Where `text` is to the letter; places may overlap."""
    return (match.start() for match in re.finditer(f"(?={re.escape(text)})", context))


def strip(context: str, begin: int, end: int) -> tuple[int, int]:
    """The span without white space at its ends; the same one where it is nothing else."""
    inner = context[begin:end].strip()
    begin += context[begin:end].find(inner)
    return begin, begin + len(inner)


def starts_at(span: tuple[int, int], start: int, context: str) -> bool:
    """Whether a span begins at `start`, white space apart."""
    return span[0] == start or (0 <= start < span[0] and context[start : span[0]].isspace())


def cuts_a_word(context: str, begin: int, end: int) -> bool:
    """Whether a span begins or ends between two letters or digits of a script that writes words apart. Those of class
    Lo, which has no case, may not: Chinese, Japanese and Thai don't."""
    pairs = (context[max(0, begin - 1) : begin + 1], context[end - 1 : end + 1])
    return any(
        len(pair) == 2 and pair.isalnum() and all(unicodedata.category(char) != "Lo" for char in pair) for pair in pairs
    )


# texts that are the same but for their writing: folded


@lru_cache(8)  # the questions of a context are neighbours
def fold(text: str) -> tuple[str, list[int]]:
    """A text in one case, one Unicode form and one typography, without white space and what is not seen, and for each
    of its characters the one it came from."""
    folded, places = [], []
    for place, char in enumerate(text):
        if char.isspace() or unicodedata.category(char) == "Cf":
            continue
        for part in unicodedata.normalize("NFKD", char).translate(TYPOGRAPHY).casefold():
            if not part.isspace():
                folded.append(part)
                places.append(place)
    return "".join(folded), places


def similar_spans(text: str, context: str) -> list[tuple[int, int]]:
    """Where `context` has `text` but for its writing, in whole characters and whole words."""
    wanted, (folded, places) = fold(text)[0], fold(context)
    spans = []
    for begin in islice(occurrences(wanted, folded), 1000) if wanted else ():
        last = begin + len(wanted) - 1
        first_char, end = places[begin], places[last] + 1
        whole = (begin == 0 or places[begin - 1] < first_char) and places[last + 1 : last + 2] != [places[last]]
        marked = unicodedata.category(context[end : end + 1] or " ")[0] == "M"  # an accent that `text` lacks
        if whole and not marked and not cuts_a_word(context, first_char, end):
            spans.append((first_char, end))
    return spans


STEPS = (
    ("white space", lambda text: "".join(text.split())),
    ("Unicode form", lambda text: unicodedata.normalize("NFKC", text)),
    ("typography", lambda text: text.translate(TYPOGRAPHY)),
)


def kind_of_difference(text: str, found: str) -> str:
    """In what two texts that fold to the same differ: the last of the steps that make them equal."""
    for kind, step in STEPS:
        text, found = step(text), step(found)
        if text == found:
            return kind
    return "case"


# words for what can't be repaired


def shown_places(spans: list[tuple[int, int]], context: str) -> str:
    """Places, each in its surroundings."""
    some = [f"{begin} ({in_surroundings(context, begin, end)})" for begin, end in spans[:CANDIDATES]]
    return ", ".join(some) + (f" and {len(spans) - CANDIDATES} more" if len(spans) > CANDIDATES else "")


def explain_absence(text: str, start: int | None, context: str) -> str:
    """Where an answer that is not in its context first differs from it."""
    (wanted, places), (folded, context_places) = fold(text), fold(context)
    begin = bisect_left(context_places, start) if start is not None and start >= 0 else len(folded)
    same = common_length(wanted, folded[begin:])
    # the longest beginning that the context has somewhere
    longest = bisect_left(range(1, len(wanted) + 1), True, key=lambda size: wanted[:size] not in folded)
    if longest > same:
        begin, same = folded.find(wanted[:longest]), longest
    if same < min(3, len(wanted)) or begin + same >= len(folded):
        return "is not in the context"
    ours, theirs = places[same] if same < len(places) else len(text), context_places[begin + same]
    mine = in_surroundings(text, ours, ours + 1)
    return (
        f"is not in the context: it is like the text at {context_places[begin]} up to {mine}, where the context has "
        f"{in_surroundings(context, theirs, theirs + 1)}{code_points(text[ours : ours + 1], context[theirs])}"
    )


def common_length(one: str, other: str) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def code_points(*chars: str) -> str:
    """Names of characters that may look the same."""
    if all(char.isascii() for char in chars):
        return ""
    return f" ({' against '.join(f'U+{ord(char):04X}' for char in chars if char)})"
