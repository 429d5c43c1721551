"""train.py: what is learned depends on data, seed and settings alone; nothing is lost; what fails says so."""

import argparse
import importlib.util
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scripts import PROJECT_ROOT, assert_refused, run_script
from small_training import (
    DEV,
    SMALL,
    TRAIN,
    assert_equal_weights,
    flip_bit,
    log_without_times,
    make_run,
    mark_complete,
    train_script,
    weights,
)
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, MobileBertModel

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.metrics import exact_matches
from extractive_qa.postprocessing.calibration import TEMPERATURES, fit_confidence
from extractive_qa.preprocessing.windows import prepare_validation_features
from extractive_qa.reader import Reader
from extractive_qa.report.charts import draw_training_curve
from extractive_qa.training import log as training_log
from extractive_qa.training import run as training
from extractive_qa.training.finite_guard import MAX_BAD_STEPS, FiniteGuard
from extractive_qa.training.run import Training

# what is left behind


def test_training_leaves_the_files_it_promises(trained):
    for_tensorboard = {"runs"} if importlib.util.find_spec("tensorboard") else set()
    assert {path.name for path in trained.iterdir()} == for_tensorboard | {
        "checkpoint-3", "checkpoint-5", "checkpoint-6", "checkpoint-9", "checkpoint-10", "final_model",
        "training_curve.png", "training_log.jsonl",
    }  # fmt: skip
    assert {"config.json", "model.safetensors", "tokenizer.json", "reader.json"} <= {
        path.name for path in (trained / "final_model").iterdir()
    }
    settings = json.loads((trained / "final_model" / "reader.json").read_text(encoding="utf-8"))
    assert (settings["max_length"], settings["doc_stride"]) == (384, 128)
    assert settings["training"]["learning_rate"] == 1e-3
    assert str(PROJECT_ROOT) not in json.dumps(settings)  # the folder may travel
    lines = log_without_times(trained)
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6, 8, 10]
    assert [line["step"] for line in lines if "f1" in line] == [5, 10]
    assert all(math.isfinite(line["loss"]) for line in lines if "loss" in line)


def test_final_model_is_the_best_epoch(trained):
    scores = {line["step"]: line["f1"] for line in log_without_times(trained) if "f1" in line}
    best = max(scores, key=lambda step: (scores[step], step))
    assert_equal_weights(trained / "final_model", trained / f"checkpoint-{best}")


def test_confidences_stay_as_trained_where_fitting_makes_their_error_larger(tmp_path):
    """As may happen with few questions: what fits best by log loss need not by the error of its bins."""
    saved = []
    run = SimpleNamespace(args=SimpleNamespace(output_dir=tmp_path), write_model=lambda *given: saved.append(given))
    probabilities = np.full((len(TEMPERATURES), 4), 0.5)
    correct = np.array([True, False, True, False])
    probabilities[0] = [0.6, 0.4, 0.6, 0.4]  # never quite wrong: the least loss, and a larger error
    probabilities[np.searchsorted(TEMPERATURES, 1.0)] = [1.0, 1e-9, 1.0, 0.9999999]
    Training.save_final_model(run, {"f1": 1.0}, probabilities, correct)
    ((_, scores, temperature, references),) = saved
    assert (scores, temperature, references) == ({"f1": 1.0}, 1.0, 1.0)


def test_final_model_has_the_confidences_that_fit_the_scored_questions(trained):
    """Fitted anew from its answers as trained; and a reader of the folder answers with what was fitted."""
    fitted = json.loads((trained / "final_model" / "reader.json").read_text(encoding="utf-8"))
    reader, examples = Reader(trained / "final_model", "cpu", "no", batch_size=32), read_examples(DEV)[:8]
    answers = [best for (best,) in reader.answer_all(examples, temperatures=TEMPERATURES)]
    predictions = {example["id"]: answer["text"] for example, answer in zip(examples, answers, strict=True)}
    probability = np.array([answer["probabilities"] for answer in answers]).T
    temperature, references = fit_confidence(probability, np.array(exact_matches(predictions, examples)))
    assert (fitted["temperature"], fitted["references"]) == (temperature, references) != (1.0, 1.0)
    assert (reader.settings["temperature"], reader.settings["references"]) == (temperature, references)
    checkpoint = json.loads((trained / "checkpoint-3" / "reader.json").read_text(encoding="utf-8"))
    assert (checkpoint["temperature"], checkpoint["references"]) == (1.0, 1.0)  # nothing was scored yet


