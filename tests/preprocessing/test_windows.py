"""Windows and labels: cut as transformers cuts them, whole, overlapping as asked; spans that hold the answer."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import SPECIAL_TOKENS, TEXTS, save_tokenizer
from hypothesis import assume, example, given
from hypothesis import strategies as st
from transformers_windows import assert_equal_to_transformers, transformers_windows, widened

from extractive_qa.errors import QAError
from extractive_qa.preprocessing import windows as windows_module
from extractive_qa.preprocessing.graphemes import grapheme_edges
from extractive_qa.preprocessing.windows import (
    check_window_settings,
    load_tokenizer,
    longest_question,
    prepare_train_features,
    prepare_validation_features,
    shortest_step,
)
from utils.offline import PROJECT_ROOT

SETTINGS = [(384, 128), (96, 32)]
# pieces of words, scripts without spaces, decomposing and invisible characters, the tokenizer's own marks
AWKWARD = ["##ing", "é", "e\u0301", "한국어", "\u200b", "\ufffd", "\x00", "\t\n", "\u2028", "🙂", "İstanbul", "ﬁ", "ß"]
WORDS = st.sampled_from([*" ".join(TEXTS).split(), *SPECIAL_TOKENS, *AWKWARD, "x" * 120])
TEXT = st.one_of(
    st.lists(WORDS, max_size=60).map(" ".join), st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
)
QUESTION = st.lists(WORDS.filter(lambda word: len(word) < 10), min_size=1, max_size=4).map(" ".join)


def one_example(question, context, answer=None, start=0):
    return {
        "id": "1",
        "question": question,
        "context": context,
        "answers": {"text": [answer or context], "answer_start": [start]},
    }


@pytest.fixture(scope="module")
def peer(tokenizer_dir):
    """transformers' own tokenizer of the small folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_dir, local_files_only=True)


# equal to transformers


@pytest.mark.parametrize(
    ("questions", "max_length", "doc_stride"),
    [
        ("sample_examples", 384, 128),
        ("sample_examples", 96, 32),
        pytest.param("train_examples", 384, 128, marks=pytest.mark.slow),
        ("dev_examples", 96, 32),
    ],
)
def test_windows_of_every_question_at_hand_equal_transformers(
    questions, max_length, doc_stride, request, real_tokenizer_dir
):
    from transformers import AutoTokenizer

    examples = request.getfixturevalue(questions)
    features = prepare_validation_features(examples, load_tokenizer(real_tokenizer_dir), max_length, doc_stride)
    peer = AutoTokenizer.from_pretrained(real_tokenizer_dir, local_files_only=True)
    assert_equal_to_transformers(features, transformers_windows(peer, examples, max_length, doc_stride))


@given(st.lists(st.tuples(QUESTION, TEXT), min_size=1, max_size=4), st.integers(64, 90), st.integers(0, 20))
@example([("who?", "")], 64, 20)  # a context without a token
@example([("[SEP] who?", "[CLS] it was [SEP] he")], 64, 20)
@example([("who?", "a " * 59), ("who?", "a " * 60), ("who?", "a " * 61)], 64, 0)  # around a full window
def test_windows_of_any_text_equal_transformers(tokenizer, peer, pairs, max_length, doc_stride):
    examples = [one_example(question, context) for question, context in pairs]
    features = prepare_validation_features(examples, tokenizer, max_length, doc_stride)
    room = longest_question(max_length, doc_stride, 3)
    assume((np.diff(features.question_splits) < room).all())  # else it may have been cut, where transformers gives up
    assert_equal_to_transformers(features, transformers_windows(peer, examples, max_length, doc_stride))


def test_windows_of_another_pair_template_equal_transformers(tmp_path):
    """Two separators between, as RoBERTa has it: nothing of BERT's template is built in."""
    from transformers import AutoTokenizer

    save_tokenizer(tmp_path, TEXTS, vocab_size=150, pair="[CLS] $A [SEP] [SEP] $B:1 [SEP]:1")
    examples = [one_example("Who counted ships?", " ".join(TEXTS)), one_example("Where?", TEXTS[1])]
    features = prepare_validation_features(examples, load_tokenizer(tmp_path), 64, 20)
    peer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert_equal_to_transformers(features, transformers_windows(peer, examples, 64, 20))


