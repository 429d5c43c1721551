"""Damaged and odd files, one cause a line: each is read rightly, or refused with the reason.

Every cause of damaged questions is tried twice: through `read_examples`, and through evaluate.py as a user runs it,
which must leave with exit code 2, without a traceback, and with its output folder untouched.
"""

import csv
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import save_tiny_model
from safetensors.torch import load_file, save_file
from scripts import PROJECT_ROOT, assert_refused, run_script

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.reader import Reader

CONTEXT = "🙂 In 1871 Ada sailed to Ærø."  # "Ærø": character 24, UTF-16 unit 25, byte 27
GOOD = {
    "id": "q1",
    "question": "Where to?",
    "context": CONTEXT,
    "answers": {"text": ["Ærø"], "answer_start": [24]},
}
COLUMNS = ["id", "question", "context", "answer", "answer_start"]
HEADER = ",".join(COLUMNS).encode() + b"\n"
NFC, NFD = "Ångström née", "A\u030angstro\u0308m ne\u0301e"


class Damage(NamedTuple):
    cause: str
    name: str  # of the file
    content: bytes | Callable[[Path], None]  # what is in it, or what writes it
    says: tuple[str, ...]  # what must be said


class Oddity(NamedTuple):
    cause: str
    name: str
    content: bytes | Callable[[Path], None]
    reads: list[dict]  # what must be read


def record(**changes) -> dict:
    """The good record with some fields replaced, those that are `...` left out."""
    return {name: value for name, value in (GOOD | changes).items() if value is not ...}


def answer(text, start) -> dict:
    return {"answers": {"text": [text], "answer_start": [start]}}


def as_json(*records) -> bytes:
    return json.dumps(records, ensure_ascii=False).encode()


def bad(**changes) -> bytes:
    """A good record, and one with these changes that goes by the id "bad"."""
    return as_json(GOOD, record(**{"id": "bad"} | changes))


def as_lines(*records) -> bytes:
    return b"".join(json.dumps(item, ensure_ascii=False).encode() + b"\n" for item in records)


def as_squad(**changes) -> bytes:
    """SQuAD's nesting with the good question, and some fields of the question replaced."""
    qa = {"id": "q1", "question": "Where to?", "answers": [{"text": "Ærø", "answer_start": 24}]} | changes
    return json.dumps({"data": [{"title": "a", "paragraphs": [{"context": CONTEXT, "qas": [qa]}]}]}).encode()


def as_csv(*rows, header=COLUMNS, delimiter=",") -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return file.getvalue().encode()


def zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def parquet(columns: dict, cut: float = 1.0) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()[: int(cut * len(file.getvalue()))]


def good_columns(**changes) -> dict:
    return {name: [value] for name, value in (GOOD | changes).items()}


def saved_dataset(damage: Callable[[Path], None] | None = None, parts: bool = False) -> Callable[[Path], None]:
    """Writes a folder by save_to_disk with the good record, and damages its Arrow file."""

    def write(path: Path) -> None:
        import datasets

        datasets.disable_progress_bars()
        saved = datasets.Dataset.from_list([GOOD])
        (datasets.DatasetDict({"train": saved}) if parts else saved).save_to_disk(path)
        if damage:
            damage(next(path.rglob("*.arrow")))

    return write


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


