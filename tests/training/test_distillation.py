"""Teachers: what is kept is what they said, the loss is the formula's, and nothing else of a training changes."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import save_tiny_model
from scripts import PROJECT_ROOT
from small_training import SMALL, assert_equal_weights, log_without_times, make_run, train_here, train_script

from extractive_qa.errors import QAError
from extractive_qa.files.atomic import save_checked
from extractive_qa.preprocessing.features_file import save_features
from extractive_qa.preprocessing.windows import (
    first_answer,
    load_tokenizer,
    prepare_train_features,
    prepare_validation_features,
)
from extractive_qa.reader import Reader
from extractive_qa.training import distillation
from extractive_qa.training.distillation import (
    PLACES,
    Answers,
    Teachers,
    distillation_losses,
    likeliest,
    teacher_predictions,
    tokens_at,
)
from utils import preprocessing as feature_cache

SETTINGS = {"max_length": 96, "doc_stride": 32}


@pytest.fixture(scope="module")
def teacher(trained):
    return trained / "final_model"


@pytest.fixture(scope="module")
def questions(sample_examples):
    return sample_examples[:12]


@pytest.fixture(scope="module")
def features(questions, tiny_model):
    return prepare_train_features(questions, load_tokenizer(tiny_model), **SETTINGS)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "WORTH_A_FILE", 1)
    return tmp_path / "cache"


def ask(cache, questions, features, *teachers, precision="no"):
    return teacher_predictions(teachers, questions, features, "cpu", precision, cache)


def said_by(reader, question):
    """What a reader says of a question: for starts and for ends, {place: log-probability} with -1 for no answer."""
    settings = reader.settings["max_length"], reader.settings["doc_stride"]
    windows = prepare_validation_features([question], reader.tokenizer, *settings)
    said = []
    for side in range(2):
        scores = {}
        for i in range(len(windows)):
            (row,), *logits = reader.logits(windows, [i])
            scores[-1] = min(scores.get(-1, np.inf), logits[side][0, 0])
            for token in range(row["context_start"], row["context_end"]):
                place = int(row["offsets"][token, side])
                scores[place] = max(scores.get(place, -np.inf), logits[side][0, token])
        normal = torch.tensor(list(scores.values())).log_softmax(-1).tolist()
        said.append(dict(zip(scores, normal, strict=True)))
    return said


def test_the_loss_equals_a_computation_by_hand():
    random, temperature = np.random.default_rng(0), 1.7
    logits = random.normal(size=(2, 3, 7)).astype(np.float32)
    sizes = [7, 4, 2]
    mask = np.array([[1] * size + [0] * (7 - size) for size in sizes])
    targets = np.zeros((2, 3, 7), dtype=np.float32)
    expected = np.zeros(3)
    for row, size in enumerate(sizes):
        for side in range(2):
            p = targets[side, row, :size] = random.dirichlet(np.ones(size))
            exponentials = np.exp(logits[side, row, :size] / temperature)
            q = exponentials / exponentials.sum()
            expected[row] += temperature**2 * sum(p * np.log(p / q)) / 2
    found = distillation_losses(*map(torch.tensor, (*logits, targets, mask)), temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_student_who_says_what_the_teacher_says_has_nothing_to_learn(cache, questions, features, teacher):
    length = features.lengths[0]
    targets = torch.tensor(ask(cache, questions, features, teacher).probabilities([0], length, 2.0))
    logits = (2.0 * targets.clamp(1e-9).log()).requires_grad_()
    loss = distillation_losses(*logits, targets, torch.ones(1, length), 2.0)
    assert abs(loss.item()) < 1e-5
    loss.sum().backward()
    assert logits.grad.abs().max() < 1e-5


@pytest.mark.parametrize("tokens", ["own", "other"])
def test_what_is_kept_is_what_the_teacher_says(cache, questions, features, teacher, tokenizer_dir, tmp_path, tokens):
    """A teacher of the student's tokens in windows of its own, and one of other tokens."""
    folder = teacher if tokens == "own" else save_tiny_model(tmp_path / "foreign", tokenizer_dir, with_head=True)
    ((places, scores),) = ask(cache, questions, features, folder).said
    assert scores.dtype == np.float16
    reader = Reader(folder, "cpu", "no")
    for question, *kept in zip(questions, places, scores, strict=True):
        for side, expected in enumerate(said_by(reader, question)):
            found = dict(zip(kept[0][side].tolist(), kept[1][side].tolist(), strict=True))
            assert len(found) == PLACES
            assert kept[0][side][0] == -1
            likeliest = sorted(expected.values(), reverse=True)
            # half precision keeps 11 bits; batches are padded otherwise, within rounding
            np.testing.assert_allclose([expected[place] for place in found], list(found.values()), rtol=2e-3, atol=1e-3)
            assert sorted(found.values())[1] >= likeliest[PLACES] - 0.02


