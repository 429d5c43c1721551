"""Checkpoints: whole or not there, the newest whole one is found, none is lost before its successor is safe."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from utils.checkpoints import (
    MARKER,
    find_damage,
    latest_checkpoint,
    list_checkpoints,
    recover,
    save_checkpoint,
    write_folder,
)
from utils.console import UserError
from utils.offline import PROJECT_ROOT

FILES = {"model.safetensors": b"w" * 5000, "state.pt": b"s" * 300, "reader.json": b"{}"}


def writer(files=FILES):
    def write(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)

    return write


def failing(error):
    """Writes one file and half of the next, then fails."""

    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(FILES["model.safetensors"])
        (folder / "state.pt").write_bytes(FILES["state.pt"][:100])
        raise error

    return write


def contents(folder: Path) -> dict:
    """Everything below a folder, hidden or not."""
    return {path.relative_to(folder).as_posix(): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture
def output_dir(tmp_path):
    """With a space and letters that a code page may lack, as users have."""
    folder = tmp_path / "out put 输出"
    folder.mkdir()
    return folder


# saving and finding


def test_a_saved_checkpoint_is_complete_and_is_the_latest(output_dir):
    saved = save_checkpoint(output_dir, 20, writer(), limit=2)
    assert saved == output_dir / "checkpoint-20" == latest_checkpoint(output_dir)
    assert find_damage(saved) is None
    marker = json.loads((saved / MARKER).read_text(encoding="utf-8"))
    assert marker["step"] == 20
    assert marker["files"] == {name: len(content) for name, content in FILES.items()}
    assert contents(saved) == FILES | {MARKER: (saved / MARKER).read_bytes()}


def test_the_output_folder_is_made_where_it_is_missing(tmp_path):
    save_checkpoint(tmp_path / "new" / "output", 1, writer(), limit=2)
    assert latest_checkpoint(tmp_path / "new" / "output").name == "checkpoint-1"


def test_checkpoints_are_ordered_by_step_and_others_are_not_taken_for_one(output_dir):
    for step in (9, 100, 20):
        save_checkpoint(output_dir, step, writer(), limit=5)
    for name in ("checkpoint-", "checkpoint-x", "checkpoint-7.old", "checkpoint-best", ".checkpoint-500.new", "runs"):
        (output_dir / name).mkdir()
    (output_dir / "checkpoint-3.txt").write_text("", encoding="utf-8")
    assert [path.name for path in list_checkpoints(output_dir)] == ["checkpoint-9", "checkpoint-20", "checkpoint-100"]
    assert latest_checkpoint(output_dir).name == "checkpoint-100"


@pytest.mark.parametrize("missing", ["folder", "empty"])
def test_no_checkpoint_at_all_is_a_user_error(missing, output_dir):
    with pytest.raises(UserError, match="no complete checkpoint"):
        latest_checkpoint(output_dir if missing == "empty" else output_dir / "nowhere")


TEARS = {
    "file missing": lambda folder: (folder / "state.pt").unlink(),
    "file cut": lambda folder: (folder / "model.safetensors").write_bytes(b"w" * 4999),
    "file empty": lambda folder: (folder / "state.pt").write_bytes(b""),
    "file grown": lambda folder: (folder / "state.pt").write_bytes(b"s" * 301),
    "file is a folder": lambda folder: ((folder / "state.pt").unlink(), (folder / "state.pt").mkdir()),
    "marker missing": lambda folder: (folder / MARKER).unlink(),
    "marker empty": lambda folder: (folder / MARKER).write_bytes(b""),
    "marker of zeros": lambda folder: (folder / MARKER).write_bytes(b"\0" * 120),  # after a power cut
    "marker cut": lambda folder: (folder / MARKER).write_bytes((folder / MARKER).read_bytes()[:40]),
    "marker not UTF-8": lambda folder: (folder / MARKER).write_bytes(b"\xff" * 40),
    "marker is a list": lambda folder: (folder / MARKER).write_bytes(b"[]"),
    "marker is null": lambda folder: (folder / MARKER).write_bytes(b"null"),
    "marker without files": lambda folder: (folder / MARKER).write_bytes(b"{}"),
    "marker with a list of files": lambda folder: (folder / MARKER).write_bytes(b'{"files": ["state.pt"]}'),
    "empty folder": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "a file in its place": lambda folder: (shutil.rmtree(folder), folder.write_bytes(b"")),
}


@pytest.mark.parametrize("tear", TEARS)
def test_a_torn_checkpoint_is_passed_over_with_a_warning(tear, output_dir, capsys):
    for step in (10, 20, 30):
        save_checkpoint(output_dir, step, writer(), limit=5)
    for step in (20, 30):
        TEARS[tear](output_dir / f"checkpoint-{step}")
    assert latest_checkpoint(output_dir).name == "checkpoint-10"
    warned = capsys.readouterr().err
    assert "checkpoint-20" in warned
    assert "checkpoint-30" in warned
    TEARS[tear](output_dir / "checkpoint-10")
    with pytest.raises(UserError, match="no complete checkpoint"):
        latest_checkpoint(output_dir)


def test_whole_checkpoints_are_found_without_a_warning(output_dir, capsys):
    save_checkpoint(output_dir, 10, writer(), limit=5)
    latest_checkpoint(output_dir)
    assert capsys.readouterr().err == ""


# removing


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_the_newest_are_kept_and_older_ones_go_only_after_the_new_one_is_whole(limit, output_dir):
    for step in range(10, 70, 10):
        before = list_checkpoints(output_dir)

        def write(folder, before=before):
            writer()(folder)
            assert list_checkpoints(output_dir) == before, "an old one went, or the new one came, too early"

        save_checkpoint(output_dir, step, write, limit)
        kept = [f"checkpoint-{kept}" for kept in range(10, step + 10, 10)][-limit:]
        assert sorted(path.name for path in output_dir.iterdir()) == sorted(kept)
        assert all(find_damage(path) is None for path in list_checkpoints(output_dir))


@pytest.mark.parametrize("limit", [1, 2])
def test_torn_checkpoints_do_not_count_among_those_that_are_kept(limit, output_dir):
    """A run goes on from 10, as 30 and 40 are torn. What it saves must not be removed in their favour."""
    for step in (10, 30, 40):
        save_checkpoint(output_dir, step, writer(), limit=5)
    for step in (30, 40):
        TEARS["file cut"](output_dir / f"checkpoint-{step}")
    saved = save_checkpoint(output_dir, 20, writer(), limit)
    assert latest_checkpoint(output_dir) == saved
    whole = [path.name for path in list_checkpoints(output_dir) if find_damage(path) is None]
    assert whole == ["checkpoint-10", "checkpoint-20"][-limit:]


def test_a_checkpoint_of_the_same_step_is_replaced(output_dir):
    save_checkpoint(output_dir, 10, writer({"old.pt": b"1"}), limit=2)
    saved = save_checkpoint(output_dir, 10, writer(), limit=2)
    assert set(contents(saved)) == {*FILES, MARKER}
    assert [path.name for path in output_dir.iterdir()] == ["checkpoint-10"]


# failing


@pytest.mark.parametrize("same_step", [False, True])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("a bug"), KeyboardInterrupt()], ids=repr
)
def test_a_save_that_fails_half_way_leaves_everything_as_it_was(error, same_step, output_dir):
    save_checkpoint(output_dir, 10, writer(), limit=1)
    before = contents(output_dir)
    with pytest.raises(UserError if isinstance(error, OSError) else type(error)) as caught:
        save_checkpoint(output_dir, 10 if same_step else 20, failing(error), limit=1)
    if isinstance(error, OSError):
        assert "No space left on device" in str(caught.value)
        assert "checkpoint-" in str(caught.value)
    assert contents(output_dir) == before
    assert latest_checkpoint(output_dir).name == "checkpoint-10"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("library", ["python", "torch", "safetensors"])
def test_a_full_disk_is_a_user_error_whoever_writes(library, output_dir):
    """The limit on file sizes makes writing fail as a full disk does. torch and safetensors wrap the system's error."""
    import resource

    import torch
    from safetensors.torch import save_file

    tensors = {"weights": torch.zeros(100_000)}
    write = {
        "python": lambda folder: (folder / "model").write_bytes(b"w" * 400_000),
        "torch": lambda folder: torch.save(tensors, folder / "model"),
        "safetensors": lambda folder: save_file(tensors, folder / "model"),
    }[library]
    save_checkpoint(output_dir, 10, writer(), limit=1)
    before = contents(output_dir)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(UserError, match="can't be written"):
            save_checkpoint(output_dir, 20, write, limit=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(output_dir) == before


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_cannot_hold_a_folder_is_a_user_error(place, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="can't be written"):
        save_checkpoint(tmp_path / place, 10, writer(), limit=1)


def test_a_folder_that_cannot_be_renamed_leaves_the_old_one_in_place(output_dir, monkeypatch):
    """The second of the two renames fails: another program holds the new folder, say a virus scanner."""
    target = output_dir / "final_model"
    write_folder(target, writer({"old.pt": b"1"}))
    rename = Path.rename

    def refuse(path, to):
        if path.name == ".final_model.new":
            raise PermissionError(13, "Access is denied")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match="Access is denied"):
        write_folder(target, writer())
    assert contents(output_dir) == {"final_model": False, "final_model/old.pt": b"1"}


