"""extractive_qa/batch/question_stream.py: questions one by one, out of files and pipes, the bad ones named."""

import csv
import io
import json

import pytest

from extractive_qa.batch import question_stream
from extractive_qa.batch.question_stream import Position, check_input, read_groups, read_lines, read_pipe
from extractive_qa.errors import QAError

TEXT = "Der Müller mahlt,\r\nsagt er „laut“; 100\tSack."
RECORDS = [{"id": f"q{n}", "question": f"Wer, {n}?", "context": f'{TEXT} "{n}"\n\nEnde.'} for n in range(11)]


def as_lines(records) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def as_csv(records, delimiter=",") -> bytes:
    text = io.StringIO()
    rows = csv.DictWriter(text, ["id", "question", "context"], delimiter=delimiter)
    rows.writeheader()
    rows.writerows(records)
    return text.getvalue().encode()


def as_squad(records) -> bytes:
    qas = [{"context": r["context"], "qas": [{"id": r["id"], "question": r["question"]}]} for r in records]
    return json.dumps({"data": [{"title": "t", "paragraphs": qas}]}).encode()


FILES = {
    "a.jsonl": as_lines(RECORDS),
    "no_end.jsonl": as_lines(RECORDS)[:-1],
    "blanks.ndjson": b"\xef\xbb\xbf" + as_lines(RECORDS).replace(b"\n", b"\r\n \r\n"),
    "a.csv": as_csv(RECORDS),
    "semicolons.csv": b"\xef\xbb\xbf" + as_csv(RECORDS, ";"),
    "a.json": as_squad(RECORDS),
    "list.json": json.dumps(RECORDS).encode(),
}


@pytest.fixture(params=[7, 1 << 20])
def small_groups(monkeypatch, request):
    """Groups of four, out of blocks of a few bytes too."""
    monkeypatch.setattr(question_stream, "GROUP_QUESTIONS", 4)
    monkeypatch.setattr(question_stream, "BLOCK", request.param)


def groups_of(path, begin=question_stream.START):
    return list(read_groups(path, begin))


@pytest.mark.parametrize("name", FILES)
def test_each_kind_of_file_gives_its_questions_in_order(tmp_path, small_groups, name):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    groups = groups_of(path)
    assert [item.example for group in groups for item in group] == RECORDS
    assert [len(group) for group in groups] == [4, 4, 3]


@pytest.mark.parametrize("name", FILES)
def test_groups_are_the_same_wherever_the_reading_begins(tmp_path, small_groups, name):
    """What going on after a crash rests on: where groups end is a function of the file alone."""
    path = tmp_path / name
    bad = b'{"question": "Who?"}\n' if "json" in path.suffix else b"bad,,\n"
    path.write_bytes(FILES[name] + (b"" if path.suffix == ".json" else b"\n" + bad))
    groups = groups_of(path)
    for number, group in enumerate(groups, 1):
        assert groups_of(path, group[-1].end) == groups[number:]
        assert groups_of(path, Position(*json.loads(json.dumps(group[-1].end)))) == groups[number:]


def test_a_group_holds_no_more_characters_than_fit(tmp_path, monkeypatch):
    """Of books a group has fewer questions."""
    monkeypatch.setattr(question_stream, "GROUP_CHARACTERS", 1000)
    records = [{"id": str(n), "question": "Who?", "context": "x" * n} for n in (10, 2000, 10, 500, 480, 10)]
    (tmp_path / "a.jsonl").write_bytes(as_lines(records))
    assert [len(group) for group in groups_of(tmp_path / "a.jsonl")] == [2, 3, 1]


def test_missing_ids_are_the_records_numbers(tmp_path):
    records = [{"id": "a"}, {"id": None}, {}, {"id": 7}]
    given = [record | {"question": "Who?", "context": "He."} for record in records]
    (tmp_path / "a.jsonl").write_bytes(b"\n" + as_lines(given))
    (tmp_path / "a.csv").write_bytes(as_csv(given))
    for name in ("a.jsonl", "a.csv"):
        ids = [item.example["id"] for group in groups_of(tmp_path / name) for item in group]
        assert ids == ["a", "2", "3", "7"], name


class Slow(io.RawIOBase):
    """A pipe that gives a piece at a time."""

    def __init__(self, pieces):
        self.pieces = list(pieces)

    def read1(self, size):
        return self.pieces.pop(0) if self.pieces else b""


def test_a_pipe_is_answered_for_as_far_as_it_has_come():
    lines = as_lines(RECORDS).splitlines(keepends=True)
    pipe = Slow([lines[0], lines[1] + lines[2][:9], lines[2][9:12], lines[2][12:] + lines[3], b"".join(lines[4:])[:-1]])
    left = []
    for group in read_pipe(pipe):
        left.append(([item.example["id"] for item in group], len(pipe.pieces)))
    # a group comes before the next piece is asked for
    assert left == [(["q0"], 4), (["q1"], 3), (["q2", "q3"], 1), ([f"q{n}" for n in range(4, 10)], 0), (["q10"], 0)]


