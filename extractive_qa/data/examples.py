"""What is wrong with a record, and the examples of a file that are right, checked before any work starts.

An example is `{"id", "question", "context", "answers": {"text": [str, ...], "answer_start": [int, ...]}}`, offsets in
characters (Unicode code points) into `context`. In flat files an answer may be given as SQuAD's `answers` or as the
columns `answer` and `answer_start`; `answer_start` may be left out where the text occurs once. A record without an id
goes by its number in the file.
"""

import logging
import re
import unicodedata
from itertools import islice
from pathlib import Path

from extractive_qa.data.formats import FORMATS, Record, read_records
from extractive_qa.errors import QAError
from extractive_qa.files.reading import parse_json
from extractive_qa.text import has_text, printable, replace_surrogates, short_repr

logger = logging.getLogger(__name__)

MAX_PROBLEMS_SHOWN = 20
# what word processors and spreadsheets make of ' " - and the space, each one character for another
TYPOGRAPHY = str.maketrans("‘’“”–—\u00a0\u202f", "''\"\"--  ")


def read_examples(
    path: str | Path,
    split: str | None = None,
    skip_bad: bool = False,
    impossible: bool = False,
    titles: bool = False,
    problems_shown: int | None = MAX_PROBLEMS_SHOWN,
) -> list[dict]:
    """All examples of a file, valid and with at least one answer each, unless `impossible` ones are wanted too, whose
    `answers` are empty, as in SQuAD 2. Equal contexts are one string in memory.

    split: which part of a saved DatasetDict, "train" or "validation"; files hold one part and ignore it.
    skip_bad: leave invalid records out, with a warning that counts them, instead of refusing the file.
    titles: give examples the `title` of their article too, where the file has it.
    problems_shown: how many problems an error lists; None: all.

    Raises QAError where the file can't be read, and one that lists the problems of all records.
    """
    examples, problems, bad_records, seen, strings = [], [], 0, set(), {}
    for record in read_records(path, split):
        example, faults = check_question(record, seen)
        if example:
            example["answers"], faults_of_answers = check_references(record.content, example["context"], impossible)
            faults += faults_of_answers
        problems += [f"{label(record)}: {fault}" for fault in faults]
        bad_records += bool(faults)
        if not faults:
            example["context"] = strings.setdefault(example["context"], example["context"])
            if titles and isinstance(title := record.content.get("title"), str) and title:
                example["title"] = strings.setdefault(title, title)
            examples.append(example)

    if problems and not skip_bad:
        shown = "\n  ".join(problems[:problems_shown])
        left = len(problems[problems_shown:]) if problems_shown else 0
        more = f'\n  ... and {left} more, all of them: read_examples("{path}", problems_shown=None)' if left else ""
        fix = "Fix the file, or skip these records: skip_bad=True"
        raise QAError(f"{path} has {len(problems)} problem(s):\n  {shown}{more}\n{fix}")
    if problems:
        logger.warning(f"{path}: skipped {bad_records} bad record(s), the first: {problems[0]}")
    if not examples:
        raise QAError(f"{path} holds no question to use. Expected {FORMATS}.")
    return examples


def label(record: Record) -> str:
    """Where a record is in its file, and its id if it has one."""
    identifier = record.content.get("id") if isinstance(record.content, dict) else None
    return record.place + (f" (id {printable(str(identifier), 80)})" if isinstance(identifier, str | int) else "")


def check_question(record: Record, seen: set[str]) -> tuple[dict, list[str]]:
    """id, question and context of a record, which needs no answer ({} where it lacks one of them), and what is wrong
    with them. seen: the ids so far; this one is added."""
    if record.fault:
        return {}, [record.fault]
    if not isinstance(record.content, dict):
        return {}, [f"expected a JSON object, got {printable(record.beginning(), 40)}"]
    fields, faults = {name: record.content.get(name) for name in ("id", "question", "context")}, []
    if fields["id"] is None:
        fields["id"] = record.number
    for name, value in fields.items():
        if not isinstance(value, str) and not (name == "id" and type(value) is int):
            faults.append(f"`{name}` is missing" if value is None else f"`{name}` is not text")
        elif not has_text(str(value)):
            faults.append(f"`{name}` is empty or has no word in it")
    if faults:
        return {}, faults
    example = {name: replace_surrogates(str(value)) for name, value in fields.items()}
    if example["id"] in seen:
        faults.append("duplicate id")
    seen.add(example["id"])
    return example, faults


