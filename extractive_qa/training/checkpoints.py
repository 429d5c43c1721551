"""Folders that appear whole or not at all: checkpoints to resume from, and the final model.

A folder is written beside its place under a name that starts with a dot, synced to disk, and renamed; so is a file that
must not be torn. A checkpoint's last file is `complete.json` with size and sha256 of every other file, so a torn or
damaged one is known and passed over.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from extractive_qa.errors import QAError
from extractive_qa.files.atomic import make_folder, recover, remove, replace_folder
from extractive_qa.files.locks import locked
from extractive_qa.files.manifest import check_manifest, write_manifest
from extractive_qa.files.reading import read_json_object
from extractive_qa.text import as_argument

logger = logging.getLogger(__name__)

MARKER = "complete.json"
STATE = "state.json"
STATE_FORMAT = 1  # raise it when an older train.py can't go on from what is saved
NAME = re.compile(r"checkpoint-(\d+)")
LOCK = ".lock"
RESUME = "run train.py again with --resume"


def check_output_dir(output_dir: Path, resume: bool, overwrite: bool, needed: Iterable[Path] = ()) -> None:
    """Raises QAError where the folder of a training holds an earlier run and neither flag is given, or where that run,
    which would go, holds one of the files and folders `needed`. Changes nothing."""
    earlier = earlier_run(output_dir)
    for path in needed:
        if any(path.resolve().is_relative_to(folder.resolve()) for folder in earlier):
            raise QAError(
                f"{path} belongs to the earlier run in {output_dir}, which this training would replace. Choose another "
                "--output_dir."
            )
    if earlier and not resume and not overwrite:
        raise QAError(
            f"{output_dir} holds an earlier run ({', '.join(path.name for path in earlier)}). "
            "Resume it: --resume. Delete it: --overwrite_output_dir. Or choose another --output_dir."
        )


@contextmanager
def lock_output_dir(output_dir: Path) -> Iterator[None]:
    """Makes the folder of a training, keeps every other training out of it meanwhile, and repairs what a crash left of
    the final model. A folder that it made is removed again where nothing was written to it.

    Raises QAError where another training has it, or the folder can't be written. Of several processes of one training
    the first one locks.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    made = [folder for folder in (output_dir, *output_dir.parents) if not folder.exists()]
    with ExitStack() as held:
        held.callback(remove_empty, made)
        try:
            make_folder(output_dir)
            held.enter_context(locked(output_dir / LOCK, "another training, process", output_dir, "--output_dir"))
            recover(output_dir / "final_model")
        except OSError as error:
            raise QAError(f"{output_dir} can't be written: {error.strerror}. Choose another --output_dir.") from None
        remove_unfinished(output_dir)
        yield


def remove_unfinished(output_dir: Path) -> None:
    """Removes what a crash, or a program that held a file, left of a save: it takes the room of the next one."""
    for path in output_dir.glob(".checkpoint-*"):
        if path.suffix in (".new", ".old"):
            remove_if_possible(path)
    if (output_dir / "final_model").exists():  # else the old one is all there is
        remove_if_possible(output_dir / ".final_model.old")
    remove_if_possible(output_dir / ".final_model.new")


def remove_if_possible(folder: Path) -> None:
    with suppress(OSError):
        remove(folder)


