"""What the comparisons share: ours and the peers in turn within one run, medians, spread and ratios, one JSON line.

A peer is a worker process in an environment of its own, .venv-peers (requirements-peers.txt, made by make), which loads
once, warms up and then waits for its turn: only one side computes at a time. The order of the sides changes with every
turn, so a machine that grows slower favours none. A ratio is the median of the ratios within each turn.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT_ROOT))
from utils.offline import SAMPLE_DATA_DIR, SQUAD_DIR, SWITCHES, go_offline

go_offline()

from extractive_qa.errors import QAError
from extractive_qa.text import shown
from utils import console

RESULTS_DIR = PROJECT_ROOT / "benchmarks" / "results"
PEERS_DIR = PROJECT_ROOT / "benchmarks" / "peers"
PEERS_VENV = PROJECT_ROOT / ".venv-peers"
REAL_SQUAD = PROJECT_ROOT.parent / "shared" / "squad"  # 11,877 training and 4,961 dev questions
RANDOM_ENCODER = PROJECT_ROOT / "models" / "mobilebert-random"
RANDOM_READER = PROJECT_ROOT / "models" / "mobilebert-random-reader"

MFLOP_PER_TOKEN = 43  # MobileBERT forward, windows of about 176 tokens; training takes three times that
LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "numpy", "onnxruntime", "haystack-ai")


def first_existing(*paths: Path) -> Path:
    return next((path for path in paths if path.exists()), paths[-1])


TRAIN_FILE = first_existing(REAL_SQUAD / "train_11877.json", SQUAD_DIR, SAMPLE_DATA_DIR / "train.json")
DEV_FILE = first_existing(REAL_SQUAD / "dev_a.json", SQUAD_DIR, SAMPLE_DATA_DIR / "dev.json")


class Peer:
    """A worker process: benchmarks/peers/NAME.py in the peers' environment, or with `ours` benchmarks/NAME.py in this
    one. `peer("command", key=value)` waits for its answer, a dict."""

    def __init__(self, name: str, *args: object, ours: bool = False):
        self.script = PEERS_DIR.parent / f"{name}.py" if ours else PEERS_DIR / f"{name}.py"
        command = [sys.executable if ours else str(peer_python()), str(self.script), *map(str, args)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PEERS_DIR, env=peer_environment(),
            encoding="utf-8",
        )  # fmt: skip
        self.versions = self.read()["versions"]

    def __call__(self, command: str, **values: object) -> dict:
        self.process.stdin.write(json.dumps({"command": command} | values) + "\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise QAError(f"{shown(self.script)} stopped, exit code {self.process.wait()}: see above")
        return json.loads(line)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def peer_python() -> Path:
    """The interpreter of the peers' environment. Raises QAError where it was not made."""
    for path in (PEERS_VENV / "bin" / "python", PEERS_VENV / "Scripts" / "python.exe"):
        if path.exists():
            return path
    raise QAError(f"{shown(PEERS_VENV)} is missing. Expected the peers' environment. Run: make bench")


