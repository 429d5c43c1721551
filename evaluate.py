"""Scores a trained model by exact match (EM) and F1 as SQuAD v1.1 defines them, offline.

    python evaluate.py                                # output/final_model, SQuAD's questions
    python evaluate.py --max_samples 100 --show_examples
    python evaluate.py --sample                       # sample model, bundled questions
    python evaluate.py --predictions FILE             # {id: text}; no model is loaded
    python evaluate.py --report                       # a page that shows where it fails
    python evaluate.py --compare DIR                  # beside the run of another --output_dir
    python evaluate.py --calibrate                    # confidences of a model from elsewhere
    torchrun --nproc_per_node 2 evaluate.py           # two GPUs share the questions

Reads --model_dir and --eval_file. Writes predictions.json (the official format), nbest_predictions.json and
metrics.json to --output_dir; --report adds report.html, and its pictures in report/. How well confidences fit is the
expected calibration error: 0.05 means that of the answers given with 70 %, some 65 or 75 % are right.
"""

from utils.console import exit_quietly_on_interrupt
from utils.offline import OUTPUT_DIR, SAMPLE_FILES, SQUAD_DIR, go_offline, sample_model

go_offline()  # before any import: the libraries read the switches when they are imported
exit_quietly_on_interrupt()  # the imports take a moment, and Ctrl-C shall show no traceback meanwhile

import argparse
import time
from pathlib import Path

import numpy as np

# none of these imports torch, transformers, datasets or matplotlib: --help and mistakes are answered at once
from extractive_qa import processes
from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.files.atomic import make_folder, write_json, writing
from extractive_qa.files.manifest import NAME, check_manifest
from extractive_qa.files.reading import require
from extractive_qa.metrics import COUNTS_CHARACTERS, F1_UNITS, choose_f1_unit, compute_metrics, exact_matches
from extractive_qa.model.backends import BACKENDS, PRECISIONS
from extractive_qa.model.folder import ONNX_MANIFEST, require_folder
from extractive_qa.postprocessing.calibration import report_calibration, split_in_halves
from extractive_qa.reader import Reader, count_windows
from extractive_qa.report.outcomes import Outcomes, collect_outcomes
from extractive_qa.report.predictions import NBEST, PREDICTIONS, nbest_file, read_answers, read_predictions, read_run
from extractive_qa.report.statistics import compare
from extractive_qa.report.terminal import comparison_table, describe_scores, show_example
from extractive_qa.settings import DEFAULT_SETTINGS, SETTINGS_FILE, may_find_none, save_settings
from extractive_qa.text import as_argument, shown
from extractive_qa.training.checkpoints import MARKER
from extractive_qa.training.log import find_log
from utils import console

FEW_QUESTIONS = 100  # fewer don't tell much about confidences
OTHER_PLACE = "Use another --output_dir."


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = console.make_parser(__doc__, "python evaluate.py [options]")
    add = parser.add_argument_group("what is scored").add_argument
    add("--model_dir", type=Path, default=OUTPUT_DIR / "final_model", help="folder that train.py wrote")
    add("--eval_file", type=Path, default=SQUAD_DIR, help="questions: JSON, JSON Lines, CSV, Parquet, saved dataset")
    add("--output_dir", type=Path, default=OUTPUT_DIR, help="where the files are written")
    add("--predictions", type=Path, default=None, help="score this file, {id: text}, and no model (default: none)")
    add("--sample", action="store_true", help="the bundled questions, and output/sample or the bundled model")
    add("--max_samples", type=int, default=None, help="score only the first so many questions (default: all)")
    units = "what EM and F1 count; auto: characters in Chinese, Japanese, Thai and their like, else words"
    add("--f1_unit", choices=F1_UNITS, default="auto", help=units)
    add("--show_examples", type=int, nargs="?", const=5, default=0, metavar="N", help="show N (or 5) of the questions")
    add("--report", action="store_true", help="write report.html: where the model fails, and how sure that is")
    add("--compare", type=Path, metavar="DIR", help="another run's --output_dir: chance or not? (default: none)")
    add(
        "--calibrate", action="store_true",
        help="fit the confidences on one half of the texts (or articles, where they have titles), measure them on the "
        "other, and save the fit in the model's reader.json; for models from elsewhere, train.py does it by itself",
    )  # fmt: skip
    add("--n_best_size", type=int, default=20, help="answers a question in nbest_predictions.json, at most")

    add = parser.add_argument_group("how it runs").add_argument
    add("--batch_size", type=int, default=None, help="windows at once (default: 4 on a CPU, 32 on a GPU)")
    add("--backend", choices=BACKENDS, default="auto", help="auto: ONNX Runtime on a CPU where exported, else PyTorch")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--mixed_precision", choices=PRECISIONS, default="auto", help="auto: int8 where exported, bf16 where fast")
    add("--handle_impossible_answer", action="store_true", help='SQuAD 2: "" may be right; else as the model says')
    console.add_file_flags(add)
    add("--verify_files", action="store_true", help="compare the sha256 of what was downloaded first, not only sizes")
    add("--quiet", action="store_true", help="only results, warnings and errors")
    args = parser.parse_args(argv)
    console.be_quiet(args.quiet)  # from here on, what is no result is said only to those who want it
    if args.sample:
        # as defaults, so that flags which were given win
        parser.set_defaults(model_dir=sample_model(), eval_file=SAMPLE_FILES["dev"], output_dir=OUTPUT_DIR / "sample")
        args = parser.parse_args(argv)
    # all problems at once: nobody fixes one to hear of the next
    problems = [
        f"--{name} is {getattr(args, name)}, expected at least 1"
        for name in ("max_samples", "n_best_size", "batch_size")
        if getattr(args, name) is not None and getattr(args, name) < 1
    ]
    if args.show_examples < 0:
        problems.append(f"--show_examples is {args.show_examples}, expected 0 or more")
    if args.calibrate and args.predictions:
        problems.append("--calibrate needs a model's confidences, --predictions has none")
    if args.compare and not args.predictions and args.compare.resolve() == args.output_dir.resolve():
        problems.append("--compare is --output_dir itself, which this run writes to: give another --output_dir")
    if problems:
        raise QAError("; ".join(problems) + ". See: python evaluate.py --help")
    return args