def test_training_reduces_the_loss(tiny_model, tmp_path):
    run_script("train.py", "--model_dir", tiny_model, "--output_dir", tmp_path, *SMALL, "--num_train_epochs", 12)
    losses = [line["loss"] for line in log_without_times(tmp_path) if "loss" in line]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_final_model_gives_the_same_logits_in_plain_transformers(trained):
    folder = trained / "final_model"
    model = AutoModelForQuestionAnswering.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    reader = Reader(folder, "cpu", "no")
    examples = read_examples(DEV)[:4]
    features = prepare_validation_features(examples, reader.tokenizer, 384, 128)
    rows, start_logits, end_logits = reader.logits(features, range(len(features)))
    for i, row in enumerate(rows):
        example, size = examples[row["example_index"]], len(row["input_ids"])
        inputs = tokenizer(
            example["question"], example["context"], padding="max_length", max_length=384, return_tensors="pt",
            return_token_type_ids=True,
        )  # fmt: skip
        assert inputs["input_ids"][0, :size].tolist() == row["input_ids"].tolist()
        with torch.no_grad():
            output = model(**inputs)
        np.testing.assert_allclose(start_logits[i, :size], output.start_logits[0, :size], atol=1e-4)
        np.testing.assert_allclose(end_logits[i, :size], output.end_logits[0, :size], atol=1e-4)


# equal runs


def test_same_seed_gives_the_same_weights_and_log(tiny_model, trained, tmp_path):
    run_script("train.py", "--model_dir", tiny_model, "--output_dir", tmp_path, *SMALL)
    assert_equal_weights(tmp_path / "checkpoint-10", trained / "checkpoint-10")
    assert log_without_times(tmp_path) == log_without_times(trained)


