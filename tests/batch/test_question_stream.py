"""extractive_qa/batch/question_stream.py: groups of questions that end at fixed places, the bad ones named."""

import csv
import io
import json
from functools import partial

import pytest
from question_files import QUESTIONS, record, write_csv, write_json_lines, write_list, write_parquet

from extractive_qa.batch import question_stream
from extractive_qa.batch.question_stream import check_questions, grouped
from extractive_qa.data.examples import Ids, read_examples
from extractive_qa.data.formats import Record, read_records
from extractive_qa.data.lines import BEGINNING


def as_lines(records) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def as_csv(records, delimiter=",") -> bytes:
    text = io.StringIO()
    rows = csv.DictWriter(text, ["id", "question", "context"], delimiter=delimiter)
    rows.writeheader()
    rows.writerows(records)
    return text.getvalue().encode()


def questions_of(path):
    read = partial(read_records, path, columns=("question", "context"))
    return list(check_questions(read(), Ids(read)))


def groups_of(path):
    return list(grouped(questions_of(path)))


RECORDS = [{"id": f"q{n}", "question": f"Wer, {n}?", "context": f'Müller,\r\n"{n}"\n\nEnde.'} for n in range(11)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json"])
def test_groups_of_every_format_hold_its_questions_in_order_and_end_at_fixed_places(tmp_path, monkeypatch, name):
    monkeypatch.setattr(question_stream, "GROUP_QUESTIONS", 4)
    path = tmp_path / name
    path.write_bytes(
        {"a.jsonl": as_lines, "a.csv": as_csv, "a.json": lambda some: json.dumps(some).encode()}[name](RECORDS)
    )
    groups = groups_of(path)
    assert [question.content for group in groups for question in group] == RECORDS
    assert [len(group) for group in groups] == [4, 4, 3]
    assert groups[-1][-1].end == path.stat().st_size


def test_a_group_holds_no_more_characters_than_fit(tmp_path, monkeypatch):
    """Of books a group has fewer questions."""
    monkeypatch.setattr(question_stream, "GROUP_CHARACTERS", 1000)
    records = [{"id": str(n), "question": "Who?", "context": "x" * n} for n in (10, 2000, 11, 500, 480, 12)]
    (tmp_path / "a.jsonl").write_bytes(as_lines(records))
    assert [len(group) for group in groups_of(tmp_path / "a.jsonl")] == [2, 3, 1]


def test_a_group_ends_where_more_would_have_to_be_waited_for():
    questions = [*"ab", None, *"c", None, None, *"d"]
    stand_ins = [text and Record(1, "line 1", {"id": text}, "", "", 1) for text in questions]
    assert ["".join(q.content["id"] for q in group) for group in grouped(stand_ins)] == ["ab", "c", "d"]


def test_missing_ids_are_the_records_numbers(tmp_path):
    records = [{"id": "a"}, {"id": None}, {}, {"id": 7}]
    given = [record | {"question": "Who?", "context": "He."} for record in records]
    (tmp_path / "a.jsonl").write_bytes(b"\n" + as_lines(given))
    (tmp_path / "a.csv").write_bytes(as_csv(given))
    for name in ("a.jsonl", "a.csv"):
        assert [question.content["id"] for question in questions_of(tmp_path / name)] == ["a", "2", "3", "7"], name


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json", "is not JSON"),
        (b"null", "expected a JSON object: got null"),
        (b'{"context": "He."}', "`question` is missing"),
        (b'{"question": [3], "context": ""}', "`question` is not text: 3; `context` is empty"),
        (b'{"question": "Who?", "context": "' + b"x" * 10**6 + b'", "id": "g"}', "duplicate id"),
        ('{"question": "谁？", "context": "他。"}'.encode("gbk"), "not UTF-8"),
    ],
)
def test_a_bad_record_is_named_and_stops_no_other(tmp_path, line, reason):
    good = {"id": "g", "question": "Who?", "context": "He."}
    (tmp_path / "a.jsonl").write_bytes(as_lines([good]) + b"\n" + line + b"\n" + as_lines([good | {"id": "h"}]))
    first, bad, last = questions_of(tmp_path / "a.jsonl")
    assert (first.fault, last.fault, first.content, last.content) == ("", "", good, good | {"id": "h"})
    assert reason in bad.fault
    assert (bad.place, bad.number, bad.content) == ("line 3", 2, {})
    assert bad.text == line.decode("utf-8", "replace")[:BEGINNING]


@pytest.mark.parametrize("write", [write_list, write_json_lines, write_csv, write_parquet])
def test_what_is_scored_and_what_is_answered_are_the_same_questions(write, tmp_path):
    """evaluate.py and predict.py batch once disagreed: a duplicate id was refused by one and taken by the other."""
    records = [*QUESTIONS, QUESTIONS[1], record(id="bad", question="\u200b"), record(id="4")]
    path = write(records, tmp_path)
    scored = read_examples(path, skip_bad=True)
    answered = [question for question in questions_of(path) if not question.fault]
    names = ("id", "question", "context")
    assert [question.content for question in answered] == [{name: item[name] for name in names} for item in scored]
    assert [item["id"] for item in scored] == ["q1", "q2", "q3", "4"]
    duplicate, empty = [question.fault for question in questions_of(path) if question.fault]
    assert "duplicate id" in duplicate
    assert "`question` is empty" in empty
