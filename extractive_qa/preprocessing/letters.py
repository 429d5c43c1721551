"""A token's offsets are those of its letters: no white space before or behind them, and none of them cut off.

To byte-level and Unigram tokenizers the space before a word belongs to it. A byte-level one may put such a space in
front of a text, or of each of its pieces, and its post-processor may take one off the offsets (`trim_offsets`) that is
not there: then the first letter is lost. It may also leave one there (`add_prefix_space` of the post-processor, where
the text itself begins with a space).
"""

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from extractive_qa.preprocessing.graphemes import code_points

IS_SPACE = np.array([chr(point).isspace() for point in range(0x3002)])  # the last is none, and none beyond is
BYTE_LEVEL_SPACE = "Ġ"


def keep_letters(
    tokenizer: Tokenizer, texts: Sequence[str], ids: np.ndarray, offsets: np.ndarray, sizes: Sequence[int]
) -> None:
    """Sets tokens' offsets, int (T, 2), in place, to the letters that they begin and end with. Tokens of nothing but
    white space stay. ids: int (T,). sizes: how many of the tokens are of each text."""
    points = code_points("".join(texts))
    place, space = np.arange(len(points)), IS_SPACE.take(points, mode="clip")
    lengths = np.array([len(text) for text in texts])
    base = np.repeat(np.cumsum(lengths) - lengths, sizes)  # (T,): where a token's text begins in all texts
    start, end = offsets.T + base
    # a letter before a token that no token has, as one space too much was taken off
    before = np.maximum(np.append(0, end)[:-1], base)
    lost = np.flatnonzero((before < start) & ~np.append(True, space)[start])
    cut = [i for i in lost.tolist() if tokenizer.id_to_token(int(ids[i])).startswith(BYTE_LEVEL_SPACE)]
    start[cut] -= 1
    # the next letter from each place on, and the end of the last one before it
    first = np.append(np.minimum.accumulate(np.where(space, len(points), place)[::-1])[::-1], len(points))[start]
    last = np.append(0, np.maximum.accumulate(np.where(space, 0, place + 1)))[end]
    has_letter = first < last
    start = np.minimum.accumulate(np.where(has_letter, first, start)[::-1])[::-1]  # a space put in front may lie behind
    offsets[:, 0] = start - base
    offsets[:, 1] = np.where(has_letter, last, end) - base
