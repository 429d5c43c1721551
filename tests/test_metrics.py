"""Exact match and F1: as the official script defines them, on hard cases by hand and against other implementations."""

import os
import random
import re
import string
import subprocess
import sys
import unicodedata
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extractive_qa.metrics import (
    choose_f1_unit,
    compute_metrics,
    exact_match_score,
    exact_matches,
    f1_score,
    normalize_answer,
)
from utils.offline import PROJECT_ROOT, SWITCHES


def item(identifier, *references):
    return {"id": identifier, "answers": {"text": list(references), "answer_start": [0] * len(references)}}


# by hand: prediction, references, EM, F1
HARD_CASES = [
    ("Denver Broncos", ["Denver Broncos"], 1, 1),
    ("denver BRONCOS", ["Denver Broncos"], 1, 1),
    ("The Denver Broncos", ["Denver Broncos"], 1, 1),
    ("a the an Denver a Broncos an", ["Denver Broncos"], 1, 1),
    ("Denver Broncos!", ["“Denver” Broncos"], 0, 1 / 2),  # only ASCII punctuation goes
    ('"Denver Broncos."', ["Denver Broncos"], 1, 1),
    ("Denver-Broncos", ["DenverBroncos"], 1, 1),  # punctuation leaves no space
    ("Denver-Broncos", ["Denver Broncos"], 0, 0),
    ("$10,000", ["10000"], 1, 1),
    ("10.5", ["105"], 1, 1),  # a fault of the official script, kept
    ("A.", ["the"], 1, 0),  # nothing is left of either: equal, but no word is shared
    ("a-n", [""], 1, 0),  # punctuation goes before articles: "an"
    ("", [""], 1, 0),
    ("", ["Denver"], 0, 0),
    ("Denver", [""], 0, 0),
    ("the", ["theatre"], 0, 0),  # articles are whole words
    ("theatre", ["atre"], 0, 0),
    ("l'an", ["lan"], 1, 1),
    ("  Denver \t\n Broncos ", ["Denver Broncos"], 1, 1),
    ("Denver\u00a0Broncos", ["Denver Broncos"], 1, 1),  # every white space of Unicode
    ("Denver\u200bBroncos", ["Denver Broncos"], 0, 0),  # not a space
    ("ÉCOLE", ["école"], 1, 1),
    ("e\u0301cole", ["école"], 0, 0),  # not composed
    ("STRASSE", ["straße"], 0, 0),  # lower() is not casefold()
    ("北京", ["北京市"], 0, 0),
    ("北京", ["北京"], 1, 1),
    ("à la carte", ["la carte"], 0, 4 / 5),  # à is no article
    ("à", ["a"], 0, 0),
    ("won in 1903", ["in 1903"], 0, 4 / 5),
    ("1903 in", ["in 1903"], 0, 1),  # a bag of words has no order
    ("to be or not to be", ["to be"], 0, 2 * (2 / 6) * 1 / (2 / 6 + 1)),
    ("be be be", ["be to be"], 0, 2 / 3),  # a word counts as often as both have it
    ("Paris", ["London", "Paris", "Rome"], 1, 1),
    ("Paris France", ["London", "Paris", "in Paris France now"], 0, 2 / 3),  # of several the best, not the mean
    ("x", ["y", "z"], 0, 0),
]


@pytest.mark.parametrize(("prediction", "references", "exact", "f1"), HARD_CASES)
def test_hard_cases_score_as_the_definition_says(prediction, references, exact, f1):
    assert exact_match_score(prediction, references) == exact
    assert f1_score(prediction, references) == pytest.approx(f1)


def test_normalization_lowers_drops_punctuation_then_articles_then_spaces():
    assert normalize_answer("  The “A.” Team's an-the, (U.S.)\n") == "“ ” teams anthe us"


@given(st.text(max_size=30), st.lists(st.text(max_size=30), min_size=1, max_size=3))
def test_scores_are_shares_and_an_exact_match_has_full_f1_unless_it_is_empty(prediction, references):
    exact, f1 = exact_match_score(prediction, references), f1_score(prediction, references)
    assert exact in {0, 1}
    assert 0 <= f1 <= 1
    if exact and normalize_answer(prediction):
        assert f1 == 1


