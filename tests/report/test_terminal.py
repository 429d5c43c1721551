"""What is printed of a run: questions with a verdict, a comparison, scores."""

import re

import pytest

from extractive_qa.report.terminal import CONTEXT_SHOWN, NO_ANSWER, comparison_table, describe_scores, show_example

GOLD = "Ada \x1b[2J Krog"
CONTEXT = f"{'before ' * 50}{GOLD}{' after' * 50}"


def shown(prediction: str, gold: str = GOLD) -> dict[str, str]:
    answers = {"text": [gold] if gold else [], "answer_start": [CONTEXT.index(gold)] if gold else []}
    example = {"question": " Who?\x07 ", "context": CONTEXT, "answers": answers}
    text = show_example(example, prediction, lambda text, colour: f"<{colour}>{text}</>")
    return dict(re.split(": +", line, maxsplit=1) for line in text.split("\n"))


@pytest.mark.parametrize(
    ("prediction", "gold", "verdict"),
    [
        (GOLD, GOLD, "<green>right</> (F1 100)"),
        ("Ada", GOLD, "<yellow>partly right</> (F1 50)"),
        ("after", GOLD, "<red>wrong</> (F1 0)"),
        ("", GOLD, "<red>wrong</> (F1 0)"),
        ("", "", "<green>right</> (F1 100)"),
    ],
)
def test_a_question_is_shown_with_its_context_and_a_verdict(prediction, gold, verdict):
    found = shown(prediction, gold)
    assert list(found) == ["question", "context", "prediction", "gold", "verdict"]
    assert found["question"] == "<bold>Who?\\x07</>"  # control characters are shown, and do nothing
    assert found["verdict"] == verdict
    assert found["gold"] == (GOLD.replace("\x1b", "\\x1b") if gold else NO_ANSWER)
    assert (NO_ANSWER in found["prediction"]) == (not prediction)
    if gold:
        around = found["context"].split("<bold>Ada \\x1b[2J Krog</>")
        assert [len(part) for part in around] == pytest.approx([CONTEXT_SHOWN, CONTEXT_SHOWN], abs=6)
        assert around[0].startswith("...") and around[1].endswith("...")


def test_scores_of_questions_without_an_answer_are_shown_by_themselves():
    metrics = {"exact_match": 50.0, "f1": 60.0, "total": 1200}
    assert describe_scores(metrics, None) == "EM 50.00  F1 60.00  on 1,200 questions"
    metrics |= {"HasAns_exact": 40.0, "HasAns_f1": 55.0, "HasAns_total": 800}
    metrics |= {"NoAns_exact": 70.0, "NoAns_f1": 70.0, "NoAns_total": 400}
    calibration = {"temperature": 1, "references": 1, "error": 0.0625, "error_uncalibrated": 0.1}
    assert describe_scores(metrics, calibration).split("\n") == [
        "calibration error of the confidences: 0.062",
        "EM 40.00  F1 55.00  on 800 questions with an answer",
        "EM 70.00  F1 70.00  on 400 questions without",
        "EM 50.00  F1 60.00  on 1,200 questions",
    ]


def test_a_comparison_is_a_table_with_its_doubt():
    row = {"this": 70.0, "other": 60.0, "difference": 10.0, "interval": (2.0, 18.0), "p": 0.01}
    same = {"this": 70.0, "other": 70.0, "difference": 0.0, "interval": None, "p": 1.0}
    counts = {"both": 1000, "only_this": 30, "only_other": 20, "neither": 5}
    first, head, em, f1, last = comparison_table({"scores": [row, same], "counts": counts}, "runs/b").split("\n")
    assert first == "against runs/b" and head.split()[:3] == ["this", "other", "difference"]
    assert em.split() == ["EM", "70.00", "60.00", "+10.00", "+2.0", "to", "+18.0", "0.0100", "(better)"]
    assert f1.split()[3:] == ["+0.00", "–", "1.0000", "(may", "be", "chance)"]
    assert last == "exact matches: both 1,000, only this 30, only the other 20, neither 5"
