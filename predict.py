"""Answers questions from a text, with a confidence, offline.

    python predict.py demo                            # a few questions, answered
    python predict.py                                 # interactive: give a text, then ask
    python predict.py ask --question "..." --context "..."
    python predict.py ask --question "..." --context_file book.txt --top_k 3 --json
    python predict.py ask --question "..." --documents DIR   # a folder of txt, md, html, pdf, docx
    python predict.py --documents DIR                 # the same, question by question
    python predict.py batch --input questions.jsonl --output answers.jsonl   # with --documents DIR: of its files
    python predict.py batch --input 'in/*.parquet' --output out/ --workers 4   # many files, by several processes
    python predict.py web                             # a page in the browser, and a JSON interface; this machine alone

Reads --model_dir; where nothing was trained yet, the bundled sample model. Texts may be of any length. The confidence
is how likely the answer is right; below --min_confidence the answer is "no answer found". Where the text more likely
holds no answer than one, it is "probably not in this text", and the best candidate stands below.
"""

from utils import console
from utils.offline import OUTPUT_DIR, SAMPLE_DATA_DIR, SAMPLE_MODEL_DIR, go_offline, sample_model

# the Hugging Face libraries read the offline switches when they are imported, so nothing else comes first
go_offline()
console.exit_quietly_on_interrupt()

import argparse
import codecs
import contextlib
import json
import os
import re
import secrets
import sys
from functools import partial
from pathlib import Path

# light modules only: what loads torch, transformers or ONNX Runtime is imported when the arguments are known to be good
from extractive_qa.data.formats import FORMATS, reading
from extractive_qa.data.names import ANSWER_KINDS
from extractive_qa.errors import QAError
from extractive_qa.files.reading import read_text
from extractive_qa.model.backends import BACKENDS, PRECISIONS
from extractive_qa.model.folder import require_model
from extractive_qa.postprocessing.confidence import is_absent
from extractive_qa.progress import NoProgress
from extractive_qa.text import as_argument, has_text, printable, replace_surrogates

