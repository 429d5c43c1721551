"""What is wrong with a record is named, all of it at once; what is left is right to the letter."""

import csv
import json
import logging

import pytest
from question_files import (
    QUESTIONS,
    nested,
    record,
    refusal,
    write_csv,
    write_json,
    write_json_lines,
    write_list,
    write_nested,
)

from extractive_qa.data.examples import read_examples


def write_records(folder, *records):
    return write_list(list(records), folder)


# forms that users have


@pytest.mark.parametrize("form", ["lists", "records", "columns", "text", "without start", "column without start"])
def test_answers_may_come_in_any_of_the_common_forms(form, tmp_path):
    flat = record(answers=...)
    flat |= {
        "lists": {"answers": {"text": ["Marie Curie"], "answer_start": [0]}},
        "records": {"answers": [{"text": "Marie Curie", "answer_start": 0}]},
        "columns": {"answer": "Marie Curie", "answer_start": 0},
        "text": {"answers": '{"text": ["Marie Curie"], "answer_start": [0]}'},
        "without start": {"answers": [{"text": "Marie Curie"}]},
        "column without start": {"answer": "Marie Curie"},
    }[form]
    (read,) = read_examples(write_records(tmp_path, flat))
    assert read["answers"] == {"text": ["Marie Curie"], "answer_start": [0]}


def test_a_csv_with_answer_columns_reads_as_their_first_answers(sample_examples, tmp_path):
    path = tmp_path / "columns.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["answer_start", "answer", "title", "context", "question", "id"])
        for item in sample_examples:
            answers = item["answers"]
            first = [answers["answer_start"][0], answers["text"][0]]
            writer.writerow([*first, "", item["context"], item["question"], item["id"]])
    for found, item in zip(read_examples(path), sample_examples, strict=True):
        first = {name: values[:1] for name, values in item["answers"].items()}
        assert found == item | {"answers": first}


@pytest.mark.parametrize("write", [write_list, write_json_lines, write_nested])
def test_records_without_ids_get_their_numbers(write, tmp_path):
    """The same rule whether a file is scored or answered: see tests/batch."""
    items = [QUESTIONS[1] | {"id": name} for name in ("a", None, None, "z")]
    path = write(items, tmp_path)
    if write is write_list:
        del items[2]["id"]
        write(items, tmp_path)
    assert [item["id"] for item in read_examples(path)] == ["a", "2", "3", "z"]


def test_whole_numbers_as_ids_are_read_as_text(tmp_path):
    assert read_examples(write_records(tmp_path, record(id=7)))[0]["id"] == "7"


def test_fields_that_are_not_needed_are_ignored(tmp_path):
    path = write_records(tmp_path, record(title=None, plausible_answers=[3], is_impossible=False))
    assert read_examples(path) == QUESTIONS[:1]


def test_titles_of_articles_come_where_they_are_asked_for_and_there(tmp_path):
    found = read_examples(write_nested(QUESTIONS, tmp_path), titles=True)
    assert found == [question | {"title": "all"} for question in QUESTIONS]
    flat = write_records(tmp_path, QUESTIONS[0] | {"title": 5}, QUESTIONS[1] | {"title": "Curie"})
    assert read_examples(flat, titles=True) == [QUESTIONS[0], QUESTIONS[1] | {"title": "Curie"}]


def test_equal_contexts_are_one_string_in_memory(tmp_path):
    read = read_examples(write_json_lines(QUESTIONS, tmp_path))
    assert read[0]["context"] is read[1]["context"]


@pytest.mark.parametrize("value", ["False", "false", "0"])
def test_a_csv_may_say_that_no_question_is_impossible(value, tmp_path):
    """The columns of SQuAD 2 with its answerable questions alone: every cell is text, "False" is a true text."""
    path = tmp_path / "squad2.csv"
    header, cells = "id,question,context,answer,is_impossible", f"a,Who?,It was Bob.,Bob,{value}"
    path.write_text(f"{header}\n{cells}\n", encoding="utf-8")
    assert read_examples(path)[0]["answers"] == {"text": ["Bob"], "answer_start": [7]}