ROW = ["q1", "Where to?", CONTEXT, "Ærø", "24"]
DAMAGED = [
    # encodings and kinds of files
    Damage("UTF-16", "a.json", as_json(GOOD).decode().encode("utf-16"), ("UTF-16", "Save it as UTF-8")),
    Damage("UTF-16, big end first", "a.jsonl", b"\xfe\xff" + as_lines(GOOD).decode().encode("utf-16-be"), ("UTF-16",)),
    Damage("UTF-16 without a mark", "a.json", as_json(GOOD).decode().encode("utf-16-le"), ("UTF-16", "Save it")),
    Damage(
        "tabs in UTF-16: Excel's `Unicode Text`", "a.csv", as_csv(ROW, delimiter="\t").decode().encode("utf-16"),
        ("UTF-16", "CSV UTF-8"),
    ),
    Damage(
        "GB18030: Excel's `CSV` in China", "a.csv", HEADER + "a,谁？,是王伟。,王伟,1\n".encode("gb18030"),
        ("not UTF-8 (byte 44, line 2)", "Excel", "CSV UTF-8"),
    ),
    Damage("Latin-1", "a.jsonl", as_lines(GOOD) + '{"id": "née"}'.encode("latin-1"), ("not UTF-8", "line 2")),
    Damage("cut within a letter", "a.json", as_json(GOOD)[: as_json(GOOD).index("Ærø".encode()) + 1], ("not UTF-8",)),
    Damage("surrogates as bytes (CESU-8)", "a.json", b'[{"id": "\xed\xa0\xbd\xed\xb9\x82"}]', ("not UTF-8 (byte 9,",)),
    Damage("nothing but zero bytes, after a power cut", "a.json", bytes(4096), ("zero bytes", "never written whole")),
    Damage("gzip by the name of JSON", "a.json", gzip.compress(as_json(GOOD)), ("gzip", "Unpack it")),
    Damage("an Excel workbook by the name of CSV", "a.csv", zipped("xl/workbook.xml", b"<x/>"), ("Excel workbook",)),
    Damage("Parquet by the name of JSON", "a.json", parquet(good_columns()), ("is a Parquet file", "*.parquet")),
    Damage("JSON by the name of Parquet", "a.parquet", as_json(GOOD), ("not a Parquet file",)),
    Damage("a web page instead of data", "a.json", b"<!DOCTYPE html><p>503</p>", ("can't be read", "SQuAD JSON")),
    Damage("a kind of file that is not known", "a.txt", as_json(GOOD), ("*.txt", ".jsonl, .csv, .parquet")),
    # JSON
    Damage("an empty file", "a.json", b"", ("can't be read", "SQuAD JSON")),
    Damage("an empty file of JSON Lines", "a.jsonl", b"", ("no question to use",)),
    Damage("a file of blanks", "a.jsonl", b" \r\n\t\n  \n", ("no question to use",)),
    Damage("a mark of UTF-8 and nothing else", "a.json", b"\xef\xbb\xbf", ("can't be read",)),
    Damage("truncated", "a.json", as_squad()[:-20], ("can't be read", "char")),
    Damage("truncated in a later line", "a.jsonl", as_lines(GOOD, record(id="q2"))[:-20], ("line 2 is not JSON",)),
    Damage("two lists, one after the other", "a.json", as_json(GOOD) * 2, ("Extra data", "JSON Lines", "*.jsonl")),
    Damage("JSON Lines by the name of JSON", "a.json", as_lines(GOOD, record(id="q2")), ("JSON Lines", "*.jsonl")),
    Damage("a JSON list by the name of JSON Lines", "a.jsonl", as_json(GOOD), ("not JSON Lines", "*.json")),
    Damage("SQuAD by the name of JSON Lines", "a.jsonl", as_squad(), ("not JSON Lines", "*.json")),
    Damage("JSON over many lines by the name of JSON Lines", "a.jsonl", b"[\n1]", ("line 1 is not JSON", "*.json")),
    Damage("a mark of UTF-8 at a later line, of files joined", "a.jsonl",
           as_lines(GOOD) + b"\xef\xbb\xbf" + as_lines(record(id="q2")), ("line 2 is not JSON", "BOM")),
    Damage("a list within a list, 200,000 deep", "a.json", b"[" * 200_000, ("nested too deeply",)),
    Damage("a record nested too deeply", "a.jsonl", b'{"a":' * 200_000, ("line 1", "nested too deeply")),
    Damage("a number of 5,000 digits", "a.json", bad().replace(b"24", b"9" * 5000), ("can't be read", "digits")),
    Damage("a field that stands twice", "a.json", as_json(GOOD).replace(b'"id"', b'"context": "x", "id"'),
           ("'context' stands twice",)),
    Damage("Python's quotes", "a.json", str([GOOD]).encode(), ("can't be read", "double quotes")),
    Damage("a comma too many", "a.json", as_json(GOOD)[:-1] + b",]", ("can't be read", "char")),
    Damage("a bare line end in a text", "a.json", bad().replace(b"In 1871", b"In\n1871"), ("control character",)),
    Damage("an empty list", "a.json", b"[]", ("no question to use",)),
    Damage("an empty `data`", "a.json", b'{"data": []}', ("no question to use",)),
    Damage("an object without `data`", "a.json", b'{"questions": []}', ("SQuAD's `data`",)),
    Damage("a number instead of records", "a.json", b"3", ("neither a list",)),
    Damage("an article without paragraphs", "a.json", b'{"data": [{"paragraphs": []}, {"title": "b"}]}',
           ("article 2", "paragraphs")),
    Damage("a paragraph without qas", "a.json", b'{"data": [{"paragraphs": [{"context": "hi"}]}]}',
           ("article 1", "qas")),
    Damage("a paragraph without context", "a.json", as_squad().replace(b'"context"', b'"text"'),
           ("record 1 (id q1)", "`context` is missing")),
    Damage("a record that is text", "a.json", as_json(GOOD, "Who?"), ("record 2", "no record", "Who?")),
    Damage("a record that is null", "a.jsonl", as_lines(GOOD) + b"null\n", ("record 2", "no record")),
    # fields
    Damage("an id that stands twice", "a.json", as_json(GOOD, GOOD), ("record 2 (id q1)", "twice")),
    Damage("an id of two kinds that reads alike", "a.json", as_json(record(id="7"), record(id=7)), ("id 7", "twice")),
    Damage("ids that differ by lone surrogates alone", "a.json", json.dumps(
        [record(id="a\ud800"), record(id="a\udfff")]).encode(), ("record 2", "twice")),
    Damage("an id that is a list", "a.json", bad(id=["bad"]), ("record 2", "`id` is not text")),
    Damage("an id that clears the terminal", "a.json", bad(id="bad\x1b[2J", question=""), ("bad\\x1b[2J",)),
    Damage("a question that is missing", "a.json", bad(question=...), ("id bad", "`question` is missing")),
    Damage("a question that is a list", "a.json", bad(question=["Who?"]), ("id bad", "`question` is not text")),
    Damage("a question of zero-width spaces", "a.json", bad(question="\u200b\u2060"), ("id bad", "no word")),
    Damage("a question of combining marks alone", "a.json", bad(question="\u0301\u0308"), ("id bad", "no word")),
    Damage("a context of control characters", "a.json", bad(context="\x00\x07"), ("id bad", "`context`", "no word")),
    Damage("a context that is null", "a.json", bad(context=None), ("id bad", "`context` is missing")),
    Damage("answers that are text", "a.json", bad(answers="Ærø"), ("id bad", "`answers`")),
    Damage("answers in lists of different lengths", "a.json", bad(answers={"text": ["Ærø"], "answer_start": []}),
           ("id bad", "two lists of one length")),
    Damage("an answer that is no list, nested", "a.json", as_squad(answers={"text": "Ærø", "answer_start": 24}),
           ("id q1", "two lists of one length")),
    Damage("no answers, as in the test sets", "a.json", bad(answers=...), ("id bad", "`answers` is missing")),
    Damage("a question of SQuAD 2.0 without answer", "a.json", as_squad(answers=[], is_impossible=True),
           ("id q1", "SQuAD 2")),
    Damage("an answer of blanks", "a.json", bad(**answer(" \u3000", 2)), ("id bad", "`text` is missing or empty")),
    Damage("an answer that is a number", "a.json", bad(**answer(1871, 5)), ("id bad", "`text`")),
    # offsets
    Damage("an offset that is NaN", "a.json", bad(**answer("Ærø", float("nan"))), ("id bad", "whole number: nan")),
    Damage("an offset that is Infinity", "a.json", bad(**answer("Ærø", float("inf"))), ("id bad", "number: inf")),
    Damage("an offset of 1e400", "a.json", bad().replace(b"24", b"1e400"), ("id bad", "whole number: inf")),
    Damage("an offset of 10**30", "a.json", bad(**answer("Ærø", 10**30)), ("id bad", "right offset is 24")),
    Damage("an offset with a decimal point", "a.json", bad(**answer("Ærø", 24.0)), ("id bad", "whole number: 24.0")),
    Damage("an offset that is true", "a.json", bad(**answer("Ærø", True)), ("id bad", "whole number: True")),
    Damage("an offset in words", "a.json", bad(**answer("Ærø", "four" * 10**6)), ("id bad", "whole number: 'four")),
    Damage("an offset from the end", "a.json", bad(**answer("Ærø", -4)), ("id bad", "negative", "right offset is 24")),
    Damage("an offset that is one off", "a.json", bad(**answer("Ærø", 23)), ("id bad", "right offset is 24")),
    Damage("an offset past the end", "a.json", bad(**answer("Ærø", 300)), ("id bad", "there: ''", "offset is 24")),
    Damage("offsets in bytes", "a.json", bad(**answer("Ærø", 27)), ("id bad", "offset is 24", "count UTF-8 bytes")),
    Damage("offsets in UTF-16 units", "a.json", bad(**answer("Ærø", 25)), ("id bad", "offset is 24", "UTF-16 units")),
    Damage("no offset for what stands twice", "a.json", bad(context="Bob, Bob", answers=[{"text": "Bob"}]),
           ("id bad", "stands at [0, 5]")),
    Damage("an answer in other letters", "a.json", bad(**answer("ærø", 24)), ("does not occur", "but 'Ærø' does")),
    Damage("an answer with a spreadsheet's quotation mark", "a.json",
           bad(context="I can't: so.", answers=[{"text": "can’t"}]), ("does not occur", 'but "can\'t" does')),
    Damage("an answer composed, a context decomposed", "a.json", bad(context=f"By {NFD}.", **answer(NFC, 3)),
           ("id bad", "another Unicode form", "NFC")),
    Damage("an answer decomposed, a context composed", "a.json", bad(context=f"By {NFC}.", **answer(NFD, 3)),
           ("id bad", "another Unicode form", "NFC")),
    Damage("an answer in full-width digits", "a.json", bad(**answer("１８７１", 5)), ("another Unicode form", "NFKC")),
    Damage("an invisible letter in the context alone", "a.json", bad(context="At Æ\u200brø.", **answer("Ærø", 3)),
           ("id bad", "does not occur")),
    # CSV
    Damage("columns by other names", "a.csv", as_csv(ROW, header=["nr", "frage", "text", "antwort", "start"]),
           ("no column question", "nr, frage, text, antwort, start", "Expected question, context, and answer")),
    Damage("no line of column names", "a.csv", as_csv(header=ROW), ("no column question", "Expected question")),
    Damage("no column of answers", "a.csv", as_csv(ROW[:3], header=COLUMNS[:3]), ("no column answers",)),
    Damage("a column that stands twice", "a.csv", as_csv([*ROW, "x"], header=[*COLUMNS, "context"]),
           ("two columns context",)),
    Damage("column names and no row", "a.csv", HEADER, ("no question to use",)),
    Damage("quotes that are not closed", "a.csv", as_csv(ROW) + b'q2,Who?,"It was Bob.,Bob,7\n',
           ("record 2", '"quotes"')),
    Damage("a quote within quotes", "a.csv", HEADER + b'q1,Who?,"It "was" Bob.",Bob,9\n', ("record 1", "doubled")),
    Damage("a comma in a text without quotes", "a.csv", as_csv(ROW) + b"q2,Who?,Bob, as ever.,Bob,0\n",
           ("record 2 (id q2)", "more cells than the header")),
    Damage("a row that ends early", "a.csv", as_csv(ROW) + b"q2,Who?\n", ("record 2 (id q2)", "`context` is missing")),
    Damage("an offset with a thousands separator", "a.csv", as_csv([*ROW[:4], "1,024"]), ("id q1", "number: '1,024'")),
    Damage("answers in a cell that are no JSON", "a.csv", as_csv(["a", "Who?", "Bob.", "['Bob']"], header=list(GOOD)),
           ("id a", "`answers` is not JSON")),
    # Parquet and saved data sets
    Damage("Parquet with other columns", "a.parquet", parquet({"q": ["Who?"], "a": ["Bob"]}),
           ("no column question", "Found the columns q, a")),
    Damage("Parquet cut in the middle", "a.parquet", parquet(good_columns(), cut=0.5), ("not a Parquet file",)),
    Damage("Parquet with bytes for text", "a.parquet", parquet(good_columns(question=b"Who?")),
           ("id q1", "`question` is not text")),
    Damage("Parquet with NaN for offsets", "a.parquet", parquet(good_columns(**answer("Ærø", float("nan")))),
           ("id q1", "whole number: nan")),
    Damage("Parquet without a row", "a.parquet", parquet({name: [] for name in GOOD}), ("no question to use",)),
    Damage("a saved data set that lacks its Arrow file", "saved", saved_dataset(Path.unlink), ("no saved dataset",)),
    Damage("a saved data set whose Arrow file is cut", "saved", saved_dataset(cut_in_half), ("damaged saved dataset",)),
    Damage("a saved data set without the part", "saved", saved_dataset(parts=True),
           ("no part called validation", "train")),
    Damage("a folder with other files", "folder.json", Path.mkdir, ("no saved dataset",)),
    # the file system
    Damage("a file that is missing", "a.json", lambda path: None, ("is missing", "Expected")),
    Damage("a name that no file can have", "a" * 300 + ".json", lambda path: None, ("a.json",)),
]  # fmt: skip

