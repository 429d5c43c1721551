"""Where answers are written: a file that a crash leaves in order, or a stream.

Beside a file of answers NAME.progress says after each group of questions how far input, answers and bad records go;
what a crash left beyond that is cut, and the group done again. It also says what the answers depend on, so no answers
of two models or settings meet in one file. When all is answered it becomes NAME.done: a file of answers without a
NAME.progress is complete, and the same run again has nothing to do. Nothing is written before a group was answered, so
an input that is refused leaves nothing. A Parquet file is JSON Lines called NAME.partial until all is answered.
"""

import csv
import io
import json
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from extractive_qa.batch.parquet_answers import write_parquet
from extractive_qa.data.formats import Record
from extractive_qa.errors import QAError
from extractive_qa.files.atomic import explain_write_failure, patiently, sync_entries, write_json
from extractive_qa.files.locks import locked
from extractive_qa.files.reading import read_json_object
from extractive_qa.text import printable, shown

logger = logging.getLogger(__name__)

FORMAT = 4  # of the answers and of the groups: raise it when a file that was begun before can't be resumed
RESUME = "run the same command again: it resumes where this one stopped"
START_OVER = "Resume with what it was begun with, start over with --overwrite, or choose another --output."
REPLACE = "Replace it: --overwrite. Or choose another --output."
REPLACE_SHARD = "To have this file alone answered again, delete its answers, bad records and .done file."
OF_A_SHARD = {"input", "kind of input", "device"}  # what may change before it is complete
ASKED = ("id", "question", "answerable")
COLUMNS = ("answer", "start", "end", "probability")
DOCUMENT = ("file", "page", "line", "text")  # of an answer out of a folder: CSV has document_file and so on


def bad_path(path: Path) -> Path:
    """The side file of bad records: answers.bad.jsonl of answers.jsonl."""
    return path.with_name(path.name.removesuffix(".jsonl") + ".bad.jsonl")


def progress_path(path: Path) -> Path:
    return path.with_name(path.name + ".progress")


def done_path(path: Path) -> Path:
    return path.with_name(path.name + ".done")


def lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def partial_path(path: Path) -> Path:
    """Where answers are written until all are there: of Parquet, to which nothing can be added, a file beside it."""
    return path.with_name(path.name + ".partial") if path.suffix.lower() == ".parquet" else path


def paths_beside(path: Path) -> tuple[Path, Path, Path, Path]:
    """Of bad records, of how far an unfinished run came, of what a finished one was, and of answers until then."""
    return bad_path(path), progress_path(path), done_path(path), partial_path(path)


def changed_names(run: dict, was: object) -> list[str]:
    """Which of the things that answers depend on are another in `was`, the earlier run: [] where none is."""
    return [name for name in run if not isinstance(was, dict) or was.get(name) != run[name]]


def is_progress(content: dict) -> bool:
    """Whether a file beside the answers says how far they go: {done: n, counts: [n, n], sizes: [n, n]}."""
    numbers = [content.get("done")]
    for name in ("counts", "sizes"):
        pair = content.get(name)
        numbers += pair if isinstance(pair, list) and len(pair) == 2 else [None]
    return all(type(number) is int and number >= 0 for number in numbers)


def answer_row(question: dict, answers: list[dict]) -> list[dict]:
    """The answers of a question as they are written, best first, each with the question, its id, and how likely any
    answer is there; where they are out of documents, each with its `document`, or None."""
    asked = {name: question[name] for name in ("id", "question")} | {"answerable": answers[0]["answerable"]}
    names = [name for name in (*COLUMNS, "document") if name in answers[0]]
    return [asked | {"answer": a["text"]} | {name: a[name] for name in names} for a in answers]


def json_lines(rows: list[list[dict]], top_k: int, ascii_only: bool = False) -> str:
    """A line for each question. With top_k > 1 further answers are its `alternatives`, without the question."""
    lines = []
    for best, *others in rows:
        less = [{name: other[name] for name in other if name not in ASKED} for other in others]
        more = {"alternatives": less} if top_k > 1 else {}
        lines.append(json.dumps(best | more, ensure_ascii=ascii_only) + "\n")
    return "".join(lines)


def csv_lines(rows: list[list[dict]]) -> str:
    """A line for each question. With top_k > 1 further answers are in columns answer_2, start_2 and so on."""
    text = io.StringIO()
    csv.writer(text).writerows(
        [*(row[0][name] for name in ASKED), *(cell for answer in row for cell in csv_cells(answer))] for row in rows
    )
    return text.getvalue()