# faults of a record


def start_fault(text, start):
    return {"answers": {"text": [text], "answer_start": [start]}}


FAULTS = [
    ({"question": ...}, "`question` is missing"),
    ({"question": None}, "`question` is missing"),
    ({"question": 3}, "`question` is not text"),
    ({"question": ["Who?"]}, "`question` is not text"),
    ({"question": ""}, "`question` is empty"),
    ({"question": " \n\t"}, "`question` is empty"),
    ({"question": "\u200b\u2060"}, "no word"),
    ({"question": "\u0301\u0308"}, "no word"),
    ({"context": ...}, "`context` is missing"),
    ({"context": None}, "`context` is missing"),
    ({"context": ""}, "`context` is empty"),
    ({"context": "\u3000"}, "`context` is empty"),
    ({"context": "\x00\x07"}, "`context` is empty or has no word"),
    ({"context": {"text": "x"}}, "`context` is not text"),
    ({"answers": ...}, "`answers` is missing"),
    ({"answers": None}, "`answers` is missing"),
    ({"answers": 3}, "`answers`"),
    ({"answers": "Marie"}, "`answers` is not JSON"),
    ({"answers": "3"}, "`answers`"),
    ({"answers": ["Marie Curie"]}, "`answers`"),
    ({"answers": [["Marie Curie", 0]]}, "`answers`"),
    ({"answers": [None]}, "`answers`"),
    ({"answers": {"text": "Marie Curie", "answer_start": 0}}, "two lists of one length"),
    ({"answers": {"text": ["Marie Curie"]}}, "two lists of one length"),
    ({"answers": {"text": ["Marie Curie", "Marie"], "answer_start": [0]}}, "two lists of one length"),
    ({"answers": {"answer_start": [0]}}, "`answers`"),
    ({"answers": [{"answer_start": 0}]}, "`text`"),
    (start_fault(None, 0), "`text`"),
    (start_fault("", 0), "`text` is missing or empty"),
    (start_fault(" \u3000", 5), "`text` is missing or empty"),
    (start_fault("\ufffd", 5), "`text`"),
    (start_fault(1903, 29), "`text`"),
    (start_fault(["1903"], 29), "`text`"),
    ({"answers": {"text": [], "answer_start": []}}, "no answer, as in SQuAD 2"),
    ({"answers": []}, "no answer, as in SQuAD 2"),
    ({"is_impossible": True}, "no answer, as in SQuAD 2"),
    (start_fault("1903", 28), "is not at answer_start 28 (there: ' 190'); the right offset is 29"),
    (start_fault("1903", 300), "there: ''"),
    (start_fault("1903", -23), "negative); the right offset is 29"),  # counted from the end, it would be right
    (start_fault("1903", 10**6), "right offset is 29"),
    (start_fault("1903", 10**400), "right offset is 29"),
    (start_fault("in", 50), "right offset is 44"),  # of several places the nearest
    (start_fault("marie curie", 0), "does not occur in the context, but 'Marie Curie' does"),
    (start_fault("１９０３", 29), "another Unicode form: bring both to NFKC"),
    (start_fault("1903", 29.0), "not a whole number: 29.0"),
    (start_fault("1903", float("nan")), "not a whole number: nan"),
    (start_fault("1903", float("inf")), "not a whole number: inf"),
    (start_fault("arie", True), "not a whole number: True"),
    (start_fault("1903", "twenty-nine" * 10**5), "not a whole number: 'twenty"),
    (start_fault("1903", [29]), "not a whole number"),
    (start_fault("in", None), "[26, 41, 44]"),  # not left out by right: it occurs more than once
    (start_fault("Bob", None), "does not occur in the context"),
    ({"id": float("nan")}, "`id` is not text"),
    ({"id": 1.5}, "`id` is not text"),
    ({"id": True}, "`id` is not text"),
    ({"id": ["a"]}, "`id` is not text"),
    ({"id": {}}, "`id` is not text"),
    ({"id": ""}, "`id` is empty"),
    ({"id": " "}, "`id` is empty"),
    ({"id": "q2"}, "duplicate id"),
]


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("write", [write_list, write_json_lines])
def test_a_bad_record_is_refused_with_its_place_its_id_and_the_reason(write, tmp_path, record_property):
    bad = [record(**{"id": f"bad-{number}"} | changes) for number, (changes, _) in enumerate(FAULTS)]
    message = refusal(write([QUESTIONS[1], *bad], tmp_path), problems_shown=None)
    first, *problems, last = message.split("\n")
    assert f"{len(FAULTS)} problem(s)" in first
    assert "skip_bad=True" in last
    assert len(problems) == len(FAULTS), "one problem of each, and the good record is not blamed"
    place = "line" if write is write_json_lines else "record"
    for number, ((changes, reason), problem) in enumerate(zip(FAULTS, problems, strict=True)):
        identifier = changes.get("id", f"bad-{number}")
        assert problem.strip().startswith(f"{place} {number + 2}"), problem
        assert not isinstance(identifier, str) or f" (id {identifier}): " in problem
        assert reason in problem
        assert len(problem) < 300
    record_property("tried", len(FAULTS))


