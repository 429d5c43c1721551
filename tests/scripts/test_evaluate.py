"""evaluate.py: the official numbers, the official files, and clear words where something is missing."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from scripts import PROJECT_ROOT, assert_refused, run_script

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.files.manifest import NAME, check_manifest, write_manifest
from extractive_qa.metrics import exact_match_score
from extractive_qa.postprocessing.calibration import calibration_error
from extractive_qa.postprocessing.confidence import check_calibrator
from extractive_qa.training.checkpoints import MARKER
from extractive_qa.training.situations import SITUATIONS
from utils import console, offline
from utils.offline import sample_model

DEV = PROJECT_ROOT / "data" / "sample" / "dev.json"
FILES = {"predictions.json", "nbest_predictions.json", "metrics.json"}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("evaluate_script", PROJECT_ROOT / "evaluate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def evaluate(script, monkeypatch):
    """Runs evaluate.py in this process: a start of its own takes seconds."""
    monkeypatch.setitem(console.OUTPUT, "quiet", False)  # put back afterwards
    return lambda *args: script.main([str(arg) for arg in args])


@pytest.fixture
def refusal(evaluate):
    """What evaluate.py says when it refuses such arguments."""

    def run(*args: object) -> str:
        with pytest.raises(QAError) as caught:
            evaluate(*args)
        return console.in_flags(str(caught.value))

    return run


@pytest.fixture
def gold(tmp_path) -> Path:
    """A file with the right predictions."""
    path = tmp_path / "gold" / "predictions.json"
    path.parent.mkdir()
    write(path, {example["id"]: example["answers"]["text"][-1] for example in read_examples(DEV)})
    return path


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="module")
def evaluated(tiny_model, tmp_path_factory):
    """The output folder of a run as a user starts it, with everything that it can show, and what it printed."""
    output, other = tmp_path_factory.mktemp("evaluated"), tmp_path_factory.mktemp("other")
    write(other / "predictions.json", {e["id"]: e["answers"]["text"][0] for e in read_examples(DEV)[:20]})
    write(other / "nbest_predictions.json", {})
    done = run_script("evaluate.py", "--model_dir", tiny_model, "--eval_file", DEV, "--output_dir", output,
                      "--mixed_precision", "no", "--max_samples", 20, "--n_best_size", 5, "--show_examples", 3,
                      "--report", "--compare", other)  # fmt: skip
    return output, done


def test_the_files_are_written_and_agree(evaluated):
    output, _ = evaluated
    assert {path.name for path in output.iterdir()} == FILES | {"report.html", "report"}
    examples = {example["id"]: example for example in read_examples(DEV)[:20]}
    predictions, nbest = read(output / "predictions.json"), read(output / "nbest_predictions.json")
    assert list(predictions) == list(nbest) == list(examples)
    for identifier, answers in nbest.items():
        context = examples[identifier]["context"]
        assert 1 <= len(answers) <= 5
        assert answers[0]["text"] == predictions[identifier]
        assert all(context[a["start"] : a["end"]] == a["text"] for a in answers)
        probabilities = [a["probability"] for a in answers]
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1 + 1e-9
    assert read(output / "metrics.json")["total"] == 20


def test_metrics_say_how_well_confidences_fit(evaluated):
    output, _ = evaluated
    metrics = read(output / "metrics.json")
    calibration, examples = metrics["calibration"], read_examples(DEV)[:20]
    best = [answers[0] for answers in read(output / "nbest_predictions.json").values()]
    confidence = np.array([answer["probability"] for answer in best])
    right = [exact_match_score(a["text"], e["answers"]["text"]) for a, e in zip(best, examples, strict=True)]
    assert calibration["error"] == pytest.approx(calibration_error(confidence, np.array(right)))
    assert sum(point["count"] for point in calibration["reliability"]) == 20
    assert calibration["thresholds"][0] == {
        "min_confidence": 0.0, "answered": 1.0, "exact_match": metrics["exact_match"],
    }  # fmt: skip


def test_examples_comparison_and_report_are_shown_and_the_scores_come_last(evaluated):
    output, done = evaluated
    for example in read_examples(DEV)[:3]:
        assert example["question"] in done.stdout
        assert example["answers"]["text"][0] in done.stdout
    assert done.stdout.count("verdict:") == 3
    assert "\x1b[" not in done.stdout  # not a terminal, no colours
    metrics = read(output / "metrics.json")
    (found,) = re.findall(r"^EM +([\d.]+) +([\d.]+) +([-+][\d.]+) .*\((.+)\)$", done.stdout, re.MULTILINE)
    this_em, other_em, difference = map(float, found[:3])
    assert this_em == pytest.approx(metrics["exact_match"]) and other_em == 100
    assert difference == pytest.approx(this_em - 100)
    assert found[3] == "may be chance"  # 20 questions on 4 contexts: chance alone agrees on 4 in 1 of 8 cases
    assert "not of the same run" in done.stderr  # the other run's confidences
    assert "Next: python predict.py --model_dir " in done.stderr
    page = Page((output / "report.html").read_text(encoding="utf-8")).root
    assert "1 window" in page.words and "Compared with the other run" in page.words
    *_, calibration, scores = done.stdout.splitlines()
    assert "calibration error" in calibration
    assert scores == f"EM {metrics['exact_match']:.2f}  F1 {metrics['f1']:.2f}  on 20 questions"


def test_scoring_the_written_predictions_gives_the_same_scores(evaluated, evaluate, tmp_path, capsys):
    output, done = evaluated
    evaluate("--predictions", output / "predictions.json", "--eval_file", DEV, "--max_samples", 20, "--output_dir",
             tmp_path, "--report")  # fmt: skip
    assert capsys.readouterr().out.splitlines()[-1] == done.stdout.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report"}
    page_with_model = Page((output / "report.html").read_text(encoding="utf-8")).root
    # confidences are in the file beside the predictions; windows, device and training log are not known
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8")).root
    assert "calibration error" in page.words and "the predictions came from a file" in page.words
    assert "device" not in page.all("p", "about")[0].words and "device" in page_with_model.all("p", "about")[0].words


def test_predictions_do_not_depend_on_the_batch_size(evaluated, evaluate, tiny_model, tmp_path):
    output, _ = evaluated
    evaluate("--model_dir", tiny_model, "--eval_file", DEV, "--output_dir", tmp_path, "--mixed_precision", "no",
             "--max_samples", 20, "--n_best_size", 5, "--batch_size", 3)  # fmt: skip
    assert read(tmp_path / "predictions.json") == read(output / "predictions.json")


def test_gold_answers_score_100_and_missing_ones_0(evaluate, gold, capsys, caplog):
    everything = read(gold)
    evaluate("--predictions", gold, "--eval_file", DEV)
    assert f"EM 100.00  F1 100.00  on {len(everything)} questions" in capsys.readouterr().out
    half = dict(list(everything.items())[: len(everything) // 2])
    write(gold, half)
    evaluate("--predictions", gold, "--eval_file", DEV)
    assert f"EM {100 * len(half) / len(everything):.2f}" in capsys.readouterr().out
    assert f"{len(everything) - len(half)} of {len(everything)} questions have no prediction" in caplog.text


def test_the_sample_needs_no_other_flag_and_flags_that_were_given_win(evaluate, tmp_path, capsys):
    evaluate("--sample", "--max_samples", 2, "--output_dir", tmp_path)
    assert "on 2 questions" in capsys.readouterr().out
    assert read(tmp_path / "metrics.json")["eval_file"] == str(offline.SAMPLE_FILES["dev"])
    assert read(tmp_path / "metrics.json")["settings"]["model_dir"] == str(sample_model())


def test_the_sample_model_is_the_one_trained_here_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(offline, "OUTPUT_DIR", tmp_path)
    assert sample_model() == offline.SAMPLE_MODEL_DIR
    (tmp_path / "sample" / "final_model").mkdir(parents=True)
    assert sample_model() == tmp_path / "sample" / "final_model"


def test_quiet_prints_the_scores_alone(evaluate, tiny_model, tmp_path, capsys):
    evaluate("--model_dir", tiny_model, "--eval_file", DEV, "--output_dir", tmp_path, "--max_samples", 2, "--quiet")
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()] == ["calibration", "EM"]
    assert printed.err == ""


# fitting confidences


def fit_flags(model: Path, output: Path, *flags: object) -> tuple:
    return ("--model_dir", model, "--eval_file", DEV, "--output_dir", output, "--mixed_precision", "no",
            "--calibrate", *flags)  # fmt: skip


def test_confidences_are_fitted_on_one_half_and_the_folder_s_checksums_stay_right(
    evaluate, tiny_model, tmp_path, capsys
):
    model, first, second = (tmp_path / name for name in ("model", "first", "second"))
    shutil.copytree(tiny_model, model)
    write(model / "reader.json", {"max_length": 200, "note": "mine"})
    for name in (NAME, MARKER):
        write_manifest(model, "here", "1", paths=[model / "config.json", model / "reader.json"], name=name)
    source = read(model / NAME)
    evaluate(*fit_flags(model, first))
    printed = capsys.readouterr().out
    calibration, settings = read(first / "metrics.json")["calibration"], read(model / "reader.json")
    fitted = {"temperature": 1.0, "references": 1.0, "calibrator": calibration["calibrator"]}
    assert check_calibrator(calibration["calibrator"]) == []
    defaults = {"doc_stride": 128, "max_answer_length": 30, "handle_impossible_answer": False}
    assert {**fitted, **defaults, "max_length": 200, "note": "mine"} == settings
    count = len(read_examples(DEV))
    measured = calibration["situations"]
    assert set(measured) == set(SITUATIONS) and calibration["fitted_on"] + measured["own"]["questions"] == count
    assert sum(point["count"] for point in calibration["reliability"]) == count
    assert all(f"calibration error {one['error']:.3f}" in printed for one in measured.values())
    for name in (NAME, MARKER):
        assert check_manifest(model, full=True, name=name)
    after = read(model / NAME)
    assert [entry["file"] for entry in after["files"]] == [entry["file"] for entry in source["files"]]
    assert {**after, "files": None} == {**source, "files": None}

    # the folder begins a second fit where the first one ended, which changes less than the first did
    evaluate(*fit_flags(model, second))
    for target, weights in calibration["calibrator"].items():
        start = {"log_odds": float(target == "right")}
        again = read(model / "reader.json")["calibrator"][target]
        moved = [
            sum(abs(to[name] - at.get(name, 0.0)) for name in to) for at, to in ((start, weights), (weights, again))
        ]
        assert moved[1] < moved[0], (weights, again)
    assert list(read(second / "predictions.json").values()) == list(read(first / "predictions.json").values())


@pytest.mark.fault("disk or folder that fails")
def test_what_can_not_be_fitted_or_written_leaves_the_folder_as_it_was(refusal, tiny_model, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    assert "one text" in refusal(*fit_flags(model, tmp_path, "--max_samples", 1))
    assert "--predictions has none" in refusal(*fit_flags(model, tmp_path, "--predictions", DEV))
    (model / ".reader.json.new").mkdir()  # where the new one would be written
    said = refusal(*fit_flags(model, tmp_path, "--max_samples", 20))
    assert "reader.json can't be written" in said and '"calibrator"' in said
    assert not (model / "reader.json").exists()


# what is refused


def test_bad_flags_are_reported_together_without_a_traceback():
    done = run_script("evaluate.py", "--max_samples", 0, "--batch_size", "-3", "--show_examples", "-1", code=2)
    assert_refused(done, "--max_samples", "--batch_size", "--show_examples")


SLOW = {"torch", "transformers", "datasets", "pyarrow", "evaluate", "onnxruntime", "matplotlib", "jinja2"}
ANSWERED_AT_ONCE = """
import contextlib, io, json, runpy, sys
from extractive_qa import QAError
main = runpy.run_path("evaluate.py")["main"]
for args in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(args)
        except QAError as error:
            print(error, file=said)
        except SystemExit as done:
            print("exit", done.code, file=said)
    print(json.dumps([said.getvalue(), sorted(sys.modules)]))
