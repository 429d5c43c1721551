"""predict.py: answers for people and for programs, from any text, in any console."""

import argparse
import errno
import io
import itertools
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from scripts import PROJECT_ROOT, assert_refused, load_script, run_script

from extractive_qa.batch import run as batch_run
from extractive_qa.errors import QAError
from extractive_qa.progress import NoProgress
from extractive_qa.reader import Reader
from utils import console, offline

CONTEXT = "The reader was written in Zürich by Ada Müller, and it cost 12 € in 1999. It is 3.5 km long."
ASKED = ("ask", "--question", "Who?", "--context", CONTEXT)


@pytest.fixture(scope="module")
def predict():
    return load_script("predict.py")


@pytest.fixture
def run(predict, tiny_model, monkeypatch, capsys):
    """Runs main() in this process with what is typed; returns what is printed to standard output, to standard error."""

    def run(*args: object, typed: str = "") -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        predict.main([*map(str, args), "--model_dir", str(tiny_model)])
        return capsys.readouterr()

    return run


# answers


def test_ask_prints_an_answer_and_a_confidence_and_with_quiet_nothing_else(run):
    for flags in ((), ("--quiet",)):
        out, err = run(*ASKED, *flags)
        prediction, confidence = out.splitlines()
        assert prediction.removeprefix("prediction: ") in CONTEXT
        assert 0 <= float(confidence.removeprefix("confidence: ").removesuffix("%")) <= 100
        assert err == ""


def test_json_holds_offsets_into_the_context_of_all_answers_that_are_asked_for(run):
    for top_k, least in ((3, 3), (10**9, 4)):
        found = json.loads(run(*ASKED, "--top_k", top_k, "--json")[0])
        assert (found["question"], found["answered"]) == ("Who?", True)
        answers = sorted(found["answers"], key=lambda answer: answer["start"])
        assert least <= len(answers) < 100
        for answer in answers:
            assert CONTEXT[answer["start"] : answer["end"]] == answer["text"]
        assert all(one["end"] <= next_one["start"] for one, next_one in itertools.pairwise(answers))
        assert sum(answer["probability"] for answer in answers) <= 1


def test_below_min_confidence_no_answer_is_found_in_any_mode(run):
    unsure = ("--min_confidence", "0.999")
    best = json.loads(run(*ASKED, "--json")[0])["answers"][0]["probability"]
    found = json.loads(run(*ASKED, *unsure, "--top_k", 3, "--json")[0])
    assert not found["answered"]
    assert found["answers"] == [{"text": "", "start": 0, "end": 0, "probability": pytest.approx(best)}]
    shown, _ = run(*ASKED, *unsure)
    assert shown == f"prediction: no answer found\nconfidence: {best:.2%} for the best candidate\n"
    for arguments, typed in ((("demo",), ""), ((), f"{CONTEXT}\n\nWho?\n:quit\n")):
        out, _ = run(*arguments, *unsure, typed=typed)
        assert out.count("prediction: ") == out.count("prediction: no answer found") >= 1


@pytest.mark.parametrize("encoding", ["ascii", "gbk"])
def test_json_survives_a_console_of_another_encoding(run, monkeypatch, encoding):
    arguments = ("ask", "--question", "é?", "--context", f"{CONTEXT} ǅ ꙮ ẞ", "--top_k", 9, "--json")
    plain = json.loads(run(*arguments)[0])
    narrow = io.TextIOWrapper(io.BytesIO(), encoding)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", narrow)
        run(*arguments)
    narrow.flush()
    assert narrow.buffer.getvalue().isascii()
    assert json.loads(narrow.buffer.getvalue()) == plain


def test_a_long_file_is_read_through_windows(run, tmp_path):
    book = tmp_path / "Büch 书.txt"
    book.write_text("\ufeff" + f"{CONTEXT}\n" * 300, encoding="utf-8")
    answer = json.loads(run("ask", "--question", "Who?", "--context_file", book, "--json")[0])["answers"][0]
    assert (f"{CONTEXT}\n" * 300)[answer["start"] : answer["end"]] == answer["text"]


