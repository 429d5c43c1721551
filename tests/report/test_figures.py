"""The figures of the report: groups sum to the whole, every mistake is of one kind, sentences say what figures show."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractive_qa.metrics import exact_match_score, f1_score
from extractive_qa.report.findings import causes, end_of_training, findings
from extractive_qa.report.outcomes import (
    MISTAKES,
    collect_outcomes,
    find_span,
    groups_of,
    kind_of_mistake,
    question_word,
)
from extractive_qa.report.statistics import analyse, compare, group_scores, mistakes

CONTEXT = "In 1912 the keeper Ada Krog lit the lamp. Her brother Per rowed to the old mill at Krog bay, in May."


def example(*golds: str, context: str = CONTEXT, question: str = "Who?", identifier: str = "a") -> dict:
    answers = {"text": list(golds), "answer_start": [context.index(gold) for gold in golds]}
    return {"id": identifier, "question": question, "context": context, "answers": answers}


def made_up(contexts: int = 60, seed: int = 0) -> tuple[list[dict], dict, dict]:
    """Examples with 1 to 6 questions a context, predictions that are right, cut, or elsewhere, and answers for them."""
    rng = np.random.default_rng(seed)
    examples, predictions, answers = [], {}, {}
    for c in range(contexts):
        words = [f"w{c}x{i}" for i in range(rng.integers(20, 200))]
        context = " ".join(words)
        for q in range(rng.integers(1, 7)):
            at, length = rng.integers(0, len(words) - 12), rng.choice([1, 2, 4, 6, 11])
            start = context.index(words[at])
            text = " ".join(words[at : at + length])
            word = rng.choice(["What is", "In what", "Who", "Why", "How many", "How", "Name"])
            identifier = f"{c}-{q}"
            examples.append(
                {"id": identifier, "question": f"{word} it?", "context": context,
                 "answers": {"text": [text], "answer_start": [start]}}
            )  # fmt: skip
            shift = rng.choice([0, 0, 0, 1, 9]) if word != "Why" else 1
            predicted = " ".join(words[at + shift : at + shift + length])
            begin = context.index(predicted)
            predictions[identifier] = predicted
            answers[identifier] = {
                "text": predicted, "start": begin, "end": begin + len(predicted), "probability": float(rng.random()),
            }  # fmt: skip
    return examples, predictions, answers


@pytest.mark.parametrize(
    ("predicted", "golds", "kind"),
    [
        ("", ["Ada Krog"], "no answer"),
        ("the", ["Ada Krog"], "no answer"),
        ("the keeper Ada Krog", ["Ada Krog"], "too long"),
        ("Ada", ["Ada Krog"], "too short"),
        ("keeper Ada", ["Ada Krog"], "overlapping"),
        ("Krog bay", ["Ada Krog"], "same words elsewhere"),
        ("1912", ["Ada Krog"], "same sentence"),
        ("Per", ["Ada Krog"], "another sentence"),
        ("Grace Hopper", ["Ada Krog"], "not in the context"),
        ("mr Ada Krog esq", ["Ada Krog"], "too long"),  # not in the context, but judged by its words
        ("Ada Krog lit", ["Per", "Ada"], "too long"),  # the nearest gold answer counts
        ("Krog", ["Krog bay", "Ada Krog lit"], "too short"),
    ],
)
def test_kinds_of_mistakes(predicted, golds, kind):
    asked = example(*golds)
    assert kind_of_mistake(predicted, find_span(predicted, asked), asked) == kind


@given(st.text("ab. é", max_size=12), st.integers(0, 8), st.integers(1, 8))
def test_every_mistake_has_a_kind_and_a_place_that_is_its_text(predicted, start, length):
    context = "ab a. bé b ab. a ab"
    gold = context[start : start + length]
    asked = {"context": context, "answers": {"text": [gold], "answer_start": [start]}}
    span = find_span(predicted, asked)
    assert (span is None) == (not predicted or predicted not in context)
    assert span is None or context[span[0] : span[1]] == predicted
    if not exact_match_score(predicted, [gold]):
        assert kind_of_mistake(predicted, span, asked) in MISTAKES


def test_of_several_places_the_one_nearest_to_the_gold_answer_is_taken():
    asked = {"context": "Krog, Krog, Krog, Krog", "answers": {"text": ["Krog"], "answer_start": [12]}}
    assert find_span("Krog", asked) == (12, 16)
    assert find_span(", Krog", asked) == (10, 16)


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("What is it?", "what"), ("In what year?", "what"), ("Whose was it?", "who"), ("To whom?", "who"),
        ("HOW  MANY ships?", "how many/much"), ("How old?", "how"), ("Somewhat: why?", "why"), ("Name it.", "other"),
        ("When and where?", "when"), ("Which?", "which"), ("谁？", "other"), ("Showhow", "other"),
    ],
)  # fmt: skip
def test_question_words(question, word):
    assert question_word(question) == word


def test_groups_sum_to_the_whole():
    examples, predictions, answers = made_up()
    windows = 1 + np.arange(len(examples)) % 7
    outcomes = collect_outcomes(examples, predictions, answers, windows)
    ways = {}
    for by, _, members in groups_of(outcomes):
        ways.setdefault(by, []).append(members)
    assert len(ways) == 5
    for members in ways.values():
        assert (np.sum(members, axis=0) == 1).all()
    pairs = [(predictions[e["id"]], e["answers"]["text"]) for e in examples]
    whole = {
        "exact_match": 100 * np.mean([exact_match_score(*pair) for pair in pairs]),
        "f1": 100 * np.mean([f1_score(*pair) for pair in pairs]),
    }
    rows = group_scores(outcomes)
    for by in ways:
        of_way = [row for row in rows if row["by"] == by]
        assert sum(row["questions"] for row in of_way) == len(examples)
        for name in ("exact_match", "f1"):
            mean = sum(row[name] * row["questions"] for row in of_way) / len(examples)
            assert mean == pytest.approx(whole[name])
    known = [(*row["exact_match_interval"], row["exact_match"]) for row in rows if row["exact_match_interval"]]
    assert len(known) > 15 and all(low <= value <= high for low, high, value in known)


def test_mistakes_are_separated_into_kinds():
    examples, predictions, answers = made_up()
    outcomes = collect_outcomes(examples, predictions, answers)
    rows = mistakes(outcomes)
    assert sum(row["count"] for row in rows) == (outcomes.exact_match == 0).sum() == sum(causes(rows).values())
    assert sum(row["share"] for row in rows) == pytest.approx(100)
    assert {"too short", "overlapping"} & {row["kind"] for row in rows}
    assert all(0 <= row["share_interval"][0] <= row["share"] <= row["share_interval"][1] for row in rows)


def test_a_group_that_is_bad_is_named_and_chance_is_not():
    examples, predictions, answers = made_up(contexts=150)
    said = " ".join(findings(analyse(collect_outcomes(examples, predictions, answers)), []))
    assert "“why” loses most: EM 0.0" in said
    even = [e for e in examples if "Why" not in e["question"]]
    rng = np.random.default_rng(1)
    chance = {e["id"]: e["answers"]["text"][0] if rng.random() < 0.6 else "" for e in even}
    assert "No group of questions is worse" in " ".join(findings(analyse(collect_outcomes(even, chance)), []))


def test_of_small_groups_nothing_is_said():
    examples, predictions, answers = made_up(contexts=12)
    assert "too small to tell" in " ".join(findings(analyse(collect_outcomes(examples, predictions, answers)), []))


def test_the_worst_mistakes_are_wrong_and_the_surest_come_first():
    examples, predictions, answers = made_up()
    outcomes = collect_outcomes(examples, predictions, answers)
    chosen = analyse(outcomes, shown=15)["worst"]
    badness = outcomes.probability[chosen] * (1 - outcomes.f1[chosen])
    assert (outcomes.exact_match[chosen] == 0).all() and (np.diff(badness) <= 0).all() and len(set(chosen)) == 15
    unsure = analyse(collect_outcomes(examples, predictions), shown=15)
    assert unsure["confidence"] is None and len(set(unsure["worst"])) == 15


def test_sentences_say_what_the_figures_show():
    examples, predictions, answers = made_up()
    outcomes = collect_outcomes(examples, predictions, answers)
    figures = analyse(outcomes)
    cause, count = next(iter(causes(figures["mistakes"]).items()))
    wrong = int((outcomes.exact_match == 0).sum())
    assert findings(figures, [])[0].startswith(f"The largest loss: {cause}, {100 * count / wrong:.0f} % of all {wrong}")
    for sure, words in ((0.05, "too low"), (0.999, "too high"), (outcomes.exact_match.mean(), "about right")):
        of_all = replace(outcomes, probability=np.full(len(examples), sure))
        assert words in " ".join(findings(analyse(of_all), []))
    golds = {e["id"]: e["answers"]["text"][0] for e in examples}
    assert "There is no mistake" in findings(analyse(collect_outcomes(examples, golds)), [])[0]


def coarse(half: float | None, contexts: int = 50, exact_match: float = 70.0) -> dict:
    """Scores that are known to within `half` points; None: all draws are the same."""
    interval = None if half is None else (exact_match - half, exact_match + half)
    return {
        "contexts": contexts, "questions": 3 * contexts, "exact_match": exact_match,
        "exact_match_interval": interval, "f1_interval": interval,
    }  # fmt: skip


def test_the_end_of_a_training_is_judged():
    log = [{"step": i, "epoch": i, "f1": f1} for i, f1 in ((1, 60.0), (2, 70.0))]
    said = end_of_training(log, coarse(2.0))
    assert "still rose" in said and "by 10.0" in said and "more epochs may help" in said
    said = end_of_training([*log, {"step": 3, "epoch": 3, "f1": 67.0}], coarse(2.0))
    assert "by 3.0" in said and "longer training won't help" in said
    assert end_of_training(log[:1], coarse(2.0)) == end_of_training([], coarse(2.0)) == ""


@pytest.mark.parametrize("last", [67.0, 72.0])
@pytest.mark.parametrize("scores", [coarse(3.5), coarse(0.1, contexts=4), coarse(None)])
def test_what_may_be_chance_is_no_reason_to_train_longer_or_not(last, scores):
    """One sentence had said that longer training won't help, the next that so small a difference may be chance."""
    log = [{"step": i, "epoch": i, "f1": f1} for i, f1 in ((1, 60.0), (2, 70.0), (3, last))]
    said = end_of_training(log, scores)
    assert "may be chance" in said and "help" not in said


