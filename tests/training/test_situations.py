"""The situations that a calibrator learns from."""

import random

import numpy as np
import pytest

from extractive_qa.data.examples import read_examples
from extractive_qa.postprocessing.confidence import check_calibrator
from extractive_qa.reader import Reader
from extractive_qa.training import situations
from extractive_qa.training.negatives import forms, is_in
from extractive_qa.training.situations import SITUATIONS, draw, errors, fit, judge, make_situations
from utils.offline import SAMPLE_DATA_DIR

DEV = SAMPLE_DATA_DIR / "dev.json"
OWN, LONG, PASSAGES, ABSENT = range(4)


@pytest.fixture(scope="module")
def examples() -> list[dict]:
    return read_examples(DEV)


def test_each_question_is_asked_in_the_four_situations(examples):
    _, contexts = draw(examples)
    rows = make_situations(examples, contexts)
    assert len(rows) == 4 * len(examples)
    places = set()
    for situation, number, texts, holds in rows:
        example = examples[number]
        references = [forms(text) for text in example["answers"]["text"]]
        there = any(is_in(reference, forms(text)) for text in texts for reference in references)
        assert there == holds
        if situation == OWN:
            assert texts == [example["context"]]
        elif situation == LONG:
            (text,) = texts
            parts = text.split("\n")
            places.add(parts.index(example["context"]))
            assert len(parts) == situations.NEIGHBOURS and set(parts) <= set(contexts)
        elif situation == PASSAGES:
            assert 1 <= len(texts) == len(set(texts)) <= situations.PASSAGES
        else:
            assert not holds and example["context"] not in texts
    assert places == set(range(situations.NEIGHBOURS))


def test_a_question_without_an_answer_is_asked_of_its_own_text_alone():
    examples = [
        {"question": "Who wrote it?", "context": "Ada wrote it.", "answers": {"text": [], "answer_start": []}},
        {"question": "Who sang?", "context": "Bob sang.", "answers": {"text": ["Bob"], "answer_start": [0]}},
    ]
    rows = make_situations(examples, [example["context"] for example in examples])
    assert [row for row in rows if row[1] == 0] == [(OWN, 0, ["Ada wrote it."], False)]
    assert make_situations(examples[1:], ["Bob sang."]) == [(OWN, 0, ["Bob sang."], True)]


def test_what_is_right_is_judged_and_each_situation_counts_as_much(tiny_model, examples):
    reader = Reader(tiny_model, "cpu", "no")
    some, contexts = examples[:6], draw(examples)[1]
    judged = judge(reader, some, contexts)
    assert len(judged.right) == 24 and judged.features.shape == (24, 4)
    assert not judged.right[judged.situation == ABSENT].any()
    assert not judged.answerable[judged.situation == ABSENT].any() and judged.answerable[judged.situation == OWN].all()
    calibrator = fit(judged, np.ones(24, dtype=bool), None)
    assert check_calibrator(calibrator) == []
    found = errors(judged, judged.question < 3, calibrator)
    assert {name: one["questions"] for name, one in found.items()} == dict.fromkeys(SITUATIONS, 3)
    assert len(situations.describe(found).splitlines()) == 4


def test_a_calibrator_is_fitted_on_some_and_measured_on_others(tiny_model, examples, monkeypatch):
    """Made-up scores, which are worth what they are worth; the questions on one side alone are measured."""
    reader, thrown = Reader(tiny_model, "cpu", "no", batch_size=64), random.Random(0)
    monkeypatch.setattr(
        situations, "exact_match_score", lambda text, right, unit: float(any(r[:4] in text for r in right))
    )

    def logits(features, windows):
        rows = [features[i] for i in windows]
        scores = np.zeros((2, len(rows), max(len(row["input_ids"]) for row in rows)), dtype=np.float32)
        for b, row in enumerate(rows):
            begin = row["context_start"]
            scores[:, b, begin : row["context_end"]] = thrown.gauss(-1, 1)
            scores[:, b, begin + thrown.randrange(3)] = thrown.gauss(4, 2)
        return rows, *scores

    reader.logits = logits
    calibrator, found = situations.calibrate(reader, examples[:40], examples[40:])
    assert reader.settings["calibrator"] == calibrator and check_calibrator(calibrator) == []
    assert found["own"]["questions"] == len(examples) - 40
    assert found["absent"]["right"] == 0


def test_of_many_questions_some_are_drawn_the_same_each_time(examples, monkeypatch):
    monkeypatch.setattr(situations, "MOST_QUESTIONS", 10)
    some, contexts = draw(examples)
    assert (some, contexts) == draw(examples) and len(some) == 10
    assert some == [example for example in examples if example in some]
    assert len(contexts) == len({example["context"] for example in examples})
