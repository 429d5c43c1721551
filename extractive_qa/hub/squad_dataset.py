"""SQuAD 1.1 as it is published, JSON or Parquet, into a dataset on the disk that datasets.load_from_disk reads."""

import json
import logging
from pathlib import Path

import pyarrow.parquet
from datasets import Dataset, DatasetDict, Features, Sequence, Value
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from extractive_qa.errors import QAError, brief
from extractive_qa.hub.sources import ROWS

logger = logging.getLogger(__name__)

TEXT, TEXTS, STARTS = Value("string"), Sequence(Value("string")), Sequence(Value("int32"))
ANSWERS = {"text": TEXTS, "answer_start": STARTS}  # starts: characters into the context
FEATURES = Features({"id": TEXT, "title": TEXT, "context": TEXT, "question": TEXT, "answers": ANSWERS})
GET_AGAIN = "Delete it, then run: python download_data.py --only data"


def save_data(train_file: Path, validation_file: Path, folder: Path) -> None:
    """Reads the two files (Parquet of the Hub, or original JSON) and saves them as a DatasetDict in `folder`.

    Raises QAError where one can't be read or has not the number of questions of SQuAD 1.1.
    """
    logger.info("data: checking and saving")
    splits = {}
    for split, path in zip(ROWS, (train_file, validation_file), strict=True):
        splits[split] = read_split(path)
        if len(splits[split]) != ROWS[split]:
            raise QAError(
                f"{path} has {len(splits[split]):,} questions. Expected the {ROWS[split]:,} of SQuAD 1.1 ({split}). "
                f"{GET_AGAIN}"
            )
    # its bars would flash by: it takes seconds
    were_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        DatasetDict(splits).save_to_disk(folder)
    finally:
        if not were_off:
            enable_progress_bars()


def read_split(path: Path) -> Dataset:
    """The questions in a Parquet file of the Hub or in an original JSON file, as a dataset in memory.

    Raises QAError where the file can't be read as such.
    """
    try:
        if path.suffix == ".parquet":
            rows = pyarrow.parquet.read_table(path, columns=list(FEATURES)).to_pylist()
        else:
            rows = [
                {
                    "id": qa["id"],
                    "title": article["title"],
                    "context": paragraph["context"],
                    "question": qa["question"],
                    "answers": {key: [answer[key] for answer in qa["answers"]] for key in ANSWERS},
                }
                for article in json.loads(path.read_text(encoding="utf-8"))["data"]
                for paragraph in article["paragraphs"]
                for qa in paragraph["qas"]
            ]
        return Dataset.from_list(rows, features=FEATURES)
    # OSError: Arrow says so of some damage
    except (pyarrow.ArrowException, ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise QAError(
            f"{path} can't be read as SQuAD 1.1 ({brief(error)}). Expected {', '.join(FEATURES)} of every question. "
            f"{GET_AGAIN}"
        ) from error
