"""Folders that appear whole or not at all: checkpoints to resume from, and the final model.

A folder is written beside its place under a name that starts with a dot, synced to disk, and renamed; so is a file that
must not be torn. A checkpoint's last file is `complete.json` with size and sha256 of every other file, so a torn or
damaged one is known and passed over.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from utils.console import UserError, warn
from utils.files import read_json_object
from utils.locks import locked
from utils.manifest import check_manifest, write_manifest

MARKER = "complete.json"
STATE = "state.json"
STATE_FORMAT = 1  # raise it when an older train.py can't go on from what is saved
NAME = re.compile(r"checkpoint-(\d+)")
LOCK = ".lock"
RESUME = "go on with --resume"


def prepare_output_dir(output_dir: Path, resume: bool, overwrite: bool, needed: Iterable[Path] = ()) -> None:
    """Makes sure that a training may write to its folder. Raises UserError where it holds an earlier run and neither
    flag is given, or where that run, which would go, holds one of the files and folders `needed`. Nothing is deleted
    yet."""
    recover(output_dir / "final_model")
    earlier = earlier_run(output_dir)
    for path in needed:
        if any(path.resolve().is_relative_to(folder.resolve()) for folder in earlier):
            raise UserError(
                f"{path} belongs to the earlier run in {output_dir}, which this training would replace. Choose another "
                "--output_dir."
            )
    if earlier and not resume and not overwrite:
        raise UserError(
            f"{output_dir} holds an earlier run ({', '.join(path.name for path in earlier)}). "
            "Go on with it: --resume. Delete it: --overwrite_output_dir. Or choose another --output_dir."
        )


@contextmanager
def lock_output_dir(output_dir: Path) -> Iterator[None]:
    """Makes the folder of a training, and keeps every other training out of it meanwhile. A folder that it made goes
    again where nothing was written to it.

    Raises UserError where another training has it, or the folder can't be written. Of several processes of one training
    the first one locks.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    made = [folder for folder in (output_dir, *output_dir.parents) if not folder.exists()]
    with ExitStack() as held:
        held.callback(remove_empty, made)
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(output_dir / LOCK, "another training, process", output_dir, "--output_dir"))
        except OSError as error:
            raise UserError(f"{output_dir} can't be written: {error.strerror}. Choose another --output_dir.") from None
        yield


def remove_empty(folders: Iterable[Path]) -> None:
    """Removes folders, innermost first, up to one that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def delete_earlier_run(output_dir: Path) -> None:
    """Removes what an earlier training left in its folder."""
    for path in (*earlier_run(output_dir), output_dir / "runs"):
        shutil.rmtree(path, ignore_errors=True)


def earlier_run(output_dir: Path) -> list[Path]:
    """The final model and the checkpoints in the folder of a training."""
    return [path for path in (output_dir / "final_model", *list_checkpoints(output_dir)) if path.exists()]


def require_disk_space(output_dir: Path, needed: int) -> None:
    """Raises UserError where fewer than `needed` bytes are free, those of an earlier run, which will go, included."""
    earlier = sum(file.stat().st_size for path in earlier_run(output_dir) for file in path.rglob("*") if file.is_file())
    free = shutil.disk_usage(output_dir).free
    if needed > free + earlier:
        raise UserError(
            f"{output_dir} has {free / 2**20:,.0f} MB free, but the checkpoints and the final model of this training "
            f"take {max(0, needed - earlier) / 2**20:,.0f} MB more. Free some space, keep fewer checkpoints "
            "(--save_total_limit 1), or choose another --output_dir."
        )


def write_state(folder: Path, state: dict) -> None:
    """Writes state.json of a checkpoint: plain values only."""
    text = json.dumps({"format": STATE_FORMAT, **state}, indent=1)
    (folder / STATE).write_text(text, encoding="utf-8")


def read_state(checkpoint: Path) -> dict:
    """What `write_state` saved in a checkpoint: step, settings, and what else train.py needs to go on.

    Raises UserError where it can't be read, or another version of this project wrote it.
    """
    path = checkpoint / STATE
    state = read_json_object(path, "the state of a training", delete_to_go_back(checkpoint))
    if (found := state.get("format")) is None:
        raise UserError(f"{path} does not say its format, as a training's state does. {delete_to_go_back(checkpoint)}")
    if found != STATE_FORMAT:
        raise UserError(
            f"{path} has format {found}, expected {STATE_FORMAT}: another version of train.py saved it. "
            "Go on with that version, or train anew into another --output_dir."
        )
    return state


def delete_to_go_back(checkpoint: Path) -> str:
    return f"Delete {checkpoint}, and --resume goes on from the checkpoint before it."


def save_checkpoint(output_dir: Path, step: int, write: Callable[[Path], None], limit: int) -> Path:
    """Saves `output_dir/checkpoint-{step}` with what `write(folder)` puts into it, then removes the oldest checkpoints
    beyond `limit`. Raises UserError where the disk is full or not writable; older checkpoints stay then."""
    target = output_dir / f"checkpoint-{step}"

    def write_and_mark(folder: Path) -> None:
        write(folder)
        write_manifest(folder, "train.py", f"step {step}", name=MARKER)

    write_folder(target, write_and_mark)
    # sizes only: to read gigabytes again at each save would cost more than it tells. A later one was damaged, or this
    # training would have gone on from it, and will be written again
    earlier = [path for path in list_checkpoints(output_dir) if step_of(path) <= step]
    whole = [path for path in earlier if find_damage(path, full=False) is None]
    left_by_a_crash = [path for path in output_dir.glob(".checkpoint-*") if path.suffix in (".new", ".old")]
    for old in whole[:-limit] + left_by_a_crash:
        shutil.rmtree(old, ignore_errors=True)
    return target


def write_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Replaces the folder `target` by one with what `write(folder)` puts into it; until then the old one stays. What is
    above `target` must be there: where it has vanished, it is not made anew.

    Raises UserError where it can't be written.
    """
    new, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    try:
        remove(new)
        new.mkdir()
        write(new)
        sync(new)
        if target.exists():
            remove(old)
            target.rename(old)
        new.rename(target)
        sync_entries(target.parent)
        remove(old)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        recover(target)
        if not is_write_failure(error):
            raise
        raise cannot_write(target, error) from None


