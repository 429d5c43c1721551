"""What a training leaves to look at: its log, and the same numbers for TensorBoard where that is installed."""

import json
import logging
import math
import os
from pathlib import Path

from extractive_qa.files.atomic import explain_write_failure, write_file
from extractive_qa.training.checkpoints import go_on

logger = logging.getLogger(__name__)


class TrainingLog:
    """training_log.jsonl, one JSON object a line, and the same numbers in runs/ for TensorBoard.

    resume_step: lines after this optimizer step are cut, as what they tell is done again; 0 begins a new log. A line
    that a crash cut short is cut as well. writes: whether this process writes files (one of several does). Raises
    QAError where they can't be written.
    """

    def __init__(self, output_dir: Path, resume_step: int, writes: bool = True):
        self.path, self.writes, self.lines = output_dir / "training_log.jsonl", writes, []
        self.board = None
        if resume_step and self.path.exists():
            # the confidences are fitted at the end of every run, also of one that had only that left to do
            kept = (line for line in read_log(self.path) if "calibration" not in line)
            self.lines = [line for line in kept if line["step"] <= resume_step]
        if not writes:
            return
        with explain_write_failure(self.path, go_on(self.path.parent)):
            write_file(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # an extra: who wants its pictures installs it
            return
        with explain_write_failure(output_dir / "runs", go_on(output_dir)):
            purge_step = resume_step + 1 if resume_step else None
            self.board = SummaryWriter(str(output_dir / "runs"), purge_step=purge_step)

    def write(self, line: dict) -> None:
        """Adds a line: `step`, `epoch`, and what was measured there; what is not finite as null, which is all that JSON
        has for it. It is on the disk before a checkpoint follows."""
        self.append({name: value if math.isfinite(value) else None for name, value in line.items()})
        if self.board:
            with explain_write_failure(self.path, go_on(self.path.parent)):
                for name in line.keys() - {"step", "epoch", "total"}:
                    self.board.add_scalar(name, line[name], line["step"])
                self.board.flush()

    def append(self, line: dict) -> None:
        """Adds a line of anything that JSON has, `step` among it: no curve, as the settings of the run."""
        self.lines.append(line)
        if not self.writes:
            return
        with explain_write_failure(self.path, go_on(self.path.parent)), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

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
            if not isinstance(line["step"], int):
                raise TypeError("expected a step")
            lines.append(line)
        except (ValueError, KeyError, TypeError):
            damaged += 1
    if damaged:
        logger.warning(f"{path}: {damaged} line(s) can't be read, as after a crash, and are ignored")
    return lines


def find_log(model_dir: Path) -> list[dict]:
    """The lines of the log of the training that made a model, which lies beside its folder or in it; [] without one."""
    paths = (Path(model_dir).absolute().parent / "training_log.jsonl", Path(model_dir) / "training_log.jsonl")
    return next((read_log(path) for path in paths if path.is_file()), [])
