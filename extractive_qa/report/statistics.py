"""Where a model is right and where it is wrong: the figures of evaluate.py's report and of its comparison.

Numbers only, each with the number of questions behind it and an interval (bootstrap.py); write.py shows them.
"""

import numpy as np

from extractive_qa.bootstrap import NORMAL, interval, randomization_test, resampled_means, resampled_sums
from extractive_qa.postprocessing.calibration import calibration_error, reliability, selective_scores
from extractive_qa.report.outcomes import MISTAKES, Outcomes, groups_of, kind_of_mistake

# with fewer a group is not named as what to improve
QUESTIONS_TO_JUDGE, CONTEXTS_TO_JUDGE = 30, 10


def scores(outcomes: Outcomes, members: np.ndarray) -> list[dict]:
    """Of each group, members bool (K, Q): `questions`, `contexts`, `exact_match`, `f1` in percent and their intervals
    `exact_match_interval`, `f1_interval` (None where there are too few to tell)."""
    rows = [{"questions": int(some.sum()), "contexts": len(np.unique(outcomes.context[some]))} for some in members]
    for name in ("exact_match", "f1"):
        values = 100 * getattr(outcomes, name)
        draws = resampled_means(values, outcomes.context, members)
        for k, row in enumerate(rows):
            row[name] = float(values[members[k]].mean())
            row[f"{name}_interval"] = interval(draws[:, k], row["contexts"])
    return rows


def group_scores(outcomes: Outcomes) -> list[dict]:
    """`by`, `group`, what `scores` gives, and against the rest of the questions: `rest` (their EM), `lost` (points of
    EM of all that are lost as this group is worse than the rest) and `is_worse`: worse beyond chance, though so many
    groups are looked at (Bonferroni's bound)."""
    found = groups_of(outcomes)
    members = np.stack([some for _, _, some in found])
    values = 100 * outcomes.exact_match
    draws = resampled_means(values, outcomes.context, np.concatenate([members, ~members]))
    bound = NORMAL.inv_cdf(1 - 0.025 / len(found))
    rows = []
    for k, row in enumerate(scores(outcomes, members)):
        by, name, some = found[k]
        enough = row["questions"] >= QUESTIONS_TO_JUDGE and row["contexts"] >= CONTEXTS_TO_JUDGE
        rest = float(values[~some].mean()) if not some.all() else None
        gap = 0.0 if rest is None else rest - row["exact_match"]
        is_worse = enough and gap > 0 and gap > bound * np.nanstd(draws[:, len(found) + k] - draws[:, k])
        judged = {"enough": enough, "rest": rest, "lost": float(gap * some.mean()), "is_worse": bool(is_worse)}
        rows.append({"by": by, "group": name, **row, **judged})
    return rows


def mistakes(outcomes: Outcomes) -> list[dict]:
    """The confusions, in the order of MISTAKES: `kind`, `count`, `share` of all mistakes in percent with its interval
    `share_interval`, `f1` (mean, percent). An answer is a mistake where it is no exact match; each is of one kind."""
    wrong = np.flatnonzero(outcomes.exact_match == 0)
    answers = ((outcomes.texts[q], outcomes.spans[q], outcomes.examples[q]) for q in wrong)
    kinds = np.array([kind_of_mistake(*answer, outcomes.f1_unit) for answer in answers])
    if not len(wrong):
        return []
    is_kind = np.stack([kinds == kind for kind in MISTAKES], axis=1)  # (wrong, kinds)
    columns = np.hstack([is_kind, np.ones((len(wrong), 1))])
    numbers, context = np.unique(outcomes.context[wrong], return_inverse=True)
    sums = resampled_sums(columns, context)  # (B, kinds + 1)
    draws = 100 * sums[:, :-1] / sums[:, -1:]
    return [
        {
            "kind": kind,
            "count": int(is_kind[:, k].sum()),
            "share": 100 * float(is_kind[:, k].mean()),
            "share_interval": interval(draws[:, k], len(numbers)),
            "f1": 100 * float(outcomes.f1[wrong[is_kind[:, k]]].mean()),
        }
        for k, kind in enumerate(MISTAKES)
        if is_kind[:, k].any()
    ]


