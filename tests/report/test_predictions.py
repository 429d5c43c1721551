"""Files of predictions and of n best answers: what is written is read again, and no other run is taken for this one."""

import json

import pytest

from extractive_qa.errors import QAError
from extractive_qa.report.predictions import NBEST, PREDICTIONS, nbest_file, read_answers, read_predictions, read_run

CONTEXT = "In 1912 the keeper Ada Krog lit the lamp."
ADA = {"text": "Ada", "start": 19, "end": 22, "probability": 0.9}
KROG = {"text": "Krog", "start": 23, "end": 27, "probability": 0.1}


def asked(identifier: str, context: str = CONTEXT) -> dict:
    answers = {"text": ["Ada Krog"], "answer_start": [19]}
    return {"id": identifier, "question": "Who lit it?", "context": context, "answers": answers}


def save(folder, predictions: object, nbest: object = None) -> None:
    (folder / PREDICTIONS).write_text(json.dumps(predictions), encoding="utf-8")
    if nbest is not None:
        (folder / NBEST).write_text(json.dumps(nbest), encoding="utf-8")


def test_a_run_is_read_as_it_was_written(tmp_path):
    examples = [asked("1"), asked("é\n2")]
    with nbest_file(tmp_path / NBEST) as write:
        for example, answers in zip(examples, ([ADA, KROG], [KROG]), strict=True):
            write(example, answers)
    assert json.loads((tmp_path / NBEST).read_text(encoding="utf-8")) == {"1": [ADA, KROG], "é\n2": [KROG]}
    save(tmp_path, {"1": "Ada", "é\n2": "Krog"})
    found = read_run(tmp_path, examples)
    assert (found.texts, found.spans) == (["Ada", "Krog"], [(19, 22), (23, 27)])
    assert found.probability.tolist() == [0.9, 0.1]


def test_questions_without_a_prediction_are_counted_or_refused(tmp_path, caplog):
    save(tmp_path, {"2": "Ada", "x": "y"})
    examples = [asked("1"), asked("2"), asked("3")]
    assert read_predictions(tmp_path / PREDICTIONS, examples)["2"] == "Ada"
    assert "2 of 3 questions have no prediction" in caplog.text
    with pytest.raises(QAError, match=r"lacks 2 of the 3 questions scored, the first is '1'.*--eval_file"):
        read_run(tmp_path, examples)


@pytest.mark.fault("damaged predictions")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "can't be read as JSON"),
        ("[]", "not of the official format"),
        ('{"1": 1}', "prediction for '1' is no text"),
        ('{"a": "b"}', "answers none of the questions.*'a'.*'1'"),
        ("{}", "answers none of the questions"),
    ],
)
def test_a_bad_predictions_file_is_refused(tmp_path, content, words):
    (tmp_path / PREDICTIONS).write_text(content, encoding="utf-8")
    with pytest.raises(QAError, match=words):
        read_predictions(tmp_path / PREDICTIONS, [asked("1")])


def test_answers_of_another_run_are_not_taken_for_this_one(tmp_path, caplog):
    file = tmp_path / PREDICTIONS
    assert read_answers(file, {"1": "Ada"}, [asked("1")]) is None and not caplog.text
    save(tmp_path, {}, {"1": [ADA]})
    assert read_answers(file, {"1": "Ada"}, [asked("1")]) == {"1": ADA}
    assert read_answers(file, {"1": "Krog"}, [asked("1")]) is None and "not of the same run" in caplog.text
    with pytest.raises(QAError, match="other questions under the same ids"):
        read_answers(file, {"1": "Ada"}, [asked("1", context="It was Ada.")])


@pytest.mark.fault("damaged predictions")
@pytest.mark.parametrize(
    "damaged",
    [[], None, "Ada", [{}], [ADA | {"start": "19"}], [ADA | {"probability": None}], [ADA | {"probability": 7}]],
)
def test_damaged_answers_are_ignored_with_a_warning(tmp_path, caplog, damaged):
    save(tmp_path, {}, {"1": damaged})
    assert read_answers(tmp_path / PREDICTIONS, {"1": "Ada"}, [asked("1")]) is None
    assert "not of the same run" in caplog.text