def test_another_seed_gives_other_weights(tiny_model, trained, tmp_path):
    run_script("train.py", "--model_dir", tiny_model, "--output_dir", tmp_path, *SMALL, "--seed", 7)
    first, second = weights(tmp_path / "checkpoint-10"), weights(trained / "checkpoint-10")
    assert any(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.fault("training killed and resumed")
@pytest.mark.parametrize("step", [3, 5])  # in the middle of an epoch, and at its end before the evaluation
def test_resumed_equals_uninterrupted_bit_for_bit(trained, tmp_path, step):
    shutil.copytree(trained / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    lines = (trained / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if json.loads(line)["step"] <= step and "f1" not in line]
    kept.append('{"step": 8, "loss": 1.0}')  # from after the checkpoint, to be cut
    kept.append('{"step": 9, "lo')  # torn by a crash
    (tmp_path / "training_log.jsonl").write_text("\n".join(kept), encoding="utf-8")
    done = run_script("train.py", "--output_dir", tmp_path, "--resume")
    assert f"after step {step}" in done.stdout
    assert "1 line(s) can't be read" in done.stderr
    assert_equal_weights(tmp_path / "checkpoint-10", trained / "checkpoint-10")
    assert log_without_times(tmp_path) == log_without_times(trained)
    one, other = (
        json.loads((output / "final_model" / "reader.json").read_text(encoding="utf-8"))
        for output in (tmp_path, trained)
    )
    assert {**one, "training": None} == {**other, "training": None}


@pytest.mark.fault("training killed and resumed")
def test_changing_the_micro_batch_on_resume_stays_within_rounding(trained, tmp_path):
    shutil.copytree(trained / "checkpoint-3", tmp_path / "checkpoint-3")
    run_script(
        "train.py", "--output_dir", tmp_path, "--resume", "--per_device_train_batch_size", 2,
        "--gradient_accumulation_steps", 4,
    )  # fmt: skip
    assert_equal_weights(tmp_path / "checkpoint-10", trained / "checkpoint-10", rtol=0, atol=2e-4)


@pytest.mark.fault("damaged checkpoint")
def test_damaged_checkpoints_are_passed_over(trained, tmp_path, record_property):
    """One bit, which no size tells: of the optimizer's state in the newest, of the weights in the one before."""
    record_property("tried", 2)
    for step, name in ((3, None), (5, "model.safetensors"), (6, "optimizer.pt")):
        shutil.copytree(trained / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
        if name:
            flip_bit(tmp_path / f"checkpoint-{step}" / name)
    done = run_script("train.py", "--output_dir", tmp_path, "--resume")
    assert done.stderr.count("warning:") == 2
    assert "checkpoint-6 is damaged: optimizer.pt has sha256" in done.stderr
    assert "checkpoint-5 is damaged: model.safetensors has sha256" in done.stderr
    assert "after step 3" in done.stdout
    assert_equal_weights(tmp_path / "checkpoint-10", trained / "checkpoint-10")


@pytest.mark.fault("interruption")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_training_saves_and_goes_on(tiny_model, tmp_path, number):
    flags = [*map(str, SMALL), "--num_train_epochs", "200", "--save_steps", "1000"]
    command = [sys.executable, str(PROJECT_ROOT / "train.py"), "--model_dir", str(tiny_model), "--output_dir",
               str(tmp_path), *flags]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        log = tmp_path / "training_log.jsonl"
        while not (log.exists() and log.stat().st_size) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error.decode()
    message = error.decode().strip().splitlines()[-1]
    assert "Go on with: python train.py --resume" in message
    step = int(message.split("after step ")[1].split(",")[0])
    assert (tmp_path / f"checkpoint-{step}" / "complete.json").exists()
    done = run_script("train.py", "--output_dir", tmp_path, "--resume", "--max_steps", 5, code=None)
    assert_refused(done, "--max_steps 5 (was -1)")  # that would be another training


def test_two_processes_learn_what_one_does(tiny_model, trained, tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        str(PROJECT_ROOT / "train.py"), "--model_dir", str(tiny_model), "--output_dir", str(tmp_path),
        *map(str, SMALL), "--gradient_accumulation_steps", "1",
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=PROJECT_ROOT)
    assert done.returncode == 0, done.stderr
    assert "2 process(es)" in done.stdout
    assert_equal_weights(tmp_path / "checkpoint-10", trained / "checkpoint-10", rtol=0, atol=2e-4)


# the micro-batch: found, or halved


def test_auto_on_a_cpu_trains_as_its_default_and_is_resumed_as_it_was(tiny_model, trained, tmp_path):
    auto = ("--per_device_train_batch_size", "auto")
    done = run_script("train.py", "--model_dir", tiny_model, "--output_dir", tmp_path / "run", *SMALL, *auto)
    assert "4 windows at once, accumulated 2 times" in done.stderr
    assert "per_device_train_batch_size=4" in done.stdout
    assert_equal_weights(tmp_path / "run" / "checkpoint-10", trained / "checkpoint-10")
    shutil.copytree(tmp_path / "run" / "checkpoint-3", tmp_path / "resumed" / "checkpoint-3")
    run_script("train.py", "--output_dir", tmp_path / "resumed", "--resume", *auto)
    assert_equal_weights(tmp_path / "resumed" / "checkpoint-10", trained / "checkpoint-10")


def test_a_resumed_run_keeps_the_micro_batch_that_auto_found(trained, tmp_path):
    shutil.copytree(trained / "checkpoint-3", tmp_path / "checkpoint-3")
    path = tmp_path / "checkpoint-3" / "state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    state["settings"] |= {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    path.write_text(json.dumps(state, indent=1), encoding="utf-8")
    mark_complete(tmp_path / "checkpoint-3")
    for flags in ((), ("--per_device_train_batch_size", "auto")):
        args = train_script.parse_args(["--output_dir", str(tmp_path), "--resume", *flags])
        assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (8, 1)


def test_what_auto_finds_is_what_is_trained_with(tiny_model, trained, tmp_path, monkeypatch, capsys):
    asked = []

    def two_fit(micro_batch_size, accumulation, *_):
        asked.append((micro_batch_size, accumulation))
        return 2, 4

    monkeypatch.setattr(train_script, "choose_micro_batch", two_fit)
    flags = [*map(str, SMALL), "--model_dir", str(tiny_model), "--output_dir", str(tmp_path)]
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        train_script.main([*flags, "--per_device_train_batch_size", "auto"])
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
            signal.signal(number, handler)
    assert asked == [(4, 2)]
    said = capsys.readouterr().out
    assert "per_device_train_batch_size=2" in said
    assert "gradient_accumulation_steps=4" in said
    assert "8 windows, 2 at once" in said
    assert_equal_weights(tmp_path / "checkpoint-10", trained / "checkpoint-10", rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    "flags", [("--per_device_train_batch_size", "auto5"), ("--per_device_train_batch_size", "0"),
              ("--per_device_train_batch_size", "-4"), ("--max_gpu_memory", "0"), ("--max_gpu_memory", "-1"),
              ("--max_gpu_memory", "nan")]
)  # fmt: skip
def test_a_micro_batch_or_a_cap_that_can_not_be_is_refused(tmp_path, flags):
    assert_refused(run_script("train.py", *flags, "--output_dir", tmp_path / "new", code=2), *flags)
    assert not (tmp_path / "new").exists()


# one effective batch


@pytest.mark.parametrize("micro_batch_size", [1, 3, 4])
def test_accumulated_gradients_equal_the_full_batch(tiny_model, tmp_path, micro_batch_size):
    run, _ = make_run(tiny_model, tmp_path)
    batch = np.arange(8)
    gradients = []
    for size in (8, micro_batch_size):
        run.micro_batch_size = size
        loss = train_script.accumulate_gradients(run, batch)
        gradients.append([parameter.grad.clone() for parameter in run.model.parameters()] + [loss])
        run.optimizer.zero_grad()
    for full, accumulated in zip(*gradients, strict=True):
        torch.testing.assert_close(accumulated, full, rtol=1e-4, atol=1e-6)


def test_running_out_of_memory_halves_the_micro_batch_and_learns_the_same(tiny_model, trained, tmp_path, monkeypatch):
    run, log = make_run(tiny_model, tmp_path)
    forward = run.model.forward

    def forward_with_room_for_two(input_ids, **inputs):
        if run.model.training and len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(input_ids=input_ids, **inputs)

    monkeypatch.setattr(run.model, "forward", forward_with_room_for_two)
    train_script.train(run, log, tqdm(disable=True))
    assert run.micro_batch_size == 2
    state = json.loads((tmp_path / "checkpoint-10" / "state.json").read_text(encoding="utf-8"))
    assert state["micro_batch_size"] == 2
    assert_equal_weights(tmp_path / "checkpoint-10", trained / "checkpoint-10", rtol=0, atol=2e-4)


def test_running_out_of_memory_with_one_window_says_what_to_do(tiny_model, tmp_path, monkeypatch):
    run, log = make_run(tiny_model, tmp_path)

    def no_room(**_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(run.model, "forward", no_room)
    with pytest.raises(QAError, match="--gradient_checkpointing"):
        train_script.train(run, log, tqdm(disable=True))


def test_gradient_checkpointing_learns_the_same_and_warns_of_nothing(tiny_model, trained, tmp_path):
    flags = ("--model_dir", tiny_model, "--output_dir", tmp_path, *SMALL, "--gradient_checkpointing")
    if not MobileBertModel.supports_gradient_checkpointing:  # before transformers 5
        assert_refused(run_script("train.py", *flags, code=2), "--gradient_checkpointing", "mobilebert")
        return
    assert "Warning" not in run_script("train.py", *flags).stderr
    assert_equal_weights(tmp_path / "checkpoint-10", trained / "checkpoint-10", rtol=0, atol=1e-6)


# waiting and compiling


class CountWaits(TorchDispatchMode):
    """Counts what would make the host wait for a GPU: a value fetched from a tensor, or a shape that depends on one."""

    NAMES = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "aten.equal", "unique")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(name in str(function) for name in self.NAMES):
            self.found.append(str(function))
        return function(*args, **kwargs or {})


def test_a_step_waits_for_the_device_once(tiny_model, tmp_path, monkeypatch):
    """Counted on the CPU, where nothing waits: fetched values are. transformers' sdpa fetches one for each micro-batch
    unless never_wait_for_masks was called, as it is on a GPU."""
    from transformers import AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    monkeypatch.setattr(train_script, "attend_window_by_window", lambda model: None)  # not on a GPU
    run, log = make_run(tiny_model, tmp_path)
    monkeypatch.setattr(train_script.Training, "save", lambda self: None)
    monkeypatch.setattr(
        train_script.Training, "evaluate", lambda self, log: log.write({"step": self.step, "epoch": 0, "f1": 0})
    )
    fetched, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: fetched.append(1) or tolist(tensor))
    train_script.never_wait_for_masks()
    try:
        with CountWaits() as waits:
            train_script.train(run, log, tqdm(disable=True))
    finally:
        AttentionMaskInterface.register("sdpa", sdpa_mask)
    assert run.step == 10
    assert len(fetched) == run.step
    assert waits.found == []


def test_masks_made_without_asking_change_no_logits(tiny_model):
    from transformers import AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    reader = Reader(tiny_model, "cpu", "no")
    features = prepare_validation_features(read_examples(DEV)[:6], reader.tokenizer, 64, 16)
    _, *expected = reader.logits(features, range(len(features)))
    train_script.never_wait_for_masks()
    try:
        _, *found = reader.logits(features, range(len(features)))
    finally:
        AttentionMaskInterface.register("sdpa", sdpa_mask)
    np.testing.assert_allclose(np.stack(found), np.stack(expected), atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
@pytest.mark.skipif(sys.platform != "linux", reason="where the compiler is called g++")
def test_compiled_training_learns_the_same_under_plain_names_and_is_resumed(tiny_model, trained, tmp_path):
    done = run_script("train.py", "--model_dir", tiny_model, "--output_dir", tmp_path / "run", *SMALL, "--compile")
    assert "compile=True" in done.stdout
    assert_equal_weights(tmp_path / "run" / "checkpoint-10", trained / "checkpoint-10", rtol=0, atol=2e-4)
    shutil.copytree(tmp_path / "run" / "checkpoint-9", tmp_path / "resumed" / "checkpoint-9")
    done = run_script("train.py", "--output_dir", tmp_path / "resumed", "--resume")
    assert "compile=True" in done.stdout
    # not bit for bit: what is compiled depends on the lengths that come first
    assert_equal_weights(tmp_path / "resumed" / "checkpoint-10", tmp_path / "run" / "checkpoint-10", rtol=0, atol=2e-4)
    final = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "run" / "final_model", local_files_only=True)
    assert final.state_dict().keys() == weights(tmp_path / "run" / "final_model").keys()


def test_compiling_without_a_compiler_is_refused(tiny_model, tmp_path):
    done = run_script(
        "train.py", "--model_dir", tiny_model, *SMALL, "--output_dir", tmp_path / "new", "--compile", code=2,
        CXX="no-such-compiler",
    )  # fmt: skip
    assert_refused(done, "--compile needs a C++ compiler", "no-such-compiler", "leave --compile out")


# the guard


@pytest.mark.fault("NaN or infinity")
def test_a_step_that_is_not_finite_never_reaches_the_weights(tiny_model, tmp_path, monkeypatch):
    run, log = make_run(tiny_model, tmp_path, "--save_steps", 1)
    forward = run.model.forward
    micro_batches_seen = []

    def infinite_at_the_fourth_step(**inputs):
        output = forward(**inputs)
        if run.model.training:
            micro_batches_seen.append(1)
            if len(micro_batches_seen) == 8:  # two micro-batches a step
                output.start_logits = output.start_logits * torch.inf
        return output

    monkeypatch.setattr(run.model, "forward", infinite_at_the_fourth_step)
    train_script.train(run, log, tqdm(disable=True))
    assert_equal_weights(tmp_path / "checkpoint-4", tmp_path / "checkpoint-3")
    with pytest.raises(AssertionError):
        assert_equal_weights(tmp_path / "checkpoint-5", tmp_path / "checkpoint-4")
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "checkpoint-10").values())