TRAINED_MODEL = OUTPUT_DIR / "final_model"
SAMPLE_QUESTIONS, NO_ANSWER = SAMPLE_DATA_DIR / "dev.json", SAMPLE_DATA_DIR / "unanswerable.json"
LONG = 32  # windows: from here on a text is shown being read
END_OF_INPUT = "Ctrl-Z" if os.name == "nt" else "Ctrl-D"
HOW_TO_ASK = f"""Give a text, then ask about it. It ends with a line of a single . (or {END_OF_INPUT}).
:new (another text), :file PATH (a text from a file), help (these lines), quit"""
AROUND = 100  # characters of a text that are shown on either side of an answer
DEMO = {
    "question": "What area does the Amazon rainforest cover?",
    "context": "The Amazon rainforest covers 5,500,000 km2, more than all countries of the European Union together. "
    "Nine countries share it, and about 60 per cent of it lies in Brazil.",
    "answers": {"text": ["5,500,000 km2"]},
}  # fmt: skip
DEMO_IDS = ("sample-dev-0003", "sample-dev-0019", "sample-dev-0043", "sample-dev-0007", "sample-none-0046")
PAGE_EXAMPLES = ("sample-dev-0077", "sample-dev-0016", "sample-dev-0022", "sample-dev-0018")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = console.make_parser(__doc__, "python predict.py [demo | ask | batch | web] [options]")
    # None: the default depends on something, and the help says on what
    add = parser.add_argument_group("what to do").add_argument
    add("mode", nargs="?", choices=MODES, default="interactive", help="what to do")
    add("--question", default=None, help="ask: the question (default: none)")
    add("--context", default=None, help="ask: the text that holds the answer (default: none)")
    add("--context_file", type=Path, default=None, help="ask: a file with that text (default: none)")
    add("--documents", type=Path, default=None, help="a folder of documents to ask (default: none)")
    add("--passages", type=int, default=10, help="of the documents that are read for a question, best first by BM25")
    add("--encoding", default="utf-8", help="of text files, such as gb18030, big5, shift_jis, cp1252")
    add("--top_k", type=int, default=1, help="answers to show, best first")
    add("--min_confidence", type=float, default=0.0, help="where the best answer is less sure, 0 to 1: no answer found")
    add("--json", action="store_true",
        help='ask: JSON; where no answer was found, "answered" is false and the first text is ""; "answerable" is how '
        "likely the text holds any")  # fmt: skip

    add = parser.add_argument_group("the model").add_argument
    add("--handle_impossible_answer", action="store_true", default=None, help="may find none (default: as trained)")
    add("--model_dir", type=Path, default=None, help="default: output/final_model, else models/sample")
    add("--sample", action="store_true", help="the model of output/sample, or the bundled one")

    add = parser.add_argument_group("how it runs").add_argument
    add("--threads", type=int, default=None, help="of a CPU (default: one a core, divided among --workers)")
    add("--batch_size", type=int, default=None, help="windows at once (default: 4 on a CPU, 32 on a GPU)")
    add("--backend", choices=BACKENDS, default="auto", help="auto: ONNX Runtime on a CPU where exported, else PyTorch")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--mixed_precision", choices=PRECISIONS, default="auto", help="auto: int8 where exported, bf16 where fast")
    add("--quiet", action="store_true", help="only results, warnings and errors")

    what = (
        "A line for each question, in order. Stopped, it resumes when run again. Bad records go to NAME.bad.jsonl. "
        "Several files (names, folders, patterns in quotes) have theirs in a folder each: docs/SCALING.md."
    )
    add = parser.add_argument_group("batch", what).add_argument
    add("--input", nargs="+", default=None, help=f"{FORMATS}; - for JSON Lines from standard input (default: none)")
    add("--output", default=None,
        help="JSON Lines, .csv or .parquet; - for JSON Lines to standard output; a folder (default: none)")  # fmt: skip
    add("--output_format", choices=ANSWER_KINDS, default=ANSWER_KINDS[0], help="of the answers in a folder")
    add("--workers", type=int, default=None,
        help="processes that answer several files (default: 1; with --ray as many as fit)")  # fmt: skip
    add("--ray", nargs="?", const="", default=None, metavar="ADDRESS",
        help="several files on a Ray cluster (pip install -r requirements-ray.txt); without an address: the one that "
        "runs here, or this machine alone (default: none)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace answers that are there already, of a folder all")
    add("--renumber_ids", action="store_true", help="give questions whose id occurred before another one")

    add = parser.add_argument_group("web, a page in the browser (pip install -r requirements-web.txt)").add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: open to other machines")
    add("--port", type=int, default=7860, help="port to listen on; 0: a free one")
    add("--token", nargs="?", const=secrets.token_urlsafe(16), default=None,
        help="who asks must have it, as the printed address has; alone: a random one (default: none)")  # fmt: skip
    add("--allow_host", default=None, help="a further name of this server, as behind a proxy (default: none)")
    add("--timeout", type=float, default=300.0, help="seconds that a question may take, waiting included")
    add("--corrections", type=Path, default=OUTPUT_DIR / "corrections.json", help="SQuAD file for corrected answers")
    args = parser.parse_args(argv)
    console.be_quiet(args.quiet)

    # all that is wrong is told at once, before anything is read
    given = {name for name, value in vars(args).items() if value is not None and value is not False}
    counts = {
        name: vars(args)[name] for name in ("top_k", "passages", "batch_size", "threads", "workers") if name in given
    }
    problems = [f"--{name} is {count}, expected at least 1" for name, count in counts.items() if count < 1]
    if not 0 <= args.min_confidence <= 1:  # NaN is refused too
        problems.append(f"--min_confidence is {args.min_confidence}, expected 0 to 1")
    if args.mode == "ask" and ("question" not in given or len(given & {"context", "context_file", "documents"}) != 1):
        problems.append("ask needs --question, and one of --context, --context_file and --documents")
    if args.mode == "demo" and "documents" in given:
        problems.append("--documents belongs to: python predict.py ask, batch, web, or none of these")
    if args.mode != "ask" and given & {"question", "context", "context_file"}:
        problems.append("--question, --context and --context_file belong to: python predict.py ask")
    if args.mode == "batch" and not given >= {"input", "output"}:
        problems.append("batch needs --input and --output")
    if args.token is not None and not re.fullmatch(r"[\w-]{8,}", args.token, re.ASCII):
        problems.append("--token is expected to have 8 or more letters, digits, - and _")
    if not args.timeout > 0:  # NaN is refused too
        problems.append(f"--timeout is {args.timeout:g}, expected more than 0 seconds")
    if args.mode != "batch" and given & {"input", "output", "overwrite", "workers", "ray"}:
        problems.append("--input, --output, --overwrite, --workers and --ray belong to: python predict.py batch")
    if problems:
        raise QAError("; ".join(problems) + ". See: python predict.py --help")
    # to a console of another encoding é goes as \u00e9, which is the same JSON
    args.ascii_only = codecs.lookup(sys.stdout.encoding or "ascii").name != "utf-8"
    return args


