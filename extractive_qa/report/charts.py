"""Pictures of a training and of an evaluation, by matplotlib, for light and dark pages."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

from extractive_qa.files.atomic import write_file

INK = {False: "#22262b", True: "#d5dae1"}  # by `dark`
FIRST = {False: "#2d6a9f", True: "#74b0e4"}
SECOND = {False: "#c06a2b", True: "#e59a5c"}


def picture(draw: Callable, data: list[dict], dark: bool = False, width: float = 6, height: float = 4) -> bytes:
    """The PNG that `draw(figure, data, dark)` draws, `width` by `height` inches at 150 dots an inch: on white, or with
    a transparent background where it is meant for a dark page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # not pyplot: no window, nothing global

    ink = INK[dark]
    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    lines = ("axes.linewidth", "grid.linewidth", "xtick.major.width", "ytick.major.width")
    style = dict.fromkeys(names, ink) | dict.fromkeys(lines, 0.6) | {"grid.color": ink, "grid.alpha": 0.15}
    style |= {"font.size": 10, "axes.labelsize": 10, "axes.facecolor": "none", "legend.frameon": False}
    style |= {"axes.spines.top": False, "axes.spines.right": False}
    with rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="none" if dark else "white")
        draw(figure, data, dark)
        content = BytesIO()
        figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def draw_training_curve(log: list[dict], path: Path) -> None:
    """Loss and learning rate over the steps, EM and F1 at each evaluation, as a PNG. `log` as training_log.jsonl.
    Raises OSError."""
    write_file(path, picture(training_curve, log, width=10))


def training_curve(figure, log: list[dict], dark: bool) -> None:
    steps = [line for line in log if "loss" in line]
    scores = [line for line in log if "f1" in line]
    figure.get_layout_engine().set(wspace=0.06)  # or two labels touch
    left, right = figure.subplots(1, 2)
    left.plot([line["step"] for line in steps], [line["loss"] for line in steps], color=FIRST[dark])
    left.set(xlabel="optimizer step", ylabel="training loss", ylim=(0, None))
    rate = left.twinx()
    rate.plot([line["step"] for line in steps], [line["learning_rate"] for line in steps], color="tab:gray", lw=1)
    rate.set(ylabel="learning rate (gray)", ylim=(0, None))
    rate.yaxis.set_major_formatter("{x:.2g}")  # 2e-05 at each tick, not once above the axis
    for name, label, colour in (("f1", "F1", FIRST), ("exact_match", "EM", SECOND)):
        values = [line[name] for line in scores]
        right.plot([line["epoch"] for line in scores], values, marker="o", label=label, color=colour[dark])
    right.set(xlabel="epoch", ylabel="score on the evaluation file (%)")
    right.grid()
    for axes in (left, right):  # no tick between two steps
        axes.xaxis.get_major_locator().set_params(integer=True)
    if scores:
        right.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)  # above, where no line is


def reliability_diagram(figure, points: list[dict], dark: bool) -> None:
    """`points` as extractive_qa.postprocessing.calibration.reliability gives them."""
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color=INK[dark], lw=0.8, ls=(0, (4, 4)), label="as sure as right")
    confidence = [100 * point["confidence"] for point in points]
    accuracy = [100 * point["accuracy"] for point in points]
    axes.vlines(confidence, confidence, accuracy, color=SECOND[dark], lw=1.5)  # how far off
    axes.plot(confidence, accuracy, marker="o", color=FIRST[dark])
    axes.set(xlabel="confidence (mean of each tenth of the answers, %)", ylabel="right (EM, %)")
    axes.set(xlim=(0, 101), ylim=(0, 101))
    axes.grid()
    axes.legend()


def threshold_curve(figure, rows: list[dict], dark: bool) -> None:
    """Share answered and EM at each threshold, `rows` as extractive_qa.report.statistics.confidence gives them."""
    axes = figure.subplots()
    at = [100 * row["min_confidence"] for row in rows]
    em, answered = [row["exact_match"] for row in rows], [100 * row["answered"] for row in rows]
    axes.plot(at, em, marker="o", color=FIRST[dark], label="EM of those answered")
    axes.plot(at, answered, marker="s", color=SECOND[dark], label="share answered")
    known = [(x, *row["exact_match_interval"]) for x, row in zip(at, rows, strict=True) if row["exact_match_interval"]]
    if known:
        axes.fill_between(*zip(*known, strict=True), color=FIRST[dark], alpha=0.15, lw=0)
    axes.set(xlabel="least confidence that is answered (%)", ylabel="%", ylim=(0, 101))
    axes.grid()
    axes.legend()


def group_chart(figure, groups: list[dict], dark: bool) -> None:
    """EM of each group with its interval, `groups` as extractive_qa.report.statistics.group_scores gives them."""
    axes = figure.subplots()
    labels, places, place = [], [], 0.0
    for row, before in zip(groups, [None, *groups], strict=False):
        place += 1 if before and before["by"] == row["by"] else 1.8  # a gap between two ways to divide the questions
        places.append(place)
        labels.append(f"{row['group']}  ({row['questions']:,})")
        if row["exact_match_interval"]:
            axes.plot(row["exact_match_interval"], [place, place], color=FIRST[dark], lw=2, alpha=0.5)
        axes.plot(row["exact_match"], place, "o", color=FIRST[dark], ms=5)
        axes.plot(row["f1"], place, "|", color=SECOND[dark], ms=9, mew=2)
    name_rows(axes, places, labels)
    axes.set(xlabel="EM (dot, with its 95 % interval) and F1 (stroke), %", xlim=(-1, 101))


def mistake_chart(figure, mistakes: list[dict], dark: bool) -> None:
    """The kinds of mistakes by their share, `mistakes` as extractive_qa.report.statistics.mistakes gives them."""
    axes = figure.subplots()
    places = range(len(mistakes))
    axes.barh(places, [row["share"] for row in mistakes], color=FIRST[dark], height=0.6)
    for place, row in zip(places, mistakes, strict=True):
        if row["share_interval"]:
            axes.plot(row["share_interval"], [place, place], color=SECOND[dark], lw=2)
    name_rows(axes, places, [f"{row['kind']}  ({row['count']:,})" for row in mistakes])
    axes.set(xlabel="share of all mistakes (%), with its 95 % interval", xlim=(0, None))


def name_rows(axes, places: Sequence[float], labels: list[str]) -> None:
    """Labels the rows of a chart that is read from top to bottom."""
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
