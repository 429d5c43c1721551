"""What programs pass to the library, checked at the door: TypeError where a value is of another kind, ValueError where
it is out of range. NumPy's numbers are numbers."""

import math
import numbers
import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from extractive_qa.text import short_repr

MOST = 2**31 - 1  # of a count: what the libraries below take
IDS = (str, int, np.integer)
EXAMPLES = "a list of dicts with question and context"
DOCUMENTS = "a list of texts, or of dicts with text"


def wrong_kind(name: str, value: object, expected: str) -> TypeError:
    return TypeError(f"{name} is {short_repr(value)} ({type(value).__name__}), expected {expected}")


def require_kind(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    if not isinstance(value, kind):
        raise wrong_kind(name, value, expected)


def require_text(name: str, value: object) -> None:
    require_kind(name, value, str, "str")


def require_callable(name: str, value: object) -> None:
    if not callable(value):
        raise wrong_kind(name, value, "a function")


def whole(name: str, value: object, least: int, most: int = MOST) -> int:
    """The int that `value` is, of Python or NumPy."""
    try:
        number = None if is_truth(value) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise wrong_kind(name, value, "a whole number")
    if not least <= number <= most:
        found = number if abs(number) < 10**15 else "a number of many digits"
        raise ValueError(f"{name} is {found}, expected at least {least}" + f" and at most {most}" * (number > most))
    return number


def share(name: str, value: object) -> float:
    """The float from 0 to 1 that `value` is, of Python or NumPy."""
    if not isinstance(value, numbers.Real) or is_truth(value):
        raise wrong_kind(name, value, "a number from 0 to 1")
    if not 0 <= value <= 1 or math.isnan(value):
        raise ValueError(f"{name} is {short_repr(value)}, expected a number from 0 to 1")
    return float(value)


def is_truth(value: object) -> bool:
    """Whether that is True or False, of Python or NumPy."""
    return isinstance(value, bool | np.bool_)


def truth(name: str, value: object) -> bool:
    if not is_truth(value):
        raise wrong_kind(name, value, "True or False")
    return bool(value)


def choice(name: str, value: object, known: Iterable[str], hint: str = "") -> str:
    expected = f"one of {', '.join(known)}{hint}"
    require_kind(name, value, str, expected)
    if value not in known:
        raise ValueError(f"{name} is {short_repr(value)}, expected {expected}")
    return value


def folder(name: str, value: object) -> Path:
    """The path, with ~ as the home folder."""
    require_kind(name, value, (str, os.PathLike), "a path, str or pathlib.Path")
    path = os.fspath(value)
    require_text(name, path)
    if "\0" in path:
        raise ValueError(f"{name} is {short_repr(path)}, expected a path, which holds no zero character")
    try:
        path.encode("utf-8", "surrogateescape")
        return Path(path).expanduser()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is {short_repr(path)}, expected a path, which holds no lone surrogate") from None
    except RuntimeError:  # ~somebody, who has no home here
        return Path(path)


def device_name(value: object) -> str:
    """The name of a device: 0, "0" and torch.device("cuda", 0) are "cuda:0"."""
    kind = type(value)
    if isinstance(value, str) or (kind.__module__, kind.__name__) == ("torch", "device"):
        name = str(value)
        return f"cuda:{name}" if name.isascii() and name.isdigit() else name
    if is_truth(value) or not hasattr(value, "__index__"):
        raise wrong_kind("device", value, "a name such as 'cpu', the number of a GPU, or a torch.device")
    return f"cuda:{whole('device', value, 0)}"


def several(name: str, values: object, expected: str) -> Iterator:
    """`values`, one by one, where they are several: no text, no dict."""
    if isinstance(values, str | bytes | bytearray | Mapping):
        raise wrong_kind(name, values, expected)
    try:
        return iter(values)
    except TypeError:
        raise wrong_kind(name, values, expected) from None


def require_fields(name: str, record: object, texts: Iterable[str], others: Iterable[str] = ()) -> None:
    """Raises TypeError where `record` is no dict, or one of its `texts` no str; ValueError where a field is missing."""
    expected = " and ".join((*texts, *others))
    require_kind(name, record, Mapping, f"a dict with {expected}")
    for field in (*texts, *others):
        if field not in record:
            raise ValueError(f"{name} has no {field!r}: {short_repr(dict(record))}. Expected a dict with {expected}")
    for field in texts:
        require_text(f"{field} of {name}", record[field])


def examples_with_ids(values: object) -> list[Mapping]:
    """The examples, each with id, question and context."""
    examples = list(several("examples", values, EXAMPLES))
    for number, example in enumerate(examples):
        require_fields(f"example {number}", example, ("question", "context"), ("id",))
        require_kind(f"id of example {number}", example["id"], IDS, "str")
    return examples


def overrides(
    max_length: object, doc_stride: object, max_answer_length: object, handle_impossible_answer: object
) -> dict:
    """Those settings of a Reader that are not None, by name."""
    counts = {
        "max_length": (max_length, 16),
        "doc_stride": (doc_stride, 0),
        "max_answer_length": (max_answer_length, 1),
    }
    found = {name: whole(name, value, least) for name, (value, least) in counts.items() if value is not None}
    if handle_impossible_answer is not None:
        found["handle_impossible_answer"] = truth("handle_impossible_answer", handle_impossible_answer)
    return found


def questions_of_documents(question: object, documents: object) -> list[tuple[str, list]]:
    """The questions, each with a list of its documents, str or dicts with text. question: one, whose documents these
    are, or several, with a list for each."""
    one = isinstance(question, str)
    questions = [question] if one else list(several("question", question, "str, or a list of str"))
    lists = [documents] if one else list(several("documents", documents, "a list for each question"))
    if len(questions) != len(lists):
        raise ValueError(f"documents has {len(lists)} lists, expected {len(questions)}, one for each question")
    asked = [(q, list(several("documents", some, DOCUMENTS))) for q, some in zip(questions, lists, strict=True)]
    for text, some in asked:
        require_text("question", text)
        for number, document in enumerate(some):
            if not isinstance(document, str):
                require_fields(f"document {number}", document, ("text",))
    return asked