def choose_model(args: argparse.Namespace) -> Path:
    """The model to ask: the one named, else the trained one, else the bundled sample, which is said."""
    if args.model_dir or args.sample:
        return args.model_dir or sample_model()
    if TRAINED_MODEL.exists():
        return TRAINED_MODEL
    console.note(f"no trained model in {TRAINED_MODEL} yet, using the bundled sample model (MiniLM, not MobileBERT)")
    return SAMPLE_MODEL_DIR


def read_text_file(path: Path, encoding: str) -> str:
    with reading(path, "a text file"):
        return require_words(str(path), read_text(path, encoding))


def require_words(name: str, text: str) -> str:
    """`text` where it holds a word, else a QAError."""
    if has_text(text):
        return text
    raise QAError(f"{name} {f'has no word in it: {text[:40]!r}' if text else 'is empty'}. Expected text.")


def find_answers(reader, question: str, context: str, args: argparse.Namespace) -> list[dict]:
    """The best answers: text, start and end (characters of `context`), probability and answerable (0 to 1). One without
    text where none is as sure as --min_confidence. A long text has a bar. Raises QAError where the question holds no
    word."""
    # what is typed or piped in may hold lone surrogates, which can't be printed again
    example = {"question": replace_surrogates(require_words("the question", question)),
               "context": replace_surrogates(context)}  # fmt: skip
    bar = NoProgress()

    def each_batch(done: int, windows: int, _: int) -> None:
        nonlocal bar
        if windows >= LONG and done == 0:
            bar = console.progress(desc=f"reading {windows:,} windows", total=windows, unit=" windows", leave=False)
        bar.update(done - bar.n)
        if done == windows:
            bar.__exit__(None, None, None)

    return next(reader.answer_all([example], args.top_k, min_confidence=args.min_confidence, each_batch=each_batch))


def show(answers: list[dict], min_confidence: float) -> str:
    """Prediction and confidence; out of documents also the place, and the text around it. Further answers below."""
    best, *others = answers
    sure, document = best["probability"], best.get("document")
    # printable: a text may hold control characters, which could clear the terminal
    lines = [f"prediction: {console.paint(printable(best['text']), 'green')}", f"confidence: {sure:.2%}"]
    if not best["text"]:
        # either the best span was not sure enough, or "there is none" was itself the best answer
        of_what = "for the best candidate" if sure < min_confidence else "that the text holds none"
        lines = [f"prediction: {console.paint('no answer found', 'yellow')}", f"confidence: {sure:.2%} {of_what}"]
    elif is_absent(best["answerable"]):
        where = "these texts" if document else "this text"
        lines = [f"prediction: {console.paint(f'probably not in {where}', 'yellow')}",
                 f"confidence: {1 - best['answerable']:.2%} that it is not there"]  # fmt: skip
        others = answers
    if document:
        lines += [f"source:     {place_of(best)}",
                  console.fit(f"text:       {around(document['text'], best['start'], best['end'])}")]  # fmt: skip
    for answer in others:
        place = f"  {place_of(answer)}" if answer.get("document") else ""
        lines.append(f"       or:  {printable(answer['text']) or 'no answer'} ({answer['probability']:.2%}){place}")
    return "\n".join(lines)


def place_of(answer: dict) -> str:
    """The file of an answer's document, and the page, or the line on which the answer begins."""
    document = answer["document"]
    place = f"page {document['page']}" if document["page"] else f"line {document['line']}"
    return f"{printable(document['file'])}, {place}"


def ask(reader, args: argparse.Namespace) -> None:
    if args.index:
        answers = ask_documents(reader, args.question, args)
    else:
        answers = find_answers(reader, args.question, args.context, args)
    question = replace_surrogates(args.question)
    columns = ("text", "start", "end", "probability", *(("document",) if args.index else ()))
    found = {"question": question, "answered": answers[0]["text"] != "", "answerable": answers[0]["answerable"],
             "answers": [{name: answer[name] for name in columns} for answer in answers]}  # fmt: skip
    print(json.dumps(found, ensure_ascii=args.ascii_only) if args.json else show(answers, args.min_confidence))


def open_documents(args: argparse.Namespace):
    """The index of --documents, up to date; what was left out of it is said."""
    from extractive_qa.documents.index import DocumentIndex
    from utils.preprocessing import CACHE_DIR

    index = DocumentIndex(args.documents, CACHE_DIR, console.progress)
    for name, reason in index.skipped.items():
        console.warn(f"{printable(name)} is left out: {printable(reason)}")
    read = f", {index.read:,} of them read now" if index.read else ""
    console.note(f"{index.files:,} document(s), {len(index):,} passages{read}")
    return index


