"""Checks a file of questions and shows what a model will see of it, before hours are spent on training.

    python tools/inspect_data.py mine.csv
    python tools/inspect_data.py mine.csv --eval_file mine_dev.csv    # do both hold the same texts?
    python tools/inspect_data.py mine.csv --write_fixed fixed.json    # what is repaired, as SQuAD JSON
    python tools/inspect_data.py mine.csv --show 10 | more

Every problem of every record is reported, then: counts, lengths in tokens, windows, labels that a model can't learn,
and the first examples as windows of tokens with the labelled span marked. Reads the tokenizer of --model_dir, no
weights.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.offline import MODEL_DIR, SAMPLE_MODEL_DIR, go_offline

go_offline()

import numpy as np
from tokenizers import Tokenizer

from extractive_qa.data.examples import read_examples
from extractive_qa.data.nesting import nest
from extractive_qa.errors import QAError
from extractive_qa.files.atomic import explain_write_failure, write_json
from extractive_qa.files.reading import require
from extractive_qa.model.folder import card_languages
from extractive_qa.preprocessing.unknown import describe_unknown
from extractive_qa.preprocessing.windows import (
    Features,
    check_window_settings,
    load_tokenizer,
    longest_question,
    prepare_train_features,
    tokenize,
)
from extractive_qa.text import mostly_without_spaces, printable, shown
from utils import console
from utils.console import note, paint

IDS_SHOWN = 5  # of the questions that a line is about
BAR = 40  # characters of the longest bar
QUESTION_WORDS_SHOWN = 8


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = console.make_parser(__doc__, "python tools/inspect_data.py FILE [options]")
    add = parser.add_argument
    add("file", nargs="?", type=Path, metavar="FILE", help="questions: JSON, JSON Lines, CSV, Parquet, saved dataset")
    add("--train_file", type=Path, default=None, help="the same as FILE (default: none)")
    add("--eval_file", type=Path, default=None, help="a second file, compared with the first (default: none)")
    add("--model_dir", type=Path, default=None, help="its tokenizer (default: models/mobilebert-uncased, else sample)")
    add("--show", type=int, default=2, metavar="N", help="examples to show as windows of tokens")
    console.add_file_flags(add)
    add("--write_fixed", type=Path, metavar="OUT", help="write FILE's records, repaired, as SQuAD JSON (default: not)")
    add("--handle_impossible_answer", action="store_true", help="SQuAD 2: look at questions without an answer too")
    add("--max_length", type=int, default=384, help="tokens in a window, as in train.py")
    add("--doc_stride", type=int, default=128, help="overlap of neighbouring windows in tokens, as in train.py")
    add("--max_answer_length", type=int, default=30, help="tokens in an answer, at most, as in train.py")
    args = parser.parse_args(argv)
    problems = check_window_settings(args.max_length, args.doc_stride)
    if args.file and args.train_file:
        problems.append("FILE and --train_file are the same thing, give one of them")
    args.files = [path for path in (args.file or args.train_file, args.eval_file) if path]
    if not args.files:
        problems.append("no file is named")
    if args.write_fixed and args.write_fixed.exists():
        problems.append(f"--write_fixed {args.write_fixed} is there already, and would be overwritten")
    if args.show < 0:
        problems.append(f"--show is {args.show}, expected 0 or more")
    if args.max_answer_length < 1:
        problems.append(f"--max_answer_length is {args.max_answer_length}, expected at least 1")
    if problems:
        raise QAError("; ".join(problems) + ". See: python tools/inspect_data.py --help")
    args.model_dir = args.model_dir or (MODEL_DIR if MODEL_DIR.exists() else SAMPLE_MODEL_DIR)
    return args


@dataclass
class Inspection:
    """What the windows of Q examples say about each example; arrays are (Q,)."""

    question_lengths: np.ndarray  # tokens, before any cut
    context_lengths: np.ndarray  # tokens
    answered: np.ndarray  # bool: it has an answer
    answer_lengths: np.ndarray  # tokens of the first answer, as labelled in its context where it is; 0 without one
    windows: np.ndarray  # of the example
    cut: np.ndarray  # bool: its question is cut
    unlabelled: np.ndarray  # bool: it has an answer, but no window holds the whole first one
    inexact: np.ndarray  # bool: the labelled tokens are more than the answer's letters
    distinct: np.ndarray  # int: an example of each distinct context


def inspect(examples: Sequence[dict], features: Features, tokenizer: Tokenizer, args: argparse.Namespace) -> Inspection:
    """Reads lengths and labels off the windows that train.py would learn from."""
    count = len(examples)
    question_lengths = np.diff(tokenize(tokenizer, [example["question"] for example in examples])[2])
    first_answers = [next(iter(example["answers"]["text"]), "") for example in examples]
    answered = np.array([answer != "" for answer in first_answers])
    answer_lengths = np.diff(tokenize(tokenizer, first_answers)[2])
    windows = np.bincount(features.example_index, minlength=count)
    last_window = np.cumsum(windows) - 1
    context_lengths = features.last_token[last_window] - features.first_token[last_window - windows + 1]

    questions, start_token, end_token = features.labels()
    answer_lengths[questions] = end_token - start_token + 1
    unlabelled, inexact = answered.copy(), np.zeros(count, dtype=bool)
    unlabelled[questions] = False
    begin, end = features.context_offsets[start_token, 0], features.context_offsets[end_token, 1]
    for question, left, right in zip(questions.tolist(), begin.tolist(), end.tolist(), strict=True):
        found = examples[question]["context"][left:right]
        inexact[question] = found.strip() != first_answers[question].strip()  # white space is in no token, or in any
    return Inspection(
        question_lengths=question_lengths,
        context_lengths=context_lengths,
        answered=answered,
        answer_lengths=answer_lengths,
        windows=windows,
        cut=question_lengths > longest_question(args.max_length, args.doc_stride, features.template.size),
        unlabelled=unlabelled,
        inexact=inexact,
        distinct=np.array(list({example["context"]: i for i, example in enumerate(examples)}.values())),
    )


@cache
def fold(text: str) -> str:
    """The text by which copies are found: case and white space apart. Many questions have one context."""
    return " ".join(text.split()).casefold()


def find_duplicates(examples: Sequence[dict]) -> list[list[dict]]:
    """Groups of examples that ask the same question of the same context, in order of appearance."""
    groups: dict[tuple[str, str], list[dict]] = {}
    for example in examples:
        groups.setdefault((fold(example["question"]), fold(example["context"])), []).append(example)
    return [group for group in groups.values() if len(group) > 1]


def histogram(title: str, lengths: np.ndarray, rows: int = 8) -> str:
    """Lengths (in tokens) as bars of '#', in at most `rows` steps of one round width, from the shortest."""
    shortest, longest = int(lengths.min()), int(lengths.max())
    widths = (digit * 10**power for power in range(10) for digit in (1, 2, 5))
    width = next(width for width in widths if longest // width - shortest // width < rows)
    first = shortest // width
    counts = np.bincount(lengths // width - first)
    lines = [f"{paint(title, 'bold')} in tokens (median {int(np.median(lengths))}, longest {longest:,})"]
    for step, count in enumerate(counts.tolist(), first):
        steps = f"{step:,}" if width == 1 else f"{step * width:,} to {(step + 1) * width - 1:,}"
        bar = "#" * -(-BAR * count // int(counts.max()))  # rounded up: one question is seen, too
        lines.append(f"{steps:>16} |{bar} {count:,}")
    return "\n".join(lines)


def share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.1%})"


def name_some(examples: Sequence[dict]) -> str:
    """The ids of the first few examples, for a person to look up."""
    ids = [printable(example["id"], 40) for example in examples[:IDS_SHOWN]]
    return f"id {', '.join(ids)}" + (" ..." if len(examples) > IDS_SHOWN else "")


def summarize(examples: Sequence[dict], found: Inspection) -> str:
    """Counts, lengths and question words."""
    count, contexts = len(examples), len(found.distinct)
    answers = sum(len(example["answers"]["text"]) for example in examples)
    spaced = not mostly_without_spaces(example["question"] for example in examples)
    beginnings = (fold(example["question"]) for example in examples)
    words = Counter(text.partition(" ")[0] if spaced else text[:2] for text in beginnings).most_common()
    some = ", ".join(f"{printable(word, 20)} {n / count:.0%}" for word, n in words[:QUESTION_WORDS_SHOWN])
    without = count - int(found.answered.sum())
    lines = [
        f"{count:,} questions on {contexts:,} contexts ({count / contexts:.1f} each), {answers:,} answers"
        + (f"; {share(without, count)} questions have none" if without else ""),
        f"{found.windows.sum():,} windows; {share((found.windows > 1).sum(), count)} questions need more than one",
        f"first {'words' if spaced else 'characters'} of questions: {some}",
        histogram("questions", found.question_lengths),
        histogram("contexts", found.context_lengths[found.distinct]),
    ]
    if found.answered.any():
        lines.append(histogram("answers", found.answer_lengths[found.answered]))
    return "\n".join(lines)


def find_faults(examples: Sequence[dict], found: Inspection, args: argparse.Namespace) -> list[str]:
    """What keeps a model from learning or finding an answer, each with what to do."""
    count, faults = len(examples), []

    def fault(which: np.ndarray, what: str, remedy: str) -> None:
        if some := [examples[i] for i in np.flatnonzero(which)]:
            faults.append(f"{share(len(some), count)} {what} ({name_some(some)}). {remedy}")

    differ, equal = [], []
    for group in find_duplicates(examples):
        answers = {tuple(example["answers"]["text"]) for example in group}
        (differ if len(answers) > 1 else equal).append(group)
    for title, some, remedy in (
        ("occur more than once with different answers", differ, "A model can't learn both: keep one."),
        ("occur more than once", equal, "Keep one of each: a copy counts double in training and in scores."),
    ):
        if some:
            ids = "; ".join(" = ".join(printable(example["id"], 40) for example in group) for group in some[:IDS_SHOWN])
            more = " ..." if len(some) > IDS_SHOWN else ""
            faults.append(f"{len(some):,} question(s) {title}, on the same context (id {ids}{more}). {remedy}")
    fault(
        found.unlabelled, "questions are labelled in no window: no window holds their whole answer",
        "Shorten the answer, or train with a larger --doc_stride (overlap).",
    )  # fmt: skip
    fault(
        found.inexact, "answers begin or end inside a token, so no span of tokens is the answer to the letter",
        "Let answers begin and end at whole words; where the text itself is so, nothing is to be done.",
    )  # fmt: skip
    fault(
        found.answer_lengths > args.max_answer_length,
        f"answers are longer than {args.max_answer_length} tokens and can't be found when answering",
        "Shorten them, or train with a larger --max_answer_length.",
    )  # fmt: skip
    fault(
        found.cut, "questions are longer than what fits a window, and are cut",
        "Shorten them, or train with a larger --max_length or a smaller --doc_stride.",
    )  # fmt: skip
    return faults


def find_leaks(train: Sequence[dict], other: Sequence[dict]) -> str | None:
    """What to say where two files hold the same contexts, so that the second one's score means little."""
    contexts = {fold(example["context"]) for example in train}
    leaking = [example for example in other if fold(example["context"]) in contexts]
    if not leaking:
        return None
    same = {example["context"] for example in leaking}
    return (
        f"{share(len(leaking), len(other))} questions of the second file are asked of {len(same):,} context(s) "
        f"that the first file holds too ({name_some(leaking)}). A score on texts that were trained on "
        "is too good: split by context, so that each text is in one file only."
    )


