"""What a training leaves behind: the best epoch as a plain model folder, with confidences that fit."""

import json
import math
import os
import shutil
import stat
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scripts import PROJECT_ROOT
from small_training import DEV, assert_equal_weights, log_without_times, make_run
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.postprocessing.calibration import TEMPERATURES
from extractive_qa.preprocessing.windows import prepare_validation_features
from extractive_qa.reader import Reader
from extractive_qa.training.run import Training, earlier_calibration
from utils.offline import SAMPLE_MODEL_DIR


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


AT_1 = 1 + np.searchsorted(TEMPERATURES, 1.0)  # the row of what a model says as it was trained


def saved_calibration(tmp_path, probabilities, correct, earlier) -> tuple[tuple[float, float], dict]:
    """What temperature and references final_model gets, and what is said of them. Rows as save_final_model has them.
    earlier: of the model that the training began with, None where it has no reader.json."""
    if earlier is not None:
        (tmp_path / "reader.json").write_text(json.dumps(earlier), encoding="utf-8")
    saved = []
    run = SimpleNamespace(
        args=SimpleNamespace(output_dir=tmp_path), earlier=earlier_calibration(tmp_path),
        write_model=lambda *given: saved.append(given),
    )  # fmt: skip
    found = Training.save_final_model(run, {"f1": 1.0}, probabilities, correct)
    ((_, scores, *calibration),) = saved
    assert scores == {"f1": 1.0}
    return tuple(calibration), found


def test_confidences_stay_as_trained_where_fitting_makes_their_error_larger(tmp_path):
    """What fits best by log loss need not by the error of its bins."""
    probabilities = np.full((1 + len(TEMPERATURES), 200), 0.5)
    correct = np.tile([True, False, True, False], 50)
    probabilities[1] = np.tile([0.6, 0.4, 0.6, 0.4], 50)  # never quite wrong: the least loss, and a larger error
    probabilities[AT_1] = np.tile([1.0, 1e-9, 1.0, 0.9999999], 50)
    assert saved_calibration(tmp_path, probabilities, correct, {"temperature": 3.0})[0] == (1.0, 1.0)


@pytest.mark.parametrize(
    ("earlier", "kept"),
    [
        ({"temperature": 3.4, "references": 12.3, "max_length": 64}, (3.4, 12.3)),
        ({"references": 2.0}, (1.0, 2.0)),
        ({}, (1.0, 1.0)),
        (None, (1.0, 1.0)),
    ],
)
@pytest.mark.parametrize("questions", [5, 199, 200])
def test_of_few_questions_the_calibration_is_kept_that_the_model_came_with(tmp_path, earlier, kept, questions):
    """Fitted to five, all of them right, an unanswerable question had been 99.3 % sure."""
    correct = np.ones(questions, dtype=bool)
    probabilities = np.full((1 + len(TEMPERATURES), questions), 0.3)
    probabilities[0] = 0.8
    calibration, found = saved_calibration(tmp_path, probabilities, correct, earlier)
    assert (calibration == kept) == (questions < 200)
    assert (found["temperature"], found["references"]) == calibration
    if questions < 200:
        assert found["error"] == pytest.approx(0.2)  # that of the row with the earlier calibration
        assert found["error_uncalibrated"] == pytest.approx(0.7)
    else:
        assert calibration[1] == 16 and "fitted_on" in found


def test_a_training_on_the_sample_keeps_the_sample_models_confidences(tmp_path):
    """It scores 82 questions. A reader of the new folder answers with them, and the start says so."""
    own = json.loads((SAMPLE_MODEL_DIR / "reader.json").read_text(encoding="utf-8"))
    run, log = make_run(SAMPLE_MODEL_DIR, tmp_path / "out", "--max_train_samples", 8)
    assert "confidences: 8 scored question(s) are too few" in run.describe()
    assert "those of models/sample are kept" in run.describe()
    found = run.evaluate(log)
    reader = Reader(tmp_path / "out" / "final_model", "cpu", "no")
    for name in ("temperature", "references"):
        assert reader.settings[name] == own[name] == log.lines[-1][f"calibration_{name}"]
    assert not [line for line in found if "temperature" in line or "references" in line]


@pytest.mark.parametrize(
    ("content", "words"), [('{"temperature": "hot"}', "temperature is 'hot'"), ("{", "reader.json")]
)
def test_a_damaged_calibration_is_refused_before_the_first_step(tiny_model, tmp_path, content, words):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "reader.json").write_text(content, encoding="utf-8")
    with pytest.raises(QAError) as refused:
        make_run(tmp_path / "model", tmp_path / "out")
    assert words in str(refused.value)


def test_final_model_and_checkpoints_of_an_encoder_have_confidences_as_trained(trained):
    for name in ("final_model", "checkpoint-3"):
        settings = json.loads((trained / name / "reader.json").read_text(encoding="utf-8"))
        assert (settings["temperature"], settings["references"]) == (1.0, 1.0)


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