SAILING = "The ship sailed on. " * 500_000  # 10 MB
LONG = record(context=f"{SAILING}At last it came to Ærø.", **answer("Ærø", len(SAILING) + 19))
LETTERS = record(context="a" * 10**7, **answer("a", 5 * 10**6))
SURROGATES = record(question="Where\ud800?", context="To \ud83dÆrø.", answers={"text": ["Ærø"], "answer_start": [4]})
TEXTS = {  # in a context, before and after the answer; with the answer
    "right-to-left text": ("נסעה אל ", "תל אביב", " ב־1909. وصلت"),
    "marks that turn the direction": ("\u202bx\u202c \u2066", "a\u2069b", "\u200f."),
    "combining characters on both sides": ("By ", NFD, " a\u0301\u0323\u0308."),
    "emoji of several characters": ("👩🏽‍🚀 of 🇮🇸: ", "👨‍👩‍👧‍👦 ❤️", " ✈️."),
    "zero-width spaces": ("on\u200b ", "Æ\u200br\u200dø", "\u2060\ufeff."),
    "control characters": ("\x00\x07 \x1b[2J", "A\x0bd\x85a", "\x7f\x9f."),
    "a byte-order mark in the middle": ("To \ufeff", "Ær\ufeffø", "."),
    "every kind of line end": ("a\r\nb\rc\n", "Æ\u2028r\u2029ø", "\x1c\x1d\x0c\n\r."),
    "noncharacters and private use": ("\ufffe\uffff ", "\ue000Æ\U0010ffff", "\U000e0041."),
    "quotes, commas and backslashes": ('"",; \\', "\"Æ\",'r'\\", '\\n""",'),
    "a word of 100,000 letters": ("Æ" * 50_000, "Ada", "Æ" * 50_000),
}


