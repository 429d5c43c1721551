"""What the figures of a run say, in words: the sentences at the head of the report. Nothing is said that the figures
don't show."""

import math

from extractive_qa.report.outcomes import BOUNDARY, WRONG_PLACE
from extractive_qa.report.statistics import CONTEXTS_TO_JUDGE

TOO_SURE = 0.05  # calibration error from which the confidences are called off


def findings(figures: dict, log: list[dict]) -> list[str]:
    """Plain sentences, the most useful first. figures: as statistics.analyse gives them. log: the lines of
    training_log.jsonl, [] where there is none."""
    sentences = [
        largest_loss(figures),
        *weak_groups(figures["groups"]),
        meaning_of_confidence(figures["confidence"], figures["scores"]),
        end_of_training(log, figures["scores"]),
        smallest_difference(figures["scores"]),
    ]
    return list(filter(None, sentences))


def causes(mistakes: list[dict]) -> dict[str, int]:
    """{cause: count}, the kinds of mistakes taken together by what would fix them; the most frequent first."""
    counts = {row["kind"]: row["count"] for row in mistakes}
    found = {
        "answers in the wrong place": sum(counts.get(kind, 0) for kind in WRONG_PLACE),
        "right place, wrong boundaries": sum(counts.get(kind, 0) for kind in BOUNDARY),
        "no answer": counts.get("no answer", 0),
        "answers where the text holds none": counts.get("no gold answer", 0),
    }
    return {cause: count for cause, count in sorted(found.items(), key=lambda item: -item[1]) if count}


def largest_loss(figures: dict) -> str:
    """Boundaries or places: which costs more, and what EM would be without it."""
    if not figures["mistakes"]:
        return "There is no mistake: every answer is an exact match."
    counts = {row["kind"]: row["count"] for row in figures["mistakes"]}
    total = sum(counts.values())
    cause, count = next(iter(causes(figures["mistakes"]).items()))
    questions, found = figures["scores"]["questions"], figures["scores"]["exact_match"]
    sentence = (
        f"The largest loss: {cause}, {100 * count / total:.0f} % of all {total:,} mistakes. "
        f"Without them EM would be {found + 100 * count / questions:.1f} instead of {found:.1f}."
    )
    longer, shorter = counts.get("too long", 0), counts.get("too short", 0)
    if "boundaries" in cause and max(longer, shorter) > 1.5 * min(longer, shorter):
        sentence += f" Most often the answer is {'too long' if longer > shorter else 'too short'}."
    return sentence


def weak_groups(groups: list[dict]) -> list[str]:
    """Of each way to group the questions, the one that loses most, where it is worse beyond chance: the two worst."""
    worst = {}
    for row in groups:
        if row["is_worse"] and row["lost"] > worst.get(row["by"], {"lost": 0})["lost"]:
            worst[row["by"]] = row
    sentences = [
        f"By {row['by']}, “{row['group']}” loses most: EM {row['exact_match']:.1f} on {row['questions']:,} questions, "
        f"{row['rest']:.1f} on the rest. As good as the rest, it would add {row['lost']:.1f} points to the EM of all."
        for row in sorted(worst.values(), key=lambda row: -row["lost"])[:2]
    ]
    if sum(row["enough"] for row in groups) <= len({row["by"] for row in groups}):
        return sentences or ["Groups of questions are too small to tell which are worse: score more questions."]
    return sentences or ["No group of questions is worse than the rest beyond what chance explains."]


def meaning_of_confidence(confidence: dict | None, scores: dict) -> str:
    if confidence is None:
        return ""
    error, mean, right = confidence["calibration_error"], 100 * confidence["mean"], scores["exact_match"]
    interval = plausible_em(scores)
    measured = f"{mean:.0f} % on average, where {right:.0f} % of the answers are right (calibration error {error:.3f})"
    if interval is None:
        sentence = f"Whether confidences mean what they say can't be told from so few contexts: {measured}."
    elif error < TOO_SURE:
        sentence = f"Confidences mean what they say: {measured}."
    elif interval[0] <= mean <= interval[1]:
        sentence = f"Confidences are about right on the whole, as far as so many questions can tell: {measured}."
    else:
        way = "too high" if mean > right else "too low"
        sentence = f"Confidences are {way}: {measured}. To fix that: evaluate.py --calibrate."
    if row := next((row for row in confidence["thresholds"] if row["answered"] <= 0.5), None):
        sentence += (
            f" Answering only from {100 * row['min_confidence']:.0f} % on, the model answers "
            f"{100 * row['answered']:.0f} % of the questions, at EM {row['exact_match']:.1f}."
        )
    return sentence


def plausible_em(scores: dict) -> tuple[float, float] | None:
    """The EM, in percent, that may be behind the one measured; None where there are too few contexts to tell. Where EM
    is 0 or 100 in every context, and no two draws differ: the rule of three (Hanley and Lippman-Hand, 1983)."""
    if scores["contexts"] < CONTEXTS_TO_JUDGE:
        return None
    reach = 300 / scores["contexts"]
    at_an_end = max(0.0, scores["exact_match"] - reach), min(100.0, scores["exact_match"] + reach)
    return scores["exact_match_interval"] or at_an_end


def smallest_step(scores: dict) -> float:
    """Points of EM or F1 from which on a difference is more than chance, about; infinite where nothing is known."""
    intervals = scores["exact_match_interval"], scores["f1_interval"]
    if scores["contexts"] < CONTEXTS_TO_JUDGE or None in intervals:
        return math.inf
    return max(high - low for low, high in intervals) / 2


def end_of_training(log: list[dict], scores: dict) -> str:
    """Whether the training ended too early or too late, by the F1 of its evaluations; scores: how coarse that is."""
    lines = [line for line in log if "f1" in line]
    if len(lines) < 2:
        return ""
    best, last = max(lines, key=lambda line: line["f1"]), lines[-1]
    first = lines[-2] if best is last else best
    change = last["f1"] - first["f1"]
    measured = f"by {abs(change):.1f} from epoch {first['epoch']:.2g} to {last['epoch']:.2g}"
    way = "rose" if best is last else "fell"
    if abs(change) < smallest_step(scores):
        return f"At the end of the training F1 {way} {measured}, which may be chance: it tells nothing of more epochs."
    if best is last:
        return f"F1 still rose at the end of the training, {measured}: more epochs may help."
    return f"F1 fell before the end of the training, {measured}: longer training won't help, more questions may."


def smallest_difference(scores: dict) -> str:
    """How coarse the measurement is."""
    if scores["contexts"] < CONTEXTS_TO_JUDGE:
        return f"With {scores['contexts']:,} contexts next to nothing can be told: score more questions."
    if (step := smallest_step(scores)) == math.inf:
        return f"EM or F1 is the same in all {scores['contexts']:,} contexts: how far chance moves it can't be told."
    return (
        f"{scores['questions']:,} questions on {scores['contexts']:,} contexts tell EM and F1 to within about "
        f"{step:.1f} points; what differs less may be chance."
    )


def percent_range(interval: tuple[float, float] | None, sign: str = "") -> str:
    """An interval in percent. sign: "+" to show that of positive numbers too."""
    return f"{interval[0]:{sign}.1f} to {interval[1]:{sign}.1f}" if interval else "–"


def p_value(p: float, equals: str = "") -> str:
    return f"{equals}{p:.4f}" if p >= 0.0002 else "< 0.0002"


def verdict(row: dict) -> str:
    """Whether a difference is more than chance. row: of the `scores` of statistics.compare."""
    if row["p"] >= 0.05:
        return "may be chance"
    return "better" if row["difference"] > 0 else "worse"
