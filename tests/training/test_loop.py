"""The loop of train.py: data, seed and settings alone decide what is learned; nothing that is not finite is."""

import argparse
import json
import math
import shutil
import signal
import sys
import warnings

import numpy as np
import pytest
import torch
from scripts import run_script
from small_training import (
    DEV,
    SMALL,
    assert_equal_weights,
    log_without_times,
    make_run,
    needs_bf16,
    train_here,
    train_script,
    weights,
    without_saving,
)
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForQuestionAnswering, MobileBertModel

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.preprocessing.windows import prepare_validation_features
from extractive_qa.progress import NoProgress
from extractive_qa.reader import Reader
from extractive_qa.training import finite_guard, start
from extractive_qa.training.checkpoints import read_state
from extractive_qa.training.finite_guard import MAX_BAD_STEPS, FiniteGuard
from extractive_qa.training.run import Training, stop_between_steps


def learn(run: Training, log) -> None:
    train_script.train(run, log, NoProgress())


# equal runs


def test_same_seed_gives_the_same_weights_and_log(tiny_model, trained, tmp_path):
    """Another process, the same numbers."""
    train_here("--model_dir", tiny_model, "--output_dir", tmp_path, *SMALL)
    assert_equal_weights(tmp_path / "checkpoint-10", trained / "checkpoint-10")
    assert log_without_times(tmp_path) == log_without_times(trained)


def test_the_seed_draws_the_new_output_layer_and_the_order_of_the_windows(tiny_encoder, tmp_path, monkeypatch):
    without_saving(monkeypatch)
    found = []
    for number, seed in enumerate((1, 1, 2)):
        run, log = make_run(tiny_encoder, tmp_path / str(number), "--seed", seed)
        drawn = run.model.qa_outputs.weight.flatten().tolist()
        order = []

        def record(run, batch, order=order):
            order += batch.tolist()
            return torch.ones(())

        monkeypatch.setattr(train_script, "accumulate_gradients", record)
        learn(run, log)
        windows = list(range(len(run.features)))
        epochs = order[: len(windows)], order[len(windows) :]
        assert [sorted(epoch) for epoch in epochs] == [windows, windows]
        assert epochs[0] != epochs[1]
        found.append((drawn, order))
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    assert found[0][1] != found[2][1]


@pytest.mark.fault("training killed and resumed")
@pytest.mark.parametrize("step", [3, 5])  # in the middle of an epoch, and at its end before the evaluation
def test_resumed_equals_uninterrupted_bit_for_bit(trained, tmp_path, step, capsys, caplog):
    shutil.copytree(trained / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    lines = (trained / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if json.loads(line)["step"] <= step and "f1" not in line]
    kept.append('{"step": 8, "loss": 1.0}')  # from after the checkpoint, to be cut
    kept.append('{"step": 9, "lo')  # torn by a crash
    (tmp_path / "training_log.jsonl").write_text("\n".join(kept), encoding="utf-8")
    train_here("--output_dir", tmp_path, "--resume")
    assert f"after step {step}" in capsys.readouterr().out
    assert "1 line(s) can't be read" in caplog.text
    assert_equal_weights(tmp_path / "checkpoint-10", trained / "checkpoint-10")
    assert log_without_times(tmp_path) == log_without_times(trained)
    one, other = (
        json.loads((output / "final_model" / "reader.json").read_text(encoding="utf-8"))
        for output in (tmp_path, trained)
    )
    assert {**one, "training": None} == {**other, "training": None}


# what a step learns


def test_training_reduces_the_loss(tiny_model, tmp_path, monkeypatch):
    without_saving(monkeypatch)
    eight = ("--max_train_samples", 8, "--num_train_epochs", 15, "--logging_steps", 1)
    run, log = make_run(tiny_model, tmp_path, *eight)
    learn(run, log)
    losses = [line["loss"] for line in log.lines if "loss" in line]
    assert len(losses) == 15
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


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


def gradients_of_a_step(run: Training) -> list[torch.Tensor]:
    """The gradients of the first eight windows, and their loss."""
    run.model.train()
    loss = train_script.accumulate_gradients(run, np.arange(8))
    gradients = [parameter.grad.clone() for parameter in run.model.parameters()]
    run.optimizer.zero_grad()
    return [*gradients, loss]


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_accumulated_gradients_equal_the_full_batch(tiny_model, tmp_path, micro_batch_size):
    run, _ = make_run(tiny_model, tmp_path)
    gradients = []
    for size in (8, micro_batch_size):
        run.micro_batch_size = size
        gradients.append(gradients_of_a_step(run))
    for full, accumulated in zip(*gradients, strict=True):
        torch.testing.assert_close(accumulated, full, rtol=1e-4, atol=1e-6)


@needs_bf16
def test_a_step_in_bf16_learns_nearly_what_one_in_fp32_does(tiny_model, tmp_path):
    plain, _ = make_run(tiny_model, tmp_path / "fp32")
    *_, expected = gradients_of_a_step(plain)
    half, _ = make_run(tiny_model, tmp_path / "bf16", "--bf16")
    *gradients, loss = gradients_of_a_step(half)
    assert half.precision == "bf16"
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)
    assert loss != expected
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)