CRASH = """
import os, sys
from pathlib import Path
from utils.checkpoints import save_checkpoint

def write(folder):
    (folder / "state.pt").write_bytes(b"half")
    os._exit(9)

save_checkpoint(Path(sys.argv[1]), int(sys.argv[2]), write, 1)
"""


@pytest.mark.parametrize("next_step", [10, 20, 30])
def test_after_a_crash_while_saving_the_old_checkpoint_counts_and_the_next_save_sweeps_up(next_step, output_dir):
    """Half a checkpoint may be some hundred MB: it must not lie there for ever."""
    save_checkpoint(output_dir, 10, writer(), limit=1)
    before = contents(output_dir / "checkpoint-10")
    done = subprocess.run(
        [sys.executable, "-c", CRASH, str(output_dir), "20"], cwd=PROJECT_ROOT, check=False, timeout=60
    )
    assert done.returncode == 9
    assert latest_checkpoint(output_dir).name == "checkpoint-10"
    assert contents(output_dir / "checkpoint-10") == before
    save_checkpoint(output_dir, next_step, writer(), limit=1)
    assert [path.name for path in output_dir.iterdir()] == [f"checkpoint-{next_step}"]
    assert find_damage(output_dir / f"checkpoint-{next_step}") is None


def test_every_file_is_on_the_disk_before_the_folder_appears(output_dir, monkeypatch):
    """Else a power cut leaves a whole folder of files with nothing in them."""
    target, synced, fsync = output_dir / "checkpoint-10", set(), os.fsync

    def record(descriptor):
        assert not target.exists()
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    save_checkpoint(output_dir, 10, writer(), limit=1)
    assert {path.stat().st_ino for path in target.iterdir()} <= synced


