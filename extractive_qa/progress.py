"""Bars: whoever wants to see them passes something that is called like tqdm; else nothing is shown."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager


class NoProgress(AbstractContextManager):
    """Called like tqdm.tqdm, as far as the library does, and shows nothing."""

    def __init__(self, iterable: Iterable = (), **settings: object):
        self.iterable, self.n = iterable, settings.get("initial", 0)

    def __iter__(self) -> Iterator:
        return iter(self.iterable)

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: int = 1) -> None:
        self.n += n

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        pass
