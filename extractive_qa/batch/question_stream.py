"""Questions out of a file of any length or out of a pipe, in groups that fit in memory. They need no answers.

JSON Lines and CSV are read as they are used; SQuAD's JSON and JSON lists can't be, and are read whole. A record that is
no question does not stop the others: it comes with its fault.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from extractive_qa.data.examples import (
    check_columns,
    check_question,
    delimiter_of,
    read_records,
    reading,
    refuse_whole_json,
)
from extractive_qa.errors import QAError
from extractive_qa.files.reading import SAVE_AS_UTF8, parse_json, refuse_other_kinds, require, require_file

FORMATS = "JSON Lines (.jsonl), .csv, or SQuAD JSON (.json)"
LINES = (".jsonl", ".ndjson")
SUFFIXES = (*LINES, ".csv", ".json")
# A group ends at whichever comes first, so where groups end is a function of the file alone.
GROUP_QUESTIONS = 128
GROUP_CHARACTERS = 1_000_000
BLOCK = 1 << 20  # bytes asked of a file or a pipe at once
LONGEST_LINE = 1 << 26  # bytes; a book has a few million
TEXT_SHOWN = 200  # characters of a bad record


class Position(NamedTuple):
    """A place between two records: bytes before it (in JSON, which is read whole, records), lines and records."""

    offset: int = 0
    lines: int = 0
    records: int = 0


@dataclass(frozen=True)
class Item:
    """A record: `example` with id, question and context, or its `fault` and the beginning of its `text`."""

    example: dict
    fault: str
    text: str
    place: str  # "line 3", "record 3"
    end: Position  # behind it


START = Position()


def check_input(path: Path) -> None:
    """Raises QAError where `path` is no file of a kind that `read_groups` takes."""
    require(path, FORMATS, "Check the path.")
    if path.is_dir():
        raise QAError(f"{path} is a folder. Expected {FORMATS}.")
    require_file(path, f"{FORMATS}; a pipe is read as -")
    if path.suffix.lower() not in SUFFIXES:
        raise QAError(f"{path}: a file called *{path.suffix} is not known. Expected {FORMATS}.")


def read_groups(path: Path, begin: Position = START) -> Iterator[list[Item]]:
    """The records of a file from `begin` on, in groups that are the same wherever a reading began that ended a group.

    Raises QAError where the file can't be read at all.
    """
    with reading(path, FORMATS):
        if path.suffix.lower() == ".json":
            yield from grouped(read_json(path, begin))
            return
        with path.open("rb") as file:
            read = read_csv if path.suffix.lower() == ".csv" else read_json_lines
            yield from grouped(read(path, file, begin))


def read_pipe(stream: BinaryIO) -> Iterator[list[Item]]:
    """The JSON Lines of a pipe, in groups of what has arrived: none waits for a line that is not written yet."""
    yield from grouped(read_json_lines("standard input", stream, START, wait_for_more=False))


def size_of(path: Path) -> int:
    """How far the offsets of a file's positions go."""
    if path.suffix.lower() == ".json":
        with reading(path, FORMATS):
            return sum(1 for _ in read_records(path, None))
    return path.stat().st_size


def grouped(items: Iterable[Item | None]) -> Iterator[list[Item]]:
    """Groups of items. None among them ends a group: more would have to be waited for."""
    group, characters = [], 0
    for item in items:
        if item is not None:
            group.append(item)
            characters += sum(map(len, item.example.values()))
        if group and (item is None or len(group) == GROUP_QUESTIONS or characters >= GROUP_CHARACTERS):
            yield group
            group, characters = [], 0
    if group:
        yield group


def read_lines(stream: BinaryIO, begin: int, wait_for_more: bool = True) -> Iterator[tuple[bytes, int] | None]:
    """The lines of a stream, without line ends, each with the offset behind it; `begin` is that of the stream now.

    Of a line longer than LONGEST_LINE one byte more than that is kept. wait_for_more: where it is False, None follows
    the lines that were there.
    """
    end, line, dropped = begin, bytearray(), 0
    while block := stream.read1(BLOCK):
        *complete, rest = block.split(b"\n")
        for piece in complete:
            line += piece
            end += len(line) + dropped + 1
            yield bytes(line), end
            line.clear()
            dropped = 0
        line += rest
        excess = max(0, len(line) - LONGEST_LINE - 1)
        del line[len(line) - excess :]
        dropped += excess
        if complete and not wait_for_more:
            yield None
    if line:
        yield bytes(line), end + len(line) + dropped


