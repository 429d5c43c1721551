"""evaluate.py's report: one HTML file that needs nothing else, no network and no JavaScript, and its pictures as PNG.

Whatever comes from data, files or folders passes `escape` on its way into the page; a content security policy in the
page keeps a browser from running or fetching anything should that ever fail.
"""

from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from itertools import groupby
from pathlib import Path

from extractive_qa.files.atomic import write_file
from extractive_qa.report.cards import LEGEND, escape, question_card
from extractive_qa.report.charts import (
    group_chart,
    mistake_chart,
    picture,
    reliability_diagram,
    threshold_curve,
    training_curve,
)
from extractive_qa.report.findings import causes, findings
from extractive_qa.report.outcomes import MISTAKES, Outcomes
from extractive_qa.report.statistics import analyse

SHOWN = ("reliability", "thresholds", "training")  # pictures in the page; the others stand there as tables
DRAWN = ("groups", "mistakes", *SHOWN)
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(
    output_dir: Path,
    outcomes: Outcomes,
    log: list[dict],
    about: dict[str, str],
    comparison: dict | None = None,
    other: Outcomes | None = None,
) -> None:
    """Writes report.html and the pictures in report/ into `output_dir`, each whole or not at all.

    log: the lines of training_log.jsonl, [] where there is none. about: what stands at the head, {name: text}, `model`
    among it. comparison: as statistics.compare gives it, with the `other` run's outcomes. Raises OSError where they
    can't be written.
    """
    figures = analyse(outcomes)
    pictures = draw_pictures(figures, log)
    page = report_page(outcomes, figures, log, about, pictures, comparison, other)
    folder = output_dir / "report"
    folder.mkdir(parents=True, exist_ok=True)
    for name in DRAWN:
        if name in pictures:
            write_file(folder / f"{name}.png", pictures[name][0])
        else:
            (folder / f"{name}.png").unlink(missing_ok=True)  # of an earlier report
    write_file(output_dir / "report.html", page.encode("utf-8"))


def draw_pictures(figures: dict, log: list[dict]) -> dict[str, tuple[bytes, bytes]]:
    """{name: (PNG for a light page, for a dark one)} of those of DRAWN that there are figures for; the dark one is b""
    of those that are not SHOWN."""
    confidence, groups, mistakes = (figures[name] for name in ("confidence", "groups", "mistakes"))
    drawings: dict[str, tuple[Callable, list, dict]] = {
        "groups": (group_chart, groups, {"height": 1.2 + 0.3 * len(groups), "width": 7}),
        "mistakes": (mistake_chart, mistakes, {"height": 1 + 0.35 * len(mistakes), "width": 7}),
        "reliability": (reliability_diagram, confidence and confidence["reliability"], {}),
        "thresholds": (threshold_curve, confidence and confidence["thresholds"], {}),
        "training": (training_curve, log, {"width": 10}),
    }
    return {
        name: (picture(draw, data, **size), picture(draw, data, dark=True, **size) if name in SHOWN else b"")
        for name, (draw, data, size) in drawings.items()
        if data
    }


def report_page(
    outcomes: Outcomes,
    figures: dict,
    log: list[dict],
    about: dict[str, str],
    pictures: dict[str, tuple[bytes, bytes]],
    comparison: dict | None = None,
    other: Outcomes | None = None,
) -> str:
    """The whole page. Arguments as for write_report; figures: as statistics.analyse gives them."""
    sections = [
        ("comparison", "Compared with the other run", comparison and comparison_section(comparison, outcomes, other)),
        ("mistakes", "Kinds of mistakes", mistakes_section(figures["mistakes"])),
        ("groups", "Which questions", groups_section(figures, outcomes)),
        ("confidence", "Confidence", confidence_section(figures["confidence"], pictures)),
        ("training", "Training", training_section(pictures)),
        ("worst", "The worst mistakes", worst_section(outcomes, figures["worst"])),
    ]
    sections = [(anchor, title, content) for anchor, title, content in sections if content]
    links = "\n".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in sections)
    body = "\n".join(f'<section id="{a}">\n<h2>{title}</h2>\n{content}\n</section>' for a, title, content in sections)
    says = "\n".join(f"<li>{escape(sentence)}</li>" for sentence in findings(figures, log))
    facts = " · ".join(f"{escape(name)} {escape(text, 300)}" for name, text in about.items())
    css = (Path(__file__).with_name("report.css")).read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation: {escape(about["model"], 80)}</title>
