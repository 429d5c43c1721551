"""The loop of a peer's worker: a line of JSON in, a line of JSON out. Imports nothing of this project."""

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from platform import python_version


def serve(libraries: tuple[str, ...], **commands: Callable[..., dict]) -> None:
    """Says which versions run here, then answers commands until the other side closes the pipe.

    Whatever a library prints goes to standard error: standard output carries answers only.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(answer: dict) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    say({"versions": {"python": python_version()} | {name: version(name) for name in libraries}})
    for line in sys.stdin:
        values = json.loads(line)
        say(commands[values.pop("command")](**values))
