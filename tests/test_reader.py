"""Reader: what is promised to a program that asks."""

import itertools
import json
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from extractive_qa.errors import QAError
from extractive_qa.postprocessing.answers import SPANS_KEPT, apply_minimum_confidence
from extractive_qa.postprocessing.tidy import says_nothing
from extractive_qa.preprocessing.windows import prepare_validation_features
from extractive_qa.progress import NoProgress
from extractive_qa.reader import QUESTIONS_AT_ONCE, Reader

TEXT = "Ada Müller wrote the reader in Zürich — 东京 and “Köln” 😀 followed in 1999, for 12 € (or 3.5 km). "
EXAMPLES = [{"question": "Who wrote it?", "context": TEXT * repeats} for repeats in (1, 2, 12, 1, 40, 3, 7, 1)] + [
    {"question": "In which " + "very " * n + "year?", "context": TEXT * 3} for n in (0, 5, 30)
]


@pytest.fixture(scope="module")
def reader(tiny_model) -> Reader:
    return Reader(tiny_model, device="cpu", mixed_precision="no", batch_size=4)


def test_answers_are_spans_of_the_context(reader):
    for example, answers in zip(EXAMPLES, reader.answer_all(EXAMPLES, top_k=5), strict=True):
        assert len(answers) == 5
        for answer in answers:
            assert answer["text"]
            assert example["context"][answer["start"] : answer["end"]] == answer["text"]
            assert 0 <= answer["probability"] <= 1
        assert sum(answer["probability"] for answer in answers) <= 1
        for one, other in itertools.combinations(answers, 2):
            assert one["end"] <= other["start"] or other["end"] <= one["start"]


@pytest.mark.parametrize("best", ["Ada", "."])
def test_no_answer_is_punctuation_where_there_are_others(tiny_model, best):
    reader = Reader(tiny_model, "cpu", "no")
    context = "Ada. Bob! Eve"
    wanted = [best, ".", "Bob", "!", "Eve"] if best == "Ada" else [best, "Ada", "!", "Bob", "Eve"]

    def logits(features, windows):
        (row,) = rows = [features[i] for i in windows]
        words = [context[start:end] for start, end in row["offsets"]]
        scores = [[20.0 - wanted.index(word) if word in wanted else -20.0 for word in words]]
        return rows, *np.array([scores, scores], dtype=np.float32)

    reader.logits = logits
    found = [answer["text"] for answer in reader.answer("Who?", context, top_k=3)]
    assert found == [name for name in wanted if name.isalpha()][:3]
    assert reader.answer("Who?", context)["text"] == "Ada"


@pytest.mark.parametrize(
    ("context", "token", "text"),
    [
        ("It was founded by Rene\u0301, the baker.", "Rene", "Rene\u0301"),  # the tokenizer drops the mark
        ("It was founded by René, the baker.", "René", "René"),
        ("we like \u2764\ufe0f most", "\u2764", "\u2764\ufe0f"),
    ],
)
def test_an_answer_ends_where_a_letter_with_its_marks_ends(tiny_model, context, token, text):
    """Gold "René" had been answered "Rene", F1 0."""
    reader = Reader(tiny_model, "cpu", "no")

    def logits(features, windows):
        (row,) = rows = [features[i] for i in windows]
        inside = np.array([context[start:end].startswith(token) for start, end in row["offsets"]])
        scores = [np.where(inside & (row["offsets"][:, 0] >= 0), 20.0, -20.0)]
        return rows, *np.array([scores, scores], dtype=np.float32)

    reader.logits = logits
    answer = reader.answer("Who?", context)
    assert answer["text"] == text == context[answer["start"] : answer["end"]]
    assert answer["start"] == context.index(token)


def test_an_answer_does_not_depend_on_its_batch(tiny_model, reader):
    together = list(reader.answer_all(EXAMPLES))
    alone = [reader.answer(**example) for example in EXAMPLES]
    backwards = list(reader.answer_all(EXAMPLES[::-1]))[::-1]
    in_large_batches = list(Reader(tiny_model, "cpu", "no", batch_size=64).answer_all(EXAMPLES))
    for answers in zip(together, backwards, in_large_batches, alone, strict=True):
        best = [answer if isinstance(answer, dict) else answer[0] for answer in answers]
        assert len({(answer["start"], answer["end"]) for answer in best}) == 1
        assert np.ptp([answer["probability"] for answer in best]) < 1e-4


