"""A text cut into passages for a retriever: they overlap, and end with a sentence where that can be helped."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import islice

LONGEST, OVERLAP = 180, 60  # words
LONGEST_WORD = 40  # characters: what is longer, as text without spaces, is cut
# a sentence, with the white space behind it: up to a full stop or an empty line
SENTENCE = re.compile(r".+?(?:[.!?][\"'”’)\]]*(?=\s)|[。！？]|\n\s*\n|\Z)\s*", re.DOTALL)
PARTS = re.compile(rf"\S{{1,{LONGEST_WORD}}}\s*")
# words, and of scripts without spaces between them each run, of which pairs are taken
WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+|[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")
ACCENTS = re.compile(r"[\u0300-\u036f]+")  # of Latin, Greek and Cyrillic letters, once they are apart from these


# English words that find nothing: without them the right paragraph is among the first a little more often
STOP_WORDS = frozenset({
    "a", "an", "the", "of", "in", "on", "at", "to", "by", "for", "from", "with", "and", "or", "is", "are", "was",
    "were", "did", "do", "does", "what", "who", "when", "where", "which", "how", "that", "this", "it", "its", "be",
    "as",
})  # fmt: skip


def cut_passages(text: str) -> list[tuple[int, int]]:
    """Where passages begin and end, in characters, end exclusive: up to LONGEST words each, the last OVERLAP of one, or
    fewer, again in the next. Every word is in one at least."""
    pieces = []  # (start, end, words): sentences, and parts of those that are too long
    for sentence in SENTENCE.finditer(text):
        parts = PARTS.finditer(text, *sentence.span())
        while some := list(islice(parts, LONGEST)):
            pieces.append((some[0].start(), some[-1].end(), len(some)))
    passages, first = [], 0
    while first < len(pieces):
        last, words = first, 0
        while last < len(pieces) and (last == first or words + pieces[last][2] <= LONGEST):
            words += pieces[last][2]
            last += 1
        start, end = pieces[first][0], pieces[last - 1][1]
        passages.append((start, start + len(text[start:end].rstrip())))
        if last == len(pieces):
            break
        begin, repeated = last, 0
        room = min(OVERLAP, LONGEST - pieces[last][2])  # what comes next must fit in too
        while begin - 1 > first and repeated + pieces[begin - 1][2] <= room:
            begin -= 1
            repeated += pieces[begin][2]
        first = begin
    return passages


def join_overlapping(passages: Sequence[dict], source: Sequence[str]) -> list[dict]:
    """Passages, best first, with those that overlap in their source as one, at the rank of the better: a place in both
    would be found twice, as if the text came again. Each has its text, start (characters into its source) and the
    fields that tell the source. All other fields are those of the passage that begins first."""
    joined: list[tuple[int, dict]] = []

    def place(ranked: tuple[int, dict]) -> tuple[str, int]:
        return str([ranked[1][name] for name in source]), ranked[1]["start"]

    for rank, passage in sorted(enumerate(passages), key=place):
        if joined and place(joined[-1])[0] == place((rank, passage))[0]:
            before, last = joined[-1]
            shared = last["start"] + len(last["text"]) - passage["start"]
            if shared > 0:
                joined[-1] = min(before, rank), last | {"text": last["text"] + passage["text"][shared:]}
                continue
        joined.append((rank, passage))
    return [passage for _, passage in sorted(joined, key=lambda ranked: ranked[0])]


def words_of(text: str) -> list[str]:
    """The terms by which BM25 finds a text: words in any case, without accents; of Chinese and Japanese pairs of
    characters. Behind them the stem of each by Porter's English stemmer: a word counts most as it is, and less in
    another form."""
    import Stemmer

    text = text.casefold()
    if not text.isascii():
        text = unicodedata.normalize("NFC", ACCENTS.sub("", unicodedata.normalize("NFKD", text)))
    terms = []
    for word in WORDS.findall(text):
        if "\u3040" <= word[0] <= "\u9fff" and len(word) > 1:
            terms += [word[i : i + 2] for i in range(len(word) - 1)]
        elif word not in STOP_WORDS:
            terms.append(word)
    # one for each text: a stemmer is not for several threads at once
    return terms + Stemmer.Stemmer("english", 0).stemWords(terms)
