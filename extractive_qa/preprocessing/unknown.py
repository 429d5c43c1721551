"""How much of a text a tokenizer does not know, and what to say of it.

What is in no vocabulary becomes one and the same token, [UNK]: a model can't tell such characters apart, whatever it
has learned.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from tokenizers import Tokenizer

from extractive_qa.preprocessing.windows import Features, tokenize

WORTH_SAYING = 0.05  # of the characters
LOOKED_AT = 20_000  # characters, to tell the script of a text
# the first word of a letter's Unicode name, and the languages (ISO 639) written in such letters. All others: Latin
SCRIPTS = {
    "CJK": {"zh", "yue", "ja"}, "HIRAGANA": {"ja"}, "KATAKANA": {"ja"}, "HANGUL": {"ko"}, "THAI": {"th"}, "LAO": {"lo"},
    "KHMER": {"km"}, "MYANMAR": {"my"}, "TIBETAN": {"bo", "dz"}, "GREEK": {"el"}, "HEBREW": {"he", "iw", "yi"},
    "CYRILLIC": {"ru", "uk", "bg", "sr", "mk", "be", "kk", "ky", "mn", "tg", "tt", "ba", "cv", "os"},
    "ARABIC": {"ar", "fa", "ur", "ps", "ckb", "ug", "sd", "arz"}, "DEVANAGARI": {"hi", "mr", "ne", "sa"},
    "BENGALI": {"bn", "as"}, "TAMIL": {"ta"}, "TELUGU": {"te"}, "KANNADA": {"kn"}, "MALAYALAM": {"ml"},
    "GUJARATI": {"gu"}, "GURMUKHI": {"pa"}, "ORIYA": {"or"}, "SINHALA": {"si"}, "GEORGIAN": {"ka"}, "ARMENIAN": {"hy"},
    "ETHIOPIC": {"am", "ti"},
}  # fmt: skip


def unknown_token(tokenizer: Tokenizer) -> int:
    """The id of the token for what the tokenizer does not know; -1 where it has none, as it knows every byte."""
    names = getattr(tokenizer.model, "unk_token", None), "[UNK]", "<unk>"
    ids = (tokenizer.token_to_id(name) for name in names if name)
    return next((number for number in ids if number is not None), -1)


def unknown_share(features: Features, contexts: Iterable[str], unknown: int) -> float:
    """The share, 0 to 1, of the characters of all contexts of the features, white space apart, that lie in the token
    `unknown`."""
    tokens = np.flatnonzero(features.context_ids == unknown)
    if not len(tokens):
        return 0.0
    start, end = features.context_offsets[tokens].T
    characters = sum(len("".join(context.split())) for context in set(contexts))
    return min(1.0, float((end - start).sum()) / max(1, characters))


def unknown_share_of(text: str, tokenizer: Tokenizer) -> float:
    """The share, 0 to 1, of the characters of a text, white space apart, that the tokenizer does not know."""
    ids, offsets, _ = tokenize(tokenizer, [text], with_offsets=True)
    start, end = offsets[ids == unknown_token(tokenizer)].T
    return min(1.0, float((end - start).sum()) / max(1, len("".join(text.split()))))


def unknown_answers(features: Features, unknown: int) -> int:
    """How many labelled answers of training features are nothing but tokens `unknown`."""
    _, first, last = features.labels()
    known = np.append(0, np.cumsum(features.context_ids != unknown))
    return int((known[last + 1] == known[first]).sum())


def is_foreign(text: str, languages: Sequence[str]) -> bool:
    """Whether `text` is mostly of a script in which none of the `languages` (as a model's card names them) is written.
    False where that can't be told."""
    codes = {language.lower().replace("_", "-").partition("-")[0] for language in languages}
    if not codes or not all(len(code) in (2, 3) for code in codes):  # "multilingual", or a name
        return False
    letters = (char for char in text[:LOOKED_AT] if char.isalpha())
    names = Counter(unicodedata.name(char, "?").partition(" ")[0] for char in letters)
    script = max(names, key=names.get, default="?")
    if script == "LATIN":
        return codes <= set().union(*SCRIPTS.values())
    return script in SCRIPTS and not codes & SCRIPTS[script]


def describe_unknown(
    features: Features, contexts: Sequence[str], tokenizer: Tokenizer, languages: Sequence[str] = ()
) -> str | None:
    """A line for people where the tokenizer does not know 5 % of the characters or more, else None. features: of these
    contexts; where they are labelled, answers are counted too. languages: those of the model's card."""
    unknown = unknown_token(tokenizer)
    share = unknown_share(features, contexts, unknown)
    if share < WORTH_SAYING:
        return None
    line = f"the model's tokenizer does not know {share:.0%} of the text's characters: all of them are [UNK] to it"
    if features.start_position is not None and (nothing := unknown_answers(features, unknown)):
        line += f", and {nothing:,} answer(s) are nothing but [UNK]"
    if is_foreign("".join(contexts[:100]), languages):
        line += f". It was trained on another language (its card says {', '.join(languages)})"
    return line + ". Use a model for this language."
