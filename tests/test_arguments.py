"""The doors of the library: any argument of any kind gives an answer, or an error that is documented."""

import decimal
import fractions
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from extractive_qa import QAError, Reader, compute_metrics
from extractive_qa.arguments import device_name, folder

WILD = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), st.text(max_size=5), st.binary(max_size=3),
    st.sampled_from([
        np.int64(3), np.float32(0.5), np.bool_(True), np.array([1, 2]), np.array(1), np.array(["a"]), 1j, object, print,
        Path("x"), decimal.Decimal("0.5"), fractions.Fraction(1, 2), torch.device("cpu"), torch.zeros(1), range(3),
        "auto", "cpu", "no", "bf16", "fp32", "onnx", "torch", "word", -1, 0, 1, "\ud800", "a\0b", "~", "x" * 300,
    ]),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.one_of(st.none(), st.integers(), st.text(max_size=3)), max_size=3),
)  # fmt: skip
EXAMPLE = st.dictionaries(
    st.sampled_from(["id", "question", "context", "text", "answers"]),
    WILD | st.fixed_dictionaries({"text": WILD | st.lists(WILD, max_size=2)}), max_size=5,
)  # fmt: skip
ANYTHING = WILD | st.lists(WILD | EXAMPLE, max_size=3)
NAMES = {
    "Reader": ["model_dir", "device", "mixed_precision", "batch_size", "backend", "settings", "max_length",
               "doc_stride", "max_answer_length", "handle_impossible_answer", "threads"],
    "answer": ["question", "context", "top_k", "min_confidence"],
    "answer_all": ["examples", "top_k", "min_confidence", "each_batch"],
    "answer_documents": ["question", "documents", "top_k", "min_confidence", "ranked", "each_batch"],
    "predict": ["examples", "top_k", "each", "bar"],
    "unknown_share": ["text"],
    "compute_metrics": ["predictions", "examples", "f1_unit"],
}  # fmt: skip
GOOD = {
    "question": "Who?", "context": "Anna Berg went home.", "documents": ["Anna Berg went home.", {"text": "Bob left."}],
    "text": "Anna", "predictions": {"1": "Anna"},
    "examples": [{"id": "1", "question": "Who?", "context": "Anna Berg.", "answers": {"text": ["Anna"]}}],
}  # fmt: skip


@pytest.fixture(scope="module")
def reader(tiny_model) -> Reader:
    return Reader(tiny_model, "cpu", "no", backend="torch", max_length=64, doc_stride=16)


def call(reader: Reader, name: str, arguments: dict) -> None:
    """Calls a public function with good arguments but for these; any other error than the documented ones is raised."""
    good = {argument: value for argument, value in GOOD.items() if argument in NAMES[name]}
    if name == "Reader":
        good = {"model_dir": reader.model_dir, "device": "cpu", "mixed_precision": "no"}
    function = {"Reader": Reader, "compute_metrics": compute_metrics}.get(name) or getattr(reader, name)
    try:
        found = function(**good | arguments)
        if name == "answer_all":
            list(found)
    except (TypeError, ValueError, QAError) as error:
        assert type(error) in (TypeError, ValueError, QAError), f"{type(error).__name__} is none that is documented"
        assert "xpected" in str(error) or type(error) is QAError, error
        assert "not supported between" not in str(error)


@st.composite
def calls(draw):
    name = draw(st.sampled_from(list(NAMES)))
    chosen = draw(st.lists(st.sampled_from(NAMES[name]), min_size=1, max_size=2, unique=True))
    return name, {argument: draw(ANYTHING) for argument in chosen}


@settings(max_examples=400)
@given(calls())
def test_whatever_is_passed_there_are_only_documented_errors(reader, one):
    call(reader, *one)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(calls())
def test_whatever_is_passed_ten_thousand_times(reader, one):
    call(reader, *one)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"mixed_precision": "fp32"}, ValueError, r"'fp32', expected one of auto, no, bf16, fp16, int8 \(no: fp32\)"),
        ({"mixed_precision": "bf61"}, ValueError, "expected one of"), ({"mixed_precision": None}, TypeError, "None"),
        ({"backend": "ort"}, ValueError, "'ort', expected one of auto, torch, onnx"),
        ({"batch_size": -1}, ValueError, "batch_size is -1, expected at least 1"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"), ({"batch_size": 1.5}, TypeError, "a whole number"),
        ({"batch_size": True}, TypeError, "batch_size"), ({"device": None}, TypeError, "device is None"),
        ({"device": -1}, ValueError, "device is -1"), ({"device": "tpu"}, QAError, "device='tpu' is not known"),
        ({"threads": "2"}, TypeError, "threads"), ({"threads": 10**6}, ValueError, "at most 1024"),
        ({"handle_impossible_answer": 1}, TypeError, "True or False"), ({"max_length": 8}, ValueError, "at least 16"),
        ({"settings": []}, TypeError, "a dict"), ({"model_dir": 3}, TypeError, "a path"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_refused_before_anything_is_loaded(tiny_model, arguments, error, words):
    with pytest.raises(error, match=words):
        Reader(**{"model_dir": tiny_model, "backend": "torch"} | arguments)


def test_a_device_has_several_names():
    assert [device_name(one) for one in (0, "1", np.int64(2), torch.device("cuda:3"), torch.device("cpu"), "mps")] == [
        "cuda:0", "cuda:1", "cuda:2", "cuda:3", "cpu", "mps",
    ]  # fmt: skip


def test_the_home_folder_is_known(tiny_model, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_model.parent))
    monkeypatch.setenv("USERPROFILE", str(tiny_model.parent))
    assert folder("model_dir", f"~/{tiny_model.name}") == tiny_model
    assert Reader(f"~/{tiny_model.name}", torch.device("cpu"), "no").answer(
        **{n: GOOD[n] for n in ("question", "context")}
    )


def test_numbers_of_numpy_are_numbers(reader, tiny_model):
    good = {name: GOOD[name] for name in ("question", "context")}
    plain = reader.answer(**good, top_k=2, min_confidence=0)
    assert reader.answer(**good, top_k=np.int64(2), min_confidence=np.float32(0)) == plain
    settings = {"max_length": np.int32(64), "doc_stride": np.int64(16)}
    for again in ({"settings": settings}, settings | {"threads": np.int8(1), "handle_impossible_answer": np.False_}):
        assert Reader(tiny_model, "cpu", "no", np.int64(4), "torch", **again).answer(**good, top_k=2) == plain


def test_what_is_missing_in_an_example_is_named(reader):
    with pytest.raises(ValueError, match="example 1 has no 'context'"):
        list(reader.answer_all([*GOOD["examples"], {"question": "Who?"}]))
    with pytest.raises(ValueError, match="example 0 has no 'id'"):
        reader.predict([{"question": "Who?", "context": "Anna"}])
    with pytest.raises(TypeError, match="top_k"):
        reader.answer_all([], top_k="3")  # at the door, not with the first answer
    with pytest.raises(TypeError, match="answers of example 0 is 'Anna'"):
        compute_metrics({"1": "Anna"}, [{"id": "1", "answers": {"text": "Anna"}}])
