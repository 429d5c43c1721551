"""What a training starts from: device, precision and model can do what was asked for, or words say why not."""

import json
from types import SimpleNamespace

import pytest
import torch
from small_training import SMALL, make_run, settings_of, train_here, train_script

from extractive_qa.errors import QAError
from extractive_qa.training import memory, start
from extractive_qa.training.log import read_log

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


# the micro-batch


def test_auto_on_a_cpu_takes_all_at_once_where_there_is_room(tiny_model, tmp_path):
    run, _ = make_run(tiny_model, tmp_path, "--per_device_train_batch_size", "auto")
    assert (run.micro_batch_size, run.args.per_device_train_batch_size, run.effective_batch) == (8, 8, 8)
    assert "8 windows, 8 at once" in run.describe()


def test_what_auto_finds_is_what_is_trained_with_and_said(tiny_model, tmp_path, monkeypatch):
    asked = []

    def two_fit(micro_batch_size, accumulation, *_):
        asked.append((micro_batch_size, accumulation))
        return 2, 4

    monkeypatch.setattr(memory, "choose_micro_batch", two_fit)
    run, _ = make_run(tiny_model, tmp_path, "--per_device_train_batch_size", "auto")
    assert asked == [(4, 2)]
    settings = run.all_settings()["settings"]
    assert (settings["per_device_train_batch_size"], settings["gradient_accumulation_steps"]) == (2, 4)
    assert "8 windows, 2 at once" in run.describe()


# what is said


@pytest.mark.parametrize(
    ("flags", "steps", "words"),
    [
        ((), 10, ("--num_train_epochs", "--gradient_accumulation_steps", "--learning_rate")),
        (("--max_steps", 3), 3, ("--max_steps",)),
        (("--num_train_epochs", 6), 30, ()),
        (("--num_train_epochs", "2.0"), 10, ("--num_train_epochs",)),
        (("--num_train_epochs", 0.5), 3, ("--num_train_epochs",)),
        (("--num_train_epochs", 0.01), 1, ("--num_train_epochs",)),
        (("--num_train_epochs", 1.5, "--max_steps", 2), 2, ("--max_steps",)),
    ],
)
def test_too_few_steps_are_said_with_the_flags_that_make_more(tiny_model, tmp_path, flags, steps, words):
    run, _ = make_run(tiny_model, tmp_path, *flags)
    said = run.too_few_steps()
    assert run.total_steps == steps
    assert bool(said) == bool(words)
    for word in words:
        assert word in said
    assert not words or f"{steps} optimizer step(s) are too few" in said


def test_the_terminal_gets_plain_words_and_the_log_all_settings(tiny_model, tmp_path, capsys):
    train_here("--model_dir", tiny_model, "--output_dir", tmp_path / "run", *SMALL, "--max_steps", 1)
    printed = capsys.readouterr().out
    for words in ("40 questions in 40 windows, 8 questions to score", "steps: 1 of 8 windows", "mixed precision: no"):
        assert words in printed
    assert "adam_epsilon" not in printed and "before temperature" not in printed
    first, *others = read_log(tmp_path / "run" / "training_log.jsonl")
    assert first["settings"]["adam_epsilon"] == 1e-6 and first["step"] == 0
    assert others[-1].keys() == {"step", "calibration"} and "own text:" in printed


def test_a_text_that_the_tokenizer_does_not_know_is_said_once(tiny_model, tmp_path, capsys):
    context = "青石桥建于一九三二年，全长八十七米，由本地石匠修建。"
    record = {"id": "a", "question": "有多长？", "context": context, "answer": "八十七米"}
    path = tmp_path / "chinese.json"
    path.write_text(json.dumps([record]), encoding="utf-8")
    train_here("--model_dir", tiny_model, "--output_dir", tmp_path / "run", *SMALL, "--max_steps", 1,
               "--train_file", path, "--eval_file", path)  # fmt: skip
    out, said = capsys.readouterr()
    assert said.count("of the text's characters") == 1
    assert "EM and F1 count characters" in out


# what can't be done


def test_windows_longer_than_the_model_are_refused(tiny_model, tmp_path):
    with pytest.raises(QAError, match=r"--max_length 600 .* 512 positions"):
        make_run(tiny_model, tmp_path, "--max_length", 600)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_fp16_without_a_gpu_is_refused(tiny_model, tmp_path):
    with pytest.raises(QAError, match=r"fp16.* CUDA.* bf16"):
        train_script.start_accelerator(settings_of(tiny_model, tmp_path, "--fp16"))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), torch.AcceleratorError("CUDA error: out of memory")],
    ids=["torch", "driver"],
)  # fmt: skip
def test_running_out_of_memory_outside_of_a_step_says_what_to_do(error):
    with pytest.raises(QAError, match=r"out of GPU memory.*--gradient_checkpointing"), memory.explain_out_of_memory():
        raise error
    with pytest.raises(RuntimeError, match="another"), memory.explain_out_of_memory():
        raise RuntimeError("another")


def test_running_out_of_memory_while_the_model_is_loaded_is_a_user_error(tiny_model, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(start, "load_trainable", full)
    with pytest.raises(QAError, match="out of GPU memory"):
        train_here("--sample", "--max_train_samples", 4, "--model_dir", tiny_model, "--output_dir", tmp_path / "run")


# compiling


@pytest.mark.parametrize(
    ("platform", "compiler", "triton"),
    [("linux", "g\\+\\+", "triton"), ("darwin", "clang\\+\\+", "triton"), ("win32", "cl", "triton-windows")],
)
def test_what_compiling_lacks_is_called_by_the_name_it_has_on_the_system(monkeypatch, platform, compiler, triton):
    monkeypatch.setattr(start, "sys", SimpleNamespace(platform=platform))
    monkeypatch.setattr(start.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(start.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(QAError, match=f"--compile needs .* and {compiler} is not found.* leave --compile out"):
        start.require_compiler(CPU)
    monkeypatch.setenv("CXX", "mine")
    with pytest.raises(QAError, match="and mine is not found"):
        start.require_compiler(CPU)
    monkeypatch.setattr(start.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(QAError, match=f"pip install {triton},"):
        start.require_compiler(CUDA)


def test_a_compiler_that_fails_is_told_in_one_line_before_the_training(monkeypatch):
    def fails(function):
        def compiled(*_):
            raise RuntimeError("cc1plus: no such header\nand forty lines more")

        return compiled

    monkeypatch.setattr(start.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(QAError, match=r"does not work here: cc1plus: no such header\. Leave it out"):
        start.require_compiler(CPU)


def test_compiling_without_a_compiler_is_refused_before_the_model_is_loaded(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(train_script, "start_model", None)
    with pytest.raises(QAError, match=r"--compile needs a C.. compiler, and no-such-compiler is not found"):
        make_run(tiny_model, tmp_path, "--compile")
