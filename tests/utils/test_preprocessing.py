"""The cache of prepared features: what comes out is what went in, and no fault of a file or a folder is felt."""

import copy
import dataclasses
import os
import sys

import numpy as np
import pytest

from extractive_qa.preprocessing.features_file import load_features, save_features
from extractive_qa.preprocessing.windows import load_tokenizer, prepare_train_features
from utils import preprocessing as feature_cache
from utils.preprocessing import KEPT, cached_train_features, features_key

SETTINGS = (96, 32)


@pytest.fixture(autouse=True)
def small_files_too(monkeypatch):
    monkeypatch.setattr(feature_cache, "WORTH_A_FILE", 1)


@pytest.fixture
def preparations(monkeypatch):
    """How often windows were prepared: one entry each time."""
    done = []

    def counted(*args):
        done.append(args)
        return prepare_train_features(*args)

    monkeypatch.setattr(feature_cache, "prepare_train_features", counted)
    return done


def assert_equal_features(found, expected):
    assert found.template == expected.template
    for field in dataclasses.fields(expected):
        if field.name != "template":
            one, other = getattr(found, field.name), getattr(expected, field.name)
            assert one.dtype == other.dtype, field.name
            np.testing.assert_array_equal(one, other, field.name)


def test_the_second_time_nothing_is_prepared_and_everything_is_equal(
    sample_examples, real_tokenizer, tmp_path, preparations
):
    expected = prepare_train_features(sample_examples, real_tokenizer, *SETTINGS)
    for _ in range(2):
        found = cached_train_features(sample_examples, real_tokenizer, *SETTINGS, tmp_path / "new" / "cache")
        assert_equal_features(found, expected)
        assert {k: str(v) for k, v in found[3].items()} == {k: str(v) for k, v in expected[3].items()}
    assert len(preparations) == 1
    (path,) = (tmp_path / "new" / "cache").iterdir()  # and no temporary file
    path.rename(path.with_suffix(".moved"))  # Windows would refuse this, were the file still open


def test_few_questions_leave_no_file(sample_examples, real_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "WORTH_A_FILE", len(sample_examples) + 1)
    cached_train_features(sample_examples, real_tokenizer, *SETTINGS, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_key_changes_with_every_ingredient(sample_examples, real_tokenizer, tokenizer_dir, monkeypatch):
    examples = sample_examples[:20]
    keys = [features_key(examples, real_tokenizer, *SETTINGS)]
    for name in ("question", "context"):
        changed = copy.deepcopy(examples)
        changed[7][name] += "s"
        keys.append(features_key(changed, real_tokenizer, *SETTINGS))
    for name, value in (("answer_start", 1), ("text", "longer")):
        changed = copy.deepcopy(examples)
        changed[7]["answers"][name][0] += value
        keys.append(features_key(changed, real_tokenizer, *SETTINGS))
    keys.append(features_key(examples[:-1], real_tokenizer, *SETTINGS))
    keys.append(features_key(examples[::-1], real_tokenizer, *SETTINGS))
    keys.append(features_key(examples, load_tokenizer(tokenizer_dir), *SETTINGS))
    keys.append(features_key(examples, real_tokenizer, 97, 32))
    keys.append(features_key(examples, real_tokenizer, 96, 33))
    monkeypatch.setattr(feature_cache, "FORMAT", feature_cache.FORMAT + 1)
    keys.append(features_key(examples, real_tokenizer, *SETTINGS))
    assert len(set(keys)) == len(keys)


def test_the_key_keeps_texts_apart(real_tokenizer):
    """The same characters cut at another place, and a lone surrogate."""

    def key(question, context):
        example = {"question": question, "context": context, "answers": {"text": ["a"], "answer_start": [0]}}
        return features_key([example], real_tokenizer, *SETTINGS)

    assert len({key("ab", "c"), key("a", "bc"), key("abc", ""), key("ab", "\ud800")}) == 4


def test_the_key_ignores_what_does_not_matter(sample_examples, real_tokenizer):
    changed = [example | {"id": str(i), "title": "new"} for i, example in enumerate(sample_examples)]
    assert features_key(changed, real_tokenizer, *SETTINGS) == features_key(sample_examples, real_tokenizer, *SETTINGS)


def test_no_damaged_file_is_read(sample_examples, real_tokenizer, tmp_path):
    features = prepare_train_features(sample_examples[:3], real_tokenizer, *SETTINGS)
    path, damaged = tmp_path / "whole.features", tmp_path / "damaged.features"
    save_features(path, features, KEPT)
    assert_equal_features(load_features(path), features)
    content = path.read_bytes()
    for place in range(0, len(content), 499):
        damaged.write_bytes(content[:place])
        assert load_features(damaged) is None
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert load_features(damaged) is None


def test_a_damaged_file_is_written_again(sample_examples, real_tokenizer, tmp_path, preparations):
    expected = cached_train_features(sample_examples, real_tokenizer, *SETTINGS, tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert_equal_features(cached_train_features(sample_examples, real_tokenizer, *SETTINGS, tmp_path), expected)
    assert path.read_bytes() == content
    assert len(preparations) == 2


def test_a_folder_that_can_not_be_written_is_only_a_warning(sample_examples, real_tokenizer, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    features = cached_train_features(sample_examples, real_tokenizer, *SETTINGS, tmp_path / "file" / "cache")
    assert len(features) >= len(sample_examples)
    said = capsys.readouterr().err
    assert said.count("warning") == 1
    assert "Going on without" in said


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="a folder's mode binds no administrator")
def test_a_read_only_folder_is_still_read(sample_examples, real_tokenizer, tmp_path, preparations):
    for _ in range(2):
        cached_train_features(sample_examples, real_tokenizer, *SETTINGS, tmp_path)
        tmp_path.chmod(0o500)
    tmp_path.chmod(0o700)
    assert len(preparations) == 1


def test_a_file_whose_time_can_not_be_set_is_still_read(sample_examples, real_tokenizer, tmp_path, monkeypatch):
    path = tmp_path / "a.features"
    save_features(path, prepare_train_features(sample_examples, real_tokenizer, *SETTINGS), KEPT)

    def refuse(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "utime", refuse)
    assert load_features(path) is not None


def test_a_full_disk_leaves_the_old_file_and_no_other(sample_examples, real_tokenizer, tmp_path, monkeypatch, capsys):
    old = cached_train_features(sample_examples, real_tokenizer, *SETTINGS, tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    cached_train_features(sample_examples[1:], real_tokenizer, *SETTINGS, tmp_path)
    assert "No space left" in capsys.readouterr().err
    (path,) = tmp_path.iterdir()
    assert_equal_features(load_features(path), old)


def test_the_files_used_last_are_kept(sample_examples, real_tokenizer, tmp_path):
    features = prepare_train_features(sample_examples[:3], real_tokenizer, *SETTINGS)
    for number in range(KEPT):
        path = tmp_path / f"{number}.features"
        save_features(path, features, KEPT)
        os.utime(path, (1000 + number, 1000 + number))
    load_features(tmp_path / "0.features")
    save_features(tmp_path / "new.features", features, KEPT)
    assert {path.stem for path in tmp_path.iterdir()} == {"0", "new", *map(str, range(2, KEPT))}
