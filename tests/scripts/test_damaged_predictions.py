"""Damaged files of predictions, one cause a line: evaluate.py refuses each with the reason."""

import gzip
import json

import pytest
from question_files import QUESTIONS, write_list
from scripts import load_script

from extractive_qa.errors import QAError

GOLD = json.dumps({"q1": "Zoë"}, ensure_ascii=False)
DAMAGED = {
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
    "a duplicate id": (b'{"q1": "a", "q1": "b"}', "duplicate field 'q1'"),
    "other ids": (b'{"other": "x"}', "answers none of the questions"),
    "JSON Lines": (b'{"q1": "a"}\n{"q2": "b"}\n', "can't be read as JSON"),
    "a folder": (None, "can't be read"),
}


@pytest.fixture(scope="module")
def evaluate():
    return load_script("evaluate.py")


@pytest.mark.fault("damaged predictions")
@pytest.mark.parametrize("cause", DAMAGED)
def test_damaged_predictions_are_refused(evaluate, cause, tmp_path):
    content, reason = DAMAGED[cause]
    predictions = tmp_path / "predictions.json"
    predictions.mkdir() if content is None else predictions.write_bytes(content)
    questions = write_list(QUESTIONS, tmp_path)
    with pytest.raises(QAError) as caught:
        evaluate.main(["--predictions", str(predictions), "--eval_file", str(questions)])
    assert str(predictions) in str(caught.value)
    assert reason in str(caught.value)