def check_inputs(args: argparse.Namespace) -> None:
    """Refuses what is missing or damaged before anything slow is imported or read. Raises QAError."""
    try_sample = "(or try: python evaluate.py --sample)"
    require(args.eval_file, "a file or folder with questions", f"Run: python download_data.py {try_sample}")
    # files of a download have a list of sizes and checksums; a user's own have none, and pass
    if args.eval_file.is_dir():
        check_manifest(args.eval_file, full=args.verify_files)  # sizes take milliseconds, checksums seconds
    if args.predictions:
        require(args.predictions, "a JSON file {id: text}", "python evaluate.py writes one to output/predictions.json.")
    else:
        require_folder(args.model_dir, f"Run: python train.py {try_sample}")
        check_manifest(args.model_dir, full=args.verify_files)
    if args.compare:
        require(args.compare / PREDICTIONS, "the predictions of another run", "--compare takes its --output_dir.")


def predict(examples: list[dict], args: argparse.Namespace) -> tuple[dict[str, str], dict, dict]:
    """Answers Q questions with the model and writes predictions.json and nbest_predictions.json; where it fails,
    earlier files stay as they were.

    Returns {id: text}; the settings it was done with; and how well confidences fit, as report_calibration has it.
    """
    # bool (Q,): fitted on these, measured on the others; no text is on both sides, or the error would look too small
    fitted_on = split_in_halves(examples) if args.calibrate else None
    reader = Reader(
        args.model_dir, args.device, args.mixed_precision, args.batch_size, args.backend,
        handle_impossible_answer=args.handle_impossible_answer or None,  # None: as the model was trained
    )  # fmt: skip
    # what "auto" has come to: seconds and scores mean little without it
    device, precision = reader.backend.describe(), reader.backend.precision
    console.say(f"model: {shown(args.model_dir)}\ndevice: {device}, mixed precision: {precision}")

    fitted = {}
    if args.calibrate and processes.rank() == 0:
        from extractive_qa.training.situations import MOST_QUESTIONS, calibrate  # BM25, which nothing else here needs

        halves = ([e for e, first in zip(examples, fitted_on, strict=True) if first == half] for half in (True, False))
        fitted = dict(zip(("calibrator", "situations"), calibrate(reader, *halves, console.progress), strict=True))
        fitted["fitted_on"] = min(int(fitted_on.sum()), MOST_QUESTIONS)
    reader.settings = processes.from_first(reader.settings)  # of several processes one fits the confidences
    began = time.monotonic()  # the model is loaded: only answering is measured
    bar = console.progress(desc="answering", total=len(examples), unit=" questions", leave=False)
    if processes.rank() != 0:  # the first one takes what the others answer, and writes it
        processes.predict_together(reader, examples, args.n_best_size, lambda *_: None)
        return {}, {}, {}
    with writing(args.output_dir, OTHER_PLACE):
        make_folder(args.output_dir)
        # the n best answers go to disk at once: memory holds one answer a question, not 20
        with nbest_file(args.output_dir / NBEST) as write, bar:
            # float (Q,): of the best answers
            predictions, probabilities = processes.predict_together(reader, examples, args.n_best_size, write, bar)
        write_json(args.output_dir / PREDICTIONS, predictions)

    seconds, peak = time.monotonic() - began, reader.backend.peak_memory() / 2**20  # s, MB
    speed = f"{len(examples):,} questions in {seconds:.1f} s ({len(examples) / seconds:.1f}/s)"
    console.say(f"{speed}, peak memory {peak:,.0f} MB")
    # windows in tokens, and what a confidence was computed with: metrics.json says how its scores came about
    settings = {name: reader.settings[name] for name in DEFAULT_SETTINGS}
    settings |= {"model_dir": str(args.model_dir), "device": device, "mixed_precision": precision}
    correct = np.array(exact_matches(predictions, examples, args.f1_unit))  # bool (Q,)
    return predictions, settings, report_calibration(probabilities, correct) | fitted


