"""extractive_qa/data/places.py: only what is certain is repaired."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractive_qa.data.places import BY_NEAR, BY_TEXT, cuts_a_word, find_place, occurrences

FERRY = "Opening hours: the Ferry Office opens at eight. All day the ferry office sells tickets."
CAT = "The cat and the dog. The cat."


@pytest.mark.parametrize(
    ("text", "start", "context", "place", "found", "repair"),
    [
        ("cat", 4, CAT, 4, "cat", ""),
        ("dog", None, CAT, 16, "dog", ""),
        ("dog", 18, CAT, 16, "dog", BY_NEAR),
        ("cat", 7, CAT, 4, "cat", BY_NEAR),
        ("cat", 23, CAT, 25, "cat", BY_NEAR),
        ("dog", 0, CAT, 16, "dog", BY_TEXT),
        ("dog", -1, CAT, 16, "dog", BY_TEXT),
        ("dog", 10**400, CAT, 16, "dog", BY_TEXT),
        ("the ferry office", 15, FERRY, 15, "the Ferry Office", "other case"),  # not to the letter, but where it says
        ("the ferry office", None, FERRY, 56, "the ferry office", ""),
        (" dog", 16, CAT, 16, "dog", "other white space"),
        ("dog ", 15, CAT, 16, "dog", BY_NEAR),
        ("12 l", 0, "12\u00a0l", 0, "12\u00a0l", "other white space"),
        ("a  b", 0, "a b", 0, "a b", "other white space"),
        ("5%", 2, "a 5 % b", 2, "5 %", "other white space"),
        ("Ren\u00e9", 3, "By Rene\u0301.", 3, "Rene\u0301", "other Unicode form"),
        ("Rene\u0301", None, "By Ren\u00e9.", 3, "Ren\u00e9", "other Unicode form"),
        ("\uff11\uff19", 3, "In 19.", 3, "19", "other Unicode form"),
        ("can\u2019t", 2, "I can't: so.", 2, "can't", "other typography"),
        ("\u201cso\u201d", 9, 'I can\'t: "so".', 9, '"so"', "other typography"),
        ("\u00e6r\u00f8", 3, "At \u00c6\u200br\u00f8.", 3, "\u00c6\u200br\u00f8", "other case"),
        ("stra\u00dfe", 0, "STRASSE", 0, "STRASSE", "other case"),
        ("\u516b\u5341\u4e03\u7c73", 3, "\u5168\u957f\u516b\u5341\u4e03\u7c73", 2, "\u516b\u5341\u4e03\u7c73", BY_NEAR),
        ("\u5341", 0, "\u5168\u957f\u516b\u5341\u4e03\u7c73", 3, "\u5341", BY_NEAR),
    ],
)
def test_what_is_certain_is_repaired(text, start, context, place, found, repair):
    assert find_place(text, start, context) == (place, found, repair, "")


@pytest.mark.parametrize(
    ("text", "start", "context", "reason"),
    [
        ("cat", 14, CAT, "occurs at 4 ('The [cat] and the dog. T…'), 25 ("),
        ("cat", None, CAT, "occurs at 4"),
        ("a", 1, "a a", "occurs at 0"),  # both are close
        ("1", 0, "2111", "occurs at 1"),
        ("ten", None, "We often go.", "inside a word at 5 ('We of[ten] go.')"),
        ("ten", 50, "We often go.", "inside a word"),
        ("bob", None, CAT, "is not in the context"),
        (
            "the dig",
            12,
            CAT,
            "is like the text at 12 up to 'the d[i]g', where the context has '…e cat and the d[o]g. The cat.'",
        ),
        ("\u0421at and", 4, CAT, "is not in the context"),  # a Cyrillic letter in front
        (
            "cat \u0430nd",
            4,
            CAT,
            "'cat [\u0430]nd', where the context has 'The cat [a]nd the dog. The…' (U+0430 against U+0061)",
        ),
    ],
)
def test_what_is_not_certain_is_left_to_its_owner_with_the_places(text, start, context, reason):
    place = find_place(text, start, context)
    assert place.start == -1
    assert reason in place.fault


def test_an_accent_that_the_answer_lacks_is_not_given_to_it():
    """Rene is not René, in whichever form it is written."""
    for context in ("By Rene\u0301.", "By Ren\u00e9."):
        assert find_place("rene", 3, context).fault


TEXT = st.text("aA b\u00a0\u00e9e\u0301\u2019'", max_size=12)


@given(TEXT, TEXT, TEXT, st.integers(-5, 40) | st.none())
def test_a_place_that_is_found_is_where_it_says(before, answer, after, start):
    context, answer = f"{before}{answer}x{after}", f"{answer}x"
    place = find_place(answer, start, context)
    assert place.fault or context[place.start : place.start + len(place.text)] == place.text != ""
    if start is not None and start >= 0 and context.startswith(answer, start):
        assert place == (start, answer, "", "")


@pytest.mark.parametrize("damage", ["shifted", "deleted", "moved"])
def test_repairs_of_real_labels_are_right(damage, train_examples):
    """A repair that is wrong is worse than a record that is refused."""
    rng, right, wrong, left, given = random.Random(0), 0, 0, 0, 0
    for example in train_examples:
        (text, *_), (start, *_), context = *example["answers"].values(), example["context"]
        if damage == "moved":  # to the letter there too: nobody can know, and nothing is repaired
            damaged = rng.choice(list(occurrences(text, context)))
        else:
            damaged = start + rng.choice([-3, -2, -1, 1, 2, 3]) if damage == "shifted" else None
        place = find_place(text, damaged, context)
        if place.fault:
            left += 1
        elif place.start == damaged:
            given += 1
        elif context[place.start : place.start + len(place.text)].strip() == text.strip() and place.start - start in (
            0,
            len(text) - len(text.lstrip()),
        ):
            right += 1
        else:
            wrong += 1
    total = len(train_examples)
    assert wrong <= 0.001 * (right + wrong)
    assert {"shifted": right > 0.999 * total, "deleted": right > 0.88 * total, "moved": given == total}[damage]


def test_words_are_cut_only_where_they_are_written_apart():
    assert cuts_a_word("often", 2, 5)
    assert cuts_a_word("1903", 0, 3)
    assert not cuts_a_word("(10 km)", 1, 3)
    assert not cuts_a_word("\u516b\u5341\u4e03", 1, 2)
