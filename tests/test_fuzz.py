"""Bytes at random for every reader of files: each reads them, or says in words what is wrong; none crashes, none hangs.

Small valid files are changed: bits, pieces, numbers, and parts of other files. Some seconds in `make test`, a minute in
`make test-slow`, and as long as one likes, with other bytes each time:

    FUZZ_SECONDS=3600 python -m pytest -n 0 -m slow tests/test_fuzz.py
"""

import gzip
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import TEXTS, save_tokenizer
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from malformed import within
from question_files import QUESTIONS, assert_valid, write_csv, write_data, write_json_lines, write_nested, write_parquet
from safetensors.numpy import save

from extractive_qa.batch.answer_file import AnswerFile, bad_path, progress_path
from extractive_qa.data.examples import read_examples
from extractive_qa.data.formats import read_records
from extractive_qa.errors import QAError
from extractive_qa.files.atomic import DIGEST_SIZE
from extractive_qa.files.manifest import check_manifest, write_manifest
from extractive_qa.files.reading import parse_json
from extractive_qa.model.folder import require_model
from extractive_qa.model.loading import misfit, shapes_of
from extractive_qa.preprocessing.features_file import load_features, save_features
from extractive_qa.preprocessing.windows import count_ids, load_tokenizer, prepare_train_features
from extractive_qa.report.predictions import read_predictions
from extractive_qa.settings import check_config, choose_settings, fit_windows
from extractive_qa.training.checkpoints import STATE, find_damage, read_state, write_state
from extractive_qa.training.log import read_log

