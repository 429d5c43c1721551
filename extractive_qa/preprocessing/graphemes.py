"""A letter and its marks are one: no token's offsets part an accent or a vowel sign from the letter it belongs to.

BERT's uncased tokenizers drop marks, and "e" + U+0301 is then one character longer than its token; others give a mark a
token of its own. Either way an answer would end inside of what a reader sees as one letter. The rule is that of
Unicode's grapheme clusters (Standard Annex 29) for category M, which holds variation selectors too, and for sequences
that a zero-width joiner ties together.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np

JOINER = "\u200d"


def keep_marks(texts: Sequence[str], offsets: np.ndarray, sizes: Sequence[int]) -> None:
    """Widens tokens' offsets, int (T, 2), in place, to the graphemes that they begin and end in. sizes: how many of the
    tokens are of each text. Texts without marks cost next to nothing."""
    points = code_points("".join(text for text in texts if not text.isascii()))
    marks = list(filter(is_mark, map(chr, np.flatnonzero(np.bincount(points)).tolist())))
    if not marks:
        return
    done = 0
    for text, size in zip(texts, sizes, strict=True):
        if any(mark in text for mark in marks):
            starts, ends = grapheme_edges(text)
            of_text = offsets[done : done + size]
            of_text[:, 0], of_text[:, 1] = starts[of_text[:, 0]], ends[of_text[:, 1]]
        done += size


def is_mark(char: str) -> bool:
    return unicodedata.category(char)[0] == "M" or char == JOINER


def code_points(text: str) -> np.ndarray:
    """uint32 (len,)."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def grapheme_edges(text: str) -> tuple[np.ndarray, np.ndarray]:
    """For every place between two characters, and both ends, int (len + 1,): the next place to the left, and to the
    right, that is not inside of a grapheme; the place itself where it is none."""
    points, chars = code_points(text), set(text)
    marks = list(map(ord, filter(is_mark, chars)))
    joinable = [ord(char) for char in chars if unicodedata.category(char)[0] in "LS"]
    inside = np.zeros(len(text) + 1, dtype=bool)
    inside[1:-1] = np.isin(points[1:], marks) | ((points[:-1] == ord(JOINER)) & np.isin(points[1:], joinable))
    place = np.arange(len(text) + 1)
    starts = np.maximum.accumulate(np.where(inside, 0, place))
    ends = np.minimum.accumulate(np.where(inside, len(text), place)[::-1])[::-1]
    return starts, ends
