"""Files and folders that are there whole or not at all: one file writer, one folder swap.

Both write beside the place, under a name that starts with a dot and ends in .new, sync to disk, and rename. Whatever
stops the process, the place holds the old content or the new.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from extractive_qa.errors import QAError

DIGEST_SIZE = hashlib.sha256().digest_size
TRY_AGAIN = "try again"
PATIENCE = 10.0  # seconds
# how a system says that another program has a file open; the last: in a folder whose removed files are still held
HELD = (errno.EACCES, errno.EPERM, errno.EBUSY, errno.ENOTEMPTY)


def patiently(action: Callable, *args: object) -> object:
    """What `action(*args)` returns. While the system refuses it because another program holds the file or folder, it is
    tried again for PATIENCE seconds: on Windows virus scanners and indexers look at whatever is new, and for a moment
    nobody can rename or remove it. Raises OSError after that."""
    deadline, pause = time.monotonic() + PATIENCE, 0.01
    while True:
        try:
            return action(*args)
        except OSError as error:
            if error.errno not in HELD or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write and read back, which takes the place of `path` when the block ends; where it fails, `path` stays
    as it was. Raises OSError."""
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        patiently(new.replace, path)  # Windows renames no open file
        sync_entries(path.parent)
    except BaseException:
        with suppress(OSError):
            patiently(new.unlink)
        raise


def write_file(path: Path, content: str | bytes) -> None:
    """Replaces the file `path` by one with `content`, text as UTF-8. Raises OSError; the old file stays then."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: object) -> None:
    """As write_file. Not in ASCII, so that people can read it in any language."""
    write_file(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def save_checked(path: Path, write: Callable[[BinaryIO], object], kept: int) -> None:
    """Writes a sha256, and what `write` writes, to `path`. Removes the oldest files of its kind (suffix) beyond `kept`.
    Raises OSError."""
    make_folder(path.parent)
    with atomic_file(path) as file:
        file.write(bytes(DIGEST_SIZE))
        write(file)
        file.seek(DIGEST_SIZE)
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0)
        file.write(digest)
    by_age = sorted(path.parent.glob(f"*{path.suffix}"), key=lambda old: old.stat().st_mtime)
    an_hour_ago = time.time() - 3600
    left_by_a_crash = [old for old in path.parent.glob(".*.new") if old.stat().st_mtime < an_hour_ago]
    for old in by_age[:-kept] + left_by_a_crash:
        with suppress(PermissionError):  # Windows removes no file that a training has open
            old.unlink(missing_ok=True)


def open_checked(path: Path) -> BinaryIO | None:
    """The file that save_checked wrote, behind the sha256; None where there is none, or it can't be read or is
    damaged."""
    try:
        file = path.open("rb")
        digest = file.read(DIGEST_SIZE)
        if hashlib.file_digest(file, "sha256").digest() != digest:
            file.close()
            return None
        file.seek(DIGEST_SIZE)
    except OSError:
        return None
    with suppress(OSError):
        path.touch()  # the files used last are the ones kept
    return file


def replace_folder(target: Path, write: Callable[[Path], None], go_on: str = TRY_AGAIN) -> None:
    """Replaces the folder `target` by one with what `write(folder)` puts into it; until then the old one stays. What is
    above `target` must be there: where it has vanished, it is not made again.

    Raises QAError, which ends in how to `go_on`, where it can't be written.
    """
    new, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    try:
        remove(new)
        new.mkdir()
        write(new)
        sync(new)
        if target.exists():
            remove(old)
            patiently(target.rename, old)
        patiently(new.rename, target)
        sync_entries(target.parent)
    except BaseException as error:
        with suppress(OSError):  # the first error is told
            remove(new)
        with suppress(OSError):
            recover(target)
        if not is_write_failure(error):
            raise
        raise cannot_write(target, error, go_on) from None
    finally:
        if target.exists():
            with suppress(OSError):  # what can't be removed goes the next time
                remove(old)


def recover(target: Path) -> None:
    """Puts the old folder back where a crash came between replace_folder's two renames."""
    old = target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        patiently(old.rename, target)


@contextmanager
def writing(place: Path, remedy: str) -> Iterator[None]:
    """Has an OSError of the block say what to do: a QAError with the `place` and the `remedy`."""
    try:
        yield
    except OSError as error:
        raise QAError(f"{place} can't be written: {error.strerror or error}. {remedy}") from None


def make_room(path: Path, flag: str) -> None:
    """Makes the folder that `path` will be in, and tries whether it can be written: before the work, not after it.
    Raises QAError, which names the `flag` to choose another place with."""
    with writing(path, f"Choose another {flag}."):
        make_folder(path.parent)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def is_write_failure(error: BaseException) -> bool:
    """Whether the system refused to write. torch and safetensors wrap that in errors of their own."""
    wrapped = ("inline_container", "os error", "Parent directory")
    if isinstance(error, QAError):  # says itself what is wrong, in words that may hold a library's
        return False
    return isinstance(error, OSError) or any(words in str(error) for words in wrapped)


def cannot_write(path: Path, error: BaseException, go_on: str = TRY_AGAIN) -> QAError:
    """What to tell where the system refused to write `path`."""
    if not path.parent.exists():
        return QAError(f"{path.parent} is missing. Was it moved, deleted or disconnected? Bring it back, then {go_on}.")
    # torch's own words, "file write failed", don't say why
    reason = getattr(error, "strerror", None) or f"the disk is full or fails ({str(error).splitlines()[0]})"
    old = path.with_name(f".{path.name}.old")
    before = f"in {old}" if old.exists() and not path.exists() else "still there"
    remedy = "Free some space or make it writable"
    if isinstance(error, PermissionError):
        remedy = "Make it writable, or close the program that has it open (a virus scanner, an indexer, a viewer)"
    return QAError(f"{path} can't be written: {reason}. What was there before is {before}. {remedy}, then {go_on}.")


@contextmanager
def explain_write_failure(path: Path, go_on: str = TRY_AGAIN) -> Iterator[None]:
    """Raises a QAError for what the system refuses in the writing of `path`."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error, go_on) from None


def make_folder(folder: Path) -> None:
    """Makes a folder, and what is above it, where they are missing. Their names are on the disk then: else a power cut
    could lose the folder with all that was written to it since. Raises OSError."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in made:
        sync_entries(path.parent)


def sync(folder: Path) -> None:
    """Has the operating system write every file below a folder, and the lists of them, to the disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_entries(path)
            continue
        sync_file(path)
    sync_entries(folder)


def sync_file(path: Path) -> None:
    """Has the operating system write to the disk what a file holds."""
    with patiently(path.open, "rb+") as file:
        os.fsync(file.fileno())


def sync_entries(folder: Path) -> None:
    """Has the operating system write to the disk which names a folder holds, where it can: Windows does so by itself,
    some network drives can't."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # one may make files in it, but not list them
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def remove(folder: Path) -> None:
    """Removes a folder, where there is one; of a link to a folder, the link alone. Raises OSError."""
    if folder.is_symlink():
        patiently(folder.unlink)
    elif folder.exists():
        patiently(shutil.rmtree, folder)
