"""Do confidences mean what they say? Fitted on one half of the articles of real dev questions, measured on the other.

    python tools/export_onnx.py --sample              # once
    python benchmarks/quality/calibration.py

models/sample answers all questions in each precision of ONNX Runtime; SPLITS times the articles are split in halves.
Measured are the calibration error (10 bins of equal mass) as the model has its confidences, with a temperature alone,
and with temperature and references, as evaluate.py --fit_temperature fits them; for comparison, where these are fitted
on the measured half itself, and by chance; how much higher the EM of the surer half of the questions is; and of the
PLACES best answers how sure they are and how often right. Writes calibration.json. Takes 8 minutes on 2 CPU cores.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness

from extractive_qa.metrics import exact_match_score
from extractive_qa.postprocessing.calibration import (
    TEMPERATURES,
    any_reference_probability,
    calibration_error,
    fit_and_report,
    split_in_halves,
)
from extractive_qa.reader import Reader
from utils.console import progress
from utils.offline import SAMPLE_MODEL_DIR

SPLITS = 20
PLACES = 5
TARGETS = {"error": 0.035, "gain": 10}
COLUMNS = ("error_uncalibrated", "error_temperature", "error", "error_fitted_on_itself", "error_by_chance", "gain")


def answer(reader: Reader, examples: list[dict]) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """The best answers' probabilities, float (TEMPERATURES, Q), which are exact matches, bool (Q,), and a row for each
    place that an answer can have among the PLACES best."""
    probability, (given, right) = [], np.zeros((2, len(examples), PLACES))
    answers = progress(reader.answer_all(examples, PLACES, TEMPERATURES), desc="answering", total=len(examples))
    for number, (example, found) in enumerate(zip(examples, answers, strict=True)):
        probability.append(found[0]["probabilities"])
        given[number, : len(found)] = [some["probability"] for some in found]
        right[number, : len(found)] = [exact_match_score(some["text"], example["answers"]["text"]) for some in found]
    places = []
    for place, (confidence, correct) in enumerate(zip(given.T, right.T, strict=True), 1):
        shares = {"confidence": confidence.mean().item(), "right": correct.mean().item()}
        places.append({"place": place, **shares, "error": calibration_error(confidence, correct > 0)})
    return np.array(probability).T, right[:, 0] > 0, places


def measure(probability: np.ndarray, correct: np.ndarray, fitted_on: np.ndarray, random: np.random.Generator) -> dict:
    """One row: fitted on one half of the questions, measured on the other. fitted_on: bool (Q,)."""
    measured_on = ~fitted_on
    report = fit_and_report(probability, correct, fitted_on, measured_on)
    alone = fit_and_report(probability, correct, fitted_on, measured_on, references=np.ones(1))
    on_itself = fit_and_report(probability, correct, measured_on, measured_on)
    given = probability[np.searchsorted(TEMPERATURES, report["temperature"])]
    confidence, right = any_reference_probability(given, report["references"])[measured_on], correct[measured_on]
    surer = np.argsort(-confidence, kind="stable")[: len(right) // 2]
    exact_match, of_surer = 100 * right.mean(), 100 * right[surer].mean()
    return {name: report[name] for name in ("temperature", "references", "error_uncalibrated", "error")} | {
        "error_temperature": alone["error"], "error_fitted_on_itself": on_itself["error"],
        "error_by_chance": calibration_error(confidence, random.random(len(right)) < confidence),
        "exact_match": exact_match, "exact_match_surer_half": of_surer, "gain": of_surer - exact_match,
    }  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    args = harness.parse_args(
        __doc__, argv, eval_file=harness.DEV_FILE, max_samples=4_961, model_dir=SAMPLE_MODEL_DIR
    )  # fmt: skip
    examples = harness.read_questions(args.eval_file, most=args.max_samples, titles=True)
    splits = [split_in_halves(examples, seed) for seed in range(SPLITS)]
    halves = [half for split in splits for half in (split, ~split)]
    results = {}
    for name, precision in (("fp32", "no"), ("int8", "int8")):
        probability, correct, places = answer(Reader(args.model_dir, "cpu", precision, backend="onnx"), examples)
        random = np.random.default_rng(0)
        rows = [measure(probability, correct, half, random) for half in halves]
        column = {name: np.array([row[name] for row in rows]) for name in COLUMNS}
        met = {"error": column["error"] <= TARGETS["error"], "gain": column["gain"] >= TARGETS["gain"]}
        results[name] = {name: values.mean().item() for name, values in column.items()} | {
            **{f"{target}_range": [column[target].min().item(), column[target].max().item()] for target in TARGETS},
            "met": {target: reached.mean().item() for target, reached in met.items()},
            "places": places,
            "splits": rows,
        }
    print(f"{len(examples):,} questions, {SPLITS} splits, each half once: means")
    harness.print_table(["", *results], [[name, *(f"{r[name]:.4g}" for r in results.values())] for name in COLUMNS])
    for name, found in results.items():
        for target, limit in TARGETS.items():
            low, high = found[f"{target}_range"]
            met = found["met"][target]
            print(f"{name}: {target} {low:.3f} to {high:.3f}, target {limit} met in {met:.0%} of the halves")
        harness.print_table(list(found["places"][0]), [list(harness.rounded(p).values()) for p in found["places"]])
    harness.save(
        args, "calibration", unit="expected calibration error, 10 bins of equal mass", questions=len(examples),
        targets=TARGETS, results=results,
    )  # fmt: skip


if __name__ == "__main__":
    harness.start(main)