def csv_cells(answer: dict) -> list:
    cells = [answer[name] for name in COLUMNS]
    if "document" in answer:
        cells += [(answer["document"] or {}).get(name) for name in DOCUMENT]
    return cells


def csv_header(top_k: int, documents: bool) -> str:
    names = [*COLUMNS, *(f"document_{name}" for name in DOCUMENT if documents)]
    columns = [f"{name}_{n}" if n > 1 else name for n in range(1, top_k + 1) for name in names]
    # Excel takes CSV without a mark for the system's encoding
    return "\ufeff" + ",".join([*ASKED, *columns]) + "\r\n"


def bad_line(question: Record) -> str:
    """A record of the side file, as a line of JSON."""
    where, number = question.place.split()
    return json.dumps({where: int(number), "reason": question.fault, "text": question.text}) + "\n"


class AnswerStream(AbstractContextManager):
    """A stream as the place of the answers; bad records go to the log."""

    done, is_complete = 0, False  # a stream resumes nothing

    def __init__(self, stream: BinaryIO, top_k: int, ascii_only: bool):
        self.stream, self.top_k, self.ascii_only = stream, top_k, ascii_only
        self.counts = [0, 0]  # of answers, of bad records

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, rows: list[list[dict]], bad: list[Record], done: int) -> None:
        """Writes a group. Raises OSError."""
        for question in bad:
            logger.warning(f"{question.place}: {printable(question.fault)}")
        self.counts = [self.counts[0] + len(rows), self.counts[1] + len(bad)]
        self.stream.write(json_lines(rows, self.top_k, self.ascii_only).encode())
        self.stream.flush()

    def discard(self) -> None:
        pass

    def finish(self, seconds: float, answered: int) -> str:
        if bad := self.counts[1]:
            logger.warning(f"{bad:,} bad record(s) were left out, named above")
        return f"{answered:,} answers in {seconds:.1f} s ({answered / max(seconds, 1e-9):.1f}/s)"


