"""What evaluate.py prints of a run besides its scores: some of the questions, and a comparison."""

from collections.abc import Callable

from extractive_qa.metrics import exact_match_score, f1_score
from extractive_qa.postprocessing.calibration import describe_calibration
from extractive_qa.report.findings import p_value, percent_range, verdict
from extractive_qa.text import printable

NO_ANSWER = "(no answer)"
CONTEXT_SHOWN = 80  # characters on each side of an answer


def show_example(example: dict, prediction: str, paint: Callable[[str, str], str], f1_unit: str = "word") -> str:
    """Question, the context around the first gold answer, prediction, gold and verdict, a line each.
    paint(text, colour): the text in bold, green, yellow or red."""
    context, gold = example["context"], example["answers"]["text"]
    start = example["answers"]["answer_start"][0] if gold else 0
    end = start + len(gold[0]) if gold else 0
    left, right = max(0, start - CONTEXT_SHOWN), min(len(context), end + CONTEXT_SHOWN)
    around = (
        ("..." if left else "") + printable(context[left:start]) + paint(printable(context[start:end]), "bold")
        + printable(context[end:right]) + ("..." if right < len(context) else "")
    )  # fmt: skip
    em, f1 = exact_match_score(prediction, gold, f1_unit), f1_score(prediction, gold, f1_unit)
    says, colour = ("right", "green") if em else ("partly right", "yellow") if f1 else ("wrong", "red")
    return (
        f"question:   {paint(printable(example['question'].strip()), 'bold')}\n"
        f"context:    {' '.join(around.split())}\n"
        f"prediction: {paint(printable(prediction) or NO_ANSWER, colour)}\n"
        f"gold:       {printable(' | '.join(dict.fromkeys(gold))) or NO_ANSWER}\n"
        f"verdict:    {paint(says, colour)} (F1 {100 * f1:.0f})"
    )


def comparison_table(comparison: dict, other: str) -> str:
    """A comparison for the terminal. other: the name of the other run."""
    lines = [f"against {other}", f"{'':4}{'this':>8}{'other':>8}{'difference':>12}   {'95 % interval':<18}p"]
    for row, name in zip(comparison["scores"], ("EM", "F1"), strict=True):
        lines.append(
            f"{name:4}{row['this']:8.2f}{row['other']:8.2f}{row['difference']:+12.2f}   "
            f"{percent_range(row['interval'], '+'):<18}{p_value(row['p'])} ({verdict(row)})"
        )
    counts = comparison["counts"]
    lines.append(
        f"exact matches: both {counts['both']:,}, only this {counts['only_this']:,}, only the other "
        f"{counts['only_other']:,}, neither {counts['neither']:,}"
    )
    return "\n".join(lines)


def describe_scores(metrics: dict, calibration: dict | None) -> str:
    """EM and F1 in percent, of questions with and without an answer by themselves too where there are both; before it
    how well confidences fit, where a model gave some. As compute_metrics and report_calibration have them."""
    lines = [describe_calibration(calibration)] if calibration else []
    for name, title in (("HasAns", "with an answer"), ("NoAns", "without")):
        if f"{name}_total" in metrics:
            em, f1, total = (metrics[f"{name}_{kind}"] for kind in ("exact", "f1", "total"))
            lines.append(f"EM {em:.2f}  F1 {f1:.2f}  on {total:,} questions {title}")
    lines.append(f"EM {metrics['exact_match']:.2f}  F1 {metrics['f1']:.2f}  on {metrics['total']:,} questions")
    return "\n".join(lines)
