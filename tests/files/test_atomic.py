"""Files and folders appear whole or not at all, also where another program holds them for a moment, as virus scanners
and indexers do on Windows."""

import errno
import shutil
from pathlib import Path

import pytest

from extractive_qa.errors import QAError
from extractive_qa.files import atomic
from extractive_qa.files.atomic import explain_write_failure, remove, replace_folder, write_file

HELD = [errno.EACCES, errno.EBUSY]  # WinError 5 and 32 are the first in Python


def hold(monkeypatch, owner, name: str, times: int, number: int = errno.EACCES) -> list:
    """Has a function refused so many times. Returns the list of its refusals."""
    original, refused = getattr(owner, name), []

    def held(*args, **settings):
        if len(refused) < times:
            refused.append(args)
            raise OSError(number, "held by a scanner")
        return original(*args, **settings)

    monkeypatch.setattr(owner, name, held)
    return refused


def fill(folder: Path, text: str) -> None:
    replace_folder(folder, lambda new: (new / "file").write_text(text, encoding="utf-8"))


@pytest.mark.fault("file that another program holds")
@pytest.mark.parametrize("number", HELD)
@pytest.mark.parametrize(("owner", "name"), [(Path, "rename"), (Path, "open"), (shutil, "rmtree")])
def test_a_folder_that_is_held_for_a_moment_is_replaced(monkeypatch, tmp_path, owner, name, number):
    fill(tmp_path / "a", "old")
    (tmp_path / ".a.new").mkdir()  # of a crash: it goes first
    if name == "open":  # of the new files, to have them on the disk; before, they are written
        original = atomic.sync
        monkeypatch.setattr(
            atomic, "sync", lambda folder: (hold(monkeypatch, owner, name, 2, number), original(folder))
        )
    else:
        refused = hold(monkeypatch, owner, name, 3, number)
    fill(tmp_path / "a", "new")
    monkeypatch.undo()
    assert name == "open" or len(refused) == 3
    assert (tmp_path / "a" / "file").read_text(encoding="utf-8") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.fault("file that another program holds")
@pytest.mark.parametrize("number", HELD)
def test_a_file_that_is_held_for_a_moment_is_replaced(monkeypatch, tmp_path, number):
    write_file(tmp_path / "a", "old")
    assert len(hold(monkeypatch, Path, "replace", 2, number)) == 0
    write_file(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.fault("file that another program holds")
@pytest.mark.parametrize("first", [0, 1], ids=["the old folder", "the new folder"])
def test_a_folder_that_stays_held_keeps_its_content_and_the_message_says_what_to_close(monkeypatch, tmp_path, first):
    fill(tmp_path / "a", "old")
    monkeypatch.setattr(atomic, "PATIENCE", 0.05)
    original, calls = Path.rename, []

    def rename(path, target):
        calls.append(path.name)
        if path.name == ("a", ".a.new")[first]:
            raise PermissionError(errno.EACCES, "Access is denied")
        return original(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(QAError, match=r"Access is denied.* is still there.*virus scanner.*then try again") as refused:
        fill(tmp_path / "a", "new")
    assert "Free some space" not in str(refused.value)
    assert calls.count(("a", ".a.new")[first]) > 2
    assert (tmp_path / "a" / "file").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.fault("file that another program holds")
def test_where_the_old_folder_can_not_come_back_the_message_says_where_it_is(monkeypatch, tmp_path):
    fill(tmp_path / "a", "old")
    monkeypatch.setattr(atomic, "PATIENCE", 0.05)
    original = Path.rename

    def rename(path, target):
        if target.name == "a":
            raise PermissionError(errno.EACCES, "Access is denied")
        return original(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(QAError, match=r"What was there before is in .*\.a\.old"):
        fill(tmp_path / "a", "new")
    monkeypatch.undo()
    atomic.recover(tmp_path / "a")
    assert (tmp_path / "a" / "file").read_text(encoding="utf-8") == "old"


@pytest.mark.fault("file that another program holds")
def test_an_old_folder_that_can_not_be_removed_is_no_failure_and_goes_the_next_time(monkeypatch, tmp_path):
    fill(tmp_path / "a", "old")
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "PATIENCE", 0.05)
        hold(patch, shutil, "rmtree", 100)
        fill(tmp_path / "a", "new")
    assert (tmp_path / "a" / "file").read_text(encoding="utf-8") == "new"
    assert (tmp_path / ".a.old").exists()
    fill(tmp_path / "a", "newer")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.fault("file that another program holds")
def test_a_file_that_stays_held_is_told_after_some_seconds(monkeypatch, tmp_path):
    write_file(tmp_path / "a", "old")
    monkeypatch.setattr(atomic, "PATIENCE", 0.05)
    hold(monkeypatch, Path, "replace", 100)
    with pytest.raises(QAError, match=r"is still there.*close the program"), explain_write_failure(tmp_path / "a"):
        write_file(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_is_told_at_once(monkeypatch, tmp_path):
    refused = hold(monkeypatch, Path, "replace", 100, errno.ENOSPC)
    with pytest.raises(QAError, match="Free some space"), explain_write_failure(tmp_path / "a"):
        write_file(tmp_path / "a", "new")
    assert len(refused) == 1


def test_of_a_link_to_a_folder_the_link_alone_is_removed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").touch()
    try:
        (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    except OSError:
        pytest.skip("needs the right to make links")
    remove(tmp_path / "link")
    assert [path.name for path in tmp_path.rglob("*")] == ["real", "file"]
