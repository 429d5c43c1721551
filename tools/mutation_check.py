"""Breaks lines of utils/ one at a time, and asks the tests whether they notice: `make mutation`, an hour or more.

    python tools/mutation_check.py                    # 20 lines drawn with a fixed seed, each broken in a drawn way
    python tools/mutation_check.py --list             # only show them
    python tools/mutation_check.py --go_on            # run only what was missed, or is not in the list yet

The tests run in a copy of the project, up to the first that fails: those of the broken module, and then all the others.
Writes tests/mutations.json and the table in docs/RESULTS.md. The same sources give the same list, and as lines are
ranked by a hash of seed, file and text, a change elsewhere moves none of them.
"""

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from types import CodeType

import psutil

PROJECT_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT_ROOT))
from extractive_qa.files.reading import with_table
from extractive_qa.text import shown
from utils import console

BEGIN, END = "<!-- mutations -->\n", "<!-- /mutations -->"
SEED, COUNT, PATIENCE = 1, 20, 900  # seconds for one file of tests: a mutant that takes longer counts as noticed
PAIRS = [
    (ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn),
    (ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.LShift, ast.RShift), (ast.BitOr, ast.BitAnd),
    (ast.FloorDiv, ast.Mult), (ast.Mod, ast.Mult), (ast.Pow, ast.Mult),
]  # fmt: skip
SWAPPED = {right: left for left, right in reversed(PAIRS)} | dict(PAIRS)


def executable_lines(source: str) -> set[int]:
    """Lines that have bytecode, without imports, docstrings, bare annotations, and heads of functions and classes."""
    codes, lines = [compile(source, "", "exec")], set()
    while codes:
        code = codes.pop()
        lines |= {line for _, _, line in code.co_lines() if line}
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                lines -= set(range(first, node.body[0].lineno))
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()) | ast.AnnAssign(value=None):
                lines -= set(range(node.lineno, node.end_lineno + 1))
    return lines


