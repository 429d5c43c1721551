"""Offline means offline: no connection is even tried, and none is needed. Nor do the tests need any but loopback."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import network_guard
import pytest
from scripts import PROJECT_ROOT

DATA = PROJECT_ROOT / "data" / "sample"
NO_NETWORK = "network that must not be used"

# Runs a script with every use of Python's sockets turned into a report; loopback between own processes would show too.
# Only a look at whether IPv6 is there, with which urllib3 begins, is let through: it reserves a port of ::1.
HOOK = """
import runpy, sys
def stop(event, arguments):
    if event == "socket.bind" and arguments[1] == ("::1", 0):
        return
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        print("NETWORK", event, arguments, file=sys.stderr, flush=True)
        raise OSError("no network in this test")
sys.addaudithook(stop)
sys.argv = sys.argv[1:]
sys.path[0] = {root!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


# someone's own program, which has not called go_offline
OWN = f"""
import sys
sys.path.insert(0, {str(PROJECT_ROOT)!r})
from extractive_qa.reader import Reader
print(Reader(sys.argv[1], backend=sys.argv[2]).answer("Who won?", "Ada won."))
"""


def commands(model: Path, output: Path) -> list[tuple[list[object], str]]:
    """Every script in each of its ways: arguments, and what is typed."""
    trained, dev = output / "final_model", DATA / "dev.json"
    small = ["--per_device_train_batch_size", 2, "--max_train_samples", 8, "--max_eval_samples", 2, "--save_steps", 1]
    files = ["--train_file", DATA / "train.json", "--eval_file", dev, "--verify_files"]
    question = ["--question", "Who won?", "--context", "Ada won."]
    own = output.parent / "own.py"
    own.write_text(OWN, encoding="utf-8")
    return [
        (["train.py", "--model_dir", model, "--output_dir", output, *files, *small, "--max_steps", 2], ""),
        (["evaluate.py", "--model_dir", trained, "--eval_file", dev, "--max_samples", 2, "--output_dir", output], ""),
        (["tools/export_onnx.py", "--model_dir", trained, "--eval_file", dev, "--max_samples", 2, "--force"], ""),
        (["predict.py", "demo", "--model_dir", trained, "--backend", "torch"], ""),
        (["predict.py", "ask", "--model_dir", trained, "--backend", "onnx", "--json", *question], ""),
        (["predict.py", "--model_dir", trained, "--backend", "onnx"], "Ada won.\n\nWho won?\n:quit\n"),
        ([own, trained, "onnx"], ""),
    ]


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """A fresh home, and all that could lead a library to the network: the scripts must not listen."""
    (tmp_path / "home").mkdir()
    quiet = ("HF_", "TRANSFORMERS_", "XDG_", "CI")  # ONNX Runtime reports nothing where it finds CI
    kept = {name: value for name, value in os.environ.items() if not name.startswith(quiet)}
    proxies = {f"{name}_PROXY": "http://127.0.0.1:9" for name in ("HTTP", "HTTPS", "ALL")}
    return kept | proxies | {name.lower(): address for name, address in proxies.items()} | {
        "HOME": str(tmp_path / "home"), "USERPROFILE": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_EVALUATE_OFFLINE": "0",
        "HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_secret", "HF_HUB_DISABLE_TELEMETRY": "0",
        "HF_UPDATE_DOWNLOAD_COUNTS": "1", "DISABLE_SAFETENSORS_CONVERSION": "0", "ORT_DISABLE_TELEMETRY": "0",
        "PYTHONIOENCODING": "utf-8",
    }  # fmt: skip


def run(command, environment, stdin=""):
    return subprocess.run(
        [str(part) for part in command], input=stdin, check=False, capture_output=True, text=True, encoding="utf-8",
        env=environment, cwd=PROJECT_ROOT, timeout=600,
    )  # fmt: skip


def without_interfaces() -> list[str]:
    """What starts a command in a network of its own that has no interface, [] where that can't be had."""
    command = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") and run([*command, "true"], None).returncode == 0:
        return command
    return []


@pytest.mark.fault(NO_NETWORK)
def test_no_connection_is_tried_and_no_interface_is_needed(tiny_model, tmp_path, environment, record_property):
    """Where the system can take the interfaces away, it does."""
    everything = commands(tiny_model, tmp_path / "output")
    start = [*without_interfaces(), sys.executable, "-c", HOOK.format(root=str(PROJECT_ROOT))]
    for (script, *arguments), typed in everything:
        done = run([*start, PROJECT_ROOT / script, *arguments], environment, typed)
        assert done.returncode == 0, done.stderr
        assert "NETWORK" not in done.stderr, done.stderr
    left = [path.relative_to(tmp_path / "home") for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert [path for path in left if "matplotlib" not in path.parts] == []  # that library keeps its list of fonts
    record_property("tried", len(everything))


@pytest.mark.parametrize("tries", ["socket.create_connection(address)", "socket.socket().connect_ex(address)",
    "socket.socket(type=socket.SOCK_DGRAM).sendto(b'', address)", "socket.getaddrinfo('example.invalid', 9)",
    "__import__('_socket').socket().connect(address)"])  # fmt: skip
def test_the_hook_sees_every_way_to_a_network(tries, environment, tmp_path):
    script = tmp_path / "tries.py"
    script.write_text(f"import socket\naddress = ('127.0.0.1', 9)\n{tries}\n", encoding="utf-8")
    done = run([sys.executable, "-c", HOOK.format(root=str(PROJECT_ROOT)), script], environment)
    assert "NETWORK" in done.stderr
    script.write_text("import socket, ssl, urllib.request\nsocket.socket()\n", encoding="utf-8")
    done = run([sys.executable, "-c", HOOK.format(root=str(PROJECT_ROOT)), script], environment)
    assert (done.returncode, done.stderr) == (0, "")


# ---- what native code does: the system itself is asked


TRACED = "connect,bind,sendto,sendmsg,sendmmsg"
INTERNET = re.compile(r"^.*\b(?:connect|bind|sendto|sendmsg|sendmmsg)\(.*AF_INET.*$", re.MULTILINE)
LOOK_FOR_IPV6 = re.compile(r"\bbind\(.*sin6_port=htons\(0\).*\"::1\"")


def trace(command, environment, log, stdin=""):
    """Runs a command, and gives the system calls of all its threads and processes that name an internet address."""
    strace = ["strace", "-f", "-qq", "-e", f"trace={TRACED}", "-o", log]
    done = run([*strace, *command], environment, stdin)
    calls = INTERNET.findall(log.read_text(encoding="utf-8", errors="replace"))
    return done, [call for call in calls if not LOOK_FOR_IPV6.search(call)]


@pytest.fixture
def log(tmp_path, environment):
    if shutil.which("strace") is None or trace(["true"], environment, tmp_path / "log")[0].returncode:
        pytest.skip("needs strace and the right to trace a process (Linux)")
    return tmp_path / "log"


@pytest.mark.slow
@pytest.mark.fault(NO_NETWORK)
def test_no_system_call_names_an_internet_address(tiny_model, tmp_path, environment, log, record_property):
    """Not in Python, not in the native code of torch, ONNX Runtime and the others, not in any thread."""
    everything = commands(tiny_model, tmp_path / "output")
    everything.append(([tmp_path / "own.py", tiny_model, "torch"], ""))
    for (script, *arguments), typed in everything:
        done, calls = trace([sys.executable, PROJECT_ROOT / script, *arguments], environment, log, typed)
        assert done.returncode == 0, done.stderr
        assert calls == []
    record_property("tried", len(everything))


def test_the_trace_sees_a_connection(environment, log):
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"
    _, calls = trace([sys.executable, "-c", code], environment, log)
    assert len(calls) == 1


# ---- the tests themselves


@pytest.mark.fault(NO_NETWORK)
@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "example.invalid", "0.0.0.0"])
def test_a_test_that_leaves_this_machine_fails(address):
    with pytest.raises(network_guard.NetworkUsed):
        socket.create_connection((address, 9), timeout=1)
    assert len(network_guard.attempts) == 1
    network_guard.attempts.clear()


def test_swallowing_the_error_does_not_help(tmp_path):
    test = "import socket\ndef test():\n    try:\n        socket.create_connection(('192.0.2.1', 9), timeout=1)\n"
    (tmp_path / "test_swallows.py").write_text(f"{test}    except Exception:\n        pass\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "network_guard", "-p", "no:cacheprovider"]
    guarded = os.environ | {"PYTHONPATH": str(PROJECT_ROOT / "tests")}
    done = run([*command, tmp_path / "test_swallows.py"], guarded)
    assert done.returncode == 1, done.stdout
    assert "this test tried to reach another machine" in done.stdout


def test_loopback_is_open():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5).close()
