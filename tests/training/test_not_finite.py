"""NaN and infinity: found where they are read, named, and never learned."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from scripts import PROJECT_ROOT
from small_training import (
    SMALL,
    assert_equal_weights,
    make_run,
    mark_complete,
    train_here,
    train_script,
    weights,
    without_saving,
)

from extractive_qa.errors import QAError
from extractive_qa.model.loading import load_encoder
from extractive_qa.progress import NoProgress
from extractive_qa.reader import Reader
from extractive_qa.training.run import Training

TENSOR = "mobilebert.encoder.layer.1.output.dense.weight"


def spoil(model_dir: Path, value: float, name: str = TENSOR) -> None:
    """Puts a number into the weights of a folder."""
    path = model_dir / "model.safetensors"
    tensors = load_file(path)
    tensors[name].view(-1)[-1] = value
    save_file(tensors, path, metadata={"format": "pt"})


# in what is read


@pytest.mark.fault("NaN or infinity")
@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
@pytest.mark.parametrize("load", [load_encoder, lambda folder: Reader(folder, "cpu")], ids=["encoder", "reader"])
def test_weights_that_are_not_finite_are_named_with_their_file(tiny_model, tmp_path, value, load):
    shutil.copytree(tiny_model, tmp_path / "model")
    spoil(tmp_path / "model", value)
    with pytest.raises(
        QAError, match=rf"model\.safetensors is damaged: 1 value\(s\) of {TENSOR} are NaN or infinity\."
    ):
        load(tmp_path / "model")
    spoil(tmp_path / "model", value, "qa_outputs.bias")
    with pytest.raises(QAError, match="and 1 more tensor"):
        load(tmp_path / "model")


@pytest.mark.fault("NaN or infinity")
def test_training_does_not_start_from_weights_that_are_not_finite(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    spoil(tmp_path / "model", torch.nan)
    with pytest.raises(QAError, match=rf"model\.safetensors is damaged.* {TENSOR} .*python download_data.py"):
        train_here("--model_dir", tmp_path / "model", "--output_dir", tmp_path / "out", *SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.fault("NaN or infinity")
def test_a_checkpoint_that_is_not_finite_is_named_though_its_checksums_are_right(trained, tmp_path):
    shutil.copytree(trained / "checkpoint-3", tmp_path / "checkpoint-3")
    spoil(tmp_path / "checkpoint-3", torch.inf)
    mark_complete(tmp_path / "checkpoint-3")
    with pytest.raises(QAError, match=rf"checkpoint-3.model\.safetensors is damaged.*{TENSOR}.* Delete .*checkpoint-3"):
        train_here("--output_dir", tmp_path, "--resume")


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory):
    """A training whose optimizer has no state yet."""
    return make_run(tiny_model, tmp_path_factory.mktemp("run"))[0]


@pytest.mark.fault("NaN or infinity")
def test_a_moment_that_is_not_finite_is_named(run, trained, tmp_path):
    path = tmp_path / "optimizer.pt"
    saved = torch.load(trained / "checkpoint-3" / "optimizer.pt", weights_only=True)
    saved["optimizer"]["state"][5]["exp_avg_sq"].view(-1)[0] = torch.nan
    torch.save(saved, path)
    with pytest.raises(
        QAError, match=r"optimizer\.pt is damaged: 1 value\(s\) of exp_avg_sq of mobilebert\.\S+ are NaN"
    ):
        run.load_optimizer(path)


class RunsCode:
    """What a pickle may do to whoever loads it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def poisoned(path: Path, trace: Path) -> None:
    torch.save({"optimizer": RunsCode(trace), "scaler": {}}, path)


OTHERS = {
    "a pickle that runs code": poisoned,
    "such a pickle in the old form": lambda path, trace: path.write_bytes(pickle.dumps(RunsCode(trace), protocol=2)),
    "nothing": lambda path, trace: path.write_bytes(b""),
    "text": lambda path, trace: path.write_bytes(b"<html>" * 100),
    "a list": lambda path, trace: torch.save([1, 2], path),
    "another optimizer": lambda path, trace: torch.save({"optimizer": {"param_groups": [], "state": {}}}, path),
    "no scaler": lambda path, trace: torch.save({"scaler": {}}, path),
}


@pytest.mark.fault("damaged checkpoint")
@pytest.mark.parametrize("kind", OTHERS)
def test_an_optimizer_file_that_is_something_else_is_a_user_error_and_runs_nothing(run, tmp_path, kind):
    path = tmp_path / "checkpoint-3" / "optimizer.pt"
    path.parent.mkdir()
    OTHERS[kind](path, tmp_path / "trace")
    with pytest.raises(
        QAError, match=r"optimizer\.pt can't be read \(\w+(: (?!None).*)?\).*Delete .*checkpoint-3"
    ) as refused:
        run.load_optimizer(path)
    assert "\n" not in str(refused.value)  # torch's advice of many lines stays out
    assert not (tmp_path / "trace").exists()


