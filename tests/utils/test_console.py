"""Exit codes and output that survives any terminal."""

import ast
import contextlib
import os
import re
import struct
import subprocess
import sys

import pytest
from scripts import PROJECT_ROOT, run_script

from utils.console import in_flags, paint


def run_main(body: str, **environment) -> subprocess.CompletedProcess:
    code = f"from utils.console import QAError, note, run, warn\ndef main():\n    {body}\nrun(main)"
    return subprocess.run(
        [sys.executable, "-c", code],
        check=False, capture_output=True, cwd=PROJECT_ROOT, env=os.environ | environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("print('done')", 0, b""),
        ("raise QAError('found this. Run: that')", 2, b"error: found this. Run: that"),
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


@pytest.mark.parametrize(
    ("system", "error", "code"),
    [
        ("posix", "BrokenPipeError(errno.EPIPE, 'Broken pipe')", 0),
        ("nt", "BrokenPipeError(errno.EPIPE, 'Broken pipe')", 0),
        ("nt", "OSError(errno.EINVAL, 'Invalid argument')", 0),
        ("posix", "OSError(errno.EINVAL, 'Invalid argument')", 1),
        ("nt", "OSError(errno.EINVAL, 'Invalid argument', 'a?b')", 1),
        ("nt", "OSError(errno.ENOSPC, 'No space left on device')", 1),
    ],
)
def test_a_reader_that_has_gone_is_told_from_other_errors_on_every_system(system, error, code):
    """Python on Windows may raise EINVAL instead of EPIPE, and does for paths that can't be."""
    done = run_main(f"import errno, os; os.name = {system!r}; raise {error}")
    assert done.returncode == code
    assert (b"Traceback" in done.stderr) == (code == 1)


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes streams")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_what_is_said_to_a_closed_stream_is_said_to_nobody(closed):
    body = "print('result'); note('noted'); warn('warned'); raise QAError('wrong')"
    code = f"from utils.console import QAError, note, run, warn\ndef main():\n    {body}\nrun(main)"
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=PROJECT_ROOT)
    assert done.returncode == 2
    assert done.stdout == ("" if ">&-" in closed.split() else "result\n")
    assert done.stderr == ("" if "2>&-" in closed else "noted\nwarning: warned\nerror: wrong\n")


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


