"""What a tokenizer does not know of a text, and that it is said once, from 5 % of the characters on."""

import logging

import pytest

from extractive_qa.model.folder import card_languages
from extractive_qa.preprocessing.unknown import describe_unknown, is_foreign, unknown_share, unknown_token
from extractive_qa.preprocessing.windows import load_tokenizer, prepare_train_features, prepare_validation_features
from extractive_qa.reader import Reader
from utils.offline import SAMPLE_MODEL_DIR

CHINESE = "青石桥建于一九三二年，全长八十七米，由本地石匠修建。南岸的茶馆每天早晨六点开门。"


def asked(context: str, answer: str = "", question: str = "Who?") -> dict:
    starts = [context.index(answer)] if answer else []
    answers = {"text": [answer] if answer else [], "answer_start": starts}
    return {"id": f"{context} {answer}", "question": question, "context": context, "answers": answers}


@pytest.fixture(scope="module")
def sample_tokenizer():
    return load_tokenizer(SAMPLE_MODEL_DIR)


def test_the_share_is_that_of_all_characters_in_unknown_tokens(sample_tokenizer):
    contexts = ["one two 鑫 four", "one two 鑫 four", "鑫鑫 and 鑫", "\n"]
    features = prepare_validation_features([asked(c) for c in contexts], sample_tokenizer, 64, 16)
    share = unknown_share(features, contexts, unknown_token(sample_tokenizer))
    assert share == pytest.approx(4 / (11 + 6))  # white space does not count, nor does a context count twice
    assert unknown_share(features, contexts, -1) == 0


def test_english_is_known_and_chinese_is_not(sample_tokenizer, sample_examples):
    features = prepare_validation_features(sample_examples, sample_tokenizer, 384, 128)
    assert describe_unknown(features, [e["context"] for e in sample_examples], sample_tokenizer, ["en"]) is None
    examples = [asked(CHINESE, "八十七米"), asked(CHINESE, "茶馆"), asked(CHINESE, "南岸")]
    features = prepare_train_features(examples, sample_tokenizer, 384, 128)
    said = describe_unknown(features, [CHINESE], sample_tokenizer, ["en"])
    tokens = sample_tokenizer.encode(CHINESE, add_special_tokens=False).tokens
    assert f"does not know {tokens.count('[UNK]') / len(CHINESE):.0%} of the text's characters" in said
    assert "1 answer(s) are nothing but [UNK]" in said
    assert "another language" in said and "en" in said
    assert "language (" not in describe_unknown(features, [CHINESE], sample_tokenizer, ["zh"])


@pytest.mark.parametrize(
    ("text", "languages", "foreign"),
    [
        (CHINESE, ["en"], True), (CHINESE, ["en", "zh"], False), (CHINESE, ["zh-CN"], False), (CHINESE, [], False),
        (CHINESE, ["multilingual"], False), ("ひらがな 漢字 かな", ["zh"], True), ("Привет", ["en"], True),
        ("Привет", ["ru"], False), ("नदी", ["hi"], False), ("Grüße aus Köln", ["en"], False),
        ("the bridge", ["zh"], True), ("1932", ["en"], False), ("", ["en"], False),
    ],
)  # fmt: skip
def test_a_text_is_foreign_where_no_language_of_the_card_has_its_script(text, languages, foreign):
    assert is_foreign(text, languages) == foreign


@pytest.mark.parametrize(
    ("head", "languages"),
    [
        ("language: en", ["en"]),
        ("language:\n- en\n- zh\nlicense: mit", ["en", "zh"]),
        ("language: [en, de]", ["en", "de"]),
        ("license: mit", []),
        ("language:\nlicense: mit", []),
        ("language: multilingual", ["multilingual"]),
        ("languages:\n  - pt-br\ntags:\n- qa", ["pt-br"]),
    ],
)
def test_languages_are_read_off_the_front_matter(head, languages, tmp_path):
    assert card_languages(tmp_path) == []
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\nlanguage: fr\n", encoding="utf-8")
    assert card_languages(tmp_path) == languages


def test_a_reader_says_it_once(tiny_model, caplog):
    reader = Reader(tiny_model, "cpu", "no")
    with caplog.at_level(logging.WARNING, "extractive_qa"):
        reader.answer("Who?", "Ada Krog lit the lamp.")
        assert caplog.text == ""
        reader.answer("Who?", CHINESE)
        reader.answer("Who?", CHINESE)
    assert caplog.text.count("[UNK]") == 1
