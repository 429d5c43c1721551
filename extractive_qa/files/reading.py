"""Text and JSON out of files that people made: what is not UTF-8, not text or not JSON is refused in words."""

import json
from pathlib import Path

from extractive_qa.errors import QAError

SAVE_AS_UTF8 = "Save it as UTF-8 (in Excel: Save As, CSV UTF-8) and try again."
# what files begin with that go by the wrong name, and what to do
OTHER_KINDS = {
    b"\xff\xfe": ("is UTF-16, not UTF-8", SAVE_AS_UTF8),
    b"\xfe\xff": ("is UTF-16, not UTF-8", SAVE_AS_UTF8),
    b"\x1f\x8b": ("is compressed (gzip)", "Unpack it and try again."),
    b"PK\x03\x04": ("is a ZIP archive or an Excel workbook", "Unpack it, or save the sheet as CSV UTF-8."),
    b"PAR1": ("is a Parquet file", "Call it *.parquet."),
}


def require_file(path: Path, expected: str) -> None:
    """Raises QAError where `path` is a device, a pipe or a socket: reading one may never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise QAError(f"{path} is no file but a device, a pipe or a socket. Expected {expected}.")


def refuse_other_kinds(path: Path | str, content: bytes, remedy: str = "") -> None:
    """Raises QAError, which ends in the `remedy` or what the user can do about it, where `content`, with which `path`
    begins, shows that it is no text in UTF-8."""
    for beginning, (kind, advice) in OTHER_KINDS.items():
        if content.startswith(beginning):
            raise QAError(f"{path} {kind}. {remedy or advice}")
    if b"\0" in content[:2]:
        raise QAError(
            f"{path} begins with zero bytes: it is UTF-16, or was never written whole. {remedy or SAVE_AS_UTF8}"
        )


def read_text(path: Path, remedy: str = "") -> str:
    """The text of a UTF-8 file, as decode_text. Raises OSError too."""
    return decode_text(path, path.read_bytes(), remedy)


def decode_text(name: Path | str, content: bytes, remedy: str = "") -> str:
    """UTF-8 as text, letter by letter (line ends too) but for a byte-order mark in front.

    Raises QAError where it is not UTF-8, with the place and the `remedy`, or what the user can do about it.
    """
    refuse_other_kinds(name, content, remedy)
    remedy = remedy or SAVE_AS_UTF8
    try:
        return content.decode("utf-8").removeprefix("\ufeff")  # Windows' editors and spreadsheets put one in front
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise QAError(f"{name} is not UTF-8 (byte {error.start}, line {line}). {remedy}") from None


def read_json(path: Path, expected: str, remedy: str = "") -> object:
    """What a JSON file says. Raises QAError, with what was `expected` and the `remedy`, where it is no JSON or can't
    be read."""
    require_file(path, expected)
    advice = f"Expected {expected}. {remedy}".rstrip()
    try:
        return parse_json(read_text(path, remedy))
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