<style>
{css}</style>
</head>
<body>
<main>
<header>
<h1>Evaluation report</h1>
<p class="about">{facts}</p>
</header>
{tiles(figures, comparison)}
<section class="findings">
<h2>What to improve</h2>
<ol>
{says}
</ol>
</section>
<nav>
{links}
</nav>
{body}
<footer class="soft">
<p>EM (exact match) and F1 as SQuAD 1.1 defines them, in percent. Ranges are 95 % intervals by bootstrap, 2,000 draws
with a fixed seed, expanded where contexts are few. Whole contexts are drawn with all their questions: questions about
one paragraph are not independent, and drawing them singly would give ranges that are too narrow. A dash: too few
contexts, or all alike, to tell. A group is called worse only where its difference from the rest is beyond chance even
though so many groups are looked at. Made on {date.today().isoformat()} by evaluate.py --report.</p>
</footer>
</main>
</body>
</html>
"""


def percent_range(interval: tuple[float, float] | None, sign: str = "") -> str:
    return f"{interval[0]:{sign}.1f} to {interval[1]:{sign}.1f}" if interval else "–"


def tiles(figures: dict, comparison: dict | None) -> str:
    scores, confidence = figures["scores"], figures["confidence"]
    shown = [
        (f"{scores['exact_match']:.1f}", "exact match", percent_range(scores["exact_match_interval"])),
        (f"{scores['f1']:.1f}", "F1", percent_range(scores["f1_interval"])),
        (f"{scores['questions']:,}", "questions", f"on {scores['contexts']:,} contexts"),
    ]
    if confidence:
        mean = f"{100 * confidence['mean']:.0f} % sure on average"
        shown.append((f"{confidence['calibration_error']:.3f}", "calibration error", mean))
    if comparison:
        row = comparison["scores"][0]
        shown.append((f"{row['difference']:+.1f}", "EM against the other run", f"p {p_value(row['p'], '= ')}"))
    inner = "".join(f"<div><span>{name}</span><b>{number}</b><span>{more}</span></div>" for number, name, more in shown)
    return f"<div class='tiles'>{inner}</div>"


def table(head: Sequence[tuple[str, str]], rows: Iterable[str], kind: str = "") -> str:
    """head: (name, class) of each column. kind: the table's class."""
    cells = "".join(f'<th scope="col" class="{of_column}">{name}</th>' for name, of_column in head)
    body = "\n".join(rows)
    head_row = f"<thead><tr>{cells}</tr></thead>"
    return f"<div class='scroll'><table class='{kind}'>\n{head_row}\n<tbody>\n{body}\n</tbody></table></div>"


def track(value: float, interval: tuple[float, float] | None, mark: float) -> str:
    """A figure in percent as a dot on a line from 0 to 100, its interval as a bar, and a stroke at `mark`."""
    low, high = interval or (value, value)
    return (
        f'<span class="track" aria-hidden="true"><i style="left:{low:.2f}%;width:{high - low:.2f}%"></i>'
        f'<u style="left:{mark:.2f}%"></u><b style="left:{value:.2f}%"></b></span>'
    )


