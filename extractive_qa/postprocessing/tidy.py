"""An answer as a person would write it down. Only white space and ASCII punctuation at its ends move, which EM and F1
leave out when they compare."""

import re
from unicodedata import category

PAIRS = {"(": ")", "[": "]", "{": "}"}
OPENED = {closing: opening for opening, closing in PAIRS.items()}
LOOSE = frozenset(",;:")  # never part of an answer
SENTENCE_END = re.compile(r"(?:^|[\s(\"])(?:[^\W\d]{4,}|\d+)[.!?]$")  # after a word that is no abbreviation
AT_ENDS = "".join({*".,;:!?'\"\u2018\u2019\u201c\u201d", *PAIRS, *OPENED, " "})  # not those of numbers, as -5 or 5%
ARTICLES = ("the ", "a ", "an ")
MARKS = re.compile(r"[^\w\s]|\s$|^\s")
# what says nothing by itself
FUNCTION_WORDS = frozenset({
    "a", "an", "and", "as", "at", "be", "been", "but", "by", "for", "from", "in", "is", "are", "was", "were", "its",
    "of", "on", "or", "than", "that", "the", "then", "this", "to", "which", "with",
})  # fmt: skip


def tidy(text: str, start: int, end: int) -> tuple[int, int]:
    """Where an answer, `text[start:end]`, is to begin and end: white space at its ends goes, and commas, colons, the
    full stop of a sentence. A bracket or quotation mark that is opened and not closed is closed where the mark that
    closes it comes next, and left out where it is at an end; so is one that is closed and never opened."""
    if not MARKS.search(text[start:end]):
        return start, end
    first, last = start, end
    while first < last and (text[first].isspace() or text[first] in LOOSE):
        first += 1
    while first < last and ends_loosely(text[first:last]):
        last -= 1
    follows, inside = text[last : last + 1], text[first:last]
    closes = follows in OPENED and inside.count(OPENED[follows]) > inside.count(follows)
    if closes or (follows == '"' and inside.count('"') % 2 == 1):
        last += 1
    while first < last and begins_loosely(text[first:last]):
        first += 1
    return (first, last) if first < last else (start, end)


def answer_key(text: str) -> str:
    """What is equal for two texts that are one answer: as EM compares them, without case, white space and marks at
    their ends, and an article before them; but a mark or an article inside counts, as 1.5 is not 15."""
    plain = " ".join(text.casefold().split()).strip(AT_ENDS)
    return (plain.partition(" ")[2] if plain.startswith(ARTICLES) else plain) or text


def ends_loosely(answer: str) -> bool:
    """Whether the last mark of an answer is to go."""
    mark = answer[-1]
    if mark in OPENED:
        return answer.count(mark) > answer.count(OPENED[mark])
    if mark == '"':
        return answer.count('"') % 2 == 1
    return mark.isspace() or mark in LOOSE or mark in PAIRS or SENTENCE_END.search(answer) is not None


def begins_loosely(answer: str) -> bool:
    """Whether the first mark of an answer is to go, when nothing more can be added to its end."""
    mark = answer[0]
    if mark in PAIRS:
        return answer.count(mark) > answer.count(PAIRS[mark])
    if mark == '"':
        return answer.count('"') % 2 == 1
    return mark.isspace() or mark in LOOSE or mark in OPENED


def says_nothing(text: str) -> bool:
    """Whether a text that is not empty has no letter, digit or symbol, or no word but articles, prepositions and their
    like: nothing that anybody would look for."""
    if text[:1].isalnum() and len(text) > 24:
        return False
    text = text.casefold()
    if (first := text.partition(" ")[0]).isalnum() and first not in FUNCTION_WORDS:
        return False
    words = re.findall(r"\w+", text)
    if words:
        return all(word in FUNCTION_WORDS for word in words) and not any(category(mark)[0] == "S" for mark in text)
    return text != "" and all(category(mark)[0] in "PZ" for mark in text)
