"""Passages: every word is in one, they overlap, and end with a sentence."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractive_qa.documents.passages import LONGEST, LONGEST_WORD, OVERLAP, cut_passages, join_overlapping, words_of

SENTENCES = st.lists(
    st.tuples(st.integers(1, 250), st.sampled_from([". ", "! ", "。", "\n\n", ' said." ', " ", "\n"])), max_size=12
)


@given(SENTENCES)
def test_every_word_is_in_a_passage_and_none_is_too_long(sentences):
    text = "".join(" ".join(f"w{i}x{n}" for n in range(count)) + end for i, (count, end) in enumerate(sentences))
    passages = cut_passages(text)
    covered = set()
    for (start, end), (next_start, next_end) in itertools.pairwise(passages):
        assert start < next_start and end < next_end and next_start <= end + 2
    for start, end in passages:
        assert 0 <= start < end <= len(text) and text[start:end] == text[start:end].strip()
        assert len(text[start:end].split()) <= LONGEST
        covered.update(range(start, end))
    assert covered >= {place for place, char in enumerate(text) if not char.isspace()}


def test_passages_end_with_a_sentence_and_repeat_the_last_of_the_one_before():
    sentence = "This sentence has exactly eight words in it. "
    text = sentence * 100
    passages = [text[start:end] for start, end in cut_passages(text)]
    assert all(passage.endswith("it.") and passage.startswith("This") for passage in passages)
    assert all(len(passage.split()) > LONGEST - 8 for passage in passages[:-1])
    (first, second), words = cut_passages(text)[:2], sentence.split()
    repeated = len(text[second[0] : first[1]].split())
    assert OVERLAP - len(words) < repeated <= OVERLAP


@given(SENTENCES, st.data())
def test_passages_that_overlap_come_as_one_and_no_character_twice(sentences, data):
    """Of two texts: of the passages that were found the same characters are there, each once, the best ones first."""
    sources = []
    for name in "ab":
        words = (" ".join(f"{name}{i}x{n}" for n in range(count)) + end for i, (count, end) in enumerate(sentences))
        sources.append("".join(words))
    every = [
        {"text": text[start:end], "document": number, "start": start, "line": start}
        for number, text in enumerate(sources)
        for start, end in cut_passages(text)
    ]
    found = data.draw(st.permutations(every))[: data.draw(st.integers(0, len(every)))]
    joined = join_overlapping(found, ("document",))
    places = [(one["document"], one["start"] + i) for one in joined for i in range(len(one["text"]))]
    assert len(places) == len(set(places))
    assert set(places) == {(one["document"], one["start"] + i) for one in found for i in range(len(one["text"]))}
    for one in joined:
        assert sources[one["document"]][one["start"] :].startswith(one["text"]) and one["line"] == one["start"]
    ranks = [min(rank for rank, passage in enumerate(found) if holds(one, passage)) for one in joined]
    assert ranks == sorted(ranks)


def holds(joined: dict, passage: dict) -> bool:
    begins = passage["start"] - joined["start"]
    return joined["document"] == passage["document"] and 0 <= begins < len(joined["text"])


@pytest.mark.parametrize("text", ["", " \n ", "\n\n\n"])
def test_no_text_has_no_passage(text):
    assert cut_passages(text) == []


def test_a_line_without_a_space_is_cut_too():
    passages = cut_passages("x" * 100_000)
    assert "".join("x" * (end - start) for start, end in passages) == "x" * 100_000
    assert max(end - start for start, end in passages) == LONGEST * LONGEST_WORD


def test_words_are_found_in_any_case_without_accents_and_chinese_by_pairs():
    assert words_of("青石桥 bridge 桥")[:4] == ["青石", "石桥", "bridge", "桥"]
    words = words_of("What is the Height of Éverest in 2,020?")
    assert words == ["height", "everest", "2", "020", "height", "everest", "2", "020"]
    decomposed = ("E\u0301VEREST", "éverest", "EVEREST", "Ёлка", "елка", "ﾊﾟﾝ", "パン", "が", "か", "한글")
    everest, same, plain, yo, ye, half, full, ga, ka, korean = map(words_of, decomposed)
    assert everest == same == plain and yo == ye and half == full
    assert ga != ka and korean[0] == "한글"  # marks of other scripts stay


def test_a_word_is_found_by_its_other_forms_but_counts_more_as_it_is():
    whale, whales, wale = (words_of(word) for word in ("whale", "whales", "wale"))
    assert set(whale) & set(whales) and not set(whale) & set(wale)
    assert len(set(words_of("whales")) & set(whales)) > len(set(whale) & set(whales))