WORDS = st.lists(
    st.sampled_from(["a", "an", "the", "to", "be", "or", "not", "Be.", "“x”", "U.S.", "1,000", "é"]), max_size=6
).map(" ".join)


@given(WORDS, WORDS)
def test_f1_is_symmetric_and_more_references_never_lower_a_score(one, other):
    assert f1_score(one, [other]) == pytest.approx(f1_score(other, [one]))
    assert f1_score(one, [other, "be not"]) >= f1_score(one, [other])
    assert exact_match_score(one, [other, one]) == 1


# by character

# prediction, references, EM, F1
CHARACTER_CASES = [
    ("全长八十七米", ["八十七米"], 0, 2 * (4 / 6) * 1 / (4 / 6 + 1)),
    ("本地石匠。", ["本地石匠"], 1, 1),  # all punctuation goes
    ("《本地》石匠", ["本地 石匠"], 1, 1),  # white space parts no characters
    ("一九三二", ["一九三二年"], 0, 8 / 9),
    ("在1932年", ["1932年"], 0, 4 / 5),  # a number is one unit, as a Latin word
    ("iPhone手机", ["iphone 手机"], 1, 1),
    ("ひらがな", ["かな"], 0, 0.5 * 2 * (1 / 4) * (1 / 2) / ((1 / 4 + 1 / 2) / 2)),
    ("the 中", ["中"], 0, 2 / 3),  # no article is dropped
    ("ที่", ["ท"], 0, 0),  # a vowel sign and a tone mark belong to their letter
    ("ที่นี่", ["ที่นี่", "x"], 1, 1),
    ("김 철수", ["김철수"], 1, 1),
    ("", ["中"], 0, 0),
    ("。", ["中"], 0, 0),
]


@pytest.mark.parametrize(("prediction", "references", "exact", "f1"), CHARACTER_CASES)
def test_by_character_as_mlqa_counts_chinese(prediction, references, exact, f1):
    assert exact_match_score(prediction, references, "character") == exact
    assert f1_score(prediction, references, "character") == pytest.approx(f1)


def mlqa_units(text):
    """As MLQA's official script has it for Chinese: punctuation goes, Han characters are alone."""
    text = "".join(c for c in text.lower() if c not in string.punctuation and unicodedata.category(c)[0] != "P")
    return re.findall(r"[\u4e00-\u9fa5]|[^\s\u4e00-\u9fa5]+", text)


@given(st.text(st.sampled_from("八十七米ab1 9，。,-é《》\t"), max_size=12))
def test_units_of_chinese_equal_the_definition_of_mlqa(text):
    assert normalize_answer(text, "character").split() == mlqa_units(text)


@pytest.mark.parametrize(
    ("references", "unit"),
    [
        (["八十七米", "1932"], "character"), (["1932年"], "character"), (["สีแดง"], "character"), (["ໜຶ່ງ"], "character"),
        (["ひらがな"], "character"), (["សៀវភៅ"], "character"), (["မြန်မာ"], "character"), (["김철수", "서울"], "word"),
        (["Paris", "the Louvre 中"], "word"), (["नदी के"], "word"), (["1932"], "word"), ([], "word"),
    ],
)  # fmt: skip
def test_auto_goes_by_the_scripts_of_most_references(references, unit):
    assert choose_f1_unit([item("1", *references)]) == unit
    assert choose_f1_unit([item("1", *references)], "word") == "word"
    with pytest.raises(ValueError, match="auto, word, character"):
        choose_f1_unit([], "letters")


def test_four_near_perfect_chinese_answers_score():
    pairs = [
        ("全长八十七米", "八十七米"),
        ("一九三二", "一九三二年"),
        ("每天早晨六点", "早晨六点"),
        ("本地石匠。", "本地石匠"),
    ]
    examples = [item(str(i), gold) for i, (_, gold) in enumerate(pairs)]
    predictions = {str(i): given for i, (given, _) in enumerate(pairs)}
    assert compute_metrics(predictions, examples) == pytest.approx(
        {"exact_match": 25, "f1": 100 * (0.8 + 8 / 9 + 0.8 + 1) / 4, "total": 4}
    )
    assert exact_matches(predictions, examples) == [False, False, False, True]
    assert compute_metrics(predictions, examples, "word")["f1"] == 0
    examples.append({"id": "4", "answers": {"text": [], "answer_start": []}})  # the groups are counted the same
    assert compute_metrics(predictions, examples)["HasAns_f1"] == pytest.approx(100 * (0.8 + 8 / 9 + 0.8 + 1) / 4)


