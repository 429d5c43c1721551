"""Several processes of one training or scoring, on one machine or more, as torchrun starts them: which of them are
there, what one does for all, and what is said where one is lost.

torchrun tells each process its number (RANK) and how many there are (WORLD_SIZE). One process is the usual case, and
then nothing here does anything, nor imports torch.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import chain

import numpy as np

from extractive_qa.errors import QAError, brief
from extractive_qa.progress import NoProgress
from extractive_qa.reader import QUESTIONS_AT_ONCE, Reader

# the others wait while the first one scores a model or fits its confidences. Not by this a loss is known: see Watch
PATIENCE = timedelta(hours=6)
BEAT = 3.0  # seconds between two signs of life
SILENCE = 45.0  # seconds without one, after which a process counts as lost
START = 300.0  # seconds in which a process has to give the first one
# what gloo, NCCL and the store that processes meet at say where one does not answer
LOST = re.compile(r"gloo|nccl|connection|socket|broken pipe|recvvalue|timed? ?out", re.IGNORECASE)


def rank() -> int:
    """The number of this process, from 0; the first one writes and prints."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes work together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


class Watch:
    """A block in which the processes watch one another: each gives signs of life to the store that they met at, and
    looks for those of the others. So a machine without power or network is noticed within a minute, whatever is waited
    for, and however long one process may work while the others wait. An error of communication in the block, the
    usual sign of a process that has ended, becomes a QAError.

    leave(message): ends this process, whose main thread may wait for the lost one and can't be interrupted; called in
    another thread. remedy(): what to do then. silence, start: seconds, for tests.
    """

    def __init__(
        self, leave: Callable[[str], object], remedy: Callable[[], str], silence: float = SILENCE, start: float = START
    ):
        self.leave, self.remedy, self.silence, self.start = leave, remedy, silence, start
        self.done, self.began = threading.Event(), time.monotonic()
        self.heard = {}  # process: its last sign of life, and when that came

    def __enter__(self) -> "Watch":
        if count() > 1:
            from torch.distributed import TCPStore  # here, as two threads that import torch at once disturb each other

            for work in (lambda: self.beat(TCPStore), self.look):
                threading.Thread(target=work, daemon=True).start()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.stop()
        if count() > 1 and isinstance(error, RuntimeError) and LOST.search(str(error)):
            raise QAError(
                f"another process of the {count()} has ended, or can't be reached ({brief(error)}). Its own output "
                f"says why. {self.remedy()}"
            ) from None

    def stop(self) -> None:
        """From now on each process goes its own way."""
        self.done.set()

    def beat(self, store_of: Callable) -> None:
        """Gives signs of life and notes those of the others; ends where the store has gone with its process."""
        try:
            store = store_of(
                os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False,
                timeout=timedelta(seconds=self.start),
            )  # fmt: skip
            # torchrun may start all of them again at the same store
            place, number = f"alive/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/", 0
            while not self.done.is_set():
                number += 1
                store.set(f"{place}{rank()}", str(number))
                for other in range(count()):
                    if other != rank() and store.check([f"{place}{other}"]):
                        sign = store.get(f"{place}{other}")
                        if sign != self.heard.get(other, (None,))[0]:
                            self.heard[other] = sign, time.monotonic()
                self.done.wait(min(BEAT, self.silence / 5))
        except RuntimeError:  # torch's DistError: from now on nobody is heard of, which `look` sees
            return

    def look(self) -> None:
        """Leaves once a process is lost."""
        while not self.done.wait(min(1.0, self.silence / 5)):
            now, heard = time.monotonic(), dict(self.heard)
            lost = {
                other: now - heard[other][1] if other in heard else now - self.began
                for other in range(count())
                if other != rank() and (now - heard[other][1] > self.silence if other in heard else
                                        now - self.began > self.start)
            }  # fmt: skip
            if lost and not self.done.is_set():
                names = ", ".join(map(str, lost))
                self.leave(
                    f"of the processes 0 to {count() - 1}, {names} gave no sign of life for {max(lost.values()):.0f} "
                    f"seconds: ended, or the machine or the network is lost. Their own output may say why. "
                    f"{self.remedy()}"
                )
                return


def require_alike(found: dict, where: Callable[[list], list]) -> None:
    """Raises QAError where processes found different things: {what it is, for people: value}. where: gathers one
    object of each process, as accelerate's gather_object does."""
    if count() == 1:
        return
    everywhere = where([found])
    differing = [name for name, value in found.items() if any(other[name] != value for other in everywhere)]
    if differing:
        raise QAError(
            f"the {count()} processes don't have the same: {', '.join(differing)}. Expected the same files on all "
            "machines, and --output_dir in a folder that they share."
        )


def start_group() -> None:
    """Has the processes meet, with gloo, which needs no GPU; each with a card of its machine where there are some.
    Does nothing where there is one process."""
    if count() > 1:
        import torch

        if cards := torch.cuda.device_count():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % cards)
        torch.distributed.init_process_group("gloo", timeout=PATIENCE)


def from_first(value: object) -> object:
    """What the first process has as `value`, in all of them."""
    if count() == 1:
        return value
    import torch.distributed as group

    values = [value]
    group.broadcast_object_list(values)
    return values[0]


def predict_together(
    reader: Reader, examples: Sequence[dict], top_k: int, each: Callable[[dict, list[dict]], object], bar=None
) -> tuple[dict[str, str], np.ndarray]:
    """As Reader.predict, which it is for one process. Several answer 512 questions each at a time, the batches that one
    would make, so the same numbers come out; the first one has all answers, the others return none."""
    if count() == 1:
        return reader.predict(examples, top_k, each, bar)
    import torch.distributed as group

    bar, predictions, probabilities = NoProgress() if bar is None else bar, {}, []
    for first in range(0, len(examples), QUESTIONS_AT_ONCE * count()):
        mine = first + QUESTIONS_AT_ONCE * rank()
        answers = list(reader.answer_all(examples[mine : mine + QUESTIONS_AT_ONCE], top_k))
        gathered = [None] * count() if rank() == 0 else None
        group.gather_object(answers, gathered)
        for example, found in zip(examples[first:], chain(*(gathered or ())), strict=False):
            predictions[example["id"]] = found[0]["text"]
            probabilities.append(found[0]["probability"])
            bar.update()
            each(example, found)
    return predictions, np.array(probabilities)
