"""The comparison of passages: what is asked of what, and that each rule chooses as it says."""

import json
import sys

import numpy as np
import pytest
from scripts import PROJECT_ROOT

sys.path.insert(0, str(PROJECT_ROOT / "benchmarks"))
sys.path.insert(0, str(PROJECT_ROOT / "benchmarks" / "quality"))

import passages
from passages import auroc, choose, find_pairs, read_pairs

from extractive_qa.reader import Reader
from utils.offline import SAMPLE_DATA_DIR


def test_each_question_is_asked_of_its_best_its_own_and_one_without_the_answer(sample_examples):
    contexts = list(dict.fromkeys(example["context"] for example in sample_examples))
    pairs, asked = find_pairs(sample_examples, contexts)
    assert len({(pair["question"], pair["context"]) for pair in pairs}) == len(pairs)
    for example, one in zip(sample_examples, asked, strict=True):
        assert pairs[one["own"]]["context"] == example["context"]
        assert all(pairs[number]["question"] == example["question"] for number in (one["own"], *one["ranked"]))
        assert len(set(one["ranked"])) == len(one["ranked"]) <= 10
        if one["absent"] is not None:
            context = pairs[one["absent"]]["context"].lower()
            assert not any(text.lower() in context for text in example["answers"]["text"])
    assert np.mean([one["own"] in one["ranked"] for one in asked]) > 0.9


def test_auroc_is_the_share_of_pairs_in_order_and_equal_ones_count_half():
    assert auroc(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == (1 + 1 + 0.5 + 1) / 4
    assert auroc(np.array([0.0]), np.array([1.0])) == 0


def test_the_rules_choose_by_their_own_score_and_votes_add_up():
    read = {"cls": np.array([3.0, 2.9, 2.9]), "raw": np.array([1.0, 5.0, 2.0])}
    texts = np.array(["Paris", "Rome.", "the Rome"], dtype=object)
    read |= {"cls text": texts, "raw text": texts}
    assert [choose(read, [0, 1, 2], rule) for rule in ("cls", "raw", "votes")] == ["Paris", "Rome.", "Rome."]
    assert choose(read, [0, 1], "votes") == "Paris"
    assert [choose(read, pairs, "ranked") for pairs in ([0, 1], [1, 0], [2, 1, 0])] == ["Paris", "Rome.", "the Rome"]


def test_what_is_read_is_what_the_reader_says(trained, sample_examples):
    """Its best span, and how probable that is beside its candidate of no answer."""
    reader = Reader(trained / "final_model", "cpu", "no", handle_impossible_answer=True)
    reader.settings |= {"calibrator": None}
    read = read_pairs(reader, sample_examples[:12])
    compared = 0
    for number, example in enumerate(sample_examples[:12]):
        answers = reader.answer(example["question"], example["context"], top_k=20)
        spans = [answer for answer in answers if answer["text"]]
        if any(len(answer["places"]) > 1 for answer in spans):
            continue  # a text that comes again: the reader adds its places
        compared += 1
        assert read["cls text"][number] == spans[0]["text"]
        assert np.exp(read["probability"][number]) == pytest.approx(spans[0]["probability"], rel=1e-4)
    assert compared


def test_the_script_prints_and_writes_the_same_twice(trained, tmp_path, capsys):
    found = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        flags = {"model_dir": trained / "final_model", "eval_file": SAMPLE_DATA_DIR / "dev.json", "max_samples": 6}
        flags |= {"results_dir": tmp_path / folder, "joined": 2}
        passages.main([str(word) for name, value in flags.items() for word in (f"--{name}", value)])
        assert "5 best by BM25" in capsys.readouterr().out
        found.append((tmp_path / folder / "passages.json").read_bytes())
    assert found[0] == found[1]
    result = json.loads(found[0])
    assert result["questions"] == 6
    assert set(result["passages"]) == {"5", "10"}