def groups_section(figures: dict, outcomes: Outcomes) -> str:
    overall = figures["scores"]["exact_match"]
    parts = [
        "<p class='soft'>The dot is the group's EM, the bar behind it its interval, the thin stroke the EM of all. A "
        "group marked ▾ is worse than the rest beyond chance. Gray rows are too small to judge. Answer length and "
        "position go by the first gold answer; context lengths make four groups of like size.</p>"
    ]
    head = [("", ""), ("questions", "n"), ("", "phone-off"), ("EM", "n"), ("", ""), ("F1", "n"), ("", "phone-off")]
    for by, rows in groupby(figures["groups"], key=lambda row: row["by"]):
        lines = []
        for row in rows:
            em_range, f1_range = row["exact_match_interval"], row["f1_interval"]
            lines.append(
                f'<tr class="{"weak" if row["stands_out"] else "" if row["enough"] else "few"}">'
                f'<th scope="row">{escape(row["group"])}</th><td class="n">{row["questions"]:,}</td>'
                f'<td class="wide phone-off">{track(row["exact_match"], em_range, overall)}</td>'
                f'<td class="n">{row["exact_match"]:.1f}</td><td class="range">{percent_range(em_range)}</td>'
                f'<td class="n">{row["f1"]:.1f}</td><td class="range phone-off">{percent_range(f1_range)}</td></tr>'
            )
        parts.append(f"<h3>By {by}</h3>\n{table(head, lines, 'groups')}")
    if outcomes.windows is None:
        parts.append("<h3>By windows</h3>\n<p class='soft'>Not known: the predictions came from a file.</p>")
    return "\n".join(parts)


def mistakes_section(rows: list[dict]) -> str:
    if not rows:
        return "<p>There is none.</p>"
    largest = max(row["share"] for row in rows)
    lines = [
        f'<tr><th scope="row">{row["kind"]}<br><span class="explained">{MISTAKES[row["kind"]]}</span></th>'
        f'<td class="n">{row["count"]:,}</td>'
        f'<td class="wide phone-off"><span class="bar" style="width:{100 * row["share"] / largest:.1f}%"></span></td>'
        f'<td class="n">{row["share"]:.1f} %</td><td class="range">{percent_range(row["share_interval"])}</td>'
        f'<td class="n">{row["f1"]:.1f}</td></tr>'
        for row in rows
    ]
    head = [("", ""), ("mistakes", "n"), ("", "phone-off"), ("share", "n"), ("", "range"), ("their F1", "n")]
    total = sum(row["count"] for row in rows)
    summed = ", ".join(f"{cause} {count:,} ({100 * count / total:.0f} %)" for cause, count in causes(rows).items())
    return (
        f"<p>{summed[0].upper()}{summed[1:]}.</p>\n"
        f"<p class='soft'>All {total:,} answers that are no exact match, each once. Of several gold answers the "
        f"nearest counts. Sentences are told by their punctuation.</p>\n{table(head, lines)}"
    )


