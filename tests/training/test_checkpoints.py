"""Checkpoints: whole or not there, the newest whole one is found, none is lost before its successor is safe."""

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from extractive_qa.errors import QAError
from extractive_qa.files import atomic
from extractive_qa.files.atomic import recover, replace_folder, write_file
from extractive_qa.text import as_argument
from extractive_qa.training.checkpoints import (
    MARKER,
    STATE,
    STATE_FORMAT,
    find_damage,
    latest_checkpoint,
    list_checkpoints,
    lock_output_dir,
    read_state,
    require_disk_space,
    save_checkpoint,
    write_state,
)
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
    assert find_damage(saved, full=True) is None
    marker = json.loads((saved / MARKER).read_text(encoding="utf-8"))
    assert marker["revision"] == "step 20"
    assert {entry["file"]: entry["size"] for entry in marker["files"]} == {
        name: len(content) for name, content in FILES.items()
    }
    assert contents(saved) == FILES | {MARKER: (saved / MARKER).read_bytes()}


@pytest.mark.fault("disk or folder that fails")
def test_a_folder_that_has_vanished_is_not_made_again(output_dir):
    """It may have been a drive: what is saved beside it would never be found again."""
    save_checkpoint(output_dir, 10, writer(), limit=1)
    output_dir.rename(output_dir.with_name("elsewhere"))
    with pytest.raises(QAError, match=r"is missing\. Was it moved, deleted or disconnected"):
        save_checkpoint(output_dir, 20, writer(), limit=1)
    assert not output_dir.exists()
    assert latest_checkpoint(output_dir.with_name("elsewhere")).name == "checkpoint-10"


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
    with pytest.raises(QAError, match="no complete checkpoint"):
        latest_checkpoint(output_dir if missing == "empty" else output_dir / "nowhere")


def test_where_there_is_none_the_newest_run_elsewhere_is_named_with_its_command(output_dir):
    """After train.py --sample, train.py --resume had looked in output alone."""
    other = output_dir.parent / "other"
    for number, folder in enumerate((other, output_dir / "sample")):
        folder.mkdir()
        saved = save_checkpoint(folder, 10, writer(), limit=5)
        os.utime(saved / MARKER, (number, number))
    (output_dir.parent / "torn" / "checkpoint-9").mkdir(parents=True)
    found = output_dir / "sample"
    for looked_in in (output_dir, output_dir / "typo"):
        with pytest.raises(QAError) as refused:
            latest_checkpoint(looked_in)
        assert f"the newest run is in {found}." in str(refused.value)
        assert f"python train.py --resume --output_dir {as_argument(found)}" in str(refused.value)
    assert latest_checkpoint(output_dir / "sample").name == "checkpoint-10"


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
    "marker with a list of names": lambda folder: (folder / MARKER).write_bytes(b'{"files": ["state.pt"]}'),
    "marker of an earlier form": lambda folder: (folder / MARKER).write_bytes(b'{"files": {"state.pt": 300}}'),
    "one bit flipped": lambda folder: flip_bit(folder / "model.safetensors", 2345),
    "last bit flipped": lambda folder: flip_bit(folder / "state.pt", 299),
    "files exchanged": lambda folder: (folder / "state.pt").write_bytes(b"w" * 300),
    "empty folder": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "a file in its place": lambda folder: (shutil.rmtree(folder), folder.write_bytes(b"")),
}


def flip_bit(path: Path, byte: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)


@pytest.mark.fault("damaged checkpoint")
@pytest.mark.parametrize("tear", TEARS)
def test_a_torn_checkpoint_is_passed_over_with_a_warning(tear, output_dir, caplog):
    save_checkpoint(output_dir, 10, writer(), limit=5)
    for step in (20, 30):
        shutil.copytree(output_dir / "checkpoint-10", output_dir / f"checkpoint-{step}")
        TEARS[tear](output_dir / f"checkpoint-{step}")
    assert latest_checkpoint(output_dir).name == "checkpoint-10"
    warned = caplog.messages
    assert len(warned) == 2
    assert "checkpoint-30" in warned[0]
    assert "checkpoint-20" in warned[1]
    assert all("is damaged" in line or "can't be read" in line for line in warned)
    TEARS[tear](output_dir / "checkpoint-10")
    with pytest.raises(QAError, match="no complete checkpoint"):
        latest_checkpoint(output_dir)


