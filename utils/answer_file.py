"""Answers to a file of questions, written as they come, and gone on with after a crash.

Questions are answered in groups that end at fixed places of the input (question_stream.py): a group is what shares
batches, so a run that was stopped and gone on with writes the same bytes as one that was not. After each group
NAME.progress says how far input, answers and bad records go; what a crash left beyond that is cut, and the group done
again. That file also says what the answers depend on, so no answers of two models or settings meet in one file. It goes
when all is answered: a file of answers without it is complete.
"""

import csv
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from utils.backends import ONNX_FILES, OnnxBackend
from utils.checkpoints import cannot_write, write_file
from utils.console import UserError, note, printable, progress, reader_has_gone, shown, warn
from utils.files import read_json_object
from utils.locks import locked
from utils.manifest import sha256_of
from utils.question_stream import START, Item, Position, check_input, read_groups, read_pipe, size_of
from utils.reader import withhold_unsure

PIPE = "-"
FORMAT = 1  # of the answers and of the groups: raise it when a file that was begun before can't be gone on with
GO_ON = "run the same command again: it goes on where this one stopped"
ANEW = "Go on with what it was begun with, begin anew with --overwrite, or choose another --output."
COLUMNS = ("answer", "start", "end", "probability")


def check_paths(source: str, target: str) -> None:
    """What can be said before a model is loaded. Raises UserError where the input is no file to read, or the output is
    no place to write to."""
    if source != PIPE:
        check_input(Path(source))
    if target == PIPE:
        return
    path = Path(target)
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is missing. Expected a folder for the answers: make it, or change --output.")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is a folder, a device or a pipe. Expected a file; standard output is written to as -.")
    for own in (path, bad_path(path), progress_path(path)):
        if source != PIPE and own.exists() and own.samefile(source):
            raise UserError(f"{own} would be written to, but it is --input. Choose another --output.")


def bad_path(path: Path) -> Path:
    """The side file of bad records: answers.bad.jsonl of answers.jsonl."""
    return path.with_name(path.name.removesuffix(".jsonl") + ".bad.jsonl")


def progress_path(path: Path) -> Path:
    return path.with_name(path.name + ".progress")


def lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def answer_file(
    reader, source: str, target: str, top_k: int = 1, min_confidence: float = 0.0, overwrite: bool = False
) -> None:
    """Answers the questions of the file `source` with a Reader, into the file `target`; PIPE is standard input and
    output. Prints what was done.

    min_confidence: below it an answer has no text, as utils.reader.withhold_unsure has it. overwrite: replaces answers
    that are there, of a finished run, or of an unfinished one that can't be gone on with.
    Raises UserError where something can't be read or written, or the answers there came from something else.
    """
    if target == PIPE:
        output = Pipe(top_k)
    elif source == PIPE:  # what was read from a pipe can't be read again: no going on
        output = AnswerFile(Path(target), top_k, {}, overwrite)
    else:
        run = what_answers_depend_on(reader, Path(source), top_k, min_confidence)
        output = AnswerFile(Path(target), top_k, run, overwrite)
    with output:
        if output.position.records:
            note(f"{shown(Path(target))} was begun before: going on after {output.position.records:,} questions")
        began, answered = time.monotonic(), 0
        try:
            for group in watched(source, output):
                good = [item for item in group if not item.fault]
                best = reader.answer_all([item.example for item in good], top_k)
                rows = [
                    answer_row(item.example["id"], withhold_unsure(answers, min_confidence))
                    for item, answers in zip(good, best, strict=True)
                ]
                output.write(rows, [item for item in group if item.fault], group[-1].end)
                answered += len(rows)
        except KeyboardInterrupt:
            if PIPE in (source, target):
                raise
            raise KeyboardInterrupt(f"stopped after {output.counts[0]:,} answers. To go on, {GO_ON}") from None
        output.finish(time.monotonic() - began, answered)


