"""Runs a script as a user does, and strikes when a function is called for the n-th time.

    python strike.py os:fsync 7 kill train.py --resume
    python strike.py torch:save 2 fill:/mnt/small/filler train.py ...

The function is `module:name`, as the scripts find it. What strikes, just before the call or, for `after-kill` and the
like, just after it:

    kill          the process ends at once, as by SIGKILL or a power cut
    interrupt     Ctrl-C; `interrupt-twice` at once, `interrupt-again` a second later
    fill:PATH     the disk is filled up by a file
    move:A|B      folder A is moved to B
    limit:BYTES   files can no longer grow beyond so many bytes, which fails as a full disk does (POSIX);
                  limit:BYTES|PATH counts them from the size that this file has
"""

import importlib
import os
import runpy
import signal
import sys
import time
from pathlib import Path


def strike(what: str) -> None:
    what, _, argument = what.partition(":")
    if what == "kill":
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    elif what == "interrupt":
        signal.raise_signal(signal.SIGINT)
    elif what in ("interrupt-twice", "interrupt-again"):
        signal.raise_signal(signal.SIGINT)
        time.sleep(1.1 if what == "interrupt-again" else 0)
        signal.raise_signal(signal.SIGINT)
    elif what == "fill":
        fill(Path(argument))
    elif what == "move":
        source, target = argument.split("|")
        Path(source).rename(target)
    elif what == "limit":
        import resource

        size, _, path = argument.partition("|")
        limit = int(size) + (Path(path).stat().st_size if path else 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    else:
        raise ValueError(what)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while file.write(b"f" * size):
                    pass
            except OSError:
                continue


def striking(original, number: int, what: str):
    """The function `original`, whose `number`-th call is struck."""
    calls = 0

    def struck(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number and not what.startswith("after-"):
            strike(what)
        result = original(*args, **kwargs)
        if calls == number and what.startswith("after-"):
            strike(what.removeprefix("after-"))
        return result

    return struck


if __name__ == "__main__":
    _, function, number, what, script, *arguments = sys.argv
    root = str(Path(__file__).resolve().parents[1])
    sys.path[0] = root
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it from the start
    os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})  # the function's module may import them
    module, _, names = function.partition(":")
    *owners, name = names.split(".")
    owner = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    setattr(owner, name, striking(getattr(owner, name), int(number), what))
    sys.argv = [script, *arguments]
    runpy.run_path(str(Path(root) / script), run_name="__main__")
