"""Exit codes and output that survives any terminal."""

import os
import subprocess
import sys

import pytest
from scripts import PROJECT_ROOT

from utils.console import paint


def run_main(body: str, **environment) -> subprocess.CompletedProcess:
    code = f"from utils.console import UserError, note, run, warn\ndef main():\n    {body}\nrun(main)"
    return subprocess.run(
        [sys.executable, "-c", code],
        check=False, capture_output=True, cwd=PROJECT_ROOT, env=os.environ | environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("print('done')", 0, b""),
        ("raise UserError('found this. Run: that')", 2, b"error: found this. Run: that"),
        ("raise KeyboardInterrupt", 130, b"interrupted"),
        ("raise KeyboardInterrupt('saved')", 130, b"saved"),
        ("raise ValueError('a fault of ours')", 1, b"Traceback"),
    ],
)
def test_exit_codes(body, code, said):
    done = run_main(body)
    assert done.returncode == code
    assert said in done.stderr
    assert (b"Traceback" in done.stderr) == (code == 1)


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe reads as another error there")
def test_a_reader_that_has_seen_enough_is_no_error():
    code = "from utils.console import run\ndef main():\n    for i in range(10**6): print(i)\nrun(main)"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT_ROOT, **pipes) as process:
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize("encoding", ["gbk", "ascii", "cp1252", "utf-8"])
def test_text_that_the_console_lacks_is_shown_escaped(encoding):
    done = run_main(r"print('caf\u00e9 \u6a21\u578b \U0001f600'); warn('\u6a21\u578b')", PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert done.stdout.startswith(b"caf")


def test_colours_only_on_a_terminal_and_never_with_no_color(monkeypatch):
    class Terminal:
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert paint("text", "red", Terminal()) == "\x1b[31mtext\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("text", "red", Terminal()) == "text"
    assert paint("text", "red", sys.__stdin__) == "text" or sys.__stdin__.isatty()