def test_english_scores_are_what_they_were_to_the_last_digit(dev_examples):
    """Real answers, some cut or taken from elsewhere, scored once more by the official definition, written out."""

    def official(prediction, references):
        def words(text):
            text = "".join(char for char in text.lower() if char not in string.punctuation)
            return re.sub(r"\b(a|an|the)\b", " ", text).split()

        def f1(one, other):
            same = sum((Counter(one) & Counter(other)).values())
            precision, recall = (same / len(one), same / len(other)) if same else (0, 0)
            return 2 * precision * recall / (precision + recall) if same else 0.0

        given = words(prediction)
        golds = [words(reference) for reference in references]
        return float(given in golds), max(f1(given, gold) for gold in golds)

    draw, predictions = random.Random(0), {}
    for asked in dev_examples:
        start, text = asked["answers"]["answer_start"][0], asked["answers"]["text"][0]
        left, right = draw.choice([0, 0, 3, -6]), draw.choice([0, 0, -4, 9])
        predictions[asked["id"]] = asked["context"][max(0, start + left) : start + len(text) + right]
    scores = [official(predictions[asked["id"]], asked["answers"]["text"]) for asked in dev_examples]
    assert choose_f1_unit(dev_examples) == "word"
    assert compute_metrics(predictions, dev_examples) == {
        "exact_match": 100.0 * sum(exact for exact, _ in scores) / len(scores),
        "f1": 100.0 * sum(f1 for _, f1 in scores) / len(scores),
        "total": len(dev_examples),
    }


# against other implementations


def torchmetrics_scores():
    squad = pytest.importorskip("torchmetrics.functional.text").squad

    def scores(prediction, references):
        answers = {"text": references, "answer_start": [0] * len(references)}
        found = squad({"prediction_text": prediction, "id": "1"}, {"answers": answers, "id": "1"})
        return float(found["exact_match"]), float(found["f1"])

    return scores


def transformers_scores():
    """Left transformers with version 5."""
    squad = pytest.importorskip("transformers.data.metrics.squad_metrics")

    def scores(prediction, references):
        exact = max(squad.compute_exact(reference, prediction) for reference in references)
        return 100 * exact, 100 * max(squad.compute_f1(reference, prediction) for reference in references)

    return scores


PEERS = pytest.mark.parametrize("peer", [torchmetrics_scores, transformers_scores])


def assert_equal_to(peer, prediction, references):
    """Where nothing is left of prediction or reference, they follow SQuAD 2, where no answer can be right: F1 = EM."""
    exact, f1 = peer(prediction, references)
    assert 100 * exact_match_score(prediction, references) == exact, (prediction, references)
    if all(normalize_answer(text) for text in (prediction, *references)):
        assert 100 * f1_score(prediction, references) == pytest.approx(f1, abs=1e-4), (prediction, references)


@PEERS
def test_scores_of_the_hard_cases_equal_another_implementation(peer):
    peer = peer()
    for prediction, references, *_ in HARD_CASES:
        assert_equal_to(peer, prediction, references)


@PEERS
def test_scores_of_real_answers_equal_another_implementation(peer, dev_examples):
    """Of each question: its own other reference, a mutated answer, a longer piece of the context, another's answer."""
    peer, draw = peer(), random.Random(0)
    for example_ in draw.sample(dev_examples, 400):
        references, starts = example_["answers"]["text"], example_["answers"]["answer_start"]
        text, start = references[0], starts[0]
        words = text.split()
        begin, end = max(0, start - draw.randint(0, 15)), start + len(text) + draw.randint(0, 15)
        predictions = [
            references[-1],
            example_["context"][begin:end],
            draw.choice(dev_examples)["answers"]["text"][0],
            " ".join(draw.sample(words, len(words) - 1)),
            draw.choice(["the {}", "{}.", "“{}”", "({})", "{} {}", "a{}", "an {} of"]).format(text, words[0]).upper(),
        ]
        others = references[:-1] or references
        for prediction in predictions:
            assert_equal_to(peer, prediction, others)