def show_example(example: dict, features: Features, windows: Sequence[int], tokenizer: Tokenizer) -> str:
    """The example, and each of its windows as tokens with the labelled span marked."""
    lines = [f"\nid {printable(example['id'], 80)}: {paint(printable(example['question'].strip()), 'bold')}"]
    if answers := example["answers"]["text"]:
        answer, start = answers[0], example["answers"]["answer_start"][0]
        lines.append(
            f"answer: {paint(printable(answer), 'green')} (characters {start} to {start + len(answer)} of "
            f"{len(example['context']):,})"
        )
    unlabelled = f"{'the whole answer is not in it' if answers else 'the question has no answer'}, label: [CLS]"
    for number, i in enumerate(windows, 1):
        window = features[i]
        tokens = [printable(tokenizer.id_to_token(token)) for token in window["input_ids"].tolist()]
        start, end = window["start_position"], window["end_position"]
        label = f"answer: tokens {start} to {end}" if start else unlabelled
        lines.append(f"window {number} of {len(windows)}, {len(tokens)} tokens, {label}")
        if start:
            span = " ".join(tokens[start : end + 1])
            marked = paint(span, "green")
            # without colours the mark must be in letters
            tokens[start : end + 1] = [f">>{span}<<" if marked == span else marked]
        lines.append("  " + " ".join(tokens))
    return "\n".join(lines)


