"""evaluate.py's report: one HTML file that needs nothing else, no network and no JavaScript, and its pictures as PNG.

report.html.j2 is the page and macros.html.j2 what it is made of; this file gives them their data.
"""

import re
from base64 import b64encode
from collections.abc import Callable
from datetime import date
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from extractive_qa.files.atomic import make_folder, write_file
from extractive_qa.report import charts
from extractive_qa.report.findings import causes, findings, p_value, percent_range, verdict
from extractive_qa.report.outcomes import MISTAKES, Outcomes, gold_spans, kind_of_mistake, overlap
from extractive_qa.report.statistics import analyse

SHOWN = ("reliability", "thresholds", "training")  # pictures in the page, which has the others as tables
DRAWN = ("groups", "mistakes", *SHOWN)
AROUND = 160  # characters of context on each side of an answer
LONGEST = {"question": 400, "answer": 300, "id": 80, "about": 300, "title": 80}  # characters shown
# what a browser drops, or lets a text reorder the letters around it with
HIDDEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def write_report(
    output_dir: Path,
    outcomes: Outcomes,
    log: list[dict],
    about: dict[str, str],
    comparison: dict | None = None,
    other: Outcomes | None = None,
) -> None:
    """Writes report.html and the pictures in report/ into `output_dir`, each whole or not at all.

    log: the lines of training_log.jsonl, [] where there is none. about: what the head of the page says, {name: text},
    `model` among it. comparison: as statistics.compare gives it, with the `other` run's outcomes. Raises OSError where
    they can't be written.
    """
    figures = analyse(outcomes)
    pictures = draw_pictures(figures, log)
    page = report_page(outcomes, figures, log, about, pictures, comparison, other)
    folder = output_dir / "report"
    make_folder(folder)
    for name in DRAWN:
        if name in pictures:
            write_file(folder / f"{name}.png", pictures[name][0])
        else:
            (folder / f"{name}.png").unlink(missing_ok=True)  # of an earlier report
    write_file(output_dir / "report.html", page)


def draw_pictures(figures: dict, log: list[dict]) -> dict[str, tuple[bytes, bytes]]:
    """{name: (PNG for a light page, for a dark one)} of those of DRAWN that there are figures for; the dark one is b""
    of those that are not SHOWN."""
    confidence, groups, mistakes = (figures[name] for name in ("confidence", "groups", "mistakes"))
    drawings: dict[str, tuple[Callable, list, dict]] = {
        "groups": (charts.group_chart, groups, {"height": 1.2 + 0.3 * len(groups), "width": 7}),
        "mistakes": (charts.mistake_chart, mistakes, {"height": 1 + 0.35 * len(mistakes), "width": 7}),
        "reliability": (charts.reliability_diagram, confidence and confidence["reliability"], {}),
        "thresholds": (charts.threshold_curve, confidence and confidence["thresholds"], {}),
        "training": (charts.training_curve, log, {"width": 10}),
    }
    pictures = {}
    for name, (draw, data, size) in drawings.items():
        if data:
            dark = charts.picture(draw, data, dark=True, **size) if name in SHOWN else b""
            pictures[name] = charts.picture(draw, data, **size), dark
    return pictures


def report_page(
    outcomes: Outcomes,
    figures: dict,
    log: list[dict],
    about: dict[str, str],
    pictures: dict[str, tuple[bytes, bytes]],
    comparison: dict | None = None,
    other: Outcomes | None = None,
) -> str:
    """The whole page. Arguments as for write_report; figures: of statistics.analyse; pictures: of draw_pictures."""
    compared = {}
    if comparison:
        compared = {name: [card(outcomes, q, other) for q in comparison[name]] for name in ("only_this", "only_other")}
    return environment().get_template("report.html.j2").render(
        title=cut(about["model"], LONGEST["title"]),
        about={name: cut(text, LONGEST["about"]) for name, text in about.items()},
        scores=figures["scores"],
        findings=findings(figures, log),
        comparison=comparison,
        compared=compared,
        mistakes=figures["mistakes"],
        explained=MISTAKES,
        causes=causes(figures["mistakes"]),
        groups={by: list(rows) for by, rows in groupby(figures["groups"], key=itemgetter("by"))},
        has_windows=outcomes.windows is not None,
        confidence=figures["confidence"],
        pictures={name: [b64encode(png).decode("ascii") for png in of_both] for name, of_both in pictures.items()},
        worst=[card(outcomes, q) for q in figures["worst"]],
        date=date.today().isoformat(),
    )  # fmt: skip


