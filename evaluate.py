"""Scores a trained model by exact match (EM) and F1 as SQuAD v1.1 defines them, offline.

    python evaluate.py                                # output/final_model, SQuAD's questions
    python evaluate.py --max_samples 100 --show_examples
    python evaluate.py --sample                       # sample model, bundled questions
    python evaluate.py --predictions FILE             # {id: text}; no model is loaded
    python evaluate.py --report                       # a page that shows where it fails
    python evaluate.py --compare DIR                  # beside the run of another --output_dir
    python evaluate.py --fit_temperature              # confidences of a model from elsewhere

Reads --model_dir and --eval_file. Writes predictions.json (the official format), nbest_predictions.json and
metrics.json to --output_dir; --report adds report.html, and its pictures in report/. How well confidences fit is the
expected calibration error: 0.05 means that of the answers given with 70 %, some 65 or 75 % are right.
"""

from utils.console import exit_quietly_on_interrupt
from utils.offline import OUTPUT_DIR, SAMPLE_DATA_DIR, SQUAD_DIR, go_offline, sample_model

go_offline()
exit_quietly_on_interrupt()

import argparse
import json
import time
from pathlib import Path

import numpy as np

from utils import console
from utils.analysis import compare
from utils.backends import BACKENDS, ONNX_MANIFEST, PRECISIONS
from utils.calibration import (
    TEMPERATURES,
    describe_calibration,
    fit_and_report,
    report_calibration,
    split_in_halves,
)
from utils.checkpoints import MARKER
from utils.console import UserError, paint, printable
from utils.files import read_json, write_whole
from utils.manifest import NAME, check_manifest, unlisted
from utils.metrics import compute_metrics, exact_match_score, exact_matches, f1_score
from utils.offline import require
from utils.outcomes import Outcomes, judge, read_answers
from utils.reader import count_windows
from utils.squad import read_examples, replace_surrogates
from utils.training_log import find_log

NO_ANSWER = "(no answer)"
CONTEXT_SHOWN = 80  # characters on each side of an answer
FEW_QUESTIONS = 100  # fewer don't tell much about a temperature


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=console.HelpFormatter, usage="python evaluate.py [options]",
        epilog=console.EXIT_CODES,
    )  # fmt: skip
    add = parser.add_argument_group("what is scored").add_argument
    add("--model_dir", type=Path, default=OUTPUT_DIR / "final_model", help="folder that train.py wrote")
    add("--eval_file", type=Path, default=SQUAD_DIR, help="questions: JSON, JSON Lines, CSV, Parquet, saved dataset")
    add("--output_dir", type=Path, default=OUTPUT_DIR, help="where the files are written")
    add("--predictions", type=Path, default=None, help="score this file, {id: text}, and no model (default: none)")
    add("--sample", action="store_true", help="the bundled questions, and output/sample or the bundled model")
    add("--max_samples", type=int, default=None, help="score only the first so many questions (default: all)")
    add("--show_examples", type=int, nargs="?", const=5, default=0, metavar="N", help="show N (or 5) of the questions")
    add("--report", action="store_true", help="write report.html: where the model fails, and how sure that is")
    add("--compare", type=Path, metavar="DIR", help="another run's --output_dir: chance or not? (default: none)")
    add(
        "--fit_temperature", action="store_true",
        help="fit the model's confidences on one half of the texts (or articles, where they have titles), report the "
        "calibration error on the other, and save temperature and references in the model's reader.json; for models "
        "from elsewhere, train.py does it by itself",
    )  # fmt: skip
    add("--n_best_size", type=int, default=20, help="answers a question in nbest_predictions.json, at most")

    add = parser.add_argument_group("how it runs").add_argument
    add("--batch_size", type=int, default=None, help="windows at once (default: 16 on a CPU, 32 on a GPU)")
    add("--backend", choices=BACKENDS, default="auto", help="auto: ONNX Runtime on a CPU where exported, else PyTorch")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--mixed_precision", choices=PRECISIONS, default="auto", help="auto: int8 where exported, bf16 where fast")
    add(
        "--handle_impossible_answer", action="store_true",
        help='SQuAD 2: questions may have no answer, and "" be given; else as the model was trained',
    )  # fmt: skip
    add("--skip_bad_examples", action="store_true", help="leave invalid records out instead of refusing the file")
    add("--verify_files", action="store_true", help="compare the sha256 of what was downloaded first, not only sizes")
    add("--quiet", action="store_true", help="only results, warnings and errors")
    args = parser.parse_args(argv)
    console.be_quiet(args.quiet)
    if args.sample:
        parser.set_defaults(
            model_dir=sample_model(),
            eval_file=SAMPLE_DATA_DIR / "dev.json",
            output_dir=OUTPUT_DIR / "sample",
        )
        args = parser.parse_args(argv)
    problems = [
        f"--{name} is {getattr(args, name)}, expected at least 1"
        for name in ("max_samples", "n_best_size", "batch_size")
        if getattr(args, name) is not None and getattr(args, name) < 1
    ]
    if args.show_examples < 0:
        problems.append(f"--show_examples is {args.show_examples}, expected 0 or more")
    if args.fit_temperature and args.predictions:
        problems.append("--fit_temperature needs a model's confidences, --predictions has none")
    if args.compare and not args.predictions and args.compare.resolve() == args.output_dir.resolve():
        problems.append("--compare is --output_dir itself, which this run writes to: give another --output_dir")
    if problems:
        raise UserError("; ".join(problems) + ". See: python evaluate.py --help")
    return args


