"""Settings of a training: presets and resumed runs set defaults, flags win, and every bound is checked by name."""

import json
import re
import shutil
from pathlib import Path

import pytest
from scripts import PROJECT_ROOT
from small_training import mark_complete, train_script

from extractive_qa.errors import QAError
from utils.console import in_flags


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


def test_the_sample_sets_its_files_and_flags_win(tmp_path):
    args = train_script.parse_args(["--sample"])
    custom = PROJECT_ROOT / "data" / "sample" / "custom"
    assert (args.train_file, args.eval_file) == (custom / "train.csv", custom / "dev.csv")
    assert args.eval_on_start and not train_script.parse_args([]).eval_on_start
    assert args.output_dir == PROJECT_ROOT / "output" / "sample"
    assert args.model_dir == PROJECT_ROOT / "models" / "sample"
    args = train_script.parse_args(["--sample", "--output_dir", str(tmp_path)])
    assert (args.train_file, args.output_dir) == (custom / "train.csv", tmp_path)


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
        ("--per_device_train_batch_size", ["0", "-4"]), ("--max_gpu_memory", ["0", "-1", "nan"]),
        ("--joined_contexts", ["-0.1", "1.5"]), ("--negative_contexts", ["-0.1", "inf"]),
        ("--num_train_epochs", ["0", "-0.5", "inf", "nan"]),
    ],
)  # fmt: skip
def test_every_bound_of_a_setting_is_checked_by_name(flag, values):
    for value in values:
        with pytest.raises(QAError) as refused:
            train_script.parse_args([flag, value])
        assert re.search(rf"{flag} (is )?{re.escape(value)}", in_flags(str(refused.value)))


def test_the_least_and_the_most_that_a_setting_may_be_pass():
    least = ("--max_steps", "1", "--weight_decay", "0", "--max_grad_norm", "0", "--warmup_ratio", "0", "--seed", "0",
             "--max_length", "16", "--doc_stride", "0", "--max_train_samples", "1", "--save_steps", "1")  # fmt: skip
    assert train_script.parse_args(least).max_steps == 1
    assert train_script.parse_args(["--warmup_ratio", "1", "--seed", str(2**63 - 1)]).warmup_ratio == 1


def test_all_bad_settings_are_reported_at_once():
    words = ("--learning_rate", "-1", "--num_train_epochs", "0", "--doc_stride", "400", "--warmup_ratio", "2")
    with pytest.raises(QAError) as refused:
        train_script.parse_args(words)
    for word in words[::2]:
        assert word in in_flags(str(refused.value))


def test_a_micro_batch_is_a_number_or_auto(capsys):
    with pytest.raises(SystemExit):
        train_script.parse_args(["--per_device_train_batch_size", "auto5"])
    assert "'auto5' is neither a whole number nor auto" in capsys.readouterr().err


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


@pytest.mark.parametrize(("given", "is_now"), [("2", "2"), ("2.0", "2"), ("0.5", "0.5"), ("1e1", "10")])
def test_epochs_may_be_parts_and_whole_ones_stay_whole(given, is_now):
    """2.0, as transformers' own arguments write it, was refused."""
    assert str(train_script.parse_args(["--num_train_epochs", given]).num_train_epochs) == is_now


def test_epochs_that_are_no_number_are_refused(capsys):
    with pytest.raises(SystemExit):
        train_script.parse_args(["--num_train_epochs", "two"])
    assert "--num_train_epochs: invalid" in capsys.readouterr().err