def watched(source: str, output: "AnswerFile | Pipe") -> Iterator[list[Item]]:
    """The groups of `source` that are not answered yet. Of a file with a bar on standard error: questions a second, and
    the time left by the part of the file that is done."""
    if source == PIPE:
        if sys.stdin is None:
            raise UserError("standard input is closed. Expected JSON Lines there, or a file as --input.")
        yield from read_pipe(sys.stdin.buffer)
        return
    first = output.position
    if isinstance(output, Pipe) and sys.stdout.isatty():  # a bar would stand between the answers
        yield from read_groups(Path(source), first)
        return
    unit = " records" if Path(source).suffix.lower() == ".json" else " bytes"
    layout = "{l_bar}{bar}| [{elapsed}<{remaining}{postfix}]"
    began = time.monotonic()
    with progress(
        desc="answering", total=size_of(Path(source)), initial=first.offset, unit=unit, bar_format=layout
    ) as bar:
        for group in read_groups(Path(source), first):
            yield group
            end = group[-1].end
            rate = (end.records - first.records) / max(time.monotonic() - began, 1e-9)
            bar.set_postfix_str(f"{end.records:,} questions, {rate:.1f}/s", refresh=False)
            bar.update(end.offset - bar.n)


def what_answers_depend_on(reader, source: Path, top_k: int, min_confidence: float) -> dict:
    """What must be as it was for a run to be gone on with: {what: how to know it}."""
    folder, backend = reader.model_dir, reader.backend
    paths = [folder / name for name in ("config.json", "reader.json", "tokenizer.json")]
    paths += sorted(folder.glob("*.safetensors"))
    if isinstance(backend, OnnxBackend):
        paths.append(folder / ONNX_FILES[backend.precision])
    return {
        "input": sha256_of(source),
        "kind of input": source.suffix.lower(),
        "model": {path.name: sha256_of(path) for path in paths if path.exists()},
        "device": backend.describe(),
        "precision": backend.precision,
        "batch_size": reader.batch_size,
        "top_k": top_k,
        "min_confidence": min_confidence,
        "settings": reader.settings,
        "format": FORMAT,
    }


def answer_row(identifier: str, answers: list[dict]) -> list[dict]:
    """The answers of a question as they are written, best first, each with the question's id."""
    return [
        {"id": identifier, "answer": a["text"], "start": a["start"], "end": a["end"], "probability": a["probability"]}
        for a in answers
    ]


def json_lines(rows: list[list[dict]], top_k: int, ascii_only: bool = False) -> str:
    """A line for each question. With top_k > 1 further answers are its `alternatives`, without the id."""
    lines = []
    for best, *others in rows:
        more = {"alternatives": [{name: other[name] for name in COLUMNS} for other in others]} if top_k > 1 else {}
        lines.append(json.dumps(best | more, ensure_ascii=ascii_only) + "\n")
    return "".join(lines)


def csv_lines(rows: list[list[dict]]) -> str:
    """A line for each question. With top_k > 1 further answers stand in columns answer_2, start_2 and so on."""
    text = io.StringIO()
    csv.writer(text).writerows([row[0]["id"], *(a[name] for a in row for name in COLUMNS)] for row in rows)
    return text.getvalue()


def csv_header(top_k: int) -> str:
    columns = [f"{name}_{n}" if n > 1 else name for n in range(1, top_k + 1) for name in COLUMNS]
    return "\ufeff" + ",".join(["id", *columns]) + "\r\n"  # Excel takes CSV without a mark for the system's encoding


def bad_line(item: Item) -> str:
    """A record of the side file, as a line of JSON."""
    where, number = item.place.split()
    return json.dumps({where: int(number), "reason": item.fault, "text": item.text}) + "\n"


class Pipe:
    """Standard output as the place of the answers; bad records go to standard error."""

    position = START

    def __init__(self, top_k: int):
        self.top_k = top_k
        # unlike sys.stdout it can fail to write what it holds, and is then forgotten
        self.file = open(sys.stdout.fileno(), "wb", closefd=False)  # noqa: SIM115
        self.ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
        self.bad = 0

    def __enter__(self) -> "Pipe":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, rows: list[list[dict]], bad: list[Item], end: Position) -> None:
        for item in bad:
            warn(f"{item.place}: {printable(item.fault)}")
        self.bad += len(bad)
        try:
            self.file.write(json_lines(rows, self.top_k, self.ascii_only).encode())
            self.file.flush()
        except OSError as error:
            if reader_has_gone(error):
                raise  # who read it has enough
            raise UserError(f"standard output can't be written: {error.strerror}.") from None

    def finish(self, seconds: float, answered: int) -> None:
        note(f"{answered:,} answers in {seconds:.1f} s ({answered / max(seconds, 1e-9):.1f}/s)")
        if self.bad:
            warn(f"{self.bad:,} bad record(s) were left out, named above")


