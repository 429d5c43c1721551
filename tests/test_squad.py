"""Questions from files: every format gives the same examples, every fault is named, and only QAError is raised."""

import csv
import json
import re
import shutil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError

CONTEXT = "Marie Curie won the prize in 1903 and again in 1911."
QUESTIONS = [
    {
        "id": "q1",
        "question": "When did she win?",
        "context": CONTEXT,
        "answers": {"text": ["1903", "1911"], "answer_start": [29, 47]},
    },
    {"id": "q2", "question": "Who won?", "context": CONTEXT, "answers": {"text": ["Marie Curie"], "answer_start": [0]}},
    {
        "id": "q3",
        "question": "Wo schläft «sie», 谁？",
        "context": '\u00a0“Zoë”, she said,\r\n"sleeps"\n in 北京 🙂,\u2028; not here.',
        "answers": {"text": ["北京 🙂"], "answer_start": [32]},
    },
]


def nested(examples):
    """Official SQuAD JSON, neighbours with one context in one paragraph."""
    paragraphs = []
    for item in examples:
        if not paragraphs or paragraphs[-1]["context"] != item["context"]:
            paragraphs.append({"context": item["context"], "qas": []})
        pairs = zip(item["answers"]["text"], item["answers"]["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        paragraphs[-1]["qas"].append({"id": item["id"], "question": item["question"], "answers": answers})
    return {"version": "1.1", "data": [{"title": "all", "paragraphs": paragraphs}]}


def write_json(content, path):
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8", newline="")


def write_nested(examples, folder):
    write_json(nested(examples), folder / "nested.json")
    return folder / "nested.json"


def write_list(examples, folder):
    write_json(examples, folder / "flat.json")
    return folder / "flat.json"


def write_data(examples, folder):
    """As Hugging Face's own scripts want it: flat records under `data`."""
    write_json({"version": "1.1", "data": examples}, folder / "data.json")
    return folder / "data.json"


def write_json_lines(examples, folder):
    lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in examples)
    (folder / "flat.jsonl").write_text(lines, encoding="utf-8", newline="")
    return folder / "flat.jsonl"


def write_csv(examples, folder):
    with (folder / "flat.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "question", "context", "answers"])
        writer.writeheader()
        writer.writerows(item | {"answers": json.dumps(item["answers"], ensure_ascii=False)} for item in examples)
    return folder / "flat.csv"


def write_parquet(examples, folder):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(examples), folder / "flat.parquet")
    return folder / "flat.parquet"


def write_dataset(examples, folder):
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_list(examples).save_to_disk(folder / "saved")
    return folder / "saved"


def write_dataset_dict(examples, folder):
    import datasets

    datasets.disable_progress_bars()
    parts = {"train": datasets.Dataset.from_list(QUESTIONS[:1]), "validation": datasets.Dataset.from_list(examples)}
    datasets.DatasetDict(parts).save_to_disk(folder / "saved_dict")
    return folder / "saved_dict"


TEXT_FORMATS = [write_nested, write_list, write_data, write_json_lines, write_csv]
FORMATS = [*TEXT_FORMATS, write_parquet, write_dataset, write_dataset_dict]


def refusal(path, **options) -> str:
    """The text of the QAError with which a file is refused."""
    with pytest.raises(QAError) as caught:
        read_examples(path, **options)
    return str(caught.value)


def record(**changes):
    """A good flat record with some fields replaced, those that are `...` left out."""
    return {name: value for name, value in (QUESTIONS[0] | changes).items() if value is not ...}


def write_records(folder, *records):
    return write_list(list(records), folder)


# all formats


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_gives_the_questions_that_were_written(write, tmp_path):
    assert read_examples(write(QUESTIONS, tmp_path), split="validation") == QUESTIONS


@pytest.mark.parametrize("write", FORMATS)
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
    for write in [*TEXT_FORMATS, write_parquet]:
        assert read_examples(write(examples, folder)) == examples, write.__name__
    shutil.rmtree(folder)


@pytest.mark.parametrize("write", TEXT_FORMATS)
def test_a_byte_order_mark_changes_nothing(write, tmp_path):
    path = write(QUESTIONS, tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_examples(path) == QUESTIONS


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("write", TEXT_FORMATS)
@pytest.mark.parametrize("encoding", ["utf-16", "gb18030"])
def test_another_encoding_than_utf8_is_refused(write, encoding, tmp_path):
    path = write(QUESTIONS, tmp_path)
    path.write_bytes(path.read_bytes().decode("utf-8").encode(encoding))
    assert "not UTF-8" in refusal(path)


@pytest.mark.parametrize("write", TEXT_FORMATS)
def test_a_refusal_names_the_byte_at_which_a_file_stops_being_utf8(write, tmp_path):
    many = [item | {"id": f"{i}-{item['id']}"} for i in range(200) for item in QUESTIONS]
    path = write(many, tmp_path)
    content = path.read_bytes().decode("utf-8").encode("utf-8")
    place = content.rindex(b"Marie")
    path.write_bytes(content[:place] + b"\xe9" + content[place + 1 :])
    assert re.search(r"byte (\d+)", refusal(path))[1] == str(place)


@pytest.mark.parametrize("write", [write_nested, write_list, write_json_lines])
def test_lone_surrogates_are_read_as_the_replacement_character_and_offsets_stay(write, tmp_path):
    item = {
        "id": "a\ud800",
        "question": "Who\udfff?",
        "context": "\ud83d\ud83d it was \ud83dBob\udc00.",
        "answers": {"text": ["\ud83dBob"], "answer_start": [10]},
    }
    path = tmp_path / "surrogates.json"
    content = nested([item]) if write is write_nested else [item]
    if write is write_json_lines:
        path = tmp_path / "surrogates.jsonl"
        content = item
    path.write_text(json.dumps(content), encoding="utf-8")  # escaped: "\ud83d", as JavaScript writes it
    (read,) = read_examples(path)
    assert json.dumps(read, ensure_ascii=False).encode("utf-8"), "every text can be written again"
    assert read["question"] == "Who\ufffd?"
    assert read["context"] == "\ufffd\ufffd it was \ufffdBob\ufffd."
    assert read["answers"] == {"text": ["\ufffdBob"], "answer_start": [10]}


def test_json_lines_may_end_as_on_windows_and_leave_lines_empty(tmp_path):
    path = write_json_lines(QUESTIONS, tmp_path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n\r\n"))
    assert read_examples(path) == QUESTIONS


def test_escaped_surrogate_pairs_are_one_character(tmp_path):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([QUESTIONS[2]], ensure_ascii=True), encoding="utf-8")
    assert "\\ud83d\\ude42" in path.read_text(encoding="utf-8")
    assert read_examples(path) == [QUESTIONS[2]]


def test_equal_contexts_are_one_string_in_memory(tmp_path):
    read = read_examples(write_json_lines(QUESTIONS, tmp_path))
    assert read[0]["context"] is read[1]["context"]


def test_a_saved_dict_gives_the_part_that_is_asked_for(tmp_path):
    path = write_dataset_dict(QUESTIONS, tmp_path)
    assert read_examples(path, split="train") == QUESTIONS[:1]
    message = refusal(path, split="test")
    assert "test" in message
    assert "train, validation" in message


# forms that users have


@pytest.mark.parametrize("form", ["lists", "records", "columns", "text", "without start", "column without start"])
def test_answers_may_stand_in_any_of_the_common_forms(form, tmp_path):
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


def test_a_csv_with_answer_columns_reads_as_their_first_answers(dev_examples, tmp_path):
    path = tmp_path / "columns.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["answer_start", "answer", "title", "context", "question", "id"])
        for item in dev_examples:
            answers = item["answers"]
            first = [answers["answer_start"][0], answers["text"][0]]
            writer.writerow([*first, "", item["context"], item["question"], item["id"]])
    for found, item in zip(read_examples(path), dev_examples, strict=True):
        first = {name: values[:1] for name, values in item["answers"].items()}
        assert found == item | {"answers": first}


def test_records_without_ids_get_their_numbers(tmp_path):
    path = write_records(tmp_path, record(id=...), record(id=...))
    assert [item["id"] for item in read_examples(path)] == ["1", "2"]


def test_whole_numbers_as_ids_are_read_as_text(tmp_path):
    assert read_examples(write_records(tmp_path, record(id=7)))[0]["id"] == "7"


def test_fields_that_are_not_needed_are_ignored(tmp_path):
    path = write_records(tmp_path, record(title=None, plausible_answers=[3], is_impossible=False))
    assert read_examples(path) == QUESTIONS[:1]


def test_titles_of_articles_come_where_they_are_asked_for_and_there(tmp_path):
    nested = read_examples(write_nested(QUESTIONS, tmp_path), titles=True)
    assert nested == [question | {"title": "all"} for question in QUESTIONS]
    flat = tmp_path / "flat.json"
    flat.write_text(json.dumps([QUESTIONS[0] | {"title": 5}, QUESTIONS[1] | {"title": "Curie"}]), encoding="utf-8")
    assert read_examples(flat, titles=True) == [QUESTIONS[0], QUESTIONS[1] | {"title": "Curie"}]


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
    ({"context": ...}, "`context` is missing"),
    ({"context": ""}, "`context` is empty"),
    ({"context": "\u3000"}, "`context` is empty"),
    ({"context": {"text": "x"}}, "`context` is not text"),
    ({"answers": ...}, "`answers` is missing"),
    ({"answers": None}, "`answers` is missing"),
    ({"answers": 3}, "`answers`"),
    ({"answers": "Marie"}, "`answers`"),
    ({"answers": "3"}, "`answers`"),
    ({"answers": ["Marie Curie"]}, "`answers`"),
    ({"answers": [["Marie Curie", 0]]}, "`answers`"),
    ({"answers": [None]}, "`answers`"),
    ({"answers": {"text": "Marie Curie", "answer_start": 0}}, "`answers`"),
    ({"answers": {"text": ["Marie Curie"]}}, "`answers`"),
    ({"answers": {"text": ["Marie Curie", "Marie"], "answer_start": [0]}}, "`answers`"),
    ({"answers": {"answer_start": [0]}}, "`answers`"),
    ({"answers": [{"answer_start": 0}]}, "`text`"),
    (start_fault(None, 0), "`text`"),
    (start_fault("", 0), "`text`"),
    (start_fault(" ", 5), "`text`"),
    (start_fault(1903, 29), "`text`"),
    (start_fault(["1903"], 29), "`text`"),
    ({"answers": {"text": [], "answer_start": []}}, "no answer, as in SQuAD 2"),
    ({"answers": []}, "no answer, as in SQuAD 2"),
    ({"is_impossible": True}, "no answer, as in SQuAD 2"),
    (start_fault("1903", 28), "right offset is 29"),
    (start_fault("1903", -23), "right offset is 29"),  # counted from the end, it would be right
    (start_fault("1903", 10**6), "right offset is 29"),
    (start_fault("1903", 10**400), "right offset is 29"),
    (start_fault("in", 50), "right offset is 44"),  # of several places the nearest
    (start_fault("marie curie", 0), "does not occur in the context"),
    (start_fault("1903", 29.0), "not a whole number"),
    (start_fault("1903", float("nan")), "not a whole number"),
    (start_fault("1903", float("inf")), "not a whole number"),
    (start_fault("arie", True), "not a whole number"),
    (start_fault("1903", "twenty-nine"), "not a whole number"),
    (start_fault("1903", [29]), "not a whole number"),
    (start_fault("in", None), "[26, 41, 44]"),  # not left out by right: it stands twice
    (start_fault("Bob", None), "does not occur in the context"),
]


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("write", [write_list, write_json_lines])
@pytest.mark.parametrize(("changes", "reason"), FAULTS)
def test_a_bad_record_is_refused_with_its_id_and_the_reason(write, changes, reason, tmp_path):
    message = refusal(write([QUESTIONS[1], record(id="bad-one", **changes)], tmp_path))
    assert "id bad-one" in message
    assert reason in message
    assert "1 problem(s)" in message
    assert "--skip_bad_examples" in message
    assert "q2" not in message, "the good record is not blamed"


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("identifier", [None, float("nan"), 1.5, True, ["a"], {}, "", " "], ids=repr)
def test_an_id_that_is_neither_text_nor_a_whole_number_is_refused(identifier, tmp_path):
    message = refusal(write_records(tmp_path, QUESTIONS[1], record(id=identifier)))
    assert "record 2" in message
    assert "`id`" in message


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("thing", [None, 3, "text", ["a", "b"], [[]], True])
def test_what_is_no_record_is_one_problem(thing, tmp_path):
    message = refusal(write_records(tmp_path, QUESTIONS[0], thing))
    assert message.count("record 2") == 1, message
    assert "1 problem(s)" in message


@pytest.mark.parametrize("text", ["\u200b", "\ufffd", "\x00"])
def test_an_answer_without_a_visible_character_is_refused(text, tmp_path):
    """No token is left of it: it could be neither learned nor scored."""
    bad = record(context=f"It was {text} Bob.", answers={"text": [text], "answer_start": [7]})
    assert "`text`" in refusal(write_records(tmp_path, bad))


def test_an_id_that_stands_twice_is_refused(tmp_path):
    message = refusal(write_records(tmp_path, record(id="7"), record(id=7), record(id="8")))
    assert "record 2 (id 7)" in message
    assert "twice" in message
    assert "1 problem(s)" in message


def test_questions_of_squad_2_are_refused_by_name_in_the_nested_form(tmp_path):
    content = nested(QUESTIONS)
    content["data"][0]["paragraphs"][0]["qas"][1] |= {"answers": [], "is_impossible": True, "plausible_answers": []}
    write_json(content, tmp_path / "squad2.json")
    message = refusal(tmp_path / "squad2.json")
    assert "id q2" in message
    assert "SQuAD 2" in message


@pytest.mark.parametrize(
    ("paragraph", "reason"),
    [
        ({}, "`context` is missing"),
        ({"context": None}, "`context` is missing"),
        ({"context": 5}, "`context` is not text"),
    ],
)
def test_a_nested_question_whose_paragraph_lacks_its_context_is_named(paragraph, reason, tmp_path):
    content = nested(QUESTIONS)
    bad = {"id": "bad-one", "question": "Who?", "answers": [{"text": "Bob", "answer_start": 0}]}
    content["data"][0]["paragraphs"].insert(0, {"qas": [bad], **paragraph})
    write_json(content, tmp_path / "nested.json")
    message = refusal(tmp_path / "nested.json")
    assert "bad-one" in message
    assert reason in message
    assert read_examples(tmp_path / "nested.json", skip_bad=True) == QUESTIONS


@pytest.mark.parametrize("count", [1, 20, 21, 25])
def test_all_problems_of_a_file_are_told_at_once_but_no_more_than_twenty(count, tmp_path):
    bad = [record(id=f"bad-{i}", **start_fault("1903", i)) for i in range(count)]
    message = refusal(write_records(tmp_path, QUESTIONS[1], *bad))
    assert [f"bad-{i})" in message for i in range(count)] == [i < 20 for i in range(count)]
    assert f"{count} problem(s)" in message
    assert ("more" in message) == (count > 20)
    assert count <= 20 or f"{count - 20} more" in message


def test_all_faults_of_one_record_are_told(tmp_path):
    answers = {"text": ["1903", "Bob"], "answer_start": [3, "x"]}
    message = refusal(write_records(tmp_path, record(answers=answers), record(question="", context="", id="b")))
    for reason in ("right offset is 29", "not a whole number", "`question` is empty", "`context` is empty"):
        assert reason in message


def test_skip_bad_goes_on_without_bad_records_and_says_how_many(tmp_path, capsys):
    bad = [record(id=f"bad-{i}", **start_fault("1903", i)) for i in range(25)]
    twice = record(id="bad-26", question="", context="")  # two problems, one record
    path = write_records(tmp_path, *bad[:10], QUESTIONS[0], *bad[10:], twice, QUESTIONS[1], QUESTIONS[1])
    assert read_examples(path, skip_bad=True) == QUESTIONS[:2]
    assert "without 27 bad record(s)" in capsys.readouterr().err


def test_skip_bad_says_nothing_where_all_records_are_good(tmp_path, capsys):
    assert read_examples(write_records(tmp_path, *QUESTIONS), skip_bad=True) == QUESTIONS
    assert capsys.readouterr().err == ""


def test_a_file_of_bad_records_alone_is_refused_even_with_skip_bad(tmp_path):
    assert "no question" in refusal(write_records(tmp_path, record(question="")), skip_bad=True)


# faults of a file

HUGE = "1" * 5000  # more digits than Python converts
DEEP = "[" * 200_000

BAD_FILES = {
    "empty.json": "",
    "empty.jsonl": "",
    "blank.jsonl": "\n\n  \n",
    "empty.csv": "",
    "header.csv": "id,question,context,answer\n",
    "empty.parquet": "",
    "list.json": "[]",
    "data.json": '{"data": []}',
    "text.json": '"text"',
    "number.json": "3",
    "null.json": "null",
    "object.json": '{"questions": []}',
    "data_is_text.json": '{"data": "x"}',
    "nested_list.json": '[[["a"]]]',
    "truncated.json": json.dumps(nested(QUESTIONS))[:-20],
    "truncated.jsonl": json.dumps(QUESTIONS[0])[:-20],
    "words.json": "When? In 1903.",
    "words.jsonl": "When? In 1903.\n",
    "huge_start.json": f'[{{"id": "a", "question": "q", "context": "hi", "answer": "hi", "answer_start": {HUGE}}}]',
    "huge_start.jsonl": f'{{"id": "a", "question": "q", "context": "hi", "answer": "hi", "answer_start": {HUGE}}}',
    "huge_cell.csv": f"id,question,context,answers\n1,q,hi,{HUGE}\n",
    "huge_start.csv": f"id,question,context,answer,answer_start\n1,q,hi,hi,{HUGE}\n",
    "deep.json": DEEP,
    "deep.jsonl": DEEP,
    "deep_cell.csv": f"id,question,context,answers\n1,q,hi,{DEEP}\n",
    "no_paragraphs.json": '{"data": [{"title": "a"}, {"title": "b", "paragraphs": []}]}',
    "paragraphs_are_text.json": '{"data": [{"paragraphs": "ab"}]}',
    "paragraphs_are_null.json": '{"data": [{"paragraphs": null}]}',
    "no_qas.json": '{"data": [{"paragraphs": [{"context": "hi"}]}]}',
    "qas_are_text.json": '{"data": [{"paragraphs": [{"context": "hi", "qas": "ab"}]}]}',
    "qa_is_list.json": '{"data": [{"paragraphs": [{"context": "hi", "qas": [[1]]}]}]}',
    "article_is_null.json": '{"data": [{"paragraphs": []}, null, 7]}',
    "other_columns.csv": "frage,antwort\nWer?,Ada\n",
    "open_quote.csv": 'id,question,context,answer\n1,Who?,"Bob was here\n',
    "words.parquet": "When? In 1903.",
    "notes.txt": "id,question,context,answer\n1,Who?,Bob.,Bob\n",
    "questions": "id,question,context,answer\n1,Who?,Bob.,Bob\n",
}


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_holds_no_questions_is_a_user_error_that_names_it(name, tmp_path):
    path = tmp_path / name
    path.write_text(BAD_FILES[name], encoding="utf-8")
    assert name in refusal(path)
    assert name in refusal(path, skip_bad=True)


@pytest.mark.parametrize("name", ["q.json", "q.jsonl", "q.csv", "q.parquet", "q", "folder/q.json"])
def test_a_file_that_is_missing_is_said_to_be_missing(name, tmp_path):
    message = refusal(tmp_path / name)
    assert name in message
    assert re.search("missing|no such file|not exist|not found", message.lower()), message


@pytest.mark.parametrize("name", ["plain", "folder.json", "folder.csv"])
def test_a_folder_that_is_no_saved_dataset_is_a_user_error(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "questions.json").write_text("[]", encoding="utf-8")
    assert "no saved dataset" in refusal(tmp_path / name)


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
@pytest.mark.parametrize("write", [*TEXT_FORMATS, write_parquet])
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
    try:
        examples = read_examples(path)
    except QAError as error:
        assert path.name in str(error)
    else:
        for item in examples:
            assert_valid(item)
    shutil.rmtree(folder)


NAMES = st.sampled_from(
    ["id", "question", "context", "answers", "answer", "answer_start", "text", "is_impossible", "x"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.fault("damaged input")
@given(st.lists(st.dictionaries(NAMES, JSON, max_size=7) | JSON, max_size=3), st.booleans())
def test_any_json_is_read_rightly_or_refused(tmp_path_factory, content, skip_bad):
    folder = tmp_path_factory.mktemp("any")
    path = folder / "any.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    try:
        examples = read_examples(path, skip_bad=skip_bad)
    except QAError as error:
        assert "any.json" in str(error)
    else:
        for item in examples:
            assert_valid(item)
    shutil.rmtree(folder)


@given(st.lists(st.dictionaries(st.sampled_from(["paragraphs", "qas", "context"]), JSON, max_size=3), max_size=3))
def test_any_nesting_is_read_rightly_or_refused(tmp_path_factory, paragraphs):
    folder = tmp_path_factory.mktemp("nesting")
    path = folder / "nesting.json"
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    try:
        examples = read_examples(path)
    except QAError as error:
        assert "nesting.json" in str(error)
    else:
        for item in examples:
            assert_valid(item)
    shutil.rmtree(folder)


def assert_valid(item):
    """What every later step relies on."""
    assert set(item) == {"id", "question", "context", "answers"}
    assert isinstance(item["id"], str)
    assert item["question"].strip()
    assert item["context"].strip()
    assert item["answers"]["text"]
    for text, start in zip(item["answers"]["text"], item["answers"]["answer_start"], strict=True):
        assert type(start) is int
        assert text.strip()
        assert item["context"][start : start + len(text)] == text
    json.dumps(item, ensure_ascii=False).encode("utf-8")
