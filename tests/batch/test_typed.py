"""What is typed, pasted or piped in: a text, a question or a command. See tests/scripts/test_interactive.py too."""

import pytest

from extractive_qa.batch.typed import Typed


def sitting(*lines: str, is_pipe: bool = False) -> list[tuple[str, str]]:
    """All that comes of these lines; None among them is the end of input, which a terminal goes on after."""
    left = list(lines)

    def ask(prompt: str) -> str:
        if not left or (line := left.pop(0)) is None:
            raise EOFError
        return line

    typed, found, has_text = Typed(ask, is_pipe), [], False
    while not found or found[-1][0] != "quit":
        found.append(typed.next(has_text))
        has_text = {"text": True, "new": False}.get(found[-1][0], has_text)
    return found


@pytest.mark.parametrize("is_pipe", [False, True])
def test_empty_lines_belong_to_a_text_that_ends_with_a_dot(is_pipe):
    lines = ("", "One.", "", "  Two.", " . ", "Who?", "", ".", ":new", "Three.", ".", "What?")
    assert sitting(*lines, is_pipe=is_pipe) == [
        ("text", "One.\n\n  Two."), ("question", "Who?"), ("new", ""), ("text", "Three."), ("question", "What?"),
        ("quit", ""),
    ]  # fmt: skip


def test_a_pipe_without_a_dot_is_read_as_it_was_before_there_was_one():
    lines = ("One.", "quit", "", "Who?", "", "What?", ":new", "Two.", "", "Where?", ":quit", "never")
    assert sitting(*lines, is_pipe=True) == [
        ("text", "One.\nquit"), ("question", "Who?"), ("question", "What?"), ("new", ""), ("text", "Two."),
        ("question", "Where?"), ("quit", ""),
    ]  # fmt: skip


def test_the_end_of_input_ends_a_text_and_then_the_sitting():
    assert sitting("One.", "", "Two.", None, "Who?", None, "never") == [
        ("text", "One.\n\nTwo."), ("question", "Who?"), ("quit", ""),
    ]  # fmt: skip


def test_a_paste_of_several_lines_is_a_text_and_never_a_question():
    assert sitting("One.\n\nTwo.", ".", "Who?", "Three.\nFour.", "What?\n") == [
        ("text", "One.\n\nTwo."), ("question", "Who?"), ("text", "Three.\nFour."), ("question", "What?"), ("quit", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["quit", "exit", ":quit", ":q", "Exit", " :exit "])
def test_words_that_end_a_sitting(word):
    assert sitting(word) == [("quit", "")]
    assert sitting("One.", ".", word) == [("text", "One."), ("quit", "")]


def test_help_and_files_are_known_before_and_after_a_text():
    assert sitting("help", ":file a b.txt", "One.", ".", ":help", "?", ":file", ":filed?") == [
        ("help", ""), ("file", "a b.txt"), ("text", "One."), ("help", ""), ("help", ""), ("file", ""),
        ("question", ":filed?"), ("quit", ""),
    ]  # fmt: skip