@PEERS
def test_scores_of_any_text_equal_another_implementation(peer):
    peer = peer()
    text = st.text(max_size=20) | WORDS

    @given(text, st.lists(text, min_size=1, max_size=3))
    @example("\x1c a", ["\x85"])
    def check(prediction, references):
        assert_equal_to(peer, prediction, references)

    check()


# over a set of questions


@settings(max_examples=20)
@given(st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_totals_are_the_percentages_over_all_questions(pairs):
    examples = [item(f"{i}", *references) for i, (_, references) in enumerate(pairs)]
    predictions = {f"{i}": prediction for i, (prediction, _) in enumerate(pairs)}
    scores = compute_metrics(predictions, examples)
    assert scores["total"] == len(pairs)
    assert scores["exact_match"] == pytest.approx(100 * sum(exact_match_score(*pair) for pair in pairs) / len(pairs))
    assert scores["f1"] == pytest.approx(100 * sum(f1_score(*pair) for pair in pairs) / len(pairs))


def test_a_question_without_prediction_counts_as_wrong():
    examples = [item("1", "Paris"), item("2", "Rome"), item("3", "Bonn"), item("4", "Oslo")]
    assert compute_metrics({"1": "Paris", "2": "in Rome"}, examples) == pytest.approx(
        {"exact_match": 25, "f1": 100 * (1 + 2 / 3) / 4, "total": 4}
    )
    assert compute_metrics({}, examples) == {"exact_match": 0, "f1": 0, "total": 4}


def test_an_empty_prediction_is_wrong_but_no_error():
    assert compute_metrics({"1": ""}, [item("1", "Paris", "Bonn")]) == {"exact_match": 0, "f1": 0, "total": 1}


def test_predictions_for_other_questions_change_nothing():
    assert compute_metrics({"1": "Paris", "9": "x"}, [item("1", "Paris")])["exact_match"] == 100


def test_no_question_is_no_error():
    assert compute_metrics({}, []) == {"exact_match": 0, "f1": 0, "total": 0}


@settings(max_examples=20)
@given(st.text(max_size=20))
def test_any_prediction_that_can_be_written_can_be_scored(text):
    assert compute_metrics({"1": text}, [item("1", text)])["exact_match"] == 100


# the library and our script of the same name

CHECK = """
import importlib.util, pathlib, socket, sys, tempfile

def refuse(*_):
    raise AssertionError("the network was used")

socket.socket.connect = socket.getaddrinfo = refuse
root = pathlib.Path.cwd()
assert pathlib.Path(importlib.util.find_spec("evaluate").origin) == root / "evaluate.py", "our script is not first"
path = list(sys.path)

from extractive_qa.metrics import compute_metrics
examples = [{"id": "1", "answers": {"text": ["Paris"], "answer_start": [0]}}]
assert compute_metrics({"1": "in Paris"}, examples)["f1"] > 66
library = pathlib.Path(sys.modules["evaluate"].__file__)
assert library.parent.name == "evaluate" and library.parent.parent != root, library
assert sys.path == path, "sys.path was not put back"
print("scored")
"""


@pytest.fixture
def clean_environment(tmp_path):
    """A home and a temporary folder with nothing in them, offline as the scripts are."""
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    home, temporary = str(tmp_path / "home"), str(tmp_path / "tmp")
    ours = {"HOME": home, "USERPROFILE": home, "HF_HOME": str(tmp_path / "home" / "hf")}
    ours |= {"TMPDIR": temporary, "TEMP": temporary, "TMP": temporary, "PYTHONDONTWRITEBYTECODE": "1"}
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("HF_", "XDG_", "PYTHONPATH"))}
    return kept | SWITCHES | ours


def test_from_the_project_root_the_library_scores_though_our_script_has_its_name(clean_environment, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        check=False,
        cwd=PROJECT_ROOT,
        env=clean_environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "scored\n", done.stderr
    left = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert left == [], "files were left behind"


def test_scoring_leaves_the_temporary_folder_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    compute_metrics({"1": "Paris"}, [item("1", "Paris")])
    assert list(tmp_path.iterdir()) == []
