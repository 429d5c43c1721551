"""One model, many who ask: one at a time, a few wait, all others are told to come back."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor

TICK = 1.0  # seconds: so often whoever waits hears that it does, and can go


class BusyError(Exception):
    """Too many wait, or it took too long: what to tell whoever asked."""


class StoppedError(Exception):
    """Raised in the work itself where nobody waits for it any more."""


class Turns:
    """Does work in a thread of its own, in the order in which it comes.

    most_waiting: pieces of work that may wait while one is done. seconds: how long one may take, waiting included.
    """

    def __init__(self, most_waiting: int, seconds: float):
        self.most_waiting, self.seconds = most_waiting, seconds
        self.inside, self.is_over = 0, False
        self.thread = ThreadPoolExecutor(1, "reader")

    def take(self, work: Callable[[Callable], object]) -> AsyncIterator[tuple[int, int] | object]:
        """Queues `work(each_batch)`. Returns what to wait on: (done, windows), at least once a second, then its result.

        each_batch: as Reader.answer_all calls it. Raises BusyError, at once where too many wait, while it is waited on
        where it takes too long; and whatever the work raises. Whoever stops waiting stops the work.
        """
        if self.is_over:
            raise BusyError("The server is about to end.")
        if self.inside > self.most_waiting:
            raise BusyError(f"{self.most_waiting} questions wait already. Ask again in a moment.")
        self.inside += 1
        loop, progress, gone = asyncio.get_running_loop(), [0, 0], threading.Event()
        ended = asyncio.Event()

        def each_batch(done: int, windows: int, _: int = 0) -> None:
            progress[:] = done, windows
            if gone.is_set() or self.is_over:
                raise StoppedError

        def end() -> None:
            self.inside -= 1
            ended.set()

        future = self.thread.submit(work, each_batch)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(end))
        return self.wait_for(future, ended, progress, gone, loop.time() + self.seconds)

    async def wait_for(self, future, ended, progress, gone, deadline) -> AsyncIterator:
        loop = asyncio.get_running_loop()
        try:
            while not ended.is_set():
                yield tuple(progress)
                left = deadline - loop.time()
                if left <= 0:
                    raise BusyError(f"It took more than {self.seconds:,.0f} seconds. Ask less, or ask again later.")
                try:
                    await asyncio.wait_for(ended.wait(), min(TICK, left))
                except TimeoutError:
                    continue
            try:
                yield future.result()
            except (StoppedError, CancelledError):
                raise BusyError("The server is about to end.") from None
        finally:
            gone.set()
            future.cancel()

    def stop(self) -> None:
        """Ends what is being done and what waits; nothing new is taken."""
        self.is_over = True
        self.thread.shutdown(wait=False, cancel_futures=True)
