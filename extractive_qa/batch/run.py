"""Answers a file of questions into a file of answers, and resumes after a crash.

Questions are answered in groups that end at fixed places of the input (question_stream.py): a group is what shares
batches, so a run that was stopped and resumed writes the same bytes as one that was not. It resumes by reading the
input from its beginning, without answering what is answered: so every id is known again.
"""

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from extractive_qa.batch.answer_file import FORMAT, AnswerFile, AnswerStream, answer_row, bad_path, progress_path
from extractive_qa.batch.question_stream import check_questions, grouped
from extractive_qa.data.examples import Ids
from extractive_qa.data.formats import Record, check_path, files_of, read_pipe, read_records, size_of
from extractive_qa.errors import QAError
from extractive_qa.files.manifest import sha256_of
from extractive_qa.model.backends import OnnxBackend
from extractive_qa.model.folder import ONNX_FILES, files_that_decide
from extractive_qa.progress import NoProgress
from extractive_qa.text import shown

logger = logging.getLogger(__name__)


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
    for own in (target, bad_path(target), progress_path(target)):
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
) -> str:
    """Answers the questions of the file `source`, or of a stream of JSON Lines, with a Reader, into the file `target`,
    or a stream, as JSON Lines. Returns what was done, in words.

    min_confidence: below it an answer has no text. overwrite: replaces answers that are there, of a finished run, or of
    an unfinished one that can't be resumed. ascii_only: of a stream, whether other characters are written as \\u00e9.
    progress: called like tqdm for a file, in bytes; shows questions a second, and the time left by what is read of it.
    Raises QAError where something can't be read or written, or the answers there came from something else; OSError
    where the stream `target` can't be written.
    """
    from_file = isinstance(source, Path)
    if not isinstance(target, Path):
        output = AnswerStream(target, top_k, ascii_only)
    elif from_file:
        output = AnswerFile(target, top_k, what_answers_depend_on(reader, source, top_k, min_confidence), overwrite)
    else:  # what was read from a pipe can't be read again: no resuming
        output = AnswerFile(target, top_k, {}, overwrite)
    with output:
        if output.done:
            logger.info(f"{shown(target)} was begun before: resuming after {output.done:,} questions")
        if from_file:
            groups = file_groups(source, output.done, progress)
        else:
            groups = grouped(check_questions(read_pipe(source), Ids(None)))
        began, answered = time.monotonic(), 0
        try:
            for group in groups:
                good = [question for question in group if not question.fault]
                best = reader.answer_all([q.content for q in good], top_k, min_confidence=min_confidence)
                rows = [answer_row(q.content["id"], answers) for q, answers in zip(good, best, strict=True)]
                output.write(rows, [question for question in group if question.fault], group[-1].number)
                answered += len(rows)
        except KeyboardInterrupt:
            if not (from_file and isinstance(output, AnswerFile)):
                raise
            raise KeyboardInterrupt(f"stopped after {output.counts[0]:,} answers. To resume, {output.resume}") from None
        return output.finish(time.monotonic() - began, answered)


def file_groups(path: Path, done: int, progress: Callable) -> Iterator[list[Record]]:
    """The groups of a file behind its first `done` records."""
    read = partial(read_records, path, with_answers=False)
    questions = check_questions(read(), Ids(read))
    begin = 0
    for question in islice(questions, done):
        begin = question.end
    layout = "{l_bar}{bar}| [{elapsed}<{remaining}{postfix}]"
    began = time.monotonic()
    with progress(desc="answering", total=size_of(path), initial=begin, unit=" bytes", bar_format=layout) as bar:
        for group in grouped(questions):
            yield group
            end = group[-1]
            rate = (end.number - done) / max(time.monotonic() - began, 1e-9)
            bar.set_postfix_str(f"{end.number:,} questions, {rate:.1f}/s", refresh=False)
            bar.update(end.end - bar.n)


def what_answers_depend_on(reader, source: Path, top_k: int, min_confidence: float) -> dict:
    """What must be as it was for a run to be resumed: {what: how to know it}."""
    backend, paths = reader.backend, files_that_decide(reader.model_dir)
    if isinstance(backend, OnnxBackend):
        paths.append(reader.model_dir / ONNX_FILES[backend.precision])
    return {
        "input": [sha256_of(path) for path in files_of(source)],
        "kind of input": source.suffix.lower(),
        "model": {path.name: sha256_of(path) for path in paths},
        "device": backend.describe(),
        "precision": backend.precision,
        "batch_size": reader.batch_size,
        "top_k": top_k,
        "min_confidence": min_confidence,
        "settings": reader.settings,
        "format": FORMAT,
    }