def with_text(before: str, text: str, after: str) -> dict:
    return record(context=before + text + after, **answer(text, len(before)))


def in_every_format(before: str, text: str, after: str) -> Iterator[tuple[str, bytes, dict]]:
    """Name, content and record of a file in each format with this context and answer."""
    item = with_text(before, text, after)
    yield "a.json", as_json(item), item
    yield "a.jsonl", as_lines(item), item
    yield "a.csv", as_csv(["q1", "Where to?", item["context"], text, len(before)]), item
    yield "a.parquet", parquet({name: [value] for name, value in item.items()}), item


ODD = [
    Oddity("a byte-order mark in front", "a.json", b"\xef\xbb\xbf" + as_json(GOOD), [GOOD]),
    Oddity("a byte-order mark before CSV", "a.csv", b"\xef\xbb\xbf" + as_csv(ROW), [GOOD]),
    Oddity("lone surrogates", "a.json", json.dumps([SURROGATES]).encode(), [record(
        question="Where\ufffd?", context="To \ufffdÆrø.", **answer("Ærø", 4))]),
    Oddity("a line of 10 MB", "a.json", as_json(LONG), [LONG]),
    Oddity("a cell of 10 MB", "a.csv", as_csv(
        ["q1", "Where to?", LONG["context"], "Ærø", len(LONG["context"]) - 4]), [LONG]),
    Oddity("semicolons: Excel's `CSV` in Europe", "a.csv", as_csv(ROW, delimiter=";"), [GOOD]),
    Oddity("tabs", "a.csv", as_csv(ROW, delimiter="\t"), [GOOD]),
    Oddity("empty columns and rows that Excel leaves", "a.csv", as_csv([*ROW, "", ""], header=[
        *COLUMNS, "", ""]) + b"\r\n", [GOOD]),
    Oddity("blanks around an offset", "a.csv", as_csv([*ROW[:4], " 24 "]), [GOOD]),
    Oddity("no offsets, where the answer stands once", "a.csv", as_csv(ROW[:4], header=COLUMNS[:4]), [GOOD]),
    Oddity("empty lines and Windows' line ends", "a.jsonl", as_lines(GOOD).replace(b"\n", b"\r\n\r\n"), [GOOD]),
    Oddity("a huge number as id", "a.json", as_json(record(id=10**30)), [record(id=str(10**30))]),
    Oddity("no ids", "a.json", as_json(record(id=...)), [record(id="1")]),
    Oddity("an answer of one letter among 10 million of them", "a.json", as_json(LETTERS), [LETTERS]),
    Oddity("fields that are not ours", "a.json", as_json(record(title=None, score=float("nan"), x=[[]])), [GOOD]),
    Oddity("a name in other letters, with a space", "问题 ü.JSON", as_json(GOOD), [GOOD]),
    Oddity("SQuAD 2.0's fields on an answerable question", "a.json",
           as_squad(is_impossible=False, plausible_answers=[]), [GOOD]),
    *(Oddity(f"{cause}, in {name}", name, content, [item]) for cause, texts in TEXTS.items()
      for name, content, item in in_every_format(*texts)),
]  # fmt: skip


