"""Damaged and odd files, one cause a line: each is read rightly, or refused with the reason."""

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from scripts import PROJECT_ROOT, assert_refused, load_script, run_script

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError

CONTEXT = "🙂 In 1871 Ada sailed to Ærø."
GOOD = {
    "id": "q1",
    "question": "Where to?",
    "context": CONTEXT,
    "answers": {"text": ["Ærø"], "answer_start": [24]},
}
COLUMNS = ["id", "question", "context", "answer", "answer_start"]
HEADER = ",".join(COLUMNS).encode() + b"\n"


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


HUGE = b"1" * 5000  # more digits than Python converts
DEEP = b"[" * 200_000
ROW = ["q1", "Where to?", CONTEXT, "Ærø", "24"]
DAMAGED = [
    # encodings and kinds of files
    Damage("UTF-16", "a.json", as_json(GOOD).decode().encode("utf-16"), ("UTF-16", "save it as UTF-8")),
    Damage("UTF-16, big end first", "a.jsonl", b"\xfe\xff" + as_lines(GOOD).decode().encode("utf-16-be"), ("UTF-16",)),
    Damage("UTF-16 without a mark", "a.json", as_json(GOOD).decode().encode("utf-16-le"),
           ("UTF-16", "encoding='utf-16-le'")),
    Damage(
        "tabs in UTF-16: Excel's `Unicode Text`", "a.csv", as_csv(ROW, delimiter="\t").decode().encode("utf-16"),
        ("UTF-16", "CSV UTF-8"),
    ),
    Damage(
        "GB18030: Excel's `CSV` in China", "a.csv", HEADER + "a,谁？,是王伟。,王伟,1\n".encode("gb18030"),
        ("line 2", "not UTF-8: byte 44", "Excel", "CSV UTF-8"),
    ),
    Damage("column names in GB18030", "a.csv", "编号,问题\n1,x\n".encode("gb18030"), ("line 1", "not UTF-8: byte 0")),
    Damage("Latin-1", "a.jsonl", as_lines(GOOD) + '{"id": "née"}'.encode("latin-1"), ("line 2", "not UTF-8")),
    Damage("cut within a letter", "a.json", as_json(GOOD)[: as_json(GOOD).index("Ærø".encode()) + 1], ("not UTF-8",)),
    Damage("surrogates as bytes (CESU-8)", "a.json", b'[{"id": "\xed\xa0\xbd\xed\xb9\x82"}]', ("not UTF-8 (byte 9,",)),
    Damage("nothing but zero bytes, after a power cut", "a.json", bytes(4096), ("zero bytes", "never written whole")),
    Damage("gzip by the name of JSON", "a.json", gzip.compress(as_json(GOOD)), ("gzip", "Unpack it")),
    Damage("gzip by the name of CSV", "a.csv", gzip.compress(as_csv(ROW)), ("gzip", "Unpack it")),
    Damage("an Excel workbook by the name of CSV", "a.csv", zipped("xl/workbook.xml", b"<x/>"), ("Excel workbook",)),
    Damage("Parquet by the name of JSON", "a.json", parquet(good_columns()), ("is a Parquet file", "*.parquet")),
    Damage("JSON by the name of Parquet", "a.parquet", as_json(GOOD), ("not a Parquet file",)),
    Damage("a web page instead of data", "a.json", b"<!DOCTYPE html><p>503</p>", ("can't be read", "SQuAD JSON")),
    Damage("a kind of file that is not known", "a.txt", as_json(GOOD), ("*.txt", ".jsonl, .csv")),
    Damage("a name without an ending", "questions", as_json(GOOD), ("not known", ".jsonl, .csv")),
    # JSON
    Damage("an empty file", "a.json", b"", ("can't be read", "SQuAD JSON")),
    Damage("an empty file of JSON Lines", "a.jsonl", b"", ("no question to use",)),
    Damage("a file of blanks", "a.jsonl", b" \r\n\t\n  \n", ("no question to use",)),
    Damage("a mark of UTF-8 and nothing else", "a.json", b"\xef\xbb\xbf", ("can't be read",)),
    Damage("truncated", "a.json", as_squad()[:-20], ("can't be read", "char")),
    Damage("truncated in a later line", "a.jsonl", as_lines(GOOD, record(id="q2"))[:-20], ("line 2: is not JSON",)),
    Damage("two lists, one after the other", "a.json", as_json(GOOD) * 2, ("Extra data",)),
    Damage("JSON over many lines by the name of JSON Lines", "a.jsonl", b"[\n1]", ("line 1: is not JSON", "*.json")),
    Damage("a mark of UTF-8 at a later line, of files joined", "a.jsonl",
           as_lines(GOOD) + b"\xef\xbb\xbf" + as_lines(record(id="q2")), ("line 2: is not JSON", "BOM")),
    Damage("a list within a list, 200,000 deep", "a.json", DEEP, ("nested too deeply",)),
    Damage("a record nested too deeply", "a.jsonl", b'{"a":' * 200_000, ("line 1", "nested too deeply")),
    Damage("a cell nested too deeply", "a.csv", b"id,question,context,answers\n1,q,hi," + DEEP + b"\n", ("line 2",)),
    Damage("a number of 5,000 digits", "a.json", bad().replace(b"24", HUGE), ("can't be read", "digits")),
    Damage("a number of 5,000 digits in a line", "a.jsonl", as_lines(GOOD).replace(b"24", HUGE), ("line 1", "digits")),
    Damage("an offset of 5,000 digits", "a.csv", as_csv([*ROW[:4], HUGE.decode()]), ("not a whole number: '11",)),
    Damage("a duplicate field", "a.json", as_json(GOOD).replace(b'"id"', b'"context": "x", "id"'),
           ("duplicate field 'context'",)),
    Damage("Python's quotes", "a.json", str([GOOD]).encode(), ("can't be read", "double quotes")),
    Damage("a comma too many", "a.json", as_json(GOOD)[:-1] + b",]", ("can't be read", "char")),
    Damage("a bare line end in a text", "a.json", bad().replace(b"In 1871", b"In\n1871"), ("control character",)),
    Damage("an empty list", "a.json", b"[]", ("no question to use",)),
    Damage("an empty `data`", "a.json", b'{"data": []}', ("no question to use",)),
    Damage("an object without `data`", "a.json", b'{"questions": []}', ("SQuAD's `data`",)),
    Damage("`data` that is text", "a.json", b'{"data": "x"}', ("SQuAD's `data`",)),
    Damage("a number instead of records", "a.json", b"3", ("neither a list",)),
    Damage("articles without paragraphs", "a.json", b'{"data": [{"paragraphs": []}, {"title": "b"}]}',
           ("no question to use",)),
    Damage("an article that is null", "a.json", b'{"data": [{"paragraphs": []}, null, 7]}',
           ("2 × expected a JSON object", "record 2: expected a JSON object: got 7")),
    Damage("paragraphs that are text", "a.json", b'{"data": [{"paragraphs": "ab"}]}', ("the keys are paragraphs",)),
    Damage("a misspelled name", "a.json", b'{"data": [{"paragraphs": [{"context": "hi", "qa": [{}]}]}]}',
           ("`question` is missing: the keys are context, qa",)),
    Damage("a question that is a list", "a.json", b'{"data": [{"paragraphs": [{"context": "hi", "qas": [[1]]}]}]}',
           ("expected a JSON object: got [1]",)),
    Damage("several splits, but not that one", "a.json", b'{"train": [], "test": []}',
           ("no part called validation, only train, test",)),
    Damage("a workbook", "a.xlsx", b"PK", ("is a workbook", "CSV UTF-8")),
    Damage("compressed, and cut", "a.json.gz", gzip.compress(as_json(GOOD))[:-20], ("can't be read", "ends too early")),
    Damage("compressed, and damaged", "a.csv.gz", gzip.compress(as_json(GOOD))[:20] + bytes(99), ("can't be read",)),
    Damage("not compressed, but called so", "a.json.gz", as_json(GOOD), ("can't be read", "gzip")),
    Damage("a paragraph without context", "a.json", as_squad().replace(b'"context"', b'"text"'),
           ("record 1 (id q1)", "`context` is missing")),
    Damage("an id that clears the terminal", "a.json", bad(id="bad\x1b[2J", question=""), ("bad\\x1b[2J",)),
    # CSV
    Damage("columns by other names", "a.csv", as_csv(ROW, header=["nr", "frage", "text", "antwort", "start"]),
           ("no column question", "nr, frage, text, antwort, start", "Expected question, context, and answer")),
    Damage("no line of column names", "a.csv", as_csv(header=ROW), ("no column question", "Expected question")),
    Damage("no column of answers", "a.csv", as_csv(ROW[:3], header=COLUMNS[:3]), ("no column answers",)),
    Damage("a duplicate column", "a.csv", as_csv([*ROW, "x"], header=[*COLUMNS, "context"]),
           ("two columns context",)),
    Damage("an empty CSV", "a.csv", b"", ("no column question",)),
    Damage("column names and no row", "a.csv", HEADER, ("no question to use",)),
    Damage("lines that end as on old Macs", "a.csv", HEADER.replace(b"\n", b"\r") + b"1,q,hi,hi,0\r", ("lines of LF",)),
    Damage("quotes that are not closed", "a.csv", as_csv(ROW) + b'q2,Who?,"It was Bob.,Bob,7\n',
           ("line 3", '"quotes"')),
    Damage("a quote within quotes", "a.csv", HEADER + b'q1,Who?,"It "was" Bob.",Bob,9\n', ("line 2", "doubled")),
    Damage("a comma in a text without quotes", "a.csv", as_csv(ROW) + b"q2,Who?,Bob, as ever.,Bob,0\n",
           ("line 3 (id q2)", "more cells than the header")),
    Damage("a row that ends early", "a.csv", as_csv(ROW) + b"q2,Who?\n", ("line 3 (id q2)", "`context` is missing")),
    Damage("an offset with a thousands separator", "a.csv", as_csv([*ROW[:4], "1,024"]), ("id q1", "number: '1,024'")),
    Damage("answers in a cell that are no list", "a.csv", as_csv(["a", "Who?", "Bob.", "[Bob]"], header=list(GOOD)),
           ("id a", "`answers` is neither JSON nor")),
    # Parquet and saved data sets
    Damage("an empty Parquet file", "a.parquet", b"", ("not a Parquet file",)),
    Damage("Parquet with other columns", "a.parquet", parquet({"q": ["Who?"], "a": ["Bob"]}),
           ("no column question", "Found the columns q, a")),
    Damage("Parquet cut in the middle", "a.parquet", parquet(good_columns(), cut=0.5), ("not a Parquet file",)),
    Damage("Parquet with bytes for text", "a.parquet", parquet(good_columns(question=b"Who?")),
           ("id q1", "`question` is not text")),
    Damage("Parquet with fractions for offsets", "a.parquet", parquet(good_columns(**answer("Ærø", 24.5))),
           ("id q1", "whole number: 24.5")),
    Damage("Parquet without a row", "a.parquet", parquet({name: [] for name in GOOD}), ("no question to use",)),
    Damage("a saved data set that lacks its Arrow file", "saved", saved_dataset(Path.unlink), ("no saved dataset",)),
    Damage("a saved data set whose Arrow file is cut", "saved", saved_dataset(cut_in_half), ("damaged saved dataset",)),
    Damage("a saved data set without the part", "saved", saved_dataset(parts=True),
           ("no part called validation", "train")),
    Damage("a folder with other files", "folder.json", Path.mkdir, ("no saved dataset",)),
    # the file system
    Damage("a file that is missing", "a.json", lambda path: None, ("is missing", "Expected")),
    Damage("a folder that is missing", "none/a.csv", lambda path: None, ("is missing", "Expected")),
    Damage("a name that no file can have", "a" * 300 + ".json", lambda path: None, ("a.json",)),
]  # fmt: skip

