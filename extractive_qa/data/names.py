"""The names of fields and columns: which are taken as ours, and which are named as what may be meant."""

from extractive_qa.text import printable

ANSWER_KINDS = ("jsonl", "csv", "parquet")  # files of answers that predict.py batch writes
ALIASES = {"question_id": "id", "qid": "id", "answer_text": "answer"}  # other names of ours
# parts of the names that others give to our fields
OTHER_NAMES = {
    "question": ("question", "query"),
    "context": ("context", "passage", "paragraph", "document", "article", "story", "text"),
}


def canonical_name(name: str) -> str:
    """The name that we give a field or a column: " Answer Text" is `answer`."""
    plain = "_".join(str(name).strip().lower().split())
    return ALIASES.get(plain, plain)


def rename(record: dict) -> dict:
    """A record with our names of its fields; one that has such a name already keeps it."""
    renamed = {canonical_name(name): value for name, value in record.items()}
    return renamed | {name: value for name, value in record.items() if name in renamed}


def keys_found(content: dict, wanted: str) -> str:
    """The keys of a record that lacks a field, and which of them may be that field."""
    found = f"the keys are {printable(', '.join(content), 150) or 'none'}"
    like = [key for key in content if any(part in key.lower() for part in OTHER_NAMES[wanted])]
    texts = {key: len(content[key]) for key in like if isinstance(content[key], str)}
    if texts:
        return f"{found}. `{printable(max(texts, key=texts.get), 40)}` may be it: call it `{wanted}`"
    if like:
        return f"{found}. `{printable(like[0], 40)}` holds no text: put the text itself into `{wanted}`"
    return found
