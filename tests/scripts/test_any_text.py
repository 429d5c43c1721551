"""Reader and any text whatever: every letter of Unicode, lone surrogates, lengths from nothing to 5 MB.

Never an exception, always `context[start:end] == text`, a probability in [0, 1], and what a window scores does not
depend on the windows beside it.
"""

import itertools
import json
import math
import os
import re
from collections import defaultdict

import numpy as np
import pytest
from conftest import TEXTS
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scripts import load_script, run_script

from extractive_qa.data.examples import read_examples
from extractive_qa.model.backends import open_backend
from extractive_qa.preprocessing.windows import prepare_validation_features
from extractive_qa.reader import Reader
from extractive_qa.text import replace_surrogates
from utils.offline import SAMPLE_MODEL_DIR

QUESTIONS_A_CASE = 8
NARROW = {"max_length": 64, "doc_stride": 16}  # so that short texts have several windows
TOLERANCE = 1e-4  # of logits in fp32

PIECES = [
    *" ".join(TEXTS).split(),
    *(
        "[CLS]",
        "[SEP]",
        "[PAD]",
        "[UNK]",
        "##ing",
        "\ud800",
        "\udfff\ud83d",
        "\ufffd",
        "\ufeff",
        "\uffff",
        "\U0010ffff",
    ),
    *("תל אביב", "وصلت إلى", "\u202eright\u202c", "\u2067x\u2069", "हिन्दी", "ไทยไม่มีช่องว่าง", "한국어", "东京塔", "カﾅ"),
    *("e\u0301", "\u0301", "Z\u0351\u036b\u0343\u036a" * 9, "ﬁ", "ß", "İ", "ǅ", "１２３", "²"),
    *("👩🏽‍🚀", "👨‍👩‍👧‍👦", "🇮🇸", "❤️", "\u200b", "\u200d", "\u2060", "\u00ad", "\u3000", "\u00a0", "\u2028"),
    *("\x00", "\x07", "\x1b[2J", "\x7f", "\x85", "\r\n", "\t", "...", "?!", "—“”", "'", '"', "\\", "</p>", "%s", "{}"),
    *("x" * 300, "12" * 80, "東" * 90, "a-b_c." * 40),
]
LETTERS = st.characters(exclude_categories=[])  # all of Unicode, surrogates and unassigned ones too
TEXT = st.one_of(
    st.text(LETTERS, max_size=30),
    st.builds(str.join, st.sampled_from([" ", "", "\n"]), st.lists(st.sampled_from(PIECES), max_size=8)),
    st.builds(lambda text, times: text * times, st.text(LETTERS, min_size=1, max_size=6), st.integers(1, 12)),
)
CASE = st.lists(st.tuples(TEXT, TEXT), min_size=QUESTIONS_A_CASE, max_size=QUESTIONS_A_CASE, unique=True)


class Witness:
    """A backend that remembers what it gave for each window."""

    def __init__(self, backend):
        self.backend, self.batch_size, self.precision = backend, backend.batch_size, backend.precision
        self.config = backend.config
        self.seen: dict[bytes, list[np.ndarray]] = defaultdict(list)  # (2, tokens) of each window

    def logits(self, batch):
        logits = self.backend.logits(batch)
        for row, size in enumerate(batch["attention_mask"].sum(axis=1)):
            self.seen[batch["input_ids"][row, :size].tobytes()].append(logits[:, row, :size])
        return logits


@pytest.fixture(scope="module", params=["tiny MobileBERT", pytest.param("sample", marks=pytest.mark.slow)])
def reader(request) -> Reader:
    folder = SAMPLE_MODEL_DIR if request.param == "sample" else request.getfixturevalue("tiny_model")
    backend = Witness(open_backend(folder, "torch", "cpu", "no"))
    return Reader(folder, "cpu", "no", backend=backend, settings=NARROW)


@pytest.fixture(scope="module")
def tiny_reader(tiny_model) -> Reader:
    return Reader(tiny_model, "cpu", "no", batch_size=8)


def assert_answers_hold(answers: list[dict], context: str) -> None:
    """What is promised of the answers to any question."""
    probabilities = [answer["probability"] for answer in answers]
    assert answers
    assert all(0 <= probability <= 1 and math.isfinite(probability) for probability in probabilities)
    assert sum(probabilities) <= 1 + 1e-9
    assert probabilities == sorted(probabilities, reverse=True)
    for answer in answers:
        assert context[answer["start"] : answer["end"]] == answer["text"]
        assert 0 <= answer["start"] <= answer["end"] <= len(context)
        assert answer["text"] or (len(answers) == 1 and answer["probability"] == 0)
    spans = sorted((answer["start"], answer["end"]) for answer in answers)
    assert all(end <= next_start for (_, end), (next_start, _) in itertools.pairwise(spans))