def nodes_to_break(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes from this one down, without annotations, messages for people, f-strings (Python 3.11 misplaces what is
    in them), and zip's `strict`, an assertion that no input can reach."""
    match node:
        case ast.JoinedStr() | ast.keyword(arg="strict") | ast.Call(func=ast.Name(id="QAError" | "warn" | "note")):
            return
        case ast.AnnAssign():
            children = [node.value] if node.value else []
        case _:
            children = ast.iter_child_nodes(node)
    yield node
    for child in children:
        yield from nodes_to_break(child)


def changed(node: ast.AST, **fields) -> str:
    copy = deepcopy(node)
    vars(copy).update(fields)
    return f"({ast.unparse(copy)})"


def ways_to_break(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """(a node, the text that takes its place), for what stands at this node itself."""
    match node:
        case ast.Compare():
            yield node, changed(node, ops=[SWAPPED[type(node.ops[0])](), *node.ops[1:]])
        case ast.BoolOp() | ast.BinOp() if type(node.op) in SWAPPED:
            yield node, changed(node, op=SWAPPED[type(node.op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node, f"({ast.unparse(node.operand)})"
        case ast.Constant(value=bool()):
            yield node, str(not node.value)
        case ast.Constant(value=int() | float()):
            yield node, repr(node.value + 1)
        case ast.If() | ast.While() | ast.IfExp():
            yield node.test, f"(not ({ast.unparse(node.test)}))"
        case ast.comprehension():
            yield from ((test, f"(not ({ast.unparse(test)}))") for test in node.ifs)
        case ast.Call(keywords=[*_, ast.keyword(arg=name)]) if name != "strict":
            yield node, changed(node, keywords=node.keywords[:-1])
        case ast.Call(args=[_, *_, _]):
            yield node, changed(node, args=node.args[:-1])
        case ast.Assign() | ast.AnnAssign() if not isinstance(node.value, ast.Constant | None):
            yield node.value, "None"
        case ast.Return() if node.value and ast.unparse(node.value) not in ("None", "False"):
            yield node, "return None"
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Delete():
            yield node, "pass"
        case ast.Break():
            yield node, "continue"
        case ast.Continue():
            yield node, "break"


def replace(source: str, node: ast.AST, text: str) -> str:
    """The source with `text` in the place of the node, whose columns count bytes."""
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    begin = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    whole = b"".join(lines)
    return (whole[:begin] + text.encode() + whole[end:]).decode()


def behaviour(code: CodeType) -> tuple:
    """What of a code object decides what it does: all but its line numbers."""
    constants = [behaviour(c) if isinstance(c, CodeType) else (type(c), repr(c)) for c in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, code.co_exceptiontable, constants


def rank(*parts: object) -> int:
    return int.from_bytes(sha256(repr((SEED, *parts)).encode()).digest())


def draw(sources: dict[str, str], count: int) -> list[dict]:
    """`count` mutants of {file: source}, each of another line: file, line, original, mutant (the line afterwards) and
    source (the whole file afterwards)."""
    places = []
    for file, source in sources.items():
        seen, executable = Counter(), executable_lines(source)
        for line, text in enumerate((line.strip() for line in source.splitlines()), 1):
            seen[text] += 1
            if line in executable:
                places.append((rank(file, text, seen[text]), file, line, text))
    mutants = []
    for number, file, line, text in sorted(places):
        source = sources[file]
        ways = [way for node in nodes_to_break(ast.parse(source)) for way in ways_to_break(node)]
        ways = [(node, new) for node, new in ways if node.lineno == line]
        for node, new in sorted(ways, key=lambda way: rank(number, ast.unparse(way[0]), way[1])):
            broken = replace(source, node, new)
            if behaviour(compile(broken, "", "exec")) != behaviour(compile(source, "", "exec")):
                after = broken.splitlines()[line - 1].strip()
                mutants.append({"file": file, "line": line, "original": text, "mutant": after, "source": broken})
                break
        if len(mutants) == count:
            break
    return mutants


def test_files(root: Path, module: str) -> tuple[list[str], list[str]]:
    """The files of tests that are closest to a module: its own, or else those that name it; and all others but our own,
    those that name it before those that don't, short ones before long ones."""

    def order(path: Path) -> tuple:
        names_it = re.search(rf"utils\.{module}\b|from utils import .*\b{module}\b", path.read_text(encoding="utf-8"))
        return path.stem != f"test_{module}", not names_it, path.stat().st_size

    paths = (path for path in (root / "tests").glob("test_*.py") if path.stem != f"test_{Path(__file__).stem}")
    ranked = sorted((order(path), f"tests/{path.name}") for path in paths)
    close = [name for place, name in ranked if place[:2] == ranked[0][0][:2]]
    return close, [name for _, name in ranked if name not in close]


def first_failure(root: Path, *arguments: str) -> str | None:
    """The first test that fails, None where all pass. A run that takes longer than PATIENCE fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-v", "-p", "no:cacheprovider", *arguments]
    # no .pyc: one of the right source could pass for that of a mutant of the same size, written in the same second
    own = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(command, cwd=root, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            output = process.communicate(timeout=PATIENCE)[0].decode("utf-8", errors="replace")
        except subprocess.TimeoutExpired:
            for started in (*psutil.Process(process.pid).children(recursive=True), process):
                started.kill()
            return f"{arguments[-1]} (time-out)"
    if process.returncode in (0, 5):  # 5: no test was chosen
        return None
    failed = re.search(r"^(tests/.+?::.+) (?:FAILED|ERROR) +\[", output, re.MULTILINE)
    return failed[1] if failed else f"{arguments[-1]} (exit code {process.returncode})"


def noticed_by(root: Path, mutant: dict, names: list[str]) -> str | None:
    """The first test of the files `names` that fails with the mutant in the project at `root`, and passes without it;
    None where it is missed."""
    path = root / mutant["file"]
    right = path.read_bytes()
    try:
        path.write_text(mutant["source"], encoding="utf-8")
        found = next(filter(None, (first_failure(root, name) for name in names)), None)
    finally:
        path.write_bytes(right)
    # else it was not the mutant that it noticed
    if found and first_failure(root, *([found] if "::" in found else ["--collect-only", found.split(" (")[0]])):
        raise SystemExit(f"{found}: fails without any mutant too. Mend that first.")
    return found


def copy_project(target: Path) -> None:
    """What git knows or would add, so no environment and nothing that was trained."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=PROJECT_ROOT, check=True, capture_output=True).stdout.decode().split("\0"):
        if (PROJECT_ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT_ROOT / name, target / name)


def write_table(path: Path, mutants: list[dict]) -> None:
    def code(text: str) -> str:
        return (f"`` {text} ``" if "`" in text else f"`{text}`").replace("|", r"\|")

    rows = [
        f"| {m['file']}:{m['line']} | {code(m['original'])} | {code(m['mutant'])} | {m['noticed_by'] or '**missed**'}"
        f"{' (missed at first)' if m['missed_at_first'] and m['noticed_by'] else ''} |"
        for m in mutants
    ]
    table = "\n".join(["| line | before | broken | noticed by |", "| --- | --- | --- | --- |", *rows]) + "\n"
    text = with_table(path.read_text(encoding="utf-8"), table, shown(path), BEGIN, END)
    path.write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="show what is drawn, and run nothing")
    parser.add_argument("--go_on", action="store_true", help="keep what was noticed before, run the rest")
    args = parser.parse_args()
    results = PROJECT_ROOT / "tests" / "mutations.json"
    earlier = json.loads(results.read_text(encoding="utf-8")) if args.go_on else []
    known = {(m["file"], m["original"], m["mutant"]): m for m in earlier}
    files = sorted((PROJECT_ROOT / "utils").glob("*.py"))
    mutants = draw({path.relative_to(PROJECT_ROOT).as_posix(): path.read_text("utf-8") for path in files}, COUNT)
    for m in mutants:
        before = known.get((m["file"], m["original"], m["mutant"]), {})
        m |= {"noticed_by": before.get("noticed_by"), "missed_at_first": before.get("missed_at_first", False)}
        print(f"{m['file']}:{m['line']}  {m['original']}  ->  {m['mutant']}\n    {m['noticed_by'] or ''}")
    if args.list:
        return
    with tempfile.TemporaryDirectory() as folder:
        copy_project(root := Path(folder) / "project")
        # all of them through the tests that are close, before the few that survive go through all the others
        for far in (0, 1):
            for m in mutants:
                if m["noticed_by"] is None:
                    m["noticed_by"] = noticed_by(root, m, test_files(root, Path(m["file"]).stem)[far])
                    m["missed_at_first"] |= far == 1 and m["noticed_by"] is None
                    print(f"{m['file']}:{m['line']}  {m['noticed_by'] or ('not yet', 'MISSED')[far]}", flush=True)
                    # at once: --go_on takes up an interrupted run
                    kept = [{name: value for name, value in m.items() if name != "source"} for m in mutants]
                    results.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_table(PROJECT_ROOT / "docs" / "RESULTS.md", mutants)
    print(f"noticed {sum(bool(m['noticed_by']) for m in mutants)} of {len(mutants)}")


if __name__ == "__main__":
    console.run(main)
