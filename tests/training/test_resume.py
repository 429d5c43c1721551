"""Resuming: a run goes on with its own settings, and what would make it another training is refused."""

import shutil

import pytest
import torch
from small_training import DEV, TRAIN, flip_bit, make_run, train_here, train_script

from extractive_qa.errors import QAError


@pytest.mark.fault("damaged checkpoint")
def test_damaged_checkpoints_are_passed_over(trained, tmp_path, record_property, caplog):
    """One bit, which no size tells: of the optimizer's state in the newest, of the weights in the one before."""
    record_property("tried", 2)
    for step, name in ((3, None), (5, "model.safetensors"), (6, "optimizer.pt")):
        shutil.copytree(trained / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
        if name:
            flip_bit(tmp_path / f"checkpoint-{step}" / name)
    args = train_script.parse_and_check(["--output_dir", str(tmp_path), "--resume"])
    assert args.resume == tmp_path / "checkpoint-3"
    newest, before = [record.getMessage() for record in caplog.records]
    assert "checkpoint-6 is damaged: optimizer.pt has sha256" in newest
    assert "checkpoint-5 is damaged: model.safetensors has sha256" in before


def test_the_micro_batch_and_the_precision_may_change_and_the_precision_is_said(tiny_model, trained, tmp_path, caplog):
    """A run in fp16 whose scoring overflows could not be finished otherwise, nor one on a smaller card."""
    flags = ("--bf16", "--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 4)
    run, _ = make_run(tiny_model, tmp_path, *flags)
    run.resume(trained / "checkpoint-3")
    assert (run.step, run.micro_batch_size) == (3, 2)
    assert "goes on in bf16, and was in no" in caplog.text
    scores = {"exact_match": 50.0, "f1": 60.0, "total": 8}
    (tmp_path / "model").mkdir()
    run.write_model(tmp_path / "model", scores)
    assert "| mixed_precision | bf16 |" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--learning_rate", "5e-4"), "--learning_rate 0.0005 (was 0.001)"),
        (("--max_steps", 5), "--max_steps 5 (was -1)"),
        (("--gradient_accumulation_steps", 4), "effective_batch 16 (was 8)"),
        (("--eval_file", TRAIN), f"--eval_file {TRAIN} (was {DEV})"),
    ],
    ids=["rate", "end", "steps", "questions"],
)
def test_what_would_be_another_training_is_refused(trained, tmp_path, flags, words):
    shutil.copytree(trained / "checkpoint-3", tmp_path / "checkpoint-3")
    with pytest.raises(QAError) as refused:
        train_here("--output_dir", tmp_path, "--resume", *flags)
    assert words in str(refused.value)


def test_a_checkpoint_is_not_called_damaged_where_memory_runs_out(tiny_model, trained, tmp_path, monkeypatch):
    run, _ = make_run(tiny_model, tmp_path)

    def full(*_, **settings):
        assert settings["weights_only"]
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(torch.OutOfMemoryError):
        run.load_optimizer(trained / "checkpoint-3" / "optimizer.pt")