def test_logits_of_a_window_do_not_depend_on_its_batch(reader):
    """MobileBERT sees its neighbour's padding: the padding rule makes that the same in every batch."""
    features = prepare_validation_features(EXAMPLES, reader.tokenizer, 384, 128)
    rows, start, end = reader.logits(features, range(len(features)))
    for i in range(len(features)):
        alone, start_alone, end_alone = reader.logits(features, [i])
        size = len(alone[0]["input_ids"])
        assert np.array_equal(rows[i]["input_ids"], alone[0]["input_ids"])
        np.testing.assert_allclose(start[i, :size], start_alone[0, :size], atol=1e-4)
        np.testing.assert_allclose(end[i, :size], end_alone[0, :size], atol=1e-4)


def test_logits_equal_those_of_plain_transformers_padded_to_max_length(tiny_model, reader):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model, local_files_only=True)
    model = AutoModelForQuestionAnswering.from_pretrained(tiny_model, local_files_only=True, dtype=torch.float32).eval()
    inputs = tokenizer(
        [example["question"] for example in EXAMPLES], [example["context"] for example in EXAMPLES],
        truncation="only_second", max_length=384, stride=128, return_overflowing_tokens=True,
        return_token_type_ids=True,
        padding="max_length", return_tensors="pt",
    )  # fmt: skip
    inputs.pop("overflow_to_sample_mapping")
    with torch.no_grad():
        expected = model(**inputs)
    features = prepare_validation_features(EXAMPLES, reader.tokenizer, 384, 128)
    rows, start, end = reader.logits(features, range(len(features)))
    assert len(rows) == len(expected.start_logits)
    for i, row in enumerate(rows):
        size = len(row["input_ids"])
        np.testing.assert_allclose(start[i, :size], expected.start_logits[i, :size], atol=1e-4)
        np.testing.assert_allclose(end[i, :size], expected.end_logits[i, :size], atol=1e-4)


def test_an_answer_is_found_wherever_it_stands_in_a_long_context(tiny_model, reader):
    """With a model that points at one token, every window that holds it must find it."""
    settings = {"max_length": 48, "doc_stride": 16}
    narrow = Reader(tiny_model, "cpu", "no", 8, settings=settings)
    # two words that the vocabulary has whole
    vocabulary = sorted(
        word for word in reader.tokenizer.get_vocab() if word.isascii() and word.isalpha() and len(word) > 2
    )
    word, filler = vocabulary[0], vocabulary[-1]
    target = reader.tokenizer.token_to_id(word)

    def point_at_target(features, windows):
        rows = [features[i] for i in windows]
        logits = np.zeros((len(rows), max(len(row["input_ids"]) for row in rows)), dtype=np.float32)
        for b, row in enumerate(rows):
            logits[b, : len(row["input_ids"])] = 20.0 * (row["input_ids"] == target)
        return rows, logits, logits

    narrow.logits = point_at_target
    for place in (0, 1, 30, 77, 150, 299):
        words = [filler] * 300
        words[place] = word
        context = " ".join(words)
        answer = narrow.answer("?", context)
        assert (answer["text"], answer["start"]) == (word, context.index(word))
        assert answer["probability"] > 0.9  # though two windows may see it


@pytest.mark.parametrize(
    ("question", "context"),
    [("Who?", ""), ("Who?", " \n\t"), ("", TEXT), ("\u200b", TEXT), ("Who?", "\u0000\u200b"), ("", "")],
)
def test_without_a_token_the_answer_is_empty_with_probability_0(reader, question, context):
    assert reader.answer(question, context) == {
        "text": "",
        "start": 0,
        "end": 0,
        "places": [],
        "probability": 0.0,
        "answerable": None,
    }


@pytest.mark.fault("any Unicode as question and context")
def test_lone_surrogates_are_read_and_offsets_kept(reader):
    context = "Ada\ud800 wrote \udfff it."
    answers = reader.answer("Who\udc00?", context, top_k=9)
    assert all(context[answer["start"] : answer["end"]] == answer["text"] for answer in answers)