def figure(pictures: dict, name: str, alt: str, caption: str) -> str:
    light, dark = (b64encode(png).decode("ascii") for png in pictures[name])
    return (
        '<figure><picture><source media="screen and (prefers-color-scheme: dark)" '
        f'srcset="data:image/png;base64,{dark}"><img alt="{escape(alt)}" src="data:image/png;base64,{light}"></picture>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def confidence_section(confidence: dict | None, pictures: dict) -> str:
    if confidence is None:
        return (
            "<p class='soft'>Not known: these predictions came from a file without confidences. They are in "
            "nbest_predictions.json, which evaluate.py writes beside predictions.json.</p>"
        )
    lines = [
        f'<tr><th scope="row">{100 * row["min_confidence"]:.0f} %</th><td class="n">{row["questions"]:,}</td>'
        f'<td class="n">{100 * row["answered"]:.1f} %</td><td class="n">{row["exact_match"]:.1f}</td>'
        f'<td class="range">{percent_range(row["exact_match_interval"])}</td></tr>'
        for row in confidence["thresholds"]
    ]
    head = [("answered from", ""), ("questions", "n"), ("share", "n"), ("EM of those", "n"), ("", "range")]
    each = confidence["reliability"][0]["count"]
    drawings = figure(
        pictures, "reliability", "Reliability diagram: confidence against the share of right answers",
        "Of answers given with a confidence of 70 %, 70 % should be right: dots on the dashed line. Below it, the "
        f"model is surer than it may be. Each dot stands for {each:,} answers.",
    ) + figure(
        pictures, "thresholds", "Share of questions answered, and their EM, by the least confidence answered",
        "What predict.py --min_confidence buys: fewer answers, more of them right.",
    )  # fmt: skip
    return f"<div class='figures'>{drawings}</div>\n{table(head, lines, 'narrow')}"


def training_section(pictures: dict) -> str:
    if "training" not in pictures:
        return "<p class='soft'>No training_log.jsonl of this run was found.</p>"
    return figure(pictures, "training", "Training loss, learning rate, EM and F1", "From training_log.jsonl.")


def worst_section(outcomes: Outcomes, questions: list[int]) -> str:
    if not questions:
        return "<p>There is none.</p>"
    if outcomes.probability is None:
        order = "Some of the answers that share nothing with a gold answer; which is the surest is not known."
    else:
        order = "Wrong although sure: by confidence times what F1 lacks."
    return f"<p class='soft'>{order}</p>\n{LEGEND}\n" + "\n".join(question_card(outcomes, q) for q in questions)


def p_value(p: float, equals: str = "") -> str:
    return f"{equals}{p:.4f}" if p >= 0.0002 else "< 0.0002"


def verdict(row: dict) -> str:
    """Whether a difference is more than chance, in words."""
    if row["p"] >= 0.05:
        return "may be chance"
    return "better" if row["difference"] > 0 else "worse"


def comparison_section(comparison: dict, outcomes: Outcomes, other: Outcomes) -> str:
    head = [("", ""), ("this", "n"), ("other", "n"), ("difference", "n"), ("", "range"), ("p", "n"), ("", "")]
    names = {"exact_match": "EM", "f1": "F1"}
    lines = [
        f'<tr><th scope="row">{names[row["score"]]}</th><td class="n">{row["this"]:.1f}</td>'
        f'<td class="n">{row["other"]:.1f}</td><td class="n">{row["difference"]:+.1f}</td>'
        f'<td class="range">{percent_range(row["interval"], "+")}</td><td class="n">{p_value(row["p"])}</td>'
        f"<td>{verdict(row)}</td></tr>"
        for row in comparison["scores"]
    ]
    counts = comparison["counts"]
    parts = [
        "<p class='soft'>Both runs on the same questions. p: how often chance alone, deciding for each context which "
        "run gave which answers, makes a difference at least as large (approximate randomization, 10,000 times, fixed "
        "seed).</p>",
        table(head, lines),
        f"<p>Exact matches: both {counts['both']:,}, only this run {counts['only_this']:,}, only the other "
        f"{counts['only_other']:,}, neither {counts['neither']:,}.</p>",
    ]
    rows = []
    for by, groups in groupby(comparison["groups"], key=lambda row: row["by"]):
        rows.append(f'<tr><th class="by" colspan="6" scope="rowgroup">By {by}</th></tr>')
        rows += [
            f'<tr><th scope="row">{escape(row["group"])}</th>'
            f'<td class="n">{row["questions"]:,}</td><td class="n">{row["this"]:.1f}</td>'
            f'<td class="n">{row["other"]:.1f}</td><td class="n">{row["difference"]:+.1f}</td>'
            f'<td class="range">{percent_range(row["interval"], "+")}</td></tr>'
            for row in groups
        ]
    columns = [("", ""), ("questions", "n"), ("this", "n"), ("other", "n"), ("difference", "n"), ("", "")]
    by_chance = "<p class='soft'>One in twenty of these ranges misses zero by chance alone.</p>"
    parts.append(folded("EM by kind of question", table(columns, rows) + by_chance))
    for name, title in (("only_this", "Only this run was right"), ("only_other", "Only the other run was right")):
        if comparison[name]:
            cards = "\n".join(question_card(outcomes, q, other) for q in comparison[name])
            parts.append(folded(f"{title}: {len(comparison[name])} of {counts[name]:,}", f"{LEGEND}{cards}"))
    return "\n".join(parts)


def folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>\n{content}\n</details>"


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
