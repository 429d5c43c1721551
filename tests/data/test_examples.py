"""What is wrong with a record is named, all of it at once; what is left is right to the letter."""

import csv
import json
import logging
import re

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


FORMS = {
    "lists": {"answers": {"text": ["Marie Curie"], "answer_start": [0]}},
    "records": {"answers": [{"text": "Marie Curie", "answer_start": 0}]},
    "scalars": {"answers": {"text": "Marie Curie", "answer_start": 0}},
    "columns": {"answer": "Marie Curie", "answer_start": 0},
    "column of text": {"answer_text": "Marie Curie", "answer_start": "0"},
    "names of other case": {" Answer": "Marie Curie", "Answer Start": 0},
    "fraction": {"answer": "Marie Curie", "answer_start": 0.0},
    "fraction as text": {"answer": "Marie Curie", "answer_start": " 0.0"},
    "NaN": {"answer": "Marie Curie", "answer_start": float("nan")},
    "NaN as text": {"answer": "Marie Curie", "answer_start": "nan"},
    "NaN in one column": {"answers": float("nan"), "answer": "Marie Curie"},
    "JSON": {"answers": '{"text": ["Marie Curie"], "answer_start": [0]}'},
    "Python": {"answers": "{'text': ['Marie Curie'], 'answer_start': [0]}"},
    "arrays": {"answers": "{'text': array(['Marie Curie'], dtype=object), 'answer_start': array([0], dtype=int32)}"},
    "NumPy": {"answers": "[{'text': np.str_('Marie Curie'), 'answer_start': np.int64(0)}]"},
    "two lists as text": {"answers": "['Marie Curie']", "answer_start": "[0]"},
    "nan in Python": {"answers": "{'text': ['Marie Curie'], 'answer_start': [nan]}"},
    "text": {"answers": "Marie Curie"},
    "texts": {"answers": ["Marie Curie"]},
    "texts, no start": {"answers": {"text": ["Marie Curie"]}},
    "records, no start": {"answers": [{"text": "Marie Curie"}]},
    "column, no start": {"answer": "Marie Curie"},
    "object in a column": {"answer": {"text": "Marie Curie", "start": 0}},
    "MRQA": {"answers": ["x"], "detected_answers": [{"text": "Marie Curie", "char_spans": [[0, 10]]}]},
    "an empty one beside": {"answers": {"text": ["", "Marie Curie"], "answer_start": [5, 0]}},
}


@pytest.mark.parametrize("form", FORMS)
def test_answers_may_come_in_any_of_the_common_forms(form, tmp_path):
    (read,) = read_examples(write_records(tmp_path, record(answers=...) | FORMS[form]))
    assert read["answers"] == {"text": ["Marie Curie"], "answer_start": [0]}


def test_years_are_answers_as_numbers_too(tmp_path):
    (read,) = read_examples(write_records(tmp_path, record(answers=[{"text": 1903, "answer_start": 29}])))
    assert read["answers"] == {"text": ["1903"], "answer_start": [29]}


def test_python_in_a_cell_is_never_evaluated(tmp_path):
    for cell in ("[__import__('os').getpid()]", "['a' + 'b']", "[x for x in 'ab']", "[f'{1}']", "[" * 10**5):
        assert "neither JSON nor a Python list" in refusal(write_records(tmp_path, record(answers=cell)))


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
@pytest.mark.parametrize(
    ("ids", "given"),
    [
        (["a", None, None, "z"], ["a", "2", "3", "z"]),
        ([None, "1", "1-2", None], ["1-3", "1", "1-2", "4"]),
        (["2", None, 3, None], ["2", "2-2", "3", "4"]),
        ([7, 8.0, float("nan"), ""], ["7", "8", "3", None]),
    ],
)
def test_missing_ids_are_the_numbers_of_the_records_that_no_other_has(write, ids, given, tmp_path):
    """The same rule whether a file is scored or answered: see tests/batch."""
    path = write([QUESTIONS[1] | {"id": name} for name in ids], tmp_path)
    assert [item["id"] for item in read_examples(path, skip_bad=True)] == [name for name in given if name]