def test_such_a_pickle_would_run_code(tmp_path):
    poisoned(tmp_path / "optimizer.pt", tmp_path / "trace")
    torch.load(tmp_path / "optimizer.pt", weights_only=False)
    assert (tmp_path / "trace").exists()


# in what is computed


@pytest.mark.fault("NaN or infinity")
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_one_bad_micro_batch_of_four_costs_its_step_and_no_more(tiny_model, tmp_path, monkeypatch, caplog, where):
    """At steps 2 and 7 the third of four micro-batches is bad."""
    run, log = make_run(tiny_model, tmp_path, "--save_steps", 1)
    run.micro_batch_size = 2
    forward, seen, bad, after = run.model.forward, [], {(2, 3), (7, 3)}, []

    def sometimes_bad(**inputs):
        output = forward(**inputs)
        seen.append((run.step + 1, sum(step == run.step + 1 for step, _ in seen) + 1))
        if seen[-1] in bad and where == "loss":
            output.end_logits = output.end_logits * torch.nan
        elif seen[-1] in bad:
            output.end_logits.register_hook(lambda gradient: gradient * torch.inf)
        return output

    monkeypatch.setattr(run.model, "forward", sometimes_bad)
    without_saving(monkeypatch)
    monkeypatch.setattr(
        Training, "save", lambda run: after.append([weight.detach().clone() for weight in run.model.parameters()])
    )
    train_script.train(run, log, NoProgress())
    assert bad < set(seen)
    assert len(seen) == 4 * 10
    for step in range(2, 11):
        unchanged = all(map(torch.equal, after[step - 2], after[step - 1]))
        assert unchanged == (step in (2, 7))
    assert all(weight.isfinite().all() for weight in after[-1])
    warned = [message for message in caplog.messages if "not applied to the weights" in message]
    assert [message.split(":")[0] for message in warned] == ["step 2", "step 7"]


# runs train.py with a NaN in the loss of one micro-batch of the second process, and reports each process's weights
ONE_BAD_PROCESS = """
import atexit, hashlib, os, runpy, sys
import torch

plain, calls, models = torch.nn.functional.cross_entropy, [], []

def cross_entropy(*args, **kwargs):
    losses = plain(*args, **kwargs)
    if torch.is_grad_enabled():
        calls.append(1)
        if os.environ["RANK"] == "1" and len(calls) == 2 * 2 * 3 - 1:  # start and end, two micro-batches: step 3
            losses = losses * torch.nan
    return losses

torch.nn.functional.cross_entropy = cross_entropy
from accelerate import Accelerator
prepare = Accelerator.prepare

def remember(self, model, optimizer):
    models.append(model)
    return prepare(self, model, optimizer)

Accelerator.prepare = remember
folder = sys.argv.pop(1)
sys.path[0] = os.path.dirname(sys.argv[1])
sys.argv = sys.argv[1:]

@atexit.register  # the script ends the process
def report():
    digest = hashlib.sha256()
    for tensor in models[0].state_dict().values():
        digest.update(tensor.numpy().tobytes())
    with open(os.path.join(folder, os.environ["RANK"]), "w") as file:
        file.write(digest.hexdigest())

runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.fault("NaN or infinity")
def test_a_bad_micro_batch_of_one_process_is_skipped_by_both(tiny_model, tmp_path):
    (tmp_path / "hook.py").write_text(ONE_BAD_PROCESS, encoding="utf-8")
    (tmp_path / "found").mkdir()
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", tmp_path / "hook.py",
        tmp_path / "found", PROJECT_ROOT / "train.py", "--model_dir", tiny_model, "--output_dir", tmp_path / "out",
        *SMALL, "--per_device_train_batch_size", 2, "--save_steps", 1,
    ]  # fmt: skip
    done = subprocess.run(
        [*map(str, command)], check=False, capture_output=True, text=True, timeout=300, cwd=PROJECT_ROOT, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert ", 2 processes, " in done.stdout
    # two processes may write into one line
    assert done.stderr.count("not applied to the weights") == done.stderr.count("step 3: loss nan") == 2
    assert_equal_weights(tmp_path / "out" / "checkpoint-3", tmp_path / "out" / "checkpoint-2")
    with pytest.raises(AssertionError):
        assert_equal_weights(tmp_path / "out" / "checkpoint-4", tmp_path / "out" / "checkpoint-3")
    digests = {path.read_text(encoding="ascii") for path in (tmp_path / "found").iterdir()}
    assert len(list((tmp_path / "found").iterdir())) == 2
    assert len(digests) == 1
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "out" / "checkpoint-10").values())
    scores = [json.loads(line) for line in (tmp_path / "out" / "training_log.jsonl").read_text().splitlines()]
    assert sum("f1" in line for line in scores) == 2
