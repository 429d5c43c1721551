"""How `predict.py batch` with many files grows: with workers, and with the number of questions.

    python benchmarks/speed/shards.py --model_dir models/sample --eval_file dev_a.json      # export the model first
    python benchmarks/speed/shards.py --only workers

workers   Two workers of one thread against one worker of one thread, in turn: the whole command, from its start to its
          end. Writes shards_workers.json
growth    1,000 and 10,000 questions with --model_dir, and 1,000, 10,000 and 100,000 with a tiny random model, as what
          grows is not the model; with two workers of one thread, 1,000 questions a file. The peak of memory is of the
          largest worker, and of the parent. Writes shards_growth.json and its table in docs/SCALING.md
picture   docs/growth.png from shards_growth.json

On the CPU. The real questions are repeated over other contexts where there are too few.
"""

import json
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness
import psutil
from harness import MB

from extractive_qa.errors import QAError
from extractive_qa.files.atomic import write_file
from extractive_qa.report import charts
from utils.offline import PROJECT_ROOT, SAMPLE_MODEL_DIR

A_FILE = 1000  # questions


def write_files(folder: Path, examples: list[dict], count: int, a_file: int = A_FILE) -> Path:
    """`count` questions as JSON Lines, so many in a file."""
    folder.mkdir()
    many = list(harness.repeat_questions(examples, count))
    for first in range(0, count, a_file):
        part = many[first : first + a_file]
        harness.write_lines(folder / f"{first:07}.jsonl", part, "id", "question", "context")
    return folder


def run_batch(model_dir: Path, source: Path, output: Path, workers: int) -> dict:
    """Seconds of the whole command, those of processors that it and its workers used (0 where the system doesn't count
    them), and the peaks of memory in MB of its largest worker and of itself."""
    flags = {"model_dir": model_dir, "device": "cpu", "input": source, "output": f"{output}/", "workers": workers}
    command = [sys.executable, str(PROJECT_ROOT / "predict.py"), "batch", *harness.words_of(flags | {"threads": 1})]
    before = processor_seconds()
    began, peaks, done = time.perf_counter(), {"worker_mb": 0.0, "parent_mb": 0.0}, threading.Event()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def watch() -> None:
        while not done.wait(0.2):
            for name, some in (("parent_mb", [process.pid]), ("worker_mb", children_of(process.pid))):
                for pid in some:
                    peaks[name] = max(peaks[name], peak_of(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    if code:
        raise QAError(f"{' '.join(command)} ended with exit code {code}: see above")
    return {"seconds": seconds, "processor_seconds": processor_seconds() - before, **peaks}


def processor_seconds() -> float:
    """Of the processes that this one has started, and theirs, once they have ended."""
    times = psutil.Process().cpu_times()
    return times.children_user + times.children_system


def children_of(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


def peak_of(pid: int) -> float:
    try:
        return psutil.Process(pid).memory_info().rss / MB
    except psutil.Error:
        return 0.0


def workers(args, folder: Path) -> None:
    examples = harness.read_questions(args.eval_file)
    source, runs = write_files(folder / "in", examples, args.questions, args.questions // 16), iter(range(1000))
    used = {1: [], 2: []}

    def rate(count: int) -> float:
        found = run_batch(args.model_dir, source, folder / f"out{next(runs)}", count)
        used[count].append(found["processor_seconds"])
        return args.questions / found["seconds"]

    sides = {f"{count} worker(s)": partial(rate, count) for count in used}
    rates, others = harness.take_turns(sides, args.pairs)
    ratio = harness.ratio_by_turn(rates["2 worker(s)"], rates["1 worker(s)"])
    print(f"two workers / one: {ratio['median']:.2f} ({ratio['spread'][0]:.2f} to {ratio['spread'][1]:.2f})")
    figures = {"questions_a_second": rates, "ratio": ratio, "processor_seconds": used, "others": others}
    harness.save(args, "shards_workers", questions=args.questions, **figures)


def growth(args, folder: Path) -> None:
    examples = harness.read_questions(args.eval_file)
    rows = []
    for name, model_dir, counts in (("--model_dir", args.model_dir, args.some), ("tiny", args.tiny_model, args.many)):
        for count in counts if model_dir else ():
            source = write_files(folder / f"in.{name}.{count}", examples, count)
            found = run_batch(model_dir, source, folder / f"out.{name}.{count}", 2)
            rows.append({"model": name, "questions": count} | found)
            harness.note(str(rows[-1]))
    text = "| model | questions | files | seconds | seconds of processors | questions a second of one | largest worker "
    text += "| parent |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n"
    for row in rows:
        model, count = "tiny, random" if row["model"] == "tiny" else args.model_dir.name, row["questions"]
        text += f"| {model} | {count:,} | {count // A_FILE:,} | {row['seconds']:,.0f} "
        text += f"| {row['processor_seconds']:,.0f} | {count / row['processor_seconds']:,.1f} "
        text += f"| {row['worker_mb']:,.0f} MB | {row['parent_mb']:,.0f} MB |\n"
    harness.put_table(args.docs_dir / "SCALING.md", "shards", f"{harness.describe_cpu()}:\n\n{text}")
    print(text)
    harness.save(args, "shards_growth", unit="MB", rows=rows)


def picture(args, _: Path) -> None:
    result = json.loads((args.results_dir / "shards_growth.json").read_text(encoding="utf-8"))
    write_file(args.docs_dir / "growth.png", charts.picture(draw_growth, result["rows"], width=9, height=3.6))


def draw_growth(figure, rows: list[dict], dark: bool) -> None:
    """Processor seconds, and memory of the largest worker, by questions: of a tiny model, and of the sample."""
    sides = (
        ("processor_seconds", "processor seconds", "log"),
        ("worker_mb", "memory of the largest worker (MB)", "linear"),
    )
    for axes, (name, label, scale) in zip(figure.subplots(1, 2), sides, strict=True):
        for model, title, colour in (
            ("tiny", "tiny model", charts.FIRST),
            ("--model_dir", "sample model", charts.SECOND),
        ):
            some = [row for row in rows if row["model"] == model]
            places = [row["questions"] for row in some], [row[name] for row in some]
            axes.plot(*places, marker="o", color=colour[dark], label=title)
        axes.set(xscale="log", yscale=scale, xlabel="questions", ylabel=label)
        if scale == "linear":
            axes.set_ylim(0)
        axes.grid()
    axes.legend()


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, eval_file=harness.DEV_FILE, model_dir=SAMPLE_MODEL_DIR, only="", pairs=3,
        questions=(960, "in the comparison of workers"), tiny_model=(None, "an exported tiny model for growth"),
        some=([1_000, 10_000], "numbers of questions with --model_dir"),
        many=([1_000, 10_000, 100_000], "numbers of questions with --tiny_model"),
        docs_dir=(PROJECT_ROOT / "docs", "folder of SCALING.md, which gets the table of growth"),
    )  # fmt: skip
    harness.run_parts(args, {"workers": workers, "growth": growth, "picture": picture})


if __name__ == "__main__":
    harness.start(main)
