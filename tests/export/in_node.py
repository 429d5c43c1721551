"""Node.js with the packages that `make test-js` installs, for the tests of what others run our exports with."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from scripts import PROJECT_ROOT

PACKAGES = PROJECT_ROOT / ".node"  # as the Makefile has it


def require_node() -> str:
    """The path of Node. The test that asks is skipped where it, or a package, is missing."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("needs Node.js 20 or later (https://nodejs.org)")
    if not (PACKAGES / "node_modules" / "@huggingface" / "transformers").is_dir():
        pytest.skip("needs transformers.js: make test-js, or the npm command in CONTRIBUTING.md")
    return program


def run_in_node(script: str, *arguments: object, given: list) -> list:
    """What a script of this folder makes of `given`, both as JSON. Its arguments: the packages, then `arguments`."""
    command = [require_node(), Path(__file__).with_name(script), PACKAGES, *arguments]
    done = subprocess.run(
        list(map(str, command)), input=json.dumps(given), check=False, capture_output=True, text=True, encoding="utf-8",
        timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
