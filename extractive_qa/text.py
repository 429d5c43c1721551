"""Texts of unknown origin: what is in them, and how they are shown."""

import re
import unicodedata
from pathlib import Path


def shown(path: Path) -> str:
    """A path for people: as seen from the current folder where it lies below that."""
    path = Path(path).absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def printable(text: str, longest: int | None = None) -> str:
    """The first `longest` characters of a text of unknown origin. Control characters, which could clear a terminal or
    move its cursor, are shown as \\x1b; line ends and tabs stay."""

    def shown(char: str) -> str:
        return f"\\x{ord(char):02x}" if unicodedata.category(char) == "Cc" and char not in "\n\t" else char

    return "".join(map(shown, text[:longest]))


def brief(value: object, longest: int = 40) -> str:
    """The first characters of any value's repr."""
    try:
        return repr(value)[:longest]
    except RecursionError:  # parse_json takes a nesting that repr, which needs a level more, does not
        return f"a {type(value).__name__} that is nested too deeply"


SURROGATES = re.compile("[\ud800-\udfff]")


def has_text(text: str) -> bool:
    """Whether there is anything to tokenize: a character that is neither space nor control, mark or U+FFFD."""
    return any(unicodedata.category(char)[0] not in "ZCM" and char != "\ufffd" for char in text)


def replace_surrogates(text: str) -> str:
    """`text` with lone surrogates, which no encoding can hold, as U+FFFD. Offsets stay as they are."""
    return SURROGATES.sub("\ufffd", text)
