"""`predict.py web` as a process of its own, for the tests that ask it over a socket or look at it in a browser."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts import PROJECT_ROOT

from utils.offline import SAMPLE_MODEL_DIR, SWITCHES

# a script under the tests' hook on sockets, which says at the end what was tried
GUARDED = """
import atexit, runpy, sys
sys.path.insert(0, {tests!r})
import network_guard
atexit.register(lambda: print("ATTEMPTS", network_guard.attempts, file=sys.stderr))
sys.argv = sys.argv[1:]
sys.path[0] = {root!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
MILL = "The mill at Brook was built by Ada Miller in 1843. It burnt down in 1901 and was never rebuilt."
BRIDGE = "The bridge was built by Tom Mason in 1911. It has four arches, and a tollgate at each end."


def make_documents(home: Path) -> Path:
    folder = home / "papers"
    folder.mkdir()
    (folder / "mill.txt").write_text(MILL)
    (folder / "bridge.md").write_text("# Notes\n\n" + BRIDGE)
    return folder


@contextmanager
def server(home: Path, *arguments: object) -> Iterator[tuple[str, subprocess.Popen]]:
    """The address of `predict.py web` with the bundled model, and its process; `home` is its home and where it works;
    everything that could lead it to the network is set."""
    code = GUARDED.format(tests=str(PROJECT_ROOT / "tests"), root=str(PROJECT_ROOT))
    command = [sys.executable, "-c", code, PROJECT_ROOT / "predict.py", "web", "--port", "0", "--model_dir",
               SAMPLE_MODEL_DIR, "--corrections", home / "corrections.json", *arguments]  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    environment = kept | {
        "HOME": str(home), "USERPROFILE": str(home), "TMPDIR": str(home), "TEMP": str(home), "TMP": str(home),
        "HTTP_PROXY": "http://192.0.2.1:9", "HTTPS_PROXY": "http://192.0.2.1:9", "ALL_PROXY": "http://192.0.2.1:9",
        "HF_HUB_OFFLINE": "0", "PYTHONIOENCODING": "utf-8",
    }  # fmt: skip
    process = subprocess.Popen(
        [*map(str, command)], env=environment, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        encoding="utf-8",
    )  # fmt: skip
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), process.communicate(timeout=60)
        yield address, process
    finally:
        process.kill()
        process.communicate(timeout=60)


def request(url: str, body: object = None, **headers: str) -> tuple[int, bytes]:
    """Status and content of what comes back."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json"} | named)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(asked, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
