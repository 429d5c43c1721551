"""constraints.txt, by make constraints, names one version of every package that the requirements lead to, and the
environment holds these."""

import importlib.metadata
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from utils.offline import PROJECT_ROOT

# whose versions a build of torch for CUDA names itself, and what comes with Python
UNLISTED = re.compile(r"(cuda|nvidia|triton)\b.*|pip")
SETS = {  # constraints: what they are for
    "constraints.txt": [f"requirements{part}.txt" for part in ("", "-documents", "-web", "-ray", "-dev")],
    "constraints-compat.txt": ["requirements-compat.txt", "requirements-peers.txt"],
}  # fmt: skip
PYTHONS = ("3.11.0", "3.12.0", "3.13.0", "3.14.0")
SYSTEMS = [
    {"sys_platform": system, "platform_system": name, "platform_machine": machine, "os_name": os_name}
    for system, name, os_name, machines in (
        ("linux", "Linux", "posix", ("x86_64", "aarch64")),
        ("win32", "Windows", "nt", ("AMD64",)),
        ("darwin", "Darwin", "posix", ("arm64",)),
    )
    for machine in machines
]
PLACES = [
    system | {"python_version": python.rpartition(".")[0], "python_full_version": python}
    for system in SYSTEMS
    for python in PYTHONS
]


def read(name: str) -> list[Requirement]:
    """The requirements of a file, but not those of the files that it includes."""
    lines = (PROJECT_ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def versions(name: str, place: dict) -> dict[str, str]:
    """What a file of constraints names for a system and a Python: {package: version}."""
    found = {}
    for line in read(name):
        if line.marker is None or line.marker.evaluate(place):
            (pin,) = line.specifier
            assert pin.operator == "=="
            assert line.name not in found, "two versions"
            found[canonicalize_name(line.name)] = pin.version
    return found


def ranges() -> list[Requirement]:
    """Of pyproject.toml, all extras, but for those of the project itself."""
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    found = [Requirement(line) for line in lines]
    return [requirement for requirement in found if requirement.name != project["name"]]


def require_met(requirements: list[Requirement], listed: dict[str, str]) -> None:
    for requirement in requirements:
        version = listed.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not listed. Run: make constraints"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} is not {version}"


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: " ".join(place.values()))
def test_every_requirement_has_its_version_everywhere(name, place):
    listed = versions(name, place)
    for requirements in SETS[name]:
        require_met(read(requirements), listed)
    if name == "constraints.txt":
        require_met(ranges(), listed)


def test_what_single_targets_of_the_makefile_need_is_listed_too():
    makefile = (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8")
    pins = [Requirement(pin) for pin in re.findall(r"\b[a-z][a-z-]*==[0-9.]+", makefile)]
    assert len(pins) >= 4
    require_met(pins, versions("constraints.txt", PLACES[0]))
    installs = [line for line in makefile.splitlines() if "pip install" in line and "$(UV)" not in line]
    assert installs
    assert all("-r requirements" in line or "-c constraints" in line for line in installs)


def test_every_set_of_requirements_belongs_to_constraints():
    """Each names them itself, or includes one that does: so whoever installs one gets these versions."""
    there = {path.name for path in PROJECT_ROOT.glob("requirements*.txt")}
    assert there == {name for names in SETS.values() for name in names}

    def named(name: str) -> set[str]:
        lines = (PROJECT_ROOT / name).read_text(encoding="utf-8").splitlines()
        own = {line.removeprefix("-c ") for line in lines if line.startswith("-c ")}
        return own.union(*(named(line.removeprefix("-r ")) for line in lines if line.startswith("-r ")))

    assert {name: named(name) for name in there} == {name: {c} for c, names in SETS.items() for name in names}


def test_cpu_users_are_not_made_to_install_what_cuda_needs():
    """And whoever takes another build of torch for CUDA gets the versions that it names itself."""
    for name in SETS:
        assert not [line.name for line in read(name) if UNLISTED.fullmatch(line.name)]
        (torch,) = (line for line in read(name) if line.name == "torch")
        assert torch.specifier.contains("2.13.0+cpu")
        assert torch.specifier.contains("2.13.0+cu130")


def test_what_is_installed_is_what_is_listed_with_all_that_it_needs():
    """From the scripts' requirements on, each package and the packages it needs: listed, in this version."""
    from packaging.markers import default_environment

    here = {name: str(value) for name, value in default_environment().items()}
    listed = versions("constraints.txt", here)
    installed = {canonicalize_name(d.metadata["Name"]): d for d in importlib.metadata.distributions()}
    needed, open_ = set(), [line for name in SETS["constraints.txt"] for line in read(name)]
    while open_:
        requirement = open_.pop()
        name = canonicalize_name(requirement.name)
        extras = [{"extra": extra} for extra in (*requirement.extras, "")]
        if name in installed and name not in needed and not UNLISTED.fullmatch(name):
            lines = map(Requirement, installed[name].requires or ())
            open_ += [r for r in lines if r.marker is None or any(r.marker.evaluate(here | e) for e in extras)]
            needed.add(name)
    missing = needed - listed.keys()
    assert not missing, f"{missing} are not listed. Run: make constraints"
    other = {
        name: (installed[name].version, version)
        for name, version in listed.items()
        if name in installed and installed[name].version.partition("+")[0] != version
    }
    if {"torch", "transformers"} & other.keys():
        pytest.skip(f"another set of packages is installed (make test-compat, say): {other}")
    assert not other, "installed is another version than listed. Run: pip install -r requirements-dev.txt"
