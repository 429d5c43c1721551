"""Answers are tidied where neither EM nor F1 sees it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractive_qa.metrics import normalize_answer
from extractive_qa.postprocessing.answers import group_places
from extractive_qa.postprocessing.tidy import says_nothing, tidy


@pytest.mark.parametrize(
    ("text", "answer", "tidied"),
    [
        ("5.5 km² (2.1 sq mi) in all", "5.5 km² (2.1 sq mi", "5.5 km² (2.1 sq mi)"),
        ("the agency (NASA) said", "(NASA", "(NASA)"),
        ("the agency (NASA and others)", "(NASA", "NASA"),
        ("the agency NASA) said", "NASA)", "NASA"),
        ("f(x) is", "f(x)", "f(x)"),
        ('He said "yes" to it', '"yes', '"yes"'),
        ('He said "yes, but', '"yes', "yes"),
        ('the song "Heroes" of', '"Heroes"', '"Heroes"'),
        ("Ada, Bob", "Ada,", "Ada"),
        ("It was: Ada; Bob", ": Ada;", "Ada"),
        ("It was in 1843. Then", "1843.", "1843"),
        ("by Apple Inc. in", "Apple Inc.", "Apple Inc."),
        ("Washington, D.C. is", "Washington, D.C.", "Washington, D.C."),
        ("at -40 °C", "-40 °C", "-40 °C"),
        ("about 50% of", "50%", "50%"),
        ("by \n Ada \n", " Ada \n", "Ada"),
        ("a . b", ".", "."),
        ("a ( b", "(", "("),
        ("北京、上海", "北京、", "北京、"),
    ],
)  # fmt: skip
def test_the_ends_of_an_answer(text, answer, tidied):
    begin = text.index(answer)
    start, end = tidy(text, begin, begin + len(answer))
    assert text[start:end] == tidied


PIECES = st.lists(
    st.sampled_from(["Ada", "1843", "the", "(", ")", "[", "]", '"', ",", ".", ";", " ", "D.C.", "é", "中", "-", "\n"]),
    min_size=1, max_size=12,
).map("".join)  # fmt: skip


@given(PIECES, PIECES, PIECES)
def test_what_is_compared_stays_and_a_second_time_changes_nothing(before, answer, after):
    text = before + answer + after
    start, end = tidy(text, len(before), len(before) + len(answer))
    assert 0 <= start < end <= len(text)
    assert end <= len(before) + len(answer) + 1 and start >= len(before)
    for unit in ("word", "character"):
        assert normalize_answer(text[start:end], unit) == normalize_answer(answer, unit)
    assert tidy(text, start, end) == (start, end)


def test_what_says_nothing():
    assert all(map(says_nothing, [".", "...", "“ ”", "。", "-", ") (", "the", "of the", "The", "in, or"]))
    assert not any(map(says_nothing, ["", "a b", ". Ada", "5.", "$", "₮)", "中", "é", "+", "The Who", "no", "it"]))


def test_what_says_nothing_is_an_answer_only_where_nothing_else_is():
    context = "It was Ada."

    def best(*spans: tuple[int, int]) -> list[str]:
        starts, ends = zip(*spans, strict=True)
        scores = [9.0 - n for n in range(len(spans))]
        return [answer["text"] for answer in group_places(context, 5, starts, ends, [True] * len(spans), scores)]

    assert best((10, 11), (7, 10)) == ["Ada"]
    assert best((3, 6), (10, 11), (7, 10)) == ["Ada"]
    assert best((10, 11), (3, 6)) == [".", "was"]
    assert best((7, 10), (10, 11)) == ["Ada", "."]
