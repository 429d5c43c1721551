"""predict.py: answers for people and for programs, from any text, in any console."""

import importlib.util
import itertools
import json
import os
import subprocess
import sys

import pytest
from scripts import PROJECT_ROOT, assert_refused, run_script

CONTEXT = "The reader was written in Zürich by Ada Müller, and it cost 12 € in 1999. It is 3.5 km long."


def test_ask_prints_an_answer_and_a_confidence(tiny_model):
    done = run_script("predict.py", "ask", "--model_dir", tiny_model, "--question", "Who?", "--context", CONTEXT)
    prediction, confidence = done.stdout.splitlines()
    assert prediction.removeprefix("prediction: ") in CONTEXT
    assert 0 <= float(confidence.removeprefix("confidence: ").removesuffix("%")) <= 100


def test_json_holds_offsets_into_the_context(tiny_model):
    done = run_script("predict.py", "ask", "--model_dir", tiny_model, "--question", "Who?", "--context", CONTEXT,
                      "--top_k", 3, "--json")  # fmt: skip
    answers = json.loads(done.stdout)["answers"]
    assert len(answers) == 3
    for answer in answers:
        assert CONTEXT[answer["start"] : answer["end"]] == answer["text"]
    assert sum(answer["probability"] for answer in answers) <= 1


def test_all_answers_there_are_can_be_asked_for(tiny_model):
    done = run_script("predict.py", "ask", "--model_dir", tiny_model, "--question", "Who?", "--context", CONTEXT,
                      "--top_k", 10**9, "--json")  # fmt: skip
    answers = sorted(json.loads(done.stdout)["answers"], key=lambda answer: answer["start"])
    assert 3 < len(answers) < 100
    assert all(one["end"] <= next_one["start"] for one, next_one in itertools.pairwise(answers))


def test_below_min_confidence_no_answer_is_found_in_any_mode(tiny_model):
    flags = ("--model_dir", tiny_model, "--min_confidence", "0.999")
    asked = ("ask", "--question", "Who?", "--context", CONTEXT)
    plain = json.loads(run_script("predict.py", *asked, "--model_dir", tiny_model, "--json").stdout)
    assert plain["answered"] and plain["answers"][0]["text"]
    found = json.loads(run_script("predict.py", *asked, *flags, "--top_k", 3, "--json").stdout)
    best = plain["answers"][0]["probability"]
    assert not found["answered"]
    assert found["answers"] == [{"text": "", "start": 0, "end": 0, "probability": pytest.approx(best)}]
    shown = run_script("predict.py", *asked, *flags).stdout
    assert shown == f"prediction: no answer found\nconfidence: {best:.2%} for the best candidate\n"
    for arguments, typed in ((("demo",), ""), ((), f"{CONTEXT}\n\nWho?\n:quit\n")):
        done = run_script("predict.py", *arguments, *flags, stdin=typed)
        assert done.stdout.count("prediction: ") == done.stdout.count("prediction: no answer found") >= 1


def test_json_survives_a_console_of_another_encoding(tiny_model):
    arguments = ("ask", "--model_dir", tiny_model, "--question", "é?", "--context", CONTEXT, "--top_k", 9, "--json")
    plain = json.loads(run_script("predict.py", *arguments).stdout)
    assert json.loads(run_script("predict.py", *arguments, PYTHONIOENCODING="ascii").stdout) == plain
    assert json.loads(run_script("predict.py", *arguments, PYTHONIOENCODING="gbk").stdout) == plain


def test_a_long_file_is_read_through_windows(tiny_model, tmp_path):
    book = tmp_path / "Büch 书.txt"
    book.write_text("\ufeff" + f"{CONTEXT}\n" * 300, encoding="utf-8")
    done = run_script("predict.py", "ask", "--model_dir", tiny_model, "--question", "Who?", "--context_file", book,
                      "--json")  # fmt: skip
    answer = json.loads(done.stdout)["answers"][0]
    assert (f"{CONTEXT}\n" * 300)[answer["start"] : answer["end"]] == answer["text"]


def test_demo_answers_several_questions_the_brief_s_first(tiny_model):
    done = run_script("predict.py", "demo", "--model_dir", tiny_model)
    questions = [line for line in done.stdout.splitlines() if line.startswith("question:")]
    assert "How much area does the Amazon rainforest cover?" in questions[0]
    assert len(questions) == done.stdout.count("confidence: ") == done.stdout.count("prediction: ") >= 5


def test_interactive_takes_texts_files_and_questions(tiny_model, tmp_path):
    file = tmp_path / "a text.txt"
    file.write_text("Only this.", encoding="utf-8")
    typed = f"{CONTEXT}\nA second line.\n\nWho?\n   \n:new\n:file {file}\nWhat?\n:file {tmp_path / 'none'}\n:quit\n"
    done = run_script("predict.py", "--model_dir", tiny_model, stdin=typed)
    assert done.stdout.count("prediction: ") == 2
    assert done.stdout.rsplit("prediction: ", 1)[1].splitlines()[0] in "Only this."
    assert "can't be read" in done.stderr