def test_a_long_text_is_shown_being_read_window_by_window(predict, tiny_model, monkeypatch):
    bars = []

    class Bar(NoProgress):
        def __init__(self, **settings):
            super().__init__(**settings)
            bars.append(self)
            self.settings, self.places = settings, []

        def update(self, n):
            super().update(n)
            self.places.append(self.n)

    monkeypatch.setattr(console, "progress", Bar)
    reader, args = Reader(tiny_model, "cpu", "no"), argparse.Namespace(top_k=1, min_confidence=0.0)
    predict.find_answers(reader, "Who?", CONTEXT, args)
    assert bars == [], "a short one is not"
    predict.find_answers(reader, "Who?", f"{CONTEXT}\n" * 500, args)
    (bar,) = bars
    windows = bar.settings["total"]
    assert windows >= predict.LONG
    assert bar.settings["desc"] == f"reading {windows} windows"
    assert bar.places[-1] == windows
    assert len(set(bar.places)) > windows // 20


def test_demo_answers_several_questions_the_brief_s_first(run):
    out, err = run("demo")
    assert "Next" in err
    assert "python predict.py --model_dir" in err
    questions = [line for line in out.splitlines() if line.startswith("question:")]
    assert questions[0] == "question:   What area does the Amazon rainforest cover?"
    assert len(questions) == out.count("confidence: ") == out.count("prediction: ") == 6
    texts = re.findall("^text: +(.*)$", out, re.MULTILINE)
    assert len(set(texts)) == 6 and all(re.search(r"\[.+\]", text) for text in texts)
    assert texts[0].startswith("The Amazon rainforest covers 5,500,000 km2") or texts[0].startswith("[")
    assert "the truth:  the text does not say" in out


def test_the_part_of_a_text_around_an_answer_has_no_half_words(predict):
    text = "word " * 60 + "Ada wrote it" + " word" * 60
    shown = predict.around(text, 300, 303)
    before, _, after = shown.partition("[Ada]")
    assert set(before.split()) | set(after.split()) == {"...", "word", "wrote", "it"}
    assert before.startswith("... word") and after.endswith("word ...") and len(shown) < 230
    assert predict.around("Ada wrote it", 0, 3) == "[Ada] wrote it"
    assert predict.around("It was Ada", 7, 10) == "It was [Ada]"


def test_further_answers_come_below_the_best_also_where_that_is_none(predict):
    ada, none = (
        {"text": text, "probability": sure, "answerable": None} for text, sure in (("Ada\x1b", 0.2), ("", 0.7))
    )
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


@pytest.mark.parametrize(("answerable", "is_there"), [(0.4999, False), (0.5, True), (None, True)])
def test_that_an_answer_is_probably_not_there_is_said_and_the_candidates_stay(predict, answerable, is_there):
    answers = [{"text": text, "probability": 0.2, "answerable": answerable} for text in ("Ada", "Bob")]
    shown = predict.show(answers, 0.0).splitlines()
    if is_there:
        assert shown == ["prediction: Ada", "confidence: 20.00%", "       or:  Bob (20.00%)"]
    else:
        assert shown == [
            "prediction: probably not in this text", "confidence: 50.01% that it is not there",
            "       or:  Ada (20.00%)", "       or:  Bob (20.00%)",
        ]  # fmt: skip


# a folder of documents


@pytest.fixture
def documents(tmp_path, monkeypatch):
    """A folder of two; what is kept of it goes to a folder of the test's own."""
    monkeypatch.setattr("utils.preprocessing.CACHE_DIR", tmp_path / "cache")
    made = tmp_path / "documents"
    made.mkdir()
    (made / "ada.txt").write_text("A first line.\n\nAda Lovelace wrote the notes in 1843.", encoding="utf-8")
    (made / "tea.md").write_text("Lu Yu wrote a book about tea.", encoding="utf-8")
    (made / "bad.txt").write_bytes(b"")
    return made


