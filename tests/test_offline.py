"""Offline means offline: no connection is even tried, and none is needed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import PROJECT_ROOT

DATA = PROJECT_ROOT / "data" / "sample"

# runs a script with every way to a network turned into a report; loopback between own processes would show too
HOOK = """
import runpy, socket, sys
def tried(*args, **kwargs):
    print("NETWORK", args, file=sys.stderr, flush=True)
    raise OSError("no network in this test")
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, tried)
for name in ("getaddrinfo", "gethostbyname", "create_connection"):
    setattr(socket, name, tried)
sys.argv = sys.argv[1:]
sys.path[0] = {root!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def commands(model: Path, output: Path) -> list[list[object]]:
    trained = output / "final_model"
    small = ["--per_device_train_batch_size", 2, "--max_train_samples", 8, "--max_eval_samples", 2, "--max_steps", 2]
    files = ["--train_file", DATA / "train.json", "--eval_file", DATA / "dev.json"]
    return [
        ["train.py", "--model_dir", model, "--output_dir", output, *files, *small],
        ["evaluate.py", "--model_dir", trained, "--eval_file", DATA / "dev.json", "--max_samples", 2,
         "--output_dir", output],
        ["predict.py", "demo", "--model_dir", trained],
    ]  # fmt: skip


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """A fresh home, and switches that ask for the network: the scripts must not listen."""
    (tmp_path / "home").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    return kept | {
        "HOME": str(tmp_path / "home"), "USERPROFILE": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_EVALUATE_OFFLINE": "0",
    }  # fmt: skip


@pytest.mark.fault("a network that must not be used")
def test_no_connection_is_tried(tiny_model, tmp_path, environment):
    hook = HOOK.format(root=str(PROJECT_ROOT))
    control = subprocess.run(
        [sys.executable, "-c", hook, "-"],
        input="",
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        cwd=PROJECT_ROOT,
    )
    assert "NETWORK" not in control.stderr
    for script, *arguments in commands(tiny_model, tmp_path / "output"):
        done = subprocess.run(
            [sys.executable, "-c", hook, str(PROJECT_ROOT / script), *map(str, arguments)],
            check=False, capture_output=True, text=True, env=environment, cwd=PROJECT_ROOT, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "NETWORK" not in done.stderr, done.stderr
    left = [path.relative_to(tmp_path / "home") for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert [path for path in left if "matplotlib" not in path.parts] == []  # that library keeps its list of fonts


def test_the_hook_sees_a_connection(environment, tmp_path):
    script = tmp_path / "connects.py"
    script.write_text("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9/')\n", encoding="utf-8")
    hook = HOOK.format(root=str(PROJECT_ROOT))
    done = subprocess.run(
        [sys.executable, "-c", hook, str(script)],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert "NETWORK" in done.stderr


def test_the_scripts_run_without_any_network_interface(tiny_model, tmp_path, environment):
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-rn", "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("needs unshare and the right to make a network namespace (Linux)")
    for script, *arguments in commands(tiny_model, tmp_path / "output"):
        done = subprocess.run(
            ["unshare", "-rn", sys.executable, str(PROJECT_ROOT / script), *map(str, arguments)],
            check=False, capture_output=True, text=True, env=environment, cwd=PROJECT_ROOT, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
