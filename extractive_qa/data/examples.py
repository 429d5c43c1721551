"""Questions from any file a user has, checked before any work starts.

An example is `{"id", "question", "context", "answers": {"text": [str, ...], "answer_start": [int, ...]}}`, offsets in
characters (Unicode code points) into `context`. Readable: SQuAD's nested JSON, a flat JSON list, JSON Lines, CSV,
Parquet and folders written by `datasets.Dataset.save_to_disk`. In the flat forms an answer may stand as SQuAD's
`answers` or as the columns `answer` and `answer_start`; `answer_start` may be left out where the text occurs once. A
CSV's columns may be parted by commas, semicolons or tabs, as Excel does in different countries.
"""

import csv
import io
import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from extractive_qa.errors import QAError
from extractive_qa.files.manifest import stays_inside
from extractive_qa.files.reading import parse_json, read_json_object, read_text, require, require_file
from extractive_qa.text import has_text, printable, replace_surrogates

logger = logging.getLogger(__name__)

FORMATS = "SQuAD JSON, a JSON list, .jsonl, .csv, .parquet, or a folder written by datasets' save_to_disk"
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
    path = require(path, FORMATS, "Check the path.")
    require_file(path, FORMATS)
    examples, problems, bad_records, seen, strings = [], [], 0, set(), {}
    with reading(path):
        for label, record in number_records(path, split):
            example, faults = check_record(record, seen, impossible)
            problems += [f"{label}: {fault}" for fault in faults]
            bad_records += bool(faults)
            if not faults:
                example["context"] = strings.setdefault(example["context"], example["context"])
                if titles and isinstance(title := record.get("title"), str) and title:
                    example["title"] = strings.setdefault(title, title)
                examples.append(example)

    if problems and not skip_bad:
        shown = "\n  ".join(problems[:problems_shown])
        left = len(problems[problems_shown:]) if problems_shown else 0
        more = f"\n  ... and {left} more, all of them: python tools/inspect_data.py {path}" if left else ""
        raise QAError(
            f"{path} has {len(problems)} problem(s):\n  {shown}{more}\n"
            "Mend the file, or go on without these records: --skip_bad_examples."
        )
    if problems:
        logger.warning(f"{path}: went on without {bad_records} bad record(s), the first: {problems[0]}")
    if not examples:
        raise QAError(f"{path} holds no question to use. Expected {FORMATS}.")
    return examples


@contextmanager
def reading(path: Path, expected: str = FORMATS) -> Iterator[None]:
    """Turns what goes wrong in the reading of a file into a QAError."""
    try:
        yield
    except (ValueError, RecursionError) as error:  # not JSON; a number or a nesting that no reader takes
        raise QAError(f"{path} can't be read: {error}. Expected {expected}.") from None
    except OSError as error:
        raise QAError(f"{path} can't be read: {error.strerror or error}. Expected {expected}.") from None


def number_records(path: Path, split: str | None) -> Iterator[tuple[str, object]]:
    """Every record with the name under which a problem with it is reported. Flat files without ids get row numbers."""
    has_ids = False
    for number, record in enumerate(read_records(path, split), 1):
        if not isinstance(record, dict):
            yield f"record {number}", record
            continue
        has_ids = has_ids or "id" in record
        if not has_ids:
            record["id"] = str(number)
        yield f"record {number} (id {printable(str(record.get('id')), 80)})", record


def read_records(path: Path, split: str | None) -> Iterable[dict]:
    """The records of a file as they stand, unchecked. Raises QAError, OSError, and ValueError where it is no JSON."""
    if path.is_dir():
        return read_saved_dataset(path, split)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return read_parquet(path)
    if suffix == ".csv":
        return read_csv(path)
    if suffix in (".jsonl", ".ndjson"):
        return read_json_lines(path)
    if suffix != ".json":
        raise QAError(f"{path}: a file called *{suffix} is not known. Expected {FORMATS}.")
    try:
        content = parse_json(read_text(path))
    except ValueError as error:
        if not str(error).startswith("Extra data"):
            raise
        raise QAError(
            f"{path} can't be read: {error}. If it is JSON Lines, one record a line, call it *.jsonl."
        ) from None
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if not isinstance(content, list):
        raise QAError(f"{path} holds neither a list of records nor SQuAD's `data`. Expected {FORMATS}.")
    if content and isinstance(content[0], dict) and "paragraphs" in content[0]:
        return flatten_articles(path, content)
    return content