def test_whole_checkpoints_are_found_without_a_warning(output_dir, caplog):
    save_checkpoint(output_dir, 10, writer(), limit=5)
    latest_checkpoint(output_dir)
    assert caplog.text == ""


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
        assert all(find_damage(path, full=True) is None for path in list_checkpoints(output_dir))


@pytest.mark.fault("damaged checkpoint")
@pytest.mark.parametrize("tear", ["file cut", "one bit flipped"])
@pytest.mark.parametrize("limit", [1, 2])
def test_torn_checkpoints_do_not_count_among_those_that_are_kept(limit, tear, output_dir):
    """A run goes on from 10, as 30 and 40 are torn. What it saves must not be removed in their favour."""
    for step in (10, 30, 40):
        save_checkpoint(output_dir, step, writer(), limit=5)
    for step in (30, 40):
        TEARS[tear](output_dir / f"checkpoint-{step}")
    saved = save_checkpoint(output_dir, 20, writer(), limit)
    assert latest_checkpoint(output_dir) == saved
    whole = [path.name for path in list_checkpoints(output_dir) if find_damage(path, full=True) is None]
    assert whole == ["checkpoint-10", "checkpoint-20"][-limit:]


def test_a_checkpoint_of_the_same_step_is_replaced(output_dir):
    save_checkpoint(output_dir, 10, writer({"old.pt": b"1"}), limit=2)
    saved = save_checkpoint(output_dir, 10, writer(), limit=2)
    assert set(contents(saved)) == {*FILES, MARKER}
    assert [path.name for path in output_dir.iterdir()] == ["checkpoint-10"]


# failing


@pytest.mark.fault("disk or folder that fails")
@pytest.mark.parametrize("same_step", [False, True])
@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), RuntimeError("a bug"), KeyboardInterrupt(),
     QAError("tokenizer.json can't be read: No such file or directory (os error 2)")],
    ids=repr,
)  # fmt: skip
def test_a_save_that_fails_half_way_leaves_everything_as_it_was(error, same_step, output_dir):
    save_checkpoint(output_dir, 10, writer(), limit=1)
    before = contents(output_dir)
    with pytest.raises(QAError if isinstance(error, OSError) else type(error)) as caught:
        save_checkpoint(output_dir, 10 if same_step else 20, failing(error), limit=1)
    if isinstance(error, QAError):
        assert str(caught.value) == str(error)
    if isinstance(error, OSError):
        assert "No space left on device" in str(caught.value)
        assert "checkpoint-" in str(caught.value)
    assert contents(output_dir) == before
    assert latest_checkpoint(output_dir).name == "checkpoint-10"


