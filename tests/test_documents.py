"""README and docs/ say what is so: their commands and examples run, print what stands below them or say what is
missing; the messages, flags and tests that they name are there, and links lead somewhere; the Chinese pages have the
same."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from scripts import PROJECT_ROOT, load_script

from utils.offline import SAMPLE_MODEL_DIR

DOCS = PROJECT_ROOT / "docs"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# what depends on the machine: its numbers, and where scores are close, its answers
DEPENDS = ("prediction:", "verdict:", "confidence:", "device:", "best epoch")
SHELLS = ("bash", "powershell")
PAGES = ["README", "INSTALL", "TRAINING", "ANSWERING", "CUSTOM_DATA", "MIGRATING", "TROUBLESHOOTING", "FORMATS"]
# these take minutes, or need a model that was trained
FOR_TORTURE = ("train.py", "evaluate.py", "output/custom", "output/general")


def page(name: str) -> str:
    folder = PROJECT_ROOT if name.startswith("README") else DOCS
    return (folder / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page: language and content."""
    return FENCE.findall(page(name))


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


def without_comments(blocks: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of commands, which each language explains in its own words."""
    return [(kind, re.sub(r" +# .*", "", content) if kind in SHELLS else content) for kind, content in blocks]


@pytest.mark.parametrize("name", PAGES)
def test_the_chinese_page_has_the_same_commands_and_outputs(name):
    assert without_comments(blocks(f"{name}.md")) == without_comments(blocks(f"{name}.zh-CN.md"))


@pytest.mark.parametrize("name", ["CUSTOM_DATA", "TROUBLESHOOTING"])
def test_the_chinese_page_has_the_same_messages_and_numbers(name):
    spans = [re.findall(r"`[^`\n]+`", prose(f"{name}{language}.md")) for language in ("", ".zh-CN")]
    assert sorted(set(spans[0])) == sorted(set(spans[1]))
    numbers = [re.findall(r"\d+\.\d+", prose(f"{name}{language}.md")) for language in ("", ".zh-CN")]
    assert sorted(numbers[0]) == sorted(numbers[1])


def prose(name: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page(name))


def texts_in_sources() -> set[str]:
    """All string literals of the project, those of f-strings in the pieces between their values."""
    folders = ("utils", "extractive_qa", "tools")
    sources = [*PROJECT_ROOT.glob("*.py"), *(path for name in folders for path in (PROJECT_ROOT / name).rglob("*.py"))]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sources]
    return {node.value for tree in trees for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)}  # fmt: skip


def test_every_message_flag_and_test_of_the_troubleshooting_is_there():
    text, literals = prose("TROUBLESHOOTING.md"), texts_in_sources()
    flags = re.findall(r"--[a-z][\w-]+", text)
    own = set(flags) - {"--force-reinstall", "--index-url"}  # pip's
    assert len(own) > 10
    assert own <= literals, own - literals
    tests = re.findall(r"\btest_\w+\.py", text)
    assert len(set(tests)) > 15
    there = {path.name for path in (PROJECT_ROOT / "tests").rglob("test_*.py")}
    assert set(tests) <= there, set(tests) - there
    # what stands in bold as a message of ours: the pieces between its values
    messages = ["".join(found) for found in re.findall(r"\*\*`([^`]+)`|\(`(training [^`]+)`\)", text)]
    messages = [message for message in messages if not message.startswith((r"\x", "UnicodeDecodeError", "import"))]
    assert len(messages) > 12
    for message in messages:
        for piece in re.split(r"\.\.\.|socks5://|\d+", message):
            assert any(piece.strip(" :,.") in text for text in literals), (message, piece)


# the commands of all other pages


def commands() -> list[str]:
    """Every command for a shell of the pages, each once, but for those of CUSTOM_DATA, which are run above."""
    found = [
        line.split(" # ")[0].strip()
        for name in PAGES
        for kind, content in blocks(f"{name}.md")
        if kind in SHELLS and name != "CUSTOM_DATA"
        for line in content.splitlines()
    ]
    return list(dict.fromkeys(found))


def of_python(command: str) -> bool:
    return command.startswith("python ")


# seen by their flags alone: what would ask the Hub, and what serves until it is stopped (tests/hub, tests/web run them)
ONLY_READ = ("download_data.py", "predict.py web")
SLOW = ("train.py --sample", "export_onnx.py --sample", "--report", "predict.py demo", "data/sample/dev.json")


def takes_long(command: str) -> bool:
    """A command that loads a model takes seconds: of many such only the README's are in `make test`."""
    of_other_pages = "predict.py" in command and command not in page("README.md")
    return of_other_pages or any(word in command for word in SLOW)


MINE = {
    "manual.txt": "The warranty is two years long.",
    "book.txt": "Ada Lovelace wrote it in 1843.",
    "questions.jsonl": '{"question": "Who discovered penicillin?"}\n',
}


@pytest.fixture(scope="module")
def filled(project):
    """The copy of the project with files of a user's own, and no model or data of a download."""
    for name, text in MINE.items():
        (project / name).write_text(text, encoding="utf-8")
    return project


@pytest.mark.parametrize("command", [
    pytest.param(command, marks=[pytest.mark.slow] * takes_long(command))
    for command in commands() if of_python(command) and not any(word in command for word in ONLY_READ)
])  # fmt: skip
def test_a_command_does_its_work_or_says_what_is_missing(command, filled):
    """The sample and the user's files are there; a model and questions that download_data.py or train.py would have
    brought are not, which is said with the command that brings them."""
    _, *args = shlex.split(command)
    done = subprocess.run(
        [sys.executable, *args], check=False, capture_output=True, cwd=filled, timeout=1800, stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    said = (done.stdout + done.stderr).decode("utf-8")
    has_all = re.search(r"--sample|data/sample", command) and "train.py --train_file" not in command
    if has_all or args[0] == "predict.py" or "--help" in args:  # predict.py asks the bundled model where no other is
        assert done.returncode == 0, said
    else:
        assert done.returncode == 2, said
        assert re.search(r"(is missing|no such file).*Run: python (download_data|train)\.py", said, re.DOTALL), said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", [c for c in commands() if any(word in c for word in ONLY_READ)])
def test_the_flags_of_what_is_not_run_are_understood(command, monkeypatch):
    _, script, *flags = shlex.split(command)
    monkeypatch.chdir(PROJECT_ROOT)
    load_script(script).parse_args(flags)


def test_what_else_a_shell_is_given_is_there():
    makefile = (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8")
    rest = [command for command in commands() if not of_python(command)]
    for command in rest:
        for path in re.findall(r"-r (\S+)", command):
            assert (PROJECT_ROOT / path).is_file(), command
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE), command
    known = (
        "make ",
        "pip install ",
        "git clone ",
        "python3 -m venv ",
        "py -3.11 ",
        "Set-Execution",
        ".venv",
        "curl ",
        "torchrun ",
    )
    assert [command for command in rest if not command.startswith(known)] == []


def test_the_request_of_the_page_s_interface_is_answered(tmp_path):
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    from extractive_qa.reader import Reader
    from extractive_qa.web.app import make_app

    (command,) = [command for command in commands() if command.startswith("curl ")]
    _, address, _, header, _, body = shlex.split(command)
    client = TestClient(
        make_app(Reader(SAMPLE_MODEL_DIR, "cpu"), None, tmp_path / "c.json"), base_url="http://127.0.0.1:7860"
    )
    answered = client.post(address, content=body, headers=dict([header.split(": ")])).json()
    assert answered["answers"][0]["text"] == "Ada Miller"


# examples in Python, and what they give


@pytest.fixture(scope="module")
def trained_project(project):
    """With the sample model where a trained one is expected."""
    shutil.copytree(PROJECT_ROOT / "models" / "sample", project / "output" / "final_model", dirs_exist_ok=True)
    yield project
    shutil.rmtree(project / "output" / "final_model")


def examples() -> list[tuple[str, str]]:
    """The blocks of Python that are ours, each with its page; test_migrating.py runs those of the peers."""
    found = [(name, content) for name in PAGES for kind, content in blocks(f"{name}.md") if kind == "python"]
    return [(name, content) for name, content in found if "from extractive_qa" in content and name != "CUSTOM_DATA"]


def agrees(found: object, stated: object) -> bool:
    if stated is ... or stated == [...]:
        return True
    if isinstance(stated, dict):
        return isinstance(found, dict) and all(agrees(found.get(key, agrees), part) for key, part in stated.items())
    if isinstance(stated, list):
        return len(found) == len(stated) and all(map(agrees, found, stated))
    if isinstance(stated, str) and stated.endswith("..."):
        return isinstance(found, str) and found.startswith(stated.removesuffix("...").strip())
    if isinstance(stated, float):
        return isinstance(found, float) and abs(found - stated) < 0.02
    return found == stated


@pytest.mark.parametrize(("name", "content"), examples())
def test_an_example_runs_and_gives_what_stands_behind_it(name, content, trained_project, monkeypatch):
    monkeypatch.chdir(trained_project)
    context = "It was written by Ada Lovelace in 1843."
    texts = [context, "It was printed in London by Richard and John Taylor."]
    given = {"context": context, "texts": texts, "question": "Who wrote it?"}
    lines, compared = content.splitlines(), 0
    for node in ast.parse(content).body:
        if not isinstance(node, ast.Expr):
            exec(compile(ast.Module([node], []), name, "exec"), given)
            continue
        found = eval(compile(ast.Expression(node.value), name, "eval"), given)
        # behind the expression, or below it, as a comment
        stated = lines[node.end_lineno - 1].partition("  # ")[2]
        for line in [] if stated else lines[node.end_lineno :]:
            if not line.startswith("#"):
                break
            stated += line.lstrip("# ")
        if stated.startswith(("{", "[")):
            assert agrees(found, ast.literal_eval(stated)), (found, stated)
            compared += 1
    assert compared or name == "ANSWERING"


def test_every_link_and_picture_of_a_page_is_there_and_every_picture_is_shown():
    shown = set()
    for path in [*PROJECT_ROOT.glob("*.md"), *DOCS.glob("*.md")]:
        text = path.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
            file, _, part = link.partition("#")
            if file.startswith("http"):
                continue
            target = (path.parent / file).resolve() if file else path
            assert target.exists(), (path.name, link)
            shown.add(target)
            if part:
                headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
                anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert part in anchors, (path.name, link)
    pictures = {path for path in DOCS.iterdir() if path.suffix in (".png", ".svg")}
    assert pictures - shown == set()


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_is_two_screens(name):
    assert len(page(name).splitlines()) <= 180