def write(case: Damage | Oddity, folder: Path) -> Path:
    path = folder / case.name
    path.write_bytes(case.content) if isinstance(case.content, bytes) else case.content(path)
    return path


def evaluate(path: Path, folder: Path, **options) -> subprocess.CompletedProcess:
    """Runs evaluate.py on the questions of `path` with predictions for other questions, which no model and no metric
    is loaded for, and checks that nothing is written."""
    (folder / "predictions.json").write_text('{"another": "x"}', encoding="utf-8")
    output = folder / "output"
    output.mkdir()
    (output / "predictions.json").write_text("earlier", encoding="utf-8")
    done = run_script("evaluate.py", "--predictions", folder / "predictions.json", "--eval_file", path,
                      "--output_dir", output, code=2, **options)  # fmt: skip
    assert [file.name for file in output.iterdir()] == ["predictions.json"]
    assert (output / "predictions.json").read_text(encoding="utf-8") == "earlier"
    return done


def test_no_two_causes_are_alike():
    assert len({case.cause for case in (*DAMAGED, *ODD)}) == len(DAMAGED) + len(ODD)
    assert len({case[1:3] for case in DAMAGED}) == len(DAMAGED) >= 40


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("case", DAMAGED, ids=lambda case: case.cause)
def test_what_is_damaged_is_refused_with_record_and_reason(case, tmp_path):
    path = write(case, tmp_path)
    with pytest.raises(QAError) as caught:
        read_examples(path, "validation")
    for word in (str(path), *case.says):
        assert word in str(caught.value)
    assert len(str(caught.value)) < 2000, "no message is as long as the file"
    done = evaluate(path, tmp_path)
    assert_refused(done, *case.says)
    assert "\x1b" not in done.stderr