def test_documents_are_asked_with_file_and_line(run, documents):
    asked = ("ask", "--question", "Who wrote the notes?", "--documents", documents)
    out, err = run(*asked, "--top_k", 2)
    assert "bad.txt is left out" in err and "2 document(s), 2 passages, 3 of them read now" in err
    source, text = out.splitlines()[2:4]
    assert re.fullmatch(r"source:     (ada\.txt, line [13]|tea\.md, line 1)", source)
    assert re.match(r"text:       .*\[.+\]", text)
    out, err = run(*asked, "--top_k", 3, "--json")
    assert "read now" not in err  # kept from the first time
    for answer in json.loads(out)["answers"]:
        passage, file = answer["document"]["text"], documents / answer["document"]["file"]
        assert passage[answer["start"] : answer["end"]] == answer["text"]
        assert passage in file.read_text(encoding="utf-8")
    out, _ = run("ask", "--question", "xyzzy?", "--documents", documents)
    assert out.startswith("prediction: no answer found")


def test_documents_are_asked_question_by_question(run, documents):
    out, _ = run("--documents", documents, typed="Who wrote the notes?\nWho wrote about tea?\nquit\nWho?\n")
    assert out.count("prediction: ") == out.count("source: ") == 2


def test_documents_that_are_missing_or_asked_otherwise_are_refused(run, tmp_path):
    for arguments, words in (
        (("ask", "--question", "Who?", "--documents", tmp_path / "none"), "is no folder"),
        (("ask", "--question", "Who?", "--documents", tmp_path, "--context", "x"), "ask needs --question, and one of"),
        (("demo", "--documents", tmp_path), "--documents belongs to"),
        (("ask", "--question", "Who?", "--documents", tmp_path, "--passages", 0), "--passages is 0"),
    ):
        with pytest.raises(QAError, match=words):
            run(*arguments)


# interactive


def test_interactive_takes_texts_files_and_questions(run, tmp_path):
    file = tmp_path / "a text.txt"
    file.write_text("Only this.", encoding="utf-8")
    typed = f"\n{CONTEXT}\n:quit\n\nWho?\n   \n:new\n:file {file}\nWhat?\n:file {tmp_path / 'none'}\nWhat?\n:quit\n"
    out, err = run(typed=typed)
    assert "Give a text" in out
    assert out.count("prediction: ") == 3
    for part in out.split("prediction: ")[2:]:
        assert part.splitlines()[0] in "Only this."
    assert err.count("can't be read") == 1
    out, err = run("--quiet", typed="\u200b\n\n:file none\n")
    assert "Give a text" not in out
    assert "no word in it" in err
    assert "none can't be read" in err


@pytest.mark.parametrize("typed", ["", CONTEXT, f"{CONTEXT}\n\n", ":quit\n", f"{CONTEXT}\n\nWho?"])
def test_interactive_leaves_quietly_at_the_end_of_input(run, typed):
    out, err = run(typed=typed)
    assert err == ""
    assert out.count("prediction: ") == typed.count("Who?")


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes streams")
@pytest.mark.parametrize("mode", [(), ("batch", "--input", "-", "--output", "-")])
def test_nothing_can_be_asked_where_the_input_is_closed(mode):
    command = ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "predict.py", *mode]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=PROJECT_ROOT)
    assert_refused(done, "standard input is closed", "python predict.py ask")


# the model


@pytest.mark.parametrize("sample", [False, True])
def test_what_was_trained_here_is_asked_before_the_bundled_model(predict, tmp_path, monkeypatch, capsys, sample):
    monkeypatch.setattr(offline, "OUTPUT_DIR", tmp_path)
    monkeypatch.setattr(predict, "TRAINED_MODEL", tmp_path / "final_model")
    args = predict.parse_args(["--sample"] if sample else [])
    assert predict.choose_model(args) == predict.SAMPLE_MODEL_DIR
    assert ("bundled sample model" in capsys.readouterr().err) is not sample  # --sample asked for it
    trained = tmp_path / "sample" / "final_model" if sample else tmp_path / "final_model"
    trained.mkdir(parents=True)
    assert predict.choose_model(args) == trained
    assert predict.choose_model(predict.parse_args(["--model_dir", str(tmp_path)])) == tmp_path