def read_predictions(path: Path, examples: list[dict], complete: bool = False) -> dict[str, str]:
    """The predictions of a file in the official format. Questions that have none are counted in a warning, or refused
    where the file must be `complete`."""
    require(path, "a JSON file {id: text}", "python evaluate.py writes one to output/predictions.json.")
    predictions = read_json(path, "a JSON object {id: text}")
    if not isinstance(predictions, dict):
        raise UserError(f"{path} is not of the official format. Expected one JSON object {{id: text}}.")
    for identifier, text in predictions.items():
        if not isinstance(text, str):
            raise UserError(
                f"{path} is not of the official format: the prediction for {printable(identifier, 80)!r} is no text, "
                f"but {text!r:.40}. Expected one JSON object {{id: text}}."
            )
    # as the questions were read
    predictions = {replace_surrogates(identifier): replace_surrogates(text) for identifier, text in predictions.items()}
    missing = [example["id"] for example in examples if example["id"] not in predictions]
    if len(missing) == len(examples):
        found = f"its first id is {next(iter(predictions), 'missing')!r:.80}"
        raise UserError(
            f"{path} answers none of the questions scored: {found}. Expected ids of --eval_file, like "
            f"{examples[0]['id']!r:.80}. Name the file with the same questions: --eval_file"
        )
    if missing and complete:
        raise UserError(
            f"{path} lacks {len(missing)} of the {len(examples)} questions scored, the first is "
            f"{printable(missing[0], 80)!r}. Expected a run on the same questions (--eval_file, --max_samples)."
        )
    if missing:
        console.warn(f"{len(missing)} of {len(examples)} questions have no prediction and count as wrong")
    return predictions


def predict(
    examples: list[dict], args: argparse.Namespace, temperatures: np.ndarray
) -> tuple[dict[str, str], np.ndarray, dict]:
    """Answers all examples and writes nbest_predictions.json on the way: memory holds only the best answers' texts and
    probabilities.

    Returns {id: text}; float (1 + T, Q), the best answers' probabilities as the model has them and at each of T
    `temperatures`; and how it was done, for metrics.json. Where it fails, earlier files stay as they were.
    """
    from utils.reader import DEFAULT_SETTINGS, Reader

    reader = Reader(
        args.model_dir, args.device, args.mixed_precision, args.batch_size, args.backend,
        handle_impossible_answer=args.handle_impossible_answer or None,
    )  # fmt: skip
    args.output_dir.mkdir(parents=True, exist_ok=True)
    console.say(f"model: {console.shown(args.model_dir)}")
    console.say(f"device: {reader.backend.describe()}, mixed precision: {reader.backend.precision}")
    predictions: dict[str, str] = {}
    probabilities = np.zeros((1 + len(temperatures), len(examples)))
    began = time.monotonic()
    partial = args.output_dir / "nbest_predictions.json.partial"
    try:
        with partial.open("w", encoding="utf-8") as nbest:
            answers = reader.answer_all(examples, args.n_best_size, temperatures)
            answers = console.progress(answers, desc="answering", total=len(examples), unit=" questions")
            for number, (example, best) in enumerate(zip(examples, answers, strict=True)):
                probabilities[:, number] = best[0]["probability"], *best[0].pop("probabilities")
                predictions[example["id"]] = best[0]["text"]
                nbest.write(
                    ("{\n" if len(predictions) == 1 else ",\n") + f"{json.dumps(example['id'])}: {json.dumps(best)}"
                )
            nbest.write("\n}\n")
        partial.replace(args.output_dir / "nbest_predictions.json")
    finally:
        partial.unlink(missing_ok=True)
    seconds = time.monotonic() - began
    peak = reader.backend.peak_memory() / 2**20
    console.say(
        f"{len(examples):,} questions in {seconds:.1f} s ({len(examples) / seconds:.1f}/s), peak memory {peak:,.0f} MB"
    )
    settings = {name: reader.settings[name] for name in DEFAULT_SETTINGS}
    settings |= {
        "model_dir": str(args.model_dir),
        "device": reader.backend.describe(),
        "mixed_precision": reader.backend.precision,
    }
    return predictions, probabilities, settings