def check_references(record: dict, context: str, impossible: bool) -> tuple[dict, list[str]]:
    """The answers, texts and their offsets into `context`, and what is wrong with them (then they are not to be used).
    impossible: whether there may be none."""
    answers = record.get("answers")
    if isinstance(answers, str):  # a CSV cell
        try:
            answers = parse_json(answers)
        except ValueError:
            return {}, ["`answers` is not JSON (as columns of a CSV use `answer` and `answer_start`)"]
    if isinstance(answers, dict):  # {"text": [...], "answer_start": [...]}
        texts, starts = answers.get("text"), answers.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            return {}, ["`answers` needs `text` and `answer_start`, two lists of one length"]
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    elif answers is None and record.get("answer") is not None:
        answers = [{"text": record["answer"], "answer_start": record.get("answer_start")}]
    if answers is None:
        return {}, ["`answers` is missing"]
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        return {}, ["`answers` is neither a list of answers nor {text, answer_start}"]
    flag = record.get("is_impossible")
    flag = flag.lower() in ("true", "1") if isinstance(flag, str) else flag == 1  # a CSV cell may say "False"
    if flag or not answers:
        no_answer = ["has no answer, as in SQuAD 2: leave such questions out, or use them: impossible=True"]
        return {"text": [], "answer_start": []}, [] if impossible else no_answer

    texts, starts, faults = [], [], []
    for answer in answers:
        text, start = answer.get("text"), answer.get("answer_start")
        if not isinstance(text, str) or not has_text(text):
            faults.append("an answer's `text` is missing or empty")
            continue
        text = replace_surrogates(text)
        start, fault = check_start(start, text, context)
        if fault:
            faults.append(fault)
        texts.append(text)
        starts.append(start)
    return {"text": texts, "answer_start": starts}, faults


def check_start(start: object, text: str, context: str) -> tuple[int, str | None]:
    """The answer's offset as an int, and what is wrong with it: it must be where `text` is in `context`."""
    answer = f"answer {text[:40]!r}"
    if start is None:
        found = [match.start() for match in islice(re.finditer(f"(?={re.escape(text)})", context), 5)]
        if len(found) == 1:
            return found[0], None
        found = f"occurs at {found}" if found else explain_absence(text, context)
        return -1, f"{answer} has no `answer_start`, and {found}"
    if isinstance(start, str) and re.fullmatch(r"\s*\d{1,12}\s*", start):  # a CSV cell
        start = int(start)
    if isinstance(start, bool) or not isinstance(start, int):
        return -1, f"`answer_start` of {answer} is not a whole number: {short_repr(start)}"
    if start >= 0 and context.startswith(text, start):
        return start, None
    there = f"there: {context[start : start + len(text)][:40]!r}" if start >= 0 else "negative"
    # the nearest place on either side
    found = context.rfind(text, 0, max(0, start) + len(text)), context.find(text, max(0, start))
    nearest = min((place for place in found if place >= 0), key=lambda place: abs(place - start), default=None)
    right = explain_absence(text, context) if nearest is None else f"the right offset is {nearest}"
    for unit, encoding, size in (("UTF-8 bytes", "utf-8", 1), ("UTF-16 units, as JavaScript has them", "utf-16-le", 2)):
        before = context.encode(encoding)[: size * max(0, start)]
        place = len(before.decode(encoding, errors="ignore"))
        if len(before) == size * start and context.startswith(text, place):
            right = f"the right offset is {place}: it seems to count {unit}, expected characters (code points)"
    return -1, f"{answer} is not at answer_start {str(start)[:60]} ({there}); {right}"


def explain_absence(text: str, context: str) -> str:
    """Why an answer is not found in its context."""
    for form in ("NFC", "NFKC"):
        if unicodedata.normalize(form, text) in unicodedata.normalize(form, context):
            return f"it is in the context in another Unicode form: bring both to {form}, and the offset with them"
    plain = context.translate(TYPOGRAPHY).lower()
    place = plain.find(text.translate(TYPOGRAPHY).lower())
    if place >= 0 and len(plain) == len(context):  # a few letters are longer in lower case
        return f"it does not occur in the context, but {context[place : place + len(text)][:40]!r} does"
    return "it does not occur in the context"