@pytest.mark.skipif((PROJECT_ROOT / "output" / "final_model").exists(), reason="a model was trained here")
def test_without_a_trained_model_the_bundled_sample_answers_and_says_so(predict, capsys):
    predict.main(["ask", "--question", "Where was it written?", "--context", CONTEXT])
    out, err = capsys.readouterr()
    assert "bundled sample model" in err
    assert "Zürich" in out.splitlines()[0]


# what is refused

REFUSED = [
    (["ask"], ["--question", "--context"]),
    (["ask", "--question", "Who?"], ["one of --context, --context_file and --documents"]),
    ([*ASKED, "--context_file", "README.md"], ["one of --context, --context_file and --documents"]),
    (["ask", "--question", "Who?", "--context_file", "none.txt"], ["none.txt can't be read"]),
    ([*ASKED, "--top_k", "0", "--batch_size", "-1"], ["--top_k is 0", "--batch_size is -1"]),
    ([*ASKED, "--overwrite"], ["python predict.py batch"]),
    (["demo", "--question", ""], ["python predict.py ask"]),
    (["demo", "--min_confidence", "50"], ["--min_confidence is 50.0", "0 to 1"]),
    (["demo", "--min_confidence", "nan"], ["--min_confidence is nan"]),
    (["batch", "--output", "-"], ["batch needs --input and --output"]),
    (["batch", "--input", "none.jsonl", "--output", "-"], ["none.jsonl is missing"]),
    (["batch", "--input", "README.md", "--output", "-"], ["*.md is not known"]),
    (["batch", "--input", "data/sample/dev.json", "--output", "none/a.csv"], ["none is missing", "--output"]),
    (["demo", "--model_dir", "none"], ["none is missing", "Fine-tune it first"]),
    (["demo", "--model_dir", "data"], ["model.safetensors", "Fine-tune it first"]),
]
HEAVY = ("torch", "transformers", "datasets", "tokenizers", "onnxruntime", "pyarrow", "accelerate")
ASK_ALL = """
import json, runpy, sys
from extractive_qa.errors import QAError
script = runpy.run_path("predict.py")
found = []
for args in json.loads(sys.argv[1]):
    try:
        script["main"](args)
    except (QAError, SystemExit) as error:
        found.append(str(error))
heavy = sorted(set(json.loads(sys.argv[2])) & set(sys.modules))
print(json.dumps([found, heavy]))
"""


def test_what_can_not_be_done_is_refused_before_a_library_is_loaded():
    """A wrong flag, a missing file or model: all of it in one process that has loaded nothing of what takes seconds."""
    cases = [*REFUSED, (["--help"], ["0"]), (["demo", "--no_such_flag"], ["2"]), (["nothing"], ["2"])]
    command = [sys.executable, "-c", ASK_ALL, json.dumps([args for args, _ in cases]), json.dumps(HEAVY)]
    done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", cwd=PROJECT_ROOT, timeout=120)
    said, heavy = json.loads(done.stdout.splitlines()[-1])
    assert heavy == []
    for (args, words), message in zip(cases, said, strict=True):
        for word in words:
            assert word in message, (args, message)
    help_text = " ".join(done.stdout.split())
    assert 'where no answer was found, "answered" is false and the first text is ""' in help_text


