"""Resuming: a run goes on with its own settings, and what would make it another training is refused."""

import json
import os
import shutil

import pytest
import torch
from small_training import (
    DEV,
    SMALL,
    TRAIN,
    assert_equal_weights,
    flip_bit,
    log_without_times,
    make_run,
    train_here,
    train_script,
)  # fmt: skip
from strike import striking

from extractive_qa.errors import QAError
from extractive_qa.training.checkpoints import latest_checkpoint
from extractive_qa.training.finite_guard import FiniteGuard


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
        (("--eval_file", TRAIN), f"the questions in --eval_file {TRAIN} are others than before"),
        (("--train_file", DEV), f"the questions in --train_file {DEV} are others than before"),
    ],
    ids=["rate", "end", "steps", "scored", "learned"],
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


@pytest.fixture(scope="module")
def stopped(tiny_model, tmp_path_factory):
    """A folder with all that a training reads, and a training that was stopped after 8 of its 10 steps."""
    project = tmp_path_factory.mktemp("stopped") / "old"
    shutil.copytree(tiny_model, project / "models" / "tiny")
    (project / "data").mkdir()
    for path in (TRAIN, DEV):
        shutil.copyfile(path, project / "data" / path.name)
    files = ("--train_file", project / "data" / TRAIN.name, "--eval_file", project / "data" / DEV.name)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FiniteGuard, "check", striking(FiniteGuard.check, 7, "interrupt"))
        train_here(*SMALL, *files, "--model_dir", project / "models/tiny", "--output_dir", project / "output")
    return project


@pytest.mark.parametrize("old_stays", [False, True], ids=["moved", "copied"])
def test_a_run_that_moved_with_its_files_ends_bit_for_bit_as_one_that_did_not(stopped, trained, tmp_path, old_stays):
    """It said that /old/... is missing, then that the paths differ."""
    new, away = tmp_path / "a new 名字", stopped.with_name("away")
    shutil.copytree(stopped, new)
    stopped.rename(stopped if old_stays else away)
    try:
        train_here("--output_dir", new / "output", "--resume")
    finally:
        (stopped if old_stays else away).rename(stopped)
    assert_equal_weights(new / "output" / "final_model", trained / "final_model")
    assert log_without_times(new / "output") == log_without_times(trained)


def test_where_the_project_moved_and_its_output_did_not_the_files_are_found(stopped, tmp_path, monkeypatch):
    output = shutil.copytree(stopped / "output", tmp_path / "elsewhere")
    state = json.loads((latest_checkpoint(output) / "state.json").read_text(encoding="utf-8"))
    saved = state["settings"] | {
        "output_dir": str(output), "project_dir": str(tmp_path / "gone"),
        "model_dir": str(tmp_path / "gone" / "models" / "tiny"), "teacher_dir": [str(tmp_path / "gone" / "output")],
    }  # fmt: skip
    args = train_script.argparse.Namespace(output_dir=output, project_dir=stopped)
    followed = train_script.follow(saved, args)
    assert followed["model_dir"] == stopped / "models" / "tiny"
    assert followed["teacher_dir"] == [stopped / "output"]
    assert followed["train_file"] == stopped / "data" / TRAIN.name  # where it was


def exchange_questions(project) -> None:
    path = project / "data" / TRAIN.name
    path.write_text(path.read_text(encoding="utf-8").replace('"question": "', '"question": "Why, '), encoding="utf-8")


def exchange_answer(project) -> None:
    path = project / "data" / DEV.name
    content = json.loads(path.read_text(encoding="utf-8"))
    answers = content["data"][0]["paragraphs"][0]["qas"][0]["answers"]
    answers[0] = {"text": answers[0]["text"][:1], "answer_start": answers[0]["answer_start"]}
    path.write_text(json.dumps(content), encoding="utf-8")


def exchange_weights(project) -> None:
    flip_bit(project / "models" / "tiny" / "model.safetensors")


@pytest.mark.parametrize(
    ("exchange", "words"),
    [
        (exchange_questions, "the questions in --train_file {}/data/train.json are others than before"),
        (exchange_answer, "the questions in --eval_file {}/data/dev.json are others than before"),
        (exchange_weights, "the files of --model_dir {}/models/tiny are others than before"),
    ],
)
def test_a_file_that_was_exchanged_is_refused_by_its_content_and_named(stopped, tmp_path, exchange, words):
    """A training file whose questions were all others was taken without a word."""
    project = shutil.copytree(stopped, tmp_path / "new")
    exchange(project)
    with pytest.raises(QAError) as refused:
        train_here("--output_dir", project / "output", "--resume")
    assert words.format(project).replace("/", os.sep) in str(refused.value).replace("/", os.sep)
    assert str(refused.value).count("others than before") == 1


def test_a_file_that_is_missing_can_be_named_where_it_is_now(stopped, tmp_path):
    output = shutil.copytree(stopped, tmp_path / "new") / "output"
    file = (tmp_path / "new" / "data" / TRAIN.name).rename(tmp_path / "renamed.json")
    away = (stopped / "data" / TRAIN.name).rename(stopped / "data" / "away.json")
    try:
        with pytest.raises(QAError, match=r"train\.json is missing.*--train_file"):
            train_script.parse_and_check(["--output_dir", str(output), "--resume"])
    finally:
        away.rename(stopped / "data" / TRAIN.name)
    train_script.parse_and_check(["--output_dir", str(output), "--resume", "--train_file", str(file)])
    run, _ = make_run(tmp_path / "new" / "models" / "tiny", tmp_path / "out", "--train_file", file)
    run.resume(latest_checkpoint(output))
    assert run.step == 8