def terminal(*command: object, columns: int = 80, encoding: str = "utf-8", **environment) -> tuple[str, int]:
    """What `python command...` writes where standard output and error are a terminal, and its exit code."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    settings = plain | {"TERM": "xterm", "PYTHONIOENCODING": encoding} | environment
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=PROJECT_ROOT, env=settings, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = b""
    with (
        contextlib.suppress(OSError),
        os.fdopen(ours, "rb", buffering=0) as file,
    ):  # Linux ends a terminal with an error
        while piece := file.read(65536):
            said += piece
    return said.decode(encoding), process.wait()


BAR = "from utils import console\nfor _ in console.progress(range(3), desc='reading', unit=' lines'): pass"


def test_a_bar_on_a_terminal_fits_it_and_has_no_colours():
    said, code = terminal("-c", BAR, columns=60)
    states = [state for state in re.split(r"[\r\n]+", said) if state]
    assert code == 0
    assert states[-1].startswith("reading: 100%|")
    assert "\u2588" in states[-1]
    assert max(map(len, states)) <= 60
    assert "\x1b[3" not in said


def test_a_bar_on_a_gbk_terminal_is_made_of_ascii_signs():
    said, code = terminal("-c", BAR, encoding="gbk")
    assert (code, said.isascii()) == (0, True)
    assert "reading: 100%|###" in said


def test_a_bar_in_a_file_is_one_line_for_each_interval_and_none_for_what_is_quick():
    slow = "console.LINE_EVERY = 0.05\nimport time\nfor i in console.progress(range(9), desc='reading', unit=' lines'):"
    slow += "\n    inner = list(console.progress(range(3), desc='scoring', leave=False)); time.sleep(0.06)"
    done = subprocess.run(
        [sys.executable, "-c", f"from utils import console\n{slow}"], cwd=PROJECT_ROOT, check=True, capture_output=True
    )
    lines = done.stderr.decode().splitlines()
    assert 2 <= len(lines) <= 11
    assert all(re.match(r"reading: \d+%, \d of 9 lines, 00:0\d<", line) for line in lines)
    assert b"\r" not in done.stderr
    assert b"\x1b" not in done.stderr
    quick = subprocess.run([sys.executable, "-c", BAR], cwd=PROJECT_ROOT, check=True, capture_output=True)
    assert quick.stderr == b""


def test_a_bar_with_a_rate_of_its_own_shows_no_other(monkeypatch):
    """Of a file of answers there were bytes/s and questions/s in one line."""
    slow = "console.LINE_EVERY = 0.05\nimport time\nwith console.progress(total=9, bar_format='{bar}{postfix}') as bar:"
    slow += "\n    for _ in range(9): time.sleep(0.06); bar.set_postfix_str('5.0 questions/s'); bar.update()"
    code = f"from utils import console\n{slow}"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=True, capture_output=True)
    lines = done.stderr.decode().splitlines()
    assert lines
    assert all(line.count("/s") == 1 for line in lines)


def test_what_the_library_advises_is_said_in_flags():
    assert in_flags("Name it: encoding='gb18030'. Or") == "Name it: --encoding gb18030. Or"
    get = "Get it first: hf download google/mobilebert-uncased --local-dir models/mobilebert-uncased"
    assert in_flags(get) == "Get it first: python download_data.py"


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_leaves_results_warnings_and_errors(quiet, rank):
    body = "from utils import console; from utils.console import be_quiet, progress, say; console.LINE_EVERY = 0; "
    body += f"be_quiet({quiet}); say('said'); note('noted'); list(progress(range(9), desc='bar')); "
    body += "print('result'); warn('warned'); raise QAError('wrong')"
    done = run_main(body, RANK=rank)
    silent = quiet or rank == "1"
    assert done.stdout.split() == ([] if silent else [b"said"]) + [b"result"]
    lines = done.stderr.decode().splitlines()
    assert any(line.startswith("bar: ") for line in lines) != silent
    others = [line for line in lines if not line.startswith("bar: ")]
    assert others == ([] if silent else ["noted"]) + ["warning: warned", "error: wrong"]


@pytest.mark.parametrize(("error", "code"), [("None", 0), ("QAError('wrong')", 2), ("KeyboardInterrupt()", 130)])
def test_one_of_several_processes_ends_without_finalizing_and_says_all(error, code):
    body = "import atexit, sys, __main__; atexit.register(print, 'at exit'); print('result')\n    "
    body += f"__main__.last = type('Last', (), {{'__del__': lambda self: print('finalized')}})(); error = {error}\n    "
    body += "if error: raise error"
    done = run_main(body, WORLD_SIZE="2")
    assert (done.returncode, done.stdout.split(b"\n")) == (code, [b"result", b"at exit", b""])
    assert b"finalized" in run_main(body).stdout


def test_a_warning_stands_above_the_bar():
    body = "from utils import console\nfor i in console.progress(range(3), desc='reading'):\n    console.warn(str(i))"
    said, _ = terminal("-c", body)
    lines = [line.split("\r")[-1] for line in re.sub("\x1b\\[[0-9]*m", "", said).replace("\r\n", "\n").split("\n")]
    assert [f"warning: {i}" for i in range(3)] == [line for line in lines if "warning" in line]


def test_a_long_line_is_broken_between_words_on_a_terminal_only():
    code = "from utils.console import fit; print(fit('context:    ' + 'seven letters ' * 9 + 'end'))"
    said, _ = terminal("-c", code, columns=40)
    first, *rest = said.replace("\r\n", "\n").rstrip("\n").split("\n")
    assert first == "context:    seven letters seven letters"
    assert len(rest) > 2
    assert all(line.startswith(" " * 12 + "seven letters") for line in rest)
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=True, capture_output=True)
    assert len(done.stdout.splitlines()) == 1


SCRIPTS = ["download_data.py", "train.py", "evaluate.py", "predict.py"]


@pytest.mark.parametrize("script", [*SCRIPTS, "tools/export_onnx.py"])
def test_help_has_every_default_the_exit_codes_and_fits(script):
    said = run_script(script, "--help", COLUMNS="70").stdout
    assert [line for line in said.splitlines() if len(line) > 70 and not line.startswith("    python ")] == []
    flags = re.split(r"\n  (?=-|\{)", said.partition("\noptions:")[2].partition("\nexit codes")[0])[2:]
    assert len(flags) >= 6
    for flag in flags:
        # what --bf16 and --fp16 are short for has one
        assert re.search(r"default:\s|short for", flag), flag
    assert re.search(r"exit codes: 0 .*1 .*2 .*130 ", said.replace("\n", " "))
    examples = re.findall(rf"^    python {script}", said, re.M)
    assert len(examples) >= 2


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [("QAError", 2, "error: "), ("KeyboardInterrupt", 130, "interrupted"), ("ValueError", 1, "Traceback")],
)
def test_every_script_ends_with_the_documented_exit_codes(script, fault, code, said):
    """The fault is raised where the script asks whether to be quiet: its own main runs, in its own way."""
    body = f"import runpy, sys; from utils import console\ndef be_quiet(_): raise {fault}('interrupted')"
    body += f"\nfrom utils.console import QAError\nconsole.be_quiet = be_quiet\nsys.argv = [{script!r}]"
    body += f"\nrunpy.run_path({script!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", body], cwd=PROJECT_ROOT, check=False, capture_output=True)
    assert done.returncode == code
    assert said in done.stderr.decode()
    assert ("Traceback" in done.stderr.decode()) == (code == 1)


# a notebook: IPython's streams have neither reconfigure nor fileno, others' not even isatty
IN_A_NOTEBOOK = """
import runpy, sys

