"""Lines of text out of a file or a pipe of any length, in flat memory. What is wrong with one stops no other."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from extractive_qa.files.encodings import guess_encoding
from extractive_qa.files.reading import refuse_other_kinds, save_as_utf8

BLOCK = 1 << 20  # bytes asked of a file or a pipe at once
LONGEST_LINE = 1 << 26  # bytes; a book has a few million
BEGINNING = 200  # characters of a line or a record that are kept to show it
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # Windows' editors and spreadsheets put one in front


class Line(NamedTuple):
    number: int  # from 1
    text: str  # without its line end; what is not UTF-8 is replaced
    fault: str
    end: int  # bytes of the stream up to its end


def read_lines(name: Path | str, stream: BinaryIO, wait_for_more: bool = True) -> Iterator[Line | None]:
    """The lines of a UTF-8 stream, each with its fault. wait_for_more: where it is False, None follows those lines that
    were there. Raises QAError where the first line shows that the file is no text."""
    encoding = "utf-8" if isinstance(name, Path) else None  # of a pipe no other can be named
    number = begin = 0
    for piece in split_lines(stream, wait_for_more):
        if piece is None:
            yield None
            continue
        content, end = piece
        number += 1
        if number == 1:
            refuse_other_kinds(name, content, encoding)
            if content.startswith(BYTE_ORDER_MARK):
                begin, content = len(BYTE_ORDER_MARK), content.removeprefix(BYTE_ORDER_MARK)
        fault = ""
        if len(content) > LONGEST_LINE:
            content, fault = content[: 4 * BEGINNING], f"is longer than {LONGEST_LINE:,} bytes"
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            text = content.decode("utf-8", "replace")
            guess = guess_encoding(content)
            fault = fault or f"is not UTF-8: byte {begin + error.start}. {save_as_utf8(name, encoding, guess)}"
        yield Line(number, text, fault, end)
        begin = end


def split_lines(stream: BinaryIO, wait_for_more: bool) -> Iterator[tuple[bytes, int] | None]:
    """The lines of a stream, without line ends, each with the number of bytes up to its end. Of a line longer than
    LONGEST_LINE one byte more than that is kept."""
    end, line, dropped = 0, bytearray(), 0
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
