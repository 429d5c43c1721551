"""What all benchmarks share: flags, turns, peers, fresh processes, results.

    python benchmarks/harness.py     # makes models/mobilebert-random-reader, which some of them measure

Ours and the peers run in turn within one run, so only one side computes at a time. The order changes with every turn,
so a machine that slows down favours none; a ratio is the median of the ratios within each turn. A peer is a worker
process in an environment of its own, .venv-peers (requirements-peers.txt, made by make). Memory is measured in fresh
processes: what was used before is neither given back nor counted twice. No side computes in bf16 where the processor
has none. Every benchmark writes --results_dir/NAME.json, a comparison with peers NAME.json in a folder there for this
kind of processor, and ends with the same as one line of JSON: figures, device, versions.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

PROJECT_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT_ROOT))
from utils.offline import SAMPLE_DATA_DIR, SQUAD_DIR, SWITCHES, go_offline

go_offline()

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.files.atomic import make_room, replace_folder
from extractive_qa.files.reading import read_json
from extractive_qa.model.loading import load_encoder
from extractive_qa.postprocessing.answers import AnswerCollector
from extractive_qa.preprocessing.batches import length_sorted_batches, pad_batch
from extractive_qa.preprocessing.windows import Features, prepare_validation_features
from extractive_qa.reader import Reader
from extractive_qa.settings import DEFAULT_SETTINGS
from extractive_qa.text import shown
from extractive_qa.training.augmentation import among_neighbours
from utils.console import HelpFormatter, note, progress, run

RESULTS_DIR = PROJECT_ROOT / "benchmarks" / "results"
PEERS_DIR = PROJECT_ROOT / "benchmarks" / "peers"
PEERS_VENV = PROJECT_ROOT / ".venv-peers"
RANDOM_ENCODER = PROJECT_ROOT / "models" / "mobilebert-random"
RANDOM_READER = PROJECT_ROOT / "models" / "mobilebert-random-reader"
REAL_SQUAD = PROJECT_ROOT.parent / "shared" / "squad"  # 11,877 training and 4,961 dev questions
MAKE_RANDOM = "Run: python dev/make_random_model.py"
LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "numpy", "onnxruntime")
MFLOP_PER_TOKEN = 43  # MobileBERT forward, windows of about 176 tokens; training takes three times that
FLAGS = {"fp32": "no", "bf16": "bf16"}  # --mixed_precision by name
MB = 1e6
UTF8 = {"PYTHONIOENCODING": "utf-8"}
HELP = {
    "device": "auto, cpu, cuda",
    "eval_file": "questions to answer",
    "max_samples": "use only so many questions",
    "model_dir": "model folder",
    "only": "run only this part",
    "pairs": "turns in which every side runs once",
    "results_dir": "folder of the results",
    "train_file": "questions with answers",
}


# SQuAD where it is at hand, else the bundled questions
TRAIN_FILE, DEV_FILE = (
    next(path for path in (REAL_SQUAD / real, SQUAD_DIR, SAMPLE_DATA_DIR / sample) if path.exists())
    for real, sample in (("train_11877.json", "train.json"), ("dev_a.json", "dev.json"))
)


def parse_args(doc: str, argv: list[str] | None, **flags: object) -> argparse.Namespace:
    """The flags of a benchmark. flags: a default each, whose help is in HELP, or a pair of default and help; a list is
    a flag that takes several values. Raises QAError where --results_dir can't be written."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=HelpFormatter)
    for name, value in ({"results_dir": RESULTS_DIR} | flags).items():
        default, text = value if isinstance(value, tuple) else (value, HELP[name])
        one = default[0] if isinstance(default, list) else default
        how = {"type": Path if one is None or isinstance(one, Path) else type(one), "default": default}
        how |= {"nargs": "+"} if isinstance(default, list) else {}
        parser.add_argument(f"--{name}", help=text, **({"action": "store_true"} if one is False else how))
    args = parser.parse_args(argv)
    make_room(args.results_dir / "result.json", "--results_dir")
    return args


# ---- questions and models


def read_questions(path: Path, split: str = "validation", most: int | None = None, **settings: object) -> list[dict]:
    """The first `most` examples of a file, None: all. Says so where only the bundled questions are at hand."""
    if path.is_relative_to(SAMPLE_DATA_DIR):
        note(f"{shown(path)}: the few bundled questions. For SQuAD's run: python download_data.py, or name a file")
    return read_examples(path, split, **settings)[:most]


