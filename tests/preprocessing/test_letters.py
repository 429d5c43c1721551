"""Offsets of tokenizers to which a space belongs to the word behind it: no letter is lost, no white space comes."""

import itertools

import numpy as np
import pytest
from conftest import TEXTS
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from extractive_qa.preprocessing.windows import prepare_train_features, tokenize

NAMES = [("<s>", 0), ("</s>", 1)]
TEMPLATE = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=NAMES)
BYTES = pre_tokenizers.ByteLevel.alphabet()


def trained(model, trainer, pre_tokenizer, post_processor, normalizer=None) -> Tokenizer:
    tokenizer = Tokenizer(model)
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator([*TEXTS, "Anna Berg wrote it in 1911."] * 3, trainer)
    tokenizer.post_processor = post_processor
    return tokenizer


def byte_level(in_front: bool, trims: bool, said: bool, kind: str) -> Tokenizer:
    """Byte-level BPE. in_front: whether a space is put in front of a text. trims, said: of the post-processor."""
    settings = {"trim_offsets": trims, "add_prefix_space": said}
    posts = {
        "roberta": processors.RobertaProcessing(("</s>", 1), ("<s>", 0), **settings),
        "gpt": processors.Sequence([processors.ByteLevel(**settings), TEMPLATE]),
        "pieces": processors.Sequence([processors.ByteLevel(**settings), TEMPLATE]),
    }
    before = pre_tokenizers.ByteLevel(add_prefix_space=in_front)
    if kind == "pieces":  # a space in front of each piece
        before = pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), before])
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<s>", "</s>"], initial_alphabet=BYTES, show_progress=False
    )
    return trained(models.BPE(), trainer, before, posts[kind])


def unigram(scheme: str) -> Tokenizer:
    """Pieces that begin with ▁. scheme: of Metaspace, or "normalizer", which puts it there before the text is cut."""
    normalizer, pre_tokenizer = (
        None,
        pre_tokenizers.Metaspace(prepend_scheme=scheme if scheme != "normalizer" else "never"),
    )
    if scheme == "normalizer":
        normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    return trained(models.Unigram(), trainer, pre_tokenizer, TEMPLATE, normalizer)


BYTE_LEVEL = list(itertools.product([False, True], [False, True], [False, True], ["roberta", "gpt", "pieces"]))
SCHEMES = ["always", "first", "never", "normalizer"]
KINDS = {f"{kind} {front:d}{trims:d}{said:d}": (byte_level, front, trims, said, kind)
         for front, trims, said, kind in BYTE_LEVEL} | {scheme: (unigram, scheme) for scheme in SCHEMES}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def spaced(request) -> Tokenizer:
    make, *settings = KINDS[request.param]
    return make(*settings)


@pytest.mark.parametrize(
    "context", ["Anna Berg wrote it.", " Anna Berg wrote it.", "(Anna Berg), 1911.", "Born\nAnna Berg"]
)
@pytest.mark.parametrize("answer", ["Anna", "Anna Berg", "Berg"])
def test_a_labelled_answer_loses_no_letter_and_has_no_space(spaced, context, answer):
    """With trim_offsets and a space in front that the post-processor does not know of, it had been "nna Berg"."""
    start = context.index(answer)
    one = {"question": "Who?", "context": context, "answers": {"text": [answer], "answer_start": [start]}}
    features = prepare_train_features([one], spaced, 64, 16)
    _, (first,), (last,) = features.labels()
    (begin, _), (_, end) = features.context_offsets[[first, last]]
    found = context[begin:end]
    assert answer in found and found.strip() == found
    # a token may hold a mark that stands beside the word, but no letter of another one
    assert "".join(filter(str.isalpha, found)) == answer.replace(" ", "")


@given(
    st.lists(
        st.sampled_from([*" ".join(TEXTS).split(), " ", "\n", "\u00a0", "Anna", "🙂", "e\u0301", "("]), max_size=20
    )
)
@example(["Anna"])
@example([" ", "Anna"])
def test_every_letter_is_in_a_token_and_no_token_begins_or_ends_with_white_space(spaced, pieces):
    texts = ["".join(pieces), " ".join(pieces), "Anna"]
    _, offsets, splits = tokenize(spaced, texts, with_offsets=True)
    for number, text in enumerate(texts):
        covered = np.zeros(len(text), dtype=bool)
        of_text = offsets[splits[number] : splits[number + 1]]
        for begin, end in of_text:
            assert 0 <= begin <= end <= len(text)
            token = text[begin:end]
            assert token.strip() == token or not token.strip()
            covered[begin:end] = True
        assert all(covered[i] for i, char in enumerate(text) if not char.isspace())
        assert (np.diff(of_text, axis=0) >= 0).all(), "tokens rise"
