"""Joined contexts: answers stay where they are, and nothing else of a question changes."""

import re

import numpy as np
import pytest
from small_training import make_run

from extractive_qa.preprocessing.windows import load_tokenizer, prepare_train_features
from extractive_qa.training.augmentation import MOST_JOINED, among_neighbours, join_contexts
from extractive_qa.training.distillation import teacher_predictions


@pytest.fixture(scope="module")
def contexts(sample_examples):
    return list(dict.fromkeys(example["context"] for example in sample_examples))


def test_answers_stand_in_the_neighbours_of_their_context(sample_examples, contexts):
    joined, moved = join_contexts(sample_examples, 0.5, seed=1)
    assert 0.4 < np.mean([one is not other for one, other in zip(joined, sample_examples, strict=True)]) < 0.6
    sizes = set()
    for example, plain, by in zip(joined, sample_examples, moved, strict=True):
        assert (example["id"], example["question"]) == (plain["id"], plain["question"])
        assert example["answers"]["text"] == plain["answers"]["text"]
        for text, start in zip(example["answers"]["text"], example["answers"]["answer_start"], strict=True):
            assert example["context"][start : start + len(text)] == text
        assert example["context"][by : by + len(plain["context"])] == plain["context"]
        if example is not plain:
            some = example["context"].split("\n")
            first = contexts.index(some[0])
            assert some == contexts[first : first + len(some)]
            sizes.add((len(some), some.index(plain["context"])))
    assert sizes == {(size, place) for size in range(2, MOST_JOINED + 1) for place in range(size)}


def test_the_share_is_of_all_questions_and_the_seed_draws_them(sample_examples):
    nothing, moved = join_contexts(sample_examples, 0.0, seed=1)
    assert nothing == sample_examples
    assert not moved.any()
    every, _ = join_contexts(sample_examples, 1.0, seed=1)
    assert all(one["context"] != other["context"] for one, other in zip(every, sample_examples, strict=True))
    assert join_contexts(sample_examples, 1.0, seed=1)[0] == every
    assert join_contexts(sample_examples, 1.0, seed=2)[0] != every


def test_at_either_end_of_the_file_the_nearest_are_taken():
    answers = {"text": ["a"], "answer_start": [0]}
    for number, first, wanted in [(0, -2, "a\nb\nc"), (2, 1, "a\nb\nc"), (1, 0, "a\nb\nc")]:
        example = {"context": "abc"[number], "answers": answers}
        found, moved = among_neighbours(example, "abc", first, 3)
        assert (found["context"], moved, found["answers"]["answer_start"]) == (wanted, 2 * number, [2 * number])
    alone = {"context": "a", "answers": answers}
    assert among_neighbours(alone, ["a"], -1, 4) == (alone, 0)


def test_a_question_without_answer_keeps_its_context(sample_examples):
    unanswered = [example | {"answers": {"text": [], "answer_start": []}} for example in sample_examples]
    assert join_contexts(unanswered, 1.0, seed=1)[0] == unanswered


def test_what_a_teacher_says_moves_with_the_context(sample_examples, tiny_model, trained, tmp_path):
    tokenizer, settings = load_tokenizer(tiny_model), {"max_length": 384, "doc_stride": 128}
    joined, moved = join_contexts(sample_examples[:8], 1.0, seed=3)
    assert moved.any()

    def said(examples, **more):
        """For each window with the answer: the words that the teacher takes it for, and how surely."""
        features = prepare_train_features(examples, tokenizer, **settings)
        teachers = teacher_predictions(
            [trained / "final_model"], sample_examples[:8], features, "cpu", "no", tmp_path / "cache", **more
        )
        found = {}
        for i in range(len(features)):
            window = features[i]
            if window["start_position"]:
                number = window["example_index"]
                starts, _ = teachers.probabilities([i], len(window["input_ids"]), 1.0)[:, 0]
                words = [examples[number]["context"][a:b] for a, b in window["offsets"]]
                found[number] = {(words[t], round(float(starts[t]), 4)) for t in np.flatnonzero(starts) if words[t]}
        return found

    alone, among_others = said(sample_examples[:8]), said(joined, moved=moved)
    whole = [number for number in alone if among_others.get(number) == alone[number]]
    assert len(whole) >= 5  # of the others a window cuts off a place


def test_a_training_with_a_teacher_takes_more_windows_of_as_many_questions(tiny_model, trained, tmp_path):
    run, _ = make_run(tiny_model, tmp_path, "--joined_contexts", 1, "--teacher_dir", trained / "final_model")
    assert re.search(r"data: 40 questions in (5[1-9]|[6-9]\d|\d{3}) windows", run.describe())
    targets = run.teachers.probabilities(range(len(run.features)), run.args.max_length, 1.0)  # (2, N, L)
    np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-3)