def write_file(path: Path, text: str, go_on: str = RESUME) -> None:
    """Replaces the file `path` by one with `text`; until then the old one stays. Raises UserError, which ends in how to
    `go_on`, where it can't be written."""
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync_entries(path.parent)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise cannot_write(path, error, go_on) from None


def is_write_failure(error: BaseException) -> bool:
    """Whether the system refused to write. torch and safetensors wrap that in errors of their own."""
    wrapped = ("inline_container", "os error", "Parent directory")
    if isinstance(error, UserError):  # says itself what is wrong, in words that may hold a library's
        return False
    return isinstance(error, OSError) or any(words in str(error) for words in wrapped)


def cannot_write(path: Path, error: BaseException, go_on: str = RESUME) -> UserError:
    """What to tell where the system refused to write `path`."""
    if not path.parent.exists():
        return UserError(
            f"{path.parent} is missing. Was it moved, deleted or disconnected? Bring it back, then {go_on}."
        )
    # torch's own words, "file write failed", don't say why
    reason = getattr(error, "strerror", None) or f"the disk is full or fails ({str(error).splitlines()[0]})"
    return UserError(
        f"{path} can't be written: {reason}. What was there before is still there. "
        f"Free some space or make it writable, then {go_on}."
    )


def recover(target: Path) -> None:
    """Puts the old folder back where a crash came between write_folder's two renames."""
    old = target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        old.rename(target)


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The folders checkpoint-N of an output folder by rising N, complete or not."""
    found = [path for path in output_dir.glob("checkpoint-*") if NAME.fullmatch(path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    return int(NAME.fullmatch(checkpoint.name)[1])


def latest_checkpoint(output_dir: Path) -> Path:
    """The newest complete checkpoint, every byte of it checked; damaged ones are passed over with a warning. Raises
    UserError where none is."""
    checkpoints = list_checkpoints(output_dir)
    for checkpoint in reversed(checkpoints):
        if (fault := find_damage(checkpoint, full=True)) is None:
            return checkpoint
        warn(fault)
    anew = "with --overwrite_output_dir instead of" if checkpoints else "without"  # without would refuse their folder
    raise UserError(f"{output_dir} holds no complete checkpoint to resume from. Run train.py {anew} --resume.")


def find_damage(checkpoint: Path, *, full: bool) -> str | None:
    """What is wrong with a checkpoint folder, None where it is complete. By sizes, or by checksums too where `full`."""
    try:
        complete = check_manifest(checkpoint, full=full, remedy="Passed over.", name=MARKER)
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{checkpoint} can't be read: {error.strerror}. Passed over."
    return None if complete else f"{checkpoint} is damaged: it has no {MARKER}. Passed over."


def sync(folder: Path) -> None:
    """Has the operating system write every file of a folder, and the list of them, to the disk."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    sync_entries(folder)


def sync_entries(folder: Path) -> None:
    """Has the operating system write to the disk which names a folder holds, where it can: Windows does so by itself,
    some network drives can't."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