@pytest.mark.fault("NaN or infinity")
def test_a_training_that_keeps_failing_stops_and_says_why(tiny_model, tmp_path, monkeypatch):
    run, log = make_run(tiny_model, tmp_path, "--num_train_epochs", 9)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    forward = run.model.forward

    def always_nan(**inputs):
        output = forward(**inputs)
        output.end_logits = output.end_logits * torch.nan
        return output

    monkeypatch.setattr(run.model, "forward", always_nan)
    monkeypatch.setattr(training, "compute_metrics", None)  # an evaluation would come too late
    monkeypatch.setattr(
        train_script.Training, "evaluate", lambda self, log: log.write({"step": self.step, "epoch": 0, "f1": 0})
    )
    with pytest.raises(QAError, match="20 steps in a row without a finite loss"):
        train_script.train(run, log, tqdm(disable=True))
    assert all(torch.equal(before[name], tensor) for name, tensor in run.model.state_dict().items())


def test_a_loss_of_exactly_zero_stops_the_training(tiny_model, tmp_path, monkeypatch):
    run, log = make_run(tiny_model, tmp_path)
    monkeypatch.setattr(train_script, "window_losses", lambda start, end, batch: (start + end).sum(1) * 0)
    with pytest.raises(QAError, match="3 steps in a row with a loss of exactly 0"):
        train_script.train(run, log, tqdm(disable=True))


