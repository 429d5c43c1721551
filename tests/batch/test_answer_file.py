"""predict.py batch: a file of questions in, a file of answers out, whatever happens on the way."""

import csv
import io
import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mortal_reader import Killed, MortalReader, is_killed
from question_files import write_dataset, write_parquet
from scripts import PROJECT_ROOT, assert_refused, run_script, run_struck

from extractive_qa.batch.answer_file import AnswerFile, bad_path, done_path, progress_path
from extractive_qa.batch.run import answer_file, check_paths
from extractive_qa.errors import QAError
from extractive_qa.progress import NoProgress
from extractive_qa.reader import Reader

QUESTIONS = [
    {
        "id": f"q{n}",
        "question": f"Who wrote text {n}?",
        "context": f"Text {n} is by Ada Müller, in {1800 + n}. " * (n % 7 + 1),
    }
    for n in range(30)
]
KILLED = "batch killed and resumed"


def as_lines(records) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def with_bad_lines(records) -> str:
    lines = as_lines(records).splitlines(keepends=True)
    for place in range(len(lines) - 1, 0, -5):
        lines.insert(place, '{"id": "bad"}\n')
    return "".join(lines)


def read_lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text(with_bad_lines(QUESTIONS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return tmp_path_factory.mktemp("many")


@pytest.fixture(scope="module")
def undisturbed(exported, many):
    """Three groups of questions, and what an undisturbed run makes of them in int8, where the last digits of an answer
    depend on the batch: answers and bad records."""
    source = many / "questions.jsonl"
    records = [question | {"id": f"{n}-{question['id']}"} for n in range(10) for question in QUESTIONS]
    source.write_text(with_bad_lines(records), encoding="utf-8")
    done = run_batch(exported, source, many / "answers.jsonl")
    assert "wrote 300 answers" in done.stdout
    assert "60 bad record(s)" in done.stderr
    return source, (many / "answers.jsonl").read_bytes(), (many / "answers.bad.jsonl").read_bytes()


def batch_flags(model, source, target) -> list[object]:
    return ["batch", "--model_dir", model, "--device", "cpu", "--input", source, "--output", target]


def run_batch(model, source, target, *flags, **settings):
    return run_script("predict.py", *batch_flags(model, source, target), *flags, **settings)


def files_of(target) -> tuple[bytes, bytes]:
    assert not progress_path(target).exists()
    return target.read_bytes(), bad_path(target).read_bytes()


# what is written


@pytest.mark.parametrize("kind", ["jsonl", "csv", "json", "parquet", "saved"])
def test_answers_are_in_the_questions_order_with_places_in_the_context(reader, tmp_path, small_groups, kind):
    """Out of every format that evaluate.py reads."""
    source, target = tmp_path / f"q.{kind}", tmp_path / "a.jsonl"
    if kind == "csv":
        with source.open("w", encoding="utf-8", newline="") as file:
            rows = csv.DictWriter(file, ["id", "question", "context"])
            rows.writeheader()
            rows.writerows(QUESTIONS)
    elif kind == "parquet":
        source = write_parquet(QUESTIONS, tmp_path)
    elif kind == "saved":
        source = write_dataset(QUESTIONS, tmp_path)
    else:
        source.write_text(as_lines(QUESTIONS) if kind == "jsonl" else json.dumps(QUESTIONS), encoding="utf-8")
    said = answer_file(reader, source, target, top_k=3)
    assert "wrote 30 answers to" in said
    answers = read_lines(target)
    asked = [(question["id"], question["question"]) for question in QUESTIONS]
    assert [(answer["id"], answer["question"]) for answer in answers] == asked
    assert not {"id", "question"} & answers[0]["alternatives"][0].keys()
    for question, answer in zip(QUESTIONS[::5], answers[::5], strict=True):
        best = reader.answer(question["question"], question["context"], top_k=3)
        found = [answer, *answer["alternatives"]]
        assert [a["answer"] for a in found] == [b["text"] for b in best]
        assert [a["probability"] for a in found] == pytest.approx([b["probability"] for b in best], abs=1e-4)
        for a in found:
            assert question["context"][a["start"] : a["end"]] == a["answer"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.jsonl.done", source.name]


def test_csv_says_what_json_lines_say(reader, questions, tmp_path, small_groups):
    answer_file(reader, questions, tmp_path / "a.jsonl", top_k=3)
    answer_file(reader, questions, tmp_path / "a.csv", top_k=3)
    with (tmp_path / "a.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    answers = read_lines(tmp_path / "a.jsonl")
    assert len(rows) == len(answers) == len(QUESTIONS)
    for row, answer in zip(rows, answers, strict=True):
        assert (row["id"], row["question"]) == (answer["id"], answer["question"])
        for number, found in enumerate([answer, *answer["alternatives"]], 1):
            after = f"_{number}" if number > 1 else ""
            for name in ("answer", "start", "end", "probability"):
                assert row[name + after] == str(found[name])


def test_bad_records_go_to_a_file_of_their_own(reader, tmp_path, caplog):
    source, target = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    source.write_text(as_lines([QUESTIONS[0], {"id": "bad"}, QUESTIONS[0]]) + "half {\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING, "extractive_qa"):
        answer_file(reader, source, target)
    assert len(read_lines(target)) == 1
    bad, twice, broken = read_lines(bad_path(target))
    assert (bad["line"], bad["text"]) == (2, '{"id": "bad"}')
    assert bad["reason"] == "`question` is missing: the keys are id; `context` is missing: the keys are id"
    assert twice["line"] == 3
    assert "duplicate id" in twice["reason"]
    assert (broken["line"], broken["text"]) == (4, "half {")
    assert "3 bad record(s)" in caplog.messages[-1]
    assert "a.bad.jsonl" in caplog.messages[-1]


class Bar(NoProgress):
    """Remembers what it was told."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.settings, self.places, self.texts = settings, [], []
        Bar.last = self

    def update(self, n):
        super().update(n)
        self.places.append(self.n)

    def set_postfix_str(self, text, refresh):
        self.texts.append(text)


def test_a_bar_shows_bytes_of_the_file_and_questions_a_second(reader, questions, tmp_path, small_groups):
    target = tmp_path / "a.jsonl"
    begin(reader, questions, target)
    answer_file(reader, questions, target, progress=Bar)
    size = questions.stat().st_size
    assert Bar.last.settings["total"] == Bar.last.places[-1] == size
    assert 0 < Bar.last.settings["initial"] == Bar.last.places[0]
    assert Bar.last.places == sorted(Bar.last.places)
    assert Bar.last.settings["leave"] is False, "the line at the end has the rate once more"
    assert Bar.last.texts[-1].startswith("36 questions, ")


# pipes


def start_in_pipes(model) -> subprocess.Popen:
    flags = batch_flags(model, "-", "-")
    command = [sys.executable, str(PROJECT_ROOT / "predict.py"), *map(str, flags), "--mixed_precision", "no"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    threading.Timer(300, process.kill).start()  # where an answer never comes, the test fails instead of waiting
    return process


def test_a_pipe_that_stays_open_is_answered_as_it_goes_and_may_be_left(exported, reader):
    """Each answer comes while the pipe is open for more; whoever reads them may have enough (`| head`)."""
    process = start_in_pipes(exported)
    for question in QUESTIONS[:2]:
        process.stdin.write(as_lines([{"id": "bad"}, question]).encode())
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())  # nothing but answers
        best = reader.answer(question["question"], question["context"])
        assert [answer[name] for name in ("id", "answer", "start")] == [question["id"], best["text"], best["start"]]
        assert answer["probability"] == pytest.approx(best["probability"], abs=1e-4)
    process.stdout.close()
    process.stdin.write(as_lines(QUESTIONS[2:]).encode())
    process.stdin.close()
    assert process.wait() == 0
    said = process.stderr.read().decode()
    process.stderr.close()
    assert "line 1: `question` is missing" in said
    assert "Traceback" not in said, said
    assert "Error" not in said, said


def test_a_pipe_in_and_a_pipe_out(reader, questions, tmp_path, caplog):
    answer_file(reader, questions, tmp_path / "a.jsonl")
    output = io.BytesIO()
    with caplog.at_level(logging.WARNING, "extractive_qa"), questions.open("rb") as stdin:
        assert "30 answers in" in answer_file(reader, stdin, output)
    assert output.getvalue() == (tmp_path / "a.jsonl").read_bytes()
    assert any(message.startswith("line 5: `question` is missing") for message in caplog.messages)
    assert "6 bad record(s)" in caplog.messages[-1]
    plain = io.BytesIO()
    answer_file(reader, questions, plain, ascii_only=True)
    assert plain.getvalue().isascii()
    assert [json.loads(line) for line in plain.getvalue().splitlines()] == read_lines(tmp_path / "a.jsonl")


def test_a_stream_that_fails_is_its_owner_s_to_judge(reader, questions):
    """predict.py knows whether nobody reads any more or the disk is full: the library lets the error out."""

    class Failing(io.BytesIO):
        def flush(self):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        answer_file(reader, questions, Failing())


# resuming


@pytest.mark.fault(KILLED)
def test_stopped_in_every_way_it_ends_as_undisturbed(exported, undisturbed, tmp_path, record_property):
    """With a group written but not counted, with the progress half written, while a group is answered, and when the
    disk is full. Each run goes on where the one before it was stopped."""
    source, *expected = undisturbed
    target = tmp_path / "answers.jsonl"
    size = len(expected[0]) * 19 // 20  # in the last of three groups
    disk_full = [("os:fsync", 1, f"limit:{size}")] if os.name == "posix" else []  # Windows has no limits
    moments = [
        ("os:fsync", 8, "kill"),
        ("pathlib:Path.replace", 2, "kill"),
        ("extractive_qa.reader:Reader.logits", 9, "interrupt"),
        *disk_full,
    ]
    record_property("tried", len(moments))
    for moment in moments:
        done = run_struck(*moment, "predict.py", *batch_flags(exported, source, target))
        assert done.returncode not in (0, 1), (moment, done.stderr)
        assert "Traceback" not in done.stderr
        assert progress_path(target).exists()
        assert ("run the same command again" in done.stderr) == (moment[2] != "kill")
    if disk_full:
        assert_refused(done, "answers.jsonl can't be written: File too large")
        assert target.stat().st_size == size
    done = run_batch(exported, source, target)
    assert "resuming after 256 questions" in done.stderr
    assert files_of(target) == tuple(expected)


@pytest.mark.slow
@pytest.mark.fault(KILLED)
def test_killed_at_every_write_it_ends_as_undisturbed(exported, undisturbed, tmp_path, record_property):
    source, *expected = undisturbed
    target = tmp_path / "answers.jsonl"
    tried = 0
    for function in ("os:fsync", "pathlib:Path.replace", "pathlib:Path.open", "pathlib:Path.unlink"):
        for number in range(1, 100):
            codes = []
            for what in ("kill", "after-kill"):
                done = run_struck(function, number, what, "predict.py", *batch_flags(exported, source, target))
                codes.append(done.returncode)
                assert done.returncode not in (1, 2), (function, number, what, done.stderr)
                if progress_path(target).exists() or not target.exists():  # not complete, or not begun
                    run_batch(exported, source, target)
                assert files_of(target) == tuple(expected), (function, number, what)
                for path in tmp_path.iterdir():
                    path.unlink()
            if codes == [0, 0]:
                break  # it is not called so often
            tried += 2
    assert tried > 20
    record_property("tried", tried)


@pytest.mark.fault(KILLED)
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_crash_leaves_is_cut_and_done_again(reader, questions, tmp_path_factory, small_groups, data):
    """Of the group that was being written any part may be on the disk, in either file, torn anywhere."""
    folder = tmp_path_factory.mktemp("crash")
    kind = data.draw(st.sampled_from(["jsonl", "csv"]))
    whole, target = folder / f"whole.{kind}", folder / f"a.{kind}"
    questions.write_text(with_bad_lines(QUESTIONS) + as_lines(QUESTIONS[:1]), encoding="utf-8")
    answer_file(reader, questions, whole, top_k=2)
    assert "duplicate id" in bad_path(whole).read_text(encoding="utf-8"), "however much of it was answered before"
    groups = data.draw(st.integers(1, (len(QUESTIONS) + 7) // 4))
    with pytest.raises(Killed):
        answer_file(MortalReader(reader, groups), questions, target, top_k=2)
    for path, other in ((target, whole), (bad_path(target), bad_path(whole))):
        rest = other.read_bytes()[path.stat().st_size :]
        with path.open("ab") as file:
            file.write(rest[: data.draw(st.integers(0, len(rest)))])
    answer_file(reader, questions, target, top_k=2)
    assert files_of(target) == files_of(whole)


def begin(reader, questions, target, groups=3) -> None:
    with pytest.raises(Killed):
        answer_file(MortalReader(reader, groups), questions, target)


@pytest.mark.fault(KILLED)
def test_bad_records_stay_where_a_group_after_a_crash_has_none(reader, tmp_path, small_groups):
    """Of a file that was cut tell() said where it had ended."""
    source, whole, target = tmp_path / "q.jsonl", tmp_path / "whole.jsonl", tmp_path / "a.jsonl"
    source.write_text('{"id": "bad"}\n' + as_lines(QUESTIONS), encoding="utf-8")
    answer_file(reader, source, whole)
    begin(reader, source, target, groups=1)
    with bad_path(target).open("ab") as file:
        file.write(b"torn")
    begin(reader, source, target, groups=1)
    answer_file(reader, source, target)
    assert files_of(target) == files_of(whole)


@pytest.mark.fault(KILLED)
@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "replace"), (Path, "open"), (Path, "unlink")])
def test_stopped_dead_at_any_file_operation_it_ends_as_undisturbed(
    reader, questions, tmp_path_factory, small_groups, monkeypatch, owner, name, record_property
):
    """As the slow test kills it, in this process: before and after each operation, the last ones too."""
    folder = tmp_path_factory.mktemp("stopped")
    questions.write_text(with_bad_lines(QUESTIONS[:9]), encoding="utf-8")
    answer_file(reader, questions, folder / "whole.jsonl")
    original, target, tried = getattr(owner, name), folder / "a.jsonl", 0
    for number, is_after in itertools.product(range(1, 100), (False, True)):
        calls = itertools.count(1)

        def struck(*args, calls=calls, number=number, is_after=is_after, **settings):
            # a lock that is not released would be held by this process
            is_this = not str(args[0]).endswith(".lock") and next(calls) == number
            if is_this and not is_after:
                raise Killed
            result = original(*args, **settings)
            if is_this:
                raise Killed
            return result

        if not is_killed(monkeypatch, owner, name, struck, partial(answer_file, reader, questions, target)):
            break  # it is not called so often
        tried += 1
        answer_file(reader, questions, target)
        assert files_of(target) == files_of(folder / "whole.jsonl"), (number, is_after)
        for path in folder.glob("a.*"):
            path.unlink()
    record_property("tried", tried)
    assert tried >= 2


def test_what_was_begun_with_something_else_is_refused_and_can_be_started_over(
    reader, tiny_model, questions, tmp_path, small_groups
):
    target = tmp_path / "a.jsonl"
    begin(reader, questions, target)
    before = target.read_bytes()
    with pytest.raises(QAError, match=r"another top_k.*--overwrite"):
        answer_file(reader, questions, target, top_k=2)
    with pytest.raises(QAError, match="another batch_size"):
        answer_file(Reader(tiny_model, "cpu", "no", batch_size=3), questions, target)
    with pytest.raises(QAError, match="another precision"):
        answer_file(Reader(tiny_model, "cpu", "bf16"), questions, target)
    with pytest.raises(QAError, match="begun with a file"):
        answer_file(reader, io.BytesIO(), target)
    # a change of one letter of the input, where it isn't read yet
    content = questions.read_text(encoding="utf-8")
    questions.write_text(content.replace("text 29", "text 28"), encoding="utf-8")
    with pytest.raises(QAError, match="another input"):
        answer_file(reader, questions, target)
    assert target.read_bytes() == before
    answer_file(reader, questions, target, overwrite=True)
    assert len(read_lines(target)) == len(QUESTIONS)


def test_another_model_is_noticed(reader, tiny_model, questions, tmp_path, small_groups):
    model, target = tmp_path / "model", tmp_path / "a.jsonl"
    shutil.copytree(tiny_model, model)
    begin(Reader(model, "cpu", "no"), questions, target)
    (model / "reader.json").write_text('{"temperature": 2.0}', encoding="utf-8")
    with pytest.raises(QAError, match="another model"):
        answer_file(Reader(model, "cpu", "no"), questions, target)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"run": 3}'])
def test_a_damaged_progress_is_refused(reader, questions, tmp_path, small_groups, damage):
    target = tmp_path / "a.jsonl"
    begin(reader, questions, target)
    progress_path(target).write_bytes(damage)
    with pytest.raises(QAError, match="--overwrite"):
        answer_file(reader, questions, target)
    answer_file(reader, questions, target, overwrite=True)
    assert len(read_lines(target)) == len(QUESTIONS)


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize(
    "damage",
    [{"done": {}}, {"done": -1}, {"done": 1.5}, {"counts": [1]}, {"counts": None}, {"sizes": ["1", 2]}],
    ids=str,
)
def test_a_progress_of_other_kinds_is_refused(reader, questions, tmp_path, small_groups, damage):
    """Found by tests/test_fuzz.py: it ended in a traceback."""
    target = tmp_path / "a.jsonl"
    begin(reader, questions, target)
    progress = json.loads(progress_path(target).read_text(encoding="utf-8"))
    progress_path(target).write_text(json.dumps(progress | damage), encoding="utf-8")
    with pytest.raises(QAError, match=r"progress is damaged.*--overwrite"):
        answer_file(reader, questions, target)


def test_answers_that_were_shortened_since_are_not_resumed(reader, questions, tmp_path, small_groups):
    target = tmp_path / "a.jsonl"
    begin(reader, questions, target)
    target.write_bytes(target.read_bytes()[:-5])
    with pytest.raises(QAError, match=r"not complete, and it or its file of bad records lost lines.*--overwrite"):
        answer_file(reader, questions, target)


def test_answers_that_are_there_are_not_overwritten_unasked(reader, questions, tmp_path, small_groups):
    target = tmp_path / "a.jsonl"
    target.write_text("precious\n", encoding="utf-8")
    for source in (questions, io.BytesIO()):
        with pytest.raises(QAError, match=r"there already.*--overwrite"):
            answer_file(reader, source, target)
    assert target.read_text(encoding="utf-8") == "precious\n"
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", questions.name}
    answer_file(reader, questions, target, overwrite=True)
    assert len(read_lines(target)) == len(QUESTIONS)


def test_two_runs_into_one_file_are_refused(reader, questions, tmp_path):
    target = tmp_path / "a.jsonl"
    with (
        AnswerFile(target, 1, {}, overwrite=False),
        pytest.raises(QAError, match=f"another run, process {os.getpid()}, writes to"),
    ):
        answer_file(reader, questions, target, overwrite=True)
    answer_file(reader, questions, target, overwrite=True)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a.jsonl", "a.bad.jsonl", "a.jsonl.done", questions.name}  # no lock is left


# what is refused leaves nothing, what is complete is left


REFUSED = {
    "not JSON Lines": ("q.jsonl", '[\n{"question": "Who?", "context": "Bob."}]', "call it *.json"),
    "no JSON": ("q.json", "<html>", "can't be read"),
    "other columns": ("q.csv", "a,b\n1,2\n", "no column question"),
    "a picture": ("q.jsonl", "\x89PNG".encode("latin-1"), "is a picture"),
    "empty": ("q.jsonl", "", "holds no question"),
    "a list without records": ("q.json", "[]", "holds no question"),
    "all bad": ("q.jsonl", as_lines([{"id": "bad"}] * 9), "none of its 9 record(s) can be answered"),
}


@pytest.mark.fault("damaged input")
@pytest.mark.parametrize(("name", "content", "words"), REFUSED.values(), ids=REFUSED)
def test_an_input_that_is_refused_leaves_nothing_that_would_refuse_the_corrected_one(
    reader, tmp_path, name, content, words
):
    source, target = tmp_path / name, tmp_path / "a.jsonl"
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(QAError) as refused:
        answer_file(reader, source, target)
    assert words in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    answers = b"precious"
    target.write_bytes(answers)
    with pytest.raises(QAError):
        answer_file(reader, source, target, overwrite=True)
    assert target.read_bytes() == answers
    target.unlink(missing_ok=True)
    source.unlink()
    source = source.with_name("q.jsonl")
    source.write_text(as_lines(QUESTIONS[:2]), encoding="utf-8")
    assert "wrote 2 answers" in answer_file(reader, source, target)


def test_where_all_records_are_bad_their_faults_are_said_and_no_file_is_written(reader, tmp_path, small_groups):
    source, target = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    source.write_text(as_lines([{"id": f"bad{n}"} for n in range(9)]), encoding="utf-8")
    for where in (target, io.BytesIO()):
        for questions in (source, io.BytesIO(source.read_bytes())):
            with pytest.raises(QAError) as refused:
                answer_file(reader, questions, where)
            for words in ("none of its 9 record(s)", "line 5: `question` is missing", "4 more", "No file was written"):
                assert words in str(refused.value)
            assert ("q.jsonl" if questions is source else "standard input") in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["q.jsonl"]


def test_a_finished_run_again_is_complete_and_another_one_is_refused(reader, questions, tmp_path, small_groups, caplog):
    target = tmp_path / "a.jsonl"
    answer_file(reader, questions, target)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    with caplog.at_level(logging.WARNING, "extractive_qa"):
        said = answer_file(MortalReader(reader, 0), questions, target)  # asks nothing
    assert "is complete: 30 answers" in said
    assert "--overwrite" in said
    assert "6 bad record(s)" in caplog.messages[-1]
    for refused, words in (
        ({"top_k": 2}, "another top_k"),
        ({"min_confidence": 0.5}, "another min_confidence"),
        ({"source": io.BytesIO(questions.read_bytes())}, "is there already"),
    ):
        with pytest.raises(QAError, match=rf"there already.*{words}|{words}.*--overwrite"):
            answer_file(**{"reader": reader, "source": questions, "target": target} | refused)
    assert before == {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    target.write_bytes(target.read_bytes() + b"mine\n")
    with pytest.raises(QAError, match=r"changed since.*--overwrite"):
        answer_file(reader, questions, target)
    questions.write_text(as_lines(QUESTIONS[:3]), encoding="utf-8")
    with pytest.raises(QAError, match=r"answered with another input.*--overwrite"):
        answer_file(reader, questions, target)
    assert "wrote 3 answers" in answer_file(reader, questions, target, overwrite=True)
    assert "is complete: 3 answers" in answer_file(reader, questions, target)
    target.unlink()
    assert "wrote 3 answers" in answer_file(reader, questions, target)
    answer_file(reader, io.BytesIO(questions.read_bytes()), target, overwrite=True)
    assert not done_path(target).exists(), "a pipe can't be read again"


# places that can't be used


def test_places_that_can_not_be_written_are_refused_before_a_model_is_loaded(questions, tmp_path):
    (tmp_path / "folder").mkdir()
    bad = tmp_path / "a.bad.jsonl"
    bad.write_text(as_lines(QUESTIONS), encoding="utf-8")
    for source, target, words in (
        (questions, tmp_path / "none" / "a.jsonl", "none is missing"),
        (questions, tmp_path / "folder", "is a folder"),
        (questions, questions, "is --input"),
        (bad, tmp_path / "a.jsonl", "is --input"),  # its own bad records, fixed
    ):
        with pytest.raises(QAError, match=words):
            check_paths(source, target)


@pytest.mark.fault("disk or folder that fails")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110 - on Windows
def test_standard_output_that_can_not_be_written_is_said(exported, questions):
    command = [sys.executable, str(PROJECT_ROOT / "predict.py"), *map(str, batch_flags(exported, questions, "-"))]
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, encoding="utf-8")
    assert_refused(done, "standard output can't be written: No space left")
