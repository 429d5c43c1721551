"""Ctrl-C at any moment leaves a folder that a training goes on from, a short message and exit code 130."""

import pytest
from scripts import PROJECT_ROOT, assert_refused, run_script, run_struck
from small_training import DEV, SMALL, assert_equal_weights, log_without_times, train_script

from utils.checkpoints import list_checkpoints, lock_output_dir

pytestmark = pytest.mark.fault("interruption")
SAID = "Go on with: python train.py --resume"


def assert_interrupted(done, message: str = "interrupted") -> None:
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert message in done.stderr.strip().splitlines()[-1]


def assert_ends_as_undisturbed(output, undisturbed) -> None:
    run_script("train.py", "--output_dir", output, "--resume")
    assert_equal_weights(output / "final_model", undisturbed / "final_model")
    assert log_without_times(output) == log_without_times(undisturbed)
    assert {path.name for path in output.iterdir()} >= {path.name for path in undisturbed.iterdir()}
    assert not list(output.glob(".*"))


# train.py, before the first step: nothing is there yet, and nothing is left


@pytest.mark.parametrize(
    "name", ["read_examples", "load_tokenizer", "cached_train_features", "start_accelerator", "load_encoder"]
)
def test_before_the_first_step_nothing_is_left(tiny_model, tmp_path, monkeypatch, name):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_script, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_script.main([*map(str, SMALL), "--model_dir", str(tiny_model), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "predict.py"])
def test_while_libraries_are_imported(tmp_path, script):
    """For the first seconds of a script."""
    assert_interrupted(run_struck("argparse:ArgumentParser.add_argument", 1, "interrupt", script, cwd=tmp_path))
    if script == "train.py":
        assert_interrupted(run_struck("dataclasses:dataclass", 30, "interrupt", script, cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("what", ["interrupt", "after-interrupt"])
@pytest.mark.parametrize(
    "function",
    ["utils.squad:read_examples", "utils.windows:load_tokenizer", "utils.feature_cache:prepare_train_features",
     "utils.backends:load_encoder", "accelerate:Accelerator.prepare", "utils.micro_batch:bytes_kept"],
)  # fmt: skip
def test_before_the_first_step(tiny_model, tmp_path, function, what):
    flags = ["--model_dir", tiny_model, "--output_dir", tmp_path / "out", *SMALL]
    assert_interrupted(run_struck(function, 1, what, "train.py", *flags))
    assert not (tmp_path / "out").exists()


# train.py, while it learns


@pytest.mark.parametrize(
    ("function", "number", "what", "step"),
    [
        pytest.param("torch:save", 2, "interrupt-twice", 5, id="in a save, twice"),
        pytest.param("torch:save", 2, "interrupt-again", None, id="in a save, and again", marks=pytest.mark.slow),
        pytest.param("utils.guard:Guard.check", 4, "interrupt", 5, id="in a step", marks=pytest.mark.slow),
        pytest.param("utils.guard:Guard.check", 4, "interrupt-again", None, id="and again", marks=pytest.mark.slow),
        pytest.param("utils.reader:Reader.logits", 1, "interrupt", 5, id="scoring", marks=pytest.mark.slow),
        pytest.param("utils.reader:Reader.logits", 1, "interrupt-again", None, id="twice", marks=pytest.mark.slow),
        pytest.param("utils.training:save_reader", 3, "interrupt", 6, id="final model", marks=pytest.mark.slow),
        pytest.param("utils.training:save_reader", 3, "interrupt-again", None, id="again", marks=pytest.mark.slow),
        pytest.param("pathlib:Path.rename", 2, "interrupt-again", None, id="renaming", marks=pytest.mark.slow),
        pytest.param(
            "utils.training_log:TrainingLog.write", 3, "interrupt", 6, id="in the log", marks=pytest.mark.slow
        ),
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
    done = run_struck("utils.guard:Guard.check", 2, "interrupt-again", "train.py", *flags)
    assert_interrupted(done, "Nothing was saved yet: start again")
    run_script("train.py", *flags, "--max_steps", 2)  # in the same folder, without a flag for it


# evaluate.py and predict.py


@pytest.mark.slow
@pytest.mark.parametrize(
    "function", ["utils.squad:read_examples", "utils.backends:load_model", "utils.reader:Reader.logits",
                 "utils.metrics:compute_metrics"]
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
    [("demo", "utils.reader:Reader.logits"), ("interactive", "builtins:input"),
     ("interactive", "utils.reader:Reader.logits")],
)  # fmt: skip
def test_predicting(tiny_model, mode, function):
    typed = "The mill was built in 1871.\n\nWhen?\nWhere?\n"
    done = run_struck(function, 2, "interrupt", "predict.py", mode, "--model_dir", tiny_model, stdin=typed)
    assert_interrupted(done)


# two at once


@pytest.mark.fault("two trainings into one folder")
def test_a_second_training_into_the_folder_is_refused(tiny_model, tmp_path):
    flags = ["--model_dir", tiny_model, "--output_dir", tmp_path / "out", *SMALL]
    with lock_output_dir(tmp_path / "out"):
        before = sorted(path.name for path in (tmp_path / "out").iterdir())
        done = run_script("train.py", *flags, code=2, cwd=PROJECT_ROOT)
        assert_refused(done, "another training, process", "Wait until it ends", "--output_dir")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before
