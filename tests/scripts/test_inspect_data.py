"""tools/inspect_data.py: what it says about hand-made files whose numbers are known, and what it shows."""

import csv
import json
import re
import sys

import pytest
from scripts import load_script, run_script

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.preprocessing.windows import prepare_train_features
from utils.console import in_flags
from utils.offline import SAMPLE_DATA_DIR, SAMPLE_MODEL_DIR

TOOL = "tools/inspect_data.py"
# every number is one token of BERT's uncased vocabulary
CONTEXT = " ".join(str(number) for number in range(10, 50))  # 40 tokens
SMALL = ("--max_length", 32, "--doc_stride", 8, "--max_answer_length", 10)


def record(identifier: str, answer: str, question: str = "what comes after 11 ?", context: str = CONTEXT) -> dict:
    start = context.index(answer)
    return {"id": identifier, "question": question, "context": context, "answer": answer, "answer_start": start}


def write(path, *records) -> str:
    path.write_text(json.dumps(records), encoding="utf-8")
    return str(path)


@pytest.fixture
def look(capsys):
    """Runs the tool in this process and returns what it prints."""
    tool = load_script(TOOL)

    def look(*args: object) -> str:
        tool.main([str(arg) for arg in args])
        return capsys.readouterr().out

    return look


@pytest.fixture(scope="module")
def known(tmp_path_factory, real_tokenizer_dir):
    """What is said about seven questions on two contexts, in windows of 32 tokens that overlap by 8."""
    path = write(
        tmp_path_factory.mktemp("known") / "known.json",
        record("plain", "12 13"),
        record("long", CONTEXT[3 * 5 : 3 * 31 - 1], "what comes after 14 ?"),  # 26 tokens, a window holds 24
        record("differs", "13 14", "What  comes after 11 ?"),  # asks what "plain" asks
        record("inside", "2", "what ends after 11 ?"),  # of the token 12
        record("fits", "40", "40 " * 19),  # 32 - 3 - 8 - 2 tokens are kept
        record("cut", "40", "40 " * 20),
        record("short", "blue", "which colour ?", "the sky is blue"),
    )
    return run_script(TOOL, path, "--model_dir", real_tokenizer_dir, *SMALL, "--show", 2).stdout


def test_counts_lengths_and_windows_are_the_known_ones(known):
    assert "7 questions on 2 contexts (3.5 each), 7 answers" in known
    # a question of 5 tokens leaves 24 for the context: 2 windows of 40, 16 apart. One of 19: 10, 2 apart, 16 windows
    assert "41 windows; 6 (85.7%) questions need more than one" in known
    assert "first words of questions: what 57%, 40 29%, which 14%" in known
    for title in ("questions in tokens (median 5, longest 20)", "contexts in tokens (median 22, longest 40)",
                  "answers in tokens (median 1, longest 26)"):  # fmt: skip
        assert title in known
    bars = re.findall(r"^ +([\d ,to]+) \|(#*) (\d+)$", known, re.MULTILINE)
    # questions: 3, 4 times 5, 19, 20 tokens; contexts: 4 and 40; answers: 4 times 1, twice 2, 26
    assert [(steps, len(bar), int(count)) for steps, bar, count in bars if int(count)] == [
        ("0 to 4", 10, 1), ("5 to 9", 40, 4), ("15 to 19", 10, 1), ("20 to 24", 10, 1),
        ("0 to 9", 40, 1), ("40 to 49", 40, 1),
        ("0 to 4", 40, 6), ("25 to 29", 7, 1),
    ]  # fmt: skip


def test_an_answer_is_as_long_as_the_tokens_that_are_labelled(look, real_tokenizer_dir, tmp_path):
    """By itself "ose" is two tokens; in "hoses" it is labelled by one, "hose"."""
    path = write(tmp_path / "a.json", record("a", "ose", "what ?", "the hoses are blue"))
    said = look(path, "--model_dir", real_tokenizer_dir, "--show", 0)
    assert "answers in tokens (median 1, longest 1)" in said


