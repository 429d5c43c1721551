"""The mutation check: what it draws is executable, broken in one place, the same every time, and judged rightly."""

import ast
import importlib.util
import json

import psutil
import pytest
from scripts import PROJECT_ROOT

from extractive_qa.errors import QAError

spec = importlib.util.spec_from_file_location("mutation_check", PROJECT_ROOT / "tools" / "mutation_check.py")
mutation_check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutation_check)

SOURCE = '''"""What it is for."""

import os
from pathlib import Path

LIMIT = 3


class Thing:
    """A thing."""

    name: str
    size: int = 4

    @property
    def long(
        self,
        by: int = 2,
    ) -> bool:
        """Whether it is."""
        return self.size > LIMIT


def find(things: list[Thing], wanted: str | None = None) -> Thing:
    for thing in things:
        if thing.name == wanted and not thing.long:
            return thing
    raise ValueError(
        "Ærø: "
        + str(wanted)
    )
'''


def sources() -> dict[str, str]:
    return {f"utils/{path.name}": path.read_text(encoding="utf-8") for path in (PROJECT_ROOT / "utils").glob("*.py")}


def test_only_lines_that_do_something_are_executable():
    lines = SOURCE.splitlines()
    found = [lines[line - 1].strip() for line in sorted(mutation_check.executable_lines(SOURCE))]
    assert found == [
        "LIMIT = 3", "size: int = 4", "return self.size > LIMIT", "for thing in things:",
        "if thing.name == wanted and not thing.long:", "return thing", "raise ValueError(", '"Ærø: "',
        "+ str(wanted)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("a = b < c", {"a = None", "a = (b <= c)"}),
        ("a = b < c <= d", {"a = None", "a = (b <= c <= d)"}),
        ("a = b and c", {"a = None", "a = (b or c)"}),
        ("a = b - 1", {"a = None", "a = (b + 1)", "a = b - 2"}),
        ("a = -1.5", {"a = None", "a = (1.5)", "a = -2.5"}),
        ("a = True", {"a = False"}),
        ("a: int | None = 2", {"a: int | None = 3"}),
        ("a += b", {"pass"}),
        ("a = b if c else d", {"a = None", "a = b if (not (c)) else d"}),
        ("if a: b()", {"if (not (a)): b()", "if a: pass"}),
        ("a(b, c)", {"pass", "(a(b))"}),
        ("a(b, c=d)", {"pass", "(a(b))"}),
        ("a(b)", {"pass"}),
        ("a = zip(b, c, strict=True)", {"a = None", "a = (zip(b, strict=True))"}),
        ("a = [b for b in c if b]", {"a = None", "a = [b for b in c if (not (b))]"}),
        ("raise QAError(f'{a - 1}', 2 + 3)", {"pass"}),
        ("warn('Ærø', 2)", {"pass"}),
        ("a = 'Ærø', 2", {"a = None", "a = 'Ærø', 3"}),  # columns count bytes
        ("def f(a=1): return a", {"def f(a=1): return None", "def f(a=2): return a"}),
        ("for a in b: break", {"for a in b: continue"}),
    ],
)
def test_every_way_to_break_a_line_is_found_and_no_other(line, broken):
    nodes = mutation_check.nodes_to_break(ast.parse(line))
    ways = [way for node in nodes for way in mutation_check.ways_to_break(node)]
    assert {mutation_check.replace(line, node, text) for node, text in ways} == broken


def test_what_is_drawn_is_valid_and_differs_in_one_executable_line():
    files = sources()
    mutants = mutation_check.draw(files, 60)
    assert len({(m["file"], m["line"]) for m in mutants}) == len(mutants) == 60
    for m in mutants:
        before, after = files[m["file"]].splitlines(), m["source"].splitlines()
        ast.parse(m["source"])
        assert m["line"] in mutation_check.executable_lines(files[m["file"]])
        assert (before[m["line"] - 1].strip(), after[m["line"] - 1].strip()) == (m["original"], m["mutant"])
        assert m["original"] != m["mutant"]
        assert before[: m["line"] - 1] == after[: m["line"] - 1]


def test_a_mutant_that_does_the_same_is_not_drawn():
    """The compiler makes 0 of both 3 * 0 and 4 * 0."""
    drawn = {mutation_check.draw({f"{n}.py": "\n\na = 3 * 0"}, 9)[0]["mutant"] for n in range(40)}
    assert drawn == {"a = None", "a = 3 * 1", "a = (3 / 0)"}


def test_the_same_sources_give_the_same_list_and_a_change_elsewhere_moves_none():
    files = sources()
    mutants = mutation_check.draw(files, 20)
    assert mutants == mutation_check.draw(dict(reversed(files.items())), 20)
    moved = {name: f"# a remark\n\n{source}" for name, source in files.items()}
    drawn = [(m["file"], m["original"], m["mutant"]) for m in mutants]
    assert [(m["file"], m["original"], m["mutant"]) for m in mutation_check.draw(moved, 20)] == drawn


