"""A Reader in other processes: forked ones, spawned ones, pickled and opened again."""

import copy
import json
import multiprocessing
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from scripts import PROJECT_ROOT

from extractive_qa import QAError, Reader
from extractive_qa.model import backends
from extractive_qa.settings import DEFAULT_SETTINGS

QUESTION, CONTEXT = "Who wrote the letter?", "The letter was written by Anna Berg in 1911. " * 60
# what a child answers is said with its exit code
FORK = """
import json, multiprocessing, os, sys
import torch
from extractive_qa import Reader

folder, backend, where, question, context = sys.argv[1:]
torch.set_num_threads(2)
threads = 2 if where == "threads" else None
reader = Reader(folder, device="cpu", backend=backend, mixed_precision="no", threads=threads)
here = reader.answer(question, context)

def in_child(_):
    mine = Reader(folder, device="cpu", backend=backend, mixed_precision="no") if where == "own" else reader
    return os.getpid(), torch.get_num_threads(), mine.answer(question, context)

with multiprocessing.get_context("fork").Pool(2) as pool:
    found = pool.map_async(in_child, range(4)).get(60)
print(json.dumps({"parent": os.getpid(), "here": here, "found": found}))
"""


HASHED = """
import json, sys
from extractive_qa import Reader

reader = Reader(sys.argv[1], "cpu", threads=1)
questions = [
    {
        "question": f"Who wrote text {n} of s{k}?",
        "context": f"Text {n} of s{k} is by Ada Müller, in {1800 + n}. " * (n % 5 + 1),
    }
    for k in (1, 7) for n in range(150) if n % 5 > 2
]
print(json.dumps([answers[0] for answers in reader.answer_all(questions)]))
"""


def test_answers_do_not_depend_on_how_a_process_hashes_strings(exported):
    """The last digits of probabilities did: batch, killed and run again, sometimes wrote other bytes."""
    said = [
        subprocess.run(
            [sys.executable, "-c", HASHED, exported], check=True, capture_output=True, timeout=180,
            env=os.environ | {"PYTHONPATH": str(PROJECT_ROOT), "PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in (1, 2, 3)
    ]  # fmt: skip
    assert said[0] == said[1] == said[2] != b""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("backend", ["torch", "onnx"])
@pytest.mark.parametrize("where", ["parent", *(pytest.param(w, marks=pytest.mark.slow) for w in ("threads", "own"))])
def test_a_forked_process_answers_as_its_parent_does(exported, backend, where):
    """PyTorch's threads are not forked: the child had waited for them for ever."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", FORK, exported, backend, where, QUESTION, CONTEXT], check=False, capture_output=True,
        text=True, timeout=180, env=environment | {"PYTHONPATH": str(PROJECT_ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    for process, threads, answer in said["found"]:
        assert (process != said["parent"], threads) == (True, 2), "of the host's threads nothing has changed"
        assert (answer["text"], answer["start"]) == (said["here"]["text"], said["here"]["start"])
        assert answer["probability"] == pytest.approx(said["here"]["probability"], rel=1e-3)


def test_a_gpu_of_another_process_is_refused_with_what_to_do(tiny_model):
    reader = Reader(tiny_model, "cpu", "no", backend="torch")

    class Elsewhere:
        type = "cuda"

    reader.backend.device, reader.backend.process = Elsewhere(), os.getpid() + 1
    with pytest.raises(QAError, match="make it after the fork, start processes with the method 'spawn'"):
        reader.answer(QUESTION, CONTEXT)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_pickled_reader_answers_alike(exported, backend):
    settings = {"max_length": np.int64(96), "doc_stride": 24, "max_answer_length": 5, "handle_impossible_answer": True}
    reader = Reader(exported, "cpu", "no", batch_size=3, backend=backend, threads=1, **settings)
    reader.settings["references"] = 2.0  # as calibration sets it
    for again in (pickle.loads(pickle.dumps(reader)), copy.deepcopy(reader)):
        assert again.settings == reader.settings
        assert (again.batch_size, again.threads, type(again.backend)) == (3, 1, type(reader.backend))
        assert again.backend.precision == "no"
        assert again.answer(QUESTION, CONTEXT, top_k=4) == reader.answer(QUESTION, CONTEXT, top_k=4)


def test_a_reader_is_the_same_in_a_spawned_process_with_another_current_folder(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(exported.parent)
    reader = Reader(exported.name, "cpu")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QAError, match="is missing"):
        Reader(exported.name)
    monkeypatch.chdir(exported.parent)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply_async(reader.answer, (QUESTION, CONTEXT)).get(120) == reader.answer(QUESTION, CONTEXT)


def test_a_reader_with_a_backend_of_somebody_else_s_says_why_it_can_not_be_pickled(tiny_model):
    opened = Reader(tiny_model, "cpu", "no", backend="torch")
    reader = Reader(tiny_model, backend=opened.backend, settings=DEFAULT_SETTINGS)
    with pytest.raises(TypeError, match=r"can't be pickled. Expected backend='auto'"):
        pickle.dumps(reader)


def test_a_process_that_was_not_forked_keeps_its_threads():
    import torch

    before = torch.get_num_threads()
    with backends.torch_threads(None):
        assert torch.get_num_threads() == before
    with backends.torch_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
