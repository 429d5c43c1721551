"""Contexts that lack the answer: never one that holds it, drawn by seed and epoch alone, and what is learned from them
depends on nothing else."""

import shutil

import numpy as np
import pytest
import torch
from small_training import SMALL, TRAIN, assert_equal_weights, log_without_times, make_run, train_here, train_script

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.metrics import normalize_answer
from extractive_qa.preprocessing.windows import load_tokenizer, prepare_train_features, prepare_validation_features
from extractive_qa.training.negatives import HARD, POOL, Negatives, best_contexts


@pytest.fixture(scope="module")
def contexts(sample_examples):
    return list(dict.fromkeys(example["context"] for example in sample_examples))


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_tokenizer(tiny_model)


def negatives_of(examples, contexts, tokenizer, share=1.0, seed=1, max_length=384, doc_stride=128):
    features = prepare_train_features(examples, tokenizer, max_length, doc_stride)
    return Negatives(examples, features, contexts, tokenizer, max_length, doc_stride, share, seed)


@pytest.mark.parametrize("share", [0.3, 1, 2.5])
def test_no_context_holds_a_reference_and_all_questions_have_as_many(sample_examples, contexts, tokenizer, share):
    negatives = negatives_of(sample_examples, contexts, tokenizer, share)
    for epoch in range(3):
        questions, drawn, _ = negatives.draw(epoch)
        assert len(questions) == round(share * len(sample_examples))
        assert set(np.bincount(questions, minlength=len(sample_examples))) <= {int(share), int(share) + 1}
        for question, context in zip(questions, drawn, strict=True):
            for text in sample_examples[question]["answers"]["text"]:
                assert text.lower() not in contexts[context].lower()
                assert normalize_answer(text) not in normalize_answer(contexts[context])