@pytest.mark.fault("extreme length")
def test_a_question_longer_than_a_window_is_cut_with_a_warning(reader, caplog):
    answer = reader.answer("why " * 10_000, TEXT * 30)
    assert answer["text"]
    assert "question(s) are longer than" in caplog.text


def test_a_stream_is_read_in_pieces(reader):
    taken = []

    def stream():
        for number in itertools.count():
            taken.append(number)
            yield {"question": "Who?", "context": f"It was {number}."}

    answers = reader.answer_all(stream())
    for _ in range(3):
        next(answers)
    assert len(taken) == QUESTIONS_AT_ONCE


def test_a_bar_advances_with_the_windows_and_ends_with_the_questions(reader):
    class Bar(NoProgress):
        places: ClassVar[list[int]] = []

        def update(self, n=1):
            super().update(n)
            self.places.append(self.n)

    count = QUESTIONS_AT_ONCE + 90
    examples = [{"id": str(n), "question": "Who?", "context": TEXT * (n % 3 + 1)} for n in range(count)]
    examples.append({"id": "no token", "question": "", "context": TEXT})
    bar, answered = Bar(), []
    reader.predict(examples, each=lambda example, answers: answered.append(bar.n), bar=bar)
    assert bar.n == len(examples)
    assert bar.places == sorted(bar.places)
    steps = [after - before for before, after in itertools.pairwise(bar.places)]
    assert max(steps) < 2 * reader.batch_size
    batches = []
    list(reader.answer_all(examples[:40], each_batch=lambda *what: batches.append(what)))
    assert batches[0][0] == 0
    assert {(windows, questions) for _, windows, questions in batches} == {(batches[-1][0], 40)}


@pytest.mark.parametrize("name", ["deepset/roberta-base-squad2", "google/mobilebert-uncased"])
def test_a_name_on_the_hub_is_not_looked_up_and_how_to_get_it_is_said(name):
    with pytest.raises(QAError) as refused:
        Reader(name)
    for words in (f"{name} is missing", "not looked up", f"hf download {name} --local-dir models/{name.split('/')[1]}"):
        assert words in str(refused.value).replace("\\", "/")


@pytest.mark.parametrize("name", ["none", "output/final_model", "models/none", "a/b/c", "/a/b", "extractive_qa/none"])
def test_a_path_is_not_taken_for_a_name_on_the_hub(name):
    with pytest.raises(QAError, match="Fine-tune it first"):
        Reader(name)


def test_window_settings_come_from_the_folder(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    settings = {"max_length": 64, "doc_stride": 16, "max_answer_length": 2}
    (tmp_path / "model" / "reader.json").write_text(json.dumps(settings), encoding="utf-8")
    reader = Reader(tmp_path / "model", "cpu", "no")
    assert (reader.settings["max_length"], reader.settings["temperature"]) == (64, 1.0)
    answers = reader.answer("Who?", TEXT * 5, top_k=5)
    assert all(len(reader.tokenizer.encode(a["text"], add_special_tokens=False).ids) <= 2 for a in answers)


@pytest.mark.fault("damaged model folder")
@pytest.mark.parametrize(
    ("settings", "words"),
    [('{"doc_stride": 400}', "doc_stride=400"), ("{", "as JSON")],
)
def test_settings_that_can_not_work_are_refused(tiny_model, tmp_path, settings, words):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "reader.json").write_text(settings, encoding="utf-8")
    with pytest.raises(QAError, match=words):
        Reader(tmp_path / "model", "cpu", "no")


@pytest.mark.fault("NaN or infinity")
def test_finite_weights_that_give_infinity_are_named(tiny_model, tmp_path):
    model = AutoModelForQuestionAnswering.from_pretrained(tiny_model, local_files_only=True)
    with torch.no_grad():
        model.qa_outputs.weight.fill_(3e38)
    shutil.copytree(tiny_model, tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(QAError, match="gives NaN or infinity"):
        Reader(tmp_path / "model", "cpu", "no").answer("Who?", TEXT)


@pytest.mark.fault("damaged model folder")
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "garbage"])
def test_a_damaged_folder_is_refused_by_name(tiny_model, tmp_path, name, damage):
    folder: Path = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    path = folder / name
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(b"<html>503</html>")
    with pytest.raises(QAError, match=r"model"):
        Reader(folder, "cpu", "no")