@pytest.mark.fault("NaN or infinity")
def test_mobilebert_that_overflows_fp16_is_caught(tiny_model, tmp_path, monkeypatch):
    """As transformers #11327: activations beyond 65,504. Under CPU autocast, since fp16 training needs a GPU."""
    run, log = make_run(tiny_model, tmp_path, "--num_train_epochs", 9)
    with torch.no_grad():
        for name, parameter in run.model.named_parameters():
            if "LayerNorm.weight" in name:  # MobileBERT's NoNorm: a plain scale, nothing brings it back
                parameter.mul_(30.0)
    forward = run.model.forward

    def in_half_precision(**inputs):
        with torch.autocast("cpu", torch.float16):
            return forward(**inputs)

    monkeypatch.setattr(run.model, "forward", in_half_precision)
    monkeypatch.setattr(
        train_script.Training, "evaluate", lambda self, log: log.write({"step": self.step, "epoch": 0, "f1": 0})
    )
    with pytest.raises(QAError, match="without a finite loss"):
        train_script.train(run, log, tqdm(disable=True))


def test_fp16_faults_are_explained_as_such():
    guard = FiniteGuard("fp16")
    with pytest.raises(QAError, match=r"65,504.*--bf16"):
        for step in range(MAX_BAD_STEPS):
            guard.check(step, math.nan, math.nan)


@pytest.mark.fault("NaN or infinity")
def test_the_guard_forgives_a_bad_step_among_good_ones():
    guard = FiniteGuard("no")
    for step in range(10 * MAX_BAD_STEPS):
        bad = step % 5 == 4
        assert guard.check(step, math.inf if bad else 1.0, 1.0) is not bad


# settings


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_learning_rate_rises_to_its_peak_and_falls_to_zero(kind):
    args = argparse.Namespace(learning_rate=4e-5, warmup_ratio=0.1, lr_scheduler_type=kind)
    rates = [train_script.learning_rate_at(step, 1000, args) for step in range(1000)]
    peak = int(np.argmax(rates))
    assert peak == 100
    assert rates[peak] == 4e-5
    assert rates[: peak + 1] == sorted(set(rates[: peak + 1]))
    assert rates[peak:] == sorted(set(rates[peak:]), reverse=True)
    assert 0 < rates[0] < 1e-6
    assert 0 < rates[-1] < 1e-7


