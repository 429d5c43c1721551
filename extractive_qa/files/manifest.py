"""manifest.json: what a folder of data or of a model holds, so that a damaged or half-copied one is noticed.

    {"source": "https://huggingface.co/…", "revision": "<commit>", "date": "2026-01-31",
     "files": [{"file": "train/data.arrow", "size": 123, "sha256": "…"}, …]}

Written by whoever makes the folder, checked by whoever is about to work for hours on it.
"""

import hashlib
import json
import logging
import os
import unicodedata
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from operator import itemgetter
from pathlib import Path, PureWindowsPath

from extractive_qa.errors import QAError
from extractive_qa.files.atomic import write_json
from extractive_qa.text import shown

NAME = "manifest.json"
WORTH_A_LINE = 1e9  # bytes: fewer are read in seconds
GET_AGAIN = "Get it again."

logger = logging.getLogger(__name__)


def write_manifest(
    folder: Path, source: str, revision: str | None, *, paths: list[Path] | None = None, name: str = NAME,
    more: dict | None = None,
) -> None:  # fmt: skip
    """Lists every file in `folder` (paths relative to it, with "/"), or only `paths`, in `folder`/manifest.json, or
    `name`, all of it or nothing. more: what else it is to say, which nothing here reads."""
    if paths is None:
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != name)
    files = [
        {"file": path.relative_to(folder).as_posix(), "size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in paths
    ]
    manifest = {"source": source, "revision": revision, "date": date.today().isoformat(), "files": files}
    manifest |= more or {}
    write_json(folder / name, manifest)


def check_manifest(
    folder: Path, *, full: bool, remedy: str = GET_AGAIN, name: str = NAME, unused: Container[str] = ()
) -> bool:
    """Compares `folder` with its manifest: sizes (milliseconds), and sha256 too where `full` (seconds). unused: files
    that are not looked at, and may be missing.

    Returns False where the folder has no manifest (`name`): a user's own folder, about which nothing is known. Files
    that the manifest doesn't list are ignored: they are the user's notes or a library's cache, and can't damage the
    others. Whoever can edit a file and the manifest too is not found out: it protects from accidents, and from changes
    to what was downloaded by those who don't know of it.
    Raises QAError naming every file that is missing, can't be read or differs, what was expected, and the `remedy`.
    """
    if not (folder / name).is_file():
        return False
    problems = []
    files = [entry for entry in read_manifest(folder, name, remedy)["files"] if entry["file"] not in unused]
    if full and (size := sum(entry["size"] for entry in files)) > WORTH_A_LINE:
        logger.info(f"verifying {size / 1e6:,.0f} MB in {shown(folder)} ...")
    for entry in files:
        path = folder / entry["file"]
        try:
            if not path.is_file():
                problems.append(f"{entry['file']} is missing")
            elif (size := path.stat().st_size) != entry["size"]:
                problems.append(f"{entry['file']} has {size:,} bytes, expected {entry['size']:,}")
            elif full and (found := sha256_of(path)) != entry["sha256"]:
                problems.append(f"{entry['file']} has sha256 {found}, expected {entry['sha256']}")
        except OSError as error:
            problems.append(f"{entry['file']} can't be read ({error.strerror})")
    if problems:
        raise QAError(f"{folder} is damaged: {'; '.join(problems)}. {remedy}")
    return True


def read_manifest(folder: Path, name: str = NAME, remedy: str = GET_AGAIN) -> dict:
    """The manifest `name` of a folder as a dict. Raises QAError, with the `remedy`, where it can't be read, lists
    nothing, or names a file outside the folder. A link may lead to a file that a Hub's cache holds."""
    path = folder / name
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        for key in ("source", "revision", "date"):
            manifest[key]  # is there
        for entry in manifest["files"]:
            well_formed = isinstance(entry["file"], str) and isinstance(entry["size"], int)
            if not well_formed or not isinstance(entry["sha256"], str):
                raise TypeError(f"an entry reads {entry}")
        if not manifest["files"]:
            raise ValueError("it lists no file")
    # ValueError: not UTF-8, or not JSON; RecursionError: nested too deeply
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise QAError(
            f"{path} can't be read ({type(error).__name__}: {error}). Expected a list of files and checksums. {remedy}"
        ) from error
    inside = Path(os.path.realpath(folder))
    for entry in manifest["files"]:
        file = entry["file"]
        # a link in the folder may lead out of it too; such a name may be none for the system
        place = Path(os.path.realpath(folder / file)) if stays_inside(file) else None
        if place is None or not (place.is_relative_to(inside) or is_cached(place)):
            raise QAError(f"{path} names {file!r}, which is outside the folder. Expected files inside it. {remedy}")
    return manifest


def listed_files(folder: Path, name: str = NAME, remedy: str = GET_AGAIN) -> set[str]:
    """What the manifest `name` of a folder lists, nothing where it is missing. Raises as read_manifest."""
    if not (folder / name).is_file():
        return set()
    return {entry["file"] for entry in read_manifest(folder, name, remedy)["files"]}


@contextmanager
def unlisted(path: Path, names: Iterable[str]) -> Iterator[None]:
    """For rewriting the file `path`: meanwhile no manifest of its folder (of those called `names`) lists it, afterwards
    those that did list it as it then is. So the folder agrees with its manifests whenever a crash comes: a file that
    isn't listed isn't checked. Raises QAError where a manifest can't be read, and OSError."""
    lists = {name: read_manifest(path.parent, name) for name in names if (path.parent / name).is_file()}
    lists = {
        name: manifest for name, manifest in lists.items() if path.name in map(itemgetter("file"), manifest["files"])
    }
    for name, manifest in lists.items():
        others = [entry for entry in manifest["files"] if entry["file"] != path.name]
        write_json(path.with_name(name), manifest | {"files": others})
    try:
        yield
    finally:
        for name, manifest in lists.items():
            now = {"file": path.name, "size": path.stat().st_size, "sha256": sha256_of(path)}
            files = [now if entry["file"] == path.name else entry for entry in manifest["files"]]
            write_json(path.with_name(name), manifest | {"files": files})


def is_cached(file: Path) -> bool:
    """Whether a file is among those of a Hub's cache, where the folders of models and data are links to them:
    models--google--mobilebert-uncased/snapshots/<commit>/config.json is one to models--.../blobs/<checksum>."""
    return file.parent.name == "blobs" and file.parent.parent.name.startswith(("models--", "datasets--"))


def stays_inside(name: str) -> bool:
    """Whether a path from a listing stays in the listing's folder, whatever system reads it. Links are not followed."""
    file = PureWindowsPath(unicodedata.normalize("NFKC", name))  # knows both slashes; no wide dots and slashes are left
    return (
        name.isprintable()  # no NUL, no line breaks, no marks that turn the reading direction
        and ":" not in name  # a drive, or a stream of a file on Windows
        and not (file.drive or file.root)
        and not any(part.rstrip(" .") == "" for part in file.parts)  # "..", and what Windows takes for it: ".. "
    )


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