def halves(examples: list[dict]) -> np.ndarray:
    """As split_in_halves. Raises UserError where there is only one text."""
    try:
        return split_in_halves(examples)
    except ValueError as error:
        raise UserError(f"--fit_temperature: {error}. Expected questions on several texts.") from None


def save_fitted(model_dir: Path, calibration: dict) -> None:
    """Sets what was fitted in the model's reader.json, which is made where it is missing, and keeps the lists of
    checksums right in which it stands. Raises UserError where it can't be written: then the old one stays."""
    from utils.reader import DEFAULT_SETTINGS, SETTINGS_FILE, read_settings

    path = model_dir / SETTINGS_FILE
    fitted = {name: calibration[name] for name in ("temperature", "references")}
    try:
        with unlisted(path, (NAME, MARKER, ONNX_MANIFEST)):
            write_json(path, DEFAULT_SETTINGS | read_settings(model_dir) | fitted)
    except OSError as error:
        raise UserError(
            f"{path} can't be written: {error.strerror}. Expected a model folder of your own. To set by hand what was "
            f"fitted: {json.dumps(fitted)} in that file."
        ) from None
    if calibration["fitted_on"] < FEW_QUESTIONS:
        console.warn(f"what is fitted on {calibration['fitted_on']} questions is a rough guess")
    print(
        f"wrote {fitted} to {console.shown(path)}, fitted on {calibration['fitted_on']:,} questions and measured on "
        f"the {calibration['measured_on']:,} on other texts; nbest_predictions.json has the confidences from before"
    )


def show_example(example: dict, prediction: str) -> str:
    """Question, the context around the first gold answer, prediction and gold, in words and colours."""
    context, gold = example["context"], example["answers"]["text"]
    start = example["answers"]["answer_start"][0] if gold else 0
    end = start + len(gold[0]) if gold else 0
    left, right = max(0, start - CONTEXT_SHOWN), min(len(context), end + CONTEXT_SHOWN)
    around = (
        ("..." if left else "") + printable(context[left:start]) + paint(printable(context[start:end]), "bold")
        + printable(context[end:right]) + ("..." if right < len(context) else "")
    )  # fmt: skip
    context_line = console.fit(f"context:    {' '.join(around.split())}")
    em, f1 = exact_match_score(prediction, gold), f1_score(prediction, gold)
    verdict, colour = ("right", "green") if em else ("partly right", "yellow") if f1 else ("wrong", "red")
    return (
        f"\nquestion:   {paint(printable(example['question'].strip()), 'bold')}\n"
        f"{context_line}\n"
        f"prediction: {paint(printable(prediction) or NO_ANSWER, colour)}\n"
        f"gold:       {printable(' | '.join(dict.fromkeys(gold))) or NO_ANSWER}\n"
        f"verdict:    {paint(verdict, colour)} (F1 {100 * f1:.0f})"
    )


