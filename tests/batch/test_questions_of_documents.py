"""predict.py batch --documents: questions alone in, answers with their place in a folder of documents out."""

import csv
import io
import json
import os

import pytest
from mortal_reader import Killed, MortalReader
from scripts import run_script, run_struck

from extractive_qa.batch import question_stream
from extractive_qa.batch.answer_file import bad_path, progress_path
from extractive_qa.batch.run import answer_file
from extractive_qa.documents.index import DocumentIndex
from extractive_qa.errors import QAError
from extractive_qa.progress import NoProgress
from extractive_qa.reader import Reader

NAMES = ["Ada", "Bob", "Cleo", "Dora", "Emil", "Fritz"]
QUESTIONS = [{"id": f"q{n}", "question": f"When did {NAMES[n % 6]} write note {n}?"} for n in range(20)]
QUESTIONS[7] |= {"question": "Xyzzy?"}  # shares no word with any passage
QUESTIONS[3] |= {"context": 7}  # whatever it is, it is not looked at


@pytest.fixture(scope="module")
def reader(tiny_model):
    return Reader(tiny_model, "cpu", "no")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "documents"
    (made / "deep").mkdir(parents=True)
    for n, name in enumerate(NAMES):
        lines = [f"{name} wrote note {n} in {1800 + i}." for i in range(60)]
        (made / ("deep" if n % 2 else "") / f"{name}.txt").write_text("\n\n".join(lines), encoding="utf-8")
    return made


@pytest.fixture
def index(folder, tmp_path):
    return DocumentIndex(folder, tmp_path / "kept")


@pytest.fixture
def questions(tmp_path, monkeypatch):
    monkeypatch.setattr(question_stream, "GROUP_QUESTIONS", 4)
    path = tmp_path / "questions.jsonl"
    lines = [json.dumps(question) + "\n" for question in QUESTIONS]
    path.write_text("".join([*lines[:5], '{"context": "Ada wrote it."}\n', *lines[5:]]), encoding="utf-8")
    return path


def read_lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_answer_comes_with_its_file_line_and_passage(reader, index, folder, questions, tmp_path):
    target = tmp_path / "a.jsonl"
    assert "wrote 20 answers" in answer_file(reader, questions, target, top_k=3, index=index, passages=4)
    answers = read_lines(target)
    assert [(a["id"], a["question"]) for a in answers] == [(q["id"], q["question"]) for q in QUESTIONS]
    for question, answer in zip(QUESTIONS, answers, strict=True):
        found = [answer, *answer["alternatives"]]
        passages = index.best(question["question"], 4)
        if not passages:
            assert answer == {
                "id": "q7", "question": "Xyzzy?", "answerable": None, "answer": "", "start": 0, "end": 0,
                "probability": 0.0, "document": None, "alternatives": [],
            }  # fmt: skip
            continue
        best = reader.answer_documents(question["question"], passages, 3, ranked=True)
        assert [(a["answer"], a["start"]) for a in found] == [(b["text"], b["start"]) for b in best]
        assert [a["probability"] for a in found] == pytest.approx([b["probability"] for b in best], abs=1e-4)
        for a in found:
            text, start, end = a["document"]["text"], a["start"], a["end"]
            assert text[start:end] == a["answer"]
            assert a["document"]["page"] is None
            content = (folder / a["document"]["file"]).read_text(encoding="utf-8")
            assert text in content
            rest = "\n".join(content.split("\n")[a["document"]["line"] - 1 :])  # from the line of the answer on
            assert rest.startswith(text[text.rfind("\n", 0, start) + 1 : end])
    (bad,) = read_lines(bad_path(target))
    assert bad["reason"].startswith("`question` is missing")


