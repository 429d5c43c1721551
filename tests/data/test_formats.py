"""Every format gives the same records, in order, with their places; what can't be read is named and stops no other."""

import csv
import io
import json
import re
import shutil
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from question_files import (
    FORMATS,
    QUESTIONS,
    TEXT_FORMATS,
    assert_valid,
    nested,
    refusal,
    write_csv,
    write_data,
    write_dataset,
    write_dataset_dict,
    write_json,
    write_json_lines,
    write_list,
    write_nested,
    write_parquet,
)

from extractive_qa.data import lines
from extractive_qa.data.examples import read_examples
from extractive_qa.data.formats import Record, read_pipe, read_records, size_of
from extractive_qa.data.lines import split_lines
from extractive_qa.errors import QAError
from extractive_qa.text import short_repr


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_gives_the_questions_that_were_written_and_how_far_it_is_read(write, tmp_path):
    path = write(QUESTIONS, tmp_path)
    assert read_examples(path, split="validation") == QUESTIONS
    records = list(read_records(path, "validation"))
    assert [record.number for record in records] == [1, 2, 3]
    assert [record.fault for record in records] == [""] * 3
    ends = [record.end for record in records]
    assert 0 < ends[0] < ends[1] < ends[2] == size_of(path)
    by_line = {"flat.jsonl": ["line 1", "line 2", "line 3"], "flat.csv": ["line 2", "line 3", "line 4"]}
    assert [record.place for record in records] == by_line.get(path.name, ["record 1", "record 2", "record 3"])


@pytest.mark.parametrize("write", [write_nested, write_json_lines, write_csv, write_parquet, write_dataset])
def test_every_format_gives_the_same_real_questions(write, dev_file, dev_examples, tmp_path):
    official = json.loads(dev_file.read_text(encoding="utf-8"))
    count = sum(len(p["qas"]) for article in official["data"] for p in article["paragraphs"])
    assert len(dev_examples) == count
    assert read_examples(write(dev_examples, tmp_path), split="validation") == dev_examples


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=4))
@example([("\ufeffa", "\x00", "\r")])
@example([("\n1,\"'", "\t", "\x85\x1c\x0b")])
def test_every_text_survives_every_format(tmp_path_factory, parts):
    """Line ends, quotes, separators, controls: offsets count characters, so not one may be lost or turned."""
    examples = [
        {
            "id": f"{i}",
            "question": f"{before}?w",
            "context": f"{before}x{answer}x{after}",
            "answers": {"text": [f"x{answer}x"], "answer_start": [len(before)]},
        }
        for i, (before, answer, after) in enumerate(parts)
    ]
    folder = tmp_path_factory.mktemp("formats")
    for write in [write_nested, write_json_lines, write_csv, write_parquet]:
        assert read_examples(write(examples, folder)) == examples, write.__name__
    shutil.rmtree(folder)


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("write", TEXT_FORMATS)
def test_a_byte_order_mark_changes_nothing_and_other_encodings_are_refused(write, tmp_path, record_property):
    path = write(QUESTIONS, tmp_path)
    content = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + content)
    assert read_examples(path) == QUESTIONS
    for encoding in ("utf-16", "gb18030"):
        path.write_bytes(content.decode("utf-8").encode(encoding))
        assert "not UTF-8" in refusal(path)
    record_property("tried", 2)


@pytest.mark.parametrize("write", [write_nested, write_json_lines, write_csv])
def test_a_refusal_names_the_byte_at_which_a_file_stops_being_utf8(write, tmp_path):
    many = [item | {"id": f"{i}-{item['id']}"} for i in range(200) for item in QUESTIONS]
    path = write(many, tmp_path)
    for mark in (b"", b"\xef\xbb\xbf"):
        content = mark + path.read_bytes()
        place = content.rindex(b"Marie")
        path.write_bytes(content[:place] + b"\xe9" + content[place + 1 :])
        assert re.search(r"byte (\d+)", refusal(path))[1] == str(place)
        path.write_bytes(content[len(mark) :])


@pytest.mark.parametrize("write", [write_nested, write_list, write_json_lines])
def test_lone_surrogates_are_read_as_the_replacement_character_and_offsets_stay(write, tmp_path):
    item = {
        "id": "a\ud800",
        "question": "Who\udfff?",
        "context": "\ud83d\ud83d it was \ud83dBob\udc00.",
        "answers": {"text": ["\ud83dBob"], "answer_start": [10]},
    }
    content = {write_nested: nested([item]), write_list: [item], write_json_lines: item}[write]
    path = tmp_path / ("a.jsonl" if write is write_json_lines else "a.json")
    path.write_text(json.dumps(content), encoding="utf-8")  # escaped: "\ud83d", as JavaScript writes it
    (read,) = read_examples(path)
    assert json.dumps(read, ensure_ascii=False).encode("utf-8"), "every text can be written again"
    assert read["question"] == "Who\ufffd?"
    assert read["context"] == "\ufffd\ufffd it was \ufffdBob\ufffd."
    assert read["answers"] == {"text": ["\ufffdBob"], "answer_start": [10]}