def peer_environment() -> dict[str, str]:
    """Ours without what would lead the peer's imports into this project: evaluate.py here would hide a library."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return environment | SWITCHES | {"PYTHONIOENCODING": "utf-8", "HAYSTACK_TELEMETRY_ENABLED": "False"}


def take_turns(
    sides: dict[str, Callable[[], float]], pairs: int, patience: float = 0
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """The figures of every side: `pairs` turns in which each side runs once, the order changing with each turn; and
    the share of the machine that other processes had while each side ran, the median of its turns.

    patience: seconds to wait, before a side runs, for other processes to come to rest.
    """
    figures: dict[str, list[float]] = {name: [] for name in sides}
    others: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(pairs):
        names = list(sides)
        for name in names if turn % 2 == 0 else reversed(names):
            wait_for_quiet(patience)
            before = processor_seconds()
            figures[name].append(sides[name]())
            others[name].append(share_of_others(before))
            console.note(f"turn {turn + 1} of {pairs}: {name} {figures[name][-1]:,.4g}, others {others[name][-1]:.0%}")
    return figures, {name: statistics.median(shares) for name, shares in others.items()}


def processor_seconds() -> tuple[float, float, float]:
    """Now, the processor time that all processes have used, and that of this one and its workers, in seconds."""
    import psutil

    times = psutil.cpu_times()
    me = psutil.Process()
    own = 0.0
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            own += sum(process.cpu_times()[:4])  # user and system, its own and that of its ended children
    return time.monotonic(), times.user + times.system + getattr(times, "nice", 0.0), own


def share_of_others(before: tuple[float, float, float]) -> float:
    """The share of all cores that other processes had since `before`."""
    elapsed, busy, own = (now - then for now, then in zip(processor_seconds(), before, strict=True))
    return min(1.0, max(0.0, (busy - own) / (elapsed * (os.cpu_count() or 1))))


def wait_for_quiet(patience: float) -> None:
    """Waits until other processes leave the cores alone for a second, but no longer than `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = processor_seconds()
        time.sleep(1)
        if share_of_others(before) < 0.1:
            return


def seconds_of(work: Callable[[], object]) -> float:
    """How long `work()` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def better(figures: dict[str, list[float]], names: Iterable[str], lower: bool) -> str:
    """The one of `names` with the best median."""
    return (min if lower else max)(names, key=lambda name: statistics.median(figures[name]))


def pairwise(ours: Sequence[float], peer: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(ours, peer, strict=True)]


def summarize(
    benchmark: str,
    figures: dict[str, list[float]],
    ours: Sequence[str],
    peers: Sequence[str],
    best_peers: Sequence[str],
    unit: str,
    target: float,
    device: str,
    versions: dict,
    lower: bool = False,
    **more: object,
) -> dict:
    """The result of a comparison, ready for JSON.

    figures: of every side, one for each turn, rates or, with `lower`, times. ours, peers, best_peers: which of them
    compete for `ours`, `peer` and `peer_best`; of several the one with the best median counts. The peers at their own
    best settings include the peers as they come. ratio: median of ours / peer within each turn.
    """
    chosen = {
        "ours": better(figures, ours, lower),
        "peer": better(figures, peers, lower),
        "peer_best": better(figures, [*peers, *best_peers], lower),
    }
    ratios = {role: pairwise(figures[chosen["ours"]], figures[chosen[role]]) for role in ("peer", "peer_best")}
    ratio = statistics.median(ratios["peer"])
    return {
        "benchmark": benchmark,
        **{role: statistics.median(figures[name]) for role, name in chosen.items()},
        "ratio": ratio,
        "ratio_best": statistics.median(ratios["peer_best"]),
        "target": target,
        "met": ratio <= target if lower else ratio >= target,
        "unit": unit,
        "lower_is_better": lower,
        "pairs": len(figures[chosen["ours"]]),
        "spread": {role: [min(figures[name]), max(figures[name])] for role, name in chosen.items()}
        | {"ratio": [min(ratios["peer"]), max(ratios["peer"])]},
        "sides": chosen,
        "medians": {name: statistics.median(values) for name, values in figures.items()},
        "device": device,
        "versions": versions,
        **more,
    }


def report(result: dict, figures: dict[str, list[float]], output: Path) -> None:
    """Prints the table and the JSON line, and writes the result."""
    result = rounded(result)
    print(f"\n{result['benchmark']}: {result['unit']}, {result['pairs']} turns, {result['device']}")
    width = max(map(len, figures))
    print(f"{'':{width}}  {'median':>10} {'min':>10} {'max':>10}")
    for name, values in figures.items():
        roles = ", ".join(role for role, chosen in result["sides"].items() if chosen == name)
        print(
            f"{name:{width}}  {statistics.median(values):>10,.4g} {min(values):>10,.4g} {max(values):>10,.4g}"
            + (f"  {roles}" if roles else "")
        )
    low, high = result["spread"]["ratio"]
    print(
        f"ours / peer {result['ratio']:.2f} ({low:.2f} to {high:.2f}), target {sign(result)} {result['target']:g}: "
        f"{'met' if result['met'] else 'missed'}; ours / peer at its best {result['ratio_best']:.2f}"
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, ensure_ascii=False))


def rounded(value: object) -> object:
    """The same with every float at four significant digits: the rest is noise."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def sign(result: dict) -> str:
    return "≤" if result["lower_is_better"] else "≥"


def own_versions() -> dict[str, str]:
    """Versions of the libraries that are installed here, and Python's."""
    return {"python": ".".join(map(str, sys.version_info[:3]))} | installed(LIBRARIES)


def installed(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except ImportError:
            continue
    return found


def cpu() -> str:
    """The device in words."""
    import torch

    from extractive_qa.model.devices import describe

    return describe(torch.device("cpu"))


def gemm_peak(size: int = 2048, repeats: int = 7) -> dict[str, float]:
    """GFLOP/s of a square matrix product in fp32 and bf16 on the CPU: the best of `repeats`, after a warm-up."""
    import torch

    peak = {}
    for name, dtype in (("no", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
        torch.matmul(a, b)
        seconds = min(seconds_of(lambda a=a, b=b: torch.matmul(a, b)) for _ in range(repeats))
        peak[name] = 2 * size**3 / seconds / 1e9
    return peak


def random_reader() -> Path:
    """A folder with MobileBERT in full size that answers, with random weights, made where it is missing.

    Raises QAError where the random encoder is missing.
    """
    if not (RANDOM_READER / "config.json").exists():
        import torch

        from extractive_qa.files.atomic import replace_folder
        from extractive_qa.model.folder import save_reader
        from extractive_qa.model.loading import load_encoder
        from extractive_qa.settings import DEFAULT_SETTINGS

        torch.manual_seed(0)
        model, _ = load_encoder(RANDOM_ENCODER, "Run: python dev/make_random_model.py")
        replace_folder(RANDOM_READER, lambda folder: save_reader(folder, model, RANDOM_ENCODER, DEFAULT_SETTINGS))
    return RANDOM_READER


def arguments(doc: str, benchmark: str, pairs: int = 5) -> argparse.ArgumentParser:
    """The flags that every comparison has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=console.HelpFormatter)
    parser.add_argument("--pairs", type=int, default=pairs, help="turns in which every side runs once")
    parser.add_argument("--patience", type=float, default=0, help="seconds to wait for a quiet machine before a turn")
    parser.add_argument("--results_dir", type=Path, default=RESULTS_DIR, help=f"where {benchmark}.json is written")
    return parser


if __name__ == "__main__":
    console.run(lambda: print(f"random weights: {shown(random_reader())}"))
