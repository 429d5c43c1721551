"""An answer that a text gives at several places is one answer, as sure as all of its places together."""

import itertools
import json
import shutil

import numpy as np
import pytest

from extractive_qa.metrics import exact_match_score, f1_score, normalize_answer
from extractive_qa.postprocessing.calibration import calibration_error
from extractive_qa.postprocessing.tidy import answer_key
from extractive_qa.reader import Reader
from utils.offline import SAMPLE_MODEL_DIR

SENTENCE = "The letter was written by Anna Berg in 1911."


@pytest.fixture(scope="module")
def sample_reader() -> Reader:
    return Reader(SAMPLE_MODEL_DIR, "cpu", "no", backend="torch")


@pytest.mark.parametrize("top_k", [1, 3])
def test_a_sentence_that_comes_again_makes_its_answer_no_less_sure(sample_reader, top_k):
    """Of 1, 3, 10 and 40 times the confidence had been 0.97, 0.79, 0.57 and 0.15."""
    sure = []
    for times in (1, 3, 10, 40):
        context = " ".join([SENTENCE] * times)
        found = sample_reader.answer("Who wrote the letter?", context, top_k=top_k)
        best, *others = found if top_k > 1 else [found]
        assert best["text"] == "Anna Berg"
        assert len(best["places"]) == times
        assert [context[place["start"] : place["end"]] for place in best["places"]] == ["Anna Berg"] * times
        assert {"start": best["start"], "end": best["end"]} in best["places"]
        assert all(other["text"] != best["text"] for other in others)
        sure.append(best["probability"])
    assert min(sure) > 0.8 * sure[0], sure  # what is left of it is the model's own


def pointing(reader: Reader, scores: dict[str, float]) -> Reader:
    """A Reader whose model gives the words of `scores` those logits as start and end, all others -20, [CLS] 0."""

    def logits(features, windows):
        rows = [features[i] for i in windows]
        found = np.full((2, len(rows), max(len(row["input_ids"]) for row in rows)), -20.0, dtype=np.float32)
        for b, row in enumerate(rows):
            found[:, b, 0] = 0
            for i, token in enumerate(row["input_ids"]):
                found[:, b, i] = scores.get(reader.tokenizer.id_to_token(int(token)), found[0, b, i])
        return rows, *found

    reader.logits = logits
    return reader


def test_probabilities_of_equal_texts_are_added_in_the_softmax(tiny_model):
    """Two places of the one name outweigh the better single place of another, over windows and documents too."""
    scores = {"london": 2.0, "paris": 2.2}
    reader = pointing(Reader(tiny_model, "cpu", "no", max_answer_length=1), scores)
    context = "Paris then London, and the London again"
    first, second = reader.answer("Where?", context, top_k=2)
    assert [first["text"], second["text"]] == ["London", "Paris"]
    # each span's score is its start and end; of the others, all but none is left
    weights = 2 * np.exp(4.0), np.exp(4.4)
    expected = np.array(weights) / sum(weights)
    assert [first["probability"], second["probability"]] == pytest.approx(expected, rel=1e-3)
    assert [place["start"] for place in first["places"]] == [11, 27]
    documents = ["Paris", "London", {"text": "in LONDON, there"}]
    first, second = reader.answer_documents("Where?", documents, top_k=2)
    assert (first["document"], second["document"]) == ("London", "Paris")
    assert [(place["document"], place["start"]) for place in first["places"]] == [("London", 0), (documents[2], 3)]
    assert [first["probability"], second["probability"]] == pytest.approx(expected, rel=1e-3)
    far = " ".join(["London", *["and"] * 90, "London", *["and"] * 90, "Paris"])
    narrow = pointing(Reader(tiny_model, "cpu", "no", max_length=48, doc_stride=16, max_answer_length=1), scores)
    first, second = narrow.answer("Where?", far, top_k=2)
    assert [first["text"], second["text"]] == ["London", "Paris"]
    assert [first["probability"], second["probability"]] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("top_k", [2, 5, 20])