class AnswerFile(AbstractContextManager):
    """The file `path` of answers, and beside it the bad records and how far it goes, or that it is complete.

    done: records of the input that an earlier run has finished. is_complete: whether it has finished all, with the same
    result as this run would have. run: what the answers depend on, or a function that tells it when nobody else can
    write here; {} where no run can be resumed. documents: whether answers have one. is_shard: one of many in a folder:
    what another device has completed is taken, and what it has not, or what was begun with another input, starts over
    instead of being refused. Raises InUse while another process has the file, QAError where one can't be written, or
    belongs to another run.
    """

    def __init__(
        self, path: Path, top_k: int, run: dict | Callable[[], dict], overwrite: bool, documents: bool = False,
        is_shard: bool = False,
    ):  # fmt: skip
        self.path, self.top_k, self.documents, self.is_shard = path, top_k, documents, is_shard
        self.resume = RESUME if run else "start over with --overwrite"
        self.bad_path, self.progress_path, self.done_path, self.lines_path = paths_beside(path)
        self.done, self.counts, self.sizes = 0, [0, 0], [0, 0]  # counts and bytes: of answers, of bad records
        self.files: list[BinaryIO] = []  # none before there is something to write
        with ExitStack() as held, explain_write_failure(path):
            held.enter_context(locked(lock_path(path), "another run, process", path, "--output"))
            self.run = run() if callable(run) else run
            if progress := self.earlier_progress(overwrite):
                self.done, self.counts, self.sizes = progress["done"], progress["counts"], progress["sizes"]
            self.is_complete = progress is not None and not self.progress_path.exists()
            self.held = held.pop_all()

    def open(self) -> None:
        """Opens the files, cut to what an earlier run wrote and counted. Raises as the class, and OSError."""
        if self.run:  # before anything else is written, so that whatever a crash leaves belongs to a run
            self.save_progress()
        patiently(self.done_path.unlink, True)
        for path in (self.lines_path, self.bad_path):
            self.files.append(path.open("ab"))
        # after a power cut there may be what the progress says of them, but no such files
        sync_entries(self.path.parent)
        for file, size in zip(self.files, self.sizes, strict=True):
            file.truncate(size)
        if not self.run:
            patiently(self.progress_path.unlink, True)

    def earlier_progress(self, overwrite: bool) -> dict | None:
        """How far an earlier run came that can be resumed, or is complete; None where this one starts over."""
        is_complete, replace = not self.progress_path.exists(), REPLACE_SHARD if self.is_shard else REPLACE
        written = (self.path if is_complete else self.lines_path), self.bad_path
        sizes = [path.stat().st_size if path.exists() else 0 for path in written]
        if is_complete and (overwrite or not any(sizes)):
            return None
        if is_complete and not (self.done_path.exists() and self.run):
            there = self.path if sizes[0] else self.bad_path
            raise QAError(f"{there} is there already. {replace}")
        path, advice = (self.done_path, replace) if is_complete else (self.progress_path, START_OVER)
        try:
            progress = read_json_object(path, "what a run of answering leaves", advice)
            changed = changed_names(self.run, progress.get("run"))
            if self.is_shard and is_complete and changed == ["device"]:
                changed = []
            if self.is_shard and not is_complete and changed and OF_A_SHARD.issuperset(changed):
                logger.info(f"{shown(self.path)} was begun with another {', '.join(changed)}: starting over")
                return None
            if not self.run:
                problem = "was begun with a file as --input"
            elif changed:
                problem = f"was {'answered' if is_complete else 'begun'} with another {', '.join(changed)}"
            elif not is_progress(progress):
                problem = f"{path} is damaged"
            elif any(size < written for size, written in zip(sizes, progress["sizes"], strict=True)):
                problem = "it or its file of bad records lost lines that were written"
            elif is_complete and sizes != progress["sizes"]:
                problem = "it or its file of bad records was changed since"
            else:
                return progress
            raise QAError(
                f"{self.path} is {'there already' if is_complete else 'not complete'}, and {problem}. {advice}"
            )
        except QAError:
            if not overwrite:
                raise
        return None

    def save_progress(self, path: Path | None = None) -> None:
        path = path or self.progress_path
        progress = {"run": self.run, "done": self.done, "counts": self.counts, "sizes": self.sizes}
        with explain_write_failure(path, self.resume):
            write_json(path, progress)

    def __exit__(self, *_: object) -> None:
        self.close()
        self.held.close()

    def close(self) -> None:
        for file in self.files:
            with suppress(OSError):  # what could not be written was said, and will be cut
                file.close()

    def write(self, rows: list[list[dict]], bad: list[Record], done: int) -> None:
        """Adds a group, after which `done` records are finished, on the disk before the progress says so."""
        if self.path.suffix.lower() == ".csv":
            text = (csv_header(self.top_k, self.documents) if self.done == 0 else "") + csv_lines(rows)
        else:
            text = json_lines(rows, self.top_k)
        with explain_write_failure(self.path, self.resume):
            if not self.files:
                self.open()
            for file, content in zip(self.files, (text, "".join(map(bad_line, bad))), strict=True):
                file.write(content.encode())
                file.flush()
                os.fsync(file.fileno())
        self.done = done
        self.counts = [self.counts[0] + len(rows), self.counts[1] + len(bad)]
        # not tell(): of a file that was cut it may say another place until something is written
        self.sizes = [os.fstat(file.fileno()).st_size for file in self.files]
        if self.run:
            self.save_progress()

    def discard(self) -> None:
        """Leaves nothing of this run."""
        self.close()
        with explain_write_failure(self.path, self.resume):
            if self.files or self.done:  # else what is there is an earlier run's
                for path in (self.lines_path, self.bad_path, self.progress_path):
                    patiently(path.unlink, True)

    def finish(self, seconds: float, answered: int) -> str:
        """All is answered: what tells how far this run came says so from now on."""
        answers, bad = self.counts
        self.close()
        if not self.is_complete:
            with explain_write_failure(self.path, self.resume):
                if not bad:
                    patiently(self.bad_path.unlink, True)
                if self.lines_path != self.path:
                    write_parquet(self.lines_path, self.path, self.top_k, self.documents)
                    self.sizes = [self.path.stat().st_size, self.sizes[1]]
                if self.run:  # while both are there the run is not complete
                    self.save_progress(self.done_path)
                    patiently(self.progress_path.unlink, True)
                sync_entries(self.path.parent)
        if self.lines_path != self.path:
            with explain_write_failure(self.lines_path, self.resume):
                patiently(self.lines_path.unlink, True)
        if bad:
            logger.warning(f"{bad:,} bad record(s) were left out: see {shown(self.bad_path)}")
        if self.is_complete:
            return f"{shown(self.path)} is complete: {answers:,} answers to the same input. Answer again: --overwrite"
        rate = answered / max(seconds, 1e-9)
        now = f", {answered:,} of them now" if answered < answers else ""
        return f"wrote {answers:,} answers to {shown(self.path)}{now} ({rate:.1f}/s)"