def ask_documents(reader, question: str, args: argparse.Namespace) -> list[dict]:
    """The best answers to a question, each with its `document`, as DocumentIndex.answers gives them."""
    question = replace_surrogates(require_words("the question", question))
    return args.index.answers(reader, [question], args.passages, args.top_k, args.min_confidence)[0]


def demo(reader, args: argparse.Namespace) -> None:
    """A text of two sentences, some questions of data/sample, and one that its text does not answer. What is wrong is
    called so."""
    from extractive_qa.data.examples import read_examples
    from extractive_qa.metrics import exact_match_score

    examples = (read_examples(path, impossible=True) for path in (SAMPLE_QUESTIONS, NO_ANSWER))
    by_id = {example["id"]: example for some in examples for example in some}
    for example in [DEMO, *(by_id[name] for name in DEMO_IDS)]:
        answers = find_answers(reader, example["question"], example["context"], args)
        best, references = answers[0], example["answers"]["text"]
        print(f"\nquestion:   {console.paint(example['question'], 'bold')}")
        print(console.fit(f"text:       {around(example['context'], best['start'], best['end'])}"))
        print(show(answers, args.min_confidence))
        if not references:
            print("the truth:  the text does not say")
        elif not exact_match_score(best["text"], references):
            print(f"the truth:  {references[0]}")
    model = " --sample" if args.sample else f" --model_dir {as_argument(args.model_dir)}" if args.model_dir else ""
    console.note(f"\nNext, ask about a text of yours: python predict.py{model}")


def around(text: str, start: int, end: int) -> str:
    """The part of a text around an answer, in one line, the answer marked."""
    first, last = max(0, start - AROUND), min(len(text), end + AROUND)
    first = text.find(" ", first, start) + 1 if first else 0  # no half words; -1 + 1 is the beginning
    last = text.rfind(" ", end, last) if last < len(text) else last
    last = len(text) if last < 0 else last
    before, after = "... " * (first > 0) + text[first:start], text[end:last] + " ..." * (last < len(text))
    marked = console.paint(text[start:end], "green") if sys.stdout.isatty() else f"[{text[start:end]}]"
    before, after = (re.sub(r"\s+", " ", part) for part in (before, after))
    return printable(before) + (marked if end > start else "") + printable(after)


def batch(reader, args: argparse.Namespace) -> None:
    """A file of questions in, a file of answers out; None of the two is standard input or output."""
    from extractive_qa.batch.run import answer_file

    if None in (args.input, args.output) and isinstance(sys.stdout, console.HostStream):
        raise QAError("standard input and output are no files here. Expected names: --input FILE --output FILE")
    # sys.stdout would be written once more as the process ends; this file may fail and is then forgotten
    target = args.output or open(sys.stdout.fileno(), "wb", closefd=False)  # noqa: SIM115
    source, say = args.input or sys.stdin.buffer, print if args.output else console.note
    # a bar on standard error would come between answers that a terminal shows
    bars = console.progress if args.output or not sys.stdout.isatty() else NoProgress
    try:
        say(answer_file(reader, source, target, args.top_k, args.min_confidence, args.overwrite, args.ascii_only, bars,
                        args.renumber_ids, args.encoding, args.index, args.passages))  # fmt: skip
    except OSError as error:
        if console.reader_has_gone(error):  # predict.py batch ... | head: nothing is wrong
            raise
        raise QAError(f"standard output can't be written: {error.strerror}.") from None


def batch_files(reader: dict, args: argparse.Namespace) -> None:
    """Many files of questions in, a folder of answers out, by processes that have a Reader each, with the arguments
    `reader`."""
    from extractive_qa.batch.folder import OPTIONS, Work, answer_folder
    from extractive_qa.batch.workers import answer_shards

    options = {name: getattr(args, name) for name in OPTIONS}
    work = Work(args.output, reader, options, args.index and (args.documents, args.index.kept.parent))
    if args.ray is None:
        answer = partial(answer_shards, work=work, workers=args.workers or 1, progress=console.progress)
    else:
        from extractive_qa.batch.on_ray import answer_on_ray

        answer = partial(answer_on_ray, work=work, workers=args.workers, address=args.ray, progress=console.progress)
    done, faults = answer_folder(args.output, args.shards, answer, args.overwrite)
    print(done)
    if faults:
        raise QAError(faults)