def test_lists_have_no_equal_texts_and_the_best_does_not_depend_on_their_length(sample_reader, sample_examples, top_k):
    some = sample_examples[:12]
    for (alone,), found in zip(sample_reader.answer_all(some), sample_reader.answer_all(some, top_k), strict=True):
        assert len({answer_key(answer["text"]) for answer in found}) == len(found)
        sure = [answer["probability"] for answer in found]
        assert sure == sorted(sure, reverse=True)
        # to the last digits: the sums of a longer row may round otherwise
        assert found[0] | {"probability": 0, "answerable": 0} == alone | {"probability": 0, "answerable": 0}
        assert found[0]["probability"] == pytest.approx(alone["probability"], rel=1e-9)
        for one, other in itertools.combinations(found, 2):
            assert one["end"] <= other["start"] or other["end"] <= one["start"]


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("Anna Berg", "anna  BERG", True), ("the Nile", "The Nile,", True), ("(Rome)", "Rome.", True),
        ("1.5", "15", False), ("-5", "5", False), ("5%", "5", False), ("a", "the", False), ("AB", "A B", False),
    ],
)  # fmt: skip
def test_what_is_one_answer(one, other, equal):
    assert (answer_key(one) == answer_key(other)) == equal
    if equal:
        assert normalize_answer(one) == normalize_answer(other)


def test_an_answer_that_is_withheld_or_missing_has_no_places(tiny_model):
    reader = Reader(tiny_model, "cpu", "no")
    assert reader.answer("Who?", SENTENCE, min_confidence=1.0)["places"] == []
    assert reader.answer("Who?", "")["places"] == []
    may_find_none = Reader(tiny_model, "cpu", "no", handle_impossible_answer=True)
    for answer in may_find_none.answer("Who?", SENTENCE, top_k=99):
        assert bool(answer["text"]) == bool(answer["places"])


@pytest.mark.slow
def test_real_answers_are_no_worse_and_confidences_fit_as_well(sample_reader, train_examples):
    """1,000 questions. Before, with places apart: EM 83.0, F1 91.69, calibration error 0.084."""
    some = train_examples[:1000]
    predictions, probabilities = sample_reader.predict(some)
    pairs = [(predictions[example["id"]], example["answers"]["text"]) for example in some]
    right = np.array([exact_match_score(*pair) == 1 for pair in pairs])
    assert 100 * np.mean([f1_score(*pair) for pair in pairs]) > 91.5
    assert calibration_error(probabilities, right) < 0.086


# windows of a model with few positions


@pytest.fixture
def short_model(tmp_path):
    """A random BERT with 128 positions, whose folder has no reader.json."""
    import torch
    from transformers import BertConfig, BertForQuestionAnswering

    torch.manual_seed(0)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(SAMPLE_MODEL_DIR / name, tmp_path / name)
    config = BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=128,
    )  # fmt: skip
    BertForQuestionAnswering(config).save_pretrained(tmp_path)
    return tmp_path


def test_windows_are_no_longer_than_the_model_has_positions(short_model, caplog):
    from extractive_qa.reader import count_windows

    reader = Reader(short_model, "cpu", "no")
    assert (reader.settings["max_length"], reader.settings["doc_stride"]) == (128, 42)
    assert caplog.text.count("max_length is 128, not 384, doc_stride is 42, not 128") == 1
    example = {"question": "Who?", "context": SENTENCE * 60}
    assert reader.answer(**example)["text"]
    windows = []
    list(reader.answer_all([example], each_batch=lambda done, count, _: windows.append(count)))
    assert count_windows(short_model, [example]).tolist() == windows[:1]
    assert caplog.text.count("positions") == 1, "it is said once"
    caplog.clear()
    assert Reader(short_model, "cpu", "no", max_length=64, doc_stride=16).settings["max_length"] == 64
    assert "positions" not in caplog.text


@pytest.mark.parametrize(("asked", "least"), [({"max_length": 200, "doc_stride": 180}, 1), ({"doc_stride": 0}, 0)])
def test_a_shorter_window_still_advances(short_model, asked, least):
    reader = Reader(short_model, "cpu", "no", **asked)
    assert reader.settings["max_length"] == 128
    assert least <= reader.settings["doc_stride"] <= 115
    assert reader.answer("Who wrote it?", SENTENCE * 60)["text"]


def test_too_few_positions_and_windows_that_can_not_advance_are_refused_without_a_file_that_is_not_there(short_model):
    from extractive_qa import QAError

    with pytest.raises(QAError, match="doc_stride=380") as refused:
        Reader(short_model, "cpu", "no", doc_stride=380)
    assert "reader.json" not in str(refused.value)
    config = json.loads((short_model / "config.json").read_text(encoding="utf-8"))
    reader = Reader(short_model, "cpu", "no")
    reader.backend.config = config | {"max_position_embeddings": 8}
    with pytest.raises(QAError, match="8 positions for tokens, expected at least 16"):
        Reader(short_model, backend=reader.backend)