def remove_empty(folders: Iterable[Path]) -> None:
    """Removes folders, innermost first, up to one that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def delete_earlier_run(output_dir: Path) -> None:
    """Removes what an earlier training left in its folder."""
    for path in (*earlier_run(output_dir), output_dir / "runs"):
        remove_if_possible(path)


def earlier_run(output_dir: Path) -> list[Path]:
    """The final model and the checkpoints in the folder of a training."""
    return [path for path in (output_dir / "final_model", *list_checkpoints(output_dir)) if path.exists()]


def require_disk_space(output_dir: Path, needed: int) -> None:
    """Raises QAError where fewer than `needed` bytes are free, those of an earlier run, which will go, included."""
    earlier = sum(file.stat().st_size for path in earlier_run(output_dir) for file in path.rglob("*") if file.is_file())
    free = shutil.disk_usage(output_dir).free
    if needed > free + earlier:
        raise QAError(
            f"{output_dir} has {free / 2**20:,.0f} MB free, but the checkpoints and the final model of this training "
            f"take {(needed - earlier) / 2**20:,.0f} MB more. Free some space, keep fewer checkpoints "
            "(--save_total_limit 1), or choose another --output_dir."
        )


def write_state(folder: Path, state: dict) -> None:
    """Writes state.json of a checkpoint: plain values only."""
    text = json.dumps({"format": STATE_FORMAT, **state}, indent=1)
    (folder / STATE).write_text(text, encoding="utf-8")


def read_state(checkpoint: Path) -> dict:
    """What `write_state` saved in a checkpoint: step, settings, and what else train.py needs to go on.

    Raises QAError where it can't be read, or another version of this project wrote it.
    """
    path = checkpoint / STATE
    state = read_json_object(path, "the state of a training", delete_to_go_back(checkpoint))
    if (found := state.get("format")) is None:
        raise QAError(f"{path} does not say its format, as a training's state does. {delete_to_go_back(checkpoint)}")
    if found != STATE_FORMAT:
        raise QAError(
            f"{path} has format {found}, expected {STATE_FORMAT}: another version of train.py saved it. "
            "Go on with that version, or train into another --output_dir."
        )
    return state


def delete_to_go_back(checkpoint: Path) -> str:
    return f"Delete {checkpoint}, and --resume goes on from the checkpoint before it."


def save_checkpoint(output_dir: Path, step: int, write: Callable[[Path], None], limit: int) -> Path:
    """Saves `output_dir/checkpoint-{step}` with what `write(folder)` puts into it, then removes the oldest checkpoints
    beyond `limit`. Raises QAError where the disk is full or not writable; older checkpoints stay then."""
    target = output_dir / f"checkpoint-{step}"

    def write_and_mark(folder: Path) -> None:
        write(folder)
        write_manifest(folder, "train.py", f"step {step}", name=MARKER)

    replace_folder(target, write_and_mark, go_on(output_dir))
    # sizes only: to read gigabytes again at each save would cost more than it tells. A later one was damaged, or this
    # training would have gone on from it, and will be written again
    earlier = [path for path in list_checkpoints(output_dir) if step_of(path) <= step]
    whole = [path for path in earlier if find_damage(path, full=False) is None]
    for old in whole[:-limit]:
        remove_if_possible(old)
    remove_unfinished(output_dir)
    return target


def go_on(output_dir: Path) -> str:
    """What to do once the cause of a failure is gone: without a checkpoint there is nothing to resume."""
    return RESUME if list_checkpoints(output_dir) or not output_dir.exists() else "run train.py again"


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The folders checkpoint-N of an output folder by rising N, complete or not."""
    found = [path for path in output_dir.glob("checkpoint-*") if NAME.fullmatch(path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    return int(NAME.fullmatch(checkpoint.name)[1])


def latest_checkpoint(output_dir: Path) -> Path:
    """The newest complete checkpoint, every byte of it checked; damaged ones are passed over with a warning. Raises
    QAError where none is."""
    checkpoints = list_checkpoints(output_dir)
    for checkpoint in reversed(checkpoints):
        if (fault := find_damage(checkpoint, full=True)) is None:
            return checkpoint
        logger.warning(fault)
    # of another --output_dir: train.py --sample has one of its own
    others = [*output_dir.glob("*/checkpoint-*"), *output_dir.parent.glob("*/checkpoint-*")]
    others = [marker for path in others if (marker := path / MARKER).is_file() and path.parent != output_dir]
    if others and not checkpoints:
        newest = max(others, key=lambda marker: marker.stat().st_mtime).parent.parent
        command = f"python train.py --resume --output_dir {as_argument(newest)}"
        raise QAError(f"{output_dir} holds no checkpoint to resume from; the newest run is in {newest}. Run: {command}")
    start = "with --overwrite_output_dir instead of" if checkpoints else "without"  # without would refuse their folder
    raise QAError(f"{output_dir} holds no complete checkpoint to resume from. Run train.py {start} --resume.")


def find_damage(checkpoint: Path, *, full: bool) -> str | None:
    """What is wrong with a checkpoint folder, None where it is complete. By sizes, or by checksums too where `full`."""
    try:
        if check_manifest(checkpoint, full=full, remedy="Passed over.", name=MARKER):
            return None
        return f"{checkpoint} is damaged: it has no {MARKER}. Passed over."
    except QAError as error:
        return str(error)
    except OSError as error:
        return f"{checkpoint} can't be read: {error.strerror}. Passed over."
