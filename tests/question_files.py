"""Good questions, and writers of every format of files of questions."""

import csv
import json
from pathlib import Path

import pytest

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError

CONTEXT = "Marie Curie won the prize in 1903 and again in 1911."
QUESTIONS = [
    {
        "id": "q1",
        "question": "When did she win?",
        "context": CONTEXT,
        "answers": {"text": ["1903", "1911"], "answer_start": [29, 47]},
    },
    {"id": "q2", "question": "Who won?", "context": CONTEXT, "answers": {"text": ["Marie Curie"], "answer_start": [0]}},
    {
        "id": "q3",
        "question": "Wo schläft «sie», 谁？",
        "context": '\u00a0“Zoë”, she said,\r\n"sleeps"\n in 北京 🙂,\u2028; not here.',
        "answers": {"text": ["北京 🙂"], "answer_start": [32]},
    },
]


def nested(examples: list[dict]) -> dict:
    """Official SQuAD JSON, neighbours with one context in one paragraph."""
    paragraphs = []
    for item in examples:
        if not paragraphs or paragraphs[-1]["context"] != item["context"]:
            paragraphs.append({"context": item["context"], "qas": []})
        pairs = zip(item["answers"]["text"], item["answers"]["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        paragraphs[-1]["qas"].append({"id": item["id"], "question": item["question"], "answers": answers})
    return {"version": "1.1", "data": [{"title": "all", "paragraphs": paragraphs}]}


def write_json(content: object, path: Path) -> Path:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8", newline="")
    return path


def write_nested(examples: list[dict], folder: Path) -> Path:
    return write_json(nested(examples), folder / "nested.json")


def write_list(examples: list[dict], folder: Path) -> Path:
    return write_json(examples, folder / "flat.json")


def write_data(examples: list[dict], folder: Path) -> Path:
    """As Hugging Face's own scripts want it: flat records under `data`."""
    return write_json({"version": "1.1", "data": examples}, folder / "data.json")


def write_json_lines(examples: list[dict], folder: Path) -> Path:
    lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in examples)
    (folder / "flat.jsonl").write_text(lines, encoding="utf-8", newline="")
    return folder / "flat.jsonl"


def write_csv(examples: list[dict], folder: Path, delimiter: str = ",") -> Path:
    with (folder / "flat.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "question", "context", "answers"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(item | {"answers": json.dumps(item["answers"], ensure_ascii=False)} for item in examples)
    return folder / "flat.csv"


def write_parquet(examples: list[dict], folder: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(examples), folder / "flat.parquet")
    return folder / "flat.parquet"


def write_dataset(examples: list[dict], folder: Path) -> Path:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_list(examples).save_to_disk(folder / "saved")
    return folder / "saved"


def write_dataset_dict(examples: list[dict], folder: Path) -> Path:
    import datasets

    datasets.disable_progress_bars()
    parts = {"train": datasets.Dataset.from_list(QUESTIONS[:1]), "validation": datasets.Dataset.from_list(examples)}
    datasets.DatasetDict(parts).save_to_disk(folder / "saved_dict")
    return folder / "saved_dict"


TEXT_FORMATS = [write_nested, write_list, write_data, write_json_lines, write_csv]
FORMATS = [*TEXT_FORMATS, write_parquet, write_dataset, write_dataset_dict]


def refusal(path: Path, **options) -> str:
    """The text of the QAError with which a file is refused."""
    with pytest.raises(QAError) as caught:
        read_examples(path, **options)
    return str(caught.value)


def record(**changes) -> dict:
    """A good flat record with some fields replaced, those that are `...` left out."""
    return {name: value for name, value in (QUESTIONS[0] | changes).items() if value is not ...}


def assert_valid(item: dict) -> None:
    """What every later step relies on."""
    assert set(item) == {"id", "question", "context", "answers"}
    assert isinstance(item["id"], str)
    assert item["question"].strip()
    assert item["context"].strip()
    assert item["answers"]["text"]
    for text, start in zip(item["answers"]["text"], item["answers"]["answer_start"], strict=True):
        assert type(start) is int
        assert text.strip()
        assert item["context"][start : start + len(text)] == text
    json.dumps(item, ensure_ascii=False).encode("utf-8")