SECONDS = 20  # for one file
RUN = {"input": ["a"], "top_k": 1}
# what parsers of JSON, CSV and binary formats trip over
PIECES = [
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\n", b'"', b"'", b",", b";", b":", b"{", b"}", b"[",
    b"]",
    b"\\", b"\\ud800", b"\\u0000", b"[" * 2000, b'{"a":' * 2000, b"NaN", b"-Infinity", b"1e999", b"-1", b"0.5", b"null",
    b"true", b"1" * 4400, b"9" * 20, b"{}", b"[]", b'""', b"\x1f\x8b", b"PAR1", b"PK\x03\x04", b"\xff" * 8, bytes(8),
    bytes(7) + b"\x80", b"../../x", "\u202e".encode(), "é".encode("latin-1"),
]  # fmt: skip


class Target(NamedTuple):
    """A reader. seeds: valid files. read: reads one, and raises nothing but a QAError. name: of the file."""

    name: str
    seeds: list[bytes]
    read: Callable[[Path], object]


def read_all(path: Path) -> None:
    """As evaluate.py and train.py, and as predict.py batch."""
    for record in read_records(path, columns=("question",)):
        assert isinstance(record.fault, str)
        assert record.fault or record.content is not None or record.text is not None
    for skip_bad, strict in ((True, False), (False, True)):
        with suppress(QAError):
            for example in read_examples(path, skip_bad=skip_bad, strict=strict):
                assert_valid(example)


def resume(path: Path) -> None:
    """The file is what is said of a run beside its answers."""
    answers = path.with_name(path.name.removesuffix(".progress"))
    for file, size in ((answers, 300), (bad_path(answers), 40)):
        file.write_bytes(b"a" * size)
    try:
        with AnswerFile(answers, 1, RUN, overwrite=False) as output:
            assert isinstance(output.done, int)
            output.write([], [], output.done + 1)
            output.finish(1.0, 1)
    finally:
        for file in path.parent.iterdir():
            if file != path:
                file.unlink()


def read_features(path: Path) -> None:
    """The checksum in front tells of any change, but where what it is of was left alone."""
    content = path.read_bytes()
    is_whole = hashlib.sha256(content[DIGEST_SIZE:]).digest() == content[:DIGEST_SIZE] and len(content) > DIGEST_SIZE
    assert (load_features(path) is not None) == is_whole


def read_state_and_damage(path: Path) -> None:
    find_damage(path.parent, full=True)
    read_state(path.parent)


def read_manifest_of(path: Path) -> None:
    (path.parent / "file").write_bytes(b"content")
    check_manifest(path.parent, full=True)


def read_weights(path: Path) -> None:
    misfit({"vocab_size": 3, "hidden_size": 2, "num_hidden_layers": 1}, shapes_of(path.parent, "Run: this"))


def read_config(path: Path) -> None:
    for name in ("tokenizer.json", "model.safetensors"):
        (path.parent / name).touch()
    config = require_model(path.parent)
    misfit(config, [[3, 2]])
    if not check_config(config, 3):
        fit_windows({"max_length": 384, "doc_stride": 128}, config)


def read_reader(path: Path) -> None:
    chosen = choose_settings(path.parent)
    assert type(chosen["max_length"]) is int


def read_tokenizer(path: Path) -> None:
    tokenizer = load_tokenizer(path.parent)
    count_ids(tokenizer)
    tokenizer.encode(*TEXTS[:2])


def read_a_json(path: Path) -> None:
    with suppress(ValueError):  # as documented
        parse_json(path.read_bytes().decode("utf-8", "replace"))


def as_bytes(write: Callable, folder: Path) -> bytes:
    return write(QUESTIONS, folder).read_bytes()


@pytest.fixture(scope="module")
def targets(tmp_path_factory) -> dict[str, Target]:
    folder = tmp_path_factory.mktemp("seeds")
    nested, flat, lines, table = (as_bytes(w, folder) for w in (write_nested, write_data, write_json_lines, write_csv))
    save_tokenizer(folder, TEXTS, vocab_size=60)
    features = prepare_train_features(QUESTIONS, load_tokenizer(folder), 64, 16)
    save_features(folder / "a.features", features, kept=1)
    write_state(folder, {"step": 3, "losses": [0.5], "settings": {"seed": 1}})
    (folder / "m").mkdir()
    (folder / "m" / "file").write_bytes(b"content")
    write_manifest(folder / "m", "source", "1")
    weights = save({"a": np.ones((3, 2), np.float32), "b": np.zeros(4, np.int64)}, {"format": "pt"})
    progress = {"run": RUN, "done": 3, "counts": [2, 1], "sizes": [300, 40]}
    config = {
        "model_type": "bert",
        "vocab_size": 3,
        "hidden_size": 2,
        "pad_token_id": 0,
        "max_position_embeddings": 512,
    }
    settings = {"max_length": 384, "doc_stride": 128, "temperature": 1.5, "handle_impossible_answer": False}
    log = [{"step": 1, "loss": 0.5}, {"step": 2, "exact_match": 50.0, "f1": 60.0}]
    predictions = {question["id"]: "1903" for question in QUESTIONS}

    def text(value) -> bytes:
        return json.dumps(value).encode()

    return {
        "JSON": Target("a.json", [nested, flat, lines], read_all),
        "JSON Lines": Target("a.jsonl", [lines, nested], read_all),
        "CSV": Target("a.csv", [table, table.replace(b",", b";")], read_all),
        "TSV": Target("a.tsv", [table.replace(b",", b"\t")], read_all),
        "gzip": Target("a.jsonl.gz", [gzip.compress(lines, mtime=0), gzip.compress(b"", mtime=0)], read_all),
        "gzip of CSV": Target("a.csv.gz", [gzip.compress(table, mtime=0)], read_all),
        "Parquet": Target("a.parquet", [as_bytes(write_parquet, folder)], read_all),
        "features": Target("a.features", [(folder / "a.features").read_bytes()], read_features),
        "manifest": Target("manifest.json", [(folder / "m" / "manifest.json").read_bytes()], read_manifest_of),
        "answers to resume": Target(progress_path(Path("a.jsonl")).name, [text(progress)], resume),
        "weights": Target("model.safetensors", [weights], read_weights),
        "config": Target("config.json", [text(config)], read_config),
        "settings": Target("reader.json", [text(settings)], read_reader),
        "tokenizer": Target("tokenizer.json", [(folder / "tokenizer.json").read_bytes()], read_tokenizer),
        "a training's state": Target(STATE, [(folder / STATE).read_bytes()], read_state_and_damage),
        "a training's log": Target("training_log.jsonl", [b"".join(text(line) + b"\n" for line in log)], read_log),
        "predictions": Target(
            "predictions.json", [text(predictions)], lambda path: read_predictions(path, QUESTIONS)
        ),
        "any JSON": Target("any", [nested, text(config)], read_a_json),
    }  # fmt: skip


NAMES = [
    "JSON", "JSON Lines", "CSV", "TSV", "gzip", "gzip of CSV", "Parquet", "features", "manifest", "answers to resume",
    "weights", "config", "settings", "tokenizer", "a training's state", "a training's log", "predictions", "any JSON",
]  # fmt: skip


@st.composite
def changed(draw, seeds: list[bytes]) -> bytes:
    """One of the files with up to six changes; now and then no file at all."""
    content = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(content)))
        length = draw(st.one_of(st.integers(0, 16), st.integers(0, len(content))))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=12), st.sampled_from(seeds)))
        what = draw(st.sampled_from(["insert", "replace", "delete", "cut", "repeat", "flip", "number"]))
        if what == "insert":
            content = content[:place] + piece + content[place:]
        elif what == "replace":
            content = content[:place] + piece + content[place + len(piece) :]
        elif what == "delete":
            content = content[:place] + content[place + length :]
        elif what == "cut":
            content = content[:place]
        elif what == "repeat":
            content = content[:place] + content[place : place + length] * 2 + content[place + length :]
        elif what == "flip" and content:
            place = min(place, len(content) - 1)
            content = content[:place] + bytes([content[place] ^ (1 << length % 8)]) + content[place + 1 :]
        elif what == "number":  # the next one in the text
            begin = next((n for n in range(place, len(content)) if content[n : n + 1].isdigit()), len(content))
            end = next((n for n in range(begin, len(content)) if not content[n : n + 1].isdigit()), len(content))
            content = content[:begin] + piece + content[end:]
        content = content[:100_000]
    return content


def fuzz(target: Target, folder: Path, examples: int, number: int | None = None) -> int:
    """Tries so many files, and returns how many they were. number: of the draw; None: the same each time."""
    tried = 0

    @settings(
        max_examples=examples, derandomize=number is None, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(changed(target.seeds))
    def read(content):
        nonlocal tried
        tried += 1
        path = folder / target.name
        path.write_bytes(content)
        with within(SECONDS), suppress(QAError):
            target.read(path)

    (read if number is None else seed(number)(read))()
    return tried


@pytest.mark.fault("bytes at random")
@pytest.mark.parametrize("name", NAMES)
def test_a_reader_takes_any_bytes(name, targets, tmp_path, record_property):
    assert targets.keys() == set(NAMES)
    record_property("tried", fuzz(targets[name], tmp_path, examples=40))


@pytest.mark.slow
@pytest.mark.fault("bytes at random")
def test_readers_take_any_bytes_for_a_while(targets, tmp_path, record_property):
    """Each time others: the number of the draw is in the message."""
    end, tried = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "60")), 0
    for number in itertools.count(int(time.time()) * 1000):
        name = NAMES[number % len(NAMES)]
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            tried += fuzz(targets[name], folder, examples=100, number=number)
        except BaseException as error:
            error.add_note(f"{name}, draw {number}; the file is in {folder}")
            raise
        if time.monotonic() > end:
            break
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    print(f"{tried:,} files")
    record_property("tried", tried)
