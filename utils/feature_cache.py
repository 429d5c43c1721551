"""Prepared training features on disk, so that a second training with the same questions starts at once.

A file is named after everything its content depends on, so it can't be out of date; anyone may delete it. It holds a
sha256 and then the arrays one after another, so a torn or damaged file is known, and made anew. Teachers' answers are
kept in such files too (utils/distillation.py).
"""

import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tokenizers
from tokenizers import Tokenizer

from utils.console import PROJECT_ROOT, note, warn
from utils.windows import Features, PairTemplate, first_answer, prepare_train_features

CACHE_DIR = PROJECT_ROOT / "data" / "cache"
FORMAT = 1  # of the file, and of what windows.py puts into it: raise it with every change of either
WORTH_A_FILE = 1000  # questions: fewer are prepared in no time
KEPT = 4  # files: about 40 MB for all of SQuAD
DIGEST_SIZE = hashlib.sha256().digest_size


def cached_train_features(
    examples: Sequence[dict], tokenizer: Tokenizer, max_length: int, doc_stride: int, folder: Path = CACHE_DIR
) -> Features:
    """What prepare_train_features gives, from `folder` where it was prepared before, else saved there.

    The newest few files are kept. A folder that can't be written is no error, only a warning.
    """
    if len(examples) < WORTH_A_FILE:
        return prepare_train_features(examples, tokenizer, max_length, doc_stride)
    path = folder / f"train-{features_key(examples, tokenizer, max_length, doc_stride)}.features"
    features = load_features(path)
    if features is None:
        note(f"preparing the windows of {len(examples):,} questions ...")
        features = prepare_train_features(examples, tokenizer, max_length, doc_stride)
        try:
            save_features(path, features)
        except OSError as error:
            warn(f"the prepared windows can't be kept in {folder}: {error.strerror or error}. Going on without.")
    return features


def features_key(examples: Sequence[dict], tokenizer: Tokenizer, max_length: int, doc_stride: int) -> str:
    """A name, 40 hexadecimal digits, for what prepare_train_features makes of its arguments."""
    model = tokenizer.to_str()
    digest = hashlib.sha256(f"{FORMAT} {tokenizers.__version__} {max_length} {doc_stride} {len(model)}\n".encode())
    digest.update(model.encode())
    numbers = {}
    for example in examples:
        question, context = example["question"], example["context"]
        start, answer = first_answer(example)
        known = context in numbers
        number = numbers.setdefault(context, len(numbers))
        # each text after its length, so that no two lists of examples read the same
        head = f"{number} {len(context)} {len(question)} {start} {len(answer)}\n"
        text = head + question + ("" if known else context)
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:40]


def save_checked(path: Path, write: Callable[[BinaryIO], object], kept: int) -> None:
    """Writes a sha256, and what `write` writes, to `path`, which holds the old file or the whole new one at any time.
    Removes the oldest files of its kind (suffix) beyond `kept`. Raises OSError where that can't be done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".new", delete=False) as file:
        new = Path(file.name)
        try:
            file.write(bytes(DIGEST_SIZE))
            write(file)
            file.seek(DIGEST_SIZE)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            file.write(digest)
            file.close()  # Windows renames no open file
            new.replace(path)
        except BaseException:
            file.close()
            new.unlink(missing_ok=True)
            raise
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


def save_features(path: Path, features: Features) -> None:
    """Writes training features to `path`, as save_checked does."""

    def write(file: BinaryIO) -> None:
        for array in as_arrays(features):
            np.save(file, array, allow_pickle=False)

    save_checked(path, write, KEPT)


def load_features(path: Path) -> Features | None:
    """What save_features wrote to `path`; None where there is no such file, or it can't be read or is damaged."""
    if (file := open_checked(path)) is None:
        return None
    with file:
        arrays = {name: np.load(file, allow_pickle=False) for name in ARRAYS}
    template = PairTemplate(**{name: arrays.pop(name).tolist() for name in TEMPLATE})
    return Features(template, **arrays)


TEMPLATE = tuple(field.name for field in fields(PairTemplate))
ARRAYS = (*TEMPLATE, *(field.name for field in fields(Features) if field.name != "template"))


def as_arrays(features: Features) -> list[np.ndarray]:
    """The arrays of ARRAYS, in that order."""
    return [
        np.array(getattr(features.template, name), dtype=np.int64) if name in TEMPLATE else getattr(features, name)
        for name in ARRAYS
    ]
