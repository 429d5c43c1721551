"""What the terminal sees: errors that a user can mend, exit codes, colours, output that survives any encoding.

Exit codes of every script: 0 done; 1 a fault of ours (with a traceback, worth a bug report); 2 something the user can
mend; 130 interrupted by Ctrl-C.
"""

import argparse
import os
import shutil
import signal
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]

CODES = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}


class UserError(Exception):
    """Something the user can mend. The text says what was found, what was expected and what to run."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """--help with the description as it stands, every default shown, and paths as seen from the project."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=40, width=min(120, shutil.get_terminal_size().columns))

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


def hush_interrupts() -> None:
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


def run(main: Callable[[], None]) -> None:
    """Runs a script's main(), turns UserError and Ctrl-C into a message and an exit code, and leaves the process."""
    for stream in (sys.stdout, sys.stderr):
        # a GBK or ASCII console shows what it can't encode as \xe9 instead of failing
        stream.reconfigure(errors="backslashreplace")
    if sys.stdin:  # None where the shell has closed it
        sys.stdin.reconfigure(errors="replace")  # what is typed or piped in need not be in its encoding
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        print(paint(f"error: {error}", "red", sys.stderr), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once more, while the process ends, would show a traceback
        print(f"\n{str(interrupt) or 'interrupted'}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # the reader of our pipe has gone (predict ... | head): nothing is wrong, nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def shown(path: Path) -> str:
    """A path for people: as seen from the current folder where it lies below that."""
    path = Path(path).absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def note(text: str) -> None:
    """Prints a remark about the run to standard error, where it can't mix with results."""
    print(paint(text, "dim", sys.stderr), file=sys.stderr)


def warn(text: str) -> None:
    """Prints a warning to standard error."""
    print(paint(f"warning: {text}", "yellow", sys.stderr), file=sys.stderr)


def printable(text: str, longest: int | None = None) -> str:
    """The first `longest` characters of a text of unknown origin. Control characters, which could clear a terminal or
    move its cursor, are shown as \\x1b; line ends and tabs stay."""

    def shown(char: str) -> str:
        return f"\\x{ord(char):02x}" if unicodedata.category(char) == "Cc" and char not in "\n\t" else char

    return "".join(map(shown, text[:longest]))


def paint(text: str, colour: str, stream=None) -> str:
    """`text` in a colour of CODES where `stream` (standard output by default) is a terminal and NO_COLOR is not set."""
    stream = stream or sys.stdout
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{CODES[colour]}m{text}\x1b[0m"
