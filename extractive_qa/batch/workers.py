"""Shards answered by several processes of this machine.

The parent opens no model. It gives each worker a shard when it has none, and hears of it over a pipe: one each, as what
several share would stay locked where one is killed. Workers are spawned, never forked. What one that died left behind
is resumed by the next; shards in other runs' hands, of this machine or another, are asked for again until all is done.
"""

import logging
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

from extractive_qa.batch.folder import Work
from extractive_qa.batch.run import BAR
from extractive_qa.batch.shards import Outcome, Shard, is_taken
from extractive_qa.data.formats import size_of
from extractive_qa.errors import QAError
from extractive_qa.progress import NoProgress

logger = logging.getLogger(__name__)

DEATHS = 3  # of workers one after the other, without an answer in between, after which nobody else is sent
AGAIN = 2.0  # seconds until a shard is asked for again that another run has


def threads_of(workers: int) -> int | None:
    """The threads of each of several workers, of the processors that this process may use; None: as one has them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers) if workers > 1 else None


# a worker


def live(pipe: connection.Connection, number: int, work: Work) -> None:
    """The life of a worker: shards come in, and go out as Outcome."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    threading.Thread(target=end_with_parent, daemon=True).start()
    log = logging.getLogger("extractive_qa")
    log.addHandler(Sender(pipe))
    log.setLevel(logging.INFO)
    log.propagate = False
    with suppress(BrokenPipeError, ConnectionResetError, EOFError):  # of a parent that has gone
        try:
            answerer = work.start(number)
        except QAError as error:
            pipe.send(("refused", str(error)))
            return
        pipe.send(("ready",))
        while True:
            pipe.send(("outcome", answerer.answer(pipe.recv(), lambda *told: pipe.send(("told", *told)))))


def end_with_parent() -> None:
    """Whatever is left is in order, as after any kill."""
    connection.wait([parent_process().sentinel])
    os._exit(1)


class Sender(logging.Handler):
    """Has the parent log what is logged here."""

    def __init__(self, pipe: connection.Connection):
        super().__init__()
        self.pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self.pipe.send(("log", record.levelno, record.getMessage()))


# the parent


class Turns:
    """Which shard comes next: free ones first, then what was complete or in other hands when its turn came."""

    def __init__(self, shards: Iterable[Shard]):
        self.free = deque(shards)
        self.later: deque[tuple[float, Shard]] = deque()  # not before that time

    def next(self) -> Shard | None:
        """None where there is nothing for the moment."""
        while self.free:
            shard = self.free.popleft()
            if not is_taken(shard):
                return shard
            self.later.append((0.0, shard))
        if self.later and self.later[0][0] <= time.monotonic():
            return self.later.popleft()[1]
        return None

    def wait_for(self, shard: Shard) -> None:
        """Has a shard that another run has come again."""
        if not any(begin for begin, _ in self.later):
            logger.info(f"waiting for what another run answers, as {shard.target}")
        self.later.append((time.monotonic() + AGAIN, shard))


@dataclass
class Worker:
    process: object
    pipe: connection.Connection
    shard: Shard | None = None
    is_ready: bool = False
    told: tuple[int, int] = field(default=(0, 0))  # bytes of its shard that are done, answers of now

    def give(self, shard: Shard | None) -> None:
        self.shard, self.told = shard, (0, 0)
        if shard:
            with suppress(OSError):  # it has died, which its end of the pipe will say
                self.pipe.send(shard)


