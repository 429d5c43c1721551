"""What the library raises where its user can fix something."""


class QAError(Exception):
    """Something the user can fix. The text says what was found, what was expected and what to do."""


def brief(error: Exception) -> str:
    """The kind of an error and the first line of its text, which in other libraries can be a page."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
