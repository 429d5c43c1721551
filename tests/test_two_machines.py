"""Training and scoring on two machines, a torchrun each over the loopback: as one process does, and what is said and
left where one of them is lost."""

import json
import shutil
import threading
import time

import pytest
from nodes import free_port, lose, run_nodes, said, start_node
from scripts import run_script
from small_training import DEV, SMALL, assert_equal_weights, log_without_times, make_run, train_here

from extractive_qa import processes
from extractive_qa.errors import QAError

CLOSE = {"rtol": 0, "atol": 2e-4}  # sums in another order, multiplied by Adam's first steps
ONE_EACH = ("--per_device_train_batch_size", 4, "--gradient_accumulation_steps", 1)  # 4 x 1 x 2 = 4 x 2 x 1


@pytest.mark.slow
def test_two_machines_learn_what_one_process_does(tiny_model, trained, tmp_path):
    printed = run_nodes(
        tmp_path, "train.py", "--model_dir", tiny_model, "--output_dir", tmp_path / "out", *SMALL, *ONE_EACH
    )
    assert ", 2 processes, " in printed[0]
    assert "best epoch" not in printed[1]  # one speaks
    assert_equal_weights(tmp_path / "out" / "final_model", trained / "final_model", **CLOSE)
    losses = [
        [line["loss"] for line in log_without_times(out) if "loss" in line] for out in (trained, tmp_path / "out")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)


@pytest.mark.slow
def test_a_run_goes_on_with_twice_and_with_half_the_processes(tiny_model, trained, tmp_path):
    shutil.copytree(trained / "checkpoint-3", tmp_path / "two" / "checkpoint-3")
    run_nodes(tmp_path, "train.py", "--output_dir", tmp_path / "two", "--resume", *ONE_EACH)
    assert_equal_weights(tmp_path / "two" / "checkpoint-10", trained / "checkpoint-10", **CLOSE)
    # and what two had begun one ends
    shutil.copytree(tmp_path / "two" / "checkpoint-6", tmp_path / "one" / "checkpoint-6")
    train_here("--output_dir", tmp_path / "one", "--resume", "--gradient_accumulation_steps", 2)
    assert_equal_weights(tmp_path / "one" / "checkpoint-10", trained / "checkpoint-10", **CLOSE)


@pytest.mark.parametrize(("processes", "remedy"), [
    (2, "with 2 process(es) give --per_device_train_batch_size 4 --gradient_accumulation_steps 1"),
    (8, "with 8 process(es) give --per_device_train_batch_size 1 --gradient_accumulation_steps 1"),
    (3, "8 can't be shared by 3 processes, take a number that divides it"),
])  # fmt: skip
def test_another_number_of_processes_is_refused_with_what_to_set(
    tiny_model, trained, tmp_path, processes, remedy, monkeypatch
):
    run, _ = make_run(tiny_model, tmp_path)
    monkeypatch.setattr(type(run.accelerator), "num_processes", processes)
    with pytest.raises(QAError) as refused:
        run.resume(trained / "checkpoint-3")
    numbers = f"--per_device_train_batch_size 4 x --gradient_accumulation_steps 2 x {processes} process(es)"
    assert f"effective_batch {8 * processes} (was 8): {numbers}; {remedy}" in str(refused.value)


@pytest.mark.slow
@pytest.mark.fault("a machine lost")
@pytest.mark.parametrize("lost", [0, 1])
def test_where_a_machine_is_lost_the_other_stops_and_resuming_ends_the_same(tiny_model, trained, tmp_path, lost):
    port, out = free_port(), tmp_path / "out"
    flags = ("--model_dir", tiny_model, "--output_dir", out, *SMALL, *ONE_EACH)
    nodes = [start_node(rank, port, tmp_path, "train.py", *flags) for rank in range(2)]
    try:
        deadline = time.monotonic() + 200
        while not (out / "checkpoint-3").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        lose(nodes[lost])
        assert nodes[1 - lost].wait(timeout=60) != 0
    finally:
        for node in nodes:
            lose(node)
    printed = said(tmp_path, 1 - lost)
    assert "run train.py again with --resume" in printed
    assert 'train.py", line' not in printed  # no traceback of ours
    run_nodes(tmp_path, "train.py", "--output_dir", out, "--resume")
    assert_equal_weights(out / "checkpoint-10", trained / "checkpoint-10", **CLOSE)


