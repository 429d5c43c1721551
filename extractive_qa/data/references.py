"""The answers of a record, its references, in every form in which files have them.

`answers` as SQuAD has it ({text: [...], answer_start: [...]} or a list of {text, answer_start}), one such object, a
list of texts, or any of these as text in a cell: JSON, or Python as pandas writes it. Or the columns `answer` and
`answer_start`. MRQA's `detected_answers` too. The offset may be left out where the text occurs once.
"""

import ast
import math
import re
import warnings
from collections.abc import Iterator

from extractive_qa.data.places import Place, find_place
from extractive_qa.files.reading import parse_json
from extractive_qa.text import has_text, printable, replace_surrogates, short_repr


class Unreadable(ValueError):
    """Answers in a form that is not known."""


def check_references(
    record: dict, context: str, impossible: bool = False, strict: bool = False
) -> tuple[dict, list[str], list[str]]:
    """The answers, {"text": [...], "answer_start": [...]}, offsets in characters into `context`; what is wrong with
    them (then they are not to be used), as "kind: details"; and of which kind the repairs were.

    impossible: whether there may be none. strict: what would be repaired is wrong.
    """
    try:
        given = [] if is_flagged(record) else given_answers(record)
    except Unreadable as error:
        return {}, [str(error)], []
    found, faults, repairs = [], [], []
    worded = [(text, start) for text, start in given if not is_empty(text)]
    for text, start in worded:
        try:
            place = read_answer(text, start, context, strict)
        except Unreadable as error:
            faults.append(str(error))
            continue
        found.append(place)
        repairs += [place.repair] * bool(place.repair)
    if not worded and not impossible:
        faults.append("no answer, as in SQuAD 2: leave such questions out, or use them: impossible=True")
    elif worded and len(worded) < len(given):
        (faults if strict else repairs).append("an empty answer beside others")
    return {"text": [place.text for place in found], "answer_start": [place.start for place in found]}, faults, repairs


def read_answer(text: object, start: object, context: str, strict: bool) -> Place:
    """Where an answer is. Raises Unreadable where that can't be told, or would take a repair and is `strict`."""
    if not isinstance(text, str):
        raise Unreadable(f"an answer's `text` is not text: {short_repr(text)}")
    text = replace_surrogates(text)
    start = whole_number(start)
    place = find_place(text, start, context)
    if place.fault or (strict and place.repair):
        raise Unreadable(describe_fault(text, start, context, place))
    return place


def describe_fault(text: str, start: int | None, context: str, place: Place) -> str:
    """What is wrong with an answer whose place can't be told, or whose repair is not wanted."""
    if start is None:
        return f"an answer without `answer_start` is not in one place: {text[:40]!r} {place.fault}"
    there = repr(context[start : start + len(text)][:40]) if 0 <= start < len(context) else "nothing"
    written = "" if place.text == text else f" as {place.text[:40]!r} ({place.repair})"
    reason = place.fault or f"is at {place.start}{written}"
    return f"an answer is not at its `answer_start`: {text[:40]!r} at {str(start)[:40]}, where {there} is; it {reason}"


def is_flagged(record: dict) -> bool:
    """Whether it is marked as a question without an answer."""
    flag = record.get("is_impossible")
    return flag.strip().lower() in ("true", "1") if isinstance(flag, str) else flag == 1  # a CSV cell may say "False"


def is_empty(text: object) -> bool:
    return text is None or (isinstance(text, str) and not has_text(text))


def is_missing(value: object) -> bool:
    """Whether there is no value: None, or NaN, as pandas has it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def whole_number(start: object) -> int | None:
    """An offset as it may be written, also 25.0; None where there is none. Raises Unreadable."""
    if is_missing(start) or (isinstance(start, str) and start.strip().lower() in ("", "nan", "none", "null")):
        return None
    if isinstance(start, str) and (digits := re.fullmatch(r"\s*(-?\d{1,12})(\.0*)?\s*", start)):  # a CSV cell
        return int(digits[1])
    if isinstance(start, float) and start.is_integer():
        return int(start)
    if isinstance(start, bool) or not isinstance(start, int):
        raise Unreadable(f"an `answer_start` is not a whole number: {short_repr(start)}")
    return start


def given_answers(record: dict) -> list[tuple[object, object]]:
    """(text, answer_start) of each answer as the record has them. Raises Unreadable."""
    if isinstance(spans := record.get("detected_answers"), list):
        return list(detected_answers(spans))
    answers, starts = record.get("answers"), record.get("answer_start")
    if is_missing(answers):
        answers = record.get("answer")
    elif isinstance(answers, str):
        answers = parse_cell(answers)
    if isinstance(answers, dict):
        answers, starts = text_and_start(answers)
    if is_missing(answers):
        return []
    if not isinstance(answers, list):
        answers = [answers]
    if answers and all(isinstance(answer, dict) for answer in answers):
        return [text_and_start(answer) for answer in answers]
    starts = parse_cell(starts) if isinstance(starts, str) else starts
    if not isinstance(starts, list):
        starts = [None] * len(answers) if is_missing(starts) else [starts]
    if len(starts) != len(answers):
        raise Unreadable(f"`answers` and `answer_start` are of different number: {len(answers)} and {len(starts)}")
    return [(text_of(text), start) for text, start in zip(answers, starts, strict=True)]


def text_and_start(answer: dict) -> tuple[object, object]:
    """Of an answer that is an object. Raises Unreadable where it has other keys."""
    text = next((answer[name] for name in ("text", "answer") if name in answer), ...)
    if text is ...:
        raise Unreadable(
            f"an answer has no `text`: the keys are {printable(', '.join(map(str, answer)), 80) or 'none'}"
        )
    return text_of(text), answer.get("answer_start", answer.get("start"))


def text_of(text: object) -> object:
    """A number that is an answer, such as a year, is text."""
    return str(text) if isinstance(text, int) and not isinstance(text, bool) else text


def detected_answers(spans: list) -> Iterator[tuple[object, object]]:
    """MRQA: each text with all its places."""
    for span in spans:
        if not isinstance(span, dict):
            raise Unreadable("`detected_answers` is not as MRQA has it: a list of text and char_spans")
        for place in span.get("char_spans") or [[None]]:
            if not isinstance(place, list) or not place:
                raise Unreadable("`detected_answers` is not as MRQA has it: char_spans are pairs of offsets")
            yield text_of(span.get("text")), place[0]


# cells of tables


def parse_cell(cell: str) -> object:
    """A cell that begins with a bracket: JSON, or Python as pandas writes it. Any other is text. Raises Unreadable."""
    if cell.lstrip()[:1] not in ("{", "["):
        return cell
    try:
        return parse_json(cell)
    except ValueError:
        pass
    try:
        with warnings.catch_warnings(action="ignore"):  # of a backslash that means nothing
            return value_of(ast.parse(cell.strip(), mode="eval").body)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise Unreadable("`answers` is neither JSON nor a Python list: " + short_repr(cell)) from None


def value_of(node: ast.AST) -> object:
    """The value of an expression that was parsed, never evaluated: of dicts, lists, texts and numbers, and the first
    argument of calls, as in array(['a'], dtype=object). Raises ValueError where there is anything else."""
    match node:
        case ast.Constant():
            return node.value
        case ast.List() | ast.Tuple():
            return [value_of(item) for item in node.elts]
        case ast.Dict():
            return {value_of(key): value_of(value) for key, value in zip(node.keys, node.values, strict=True)}
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Call(args=[first, *_]):
            return value_of(first)
        case ast.Name(id="nan"):
            return None
    raise ValueError