def test_a_place_is_the_token_that_the_labels_have_there(questions, features):
    labelled = 0
    for row in features:
        start, text = first_answer(questions[row["example_index"]])
        context = row["offsets"][row["context_start"] : row["context_end"]]
        (starts, starts_inside), (ends, ends_inside) = tokens_at(
            np.array([[start, -1], [start + len(text), -1]]), context
        )
        both = starts_inside[0] and ends_inside[0]
        assert not (starts_inside[1] or ends_inside[1])
        assert both == (row["start_position"] > 0)
        if both:
            assert row["context_start"] + starts[0] == row["start_position"]
            assert row["context_start"] + ends[0] == row["end_position"]
            labelled += 1
    assert 0 < labelled < len(features)
    tokens, inside = tokens_at(np.array([[3], [4]]), np.zeros((0, 2), dtype=np.int32))[0]
    assert not inside.any() and len(tokens) == 1


def test_a_window_has_what_lies_in_it_and_no_answer_the_rest():
    class Features:
        def __len__(self):
            return 9

        def __getitem__(self, i):
            offsets = np.array([[-1, -1], [-1, -1], [4, 7], [8, 9], [9, 12], [-1, -1]])
            return {"example_index": 0, "offsets": offsets, "context_start": 2, "context_end": 5}

    def said(start, end):
        table = [list(start), list(end)], [list(start.values()), list(end.values())]
        return np.array([table[0]]), np.log(np.array([table[1]]), dtype=np.float16)

    # in the middle of a token; behind the window; just where the window begins (it ends before it)
    one = said({-1: 0.1, 5: 0.2, 9: 0.3, 12: 0.4}, {-1: 0.1, 12: 0.5, 4: 0.2, 8: 0.2})
    found = Teachers(Features(), [one], []).probabilities([7, 8], 7, 1.0)
    np.testing.assert_allclose(
        found, np.array([[[0.5, 0, 0.2, 0, 0.3, 0, 0]] * 2, [[0.3, 0, 0.2, 0, 0.5, 0, 0]] * 2]), atol=1e-3
    )
    other = said({-1: 0.7, 4: 0.1, 6: 0.1, 8: 0.1}, {-1: 0.3, 7: 0.3, 9: 0.3, 20: 0.1})
    found = Teachers(Features(), [one, other], []).probabilities([7], 6, 1.0)[:, 0]
    np.testing.assert_allclose(found, [[0.6, 0, 0.2, 0.05, 0.15, 0], [0.35, 0, 0.25, 0.15, 0.25, 0]], atol=1e-3)
    softer = Teachers(Features(), [one], []).probabilities([7], 6, 2.0)[0, 0, [2, 4]]
    np.testing.assert_allclose(softer, np.sqrt([0.2, 0.3]) / np.sqrt([0.1, 0.2, 0.3, 0.4]).sum(), atol=1e-3)


@pytest.fixture
def asked(monkeypatch):
    """How many questions were asked: a number each time."""
    counts = []

    def counted(reader, features, begin, end, bar):
        counts.append(end - begin)
        return likeliest(reader, features, begin, end, bar)

    monkeypatch.setattr(distillation, "likeliest", counted)
    return counts


def test_only_questions_that_are_new_are_asked(cache, questions, features, teacher, tiny_model, asked):
    fewer = prepare_train_features(questions[3:9], load_tokenizer(tiny_model), **SETTINGS)
    ask(cache, questions[3:9], fewer, teacher)
    ((places, scores),) = ask(cache, questions, features, teacher).said
    assert asked == [6, len(questions) - 6]
    ((fewer_places, fewer_scores),) = ask(cache, questions[3:9], fewer, teacher).said
    np.testing.assert_array_equal(fewer_places, places[3:9])
    np.testing.assert_array_equal(fewer_scores, scores[3:9])
    assert len(asked) == 2
    twice = questions[:1] * 2
    ask(cache / "other", twice, prepare_train_features(twice, load_tokenizer(tiny_model), **SETTINGS), teacher)
    assert asked[2:] == [1]
    (path,) = cache.glob("*.teacher")
    path.rename(path.with_suffix(".moved"))  # Windows would refuse this, were the file still open


