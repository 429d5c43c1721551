"""Draws what a command of this project writes to a terminal, colours and all, for the README. Needs Linux or macOS.

python dev/draw_terminal.py                              # docs/demo.svg: predict.py demo --sample
python dev/draw_terminal.py a.svg predict.py demo --top_k 3
"""

import io
import os
import pty
import re
import shlex
import sys
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.text import Text

COLUMNS, LINES = 96, 31
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
# a picture that fetches nothing: rich's own names a font on a server. Every run of letters has its width in any font
FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace("Fira Code", FONTS)
FORMAT = re.sub(r"\n\s*(?=\n)|<!-- .*? -->\n", "", FORMAT)

picture, *command = sys.argv[1:] or ["docs/demo.svg", "predict.py", "demo", "--sample"]
title = f"python {shlex.join(command)}"
said = bytearray()


def keep(descriptor: int) -> bytes:
    piece = os.read(descriptor, 1 << 16)
    said.extend(piece)
    return piece


os.environ |= {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
if pty.spawn(["sh", "-c", f"{shlex.quote(sys.executable)} {shlex.join(command)} 2>/dev/null"], keep):
    sys.exit(f"{title} failed: nothing was drawn")
lines = said.decode().replace("\r\n", "\n").rstrip().split("\n")[:LINES]
console = Console(record=True, width=COLUMNS, file=io.StringIO())
console.print(Text.from_ansi("\n".join([f"$ {title}", *lines]).rstrip()))
Path(picture).write_text(console.export_svg(title=title, code_format=FORMAT, unique_id="t"), encoding="utf-8")
