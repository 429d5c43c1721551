"""Text and JSON out of files that people made: what is of another encoding, no text or no JSON is refused in words."""

import codecs
import json
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path

from extractive_qa.errors import QAError
from extractive_qa.files.encodings import guess_encoding, kind_of


def save_as_utf8(path: Path | str, encoding: str | None = None, guess: str | None = None) -> str:
    """What to do with a text file that is not UTF-8. encoding: as read_text has it. guess: what seems to fit."""
    begin = f"Name it: encoding={guess!r}. Or save" if encoding and guess else "Save"
    in_excel = " (in Excel: Save As, CSV UTF-8)" if Path(path).suffix.lower() in (".csv", ".tsv") else ""
    return f"{begin} it as UTF-8{in_excel} and try again."


def require_file(path: Path, expected: str) -> None:
    """Raises QAError where `path` is a device, a pipe or a socket: reading one may never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise QAError(f"{path} is no file but a device, a pipe or a socket. Expected {expected}.")


def refuse_other_kinds(path: Path | str, content: bytes, encoding: str | None = None, remedy: str = "") -> None:
    """Raises QAError, which ends in the `remedy` or what the user can do about it, where `content`, with which `path`
    begins, shows that it is no text, or, where it should be UTF-8, that it is UTF-16."""
    if kind := kind_of(content):
        raise QAError(f"{path} {kind[0]}, no text. {remedy or kind[1]}")
    has_mark, has_zeros = content[:2] in (BOM_UTF16_LE, BOM_UTF16_BE), b"\0" in content[:2]
    if not is_utf8(encoding) or not (has_mark or has_zeros):
        return
    if (guess := guess_encoding(content) or "").startswith("utf-16"):
        raise QAError(f"{path} is UTF-16, not UTF-8. {remedy or save_as_utf8(path, encoding, guess)}")
    raise QAError(f"{path} begins with zero bytes: it was never written whole. {remedy or 'Copy it again.'}")


def is_utf8(encoding: str | None) -> bool:
    """Whether that is UTF-8, as None is. Raises QAError where Python knows no text encoding of this name."""
    try:
        "".encode(encoding or "utf-8")  # codecs.lookup would find those of bytes too, as base64
        return codecs.lookup(encoding or "utf-8").name == "utf-8"
    except LookupError:
        raise QAError(f"encoding={encoding!r:.40} is not known. Expected one like 'gb18030' or 'cp1252'.") from None


def read_text(path: Path, encoding: str | None = None, remedy: str = "") -> str:
    """The text of a file, as decode_text. Raises OSError too."""
    return decode_text(path, path.read_bytes(), encoding, remedy)


def decode_text(path: Path, content: bytes, encoding: str | None = None, remedy: str = "") -> str:
    """The text of a file's `content`, letter by letter (line ends too) but for a byte-order mark in front.

    encoding: as Python calls it; None: UTF-8, where the user can't name another. Raises QAError where it is no text or
    in another encoding, with the place, the one that seems to fit, and the `remedy` or what the user can do about it.
    """
    refuse_other_kinds(path, content, encoding, remedy)
    try:
        # Windows' editors and spreadsheets put a mark in front
        return content.decode(encoding or "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line, name = content.count(b"\n", 0, error.start) + 1, "UTF-8" if is_utf8(encoding) else encoding
        guess = guess_encoding(content)
        if guess == "utf-8" == name.lower():  # the sample was, to its end
            guess = guess_encoding(content[content.rfind(b"\n", 0, error.start) + 1 :])
        looks = f"; it looks like {guess}" if guess else "; it holds zero bytes, as no text does" * (b"\0" in content)
        advice = remedy or save_as_utf8(path, encoding, guess)
        raise QAError(f"{path} is not {name} (byte {error.start}, line {line}){looks}. {advice}") from None


def read_json(path: Path, expected: str, remedy: str = "") -> object:
    """What a JSON file says. Raises QAError, with what was `expected` and the `remedy`, where it is no JSON or can't
    be read."""
    require_file(path, expected)
    advice = f"Expected {expected}. {remedy}".rstrip()
    try:
        return parse_json(read_text(path, remedy=remedy))
    except ValueError as error:
        raise QAError(f"{path} can't be read as JSON: {error}. {advice}") from None
    except OSError as error:
        raise QAError(f"{path} can't be read: {error.strerror or error}. {advice}") from None


def read_json_object(path: Path, expected: str, remedy: str = "") -> dict:
    """As read_json, where the file must hold a JSON object."""
    content = read_json(path, expected, remedy)
    if not isinstance(content, dict):
        raise QAError(f"{path} holds no JSON object, but {content!r:.40}. Expected {expected}. {remedy}".rstrip())
    return content


def parse_json(text: str) -> object:
    """As json.loads, with ValueError for a nesting that is too deep, and for a duplicate name in one object: one
    of its values would be lost without a word."""
    try:
        return json.loads(text, object_pairs_hook=object_of_distinct_names)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def object_of_distinct_names(pairs: list[tuple[str, object]]) -> dict:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"duplicate field {twice[:40]!r} in the object {str(fields)[:60]}")
    return fields


def require(path: str | Path, expected: str, remedy: str = "") -> Path:
    """`path` as a Path where it exists; else a QAError that says what was `expected` there, and the `remedy`."""
    path = Path(path)
    try:
        if path.exists():
            return path
        fault = "is missing"
    except OSError as error:  # a folder above it is closed to us, or no name may be so long
        fault = f"can't be read: {error.strerror}"
    raise QAError(f"{path} {fault}. Expected {expected}. {remedy}".rstrip())