@pytest.fixture
def store():
    """Where processes meet, as the first machine's torchrun has it."""
    from torch.distributed import TCPStore

    port = free_port()
    return port, TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)


@pytest.mark.fault("a machine lost")
@pytest.mark.parametrize("ever", [True, False], ids=["fell silent", "never came"])
@pytest.mark.slow
def test_a_process_without_signs_of_life_is_named_and_the_others_leave(store, monkeypatch, ever):
    """No connection is closed here, as when a machine loses its power: an error of communication would not come."""
    port, held = store
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    left, beats, told = threading.Event(), threading.Event(), []

    def leave(message):
        told.append(message)
        left.set()

    def other():
        number = 0
        while not beats.wait(0.1):
            number += 1
            held.set("alive/0/1", str(number))

    if ever:
        threading.Thread(target=other, daemon=True).start()
    with processes.Watch(leave, lambda: "Then go on.", silence=1.5, start=60 if ever else 2):
        if ever:
            assert not left.wait(4), told  # while it gives signs of life
            beats.set()
        assert left.wait(20)
    assert told == [told[0]]
    assert told[0].startswith("of the processes 0 to 1, 1 gave no sign of life for ")
    assert told[0].endswith("Then go on.")


def test_an_error_of_communication_says_what_to_do_and_any_other_stays(store, monkeypatch):
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store[0]}.items():
        monkeypatch.setenv(name, str(value))
    ended = pytest.raises(QAError, match=r"another process of the 2 has ended.*Then go on")
    with ended, processes.Watch(pytest.fail, lambda: "Then go on."):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer")
    with pytest.raises(RuntimeError, match="shapes"), processes.Watch(pytest.fail, lambda: "Then go on."):
        raise RuntimeError("shapes differ")


def test_machines_with_other_files_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    mine = {"the checkpoint": "checkpoint-3", "contents of train_file": "a"}
    processes.require_alike(mine, lambda one: one * 2)
    with pytest.raises(QAError, match=r"don't have the same: the checkpoint. Expected"):
        processes.require_alike(mine, lambda one: [*one, {**mine, "the checkpoint": None}])


@pytest.fixture(scope="module")
def many_questions(tmp_path_factory):
    """A file of 1,148 questions: three shares of up to 512, the last of which has fewer."""
    content = json.loads(DEV.read_text(encoding="utf-8"))
    articles = []
    for copy in range(14):
        for article in json.loads(json.dumps(content["data"])):
            for paragraph in article["paragraphs"]:
                for qa in paragraph["qas"]:
                    qa["id"] = f"{qa['id']}-{copy}"
            articles.append(article)
    path = tmp_path_factory.mktemp("many") / "many.json"
    path.write_text(json.dumps(content | {"data": articles}), encoding="utf-8")
    return path


@pytest.mark.slow
def test_two_processes_score_to_the_last_digit_as_one_does(tiny_model, many_questions, tmp_path):
    flags = ("--model_dir", tiny_model, "--eval_file", many_questions, "--device", "cpu", "--mixed_precision", "no")
    alone = run_script("evaluate.py", *flags, "--output_dir", tmp_path / "alone", OMP_NUM_THREADS="1")
    printed = run_nodes(tmp_path, "evaluate.py", *flags, "--output_dir", tmp_path / "two")
    for name in ("predictions.json", "nbest_predictions.json", "metrics.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    result = alone.stdout.splitlines()[-1]
    assert result in printed[0]
    assert result not in printed[1]


@pytest.mark.slow
@pytest.mark.fault("a machine lost")
def test_where_a_machine_is_lost_while_scoring_nothing_is_written(tiny_model, many_questions, tmp_path):
    out, port = tmp_path / "out", free_port()
    flags = ("--model_dir", tiny_model, "--eval_file", many_questions, "--device", "cpu", "--output_dir", out)
    nodes = [start_node(rank, port, tmp_path, "evaluate.py", *flags) for rank in range(2)]
    try:
        deadline = time.monotonic() + 100
        while not out.exists() and time.monotonic() < deadline:  # made before the first question is answered
            time.sleep(0.01)
        lose(nodes[1])
        assert nodes[0].wait(timeout=60) != 0
    finally:
        for node in nodes:
            lose(node)
    assert "Then run evaluate.py again." in said(tmp_path, 0)
    assert list(out.iterdir()) == []
