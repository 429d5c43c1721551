"""The log of a training: one JSON object a line, whatever was measured."""

import json
import math

from extractive_qa.report.charts import draw_training_curve
from extractive_qa.training.log import TrainingLog, read_log


def test_what_is_not_finite_is_null_in_the_log(tmp_path):
    """As under fp16, whose scaler finds its scale by overflowing."""
    log = TrainingLog(tmp_path, 0)
    log.write({"step": 2, "epoch": 0.5, "loss": 1.5, "learning_rate": 1e-5, "grad_norm": math.inf})
    log.write({"step": 4, "epoch": 1.0, "loss": math.nan, "learning_rate": 0.0, "grad_norm": 2.0})

    def no_json(name):
        raise AssertionError(f"{name} is no JSON")

    text = (tmp_path / "training_log.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line, parse_constant=no_json) for line in text.splitlines()]
    assert [(line["loss"], line["grad_norm"]) for line in lines] == [(1.5, None), (None, 2.0)]
    assert lines == log.lines == read_log(tmp_path / "training_log.jsonl")
    draw_training_curve(log.lines, tmp_path / "curve.png")
