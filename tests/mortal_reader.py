"""A reader that ends a run in the middle, for the tests of what is left then."""

from collections.abc import Callable


class Killed(BaseException):
    pass


def is_killed(monkeypatch, owner: object, name: str, struck: object, action: Callable[[], object]) -> bool:
    """Whether `action()` ends in Killed while `struck` is in the place of `owner.name`."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, struck)
        try:
            action()
        except Killed:
            return True
    return False


class MortalReader:
    """A reader that ends the run with the given group."""

    def __init__(self, reader, groups: int):
        self.reader, self.left = reader, groups

    def __getattr__(self, name):
        if name in ("answer_all", "answer_documents"):
            self.left -= 1
            if self.left < 0:
                raise Killed
        return getattr(self.reader, name)
