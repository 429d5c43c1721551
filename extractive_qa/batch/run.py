"""Answers a file of questions into a file of answers, and resumes after a crash.

Questions are answered in groups that end at fixed places of the input (question_stream.py): a group is what shares
batches, so a run that was stopped and resumed writes the same bytes as one that was not. It resumes by reading the
input from its beginning, without answering what is answered: so every id is known again.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from extractive_qa.batch.answer_file import FORMAT, AnswerFile, AnswerStream, answer_row, paths_beside
from extractive_qa.batch.question_stream import check_questions, grouped
from extractive_qa.data.examples import Ids
from extractive_qa.data.formats import (
    FORMATS,
    Record,
    check_path,
    files_of,
    read_pipe,
    read_records,
    reading,
    size_of,
    suffix_of,
)
from extractive_qa.errors import QAError
from extractive_qa.files.manifest import sha256_of
from extractive_qa.model.backends import OnnxBackend
from extractive_qa.model.folder import files_that_decide
from extractive_qa.progress import NoProgress
from extractive_qa.text import printable, shown

logger = logging.getLogger(__name__)

BAR = {
    "desc": "answering", "unit": " bytes", "leave": False,
    "bar_format": "{l_bar}{bar}| [{elapsed}<{remaining}{postfix}]",
}  # fmt: skip
FAULTS_SHOWN = 5  # where no record is good
MOST_WAITING = 10_000  # bad records in front of the first answer


def check_paths(source: Path | None, target: Path | None) -> None:
    """What can be said before a model is loaded; None is a pipe. Raises QAError where the input is nothing to read, or
    the output is no place to write to."""
    if source:
        check_path(source)
    if target is None:
        return
    if not target.parent.is_dir():
        raise QAError(f"{target.parent} is missing. Expected a folder for the answers: make it, or change --output.")
    if target.exists() and not target.is_file():
        raise QAError(f"{target} is a folder, a device or a pipe. Expected a file; standard output is written to as -.")
    if source is None:
        return
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise QAError(f"{target} is in the folder that is --input. Choose another --output.")
    for own in (target, *paths_beside(target)):
        if own.exists() and own.samefile(source):
            raise QAError(f"{own} would be written to, but it is --input. Choose another --output.")


def answer_file(
    reader,
    source: Path | BinaryIO,
    target: Path | BinaryIO,
    top_k: int = 1,
    min_confidence: float = 0.0,
    overwrite: bool = False,
    ascii_only: bool = False,
    progress: Callable = NoProgress,
    renumber_ids: bool = False,
    encoding: str = "utf-8",
    index=None,
    passages: int = 10,
) -> str:
    """Answers the questions of the file `source`, or of a stream of JSON Lines, with a Reader, into the file `target`,
    or a stream, as JSON Lines. Returns what was done, in words.

    index: a DocumentIndex. Then no record needs a context, each question is asked of the best of its passages, up to
    `passages` of them, and each answer has its `document`.

    min_confidence: below it an answer has no text. overwrite: replaces answers that are there, of a finished run, or of
    an unfinished one that can't be resumed. ascii_only: of a stream, whether other characters are written as \\u00e9.
    progress: called like tqdm for a file, in bytes; shows questions a second, and the time left by what is read of it.
    renumber_ids, encoding: as read_examples has them; a pipe is UTF-8.
    A finished run with the same input, model and settings is left as it is. Raises QAError where something can't be
    read or written, no record is a question, or the answers there came from something else; OSError where the stream
    `target` can't be written.
    """
    asked = {
        "top_k": top_k, "min_confidence": min_confidence, "renumber_ids": renumber_ids, "encoding": encoding,
        "index": index, "passages": passages,
    }  # fmt: skip
    from_file = isinstance(source, Path)
    if not isinstance(target, Path):
        output = AnswerStream(target, top_k, ascii_only)
    elif from_file:
        run = partial(what_answers_depend_on, reader, source, settings_of(reader, **asked))
        output = AnswerFile(target, top_k, run, overwrite, index is not None)
    else:  # what was read from a pipe can't be read again: no resuming
        output = AnswerFile(target, top_k, {}, overwrite, index is not None)
    with output:
        if output.is_complete:
            return output.finish(0, 0)
        began = time.monotonic()
        try:
            answered = answer_into(output, reader, source, progress, **asked)
        except KeyboardInterrupt:
            if not (from_file and isinstance(output, AnswerFile)):
                raise
            raise KeyboardInterrupt(f"stopped after {output.counts[0]:,} answers. To resume, {output.resume}") from None
        return output.finish(time.monotonic() - began, answered)


def answer_into(
    output: AnswerFile | AnswerStream, reader, source: Path | BinaryIO, progress: Callable, top_k: int,
    min_confidence: float, renumber_ids: bool, encoding: str, index, passages: int,
) -> int:  # fmt: skip
    """Answers what `output`, which is open, does not have yet. Returns how many; the rest is answer_file's."""
    from extractive_qa.reader import DOCUMENT_QUESTIONS_AT_ONCE  # with libraries: not where a path alone is checked

    from_file, names = isinstance(source, Path), ("question",) if index else ("question", "context")
    if output.done:
        logger.info(f"{shown(output.path)} was begun before: resuming after {output.done:,} questions")
    read = partial(read_records, source, columns=names, encoding=encoding)
    ids = Ids(read if from_file else None, renumber_ids)
    questions = check_questions(read() if from_file else read_pipe(source), ids, names)
    end = 0  # bytes of the file, up to which all is done
    for question in islice(questions, output.done):
        end = question.end
    began, answered, bad, faults = time.monotonic(), 0, [], []
    with bar_of(source, end, progress) if from_file else NoProgress() as bar:
        for group in grouped(questions, DOCUMENT_QUESTIONS_AT_ONCE if index else None):
            examples = [question.content for question in group if not question.fault]
            each_batch = moves(bar, end, group[-1].end)
            if index:
                asked = [example["question"] for example in examples]
                best = index.answers(reader, asked, passages, top_k, min_confidence, each_batch)
            else:
                best = reader.answer_all(examples, top_k, min_confidence=min_confidence, each_batch=each_batch)
            rows = [answer_row(*pair) for pair in zip(examples, best, strict=True)]
            faulty = [question for question in group if question.fault]
            bad, faults = bad + faulty, (faults + faulty)[:FAULTS_SHOWN]
            # earlier answers are replaced by answers only: bad records before the first one wait
            if rows or output.counts[0] or len(bad) > MOST_WAITING:
                output.write(rows, bad, group[-1].number)
                bad = []
            answered, end = answered + len(rows), group[-1].end
            rate = answered / max(time.monotonic() - began, 1e-9)
            bar.set_postfix_str(f"{sum(output.counts):,} questions, {rate:.1f}/s", refresh=False)
            bar.update(end - bar.n)
    if not output.counts[0]:
        output.discard()
        name = source if from_file else "standard input"
        raise QAError(nothing_answered(name, output.counts[1] + len(bad), faults, names))
    return answered


