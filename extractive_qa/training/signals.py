"""Ctrl-C and SIGTERM end a training between two steps, where it can be saved."""

import signal
import time
from collections.abc import Callable

from extractive_qa.training.run import Training


def stop_between_steps(run: Training, announce: Callable[[], object]) -> None:
    """From now on the first Ctrl-C or SIGTERM is noted in run.stop_signals, for the loop to see, and announced at once.
    Ctrl-C more than a second after that raises KeyboardInterrupt: torchrun and impatient fingers send several at a
    time."""

    def stop(number: int, _) -> None:
        now = time.monotonic()
        if run.stop_signals and number == signal.SIGINT and now - run.stop_signals[0] > 1:
            raise KeyboardInterrupt(run.how_to_resume("stopped at once, steps since the last checkpoint are lost"))
        if not run.stop_signals:
            announce()
        run.stop_signals.append(now)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
