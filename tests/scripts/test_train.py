"""train.py as a user runs it: mistakes are told at once, nothing of theirs is lost, any folder and terminal will do."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from scripts import PROJECT_ROOT, assert_refused, run_script
from small_training import SMALL, TRAIN, settings_of, train_here, train_script

from extractive_qa.errors import QAError
from utils.console import in_flags

# runs a script, and says at the end which of the libraries that take seconds it has imported
WITH_IMPORTS = """
import atexit, runpy, sys

slow = {"torch", "transformers", "accelerate", "datasets", "matplotlib"}
atexit.register(lambda: print("imported:", *sorted(slow & sys.modules.keys())))
sys.argv = sys.argv[1:]
sys.path[0] = ""
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_what_is_wrong_with_flags_and_files_is_told_before_slow_libraries_are_imported(tiny_model, trained, tmp_path):
    """Those took 8 to 14 s on a small machine, for a misspelt flag."""
    pickled, new = tmp_path / "pickled", tmp_path / "new"
    shutil.copytree(tiny_model, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    files = ("--train_file", TRAIN, "--eval_file", TRAIN, "--model_dir", tiny_model)
    before = sorted(path.stat().st_mtime_ns for path in trained.rglob("*"))
    for flags, words in (
        (["--no_such_flag"], ["unrecognized arguments: --no_such_flag"]),
        (["--learning_rate", "-1", "--seed", "-1"], ["--learning_rate is -1", "--seed is -1", "train.py --help"]),
        (["--model_dir", tmp_path / "none"], ["none is missing", "python download_data.py"]),
        ([*files, "--model_dir", pickled], ["no model.safetensors", "is a pickle and is not read",
                                             "Run: python tools/convert_model.py"]),
        ([*files, "--train_file", tmp_path / "none.json"], ["none.json is missing", "python download_data.py"]),
        ([*files, "--eval_file", PROJECT_ROOT / "LICENSE"], ["LICENSE: a file called * is not known", ".parquet"]),
        ([*files, "--teacher_dir", tmp_path / "none"], ["none is missing", "python download_data.py --teacher"]),
        ([*files, "--output_dir", trained], ["holds an earlier run (final_model, checkpoint-3", "--resume",
                                             "--overwrite_output_dir"]),
        (["--resume"], ["no complete checkpoint to resume from"]),
    ):  # fmt: skip
        words_of = [str(word) for word in ("--output_dir", new, *flags)]
        command = [sys.executable, "-c", WITH_IMPORTS, "train.py", *words_of]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=PROJECT_ROOT)
        assert_refused(done, *words)
        assert done.stdout.split() == ["imported:"]
    assert not new.exists()
    assert sorted(path.stat().st_mtime_ns for path in trained.rglob("*")) == before


def test_help_is_shown_before_slow_libraries_are_imported():
    command = [sys.executable, "-c", WITH_IMPORTS, "train.py", "--help"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=PROJECT_ROOT)
    assert "--num_train_epochs N" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["imported:"]


# nothing is lost


@pytest.mark.parametrize("flag", ["--model_dir", "--teacher_dir", "--train_file"])
def test_what_a_training_needs_is_not_deleted_with_the_earlier_run(trained, tiny_model, tmp_path, flag):
    output = tmp_path / "run"
    (output / "checkpoint-10").mkdir(parents=True)
    shutil.copytree(trained / "final_model", output / "final_model")
    needed = output / ("checkpoint-10/x.json" if flag == "--train_file" else "final_model")
    for more in ((), ("--overwrite_output_dir",)):
        with pytest.raises(QAError) as refused:
            settings_of(tiny_model, output, flag, needed, *more)
        assert f"{needed} belongs to the earlier run" in str(refused.value)
        assert "--output_dir" in str(refused.value)


def test_overwriting_deletes_the_earlier_run_only_when_nothing_can_be_refused(trained, tiny_model, tmp_path):
    output = tmp_path / "run"
    for name in ("final_model", "checkpoint-3"):
        shutil.copytree(trained / name, output / name)
    flags = ("--model_dir", tiny_model, "--output_dir", output, *SMALL, "--overwrite_output_dir")
    for words in (("--eval_file", tmp_path / "none.json"), ("--max_length", 600)):  # a file, and what the model knows
        with pytest.raises(QAError):
            train_here(*flags, *words)
        assert (output / "final_model" / "model.safetensors").exists()
        assert (output / "checkpoint-3" / "complete.json").exists()
    train_here(*flags, "--max_steps", 1)
    assert {path.name for path in output.glob("checkpoint-*")} == {"checkpoint-1"}


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize("there", [False, True])
def test_a_training_that_refuses_its_data_leaves_no_folder_of_its_own(tiny_model, tmp_path, there):
    """It had left an empty one, and the folders above it."""
    content = json.loads(TRAIN.read_text(encoding="utf-8"))
    question = content["data"][0]["paragraphs"][0]["qas"][0]
    question["answers"][0]["text"] = "nowhere at all"
    bad, output = tmp_path / "bad.json", tmp_path / "new" / "output"
    bad.write_text(json.dumps(content), encoding="utf-8")
    if there:
        output.mkdir(parents=True)
    with pytest.raises(QAError) as refused:
        train_here("--model_dir", tiny_model, *SMALL, "--train_file", bad, "--output_dir", output)
    for word in (question["id"], "is not in the context", "--skip_bad_examples"):
        assert word in in_flags(str(refused.value))
    left = [output.parent, output] if there else []
    assert sorted(path for path in tmp_path.rglob("*") if path != bad) == left


# what comes next


@pytest.mark.parametrize(
    ("flags", "command"),
    [
        ([], ""),
        (["--sample"], "--sample"),
        (["--sample", "--eval_file", "a.csv"], "--model_dir {sample}/final_model {to_sample} a.csv"),
        (["--output_dir", "my run"], '--model_dir "my run/final_model" --output_dir "my run"'),
        (["--sample", "--output_dir", "b"], "--model_dir b/final_model --output_dir b --eval_file {dev}"),
        (["--eval_file", "a.csv", "--skip_bad_examples"], "--eval_file a.csv --skip_bad_examples"),
        (["--eval_file", "a.csv", "--strict", "--encoding", "gbk"], "--eval_file a.csv --strict --encoding gbk"),
    ],
)
def test_the_next_command_scores_what_was_trained(flags, command, monkeypatch):
    monkeypatch.chdir(PROJECT_ROOT)
    sample = {
        "sample": "output/sample",
        "to_sample": "--output_dir output/sample --eval_file",
        "dev": "data/sample/custom/dev.csv",
    }
    said = train_script.how_to_evaluate(train_script.parse_args(flags))
    assert said.replace("\\", "/") == f"python evaluate.py {command.format(**sample)}".rstrip()


# any folder, any terminal


def test_quiet_prints_only_the_scores_and_where_the_model_is_in_any_folder_and_encoding(tiny_model, tmp_path):
    home = tmp_path / "模型 目录"
    shutil.copytree(tiny_model, home / "编码器")
    done = run_script(
        "train.py", "--model_dir", home / "编码器", "--output_dir", home / "输出", *SMALL, "--max_steps", 1, "--quiet",
        cwd=home, PYTHONIOENCODING="gbk",
    )  # fmt: skip
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["epoch", "best", "saved"]
    assert re.fullmatch(r"warning: 1 optimizer step\(s\) are too few to learn much.*\n", done.stderr)
    assert (home / "输出" / "final_model" / "model.safetensors").exists()
    # a run that goes on may talk again
    assert settings_of(home / "编码器", home / "输出", "--resume").quiet is False