SAILING = "The ship sailed on. " * 500_000  # 10 MB
LONG = record(context=f"{SAILING}At last it came to Ærø.", **answer("Ærø", len(SAILING) + 19))
LETTERS = record(context="a" * 10**7, **answer("a", 5 * 10**6))
TEXTS = {  # in a context, before and after the answer; with the answer
    "right-to-left text": ("נסעה אל ", "תל אביב", " ב־1909. وصلت"),
    "marks that turn the direction": ("\u202bx\u202c \u2066", "a\u2069b", "\u200f."),
    "combining characters on both sides": ("By ", "A\u030angstro\u0308m", " a\u0301\u0323\u0308."),
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
    Oddity("a line of 10 MB", "a.json", as_json(LONG), [LONG]),
    Oddity("a cell of 10 MB", "a.csv", as_csv(
        ["q1", "Where to?", LONG["context"], "Ærø", len(LONG["context"]) - 4]), [LONG]),
    Oddity("semicolons: Excel's `CSV` in Europe", "a.csv", as_csv(ROW, delimiter=";"), [GOOD]),
    Oddity("empty columns and rows that Excel leaves", "a.csv", as_csv([*ROW, "", ""], header=[
        *COLUMNS, "", ""]) + b"\r\n", [GOOD]),
    Oddity("blanks around an offset", "a.csv", as_csv([*ROW[:4], " 24 "]), [GOOD]),
    Oddity("no offsets, where the answer occurs once", "a.csv", as_csv(ROW[:4], header=COLUMNS[:4]), [GOOD]),
    Oddity("a huge number as id", "a.json", as_json(record(id=10**30)), [record(id=str(10**30))]),
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
    assert "\x1b" not in str(caught.value)
    try:
        left = read_examples(path, "validation", skip_bad=True)
    except QAError as error:
        assert str(path) in str(error)
    else:
        assert left == [GOOD]


@pytest.mark.fault("odd input")
@pytest.mark.parametrize("case", ODD, ids=lambda case: case.cause)
def test_what_is_odd_but_whole_is_read_letter_by_letter(case, tmp_path):
    path = write(case, tmp_path)
    assert read_examples(path, "validation") == case.reads
    text, start = (case.reads[0]["answers"][name][0] for name in ("text", "answer_start"))
    assert case.reads[0]["context"][start : start + len(text)] == text


# as the scripts' users see it


@pytest.mark.fault("damaged input")
def test_evaluate_refuses_damaged_questions_and_writes_nothing(tmp_path):
    """Exit code 2, the library's advice in flags, no traceback, and an output folder that stays as it was."""
    damaged = tmp_path / "bytes.json"
    damaged.write_bytes(bad(id="bad\x1b[2J", **answer("Bob", 27)))
    (tmp_path / "predictions.json").write_text('{"another": "x"}', encoding="utf-8")
    output = tmp_path / "output"
    output.mkdir()
    (output / "predictions.json").write_text("earlier", encoding="utf-8")
    done = run_script("evaluate.py", "--predictions", tmp_path / "predictions.json", "--eval_file", damaged,
                      "--output_dir", output, code=2)  # fmt: skip
    assert_refused(
        done, "record 2 (id bad\\x1b[2J)", "is not in the context", f"--eval_file {damaged}", "--skip_bad_examples"
    )
    assert "\x1b" not in done.stderr
    assert "skip_bad=True" not in done.stderr
    assert [file.read_text(encoding="utf-8") for file in output.iterdir()] == ["earlier"]


def test_odd_texts_are_scored_as_they_are(tmp_path, capsys):
    """The whole way through evaluate.py: the right answer to each of the odd texts counts as right. Ids and texts of
    predictions are read as those of the questions are, lone surrogates and a byte-order mark too."""
    examples = [with_text(*texts) | {"id": cause} for cause, texts in TEXTS.items()]
    examples.append(with_text("To \udfff", "\ud83dÆrø", ".\ud83d") | {"id": "q\ud800"})
    (tmp_path / "questions.json").write_text(json.dumps(examples), encoding="utf-8")
    predictions = {example["id"]: example["answers"]["text"][0] for example in examples}
    (tmp_path / "predictions.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(predictions).encode())
    load_script("evaluate.py").main(
        ["--predictions", str(tmp_path / "predictions.json"), "--eval_file", str(tmp_path / "questions.json"),
         "--show_examples", str(len(examples))]
    )  # fmt: skip
    said = capsys.readouterr().out
    assert f"EM 100.00  F1 100.00  on {len(examples)} questions" in said
    assert "\x1b" not in said, "a text can't give orders to the terminal"


# what is no file, or not ours to read

posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")


@posix
@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "parquet"])
def test_a_pipe_that_nobody_fills_and_a_device_without_end_are_refused_and_not_waited_for(suffix, tmp_path):
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    (tmp_path / f"zero.{suffix}").symlink_to("/dev/zero")
    for path in tmp_path.iterdir():
        with pytest.raises(QAError, match="no file but a device, a pipe or a socket"):
            read_examples(path)


