"""Spans: equal to a search by brute force; probabilities are a softmax over all; answers are pieces of the context."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extractive_qa.metrics import compute_metrics, exact_match_score
from extractive_qa.postprocessing.spans import best_spans, merge_windows, take_place
from extractive_qa.preprocessing.windows import prepare_train_features, prepare_validation_features


def all_spans(start_logits, end_logits, begin, end, max_answer_length):
    """Every allowed span of a window as (score, first, last), in order of first and last token."""
    return [
        (float(start_logits[i]) + float(end_logits[j]), i, j)
        for i in range(begin, end)
        for j in range(i, min(end, i + max_answer_length))
    ]


def choose(spans, n_best):
    """The best, then the best that shares no token with those before; of equals the first, then the shortest."""
    chosen = []
    for score, first, last in sorted(spans, key=lambda span: (-span[0], span[1], span[2])):
        if len(chosen) < n_best and all(last < a or b < first for _, a, b in chosen):
            chosen.append((score, first, last))
    return chosen


def log_sum(scores):
    top = max(scores)
    return top + math.log(math.fsum(math.exp(score - top) for score in scores))


@st.composite
def windows(draw, logits, rows=3):
    """start_logits, end_logits (B, L), context_start, context_end (B,)."""
    count, length = draw(st.integers(1, rows)), draw(st.integers(1, 14))
    array = st.lists(logits, min_size=count * length, max_size=count * length)
    start, end = (np.array(draw(array), dtype=np.float32).reshape(count, length) for _ in "se")
    edges = [sorted(draw(st.tuples(st.integers(0, length), st.integers(0, length)))) for _ in range(count)]
    return start, end, *np.array(edges).T


FEW = st.integers(-2, 2)  # many equal scores; whole numbers add up exactly in any precision
WIDE = st.sampled_from([-10_000, -300, -20, -1, 0, 1, 20, 300, 10_000])
REAL = st.floats(-12, 12, width=32, allow_subnormal=False)


# one window


@given(windows(FEW | st.integers(-1000, 1000)), st.integers(1, 5), st.integers(1, 16))
@example((np.zeros((1, 9), np.float32), np.zeros((1, 9), np.float32), np.array([0]), np.array([9])), 5, 4)
def test_spans_equal_a_search_by_brute_force(batch, n_best, max_answer_length):
    first, last, scores, _ = best_spans(*batch, n_best=n_best, max_answer_length=max_answer_length)
    for b, (start, end, begin, stop) in enumerate(zip(*batch, strict=True)):
        expected = choose(all_spans(start, end, begin, stop, max_answer_length), n_best)
        found = [(s, i, j) for s, i, j in zip(scores[b], first[b], last[b], strict=True) if s > -np.inf]
        assert found == expected


@given(windows(WIDE), st.integers(1, 5), st.integers(1, 16))
def test_spans_of_extreme_logits_equal_a_search_by_brute_force(batch, n_best, max_answer_length):
    first, last, scores, _ = best_spans(*batch, n_best=n_best, max_answer_length=max_answer_length)
    for b, (start, end, begin, stop) in enumerate(zip(*batch, strict=True)):
        expected = choose(all_spans(start, end, begin, stop, max_answer_length), n_best)
        found = [(s, i, j) for s, i, j in zip(scores[b], first[b], last[b], strict=True) if s > -np.inf]
        assert found == expected


ONE_SPAN = np.array([[0, 0, 0, 4.513518]], np.float32), np.array([[0, 0, 8, 0]], np.float32), *np.array([[0], [4]])


@given(windows(REAL), st.integers(1, 16), st.sampled_from([0.25, 0.7, 1.0, 1.9]))
@example(ONE_SPAN, 1, 0.25)
def test_the_log_normaliser_sums_over_all_allowed_spans(batch, max_answer_length, temperature):
    *_, scores, found = best_spans(*batch, max_answer_length=max_answer_length, temperature=temperature)
    for b, (start, end, begin, stop) in enumerate(zip(*batch, strict=True)):
        spans = all_spans(start, end, begin, stop, max_answer_length)
        if not spans:
            assert found[b] == -np.inf
            assert (scores[b] == -np.inf).all()
            continue
        expected = log_sum([score / temperature for score, _, _ in spans])
        assert found[b] == pytest.approx(expected, abs=1e-4)
        assert scores[b, 0] == pytest.approx(max(spans)[0] / temperature, abs=1e-4)
        assert scores[b, 0] <= found[b] + 1e-4  # float32 rounds both; merge_windows keeps probabilities at most 1


@given(windows(WIDE), st.integers(1, 16))
@example((np.array([[-10_000, 10_000]]), np.array([[10_000, -10_000]]), np.array([0]), np.array([2])), 2)
def test_the_log_normaliser_of_extreme_logits_sums_over_all_allowed_spans(batch, max_answer_length):
    """The best start may come after the best end: then no allowed span is near the sum of both."""
    start_logits, end_logits, *edges = batch
    batch = (start_logits.astype(np.float32), end_logits.astype(np.float32), *edges)
    *_, found = best_spans(*batch, max_answer_length=max_answer_length)
    for b, (start, end, begin, stop) in enumerate(zip(*batch, strict=True)):
        if spans := all_spans(start, end, begin, stop, max_answer_length):
            assert found[b] == pytest.approx(log_sum([score for score, _, _ in spans]), abs=1e-2)


@given(windows(REAL), st.integers(1, 5), st.sampled_from([0.5, 2.0, 4.0]))
def test_temperature_divides_scores_and_changes_no_choice(batch, n_best, temperature):
    one, other = (best_spans(*batch, n_best=n_best, temperature=t) for t in (1.0, temperature))
    for a, b in zip(one[:2], other[:2], strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(one[2] / temperature, other[2])  # powers of two: no rounding


@given(windows(WIDE | REAL), st.integers(1, 40))
def test_a_window_with_a_context_token_has_a_span_inside_its_context(batch, max_answer_length):
    first, last, scores, log_normaliser = best_spans(*batch, max_answer_length=max_answer_length)
    context_start, context_end = batch[2:]
    some = context_start < context_end
    assert (np.isfinite(scores[:, 0]) == some).all()
    assert (np.isfinite(log_normaliser) == some).all()
    assert (context_start <= first[:, 0])[some].all()
    assert (first <= last)[some].all()
    assert (last[:, 0] < context_end)[some].all()
    assert (last - first < max_answer_length)[some].all()


@given(windows(REAL, rows=4), st.integers(1, 4), st.integers(0, 6))
def test_a_window_does_not_see_its_batch(batch, n_best, padding):
    """Neither the other rows nor logits behind its own tokens."""
    wide = [np.pad(logits, ((0, 0), (0, padding)), constant_values=99) for logits in batch[:2]]
    together = best_spans(*wide, *batch[2:], n_best=n_best)
    for b in range(len(batch[0])):
        alone = best_spans(*(array[b : b + 1] for array in batch), n_best=n_best)
        assert all(np.array_equal(t[b], a[0]) for t, a in zip(together[:3], alone[:3], strict=True))
        assert together[3][b] == pytest.approx(alone[3][0], abs=1e-9)


def test_logits_are_not_changed():
    start, end = np.ones((2, 8), np.float32), np.ones((2, 8), np.float32)
    best_spans(start, end, np.array([2, 3]), np.array([7, 7]), n_best=4)
    assert (start == 1).all()
    assert (end == 1).all()


# all windows of a question


def answers_of(windows_of_question, context, n_best=1, max_answer_length=30, kept=None):
    """Answers of one question, as the reader makes them. Token t of every window is character t of the context.

    windows_of_question: (start_logits, end_logits, begin, end); kept: spans that each window passes on.
    """
    spans, log_normalisers = [], []
    for start, end, begin, stop in windows_of_question:
        first, last, scores, log_normaliser = best_spans(
            np.array([start], np.float32),
            np.array([end], np.float32),
            np.array([begin]),
            np.array([stop]),
            n_best=kept or n_best,
            max_answer_length=max_answer_length,
        )
        spans += zip(first[0].tolist(), (last[0] + 1).tolist(), scores[0].tolist(), strict=True)
        log_normalisers.append(float(log_normaliser[0]))
    return merge(spans, log_normalisers, context, n_best)


def merge(spans, log_normalisers, context, n_best=1):
    """merge_windows for one question: spans (start, end, score); its answers as dicts."""
    start, end, score = (np.array([column]) for column in zip(*spans, strict=True)) if spans else np.zeros((3, 1, 0))
    column, score, log_total = merge_windows(start, end, score, np.array([log_normalisers]), np.ones(score.shape, bool))
    assert column.shape == score.shape == (1, len(spans))
    best = [(*map(int, spans[i][:2]), s) for i, s in zip(column[0], score[0], strict=True) if s > -np.inf]
    assert len({(a, b) for a, b, _ in best}) == len(best), "each place once"
    taken = []
    kept = [span for span in best if take_place(taken, span[:2])][:n_best]
    return [
        {"text": context[a:b], "start": a, "end": b, "probability": float(np.exp(s - log_total[0]))} for a, b, s in kept
    ]


CONTEXT = "abcdefghijklmnopqrstuvwxyz"


@st.composite
def questions(draw, logits=REAL):
    """Windows of one question over the same characters, some overlapping, some apart, some without context."""
    length = draw(st.integers(1, 12))
    array = st.lists(logits, min_size=length, max_size=length)
    edge = st.integers(0, length)
    return [(draw(array), draw(array), *sorted((draw(edge), draw(edge)))) for _ in range(draw(st.integers(1, 4)))]


@given(questions(REAL | WIDE), st.integers(1, 5), st.integers(1, 8))
@example([([-10_000, 10_000], [10_000, -10_000], 0, 2)], 2, 2)
def test_answers_are_text_of_the_context_sorted_apart_and_their_probabilities_a_share(question, n_best, longest):
    answers = answers_of(question, CONTEXT, n_best, longest)
    assert len(answers) <= n_best
    assert (len(answers) > 0) == any(begin < end for *_, begin, end in question)
    for answer in answers:
        assert CONTEXT[answer["start"] : answer["end"]] == answer["text"] != ""
        assert answer["end"] - answer["start"] <= longest
        assert 0 <= answer["probability"] <= 1
    for better, worse in itertools.pairwise(answers):
        assert better["probability"] >= worse["probability"]
    for a, b in itertools.combinations(answers, 2):
        assert a["end"] <= b["start"] or b["end"] <= a["start"]
    assert sum(answer["probability"] for answer in answers) <= 1.001


@given(questions(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_windows_merge_in_any_order(question, n_best, random):
    shuffled = random.sample(question, len(question))
    one, other = (answers_of(q, CONTEXT, n_best, kept=5) for q in (question, shuffled))
    assert [(a["start"], a["end"]) for a in one] == [(a["start"], a["end"]) for a in other]
    assert [a["probability"] for a in one] == pytest.approx([a["probability"] for a in other], abs=1e-9)


@given(questions(st.integers(-9, 9)), st.integers(1, 8))
def test_the_answer_is_the_best_span_of_all_windows(question, longest):
    answers = answers_of(question, CONTEXT, 1, longest)
    spans = [span for window in question for span in all_spans(*window, longest)]
    assert [(a["start"], a["end"] - 1) for a in answers] == [(i, j) for _, i, j in choose(spans, 1)]


@given(st.integers(1, 12), st.integers(1, 8), st.data())
def test_probabilities_of_one_window_are_a_softmax_over_all_its_spans(length, longest, data):
    array = st.lists(REAL, min_size=length, max_size=length)
    window = (data.draw(array), data.draw(array), 0, length)
    spans = all_spans(*window, longest)
    total = log_sum([score for score, _, _ in spans])
    expected = {(i, j + 1): math.exp(score - total) for score, i, j in spans}
    assert sum(expected.values()) == pytest.approx(1)
    for answer in answers_of([window], CONTEXT, 5, longest):
        assert answer["probability"] == pytest.approx(expected[answer["start"], answer["end"]], rel=1e-4)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.integers(1, 4), st.data())
def test_probabilities_of_windows_that_do_not_overlap_are_one_softmax_over_all_spans(sizes, longest, data):
    """Not one per window: then a window that knows nothing would be as sure as the one with the answer."""
    length = sum(sizes)
    array = st.lists(REAL, min_size=length, max_size=length)
    edges = list(itertools.pairwise([0, *itertools.accumulate(sizes)]))
    question = [(data.draw(array), data.draw(array), *edge) for edge in edges]
    spans = [span for window in question for span in all_spans(*window, longest)]
    total = log_sum([score for score, _, _ in spans])
    expected = {(i, j + 1): math.exp(score - total) for score, i, j in spans}
    for answer in answers_of(question, CONTEXT, 4, longest):
        assert answer["probability"] == pytest.approx(expected[answer["start"], answer["end"]], rel=1e-4)


def softmax_merged_by_maximum(question, longest):
    """The probability of every span by definition: equal spans of several windows count once, with their best score."""
    merged = {}
    for window in question:
        for score, i, j in all_spans(*window, longest):
            merged[i, j + 1] = max(score, merged.get((i, j + 1), -math.inf))
    total = log_sum(list(merged.values()))
    return {span: math.exp(score - total) for span, score in merged.items()}


@given(questions(), st.integers(1, 8))
def test_overlapping_windows_never_make_an_answer_surer_than_its_share(question, longest):
    for answer in answers_of(question, CONTEXT, 3, longest):
        share = softmax_merged_by_maximum(question, longest)[answer["start"], answer["end"]]
        assert answer["probability"] <= share * 1.0001


@pytest.mark.parametrize("seen_by", [1, 2, 3])
@pytest.mark.parametrize("n_best", [1, 3])
def test_an_answer_that_several_windows_see_is_as_probable_as_if_one_did(seen_by, n_best):
    """Overlapping windows see the same span. It counts once: else its probability would be a half, or a third."""
    rest = [-4.0] * 12
    start, end = rest.copy(), rest.copy()
    start[5], end[6] = 6.0, 6.0
    question = [(start, end, k, 12) for k in range(seen_by)]
    best = answers_of(question, CONTEXT, n_best)[0]
    assert (best["start"], best["end"]) == (5, 7)
    assert best["probability"] == pytest.approx(softmax_merged_by_maximum(question, 30)[5, 7], abs=0.02)


def test_no_window_with_context_gives_no_answer():
    assert merge([], [], "") == []
    assert answers_of([([1.0], [1.0], 0, 0), ([1.0], [1.0], 1, 1)], CONTEXT, 3) == []


def test_more_answers_than_any_memory_holds_may_be_asked_for():
    spans, log_normalisers = [(0, 1, 1.0), (2, 3, 2.0)], [3.0]
    assert merge(spans, log_normalisers, CONTEXT, 10**12) == merge(spans, log_normalisers, CONTEXT, 2)


def test_a_span_without_a_character_is_no_answer():
    answers = merge([(3, 3, 9.0), (0, 0, -math.inf), (1, 2, 1.0)], [9.1, -math.inf], CONTEXT, 3)
    assert [answer["text"] for answer in answers] == ["b"]


def test_a_single_token_is_the_answer_whatever_its_logits():
    for logit in (-10_000, 0, 10_000):
        (answer,) = answers_of([([logit], [logit], 0, 1)], "a", 3)
        assert answer == {"text": "a", "start": 0, "end": 1, "probability": 1.0}


# from questions to answers


def read_with(examples, features, logits_of, max_answer_length=30):
    """{id: text} for every example, with `logits_of(window)` in the model's place."""
    spans, log_normalisers = [[] for _ in examples], [[] for _ in examples]
    for i in range(len(features)):
        window = features[i]
        start, end = logits_of(window)
        edges = np.array([window["context_start"]]), np.array([window["context_end"]])
        first, last, scores, log_normaliser = best_spans(
            start[None], end[None], *edges, max_answer_length=max_answer_length
        )
        question = window["example_index"]
        begin, stop = window["offsets"][first[0, 0], 0], window["offsets"][last[0, 0], 1]
        spans[question].append((int(begin), int(stop), float(scores[0, 0])))
        log_normalisers[question].append(float(log_normaliser[0]))
    return [merge(spans[i], log_normalisers[i], item["context"]) or [None] for i, item in enumerate(examples)]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.lists(
    st.sampled_from(["The", "café", "한국어", "e\u0301", "北京", "🙂", "1,204", "\u200b", "?"]), max_size=60
).map(" ".join)


