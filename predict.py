"""Answers questions from a text, with a confidence, offline.

    python predict.py demo                            # a few questions, answered
    python predict.py                                 # interactive: give a text, then ask
    python predict.py ask --question "..." --context "..."
    python predict.py ask --question "..." --context_file book.txt --top_k 3 --json
    python predict.py batch --input questions.jsonl --output answers.jsonl
    python predict.py web                             # a page in the browser, on this machine alone

Reads --model_dir; where nothing was trained yet, the bundled sample model. Texts may be of any length. The confidence
is the model's probability that this answer, of all that the text allows, is right; below --min_confidence the answer
is "no answer found".
"""

from utils.console import exit_quietly_on_interrupt
from utils.offline import OUTPUT_DIR, SAMPLE_DATA_DIR, SAMPLE_MODEL_DIR, go_offline

go_offline()
exit_quietly_on_interrupt()

import argparse
import contextlib
import json
import sys
from pathlib import Path

from utils import console
from utils.backends import BACKENDS, PRECISIONS
from utils.console import UserError, note, paint, printable
from utils.files import read_text
from utils.offline import require
from utils.squad import has_text, read_examples, replace_surrogates

TRAINED_MODEL = OUTPUT_DIR / "final_model"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=console.HelpFormatter,
        usage="python predict.py [demo | ask | batch | web] [options]", epilog=console.EXIT_CODES,
    )  # fmt: skip
    add = parser.add_argument_group("what to do").add_argument
    modes = ["interactive", "demo", "ask", "batch", "web"]
    add("mode", nargs="?", choices=modes, default="interactive", help="what to do")
    add("--question", default=None, help="ask: the question (default: none)")
    add("--context", default=None, help="ask: the text that holds the answer (default: none)")
    add("--context_file", type=Path, default=None, help="ask: a UTF-8 file with that text (default: none)")
    add("--top_k", type=int, default=1, help="answers to show, best first")
    add(
        "--min_confidence", type=float, default=0.0,
        help="answer only where the best answer is at least so sure, 0 to 1; else: no answer found",
    )  # fmt: skip
    add(
        "--json", action="store_true",
        help='ask: print JSON for programs; where no answer was found, "answered" is false and the first text is ""',
    )  # fmt: skip

    add = parser.add_argument_group("the model").add_argument
    add("--handle_impossible_answer", action="store_true",
        help="a model trained on SQuAD 2 may find no answer; else as it was trained")  # fmt: skip
    add("--model_dir", type=Path, default=None, help="default: output/final_model, else models/sample")
    add("--sample", action="store_true", help="the model of output/sample, or the bundled one")

    add = parser.add_argument_group("how it runs").add_argument
    add("--batch_size", type=int, default=None, help="windows at once (default: 16 on a CPU, 32 on a GPU)")
    add("--backend", choices=BACKENDS, default="auto", help="auto: ONNX Runtime on a CPU where exported, else PyTorch")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--mixed_precision", choices=PRECISIONS, default="auto", help="auto: int8 where exported, bf16 where fast")
    add("--quiet", action="store_true", help="only results, warnings and errors")
    add_batch_flags(parser)
    add = parser.add_argument_group("web, a page in the browser (pip install -r requirements-web.txt)").add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: open to other machines")
    add("--port", type=int, default=7860, help="port to listen on; 0: a free one")
    args = parser.parse_args(argv)
    console.be_quiet(args.quiet)

    problems = [
        f"--{name} is {vars(args)[name]}, expected at least 1"
        for name in ("top_k", "batch_size")
        if vars(args)[name] is not None and vars(args)[name] < 1
    ]
    if not 0 <= args.min_confidence <= 1:
        problems.append(f"--min_confidence is {args.min_confidence}, expected 0 to 1")
    if args.mode == "ask":
        if args.question is None:
            problems.append("ask needs --question")
        if (args.context is None) == (args.context_file is None):
            problems.append("ask needs either --context or --context_file")
    elif args.question is not None or args.context is not None or args.context_file is not None:
        problems.append("--question, --context and --context_file belong to: python predict.py ask")
    if args.mode == "batch":
        if args.input is None or args.output is None:
            problems.append("batch needs --input and --output")
    elif args.input is not None or args.output is not None or args.overwrite:
        problems.append("--input, --output and --overwrite belong to: python predict.py batch")
    if problems:
        raise UserError("; ".join(problems) + ". See: python predict.py --help")
    return args


def add_batch_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "batch",
        "Answers a file of questions in its order, a line each: id, answer, start, end, probability, and more answers\n"
        "with --top_k. Stopped or killed, it goes on when the same command is run again. Bad records are left out and\n"
        "go to answers.bad.jsonl (of answers.jsonl) with the reason: a warning counts them, the exit code stays 0.",
    )
    add = group.add_argument
    add(
        "--input",
        default=None,
        help="JSON Lines, .csv or SQuAD .json; - for JSON Lines from standard input (default: none)",
    )
    add("--output", default=None, help="JSON Lines, or .csv; - for JSON Lines to standard output (default: none)")
    add("--overwrite", action="store_true", help="replace answers that are there already")