def score(reader: Reader, example: dict, answer: dict) -> float:
    """The best score of the answer's span in any window, by definition."""
    features = prepare_validation_features([example], reader.tokenizer, **NARROW)
    best = -math.inf
    for number, row in enumerate(features):
        _, starts, ends = (part[0] for part in reader.logits(features, [number]))
        inside = range(row["context_start"], row["context_end"])
        pairs = ((i, j) for i in inside for j in inside if i <= j)
        for i, j in pairs:
            if (row["offsets"][i, 0], row["offsets"][j, 1]) == (answer["start"], answer["end"]):
                best = max(best, starts[i] - starts[0] + ends[j] - ends[0])
    return best


def assert_same_answer(reader: Reader, example: dict, alone: dict, together: dict) -> None:
    """The same span, or one whose score differs by no more than rounding does: two logits, each relative to [CLS]."""
    assert abs(alone["probability"] - together["probability"]) <= 8 * TOLERANCE
    if (alone["start"], alone["end"]) != (together["start"], together["end"]):
        assert abs(score(reader, example, alone) - score(reader, example, together)) <= 8 * TOLERANCE


def ask_anything(reader: Reader, cases: int) -> int:
    """Asks about so many cases of any texts, alone and together in another order, and returns the number of different
    questions that were answered as promised."""
    asked = set()

    # no shrinking: it would ask a failing case again for minutes
    @settings(max_examples=cases, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(CASE, st.permutations(range(QUESTIONS_A_CASE)), st.integers(1, 12))
    def answers_hold(texts, order, batch_size):
        examples = [{"question": question, "context": context} for question, context in texts]
        reader.backend.seen.clear()
        alone = [reader.answer(question, context, top_k=3) for question, context in texts]
        reader.batch_size = batch_size
        together = reader.answer_all([examples[i] for i in order], top_k=3)
        for i, answers in zip(order, together, strict=True):
            assert_answers_hold(answers, examples[i]["context"])
            assert_answers_hold(alone[i], examples[i]["context"])
            assert_same_answer(reader, examples[i], alone[i][0], answers[0])
        for logits in reader.backend.seen.values():
            assert len(logits) >= 2
            assert np.ptp(logits, axis=0).max() <= TOLERANCE
        asked.update(texts)

    answers_hold()
    return len(asked)


@pytest.mark.fault("any Unicode as question and context")
def test_any_question_about_any_text_is_answered(reader, record_property):
    tried = ask_anything(reader, cases=30)
    record_property("tried", tried)
    assert tried >= 200


@pytest.mark.slow
@pytest.mark.fault("any Unicode as question and context")
def test_ten_thousand_questions_about_any_text_are_answered(reader, record_property):
    tried = ask_anything(reader, cases=1400)
    record_property("tried", tried)
    assert tried >= 10_000


# what is no text, and how many answers

WRONG = [None, b"Who?", 7, 1.5, ["Who?"], {"text": "Who?"}, float("nan")]


@pytest.mark.fault("no text as question or context")
@pytest.mark.parametrize("wrong", WRONG, ids=repr)
@pytest.mark.parametrize("name", ["question", "context"])
def test_what_is_no_text_is_a_type_error_that_says_so(name, wrong, tiny_reader):
    example = {"question": "Who?", "context": "It was Ada."} | {name: wrong}
    with pytest.raises(TypeError, match=rf"{name} is .*{type(wrong).__name__}.*expected str"):
        tiny_reader.answer(**example)
    with pytest.raises(TypeError, match=name):
        list(tiny_reader.answer_all([{"question": "Who?", "context": "It was Ada."}, example]))


@pytest.mark.parametrize("top_k", [0, -1])
def test_no_answer_can_not_be_asked_for(top_k, tiny_reader):
    with pytest.raises(ValueError, match="expected at least 1"):
        tiny_reader.answer("Who?", "It was Ada.", top_k)


def test_more_answers_than_there_are_spans_are_all_that_there_are(tiny_reader):
    text = " ".join(f"{number} was Ada." for number in range(400))  # equal texts are one answer
    answers = tiny_reader.answer("Who?", text, top_k=10**7)
    assert_answers_hold(answers, text)
    assert len(answers) > 100


# lengths


def test_no_question_has_no_answer(tiny_reader):
    assert list(tiny_reader.answer_all([])) == []


LONGEST = {
    "a question of 10,000 words": ("why did she " * 3334, "Ada sailed to Ærø. " * 50),
    "a question of one word of a million letters": ("why" * 333_333, "Ada sailed to Ærø. " * 50),
    "a question and a context of 10,000 words": ("why did she " * 3334, "Ada sailed to Ærø. " * 2500),
    "a context of one word of a million letters": ("Who?", "Æda" * 333_333),
    "a context of 20,000 letters that are a word each": ("Who?", "东京" * 10_000),
    "a context of a million blanks": ("Who?", " " * 10**6),
    "a context of a million combining marks": ("Who?", "e" + "\u0301" * 10**6),
    "a word after a million zero-width spaces": ("Who?", "\u200b" * 10**6 + "Ada"),
    "nothing asked about nothing": ("", ""),
    "nothing asked": ("", "Ada sailed to Ærø."),
    "something asked about nothing": ("Who?", ""),
}


@pytest.mark.fault("extreme length")
@pytest.mark.parametrize("case", LONGEST)
def test_any_length_is_answered(case, tiny_reader):
    question, context = LONGEST[case]
    assert_answers_hold(tiny_reader.answer(question, context, top_k=3), context)


FIVE_MEGABYTES = {  # repeated to 5 MB
    "words": "The ship sailed on, and Ada counted 1,204 whales. ",
    "one word": "x",
    "Chinese": "北京是首都，東京塔高。",
    "emoji": "👩🏽‍🚀 🇮🇸 ",
    "punctuation, of which every letter is a token": "?!. ",
    "combining marks": "e\u0301\u0323",
}


@pytest.mark.slow
@pytest.mark.fault("extreme length")
@pytest.mark.parametrize("case", FIVE_MEGABYTES)
def test_a_context_of_5_megabytes_is_read_in_bounded_memory(case, tiny_model, tmp_path):
    text = FIVE_MEGABYTES[case]
    context = text * (5_000_000 // len(text.encode())) + " Ada."
    question = {"id": "q", "question": "Who?", "context": context, "answer": "Ada", "answer_start": len(context) - 4}
    (tmp_path / "questions.json").write_text(json.dumps([question]), encoding="utf-8")
    done = run_script("evaluate.py", "--model_dir", tiny_model, "--eval_file", tmp_path / "questions.json",
                      "--output_dir", tmp_path, "--mixed_precision", "no")  # fmt: skip
    (answers,) = json.loads((tmp_path / "nbest_predictions.json").read_text(encoding="utf-8")).values()
    assert_answers_hold(answers, context)
    megabytes = int(re.search(r"peak memory ([\d,]+) MB", done.stdout)[1].replace(",", ""))
    assert megabytes < 4096, f"{case}: {megabytes} MB"


# the scripts


@pytest.mark.fault("any Unicode as question and context")
def test_evaluate_answers_questions_about_any_text(tiny_model, tmp_path, capsys):
    questions = [
        {"id": f"{i}", "question": f"{piece}?a", "context": f"{piece} Ada {piece * 3}", "answer": "Ada",
         "answer_start": len(piece) + 1}
        for i, piece in enumerate(dict.fromkeys(PIECES))
    ]  # fmt: skip
    (tmp_path / "questions.json").write_text(json.dumps(questions), encoding="utf-8")
    load_script("evaluate.py").main(
        ["--model_dir", str(tiny_model), "--eval_file", str(tmp_path / "questions.json"), "--device", "cpu",
         "--output_dir", str(tmp_path), "--show_examples", str(len(questions))]
    )  # fmt: skip
    nbest = json.loads((tmp_path / "nbest_predictions.json").read_text(encoding="utf-8"))
    for example in read_examples(tmp_path / "questions.json"):
        assert_answers_hold(nbest[example["id"]], example["context"])
    assert "\x1b" not in capsys.readouterr().out, "a text can't give orders to the terminal"


@pytest.mark.fault("any Unicode as question and context")
def test_ask_answers_any_question_for_programs_and_for_people_in_any_console(tiny_model, tmp_path, capsys):
    context = "".join(PIECES).replace("\r", "")
    (tmp_path / "context.txt").write_text(replace_surrogates(context), encoding="utf-8", newline="")
    no_text = os.fsdecode(b"\xff\xe9") if os.name == "posix" else "\ufffd"  # an argument may be any bytes there
    arguments = ["ask", "--question", f"🙂 \u202eמה\u0301\x07 谁{no_text}?",
                 "--context_file", str(tmp_path / "context.txt"), "--top_k", "20"]  # fmt: skip
    load_script("predict.py").main([*arguments, "--model_dir", str(tiny_model), "--json"])
    assert_answers_hold(json.loads(capsys.readouterr().out)["answers"], replace_surrogates(context))
    for_people = run_script("predict.py", *arguments, PYTHONIOENCODING="gbk").stdout
    assert "confidence: " in for_people
    assert "\x1b" not in for_people


@pytest.mark.fault("any Unicode as question and context")
def test_interactive_takes_bytes_that_are_no_text(tiny_model, tmp_path):
    text = b"\xff\xfe Ada \x1b[2J sailed \xf0\x9f\n\x00\n\n"
    typed = text + b"Who \xe9\x00?\n:file a\x00b\n:file \n:file " + os.fsencode(tmp_path) + b"\n\xed\xa0\x80?\n"
    done = run_script("predict.py", "--model_dir", tiny_model, stdin=typed)
    assert done.stdout.count("prediction: ") == 2
    assert done.stderr.count("can't be read") == 2
    assert "Expected a path" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