def environment() -> Environment:
    """What fills the templates in: a name that is missing is an error, and whatever is printed passes show_hidden and
    is then escaped, with no filter to forget."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=True,
        finalize=show_hidden, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    made.filters |= {"number": format, "between": percent_range, "p_value": p_value, "verdict": verdict}
    return made


def show_hidden(value: object) -> object:
    """A text with control characters, marks of direction and lone surrogates shown as \\u202e; anything else as it
    is, as what a macro has put together and escaped already."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", value)


def cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[:longest] + " …"


def card(outcomes: Outcomes, q: int, other: Outcomes | None = None) -> dict:
    """What the page shows of question number `q`, and of the `other` run's answer, in texts cut to LONGEST."""
    example, text, span = outcomes.examples[q], outcomes.texts[q], outcomes.spans[q]
    golds = list(dict.fromkeys(example["answers"]["text"]))
    wrong = not outcomes.exact_match[q]
    return {
        "question": cut(example["question"].strip(), LONGEST["question"]),
        "context": excerpt(example, span),
        "predicted": cut(text, LONGEST["answer"]),
        "other": cut(other.texts[q], LONGEST["answer"]) if other else None,
        "golds": [cut(gold, LONGEST["answer"]) for gold in golds[:5]],
        "confidence": None if outcomes.probability is None else outcomes.probability[q],
        "f1": outcomes.f1[q],
        "mistake": kind_of_mistake(text, span, example, outcomes.f1_unit) if wrong else None,
        "id": cut(example["id"], LONGEST["id"]),
    }


def excerpt(example: dict, span: tuple[int, int] | None) -> list[tuple[str, str]]:
    """The context around the predicted span and the gold one it is nearest to, in pieces (text, kind) from left to
    right: "gold", "predicted", "both" or "". " … " is where something is not shown."""
    context, golds = example["context"], gold_spans(example)
    gold = max(golds, key=lambda gold: overlap(gold, span), default=None) if span else next(iter(golds), None)
    marks = [mark for mark in (gold, span) if mark] or [(0, 0)]  # the beginning, where there is nothing to mark
    parts: list[list[int]] = []  # of the context that are shown, none touching another
    for start, end in sorted(marks):
        left, right = max(0, start - AROUND), min(len(context), min(end, start + LONGEST["answer"]) + AROUND)
        left, right = at_spaces(context, left, right, start, end)
        if parts and left <= parts[-1][1]:
            parts[-1][1] = max(right, parts[-1][1])
        else:
            parts.append([left, right])

    pieces: list[tuple[str, str]] = []
    for left, right in parts:
        if left:
            pieces.append((" … " if pieces else "… ", ""))
        cuts = sorted({left, right, *(place for mark in marks for place in mark if left < place < right)})
        pieces += [(context[a:b], kind_of_piece(a, gold, span)) for a, b in pairwise(cuts)]
    return pieces + ([(" …", "")] if parts[-1][1] < len(context) else [])


def kind_of_piece(start: int, gold: tuple[int, int] | None, span: tuple[int, int] | None) -> str:
    """Which of the two spans a piece that begins at `start` is in, wholly."""
    in_gold, in_span = (mark is not None and mark[0] <= start < mark[1] for mark in (gold, span))
    return "both" if in_gold and in_span else "gold" if in_gold else "predicted" if in_span else ""


def at_spaces(context: str, left: int, right: int, start: int, end: int) -> tuple[int, int]:
    """`left` and `right` moved towards the answer, so that no word is cut where a space is near."""
    if left and (space := context.find(" ", left, min(left + 20, start))) >= 0:
        left = space + 1
    if right < len(context) and (space := context.rfind(" ", max(right - 20, end), right)) >= 0:
        right = space
    return left, right
