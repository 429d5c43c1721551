"""How time and memory grow with the length of a context and with the number of questions.

    python benchmarks/scaling.py --eval_file ../shared/squad/dev_a.json

One question is asked of contexts of 1, 10, 100 and 1,000 kB, and 100, 1,000 and all questions of the file of their own
paragraphs; each in a process of its own, on the CPU, with models/sample in PyTorch's fp32, which is there on every
machine. Writes benchmarks/results/scaling.json, docs/scaling.png and docs/SCALING.md. Takes about 5 minutes on 2 CPU
cores.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import PROJECT_ROOT, SAMPLE_MODEL_DIR, go_offline

go_offline()

from fresh import in_fresh_process
from pairs import DEV_FILE, RESULTS_DIR, cpu, own_versions

from extractive_qa.files.reading import make_room
from utils import console

KILOBYTES = (1, 10, 100, 1000)
QUESTIONS = (100, 1000, 4961)
TABLE = """# Growth

Made by `python benchmarks/scaling.py` on {device}: `models/sample` (MiniLM-L6), {precision} precision, {questions_file}
real questions; each line in a process of its own. Time is that of answering, the model loaded and warm; memory is the
peak of the whole process, and what of it was added while answering.

![time and memory over size](scaling.png)

## One question, a longer context

| context | windows | seconds | ms a window | peak memory | added by answering |
| --- | --- | --- | --- | --- | --- |
{contexts}

## More questions, each of its own paragraph

| questions | windows | seconds | ms a question | peak memory | added by answering |
| --- | --- | --- | --- | --- | --- |
{questions}

{verdict}
"""


def measure(model_dir: str, file: str, kilobytes: int | None, questions: int | None) -> dict:
    """Seconds and memory of answering one question of so many kB, or so many questions. Runs in a fresh process."""
    from extractive_qa.data.examples import read_examples
    from extractive_qa.model.memory import process_memory
    from extractive_qa.preprocessing.windows import prepare_validation_features
    from extractive_qa.reader import Reader

    examples = read_examples(file)
    if kilobytes:
        text = " ".join(dict.fromkeys(example["context"] for example in examples))
        while len(text) < kilobytes * 1000:
            text += " " + text
        examples = [examples[0] | {"context": text[: kilobytes * 1000]}]
    else:
        examples = examples[:questions]
    reader = Reader(model_dir, "cpu", "no", backend="torch")
    settings = reader.settings
    windows = len(
        prepare_validation_features(examples, reader.tokenizer, settings["max_length"], settings["doc_stride"])
    )
    reader.answer(examples[0]["question"], examples[0]["context"][:500])  # warm
    before, began = process_memory(), time.perf_counter()
    for _ in reader.answer_all(examples):
        pass
    seconds, peak = time.perf_counter() - began, reader.backend.peak_memory()
    return {
        "kilobytes": kilobytes,
        "questions": len(examples),
        "windows": windows,
        "seconds": seconds,
        "peak_mb": peak / 1e6,
        "added_mb": max(0, peak - before) / 1e6,
    }


def draw(contexts: list[dict], questions: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, lines, size, label in (
        (axes[0], contexts, "kilobytes", "context, kB"),
        (axes[1], questions, "questions", "questions"),
    ):
        sizes = [line[size] for line in lines]
        seconds = [line["seconds"] for line in lines]
        axis.loglog(sizes, seconds, marker="o", color="tab:blue", label="seconds")
        linear = [seconds[-1] * size / sizes[-1] for size in sizes]
        axis.loglog(sizes, linear, color="tab:gray", linestyle=":", label="linear")
        axis.set(xlabel=label, ylabel="seconds")
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left")
        memory = axis.twinx()
        memory.plot(sizes, [line["peak_mb"] for line in lines], marker="s", color="tab:orange")
        memory.set(ylabel="peak memory, MB (orange)", ylim=(0, None))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def growth(lines: list[dict], size: str) -> float:
    """The exponent with which time grows from the smallest of `lines` that takes a second to the largest."""
    from math import log

    first = next((line for line in lines[:-1] if line["seconds"] > 1), lines[-2])
    return log(lines[-1]["seconds"] / first["seconds"]) / log(lines[-1][size] / first[size])


def rows(lines: list[dict], size: str, unit: str, parts: str) -> str:
    return "\n".join(
        f"| {line[size]:,}{unit} | {line['windows']:,} | {line['seconds']:.2f} | "
        f"{1000 * line['seconds'] / line[parts]:.1f} | {line['peak_mb']:,.0f} MB | {line['added_mb']:,.0f} MB |"
        for line in lines
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    add = parser.add_argument
    add("--eval_file", type=Path, default=DEV_FILE, help="questions and texts")
    add("--model_dir", type=Path, default=SAMPLE_MODEL_DIR, help="model that answers")
    add("--output_dir", type=Path, default=PROJECT_ROOT / "docs", help="where SCALING.md and scaling.png go")
    add("--output", type=Path, default=RESULTS_DIR / "scaling.json", help="result file")
    add("--kilobytes", type=int, nargs="+", default=list(KILOBYTES), help="lengths of contexts")
    add("--questions", type=int, nargs="+", default=list(QUESTIONS), help="numbers of questions")
    add("--part", type=json.loads, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    make_room(args.output, "--output")
    make_room(args.output_dir / "SCALING.md", "--output_dir")
    if args.part:
        print(json.dumps(measure(**args.part)))
        return
    given = {"model_dir": str(args.model_dir.resolve()), "file": str(args.eval_file.resolve())}
    contexts, questions = [], []
    for kilobytes in args.kilobytes:
        contexts.append(in_fresh_process(__file__, **given, kilobytes=kilobytes, questions=None))
        print(f"{kilobytes:,} kB: {contexts[-1]['seconds']:.2f} s, peak {contexts[-1]['peak_mb']:,.0f} MB", flush=True)
    for count in args.questions:
        questions.append(in_fresh_process(__file__, **given, kilobytes=None, questions=count))
        print(f"{count:,} questions: {questions[-1]['seconds']:.2f} s, peak {questions[-1]['peak_mb']:,.0f} MB")
    exponents = {"context": growth(contexts, "kilobytes"), "questions": growth(questions, "questions")}
    result = {
        "benchmark": "scaling",
        "contexts": contexts,
        "questions": questions,
        "time_exponents": exponents,
        "device": cpu(),
        "versions": own_versions(),
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(contexts, questions, args.output_dir / "scaling.png")
    verdict = (
        f"Time grows with the length of the context to the power {exponents['context']:.2f}, with the number of\n"
        f"questions to the power {exponents['questions']:.2f} (from the first line of more than a second to the last); "
        "1 is linear.\nLogits are kept for 128 windows at most, and 512 questions are in work at a time."
    )
    text = TABLE.format(
        device=cpu(),
        precision="fp32",
        questions_file=f"{args.questions[-1]:,}",
        contexts=rows(contexts, "kilobytes", " kB", "windows"),
        questions=rows(questions, "questions", "", "questions"),
        verdict=verdict,
    )
    (args.output_dir / "SCALING.md").write_text(text, encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    console.run(main)