def test_escaped_surrogate_pairs_are_one_character(tmp_path):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([QUESTIONS[2]], ensure_ascii=True), encoding="utf-8")
    assert "\\ud83d\\ude42" in path.read_text(encoding="utf-8")
    assert read_examples(path) == [QUESTIONS[2]]


def test_json_lines_may_end_as_on_windows_and_leave_lines_empty(tmp_path):
    path = write_json_lines(QUESTIONS, tmp_path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n\r\n")[:-4])
    assert read_examples(path) == QUESTIONS
    assert [record.place for record in read_records(path)] == ["line 1", "line 3", "line 5"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_may_be_separated_as_excel_does_and_rows_may_be_empty(delimiter, tmp_path):
    path = write_csv(QUESTIONS, tmp_path, delimiter)
    path.write_bytes(path.read_bytes() + b"\r\n\r\n")
    assert read_examples(path) == QUESTIONS


def test_a_saved_dict_gives_the_part_that_is_asked_for(tmp_path):
    path = write_dataset_dict(QUESTIONS, tmp_path)
    assert read_examples(path, split="train") == QUESTIONS[:1]
    assert read_examples(path / "validation") == QUESTIONS
    assert read_examples(path) == read_examples(path, split="validation")
    assert read_examples(path / "train") == QUESTIONS[:1]
    message = refusal(path, split="test")
    for words in ("no part called test", "train, validation", str(path / "train")):
        assert words in message


# lines and rows


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_lines_are_the_same_out_of_blocks_of_any_size(block, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK", block)
    content = b"one\n\r\n\xe5\x8c\x97\xe4\xba\xac\nlast"
    expected = [(b"one", 4), (b"\r", 6), (b"\xe5\x8c\x97\xe4\xba\xac", 13), (b"last", 17)]
    assert list(split_lines(io.BytesIO(content), wait_for_more=True)) == expected


class Slow(io.RawIOBase):
    """A pipe that gives a piece at a time."""

    def __init__(self, pieces):
        self.pieces = list(pieces)

    def read1(self, size):
        return self.pieces.pop(0) if self.pieces else b""


def test_a_pipe_gives_what_has_arrived_before_it_waits(tmp_path):
    first, second, third = write_json_lines(QUESTIONS, tmp_path).read_bytes().splitlines(keepends=True)
    pipe = Slow([first, second[:9], second[9:12], second[12:] + third[:-1]])
    arrived = [(record and record.content["id"], len(pipe.pieces)) for record in read_pipe(pipe)]
    assert arrived == [("q1", 3), (None, 3), ("q2", 0), (None, 0), ("q3", 0)]


@pytest.mark.fault("damaged input")
def test_a_line_without_end_takes_no_memory_and_hides_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST_LINE", 200)
    monkeypatch.setattr(lines, "BLOCK", 64)
    good = b'{"id": "a", "question": "Who?", "context": "He."}\n'
    content = good + b'{"a": "' + b"x" * 5000 + b'"}\n' + good
    assert max(len(line) for line, _ in split_lines(io.BytesIO(content), wait_for_more=True)) <= 200 + 64
    (tmp_path / "a.jsonl").write_bytes(content)
    first, long, last = read_records(tmp_path / "a.jsonl")
    assert (first.fault, last.fault, first.content) == ("", "", last.content)
    assert "longer than 200 bytes" in long.fault
    assert (long.end, last.end) == (len(content) - len(good), len(content))


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_lines_and_rows_are_read_in_flat_memory(suffix, tmp_path):
    text = "x" * 100_000
    row = json.dumps({"question": "Who?", "context": text}) if suffix == "jsonl" else f"Who?,{text}"
    with (tmp_path / f"a.{suffix}").open("w", encoding="utf-8") as file:
        file.write("question,context\n" if suffix == "csv" else "")
        file.writelines(row + "\n" for _ in range(200))  # 20 MB
    tracemalloc.start()
    count = sum(
        record.content["context"] == text for record in read_records(file.name, columns=("question", "context"))
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 200
    assert peak < 8e6


def test_the_limit_of_a_cell_is_ours_alone(tmp_path):
    """csv has one limit for the whole process: whoever imports us finds it as it was."""
    before = csv.field_size_limit()
    path = write_csv([QUESTIONS[0] | {"context": QUESTIONS[0]["context"] + " " * 200_000}], tmp_path)
    for record in read_records(path):
        assert len(record.content["context"]) > before
        assert csv.field_size_limit() == before


# what can't be read


BAD_LINES = [
    (b"not json", "is not JSON"),
    (b'{"question": "Who?", "context": "He."', "is not JSON"),
    (b'{"question": "Who?", "context": "He.", "context": "She."}', "duplicate field 'context'"),
    (b'{"a":' * 100_000, "nested too deeply"),
    (b'{"id": ' + b"9" * 5000 + b"}", "digits"),
    ('{"question": "谁？", "context": "他。"}'.encode("gbk"), "not UTF-8"),
    (b"\xff\xfe\x00\x01", "not UTF-8"),
]
BAD_ROWS = [
    (b"x,Who?,He, she.", "more cells"),
    (b'x,"Who?"!,He.', "can't be read"),
    ("x,谁？,他。".encode("gbk"), "not UTF-8"),
    ('x,谁？,"\n他。"'.encode("gbk"), "not UTF-8"),
]


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize(("suffix", "damage"), [("jsonl", BAD_LINES), ("csv", BAD_ROWS)])
def test_a_bad_line_or_row_is_named_and_stops_no_other(tmp_path, suffix, damage, record_property):
    header, good = b"", b'{"id": "g", "question": "Who?", "context": "He."}\n\n'
    if suffix == "csv":
        header, good = b"id,question,context\n", b'g,Who?,"He\nis."\n'
    for bad, reason in damage:
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(header + good + bad + b"\n" + good)
        first, found, last = read_records(path, columns=("question", "context"))
        assert (first.fault, last.fault) == ("", "")
        assert first.content == last.content
        assert reason in found.fault
        assert found.place == ("line 3" if suffix == "jsonl" else "line 4")
        assert found.beginning().encode()[:1] == (bad[:1] if bad[0] < 128 else "\ufffd".encode()[:1])
        assert len(found.beginning()) <= lines.BEGINNING
    record_property("tried", len(damage))


@pytest.mark.fault("damaged input")
def test_a_quote_that_is_never_closed_is_named(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'id,question,context\ng,Who?,He.\nx,Who?,"He\ny,Who?,He.\n')
    first, bad = read_records(tmp_path / "a.csv", columns=("question", "context"))
    assert first.fault == ""
    assert bad.place == "line 3"
    assert "up to line 4" in bad.fault
    assert "doubled" in bad.fault


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("write", [write_dataset, write_dataset_dict])
def test_a_damaged_saved_dataset_is_a_user_error(write, tmp_path):
    path = write(QUESTIONS, tmp_path)
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        content = file.read_bytes()
        for damage in (None, b"", b"{}", b"[]", content[: len(content) // 2]):
            if damage is None:
                file.unlink()
            else:
                file.write_bytes(damage)
            try:
                read = read_examples(path, split="validation")
            except QAError as error:
                assert str(path) in str(error)
            else:  # a description may be dispensable
                assert read == QUESTIONS, f"{file} with {damage}"
        file.write_bytes(content)
    assert read_examples(path, split="validation") == QUESTIONS


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("write", [write_nested, write_data, write_json_lines, write_csv, write_parquet])
@given(data=st.data())
def test_a_file_cut_anywhere_or_with_bytes_changed_is_read_or_refused(write, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    path = write(QUESTIONS, folder)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    for place in data.draw(st.lists(st.integers(0, max(0, len(content) - 1)), max_size=4)) if content else []:
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    read_or_refused(path, skip_bad=data.draw(st.booleans()))
    shutil.rmtree(folder)


NAMES = st.sampled_from(
    ["id", "question", "context", "answers", "answer", "answer_start", "text", "is_impossible", "x"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
PARAGRAPHS = st.lists(st.dictionaries(st.sampled_from(["paragraphs", "qas", "context"]), JSON, max_size=3), max_size=3)


@pytest.mark.fault("damaged input")
@given(st.lists(st.dictionaries(NAMES, JSON, max_size=7) | JSON, max_size=3), PARAGRAPHS, st.booleans())
def test_any_json_is_read_rightly_or_refused(tmp_path_factory, content, paragraphs, skip_bad):
    folder = tmp_path_factory.mktemp("any")
    read_or_refused(write_list(content, folder), skip_bad)
    read_or_refused(write_json({"data": [{"paragraphs": paragraphs}]}, folder / "nesting.json"), skip_bad)
    shutil.rmtree(folder)


def read_or_refused(path, skip_bad: bool) -> None:
    try:
        examples = read_examples(path, skip_bad=skip_bad)
    except QAError as error:
        assert path.name in str(error)
    else:
        for item in examples:
            assert_valid(item)


def test_a_nesting_that_python_can_not_show_is_shown_in_words():
    """json takes as many brackets as there is stack; repr of a dict needs a level more."""
    value = []
    for _ in range(100_000):
        value = [value]
    assert short_repr(value) == "a list that is nested too deeply"
    assert Record(1, "record 1", value, "", "", 1).beginning() == short_repr(value)
