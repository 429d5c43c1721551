"""Folders that appear whole or not at all: checkpoints to resume from, and the final model.

A folder is written beside its place under a name that starts with a dot, synced to disk, and renamed. A checkpoint's
last file is `complete.json` with the size of every other file, so a torn one is known and skipped.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from utils.console import UserError, warn

MARKER = "complete.json"
NAME = re.compile(r"checkpoint-(\d+)")


def prepare_output_dir(output_dir: Path, resume: bool, overwrite: bool) -> None:
    """Makes the folder of a training. Raises UserError where it holds an earlier run and neither flag is given, or
    can't be written. Nothing is deleted yet."""
    recover(output_dir / "final_model")
    earlier = earlier_run(output_dir)
    if earlier and not resume and not overwrite:
        raise UserError(
            f"{output_dir} holds an earlier run ({', '.join(path.name for path in earlier)}). "
            "Go on with it: --resume. Delete it: --overwrite_output_dir. Or choose another --output_dir."
        )
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output_dir} can't be written: {error.strerror}. Choose another --output_dir.") from None


def delete_earlier_run(output_dir: Path) -> None:
    """Removes what an earlier training left in its folder."""
    for path in (*earlier_run(output_dir), output_dir / "runs"):
        shutil.rmtree(path, ignore_errors=True)


def earlier_run(output_dir: Path) -> list[Path]:
    """The final model and the checkpoints in the folder of a training."""
    return [path for path in (output_dir / "final_model", *list_checkpoints(output_dir)) if path.exists()]


def read_state(checkpoint: Path) -> dict:
    """What state.json of a checkpoint says: step, settings, and what else train.py saved."""
    return json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))


def save_checkpoint(output_dir: Path, step: int, write: Callable[[Path], None], limit: int) -> Path:
    """Saves `output_dir/checkpoint-{step}` with what `write(folder)` puts into it, then removes the oldest checkpoints
    beyond `limit`. Raises UserError where the disk is full or not writable; older checkpoints stay then."""
    target = output_dir / f"checkpoint-{step}"

    def write_and_mark(folder: Path) -> None:
        write(folder)
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        (folder / MARKER).write_text(json.dumps({"step": step, "files": sizes}, indent=1), encoding="utf-8")

    write_folder(target, write_and_mark)
    whole = [path for path in list_checkpoints(output_dir) if find_damage(path) is None]
    left_by_a_crash = [path for path in output_dir.glob(".checkpoint-*") if path.suffix in (".new", ".old")]
    for old in whole[:-limit] + left_by_a_crash:
        shutil.rmtree(old, ignore_errors=True)
    return target


def write_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Replaces the folder `target` by one with what `write(folder)` puts into it; until then the old one stays.

    Raises UserError where it can't be written.
    """
    new, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    try:
        remove(new)
        new.mkdir(parents=True)
        write(new)
        sync(new)
        if target.exists():
            remove(old)
            target.rename(old)
        new.rename(target)
        remove(old)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        recover(target)
        if not is_write_failure(error):
            raise
        raise UserError(
            f"{target} can't be written: {getattr(error, 'strerror', None) or error}. What was there before is still "
            "there. Free some space or choose another --output_dir, then go on with --resume."
        ) from None


def is_write_failure(error: BaseException) -> bool:
    """Whether the system refused to write. torch and safetensors wrap that in errors of their own."""
    return isinstance(error, OSError) or "inline_container" in str(error) or "os error" in str(error)


def recover(target: Path) -> None:
    """Puts the old folder back where a crash came between write_folder's two renames."""
    old = target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        old.rename(target)


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The folders checkpoint-N of an output folder by rising N, complete or not."""
    found = [path for path in output_dir.glob("checkpoint-*") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(NAME.fullmatch(path.name)[1]))


def latest_checkpoint(output_dir: Path) -> Path:
    """The newest complete checkpoint; damaged ones are passed over with a warning. Raises UserError where none is."""
    for checkpoint in reversed(list_checkpoints(output_dir)):
        if (fault := find_damage(checkpoint)) is None:
            return checkpoint
        warn(f"{checkpoint} is damaged ({fault}), trying the one before")
    raise UserError(f"{output_dir} holds no complete checkpoint to resume from. Run train.py without --resume.")


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint folder, None where it is complete."""
    try:
        sizes = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))["files"]
        sizes = dict(sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"no readable {MARKER}"
    for name, size in sizes.items():
        path = checkpoint / name
        if not path.is_file() or path.stat().st_size != size:
            return f"{name} is missing or cut"
    return None


def sync(folder: Path) -> None:
    """Has the operating system write every file of a folder to the disk."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
