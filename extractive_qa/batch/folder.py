"""The folder of the answers to many files.

A shard is answered by whoever has its lock, a process here or on another machine that sees the same folder. A lock ends
with the process that has it, and whoever comes next resumes the shard. RUN says what all answers in the folder depend
on: no answers of two models or settings meet there.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from extractive_qa.batch.answer_file import (
    RESUME,
    START_OVER,
    AnswerFile,
    changed_names,
    done_path,
    lock_path,
    paths_beside,
    progress_path,
)
from extractive_qa.batch.run import answer_into, settings_of, what_answers_depend_on
from extractive_qa.batch.shards import Outcome, Shard
from extractive_qa.errors import QAError
from extractive_qa.files.atomic import explain_write_failure, make_folder, patiently, write_json
from extractive_qa.files.locks import InUse, locked, when_free
from extractive_qa.files.reading import read_json_object
from extractive_qa.model.backends import may_have_gpu
from extractive_qa.progress import NoProgress
from extractive_qa.text import printable, shown

RUN = "run.json"
OPTIONS = ("top_k", "min_confidence", "renumber_ids", "encoding", "passages")  # of answer_file
ANOTHER = "another run, process"
FAULTS_SHOWN = 10
PATIENCE = 10.0  # seconds, while another process writes RUN
INDEX_PATIENCE = 600.0  # seconds, while other workers open the index of documents
TELL_EVERY = 0.5  # seconds


def answer_folder(
    folder: Path, shards: list[Shard], answer: Callable[[list[Shard]], list[Outcome]], overwrite: bool = False
) -> tuple[str, str]:
    """Has `answer` answer `shards` into `folder`. Returns what was done, and what is wrong with files that could not be
    answered ("" where nothing is), in words. overwrite: removes earlier answers first.

    Raises QAError where the folder is of another run or can't be written, or a run goes on that would be overwritten.
    """
    began = time.monotonic()
    with explain_write_failure(folder):
        make_folder(folder)
    if overwrite:
        start_over(folder, shards)
    try:
        outcomes = answer(shards)
    finally:
        forget_unused(folder)
    return summary(outcomes, folder, time.monotonic() - began), faults_of(outcomes)


def claim(folder: Path, run: dict) -> None:
    """Has RUN say what the answers in `folder` depend on. Raises QAError where it says something else."""
    path = folder / RUN

    def write() -> None:
        with explain_write_failure(path), locked(lock_path(path), ANOTHER, path, "--output"):
            if not path.exists():
                write_json(path, run)

    if not path.exists():
        when_free(write, PATIENCE)
    was = read_json_object(path, "what answering several files leaves", START_OVER)
    if changed := changed_names(run, was):
        raise QAError(f"{folder} was begun with another {', '.join(changed)}. {START_OVER}")


def start_over(folder: Path, shards: Iterable[Shard]) -> None:
    """Removes the answers to `shards` from `folder`, and what earlier runs left there. Raises InUse where one goes
    on."""
    targets = {shard.target for shard in shards}
    for end in ("done", "progress"):
        targets |= {path.with_suffix("") for path in folder.rglob(f"*.{end}") if is_ours(path)}
    for lock in filter(Path.exists, map(lock_path, targets)):
        with locked(lock, ANOTHER, lock.with_suffix(""), "--output"):
            pass
    with explain_write_failure(folder):
        patiently((folder / RUN).unlink, True)
        for target in targets:
            # how far it came last: what is left where this is stopped is known as ours
            last = progress_path(target), done_path(target)
            for path in (target, *sorted(paths_beside(target), key=last.__contains__)):
                patiently(path.unlink, True)


def is_ours(path: Path) -> bool:
    """Whether a file says how far a run came, and not something else by such a name."""
    with suppress(QAError):
        return read_json_object(path, "").keys() >= {"run", "done", "counts", "sizes"}
    return False


def forget_unused(folder: Path) -> None:
    """Removes RUN where no answer came to the folder: the corrected command may have other settings."""
    if not any(next(folder.rglob(f"*.{end}"), None) for end in ("done", "progress", "lock")):
        with suppress(OSError):
            (folder / RUN).unlink(missing_ok=True)
            folder.rmdir()


class ShardAnswerer:
    """Answers shards into a folder with a Reader. options: of answer_file, those called OPTIONS. index: a DocumentIndex
    or None. Raises QAError where the folder is of another run."""

    def __init__(self, reader, folder: Path, options: dict, index=None):
        self.reader, self.asked = reader, options | {"index": index}
        self.settings = settings_of(reader, **self.asked)
        claim(folder, self.settings)

    def answer(self, shard: Shard, told: Callable[[int, int], object] = lambda done, answers: None) -> Outcome:
        """Answers what is left of a shard. told(bytes of the file that are done, answers of now): called now and
        then."""
        run = partial(what_answers_depend_on, self.reader, shard.source, self.settings)
        try:
            with explain_write_failure(shard.target):
                make_folder(shard.target.parent)
            documents, began, now = self.asked["index"] is not None, time.monotonic(), 0
            with AnswerFile(shard.target, self.asked["top_k"], run, False, documents, True) as output:
                if not output.is_complete:
                    before = output.counts[0]
                    bar = partial(Told, lambda done: told(done, output.counts[0] - before))
                    now = answer_into(output, self.reader, shard.source, bar, **self.asked)
                output.finish(time.monotonic() - began, now)
                return Outcome(shard, *output.counts, now)
        except InUse:
            return Outcome(shard, in_use=True)
        except QAError as error:
            return Outcome(shard, fault=str(error))


class Told(NoProgress):
    """The bar of a file's bytes, told of now and then instead of shown."""

    def __init__(self, tell: Callable[[int], object], **settings: object):
        super().__init__(**settings)
        self.tell, self.last = tell, 0.0

    def update(self, n: int = 1) -> None:
        super().update(n)
        if time.monotonic() - self.last > TELL_EVERY:
            self.last = time.monotonic()
            self.tell(self.n)