def test_what_a_model_cannot_learn_is_named_with_its_ids_and_what_to_do(known):
    said = dict(re.findall(r"^- .*known\.json: (.+?) \((id [^)]+)\)\. [A-Z].+\.$", known, re.MULTILINE))
    assert said == {
        "1 question(s) occur more than once with different answers, on the same context": "id plain = differs",
        "1 (14.3%) questions are labelled in no window: no window holds their whole answer": "id long",
        "1 (14.3%) answers begin or end inside a token, so no span of tokens is the answer to the letter": "id inside",
        "1 (14.3%) answers are longer than 10 tokens and can't be found when answering": "id long",
        "1 (14.3%) questions are longer than what fits a window, and are cut": "id cut",
    }
    assert "5 thing(s) to look at" in known


def test_the_labelled_span_is_marked_in_every_window_that_holds_it(known):
    shown = known[known.index("\nid plain:") :]
    assert "answer: 12 13 (characters 6 to 11 of 119)" in shown
    first = "window 1 of 2, 32 tokens, answer: tokens 9 to 10\n  [CLS] what comes after 11 ? [SEP] 10 11 >>12 13<< 14 "
    assert first in shown
    assert "window 2 of 2, 32 tokens, the whole answer is not in it, label: [CLS]" in shown
    assert "id long" in shown
    assert "id differs" not in shown[: shown.index("thing(s) to look at")]  # --show 2


def test_what_is_shown_of_the_sample_are_the_windows_that_are_trained_on(look, real_tokenizer_dir, real_tokenizer):
    """Window for window: tokens, and the marked ones are those at the labelled positions."""
    path = SAMPLE_DATA_DIR / "dev.json"
    shown = look(path, "--model_dir", real_tokenizer_dir, "--max_length", 96, "--doc_stride", 32, "--show", 20)
    features = prepare_train_features(read_examples(path), real_tokenizer, 96, 32)
    windows = re.findall(r"^window .*\n  (.*)$", shown, re.MULTILINE)
    expected = [features[i] for i in range(int((features.example_index < 20).sum()))]
    assert len(windows) == len(expected) > 20
    for line, window in zip(windows, expected, strict=True):
        tokens = [real_tokenizer.id_to_token(token) for token in window["input_ids"].tolist()]
        assert line.replace(">>", "").replace("<<", "") == " ".join(tokens)
        marked = re.findall(r">>(.*)<<", line)
        start, end = window["start_position"], window["end_position"]
        assert marked == ([" ".join(tokens[start : end + 1])] if start else [])


def test_the_span_is_in_colour_in_a_terminal_and_in_brackets_without_colours(look, tmp_path, monkeypatch):
    path = write(tmp_path / "a.json", record("plain", "12 13"))
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda stream: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "")
    coloured = look(path, "--model_dir", SAMPLE_MODEL_DIR)
    assert "11 \x1b[32m12 13\x1b[0m 14" in coloured
    assert ">>" not in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    plain = look(path, "--model_dir", SAMPLE_MODEL_DIR)
    assert "11 >>12 13<< 14" in plain
    assert "\x1b" not in plain


def test_a_good_file_of_a_spreadsheet_has_nothing_to_fix(look, real_tokenizer_dir, tmp_path):
    path = tmp_path / "mine.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerow(["question", "context", "answer"])
        rows.writerow(["Where is it?", 'It is; as they say, "here".', "here"])
    said = look(path, "--model_dir", real_tokenizer_dir)
    assert "1 questions on 1 contexts" in said
    assert "nothing to fix" in said
    assert ">>here<<" in said


def test_a_text_that_the_tokenizer_does_not_know_is_something_to_look_at(look, tmp_path):
    """Of such a file "nothing to fix" was said, and every question was a question word of its own."""
    context = "青石桥建于一九三二年，全长八十七米，由本地石匠修建。南岸的茶馆每天早晨六点开门。"
    path = write(
        tmp_path / "zh.json", record("a", "八十七米", "青石桥有多长？", context), record("b", "茶馆", "青石？", context)
    )
    said = look(path, "--model_dir", SAMPLE_MODEL_DIR, "--show", 0)
    for words in (
        "1 thing(s) to look at",
        "% of the text's characters",
        "1 answer(s) are nothing but [UNK]",
        "card says en",
    ):
        assert words in said
    assert "first characters of questions: 青石 100%" in said


