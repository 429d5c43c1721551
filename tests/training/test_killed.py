"""A training that is killed again and again, also inside a save, ends as the one that nobody disturbed."""

import random
import shutil
from pathlib import Path

import pytest
from scripts import run_script, run_struck
from small_training import SMALL, assert_same_training, train_here

from extractive_qa.training.checkpoints import list_checkpoints

# function, up to which call, kill before it or after it
INSIDE_A_SAVE = [
    ("torch:save", 2, "kill"),
    ("torch:save", 2, "after-kill"),
    ("extractive_qa.training.checkpoints:write_manifest", 2, "kill"),
    ("extractive_qa.training.checkpoints:write_manifest", 2, "after-kill"),
    ("extractive_qa.files.manifest:sha256_of", 10, "kill"),
    ("extractive_qa.files.atomic:sync", 2, "kill"),
    ("pathlib:Path.rename", 4, "kill"),
    ("pathlib:Path.rename", 4, "after-kill"),
    ("extractive_qa.files.atomic:sync_entries", 5, "after-kill"),
    ("shutil:rmtree", 2, "kill"),
    ("shutil:rmtree", 2, "after-kill"),
]
ELSEWHERE = [
    ("extractive_qa.training.checkpoints:read_state", 1, "after-kill"),
    ("extractive_qa.model.loading:load_encoder", 1, "after-kill"),
    ("extractive_qa.training.log:write_file", 1, "kill"),  # the log is cut to where the training goes on
    ("extractive_qa.training.log:write_file", 1, "after-kill"),
    ("extractive_qa.preprocessing.batches:pad_batch", 14, "kill"),  # two in a step
    ("extractive_qa.preprocessing.batches:pad_batch", 14, "after-kill"),
    ("extractive_qa.training.finite_guard:FiniteGuard.check", 7, "kill"),
    ("extractive_qa.training.finite_guard:FiniteGuard.check", 7, "after-kill"),
    ("extractive_qa.training.log:TrainingLog.write", 4, "kill"),
    ("extractive_qa.training.log:TrainingLog.write", 4, "after-kill"),
    ("extractive_qa.reader:Reader.logits", 1, "kill"),  # in the middle of an evaluation
    ("extractive_qa.metrics:compute_metrics", 1, "after-kill"),
]


def draw(seed: int, inside_a_save: int, elsewhere: int) -> list[tuple[str, int, str]]:
    """Moments to kill a training at: function, which call of it in that process, before or after it."""
    chance = random.Random(seed)
    places = chance.choices(INSIDE_A_SAVE, k=inside_a_save) + chance.choices(ELSEWHERE, k=elsewhere)
    chance.shuffle(places)
    return [(function, chance.randint(1, calls), what) for function, calls, what in places]


def train_and_kill(output: Path, start: list[object], moments) -> str:
    """Trains into `output`, killed at each of `moments` and begun or resumed again, then to the end. Returns what the
    last process printed."""

    def command() -> list[object]:
        return ["--output_dir", output, "--resume"] if list_checkpoints(output) else [*start, "--output_dir", output]

    for moment in moments:
        done = run_struck(*moment, "train.py", *command())
        assert done.returncode not in (0, 1, 2), (
            f"{moment} killed nobody: {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        assert "error" not in done.stderr
    return run_script("train.py", *command()).stdout


@pytest.mark.fault("training killed and resumed")
def test_killed_with_half_a_checkpoint_written_and_resumed_ends_as_undisturbed(tiny_model, trained, tmp_path):
    done = run_struck("torch:save", 2, "after-kill", "train.py", "--model_dir", tiny_model, "--output_dir", tmp_path,
                      *SMALL)  # fmt: skip
    assert done.returncode not in (0, 1, 2)
    assert [path.name for path in tmp_path.glob(".*.new")] == [".checkpoint-5.new"]
    train_here("--output_dir", tmp_path, "--resume")
    assert_same_training(tmp_path, trained)


@pytest.mark.slow
@pytest.mark.fault("training killed and resumed")
def test_killed_20_times_and_resumed_ends_as_undisturbed(tiny_model, tmp_path, record_property):
    record_property("tried", 20)
    moments = draw(seed=4, inside_a_save=9, elsewhere=11)
    start = ["--model_dir", tiny_model, *SMALL, "--num_train_epochs", 20, "--save_total_limit", 2]
    said = run_script("train.py", *start, "--output_dir", tmp_path / "undisturbed").stdout
    found = train_and_kill(tmp_path / "run", start, moments)
    assert_same_training(tmp_path / "run", tmp_path / "undisturbed")
    best = [line for line in said.splitlines() if line.startswith("best epoch")]
    assert [line for line in found.splitlines() if line.startswith("best epoch")] == best


@pytest.mark.parametrize("what", ["kill", "after-kill"])
@pytest.mark.slow
@pytest.mark.fault("training killed and resumed")
def test_killed_while_the_final_model_is_replaced(tiny_model, trained, tmp_path, what):
    """Between its two renames the final model has another name: the next start gives it back."""
    shutil.copytree(trained, tmp_path / "run")
    for step in (9, 10):
        shutil.rmtree(tmp_path / "run" / f"checkpoint-{step}")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "final_model").iterdir()}
    # checkpoint-9 and -10 are renamed once, then the final model to its old name, then the new one
    done = run_struck("pathlib:Path.rename", 4, what, "train.py", "--output_dir", tmp_path / "run", "--resume")
    assert done.returncode not in (0, 1, 2)
    assert (tmp_path / "run" / "final_model").exists() == (what == "after-kill")
    assert (tmp_path / "run" / ".final_model.old").exists()
    done = run_struck(
        "extractive_qa.data.examples:read_examples", 1, "kill", "train.py", "--output_dir", tmp_path / "run", "--resume"
    )
    if what == "kill":
        assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "final_model").iterdir()} == before
    run_script("train.py", "--output_dir", tmp_path / "run", "--resume")
    assert_same_training(tmp_path / "run", trained)
