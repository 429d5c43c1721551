"""predict.py batch --ray: on a cluster of two nodes, one of which dies."""

import importlib.util
import json
import subprocess
import sys
import time
from collections import Counter

import pytest
from scripts import PROJECT_ROOT, assert_refused, run_script

from extractive_qa.batch.folder import Work
from extractive_qa.batch.on_ray import fit
from extractive_qa.batch.run import answer_file
from extractive_qa.reader import Reader

HAS_RAY = importlib.util.find_spec("ray") is not None


def write_shards(folder, count: int, questions: int) -> int:
    folder.mkdir()
    for number in range(count):
        lines = [
            json.dumps({
                "id": f"s{number}-{n}", "question": f"Who wrote text {n} of {number}?",
                "context": f"Text {n} of {number} is by Ada Müller, in {1800 + n}. " * (n % 5 + 1),
            })
            for n in range(questions + number)
        ]  # fmt: skip
        (folder / f"s{number}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return sum(questions + number for number in range(count))


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_it_is_said_what_to_install(tiny_model, tmp_path):
    write_shards(tmp_path / "in", 2, 1)
    flags = ("--input", tmp_path / "in", "--output", f"{tmp_path}/out/", "--model_dir", tiny_model)
    assert_refused(run_script("predict.py", "batch", *flags, "--ray", code=None), "pip install -r requirements-ray.txt")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "cluster", "needs", "most"),
    [
        ({}, {"CPU": 7.0}, {"num_cpus": 1}, 7),
        ({"threads": 2}, {"CPU": 7.0}, {"num_cpus": 2}, 3),
        ({"threads": 8}, {"CPU": 2.0}, {"num_cpus": 8}, 1),
        ({}, {"CPU": 64.0, "GPU": 4.0}, {"num_gpus": 1}, 4),
        ({"device": "cpu"}, {"CPU": 64.0, "GPU": 4.0}, {"num_cpus": 1}, 64),
        ({"mixed_precision": "int8"}, {"CPU": 3.0, "GPU": 4.0}, {"num_cpus": 1}, 3),
    ],
)
def test_actors_fill_the_gpus_of_a_cluster_or_else_its_processors(
    tmp_path, monkeypatch, settings, cluster, needs, most
):
    monkeypatch.chdir(tmp_path)
    reader = {"model_dir": "model", "device": "auto", "mixed_precision": "auto", "backend": "auto"} | settings
    work, found, actors = fit(Work(tmp_path, reader, {}), cluster, None)
    assert (found, actors) == (needs, most)
    assert work.reader["model_dir"] == tmp_path / "model", "the same on all nodes"
    assert fit(Work(tmp_path, reader, {}), cluster, 5)[2] == 5


@pytest.mark.slow
@pytest.mark.fault("batch killed and resumed")
@pytest.mark.skipif(not HAS_RAY, reason="needs Ray: pip install -r requirements-ray.txt")
def test_a_node_that_dies_half_way_costs_no_answer_and_no_byte(exported, tmp_path, record_property):
    from ray.cluster_utils import Cluster

    count, source, out = 12, tmp_path / "in", tmp_path / "out"
    total = write_shards(source, count, 1200)
    reader, expected = Reader(exported, "cpu", threads=1), {}
    for path in source.iterdir():
        answer_file(reader, path, tmp_path / path.name)
        expected[path.name] = (tmp_path / path.name).read_bytes()
    small = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
    try:
        second = cluster.add_node(**small)
        cluster.wait_for_nodes()
        flags = ("--input", source, "--output", f"{out}/", "--model_dir", exported, "--device", "cpu")
        command = [sys.executable, PROJECT_ROOT / "predict.py", "batch", *flags, "--ray", cluster.address]
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
        )
        deadline = time.monotonic() + 300
        while not (len(list(out.glob("*.done"))) >= 2 and len(list(out.glob("*.progress"))) == 2):  # both nodes at it
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        complete = len(list(out.glob("*.done")))
        cluster.remove_node(second, allow_graceful=False)
        said, errors = process.communicate(timeout=500)
    finally:
        cluster.shutdown()
    assert complete < count
    assert process.returncode == 0, errors
    assert f"{total:,} answers to {count} of {count} files" in said
    assert {path.name: path.read_bytes() for path in out.glob("*.jsonl")} == expected
    ids = Counter(json.loads(line)["id"] for path in out.glob("*.jsonl") for line in path.open(encoding="utf-8"))
    assert (len(ids), set(ids.values())) == (total, {1})
    record_property("tried", 1)