def test_a_template_with_the_context_first_is_refused(tmp_path):
    save_tokenizer(tmp_path, TEXTS, vocab_size=150, pair="[CLS] $B [SEP] $A:1 [SEP]:1")
    with pytest.raises(QAError, match="question before the context"):
        prepare_validation_features([one_example("Who?", "He.")], load_tokenizer(tmp_path), 64, 20)


def test_truncation_and_padding_saved_with_a_tokenizer_change_nothing(tokenizer_dir, tokenizer, tmp_path):
    from tokenizers import Tokenizer

    saved = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    saved.enable_truncation(20)
    saved.enable_padding(length=200)
    saved.save(str(tmp_path / "tokenizer.json"))
    examples = [one_example("Who counted ships?", " ".join(TEXTS))]
    expected = prepare_validation_features(examples, tokenizer, 64, 20)
    found = prepare_validation_features(examples, load_tokenizer(tmp_path), 64, 20)
    assert [w["input_ids"].tolist() for w in found] == [w["input_ids"].tolist() for w in expected]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\xfe", b'{"model": 3}'])
def test_a_tokenizer_that_cannot_be_read_is_a_user_error(content, tmp_path):
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(QAError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_preparing_and_choosing_needs_neither_torch_nor_transformers():
    code = (
        "import sys, extractive_qa.preprocessing.windows, extractive_qa.preprocessing.batches\n"
        "import extractive_qa.postprocessing.spans\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=True, timeout=60)


# whole windows


@given(QUESTION, TEXT, st.integers(16, 90), st.data())
def test_windows_cover_the_context_overlap_as_asked_and_keep_the_question(
    tokenizer, question, context, max_length, data
):
    most = longest_question(max_length, 0, 3) - 1
    doc_stride = data.draw(st.integers(0, most))
    assert check_window_settings(max_length, doc_stride) == []
    features = prepare_validation_features([one_example(question, context)], tokenizer, max_length, doc_stride)
    question_ids = tokenizer.encode(question, add_special_tokens=False).ids
    kept = min(len(question_ids), longest_question(max_length, doc_stride, 3))
    whole = tokenizer.encode(context, add_special_tokens=False)

    covered = 0
    for i, window in enumerate(features):
        start, end = window["context_start"], window["context_end"]
        assert window["input_ids"][1 : 1 + kept].tolist() == question_ids[:kept]
        assert start == kept + 2
        assert len(window["input_ids"]) == end + 1 == features.lengths[i] <= max_length
        first = 0 if i == 0 else covered - doc_stride  # exactly doc_stride tokens are seen by both neighbours
        assert window["input_ids"][start:end].tolist() == whole.ids[first : first + end - start]
        offsets = [widened(context, *offset) for offset in whole.offsets[first : first + end - start]]
        assert window["offsets"][start:end].tolist() == offsets
        advance = first + end - start - covered
        last = i == len(features) - 1
        assert last or len(window["input_ids"]) == max_length, "a window that is not full is the last"
        assert advance >= shortest_step(max_length) or last
        assert advance > 0 or len(features) == 1
        covered += advance
    assert covered == len(whole.ids)


@given(st.lists(st.tuples(QUESTION, TEXT), min_size=2, max_size=5), st.booleans())
def test_windows_of_a_question_do_not_depend_on_the_others(tokenizer, pairs, share_context):
    """Contexts are tokenized once for all their questions; nothing may pass from one to another."""
    examples = [one_example(q, pairs[0][1] if share_context and i % 2 else c) for i, (q, c) in enumerate(pairs)]
    together = prepare_train_features(examples, tokenizer, 40, 10)
    alone = [window for e in examples for window in prepare_train_features([e], tokenizer, 40, 10)]
    assert len(together) == len(alone)
    for found, expected in zip(together, alone, strict=True):
        for name in expected.keys() - {"example_index"}:
            assert np.array_equal(found[name], expected[name]), name


def test_no_question_gives_no_window(tokenizer):
    assert len(prepare_validation_features([], tokenizer, 384, 128)) == 0
    assert len(prepare_train_features([], tokenizer, 384, 128)) == 0


@pytest.mark.parametrize("context", ["", " \n", "\u200b", "\ufffd"])
def test_a_context_without_a_token_has_one_window_with_nothing_in_it(tokenizer, context):
    features = prepare_train_features([one_example("Who?", context, "x")], tokenizer, 64, 20)
    assert len(features) == 1
    assert features[0]["context_start"] == features[0]["context_end"]
    assert (features[0]["offsets"] == -1).all()
    assert features[0]["start_position"] == features[0]["end_position"] == 0


def test_lone_surrogates_are_read_as_the_replacement_character(tokenizer):
    """They reach us from a web page or a console, not through squad.py."""
    with_surrogates = [one_example("Who\ud800?", "It was \udfffhim\ud83d.")]
    replaced = [one_example("Who\ufffd?", "It was \ufffdhim\ufffd.")]
    found, expected = (prepare_validation_features(e, tokenizer, 64, 20)[0] for e in (with_surrogates, replaced))
    assert found["input_ids"].tolist() == expected["input_ids"].tolist()
    assert found["offsets"].tolist() == expected["offsets"].tolist()


# settings and long questions


@given(st.integers(16, 600), st.integers(3, 4))
def test_the_largest_stride_that_a_refusal_names_is_accepted_and_no_larger_one(max_length, special_tokens):
    message = "; ".join(check_window_settings(max_length, max_length, special_tokens))
    most = int(message.rsplit(" ", 1)[1])
    assert check_window_settings(max_length, most, special_tokens) == []
    assert check_window_settings(max_length, most + 1, special_tokens) != []


@pytest.mark.parametrize(
    ("max_length", "doc_stride"), [(384, 384), (384, 383), (384, 400), (384, -1), (15, 0), (0, 0), (-5, 3), (16, 12)]
)
def test_settings_with_which_no_window_advances_are_refused(max_length, doc_stride, tokenizer):
    with pytest.raises(QAError, match=r"(max_length|doc_stride)="):
        prepare_validation_features([one_example("Who?", "He.")], tokenizer, max_length, doc_stride)


@pytest.mark.parametrize(("max_length", "doc_stride"), [*SETTINGS, (16, 11), (40, 0)])
def test_a_question_longer_than_a_window_is_cut_with_a_warning(max_length, doc_stride, tokenizer, caplog):
    words, context = " ".join(f"{n}" for n in range(500)), " ".join(TEXTS * 4)
    item, next_item = one_example(words, context), one_example("Who?", context)
    features = prepare_train_features([item, next_item], tokenizer, max_length, doc_stride)
    room = longest_question(max_length, doc_stride, 3)
    assert f"longer than the {room} tokens" in caplog.text
    windows = [window for window in features if window["example_index"] == 0]
    kept = tokenizer.encode(words, add_special_tokens=False).ids[:room]
    assert all(window["input_ids"][1 : 1 + room].tolist() == kept for window in windows)
    tokens = len(tokenizer.encode(context, add_special_tokens=False).ids)
    assert len(windows) <= 1 + 20 * tokens / max_length, "hardly anything of a window is new"
    assert windows[-1]["offsets"].max() == len(context)
    # the next question is not touched by it
    alone = prepare_train_features([next_item], tokenizer, max_length, doc_stride)
    for found, expected in zip(list(features)[len(windows) :], alone, strict=True):
        assert found["input_ids"].tolist() == expected["input_ids"].tolist()


def test_a_question_that_just_fits_is_not_cut(tokenizer, caplog):
    room = longest_question(96, 32, 3)
    features = prepare_validation_features([one_example("1 " * room, TEXTS[0])], tokenizer, 96, 32)
    assert features[0]["context_start"] == room + 2
    assert caplog.text == ""


# labels


def expected_labels(tokenizer, example, window, first):
    """Positions by definition: all tokens that share a letter with the first answer, if all are in the window.

    first: the context token with which the window begins.
    """
    begin = example["answers"]["answer_start"][0]
    end = begin + len(example["answers"]["text"][0])
    offsets = tokenizer.encode(example["context"], add_special_tokens=False).offsets
    offsets = [widened(example["context"], *offset) for offset in offsets]
    touched = [i for i, (start, stop) in enumerate(offsets) if start < end and begin < stop]
    last = first + window["context_end"] - window["context_start"]
    if not touched or touched[0] < first or touched[-1] >= last:
        return 0, 0
    return touched[0] - first + window["context_start"], touched[-1] - first + window["context_start"]


@given(QUESTION, TEXT, st.integers(32, 64), st.integers(0, 12), st.data())
def test_labels_are_the_tokens_of_the_answer_where_all_are_inside_and_else_0(
    tokenizer, question, context, max_length, doc_stride, data
):
    assume(context)
    start = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(start + 1, len(context)))
    item = one_example(question, context, context[start:end], start)
    features = prepare_train_features([item], tokenizer, max_length, doc_stride)
    step = max_length - 3 - int(features.question_splits[-1]) - doc_stride
    labels = [(window["start_position"], window["end_position"]) for window in features]
    assert labels == [expected_labels(tokenizer, item, window, i * step) for i, window in enumerate(features)]
    offsets = [widened(context, *o) for o in tokenizer.encode(context, add_special_tokens=False).offsets]
    tokens = sum(s < end and start < e for s, e in offsets)
    if 0 < tokens <= doc_stride + 1:
        assert any(label != (0, 0) for label in labels), "an answer no longer than the overlap is whole somewhere"


def test_only_the_first_answer_is_labelled(tokenizer):
    item = one_example("Who?", "Ada met Bob and Eve.")
    item["answers"] = {"text": ["Bob", "Ada"], "answer_start": [8, 0]}
    window = prepare_train_features([item], tokenizer, 64, 20)[0]
    assert window["offsets"][window["start_position"], 0] == 8
    assert window["offsets"][window["end_position"], 1] == 11


@pytest.mark.parametrize(("max_length", "doc_stride"), SETTINGS)
def test_every_labelled_span_of_real_questions_decodes_to_its_answer(
    max_length, doc_stride, train_examples, real_tokenizer
):
    """Up to tokenization: where the annotators' answer begins or ends within a piece, the whole piece is the label.

    With BERT's pieces 99.3 % of the spans are the answer, letter for letter.
    """
    features = prepare_train_features(train_examples, real_tokenizer, max_length, doc_stride)
    labelled = np.flatnonzero(features.start_position)
    exact = 0
    for i in labelled:
        window, item = features[i], train_examples[features.example_index[i]]
        text, begin = item["answers"]["text"][0], item["answers"]["answer_start"][0]
        offsets = window["offsets"][window["start_position"] : window["end_position"] + 1]
        span = item["context"][offsets[0, 0] : offsets[-1, 1]]
        exact += span == text
        assert text.strip() in span, f"{item['id']}: {span!r} does not hold {text!r}"
        # no token could be left out
        assert offsets[0, 1] > begin, f"{item['id']}: {span!r}"
        assert offsets[-1, 0] < begin + len(text), f"{item['id']}: {span!r}"
    assert exact / len(labelled) > 0.99, f"{exact} of {len(labelled)}"
    # nowhere 0 without reason: the answer's characters are not all in the window
    for i in np.flatnonzero(features.start_position == 0):
        window, item = features[i], train_examples[features.example_index[i]]
        begin = item["answers"]["answer_start"][0]
        end = begin + len(item["answers"]["text"][0].rstrip())
        seen = window["offsets"][window["context_start"] : window["context_end"]]
        assert seen[0, 0] > begin or seen[-1, 1] < end, f"{item['id']} stands whole in window {i}"
    if max_length == 384:
        assert len(set(features.example_index[labelled])) == len(train_examples)


# marks


def without_marks_kept(monkeypatch, examples, tokenizer):
    """Training features as they were before marks belonged to their letters: the tokenizer's own offsets."""
    with monkeypatch.context() as patch:
        patch.setattr(windows_module, "keep_marks", lambda *_: None)
        return prepare_train_features(examples, tokenizer, 384, 128)


def test_of_real_questions_only_ends_at_marks_have_changed(train_examples, dev_examples, real_tokenizer, monkeypatch):
    """On SQuAD's English the offsets of 16 of 474,397 tokens, and the label of none of 16,838 questions."""
    examples = [*train_examples, *dev_examples]
    before = without_marks_kept(monkeypatch, examples, real_tokenizer)
    after = prepare_train_features(examples, real_tokenizer, 384, 128)
    assert np.array_equal(before.context_ids, after.context_ids)
    assert np.array_equal(before.first_token, after.first_token)
    assert (before.context_offsets[:, 0] >= after.context_offsets[:, 0]).all()
    assert (before.context_offsets[:, 1] <= after.context_offsets[:, 1]).all()
    moved = (before.context_offsets != after.context_offsets).any(axis=1)
    labels = [np.stack([f.start_position, f.end_position], axis=1) for f in (before, after)]
    changed = np.unique(after.example_index[(labels[0] != labels[1]).any(axis=1)])
    said = f"{moved.sum()} of {len(moved)} tokens' offsets, labels of {len(changed)} of {len(examples)} questions"
    assert (moved.mean() < 0.001) and len(changed) == 0, said


@pytest.mark.parametrize("strips", [True, False], ids=["marks dropped", "marks kept"])
@pytest.mark.parametrize(
    ("context", "answer"),
    [
        ("It was founded by Rene\u0301.", "Rene\u0301"),
        ("It was founded by Rene\u0301.", "Rene"),  # a label that cuts the mark off means the same
        ("A\u030angstro\u0308m wrote it", "A\u030angstro\u0308m"),
        ("\u0928\u0926\u0940 \u0915\u0940 \u0932\u0902\u092c\u093e\u0908", "\u0928\u0926\u0940"),  # vowel signs
        ("we like \u2764\ufe0f a lot", "\u2764\ufe0f"),  # a variation selector
        ("the \U0001f469\u200d\U0001f4bb wrote it", "\U0001f469\u200d\U0001f4bb"),
    ],
)
def test_a_labelled_span_ends_where_a_letter_with_its_marks_ends(context, answer, strips, tmp_path):
    tokenizer = marked_tokenizer(context, strips)
    start = context.index(answer)
    window = prepare_train_features([one_example("Who?", context, answer, start)], tokenizer, 64, 16)[0]
    begin, end = window["offsets"][window["start_position"], 0], window["offsets"][window["end_position"], 1]
    whole = widened(context, start, start + len(answer))
    assert [begin, end] == whole
    assert context[begin:end] in (answer, answer + "\u0301")


def marked_tokenizer(text, strips):
    """Of words, where marks are dropped as BERT's uncased tokenizers do; else of single characters, marks too."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    special = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}
    tokenizer = Tokenizer(models.WordLevel(special | {"Who": 3, "?": 4}, unk_token="[UNK]"))
    if strips:
        dropped = normalizers.Replace(Regex("[\\p{M}\u200d]"), "")
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), dropped])
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("."), "isolated")]
        )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tokenizer


@given(st.text(st.sampled_from("ae \n\u0301\u0308\u0940\u200d\ufe0f\u2764\U0001f469中é."), max_size=12), st.data())
def test_edges_of_graphemes_are_those_found_character_by_character(text, data):
    starts, ends = grapheme_edges(text)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    assert [starts[start], ends[end]] == widened(text, start, end)
