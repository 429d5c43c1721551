"""predict.py without arguments, on a real terminal: whole pastes are texts, and a sitting takes several."""

import json
import os
import re
import subprocess
import sys

import pytest
from scripts import PROJECT_ROOT

pty = pytest.importorskip("pty", reason="needs pseudo-terminals")

# predict.py with a reader that answers with what it was asked, in a second
ECHO = """
import argparse, json, runpy, sys
from utils import console
script = runpy.run_path("predict.py")
class Reader:
    def answer_all(self, examples, top_k, **settings):
        for example in examples:
            asked = json.dumps([example["question"], example["context"]])
            yield [{"text": f"ASKED{asked}END", "probability": 1.0, "answerable": None}]
args = argparse.Namespace(top_k=1, min_confidence=0.0, encoding="utf-8")
console.run(lambda: script["interactive"](Reader(), args))
"""
PARAGRAPHS = "Ada wrote it.\n\nIt cost 12 euro.\n \nBob read it."
SEVEN_HUNDRED = "A long paragraph in one line. " * 700  # 21 kB: longer than a terminal takes of a line by itself
PASTE = "\x1b[200~{}\x1b[201~"


class Terminal:
    """A sitting at a terminal, on which what is said comes and keys are pressed."""

    def __init__(self, **environment: str):
        self.file, theirs = pty.openpty()
        plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "INPUTRC")}
        settings = plain | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", "LC_ALL": "C.UTF-8"} | environment
        command = [sys.executable, "-c", ECHO]
        self.process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, env=settings, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.said = ""

    def expect(self, words: str) -> str:
        """What is said up to `words`, which are waited for, less the codes that move a cursor."""
        while words not in self.said:
            try:
                piece = os.read(self.file, 65536).decode(errors="replace")
            except OSError:  # Linux ends a terminal with an error
                piece = ""
            assert piece, f"{words!r} never came: {self.said[-2000:]!r}"
            self.said = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b\][^\x07]*\x07|\r", "", self.said + piece)
        before, _, self.said = self.said.partition(words)
        return before

    def type(self, keys: str) -> None:
        content = keys.encode()
        while content:
            content = content[os.write(self.file, content[:1000]) :]

    def asked(self) -> list[str]:
        """The question and the text of the next answer."""
        self.expect("ASKED")
        return json.loads(self.expect("END"))

    def leave(self, keys: str) -> None:
        self.type(keys)
        assert self.process.wait(timeout=60) == 0
        os.close(self.file)


@pytest.mark.parametrize("end", [".\n", "\x04"], ids=["dot", "Ctrl-D"])
def test_a_text_with_empty_lines_is_one_text_up_to_a_dot_or_the_end_of_input(end):
    terminal = Terminal(INPUTRC=os.devnull)
    assert "line of a single ." in terminal.expect("text> ")
    terminal.type(f"{PARAGRAPHS}\n{end}")
    assert "10 words" in terminal.expect("question> ")
    terminal.type("Who?\n")
    assert terminal.asked() == ["Who?", PARAGRAPHS]
    terminal.expect("question> ")
    terminal.leave("\x04")


def test_a_paste_whose_end_the_terminal_tells_is_one_text():
    terminal = Terminal()
    terminal.expect("text> ")
    terminal.type(PASTE.format(PARAGRAPHS) + "\n")
    assert "10 words" in terminal.expect("question> ")
    terminal.type(".\n")  # as it says; the text has ended before
    terminal.type("Who?\n")
    assert terminal.asked() == ["Who?", PARAGRAPHS]
    # more of it is no question
    terminal.expect("question> ")
    terminal.type(PASTE.format("Sue.\nLeo.") + "\n")
    assert "12 words" in terminal.expect("question> ")
    terminal.type(PASTE.format("Who now?") + "\n")
    assert terminal.asked() == ["Who now?", f"{PARAGRAPHS}\nSue.\nLeo."]
    terminal.expect("question> ")
    terminal.leave("quit\n")


def test_a_sitting_takes_several_texts_and_files_and_knows_its_commands(tmp_path):
    (tmp_path / "a book.txt").write_bytes("Das Café in Zürich.".encode("cp1252"))
    terminal = Terminal(INPUTRC=os.devnull)
    for number in range(3):
        terminal.expect("text> ")
        terminal.type(f"Text {number}.\n\n{SEVEN_HUNDRED}\n.\n")
        assert "4,202 words" in terminal.expect("question> ")
        for question in ("Who?", "What now?"):
            terminal.type(f"{question}\n")
            assert terminal.asked() == [question, f"Text {number}.\n\n{SEVEN_HUNDRED}"]
            terminal.expect("question> ")
        terminal.type(":new\n")
    terminal.expect("text> ")
    terminal.type("help\n")
    said = terminal.expect("text> ")
    assert all(word in said for word in (":new", ":file PATH", "quit"))
    for path, words in (("", "Expected a path"), ("none.txt", "none.txt can't be read"), ("..", "directory")):
        terminal.type(f":file {path}\n")
        assert words in terminal.expect("text> ")
    terminal.type(f":file {tmp_path / 'a book.txt'}\n")
    assert "--encoding cp1252" in terminal.expect("text> ")
    terminal.type(f':file "{tmp_path / "a book.txt"}" --encoding cp1252\n')
    assert "a book.txt: 4 words" in terminal.expect("question> ")
    terminal.type("Where?\n")
    assert terminal.asked() == ["Where?", "Das Café in Zürich."]
    terminal.expect("question> ")
    terminal.leave("exit\n")
