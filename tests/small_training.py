"""A training of seconds, in a process of its own or in this one, and what it left: compared bit by bit, or within
rounding."""

import argparse
import importlib.util
import json
import signal
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from scripts import PROJECT_ROOT

from extractive_qa.files.manifest import write_manifest
from extractive_qa.model.devices import has_bf16
from extractive_qa.training.checkpoints import MARKER, list_checkpoints

spec = importlib.util.spec_from_file_location("train_script", PROJECT_ROOT / "train.py")
train_script = importlib.util.module_from_spec(spec)
sys.modules["train_script"] = train_script
spec.loader.exec_module(train_script)

needs_bf16 = pytest.mark.skipif(
    not has_bf16(torch.device("cpu")), reason="this processor has no bf16 arithmetic (AVX512-BF16 or AMX)"
)
TRAIN = PROJECT_ROOT / "data" / "sample" / "train.json"
DEV = PROJECT_ROOT / "data" / "sample" / "dev.json"
# 40 questions, 5 steps an epoch, 10 in all
SMALL = (
    "--train_file", TRAIN, "--eval_file", DEV, "--device", "cpu", "--mixed_precision", "no", "--num_train_epochs", 2,
    "--per_device_train_batch_size", 4, "--gradient_accumulation_steps", 2, "--max_train_samples", 40,
    "--max_eval_samples", 8, "--learning_rate", "1e-3", "--save_steps", 3, "--save_total_limit", 20,
    "--logging_steps", 2,
)  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def log_without_times(output_dir: Path) -> list[dict]:
    """What was measured; nor the line of settings with which every start begins."""
    lines = [json.loads(line) for line in (output_dir / "training_log.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if "settings" not in line]
    return [{k: v for k, v in line.items() if k not in ("questions_per_second", "memory_mb")} for line in lines]


def assert_equal_weights(one: Path, other: Path, **tolerance) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], **tolerance or {"rtol": 0, "atol": 0}, msg=name)


def last_checkpoint_state(output: Path) -> dict:
    path = list_checkpoints(output)[-1] / "optimizer.pt"
    return torch.load(path, weights_only=True)["optimizer"]["state"]


def assert_same_training(output: Path, undisturbed: Path) -> None:
    """Bit for bit: final model, last checkpoint with the optimizer's state, and the log but for its times."""
    assert_equal_weights(output / "final_model", undisturbed / "final_model")
    assert list_checkpoints(output)[-1].name == list_checkpoints(undisturbed)[-1].name
    assert_equal_weights(list_checkpoints(output)[-1], list_checkpoints(undisturbed)[-1])
    found, expected = last_checkpoint_state(output), last_checkpoint_state(undisturbed)
    assert found.keys() == expected.keys()
    for number, state in expected.items():
        assert all(torch.equal(found[number][name], tensor) for name, tensor in state.items())
    assert log_without_times(output) == log_without_times(undisturbed)
    assert {path.name for path in output.iterdir()} == {path.name for path in undisturbed.iterdir()}


def flip_bit(path: Path) -> None:
    """In the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def mark_complete(checkpoint: Path) -> None:
    """Gives a checkpoint that was changed checksums that are right."""
    (checkpoint / MARKER).unlink()
    write_manifest(checkpoint, "train.py", None, name=MARKER)


def settings_of(model_dir: Path, output_dir: Path, *flags: object) -> argparse.Namespace:
    """The settings of a small training, as train.py reads them."""
    start = ["--model_dir", model_dir, "--output_dir", output_dir]
    return train_script.parse_and_check([*map(str, (*SMALL, *start, *flags))])


def make_run(model_dir: Path, output_dir: Path, *flags: object) -> tuple:
    """A Training and its log in this process, as main() makes them."""
    args = settings_of(model_dir, output_dir, *flags)
    output_dir.mkdir(exist_ok=True)
    AcceleratorState._reset_state()  # an earlier training may have had another precision
    return train_script.prepare(args), train_script.TrainingLog(output_dir, 0)


def train_here(*flags: object) -> None:
    """As `python train.py flags...`, in this process: what a user can fix is a QAError."""
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    AcceleratorState._reset_state()
    try:
        train_script.main(train_script.parse_and_check([*map(str, flags)]))
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)


def without_saving(monkeypatch) -> None:
    """From now on a training scores nothing and saves nothing."""
    monkeypatch.setattr(train_script.Training, "save", lambda run: None)
    monkeypatch.setattr(
        train_script.Training, "evaluate", lambda run, log: log.write({"step": run.step, "epoch": 0, "f1": 0}) or []
    )