def decode(line: bytes) -> tuple[str, str]:
    """A line as text, and what is wrong with it."""
    if len(line) > LONGEST_LINE:
        return line[: 4 * TEXT_SHOWN].decode("utf-8", "replace"), f"is longer than {LONGEST_LINE:,} bytes"
    try:
        return line.decode("utf-8"), ""
    except UnicodeDecodeError as error:
        return line.decode("utf-8", "replace"), f"is not UTF-8 (byte {error.start} of the line). {SAVE_AS_UTF8}"


def without_mark(name: Path | str, first_line: bytes) -> bytes:
    """The first line of a file, without a byte-order mark. Raises QAError where it shows that the file is no text."""
    refuse_other_kinds(name, first_line)
    return first_line.removeprefix(b"\xef\xbb\xbf")


def read_json_lines(
    name: Path | str, stream: BinaryIO, begin: Position, wait_for_more: bool = True
) -> Iterator[Item | None]:
    if begin.offset:
        stream.seek(begin.offset)
    number, records = begin.lines, begin.records
    for piece in read_lines(stream, begin.offset, wait_for_more):
        if piece is None:
            yield None
            continue
        number += 1
        line = without_mark(name, piece[0]) if number == 1 else piece[0]
        if not line.strip():
            continue
        records += 1
        record, (text, fault) = None, decode(line)
        if not fault:
            try:
                record = parse_json(text)
            except ValueError as error:
                fault = f"is not JSON: {error}"
        if number == 1:
            refuse_whole_json(name, record)
        yield judge(record, fault, text, f"line {number}", Position(piece[1], number, records))


def read_csv(path: Path, stream: BinaryIO, begin: Position) -> Iterator[Item]:
    csv.field_size_limit(LONGEST_LINE)  # the default is 128 KiB; one quote too many makes a field of all that follows
    at, faults = START, []

    def lines() -> Iterator[str]:
        """The lines from `at` on, which then stands behind the last one taken; its fault is in `faults`."""
        nonlocal at
        for line, end in read_lines(stream, at.offset):
            text, fault = decode(without_mark(path, line) if at.lines == 0 else line)
            at = Position(end, at.lines + 1, at.records)
            if fault:
                faults.append(fault)
            yield text + "\n"

    taken = lines()
    first = next(taken, "")

    def with_first() -> Iterator[str]:
        yield first
        yield from taken

    delimiter = delimiter_of(first)
    try:
        names = next(csv.reader(with_first(), delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise QAError(f"{path}: the names of the columns can't be read: {error}. Expected CSV, lines of LF.") from None
    check_columns(path, names, with_answers=False)
    faults.clear()
    at = max(at, begin)
    stream.seek(at.offset)
    rows = csv.DictReader(lines(), names, delimiter=delimiter, strict=True)
    while True:
        line = at.lines + 1
        try:
            row = next(rows, None)
            if row is None:
                return
            # the cells beyond the header's last column, if any holds something, go by the name None
            record = {name: cell for name, cell in row.items() if name != "" and any(cell or ())}
            fault, text = "; ".join(faults), delimiter.join(cell for cell in row.values() if isinstance(cell, str))
        except csv.Error as error:
            record, text = None, ""
            fault = f"can't be read: {error} (read up to line {at.lines}). Is a quote missing, or not doubled?"
        at = Position(at.offset, at.lines, at.records + 1)
        yield judge(record, fault, text, f"line {line}", at)
        faults.clear()


def read_json(path: Path, begin: Position) -> Iterator[Item]:
    for number, record in enumerate(read_records(path, None), 1):
        if number > begin.records:
            yield judge(record, "", "", f"record {number}", Position(number, 0, number))


def judge(record: object, fault: str, text: str, place: str, end: Position) -> Item:
    """The item of a record. One without an id goes by its number in the file."""
    example = {}
    if not fault:
        if isinstance(record, dict) and record.get("id") is None:
            record["id"] = str(end.records)
        example, faults = check_question(record)
        fault = "; ".join(faults)
    return Item(example, fault, (text or str(record or ""))[:TEXT_SHOWN] if fault else "", place, end)