def flatten_articles(path: Path, articles: list[dict]) -> Iterator[dict]:
    """SQuAD's nesting (articles, paragraphs, qas) as flat records."""
    for position, article in enumerate(articles, 1):
        try:
            for paragraph in article["paragraphs"]:
                for qa in paragraph["qas"]:
                    yield {"id": None, **qa, "context": paragraph.get("context"), "title": article.get("title")}
        except (TypeError, KeyError, AttributeError) as error:
            raise QAError(
                f"{path}: article {position} is not nested as SQuAD is ({type(error).__name__}: {error}). "
                "Expected data > paragraphs > context and qas > id, question, answers."
            ) from None


def read_csv(path: Path) -> Iterator[dict]:
    csv.field_size_limit(2**31 - 1)  # contexts may be whole books; the default is 128 KiB
    text = read_text(path)
    delimiter = delimiter_of(text.partition("\n")[0])
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 0
    try:
        if rows.fieldnames:
            check_columns(path, rows.fieldnames)
        for number, row in enumerate(rows, 1):  # noqa: B007 - used where a row can't be read
            # the cells beyond the header's last column, if any holds something, go by the name None
            yield {name: cell for name, cell in row.items() if name != "" and any(cell or ())}
    except csv.Error as error:
        raise QAError(
            f"{path}, record {number + 1} can't be read: {error}. Expected CSV in which a text with commas, quotes or "
            'line ends stands in "quotes", and a quote in it is doubled.'
        ) from None


def delimiter_of(header: str) -> str:
    """What parts the columns of a CSV: Excel writes semicolons where numbers have a decimal comma."""
    return max(",;\t", key=header.count)


def check_columns(path: Path, names: list[str], with_answers: bool = True) -> None:
    """Raises QAError where the columns of a table can't hold questions."""
    wanted = ["question", "context"] + (["answer" if "answer" in names else "answers"] if with_answers else [])
    faults = [f"no column {name}" for name in wanted if name not in names]
    faults += [f"two columns {name}" for name in ("id", *wanted, "answer_start") if names.count(name) > 1]
    if faults:
        found = printable(", ".join(names), 200)
        answers = ", and answer (or answers, as in SQuAD); id and answer_start" if with_answers else "; id"
        raise QAError(
            f"{path} has {' and '.join(faults)}. Found the columns {found}. Expected question, context{answers} where "
            "there are any."
        )


def read_json_lines(path: Path) -> Iterator[dict]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except ValueError as error:
            hint = " If it is one JSON value over many lines, call it *.json." if number == 1 else ""
            raise QAError(f"{path}, line {number} is not JSON: {error}. Expected one record a line.{hint}") from None
        if number == 1:
            refuse_whole_json(path, record)
        yield record


def refuse_whole_json(path: Path | str, first: object) -> None:
    """Raises QAError where the first line of JSON Lines is a list of records, or SQuAD's JSON."""
    if isinstance(first.get("data") if isinstance(first, dict) else first, list):
        raise QAError(f"{path} is JSON, but not JSON Lines, one record a line. Call it *.json.")


def read_parquet(path: Path) -> list[dict]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        check_columns(path, table.column_names)
        return table.to_pylist()
    except UnicodeDecodeError as error:
        raise QAError(f"{path} holds text that is not UTF-8: {error}. Save it anew with UTF-8 text.") from None
    except pyarrow.ArrowException as error:
        raise QAError(f"{path} is not a Parquet file: {error}. Save it anew, or give it its right ending.") from None


