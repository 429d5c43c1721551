"""Texts, questions and commands that are typed, pasted or piped in, line by line."""

from collections.abc import Callable

COMMANDS = {"quit": "quit", "exit": "quit", "q": "quit", "help": "help", "?": "help"}  # with a colon before them too


class Typed:
    """What comes in by `ask`, which is called like input(). is_pipe: whether nobody is typing."""

    def __init__(self, ask: Callable[[str], str], is_pipe: bool):
        self.ask, self.is_pipe = ask, is_pipe
        self.ahead: list[str] = []  # lines of a pipe that were read as text, and are not

    def line(self, prompt: str) -> str | None:
        """The next line; None at the end of input. To a terminal that says where a paste ends, a paste of several lines
        is one."""
        try:
            return self.ahead.pop(0) if self.ahead else self.ask(prompt)
        except EOFError:
            return None

    def next(self, has_text: bool) -> tuple[str, str]:
        """What comes next: a "question", once there is a text; a "text" (more of it, where a paste of several lines
        comes then); a "file", with its path and what else is on the line; "new"; "help"; "quit", at the end of input
        too."""
        while (line := self.line("question> " if has_text else "text> ")) is not None:
            words = line.strip()
            if command := COMMANDS.get(words.lower().removeprefix(":")):
                return command, ""
            if words == ":new":
                return "new", ""
            if words.split()[:1] == [":file"]:
                return "file", words.removeprefix(":file").strip()
            if not words or words == ".":  # no question, and no text begins so
                continue
            return ("question", words) if has_text and "\n" not in words else ("text", self.text(line))
        return "quit", ""

    def text(self, first: str) -> str:
        """The text that begins with the line `first`, up to a line of a single dot, the end of input, or of a paste.
        Where a pipe has no such line an empty one ends the text, and questions follow."""
        lines, line = [first], first
        while "\n" not in line and (line := self.line("...   ")) is not None and line.strip() != ".":
            lines.append(line)
        if line is None and self.is_pipe:
            end = next((number for number, line in enumerate(lines) if not line.strip()), len(lines))
            lines, self.ahead = lines[:end], lines[end:]
        return "\n".join(lines)