def repeat_questions(examples: list[dict], count: int) -> Iterator[dict]:
    """`count` examples with distinct ids, one by one. Every repetition of a context begins with another number, so
    contexts are as distinct as the real ones: about 4.6 questions to one."""
    for number in range(count):
        copy, place = divmod(number, len(examples))
        example = examples[place]
        # now and then a question has a context of its own: of those at hand a little more are asked about one context
        prefix = f"{copy}. " if place % 70 else f"{copy}.{place}. "
        starts = [start + len(prefix) for start in example["answers"]["answer_start"]]
        answers = {"text": example["answers"]["text"], "answer_start": starts}
        key = f"{number:024d}"  # as long as SQuAD's
        yield {"id": key, "question": example["question"], "context": prefix + example["context"], "answers": answers}


def write_squad(path: Path, examples: Iterable[dict]) -> Path:
    """Writes examples in SQuAD's nesting: one paragraph for each run of questions about one context."""
    paragraphs = []
    for example in examples:
        if not paragraphs or paragraphs[-1]["context"] != example["context"]:
            paragraphs.append({"context": example["context"], "qas": []})
        texts, starts = example["answers"]["text"], example["answers"]["answer_start"]
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
        paragraphs[-1]["qas"].append({"id": example["id"], "question": example["question"], "answers": answers})
    path.write_text(json.dumps({"data": [{"title": "all", "paragraphs": paragraphs}]}), encoding="utf-8")
    return path


def write_lines(path: Path, examples: Iterable[dict], *fields: str) -> Path:
    """Writes the fields of examples as JSON Lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({name: example[name] for name in fields}) + "\n" for example in examples)
    return path


def write_windows(path: Path, features: Features, numbers: Sequence[int], max_length: int) -> None:
    """Writes the windows `numbers` for a peer to train on: arrays (N, max_length), padded, and (N,)."""
    batch = pad_batch([features[i] for i in numbers], max_length, 0)
    padding = ((0, 0), (0, max_length - batch["input_ids"].shape[1]))
    np.savez(path, **{name: np.pad(array, padding) if array.ndim > 1 else array for name, array in batch.items()})


def ask_of_neighbours(examples: list[dict], path: Path, count: int) -> list[dict]:
    """The examples of the file `path`, each asked of `count` neighbouring paragraphs of its article, 0: of all."""
    articles = read_json(path, "SQuAD's nesting: data > paragraphs")["data"]
    articles = [[paragraph["context"] for paragraph in article["paragraphs"]] for article in articles]
    article_of = {context: article for article in articles for context in article}
    joined = []
    for example in examples:
        article = article_of[example["context"]]
        size = min(count or len(article), len(article))
        first = article.index(example["context"]) - size // 2
        joined.append(among_neighbours(example, article, first, size)[0])
    return joined


def random_reader() -> Path:
    """A folder with MobileBERT in full size that answers, with random weights; made where it is missing. Raises
    QAError where the random encoder is missing."""
    if not (RANDOM_READER / "config.json").exists():
        import torch

        from extractive_qa.training.run import save_reader

        torch.manual_seed(0)
        model, _ = load_encoder(RANDOM_ENCODER, MAKE_RANDOM)
        replace_folder(RANDOM_READER, lambda folder: save_reader(folder, model, RANDOM_ENCODER, DEFAULT_SETTINGS))
    return RANDOM_READER


def logits_of(reader: Reader, examples: list[dict]) -> tuple[Features, list[tuple]]:
    """The windows of examples, and batches of them: their numbers, start_logits and end_logits, float32 (B, L)."""
    settings = reader.settings
    features = prepare_validation_features(examples, reader.tokenizer, settings["max_length"], settings["doc_stride"])
    batches = progress(length_sorted_batches(features.lengths, reader.batch_size), desc="logits")
    return features, [(windows, *reader.logits(features, windows)[1:]) for windows in batches]


def choose_answers(
    examples: list[dict], features: Features, settings: dict, scored: Iterable[tuple], n_best: int = 1
) -> list[list[dict]]:
    """The n_best best answers of every example, as Reader chooses them. scored: batches whose scores of different
    windows can be compared."""
    choice = AnswerCollector(features, settings, n_best)
    for windows, start_scores, end_scores in scored:
        choice.add(windows, start_scores, end_scores)
    return choice.answers([example["context"] for example in examples])


# ---- other processes


class Peer(contextlib.AbstractContextManager):
    """A worker process. `Peer("spans", ...)` is benchmarks/peers/spans.py in the peers' environment, a Path a script of
    ours in this one. `peer("command", key=value)` waits for its answer, a dict."""

    def __init__(self, script: str | Path, *args: object):
        ours = isinstance(script, Path)
        self.script = script if ours else PEERS_DIR / f"{script}.py"
        command = [sys.executable if ours else peer_python(), self.script, *args]
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PEERS_DIR,
            env=peer_environment(), encoding="utf-8",
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

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def peer_python() -> Path:
    """The interpreter of the peers' environment. Raises QAError where it was not made."""
    for path in (PEERS_VENV / "bin" / "python", PEERS_VENV / "Scripts" / "python.exe"):
        if path.exists():
            return path
    raise QAError(f"{shown(PEERS_VENV)} is missing. Expected the peers' environment. Run: make .venv-peers/.made")