def read_saved_dataset(path: Path, split: str | None) -> list[dict]:
    import datasets
    import pyarrow

    try:
        for listing in (*path.glob("dataset_dict.json"), *path.rglob("state.json")):
            refuse_names_outside(listing)
        saved = datasets.load_from_disk(str(path), keep_in_memory=True)
    except FileNotFoundError:
        raise QAError(f"{path} is a folder, but no saved dataset. Expected {FORMATS}.") from None
    except (pyarrow.ArrowException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise QAError(f"{path} is a damaged saved dataset ({type(error).__name__}: {error}). Save it anew.") from None
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise QAError(
                f"{path} has no part called {split}, only {', '.join(saved)}. Save it with a part of that name, or the "
                "part alone."
            )
        saved = saved[split]
    check_columns(path, saved.column_names)
    return saved.to_list()


def refuse_names_outside(listing: Path) -> None:
    """Raises QAError where a listing of a saved dataset names a file or folder outside its own, which the library
    would read."""
    content = read_json_object(listing, "what datasets' save_to_disk writes")
    for name in [*content.get("splits", []), *(file["filename"] for file in content.get("_data_files", []))]:
        if not stays_inside(name):
            raise QAError(f"{listing} names {name!r}, which is outside its folder. Save the dataset anew.")


def check_record(record: dict, seen: set[str], impossible: bool = False) -> tuple[dict, list[str]]:
    """An example from a flat record, and what is wrong with it (then the example is not to be used).

    seen: the ids so far; this one is added. impossible: whether it may have no answer.
    """
    example, faults = check_question(record)
    if faults:
        return {}, faults
    if example["id"] in seen:
        faults.append("the id stands twice in this file")
    seen.add(example["id"])
    texts, starts, answer_faults = check_answers(record, example["context"], impossible)
    return example | {"answers": {"text": texts, "answer_start": starts}}, faults + answer_faults


def check_question(record: dict) -> tuple[dict, list[str]]:
    """id, question and context of a flat record, which needs no answer, and what is wrong with them (then {})."""
    if not isinstance(record, dict):
        return {}, [f"is no record with fields, but {str(record)[:40]!r}"]
    faults = []
    if None in record:
        faults.append("has more cells than the header: a text with commas must stand in quotes")
    for name in ("id", "question", "context"):
        if not isinstance(record.get(name), str) and not (name == "id" and type(record.get(name)) is int):
            faults.append(f"`{name}` is missing" if record.get(name) is None else f"`{name}` is not text")
        elif not has_text(str(record[name])):
            faults.append(f"`{name}` is empty or has no word in it")
    if faults:
        return {}, faults
    return {name: replace_surrogates(str(record[name])) for name in ("id", "question", "context")}, []


def check_answers(record: dict, context: str, impossible: bool) -> tuple[list[str], list[int], list[str]]:
    """The answers' texts, their offsets into `context`, and what is wrong with them."""
    answers = record.get("answers")
    if isinstance(answers, str):  # a CSV cell
        try:
            answers = parse_json(answers)
        except ValueError:
            return [], [], ["`answers` is not JSON (as columns of a CSV use `answer` and `answer_start`)"]
    if isinstance(answers, dict):  # {"text": [...], "answer_start": [...]}
        texts, starts = answers.get("text"), answers.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            return [], [], ["`answers` needs `text` and `answer_start`, two lists of one length"]
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    elif answers is None and record.get("answer") is not None:
        answers = [{"text": record["answer"], "answer_start": record.get("answer_start")}]
    if answers is None:
        return [], [], ["`answers` is missing"]
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        return [], [], ["`answers` is neither a list of answers nor {text, answer_start}"]
    if str(record.get("is_impossible", "")).lower() in ("true", "1") or not answers:
        no_answer = ["has no answer, as in SQuAD 2: leave such questions out, or use them: --handle_impossible_answer"]
        return [], [], [] if impossible else no_answer

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
    return texts, starts, faults


def check_start(start: object, text: str, context: str) -> tuple[int, str | None]:
    """The answer's offset as an int, and what is wrong with it: it must be where `text` stands in `context`."""
    answer = f"answer {text[:40]!r}"
    if start is None:
        found = [match.start() for match in islice(re.finditer(f"(?={re.escape(text)})", context), 5)]
        if len(found) == 1:
            return found[0], None
        stands = f"stands at {found}" if found else explain_absence(text, context)
        return -1, f"{answer} has no `answer_start`, and {stands}"
    if isinstance(start, str) and re.fullmatch(r"\s*\d{1,12}\s*", start):  # a CSV cell
        start = int(start)
    if isinstance(start, bool) or not isinstance(start, int):
        return -1, f"`answer_start` of {answer} is not a whole number: {start!r:.40}"
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
            return f"it stands in the context in another Unicode form: bring both to {form}, and the offset with them"
    plain = context.translate(TYPOGRAPHY).lower()
    place = plain.find(text.translate(TYPOGRAPHY).lower())
    if place >= 0 and len(plain) == len(context):  # a few letters are longer in lower case
        return f"it does not occur in the context, but {context[place : place + len(text)][:40]!r} does"
    return "it does not occur in the context"