def interactive(reader, args: argparse.Namespace) -> None:
    """Takes a text, then questions about it, until `quit` or the end of input."""
    from extractive_qa.batch.typed import Typed

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - input() gets a history and whole pastes with it; Windows has none
    console.say(HOW_TO_ASK)
    context, typed = "", Typed(input, is_pipe=not sys.stdin.isatty())
    while (found := typed.next(has_text=context != ""))[0] != "quit":
        kind, words = found
        try:
            if kind == "question":
                print(show(find_answers(reader, words, context, args), args.min_confidence))
            elif kind == "text":
                context += "\n" * (context != "") + require_words("the text", words)
                console.say(f"text: {size(context)}")
            elif kind == "file":
                name, _, encoding = words.partition(" --encoding ")
                path = Path(name.strip("\"' "))
                if path == Path():
                    raise QAError("Expected a path, as in :file book.txt")
                context = read_text_file(path, encoding.strip() or args.encoding)
                console.say(f"{path.name}: {size(context)}")
            elif kind == "new":
                context = ""
            if kind in ("new", "help"):
                print(HOW_TO_ASK)
        except QAError as error:  # a person can try again
            console.warn(str(error))
    print()


def interactive_documents(reader, args: argparse.Namespace) -> None:
    """Takes questions about the documents, a line each, until `quit`, an empty line or the end of input."""
    console.say(f"Ask about {args.documents}, a question a line. An empty line, quit or {END_OF_INPUT} ends.")
    with contextlib.suppress(EOFError):
        while (question := input("> " if sys.stdin.isatty() else "").strip()) not in ("", "quit", "exit", ":quit"):
            try:
                print(show(ask_documents(reader, question, args), args.min_confidence))
            except QAError as error:  # a person can try again
                console.warn(str(error))


def size(text: str) -> str:
    return f"{len(text.split()):,} words, {len(text):,} characters. Ask about it"


def web(reader, args: argparse.Namespace) -> None:
    from extractive_qa.data.examples import read_examples
    from extractive_qa.web.serve import serve

    by_id = {example["id"]: example for example in read_examples(SAMPLE_QUESTIONS)}
    examples = [{name: by_id[one][name] for name in ("question", "context")} for one in PAGE_EXAMPLES]
    # flushed, so that a program that started us can read the address
    serve(
        reader, args.host, args.port, lambda address: print(address, flush=True), args.index, args.corrections,
        args.allow_host, args.token, args.timeout, examples=examples, min_confidence=args.min_confidence,
    )  # fmt: skip


# each is called with a Reader and the arguments
MODES = {"interactive": interactive, "demo": demo, "ask": ask, "batch": batch, "web": web}


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)

    # whatever can be refused is refused before the seconds that the libraries take
    if (args.mode == "interactive" or args.input == ["-"]) and sys.stdin is None:
        raise QAError("standard input is closed. Expected a text and questions there, or: python predict.py ask")
    if args.mode == "ask":
        require_words("the question", args.question)
    if args.mode == "batch":
        from extractive_qa.batch.run import check_paths
        from extractive_qa.batch.shards import choose_shards

        args.shards = choose_shards(args.input, args.output, args.output_format, args.workers, args.ray is not None)
        args.input, args.output = (None if name == "-" else Path(name) for name in (args.input[0], args.output))
        if not args.shards:
            check_paths(args.input, args.output)
    args.index = open_documents(args) if args.documents else None
    if args.mode == "ask" and not args.index:
        from_file = args.context_file and read_text_file(args.context_file, args.encoding)
        args.context = from_file or require_words("the context", args.context)
    if args.mode == "web":
        from extractive_qa.web.serve import require_fastapi

        require_fastapi()
    model_dir = choose_model(args)
    require_model(model_dir)  # all its files are there; whether they fit is seen when they are loaded

    names = ("device", "mixed_precision", "batch_size", "backend", "handle_impossible_answer", "threads")
    settings = {"model_dir": model_dir} | {name: getattr(args, name) for name in names}
    if args.mode == "batch" and args.shards:
        batch_files(settings, args)
        return
    from extractive_qa.reader import Reader

    # on a CPU, with a model that was exported, this loads ONNX Runtime and neither torch nor transformers
    reader = Reader(**settings)
    # each mode prints its own result: answers to standard output, all else to standard error
    mode = interactive_documents if args.index and args.mode == "interactive" else MODES[args.mode]
    mode(reader, args)


if __name__ == "__main__":
    console.run(main)
