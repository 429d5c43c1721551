"""What a training leaves behind: the best epoch as a plain model folder, with confidences that fit."""

import json
import math
import os
import shutil
import stat

import numpy as np
import pytest
import torch
from scripts import PROJECT_ROOT
from small_training import DEV, assert_equal_weights, log_without_times, make_run
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.postprocessing.confidence import check_calibrator
from extractive_qa.preprocessing.windows import prepare_validation_features
from extractive_qa.reader import Reader
from extractive_qa.training.situations import SITUATIONS


def test_training_leaves_the_files_it_promises(trained):
    assert {path.name for path in trained.iterdir()} == {
        "checkpoint-3", "checkpoint-5", "checkpoint-6", "checkpoint-9", "checkpoint-10", "final_model", "runs",
        "training_curve.png", "training_log.jsonl",
    }  # fmt: skip
    assert {"config.json", "model.safetensors", "tokenizer.json", "reader.json"} <= {
        path.name for path in (trained / "final_model").iterdir()
    }
    settings = json.loads((trained / "final_model" / "reader.json").read_text(encoding="utf-8"))
    assert (settings["max_length"], settings["doc_stride"]) == (384, 128)
    assert settings["training"]["learning_rate"] == 1e-3
    assert str(PROJECT_ROOT) not in json.dumps(settings)  # the folder may travel
    lines = log_without_times(trained)
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6, 8, 10]
    assert [line["step"] for line in lines if "f1" in line] == [5, 10]
    assert all(math.isfinite(line["loss"]) for line in lines if "loss" in line)


def test_final_model_is_the_best_epoch(trained):
    scores = {line["step"]: line["f1"] for line in log_without_times(trained) if "f1" in line}
    best = max(scores, key=lambda step: (scores[step], step))
    assert_equal_weights(trained / "final_model", trained / f"checkpoint-{best}")


@pytest.mark.parametrize(
    ("content", "words"), [('{"temperature": "hot"}', "temperature is 'hot'"), ("{", "reader.json")]
)
def test_a_damaged_calibration_is_refused_before_the_first_step(tiny_model, tmp_path, content, words):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "reader.json").write_text(content, encoding="utf-8")
    with pytest.raises(QAError) as refused:
        make_run(tmp_path / "model", tmp_path / "out")
    assert words in str(refused.value)


def test_final_model_has_a_calibrator_and_the_log_says_how_well_it_fits(trained):
    settings = json.loads((trained / "final_model" / "reader.json").read_text(encoding="utf-8"))
    assert check_calibrator(settings["calibrator"]) == [] and settings["calibrator"] is not None
    *_, last = log_without_times(trained)
    assert set(last["calibration"]) <= set(SITUATIONS) and last["calibration"]["own"]["questions"] > 0
    answer = Reader(trained / "final_model", "cpu", "no").answer("Who?", "It was Ada.")
    assert 0 <= answer["probability"] <= answer["answerable"] <= 1
    checkpoint = json.loads((trained / "checkpoint-3" / "reader.json").read_text(encoding="utf-8"))
    assert checkpoint.get("calibrator") is None  # that of the model it began with, an encoder


def test_until_its_end_a_training_keeps_the_confidences_that_the_model_came_with(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    earlier = {"temperature": 2.0, "references": 3.0}
    (tmp_path / "model" / "reader.json").write_text(json.dumps(earlier), encoding="utf-8")
    run, log = make_run(tmp_path / "model", tmp_path / "out", "--max_train_samples", 8, "--max_eval_samples", 8)
    run.evaluate(log)
    saved = json.loads((tmp_path / "out" / "final_model" / "reader.json").read_text(encoding="utf-8"))
    assert earlier.items() <= saved.items()
    run.calibrate(log)
    saved = json.loads((tmp_path / "out" / "final_model" / "reader.json").read_text(encoding="utf-8"))
    assert (saved["temperature"], saved["references"]) == (1.0, 1.0) and saved["calibrator"]


def test_a_signal_stops_the_fitting_of_confidences(tiny_model, tmp_path):
    run, log = make_run(tiny_model, tmp_path / "out", "--max_train_samples", 8, "--max_eval_samples", 8)
    run.evaluate(log)
    run.stop_signals.append(0.0)
    with pytest.raises(KeyboardInterrupt, match="stopped after step"):
        run.calibrate(log)


def test_final_model_gives_the_same_logits_in_plain_transformers(trained):
    folder = trained / "final_model"
    model = AutoModelForQuestionAnswering.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    reader = Reader(folder, "cpu", "no")
    examples = read_examples(DEV)[:4]
    features = prepare_validation_features(examples, reader.tokenizer, 384, 128)
    rows, start_logits, end_logits = reader.logits(features, range(len(features)))
    for i, row in enumerate(rows):
        example, size = examples[row["example_index"]], len(row["input_ids"])
        inputs = tokenizer(
            example["question"], example["context"], padding="max_length", max_length=384, return_tensors="pt",
            return_token_type_ids=True,
        )  # fmt: skip
        assert inputs["input_ids"][0, :size].tolist() == row["input_ids"].tolist()
        with torch.no_grad():
            output = model(**inputs)
        np.testing.assert_allclose(start_logits[i, :size], output.start_logits[0, :size], atol=1e-4)
        np.testing.assert_allclose(end_logits[i, :size], output.end_logits[0, :size], atol=1e-4)


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps no modes")
def test_whoever_may_read_the_settings_may_read_the_weights(trained):
    """safetensors writes files that only their owner reads; a server of another user could not open the model."""
    for folder in (trained / "final_model", trained / "checkpoint-3"):
        modes = {stat.S_IMODE((folder / name).stat().st_mode) for name in ("config.json", "model.safetensors")}
        assert len(modes) == 1, modes
