"""Where answers are written: a file that a crash leaves in order, or a stream.

Beside a file of answers NAME.progress says after each group of questions how far input, answers and bad records go;
what a crash left beyond that is cut, and the group done again. It also says what the answers depend on, so no answers
of two models or settings meet in one file. It is removed when all is answered: a file of answers without it is
complete.
"""

import csv
import io
import json
import logging
import os
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from extractive_qa.data.formats import Record
from extractive_qa.errors import QAError
from extractive_qa.files.atomic import explain_write_failure, write_json
from extractive_qa.files.locks import locked
from extractive_qa.files.reading import read_json_object
from extractive_qa.text import printable, shown

logger = logging.getLogger(__name__)

FORMAT = 2  # of the answers and of the groups: raise it when a file that was begun before can't be resumed
RESUME = "run the same command again: it resumes where this one stopped"
START_OVER = "Resume with what it was begun with, start over with --overwrite, or choose another --output."
COLUMNS = ("answer", "start", "end", "probability")


def bad_path(path: Path) -> Path:
    """The side file of bad records: answers.bad.jsonl of answers.jsonl."""
    return path.with_name(path.name.removesuffix(".jsonl") + ".bad.jsonl")


def progress_path(path: Path) -> Path:
    return path.with_name(path.name + ".progress")


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
    """A line for each question. With top_k > 1 further answers are in columns answer_2, start_2 and so on."""
    text = io.StringIO()
    csv.writer(text).writerows([row[0]["id"], *(a[name] for a in row for name in COLUMNS)] for row in rows)
    return text.getvalue()


def csv_header(top_k: int) -> str:
    columns = [f"{name}_{n}" if n > 1 else name for n in range(1, top_k + 1) for name in COLUMNS]
    return "\ufeff" + ",".join(["id", *columns]) + "\r\n"  # Excel takes CSV without a mark for the system's encoding


def bad_line(question: Record) -> str:
    """A record of the side file, as a line of JSON."""
    where, number = question.place.split()
    return json.dumps({where: int(number), "reason": question.fault, "text": question.text}) + "\n"


class AnswerStream(AbstractContextManager):
    """A stream as the place of the answers; bad records go to the log."""

    done = 0  # a stream resumes nothing

    def __init__(self, stream: BinaryIO, top_k: int, ascii_only: bool):
        self.stream, self.top_k, self.ascii_only = stream, top_k, ascii_only
        self.bad = 0

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, rows: list[list[dict]], bad: list[Record], done: int) -> None:
        """Writes a group. Raises OSError."""
        for question in bad:
            logger.warning(f"{question.place}: {printable(question.fault)}")
        self.bad += len(bad)
        self.stream.write(json_lines(rows, self.top_k, self.ascii_only).encode())
        self.stream.flush()

    def finish(self, seconds: float, answered: int) -> str:
        if self.bad:
            logger.warning(f"{self.bad:,} bad record(s) were left out, named above")
        return f"{answered:,} answers in {seconds:.1f} s ({answered / max(seconds, 1e-9):.1f}/s)"


class AnswerFile(AbstractContextManager):
    """The file `path` of answers, and beside it the bad records and, while it is not complete, how far it goes.

    done: records of the input that an earlier run has finished. run: what the answers depend on; {} where no run can be
    resumed. Raises QAError where a file can't be written, or belongs to another run.
    """

    def __init__(self, path: Path, top_k: int, run: dict, overwrite: bool):
        self.path, self.top_k, self.run = path, top_k, run
        self.resume = RESUME if run else "start over with --overwrite"
        self.bad_path, self.progress_path = bad_path(path), progress_path(path)
        self.done, self.counts = 0, [0, 0]  # counts of answers, of bad records
        with ExitStack() as held, explain_write_failure(path):
            lock = path.with_name(path.name + ".lock")
            held.enter_context(locked(lock, "another run, process", path, "--output"))
            self.open(overwrite)
            self.held = held.pop_all()

    def open(self, overwrite: bool) -> None:
        """Opens the files, cut to what an earlier run wrote and counted. Raises as the class, and OSError."""
        sizes = [0, 0]  # of answers, of bad records
        if progress := self.earlier_progress(overwrite):
            self.done, self.counts, sizes = progress["done"], progress["counts"], progress["sizes"]
        if self.run:  # before anything else is written, so that whatever a crash leaves belongs to a run
            self.save_progress(sizes)
        self.file, self.bad_file = self.path.open("ab"), self.bad_path.open("ab")
        self.file.truncate(sizes[0])
        self.bad_file.truncate(sizes[1])
        if not self.run:
            self.progress_path.unlink(missing_ok=True)

    def earlier_progress(self, overwrite: bool) -> dict | None:
        """How far an earlier run came that can be resumed; None where this one starts over."""
        sizes = [path.stat().st_size if path.exists() else 0 for path in (self.path, self.bad_path)]
        if not self.progress_path.exists():
            if any(sizes) and not overwrite:
                there = self.path if sizes[0] else self.bad_path
                raise QAError(f"{there} is there already. Replace it: --overwrite. Or choose another --output.")
            return None
        try:
            progress = read_json_object(self.progress_path, "what a run of answering leaves", START_OVER)
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
            raise QAError(f"{self.path} is not complete, and {problem}. {START_OVER}")
        except QAError:
            if not overwrite:
                raise
        return None

    def save_progress(self, sizes: list[int]) -> None:
        progress = {"run": self.run, "done": self.done, "counts": self.counts, "sizes": sizes}
        with explain_write_failure(self.progress_path, self.resume):
            write_json(self.progress_path, progress)

    def __exit__(self, *_: object) -> None:
        self.close()
        self.held.close()

    def close(self) -> None:
        for file in (self.file, self.bad_file):
            with suppress(OSError):  # what could not be written was said, and will be cut
                file.close()

    def write(self, rows: list[list[dict]], bad: list[Record], done: int) -> None:
        """Adds a group, after which `done` records are finished, on the disk before the progress says so."""
        if self.path.suffix.lower() == ".csv":
            text = (csv_header(self.top_k) if self.done == 0 else "") + csv_lines(rows)
        else:
            text = json_lines(rows, self.top_k)
        with explain_write_failure(self.path, self.resume):
            for file, content in ((self.file, text), (self.bad_file, "".join(map(bad_line, bad)))):
                file.write(content.encode())
                file.flush()
                os.fsync(file.fileno())
        self.done = done
        self.counts = [self.counts[0] + len(rows), self.counts[1] + len(bad)]
        if self.run:
            # not tell(): of a file that was cut it may say another place until something is written
            self.save_progress([os.fstat(file.fileno()).st_size for file in (self.file, self.bad_file)])

    def finish(self, seconds: float, answered: int) -> str:
        """All is answered: what tells of a run that is not complete is removed."""
        answers, bad = self.counts
        self.close()
        with explain_write_failure(self.path, self.resume):
            if not bad:
                self.bad_path.unlink(missing_ok=True)
            self.progress_path.unlink(missing_ok=True)
        if bad:
            logger.warning(f"{bad:,} bad record(s) were left out: see {shown(self.bad_path)}")
        rate = answered / max(seconds, 1e-9)
        return f"wrote {answers:,} answers to {shown(self.path)}, {answered:,} of them now ({rate:.1f}/s)"
