"""What the measurements of memory share: each figure comes from a process of its own, as memory that was used before
is neither given back nor counted twice."""

import json
import os
import subprocess
import sys
from pathlib import Path


def in_fresh_process(script: str, **settings: object) -> dict:
    """What `python SCRIPT --part SETTINGS` prints as its last line: a JSON object. SETTINGS are JSON too."""
    command = [sys.executable, script, "--part", json.dumps(settings)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, encoding="utf-8", env=environment())
    if done.returncode:
        raise SystemExit(f"{Path(script).name} --part '{json.dumps(settings)}' failed, exit code {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONIOENCODING": "utf-8"}