def test_a_preset_sets_defaults_and_flags_win():
    plain = train_script.parse_args([])
    assert (plain.num_train_epochs, plain.learning_rate) == (3, 3e-5)
    assert plain.per_device_train_batch_size * plain.gradient_accumulation_steps == 16
    paper = train_script.parse_args(["--preset", "paper"])
    assert (paper.num_train_epochs, paper.learning_rate) == (5, 4e-5)
    assert paper.per_device_train_batch_size * paper.gradient_accumulation_steps == 32
    mixed = train_script.parse_args(["--preset", "paper", "--learning_rate", "3e-5"])
    assert (mixed.num_train_epochs, mixed.learning_rate) == (5, 3e-5)
    assert train_script.parse_args(["--bf16"]).mixed_precision == "bf16"
    best = train_script.parse_args(["--preset", "best"])
    assert (best.num_train_epochs, best.teacher_dir) == (5, [train_script.TEACHER_DIR])
    other = train_script.parse_args(["--preset", "best", "--teacher_dir", "a", "b"])
    assert other.teacher_dir == [Path("a"), Path("b")]


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("--max_steps", ["0", "-2"]), ("--learning_rate", ["0", "inf", "nan"]), ("--adam_epsilon", ["0"]),
        ("--weight_decay", ["-0.1", "inf"]), ("--max_grad_norm", ["-1", "nan"]), ("--warmup_ratio", ["-0.1", "1.1"]),
        ("--seed", ["-1", str(2**63)]), ("--save_steps", ["0"]), ("--save_total_limit", ["0"]),
        ("--logging_steps", ["0"]), ("--max_train_samples", ["0"]), ("--max_eval_samples", ["0"]),
        ("--max_answer_length", ["0"]), ("--gradient_accumulation_steps", ["0"]), ("--max_length", ["15"]),
        ("--doc_stride", ["-1"]), ("--per_device_eval_batch_size", ["0"]),
        ("--distillation_weight", ["-0.1", "1.1", "nan"]), ("--distillation_temperature", ["0", "inf", "nan"]),
    ],
)  # fmt: skip
def test_every_bound_of_a_setting_is_checked_by_name(flag, values):
    for value in values:
        with pytest.raises(QAError, match=rf"{flag} (is )?{re.escape(value)}"):
            train_script.parse_args([flag, value])


def test_the_least_and_the_most_that_a_setting_may_be_pass():
    least = ("--max_steps", "1", "--weight_decay", "0", "--max_grad_norm", "0", "--warmup_ratio", "0", "--seed", "0",
             "--max_length", "16", "--doc_stride", "0", "--max_train_samples", "1", "--save_steps", "1")  # fmt: skip
    assert train_script.parse_args(least).max_steps == 1
    assert train_script.parse_args(["--warmup_ratio", "1", "--seed", str(2**63 - 1)]).warmup_ratio == 1


def test_resuming_and_overwriting_exclude_each_other(trained):
    with pytest.raises(QAError, match="--resume and --overwrite_output_dir exclude each other"):
        train_script.parse_args(["--output_dir", str(trained), "--resume", "--overwrite_output_dir"])


def test_a_run_that_began_by_overwriting_is_resumed_as_any_other(trained, tmp_path):
    shutil.copytree(trained / "checkpoint-3", tmp_path / "checkpoint-3")
    state = tmp_path / "checkpoint-3" / "state.json"
    settings = json.loads(state.read_text("utf-8"))
    settings["settings"]["overwrite_output_dir"] = True
    state.write_text(json.dumps(settings), encoding="utf-8")
    mark_complete(tmp_path / "checkpoint-3")
    args = train_script.parse_args(["--output_dir", str(tmp_path), "--resume"])
    assert (args.resume, args.overwrite_output_dir) == (tmp_path / "checkpoint-3", False)


def test_the_sample_sets_its_files_and_flags_win(tmp_path):
    args = train_script.parse_args(["--sample"])
    assert (args.train_file, args.eval_file) == (TRAIN, DEV)
    assert args.output_dir == PROJECT_ROOT / "output" / "sample"
    assert args.model_dir == PROJECT_ROOT / "models" / "sample"
    args = train_script.parse_args(["--sample", "--output_dir", str(tmp_path)])
    assert (args.train_file, args.output_dir) == (TRAIN, tmp_path)


def test_all_bad_settings_are_reported_at_once(tmp_path):
    done = run_script(
        "train.py", "--learning_rate", "-1", "--num_train_epochs", 0, "--doc_stride", 400, "--warmup_ratio", 2,
        "--output_dir", tmp_path / "new", code=2,
    )  # fmt: skip
    assert_refused(done, "--learning_rate", "--num_train_epochs", "--doc_stride", "--warmup_ratio")
    assert not (tmp_path / "new").exists()


