"""What a training leaves behind: the best epoch as a plain model folder, with confidences that fit."""

import json
import math
import os
import stat
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scripts import PROJECT_ROOT
from small_training import DEV, assert_equal_weights, log_without_times
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from extractive_qa.data.examples import read_examples
from extractive_qa.metrics import exact_matches
from extractive_qa.postprocessing.calibration import TEMPERATURES, fit_confidence
from extractive_qa.preprocessing.windows import prepare_validation_features
from extractive_qa.reader import Reader
from extractive_qa.training.run import Training


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


def test_confidences_stay_as_trained_where_fitting_makes_their_error_larger(tmp_path):
    """As may happen with few questions: what fits best by log loss need not by the error of its bins."""
    saved = []
    run = SimpleNamespace(args=SimpleNamespace(output_dir=tmp_path), write_model=lambda *given: saved.append(given))
    probabilities = np.full((len(TEMPERATURES), 4), 0.5)
    correct = np.array([True, False, True, False])
    probabilities[0] = [0.6, 0.4, 0.6, 0.4]  # never quite wrong: the least loss, and a larger error
    probabilities[np.searchsorted(TEMPERATURES, 1.0)] = [1.0, 1e-9, 1.0, 0.9999999]
    Training.save_final_model(run, {"f1": 1.0}, probabilities, correct)
    ((_, scores, temperature, references),) = saved
    assert (scores, temperature, references) == ({"f1": 1.0}, 1.0, 1.0)


def test_final_model_has_the_confidences_that_fit_the_scored_questions(trained):
    """Fitted again from its answers as trained; and a reader of the folder answers with what was fitted."""
    fitted = json.loads((trained / "final_model" / "reader.json").read_text(encoding="utf-8"))
    reader, examples = Reader(trained / "final_model", "cpu", "no", batch_size=32), read_examples(DEV)[:8]
    answers = [best for (best,) in reader.answer_all(examples, temperatures=TEMPERATURES)]
    predictions = {example["id"]: answer["text"] for example, answer in zip(examples, answers, strict=True)}
    probability = np.array([answer["probabilities"] for answer in answers]).T
    temperature, references = fit_confidence(probability, np.array(exact_matches(predictions, examples)))
    assert (fitted["temperature"], fitted["references"]) == (temperature, references) != (1.0, 1.0)
    assert (reader.settings["temperature"], reader.settings["references"]) == (temperature, references)
    checkpoint = json.loads((trained / "checkpoint-3" / "reader.json").read_text(encoding="utf-8"))
    assert (checkpoint["temperature"], checkpoint["references"]) == (1.0, 1.0)  # nothing was scored yet


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
