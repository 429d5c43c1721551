"""What the library raises where its user can fix something."""


class QAError(Exception):
    """Something the user can fix. The text says what was found, what was expected and what to do."""