def test_running_out_of_memory_halves_the_micro_batch_and_learns_the_same(tiny_model, trained, tmp_path, monkeypatch):
    run, log = make_run(tiny_model, tmp_path)
    forward = run.model.forward

    def forward_with_room_for_two(input_ids, **inputs):
        if run.model.training and len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(input_ids=input_ids, **inputs)

    monkeypatch.setattr(run.model, "forward", forward_with_room_for_two)
    learn(run, log)
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
        learn(run, log)


def test_gradient_checkpointing_learns_the_same_and_warns_of_nothing(tiny_model, tmp_path):
    if not MobileBertModel.supports_gradient_checkpointing:  # before transformers 5
        with pytest.raises(QAError, match=r"--gradient_checkpointing.*mobilebert"):
            make_run(tiny_model, tmp_path, "--gradient_checkpointing")
        return
    plain, _ = make_run(tiny_model, tmp_path / "plain")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saving, _ = make_run(tiny_model, tmp_path / "saving", "--gradient_checkpointing")
        found = gradients_of_a_step(saving)
    for one, other in zip(found, gradients_of_a_step(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


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
    unless always_make_masks was called, as it is on a GPU."""
    from transformers import AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    monkeypatch.setattr(start, "attend_window_by_window", lambda model: None)  # not on a GPU
    run, log = make_run(tiny_model, tmp_path)
    without_saving(monkeypatch)
    fetched, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: fetched.append(1) or tolist(tensor))
    start.always_make_masks()
    try:
        with CountWaits() as waits:
            learn(run, log)
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
    start.always_make_masks()
    try:
        _, *found = reader.logits(features, range(len(features)))
    finally:
        AttentionMaskInterface.register("sdpa", sdpa_mask)
    np.testing.assert_allclose(np.stack(found), np.stack(expected), atol=1e-5)


def test_what_is_compiled_learns_and_is_saved_under_plain_names(tiny_model, tmp_path, monkeypatch):
    """Without a compiler: it would work for minutes."""
    compiled = []

    def compile(model, dynamic):
        assert dynamic  # one compilation for all lengths

        def forward(**inputs):
            compiled.append(sorted(inputs))
            return model(**inputs)

        return forward

    monkeypatch.setattr(start, "require_compiler", lambda device: None)
    monkeypatch.setattr(torch, "compile", compile)
    run, log = make_run(tiny_model, tmp_path, "--compile", "--max_steps", 1, "--max_eval_samples", 1)
    learn(run, log)
    assert compiled == [["attention_mask", "input_ids", "token_type_ids"]] * 2  # and not in the scoring
    assert weights(tmp_path / "final_model").keys() == weights(tiny_model).keys()


@pytest.mark.slow
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


# signals


@pytest.mark.fault("interruption")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_training_after_the_step_and_saves_it(tiny_model, tmp_path, monkeypatch, number):
    run, log = make_run(tiny_model, tmp_path, "--save_steps", 1000)
    check, told = FiniteGuard.check, []

    def signalled_in_the_second_step(guard, step, *numbers):
        if step == 2:
            signal.raise_signal(number)
        return check(guard, step, *numbers)

    monkeypatch.setattr(FiniteGuard, "check", signalled_in_the_second_step)
    handlers = [(which, signal.getsignal(which)) for which in (signal.SIGINT, signal.SIGTERM)]
    stop_between_steps(run, announce=lambda: told.append(run.step))
    try:
        with pytest.raises(KeyboardInterrupt, match=r"after step 3, saved\. Resume with: python train.py --resume"):
            learn(run, log)
    finally:
        for which, handler in handlers:
            signal.signal(which, handler)
    assert told == [1]
    assert (tmp_path / "checkpoint-3" / "complete.json").exists()
    assert read_state(tmp_path / "checkpoint-3")["step"] == 3


# the guard


@pytest.mark.fault("NaN or infinity")
def test_a_training_that_keeps_failing_stops_and_says_why(tiny_model, tmp_path, monkeypatch):
    run, log = make_run(tiny_model, tmp_path)
    without_saving(monkeypatch)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    forward = run.model.forward

    def always_nan(**inputs):
        output = forward(**inputs)
        output.end_logits = output.end_logits * torch.nan
        return output

    monkeypatch.setattr(run.model, "forward", always_nan)
    monkeypatch.setattr(finite_guard, "MAX_BAD_STEPS", 6)  # more than an epoch has
    with pytest.raises(QAError, match="6 steps in a row without a finite loss"):
        learn(run, log)
    assert all(torch.equal(before[name], tensor) for name, tensor in run.model.state_dict().items())


def test_a_loss_of_exactly_zero_stops_the_training(tiny_model, tmp_path, monkeypatch):
    run, log = make_run(tiny_model, tmp_path)
    monkeypatch.setattr(train_script, "window_losses", lambda start, end, batch: (start + end).sum(1) * 0)
    with pytest.raises(QAError, match="3 steps in a row with a loss of exactly 0"):
        learn(run, log)


@pytest.mark.fault("NaN or infinity")
def test_mobilebert_that_overflows_fp16_is_caught(tiny_model, tmp_path, monkeypatch):
    """As transformers #11327: activations beyond 65,504. Under CPU autocast, since fp16 training needs a GPU."""
    run, log = make_run(tiny_model, tmp_path)
    without_saving(monkeypatch)
    with torch.no_grad():
        for name, parameter in run.model.named_parameters():
            if "LayerNorm.weight" in name:  # MobileBERT's NoNorm: a plain scale, nothing brings it back
                parameter.mul_(30.0)
    forward = run.model.forward

    def in_half_precision(**inputs):
        with torch.autocast("cpu", torch.float16):
            return forward(**inputs)

    monkeypatch.setattr(run.model, "forward", in_half_precision)
    monkeypatch.setattr(finite_guard, "MAX_BAD_STEPS", 3)
    with pytest.raises(QAError, match="3 steps in a row without a finite loss"):
        learn(run, log)


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


@pytest.mark.parametrize("epochs", [0.3, 0.5, 1, 1.1, 1.5, 2.0, 2.7])
def test_a_part_of_an_epoch_has_the_steps_of_transformers_trainer(tiny_model, tmp_path, epochs):
    """Which its set_initial_training_values computes so: https://github.com/huggingface/transformers, trainer.py."""
    run, _ = make_run(tiny_model, tmp_path / "out", "--num_train_epochs", epochs)
    assert run.total_steps == math.ceil(epochs * math.ceil(len(run.features) / run.effective_batch))


def test_a_training_of_one_epoch_and_a_half_is_scored_at_both_ends_and_resumes(tiny_model, tmp_path):
    """5 steps an epoch, 8 in all. The order of the questions is that of a longer training."""
    half = (*SMALL, "--model_dir", tiny_model, "--num_train_epochs", 1.5)
    train_here(*half, "--output_dir", tmp_path / "whole")
    log = log_without_times(tmp_path / "whole")
    assert [line["step"] for line in log if "f1" in line] == [5, 8]
    assert [line["epoch"] for line in log if "f1" in line] == [1, 1.6]
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    for name in ("checkpoint-8", "checkpoint-6", "final_model"):
        shutil.rmtree(tmp_path / "resumed" / name)
    train_here("--output_dir", tmp_path / "resumed", "--resume")
    assert_equal_weights(tmp_path / "resumed" / "checkpoint-8", tmp_path / "whole" / "checkpoint-8")
    assert log_without_times(tmp_path / "resumed") == log


def test_a_model_scored_before_the_first_step_learns_the_same(tiny_model, trained, tmp_path):
    """And is kept where training makes it no better: final_model has the best scores, of whatever step."""
    output = tmp_path / "out"
    train_here("--model_dir", tiny_model, "--output_dir", output, *SMALL, "--eval_on_start")
    first, *others = [line for line in log_without_times(output) if "f1" in line or "loss" in line]
    assert (first["step"], first["epoch"]) == (0, 0)
    assert others == [line for line in log_without_times(trained) if "f1" in line or "loss" in line]
    assert_equal_weights(output / "checkpoint-10", trained / "checkpoint-10")
    scores = [line for line in (first, *others) if "f1" in line]
    best = max(scores, key=lambda line: (line["f1"], line["step"]))
    kept = json.loads((output / "final_model" / "reader.json").read_text(encoding="utf-8"))
    assert (kept["scores"]["f1"], len(scores)) == (best["f1"], 3)
