"""One process at a time."""

import logging
import os

logger = logging.getLogger(__name__)


def lock(descriptor: int) -> bool:
    """Locks an open file for this process. False where another one has it, or has just removed it."""
    if os.name == "nt":
        import msvcrt

        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # behind what is written: a locked byte can't be read
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        logger.warning(f"this file system has no locks ({error.strerror}): let no other run write here meanwhile")
    return os.fstat(descriptor).st_nlink > 0
