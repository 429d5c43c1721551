"""predict.py batch: a file of questions in, a file of answers out, whatever happens on the way."""

import csv
import errno
import json
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripts import PROJECT_ROOT, assert_refused, run_script, run_struck

from utils import question_stream
from utils.answer_file import AnswerFile, Pipe, answer_file, bad_path, check_paths, progress_path
from utils.console import UserError
from utils.question_stream import START, read_groups
from utils.reader import Reader

QUESTIONS = [
    {
        "id": f"q{n}",
        "question": f"Who wrote text {n}?",
        "context": f"Text {n} is by Ada Müller, in {1800 + n}. " * (n % 7 + 1),
    }
    for n in range(30)
]
KILLED = "batch killed and gone on with"


def as_lines(records) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def with_bad_lines(records) -> str:
    lines = as_lines(records).splitlines(keepends=True)
    for place in range(len(lines) - 1, 0, -5):
        lines.insert(place, '{"id": "bad"}\n')
    return "".join(lines)


def read_lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def reader(tiny_model):
    return Reader(tiny_model, "cpu", "no")


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(question_stream, "GROUP_QUESTIONS", 4)


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


@pytest.mark.parametrize("kind", ["jsonl", "csv", "json"])
def test_answers_stand_in_the_questions_order_with_places_in_the_context(reader, tmp_path, small_groups, kind):
    source, target = tmp_path / f"q.{kind}", tmp_path / "a.jsonl"
    if kind == "csv":
        with source.open("w", encoding="utf-8", newline="") as file:
            rows = csv.DictWriter(file, ["id", "question", "context"])
            rows.writeheader()
            rows.writerows(QUESTIONS)
    else:
        source.write_text(as_lines(QUESTIONS) if kind == "jsonl" else json.dumps(QUESTIONS), encoding="utf-8")
    answer_file(reader, str(source), str(target), top_k=3)
    answers = read_lines(target)
    assert [answer["id"] for answer in answers] == [question["id"] for question in QUESTIONS]
    for question, answer in zip(QUESTIONS, answers, strict=True):
        best = reader.answer(question["question"], question["context"], top_k=3)
        found = [answer, *answer["alternatives"]]
        assert [a["answer"] for a in found] == [b["text"] for b in best]
        assert [a["probability"] for a in found] == pytest.approx([b["probability"] for b in best], abs=1e-4)
        for a in found:
            assert question["context"][a["start"] : a["end"]] == a["answer"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", source.name]


def test_csv_says_what_json_lines_say(reader, questions, tmp_path, small_groups):
    answer_file(reader, str(questions), str(tmp_path / "a.jsonl"), top_k=3)
    answer_file(reader, str(questions), str(tmp_path / "a.csv"), top_k=3)
    with (tmp_path / "a.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    answers = read_lines(tmp_path / "a.jsonl")
    assert len(rows) == len(answers) == len(QUESTIONS)
    for row, answer in zip(rows, answers, strict=True):
        assert row["id"] == answer["id"]
        for number, found in enumerate([answer, *answer["alternatives"]], 1):
            after = f"_{number}" if number > 1 else ""
            for name in ("answer", "start", "end", "probability"):
                assert row[name + after] == str(found[name])


def test_bad_records_go_to_a_file_of_their_own(undisturbed):
    _, answers, bad = undisturbed
    assert answers.count(b"\n") == 300
    lines = [json.loads(line) for line in bad.splitlines()]
    assert len(lines) == 60
    assert lines[0]["line"] == 5
    assert "`question` is missing" in lines[0]["reason"]
    assert lines[0]["text"] == '{"id": "bad"}'


# pipes


def test_a_pipe_in_and_a_pipe_out(exported, reader, questions):
    done = run_batch(exported, "-", "-", "--mixed_precision", "no", stdin=questions.read_bytes())
    answers = [json.loads(line) for line in done.stdout.splitlines()]  # nothing but answers
    best = [found[0] for found in reader.answer_all(QUESTIONS)]
    assert [answer["id"] for answer in answers] == [question["id"] for question in QUESTIONS]
    assert [(a["answer"], a["start"], a["end"]) for a in answers] == [(b["text"], b["start"], b["end"]) for b in best]
    assert [a["probability"] for a in answers] == pytest.approx([b["probability"] for b in best], abs=1e-4)
    assert "line 5: `question` is missing" in done.stderr
    assert "6 bad record(s)" in done.stderr


def start_in_pipes(model) -> subprocess.Popen:
    command = [sys.executable, str(PROJECT_ROOT / "predict.py"), *map(str, batch_flags(model, "-", "-"))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    threading.Timer(300, process.kill).start()  # where an answer never comes, the test fails instead of waiting
    return process


def test_a_pipe_that_stays_open_is_answered_as_it_goes_and_may_be_left(exported):
    """Each answer comes while the pipe is open for more; whoever reads them may have enough (`| head`)."""
    process = start_in_pipes(exported)
    for question in QUESTIONS[:2]:
        process.stdin.write(as_lines([question]).encode())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == question["id"]
    process.stdout.close()
    process.stdin.write(as_lines(QUESTIONS[2:]).encode())
    process.stdin.close()
    assert process.wait() == 0
    said = process.stderr.read().decode()
    process.stderr.close()
    assert "Traceback" not in said, said
    assert "Error" not in said, said


@pytest.mark.parametrize(("system", "raised"), [("nt", OSError), ("posix", UserError)])
def test_a_pipe_that_nobody_reads_any_more_is_left_on_every_system(monkeypatch, system, raised):
    """Windows may say of it that an argument is invalid."""

    def refuse(content):
        raise OSError(errno.EINVAL, "Invalid argument")

    pipe = Pipe(top_k=1)
    monkeypatch.setattr(pipe, "file", SimpleNamespace(write=refuse))
    monkeypatch.setattr("utils.console.os", SimpleNamespace(name=system))
    with pytest.raises(raised, match="Invalid argument"):
        pipe.write([], [], START)


# going on


@pytest.mark.fault(KILLED)
def test_killed_again_and_again_it_ends_as_undisturbed(exported, undisturbed, tmp_path, record_property):
    """With a group written but not counted, with the progress half written, and while a group is answered."""
    source, *expected = undisturbed
    target = tmp_path / "answers.jsonl"
    moments = [
        ("os:fsync", 8, "kill"),
        ("pathlib:Path.replace", 2, "kill"),
        ("utils.reader:Reader.logits", 9, "interrupt"),
    ]
    record_property("tried", len(moments))
    for moment in moments:
        done = run_struck(*moment, "predict.py", *batch_flags(exported, source, target))
        assert done.returncode not in (0, 1, 2), (moment, done.stderr)
        assert "Traceback" not in done.stderr
        assert progress_path(target).exists()
    assert "run the same command again" in done.stderr
    done = run_batch(exported, source, target)
    assert "going on after" in done.stderr
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


class Killed(BaseException):
    pass


class MortalReader:
    """A reader that ends the run with the given group."""

    def __init__(self, reader, groups: int):
        self.reader, self.left = reader, groups

    def __getattr__(self, name):
        return getattr(self.reader, name)

    def answer_all(self, examples, top_k):
        self.left -= 1
        if self.left < 0:
            raise Killed
        return self.reader.answer_all(examples, top_k)


@pytest.mark.fault(KILLED)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_crash_leaves_is_cut_and_done_again(reader, questions, tmp_path_factory, small_groups, data):
    """Of the group that was being written any part may be on the disk, in either file, torn anywhere."""
    folder = tmp_path_factory.mktemp("crash")
    kind = data.draw(st.sampled_from(["jsonl", "csv"]))
    whole, target = folder / f"whole.{kind}", folder / f"a.{kind}"
    answer_file(reader, str(questions), str(whole), top_k=2)
    groups = data.draw(st.integers(0, len(list(read_groups(questions))) - 1))
    with pytest.raises(Killed):
        answer_file(MortalReader(reader, groups), str(questions), str(target), top_k=2)
    for path, other in ((target, whole), (bad_path(target), bad_path(whole))):
        rest = other.read_bytes()[path.stat().st_size :]
        with path.open("ab") as file:
            file.write(rest[: data.draw(st.integers(0, len(rest)))])
    answer_file(reader, str(questions), str(target), top_k=2)
    assert files_of(target) == files_of(whole)


def begin(reader, questions, target, groups=3) -> None:
    with pytest.raises(Killed):
        answer_file(MortalReader(reader, groups), str(questions), str(target))


@pytest.mark.fault(KILLED)
def test_bad_records_stay_where_a_group_after_a_crash_has_none(reader, tmp_path, small_groups):
    """Of a file that was cut tell() said where it had ended."""
    source, whole, target = tmp_path / "q.jsonl", tmp_path / "whole.jsonl", tmp_path / "a.jsonl"
    source.write_text('{"id": "bad"}\n' + as_lines(QUESTIONS), encoding="utf-8")
    answer_file(reader, str(source), str(whole))
    begin(reader, source, target, groups=1)
    with bad_path(target).open("ab") as file:
        file.write(b"torn")
    begin(reader, source, target, groups=1)
    answer_file(reader, str(source), str(target))
    assert files_of(target) == files_of(whole)


def test_what_was_begun_with_something_else_is_refused_and_can_be_begun_anew(
    reader, tiny_model, questions, tmp_path, small_groups
):
    target = tmp_path / "a.jsonl"
    begin(reader, questions, target)
    before = target.read_bytes()
    with pytest.raises(UserError, match=r"another top_k.*--overwrite"):
        answer_file(reader, str(questions), str(target), top_k=2)
    with pytest.raises(UserError, match="another batch_size"):
        answer_file(Reader(tiny_model, "cpu", "no", batch_size=3), str(questions), str(target))
    with pytest.raises(UserError, match="another precision"):
        answer_file(Reader(tiny_model, "cpu", "bf16"), str(questions), str(target))
    with pytest.raises(UserError, match="begun with a file"):
        answer_file(reader, "-", str(target))
    # a change of one letter of the input, where it isn't read yet
    content = questions.read_text(encoding="utf-8")
    questions.write_text(content.replace("text 29", "text 28"), encoding="utf-8")
    with pytest.raises(UserError, match="another input"):
        answer_file(reader, str(questions), str(target))
    assert target.read_bytes() == before
    answer_file(reader, str(questions), str(target), overwrite=True)
    assert len(read_lines(target)) == len(QUESTIONS)


def test_another_model_is_noticed(reader, tiny_model, questions, tmp_path, small_groups):
    import shutil

    model, target = tmp_path / "model", tmp_path / "a.jsonl"
    shutil.copytree(tiny_model, model)
    begin(Reader(model, "cpu", "no"), questions, target)
    (model / "reader.json").write_text('{"temperature": 2.0}', encoding="utf-8")
    with pytest.raises(UserError, match="another model"):
        answer_file(Reader(model, "cpu", "no"), str(questions), str(target))


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"run": 3}'])
def test_a_damaged_progress_is_refused(reader, questions, tmp_path, small_groups, damage):
    target = tmp_path / "a.jsonl"
    begin(reader, questions, target)
    progress_path(target).write_bytes(damage)
    with pytest.raises(UserError, match="--overwrite"):
        answer_file(reader, str(questions), str(target))
    answer_file(reader, str(questions), str(target), overwrite=True)
    assert len(read_lines(target)) == len(QUESTIONS)


def test_answers_that_were_shortened_since_are_not_gone_on_with(reader, questions, tmp_path, small_groups):
    target = tmp_path / "a.jsonl"
    begin(reader, questions, target)
    target.write_bytes(target.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"not complete, and it or its file of bad records lost lines.*--overwrite"):
        answer_file(reader, str(questions), str(target))


def test_answers_that_are_there_are_not_overwritten_unasked(reader, questions, tmp_path, small_groups):
    target = tmp_path / "a.jsonl"
    target.write_text("precious\n", encoding="utf-8")
    for source in (str(questions), "-"):
        with pytest.raises(UserError, match=r"there already.*--overwrite"):
            answer_file(reader, source, str(target))
    assert target.read_text(encoding="utf-8") == "precious\n"
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", questions.name}
    answer_file(reader, str(questions), str(target), overwrite=True)
    assert len(read_lines(target)) == len(QUESTIONS)


def test_two_runs_into_one_file_are_refused(reader, questions, tmp_path):
    target = tmp_path / "a.jsonl"
    with (
        AnswerFile(target, 1, {}, overwrite=False),
        pytest.raises(UserError, match=f"another run, process {os.getpid()}, writes to"),
    ):
        answer_file(reader, str(questions), str(target), overwrite=True)
    answer_file(reader, str(questions), str(target), overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "a.bad.jsonl", questions.name}  # no lock is left


# places that can't be used


def test_places_that_can_not_be_written_are_refused_before_a_model_is_loaded(questions, tmp_path):
    (tmp_path / "folder").mkdir()
    bad = tmp_path / "a.bad.jsonl"
    bad.write_text(as_lines(QUESTIONS), encoding="utf-8")
    for source, target, words in (
        (questions, tmp_path / "none" / "a.jsonl", "none is missing"),
        (questions, tmp_path / "folder", "is a folder"),
        (questions, questions, "is --input"),
        (bad, tmp_path / "a.jsonl", "is --input"),  # its own bad records, mended
    ):
        with pytest.raises(UserError, match=words):
            check_paths(str(source), str(target))


@pytest.mark.fault("disk or folder that fails")
@pytest.mark.skipif(os.name != "posix", reason="needs limits")
def test_a_disk_that_fills_up_loses_nothing_that_was_written(exported, undisturbed, tmp_path):
    source, *expected = undisturbed
    target = tmp_path / "answers.jsonl"
    size = len(expected[0]) * 2 // 3  # in the last of three groups
    done = run_struck("os:fsync", 2, f"limit:{size}", "predict.py", *batch_flags(exported, source, target))
    assert_refused(done, "answers.jsonl can't be written: File too large", "run the same command again")
    assert target.stat().st_size == size
    done = run_batch(exported, source, target)
    assert "going on after" in done.stderr
    assert files_of(target) == tuple(expected)


@pytest.mark.fault("disk or folder that fails")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110 - on Windows
def test_standard_output_that_can_not_be_written_is_said(exported, questions):
    command = [sys.executable, str(PROJECT_ROOT / "predict.py"), *map(str, batch_flags(exported, questions, "-"))]
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, encoding="utf-8")
    assert_refused(done, "standard output can't be written: No space left")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["batch"], ["batch needs --input and --output"]),
        (["ask", "--question", "Who?", "--context", "He.", "--overwrite"], ["predict.py batch"]),
        (["batch", "--input", "none.jsonl", "--output", "-"], ["none.jsonl is missing"]),
        (["batch", "--input", "README.md", "--output", "-"], ["*.md is not known"]),
    ],
)
def test_what_can_not_be_done_is_refused(arguments, words):
    assert_refused(run_script("predict.py", *arguments, code=2), *words)