@pytest.mark.parametrize(
    ("mean", "right", "contexts", "words"),
    [
        (0.91, 0.0, 300, "too high"),  # no two draws differ, and the figures are plain all the same
        (0.91, 0.0, 12, "too high"),
        (0.91, 0.0, 5, "from so few contexts"),
        (0.97, 1.0, 5, "from so few contexts"),
        (0.85, 1.0, 100, "too low"),
        (0.80, 1.0, 12, "about right"),  # 12 right answers tell little: it may be 75 %
    ],
)
def test_confidences_are_judged_where_every_context_has_the_same_em(mean, right, contexts, words):
    """“Confidences are about right: 91 % on average, where 0 % of the answers are right” was said of these."""
    examples = [example("Ada Krog", context=f"{CONTEXT} {i}", identifier=str(i)) for i in range(contexts)]
    outcomes = collect_outcomes(examples, {str(i): "Ada Krog" if right else "" for i in range(contexts)})
    figures = analyse(replace(outcomes, probability=np.full(contexts, mean)))
    assert figures["scores"]["exact_match_interval"] is None
    said = " ".join(findings(figures, []))
    assert words in said
    others = {"too high", "too low", "about right", "from so few contexts"} - {words}
    assert not [other for other in others if other in said]


CHINESE = "青石桥建于一九三二年，全长八十七米，由本地石匠修建。南岸的茶馆每天早晨六点开门。"


