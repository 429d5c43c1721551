"""Draws what a command of this project writes to a terminal as an SVG, colours and all: docs/demo.svg of the README.

    python tools/draw_terminal.py                               # python predict.py demo --sample
    python tools/draw_terminal.py --output_file a.svg --lines 40 predict.py demo --top_k 3

Needs a system with pseudo-terminals (Linux, macOS). The picture names system fonts only and holds no script.
"""

import argparse
import os
import re
import struct
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from extractive_qa.errors import QAError
from extractive_qa.files.atomic import write_whole
from extractive_qa.files.reading import make_room, writing
from extractive_qa.text import shown
from utils import console
from utils.offline import PROJECT_ROOT

FONT_SIZE, CELL, LINE, MARGIN, BAR = 14, 8.4, 20, 18, 34  # pixels: a letter's width, a line's height, the title bar
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
PLAIN = 'fill="#d0d7de"'
# by the codes of utils.console
STYLES = {
    "31": 'fill="#ff7b72"', "32": 'fill="#7ee787"', "33": 'fill="#e3b341"', "36": 'fill="#76e3ea"',
    "1": 'fill="#ffffff" font-weight="bold"', "2": 'fill="#8b949e"',
}  # fmt: skip
CODE = re.compile(r"\x1b\[(\d+)m")


def output_on_terminal(command: list[str], columns: int) -> str:
    """What the command writes to a terminal of so many columns. Raises QAError where it fails."""
    try:
        import fcntl
        import pty
        import termios
    except ImportError:
        raise QAError("This system has no pseudo-terminals. Run it on Linux or macOS.") from None
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    with subprocess.Popen(
        [sys.executable, *command], cwd=PROJECT_ROOT, stdin=theirs, stdout=theirs,
        env=environment | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"},
    ) as process:  # fmt: skip
        os.close(theirs)
        said = b""
        with os.fdopen(ours, "rb", buffering=0) as file:
            while piece := read_piece(file):
                said += piece
    if process.returncode:
        raise QAError(f"python {' '.join(command)} ended with exit code {process.returncode}: see above.")
    return said.decode("utf-8").replace("\r\n", "\n")


def read_piece(file) -> bytes:
    try:
        return file.read(65536)
    except OSError:  # how Linux says that the other end of a terminal is closed
        return b""


def runs(line: str, style: str) -> Iterator[tuple[str, str]]:
    """(style, text) of each run of equal letters in a line that begins in `style`; the last one may be empty."""
    place = 0
    for code in CODE.finditer(line):
        yield style, line[place : code.start()]
        style, place = STYLES.get(code[1], PLAIN), code.end()
    yield style, line[place:]


def cells(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def draw(lines: list[str], columns: int, title: str) -> str:
    """The SVG: a dark window with three knobs and a title. Every run of letters is set to its width in cells, whatever
    font there is."""
    width, height = columns * CELL + 2 * MARGIN, len(lines) * LINE + BAR + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{escape(title)}" font-family="{FONTS}" font-size="{FONT_SIZE}">',
        f'<rect width="{width:g}" height="{height:g}" rx="10" fill="#0d1117"/>',
        f'<path d="M0 {BAR}V10A10 10 0 0 1 10 0H{width - 10:g}A10 10 0 0 1 {width:g} 10V{BAR}Z" fill="#21262d"/>',
        *(
            f'<circle cx="{20 + 20 * i}" cy="{BAR / 2:g}" r="6" fill="{colour}"/>'
            for i, colour in enumerate(("#ff5f56", "#ffbd2e", "#27c93f"))
        ),
        f'<text x="{width / 2:g}" y="{BAR / 2 + 5:g}" text-anchor="middle" {STYLES["2"]}>{escape(title)}</text>',
    ]
    style = PLAIN
    for number, line in enumerate(lines):
        column = 0
        for style, text in runs(line, style):  # noqa: B020 - the next line goes on in the last style
            if text.strip():
                size = cells(text)
                parts.append(
                    f'<text x="{MARGIN + column * CELL:g}" y="{BAR + MARGIN + number * LINE + FONT_SIZE:g}" {style} '
                    f'textLength="{size * CELL:g}" lengthAdjust="spacingAndGlyphs" xml:space="preserve">'
                    f"{escape(text, quote=False)}</text>"
                )
            column += cells(text)
    return "\n".join([*parts, "</svg>\n"])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=console.HelpFormatter, epilog=console.EXIT_CODES,
        usage="python tools/draw_terminal.py [options] [script ...]",
    )  # fmt: skip
    add = parser.add_argument
    add("--output_file", type=Path, default=PROJECT_ROOT / "docs" / "demo.svg", help="the picture")
    add("--columns", type=int, default=96, help="width of the terminal")
    add("--lines", type=int, default=31, help="lines of output to show, at most")
    add("script", nargs=argparse.REMAINDER, help="what to run with Python (default: predict.py demo --sample)")
    args = parser.parse_args(argv)
    if not 0 < args.columns < 2**16 or args.lines < 1:
        raise QAError(f"--columns {args.columns} and --lines {args.lines}: expected 1 to 65535, and at least 1.")
    make_room(args.output_file, "--output_file")
    command = args.script or ["predict.py", "demo", "--sample"]

    title = f"python {' '.join(command)}"
    lines = output_on_terminal(command, args.columns).rstrip("\n").split("\n")[: args.lines]
    while lines and not lines[-1].strip():
        lines.pop()
    with writing(args.output_file, "--output_file"):
        write_whole(args.output_file, draw([f"$ {title}", *lines], args.columns, title).encode())
    print(f"wrote {shown(args.output_file)} ({args.output_file.stat().st_size / 1e3:.0f} kB)")


if __name__ == "__main__":
    console.run(main)
