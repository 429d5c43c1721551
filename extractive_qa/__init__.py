"""Extractive question answering: a reader that finds the answer to a question in a text, with a confidence.

    from extractive_qa import Reader
    reader = Reader("path/to/model")
    reader.answer("Who wrote it?", "It was written by Ada Lovelace in 1843.")

It works offline, from a folder. It prints nothing: what it has to say goes through logging.getLogger("extractive_qa"),
and what its user can fix is a QAError.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

from extractive_qa.errors import QAError

if TYPE_CHECKING:
    from extractive_qa.metrics import compute_metrics
    from extractive_qa.reader import Reader

__all__ = ["QAError", "Reader", "compute_metrics"]

logging.getLogger("extractive_qa").addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    """Reader and compute_metrics, imported when they are first asked for."""
    room = {"Reader": "extractive_qa.reader", "compute_metrics": "extractive_qa.metrics"}.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(room), name)