class Work(NamedTuple):
    """What a process needs to answer shards; it can be pickled. reader: arguments of Reader. options: of answer_file,
    those called OPTIONS. documents: the arguments of DocumentIndex, None where each question has its text."""

    folder: Path
    reader: dict
    options: dict
    documents: tuple[Path, Path] | None = None

    def start(self, number: int = 0) -> ShardAnswerer:
        """The answerer of worker `number`. Raises QAError where it can't be had."""
        from extractive_qa.documents.index import DocumentIndex
        from extractive_qa.reader import Reader

        index = self.documents and when_free(partial(DocumentIndex, *self.documents), INDEX_PATIENCE)
        reader = Reader(**self.reader | {"device": device_of(number, self.reader)})
        return ShardAnswerer(reader, self.folder, self.options, index)


def device_of(number: int, reader: dict) -> str:
    """The device of worker `number`, from 0: of several GPUs each has its own, as far as they go."""
    device = reader["device"]
    if device not in ("auto", "cuda") or is_for_cpu(reader) or not may_have_gpu():
        return device
    import torch

    gpus = torch.cuda.device_count()
    return f"cuda:{number % gpus}" if gpus > 1 else device


def is_for_cpu(reader: dict) -> bool:
    """Whether arguments of Reader can mean nothing but a CPU."""
    return reader["device"] == "cpu" or reader["backend"] == "onnx" or reader["mixed_precision"] == "int8"


def summary(outcomes: list[Outcome], folder: Path, seconds: float) -> str:
    """What was done, in words."""
    good = [outcome for outcome in outcomes if not outcome.fault]
    answers, bad, now = (sum(getattr(one, name) for one in good) for name in ("answers", "bad", "now"))
    files = f"{answers:,} answers to {len(good):,} of {len(outcomes):,} files"
    left_out = f", {bad:,} bad record(s) left out" if bad else ""
    if len(good) == len(outcomes) and not now:
        return f"{shown(folder)} is complete: {files}{left_out}. Answer again: --overwrite"
    return f"{shown(folder)} has {files}{left_out}; {now:,} answers of now ({now / max(seconds, 1e-9):.1f}/s)"


def faults_of(outcomes: list[Outcome]) -> str:
    """What is wrong with the files that could not be answered, in words; "" where there are none."""
    bad = [outcome for outcome in outcomes if outcome.fault]
    if not bad:
        return ""
    listed = "".join(f"\n  {printable(one.fault)}" for one in bad[:FAULTS_SHOWN])  # each names its file
    more = "".join(f"\n  {printable(str(one.shard.source))}" for one in bad[FAULTS_SHOWN:])
    return f"{len(bad):,} of {len(outcomes):,} files could not be answered:{listed}{more}\nThen {RESUME}."
