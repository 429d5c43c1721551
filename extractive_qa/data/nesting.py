"""The shapes of JSON that files of questions have, each as flat records.

SQuAD's nesting (data > paragraphs > qas) or a part of it: a list of articles or of whole files, one article, one
paragraph, simpletransformers' list of `context` and `qas`, and MRQA's lines, whose first is a header. Several splits in
one file are told apart by name. A question that is a list (emrQA's paraphrases) is as many records.
"""

from collections.abc import Iterable, Iterator

from extractive_qa.data.names import rename

# the usual names of the parts of one set
SPLITS = {"train": ("train", "training"), "validation": ("validation", "dev", "valid", "val", "eval")}
ALL_SPLITS = (*SPLITS["train"], *SPLITS["validation"], "test")
OWN = {"id", "question", "answers", "answer", "answer_start", "is_impossible"}  # fields that no question inherits
NESTED = ("data", "paragraphs", "qas")  # what holds questions, instead of being one


class NoSuchSplit(ValueError):
    """Which of several splits is meant can't be told."""


def flat_records(content: object, split: str | None = None) -> Iterator[object]:
    """The records in a value of JSON, with our names of their fields. What is no record comes as it is.

    split: which of several splits, "train" or "validation". Raises NoSuchSplit where it is not told, or not there.
    """
    items = content if isinstance(content, list) else [content]
    nests = any(isinstance(item, dict) and nested_name(item) for item in items)
    for item in items:
        if not isinstance(item, dict):
            yield item
        # an article without paragraphs, as SQuAD itself has them, a paragraph without questions and MRQA's header
        elif not (nests and is_plain(item)) and set(item) != {"header"}:
            yield from records_of_object(rename(item), split)


def is_plain(content: dict) -> bool:
    """Whether it neither holds anything nor could be a question."""
    holds = any(isinstance(value, list | dict) for value in content.values())
    return not holds and {"question", *NESTED}.isdisjoint(rename(content))


def records_of_object(content: dict, split: str | None) -> Iterator[object]:
    if nested := nested_name(content):
        inherited = {
            name: value
            for name, value in content.items()
            if (isinstance(value, str) or name == "context") and name not in OWN
        }
        for record in flat_records(content[nested], split):
            yield inherited | record if isinstance(record, dict) else record
    elif is_splits(content):
        yield from flat_records(choose_split(content, split), split)
    else:
        yield from one_record_a_question(content)


def one_record_a_question(record: dict) -> Iterator[dict]:
    """Where `question` is a list, a record for each, with the ids of the list `id` if it is as long."""
    questions, ids = record.get("question"), record.get("id")
    if not isinstance(questions, list) or not questions:
        yield record
        return
    if not isinstance(ids, list) or len(ids) != len(questions):
        numbers = range(1, len(questions) + 1)
        ids = [f"{ids}-{n}" if isinstance(ids, str | int) else None for n in numbers] if len(questions) > 1 else [ids]
    for question, identifier in zip(questions, ids, strict=True):
        yield record | {"question": question, "id": identifier}


def nest(examples: Iterable[dict]) -> dict:
    """Examples as SQuAD JSON, each context once. Questions without an answer are marked as in SQuAD 2."""
    articles: dict[str, dict[str, list]] = {}
    for example in examples:
        pairs = zip(example["answers"]["text"], example["answers"]["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        mark = {} if answers else {"is_impossible": True}
        qa = {"id": example["id"], "question": example["question"], "answers": answers} | mark
        articles.setdefault(example.get("title", ""), {}).setdefault(example["context"], []).append(qa)
    data = [
        {"title": title, "paragraphs": [{"context": context, "qas": qas} for context, qas in paragraphs.items()]}
        for title, paragraphs in articles.items()
    ]
    return {"version": "1.1", "data": data}


def nested_name(content: dict) -> str | None:
    """Under which name an object holds questions; None where it does not, or is one."""
    names = () if "question" in content else NESTED
    return next((name for name in names if isinstance(content.get(name), list | dict)), None)


def is_splits(content: dict) -> bool:
    """Whether an object is several splits in one file."""
    return "question" not in content and any(isinstance(content.get(name), list | dict) for name in ALL_SPLITS)


def holds_records(content: dict) -> bool:
    """Whether a whole file's JSON object is of a shape that is known."""
    content = rename(content)
    return "question" in content or nested_name(content) is not None or is_splits(content)


def choose_split(parts: dict, split: str | None) -> object:
    """The part that is `split`, under one of its usual names. None: the only part, or of several the one to validate
    with. Raises NoSuchSplit."""
    if split is None and len(parts) == 1:
        return next(iter(parts.values()))
    split = split or "validation"
    if name := next((name for name in SPLITS.get(split, (split,)) if name in parts), None):
        return parts[name]
    raise NoSuchSplit(f"there is no part called {split}, only {', '.join(parts)}")