def test_offsets_in_other_units_are_told_apart(tmp_path):
    """Bytes of UTF-8 and JavaScript's units of UTF-16, of a text with an emoji and an Æ before the answer."""
    text = "🙂 In 1871 Ada sailed to Ærø."  # "Ærø": character 24, UTF-16 unit 25, byte 27
    for start, unit in ((27, "UTF-8 bytes"), (25, "UTF-16 units")):
        message = refusal(write_records(tmp_path, record(context=text, **start_fault("Ærø", start))))
        assert f"the right offset is 24: it seems to count {unit}" in message


NFC, NFD = "Ångström née", "A\u030angstro\u0308m ne\u0301e"


@pytest.mark.parametrize(
    ("context", "answer", "reason"),
    [
        (f"By {NFD}.", NFC, "another Unicode form: bring both to NFC,"),
        (f"By {NFC}.", NFD, "another Unicode form: bring both to NFC,"),
        ("I can't: so.", "can’t", 'does not occur in the context, but "can\'t" does'),
        ("At Æ\u200brø.", "Ærø", "does not occur in the context"),
        ("Bob, Bob", "Bob", "no `answer_start`, and occurs at [0, 5]"),
    ],
)
def test_why_an_answer_is_not_in_its_context_is_said(context, answer, reason, tmp_path):
    bad = record(context=context, answers=[{"text": answer}])
    assert reason in refusal(write_records(tmp_path, bad))


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("thing", [None, 3, "text\x1b[2J", ["a", "b"], [[]], True])
@pytest.mark.parametrize("write", [write_list, write_json_lines])
def test_what_is_no_record_is_one_problem(write, thing, tmp_path):
    message = refusal(write([QUESTIONS[0], thing], tmp_path))
    assert "1 problem(s)" in message
    assert " 2: expected a JSON object, got " in message
    assert "\x1b" not in message


@pytest.mark.parametrize("ids", [["7", 7], [7, "7"], ["a\ud800", "a\udfff"], [None, "1"]])
@pytest.mark.parametrize("write", [write_list, write_json_lines])
def test_a_duplicate_id_is_refused_and_can_be_skipped(write, ids, tmp_path):
    path = tmp_path / ("a.json" if write is write_list else "a.jsonl")
    records = [json.dumps(record(id=name)) for name in (*ids, "8")]
    path.write_text("\n".join(records) if write is write_json_lines else f"[{','.join(records)}]", encoding="utf-8")
    message = refusal(path)
    assert "1 problem(s)" in message
    assert " 2 (id " in message
    assert "duplicate id" in message
    assert len(read_examples(path, skip_bad=True)) == 2


def test_questions_of_squad_2_are_refused_by_name_in_the_nested_form(tmp_path):
    content = nested(QUESTIONS)
    content["data"][0]["paragraphs"][0]["qas"][1] |= {"answers": [], "is_impossible": True, "plausible_answers": []}
    message = refusal(write_json(content, tmp_path / "squad2.json"))
    assert "id q2" in message
    assert "SQuAD 2" in message
    assert "impossible=True" in message