def spans_of(window: tuple, longest: int) -> list[tuple[float, int, int, bool]]:
    """Every allowed span of a window as (score, start, end, kept), in characters, and whether the window keeps it: the
    best ones that share no token. window: (row, start_logits, end_logits)."""
    row, start, end = window
    edges = range(row["context_start"], row["context_end"])
    tokens = [(i, j) for i in edges for j in edges if 0 <= j - i < longest]
    scores = {(i, j): float(start[i] - start[0]) + float(end[j] - end[0]) for i, j in tokens}
    kept: list[tuple[int, int]] = []
    for i, j in sorted(tokens, key=scores.get, reverse=True):
        if len(kept) < SPANS_KEPT and all(j < a or b < i for a, b in kept):
            kept.append((i, j))
    offsets = row["offsets"]
    return [(scores[i, j], int(offsets[i][0]), int(offsets[j][1]), (i, j) in kept) for i, j in tokens]


@pytest.mark.parametrize("own", [1.0, 1.7])
def test_a_probability_equals_brute_force(tiny_model, own):
    """Random scores; contexts in windows that overlap, and of what several windows keep the best counts once."""
    settings = {"max_length": 48, "doc_stride": 16, "max_answer_length": 4, "temperature": own}
    reader = Reader(tiny_model, "cpu", "no", 8, settings=settings)
    random, seen = np.random.default_rng(0), []

    def random_logits(features, windows):
        rows = [features[i] for i in windows]
        by_token = random.normal(0, 2, (2, 5000)).astype(np.float32)  # overlapping windows mostly agree
        logits = random.normal(0, 0.1, (2, len(rows), 48)).astype(np.float32)
        for b, row in enumerate(rows):
            logits[:, b, : len(row["offsets"])] += by_token[:, row["offsets"][:, 0]]
        seen.extend(zip(rows, *logits, strict=True))
        return rows, *logits

    reader.logits = random_logits
    examples = [{"question": "Who?", "context": TEXT * n} for n in (1, 2, 3, 2)]
    repeated = 0
    for example in examples:
        seen.clear()
        (answers,) = reader.answer_all([example])
        spans = [span for window in seen for span in spans_of(window, 4)]
        best: dict[tuple[int, int], float] = {}
        for score, *place, kept in spans:
            if kept:
                best[tuple(place)] = max(score, best.get(tuple(place), -np.inf))
        counted = [score for score, *_, kept in spans if not kept] + list(best.values())
        repeated += len(spans) - len(counted)
        # punctuation alone is no answer here, where there are others, and has its share all the same
        score = max(score for (start, end), score in best.items() if not says_nothing(example["context"][start:end]))
        expected = np.exp(score / own) / sum(np.exp(score / own) for score in counted)
        assert answers[0]["probability"] == pytest.approx(expected, rel=1e-3)
    assert repeated > 3


def test_temperature_and_references_of_an_older_folder_are_used(tiny_model, reader, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "reader.json").write_text('{"temperature": 2}', encoding="utf-8")
    softmax = list(Reader(tmp_path / "model", "cpu", "no", batch_size=4).answer_all(EXAMPLES))
    (tmp_path / "model" / "reader.json").write_text('{"temperature": 2, "references": 3}', encoding="utf-8")
    answers = Reader(tmp_path / "model", "cpu", "no", batch_size=4).answer_all(EXAMPLES, top_k=5)
    for plain, ((alone,), best) in zip(
        reader.answer_all(EXAMPLES, top_k=5), zip(softmax, answers, strict=True), strict=True
    ):
        assert [a["text"] for a in best] == [a["text"] for a in plain]
        assert best[0]["probability"] == pytest.approx(1 - (1 - alone["probability"]) ** 3)
        assert sum(a["probability"] for a in best) <= 1 and best[0]["answerable"] is None
    (tmp_path / "model" / "reader.json").write_text('{"references": 0.5}', encoding="utf-8")
    with pytest.raises(QAError, match=r"references is 0\.5, expected a number from 1"):
        Reader(tmp_path / "model", "cpu", "no")