@pytest.mark.fault("disk or folder that fails")
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
        with pytest.raises(QAError, match="can't be written"):
            save_checkpoint(output_dir, 20, write, limit=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(output_dir) == before


@pytest.mark.fault("disk or folder that fails")
@pytest.mark.parametrize(("place", "words"), [("file", "can't be written"), ("file/below", "is missing")])
def test_a_place_that_cannot_hold_a_folder_is_a_user_error(place, words, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(QAError, match=words):
        save_checkpoint(tmp_path / place, 10, writer(), limit=1)


@pytest.mark.fault("disk or folder that fails")
def test_a_folder_that_cannot_be_renamed_leaves_the_old_one_in_place(output_dir, monkeypatch):
    """The second of the two renames fails: another program holds the new folder, say a virus scanner."""
    target = output_dir / "final_model"
    replace_folder(target, writer({"old.pt": b"1"}))
    rename = Path.rename

    def refuse(path, to):
        if path.name == ".final_model.new":
            raise PermissionError(13, "Access is denied")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(atomic, "PATIENCE", 0.1)
    with pytest.raises(QAError, match="Access is denied"):
        replace_folder(target, writer())
    assert contents(output_dir) == {"final_model": False, "final_model/old.pt": b"1"}


CRASH = """
import os, sys
from pathlib import Path
from extractive_qa.training.checkpoints import save_checkpoint

def write(folder):
    (folder / "state.pt").write_bytes(b"half")
    os._exit(9)

save_checkpoint(Path(sys.argv[1]), int(sys.argv[2]), write, 1)
"""


@pytest.mark.fault("training killed inside a save")
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
    assert find_damage(output_dir / f"checkpoint-{next_step}", full=True) is None


def test_what_a_power_cut_may_lose_is_on_the_disk_in_time(output_dir, monkeypatch):
    """Every file, and their folder's list of them, before the folder gets its name; that name before the checkpoint
    before it goes. Else a power cut leaves a whole folder of files with nothing in them, or no folder at all."""
    earlier = save_checkpoint(output_dir, 5, writer(), limit=1)
    target, before, after, fsync = output_dir / "checkpoint-10", set(), set(), os.fsync

    def record(descriptor):
        (after if target.exists() else before).add(os.fstat(descriptor).st_ino)
        assert earlier.exists()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    save_checkpoint(output_dir, 10, writer(), limit=1)
    assert {path.stat().st_ino for path in target.iterdir()} <= before
    if os.name == "posix":
        assert target.stat().st_ino in before
        assert output_dir.stat().st_ino in after
    assert not earlier.exists()


@pytest.mark.fault("disk or folder that fails")
@pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX alone")
@pytest.mark.parametrize(("number", "passes"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_disk_that_cannot_sync_folders_will_do_and_one_that_fails_will_not(number, passes, output_dir, monkeypatch):
    fsync = os.fsync

    def refuse_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    with nullcontext() if passes else pytest.raises(QAError, match="can't be written: Input/output error"):
        save_checkpoint(output_dir, 10, writer(), limit=1)
    assert len(list_checkpoints(output_dir)) == passes


# replacing one folder


def test_while_a_folder_is_written_the_old_one_is_still_whole(output_dir):
    target = output_dir / "final_model"
    replace_folder(target, writer({"old.pt": b"1"}))

    def write(folder):
        writer()(folder)
        assert contents(target) == {"old.pt": b"1"}

    replace_folder(target, write)
    assert contents(output_dir) == {"final_model": False} | {f"final_model/{n}": c for n, c in FILES.items()}


@pytest.mark.parametrize("next_to_it", [False, True])
def test_recover_puts_the_old_folder_back_after_a_crash_between_the_renames(next_to_it, output_dir):
    target = output_dir / "final_model"
    replace_folder(target, writer())
    before = contents(target)
    target.rename(output_dir / ".final_model.old")
    if next_to_it:
        replace_folder(output_dir / "other", writer())
        (output_dir / "other").rename(output_dir / ".final_model.new")
    recover(target)
    assert contents(target) == before
    assert not (output_dir / ".final_model.old").exists()


def test_recover_leaves_a_whole_folder_alone(output_dir):
    """A crash after the renames, before the old folder was removed: the new one counts."""
    target = output_dir / "final_model"
    replace_folder(target, writer({"old.pt": b"1"}))
    target.rename(output_dir / ".final_model.old")
    replace_folder(output_dir / "new", writer())
    (output_dir / "new").rename(target)
    recover(target)
    assert contents(target) == FILES
    replace_folder(target, writer())
    assert [path.name for path in output_dir.iterdir()] == ["final_model"]


def test_recover_where_there_is_nothing_does_nothing(output_dir):
    recover(output_dir / "final_model")
    recover(output_dir / "nowhere" / "final_model")
    assert contents(output_dir) == {}


@pytest.mark.parametrize("leftover", [".final_model.new", ".final_model.old"])
def test_what_a_crash_left_does_not_hinder_the_next_write(leftover, output_dir):
    (output_dir / leftover).mkdir()
    (output_dir / leftover / "stale.pt").write_bytes(b"0")
    replace_folder(output_dir / "final_model", writer())
    assert contents(output_dir) == {"final_model": False} | {f"final_model/{n}": c for n, c in FILES.items()}


# one file


@pytest.mark.fault("disk or folder that fails")
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    path.write_text("old", encoding="utf-8")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patches, pytest.raises(OSError, match="No space left on device"):
        patches.setattr(os, "fsync", full)
        write_file(path, "new")
    assert contents(tmp_path) == {"log.jsonl": b"old"}
    write_file(path, "new")
    assert contents(tmp_path) == {"log.jsonl": b"new"}


# state.json


def test_a_state_is_read_as_it_was_written(tmp_path):
    write_state(tmp_path, {"step": 3, "losses": [0.1, 1e-300]})
    assert read_state(tmp_path) == {"format": STATE_FORMAT, "step": 3, "losses": [0.1, 1e-300]}


@pytest.mark.fault("damaged checkpoint")
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b"\0" * 50, b'{"step": 3}'], ids=repr)
def test_a_state_that_says_nothing_is_a_user_error(content, tmp_path):
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(QAError, match=r"state.json .*--resume goes on from the checkpoint before it"):
        read_state(tmp_path)


@pytest.mark.fault("damaged checkpoint")
def test_a_state_of_another_version_is_a_user_error(tmp_path):
    (tmp_path / STATE).write_text(json.dumps({"format": STATE_FORMAT + 1, "step": 3}), encoding="utf-8")
    with pytest.raises(QAError, match=f"format {STATE_FORMAT + 1}, expected {STATE_FORMAT}: another version"):
        read_state(tmp_path)


# one training at a time, and room for it


@pytest.mark.fault("two trainings into one folder")
def test_the_second_training_in_a_folder_is_refused_until_the_first_ends(output_dir):
    with lock_output_dir(output_dir):
        for _ in range(2):  # a refusal leaves the lock alone
            with pytest.raises(QAError, match=f"process {os.getpid()}, writes to"), lock_output_dir(output_dir):
                pass
    with lock_output_dir(output_dir):
        pass
    assert contents(output_dir) == {}


def test_only_the_first_of_several_processes_locks(output_dir, monkeypatch):
    with lock_output_dir(output_dir):
        monkeypatch.setenv("RANK", "1")
        with lock_output_dir(output_dir):
            pass
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(QAError), lock_output_dir(output_dir):
            pass


def test_where_no_file_can_be_locked_every_run_is_asked_to_keep_others_out(output_dir, monkeypatch, caplog):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
    with lock_output_dir(output_dir):
        pass
    assert "has no locks (No locks available): let no other run write here meanwhile" in caplog.text


HOLD = """
import os, signal, sys
from pathlib import Path
from extractive_qa.training.checkpoints import lock_output_dir

with lock_output_dir(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.fault("two trainings into one folder")
def test_a_killed_training_leaves_no_lock(output_dir):
    command = [sys.executable, "-c", HOLD, str(output_dir)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=PROJECT_ROOT, **pipes) as process:
        try:
            assert process.stdout.readline().strip() == b"locked"
            with pytest.raises(QAError, match=f"process {process.pid}, writes to"), lock_output_dir(output_dir):
                pass
        finally:
            process.kill()
            process.wait(timeout=60)
    with lock_output_dir(output_dir):
        pass


@pytest.mark.fault("disk or folder that fails")
def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(QAError, match="Choose another --output_dir"), lock_output_dir(tmp_path / "file"):
        pass


@pytest.mark.fault("disk or folder that fails")
def test_too_little_room_on_the_disk_is_said_in_numbers(output_dir, monkeypatch):
    """What an earlier run takes counts as free: its checkpoints go as new ones come."""
    save_checkpoint(output_dir, 10, writer({"model": b"m" * 3 * 2**20}), limit=1)
    used = sum(path.stat().st_size for path in (output_dir / "checkpoint-10").iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    require_disk_space(output_dir, 2**20 + used)
    with pytest.raises(QAError, match=r"has 1 MB free, .* take 9 MB more.*--save_total_limit 1"):
        require_disk_space(output_dir, 9 * 2**20 + used)
