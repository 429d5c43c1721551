"""docs/CUSTOM_DATA.md and docs/TROUBLESHOOTING.md say what is so: their commands run and print what stands below them,
the messages, flags and tests that they name are there, and the Chinese page has the same."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from scripts import PROJECT_ROOT

DOCS = PROJECT_ROOT / "docs"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# what depends on the machine: its numbers, and where scores are close, its answers
DEPENDS = ("prediction:", "verdict:", "confidence:", "device:", "best epoch")
# these take minutes, or need a model that was trained
FOR_TORTURE = ("train.py", "output/custom", "output/general")


def blocks(name: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page: language and content."""
    return FENCE.findall((DOCS / name).read_text(encoding="utf-8"))


def steps(name: str) -> list[tuple[str, str]]:
    """Every command of a page, and what it prints as far as that stands below it ("" where nothing does)."""
    found = []
    for kind, content in blocks(name):
        if kind == "bash":
            found += [(line, "") for line in content.splitlines()]
        elif kind == "text":
            found[-1] = (found[-1][0], content)
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project: the commands write to its output/."""
    root = tmp_path_factory.mktemp("copy") / "project"
    for name in ("extractive_qa", "utils", "tools", "data/sample", "models/sample"):
        shutil.copytree(PROJECT_ROOT / name, root / name, ignore=shutil.ignore_patterns("onnx", "onnx.json"))
    for script in PROJECT_ROOT.glob("*.py"):
        shutil.copyfile(script, root / script.name)
    return root


def run_as_it_stands(command: str, expected: str, project) -> None:
    """Runs the command of a page and compares what it prints, in order, with what the page says."""
    program, *args = shlex.split(command, comments=True)
    assert program == "python"
    done = subprocess.run(
        [sys.executable, *args], check=False, capture_output=True, cwd=project, timeout=1800,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    printed = (done.stdout + done.stderr).decode("utf-8")
    assert done.returncode == (2 if expected.startswith("error:") else 0), f"{command}\n{printed}"
    # paths as they stand in the page, also on Windows
    printed_lines = iter(printed.replace("\r\n", "\n").replace("\\", "/").split("\n"))
    for line in expected.splitlines():
        if line.strip() not in ("", "...") and not line.startswith(DEPENDS):
            assert any(as_compared(line, command) == as_compared(p, command) for p in printed_lines), (
                f"{line}\n{printed}"
            )


def as_compared(line: str, command: str) -> str:
    """The line, its numbers left out where a model has computed them."""
    return line if "inspect_data" in command else re.sub(r"\d[\d.,]*", "0", line)


@pytest.mark.parametrize(("command", "expected"), [
    step for step in steps("CUSTOM_DATA.md") if not any(word in step[0] for word in FOR_TORTURE)
])  # fmt: skip
def test_commands_on_own_questions_print_what_stands_below_them(command, expected, project):
    run_as_it_stands(command, expected, project)


@pytest.mark.slow
def test_the_whole_way_from_a_table_to_a_trained_model_runs_as_it_stands(project):
    for command, expected in steps("CUSTOM_DATA.md"):
        run_as_it_stands(command, expected, project)
    for kind, content in blocks("CUSTOM_DATA.md"):
        if kind == "python":
            done = subprocess.run([sys.executable, "-c", content], check=True, capture_output=True, cwd=project)
            assert b"'text'" in done.stdout
    scores = [json.loads((project / "output" / name / "metrics.json").read_bytes()) for name in ("before", "custom")]
    assert all(scores[1][name] > scores[0][name] + 10 for name in ("exact_match", "f1")), scores


def test_a_command_that_prints_something_else_is_noticed(project):
    command = "python tools/inspect_data.py data/sample/custom/dev.csv --show 0"
    run_as_it_stands(command, "91 questions on 12 contexts (7.6 each), 91 answers\n...\nnothing to fix", project)
    for wrong in ("92 questions on 12 contexts (7.6 each), 91 answers", "nothing to fix\n91 windows", "error: x"):
        with pytest.raises(AssertionError):
            run_as_it_stands(command, wrong, project)


@pytest.mark.parametrize("name", ["CUSTOM_DATA", "TROUBLESHOOTING"])
def test_the_chinese_page_has_the_same_commands_outputs_and_messages(name):
    assert blocks(f"{name}.md") == blocks(f"{name}.zh-CN.md")
    spans = [re.findall(r"`[^`\n]+`", prose(f"{name}{language}.md")) for language in ("", ".zh-CN")]
    assert sorted(set(spans[0])) == sorted(set(spans[1]))
    numbers = [re.findall(r"\d+\.\d+", prose(f"{name}{language}.md")) for language in ("", ".zh-CN")]
    assert sorted(numbers[0]) == sorted(numbers[1])


def prose(name: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", (DOCS / name).read_text(encoding="utf-8"))


def texts_in_sources() -> set[str]:
    """All string literals of the project, those of f-strings in the pieces between their values."""
    folders = ("utils", "extractive_qa", "tools")
    sources = [*PROJECT_ROOT.glob("*.py"), *(path for name in folders for path in (PROJECT_ROOT / name).rglob("*.py"))]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sources]
    return {node.value for tree in trees for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)}  # fmt: skip


def test_every_message_flag_and_test_of_the_troubleshooting_is_there():
    page, literals = prose("TROUBLESHOOTING.md"), texts_in_sources()
    flags = re.findall(r"--[a-z][\w-]+", page)
    own = set(flags) - {"--force-reinstall", "--index-url"}  # pip's
    assert len(own) > 10
    assert own <= literals, own - literals
    tests = re.findall(r"\btest_\w+\.py", page)
    assert len(set(tests)) > 15
    there = {path.name for path in (PROJECT_ROOT / "tests").rglob("test_*.py")}
    assert set(tests) <= there, set(tests) - there
    # what stands in bold as a message of ours: the pieces between its values
    messages = ["".join(found) for found in re.findall(r"\*\*`([^`]+)`|\(`(training [^`]+)`\)", page)]
    messages = [message for message in messages if not message.startswith((r"\x", "UnicodeDecodeError", "import"))]
    assert len(messages) > 12
    for message in messages:
        for piece in re.split(r"\.\.\.|socks5://|\d+", message):
            assert any(piece.strip(" :,.") in text for text in literals), (message, piece)
