"""What the terminal sees: errors that a user can fix, exit codes, bars, colours, output that survives any encoding.

Results go to standard output; notes, bars, warnings and errors to standard error. With --quiet only results, warnings
and errors are left.
"""

import argparse
import atexit
import builtins
import errno
import io
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import unicodedata
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from extractive_qa.errors import QAError
from utils.offline import PROJECT_ROOT

LINE_EVERY = 30  # seconds, of a bar where there is no terminal
OUTPUT = {"quiet": False}
CODES = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """--help with the examples of the description as they stand, every default shown, and paths as seen from the
    project. Fits the terminal."""

    def __init__(self, prog: str):
        width = min(120, shutil.get_terminal_size().columns)
        super().__init__(prog, max_help_position=min(36, 2 * width // 5), width=width)

    def _fill_text(self, text, width, indent):
        """Prose is filled to the width. Examples, which are indented, stay; where they are too long for it, their
        comments stand above them."""
        lines = []
        for is_prose, group in groupby(text.splitlines(), key=lambda line: not line.startswith(" ") and line != ""):
            block = list(group)
            if is_prose:
                block = textwrap.wrap(" ".join(block), width, break_on_hyphens=False)
            elif max(map(len, block)) > width:
                block = [re.sub(r"^( +)(\S.*?) +(# .*)$", r"\1\3\n\1\2", line) for line in block]
            lines += block
        return "\n".join(lines)

    def _get_help_string(self, action):
        if action.default is False:
            return f"{action.help} (default: off)"
        if action.default is None:
            return action.help  # the text says what then happens
        if isinstance(action.default, Path) and action.default.is_relative_to(PROJECT_ROOT):
            return f"{action.help} (default: {action.default.relative_to(PROJECT_ROOT).as_posix()})"
        return super()._get_help_string(action)

    def _get_default_metavar_for_optional(self, action):
        return {int: "N", float: "X", Path: "PATH"}.get(action.type, super()._get_default_metavar_for_optional(action))


def make_parser(doc: str, usage: str) -> argparse.ArgumentParser:
    """A script's parser, whose --help begins with the script's `doc` and ends in the exit codes."""
    codes = "exit codes: 0 done, 1 a fault of ours (with a traceback), 2 something to fix, 130 interrupted (Ctrl-C)"
    return argparse.ArgumentParser(usage=usage, description=doc, epilog=codes, formatter_class=HelpFormatter)


def add_file_flags(add: Callable) -> None:
    """Adds the flags of how files of questions are read."""
    add("--skip_bad_examples", action="store_true", help="leave invalid records out instead of refusing the file")
    add("--strict", action="store_true", help="repair nothing: refuse a wrong offset of a text that occurs once, too")
    add("--renumber_ids", action="store_true", help="give questions whose id occurred before another one")
    add("--encoding", default="utf-8", metavar="NAME", help="of files of text: gb18030, cp1252, ...")


def file_options(args: argparse.Namespace) -> dict:
    """What those flags say, as arguments of read_examples."""
    options = {name: getattr(args, name) for name in ("strict", "renumber_ids", "encoding")}
    return options | {"skip_bad": args.skip_bad_examples}


def file_flags(args: argparse.Namespace) -> list[str]:
    """Those flags as they were given, for the next command."""
    given = [f"--{name}" for name in ("skip_bad_examples", "strict", "renumber_ids") if getattr(args, name)]
    return given + [f"--encoding {args.encoding}"] * (args.encoding != "utf-8")


class LogHandler(logging.Handler):
    """Shows what the library logs as notes and warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        (warn if record.levelno >= logging.WARNING else note)(record.getMessage())


# the library's arguments that are flags here, and what it advises as commands of this checkout
ARGUMENT = re.compile(
    r"\b(device|backend|mixed_precision|max_length|doc_stride|compile|batch_size|threads|encoding|strict|"
    r"renumber_ids|keep_layers)=('[^']*'|[\w.:+-]+)"
)
COMMANDS = {
    "Fine-tune it first.": "Run: python train.py",
    "Export it first.": "Run: python tools/export_onnx.py",
    "Get it again.": "Run: python download_data.py --force",
    "hf download google/mobilebert-uncased --local-dir models/mobilebert-uncased": "python download_data.py",
    "impossible=True": "--handle_impossible_answer",
}


def in_flags(text: str) -> str:
    """What the library says of its arguments, said of flags: `mixed_precision='int8'` as `--mixed_precision int8`."""
    text = ARGUMENT.sub(lambda found: f"--{found[1]} {found[2].strip(chr(39))}".replace(" True", ""), text)
    text = re.sub(r"`(device|backend|mixed_precision|compile)`", r"--\1", text)
    text = re.sub(r'read_examples\("(.+)", problems_shown=None\)', r"python tools/inspect_data.py \1", text)
    text = text.replace("skip_bad=True", subprocess.list2cmdline(["python", *sys.argv, "--skip_bad_examples"]))
    for advice, command in COMMANDS.items():
        text = text.replace(advice, command)
    return text


def show_log() -> None:
    """Has what the library says shown on standard error."""
    logger = logging.getLogger("extractive_qa")
    if not any(isinstance(handler, LogHandler) for handler in logger.handlers):
        logger.addHandler(LogHandler())
        logger.setLevel(logging.INFO)
        logger.propagate = False


def be_quiet(quiet: bool) -> None:
    """Whether `say`, `note` and `progress` are silent from now on: --quiet. Of several processes that train together,
    those that are not the first always are."""
    OUTPUT["quiet"] = quiet or os.environ.get("RANK", "0") != "0"


def exit_quietly_on_interrupt() -> None:
    """Lets Ctrl-C end the process without a traceback while a script is still importing its libraries, which takes
    seconds, and `run` is not reached yet."""
    earlier = sys.excepthook

    def hook(kind, error, traceback) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            earlier(kind, error, traceback)
            return
        print("\ninterrupted", file=sys.stderr, flush=True)
        os._exit(130)

    sys.excepthook = hook


def run(main: Callable[[], object], more_follows: bool = False) -> object:
    """Runs a script's main(), or a part of it where `more_follows`, and returns its value. QAError and Ctrl-C become a
    message and an exit code, with which the process ends."""
    show_log()
    if os.name == "nt" and not windows_shows_colours():
        os.environ["NO_COLOR"] = "1"
    hosts = sys.stdout, sys.stderr, sys.stdin
    # None where the shell has closed it, or there is no console (pythonw)
    nowhere = Path(os.devnull)
    streams = (nowhere.open("w", encoding="utf-8") if stream is None else stream for stream in hosts[:2])
    sys.stdout, sys.stderr = (s if hasattr(s, "reconfigure") else HostStream(s) for s in streams)
    for stream in (sys.stdout, sys.stderr):
        # a GBK or ASCII console shows what it can't encode as \xe9 instead of failing
        stream.reconfigure(errors="backslashreplace")
    if sys.stdin is not None:  # None where the shell has closed it
        sys.stdin = sys.stdin if hasattr(sys.stdin, "reconfigure") else HostStream(sys.stdin)
        sys.stdin.reconfigure(errors="replace")  # what is typed or piped in need not be in its encoding
    try:
        return run_with_streams(main, more_follows)
    finally:  # a notebook goes on with its own
        for name, host in zip(("stdout", "stderr", "stdin"), hosts, strict=True):
            if isinstance(getattr(sys, name), HostStream):
                setattr(sys, name, host)


def run_with_streams(main: Callable[[], object], more_follows: bool) -> object:
    """What `run` does once the streams are as the scripts expect them."""
    code, result = 0, None
    try:
        result = main()
        sys.stdout.flush()
    except QAError as error:
        write(paint(f"error: {in_flags(str(error))}", "red", sys.stderr), sys.stderr)
        code = 2
    except KeyboardInterrupt as interrupt:
        if not in_notebook():  # which goes on, and may be interrupted again
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # once more, while the process ends, would show a traceback
        print(f"\n{str(interrupt) or 'interrupted'}", file=sys.stderr)
        code = 130
    except OSError as error:
        if not reader_has_gone(error):
            raise
        # predict ... | head: nothing is wrong, nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not more_follows:
        leave_at_once(code)
    if code:
        sys.exit(code)
    return result


class HostStream(io.TextIOBase):
    """A stream of a notebook, an editor or a test, which may have no more than `write` or `readline`: no terminal, no
    file."""

    encoding = "utf-8"

    def __init__(self, stream):
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        getattr(self.stream, "flush", bool)()

    def readline(self, size: int = -1) -> str:
        return self.stream.readline()

    def reconfigure(self, **_: object) -> None:
        pass


def in_notebook() -> bool:
    """Whether IPython runs the script, by %run: its process does not end with it."""
    return hasattr(builtins, "__IPYTHON__")


def reader_has_gone(error: OSError) -> bool:
    """Whether an error of writing to a pipe says that nobody reads from it any more. Windows may call that an invalid
    argument (https://github.com/python/cpython/issues/79935), as it calls a bad path: such an error names the path."""
    on_windows = os.name == "nt" and error.errno == errno.EINVAL and error.filename is None
    return on_windows or isinstance(error, BrokenPipeError)


def leave_at_once(code: int) -> None:
    """Ends one of several processes that trained together, without taking the interpreter down: PyTorch's threads of
    communication are still there after destroy_process_group and now and then abort a process that finalizes
    (https://github.com/pytorch/pytorch/issues/190489)."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def fail(message: str) -> None:
    """Ends the process with an error that a user can fix, from any thread."""
    write(paint(f"error: {message}", "red", sys.stderr), sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)


def write(text: str, stream) -> None:
    """Prints a line, above the bars where there are any."""
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(text, file=stream)
    else:
        print(text, file=stream)


def say(text: str) -> None:
    """Prints what is about to happen, or has happened, to standard output. Results, which --quiet lets through, are
    printed with print."""
    if not OUTPUT["quiet"]:
        write(text, sys.stdout)


def note(text: str) -> None:
    """Prints a remark about the run to standard error, where it can't mix with results."""
    if not OUTPUT["quiet"]:
        write(paint(in_flags(text), "dim", sys.stderr), sys.stderr)


def warn(text: str) -> None:
    """Prints a warning to standard error."""
    write(paint(f"warning: {in_flags(text)}", "yellow", sys.stderr), sys.stderr)


def progress(iterable=None, **settings):
    """A tqdm bar on standard error, with its settings (desc, total, unit, leave, ...), that everybody uses. Where
    standard error is no terminal it is a line every half minute, and none for what takes less; with --quiet nothing."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        # consoles of Chinese and Japanese Windows draw a block as wide as two letters, and the line would break
        is_narrow = os.name != "nt" and (sys.stderr.encoding or "").lower().startswith("utf")
        settings |= {"dynamic_ncols": True, "ascii": not is_narrow}
    else:
        rate = "" if "bar_format" in settings else ", {rate_fmt}"  # else the postfix has one
        state = "{desc}: {percentage:.0f}%, {n_fmt} of {total_fmt}{unit}, {elapsed}<{remaining}" + rate + "{postfix}"
        settings |= {"file": LineByLine(sys.stderr), "bar_format": state}
        settings |= dict.fromkeys(("mininterval", "maxinterval", "delay"), LINE_EVERY)
    return tqdm(iterable, disable=OUTPUT["quiet"], **settings)


class LineByLine:
    """A stream for tqdm that has no cursor to move: every state of a bar that is written is a line of its own."""

    def __init__(self, stream):
        self.stream, self.encoding = stream, stream.encoding

    def write(self, text: str) -> None:
        if text := re.sub("\x1b\\[A", "", text).strip():
            self.stream.write(text + "\n")

    def flush(self) -> None:
        self.stream.flush()


def fit(line: str) -> str:
    """`line`, "label:   text", for standard output: on a terminal broken between words, the text in a column of its
    own. As it stands elsewhere, and where letters are two columns wide, as in Chinese."""
    if not sys.stdout.isatty() or any(unicodedata.east_asian_width(char) in "WF" for char in line):
        return line
    column = " " * (len(line) - len(re.sub(r"^\w+: +", "", line)))
    width = min(100, shutil.get_terminal_size().columns)
    return textwrap.fill(line, width, subsequent_indent=column, break_on_hyphens=False)


def paint(text: str, colour: str, stream=None) -> str:
    """`text` in a colour of CODES where `stream` (standard output by default) is a terminal and NO_COLOR is not set."""
    stream = stream or sys.stdout
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{CODES[colour]}m{text}\x1b[0m"


def windows_shows_colours() -> bool:
    """Has the console of Windows take colour codes, which it shows as letters otherwise. False where none can."""
    import ctypes

    kernel32 = ctypes.windll.kernel32
    # standard output and error; processed output, wrapped lines, codes, as SetConsoleMode is documented
    taken = [kernel32.SetConsoleMode(kernel32.GetStdHandle(handle), 1 | 2 | 4) for handle in (-11, -12)]
    return any(taken)