def test_csv_in_and_out_says_what_json_lines_say(reader, index, questions, tmp_path):
    source = tmp_path / "q.csv"
    source.write_text("Question\n" + "".join(f"{q['question']}\n" for q in QUESTIONS), encoding="utf-8")
    for kind in ("csv", "jsonl"):
        answer_file(reader, source, tmp_path / f"a.{kind}", top_k=2, index=index)
    with (tmp_path / "a.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    answers = read_lines(tmp_path / "a.jsonl")
    assert [row["id"] for row in rows] == [str(n) for n in range(1, 21)]
    for row, answer in zip(rows, answers, strict=True):
        for number, found in enumerate([answer, *answer["alternatives"]], 1):
            after = f"_{number}" if number > 1 else ""
            assert row[f"answer{after}"] == found["answer"]
            place = found["document"] or dict.fromkeys(("file", "page", "line", "text"), "")
            assert row[f"document_page{after}"] == ""
            assert [row[f"document_{name}{after}"] for name in ("file", "line", "text")] == [
                place["file"], str(place["line"]), place["text"],
            ]  # fmt: skip
    assert len(rows[0]) == 3 + 2 * 8


@pytest.mark.parametrize("name", ["q.csv", "q.jsonl"])
def test_without_a_question_a_file_is_refused_and_without_an_index_it_needs_a_context(reader, index, tmp_path, name):
    source = tmp_path / name
    source.write_text("answer,context\nx,y\n" if name == "q.csv" else '{"context": "y"}\n', encoding="utf-8")
    with pytest.raises(QAError, match=r"no column question|question is missing|`question` is missing") as refused:
        answer_file(reader, source, tmp_path / "a.jsonl", index=index)
    assert "no column context" not in str(refused.value) and "question and context" not in str(refused.value)
    source.write_text("question\nWho?\n" if name == "q.csv" else '{"question": "Who?"}\n', encoding="utf-8")
    with pytest.raises(QAError, match=r"no column context|`context` is missing"):
        answer_file(reader, source, tmp_path / "a.jsonl")


def test_a_pipe_in_and_a_pipe_out(reader, index, questions, tmp_path):
    answer_file(reader, questions, tmp_path / "a.jsonl", index=index)
    output = io.BytesIO()
    with questions.open("rb") as stdin:
        assert "20 answers in" in answer_file(reader, stdin, output, index=index)
    assert output.getvalue() == (tmp_path / "a.jsonl").read_bytes()


class Bar(NoProgress):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.places = []
        Bar.last = self

    def update(self, n):
        super().update(n)
        self.places.append(self.n)


def test_a_bar_goes_forward_to_the_end(reader, index, tmp_path):
    """A group is not more questions than are read in one go."""
    source = tmp_path / "q.jsonl"
    source.write_text("".join(json.dumps({"question": f"Ada note {n}?"}) + "\n" for n in range(70)), encoding="utf-8")
    answer_file(reader, source, tmp_path / "a.jsonl", progress=Bar, index=index, passages=1)
    assert Bar.last.places == sorted(Bar.last.places)
    assert Bar.last.places[-1] == source.stat().st_size


# resuming


@pytest.mark.fault("batch killed and resumed")
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_resumed_it_ends_as_undisturbed(reader, index, folder, questions, tmp_path, kind):
    """After each group, with an index that was opened again."""
    whole, target = tmp_path / f"whole.{kind}", tmp_path / f"a.{kind}"
    answer_file(reader, questions, whole, top_k=2, index=index)
    for groups in (1, 2, 0):
        with pytest.raises(Killed):
            again = DocumentIndex(folder, tmp_path / "kept")
            answer_file(MortalReader(reader, groups), questions, target, top_k=2, index=again)
        with target.open("ab") as file:
            file.write(b"torn")
    answer_file(reader, questions, target, top_k=2, index=index)
    assert (target.read_bytes(), bad_path(target).read_bytes()) == (whole.read_bytes(), bad_path(whole).read_bytes())
    assert not progress_path(target).exists()
    said = answer_file(MortalReader(reader, 0), questions, target, top_k=2, index=index)
    assert "is complete: 20 answers" in said


def test_other_documents_are_noticed_and_the_same_ones_elsewhere_are_not(reader, index, folder, questions, tmp_path):
    target = tmp_path / "a.jsonl"
    with pytest.raises(Killed):
        answer_file(MortalReader(reader, 2), questions, target, index=index)
    with pytest.raises(QAError, match="another passages"):
        answer_file(reader, questions, target, index=index, passages=3)
    (folder / "Ada.txt").write_text("Ada wrote something else.", encoding="utf-8")
    changed = DocumentIndex(folder, tmp_path / "kept")
    with pytest.raises(QAError, match=r"another documents.*--overwrite"):
        answer_file(reader, questions, target, index=changed)
    questions.write_text(json.dumps({"question": "Who?", "context": "Ada."}), encoding="utf-8")
    with pytest.raises(QAError, match="another input, documents, passages"):
        answer_file(reader, questions, target)


@pytest.mark.skipif(os.name == "nt", reason="Windows replaces no folder that is in use")
def test_an_index_that_is_open_stays_as_it_is_while_another_process_changes_it(index, folder, tmp_path):
    before = [index.best(question["question"]) for question in QUESTIONS], index.sha256()
    for n, name in enumerate(NAMES[1:], 1):
        (folder / ("deep" if n % 2 else "") / f"{name}.txt").unlink()
    assert len(DocumentIndex(folder, tmp_path / "kept")) < len(index)
    assert ([index.best(question["question"]) for question in QUESTIONS], index.sha256()) == before


@pytest.mark.fault("batch killed and resumed")
def test_the_script_killed_and_run_again_leaves_the_same_bytes(exported, folder, tmp_path):
    """In int8, where the last digits of an answer depend on the batch."""
    source = tmp_path / "q.jsonl"
    lines = [json.dumps(question | {"id": f"{n}-{question['id']}"}) + "\n" for n in range(7) for question in QUESTIONS]
    source.write_text("".join(lines), encoding="utf-8")
    flags = ("--model_dir", exported, "--device", "cpu", "--documents", folder, "--passages", 2, "--input", source)
    done = run_script("predict.py", "batch", *flags, "--output", tmp_path / "whole.jsonl")
    assert "wrote 140 answers" in done.stdout and "6 document(s)" in done.stderr
    target = tmp_path / "a.jsonl"
    for moment in (("os:fsync", 8, "kill"), ("extractive_qa.reader:Reader.logits", 9, "interrupt")):
        done = run_struck(*moment, "predict.py", "batch", *flags, "--output", target)
        assert done.returncode not in (0, 1) and progress_path(target).exists(), done.stderr
    done = run_script("predict.py", "batch", *flags, "--output", target)
    assert "resuming after" in done.stderr
    assert target.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
