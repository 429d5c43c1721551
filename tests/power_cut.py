"""What a power cut may leave of the files that a program writes.

A kill loses nothing that the system was handed; a power cut loses what was not yet on the disk, and the system writes
to the disk in an order of its own. `recorded` notes what a program does below a folder: every creation, write, rename,
removal and fsync, also those of libraries in C++ and Rust, which are found by comparing the folder with what it was.
`crash_states` then makes the states that may be found after a power cut: the model is that of ALICE (Pillai et al.,
"All File Systems Are Not Created Equal", OSDI 2014), with the least that POSIX promises:

- what was written to a file is on the disk once an fsync of that file returned; until then each write may be there,
  lost, torn after any byte, or have given the file its length only, which reads as zeros;
- a name (a creation, rename, removal) is there once an fsync of its folder returned; until then each may be there or
  not, whatever came before or after it. A rename takes place whole or not at all.
"""

import io
import itertools
import math
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

Tree = dict  # of a folder: {name: bytes of a file, or Tree}
IGNORED = ".lock"  # empty but for a process id, and no lock once the process is gone


@dataclass(frozen=True)
class Write:
    """Bytes of a file from `start` on are replaced by `data`, and its size becomes `size`."""

    node: int
    start: int
    data: bytes
    size: int
    shrinks: bool

    def choices(self, cuts: int) -> list[tuple[str, int]]:
        """What may be left of it: (kind, bytes)."""
        if not self.data:
            return [("lost", 0), ("whole", 0)]
        length = len(self.data)
        torn = {1 + (length - 1) * n // (cuts + 1) for n in range(1, cuts + 1)} | {length - 1}
        tears = [("torn", n) for n in sorted(torn) if 0 < n < length]
        return [("lost", 0), ("whole", 0), ("zeros", length), ("end", length // 2), *tears]

    def apply(self, content: bytes, kind: str, count: int) -> bytes:
        if kind == "lost":
            return content
        if self.shrinks and kind in ("whole", "torn"):
            content = content[: self.size]
        data = self.data[:count] if kind == "torn" else self.data
        end = self.start + len(data)
        now = bytearray(content.ljust(end, b"\0"))  # a hole reads as zeros
        first = {"zeros": len(data), "end": count}.get(kind, 0)  # bytes that keep what was there before
        now[self.start + first : end] = data[first:]
        return bytes(now)


@dataclass(frozen=True)
class Names:
    """Names of folders that change together: {folder: {name: node, or None where it goes}}."""

    changes: dict

    def choices(self, cuts: int) -> list[tuple[str, int]]:
        return [("lost", 0), ("whole", 0)]


@dataclass(frozen=True)
class Sync:
    node: int


@dataclass(frozen=True)
class Said:
    """What was reported as done."""

    what: object


@dataclass
class Recorder:
    """What was done below `root` since it was made, as `operations`, and the folder before that, as `first`."""

    root: Path
    operations: list = field(default_factory=list)
    nodes: dict = field(default_factory=dict)  # inode: number of a file or folder, never used twice
    folders: dict = field(default_factory=dict)  # node: {name: node}
    files: dict = field(default_factory=dict)  # node: bytes
    seen: dict = field(default_factory=dict)  # node: what shows that a file was not changed since
    are_folders: set = field(default_factory=set)  # nodes

    def __post_init__(self):
        self.count = itertools.count()
        self.look()
        self.operations.clear()
        self.first = {node: dict(names) for node, names in self.folders.items()}, dict(self.files)
        self.top = self.nodes[self.root.stat().st_ino]

    def say(self, what: object) -> None:
        self.look()
        self.operations.append(Said(what))

    def node_of(self, inode: int) -> int:
        return self.nodes.setdefault(inode, next(self.count))

    def look(self, written: int | None = None) -> None:
        """Notes what has changed. written: the inode of a file that was written, maybe within a tick of the clock."""
        folders, alive = {}, set()
        for folder, _, _ in os.walk(self.root):
            inode = Path(folder).stat().st_ino
            alive.add(inode)
            names = folders.setdefault(self.node_of(inode), {})
            for entry in os.scandir(folder):
                if entry.name.endswith(IGNORED):
                    continue
                found = entry.stat(follow_symlinks=False)
                alive.add(found.st_ino)
                names[entry.name] = node = self.node_of(found.st_ino)
                if entry.is_dir():
                    continue
                shown = found.st_size, found.st_mtime_ns, found.st_ctime_ns
                if found.st_ino == written or self.seen.get(node) != shown:
                    self.seen[node] = shown
                    self.note_content(node, Path(entry.path).read_bytes())
        for node, names in folders.items():
            before = self.folders.get(node, {})
            for name in sorted(before.keys() | names.keys()):
                if before.get(name) != names.get(name):
                    self.operations.append(Names({node: {name: names.get(name)}}))
        self.folders = folders
        self.are_folders |= folders.keys()
        self.nodes = {inode: node for inode, node in self.nodes.items() if inode in alive}

    def note_content(self, node: int, now: bytes) -> None:
        before = self.files.get(node, b"")
        if now == before:
            self.files[node] = now
            return
        start = len(before) if now.startswith(before) else same_at_the_start(before, now)
        end = len(now)
        if len(now) == len(before):
            end -= same_at_the_start(before[:start:-1], now[:start:-1])
        self.operations.append(Write(node, start, now[start:end], len(now), len(now) < len(before)))
        self.files[node] = now

    def note_sync(self, descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        self.look(inode)
        if inode in self.nodes:
            self.operations.append(Sync(self.nodes[inode]))

    def note_rename(self, rename, source, target) -> None:
        """A rename is one operation, whatever looks at the folder would see."""
        self.look()
        before = len(self.operations)
        rename(source, target)
        self.look()
        changes = {}
        for operation in self.operations[before:]:
            assert isinstance(operation, Names), "something else was written meanwhile"
            for folder, names in operation.changes.items():
                changes.setdefault(folder, {}).update(names)
        del self.operations[before:]
        if changes:
            self.operations.append(Names(changes))


@contextmanager
def recorded(root: Path) -> Iterator[Recorder]:
    """Records what this process does below `root` in the block."""
    recorder = Recorder(root)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("unlink", "remove", "mkdir", "rmdir", "truncate", "open"):
            patch.setattr(os, name, looking_after(getattr(os, name), recorder))
        for name in ("rename", "replace"):
            patch.setattr(os, name, partial(recorder.note_rename, getattr(os, name)))
        fsync = os.fsync
        patch.setattr(os, "fsync", lambda descriptor: (fsync(descriptor), recorder.note_sync(descriptor))[0])
        opened = recording_open(recorder)
        patch.setattr(io, "open", opened)  # pathlib's
        patch.setattr("builtins.open", opened)
        yield recorder
        recorder.look()


def same_at_the_start(one: bytes, other: bytes) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def looking_after(function, recorder: Recorder):
    def called(*args, **settings):
        result = function(*args, **settings)
        recorder.look()
        return result

    return called


def recording_open(recorder: Recorder):
    """open() whose files tell of each write. The buffered and the text layers of Python call the raw one."""
    plain = io.open

    class RawFile(io.FileIO):
        def write(self, data):
            count = super().write(data)
            recorder.look(os.fstat(self.fileno()).st_ino)
            return count

        def truncate(self, size=None):
            found = super().truncate(size)
            recorder.look(os.fstat(self.fileno()).st_ino)
            return found

    def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        path = os.fspath(file) if isinstance(file, str | os.PathLike) else None
        writes = path is not None and set("wax+") & set(mode)
        if not writes or not Path(path).absolute().is_relative_to(recorder.root):
            return plain(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = RawFile(path, mode.replace("b", "").replace("t", ""), closefd, opener)
        recorder.look()
        if buffering == 0:
            return raw
        stream = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return stream
        text = io.TextIOWrapper(stream, encoding or "locale", errors, newline)
        text.mode = mode
        return text

    return opened


def crash_states(recorder: Recorder, limit: int, cuts: int = 2, seed: int = 0) -> Iterator[tuple[Tree, list]]:
    """The folders that a power cut may leave, each with what had been said by then, no pair twice.

    After each operation all combinations of what is not on the disk yet are tried where they are `limit` at most, else
    so many: all or none of it there, each alone there or lost, the rest drawn with a fixed seed. cuts: places at
    which a write is torn.
    """
    draw, found = random.Random(seed), set()
    for end in range(len(recorder.operations) + 1):
        done = recorder.operations[:end]
        said = [operation.what for operation in done if isinstance(operation, Said)]
        waiting = [operation for number, operation in enumerate(done) if not is_on_disk(operation, done[number + 1 :])]
        for choices in combinations([operation.choices(cuts) for operation in waiting], limit, draw):
            kept = {id(operation): choice for operation, choice in zip(waiting, choices, strict=True)}
            tree = replay(recorder, done, kept)
            if (key := hash((frozen(tree), repr(said)))) not in found:
                found.add(key)
                yield tree, said


def is_on_disk(operation, later: list) -> bool:
    """Also where it is nothing that can be lost."""
    if isinstance(operation, Write):
        return Sync(operation.node) in later
    return not isinstance(operation, Names) or any(Sync(folder) in later for folder in operation.changes)


def combinations(choices: list[list], limit: int, draw: random.Random) -> Iterator[tuple]:
    if math.prod(map(len, choices)) <= limit:
        yield from itertools.product(*choices)
        return
    none, everything = [options[0] for options in choices], [options[1] for options in choices]
    yield from (tuple(none), tuple(everything))
    for base in (none, everything):
        for place, options in enumerate(choices):
            yield from ((*base[:place], option, *base[place + 1 :]) for option in options if option != base[place])
    yield from (tuple(map(draw.choice, choices)) for _ in range(limit))


def replay(recorder: Recorder, done: list, kept: dict) -> Tree:
    """The folder after these operations. kept: what became of those that were not on the disk, by identity."""
    folders, files = {node: dict(names) for node, names in recorder.first[0].items()}, dict(recorder.first[1])
    for operation in done:
        kind, count = kept.get(id(operation), ("whole", 0))
        if isinstance(operation, Write):
            files[operation.node] = operation.apply(files.get(operation.node, b""), kind, count)
        elif isinstance(operation, Names) and kind == "whole":
            for folder, changes in operation.changes.items():
                names = folders.setdefault(folder, {})
                for name, node in changes.items():
                    names.pop(name, None)
                    names |= {} if node is None else {name: node}

    def tree(folder: int) -> Tree:
        return {
            name: tree(node) if node in recorder.are_folders else files.get(node, b"")
            for name, node in folders.get(folder, {}).items()
        }

    return tree(recorder.top)


def frozen(tree: Tree) -> tuple:
    return tuple((name, frozen(node) if isinstance(node, dict) else node) for name, node in sorted(tree.items()))


def lay(tree: Tree, folder: Path) -> Path:
    """Makes a folder with what a Tree says."""
    folder.mkdir()
    for name, node in tree.items():
        if isinstance(node, dict):
            lay(node, folder / name)
        else:
            (folder / name).write_bytes(node)
    return folder


class Story(NamedTuple):
    """What a program does in a folder, and what must hold of every folder that a power cut leaves."""

    do: Callable  # (folder, say): say(x) where x is reported as done
    check: Callable  # (folder, said)
    before: Callable = lambda folder: None  # what is there when it begins


def survive(story: Story, limit: int, cuts: int) -> int:
    """Tries the states after a power cut, in memory where there is such a disk, and returns how many they were."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as place:
        root, after, count = Path(place) / "root", Path(place) / "after", 0
        root.mkdir()
        story.before(root)
        with recorded(root) as recorder:
            story.do(root, recorder.say)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda descriptor: None)  # nothing else happens to this disk
            for tree, said in crash_states(recorder, limit, cuts):
                count += 1
                try:
                    story.check(lay(tree, after), said)
                except BaseException as error:
                    error.add_note(f"state {count}, after {said} was said: {tree!r:.4000}")
                    raise
                shutil.rmtree(after)
    return count
