"""Training features as a file that begins with a sha256: a damaged one is known."""

from dataclasses import fields
from pathlib import Path
from typing import BinaryIO

import numpy as np

from extractive_qa.files.atomic import open_checked, save_checked
from extractive_qa.preprocessing.windows import Features, PairTemplate

# a file holds these arrays, one after another
TEMPLATE = tuple(field.name for field in fields(PairTemplate))
ARRAYS = (*TEMPLATE, *(field.name for field in fields(Features) if field.name != "template"))


def save_features(path: Path, features: Features, kept: int) -> None:
    """Writes training features to `path`, and keeps the newest `kept` files there. Raises OSError."""

    def write(file: BinaryIO) -> None:
        for name in ARRAYS:
            of_template = name in TEMPLATE
            array = np.array(getattr(features.template, name), np.int64) if of_template else getattr(features, name)
            np.save(file, array, allow_pickle=False)

    save_checked(path, write, kept)


def load_features(path: Path) -> Features | None:
    """What save_features wrote to `path`; None where there is no such file, or it can't be read or is damaged."""
    if (file := open_checked(path)) is None:
        return None
    with file:
        arrays = {name: np.load(file, allow_pickle=False) for name in ARRAYS}
    template = PairTemplate(**{name: arrays.pop(name).tolist() for name in TEMPLATE})
    return Features(template, **arrays)
