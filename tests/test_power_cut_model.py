"""The model of power cuts finds careless writers out, and loses nothing that is on the disk."""

import os
from pathlib import Path

import pytest
import torch
from power_cut import Story, crash_states, recorded, survive

from extractive_qa.files.atomic import sync_entries, sync_file, write_file

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX's rules; on Windows folders are not synced")


def writes_without_a_sync(path: Path) -> None:
    new = path.with_name("new")
    new.write_text("new " * 9, encoding="utf-8")
    new.replace(path)
    sync_entries(path.parent)


def renames_without_a_sync_of_the_folder(path: Path) -> None:
    new = path.with_name("new")
    new.write_text("new " * 9, encoding="utf-8")
    sync_file(new)
    new.replace(path)


def writes_in_place(path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("new " * 9)
        file.flush()
        os.fsync(file.fileno())


def removes_first(path: Path) -> None:
    path.unlink()
    write_file(path, "new " * 9)


def writes_by_a_library(path: Path) -> None:
    """Written in C++: no write of Python's is seen."""
    torch.save(torch.zeros(9), path.with_name("new"))
    path.with_name("new").replace(path)
    sync_entries(path.parent)


@pytest.mark.parametrize(
    "write",
    [writes_without_a_sync, renames_without_a_sync_of_the_folder, writes_in_place, removes_first, writes_by_a_library],
)
def test_a_writer_that_is_careless_is_found_out(write):
    def do(folder, say):
        write(folder / "file")
        whole.append((folder / "file").read_bytes())
        say("written")

    def check(folder, said):
        found = (folder / "file").read_bytes()
        assert found == whole[0] or (found == b"old" and not said)

    whole = []
    with pytest.raises((AssertionError, FileNotFoundError)):
        survive(Story(do, check, lambda folder: (folder / "file").write_bytes(b"old")), limit=50, cuts=1)


def as_tree(folder: Path) -> dict:
    return {path.name: as_tree(path) if path.is_dir() else path.read_bytes() for path in folder.iterdir()}


def test_what_was_there_before_and_what_was_done_are_among_the_states(tmp_path):
    (tmp_path / "earlier").write_bytes(b"1")
    (tmp_path / "folder").mkdir()
    with recorded(tmp_path) as recorder:
        (tmp_path / "empty").mkdir()
        (tmp_path / "earlier").rename(tmp_path / "folder" / "later")
        with (tmp_path / "a").open("w+b") as file:
            file.write(b"12345678")
            file.seek(3)
            file.write(b"xy")
            file.truncate(6)
    states = [tree for tree, _ in crash_states(recorder, limit=1)]
    assert states[0] == {"earlier": b"1", "folder": {}}
    assert as_tree(tmp_path) == {"empty": {}, "folder": {"later": b"1"}, "a": b"123xy6"}
    assert as_tree(tmp_path) in states
    assert all(("earlier" in tree) != ("later" in tree["folder"]) for tree in states), "a rename is whole or not at all"


def test_what_is_synced_stays(tmp_path):
    with recorded(tmp_path) as recorder:
        write_file(tmp_path / "a", "x" * 50)
        recorder.say("written")
        (tmp_path / "b").write_bytes(b"y" * 50)
    states = [tree for tree, said in crash_states(recorder, limit=100, cuts=60) if said]
    assert all(tree["a"] == b"x" * 50 for tree in states)
    found = {tree.get("b") for tree in states}
    assert found >= {None, b"y" * 50, b"\0" * 50} | {b"y" * n for n in range(50)}