# what root may read, nobody may not; libraries are loaded before, as they may lie where nobody may look
AS_NOBODY = """
import os, sys
import datasets
from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
for path in sys.argv[1:]:
    try:
        print(len(read_examples(path)))
    except QAError as error:
        print(error)
"""


@posix
@pytest.mark.fault("damaged input")
def test_what_may_not_be_read_is_refused(record_property):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for inner in ("open", "closed", "half"):
            (folder / inner).mkdir()
            saved_dataset()(folder / inner / "saved")
        (folder / "closed.json").write_bytes(as_json(GOOD))
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        for closed in ("closed.json", "closed", "half/saved/dataset_info.json"):
            (folder / closed).chmod(0)
        questions = [folder / path for path in ("open/saved", "closed.json", "closed/saved", "half/saved")]
        command = [sys.executable, "-c", AS_NOBODY, *questions]
        environment = os.environ | {"COVERAGE_PROCESS_CONFIG": ""}  # nobody may not write what coverage counts
        done = subprocess.run(
            command, cwd=PROJECT_ROOT, env=environment, check=True, capture_output=True, encoding="utf-8", timeout=120
        )
        (folder / "closed").chmod(0o755)
    good, *refused = done.stdout.splitlines()
    assert good == "1"
    for path, message in zip(questions[1:], refused, strict=True):
        assert message.startswith(f"{path} ")
        assert "can't be read: Permission denied" in message
    record_property("tried", len(refused))
