"""A lock that keeps a second process out of a folder or a file, and ends with the process that holds it."""

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from extractive_qa.errors import QAError

logger = logging.getLogger(__name__)

T = TypeVar("T")

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)  # what file systems without them say


class InUse(QAError):
    """Another process has the lock."""


def when_free(action: Callable[[], T], patience: float) -> T:
    """What `action()` returns, tried again for `patience` seconds while it raises InUse, which it then does."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return action()
        except InUse:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


@contextmanager
def locked(path: Path, who: str, place: Path, flag: str) -> Iterator[None]:
    """Holds a lock on the file `path`, which is made for it and removed afterwards. It is the system's: a process that
    is killed leaves a file perhaps, but no lock. Where the file system has none, a warning says so.

    Raises InUse at once where another process holds it, OSError where `path` can't be written. who, place, flag:
    for the message, what holds it ("another run, process"), what that writes to, and the option that names it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, blocking=False, on_acquired=write_process_id)
    try:
        lock.acquire()
    except Timeout:
        raise InUse(
            f"{who} {read_process_id(path)}, writes to {place}. Wait until it ends, or choose another {flag}."
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        logger.warning(f"this file system has no locks ({error.strerror}): let no other run write here meanwhile")
    try:
        yield
    finally:
        # while it is locked, so that nobody locks a file that is then removed; on Windows filelock does it
        if os.name == "posix":
            with suppress(OSError):
                path.unlink()
        lock.release()


def write_process_id(descriptor: int) -> None:
    """Behind byte 0, which is what Windows locks: nobody else can read it there."""
    os.truncate(descriptor, 0)
    os.lseek(descriptor, 1, os.SEEK_SET)
    os.write(descriptor, str(os.getpid()).encode())


def read_process_id(path: Path) -> str:
    """Who holds a lock; "unknown" where that is not written yet, or can't be read."""
    with suppress(OSError), path.open("rb", buffering=0) as file:
        file.seek(1)
        return file.read(20).decode(errors="replace") or "unknown"
    return "unknown"
