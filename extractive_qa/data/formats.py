"""Every format of files of questions, each read in one place, as a stream of records.

Readable: JSON in any of the shapes of nesting.py, JSON Lines, CSV and TSV, each also compressed by gzip, Parquet and
folders written by `datasets.Dataset.save_to_disk`. The columns of a CSV may be separated by commas, semicolons or tabs,
as Excel does in different countries. JSON Lines and CSV are read as they are used, in flat memory, Parquet in pieces;
the other formats are read whole. What a record must hold is said in examples.py, not here.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

from extractive_qa.data.lines import BEGINNING, LONGEST_LINE, read_lines
from extractive_qa.data.names import canonical_name, rename
from extractive_qa.data.nesting import NoSuchSplit, choose_split, flat_records, holds_records
from extractive_qa.errors import QAError
from extractive_qa.files.manifest import stays_inside
from extractive_qa.files.reading import (
    decode_text,
    is_utf8,
    parse_json,
    read_json_object,
    refuse_other_kinds,
    require,
    require_file,
)
from extractive_qa.text import printable, short_repr

FORMATS = (
    "SQuAD JSON, a JSON list, .jsonl, .csv, .tsv (these also .gz), .parquet, or a folder written by datasets' "
    "save_to_disk"
)
SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")
ROWS = 1024  # of a table, turned into records at once
ANSWERED = ("question", "context", "answers")  # what a table of questions with answers must have
KIND = 10_000  # bytes that show what kind of file it is


class Record(NamedTuple):
    """What a file has for one question, unchecked."""

    number: int  # of the record in its file, from 1
    place: str  # "line 3" of JSON Lines and CSV, "record 3" of other formats
    content: object  # the fields by name, if it is as it should be
    fault: str  # why it can't be read, "" where it can
    text: str  # how it begins in the file; "" where the format isn't text, or was read whole
    end: int  # bytes of the file up to its end; where the format doesn't tell, its share of them

    def beginning(self) -> str:
        """How it begins, for people."""
        return self.text or short_repr(self.content, BEGINNING)


def read_records(
    path: str | Path, split: str | None = None, columns: Sequence[str] = ANSWERED, encoding: str = "utf-8"
) -> Iterator[Record]:
    """The records of a file in any of the FORMATS, in order.

    split: which part of a saved DatasetDict, or of a JSON file of several, "train" or "validation"; other files hold
    one part and ignore it. None: the only part, or of several the one to validate with.
    columns: which a table must have; instead of `answers` it may have `answer`.
    encoding: of text, as Python names it.
    Raises QAError where the path is missing or the file as a whole can't be read.
    """
    path = check_path(path)
    with reading(path, FORMATS):
        suffix = suffix_of(path)
        if path.is_dir():
            yield from read_saved_dataset(path, split, columns)
        elif suffix == ".parquet":
            yield from read_parquet(path, columns)
        else:
            size = size_of(path)
            with path.open("rb") as file, opened_text(path, file, encoding) as (text, text_size):
                if suffix == ".json":
                    records = read_whole_json(path, text, split)
                elif suffix in (".csv", ".tsv"):
                    records = read_csv(path, text, columns, "\t" if suffix == ".tsv" else ",;\t")
                else:
                    records = read_json_lines(path, text, split)
                for record in records:
                    # what the file was turned into has another length
                    end = file.tell() if text_size is None else record.end * size // max(1, text_size)
                    yield record._replace(end=end)


def suffix_of(path: Path) -> str:
    """The ending by which a file's format is known: that of data.csv.gz is .csv."""
    path = Path(path)
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


