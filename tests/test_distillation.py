"""Teachers: what is kept is what they said, the loss is the formula's, and nothing else of a training changes."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import save_tiny_model
from scripts import PROJECT_ROOT, assert_refused, run_script
from small_training import SMALL, assert_equal_weights, log_without_times, make_run, train_script, weights

from utils import feature_cache
from utils.averaging import WeightAverage
from utils.console import UserError
from utils.distillation import (
    Teachers,
    ask_teachers,
    carried_over,
    distillation_losses,
    log_probabilities,
    token_splits,
)
from utils.reader import Reader
from utils.windows import load_tokenizer, prepare_train_features, prepare_validation_features

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


def ask(cache, questions, features, *teacher_dirs):
    return ask_teachers(teacher_dirs, questions, features, **SETTINGS, device="cpu", precision="no", folder=cache)


def said_by(folder, features, i):
    """The log-probabilities (tokens, 2) of one window, computed on its own."""
    rows, start, end = Reader(folder, "cpu", "no", settings=SETTINGS).logits(features, [i])
    logits = torch.tensor(np.stack([start[0], end[0]]))[:, : len(rows[0]["input_ids"])]
    return logits.log_softmax(-1).T.numpy()


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
    teachers = ask(cache, questions, features, teacher)
    splits = token_splits(features)
    logits = torch.tensor(np.array(teachers.log_probabilities[0][: splits[1]], dtype=np.float32).T)[:, None]
    targets = torch.tensor(teachers.probabilities([0], logits.shape[-1], 2.0))
    logits.requires_grad_()
    loss = distillation_losses(*logits, targets, torch.ones(1, logits.shape[-1]), 2.0)
    assert abs(loss.item()) < 1e-6
    loss.sum().backward()
    assert logits.grad.abs().max() < 1e-6


def test_what_is_kept_is_what_the_teacher_says_and_it_is_asked_once(cache, questions, features, teacher, monkeypatch):
    computed = ask(cache, questions, features, teacher).log_probabilities[0]
    monkeypatch.setattr("utils.distillation.Reader", None)  # it may not be asked again
    kept = ask(cache, questions, features, teacher).log_probabilities[0]
    assert isinstance(kept, np.memmap)
    assert kept.dtype == np.float16
    np.testing.assert_array_equal(kept, computed)
    splits = token_splits(features)
    for i in (0, len(features) // 2, len(features) - 1):
        # half precision keeps 11 bits; batches are padded otherwise, within rounding
        np.testing.assert_allclose(kept[splits[i] : splits[i + 1]], said_by(teacher, features, i), rtol=2e-3, atol=1e-3)
    (path,) = cache.iterdir()
    del kept
    path.rename(path.with_suffix(".moved"))  # Windows would refuse this, were the file still mapped


def test_a_damaged_file_is_computed_anew(cache, questions, features, teacher):
    expected = np.array(ask(cache, questions, features, teacher).log_probabilities[0])
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    content[-5] ^= 64
    path.write_bytes(content)
    np.testing.assert_array_equal(ask(cache, questions, features, teacher).log_probabilities[0], expected)
    content[-5] ^= 64
    assert path.read_bytes() == content


def test_other_teachers_windows_and_precisions_have_files_of_their_own(cache, questions, features, teacher, tiny_model):
    ask(cache, questions, features, teacher, tiny_model)
    fewer = prepare_train_features(questions[:6], load_tokenizer(tiny_model), **SETTINGS)
    ask(cache, questions[:6], fewer, teacher)
    ask_teachers([teacher], questions, features, **SETTINGS, device="cpu", precision="bf16", folder=cache)
    assert len(list(cache.iterdir())) == 4


def test_several_teachers_are_averaged_as_probabilities():
    class Features:
        lengths = np.array([3, 2])

    one = np.log([[0.7, 0.2], [0.2, 0.2], [0.1, 0.6], [0.5, 0.9], [0.5, 0.1]]).astype(np.float16)
    other = np.log([[0.1, 0.4], [0.8, 0.4], [0.1, 0.2], [0.3, 0.5], [0.7, 0.5]]).astype(np.float16)
    found = Teachers(Features, [one, other], []).probabilities([1, 0], 4, 1.0)
    start, end = [[0.4, 0.6, 0, 0], [0.4, 0.5, 0.1, 0]], [[0.7, 0.3, 0, 0], [0.3, 0.3, 0.4, 0]]
    np.testing.assert_allclose(found, [start, end], atol=1e-3)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)
    softer = Teachers(Features, [one], []).probabilities([0], 3, 2.0)[0, 0]
    np.testing.assert_allclose(softer, np.sqrt([0.7, 0.2, 0.1]) / np.sqrt([0.7, 0.2, 0.1]).sum(), atol=1e-3)


def test_teachers_that_can_not_teach_are_refused_by_name(cache, questions, features, tiny_encoder, teacher, tmp_path):
    with pytest.raises(UserError, match=r"tiny_encoder .*was not trained to answer questions"):
        ask(cache, questions, features, tiny_encoder)
    with pytest.raises(UserError, match=r"no_such_folder is missing.*download_data.py --teacher"):
        ask(cache, questions, features, tmp_path / "no_such_folder")
    longer = SETTINGS | {"max_length": 1024}
    with pytest.raises(UserError, match=r"config.json: .*1024"):
        ask_teachers([teacher], questions, prepare_train_features(questions, load_tokenizer(teacher), **longer),
                     **longer, device="cpu", precision="no", folder=cache)  # fmt: skip


def test_what_is_carried_over_by_characters_is_what_was_said_of_them(questions, features, teacher):
    """A reader of the same tokens, asked about the text of each window, says of it what it says of the window."""
    reader = Reader(teacher, "cpu", "no", settings=SETTINGS)
    expected, found = log_probabilities(reader, features), carried_over(reader, questions, features)
    splits = token_splits(features)
    compared = 0
    for i, row in enumerate(features):
        begin, end = row["offsets"][[row["context_start"], row["context_end"] - 1]].ravel()[[0, -1]]
        context = questions[row["example_index"]]["context"]
        if (begin and context[begin - 1].isalnum()) or context[end : end + 1].isalnum():
            continue  # a word is cut in two there, and reads otherwise alone
        own = slice(splits[i], splits[i + 1])
        answers = [0, *range(row["context_start"], row["context_end"])]
        wanted = np.exp(expected[own][answers].astype(float))
        np.testing.assert_allclose(np.exp(found[own][answers].astype(float)), wanted / wanted.sum(0), atol=2e-3)
        assert (np.delete(found[own], answers, axis=0) < -5e4).all()
        compared += 1
    assert compared > 10


def test_a_teacher_with_other_tokens_teaches_the_places_it_means(cache, questions, features, tokenizer_dir, tmp_path):
    foreign = save_tiny_model(tmp_path / "foreign", tokenizer_dir, with_head=True)
    (said,) = ask(cache, questions, features, foreign).log_probabilities
    splits, longest = token_splits(features), {"max_length": 512, "doc_stride": 32}
    reader = Reader(foreign, "cpu", "no", settings=longest)
    for i, row in enumerate(features):
        context = row["offsets"][row["context_start"] : row["context_end"]]
        question = questions[row["example_index"]]
        begin, end = context[0, 0], context[-1, 1]
        piece = {"question": question["question"], "context": question["context"][begin:end]}
        ((theirs,), *logits) = reader.logits(prepare_validation_features([piece], reader.tokenizer, **longest), [0])
        for side in range(2):
            by_place = dict(zip((theirs["offsets"][:, side] + begin).tolist(), logits[side][0].tolist(), strict=False))
            tokens = {n: by_place[at] for n, at in enumerate(row["offsets"][:, side]) if at >= 0 and at in by_place}
            assert len(tokens) > len(context) / 4
            scores = torch.tensor([logits[side][0][0], *tokens.values()]).log_softmax(0)
            np.testing.assert_allclose(said[splits[i] : splits[i + 1]][[0, *tokens], side], scores, atol=0.02)
    assert np.isfinite(said).all()


def gradients_of_one_step(model_dir, output_dir, *flags):
    run, _ = make_run(model_dir, output_dir, *flags)
    run.model.train()
    train_script.accumulate_gradients(run, np.arange(8))
    return [parameter.grad for parameter in run.model.parameters() if parameter.grad is not None]


def test_weight_0_is_no_teacher_and_weight_1_no_labels(tiny_model, teacher, tmp_path):
    plain = gradients_of_one_step(tiny_model, tmp_path / "plain")
    flags = ("--teacher_dir", teacher, "--distillation_weight")
    ignored = gradients_of_one_step(tiny_model, tmp_path / "ignored", *flags, 0)
    assert all(torch.equal(one, other) for one, other in zip(plain, ignored, strict=True))
    obeyed = gradients_of_one_step(tiny_model, tmp_path / "obeyed", *flags, 0.5)
    assert not any(torch.equal(one, other) for one, other in zip(plain[-2:], obeyed[-2:], strict=True))
    # a student who is its teacher: nothing to learn without labels
    itself = gradients_of_one_step(tiny_model, tmp_path / "itself", "--teacher_dir", tiny_model, *flags[-1:], 1)
    assert max(gradient.abs().max() for gradient in itself) < 1e-3 * max(gradient.abs().max() for gradient in plain)


@pytest.fixture(scope="module")
def taught(tiny_model, teacher, tmp_path_factory):
    """The output folder of a training with two teachers and averaged weights."""
    output = tmp_path_factory.mktemp("taught")
    flags = ("--teacher_dir", teacher, tiny_model, "--ema_decay", 0.8)
    run_script("train.py", "--model_dir", tiny_model, "--output_dir", output, *SMALL, *flags)
    return output


@pytest.mark.fault("training killed and resumed")
def test_resumed_with_teachers_and_averaged_weights_equals_uninterrupted(taught, tmp_path):
    shutil.copytree(taught / "checkpoint-3", tmp_path / "checkpoint-3")
    run_script("train.py", "--output_dir", tmp_path, "--resume")
    assert_equal_weights(tmp_path / "checkpoint-10", taught / "checkpoint-10")
    assert_equal_weights(tmp_path / "final_model", taught / "final_model")
    assert log_without_times(tmp_path)[-1] == log_without_times(taught)[-1]


def test_two_processes_learn_from_teachers_what_one_does(tiny_model, taught, teacher, tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train.py",
        "--model_dir", tiny_model, "--output_dir", tmp_path, *SMALL, "--gradient_accumulation_steps", "1",
        "--teacher_dir", teacher, tiny_model, "--ema_decay", "0.8",
    ]  # fmt: skip
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, cwd=PROJECT_ROOT)
    assert done.returncode == 0, done.stderr
    assert_equal_weights(tmp_path / "final_model", taught / "final_model", rtol=0, atol=2e-4)


def test_resuming_with_another_model_in_the_teachers_place_is_refused(tiny_model, teacher, trained, tmp_path):
    shutil.copytree(teacher, tmp_path / "teacher")
    flags = ("--teacher_dir", tmp_path / "teacher")
    run, _ = make_run(tiny_model, tmp_path / "run", *flags)
    run.save()
    shutil.copyfile(trained / "checkpoint-3" / "model.safetensors", tmp_path / "teacher" / "model.safetensors")
    assert_refused(
        run_script("train.py", "--output_dir", tmp_path / "run", "--resume", code=None),
        "the models in --teacher_dir (were others)",
    )


# averaged weights


def test_the_average_is_the_formula_and_the_model_gets_its_own_weights_back():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    average = WeightAverage(model, 0.5)
    expected = model.weight.detach().double()
    for step in range(1, 20):
        with torch.no_grad():
            model.weight += torch.randn(2, 3)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach().double()
    own = model.weight.detach().clone()
    with pytest.raises(KeyboardInterrupt), average.in_place():
        torch.testing.assert_close(model.weight.detach().double(), expected, rtol=1e-6, atol=1e-6)
        raise KeyboardInterrupt
    assert torch.equal(model.weight.detach(), own)
    torch.testing.assert_close(average.tensors[0].double(), expected, rtol=1e-6, atol=1e-6)


def test_averaged_weights_are_what_is_scored_and_saved_and_change_no_step(tiny_model, trained, tmp_path):
    run_script("train.py", "--model_dir", tiny_model, "--output_dir", tmp_path, *SMALL, "--ema_decay", 0.9)
    assert_equal_weights(tmp_path / "checkpoint-10", trained / "checkpoint-10")
    averages = torch.load(tmp_path / "checkpoint-10" / "optimizer.pt", weights_only=True)["average"]
    first = torch.load(tmp_path / "checkpoint-5" / "optimizer.pt", weights_only=True)["average"]
    final = weights(tmp_path / "final_model")
    names = [name for name, _ in make_run(tiny_model, tmp_path / "names")[0].model.named_parameters()]
    of_epochs = [all(torch.equal(final[n], t) for n, t in zip(names, some, strict=True)) for some in (first, averages)]
    assert any(of_epochs)
    assert any(not torch.equal(final[name], tensor) for name, tensor in weights(tmp_path / "checkpoint-10").items())