def answer_shards(
    shards: list[Shard], work: Work, workers: int = 1, progress: Callable = NoProgress, begin: Callable = live
) -> list[Outcome]:
    """Answers `shards` with so many processes, as `work` has it, and returns what came of each, in order. One that
    can't be read has a fault, and the others go on. progress: called like tqdm, in bytes of the files.

    A program that calls this must be guarded by `if __name__ == "__main__":`, as multiprocessing says. Raises QAError
    where no worker can start, or the folder of answers is of another run.
    """
    sizes = {shard: size_if_there(shard.source) for shard in shards}
    threads = work.reader.get("threads") or threads_of(workers)
    work = work._replace(reader=work.reader | {"threads": threads})
    with progress(total=sum(sizes.values()), **BAR) as bar:
        crew = Crew(shards, partial(begin, work=work), min(workers, len(shards)))
        began = time.monotonic()
        try:
            while len(crew.outcomes) < len(shards):
                crew.listen()
                done = sum(sizes[shard] for shard in crew.outcomes) + sum(one.told[0] for one in crew.workers)
                now = sum(one.now for one in crew.outcomes.values()) + sum(one.told[1] for one in crew.workers)
                rate = now / max(time.monotonic() - began, 1e-9)
                bar.set_postfix_str(f"{len(crew.outcomes):,} files, {now:,} questions, {rate:.1f}/s", refresh=False)
                bar.update(done - bar.n)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped after {len(crew.outcomes):,} of {len(shards):,} files. To resume, run the same command again"
            ) from None
        finally:
            crew.end()
    return [crew.outcomes[shard] for shard in shards]


def size_if_there(path: Path) -> int:
    with suppress(OSError):
        return size_of(path)
    return 0


class Crew:
    """The workers of a run. begin: what one does, called with its end of a pipe and its number."""

    def __init__(self, shards: list[Shard], begin: Callable, most: int):
        self.turns, self.begin = Turns(shards), begin
        self.outcomes: dict[Shard, Outcome] = {}
        self.said: set[tuple] = set()  # what workers logged
        self.deaths: Counter = Counter()  # of workers by shard, None: before they had one
        self.workers: list[Worker] = [self.hire(number) for number in range(most)]

    def hire(self, number: int) -> Worker:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=self.begin, args=(theirs, number), name=f"worker {number + 1}", daemon=True)
        process.start()
        theirs.close()  # so that its death ends the pipe
        return Worker(process, ours)

    def listen(self) -> None:
        """Gives shards to who has none, waits a moment, and takes what came."""
        for worker in self.workers:
            if worker.is_ready and not worker.shard:
                worker.give(self.turns.next())
        by_pipe = {worker.pipe: number for number, worker in enumerate(self.workers)}
        for pipe in connection.wait(list(by_pipe), timeout=0.5):
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                self.replace(by_pipe[pipe])
            else:
                self.take(self.workers[by_pipe[pipe]], *message)

    def take(self, worker: Worker, kind: str, *values: object) -> None:
        if kind == "log":
            if values not in self.said:  # each worker has the same to say of the model
                logger.log(*values)
            self.said.add(values)
        elif kind == "refused":
            raise QAError(*values)
        elif kind == "ready":
            worker.is_ready = True
            self.deaths[None] = 0
        elif kind == "told":
            worker.told = values
        elif (outcome := values[0]).in_use:
            self.turns.wait_for(outcome.shard)
            worker.give(None)
        else:
            if outcome.fault:
                logger.warning(f"left out: {outcome.fault}")
            self.outcomes[outcome.shard] = outcome
            worker.give(None)

    def replace(self, number: int) -> None:
        """Hires another in the place of a worker that died, and has its shard taken over."""
        worker = self.workers[number]
        worker.pipe.close()
        worker.process.join()
        shard, code = worker.shard, worker.process.exitcode
        cause = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
        self.deaths[shard] = 1 + (0 if worker.told[1] else self.deaths[shard])
        if self.deaths[shard] < DEATHS:
            logger.warning(f"{worker.process.name} died ({cause}): another one goes on")
            if shard:
                self.turns.free.appendleft(shard)
        elif shard:
            fault = f"{shard.source}: {DEATHS} workers died of it, the last one by {cause}. Is memory full? Try fewer"
            self.take(worker, "outcome", Outcome(shard, fault=f"{fault} --workers, or a smaller --batch_size."))
        else:
            raise QAError(f"workers die as they start, the last one by {cause}. Is memory full? Try fewer --workers.")
        self.workers[number] = self.hire(number)

    def end(self) -> None:
        for worker in self.workers:
            worker.pipe.close()  # at which one that waits for a shard ends
            if worker.shard or not worker.is_ready:
                worker.process.kill()
            worker.process.join()
