"""Corrected answers, kept as a SQuAD file that train.py takes."""

import hashlib
from pathlib import Path

from extractive_qa.errors import QAError
from extractive_qa.files.atomic import explain_write_failure, make_folder, write_json
from extractive_qa.files.locks import locked
from extractive_qa.files.reading import read_json_object

EXPECTED = "a SQuAD file of corrected answers"


def save_correction(path: Path, question: str, context: str, start: int, end: int, title: str = "") -> int:
    """Adds a question and the right place in its context, in characters, end exclusive, to the SQuAD file `path`, which
    is made where it is missing. An earlier correction of the same question and context is replaced.

    Returns how many there are now. Raises QAError where the file holds something else, or can't be written.
    """
    name = hashlib.sha256(f"{question}\0{context}".encode()).hexdigest()[:16]
    answer = {"text": context[start:end], "answer_start": start}
    record = {"id": name, "question": question, "answers": [answer]}
    new = {"title": title or "corrections", "paragraphs": [{"context": context, "qas": [record]}]}
    with explain_write_failure(path):
        make_folder(path.parent)
        with locked(path.with_name(f"{path.name}.lock"), "another server", path, "--corrections"):
            content = read_json_object(path, EXPECTED) if path.exists() else {"version": "1.1", "data": []}
            try:
                articles = [article for article in content["data"] if ids_of(article) != [name]]
            except (KeyError, TypeError):
                raise QAError(f"{path} is no SQuAD file. Expected {EXPECTED}: choose another --corrections.") from None
            write_json(path, content | {"data": [*articles, new]})
    return len(articles) + 1


def ids_of(article: dict) -> list[str]:
    return [record["id"] for paragraph in article["paragraphs"] for record in paragraph["qas"]]