def choose_model(args: argparse.Namespace) -> Path:
    """The model to ask: the one named, else the trained one, else the bundled sample, which is said."""
    if args.model_dir:
        return require(args.model_dir, "a trained model", "Run: python train.py")
    trained = OUTPUT_DIR / "sample" / "final_model" if args.sample else TRAINED_MODEL
    if trained.exists():
        return trained
    if not args.sample:
        note(f"no trained model in {TRAINED_MODEL} yet, using the bundled sample model (MiniLM, not MobileBERT)")
    return require(SAMPLE_MODEL_DIR, "the bundled sample model", "Restore it with git, or run: python train.py")


def read_text_file(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as error:  # ValueError: a path can't hold a zero byte
        raise UserError(f"{path} can't be read: {getattr(error, 'strerror', error)}. Expected a text file.") from None


def ask(reader, question: str, context: str, top_k: int, min_confidence: float) -> list[dict]:
    """The best answers; one without text where none is as sure as `min_confidence`. Raises UserError where question or
    context holds no word."""
    for name, text in (("question", question), ("context", context)):
        if not has_text(text):
            raise UserError(f"the {name} has no word in it: {text[:40]!r}. Expected text.")
    from utils.reader import withhold_unsure

    return withhold_unsure(next(reader.answer_all([{"question": question, "context": context}], top_k)), min_confidence)


def show(answers: list[dict], min_confidence: float) -> str:
    """Prediction and confidence; further answers below."""
    best, *others = answers
    sure = best["probability"]
    if best["text"]:
        lines = [f"prediction: {paint(printable(best['text']), 'green')}", f"confidence: {sure:.2%}"]
    else:
        of_what = "for the best candidate" if sure < min_confidence else "that the text holds none"
        lines = [f"prediction: {paint('no answer found', 'yellow')}", f"confidence: {sure:.2%} {of_what}"]
    lines += [f"       or:  {printable(a['text']) or 'no answer'} ({a['probability']:.2%})" for a in others]
    return "\n".join(lines)


def demo(reader, top_k: int, min_confidence: float) -> None:
    """The first question of each of the first paragraphs of data/sample/dev.json."""
    path = require(SAMPLE_DATA_DIR / "dev.json", "the bundled questions", "Restore it with git.")
    shown = set()
    for example in read_examples(path):
        if example["context"] not in shown and len(shown) < 6:
            shown.add(example["context"])
            print(f"\nquestion:   {paint(example['question'], 'bold')}")
            print(console.fit(f"context:    {example['context']}"))
            answers = ask(reader, example["question"], example["context"], top_k, min_confidence)
            print(show(answers, min_confidence))


def interactive(reader, top_k: int, min_confidence: float) -> None:
    """Asks for a text, then for questions, until :quit or the end of input."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - input() gets a history with it; Windows has none

    console.say("Give a text, then ask about it. :new another text, :file PATH a text from a file, :quit the end.")
    context = ""
    with contextlib.suppress(EOFError):
        while True:
            try:
                context = context or read_context()
                question = input("question> ").strip()
                if question == ":quit":
                    return
                if question == ":new":
                    context = ""
                elif question.startswith(":file"):
                    context = read_text_file(Path(question.removeprefix(":file").strip()))
                elif question:
                    answers = ask(reader, replace_surrogates(question), context, top_k, min_confidence)
                    print(show(answers, min_confidence))
            except UserError as error:
                console.warn(str(error))
    print()


def read_context() -> str:
    """Lines up to an empty one, or the file of `:file PATH`. Raises EOFError at `:quit`."""
    lines: list[str] = []
    while True:
        line = input("text> " if not lines else "...   ")
        if not lines and line.strip() == ":quit":
            raise EOFError
        if not lines and line.startswith(":file"):
            return replace_surrogates(read_text_file(Path(line.removeprefix(":file").strip())))
        if not line.strip() and lines:
            return replace_surrogates("\n".join(lines))
        if line.strip():
            lines.append(line)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    context = read_text_file(args.context_file) if args.context_file else args.context
    if args.mode == "interactive" and sys.stdin is None:
        raise UserError("standard input is closed. Expected a text and questions there, or: python predict.py ask")
    if args.mode == "batch":
        from utils.answer_file import answer_file, check_paths

        check_paths(args.input, args.output)
    if args.mode == "web":
        from utils.page import require_gradio, serve

        require_gradio()
    model_dir = choose_model(args)

    from utils.reader import Reader

    reader = Reader(
        model_dir, args.device, args.mixed_precision, args.batch_size, args.backend,
        handle_impossible_answer=args.handle_impossible_answer or None,
    )  # fmt: skip
    if args.mode == "demo":
        demo(reader, args.top_k, args.min_confidence)
    elif args.mode == "web":
        serve(reader, args.host, args.port, args.min_confidence)
    elif args.mode == "interactive":
        interactive(reader, args.top_k, args.min_confidence)
    elif args.mode == "batch":
        answer_file(reader, args.input, args.output, args.top_k, args.min_confidence, args.overwrite)
    else:
        question, context = replace_surrogates(args.question), replace_surrogates(context)
        answers = ask(reader, question, context, args.top_k, args.min_confidence)
        if args.json:
            utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
            found = {"question": question, "answered": answers[0]["text"] != "", "answers": answers}
            print(json.dumps(found, ensure_ascii=not utf8))
        else:
            print(show(answers, args.min_confidence))


if __name__ == "__main__":
    console.run(main)
