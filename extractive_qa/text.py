"""Texts of unknown origin: what is in them, and how they are shown."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # Unicode's class Cc but for tab and line feed
SURROGATES = re.compile("[\ud800-\udfff]")
# scripts that put no space between words: Thai, Lao, Tibetan, Burmese, Khmer, kana, bopomofo, Han
WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\u3005-\u3007\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f"
    "\U00020000-\U0003ffff]"
)


def shown(path: Path) -> str:
    """A path for people: as seen from the current folder where it lies below that."""
    path = Path(path).absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def as_argument(path: Path) -> str:
    """A path for people as it is typed behind a flag: in quotes where it holds more than letters and digits."""
    text = shown(path)
    return text if re.fullmatch(r"[\w./\\:+-]+", text) else f'"{text}"'


def printable(text: str, longest: int | None = None) -> str:
    """The first `longest` characters of a text of unknown origin. Control characters, which could clear a terminal or
    move its cursor, are shown as \\x1b; line ends and tabs stay."""
    return CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text[:longest])


def short_repr(value: object, longest: int = 40) -> str:
    """The first characters of any value's repr."""
    try:
        return repr(value)[:longest]
    except RecursionError:  # parse_json takes a nesting that repr, which needs a level more, does not
        return f"a {type(value).__name__} that is nested too deeply"


def has_text(text: str) -> bool:
    """Whether there is anything to tokenize: a character that is neither space nor control, mark or U+FFFD."""
    return any(unicodedata.category(char)[0] not in "ZCM" and char != "\ufffd" for char in text)


def mostly_without_spaces(texts: Iterable[str]) -> bool:
    """Whether more of the letters of `texts` are of scripts that put no space between words than of others. Digits and
    symbols, which all scripts share, don't count."""
    balance = 0
    for text in texts:
        others = text if text.isascii() else WITHOUT_SPACES.sub("", text)
        balance += len(text) - len(others) - sum(map(str.isalpha, others))
    return balance > 0


def replace_surrogates(text: str) -> str:
    """`text` with lone surrogates, which no encoding can hold, as U+FFFD. Offsets stay as they are."""
    return SURROGATES.sub("\ufffd", text)


def in_surroundings(text: str, begin: int, end: int, around: int = 15) -> str:
    """text[begin:end] in quotes, with the characters around it, for people."""
    before, after = text[max(0, begin - around) : begin], text[end : end + around]
    dots = "…" * (begin > around), "…" * (end + around < len(text))
    return f"'{dots[0]}{printable(before)}[{printable(text[begin:end], 40)}]{printable(after)}{dots[1]}'".replace(
        "\n", " "
    )