def test_a_calibrator_decides_what_is_said_of_answers_and_not_which_they_are(tiny_model, reader, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    weights = {"intercept": -1.0, "log_odds": 0.3, "margin": 0.2, "log_windows": 0.1}
    calibrator = {"right": weights, "answerable": weights | {"intercept": 0.5}}
    (tmp_path / "model" / "reader.json").write_text(json.dumps({"calibrator": calibrator}), encoding="utf-8")
    fitted = Reader(tmp_path / "model", "cpu", "no", batch_size=4)
    for plain, best in zip(reader.answer_all(EXAMPLES, top_k=5), fitted.answer_all(EXAMPLES, top_k=5), strict=True):
        assert [a["text"] for a in best] == [a["text"] for a in plain]
        sure = [a["probability"] for a in best]
        assert sure == sorted(sure, reverse=True) and sum(sure) <= 1 + 1e-9
        assert sure[0] <= best[0]["answerable"] < 1 and len({a["answerable"] for a in best}) == 1
    nothing = fitted.answer("", TEXT)
    assert (nothing["text"], nothing["probability"]) == ("", 0.0)
    (tmp_path / "model" / "reader.json").write_text('{"calibrator": {"right": {}}}', encoding="utf-8")
    with pytest.raises(QAError, match=r"calibrator's right is \{\}, expected right and answerable"):
        Reader(tmp_path / "model", "cpu", "no")


def test_with_a_calibrator_no_answer_is_as_sure_as_the_text_is_unlikely_to_hold_one(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    weights = dict.fromkeys(("intercept", "log_odds", "margin", "log_windows"), 0.0)
    calibrator = {"right": weights | {"intercept": -2.0}, "answerable": weights | {"intercept": -1.0}}
    settings = {"calibrator": calibrator, "handle_impossible_answer": True}
    (tmp_path / "model" / "reader.json").write_text(json.dumps(settings), encoding="utf-8")
    reader = Reader(tmp_path / "model", "cpu", "no")
    found = [best for best, *_ in reader.answer_all(EXAMPLES)]
    for answer in found:
        chance = 1 / (1 + np.e) if answer["text"] else np.e / (1 + np.e)
        assert answer["answerable"] == pytest.approx(1 / (1 + np.e))
        assert answer["probability"] == pytest.approx(1 / (1 + np.e**2) if answer["text"] else chance)


def test_questions_with_documents_are_answered_together_as_one_by_one(reader):
    documents = [[TEXT, TEXT * 12, "Bob wrote it."], [{"text": TEXT * 3, "id": 7}], ["", TEXT]]
    questions = ["Who wrote it?", "In which year?", ""]
    for ranked in (False, True):
        alone = [
            reader.answer_documents(*one, top_k=3, ranked=ranked) for one in zip(questions, documents, strict=True)
        ]
        together = reader.answer_documents(questions, documents, top_k=3, ranked=ranked)
        for one, other in zip(alone, together, strict=True):
            assert [a | {"probability": 0} for a in one] == [a | {"probability": 0} for a in other]
            assert [a["probability"] for a in one] == pytest.approx([a["probability"] for a in other], abs=1e-4)
    assert [found["text"] for found in reader.answer_documents(questions, documents)][2] == ""
    with pytest.raises(ValueError, match="no documents for 'Who'"):
        reader.answer_documents(["Who"], [[]])
    with pytest.raises(ValueError, match="has 1 lists, expected 2"):
        reader.answer_documents(["Who", "When"], [[TEXT]])


def test_an_unsure_answer_is_withheld_with_its_confidence():
    answers = [{"text": "a", "start": 3, "end": 4, "probability": 0.4}, {"text": "b", "start": 5, "end": 6}]
    assert apply_minimum_confidence(answers, 0.4) is answers
    assert apply_minimum_confidence(answers, 0.41) == [
        {"text": "", "start": 0, "end": 0, "places": [], "probability": 0.4}
    ]


def test_bf16_and_fp32_mostly_agree(tiny_model, reader):
    """The effect is measured and stated in docs/RESULTS.md; here: the answer's probability moves by little."""
    rounded = Reader(tiny_model, "cpu", "bf16", batch_size=4)
    for example in EXAMPLES[:3]:
        assert abs(rounded.answer(**example)["probability"] - reader.answer(**example)["probability"]) < 0.05


# several documents


DOCUMENTS = ["", "Bob lives in Köln.", TEXT * 9, "Eve left in 1999. 😀 So did Bob.", "Bob lives in Köln.", TEXT]


def test_answers_in_documents_are_spans_of_theirs_on_one_scale(reader):
    found = reader.answer_documents("Who wrote it?", DOCUMENTS, top_k=12)
    probabilities = [answer["probability"] for answer in found]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) <= 1
    assert len({answer["document"] for answer in found}) > 1
    for answer in found:
        assert answer["document"][answer["start"] : answer["end"]] == answer["text"] != ""
    assert reader.answer_documents("Who wrote it?", DOCUMENTS) == found[0]


def test_in_what_order_documents_come_and_where_they_lie_changes_nothing(reader):
    asked = [{"text": text, "page": page} for page, text in enumerate(DOCUMENTS)]
    found = reader.answer_documents("Who wrote it?", asked, top_k=4)
    for answer, other in zip(found, reader.answer_documents("Who wrote it?", DOCUMENTS[::-1], top_k=4), strict=True):
        assert answer["document"] in asked
        assert (answer["document"]["text"], answer["text"]) == (other["document"], other["text"])
        assert answer["probability"] == pytest.approx(other["probability"])


def test_of_ranked_documents_a_later_one_counts_less(reader):
    """By its rank, squared, against the first: 2 log(rank) off a score. The tiny model has no temperature."""
    texts = ["Ada wrote it.", "Bob lives in Köln.", "Eve left in 1999."]
    plain, ranked = (
        {(a["document"], a["start"], a["end"]): a["probability"]
         for a in reader.answer_documents("Who?", texts, top_k=50, ranked=ranked)}
        for ranked in (False, True)
    )  # fmt: skip
    both = plain.keys() & ranked.keys()
    assert {document for document, *_ in both} == set(texts)
    shares = {document: {ranked[key] / plain[key] for key in both if key[0] == document} for document in texts}
    for rank, document in enumerate(texts, 1):
        for share in shares[document]:
            assert share * rank**2 == pytest.approx(next(iter(shares[texts[0]])), rel=1e-3)


def test_one_document_is_answered_as_a_context_is(reader):
    for text in (TEXT, TEXT * 12):
        alone = reader.answer("Who wrote it?", text, top_k=3)
        found = reader.answer_documents("Who wrote it?", [text], top_k=3)
        for answer in found:
            assert all(place.pop("document") == answer["document"] for place in answer["places"])
            del answer["document"]
        assert found == alone


def test_where_no_document_is_sure_enough_or_has_a_word_there_is_no_text(reader, tiny_model):
    best = reader.answer_documents("Who?", DOCUMENTS)
    unsure = reader.answer_documents("Who?", DOCUMENTS, min_confidence=1.0)
    assert unsure == {
        "text": "",
        "start": 0,
        "end": 0,
        "places": [],
        "probability": best["probability"],
        "answerable": None,
        "document": None,
    }
    assert reader.answer_documents("Who?", ["", " "])["text"] == ""
    may_find_none = Reader(tiny_model, "cpu", "no", handle_impossible_answer=True)
    none = [answer for answer in may_find_none.answer_documents("Who?", DOCUMENTS, top_k=99) if not answer["text"]]
    assert [answer["document"] for answer in none] == [None]


def test_what_can_not_be_documents_is_refused(reader):
    with pytest.raises(ValueError, match="no documents"):
        reader.answer_documents("Who?", [])
    with pytest.raises(ValueError, match="top_k is 0"):
        reader.answer_documents("Who?", DOCUMENTS, top_k=0)
    for documents in ([None], [{"text": 3}], [b"Bob"]):
        with pytest.raises(TypeError):
            reader.answer_documents("Who?", documents)
    with pytest.raises(ValueError, match="document 0 has no 'text'"):
        reader.answer_documents("Who?", [{"content": "Bob"}])