def peer_environment() -> dict[str, str]:
    """Ours without what would lead the peer's imports into this project: evaluate.py here would hide a library."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return environment | SWITCHES | UTF8 | {"HAYSTACK_TELEMETRY_ENABLED": "False"}


def words_of(flags: dict) -> list[str]:
    """Flags as words of a command line."""
    return [str(word) for name, value in flags.items() for word in (f"--{name}", value)]


def run_script(script: str, flags: dict, *more: str | Path) -> None:
    """Runs a script of this project as a user does, its output on standard error. Raises QAError where it fails,
    KeyboardInterrupt where it was interrupted."""
    command = [sys.executable, str(PROJECT_ROOT / script), *words_of(flags), *map(str, more)]
    code = subprocess.run(command, check=False, stdout=2).returncode
    if code == 130:
        raise KeyboardInterrupt("stopped: the same command resumes")
    if code:
        raise QAError(f"{script} ended with exit code {code}: see above")


def training_rates(output_dir: Path) -> list[float]:
    """The questions per second that train.py logged."""
    lines = map(json.loads, (output_dir / "training_log.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["questions_per_second"] for line in lines if "questions_per_second" in line]


def start(main: Callable[[], None], measure: Callable[..., dict] | None = None) -> None:
    """Runs a benchmark's main(); or in a fresh process, for in_fresh_process, its measure()."""
    if sys.argv[1:2] == ["--measure"]:
        run(lambda: print(json.dumps(measure(**json.loads(sys.argv[2])))))
    else:
        run(main)


def in_fresh_process(script: str, **settings: object) -> dict:
    """What measure(**settings) of a benchmark returns in a process of its own. settings: what JSON can hold."""
    command = [sys.executable, script, "--measure", json.dumps(settings, default=str)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, encoding="utf-8", env=os.environ | UTF8)
    if done.returncode:
        raise QAError(f"{' '.join(command[1:])} ended with exit code {done.returncode}: see above")
    note(", ".join(f"{name} {value}" for name, value in settings.items() if not isinstance(value, Path)))
    return json.loads(done.stdout.strip().splitlines()[-1])


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def run_parts(args: argparse.Namespace, parts: dict[str, Callable[[argparse.Namespace, Path], None]]) -> None:
    """Runs the parts of a benchmark, or with --only one of them, each with a temporary folder."""
    if args.only and args.only not in parts:
        raise QAError(f"--only {args.only} is not known. Expected one of {', '.join(parts)}.")
    for name, part in parts.items():
        if args.only in ("", name):
            with temporary_folder() as folder:
                part(args, folder)


# ---- turns


