"""Exported folders in another client of the Hub's layout, transformers.js, under Node: make test-js.

Skipped where Node or the package is missing. What the client does not do: it reads the first 512 tokens alone, takes
the span with the largest product of probabilities however long it is, and puts its text together from tokens: in lower
case, with spaces around marks.
"""

import random
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from export.in_node import require_node, run_in_node
from scripts import run_script
from tokenizers import Tokenizer

from extractive_qa.reader import Reader
from utils.offline import SAMPLE_DATA_DIR, SAMPLE_MODEL_DIR

QUESTIONS, SEED, IN_WASM = 50, 0, 5
MOST_TOKENS, SEP = 512, 102
LONG = {
    "id": "long", "question": "Who built the mill?",
    "context": "Nothing happened on this day, and the clerk wrote down the weather. " * 60 + "Ada Miller built it.",
}  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """The sample model, exported as a user does it."""
    require_node()
    folder = shutil.copytree(SAMPLE_MODEL_DIR, tmp_path_factory.mktemp("client") / "reader")
    questions = ("--eval_file", SAMPLE_DATA_DIR / "dev.json", "--max_samples", 8)
    run_script("tools/export_onnx.py", "--model_dir", folder, *questions)
    return folder


@pytest.fixture(scope="module", params=[("fp32", "no"), ("q8", "int8")], ids=["fp32", "q8"])
def asked(request, sample, dev_examples) -> tuple[Reader, list[dict], list[dict]]:
    """Our reader, some questions, and what the client answers to them."""
    dtype, precision = request.param
    examples = [*random.Random(SEED).sample(dev_examples, QUESTIONS), LONG]
    questions = [{name: example[name] for name in ("question", "context")} for example in examples]
    found = run_in_node("answer.mjs", sample, dtype, IN_WASM, given=questions)
    return Reader(sample, "cpu", precision, backend="onnx"), examples, found


def letters(text: str) -> str:
    """What is left of a text by the tokenizer of BERT uncased: no case, accents, spaces; and no marks."""
    return "".join(char for char in unicodedata.normalize("NFKD", text.lower()) if char.isalnum())


def best_span(ids: list[int], start: np.ndarray, end: np.ndarray) -> tuple[int, int]:
    """The client's rule: of the tokens behind the first [SEP] the span with the largest product of probabilities."""
    first, last = ids.index(SEP) + 1, len(ids) - (ids[-1] == SEP)
    start, end = (np.exp(logits[first:last]) for logits in (start, end))
    product = np.triu(start[:, None] * end)
    i, j = np.unravel_index(product.argmax(), product.shape)
    return first + int(i), first + int(j)


def test_tokens_and_logits_are_ours(asked):
    """In Node, and in WebAssembly, as in a browser. There other kernels round floats differently, which int8 amplifies
    to half of its own error; products that overflowed would cost several times that."""
    (reader, examples, found), differences = asked, []
    tokenizer = Tokenizer.from_file(str(reader.model_dir / "tokenizer.json"))
    for example, theirs in zip(examples, found, strict=True):
        pair = tokenizer.encode(example["question"], example["context"])
        ids, types = np.array([pair.ids])[:, :MOST_TOKENS], np.array([pair.type_ids])[:, :MOST_TOKENS]
        assert theirs["ids"] == ids[0].tolist()  # a long text loses its [SEP] too
        batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types}
        ours = reader.backend.logits(batch)[:, 0]
        # an activation at the edge of two integers may fall to either side
        tolerance = 1e-3 if reader.backend.precision == "no" else 0.02 * np.ptp(ours)
        np.testing.assert_allclose([theirs["start"], theirs["end"]], ours, atol=tolerance)
        if theirs["wasm"]:
            differences.append((theirs["wasm"] - ours) / ours.std())
    assert len(differences) == IN_WASM
    most = 1e-4 if reader.backend.precision == "no" else 0.03
    assert np.sqrt(np.mean(np.concatenate(differences, axis=1) ** 2)) < most


def test_answers_are_ours_but_for_what_the_client_does_not_do(asked):
    reader, examples, found = asked
    tokenizer, others = Tokenizer.from_file(str(reader.model_dir / "tokenizer.json")), []
    for example, theirs in zip(examples, found, strict=True):
        first, last = best_span(theirs["ids"], np.array(theirs["start"]), np.array(theirs["end"]))
        assert tokenizer.decode(theirs["ids"][first : last + 1]) == theirs["answer"]
        if letters(theirs["answer"]) != letters(reader.answer(example["question"], example["context"])["text"]):
            others.append((example["id"], last + 1 - first, theirs["answer"]))
    assert len(found[-1]["ids"]) == MOST_TOKENS
    assert others[-1][0] == "long"  # read by us to its end, where the answer is
    assert len(others) - 1 <= QUESTIONS * 0.1, others
