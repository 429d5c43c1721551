"""A power cut at any moment of a training: the checkpoints, the final model and the log that it leaves, and where the
training ends that is resumed from them."""

import os
import random
import shutil
import sys

import pytest
from conftest import save_tiny_model
from power_cut import crash_states, lay, recorded
from small_training import SMALL, assert_same_training, train_here, train_script

from extractive_qa.files.atomic import recover
from extractive_qa.training.checkpoints import latest_checkpoint, step_of
from extractive_qa.training.log import read_log

RESUMED = 6  # states from which the training goes on to its end, drawn with a fixed seed
FEW = ("--max_train_samples", 12, "--save_total_limit", 2)


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.slow
@pytest.mark.fault("power cut")
@pytest.mark.skipif(os.name != "posix", reason="POSIX's rules; on Windows folders are not synced")
def test_states_after_a_power_cut_in_a_training(tokenizer_dir, tmp_path, monkeypatch, record_property):
    """train.py as it is, libraries in C++ and Rust that write its files included."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # its files are pictures of the log
    model = save_tiny_model(tmp_path / "model", tokenizer_dir, with_head=True)
    root, after, final_models = tmp_path / "root", tmp_path / "after", []
    root.mkdir()

    def telling(name):
        original = getattr(train_script.Training, name)

        def told(run, *args):
            result = original(run, *args)
            if name != "save":
                final_models.append(contents(run.args.output_dir / "final_model"))
            recorder.say((name, run.step, len(final_models)))
            return result

        monkeypatch.setattr(train_script.Training, name, told)

    with recorded(root) as recorder:
        for name in ("save", "evaluate", "calibrate"):
            telling(name)
        train_here("--model_dir", model, "--output_dir", root / "out", *SMALL, *FEW)
        recorder.say(("end", 0, len(final_models)))
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)

    states = list(crash_states(recorder, limit=2, cuts=1))
    assert len(states) > 300
    assert {what for what, *_ in states[-1][1]} == {"save", "evaluate", "calibrate", "end"}
    for tree, said in states:
        lay(tree, after)
        output = after / "out"
        saved = max((step for what, step, _ in said if what == "save"), default=0)
        found = max((number for *_, number in said), default=0)  # final models that were reported
        assert not saved or step_of(latest_checkpoint(output)) >= saved
        recover(output / "final_model")
        if found:
            assert contents(output / "final_model") in final_models[found - 1 :], said
            steps = [line["step"] for line in read_log(output / "training_log.jsonl")]
            assert steps == sorted(steps)
            assert saved in steps or saved % 2, said
        shutil.rmtree(after)

    for tree in random.Random(0).sample([tree for tree, said in states if said], RESUMED):
        lay(tree, after)
        train_here("--output_dir", after / "out", "--resume")
        assert_same_training(after / "out", root / "out")
        shutil.rmtree(after)
    record_property("tried", len(states))