def test_of_scripts_without_spaces_characters_are_counted():
    asked = {
        "青石桥有多长？": ("八十七米", "全长八十七米"), "哪一年建成的？": ("一九三二年", "一九三二"),
        "谁修建了它？": ("本地石匠", "石匠，由本地"), "为什么？": ("茶馆", "茶馆"),
    }  # fmt: skip
    examples = [
        example(gold, context=CHINESE, question=question, identifier=question) for question, (gold, _) in asked.items()
    ]
    outcomes = collect_outcomes(examples, {question: given for question, (_, given) in asked.items()})
    assert outcomes.f1_unit == "character"
    assert outcomes.exact_match.tolist() == [0, 0, 0, 1] and outcomes.f1.min() > 0.7
    groups = {(by, name): members.tolist() for by, name, members in groups_of(outcomes)}
    words = ("how many/much", "when", "who", "why")
    for number, word in enumerate(words):
        assert groups["question word", word] == [number == i for i in range(4)]
    assert groups["answer length", "3 to 4 characters"] == [True, False, True, False]
    assert groups["answer length", "5 to 9 characters"] == [False, True, False, False]
    assert groups["context length", f"{len(CHINESE)} or more characters"] == [True] * 4
    kinds = [kind_of_mistake(outcomes.texts[q], outcomes.spans[q], examples[q], "character") for q in range(3)]
    assert kinds == ["too long", "too short", "overlapping"]
    by_word = collect_outcomes(examples, {}, f1_unit="word")
    assert {name for by, name, _ in groups_of(by_word) if by == "question word"} == {"other"}


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("青石橋有多少米？", "how many/much"), ("什么时候开门？", "when"), ("什么颜色？", "what"),
        ("哪座桥？", "which"), ("怎么走？", "how"), ("なぜですか", "why"), ("駅はどこですか", "where"), ("誰が", "who"),
        ("何ですか", "what"), ("ใครสร้าง", "who"), ("ที่ไหน", "where"), ("เมื่อใด", "when"), ("桥。", "other"),
        ("What?", "other"),
    ],
)  # fmt: skip
def test_question_words_of_scripts_without_spaces(question, word):
    assert question_word(question, "character") == word


def test_a_comparison_adds_up():
    examples, predictions, answers = made_up()
    golds = {e["id"]: e["answers"]["text"][0] for e in examples}
    this, other = collect_outcomes(examples, golds), collect_outcomes(examples, predictions, answers)
    found = compare(this, other)
    assert sum(found["counts"].values()) == len(examples) and found["counts"]["only_other"] == 0
    em, f1 = found["scores"]
    assert em["difference"] == pytest.approx(100 - 100 * other.exact_match.mean()) and em["p"] < 0.001
    assert em["interval"][0] <= em["difference"] <= em["interval"][1]
    back = compare(other, this)["scores"]
    assert [row["difference"] for row in back] == pytest.approx([-em["difference"], -f1["difference"]])
    assert [row["p"] for row in back] == [em["p"], f1["p"]]
    assert compare(this, this)["scores"][0]["p"] == 1
