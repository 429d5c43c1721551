"""Ctrl-C at any moment leaves a folder that a training goes on from, a short message and exit code 130."""

import pytest
from scripts import run_script, run_struck
from small_training import DEV, SMALL, assert_equal_weights, log_without_times, train_here, train_script

from extractive_qa.errors import QAError
from extractive_qa.training.checkpoints import list_checkpoints, lock_output_dir

pytestmark = pytest.mark.fault("interruption")
SAID = "Resume with: python train.py --resume"


def assert_interrupted(done, message: str = "interrupted") -> None:
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert message in done.stderr.strip().splitlines()[-1]


def assert_ends_as_undisturbed(output, undisturbed) -> None:
    train_here("--output_dir", output, "--resume")
    assert_equal_weights(output / "final_model", undisturbed / "final_model")
    assert log_without_times(output) == log_without_times(undisturbed)
    assert {path.name for path in output.iterdir()} >= {path.name for path in undisturbed.iterdir()}
    assert not list(output.glob(".*"))


# train.py, before the first step: nothing is there yet, and nothing is left


@pytest.mark.parametrize("name", ["read_examples", "cached_train_features", "start_accelerator", "start_model"])
def test_before_the_first_step_nothing_is_left(tiny_model, tmp_path, monkeypatch, name):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_script, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_here("--model_dir", tiny_model, "--output_dir", tmp_path / "out", *SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "predict.py"])
def test_while_libraries_are_imported(tmp_path, script):
    """For the first seconds of a script."""
    assert_interrupted(run_struck("argparse:ArgumentParser.add_argument", 1, "interrupt", script, cwd=tmp_path))
    if script == "train.py":  # which reads its settings first
        flags = ("--sample", "--output_dir", tmp_path / "new")
        assert_interrupted(run_struck("dataclasses:dataclass", 30, "interrupt", script, *flags, cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("what", ["interrupt", "after-interrupt"])
@pytest.mark.parametrize(
    "function",
    [
        "extractive_qa.data.examples:read_examples", "extractive_qa.preprocessing.windows:load_tokenizer",
        "utils.preprocessing:prepare_train_features", "extractive_qa.model.loading:load_encoder",
        "accelerate:Accelerator.prepare", "extractive_qa.training.memory:bytes_kept",
    ],
)  # fmt: skip
def test_before_the_first_step(tiny_model, tmp_path, function, what):
    flags = ["--model_dir", tiny_model, "--output_dir", tmp_path / "out", *SMALL]
    assert_interrupted(run_struck(function, 1, what, "train.py", *flags))
    assert not (tmp_path / "out").exists()


# train.py, while it learns


SLOW = pytest.mark.slow
CHECK = "extractive_qa.training.finite_guard:FiniteGuard.check"
LOGITS = "extractive_qa.reader:Reader.logits"
SAVE_READER = "extractive_qa.training.run:save_reader"
LOG = "extractive_qa.training.log:TrainingLog.write"


@pytest.mark.parametrize(
    ("function", "number", "what", "step"),
    [
        pytest.param("torch:save", 2, "interrupt-twice", 5, id="in a save, twice"),
        pytest.param("torch:save", 2, "interrupt-again", None, id="in a save, and again", marks=SLOW),
        pytest.param(CHECK, 4, "interrupt", 5, id="in a step", marks=SLOW),
        pytest.param(CHECK, 4, "interrupt-again", None, id="and again", marks=SLOW),
        pytest.param(LOGITS, 1, "interrupt", 5, id="scoring", marks=SLOW),
        pytest.param(LOGITS, 1, "interrupt-again", None, id="twice", marks=SLOW),
        pytest.param(SAVE_READER, 3, "interrupt", 6, id="final model", marks=SLOW),
        pytest.param(SAVE_READER, 3, "interrupt-again", None, id="again", marks=SLOW),
        pytest.param("pathlib:Path.rename", 2, "interrupt-again", None, id="renaming", marks=SLOW),
        pytest.param(LOG, 3, "interrupt", 6, id="in the log", marks=SLOW),
    ],
)
def test_while_it_learns_it_can_go_on(tiny_model, trained, tmp_path, function, number, what, step):
    """Where it can be saved first, nothing is lost: after the step that runs, or the next one. The second Ctrl-C a
    second later doesn't wait for that."""
    flags = ["--model_dir", tiny_model, "--output_dir", tmp_path / "out", *SMALL]
    done = run_struck(function, number, what, "train.py", *flags)
    if step is None:
        assert_interrupted(done, f"stopped at once, steps since the last checkpoint are lost. {SAID}")
    else:
        assert_interrupted(done, f"stopped after step {step}, saved. {SAID}")
        assert list_checkpoints(tmp_path / "out")[-1].name == f"checkpoint-{step}"
    assert_ends_as_undisturbed(tmp_path / "out", trained)


@pytest.mark.slow
def test_stopped_at_once_before_anything_was_saved_says_so(tiny_model, tmp_path):
    flags = ["--model_dir", tiny_model, "--output_dir", tmp_path / "out", *SMALL]
    done = run_struck(CHECK, 2, "interrupt-again", "train.py", *flags)
    assert_interrupted(done, "Nothing was saved yet: start again")
    run_script("train.py", *flags, "--max_steps", 2)  # in the same folder, without a flag for it


# evaluate.py and predict.py


@pytest.mark.slow
@pytest.mark.parametrize(
    "function",
    [
        "extractive_qa.data.examples:read_examples", "extractive_qa.model.loading:load_model",
        "extractive_qa.reader:Reader.logits", "extractive_qa.metrics:compute_metrics",
    ],
)  # fmt: skip
def test_evaluating(tiny_model, tmp_path, function):
    flags = ["--model_dir", tiny_model, "--eval_file", DEV, "--output_dir", tmp_path, "--max_samples", 20,
             "--batch_size", 4]  # fmt: skip
    number = 2 if function.endswith("logits") else 1
    assert_interrupted(run_struck(function, number, "interrupt", "evaluate.py", *flags))
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "function"),
    [("demo", "extractive_qa.reader:Reader.logits"), ("interactive", "builtins:input"),
     ("interactive", "extractive_qa.reader:Reader.logits")],
)  # fmt: skip
def test_predicting(tiny_model, mode, function):
    typed = "The mill was built in 1871.\n\nWhen?\nWhere?\n"
    done = run_struck(function, 2, "interrupt", "predict.py", mode, "--model_dir", tiny_model, stdin=typed)
    assert_interrupted(done)


# two at once


@pytest.mark.fault("two trainings into one folder")
def test_a_second_training_into_the_folder_is_refused(tiny_model, tmp_path):
    output = tmp_path / "out"
    with lock_output_dir(output):
        before = sorted(path.name for path in output.iterdir())
        with pytest.raises(QAError, match=r"another training, process \d+, .*Wait until it ends.*--output_dir"):
            train_here("--model_dir", tiny_model, "--output_dir", output, *SMALL)
        assert sorted(path.name for path in output.iterdir()) == before
