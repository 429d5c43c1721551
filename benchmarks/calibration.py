"""Do confidences mean what they say? Fitted on one half of the articles of real dev questions, measured on the other.

    python tools/export_onnx.py --sample              # once
    python benchmarks/calibration.py

models/sample answers all questions once in each precision that ONNX Runtime has; then the articles are split in two
SPLITS times, and each half is fitted on and measured on the other. Printed is the calibration error (10 bins of equal
mass) as the model has its confidences, with a temperature alone, and with temperature and references, as evaluate.py
--fit_temperature fits them; and what EM the surer half of the questions has. For comparison: the error where
the same is fitted on the measured half itself (what is left are the shape of the curve and chance), and of confidences
that are right by construction (what is left is chance). And of the answers behind the best one, as reader.json has
confidences: how likely they say they are, and how often they are right. Writes benchmarks/results/calibration.json.
Takes about 8 minutes on 2 CPU cores.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from pairs import DEV_FILE, RESULTS_DIR, cpu, own_versions, rounded
from tqdm.auto import tqdm

from extractive_qa.data.examples import read_examples
from extractive_qa.files.reading import make_room
from extractive_qa.metrics import exact_match_score
from extractive_qa.postprocessing.calibration import (
    TEMPERATURES,
    any_reference_probability,
    calibration_error,
    fit_and_report,
    split_in_halves,
)
from extractive_qa.reader import Reader
from utils import console
from utils.offline import SAMPLE_MODEL_DIR

SPLITS = 20
PLACES = 5
TARGETS = {"error": 0.035, "gain": 10}
COLUMNS = ("error_uncalibrated", "error_temperature", "error", "error_fitted_on_itself", "error_by_chance", "gain")


def answer(reader: Reader, examples: list[dict]) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """The best answers' probabilities, float (TEMPERATURES, Q), which are exact matches, bool (Q,), and a row for each
    place that an answer can have among the PLACES best."""
    probability = []
    given, right = np.zeros((2, len(examples), PLACES))
    answers = tqdm(reader.answer_all(examples, PLACES, TEMPERATURES), "answering", len(examples))
    for number, (example, found) in enumerate(zip(examples, answers, strict=True)):
        probability.append(found[0]["probabilities"])
        given[number, : len(found)] = [some["probability"] for some in found]
        right[number, : len(found)] = [exact_match_score(some["text"], example["answers"]["text"]) for some in found]
    places = [
        {
            "place": place + 1,
            "confidence": float(given[:, place].mean()),
            "right": float(right[:, place].mean()),
            "error": calibration_error(given[:, place], right[:, place] > 0),
        }
        for place in range(PLACES)
    ]
    return np.array(probability).T, right[:, 0] > 0, places


def measure(probability: np.ndarray, correct: np.ndarray, fitted_on: np.ndarray, random: np.random.Generator) -> dict:
    """One row: fitted on one half of the questions, measured on the other. fitted_on: bool (Q,)."""
    measured_on = ~fitted_on
    report = fit_and_report(probability, correct, fitted_on, measured_on)
    given = probability[np.searchsorted(TEMPERATURES, report["temperature"])]
    confidence = any_reference_probability(given, report["references"])[measured_on]
    right = correct[measured_on]
    surer = np.argsort(-confidence, kind="stable")[: len(right) // 2]
    exact_match, of_surer = 100 * right.mean(), 100 * right[surer].mean()
    alone = fit_and_report(probability, correct, fitted_on, measured_on, references=np.ones(1))
    return {name: report[name] for name in ("temperature", "references", "error_uncalibrated")} | {
        "error_temperature": alone["error"],
        "error": report["error"],
        "error_fitted_on_itself": fit_and_report(probability, correct, measured_on, measured_on)["error"],
        "error_by_chance": calibration_error(confidence, random.random(len(right)) < confidence),
        "exact_match": exact_match,
        "exact_match_surer_half": of_surer,
        "gain": of_surer - exact_match,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=console.HelpFormatter)
    parser.add_argument("--eval_file", type=Path, default=DEV_FILE, help="questions")
    parser.add_argument("--max_samples", type=int, default=None, help="only the first so many (default: all)")
    parser.add_argument("--model_dir", type=Path, default=SAMPLE_MODEL_DIR, help="a trained model, exported")
    parser.add_argument("--output", type=Path, default=RESULTS_DIR / "calibration.json", help="result file")
    args = parser.parse_args(argv)
    make_room(args.output, "--output")

    examples = read_examples(args.eval_file, "validation", titles=True)[: args.max_samples]
    results = {}
    for name, precision in (("fp32", "no"), ("int8", "int8")):
        reader = Reader(args.model_dir, "cpu", precision, backend="onnx")
        probability, correct, places = answer(reader, examples)
        random, rows = np.random.default_rng(0), []
        for seed in range(SPLITS):
            half = split_in_halves(examples, seed)
            rows += [measure(probability, correct, some, random) for some in (half, ~half)]
        results[name] = {column: float(np.mean([row[column] for row in rows])) for column in COLUMNS} | {
            "error_range": [min(row["error"] for row in rows), max(row["error"] for row in rows)],
            "gain_range": [min(row["gain"] for row in rows), max(row["gain"] for row in rows)],
            "met": {
                "error": float(np.mean([row["error"] <= TARGETS["error"] for row in rows])),
                "gain": float(np.mean([row["gain"] >= TARGETS["gain"] for row in rows])),
            },
            "places": places,
            "splits": rows,
        }

    print(f"{len(examples):,} questions, {SPLITS} splits, each half once: means")
    print(f"{'':24}" + "".join(f"{name:>10}" for name in results))
    for column in COLUMNS:
        print(f"{column:24}" + "".join(f"{found[column]:>10.4g}" for found in results.values()))
    for name, found in results.items():
        low, high = found["error_range"]
        print(
            f"{name}: error {low:.3f} to {high:.3f}, at most {TARGETS['error']} in {found['met']['error']:.0%} of the "
            f"halves; EM of the surer half at least {TARGETS['gain']} points higher in {found['met']['gain']:.0%}"
        )
        for row in found["places"]:
            print(f"  answer {row['place']}: {row['confidence']:.3f} sure, {row['right']:.3f} right")
    line = {
        "benchmark": "calibration", "unit": "expected calibration error, 10 bins of equal mass",
        "questions": len(examples), "targets": TARGETS, "results": results, "device": cpu(), "versions": own_versions(),
    }  # fmt: skip
    line = rounded(line)
    args.output.write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(line))


if __name__ == "__main__":
    console.run(main)
