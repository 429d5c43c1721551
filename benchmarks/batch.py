"""Is a batch of questions that was killed and gone on with the same as one that was not, and is its memory flat?

    python benchmarks/batch.py --eval_file ../shared/squad/dev_a.json

killed    predict.py batch answers the questions with the sample model, as JSON Lines into a file: once undisturbed, and
          once killed at drawn moments and run again by the same command. Both files must be the same, byte for byte.
memory    predict.py batch on 5,000 and 50,000 questions, the real ones repeated over other contexts, with a tiny random
          model: the peak of the whole process

Writes benchmarks/results/batch.json. Takes about 10 minutes on 2 CPU cores.
"""

import argparse
import json
import random
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import PROJECT_ROOT, SAMPLE_MODEL_DIR, go_offline

go_offline()

from evaluation_memory import COUNTS, MB, make_tiny_model
from fresh import environment, in_fresh_process, repeat
from pairs import DEV_FILE, RESULTS_DIR, cpu, own_versions

from extractive_qa.errors import QAError
from extractive_qa.files.reading import make_room
from utils import console


def write_questions(path: Path, examples: Iterable[dict]) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            file.write(json.dumps({name: example[name] for name in ("id", "question", "context")}) + "\n")
    return path


def start(model_dir: Path, questions: Path, answers: Path) -> subprocess.Popen:
    command = [sys.executable, str(PROJECT_ROOT / "predict.py"), "batch", "--model_dir", str(model_dir),
               "--input", str(questions), "--output", str(answers), "--device", "cpu"]  # fmt: skip
    return subprocess.Popen(command, env=environment())


def kill_after(process: subprocess.Popen, answers: Path, count: int, delay: float) -> int:
    """Kills a run `delay` seconds after its file has `count` answers; how many whole ones it then has."""
    while process.poll() is None and lines_of(answers) < count:
        time.sleep(0.02)
    time.sleep(delay)
    if process.poll() is not None:
        raise QAError("the run ended before it could be killed. Expected more questions: see --eval_file")
    process.kill()
    process.wait()
    return lines_of(answers)


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def measure_killed(model_dir: Path, questions: Path, count: int, kills: int, seed: int) -> dict:
    """Both runs of `count` questions. Raises QAError where their files differ."""
    chance = random.Random(seed)
    undisturbed, killed = questions.with_name("undisturbed.jsonl"), questions.with_name("killed.jsonl")
    began = time.monotonic()
    if start(model_dir, questions, undisturbed).wait():
        raise QAError("predict.py batch failed: see above")
    seconds = time.monotonic() - began
    found = []
    for moment in sorted(chance.uniform(0.05, 0.9) for _ in range(kills)):
        run = start(model_dir, questions, killed)
        found.append(kill_after(run, killed, int(moment * count), chance.uniform(0, 2 * seconds * 128 / count)))
    if start(model_dir, questions, killed).wait():
        raise QAError("predict.py batch failed: see above")
    if killed.read_bytes() != undisturbed.read_bytes():
        raise QAError(f"killed after {found} answers and gone on with, the file differs from the undisturbed one")
    ids = [json.loads(line)["id"] for line in killed.read_text(encoding="utf-8").splitlines()]
    expected = [json.loads(line)["id"] for line in questions.read_text(encoding="utf-8").splitlines()]
    if ids != expected:
        raise QAError("the answers' ids are not those of the questions, in their order")
    return {"questions": count, "killed_after_answers": found, "same_bytes": True, "seconds_undisturbed": seconds}


def measure_memory(model_dir: str, questions: str, answers: str) -> dict:
    """Peak memory in MB of predict.py batch, which runs in this process, and how long it took."""
    from extractive_qa.model.memory import process_memory

    predict = runpy.run_path(str(PROJECT_ROOT / "predict.py"), run_name="measured")
    began = time.monotonic()
    predict["main"](["batch", "--model_dir", model_dir, "--input", questions, "--output", answers, "--device", "cpu"])
    return {"peak": process_memory(peak=True) / MB, "seconds": time.monotonic() - began}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    parser.add_argument("--eval_file", type=Path, default=DEV_FILE, help="real questions")
    parser.add_argument("--model_dir", type=Path, default=SAMPLE_MODEL_DIR, help="what answers those that are killed")
    parser.add_argument("--kills", type=int, default=2, help="how often the second run is killed")
    parser.add_argument("--seed", type=int, default=5, help="of the moments")
    parser.add_argument("--output", type=Path, default=RESULTS_DIR / "batch.json", help="result file")
    parser.add_argument("--part", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    make_room(args.output, "--output")
    if args.part:
        print(json.dumps(measure_memory(**args.part)))
        return

    from extractive_qa.data.examples import read_examples

    examples = read_examples(args.eval_file)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        questions = write_questions(folder / "questions.jsonl", examples)
        killed = measure_killed(args.model_dir, questions, len(examples), args.kills, args.seed)
        memory = []
        model_dir = make_tiny_model(folder / "model")
        for count in COUNTS:
            many = write_questions(folder / f"{count}.jsonl", repeat(examples, count))
            settings = {"model_dir": str(model_dir), "questions": str(many), "answers": f"{many}.answers.jsonl"}
            memory.append({"questions": count} | in_fresh_process(__file__, **settings))

    after = ", ".join(f"{count:,}" for count in killed["killed_after_answers"])
    print(f"{len(examples):,} questions, killed after {after} answers and gone on with: the same bytes")
    for figure in memory:
        print(f"{figure['questions']:>7,} questions: peak {figure['peak']:,.0f} MB, {figure['seconds']:,.0f} s")
    line = {"benchmark": "batch", "killed": killed, "memory": memory, "unit": "MB", "device": cpu(),
            "versions": own_versions()}  # fmt: skip
    args.output.write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(line))


if __name__ == "__main__":
    console.run(main)