# replacing one folder


def test_while_a_folder_is_written_the_old_one_is_still_whole(output_dir):
    target = output_dir / "final_model"
    write_folder(target, writer({"old.pt": b"1"}))

    def write(folder):
        writer()(folder)
        assert contents(target) == {"old.pt": b"1"}

    write_folder(target, write)
    assert contents(output_dir) == {"final_model": False} | {f"final_model/{n}": c for n, c in FILES.items()}


@pytest.mark.parametrize("next_to_it", [False, True])
def test_recover_puts_the_old_folder_back_after_a_crash_between_the_renames(next_to_it, output_dir):
    target = output_dir / "final_model"
    write_folder(target, writer())
    before = contents(target)
    target.rename(output_dir / ".final_model.old")
    if next_to_it:
        write_folder(output_dir / "other", writer())
        (output_dir / "other").rename(output_dir / ".final_model.new")
    recover(target)
    assert contents(target) == before
    assert not (output_dir / ".final_model.old").exists()


def test_recover_leaves_a_whole_folder_alone(output_dir):
    """A crash after the renames, before the old folder was removed: the new one counts."""
    target = output_dir / "final_model"
    write_folder(target, writer({"old.pt": b"1"}))
    target.rename(output_dir / ".final_model.old")
    write_folder(output_dir / "new", writer())
    (output_dir / "new").rename(target)
    recover(target)
    assert contents(target) == FILES
    write_folder(target, writer())
    assert [path.name for path in output_dir.iterdir()] == ["final_model"]


def test_recover_where_there_is_nothing_does_nothing(output_dir):
    recover(output_dir / "final_model")
    recover(output_dir / "nowhere" / "final_model")
    assert contents(output_dir) == {}


@pytest.mark.parametrize("leftover", [".final_model.new", ".final_model.old"])
def test_what_a_crash_left_does_not_hinder_the_next_write(leftover, output_dir):
    (output_dir / leftover).mkdir()
    (output_dir / leftover / "stale.pt").write_bytes(b"0")
    write_folder(output_dir / "final_model", writer())
    assert contents(output_dir) == {"final_model": False} | {f"final_model/{n}": c for n, c in FILES.items()}