def test_a_refusal_is_a_message_with_a_command_and_exit_code_2(tmp_path):
    done = run_script("predict.py", "demo", "--model_dir", tmp_path / "none", code=2)
    assert_refused(done, "error: ", "none is missing", "python train.py")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask", "--question", "Who?", "--context", ""], "context is empty"),
        (["ask", "--question", "\u200b", "--context", CONTEXT], "question has no word"),
        ([*ASKED, "--device", "toaster"], "toaster"),
        ([*ASKED, "--mixed_precision", "fp16", "--device", "cpu"], "fp16"),
    ],
)
def test_what_the_model_is_needed_for_is_refused_too(run, arguments, words):
    with pytest.raises(QAError, match=words):
        run(*arguments)


def test_a_file_of_another_encoding_is_refused_with_its_name_and_read_by_it(run, tmp_path):
    (tmp_path / "gbk.txt").write_bytes("模型在哪里".encode("gbk"))
    asked = ("ask", "--question", "Who?", "--context_file", tmp_path / "gbk.txt")
    with pytest.raises(QAError) as refused:
        run(*asked)
    assert "it looks like gb18030. Name it: --encoding gb18030" in console.in_flags(str(refused.value))
    out, _ = run(*asked, "--encoding", "gb18030", "--json")
    assert json.loads(out)["answers"][0]["text"] in "模型在哪里"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n", ["a picture (PNG)", "*.txt"]),
        (b"", ["a.txt is empty"]),
        (b" \n", ["a.txt has no word"]),
        (None, ["can't be read", "directory"]),
    ],
)
def test_a_file_that_is_no_text_is_refused_before_a_model_is_loaded(run, tmp_path, content, words):
    path = tmp_path if content is None else tmp_path / "a.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(QAError) as refused:
        run("ask", "--question", "Who?", "--context_file", path, "--model_dir", "none")
    assert all(word in str(refused.value) for word in words)
    assert "Excel" not in str(refused.value)


# batch, as far as it is predict.py's: see tests/batch


@pytest.mark.parametrize(
    ("system", "error", "raised"),
    [
        ("posix", BrokenPipeError(), BrokenPipeError),
        ("nt", OSError(errno.EINVAL, "Invalid argument"), OSError),  # Windows' word for it
        ("posix", OSError(errno.EINVAL, "Invalid argument"), QAError),
        ("posix", OSError(errno.ENOSPC, "No space left on device"), QAError),
    ],
)
def test_a_pipe_that_nobody_reads_any_more_is_no_fault_and_a_full_one_is(
    predict, monkeypatch, capfd, system, error, raised
):
    def fail(*args):
        raise error

    args = predict.parse_args(["batch", "--input", "-", "--output", "-"])
    args.input = args.output = args.index = None
    monkeypatch.setattr(batch_run, "answer_file", fail)
    monkeypatch.setattr(console, "os", SimpleNamespace(name=system))
    with pytest.raises(raised) as caught:
        predict.batch(None, args)
    assert raised is not QAError or f"standard output can't be written: {error.strerror}" in str(caught.value)


@pytest.mark.parametrize(("output", "is_terminal", "bar"), [("-", True, False), ("-", False, True), ("a", True, True)])
def test_a_bar_comes_where_no_answers_would_be_between_its_lines(
    predict, monkeypatch, capfd, tmp_path, output, is_terminal, bar
):
    seen = []
    monkeypatch.setattr(batch_run, "answer_file", lambda *args: seen.append(args) or "done")
    args = argparse.Namespace(input="in", output=None if output == "-" else tmp_path / "out", top_k=1,
                              min_confidence=0.5, overwrite=False, ascii_only=True,
                              renumber_ids=False, encoding="utf-8", index=None, passages=10)  # fmt: skip
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda stream: is_terminal and stream is sys.stdout)
    predict.batch("reader", args)
    ((reader, source, target, *settings, progress, renumber_ids, encoding, index, passages),) = seen
    assert (reader, source, settings) == ("reader", "in", [1, 0.5, False, True])
    assert (renumber_ids, encoding, index, passages) == (False, "utf-8", None, 10)
    assert progress is (console.progress if bar else NoProgress)
    assert output == "-" or target == args.output
    out, err = capfd.readouterr()
    assert ("done" in out, "done" in err) == (output != "-", output == "-")