def test_seed_and_epoch_alone_draw(sample_examples, contexts, tokenizer):
    def drawn(seed, epoch):
        questions, found, _ = negatives_of(sample_examples, contexts, tokenizer, 0.5, seed).draw(epoch)
        return questions.tolist(), found.tolist()

    assert drawn(1, 2) == drawn(1, 2)
    assert len({str(drawn(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_most_are_the_best_by_bm25(train_examples, tokenizer):
    examples = train_examples[:600]
    contexts = list(dict.fromkeys(example["context"] for example in examples))
    negatives = negatives_of(examples, contexts, tokenizer, share=3)
    questions, drawn, _ = negatives.draw(0)
    row = {question: row for row, question in enumerate(negatives.questions.tolist())}
    hard = np.mean([c in negatives.pools[row[q]] for q, c in zip(questions.tolist(), drawn, strict=True)])
    by_chance = (1 - HARD) * POOL / len(contexts)
    assert hard == pytest.approx(HARD + by_chance, abs=0.04)


def test_best_contexts_share_words_and_equal_ones_keep_their_order():
    contexts = ["nothing here", "the red fox", "a red fox and a red hen", "the red fox", "one fox"]
    found = [best.tolist() for best in best_contexts(["red fox?", "Hen", "…", "zebra"], contexts, 3)]
    assert found == [[2, 1, 3], [2], [], []]
    assert next(best_contexts(["fox"], contexts, 99)).tolist() == [4, 1, 3, 2]


@pytest.mark.parametrize("max_length", [384, 64])
def test_windows_without_answer_come_behind_the_others_and_are_those_of_their_pair(
    sample_examples, contexts, tokenizer, max_length
):
    windows = max_length, 16
    features = prepare_train_features(sample_examples, tokenizer, *windows)
    negatives = Negatives(sample_examples, features, contexts, tokenizer, *windows, share=1.5, seed=3)
    sizes = set()
    for epoch in range(2):
        of_epoch = negatives.of_epoch(epoch)
        sizes.add(len(of_epoch))
        for i in range(0, len(features), 7):
            for name, value in features[i].items():
                np.testing.assert_array_equal(of_epoch[i][name], value)
        questions, drawn, _ = negatives.draw(epoch)
        for i, (question, context) in enumerate(zip(questions, drawn, strict=True), len(features)):
            pair = {"question": sample_examples[question]["question"], "context": contexts[context]}
            those = prepare_validation_features([pair], tokenizer, *windows)
            window = of_epoch[i]
            assert window["example_index"] == question
            assert (window["start_position"], window["end_position"]) == (0, 0)
            assert window["input_ids"].tolist() in [those[n]["input_ids"].tolist() for n in range(len(those))]
            begin, end = window["offsets"][window["context_start"], 0], window["offsets"][window["context_end"] - 1, 1]
            assert contexts[context][begin:end]
    assert sizes == {len(features) + round(1.5 * len(sample_examples))}


def test_a_file_without_such_contexts_is_refused_and_a_question_without_is_named(tokenizer, caplog):
    def example(question, context, *texts):
        answers = {"text": [*texts], "answer_start": [context.index(text) for text in texts]}
        return {"id": question, "question": question, "context": context, "answers": answers}

    one, other = "Copper melts in Paris.", "Paris has copper roofs, as Zagreb has."
    with pytest.raises(QAError, match=r"1 of 1 question\(s\) find their answer in all 1 contexts .* leave"):
        negatives_of([example("Where?", one, "Paris")], [one], tokenizer)
    examples = [example("Where?", one, "Paris"), example("Where else?", other, "Zagreb"), example("When?", one)]
    negatives = negatives_of(examples, [one, other], tokenizer, share=2)
    assert "1 of 2 question(s) find their answer in all 2 contexts" in caplog.text
    questions, drawn, _ = negatives.draw(0)
    assert (questions.tolist(), drawn.tolist()) == ([1, 1], [0, 0])  # the one without an answer has its own alone


# training on them

NEGATIVE = ("--negative_contexts", 0.6)


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_the_micro_batch_changes_no_gradient(tiny_model, trained, tmp_path, micro_batch_size):
    flags = (*NEGATIVE, "--teacher_dir", trained / "final_model")
    run, _ = make_run(tiny_model, tmp_path, *flags)
    run.features = run.negatives.of_epoch(1)
    batch = np.random.default_rng(0).permutation(len(run.features))[:12]
    gradients = []
    for size in (8, micro_batch_size):
        run.micro_batch_size = size
        run.model.train()
        loss = train_script.accumulate_gradients(run, batch)
        gradients.append([*(parameter.grad.clone() for parameter in run.model.parameters()), loss])
        run.optimizer.zero_grad()
    for full, accumulated in zip(*gradients, strict=True):
        torch.testing.assert_close(accumulated, full, rtol=1e-4, atol=1e-6)


@pytest.mark.fault("training killed and resumed")
@pytest.mark.parametrize("step", [12, pytest.param(3, marks=pytest.mark.slow)])  # in the middle of either epoch
def test_resumed_equals_uninterrupted_bit_for_bit(tiny_model, tmp_path, step):
    whole, part = tmp_path / "whole", tmp_path / "part"
    train_here("--model_dir", tiny_model, "--output_dir", whole, *SMALL, *NEGATIVE)
    last = max(int(folder.name.partition("-")[2]) for folder in whole.glob("checkpoint-*"))
    assert last == 2 * 8
    shutil.copytree(whole / f"checkpoint-{step}", part / f"checkpoint-{step}")
    shutil.copyfile(whole / "training_log.jsonl", part / "training_log.jsonl")
    train_here("--output_dir", part, "--resume")
    assert_equal_weights(part / f"checkpoint-{last}", whole / f"checkpoint-{last}")
    assert log_without_times(part) == log_without_times(whole)


def test_of_what_lacks_the_answer_the_label_alone_is_learned(tiny_model, trained, tmp_path):
    run, _ = make_run(tiny_model, tmp_path, *NEGATIVE, "--teacher_dir", trained / "final_model")
    own = run.negatives.own
    assert len(run.features) == own + 24
    targets = run.teachers.probabilities(range(len(run.features)), run.args.max_length, 1.0)  # (2, N, L)
    np.testing.assert_allclose(targets[:, :own].sum(-1), 1, atol=1e-3)
    assert not targets[:, own:].any()
    assert run.teachers.know(np.arange(len(run.features))).tolist() == [True] * own + [False] * 24


def test_joined_contexts_keep_single_ones_without_the_answer(tiny_model, tmp_path):
    run, _ = make_run(tiny_model, tmp_path, *NEGATIVE, "--joined_contexts", 1)
    assert run.negatives.own > 50  # of 40 questions
    contexts = {example["context"] for example in read_examples(TRAIN)}
    for i in range(run.negatives.own, len(run.features)):
        assert run.features[i]["offsets"].max() <= max(map(len, contexts))  # characters: no two of them joined