def test_a_line_without_end_takes_no_memory_and_hides_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(question_stream, "LONGEST_LINE", 200)
    monkeypatch.setattr(question_stream, "BLOCK", 64)
    good = as_lines(RECORDS[:1])
    assert len(good) < 200
    content = good + b'{"a": "' + b"x" * 5000 + b'"}\n' + good
    longest = max(len(line) for line, _ in read_lines(io.BytesIO(content), 0))
    assert longest <= 200 + 64
    (tmp_path / "a.jsonl").write_bytes(content)
    first, long, last = next(read_groups(tmp_path / "a.jsonl"))
    assert (first.example, last.example) == (RECORDS[0], RECORDS[0])
    assert "longer than 200 bytes" in long.fault
    assert long.end.offset == len(content) - len(good)
    assert last.end.offset == len(content)


GOOD = {"id": "g", "question": "Who?", "context": "He."}
BAD_LINES = [
    (b"not json", "not JSON"),
    (b'{"question": "Who?", "context": "He."', "not JSON"),
    (b'{"question": "Who?", "context": "He.", "context": "She."}', "stands twice"),
    (b'{"a":' * 100_000, "nested too deeply"),
    (b'{"id": ' + b"9" * 5000 + b"}", "digits"),
    (b"3", "no record"),
    (b"null", "no record"),
    (b'["Who?", "He."]', "no record"),
    (b'{"context": "He."}', "`question` is missing"),
    (b'{"question": null, "context": "He."}', "`question` is missing"),
    (b'{"question": ["Who?"], "context": "He."}', "`question` is not text"),
    (b'{"question": "Who?", "context": ""}', "`context` is empty"),
    (b'{"question": "Who?", "context": 5}', "`context` is not text"),
    (b'{"question": "\\u200b", "context": "He."}', "no word"),
    (b'{"question": "Who?", "context": "He.", "id": ["a"]}', "`id` is not text"),
    ('{"question": "谁？", "context": "他。"}'.encode("gbk"), "not UTF-8"),
    (b"\xff\xfe\x00\x01", "not UTF-8"),
]


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_a_bad_line_is_named_and_stops_no_other(tmp_path, line, reason):
    (tmp_path / "a.jsonl").write_bytes(as_lines([GOOD]) + b"\n" + line + b"\n" + as_lines([GOOD]))
    first, bad, last = next(read_groups(tmp_path / "a.jsonl"))
    assert (first.fault, last.fault, first.example, last.example) == ("", "", GOOD, GOOD)
    assert reason in bad.fault
    assert bad.place == "line 3"
    assert 0 < len(bad.text) <= question_stream.TEXT_SHOWN
    assert bad.example == {}


BAD_ROWS = [
    (b"x,,He.", "`question` is missing"),
    (b"x,Who?,", "`context` is missing"),
    (b"x,Who?", "`context` is missing"),
    (b"x,Who?,He, she.", "more cells"),
    (b'x,"Who?"!,He.', "can't be read"),
    ("x,谁？,他。".encode("gbk"), "not UTF-8"),
]


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize(("row", "reason"), BAD_ROWS)
def test_a_bad_row_is_named_and_stops_no_other(tmp_path, row, reason):
    good = b'g,Who?,"He\nis."\n'
    (tmp_path / "a.csv").write_bytes(b"id,question,context\n" + good + row + b"\n" + good)
    first, bad, last = next(read_groups(tmp_path / "a.csv"))
    assert first.example == last.example == GOOD | {"context": "He\nis."}
    assert reason in bad.fault
    assert bad.place == "line 4"
    assert last.place == "line 5"


@pytest.mark.fault("damaged input")
def test_a_quote_that_is_never_closed_is_named(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'id,question,context\ng,Who?,He.\nx,Who?,"He\ny,Who?,He.\n')
    first, bad = next(read_groups(tmp_path / "a.csv"))
    assert first.example == GOOD
    assert bad.place == "line 3"
    assert "up to line 4" in bad.fault
    assert "quote" in bad.fault


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", json.dumps([GOOD]).encode(), "not JSON Lines"),
        ("a.jsonl", as_squad([GOOD]), "not JSON Lines"),
        ("a.jsonl", json.dumps(GOOD).encode("utf-16"), "UTF-16"),
        ("a.csv", b"\x1f\x8b\x08", "gzip"),
        ("a.csv", b"PK\x03\x04", "Excel"),
        ("a.csv", b"question,text\nWho?,He.\n", "no column context"),
        ("a.csv", b"", "no column question"),
        ("a.csv", b"id,question,context\rg,Who?,He.\r", "can't be read"),
        ("a.json", b"[", "can't be read"),
        ("a.json", b'{"data": [{"paragraphs": [{"context": "He."}]}]}', "not nested"),
    ],
)
def test_a_file_that_can_not_be_read_at_all_is_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(QAError, match=words):
        groups_of(tmp_path / name)


def test_what_is_no_file_of_questions_is_refused(tmp_path):
    (tmp_path / "a.txt").touch()
    for path, words in ((tmp_path / "a.txt", "not known"), (tmp_path / "b.jsonl", "missing"), (tmp_path, "folder")):
        with pytest.raises(QAError, match=words):
            check_input(path)
