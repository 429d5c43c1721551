"""What a training leaves to look at: its log, the same numbers for TensorBoard, and pictures."""

import json
import os
from pathlib import Path

from utils.checkpoints import cannot_write, write_file
from utils.console import warn


class TrainingLog:
    """training_log.jsonl, one JSON object a line, and the same numbers in runs/ for TensorBoard.

    resume_step: lines after this optimizer step are cut, as what they tell is done again; 0 begins a new log. A line
    that a crash cut short is cut as well.
    writes: whether this process writes files (one of several does).

    Raises UserError where they can't be written.
    """

    def __init__(self, output_dir: Path, resume_step: int, writes: bool = True):
        self.path, self.writes, self.lines = output_dir / "training_log.jsonl", writes, []
        if resume_step and self.path.exists():
            self.lines = [line for line in read_log(self.path) if line["step"] <= resume_step]
        if writes:
            from torch.utils.tensorboard import SummaryWriter

            write_file(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))
            try:
                self.board = SummaryWriter(
                    str(output_dir / "runs"), purge_step=resume_step + 1 if resume_step else None
                )
            except OSError as error:
                raise cannot_write(output_dir / "runs", error) from None

    def write(self, line: dict) -> None:
        """Adds a line: `step`, `epoch`, and what was measured there. It is on the disk before a checkpoint follows."""
        self.lines.append(line)
        if not self.writes:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
            for name in line.keys() - {"step", "epoch", "total"}:
                self.board.add_scalar(name, line[name], line["step"])
            self.board.flush()
        except OSError as error:
            raise cannot_write(self.path, error) from None

    @property
    def scores(self) -> list[dict]:
        """The lines of the evaluations so far."""
        return [line for line in self.lines if "f1" in line]

    @property
    def best(self) -> dict:
        """The scores of final_model: the best by F1, of equals the last."""
        return max(self.scores, key=lambda line: (line["f1"], line["step"]))

    def has_scores(self, step: int) -> bool:
        return any(line["step"] == step for line in self.scores)


def read_log(path: Path) -> list[dict]:
    """The lines of training_log.jsonl. Those that a crash left unreadable are left out with a warning."""
    lines, damaged = [], 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            known = isinstance(line["step"], int)
        except (ValueError, KeyError, TypeError):
            known = False
        if known:
            lines.append(line)
        else:
            damaged += 1
    if damaged:
        warn(f"{path}: {damaged} line(s) can't be read, as after a crash, and are left out")
    return lines


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
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        pyplot.close(figure)
