"""What a training leaves to look at: its log, the same numbers for TensorBoard, and pictures."""

import json
from pathlib import Path


class TrainingLog:
    """training_log.jsonl, one JSON object a line, and the same numbers in runs/ for TensorBoard.

    resume_step: lines after this optimizer step are cut, as what they tell is done again; 0 begins a new log.
    writes: whether this process writes files (one of several does).
    """

    def __init__(self, output_dir: Path, resume_step: int, writes: bool = True):
        self.path, self.writes, self.lines = output_dir / "training_log.jsonl", writes, []
        if resume_step and self.path.exists():
            lines = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
            self.lines = [line for line in lines if line["step"] <= resume_step]
        if writes:
            from torch.utils.tensorboard import SummaryWriter

            self.path.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
            self.board = SummaryWriter(str(output_dir / "runs"), purge_step=resume_step + 1 if resume_step else None)

    def write(self, line: dict) -> None:
        """Adds a line: `step`, `epoch`, and what was measured there."""
        self.lines.append(line)
        if self.writes:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            for name in line.keys() - {"step", "epoch", "total"}:
                self.board.add_scalar(name, line[name], line["step"])
            self.board.flush()

    @property
    def scores(self) -> list[dict]:
        """The lines of the evaluations so far."""
        return [line for line in self.lines if "f1" in line]

    def has_scores(self, step: int) -> bool:
        return any(line["step"] == step for line in self.scores)


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