@given(TEXT, st.integers(0, 1000))
def test_every_context_with_a_token_has_an_answer_that_is_a_piece_of_it(tokenizer, context, seed):
    random = np.random.default_rng(seed)
    examples = [{"question": "Who?", "context": context}]
    features = prepare_validation_features(examples, tokenizer, 32, 10)
    ((answer,),) = read_with(examples, features, lambda window: random.normal(0, 9, (2, len(window["input_ids"]))))
    has_token = len(tokenizer.encode(context, add_special_tokens=False).ids) > 0
    assert (answer is not None) == has_token
    if has_token:
        assert answer["text"] != ""
        assert context[answer["start"] : answer["end"]] == answer["text"]
        assert 0 < answer["probability"] <= 1


@pytest.mark.parametrize(
    ("questions", "max_length", "doc_stride"),
    [("sample_examples", 384, 128), ("sample_examples", 96, 32), ("dev_examples", 384, 128)],
)
def test_perfect_logits_give_the_gold_answers(questions, max_length, doc_stride, request, real_tokenizer):
    """What windows, labels and span choice can cost at most. With BERT's own pieces 99.52 EM and 99.56 F1 are left.

    Lost is what begins or ends within a piece of a word ("8" of "18"), and what is longer than 30 tokens.
    """
    examples = request.getfixturevalue(questions)
    features = prepare_train_features(examples, real_tokenizer, max_length, doc_stride)

    def perfect(window):
        logits = np.zeros((2, len(window["input_ids"])), dtype=np.float32)
        logits[0, window["start_position"]] = logits[1, window["end_position"]] = 20
        return logits

    answers = [answer for (answer,) in read_with(examples, features, perfect)]
    predictions = {item["id"]: answer["text"] for item, answer in zip(examples, answers, strict=True)}
    scores = compute_metrics(predictions, examples)
    assert scores["total"] == len(examples)
    assert scores["exact_match"] > 99, scores
    assert scores["f1"] > 99, scores

    for item, answer in zip(examples, answers, strict=True):
        references = item["answers"]
        text, begin = references["text"][0], references["answer_start"][0]
        if exact_match_score(answer["text"], references["text"]):
            continue
        too_long = len(real_tokenizer.encode(text, add_special_tokens=False).ids) > 30
        within_a_piece = answer["start"] <= begin and begin + len(text) <= answer["end"]
        assert too_long or within_a_piece, f"{item['id']}: {text!r} was read as {answer['text']!r}"


def test_an_answer_longer_than_max_answer_length_is_not_given(tokenizer):
    words = "ships counted " * 10
    examples = [{"question": "Who?", "context": words}]
    features = prepare_validation_features(examples, tokenizer, 96, 10)

    def whole(window):
        logits = np.zeros((2, len(window["input_ids"])))
        logits[0, window["context_start"]] = logits[1, window["context_end"] - 1] = 9
        return logits

    tokens = len(tokenizer.encode(words, add_special_tokens=False).ids)
    for longest in (1, tokens - 1, tokens):
        ((answer,),) = read_with(examples, features, whole, longest)
        assert len(tokenizer.encode(answer["text"], add_special_tokens=False).ids) <= longest
        assert (answer["text"] == words.strip()) == (longest == tokens)
