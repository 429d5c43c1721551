"""Questions out of raw text: every answer stands where it is said to, and nothing else in the context does."""

import json
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import PROJECT_ROOT, assert_refused, run_script

sys.path.insert(0, str(PROJECT_ROOT / "tools"))

from pretrain_spans import ask, passages, questions, recurring_spans

from utils.squad import read_examples

TEXT = (
    "The lighthouse at Cape Arden was built in 1871. Its keeper counted ships every night. In winter nobody lived "
    "near the harbour for months. Sailors from the north say that Cape Arden has the coldest wind of all."
)


def texts_of(passage):
    return [{passage[start:end] for start, end in places} for places in recurring_spans(passage)]


def test_the_longest_spans_that_stand_twice_are_found():
    assert texts_of(TEXT) == [{"Cape Arden"}]
    assert texts_of("one red kite. one red kite, and a kite") == [{"red kite"}]  # `kite` stands at three places
    assert texts_of("The Keeper. The keeper of the and the") == [{"Keeper", "keeper"}]  # nothing but names and things
    assert texts_of("no word again") == texts_of("") == []


def test_a_span_does_not_reach_over_the_end_of_a_clause():
    assert texts_of("He met Anna. Berta left. She saw Anna. Berta stayed.") == [{"Anna"}, {"Berta"}]


def test_the_sentence_with_a_blank_is_the_question_and_is_not_in_the_context():
    first, second = recurring_spans(TEXT)[0]
    asked = ask(TEXT, first, second)
    assert asked["question"] == "The lighthouse at what was built in 1871?"
    assert asked["context"].startswith("Its keeper")
    asked = ask(TEXT, second, first)
    assert asked["question"] == "Sailors from the north say that what has the coldest wind of all?"
    assert asked["context"].endswith("for months. ")
    assert asked["answers"] == {"text": ["Cape Arden"], "answer_start": [18]}


def test_both_places_in_one_sentence_or_a_sentence_without_words_ask_nothing():
    passage = "The wind of Cape Arden blew over Cape Arden and the sea. Nothing else."
    assert ask(passage, *recurring_spans(passage)[0]) is None
    passage = "Cape Arden sleeps. It is winter there and nobody walks to Cape Arden."
    assert ask(passage, *recurring_spans(passage)[0]) is None


def test_paragraphs_are_gathered_until_they_have_the_words():
    text = "a b c\n\nd e\nf\n \ng h i j k l"
    assert list(passages(text, 5)) == ["a b c d e f", "g h i j k l"]
    assert list(passages(text, 100)) == ["a b c d e f g h i j k l"]
    assert list(passages("", 5)) == []


WORDS = st.sampled_from(
    ["Cape", "Arden", "the", "of", "ship.", "Night", "1871", "né", "🙂", "O'Hara-Smith", "(was)", "\n\n"]
)


@given(st.lists(WORDS, max_size=120), st.integers(5, 60), st.integers(0, 9))
def test_every_answer_stands_at_its_place_in_any_text(words, size, seed):
    text = " ".join(words)
    for question in questions(text, size, 5, random.Random(seed)):
        ((answer,), (start,)) = question["answers"].values()
        assert question["context"][start : start + len(answer)] == answer
        assert answer.strip() == answer != ""
        assert "what" in question["question"]


def test_the_file_is_one_that_trains(tmp_path):
    (tmp_path / "texts" / "deeper").mkdir(parents=True)
    (tmp_path / "texts" / "one.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "texts" / "deeper" / "two.txt").write_text(f"\ufeff{TEXT}\r\n\r\n{TEXT[:48]}", encoding="utf-8")
    output = tmp_path / "new" / "spans.jsonl"
    done = run_script("tools/pretrain_spans.py", tmp_path / "texts", output)
    examples = read_examples(output, "train")
    assert f"{len(examples)} questions from 2 texts" in done.stdout
    assert len({example["id"] for example in examples}) == len(examples) >= 1
    again = tmp_path / "again.jsonl"
    run_script("tools/pretrain_spans.py", tmp_path / "texts", again)
    assert again.read_bytes() == output.read_bytes()
    assert_refused(run_script("tools/pretrain_spans.py", tmp_path / "texts", output, code=2), "spans.jsonl exists")
    assert all(json.loads(line) for line in output.read_text("utf-8").splitlines())


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no .txt file below"), (b"nothing twice here", "nothing stands"), (b"\xff\xfe\x00", "UTF-8")],
)
def test_texts_that_give_nothing_are_refused(tmp_path, content, said):
    if content:
        (tmp_path / "one.txt").write_bytes(content)
    done = run_script("tools/pretrain_spans.py", tmp_path, tmp_path / "spans.jsonl", code=2)
    assert_refused(done, said)
    assert not (tmp_path / "spans.jsonl").exists()


def test_a_folder_with_a_texts_name_is_no_text(tmp_path):
    (tmp_path / "texts" / "a.txt").mkdir(parents=True)
    done = run_script("tools/pretrain_spans.py", tmp_path / "texts", tmp_path / "spans.jsonl", code=2)
    assert_refused(done, "no .txt file below")
    (tmp_path / "texts" / "a.txt" / "one.txt").write_text(TEXT, encoding="utf-8")
    done = run_script("tools/pretrain_spans.py", tmp_path / "texts", tmp_path / "spans.jsonl")
    assert "from 1 texts" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights of their own there")
def test_a_text_that_can_not_be_read_is_named(tmp_path):
    (tmp_path / "one.txt").symlink_to(tmp_path / "nowhere")
    done = run_script("tools/pretrain_spans.py", tmp_path, tmp_path / "spans.jsonl", code=2)
    assert_refused(done, "one.txt can't be read: No such file")


def test_an_output_that_can_not_be_written_is_refused_before_the_texts_are_read(tmp_path):
    (tmp_path / "one.txt").write_bytes(b"\xff\xfe\x00")
    done = run_script("tools/pretrain_spans.py", tmp_path, tmp_path / "one.txt" / "spans.jsonl", code=2)
    assert_refused(done, "spans.jsonl can't be written", "Choose another OUTPUT")


def test_no_words_or_no_questions_are_refused(tmp_path):
    (tmp_path / "one.txt").write_text(TEXT, encoding="utf-8")
    for flag in ("--words", "--max_questions"):
        done = run_script("tools/pretrain_spans.py", tmp_path, tmp_path / "spans.jsonl", flag, 0, code=2)
        assert_refused(done, f"{flag} 0")