@pytest.mark.fault("odd input")
@pytest.mark.parametrize("case", ODD, ids=lambda case: case.cause)
def test_what_is_odd_but_whole_is_read_letter_by_letter(case, tmp_path):
    path = write(case, tmp_path)
    assert read_examples(path, "validation") == case.reads
    text, start = (case.reads[0]["answers"][name][0] for name in ("text", "answer_start"))
    assert case.reads[0]["context"][start : start + len(text)] == text


@pytest.mark.fault("damaged input")
def test_train_refuses_damaged_questions_and_writes_nothing(tmp_path):
    (tmp_path / "bytes.json").write_bytes(bad(**answer("Ærø", 27)))
    done = run_script("train.py", "--sample", "--eval_file", tmp_path / "bytes.json", "--output_dir",
                      tmp_path / "output", code=2)  # fmt: skip
    assert_refused(done, "record 2 (id bad)", "count UTF-8 bytes")
    assert not list(tmp_path.glob("output/*"))


def test_odd_texts_are_scored_as_they_stand(tmp_path):
    """The whole way through evaluate.py: the right answer to each of the odd texts counts as right. Ids and texts of
    predictions are read as those of the questions are, lone surrogates and a byte-order mark too."""
    examples = [with_text(*texts) | {"id": cause} for cause, texts in TEXTS.items()]
    examples.append(with_text("To \udfff", "\ud83dÆrø", ".\ud83d") | {"id": "q\ud800"})
    (tmp_path / "questions.json").write_text(json.dumps(examples), encoding="utf-8")
    predictions = {example["id"]: example["answers"]["text"][0] for example in examples}
    (tmp_path / "predictions.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(predictions).encode())
    done = run_script("evaluate.py", "--predictions", tmp_path / "predictions.json", "--eval_file",
                      tmp_path / "questions.json", "--show_examples", len(examples))  # fmt: skip
    assert f"EM 100.00  F1 100.00  on {len(examples)} questions" in done.stdout
    assert "\x1b" not in done.stdout, "a text can't give orders to the terminal"


# what is no file, or not ours to read

posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")


@posix
@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "parquet"])
def test_a_pipe_that_nobody_fills_is_refused_and_not_waited_for(suffix, tmp_path):
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    assert_refused(evaluate(tmp_path / f"pipe.{suffix}", tmp_path), "no file but a device, a pipe or a socket")


@posix
@pytest.mark.fault("damaged input")
def test_a_device_without_end_is_refused(tmp_path):
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    assert_refused(evaluate(tmp_path / "zero.json", tmp_path), "no file but a device")


# what root may read, nobody may not; libraries are loaded before, as they may lie where nobody may look
AS_NOBODY = """
import locale, os, runpy, sys  # locale: argparse wants it, and a nobody may not read the library
from utils.console import run
if sys.argv[-1].endswith("saved"): import datasets
main = runpy.run_path("evaluate.py")["main"]
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
run(main)
"""


@posix
@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("closed", ["questions.json", "inner", "inner/saved/dataset_info.json"])
def test_what_may_not_be_read_is_refused(closed):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "inner").mkdir()
        saved_dataset()(folder / "inner" / "saved")
        (folder / "questions.json").write_bytes(as_json(GOOD))
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        (folder / closed).chmod(0)
        questions = folder / ("questions.json" if closed == "questions.json" else "inner/saved")
        command = [sys.executable, "-c", AS_NOBODY, "--predictions", questions, "--eval_file", questions]
        environment = os.environ | {"COVERAGE_PROCESS_CONFIG": ""}  # nobody may not write what coverage counts
        done = subprocess.run(
            command, cwd=PROJECT_ROOT, env=environment, check=False, capture_output=True, encoding="utf-8", timeout=60
        )
        (folder / closed).chmod(0o755)
    assert_refused(done, f"{questions} ", "can't be read: Permission denied")


# predictions