def test_fp16_without_a_gpu_is_refused(tiny_model, tmp_path):
    done = run_script(
        "train.py", "--model_dir", tiny_model, "--output_dir", tmp_path, *SMALL, "--mixed_precision", "fp16", code=2
    )
    assert_refused(done, "fp16", "CUDA", "bf16")


def test_a_folder_with_an_earlier_run_is_refused(trained, tiny_model):
    before = sorted(path.stat().st_mtime_ns for path in trained.rglob("*"))
    done = run_script("train.py", "--model_dir", tiny_model, "--output_dir", trained, *SMALL, code=2)
    assert_refused(done, "--resume", "--overwrite_output_dir", "final_model")
    assert sorted(path.stat().st_mtime_ns for path in trained.rglob("*")) == before


def test_overwriting_deletes_the_earlier_run_only_when_nothing_can_be_refused(trained, tiny_model, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    flags = ("--model_dir", tiny_model, "--output_dir", tmp_path / "run", *SMALL, "--overwrite_output_dir")
    assert_refused(run_script("train.py", *flags, "--eval_file", tmp_path / "none.json", code=2), "none.json")
    assert (tmp_path / "run" / "final_model" / "model.safetensors").exists()
    run_script("train.py", *flags, "--max_steps", 2)
    assert {path.name for path in (tmp_path / "run").glob("checkpoint-*")} == {"checkpoint-2"}


@pytest.mark.parametrize("flag", ["--model_dir", "--teacher_dir", "--train_file"])
def test_what_a_training_needs_is_not_deleted_with_the_earlier_run(trained, tiny_model, tmp_path, flag):
    shutil.copytree(trained, tmp_path / "run")
    needed = tmp_path / "run" / ("checkpoint-10/x.json" if flag == "--train_file" else "final_model")
    flags = ("--model_dir", tiny_model, "--output_dir", tmp_path / "run", *SMALL, flag, needed)
    for more in ((), ("--overwrite_output_dir",)):
        assert_refused(run_script("train.py", *flags, *more, code=2), str(needed), "--output_dir")
    assert (tmp_path / "run" / "final_model" / "model.safetensors").exists()


def test_a_run_may_go_on_in_another_precision_which_is_said(trained, tmp_path):
    """A run in fp16 whose scoring overflows could not be finished otherwise."""
    shutil.copytree(trained / "checkpoint-3", tmp_path / "checkpoint-3")
    shutil.copy(trained / "training_log.jsonl", tmp_path)
    done = run_script("train.py", "--output_dir", tmp_path, "--resume", "--bf16")
    assert "goes on in bf16, and was in no" in done.stderr
    card = (tmp_path / "final_model" / "README.md").read_text(encoding="utf-8")
    assert "| mixed_precision | bf16 |" in card


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), torch.AcceleratorError("CUDA error: out of memory")],
    ids=["torch", "driver"],
)  # fmt: skip
def test_running_out_of_memory_outside_of_a_step_says_what_to_do(tiny_model, tmp_path, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(train_script, "start_model", full)
    flags = [*map(str, SMALL), "--model_dir", str(tiny_model), "--output_dir", str(tmp_path / "run")]
    with pytest.raises(QAError, match=r"out of GPU memory.*--gradient_checkpointing"):
        train_script.main(flags)


def test_a_checkpoint_is_not_called_damaged_where_memory_runs_out(tiny_model, trained, tmp_path, monkeypatch):
    run, _ = make_run(tiny_model, tmp_path)

    def full(*_, **settings):
        assert settings["weights_only"]
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(torch.OutOfMemoryError):
        run.load_optimizer(trained / "checkpoint-3" / "optimizer.pt")


def test_what_is_not_finite_is_null_in_the_log(tmp_path):
    """As under fp16, whose scaler finds its scale by overflowing."""
    log = training_log.TrainingLog(tmp_path, 0)
    log.write({"step": 2, "epoch": 0.5, "loss": 1.5, "learning_rate": 1e-5, "grad_norm": math.inf})
    log.write({"step": 4, "epoch": 1.0, "loss": math.nan, "learning_rate": 0.0, "grad_norm": 2.0})

    def no_json(name):
        raise AssertionError(f"{name} is no JSON")

    text = (tmp_path / "training_log.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line, parse_constant=no_json) for line in text.splitlines()]
    assert [(line["loss"], line["grad_norm"]) for line in lines] == [(1.5, None), (None, 2.0)]
    assert lines == log.lines == training_log.read_log(tmp_path / "training_log.jsonl")
    draw_training_curve(log.lines, tmp_path / "curve.png")


def test_without_tensorboard_the_log_is_written_all_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it fails
    log = training_log.TrainingLog(tmp_path, 0)
    for step in (2, 4):
        log.write({"step": step, "epoch": step / 4, "loss": 1.5})
    assert [path.name for path in tmp_path.iterdir()] == ["training_log.jsonl"]
    assert training_log.read_log(tmp_path / "training_log.jsonl") == log.lines
    assert capsys.readouterr().err.count("pip install tensorboard") == 1


def test_resuming_with_other_settings_is_refused(trained, tmp_path):
    shutil.copytree(trained / "checkpoint-3", tmp_path / "checkpoint-3")
    done = run_script("train.py", "--output_dir", tmp_path, "--resume", "--learning_rate", "5e-4", code=2)
    assert_refused(done, "--learning_rate 0.0005 (was 0.001)")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--gradient_accumulation_steps", 4), "effective_batch 16 (was 8)"),
        (("--eval_file", TRAIN), f"--eval_file {TRAIN} (was {DEV})"),
    ],
    ids=["steps", "questions"],
)
def test_resuming_with_other_steps_or_other_questions_is_refused(trained, tmp_path, flags, words):
    shutil.copytree(trained / "checkpoint-3", tmp_path / "checkpoint-3")
    assert_refused(run_script("train.py", "--output_dir", tmp_path, "--resume", *flags, code=2), words)