def bar_of(path: Path, done: int, progress: Callable) -> AbstractContextManager:
    """A bar that advances through the bytes of a file, and goes when it is through."""
    return progress(total=size_of(path), initial=done, **BAR)


def moves(bar, begin: int, end: int) -> Callable[[int, int, int], None]:
    """The each_batch of Reader.answer_all that moves a bar from `begin` to `end`, window by window."""
    return lambda done, windows, _: bar.update(begin + (end - begin) * done // windows - bar.n)


def nothing_answered(name: Path | str, bad: int, faults: list[Record], names: tuple[str, ...]) -> str:
    """What there is to say of an input without a good question. faults: of some of its `bad` records."""
    if not bad:
        return f"{name} holds no question. Expected {FORMATS if isinstance(name, Path) else 'JSON Lines'}."
    listed = "".join(f"\n  {record.place}: {printable(record.fault)}" for record in faults)
    more = f"\n  ... and {bad - len(faults):,} more" if bad > len(faults) else ""
    return (
        f"{name}: none of its {bad:,} record(s) can be answered:{listed}{more}\n"
        f"No file was written. Expected {' and '.join(names)} in each record, and no id twice."
    )


def settings_of(
    reader, top_k: int, min_confidence: float, renumber_ids: bool, encoding: str, index, passages: int
) -> dict:
    """What must be as it was for a run to be resumed, but for the input and the device: {what: how to know it}."""
    backend, paths = reader.backend, files_that_decide(reader.model_dir)
    if isinstance(backend, OnnxBackend):
        paths.append(backend.path)
    return {
        "model": {path.name: sha256_of(path) for path in paths},
        "precision": backend.precision, "batch_size": reader.batch_size, "settings": reader.settings,
        "format": FORMAT, "top_k": top_k, "min_confidence": min_confidence, "renumber_ids": renumber_ids,
        "encoding": encoding, "documents": index and index.sha256(), "passages": index and passages,
    }  # fmt: skip


def what_answers_depend_on(reader, source: Path, settings: dict) -> dict:
    """Of one file. settings: as settings_of gives them. Raises QAError where the file can't be read."""
    with reading(source, FORMATS):
        digests = [sha256_of(path) for path in files_of(source)]
    input_is = {"input": digests, "kind of input": suffix_of(source)}
    return input_is | {"device": reader.backend.describe()} | settings