GOLD = '{"q1": "Ærø"}'
BAD_PREDICTIONS = {
    "an empty file": (b"", "can't be read as JSON"),
    "truncated": (GOLD.encode()[:-2], "can't be read as JSON"),
    "UTF-16": (GOLD.encode("utf-16"), "UTF-16"),
    "GBK": ('{"q1": "王伟"}'.encode("gbk"), "not UTF-8"),
    "gzip": (gzip.compress(GOLD.encode()), "gzip"),
    "nested too deeply": (b'{"q1":' * 200_000, "nested too deeply"),
    "a list": (b'[{"q1": "x"}]', "not of the official format"),
    "null": (b"null", "not of the official format"),
    "an answer that is null": (b'{"q1": null}', "'q1' is no text, but None"),
    "an answer that is NaN": (b'{"q1": NaN}', "'q1' is no text, but nan"),
    "n-best lists": (b'{"q1": [{"text": "x"}]}', "'q1' is no text, but [{"),
    "an id that stands twice": (b'{"q1": "a", "q1": "b"}', "'q1' stands twice"),
    "other ids": (b'{"q2": "x"}', "answers none of the questions"),
    "JSON Lines": (b'{"q1": "a"}\n{"q2": "b"}\n', "can't be read as JSON"),
}


@pytest.mark.fault("damaged predictions")
@pytest.mark.parametrize("cause", BAD_PREDICTIONS)
def test_damaged_predictions_are_refused(cause, tmp_path):
    content, reason = BAD_PREDICTIONS[cause]
    (tmp_path / "questions.json").write_bytes(as_json(GOOD))
    (tmp_path / "predictions.json").write_bytes(content)
    done = run_script("evaluate.py", "--predictions", tmp_path / "predictions.json", "--eval_file",
                      tmp_path / "questions.json", code=2)  # fmt: skip
    assert_refused(done, str(tmp_path / "predictions.json"), reason)


@pytest.mark.fault("damaged predictions")
def test_a_folder_as_predictions_is_refused(tmp_path):
    (tmp_path / "questions.json").write_bytes(as_json(GOOD))
    assert_refused(
        run_script("evaluate.py", "--predictions", tmp_path, "--eval_file", tmp_path / "questions.json", code=2),
        "can't be read",
    )


# model folders

BAD_SETTINGS = {  # reader.json
    "[]": "no JSON object, but []",
    "null": "no JSON object, but None",
    "": "can't be read as JSON",
    '{"max_length": 64': "can't be read as JSON",
    '{"a":' * 100_000: "nested too deeply",
    '{"max_length": 64, "max_length": 384}': "'max_length' stands twice",
    '{"max_length": "abc"}': "max_length is 'abc', expected a whole number",
    '{"max_length": 384.0}': "max_length is 384.0",
    '{"max_length": null}': "max_length is None",
    '{"max_length": true}': "max_length is True",
    '{"max_length": 1e400}': "max_length is inf",
    '{"max_length": 3}': "max_length 3 is too short",
    '{"max_length": 100000}': "the model has 512 positions",
    '{"doc_stride": [128]}': "doc_stride is [128]",
    '{"doc_stride": -1}': "doc_stride -1 is negative",
    '{"doc_stride": 384}': "no room to advance",
    '{"max_answer_length": 0}': "max_answer_length is 0, expected at least 1",
    '{"max_answer_length": "30"}': "max_answer_length is '30'",
    '{"temperature": 0}': "temperature is 0, expected a number from 0.01 to 100",
    '{"temperature": -1}': "temperature is -1",
    '{"temperature": NaN}': "temperature is nan",
    '{"temperature": Infinity}': "temperature is inf",
    '{"temperature": 1e-320}': "temperature is 1e-320",
    '{"temperature": "1"}': "temperature is '1'",
}
BAD_CONFIGS = {  # fields of config.json
    "positions in words": ({"max_position_embeddings": "many"}, "max_position_embeddings"),
    "fewer positions than weights": ({"max_position_embeddings": 100}, "is [512, 64], expected [100, 64]"),
    "no positions": ({"max_position_embeddings": 0}, "is [512, 64], expected [0, 64]"),
    "a padding token that is negative": ({"pad_token_id": -1}, "pad_token_id is -1"),
    "a padding token that is not there": ({"pad_token_id": 10**9}, "Padding_idx"),
    "fewer tokens than weights": ({"vocab_size": 100}, "the weights do not fit config.json"),
    "a negative number of tokens": ({"vocab_size": -1}, "can't be loaded"),
    "fewer layers than weights": ({"num_hidden_layers": 1}, "the weights do not fit config.json"),
    "a negative number of layers": ({"num_hidden_layers": -1}, "the weights do not fit config.json"),
    "more layers than weights": ({"num_hidden_layers": 5}, "of its weights"),
    "no attention heads": ({"num_attention_heads": 0}, "can't be loaded"),
    "a width that is null": ({"hidden_size": None}, "can't be loaded"),
    "an activation that does not exist": ({"hidden_act": "none"}, "can't be loaded"),
    "a model that does not exist": ({"model_type": "nothing"}, "can't be loaded"),
    "another model": ({"model_type": "bert"}, "of its weights"),
}