"""


def test_help_and_what_is_missing_are_answered_before_a_slow_library_is_imported(gold, tmp_path):
    none, questions, model = str(tmp_path / "none"), ("--eval_file", str(DEV)), ("--model_dir", str(tmp_path))
    cases = [
        (["--help"], ["exit 0", "--eval_file"]),
        (["--no_such_flag"], ["exit 2", "--no_such_flag"]),
        (["--max_samples", "0"], ["--max_samples is 0"]),
        (["--eval_file", none], ["none is missing", "python download_data.py"]),
        ([*questions, "--model_dir", none], ["none is missing", "python train.py"]),
        ([*questions, "--predictions", none], ["none is missing", "{id: text}"]),
        ([*questions, *model, "--compare", none], ["predictions.json is missing", "--output_dir"]),
        ([*questions, *model, "--compare", str(tmp_path), "--output_dir", str(tmp_path)], ["is --output_dir itself"]),
    ]
    done = subprocess.run(
        [sys.executable, "-c", ANSWERED_AT_ONCE, json.dumps([args for args, _ in cases])],
        check=True, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for (args, words), (said, modules) in zip(cases, answers, strict=True):
        assert all(word in said for word in words), (args, said)
        assert not SLOW & set(modules), args


@pytest.mark.fault("damaged predictions")
def test_another_run_on_other_questions_is_refused_before_the_model_is_asked(refusal, gold, tmp_path):
    flags = ("--eval_file", DEV, "--model_dir", tmp_path, "--output_dir", tmp_path / "this", "--compare", gold.parent)
    everything = read(gold)
    write(gold, {"x": "y"})
    assert "answers none of the questions" in refusal(*flags)
    write(gold, dict(list(everything.items())[:-2]))
    assert "lacks 2 of the" in refusal(*flags)
    assert not (tmp_path / "this").exists()


def test_an_encoder_that_was_never_trained_to_answer_is_refused(refusal, tiny_encoder, tmp_path):
    said = refusal("--model_dir", tiny_encoder, "--eval_file", DEV, "--output_dir", tmp_path)
    assert "ForQuestionAnswering" in said and "python train.py" in said


def test_questions_that_were_damaged_after_the_download_are_not_scored(refusal, gold, tmp_path):
    questions = tmp_path / "squad"
    questions.mkdir()
    (questions / "dev.json").write_bytes(DEV.read_bytes())
    write_manifest(questions, "here", None)
    with (questions / "dev.json").open("ab") as file:
        file.write(b" ")
    said = refusal("--predictions", gold, "--eval_file", questions)
    assert all(word in said for word in ("dev.json", "is damaged", "python download_data.py"))


@pytest.mark.fault("disk or folder that fails")
@pytest.mark.parametrize("name", ["", "nbest_predictions.json", "predictions.json", "metrics.json"])
def test_what_can_not_be_written_is_said_and_leaves_nothing_beside_it(refusal, tiny_model, tmp_path, name):
    output = tmp_path / "output"
    if name:
        (output / name).mkdir(parents=True)
    else:
        output.write_text("a file", encoding="utf-8")
    said = refusal("--model_dir", tiny_model, "--eval_file", DEV, "--max_samples", 1, "--output_dir", output)
    assert f"{output} can't be written" in said and "--output_dir" in said
    assert output.read_text(encoding="utf-8") == "a file" if not name else not list(output.glob(".*.new"))


def test_a_report_that_can_not_be_written_is_refused(refusal, gold, tmp_path):
    (tmp_path / "report").write_text("a file", encoding="utf-8")
    said = refusal("--predictions", gold, "--eval_file", DEV, "--output_dir", tmp_path, "--report")
    assert "can't be written" in said and "--output_dir" in said
    assert not (tmp_path / "report.html").exists()


def test_help_shows_every_default(evaluate, capsys):
    with pytest.raises(SystemExit):
        evaluate("--help")
    shown = capsys.readouterr().out
    for flag, default in (("--batch_size", "4 on a CPU, 32 on a GPU"), ("--n_best_size", 20), ("--device", "auto")):
        after = shown.split(flag)[1].split("--")[0]
        assert f"(default: {default})" in " ".join(after.split())


CHINESE = "青石桥建于一九三二年，全长八十七米，由本地石匠修建。"


@pytest.fixture
def chinese(tmp_path) -> Path:
    """Three questions on a Chinese text."""
    records = [
        {"id": gold, "question": question, "context": CHINESE, "answer": gold, "answer_start": CHINESE.index(gold)}
        for question, gold in (("有多长？", "八十七米"), ("哪年建成？", "一九三二年"), ("谁修建？", "本地石匠"))
    ]
    write(tmp_path / "chinese.json", records)
    return tmp_path / "chinese.json"


def test_chinese_answers_are_scored_by_character_and_that_is_said(evaluate, chinese, tmp_path, capsys):
    """Four near-perfect ones had scored 0."""
    write(tmp_path / "given.json", {"八十七米": "全长八十七米", "一九三二年": "一九三二", "本地石匠": "本地石匠。"})
    flags = ("--predictions", tmp_path / "given.json", "--eval_file", chinese, "--output_dir", tmp_path / "out")
    f1 = 100 * (4 / 5 + 8 / 9 + 1) / 3
    for more, scores, is_said in (
        ((), f"EM 33.33  F1 {f1:.2f}", True),
        (("--f1_unit", "character"), f"EM 33.33  F1 {f1:.2f}", False),
        (("--f1_unit", "word"), "EM 0.00  F1 0.00", False),
    ):
        evaluate(*flags, *more, "--show_examples", 1, "--report")
        said = capsys.readouterr().out
        assert said.splitlines()[-1] == f"{scores}  on 3 questions"
        assert ("count characters" in said and "--f1_unit word" in said) == is_said
        assert ("F1 80)" in said) == ("EM 0.00" not in scores)
        page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8")).root
        assert ("4 characters" in page.words or "3 to 4 characters" in page.words) == ("EM 0.00" not in scores)


def test_a_model_is_scored_and_calibrated_by_character_too(evaluate, chinese, tiny_model, tmp_path, caplog):
    with caplog.at_level("WARNING", "extractive_qa"):
        evaluate("--model_dir", tiny_model, "--eval_file", chinese, "--output_dir", tmp_path, "--mixed_precision", "no")
    metrics, predictions = read(tmp_path / "metrics.json"), read(tmp_path / "predictions.json")
    right = [exact_match_score(predictions[e["id"]], e["answers"]["text"], "character") for e in read_examples(chinese)]
    assert metrics["f1_unit"] == "character"
    assert metrics["calibration"]["thresholds"][0]["exact_match"] == pytest.approx(100 * np.mean(right))
    assert caplog.text.count("of the text's characters") == 1
