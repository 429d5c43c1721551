"""What is wrong with a record, and the examples of a file that are right, checked before any work starts.

An example is `{"id", "question", "context", "answers": {"text": [str, ...], "answer_start": [int, ...]}}`, offsets in
characters (Unicode code points) into `context`. The forms that answers may have are in references.py. A fault is a
text, "kind: details", so that faults can be counted by kind.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

from extractive_qa.data.formats import FORMATS, Record, read_records
from extractive_qa.data.names import keys_found
from extractive_qa.data.references import check_references, is_missing
from extractive_qa.errors import QAError
from extractive_qa.text import has_text, printable, replace_surrogates, short_repr

logger = logging.getLogger(__name__)

EXAMPLES_SHOWN = 3  # problems of each kind


def read_examples(
    path: str | Path,
    split: str | None = None,
    skip_bad: bool = False,
    impossible: bool = False,
    titles: bool = False,
    problems_shown: int | None = EXAMPLES_SHOWN,
    strict: bool = False,
    renumber_ids: bool = False,
    encoding: str = "utf-8",
) -> list[dict]:
    """All examples of a file, valid and with at least one answer each, unless `impossible` ones are wanted too, whose
    `answers` are empty, as in SQuAD 2. Equal contexts are one string in memory.

    What is certain is repaired, with a warning that counts the repairs: see places.py.

    split: which part of a saved DatasetDict or a JSON file of several splits, "train" or "validation"; files hold one
    part and ignore it. None: the only part, or of several the one to validate with.
    skip_bad: leave invalid records out, with a warning that counts them, instead of refusing the file.
    titles: give examples the `title` of their article too, where the file has it.
    problems_shown: how many problems of each kind an error lists; None: all.
    strict: repair nothing.
    renumber_ids: give questions whose id occurred before another one.
    encoding: of the file, where it is text.

    Raises QAError where the file can't be read, and one that counts and lists the problems of all records.
    """
    examples, problems, repaired, bad, count, apart, strings = [], [], Counter(), 0, 0, 0, {}
    ids = Ids(lambda: read_records(path, split, encoding=encoding), renumber_ids)
    for record in read_records(path, split, encoding=encoding):
        count += 1
        example, faults = check_question(record, ids)
        if example:
            example["answers"], faults_of_answers, repairs = check_references(
                record.content, example["context"], impossible, strict
            )
            faults += faults_of_answers
        if faults:
            problems += [(fault.partition(": ")[0], f"{label(record)}: {fault}") for fault in faults]
            bad += 1
            continue
        repaired.update(set(repairs))
        repaired["records"] += bool(repairs)
        apart += are_apart(example["answers"])
        example["context"] = strings.setdefault(example["context"], example["context"])
        if titles and isinstance(title := record.content.get("title"), str) and title:
            example["title"] = strings.setdefault(title, title)
        examples.append(example)

    if problems and not skip_bad:
        raise QAError(describe_problems(path, problems, bad, count, repaired["records"], problems_shown))
    if problems:
        logger.warning(f"{path}: skipped {bad:,} bad records of {count:,} ({count_kinds(problems)})")
    if not examples:
        raise QAError(f"{path} holds no question to use. Expected {FORMATS}.")
    if records := repaired.pop("records", 0):
        kinds = "; ".join(f"{number:,} × {kind}" for kind, number in repaired.most_common())
        logger.warning(f"{path}: repaired {records:,} of {count:,} records ({kinds}). To refuse these: strict=True")
    if apart:
        logger.info(
            f"{path}: {apart:,} of {len(examples):,} questions have answers in different places. Each counts as right "
            "by itself, which is wrong where all are needed."
        )
    return examples


def count_kinds(problems: list[tuple[str, str]]) -> str:
    """How many problems of each kind, the most frequent first."""
    return ", ".join(f"{number:,} × {kind}" for kind, number in Counter(kind for kind, _ in problems).most_common())


def describe_problems(
    path: str | Path, problems: list[tuple[str, str]], bad: int, count: int, repaired: int, of_kind: int | None
) -> str:
    """A count by kind, examples of each kind, and how to go on."""
    shown, seen = [], Counter()
    for kind, text in problems:
        seen[kind] += 1
        if of_kind is None or seen[kind] <= of_kind:
            shown.append(f"\n  {text}")
    left = len(problems) - len(shown)
    more = f'\n  ... and {left:,} more, all of them: read_examples("{path}", problems_shown=None)' if left else ""
    text = f"{path} has {len(problems):,} problem(s) in {bad:,} of {count:,} records: {count_kinds(problems)}"
    go_on = "No record is right. Fix the file."
    if count > bad:
        notice = f" ({repaired:,} of them repaired)" if repaired else ""
        go_on = f"Fix the file, or go on with the other {count - bad:,} of {count:,} records{notice}: skip_bad=True"
    return f"{text}{''.join(shown)}{more}\n{go_on}"


def label(record: Record) -> str:
    """Where a record is in its file, and its id if it has one."""
    identifier = record.content.get("id") if isinstance(record.content, dict) else None
    return record.place + (f" (id {printable(str(identifier), 80)})" if isinstance(identifier, str | int) else "")


def are_apart(answers: dict) -> bool:
    """Whether no two of several answers overlap, or are the same text in another place."""
    spans = sorted(zip(answers["answer_start"], answers["text"], strict=True))
    texts = {text.casefold() for text in answers["text"]}
    pairs = pairwise(spans)
    return len(texts) == len(spans) > 1 and all(
        start + len(text) <= following for (start, text), (following, _) in pairs
    )


class Ids:
    """The ids of a file's questions, each given once.

    records: reads the file again, to know the ids that come later; None where that can't be done.
    renumber: whether an id that occurred before becomes another, with a number behind it, instead of a fault.
    """

    def __init__(self, records: Callable[[], Iterable[Record]] | None, renumber: bool = False):
        self.records, self.renumber = records, renumber
        self.seen: set[str] = set()
        self.later: set[str] | None = None

    def give(self, identifier: str | None, number: int) -> tuple[str, str]:
        """The id of record `number`, and what is wrong with it. identifier: what the record has, None for nothing."""
        fault = ""
        if identifier is None:
            identifier = self.free(str(number))
        elif identifier in self.seen and self.renumber:
            identifier = self.free(identifier)
        elif identifier in self.seen:
            fault = "duplicate id: give each question its own, or have them numbered: renumber_ids=True"
        self.seen.add(identifier)
        return identifier, fault

    def free(self, wanted: str) -> str:
        """`wanted`, or with a number behind it where the file has that id."""
        if self.later is None:
            self.later = {identifier_of(record.content) for record in self.records()} if self.records else set()
        taken, number = self.seen | self.later, 2
        identifier = wanted
        while identifier in taken:
            identifier, number = f"{wanted}-{number}", number + 1
        return identifier


def identifier_of(content: object) -> str | None:
    """The id that a record has."""
    identifier = content.get("id") if isinstance(content, dict) else None
    if isinstance(identifier, float) and identifier.is_integer():  # a column of numbers in pandas
        identifier = int(identifier)
    known = isinstance(identifier, str | int) and not isinstance(identifier, bool)
    return replace_surrogates(str(identifier)) if known else None


def check_question(record: Record, ids: Ids, names: Iterable[str] = ("question", "context")) -> tuple[dict, list[str]]:
    """The id and the texts `names` of a record, which needs no answer ({} where it lacks one of them), and what is
    wrong with them."""
    if record.fault:
        return {}, [record.fault]
    if not isinstance(record.content, dict):
        return {}, [f"expected a JSON object: got {printable(record.beginning(), 40)}"]
    content, faults = record.content, []
    for name in names:
        value = content.get(name)
        if is_missing(value):
            faults.append(f"`{name}` is missing: {keys_found(content, name)}")
        elif not isinstance(value, str):
            faults.append(f"`{name}` is not text: {short_repr(value)}")
        elif not has_text(value):
            faults.append(f"`{name}` is empty or has no word in it")
    identifier = identifier_of(content)
    if identifier is None and not is_missing(content.get("id")):
        faults.append(f"`id` is not text: {short_repr(content['id'])}")
    elif identifier is not None and not has_text(identifier):
        faults.append("`id` is empty or has no word in it")
    if faults:
        return {}, faults
    identifier, fault = ids.give(identifier, record.number)
    texts = {name: replace_surrogates(content[name]) for name in names}
    return {"id": identifier, **texts}, [fault] if fault else []