def test_white_space_at_an_answers_ends_is_not_inside_a_token(look, real_tokenizer_dir, tmp_path):
    path = write(tmp_path / "a.json", record("a", " four minutes", "how long ?", "it boils in four minutes ."))
    assert "nothing to fix" in look(path, "--model_dir", real_tokenizer_dir, "--show", 0)


def test_contexts_that_are_in_both_files_are_a_leak(look, real_tokenizer_dir, tmp_path):
    train = write(tmp_path / "train.json", record("a", "12"), record("b", "blue", context="The sky is blue."))
    leaking = write(
        tmp_path / "leaking.json", record("c", "13", "which one ?"), record("d", "grey", context="the sea is grey"),
        record("e", "blue", context="the sky \n is blue."), record("f", "red", context="a rose is red"),
    )  # fmt: skip
    sound = write(tmp_path / "sound.json", record("d", "grey", context="the sea is grey"))
    said = look(train, "--eval_file", leaking, "--model_dir", real_tokenizer_dir, "--show", 0)
    assert (
        "2 (50.0%) questions of the second file are asked of 2 context(s) that the first file holds too (id c, e)"
        in said
    )
    assert "split by context" in said
    said = look("--train_file", train, "--eval_file", sound, "--model_dir", real_tokenizer_dir)
    assert "nothing to fix" in said


@pytest.mark.fault("damaged input")
def test_every_problem_of_every_record_is_reported(look, tmp_path, real_tokenizer_dir):
    bad = [record(str(n), "12") | {"answer": "99", "answer_start": 0} for n in range(30)]
    path = write(tmp_path / "bad.json", *bad, record("good", "12"))
    with pytest.raises(QAError, match=r"(?s)30 problem\(s\).*record 30 \(id 29\).*not in the context") as error:
        look(path, "--model_dir", real_tokenizer_dir)
    assert str(error.value).count("'99' at 0") == 30
    # the scripts list a few of each kind, and say where the others are
    with pytest.raises(QAError) as error:
        read_examples(path)
    message = in_flags(str(error.value))
    assert f"and 27 more, all of them: python tools/inspect_data.py {path}\n" in message
    assert "--skip_bad_examples" in message
    assert message.count("'99' at 0") == 3
    assert "1 questions on 1 contexts" in look(path, "--model_dir", real_tokenizer_dir, "--skip_bad_examples")


def test_the_repaired_set_is_written_as_squad_json_and_nothing_is_overwritten(look, tmp_path, real_tokenizer_dir):
    questions = [
        record("a", "12") | {"answer_start": 1},
        record("b", "12", context="No 12."),
        record("c", "12") | {"answer": "99"},
    ]
    path, fixed = write(tmp_path / "mine.json", *questions), tmp_path / "fixed.json"
    with pytest.raises(QAError, match="'99'"):
        look(path, "--model_dir", real_tokenizer_dir, "--write_fixed", fixed)
    assert not fixed.exists()
    said = look(path, "--model_dir", real_tokenizer_dir, "--write_fixed", fixed, "--skip_bad_examples")
    assert "wrote 2 questions" in said
    assert read_examples(fixed, strict=True) == read_examples(path, skip_bad=True)
    assert json.loads(fixed.read_text(encoding="utf-8"))["data"][0]["paragraphs"][0]["qas"][0]["id"] == "a"
    with pytest.raises(QAError, match="is there already"):
        look(path, "--write_fixed", fixed)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), ("no file is named", "--help")),
        (("a.json", "--train_file", "a.json"), ("give one of them",)),
        (("a.json", "--show", -1, "--max_length", 3), ("--show is -1", "max_length", "3 is too short")),
        (("a.json", "--max_answer_length", 0), ("--max_answer_length is 0",)),
        (("missing.json",), ("missing.json is missing",)),
        ((SAMPLE_DATA_DIR / "dev.json", "--model_dir", SAMPLE_DATA_DIR), ("tokenizer.json is missing", "--model_dir")),
    ],
)
def test_wrong_calls_are_refused_in_words(look, args, words):
    with pytest.raises(QAError) as error:
        look(*args)
    for word in words:
        assert word in str(error.value)
