"""SQuAD as it is published into a dataset on the disk."""

import json

import pytest
from datasets import load_from_disk
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from small_hub import ROWS, json_files, parquet_files, put, squad_rows

from extractive_qa.errors import QAError
from extractive_qa.hub.squad_dataset import save_data

pytestmark = pytest.mark.usefixtures("small_squad")
PARQUET = ["train-00000-of-00001.parquet", "validation-00000-of-00001.parquet"]
JSON = ["train-v1.1.json", "dev-v1.1.json"]


@pytest.fixture
def save(tmp_path):
    """save(names, changed={}) saves these files, after the changes, and gives the folder."""
    put(tmp_path, json_files() | {name.rpartition("/")[2]: content for name, content in parquet_files().items()})

    def save(names, changed=()):
        put(tmp_path, dict(changed))
        save_data(*(tmp_path / name for name in names), tmp_path / "squad")
        return tmp_path / "squad"

    return save


def test_parquet_and_json_give_the_same_dataset(save):
    for names in (PARQUET, JSON):
        data = load_from_disk(str(save(names)), keep_in_memory=True)
        assert {split: data[split].to_list() for split in data} == {split: squad_rows(split) for split in ROWS}
        if names is PARQUET:
            features = data["train"].features
    assert data["train"].features == features


TRAIN = parquet_files()["plain_text/train-00000-of-00001.parquet"]
DAMAGED = {
    "a page": b"<html>",
    "its first bytes": b"PAR1",
    "half": TRAIN[: len(TRAIN) // 2] + TRAIN[-8:],
    "one byte": TRAIN[:-9] + bytes([TRAIN[-9] ^ 255]) + TRAIN[-8:],
}
OTHER_JSON = {
    "cut": json_files()["train-v1.1.json"][:999],
    "SQuAD without a title": json.dumps({"data": [{"paragraphs": [{"context": "", "qas": [{"id": "1"}]}]}]}).encode(),
    "a list": b"[]",
    "numbers for texts": b'{"data": [{"title": 1, "paragraphs": 2}]}',
    "nested too deeply": b"[" * 100_000,
    "not UTF-8": b'{"data": "\xff"}',
}


@pytest.mark.fault("download fault")
@pytest.mark.parametrize(
    ("names", "content"),
    [*((PARQUET, content) for content in DAMAGED.values()), *((JSON, content) for content in OTHER_JSON.values())],
    ids=[*DAMAGED, *OTHER_JSON],
)
def test_a_damaged_file_is_refused(names, content, save, tmp_path):
    with pytest.raises(QAError, match=rf"{names[0]} can't be read as SQuAD 1\.1 \(.*--only data"):
        save(names, {names[0]: content})
    assert not (tmp_path / "squad").exists()


@pytest.mark.fault("download fault")
def test_the_wrong_number_of_questions_is_refused(save, tmp_path):
    with pytest.raises(QAError, match=r"validation-.* has 3 questions\. Expected the 20 of SQuAD 1\.1 \(train\)"):
        save([PARQUET[1], PARQUET[0]])
    assert not (tmp_path / "squad").exists()


@pytest.mark.parametrize("off", [False, True])
def test_the_bars_of_datasets_are_as_they_were(off, save, capsys):
    (disable_progress_bars if off else enable_progress_bars)()
    try:
        save(JSON)
        assert are_progress_bars_disabled() == off
        assert capsys.readouterr() == ("", "")
    finally:
        enable_progress_bars()