def test_ids_that_occur_again_are_numbered_on_demand(tmp_path):
    path = write_records(tmp_path, *(QUESTIONS[1] | {"id": name} for name in ("a", "a", "a-2", "a", None)))
    assert [item["id"] for item in read_examples(path, renumber_ids=True)] == ["a", "a-3", "a-2", "a-4", "5"]
    assert "renumber_ids=True" in refusal(path)


@pytest.mark.parametrize("name", ["question_id", "qid", "ID", " id"])
def test_ids_have_other_names(name, tmp_path):
    (read,) = read_examples(write_records(tmp_path, record(id=...) | {name: "ticket-77"}))
    assert read["id"] == "ticket-77"


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
    ({"question": ...}, "`question` is missing: the keys are id, context, answers"),
    ({"question": None}, "`question` is missing"),
    ({"question": float("nan")}, "`question` is missing"),
    ({"question": 3}, "`question` is not text: 3"),
    ({"question": [["Who?"]]}, "`question` is not text"),
    ({"question": []}, "`question` is not text"),
    ({"question": ""}, "`question` is empty"),
    ({"question": " \n\t"}, "`question` is empty"),
    ({"question": "\u200b\u2060"}, "no word"),
    ({"question": "\u0301\u0308"}, "no word"),
    ({"context": ...}, "`context` is missing"),
    ({"context": ..., "my_text": "x", "passage": "He won."}, "`passage` may be it: call it `context`"),
    ({"context": ..., "paragraphs": [3, 4]}, "`paragraphs` holds no text: put the text itself into `context`"),
    ({"context": None}, "`context` is missing"),
    ({"context": ""}, "`context` is empty"),
    ({"context": "\u3000"}, "`context` is empty"),
    ({"context": "\x00\x07"}, "`context` is empty or has no word"),
    ({"context": {"text": "x"}}, "`context` is not text"),
    ({"answers": ...}, "no answer, as in SQuAD 2"),
    ({"answers": None}, "no answer, as in SQuAD 2"),
    ({"answers": [None]}, "no answer, as in SQuAD 2"),
    ({"answers": {"text": [], "answer_start": []}}, "no answer, as in SQuAD 2"),
    ({"answers": []}, "no answer, as in SQuAD 2"),
    ({"is_impossible": True}, "no answer, as in SQuAD 2"),
    (start_fault(None, 0), "no answer, as in SQuAD 2"),
    (start_fault("", 0), "no answer, as in SQuAD 2"),
    (start_fault(" \u3000", 5), "no answer, as in SQuAD 2"),
    (start_fault("\ufffd", 5), "no answer, as in SQuAD 2"),
    ({"answers": 3}, "'3' occurs inside a word at 32 ('…he prize in 190[3] and again in 1…')"),
    ({"answers": [["Marie Curie", 0]]}, "an answer's `text` is not text: ['Marie Curie', 0]"),
    ({"answers": True}, "an answer's `text` is not text: True"),
    ({"answers": {"text": ["Marie Curie", "Marie"], "answer_start": [0]}}, "of different number: 2 and 1"),
    ({"answers": {"answer_start": [0]}}, "no `text`: the keys are answer_start"),
    ({"answers": [{"span": "Marie Curie"}]}, "no `text`: the keys are span"),
    ({"answers": "[Marie"}, "`answers` is neither JSON nor a Python list"),
    ({"answers": ["a"], "detected_answers": [3]}, "`detected_answers` is not as MRQA has it"),
    (start_fault(["1903"], 29), "`text` is not text"),
    (start_fault("in", 50), "'in' at 50, where '1.' is; it occurs at 26"),
    (start_fault("in", -3), "'in' at -3, where nothing is; it occurs at 26"),
    (start_fault("1903", 29.5), "not a whole number: 29.5"),
    (start_fault("1903", float("inf")), "not a whole number: inf"),
    (start_fault("arie", True), "not a whole number: True"),
    (start_fault("1903", "twenty-nine" * 10**5), "not a whole number: 'twenty"),
    (start_fault("1903", [29]), "not a whole number"),
    (start_fault("in", None), "without `answer_start` is not in one place: 'in' occurs at 26"),
    (start_fault("Bob", None), "'Bob' is not in the context"),
    (start_fault("won the price", 12), "up to 'won the pri[c]e', where the context has '…rie won the pri[z]e in 1903"),
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
        assert len(problem) < 350
    record_property("tried", len(FAULTS))


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("thing", [None, 3, "text\x1b[2J", ["a", "b"], [[]], True])
@pytest.mark.parametrize("write", [write_list, write_json_lines])
def test_what_is_no_record_is_one_problem(write, thing, tmp_path):
    message = refusal(write([QUESTIONS[0], thing], tmp_path))
    assert "1 problem(s)" in message
    assert " 2: expected a JSON object: got " in message
    assert "\x1b" not in message


