"""The answers of those whom docs/MIGRATING.md speaks to: transformers' removed pipeline and Haystack's reader, run
beside us in an environment of their own. Every answer that differs is explained by a rule of theirs, computed from our
logits.
"""

import json
import random
import sys

import numpy as np
import pytest
from scripts import PROJECT_ROOT

sys.path.insert(0, str(PROJECT_ROOT / "benchmarks"))

from harness import DEV_FILE, Peer, peer_python

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.postprocessing.tidy import tidy
from extractive_qa.preprocessing.windows import prepare_validation_features
from extractive_qa.reader import Reader
from utils.offline import SAMPLE_MODEL_DIR


@pytest.fixture(scope="module", autouse=True)
def peers():
    try:
        peer_python()
    except QAError as error:
        pytest.skip(f"transformers 4.57.6 is not beside us: {error}")


@pytest.fixture(scope="module", params=[12, pytest.param(200, marks=pytest.mark.slow)])
def questions(request, tmp_path_factory):
    """Real questions where they are at hand, some with four paragraphs for a context, and the file for the peer."""
    examples = read_examples(DEV_FILE, "validation")
    if len(examples) < request.param:
        pytest.skip(f"{request.param} questions are needed, and {DEV_FILE} has {len(examples)}")
    examples = random.Random(1).sample(examples, request.param)
    asked = []
    for i, example in enumerate(examples):
        others = [e["context"] for e in examples[i : i + 4]] if i % 4 == 0 else []
        asked.append({"question": example["question"], "context": "\n".join([example["context"], *others])})
    path = tmp_path_factory.mktemp("questions") / "questions.json"
    path.write_text(json.dumps(asked), encoding="utf-8")
    return asked, path


def windows_of(reader: Reader, asked: list[dict]) -> list[list[tuple]]:
    """(row, start_logits, end_logits) of every window of every question."""
    features = prepare_validation_features(asked, reader.tokenizer, 384, 128)
    windows = [[] for _ in asked]
    for begin in range(0, len(features), 16):
        for row, start, end in zip(*reader.logits(features, range(begin, min(begin + 16, len(features)))), strict=True):
            size = len(row["input_ids"])
            windows[row["example_index"]].append((row, start[:size].astype(np.float64), end[:size].astype(np.float64)))
    return windows


def softmax_of_window(logits: np.ndarray, row: dict) -> np.ndarray:
    """Over [CLS] and the context, as the pipeline takes it; 0 elsewhere."""
    allowed = np.zeros(len(logits), dtype=bool)
    allowed[[0, *range(row["context_start"], row["context_end"])]] = True
    weights = np.where(allowed, np.exp(logits - logits[allowed].max()), 0)
    return weights / weights.sum()


def best_of_window(start, end, row, longest: int | None, count: int = 1) -> list[tuple[list[int], float]]:
    """The `count` best spans inside the context of at most `longest` tokens, best first: place in characters, and start
    plus end."""
    i, j = np.indices((len(start), len(start)))
    inside = (i >= row["context_start"]) & (j < row["context_end"]) & (i <= j)
    if longest:
        inside &= j - i < longest
    table = np.where(inside, start[:, None] + end[None, :], -np.inf)
    places = (np.unravel_index(k, table.shape) for k in np.argsort(-table, axis=None, kind="stable")[:count])
    return [([int(row["offsets"][i, 0]), int(row["offsets"][j, 1])], table[i, j]) for i, j in places]


def pipeline_rule(
    context: str, windows: list[tuple], handle_impossible_answer: bool = False, words: list[list[int]] | None = None
) -> list[int]:
    """What the pipeline answers: each window has a softmax of its own over starts and over ends, the score of a span is
    the product, and equal texts add up, at the place of the first. With align_to_words the 12 best spans of each window
    are widened to whole `words` (places in characters) before that; without, only the best one counts."""
    scores, null = {}, 1e6
    for row, start, end in windows:
        with np.errstate(divide="ignore"):
            logs = [np.log(softmax_of_window(logits, row)) for logits in (start, end)]
        null = min(null, np.exp(logs[0][0] + logs[1][0]))
        for span, score in best_of_window(*logs, row, 30, 12 if words else 1):
            place = widened(span, words) if words else span
            text = context[place[0] : place[1]].lower()
            place, sum_so_far = scores.get(text, (place, 0))
            scores[text] = place, sum_so_far + np.exp(score)
    found = sorted(scores.values(), key=lambda pair: -pair[1])
    return [0, 0] if handle_impossible_answer and null > found[0][1] else found[0][0]


def words_of(reader: Reader, context: str) -> list[list[int]]:
    """The words of a context as its tokenizer separates them before it cuts them into pieces: places in characters."""
    pre = reader.tokenizer.pre_tokenizer.pre_tokenize_str(context)
    return [list(place) for _, place in pre]


def widened(span: list[int], words: list[list[int]]) -> list[int]:
    start = next((word[0] for word in words if word[0] <= span[0] < word[1]), span[0])
    end = next((word[1] for word in words if word[0] < span[1] <= word[1]), span[1])
    return [start, end]


def tidied(item: dict, span: list[int]) -> list[int]:
    """A span, its ends as ours are tidied: punctuation that EM and F1 leave out."""
    return list(tidy(item["context"], *span))