@contextmanager
def opened_text(path: Path, file: BinaryIO, encoding: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """A stream of the UTF-8 text of a file, unpacked, and its bytes; None where only reading tells them."""
    packed = path.suffix.lower() == ".gz"
    stream = gzip.GzipFile(fileobj=file) if packed else file
    try:
        if is_utf8(encoding):
            refuse_other_kinds(path, stream.read(KIND), encoding)
            stream.seek(0)
            yield stream, None if packed else size_of(path)
        else:
            content = decode_text(path, stream.read(), encoding).encode("utf-8", "surrogatepass")
            yield io.BytesIO(content), len(content)
    except EOFError:
        raise ValueError("the compressed file ends too early") from None
    except zlib.error as error:
        raise ValueError(f"the compressed file is damaged ({error})") from None


def read_pipe(stream: BinaryIO, name: str = "standard input") -> Iterator[Record | None]:
    """The JSON Lines of a pipe. None comes where the next record is not there yet, and would have to be waited for."""
    with reading(name, "JSON Lines"):
        yield from read_json_lines(name, stream, wait_for_more=False)


def check_path(path: str | Path) -> Path:
    """`path` as a Path. Raises QAError where it is missing, or no file or folder that read_records takes."""
    path = require(path, FORMATS, "Check the path.")
    require_file(path, FORMATS)
    suffix = suffix_of(path)
    if path.is_file() and suffix in WORKBOOKS:
        raise QAError(
            f"{path} is a workbook, which is not read. Save the sheet as text: in Excel, Save As, CSV UTF-8; in "
            "LibreOffice, Save As, Text CSV; in Google Sheets, Download, .csv."
        )
    if path.is_file() and (suffix not in SUFFIXES or (suffix == ".parquet") > (path.suffix.lower() == suffix)):
        raise QAError(f"{path}: a file called *{path.suffix} is not known. Expected {FORMATS}.")
    return path


def files_of(path: Path) -> list[Path]:
    """The file, or the files of a saved dataset, sorted."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def size_of(path: Path) -> int:
    """Bytes: the `end` of the last record."""
    return sum(file.stat().st_size for file in files_of(path))


@contextmanager
def reading(name: Path | str, expected: str) -> Iterator[None]:
    """Turns what goes wrong in the reading of a file or pipe into a QAError."""
    try:
        yield
    except (OSError, ValueError, RecursionError) as error:  # not JSON; a number or a nesting that no reader takes
        reason = getattr(error, "strerror", None) or error
        raise QAError(f"{name} can't be read: {reason}. Expected {expected}.") from None


# text, a line at a time


def read_json_lines(
    name: Path | str, stream: BinaryIO, split: str | None = None, wait_for_more: bool = True
) -> Iterator[Record | None]:
    """A line may hold one record or, as MRQA's do, several."""
    number = lines = 0
    for line in read_lines(name, stream, wait_for_more):
        if line is None:
            yield None
            continue
        if not line.text.strip():
            continue
        lines += 1
        contents, fault = [None], line.fault
        if not fault:
            try:
                content = parse_json(line.text)
                # a list is one record that is wrong, but for the first line: a whole file on one line
                contents = [content] if isinstance(content, list) and lines > 1 else list(flat_records(content, split))
            except (ValueError, RecursionError) as error:
                hint = ". If the file is one JSON value over many lines, call it *.json" if lines == 1 else ""
                fault = f"is not JSON: {error}{hint}"
        for content in contents:
            number += 1
            yield Record(number, f"line {line.number}", content, fault, line.text[:BEGINNING], line.end)


class CsvLines:
    """The lines of a stream for csv.reader, and what was seen of those that the row being read is made of."""

    def __init__(self, path: Path, stream: BinaryIO):
        self.lines, self.number, self.end = read_lines(path, stream), 0, 0
        self.text = self.fault = ""  # of a row: whoever begins one empties them

    def __iter__(self) -> "CsvLines":
        return self

    def __next__(self) -> str:
        line = next(self.lines)
        self.number, self.end, self.fault = line.number, line.end, self.fault or line.fault
        self.text = (self.text + line.text + "\n")[:BEGINNING]
        return line.text + "\n"


def read_csv(path: Path, stream: BinaryIO, columns: Sequence[str], delimiters: str) -> Iterator[Record]:
    lines = CsvLines(path, stream)
    first = next(lines, "")
    # Excel writes semicolons where numbers have a decimal comma
    rows = csv.reader(chain([first], lines), delimiter=max(delimiters, key=first.count), strict=True)
    try:
        names = next_row(rows) or []
    except csv.Error as error:
        raise QAError(f"{path}: the names of the columns can't be read: {error}. Expected CSV, lines of LF.") from None
    if lines.fault:
        raise QAError(f"{path}, line 1, the names of the columns, {lines.fault}")
    names, number = check_columns(path, names, columns), 0
    while True:
        place, content = f"line {lines.number + 1}", None
        lines.text = lines.fault = ""
        try:
            cells = next_row(rows)
            if cells is None:
                return
            if not cells:
                continue  # an empty line
            # cells without a name, which spreadsheets leave behind the table, are empty
            content = {name: cell for name, cell in zip(names, cells, strict=False) if name and cell}
            fault = "has more cells than the header: a text with commas must be in quotes"
            fault = lines.fault or (fault if any(cells[len(names) :]) else "")
        except csv.Error as error:
            up_to = f" (read up to line {lines.number})" if place != f"line {lines.number}" else ""
            fault = (
                f'can\'t be read: {error}{up_to}. A text with commas, quotes or line ends must be in "quotes", and a '
                "quote in it must be doubled"
            )
        number += 1
        yield Record(number, place, content, fault, lines.text.rstrip("\r\n"), lines.end)


def next_row(rows: Iterator[list[str]]) -> list[str] | None:
    """The next row of a csv.reader. One quote too many makes a cell of all that follows, so there is a limit; csv has
    one for the whole process, of 128 KiB, which stays as it was found."""
    found = csv.field_size_limit(LONGEST_LINE)
    try:
        return next(rows, None)
    finally:
        csv.field_size_limit(found)


def check_columns(path: Path, found: list[str], columns: Sequence[str]) -> list[str]:
    """Our names of the columns of a table. Raises QAError where they can't hold questions."""
    names = [canonical_name(name) for name in found]
    wanted = ["answer" if name == "answers" and "answer" in names else name for name in columns]
    faults = [f"no column {name}" for name in wanted if name not in names]
    faults += [f"two columns {name}" for name in ("id", *wanted, "answer_start") if names.count(name) > 1]
    if faults:
        more = ", and answer (or answers, as in SQuAD); id and answer_start" if "answers" in columns else "; id"
        raise QAError(
            f"{path} has {' and '.join(faults)}. Found the columns {printable(', '.join(found), 200)}. Expected "
            f"{', '.join(name for name in columns if name != 'answers')}{more} where there are any."
        )
    return names


# formats that are read whole, or in large pieces


def numbered(path: Path, contents: Iterable[object], count: int) -> Iterator[Record]:
    """The records of a file of `count` of them."""
    size = size_of(path)
    for number, content in enumerate(contents, 1):
        yield Record(number, f"record {number}", content, "", "", size * number // max(1, count))


def read_whole_json(path: Path, stream: BinaryIO, split: str | None) -> Iterator[Record]:
    content = stream.read()
    text = decode_text(path, content, "utf-8")
    try:
        content = parse_json(text)
    except ValueError as error:
        if not is_json_object(text.lstrip().partition("\n")[0]):
            raise QAError(f"{path} can't be read: {error}. Expected {FORMATS}.") from None
        yield from read_json_lines(path, io.BytesIO(content), split)  # by another name
        return
    if isinstance(content, dict) and not holds_records(content):
        raise QAError(
            f"{path} holds neither a list of records nor SQuAD's `data`, but an object of "
            f"{printable(', '.join(content), 200) or 'nothing'}. Expected {FORMATS}."
        )
    if not isinstance(content, list | dict):
        raise QAError(f"{path} holds neither a list of records nor SQuAD's `data`. Expected {FORMATS}.")
    records = list(flat_records(content, split))
    yield from numbered(path, records, len(records))


def is_json_object(line: str) -> bool:
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return False


def read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            check_columns(path, file.schema_arrow.names, columns)
            rows = (rename(row) for batch in file.iter_batches(ROWS) for row in batch.to_pylist())
            yield from numbered(path, rows, file.metadata.num_rows)
    except UnicodeDecodeError as error:
        raise QAError(f"{path} holds text that is not UTF-8: {error}. Save it again with UTF-8 text.") from None
    except pyarrow.ArrowException as error:
        raise QAError(f"{path} is not a Parquet file: {error}. Save it again, or give it its right ending.") from None


def read_saved_dataset(path: Path, split: str | None, columns: Sequence[str]) -> Iterator[Record]:
    import datasets
    import pyarrow

    try:
        for listing in (*path.glob("dataset_dict.json"), *path.rglob("state.json")):
            refuse_names_outside(listing)
        # in memory: Windows can't replace a file while it is mapped
        saved = datasets.load_from_disk(str(path), keep_in_memory=True)
        if isinstance(saved, datasets.DatasetDict):
            saved = choose_split(saved, split)
        check_columns(path, saved.column_names, columns)
        tables = saved.with_format("arrow").iter(ROWS)
        yield from numbered(path, (rename(row) for table in tables for row in table.to_pylist()), len(saved))
    except NoSuchSplit as error:
        raise QAError(
            f"{path}: {error}. Name the folder of the part you mean, as {path / next(iter(saved))}."
        ) from None
    except FileNotFoundError:
        raise QAError(f"{path} is a folder, but no saved dataset. Expected {FORMATS}.") from None
    except (pyarrow.ArrowException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise QAError(f"{path} is a damaged saved dataset ({type(error).__name__}: {error}). Save it again.") from None


def refuse_names_outside(listing: Path) -> None:
    """Raises QAError where a listing of a saved dataset names a file or folder outside its own, which the library
    would read."""
    content = read_json_object(listing, "what datasets' save_to_disk writes")
    for name in [*content.get("splits", []), *(file["filename"] for file in content.get("_data_files", []))]:
        if not stays_inside(name):
            raise QAError(f"{listing} names {name!r}, which is outside its folder. Save the dataset again.")