@pytest.mark.parametrize("ids", [["7", 7], [7, "7"], ["a\ud800", "a\udfff"]])
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


def test_problems_are_counted_by_kind_and_a_few_of_each_are_shown(tmp_path):
    bad = [record(id=f"bad-{i}", answers={"text": ["in"], "answer_start": [i]}) for i in range(5)]
    empty = [record(id=f"none-{i}", answers=[]) for i in range(2)]
    path = write_records(tmp_path, QUESTIONS[1], *bad, *empty, record(id="two", question="", context=""))
    first, *problems, more, last = refusal(path).split("\n")
    assert first == (
        f"{path} has 9 problem(s) in 8 of 9 records: 5 × an answer is not at its `answer_start`, 2 × no answer, as in "
        "SQuAD 2, 1 × `question` is empty or has no word in it, 1 × `context` is empty or has no word in it"
    )
    assert [re.search(r"\(id (.*?)\)", problem)[1] for problem in problems] == [
        "bad-0", "bad-1", "bad-2", "none-0", "none-1", "two", "two",
    ]  # fmt: skip
    assert f'and 2 more, all of them: read_examples("{path}", problems_shown=None)' in more
    assert "the other 1 of 9 records: skip_bad=True" in last
    assert refusal(path, problems_shown=None).count("(id bad-") == 5
    assert "No record is right" in refusal(write_records(tmp_path, *bad))


def test_all_faults_of_one_record_are_told(tmp_path):
    answers = {"text": ["in", "Bob"], "answer_start": [3, "x"]}
    bad = [record(id="q2", answers=answers), record(question="", context="", id="b")]
    message = refusal(write_records(tmp_path, QUESTIONS[1], *bad))
    for reason in ("duplicate id", "it occurs at 26", "not a whole number", "`question` is", "`context` is"):
        assert reason in message
    assert "5 problem(s) in 2 of 3 records" in message


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("write", [write_json_lines, write_csv])
def test_a_broken_line_is_a_problem_among_those_of_all_records(write, tmp_path):
    """As in predict.py batch: it doesn't hide what is wrong with the others, and can be skipped with them."""
    path = write([QUESTIONS[0], QUESTIONS[1], record(id="bad", **start_fault("in", 3)), QUESTIONS[1]], tmp_path)
    *header, first, second, bad, again = path.read_bytes().splitlines(keepends=True)
    broken, reason = (b'{"id": "half\n', "is not JSON") if not header else (b'half,"Who?"x,He.,\n', "can't be read")
    path.write_bytes(b"".join([*header, first, broken, second, b'"\xff"\n', bad, again]))
    problems = refusal(path).split("\n")[1:-1]
    expected = [reason, "is not UTF-8: byte", "(id bad): an answer is not at", "(id q2): duplicate id"]
    for line, words, problem in zip((2, 4, 5, 6), expected, problems, strict=True):
        assert f"line {line + len(header)}" in problem
        assert words in problem
    assert read_examples(path, skip_bad=True) == QUESTIONS[:2]