def damaged_model(tiny_model: Path, folder: Path, name: str, content: str) -> Path:
    shutil.copytree(tiny_model, folder)
    (folder / name).write_text(content, encoding="utf-8")
    return folder


@pytest.mark.fault("damaged model folder")
@pytest.mark.parametrize("content", BAD_SETTINGS, ids=lambda content: content[:40])
def test_settings_that_make_no_sense_are_refused(content, tiny_model, tmp_path):
    folder = damaged_model(tiny_model, tmp_path / "model", "reader.json", content)
    with pytest.raises(QAError) as caught:
        Reader(folder, "cpu", "no")
    assert str(folder) in str(caught.value)
    assert BAD_SETTINGS[content] in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.fault("damaged model folder")
@pytest.mark.parametrize("cause", BAD_CONFIGS)
def test_a_config_that_makes_no_sense_is_refused(cause, tiny_model, tmp_path):
    changes, reason = BAD_CONFIGS[cause]
    config = json.loads((tiny_model / "config.json").read_text(encoding="utf-8")) | changes
    folder = damaged_model(tiny_model, tmp_path / "model", "config.json", json.dumps(config))
    with pytest.raises(QAError) as caught:
        Reader(folder, "cpu", "no")
    assert str(folder) in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.fault("damaged model folder")
@pytest.mark.parametrize("content", ["[]", "null", "3", '"mobilebert"', "{}", "{", "[" * 100_000, "\x00" * 100])
def test_a_config_that_is_no_object_is_refused(content, tiny_model, tmp_path):
    folder = damaged_model(tiny_model, tmp_path / "model", "config.json", content)
    with pytest.raises(QAError) as caught:
        Reader(folder, "cpu", "no")
    assert str(folder) in str(caught.value)


@pytest.mark.fault("damaged model folder")
def test_a_tokenizer_of_another_model_is_refused(tiny_model, tokenizer_dir, tmp_path):
    """Its ids would be other words, or none: weights for fewer tokens than the tokenizer has."""
    small = save_tiny_model(tmp_path / "small", tokenizer_dir, with_head=True)
    shutil.copyfile(tiny_model / "tokenizer.json", small / "tokenizer.json")
    with pytest.raises(QAError, match="files of two models"):
        Reader(small, "cpu", "no")


def test_settings_that_make_sense_are_taken(tiny_model, tmp_path):
    """A byte-order mark from an editor; an answer may not be longer than a window, however long it may be."""
    content = (
        '\ufeff{"max_length": 64, "doc_stride": 16, "max_answer_length": 1000000000, "temperature": 2, "note": []}'
    )
    folder = damaged_model(tiny_model, tmp_path / "model", "reader.json", content)
    reader = Reader(folder, "cpu", "no")
    assert reader.settings["max_answer_length"] == 64
    answer = reader.answer("Where to?", CONTEXT * 20)
    assert (CONTEXT * 20)[answer["start"] : answer["end"]] == answer["text"] != ""


@pytest.mark.fault("damaged model folder")
def test_evaluate_refuses_a_damaged_model_and_writes_nothing(tiny_model, tmp_path):
    folder = damaged_model(tiny_model, tmp_path / "model", "reader.json", '{"temperature": NaN}')
    (tmp_path / "questions.json").write_bytes(as_json(GOOD))
    done = run_script("evaluate.py", "--model_dir", folder, "--eval_file", tmp_path / "questions.json",
                      "--output_dir", tmp_path / "output", code=2)  # fmt: skip
    assert_refused(done, "reader.json", "temperature is nan")
    assert not (tmp_path / "output").exists()


@pytest.mark.fault("damaged model folder")
def test_evaluate_leaves_earlier_results_alone_where_the_weights_give_nan(tiny_model, tmp_path):
    """Found when the first file is half written: it goes, and what was there stays."""
    weights = load_file(tiny_model / "model.safetensors")
    weights["qa_outputs.bias"][0] = float("nan")
    shutil.copytree(tiny_model, tmp_path / "model")
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "questions.json").write_bytes(as_json(GOOD))
    output = tmp_path / "output"
    output.mkdir()
    (output / "nbest_predictions.json").write_text("earlier", encoding="utf-8")
    done = run_script("evaluate.py", "--model_dir", tmp_path / "model", "--eval_file", tmp_path / "questions.json",
                      "--output_dir", output, code=2)  # fmt: skip
    assert_refused(done, "NaN")
    assert [file.name for file in output.iterdir()] == ["nbest_predictions.json"]
    assert (output / "nbest_predictions.json").read_text(encoding="utf-8") == "earlier"