def take_turns(
    sides: dict[str, Callable[[], float]], pairs: int, warm_up: bool = False
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """The figures of every side: `pairs` turns in which each side runs once, the order changing with each turn; and
    the share of the machine that other processes had while each side ran, the median of its turns."""
    figures, others = ({name: [] for name in sides} for _ in range(2))
    for side in sides.values() if warm_up else ():
        side()
    for turn in range(pairs):
        for name in list(sides) if turn % 2 == 0 else reversed(sides):
            before = processor_seconds()
            figures[name].append(sides[name]())
            elapsed, busy, own = np.subtract(processor_seconds(), before).tolist()
            others[name].append(min(1.0, max(0.0, (busy - own) / elapsed / (os.cpu_count() or 1))))
            note(f"turn {turn + 1} of {pairs}: {name} {figures[name][-1]:,.4g}, others {others[name][-1]:.0%}")
    return figures, {name: statistics.median(shares) for name, shares in others.items()}


def processor_seconds() -> tuple[float, float, float]:
    """Now, the processor time that all processes have used, and that of this one and its workers, in seconds."""
    import psutil

    times, me, own = psutil.cpu_times(), psutil.Process(), 0.0
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            own += sum(process.cpu_times()[:4])  # user and system, its own and that of its ended children
    return time.monotonic(), times.user + times.system + getattr(times, "nice", 0.0), own


def seconds_of(work: Callable[[], object]) -> float:
    """How long `work()` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# ---- results


def median_and_spread(values: Sequence[float]) -> dict:
    return {"median": statistics.median(values), "spread": [min(values), max(values)]}


def ratio_by_turn(ours: Sequence[float], peer: Sequence[float]) -> dict:
    return median_and_spread([a / b for a, b in zip(ours, peer, strict=True)])


def summarize(
    benchmark: str, figures: dict[str, list[float]], ours: Sequence[str], peers: Sequence[str],
    best_peers: Sequence[str], unit: str, target: float, lower: bool = False, **more: object,
) -> dict:  # fmt: skip
    """The result of a comparison, ready for JSON.

    figures: of every side, one for each turn, rates or, with `lower`, times. ours, peers, best_peers: which of them
    compete for `ours`, `peer` and `peer_best` (the peers as they come too); the best median counts. ratio: median of
    ours / peer within each turn.
    """
    medians = {name: statistics.median(values) for name, values in figures.items()}
    groups = {"ours": ours, "peer": peers, "peer_best": [*peers, *best_peers]}
    chosen = {role: (min if lower else max)(names, key=medians.get) for role, names in groups.items()}
    own = figures[chosen["ours"]]
    spread = {role: median_and_spread(figures[name])["spread"] for role, name in chosen.items()}
    ratio, ratio_best = (ratio_by_turn(own, figures[chosen[role]]) for role in ("peer", "peer_best"))
    return {
        "benchmark": benchmark, **{role: medians[name] for role, name in chosen.items()},
        "ratio": ratio["median"], "ratio_best": ratio_best["median"],
        "target": target, "met": ratio["median"] <= target if lower else ratio["median"] >= target,
        "unit": unit, "lower_is_better": lower, "pairs": len(own),
        "spread": spread | {"ratio": ratio["spread"], "ratio_best": ratio_best["spread"]},
        "sides": chosen, "medians": medians, **more,
    }  # fmt: skip


def peer_is_ahead(result: dict) -> bool:
    """Whether the peer at its best is faster than ours."""
    return result["ratio_best"] > 1 if result["lower_is_better"] else result["ratio_best"] < 1


def target_of(result: dict) -> str:
    return f"{'≤' if result['lower_is_better'] else '≥'} {result['target']:g}"


def report(
    args: argparse.Namespace, figures: dict[str, list[float]], others: dict, peer_versions: dict, benchmark: str,
    *sides: object, **more: object,
) -> None:  # fmt: skip
    """Prints what a comparison found, and saves it. sides, more: the rest of what `summarize` takes."""
    about = {"device": describe_cpu(), "versions": {"ours": versions(), "peer": peer_versions}}
    result = summarize(benchmark, figures, *sides, **about, **more, others=others)
    rows = []
    for name, values in figures.items():
        roles = ", ".join(role for role, side in result["sides"].items() if side == name)
        rows.append([name, *(f"{f(values):,.4g}" for f in (statistics.median, min, max)), roles])
    print(f"\n{benchmark}: {result['unit']}, {result['pairs']} turns, {result['device']}")
    print_table(["", "median", "min", "max", "is"], rows)
    met = "met" if result["met"] else "missed"
    ahead = f"PEER AHEAD, {result['sides']['peer_best']}" if peer_is_ahead(result) else "ours is ahead"
    for name, key, verdict in (
        ("peer", "ratio", f"target {target_of(result)}: {met}"), ("peer at its best", "ratio_best", ahead)
    ):  # fmt: skip
        low, high = result["spread"][key]
        print(f"ours / {name} {result[key]:.2f} ({low:.2f} to {high:.2f}), {verdict}")
    save(args, folder=processor_kind(), **result)


def save(args: argparse.Namespace, benchmark: str, folder: str = "", **fields: object) -> None:
    """Writes a result to --results_dir/BENCHMARK.json, or a folder there, and prints it as one line, with device and
    versions where `fields` has none."""
    about = {name: fields.get(name) or get() for name, get in (("device", describe_cpu), ("versions", versions))}
    line = rounded({"benchmark": benchmark} | fields | about)
    path = args.results_dir / folder / f"{benchmark}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(line, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(line, ensure_ascii=False), flush=True)


def put_table(path: Path, marker: str, made: str, write: bool = True) -> bool:
    """Puts a table into a document, between <!-- marker --> and <!-- /marker -->. Returns whether it had another.
    Raises QAError where the document has not one pair of these."""
    text, begin, end = path.read_text(encoding="utf-8"), f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
    new, count = re.subn(f"{begin}.*?{end}", lambda _: begin + made + end, text, flags=re.DOTALL)
    if count != 1:
        raise QAError(f"{path} has no place for the table. Expected one line {begin.strip()} and one {end} after it.")
    if new != text and write:
        path.write_text(new, encoding="utf-8", newline="\n")
    return new != text


def print_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as they need, the first aligned to the left, the others to the right."""
    lines = [list(map(str, cells)) for cells in (heads, *rows)]
    first, *widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *cells in lines:
        print("  ".join([name.ljust(first), *map(str.rjust, cells, widths)]).rstrip())


def rounded(value: object) -> object:
    """The same as JSON has it, with every float at four significant digits: the rest is noise."""
    return json.loads(json.dumps(value), parse_float=lambda text: float(f"{float(text):.4g}"))


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that are installed here."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES if find_spec(name)}


def describe_cpu() -> str:
    import torch

    from extractive_qa.model.devices import describe

    return describe(torch.device("cpu"))


def processor_kind() -> str:
    """What decides how the two sides compare: whether the processor multiplies bf16 ("bf16", and VNNI then too),
    adds products of 8-bit integers in 32 bits ("vnni"), or has neither ("avx2"); else its architecture."""
    import torch

    found = torch.cpu.get_capabilities()
    if precisions_of("cpu") != ["fp32"]:
        return "bf16"
    if found.get("avx512_vnni") or found.get("avx_vnni"):
        return "vnni"
    return "avx2" if found.get("avx2") else platform.machine()


def precisions_of(device: str) -> list[str]:
    """The precisions that the device has in hardware: "fp32", and "bf16" where has_bf16 says so."""
    import torch

    from extractive_qa.model.devices import has_bf16

    return ["fp32", "bf16"] if has_bf16(torch.device(device)) else ["fp32"]


def gemm_peak(size: int = 2048, repeats: int = 7) -> dict[str, float]:
    """GFLOP/s of a square matrix product on the CPU by --mixed_precision: the best of `repeats`, after a warm-up."""
    import torch

    peak = {}
    for precision in precisions_of("cpu"):
        a, b = torch.randn(2, size, size).to(torch.float32 if precision == "fp32" else torch.bfloat16)
        torch.matmul(a, b)
        seconds = min(seconds_of(lambda a=a, b=b: torch.matmul(a, b)) for _ in range(repeats))
        peak[FLAGS[precision]] = 2 * size**3 / seconds / 1e9
    return peak


def share_of_peak(figures: dict[str, list[float]], mflop: float) -> dict:
    """What share of gemm_peak each side reaches, whose figures are rates of something that takes so many MFLOP. int8 is
    held against bf16, where that is there."""
    peak, medians = gemm_peak(), {name: statistics.median(rates) for name, rates in figures.items()}
    limits = {name: peak["no"] if "fp32" in name else peak.get("bf16", peak["no"]) for name in figures}
    shares = {name: rate * mflop / 1e3 / limits[name] for name, rate in medians.items()}
    return {"gemm_peak_gflops": peak, "share_of_gemm_peak": shares}


if __name__ == "__main__":
    run(lambda: print(f"random weights: {shown(random_reader())}"))
