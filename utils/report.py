"""Pictures of a training. Imports matplotlib."""

from pathlib import Path


def draw_training_curve(log: list[dict], path: Path) -> None:
    """Loss and learning rate over the steps, EM and F1 at each evaluation, as a PNG. `log` as training_log.jsonl."""
    import matplotlib

    matplotlib.use("Agg")  # no window, works without a display
    from matplotlib import pyplot

    steps = [line for line in log if "loss" in line]
    scores = [line for line in log if "f1" in line]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot([line["step"] for line in steps], [line["loss"] for line in steps], color="tab:blue")
    left.set(xlabel="optimizer step", ylabel="training loss", ylim=(0, None))
    rate = left.twinx()
    rate.plot([line["step"] for line in steps], [line["learning_rate"] for line in steps], color="tab:gray", lw=1)
    rate.set(ylabel="learning rate (gray)", ylim=(0, None))
    for name, label in (("f1", "F1"), ("exact_match", "EM")):
        right.plot([line["epoch"] for line in scores], [line[name] for line in scores], marker="o", label=label)
    right.set(xlabel="epoch", ylabel="score on the evaluation file (%)")
    right.grid(alpha=0.3)
    right.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