def review(
    args: argparse.Namespace, examples: list[dict], predictions: dict[str, str], settings: dict, other: Outcomes | None
) -> None:
    """Compares with the other run and writes the report, as asked for."""
    from utils.report import comparison_table, write_report

    path = args.predictions or args.output_dir / "predictions.json"
    windows = None if args.predictions else count_windows(args.model_dir, examples)
    outcomes = judge(examples, predictions, read_answers(path, predictions, examples), windows)
    comparison = compare(outcomes, other) if other else None
    if comparison:
        print("\n" + comparison_table(comparison, console.shown(args.compare)))
    if args.report:
        about = {"model": console.shown(args.predictions or args.model_dir), "questions": console.shown(args.eval_file)}
        if other:
            about["compared with"] = console.shown(args.compare)
        if not args.predictions:
            about |= {"device": settings["device"], "mixed precision": settings["mixed_precision"]}
        log = [] if args.predictions else find_log(args.model_dir)
        try:
            write_report(args.output_dir, outcomes, log, about, comparison, other)
        except OSError as error:
            raise cannot_write(args.output_dir, error) from None
        console.say(f"\nwrote report.html, and its pictures in report/, to {console.shown(args.output_dir)}")


def cannot_write(output_dir: Path, error: OSError) -> UserError:
    return UserError(f"{output_dir} can't be written: {error.strerror}. Use another --output_dir.")


def write_json(path: Path, content: dict) -> None:
    """Writes the file whole or not at all. Raises OSError."""
    write_whole(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    download = "Run: python download_data.py (or try: python evaluate.py --sample)"
    if require(args.eval_file, "a file or folder with questions", download).is_dir():
        check_manifest(args.eval_file, full=args.verify_files)
    if args.predictions is None:
        require(args.model_dir, "a trained model", "Run: python train.py (or try: python evaluate.py --sample)")
        check_manifest(args.model_dir, full=args.verify_files)
    impossible = args.handle_impossible_answer
    if args.predictions is None and not impossible:
        from utils.reader import read_settings

        impossible = read_settings(args.model_dir).get("handle_impossible_answer") is True
    console.note("reading questions ...")
    examples = read_examples(args.eval_file, "validation", args.skip_bad_examples, impossible, titles=True)
    examples = examples[: args.max_samples]

    other = None
    if args.compare:  # read first: nobody waits for a model to hear that the folder is another
        path = require(
            args.compare / "predictions.json", "the predictions of another run", "--compare takes its --output_dir."
        )
        theirs = read_predictions(path, examples, complete=True)
        other = judge(examples, theirs, read_answers(path, theirs, examples))

    if args.predictions:
        predictions, settings = read_predictions(args.predictions, examples), {}
    else:
        first_half = halves(examples) if args.fit_temperature else None
        temperatures = TEMPERATURES if args.fit_temperature else np.ones(1)
        try:
            predictions, probabilities, settings = predict(examples, args, temperatures)
            write_json(args.output_dir / "predictions.json", predictions)
        except OSError as error:
            raise cannot_write(args.output_dir, error) from None

    metrics = compute_metrics(predictions, examples)
    for example in examples[: args.show_examples]:
        print(show_example(example, predictions.get(example["id"], "")))
    if args.predictions is None:
        correct = np.array(exact_matches(predictions, examples))
        if args.fit_temperature:
            calibration = fit_and_report(probabilities[1:], correct, first_half, ~first_half)
        else:
            calibration = report_calibration(*probabilities, correct, settings)
        report = {**metrics, "eval_file": str(args.eval_file), "settings": settings, "calibration": calibration}
        try:
            write_json(args.output_dir / "metrics.json", report)
        except OSError as error:
            raise cannot_write(args.output_dir, error) from None
        console.say(
            f"\nwrote predictions.json, nbest_predictions.json and metrics.json to {console.shown(args.output_dir)}"
        )
    if args.report or args.compare:
        review(args, examples, predictions, settings, other)
    if args.predictions is None:
        if args.fit_temperature:
            save_fitted(args.model_dir, calibration)
        print(describe_calibration(calibration))
    for name, title in (("HasAns", "with an answer"), ("NoAns", "without")):
        if f"{name}_total" in metrics:
            em, f1, total = (metrics[f"{name}_{kind}"] for kind in ("exact", "f1", "total"))
            print(f"EM {em:.2f}  F1 {f1:.2f}  on {total:,} questions {title}")
    print(f"EM {metrics['exact_match']:.2f}  F1 {metrics['f1']:.2f}  on {metrics['total']:,} questions")


if __name__ == "__main__":
    console.run(main)
