"""evaluate.py: the official numbers, the official files, and clear words where something is missing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scripts import PROJECT_ROOT, assert_refused, run_script

from extractive_qa.data.examples import read_examples
from extractive_qa.files.manifest import NAME, check_manifest, write_manifest
from extractive_qa.metrics import exact_match_score
from extractive_qa.postprocessing.calibration import calibration_error
from extractive_qa.training.checkpoints import MARKER
from utils import offline
from utils.offline import sample_model

DEV = PROJECT_ROOT / "data" / "sample" / "dev.json"


@pytest.fixture(scope="module")
def evaluated(tiny_model, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("evaluated")
    run_script("evaluate.py", "--model_dir", tiny_model, "--eval_file", DEV, "--output_dir", output,
               "--mixed_precision", "no", "--max_samples", 20, "--n_best_size", 5)  # fmt: skip
    return output


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_three_files_are_written_and_agree(evaluated):
    assert {path.name for path in evaluated.iterdir()} == {
        "predictions.json", "nbest_predictions.json", "metrics.json",
    }  # fmt: skip
    examples = {example["id"]: example for example in read_examples(DEV)[:20]}
    predictions, nbest = read(evaluated / "predictions.json"), read(evaluated / "nbest_predictions.json")
    assert list(predictions) == list(nbest) == list(examples)
    for identifier, answers in nbest.items():
        context = examples[identifier]["context"]
        assert 1 <= len(answers) <= 5
        assert answers[0]["text"] == predictions[identifier]
        assert all(context[a["start"] : a["end"]] == a["text"] for a in answers)
        probabilities = [a["probability"] for a in answers]
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1 + 1e-9
    assert read(evaluated / "metrics.json")["total"] == 20


def test_metrics_say_how_well_confidences_fit(evaluated):
    metrics = read(evaluated / "metrics.json")
    calibration, examples = metrics["calibration"], read_examples(DEV)[:20]
    best = [answers[0] for answers in read(evaluated / "nbest_predictions.json").values()]
    confidence = np.array([answer["probability"] for answer in best])
    right = [exact_match_score(a["text"], e["answers"]["text"]) for a, e in zip(best, examples, strict=True)]
    assert (calibration["temperature"], calibration["references"]) == (1.0, 1.0)
    assert calibration["error"] == pytest.approx(calibration_error(confidence, np.array(right)))
    assert calibration["error_uncalibrated"] == calibration["error"]
    assert sum(point["count"] for point in calibration["reliability"]) == 20
    assert calibration["thresholds"][0] == {
        "min_confidence": 0.0, "answered": 1.0, "exact_match": metrics["exact_match"],
    }  # fmt: skip


def fit(model: Path, output: Path, *flags: object, **settings):
    return run_script("evaluate.py", "--model_dir", model, "--eval_file", DEV, "--output_dir", output,
                      "--mixed_precision", "no", "--fit_temperature", *flags, **settings)  # fmt: skip


def test_confidences_are_fitted_on_one_half_and_the_folder_s_checksums_stay_right(tiny_model, tmp_path):
    model, first, second = (tmp_path / name for name in ("model", "first", "second"))
    shutil.copytree(tiny_model, model)
    (model / "reader.json").write_text('{"max_length": 200, "note": "mine"}', encoding="utf-8")
    for name in (NAME, MARKER):
        write_manifest(model, "here", "1", paths=[model / "config.json", model / "reader.json"], name=name)
    source = read(model / NAME)
    done = fit(model, first)
    calibration, settings = read(first / "metrics.json")["calibration"], read(model / "reader.json")
    fitted = {name: calibration[name] for name in ("temperature", "references")}
    assert fitted != {"temperature": 1.0, "references": 1.0}
    defaults = {"doc_stride": 128, "max_answer_length": 30, "handle_impossible_answer": False}
    assert {**fitted, **defaults, "max_length": 200, "note": "mine"} == settings
    count = len(read_examples(DEV))
    assert calibration["fitted_on"] + calibration["measured_on"] == count
    assert sum(point["count"] for point in calibration["reliability"]) == calibration["measured_on"]
    assert f"{calibration['error_uncalibrated']:.3f}" in done.stdout and f"{calibration['error']:.3f}" in done.stdout
    for name in (NAME, MARKER):
        assert check_manifest(model, full=True, name=name)
    after = read(model / NAME)
    assert [entry["file"] for entry in after["files"]] == [entry["file"] for entry in source["files"]]
    assert {**after, "files": None} == {**source, "files": None}

    # the same is found in what was fitted: the fit does not depend on what the folder said before
    fit(model, second)
    assert read(model / "reader.json") == settings
    again = read(second / "metrics.json")["calibration"]
    assert [again[name] for name in ("error", "error_uncalibrated")] == pytest.approx(
        [calibration[name] for name in ("error", "error_uncalibrated")]
    )
    assert read(second / "metrics.json")["settings"]["temperature"] == fitted["temperature"]
    assert list(read(second / "predictions.json").values()) == list(read(first / "predictions.json").values())


@pytest.mark.fault("disk or folder that fails")
def test_what_can_not_be_fitted_or_written_leaves_the_folder_as_it_was(tiny_model, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    assert_refused(fit(model, tmp_path, "--max_samples", 1, code=2), "--fit_temperature", "one text")
    assert_refused(fit(model, tmp_path, "--predictions", DEV, code=2), "--predictions has none")
    (model / "reader.json.partial").mkdir()  # where the new one would be written
    done = fit(model, tmp_path, "--max_samples", 20, code=2)
    assert_refused(done, "reader.json can't be written", '"temperature"')
    assert not (model / "reader.json").exists()


def test_scoring_the_written_predictions_gives_the_same_scores(evaluated):
    done = run_script("evaluate.py", "--predictions", evaluated / "predictions.json", "--eval_file", DEV,
                      "--max_samples", 20)  # fmt: skip
    metrics = read(evaluated / "metrics.json")
    assert f"EM {metrics['exact_match']:.2f}  F1 {metrics['f1']:.2f}  on 20 questions" in done.stdout


def test_predictions_do_not_depend_on_the_batch_size(tiny_model, evaluated, tmp_path):
    run_script("evaluate.py", "--model_dir", tiny_model, "--eval_file", DEV, "--output_dir", tmp_path,
               "--mixed_precision", "no", "--max_samples", 20, "--n_best_size", 5, "--batch_size", 3)  # fmt: skip
    assert read(tmp_path / "predictions.json") == read(evaluated / "predictions.json")


def test_gold_answers_score_100_and_missing_ones_0(tmp_path):
    examples = read_examples(DEV)
    gold = {example["id"]: example["answers"]["text"][-1] for example in examples}
    path = tmp_path / "gold.json"
    path.write_text(json.dumps(gold), encoding="utf-8")
    done = run_script("evaluate.py", "--predictions", path, "--eval_file", DEV)
    assert f"EM 100.00  F1 100.00  on {len(examples)} questions" in done.stdout
    half = dict(list(gold.items())[: len(gold) // 2])
    path.write_text(json.dumps(half), encoding="utf-8")
    done = run_script("evaluate.py", "--predictions", path, "--eval_file", DEV)
    assert f"EM {100 * len(half) / len(gold):.2f}" in done.stdout
    assert f"{len(gold) - len(half)} of {len(gold)} questions have no prediction" in done.stderr


def test_examples_are_shown_with_question_gold_and_verdict(tiny_model, tmp_path):
    done = run_script("evaluate.py", "--model_dir", tiny_model, "--eval_file", DEV, "--output_dir", tmp_path,
                      "--max_samples", 3, "--show_examples")  # fmt: skip
    examples = read_examples(DEV)[:3]
    for example in examples:
        assert example["question"] in done.stdout
        assert example["answers"]["text"][0] in done.stdout
    assert done.stdout.count("verdict:") == 3
    assert "\x1b[" not in done.stdout  # not a terminal, no colours


@pytest.mark.fault("damaged predictions")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ["can't be read as JSON"]),
        ("[]", ["not of the official format"]),
        ('{"a": 1}', ["not of the official format"]),
        ('{"a": "b"}', ["answers none of the questions"]),
    ],
)
def test_a_bad_predictions_file_is_refused(tmp_path, content, words):
    path = tmp_path / "predictions.json"
    path.write_text(content, encoding="utf-8")
    assert_refused(run_script("evaluate.py", "--predictions", path, "--eval_file", DEV, code=2), *words)


def test_no_trained_model_says_what_to_run(tmp_path):
    done = run_script("evaluate.py", "--model_dir", tmp_path / "none", "--eval_file", DEV, code=2)
    assert_refused(done, "is missing", "python train.py")


def test_an_encoder_that_was_never_trained_to_answer_is_refused(tiny_encoder, tmp_path):
    done = run_script("evaluate.py", "--model_dir", tiny_encoder, "--eval_file", DEV, "--output_dir", tmp_path, code=2)
    assert_refused(done, "ForQuestionAnswering", "python train.py")


def test_bad_flags_are_reported_together():
    done = run_script("evaluate.py", "--max_samples", 0, "--batch_size", "-3", "--show_examples", "-1", code=2)
    assert_refused(done, "--max_samples", "--batch_size", "--show_examples")


def test_the_sample_needs_no_other_flag_and_flags_that_were_given_win(tmp_path):
    done = run_script("evaluate.py", "--sample", "--max_samples", 2, "--output_dir", tmp_path)
    assert "on 2 questions" in done.stdout
    assert read(tmp_path / "metrics.json")["eval_file"] == str(DEV)
    assert read(tmp_path / "metrics.json")["settings"]["model_dir"] == str(sample_model())


def test_the_sample_model_is_the_one_trained_here_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(offline, "OUTPUT_DIR", tmp_path)
    assert sample_model() == offline.SAMPLE_MODEL_DIR
    (tmp_path / "sample" / "final_model").mkdir(parents=True)
    assert sample_model() == tmp_path / "sample" / "final_model"


def test_questions_that_were_damaged_after_the_download_are_not_scored(tmp_path):
    questions = tmp_path / "squad"
    questions.mkdir()
    (questions / "dev.json").write_bytes(DEV.read_bytes())
    write_manifest(questions, "here", None)
    gold = tmp_path / "gold.json"
    gold.write_text(json.dumps({e["id"]: e["answers"]["text"][0] for e in read_examples(DEV)}), encoding="utf-8")
    flags = ("--predictions", gold, "--eval_file", questions)
    with (questions / "dev.json").open("ab") as file:
        file.write(b" ")
    assert_refused(run_script("evaluate.py", *flags, code=2), "dev.json", "is damaged", "python download_data.py")


def test_an_output_folder_that_can_not_be_made_is_refused(tiny_model, tmp_path):
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    done = run_script("evaluate.py", "--model_dir", tiny_model, "--eval_file", DEV, "--max_samples", 1, "--output_dir",
                      tmp_path / "taken", code=2)  # fmt: skip
    assert_refused(done, "taken can't be written", "--output_dir")
    assert (tmp_path / "taken").read_text(encoding="utf-8") == "a file"


@pytest.mark.fault("disk or folder that fails")
@pytest.mark.parametrize("name", ["nbest_predictions.json", "predictions.json", "metrics.json"])
def test_a_file_that_can_not_be_written_is_said_and_leaves_nothing_beside_it(tiny_model, tmp_path, name):
    (tmp_path / name).mkdir()
    done = run_script("evaluate.py", "--model_dir", tiny_model, "--eval_file", DEV, "--max_samples", 1, "--output_dir",
                      tmp_path, code=2)  # fmt: skip
    assert_refused(done, f"{tmp_path} can't be written", "--output_dir")
    assert not list(tmp_path.glob("*.partial"))


def test_help_shows_every_default():
    done = run_script("evaluate.py", "--help")
    for flag, default in (("--batch_size", "16 on a CPU, 32 on a GPU"), ("--n_best_size", 20), ("--device", "auto")):
        after = done.stdout.split(flag)[1].split("--")[0]
        assert f"(default: {default})" in " ".join(after.split())


def test_quiet_prints_the_scores_alone(tiny_model, tmp_path):
    flags = ("--model_dir", tiny_model, "--eval_file", DEV, "--output_dir", tmp_path, "--max_samples", 2)
    done = run_script("evaluate.py", *flags, "--quiet")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["calibration", "EM"]
    assert done.stderr == ""
    assert_refused(run_script("evaluate.py", "--quiet", "--eval_file", tmp_path / "none.json", code=2), "is missing")