def test_every_answer_that_differs_from_the_pipeline_s_is_explained(questions):
    asked, path = questions
    reader = Reader(SAMPLE_MODEL_DIR, "cpu", "no", backend="torch")
    ours = [[best["start"], best["end"]] for best, *_ in reader.answer_all(asked)]
    windows = windows_of(reader, asked)
    with Peer("readers", SAMPLE_MODEL_DIR.resolve(), path) as peer:
        words, tokens = (peer("answer", count=len(asked), align_to_words=a)["spans"] for a in (True, False))
    counts = {"equal": 0, "whole words": 0, "equal texts added up": 0, "windows compared otherwise": 0}
    for item, mine, whole, exact, own in zip(asked, ours, words, tokens, windows, strict=True):
        # its answers follow from our logits by its own rule
        assert pipeline_rule(item["context"], own) == exact, item["question"]
        assert pipeline_rule(item["context"], own, words=words_of(reader, item["context"])) == whole, item["question"]
        exact, whole = (tidied(item, span) for span in (exact, whole))  # noqa: PLW2901
        if mine == whole:
            counts["equal"] += 1
        elif mine == exact and whole[0] <= mine[0] < mine[1] <= whole[1]:
            counts["whole words"] += 1  # it takes in the rest of the words at both ends
        elif mine == exact:
            counts["equal texts added up"] += 1
        else:  # never where there is one window
            assert len(own) > 1, f"ours {mine}, the pipeline's {exact}: {item['question']}"
            counts["windows compared otherwise"] += 1
    print(counts)
    assert counts["equal"] > len(asked) / 2


@pytest.mark.slow
def test_no_answer_is_given_where_the_pipeline_gives_none(questions):
    """Each question asked of the next question's text, as good as never an answer in it; and two of their own."""
    own, path = questions
    pairs = [*zip(own, [*own[1:], own[0]], strict=True), *zip(own[:2], own[:2], strict=True)]
    asked = [{"question": a["question"], "context": b["context"]} for a, b in pairs]
    path = path.with_name("others.json")
    path.write_text(json.dumps(asked), encoding="utf-8")
    reader = Reader(SAMPLE_MODEL_DIR, "cpu", "no", backend="torch", handle_impossible_answer=True)
    ours = [[best["start"], best["end"]] for best, *_ in reader.answer_all(asked)]
    windows = windows_of(reader, asked)
    with Peer("readers", SAMPLE_MODEL_DIR.resolve(), path) as peer:
        theirs = peer("answer", count=len(asked), align_to_words=False, handle_impossible_answer=True)["spans"]
    for item, mine, exact, own in zip(asked, ours, theirs, windows, strict=True):
        assert pipeline_rule(item["context"], own, handle_impossible_answer=True) == exact
        assert mine == tidied(item, exact) or len(own) > 1, item["question"]
    assert [0, 0] in ours
    assert any(end for _, end in ours)


@pytest.mark.slow
def test_every_answer_that_differs_from_haystack_s_is_explained(questions):
    """It gives the model no token types, and takes the highest sum of logits of all windows, of any length."""
    asked, path = questions
    reader = Reader(SAMPLE_MODEL_DIR, "cpu", "no", backend="torch")
    ours = [[best["start"], best["end"]] for best, *_ in reader.answer_all(asked)]
    windows = windows_of(reader, asked)
    reader.backend.inputs = ["input_ids", "attention_mask"]
    untyped = windows_of(reader, asked)
    with Peer("readers", SAMPLE_MODEL_DIR.resolve(), path) as peer:
        theirs = peer("answer_by_haystack", count=len(asked))["spans"]

    def highest(some: list[tuple], longest: int | None, relative: bool) -> list[int]:
        best = [
            best_of_window(*(logits - logits[0] * relative for logits in both), row, longest)[0] for row, *both in some
        ]
        return max(best, key=lambda pair: pair[1])[0]

    reasons = {"equal": 0, "token types": 0, "answer length": 0, "[CLS]": 0}
    for item, mine, found, own, bare in zip(asked, ours, theirs, windows, untyped, strict=True):
        assert highest(bare, None, relative=False) == found, item["question"]
        assert tidied(item, highest(own, 30, relative=True)) == mine
        if mine == tidied(item, found):
            reasons["equal"] += 1
        elif highest(own, None, relative=False) != found:
            reasons["token types"] += 1
        elif highest(own, 30, relative=False) != found:
            reasons["answer length"] += 1
        else:
            reasons["[CLS]"] += 1
    print(reasons)
    assert reasons["equal"] > len(asked) / 3


def test_a_model_trained_here_gives_the_same_answers_in_the_pipeline(request, questions):
    """MobileBERT sees its neighbour's padding: the same where the pipeline pads as the model was trained."""
    asked, path = questions
    # not an argument: it would be trained also where there is no pipeline to compare with
    asked, folder = asked[:12], request.getfixturevalue("trained") / "final_model"
    reader = Reader(folder, "cpu", "no", backend="torch")
    windows = windows_of(reader, asked)
    ours, compared = list(reader.answer_all(asked, top_k=20)), 0
    with Peer("readers", folder, path) as peer:
        theirs = peer("answer", count=len(asked), align_to_words=False, padding="max_length")["spans"]
    for item, (best, *others), exact, own in zip(asked, ours, theirs, windows, strict=True):
        assert pipeline_rule(item["context"], own) == exact, item["question"]
        if len(own) > 1 or any(len(answer["places"]) > 1 for answer in (best, *others)):
            continue  # ours compares windows otherwise, and counts the places of a text that comes again together
        compared += 1
        assert [best["start"], best["end"]] == tidied(item, exact)
    assert compared