@pytest.mark.fault("a teacher's answers interrupted")
def test_an_interrupted_asking_goes_on_where_it_was(cache, questions, features, teacher, asked, monkeypatch):
    expected = ask(cache / "whole", questions, features, teacher).said
    monkeypatch.setattr(distillation, "SAVED_EVERY", 5)
    until_it_stops = distillation.likeliest

    def stopped(reader, features, begin, end, bar):
        if begin == 10:
            raise KeyboardInterrupt
        return until_it_stops(reader, features, begin, end, bar)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(distillation, "likeliest", stopped)
        ask(cache, questions, features, teacher)
    found = ask(cache, questions, features, teacher).said
    assert asked == [12, 5, 5, 2]
    np.testing.assert_array_equal(found[0][0], expected[0][0])
    np.testing.assert_allclose(found[0][1], expected[0][1], rtol=2e-3, atol=1e-3)  # other batches, other padding


def test_a_damaged_file_is_written_again(cache, questions, features, teacher, asked):
    expected = ask(cache, questions, features, teacher).said
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    content[-5] ^= 64
    path.write_bytes(content)
    np.testing.assert_array_equal(ask(cache, questions, features, teacher).said, expected)
    assert asked == [len(questions)] * 2


def test_a_folder_that_can_not_be_written_is_only_a_warning(cache, questions, features, teacher, caplog):
    cache.write_text("a file")
    assert len(ask(cache, questions, features, teacher).said) == 1
    assert caplog.text.count("the teacher's answers can't be kept in") == 1


def test_other_teachers_precisions_and_windows_have_files_of_their_own(
    cache, questions, features, teacher, tiny_model, tmp_path, monkeypatch
):
    """Nobody is asked: a processor may have no bf16."""

    def nothing(reader, features, begin, end, bar):
        return np.zeros((2, end - begin, 2, PLACES))

    monkeypatch.setattr(distillation, "likeliest", nothing)
    ask(cache, questions, features, teacher, tiny_model)
    ask(cache, questions, features, teacher, precision="bf16")
    assert len(list(cache.iterdir())) == 3
    shutil.copytree(teacher, tmp_path / "copy")
    ask(cache, questions, features, tmp_path / "copy")
    assert len(list(cache.iterdir())) == 3
    settings = json.loads((teacher / "reader.json").read_text("utf-8")) | {"doc_stride": 20}
    (tmp_path / "copy" / "reader.json").write_text(json.dumps(settings), "utf-8")
    ask(cache, questions, features, tmp_path / "copy")
    assert len(list(cache.iterdir())) == 4


def test_a_file_of_answers_teaches_as_the_model_does(
    cache, questions, features, teacher, tiny_model, asked, tmp_path, monkeypatch
):
    expected = ask(cache, questions, features, teacher).said
    (path,) = cache.iterdir()
    copied = shutil.copyfile(path, tmp_path / "elsewhere.teacher")
    found = ask(tmp_path / "none", questions, features, copied)
    np.testing.assert_array_equal(found.said, expected)
    assert len(asked) == 1 and not (tmp_path / "none").exists()
    more = [*questions, questions[0] | {"question": "What else?"}]
    with pytest.raises(QAError, match=r"elsewhere.teacher has no answers to 1 of 13 training questions.*folder"):
        ask(cache, more, prepare_train_features(more, load_tokenizer(tiny_model), **SETTINGS), copied)
    copied.write_bytes(copied.read_bytes()[:-1])
    save_features(tmp_path / "windows.features", features, 1)
    kept = Answers.load(path)
    with monkeypatch.context() as later:
        later.setattr(distillation, "FORMAT", distillation.FORMAT + 1)
        kept.save(tmp_path / "later.teacher")
    pickled = vars(kept) | {"format": distillation.FORMAT, "keys": kept.keys.astype(object)}
    save_checked(tmp_path / "pickle.teacher", lambda file: np.savez(file, **pickled), 9)
    for file in (copied, tmp_path / "windows.features", tmp_path / "later.teacher", tmp_path / "pickle.teacher"):
        with pytest.raises(QAError, match=f"{file.name} is no file of a teacher's answers, or damaged"):
            ask(cache, questions, features, file)