def test_resuming_nothing_is_refused(tmp_path):
    assert_refused(run_script("train.py", "--output_dir", tmp_path, "--resume", code=2), "no complete checkpoint")


def test_missing_model_and_missing_data_say_what_to_run(tiny_model, tmp_path):
    done = run_script("train.py", "--model_dir", tmp_path / "none", "--output_dir", tmp_path / "out", code=2)
    assert_refused(done, "none", "is missing", "python download_data.py")
    done = run_script(
        "train.py", "--model_dir", tiny_model, "--train_file", tmp_path / "none.json", "--output_dir", tmp_path, code=2
    )
    assert_refused(done, "none.json", "is missing", "python download_data.py")


def test_a_pickled_model_is_not_read(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    done = run_script("train.py", "--model_dir", tmp_path / "model", *SMALL, "--output_dir", tmp_path / "out", code=2)
    assert_refused(done, "model.safetensors", "pickle")


def test_bad_questions_are_refused_before_any_work(tiny_model, tmp_path):
    content = json.loads(TRAIN.read_text(encoding="utf-8"))
    content["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] += 1
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(content), encoding="utf-8")
    done = run_script(
        "train.py", "--model_dir", tiny_model, *SMALL, "--train_file", bad, "--output_dir", tmp_path / "out", code=2
    )
    identifier = content["data"][0]["paragraphs"][0]["qas"][0]["id"]
    assert_refused(done, identifier, "the right offset is", "--skip_bad_examples")
    assert not any((tmp_path / "out").glob("*"))


def test_windows_longer_than_the_model_are_refused(tiny_model, tmp_path):
    done = run_script(
        "train.py", "--model_dir", tiny_model, *SMALL, "--max_length", 600, "--output_dir", tmp_path, code=2
    )
    assert_refused(done, "--max_length 600", "512")


def test_a_folder_with_spaces_and_chinese_characters_under_gbk(tiny_model, tmp_path):
    home = tmp_path / "模型 目录"
    shutil.copytree(tiny_model, home / "编码器")
    done = run_script(
        "train.py", "--model_dir", home / "编码器", "--output_dir", home / "输出", *SMALL, "--max_steps", 2,
        cwd=home, PYTHONIOENCODING="gbk",
    )  # fmt: skip
    assert (home / "输出" / "final_model" / "model.safetensors").exists(), done.stderr
    done = run_script("train.py", "--model_dir", home / "没有", cwd=home, PYTHONIOENCODING="gbk", code=2)
    assert_refused(done, "python download_data.py")


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("there", [False, True])
def test_a_training_that_refuses_its_data_leaves_no_folder_of_its_own(tiny_model, tmp_path, there):
    """It had left an empty one, and the folders above it."""
    questions, output = tmp_path / "questions.json", tmp_path / "new" / "output"
    questions.write_text("[]", encoding="utf-8")
    if there:
        output.mkdir(parents=True)
    done = run_script("train.py", "--model_dir", tiny_model, "--train_file", questions, "--eval_file", questions,
                      "--output_dir", output, code=2)  # fmt: skip
    assert_refused(done, "holds no question to use")
    left = [output.parent, output] if there else []
    assert sorted(path for path in tmp_path.rglob("*") if path != questions) == left


def test_quiet_prints_only_the_scores_and_where_the_model_is(tiny_model, tmp_path):
    flags = ("--model_dir", tiny_model, "--output_dir", tmp_path / "out", *SMALL, "--max_steps", 1)
    done = run_script("train.py", *flags, "--quiet")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["epoch", "calibration", "best", "saved"]
    assert done.stderr == ""
    # a run that goes on may talk again
    done = run_script("train.py", *flags[:-1], 2, "--resume", code=2)
    assert_refused(done, "--max_steps 2 (was 1)")
    assert "reading questions" in done.stderr
    assert "quiet" not in done.stderr