def inspect_file(path: Path, examples: Sequence[dict], tokenizer: Tokenizer, args: argparse.Namespace) -> list[str]:
    """Prints what is in one file. Returns what is wrong with it."""
    features = prepare_train_features(examples, tokenizer, args.max_length, args.doc_stride)
    found = inspect(examples, features, tokenizer, args)
    print(f"\n{paint(shown(path), 'bold')}\n{summarize(examples, found)}")
    first_window = np.cumsum(found.windows) - found.windows
    for example, first, count in zip(examples[: args.show], first_window, found.windows, strict=False):
        print(show_example(example, features, range(first, first + count), tokenizer))
    faults = find_faults(examples, found, args)
    contexts = [example["context"] for example in examples]
    if line := describe_unknown(features, contexts, tokenizer, card_languages(args.model_dir)):
        faults.insert(0, line)
    return [f"{shown(path)}: {fault}" for fault in faults]


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    require(args.model_dir / "tokenizer.json", "a model folder's tokenizer", "Name another --model_dir.")
    tokenizer = load_tokenizer(args.model_dir)
    parts = []
    for path, split in zip(args.files, ("train", "validation"), strict=False):
        options = {"impossible": args.handle_impossible_answer, "titles": True} | console.file_options(args)
        parts.append(read_examples(path, split, problems_shown=None, **options))
    note(f"windows of {args.max_length} tokens that overlap by {args.doc_stride}, tokenizer of {shown(args.model_dir)}")
    faults = []
    for path, examples in zip(args.files, parts, strict=True):
        faults += inspect_file(path, examples, tokenizer, args)
    if len(parts) == 2 and (leak := find_leaks(*parts)):
        faults.append(leak)
    print(f"\n{len(faults)} thing(s) to look at" if faults else "\nnothing to fix")
    for fault in faults:
        print(paint(f"- {fault}", "yellow"))
    if args.write_fixed:
        with explain_write_failure(args.write_fixed):
            write_json(args.write_fixed, nest(parts[0]))
        print(f"wrote {len(parts[0]):,} questions to {shown(args.write_fixed)}")


if __name__ == "__main__":
    console.run(main)
