"""Runs the scripts as a user does, in a process of their own, from any folder and in any environment."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]


def load_script(name: str):
    """The module of a script, whose main() can be called in this process: cheaper where a process is not the point."""
    spec = importlib.util.spec_from_file_location(f"{Path(name).stem}_script", PROJECT_ROOT / name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run_script(
    name: str, *args: object, cwd: Path | None = None, code: int | None = 0, stdin: str | bytes = "", **environment
):
    """Runs `python name args...`. `code` is the exit code it must have (None: any). Returns the finished process.

    Output is read as UTF-8 and written so, unless `environment` says otherwise.
    """
    command = [sys.executable, str(PROJECT_ROOT / name), *map(str, args)]
    done = subprocess.run(
        command,
        cwd=cwd or PROJECT_ROOT,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"} | environment,
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        check=False,
        capture_output=True,
        timeout=600,
    )
    done.stdout = done.stdout.decode("utf-8", errors="replace")
    done.stderr = done.stderr.decode("utf-8", errors="replace")
    if code is not None:
        assert done.returncode == code, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def assert_refused(done, *words: str) -> None:
    """A user's mistake: exit code 2, a message with these words on standard error, no traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, f"{word!r} is not in: {done.stderr}"


def run_struck(function: str, number: int, what: str, script: str, *args: object, **settings):
    """As run_script, struck at the `number`-th call of `function`: see strike.py. Any exit code, unless `code` says."""
    if what.startswith("limit"):  # what coverage would write of this process would hit the limit too
        settings = {"COVERAGE_PROCESS_CONFIG": ""} | settings
    return run_script("tests/strike.py", function, number, what, script, *args, **{"code": None} | settings)