def test_teachers_that_can_not_teach_are_refused_by_name(cache, questions, features, tiny_encoder, tmp_path):
    with pytest.raises(QAError, match=r"tiny_encoder .*was not trained to answer questions"):
        ask(cache, questions, features, tiny_encoder)
    with pytest.raises(QAError, match=r"no_such_folder is missing"):
        ask(cache, questions, features, tmp_path / "no_such_folder")


def gradients_of_one_step(model_dir, output_dir, *flags, labels=True):
    run, _ = make_run(model_dir, output_dir, *flags)
    if not labels:
        nowhere = np.zeros_like(run.features.start_position)
        run.features = dataclasses.replace(run.features, start_position=nowhere, end_position=nowhere)
    run.model.train()
    train_script.accumulate_gradients(run, np.arange(8))
    return [parameter.grad for parameter in run.model.parameters() if parameter.grad is not None]


def equal(gradients, others):
    return [torch.equal(one, other) for one, other in zip(gradients, others, strict=True)]


def test_weight_0_is_no_teacher_and_weight_1_no_labels(tiny_model, teacher, tmp_path):
    plain = gradients_of_one_step(tiny_model, tmp_path / "plain")
    flags = ("--teacher_dir", teacher, "--distillation_weight")
    assert all(equal(plain, gradients_of_one_step(tiny_model, tmp_path / "ignored", *flags, 0)))
    both = gradients_of_one_step(tiny_model, tmp_path / "both", *flags, 0.5)
    taught = gradients_of_one_step(tiny_model, tmp_path / "taught", *flags, 1)
    assert not any(equal(plain[-2:], both[-2:]) + equal(plain[-2:], taught[-2:]))
    assert all(equal(taught, gradients_of_one_step(tiny_model, tmp_path / "unlabelled", *flags, 1, labels=False)))


@pytest.fixture(scope="module")
def taught(tiny_model, teacher, tmp_path_factory):
    """The output folder of a training with two teachers."""
    output = tmp_path_factory.mktemp("taught")
    flags = ("--teacher_dir", teacher, tiny_model)
    train_here("--model_dir", tiny_model, "--output_dir", output, *SMALL, *flags)
    return output


@pytest.mark.fault("training killed and resumed")
def test_resumed_with_teachers_equals_uninterrupted(taught, tmp_path):
    shutil.copytree(taught / "checkpoint-3", tmp_path / "checkpoint-3")
    train_here("--output_dir", tmp_path, "--resume")
    assert_equal_weights(tmp_path / "checkpoint-10", taught / "checkpoint-10")
    assert_equal_weights(tmp_path / "final_model", taught / "final_model")
    assert log_without_times(tmp_path)[-1] == log_without_times(taught)[-1]


@pytest.mark.slow
def test_two_processes_learn_from_teachers_what_one_does(tiny_model, taught, teacher, tmp_path):
    """And so do they without: nothing else differs."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train.py",
        "--model_dir", tiny_model, "--output_dir", tmp_path, *SMALL, "--gradient_accumulation_steps", "1",
        "--teacher_dir", teacher, tiny_model,
    ]  # fmt: skip
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, cwd=PROJECT_ROOT)
    assert done.returncode == 0, done.stderr
    assert ", 2 processes, " in done.stdout
    assert_equal_weights(tmp_path / "final_model", taught / "final_model", rtol=0, atol=2e-4)


def test_resuming_with_another_model_in_the_teachers_place_is_refused(tiny_model, teacher, trained, tmp_path):
    shutil.copytree(teacher, tmp_path / "teacher")
    flags = ("--teacher_dir", tmp_path / "teacher")
    run, _ = make_run(tiny_model, tmp_path / "run", *flags)
    run.save()
    shutil.copyfile(trained / "checkpoint-3" / "model.safetensors", tmp_path / "teacher" / "model.safetensors")
    with pytest.raises(QAError, match="the models in --teacher_dir are others than before"):
        train_here("--output_dir", tmp_path / "run", "--resume")