@pytest.fixture
def project(tmp_path):
    """A project of one module with two tests files, of which one uses it."""
    for folder in ("utils", "tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "utils" / "__init__.py").touch()
    (tmp_path / "utils" / "adds.py").write_text("def add(a, b):\n    return a + b\n", encoding="utf-8")
    test = "from utils.adds import add\n\n\ndef test_add():\n    assert add(2, 0) == 2\n"
    (tmp_path / "tests" / "test_sums.py").write_text(test, encoding="utf-8")
    (tmp_path / "tests" / "test_a.py").write_text("def test_nothing():\n    pass\n", encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("return None", "tests/test_sums.py::test_add"),
        ("return a - b", None),
        ("return a +", "tests/test_sums.py (exit code 2)"),
    ],
)
def test_a_mutant_is_judged_by_the_first_test_that_fails_and_taken_back(project, body, found):
    before = (project / "utils" / "adds.py").read_bytes()
    source = f"def add(a, b):\n    {body}\n"
    names = ["tests/test_a.py", "tests/test_sums.py"]
    assert mutation_check.noticed_by(project, {"file": "utils/adds.py", "source": source}, names) == found
    assert (project / "utils" / "adds.py").read_bytes() == before


def test_tests_that_never_end_count_as_failed_and_are_ended(project, monkeypatch):
    started = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    (project / "tests" / "test_a.py").write_text(started, encoding="utf-8")
    monkeypatch.setattr(mutation_check, "PATIENCE", 2)
    before = psutil.Process().children(recursive=True)
    assert mutation_check.first_failure(project, "tests/test_a.py") == "tests/test_a.py (time-out)"
    assert psutil.Process().children(recursive=True) == before


def test_a_test_that_fails_without_the_mutant_too_notices_nothing(project):
    (project / "tests" / "test_a.py").write_text("def test_nothing():\n    assert False\n", encoding="utf-8")
    mutant = {"file": "utils/adds.py", "source": "def add(a, b):\n    return a - b\n"}
    with pytest.raises(SystemExit, match=r"test_a\.py::test_nothing: fails without any mutant"):
        mutation_check.noticed_by(project, mutant, ["tests/test_a.py"])


def test_the_modules_own_tests_come_first_and_then_those_that_name_it():
    close, others = mutation_check.test_files(PROJECT_ROOT, "metrics")
    assert close == ["tests/test_metrics.py"]
    files = {f"tests/{path.name}" for path in (PROJECT_ROOT / "tests").glob("test_*.py")}
    assert {*close, *others} == files - {"tests/test_mutation_check.py"}
    named = ["extractive_qa.metrics" in (PROJECT_ROOT / name).read_text(encoding="utf-8") for name in others]
    assert named == sorted(named, reverse=True)
    close, _ = mutation_check.test_files(PROJECT_ROOT, "memory")  # has no file of its own name
    assert "tests/test_devices.py" in close


def test_the_table_names_what_was_missed_between_its_markers_only(tmp_path):
    path = tmp_path / "RESULTS.md"
    path.write_text("before\n<!-- mutations -->\nold\n<!-- /mutations -->\nafter\n", encoding="utf-8")
    mutant = {"file": "utils/a.py", "line": 3, "original": "a | b", "mutant": "'`' & b"}
    seen = mutant | {"noticed_by": "tests/test_a.py::test_b", "missed_at_first": True}
    mutation_check.write_table(path, [seen, mutant | {"noticed_by": None, "missed_at_first": True}])
    assert path.read_text(encoding="utf-8") == (
        "before\n<!-- mutations -->\n| line | before | broken | noticed by |\n| --- | --- | --- | --- |\n"
        r"| utils/a.py:3 | `a \| b` | `` '`' & b `` | tests/test_a.py::test_b (missed at first) |"
        "\n"
        r"| utils/a.py:3 | `a \| b` | `` '`' & b `` | **missed** |"
        "\n<!-- /mutations -->\nafter\n"
    )
    path.write_text("no markers\n", encoding="utf-8")
    with pytest.raises(QAError, match=r"RESULTS\.md has no place for the table"):
        mutation_check.write_table(path, [seen])
    assert path.read_text(encoding="utf-8") == "no markers\n"


def test_the_list_that_is_committed_notices_18_of_20_at_least():
    mutants = json.loads((PROJECT_ROOT / "tests" / "mutations.json").read_text(encoding="utf-8"))
    assert len(mutants) == 20
    assert sum(m["noticed_by"] is not None for m in mutants) >= 18