class Cell:
    def __init__(self): self.text = ""
    def write(self, text): self.text += text

class OutStream(Cell):
    encoding = "UTF-8"
    def isatty(self): return False
    def flush(self): pass
    def fileno(self): raise OSError("no file")

class Typed:
    def readline(self): return ""

kind, *sys.argv = sys.argv[1:]
if kind == "closed":
    sys.stdin = None
streams = {"bare": Cell, "ipython": OutStream, "closed": OutStream}[kind]
sys.stdout, sys.stderr, sys.stdin = cells = streams(), streams(), Typed()
code = 0
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    code = end.code
same = (sys.stdout, sys.stderr, sys.stdin) == cells
sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
print(repr((code, same, cells[0].text, cells[1].text)))
"""


def in_notebook(kind: str, *command: object) -> tuple[int, bool, str, str]:
    """Exit code, whether the streams are as before, and what was written, of a script in a process that goes on."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NOTEBOOK, kind, *map(str, command)], cwd=PROJECT_ROOT, check=False,
        capture_output=True, encoding="utf-8", env=os.environ | {"PYTHONPATH": str(PROJECT_ROOT), "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "kind", ["ipython", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("bare", "closed"))]
)
def test_a_script_runs_in_a_notebook(kind, tmp_path):
    ask = ("predict.py", "ask", "--sample", "--backend", "torch", "--device", "cpu")
    words = ("--question", "Who went home?", "--context", "Anna Berg went home — at 8.")
    code, same, said, _ = in_notebook(kind, *ask, *words)
    assert (code, same) == (0, True)
    assert "Anna Berg" in said
    code, same, _, errors = in_notebook(kind, *ask, *words[:2])
    assert (code, same) == (2, True)
    assert "error: ask needs --question" in errors


def test_in_a_notebook_standard_output_is_no_file_of_answers(tmp_path):
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"id": "1", "question": "Who?", "context": "Anna went home."}\n', encoding="utf-8")
    batch = ("predict.py", "batch", "--sample", "--backend", "torch", "--device", "cpu", "--input", questions)
    code, _, _, errors = in_notebook("ipython", *batch, "--output", "-")
    assert (code, "--output FILE" in errors) == (2, True)
    code, _, said, _ = in_notebook("bare", *batch, "--output", tmp_path / "answers.jsonl")
    assert code == 0, said
    assert "Anna" in (tmp_path / "answers.jsonl").read_text(encoding="utf-8")