class AnswerFile:
    """The file `path` of answers, and beside it the bad records and, while it is not complete, how far it goes.

    run: what the answers depend on; {} where no run can be gone on with. Raises UserError as answer_file does.
    """

    def __init__(self, path: Path, top_k: int, run: dict, overwrite: bool):
        self.path, self.top_k, self.run = path, top_k, run
        self.go_on = GO_ON if run else "begin anew with --overwrite"
        self.bad_path, self.progress_path = bad_path(path), progress_path(path)
        self.position, self.counts = START, [0, 0]  # counts of answers, of bad records
        with ExitStack() as held:
            try:
                held.enter_context(locked(lock_path(path), "another run, process", path, "--output"))
                self.open(overwrite)
            except OSError as error:
                raise cannot_write(path, error, "try again") from None
            self.held = held.pop_all()

    def open(self, overwrite: bool) -> None:
        """Opens the files, cut to what an earlier run wrote and counted. Raises as the class, and OSError."""
        sizes = [0, 0]  # of answers, of bad records
        if progress := self.earlier_progress(overwrite):
            self.position = Position(*progress["position"])
            self.counts, sizes = progress["counts"], progress["sizes"]
        if self.run:  # before anything else is written, so that whatever a crash leaves belongs to a run
            self.save_progress(sizes)
        self.file, self.bad_file = self.path.open("ab"), self.bad_path.open("ab")
        self.file.truncate(sizes[0])
        self.bad_file.truncate(sizes[1])
        if not self.run:
            self.progress_path.unlink(missing_ok=True)

    def earlier_progress(self, overwrite: bool) -> dict | None:
        """How far an earlier run came that can be gone on with; None where this one begins anew."""
        sizes = [path.stat().st_size if path.exists() else 0 for path in (self.path, self.bad_path)]
        if not self.progress_path.exists():
            if any(sizes) and not overwrite:
                there = self.path if sizes[0] else self.bad_path
                raise UserError(f"{there} is there already. Replace it: --overwrite. Or choose another --output.")
            return None
        try:
            progress = read_json_object(self.progress_path, "what a run of answering leaves", ANEW)
            was = progress.get("run")
            changed = [name for name in self.run if not isinstance(was, dict) or was.get(name) != self.run[name]]
            if not self.run:
                problem = "was begun with a file as --input"
            elif changed:
                problem = f"was begun with another {', '.join(changed)}"
            elif any(size < written for size, written in zip(sizes, progress["sizes"], strict=True)):
                problem = "it or its file of bad records lost lines that were written"
            else:
                return progress
            raise UserError(f"{self.path} is not complete, and {problem}. {ANEW}")
        except UserError:
            if not overwrite:
                raise
        return None

    def save_progress(self, sizes: list[int]) -> None:
        progress = {"run": self.run, "position": self.position, "counts": self.counts, "sizes": sizes}
        write_file(self.progress_path, json.dumps(progress, indent=1) + "\n", self.go_on)

    def __enter__(self) -> "AnswerFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.held.close()

    def close(self) -> None:
        for file in (self.file, self.bad_file):
            with suppress(OSError):  # what could not be written was said, and will be cut
                file.close()

    def write(self, rows: list[list[dict]], bad: list[Item], end: Position) -> None:
        """Adds a group that ends at `end` of the input, on the disk before the progress says so."""
        if self.path.suffix.lower() == ".csv":
            text = (csv_header(self.top_k) if self.position.records == 0 else "") + csv_lines(rows)
        else:
            text = json_lines(rows, self.top_k)
        try:
            for file, content in ((self.file, text), (self.bad_file, "".join(map(bad_line, bad)))):
                file.write(content.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error, self.go_on) from None
        self.position = end
        self.counts = [self.counts[0] + len(rows), self.counts[1] + len(bad)]
        if self.run:
            # not tell(): of a file that was cut it may say another place until something is written
            self.save_progress([os.fstat(file.fileno()).st_size for file in (self.file, self.bad_file)])

    def finish(self, seconds: float, answered: int) -> None:
        """All is answered: what tells of a run that is not complete goes."""
        answers, bad = self.counts
        self.close()
        try:
            if not bad:
                self.bad_path.unlink(missing_ok=True)
            self.progress_path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error, self.go_on) from None
        rate = answered / max(seconds, 1e-9)
        print(f"wrote {answers:,} answers to {shown(self.path)}, {answered:,} of them now ({rate:.1f}/s)")
        if bad:
            warn(f"{bad:,} bad record(s) were left out: see {shown(self.bad_path)}")
