"""Do confidences mean what they say, and does a model know when the answer is not there? Fitted on one half of the
articles of real dev questions, measured on the other.

    python benchmarks/quality/calibration.py
    python benchmarks/quality/calibration.py --unanswerable data/sample/unanswerable.json

The questions are asked in the four situations of extractive_qa/training/situations.py; SPLITS times the articles are
split in halves, and each half is measured once with the calibrator of the other. Beside the calibration error (10 bins
of equal mass) is what it would be by chance, were every confidence true. AUROC: how often `answerable` is more on the
question's own paragraph than on the best by BM25 that lacks the answer. --unanswerable: questions that their own
paragraphs do not answer, against those of data/sample/dev.json, with a calibrator that is fitted to all.

Writes calibration.json. 1,000 questions take 15 minutes on one slow core.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness
from passages import auroc

from extractive_qa.data.examples import read_examples
from extractive_qa.postprocessing.calibration import calibration_error, split_in_halves
from extractive_qa.postprocessing.confidence import apply_calibrator
from extractive_qa.reader import Reader
from extractive_qa.training.situations import ABSENT, OWN, SITUATIONS, Judged, fit, judge
from utils.console import progress
from utils.offline import SAMPLE_DATA_DIR, SAMPLE_MODEL_DIR

SPLITS = 20


def measure(judged: Judged, fitted_on: np.ndarray, random: np.random.Generator) -> dict:
    """One split, fitted on some of the questions, bool (Q,), measured on the others: figures in each situation, over
    all, and of telling own paragraphs from those without the answer."""
    rows = fitted_on[judged.question]
    confidence, answerable = apply_calibrator(fit(judged, rows, None), judged.features)
    parts = {name: ~rows & (judged.situation == number) for number, name in enumerate(SITUATIONS)}
    found = {}
    for name, some in (parts | {"all": ~rows}).items():
        sure, right = confidence[some], judged.right[some]
        found[name] = {
            "confidence": sure.mean(), "right": right.mean(), "error": calibration_error(sure, right),
            "by_chance": calibration_error(sure, random.random(len(right)) < sure),
            "called_absent": (answerable[some] < 0.5).mean(),
        }  # fmt: skip
    sides = [answerable[parts[SITUATIONS[number]]] for number in (OWN, ABSENT)]
    return {"auroc": auroc(*sides), "situations": found}


def mean_of(rows: list[dict]) -> dict:
    """The means of figures over splits, and of each one's lowest and highest."""
    situations = rows[0]["situations"]
    return {
        "auroc": float(np.mean([row["auroc"] for row in rows])),
        "auroc_range": [float(end([row["auroc"] for row in rows])) for end in (min, max)],
        "situations": {
            name: {figure: float(np.mean([row["situations"][name][figure] for row in rows])) for figure in figures}
            for name, figures in situations.items()
        },
    }


def unanswerable_auroc(reader: Reader, judged: Judged, path: Path) -> dict:
    """How well `answerable` tells the questions of data/sample that have an answer from those of `path`."""
    reader.settings["calibrator"] = fit(judged, np.ones(len(judged.right), dtype=bool), None)
    files = {"with": SAMPLE_DATA_DIR / "dev.json", "without": path}
    given = {}
    for name, file in files.items():
        examples = read_examples(file, "validation", impossible=True)
        given[name] = np.array([best["answerable"] for best, *_ in reader.answer_all(examples)])
    return {
        "questions": {name: len(values) for name, values in given.items()},
        "auroc": auroc(given["with"], given["without"]),
        "called_absent": {name: float((values < 0.5).mean()) for name, values in given.items()},
    }


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, eval_file=harness.DEV_FILE, max_samples=1_000, model_dir=SAMPLE_MODEL_DIR,
        unanswerable=(None, "a file of questions without an answer"),
    )  # fmt: skip
    reader = Reader(args.model_dir, "cpu", backend="torch")
    examples = harness.read_questions(args.eval_file, titles=True)
    contexts = list(dict.fromkeys(example["context"] for example in examples))
    order = np.random.default_rng(0).permutation(len(examples))[: args.max_samples]
    examples = [examples[number] for number in np.sort(order)]
    judged, random = judge(reader, examples, contexts, progress), np.random.default_rng(0)
    splits = [split_in_halves(examples, seed) for seed in range(SPLITS)]
    found = mean_of([measure(judged, half, random) for split in splits for half in (split, ~split)])
    print(f"{len(examples):,} questions, {SPLITS} splits, each half once: means")
    figures = list(found["situations"]["own"])
    rows = [[name, *(f"{one[figure]:.3f}" for figure in figures)] for name, one in found["situations"].items()]
    harness.print_table(["", *figures], rows)
    low, high = found["auroc_range"]
    print(f"AUROC {found['auroc']:.3f} ({low:.3f} to {high:.3f})")
    if args.unanswerable:
        found["unanswerable"] = unanswerable_auroc(reader, judged, Path(args.unanswerable))
        print(f"questions without an answer: {found['unanswerable']}")
    harness.save(
        args, "calibration", unit="expected calibration error, 10 bins of equal mass", questions=len(examples),
        **found, model=args.model_dir.name, device=reader.backend.describe(),
        mixed_precision=reader.backend.precision,
    )  # fmt: skip


if __name__ == "__main__":
    harness.start(main)
