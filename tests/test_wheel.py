"""`pip install .` in an environment that has nothing else: one package, three requirements, and it answers."""

import os
import re
import shutil
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from scripts import PROJECT_ROOT

NEEDED = {"numpy", "tokenizers", "onnxruntime"}
# a program with modules of its own that are called as ours and our scripts are
APP = """
import sys
import evaluate, train, utils
from extractive_qa import Reader
answer = Reader(sys.argv[1]).answer("Who won?", "Ada won.")
assert "Ada won."[answer["start"]:answer["end"]] == answer["text"]
assert (utils.OWN, evaluate.OWN, train.OWN) == ("utils", "evaluate", "train")
print(",".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def project_copy(folder: Path) -> Path:
    """What setuptools needs of the project: it writes into the folder that it builds from."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(PROJECT_ROOT / name, folder / name)
    for name in ("extractive_qa", "utils"):
        shutil.copytree(PROJECT_ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def with_requirements(names: set[str]) -> set[str]:
    """The distributions and all that they require without extras, as pip would install them."""
    found, waiting = set(), list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name not in found:
            found.add(name)
            requirements = map(Requirement, distribution(name).requires or ())
            waiting += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def copy_installed(name: str, site_packages: Path) -> None:
    for file in distribution(name).files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = site_packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file.locate(), target)
            except OSError:  # another disk
                shutil.copyfile(file.locate(), target)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = project_copy(tmp_path_factory.mktemp("project"))
    command = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", "dist", "."]
    done = subprocess.run([sys.executable, *command], cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the wheel and what it requires, and nothing else. Returns its Python."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (site_packages,) = folder.glob("Lib/site-packages" if os.name == "nt" else "lib/*/site-packages")
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site_packages), str(wheel)]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)
    for name in with_requirements(NEEDED):
        copy_installed(name, site_packages)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def test_the_wheel_holds_one_package_and_asks_for_three(wheel, environment):
    listed = subprocess.run([sys.executable, "-m", "zipfile", "-l", wheel], check=True, capture_output=True, text=True)
    names = [line.split()[0] for line in listed.stdout.splitlines()[1:]]
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"extractive_qa", "mobilebert_squad"}
    assert {"extractive_qa/py.typed", "extractive_qa/web/words.json", "extractive_qa/reader.py"} <= set(names)
    # packages that are searched, not listed, must not lack a folder
    modules = {path.relative_to(PROJECT_ROOT).as_posix() for path in (PROJECT_ROOT / "extractive_qa").rglob("*.py")}
    assert modules <= set(names)
    folder = next(environment.parents[1].rglob("mobilebert_squad-*.dist-info"))
    requirements = [line for line in (folder / "METADATA").read_text("utf-8").splitlines() if "Requires-Dist" in line]
    always = {re.split(r"[^\w-]", line.split()[1])[0] for line in requirements if "extra" not in line}
    assert always == NEEDED


def test_it_answers_beside_foreign_modules_and_imports_nothing_else(environment, exported, tmp_path):
    for name in ("utils", "evaluate", "train"):
        (tmp_path / f"{name}.py").write_text(f"OWN = {name!r}\n", encoding="utf-8")
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    done = subprocess.run(
        [environment, "app.py", exported], cwd=tmp_path, check=False, capture_output=True, text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    installed = {"numpy", "tokenizers", "onnxruntime", "extractive_qa", "utils", "evaluate", "train"}
    imported = {name for name in done.stdout.strip().split(",") if name not in sys.stdlib_module_names}
    assert {name for name in imported - installed if not name.startswith(("_", "numpy"))} == set()
