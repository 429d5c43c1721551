"""The settings of a training: what each may be, and the files that they name; which of them are saved, and which may
differ when it is resumed.

Imports no torch: train.py checks its flags before it does.
"""

import argparse
import math
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from extractive_qa.data.formats import check_path
from extractive_qa.errors import QAError
from extractive_qa.files.manifest import check_manifest
from extractive_qa.files.reading import require
from extractive_qa.model.folder import require_model
from extractive_qa.model.layers import choose_layers
from extractive_qa.preprocessing.windows import check_window_settings
from extractive_qa.training import checkpoints

# what to run where something is missing
DOWNLOAD = "Run: python download_data.py (or try: python train.py --sample)"
DOWNLOAD_TEACHER = "Run: python download_data.py --teacher, or give a folder that train.py wrote (output/final_model)"

# what the reader needs to know
READER_SETTINGS = ("max_length", "doc_stride", "max_answer_length", "handle_impossible_answer")
# what may differ when a run is resumed: it does not change what is learned, but for the precision, which is said
FREE_ON_RESUME = {
    "resume", "overwrite_output_dir", "output_dir", "device", "mixed_precision", "logging_steps", "save_steps",
    "save_total_limit", "per_device_train_batch_size", "gradient_accumulation_steps", "per_device_eval_batch_size",
    "gradient_checkpointing", "max_gpu_memory", "compile", "verify_files", "quiet", "project_dir",
    "eval_on_start",
}  # fmt: skip
PATHS = {"model_dir", "teacher_dir", "train_file", "eval_file"}  # may differ too, what they hold may not
COUNTS = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "max_answer_length",
    "per_device_eval_batch_size", "logging_steps", "save_steps", "save_total_limit", "max_train_samples",
    "max_eval_samples",
)  # fmt: skip


def number_or_auto(text: str) -> int | str:
    """The value of --per_device_train_batch_size."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor auto") from None


def epochs(text: str) -> float:
    """The value of --num_train_epochs: a whole number where it is one, so that 2.0 is 2."""
    number = float(text)
    return int(number) if number.is_integer() else number


def check_flags(args: argparse.Namespace) -> None:
    """Raises QAError with everything that is wrong with the settings."""
    problems = check_window_settings(args.max_length, args.doc_stride)

    def check(names: Iterable[str], may_be: Callable[[float], bool], expected: str) -> None:
        for name in names:
            value = getattr(args, name)
            if value not in (None, "auto") and not may_be(value):
                problems.append(f"--{name} is {value}, expected {expected}")

    check(COUNTS, lambda value: value >= 1, "at least 1")
    check(["max_steps"], lambda value: value >= 1 or value == -1, "at least 1, or -1 for no limit")
    positive = ("num_train_epochs", "learning_rate", "adam_epsilon", "distillation_temperature", "max_gpu_memory")
    check(positive, lambda value: 0 < value < math.inf, "more than 0")  # NaN is not, either
    check(("weight_decay", "max_grad_norm", "negative_contexts"), lambda value: 0 <= value < math.inf, "0 or more")
    check(("warmup_ratio", "joined_contexts", "distillation_weight"), lambda value: 0 <= value <= 1, "0 to 1")
    check(("attention_dropout", "hidden_dropout"), lambda value: 0 <= value < 1, "0 to less than 1")
    check(["seed"], lambda value: 0 <= value < 2**63, "0 or more")
    if args.resume and args.overwrite_output_dir:
        problems.append("--resume and --overwrite_output_dir exclude each other")
    if problems:
        raise QAError("; ".join(problems) + ". See: python train.py --help")


def as_settings(args: argparse.Namespace, as_text: Callable[[Path], str] = str) -> dict:
    """The resolved flags as values for JSON, to be saved and shown: a path, or each path of a list, as text."""

    def plain(value: object) -> object:
        if isinstance(value, list):
            return [plain(part) for part in value]
        return as_text(value) if isinstance(value, Path) else value

    return {name: plain(value) for name, value in sorted(vars(args).items())}


def inputs(args: argparse.Namespace) -> tuple[Path, ...]:
    """What a training reads."""
    return args.model_dir, *args.teacher_dir, args.train_file, args.eval_file


def follow(saved: dict, args: argparse.Namespace) -> dict:
    """The settings of a run that is resumed, whose paths are those of now: where its --output_dir or the project was
    moved and a file came along, it is the one there."""
    moved = [(Path(saved[n]), vars(args)[n].absolute()) for n in ("output_dir", "project_dir") if n in saved]

    def place(path: str) -> Path:
        for old, new in moved:
            with suppress(ValueError, OSError):  # another drive of Windows, a folder that is closed to us
                there = Path(os.path.normpath(new / os.path.relpath(path, old)))
                if old != new and old.is_absolute() and there.exists():
                    return there
        return Path(path)

    def places(value: str | list[str]) -> Path | list[Path]:
        return [place(path) for path in value] if isinstance(value, list) else place(value)

    return saved | {name: places(saved[name]) for name in PATHS & saved.keys()}


def other_batch(args: argparse.Namespace, processes: int, was: int) -> str:
    """How a step comes to another number of windows than it `was`, and what makes it that again."""
    size, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
    remedy = f"{was} can't be shared by {processes} processes, take a number that divides it"
    if was % processes == 0:
        size_now = math.gcd(size, was // processes)
        remedy = (
            f"with {processes} process(es) give --per_device_train_batch_size {size_now} "
            f"--gradient_accumulation_steps {was // processes // size_now}"
        )
    return (
        f"effective_batch {size * accumulation * processes} (was {was}): --per_device_train_batch_size {size} x "
        f"--gradient_accumulation_steps {accumulation} x {processes} process(es); {remedy}"
    )


def check_files(args: argparse.Namespace) -> None:
    """Raises QAError where a file or folder is missing, damaged, of another kind, or would be overwritten."""
    checkpoints.check_output_dir(args.output_dir, args.resume, args.overwrite_output_dir, inputs(args))
    moved = "Where it is now, say with --model_dir, --teacher_dir, --train_file, --eval_file. " if args.resume else ""
    config = require_model(args.model_dir, moved + DOWNLOAD)
    if args.keep_layers and not args.resume:  # before anything that takes long
        choose_layers(args.keep_layers, config)
    for teacher in args.teacher_dir:
        if not teacher.is_file():  # of answers
            require_model(teacher, moved + DOWNLOAD_TEACHER)
    # what download_data.py wrote has a list of sizes and checksums: a half-finished download is known
    for path in dict.fromkeys(inputs(args)):
        if require(path, "a file or folder with questions", moved + DOWNLOAD).is_dir():
            check_manifest(path, full=args.verify_files)
    for path in (args.train_file, args.eval_file):
        check_path(path)  # its name says its format