@pytest.mark.parametrize("typed", ["", CONTEXT, f"{CONTEXT}\n\n", ":quit\n", f"{CONTEXT}\n\nWho?"])
def test_interactive_leaves_quietly_at_the_end_of_input(tiny_model, typed):
    done = run_script("predict.py", "--model_dir", tiny_model, stdin=typed)
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes streams")
def test_nothing_can_be_asked_where_the_input_is_closed(tiny_model):
    command = ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "predict.py", "--model_dir", str(tiny_model)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=PROJECT_ROOT)
    assert_refused(done, "standard input is closed", "python predict.py ask")


def test_a_model_that_is_missing_says_what_to_run(tmp_path):
    assert_refused(run_script("predict.py", "demo", "--model_dir", tmp_path / "none", code=2), "python train.py")


@pytest.fixture(scope="module")
def predict():
    spec = importlib.util.spec_from_file_location("predict_script", PROJECT_ROOT / "predict.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_further_answers_stand_below_the_best_also_where_that_is_none(predict):
    ada, none = {"text": "Ada\x1b", "probability": 0.2}, {"text": "", "probability": 0.7}
    assert predict.show([ada, none], 0.0).splitlines() == [
        "prediction: Ada\\x1b", "confidence: 20.00%", "       or:  no answer (70.00%)",
    ]  # fmt: skip
    assert predict.show([none, ada, ada], 0.5).splitlines() == [
        "prediction: no answer found", "confidence: 70.00% that the text holds none",
        "       or:  Ada\\x1b (20.00%)", "       or:  Ada\\x1b (20.00%)",
    ]  # fmt: skip
    assert predict.show([none], 0.8).splitlines() == [
        "prediction: no answer found", "confidence: 70.00% for the best candidate",
    ]  # fmt: skip
    said = " ".join(run_script("predict.py", "--help", COLUMNS="200").stdout.split())
    assert 'where no answer was found, "answered" is false and the first text is ""' in said


@pytest.mark.parametrize("sample", [False, True])
def test_what_was_trained_here_is_asked_before_the_bundled_model(predict, tmp_path, monkeypatch, capsys, sample):
    monkeypatch.setattr(predict, "OUTPUT_DIR", tmp_path)
    monkeypatch.setattr(predict, "TRAINED_MODEL", tmp_path / "final_model")
    args = predict.parse_args(["--sample"] if sample else [])
    assert predict.choose_model(args) == predict.SAMPLE_MODEL_DIR
    assert ("bundled sample model" in capsys.readouterr().err) is not sample  # --sample asked for it
    trained = tmp_path / "sample" / "final_model" if sample else tmp_path / "final_model"
    trained.mkdir(parents=True)
    assert predict.choose_model(args) == trained
    assert predict.choose_model(predict.parse_args(["--model_dir", str(tmp_path)])) == tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask"], ["--question", "--context"]),
        (["ask", "--question", "Who?", "--context", ""], ["no word"]),
        (["ask", "--question", "\u200b", "--context", CONTEXT], ["no word"]),
        (["ask", "--question", "Who?", "--context_file", "none.txt"], ["none.txt"]),
        (["ask", "--question", "Who?", "--context", CONTEXT, "--top_k", "0"], ["--top_k"]),
        (["demo", "--question", "Who?"], ["predict.py ask"]),
        (["demo", "--min_confidence", "50"], ["--min_confidence is 50.0", "0 to 1"]),
        (["demo", "--min_confidence", "nan"], ["--min_confidence is nan"]),
        (["ask", "--question", "Who?", "--context", CONTEXT, "--device", "toaster"], ["toaster", "cuda"]),
        (["ask", "--question", "Who?", "--context", CONTEXT, "--mixed_precision", "fp16", "--device", "cpu"], ["fp16"]),
    ],
)
def test_what_can_not_be_asked_is_refused(tiny_model, tmp_path, arguments, words):
    assert_refused(run_script("predict.py", *arguments, "--model_dir", tiny_model, cwd=tmp_path, code=2), *words)


def test_a_file_that_is_not_utf_8_is_refused(tiny_model, tmp_path):
    (tmp_path / "gbk.txt").write_bytes("模型在哪里".encode("gbk"))
    done = run_script("predict.py", "ask", "--model_dir", tiny_model, "--question", "Who?", "--context_file",
                      tmp_path / "gbk.txt", code=2)  # fmt: skip
    assert_refused(done, "not UTF-8")


def test_an_answer_in_characters_the_console_lacks_is_still_printed(tiny_model):
    done = run_script("predict.py", "ask", "--model_dir", tiny_model, "--question", "Who?", "--context", "ǅ ꙮ ẞ",
                      PYTHONIOENCODING="gbk")  # fmt: skip
    assert "confidence: " in done.stdout


@pytest.mark.skipif((PROJECT_ROOT / "output" / "final_model").exists(), reason="a model was trained here")
def test_without_a_trained_model_the_bundled_sample_answers_and_says_so():
    done = run_script("predict.py", "ask", "--question", "Where was it written?", "--context", CONTEXT)
    assert "bundled sample model" in done.stderr
    assert "Z" in done.stdout


def test_quiet_prints_the_answer_alone_and_still_says_what_is_wrong(tiny_model):
    flags = ("--model_dir", tiny_model, "--quiet")
    done = run_script("predict.py", "ask", *flags, "--question", "Who?", "--context", CONTEXT)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["prediction", "confidence"]
    assert done.stderr == ""
    done = run_script("predict.py", *flags, stdin=f"{CONTEXT}\n\n:file none\n:quit\n")
    assert "Give a text" not in done.stdout
    assert "none can't be read" in done.stderr