def confidence(outcomes: Outcomes) -> dict | None:
    """`reliability` (points of the diagram), `calibration_error`, `mean` confidence, and `thresholds`: as
    selective_scores gives them, with `questions` and `exact_match_interval`. None where no probability is known."""
    if outcomes.probability is None:
        return None
    rows = selective_scores(outcomes.probability, outcomes.exact_match)
    answered = [row for row in rows if row["exact_match"] is not None]
    members = np.stack([outcomes.probability >= row["min_confidence"] for row in answered])
    for row, of_those in zip(answered, scores(outcomes, members), strict=True):
        row |= {name: of_those[name] for name in ("questions", "exact_match_interval")}
    return {
        "reliability": reliability(outcomes.probability, outcomes.exact_match),
        "calibration_error": calibration_error(outcomes.probability, outcomes.exact_match),
        "mean": float(outcomes.probability.mean()),
        "thresholds": answered,
    }


def worst(outcomes: Outcomes, count: int) -> list[int]:
    """The questions of the worst mistakes: wrong although sure, by confidence times what F1 lacks. Where no confidence
    is known, some of the mistakes with the least F1, spread over the file."""
    wrong = np.flatnonzero(outcomes.exact_match == 0)
    if outcomes.probability is not None:
        badness = outcomes.probability[wrong] * (1 - outcomes.f1[wrong])
        return wrong[np.argsort(-badness, kind="stable")][:count].tolist()
    lowest = wrong[np.argsort(outcomes.f1[wrong], kind="stable")]
    nothing_right = wrong[outcomes.f1[wrong] == 0]
    return spread(nothing_right, count) if len(nothing_right) >= count else lowest[:count].tolist()


def spread(questions: np.ndarray, count: int) -> list[int]:
    """`count` of the questions (all where there are fewer), at even distances."""
    return questions[np.linspace(0, len(questions) - 1, min(count, len(questions))).astype(int)].tolist()


def analyse(outcomes: Outcomes, shown: int = 20) -> dict:
    """All figures of one run: `scores`, `groups`, `mistakes`, `confidence`, and `worst`, the questions of `shown`
    mistakes."""
    everything = np.ones((1, len(outcomes.examples)), dtype=bool)
    return {
        "scores": scores(outcomes, everything)[0],
        "groups": group_scores(outcomes),
        "mistakes": mistakes(outcomes),
        "confidence": confidence(outcomes),
        "worst": worst(outcomes, shown),
    }


def compare(this: Outcomes, other: Outcomes, shown: int = 10) -> dict:
    """Two runs on the same questions. `scores`: of `exact_match` and `f1`, percent, `this`, `other`, `difference` with
    its `interval` and its `p` (randomization_test); `groups`: the same of EM for each group, without p; `counts`:
    questions that both, only one or none got right (exact match); `only_this`, `only_other`: some of these."""
    right, others = this.exact_match > 0, other.exact_match > 0
    sides = {"both": right & others, "only_this": right & ~others, "only_other": ~right & others}
    sides["neither"] = ~right & ~others
    everything = [("all", "all questions", np.ones(len(right), dtype=bool))]

    def differences(name: str, groups: list) -> list[dict]:
        values = 100 * getattr(this, name), 100 * getattr(other, name)
        draws = resampled_means(values[0] - values[1], this.context, np.stack([some for *_, some in groups]))
        return [
            {
                "by": by,
                "group": group,
                "questions": int(some.sum()),
                "this": float(values[0][some].mean()),
                "other": float(values[1][some].mean()),
                "difference": float((values[0] - values[1])[some].mean()),
                "interval": interval(draws[:, k], len(np.unique(this.context[some]))),
            }
            for k, (by, group, some) in enumerate(groups)
        ]

    rows = []
    for name in ("exact_match", "f1"):
        p = randomization_test(getattr(this, name) - getattr(other, name), this.context)
        rows.append({**differences(name, everything)[0], "score": name, "p": p})
    return {
        "scores": rows,
        "groups": differences("exact_match", groups_of(this)),
        "counts": {side: int(members.sum()) for side, members in sides.items()},
        **{side: spread(np.flatnonzero(sides[side]), shown) for side in ("only_this", "only_other")},
    }