def save_calibrator(model_dir: Path, calibration: dict) -> None:
    """Has every later answer of the model use the calibrator that was fitted."""
    from extractive_qa.training.situations import describe, fitted_settings

    # files of a download, of a training and of an export are listed with their checksums, reader.json too
    save_settings(model_dir, fitted_settings(calibration["calibrator"]), manifests=(NAME, MARKER, ONNX_MANIFEST))
    if calibration["fitted_on"] < FEW_QUESTIONS:
        console.warn(f"what is fitted on {calibration['fitted_on']} questions is a rough guess")
    print(f"wrote a calibrator to {shown(model_dir / SETTINGS_FILE)}. On questions about other texts:")
    print(describe(calibration["situations"]))


def compare_and_report(
    args: argparse.Namespace, examples: list[dict], predictions: dict[str, str], settings: dict, other: Outcomes | None
) -> None:
    """Compares with the other run and writes the report, as asked for."""
    from extractive_qa.report.write import write_report  # matplotlib and jinja2, which nothing else here needs

    # where in the context an answer is, and how sure, is in the file beside the predictions; if not, it is looked for
    answers = read_answers(args.predictions or args.output_dir / PREDICTIONS, predictions, examples)
    # int (Q,): windows that a context was cut into; not known of predictions from elsewhere
    windows = None if args.predictions else count_windows(args.model_dir, examples)
    outcomes = collect_outcomes(examples, predictions, answers, windows, args.f1_unit)
    comparison = compare(outcomes, other) if other else None
    if comparison:  # a result: --quiet lets it through
        print("\n" + comparison_table(comparison, shown(args.compare)))
    if args.report:
        about = {"model": shown(args.predictions or args.model_dir), "questions": shown(args.eval_file)}
        if other:
            about["compared with"] = shown(args.compare)
        if settings:
            about |= {"device": settings["device"], "mixed precision": settings["mixed_precision"]}
        log = find_log(args.model_dir) if settings else []  # of the training, for its curves
        with writing(args.output_dir, OTHER_PLACE):
            write_report(args.output_dir, outcomes, log, about, comparison, other)
        console.say(f"\nwrote report.html, and its pictures in report/, to {shown(args.output_dir)}")


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    check_inputs(args)
    console.note("reading questions ...")
    # SQuAD 2's questions without an answer count as damaged for a model that always gives one
    unanswerable = args.handle_impossible_answer or (not args.predictions and may_find_none(args.model_dir))
    options = console.file_options(args)
    examples = read_examples(args.eval_file, "validation", impossible=unanswerable, titles=True, **options)
    examples = examples[: args.max_samples]  # the file is checked to its end all the same
    asked, args.f1_unit = args.f1_unit, choose_f1_unit(examples, args.f1_unit)
    # the other run comes first: nobody waits for a model to hear that the folder holds other questions
    other = read_run(args.compare, examples, args.f1_unit) if args.compare else None

    if args.predictions:
        predictions, settings, calibration = read_predictions(args.predictions, examples), {}, None
    else:
        with processes.Watch(console.fail, lambda: "Then run evaluate.py again."):
            processes.start_group()
            predictions, settings, calibration = predict(examples, args)
    if processes.rank() != 0:
        return
    # percent; a question without prediction counts as wrong
    metrics = compute_metrics(predictions, examples, args.f1_unit)
    for example in examples[: args.show_examples]:
        text = show_example(example, predictions.get(example["id"], ""), console.paint, args.f1_unit)
        print("", *map(console.fit, text.split("\n")), sep="\n")

    if calibration:  # a model was asked
        content = {**metrics, "f1_unit": args.f1_unit, "eval_file": str(args.eval_file), "settings": settings}
        content["calibration"] = calibration
        with writing(args.output_dir, OTHER_PLACE):
            write_json(args.output_dir / "metrics.json", content)
        console.say(f"\nwrote {PREDICTIONS}, {NBEST} and metrics.json to {shown(args.output_dir)}")
    if args.report or args.compare:
        compare_and_report(args, examples, predictions, settings, other)
    if args.calibrate:
        save_calibrator(args.model_dir, calibration)  # changes the model's folder: only when all else has succeeded
    if asked == "auto" and args.f1_unit == "character":
        print(f"{COUNTS_CHARACTERS} (--f1_unit word: words)")
    print(describe_scores(metrics, calibration))  # the result comes last, and --quiet lets it through
    if not args.predictions:
        model = f" --model_dir {as_argument(args.model_dir)}" if args.model_dir != OUTPUT_DIR / "final_model" else ""
        console.note(f"Next: python predict.py{' --sample' if args.model_dir == sample_model() else model}")


if __name__ == "__main__":
    console.run(main)
