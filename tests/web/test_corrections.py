"""Corrected answers: a SQuAD file that can be trained on."""

import json

import pytest

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.web.corrections import save_correction

TEXT = "Zürich 🏔 was asked: Ada won in 1843."


def test_a_correction_is_a_squad_record_and_replaces_the_one_before(tmp_path):
    path = tmp_path / "new folder" / "corrections.json"
    start = TEXT.index("Ada")
    assert save_correction(path, "Who won?", TEXT, start, start + 7, "notes.txt") == 1
    assert save_correction(path, "When?", TEXT, TEXT.index("1843"), len(TEXT) - 1) == 2
    assert save_correction(path, "Who won?", TEXT, start, start + 3, "notes.txt") == 2
    examples = {example["question"]: example for example in read_examples(path)}
    assert examples["Who won?"]["answers"] == {"text": ["Ada"], "answer_start": [start]}
    assert examples["When?"]["answers"] == {"text": ["1843"], "answer_start": [TEXT.index("1843")]}
    assert [path.name for path in path.parent.iterdir()] == ["corrections.json"]


def test_they_can_be_added_to_a_squad_file_whose_records_stay(tmp_path):
    path = tmp_path / "mine.json"
    record = {"id": "1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}], "note": "kept"}
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "Ada won.", "qas": [record]}]}]}))
    assert save_correction(path, "Who won?", "Ada won.", 0, 3) == 2
    assert json.loads(path.read_text(encoding="utf-8"))["data"][0]["paragraphs"][0]["qas"] == [record]
    assert len(read_examples(path)) == 2


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"data": 3}', '{"data": [{"paragraphs": [{}]}]}', "[" * 10_000])
def test_another_file_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(QAError, match=r"Expected .*corrected answers"):
        save_correction(path, "Who?", "Ada won.", 0, 3)
    assert path.read_text() == content