def test_skip_bad_goes_on_without_bad_records_and_says_how_many(tmp_path, caplog):
    bad = [record(id=f"bad-{i}", **start_fault("in", 100 + i)) for i in range(25)]
    twice = record(id="bad-26", question="", context="")  # two problems, one record
    path = write_records(tmp_path, *bad[:10], QUESTIONS[0], *bad[10:], twice, QUESTIONS[1], QUESTIONS[1])
    with caplog.at_level(logging.WARNING, "extractive_qa"):
        assert read_examples(path, skip_bad=True) == QUESTIONS[:2]
    (message,) = caplog.messages
    assert "skipped 27 bad records of 29 (25 × an answer is not at its `answer_start`, " in message
    caplog.clear()
    assert read_examples(write_records(tmp_path, *QUESTIONS), skip_bad=True) == QUESTIONS
    assert not caplog.messages


def test_a_file_of_bad_records_alone_is_refused_even_with_skip_bad(tmp_path):
    assert "no question" in refusal(write_records(tmp_path, record(question="")), skip_bad=True)


# what is repaired


def test_repairs_are_counted_by_kind_and_strict_refuses_them(tmp_path, caplog):
    path = write_records(
        tmp_path,
        record(id="a", **start_fault("1903", 28)), record(id="b", **start_fault("1903", 1)),
        record(id="c", **start_fault("marie  curie", 0)), record(id="d", answers=["", "1903"]), record(id="e"),
    )  # fmt: skip
    read = read_examples(path)
    found = [(item["answers"]["text"], item["answers"]["answer_start"]) for item in read[:4]]
    assert found == [(["1903"], [29]), (["1903"], [29]), (["Marie Curie"], [0]), (["1903"], [29])]
    (message,) = caplog.messages
    assert "repaired 4 of 5 records (" in message
    for kind in ("wrong by up to 3", "occurs once", "other case", "an empty answer"):
        assert f"1 × {kind}" in message.replace("offset wrong, but the text ", "").replace("offset ", "")
    assert "strict=True" in message
    message = refusal(path, strict=True)
    assert "4 problem(s) in 4 of 5 records" in message
    assert "'1903' at 28, where ' 190' is; it is at 29" in message
    assert "'marie  curie' at 0, where 'Marie Curie ' is; it is at 0 as 'Marie Curie' (other case)" in message
    assert read_examples(path, strict=True, skip_bad=True) == [QUESTIONS[0] | {"id": "e"}]


def test_questions_of_squad_2_may_lack_answers_in_any_way(tmp_path):
    forms = [{"answers": ...}, {"answers": None}, {"answers": []}, start_fault("", 0), {"is_impossible": "True"}]
    path = write_records(tmp_path, *(record(**{"id": str(n)} | form) for n, form in enumerate(forms)), QUESTIONS[1])
    read = read_examples(path, impossible=True)
    assert [item["answers"]["text"] for item in read] == [[]] * len(forms) + [["Marie Curie"]]
    assert f"{len(forms)} × no answer, as in SQuAD 2" in refusal(path)


def test_answers_in_different_places_are_counted(tmp_path, caplog):
    """Where all are needed, each alone would count as right."""
    apart = record(id="a")  # 1903 and 1911
    again = record(
        id="b", answers={"text": ["in", "In"], "answer_start": [26, 44]}, context=record()["context"][:44] + "In 1911."
    )
    nested = record(id="c", answers={"text": ["Marie Curie", "Curie"], "answer_start": [0, 6]})
    with caplog.at_level(logging.INFO, "extractive_qa"):
        read_examples(write_records(tmp_path, apart, again, nested))
    assert "1 of 3 questions have answers in different places" in caplog.text


def test_a_column_called_data_hides_no_record_without_a_question(tmp_path):
    """What asks nothing is passed over among articles alone."""
    path = write_records(tmp_path, record(data="x"), {"id": "b", "context": "Bob ate.", "answer": "Bob"})
    assert "record 2 (id b): `question` is missing" in refusal(path)