@pytest.mark.parametrize(
    ("paragraph", "reason"),
    [({}, "`context` is missing"), ({"context": None}, "`context` is missing"), ({"context": 5}, "is not text")],
)
def test_a_nested_question_whose_paragraph_lacks_its_context_is_named(paragraph, reason, tmp_path):
    content = nested(QUESTIONS)
    bad = {"id": "bad-one", "question": "Who?", "answers": [{"text": "Bob", "answer_start": 0}]}
    content["data"][0]["paragraphs"].insert(0, {"qas": [bad], **paragraph})
    path = write_json(content, tmp_path / "nested.json")
    message = refusal(path)
    assert "bad-one" in message
    assert reason in message
    assert read_examples(path, skip_bad=True) == QUESTIONS


# all problems at once, and what is read without the bad records


@pytest.mark.parametrize("count", [1, 20, 21, 25])
def test_all_problems_of_a_file_are_told_at_once_but_no_more_than_twenty(count, tmp_path):
    bad = [record(id=f"bad-{i}", **start_fault("1903", i)) for i in range(count)]
    path = write_records(tmp_path, QUESTIONS[1], *bad)
    message = refusal(path)
    assert [f"bad-{i})" in message for i in range(count)] == [i < 20 for i in range(count)]
    assert f"{count} problem(s)" in message
    assert (f'{count - 20} more, all of them: read_examples("{path}", problems_shown=None)' in message) == (count > 20)


def test_all_faults_of_one_record_are_told(tmp_path):
    answers = {"text": ["1903", "Bob"], "answer_start": [3, "x"]}
    bad = [record(id="q2", answers=answers), record(question="", context="", id="b")]
    message = refusal(write_records(tmp_path, QUESTIONS[1], *bad))
    for reason in ("duplicate id", "right offset is 29", "not a whole number", "`question` is", "`context` is"):
        assert reason in message
    assert "5 problem(s)" in message


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("write", [write_json_lines, write_csv])
def test_a_broken_line_is_a_problem_among_those_of_all_records(write, tmp_path):
    """As in predict.py batch: it doesn't hide what is wrong with the others, and can be skipped with them."""
    path = write([QUESTIONS[0], QUESTIONS[1], record(id="bad", **start_fault("1903", 3)), QUESTIONS[1]], tmp_path)
    *header, first, second, bad, again = path.read_bytes().splitlines(keepends=True)
    broken, reason = (b'{"id": "half\n', "is not JSON") if not header else (b'half,"Who?"x,He.,\n', "can't be read")
    path.write_bytes(b"".join([*header, first, broken, second, b'"\xff"\n', bad, again]))
    problems = refusal(path).split("\n")[1:-1]
    expected = [reason, "is not UTF-8 (byte", "(id bad): answer '1903'", "(id q2): duplicate id"]
    for line, words, problem in zip((2, 4, 5, 6), expected, problems, strict=True):
        assert f"line {line + len(header)}" in problem
        assert words in problem
    assert read_examples(path, skip_bad=True) == QUESTIONS[:2]


def test_skip_bad_goes_on_without_bad_records_and_says_how_many(tmp_path, caplog):
    bad = [record(id=f"bad-{i}", **start_fault("1903", i)) for i in range(25)]
    twice = record(id="bad-26", question="", context="")  # two problems, one record
    path = write_records(tmp_path, *bad[:10], QUESTIONS[0], *bad[10:], twice, QUESTIONS[1], QUESTIONS[1])
    with caplog.at_level(logging.WARNING, "extractive_qa"):
        assert read_examples(path, skip_bad=True) == QUESTIONS[:2]
    (message,) = caplog.messages
    assert "skipped 27 bad record(s)" in message
    assert "id bad-0" in message
    caplog.clear()
    assert read_examples(write_records(tmp_path, *QUESTIONS), skip_bad=True) == QUESTIONS
    assert not caplog.messages


def test_a_file_of_bad_records_alone_is_refused_even_with_skip_bad(tmp_path):
    assert "no question" in refusal(write_records(tmp_path, record(question="")), skip_bad=True)
