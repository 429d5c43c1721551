"""A reader that ends a run in the middle, for the tests of what is left then."""


class Killed(BaseException):
    pass


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
