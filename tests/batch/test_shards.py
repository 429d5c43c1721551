"""predict.py batch with many files: each is answered once, as one process answers it alone, whoever dies meanwhile."""

import csv
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import mortal_worker
import psutil
import pyarrow.parquet
import pytest
from mortal_reader import Killed, MortalReader, is_killed
from question_files import write_dataset
from scripts import PROJECT_ROOT, assert_refused, run_script

from extractive_qa.batch import folder as batch_folder
from extractive_qa.batch.answer_file import bad_path, done_path, lock_path, progress_path
from extractive_qa.batch.folder import RUN, ShardAnswerer, Work, answer_folder, claim, device_of, start_over
from extractive_qa.batch.run import answer_file
from extractive_qa.batch.shards import Outcome, Shard, choose_shards, find_shards
from extractive_qa.batch.workers import Turns, answer_shards, threads_of
from extractive_qa.documents.index import DocumentIndex
from extractive_qa.errors import QAError
from extractive_qa.files.locks import InUse, locked
from extractive_qa.reader import Reader

KILLED = "batch killed and resumed"
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
OPTIONS = {"top_k": 1, "min_confidence": 0.0, "renumber_ids": False, "encoding": "utf-8", "passages": 10}


def questions(name: str, count: int) -> list[dict]:
    return [
        {
            "id": f"{name}-{n}",
            "question": f"Who wrote text {n} of {name}?",
            "context": f"Text {n} of {name} is by Ada Müller, in {1800 + n}. " * (n % 5 + 1),
        }
        for n in range(count)
    ]


def as_lines(records) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def write_lines(path: Path, count: int) -> Path:
    path.write_text(as_lines(questions(path.stem, count)), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_every_format(folder: Path) -> None:
    """A shard of each, with two bad records in one of them."""
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"id": "bad"}\n' + as_lines(questions("a", 9)) + "half {\n", encoding="utf-8")
    (folder / "b.json").write_text(json.dumps(questions("b", 7)), encoding="utf-8")
    with (folder / "c.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, ["id", "question", "context"])
        rows.writeheader()
        rows.writerows(questions("c", 10))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(questions("d", 6)), folder / "d.parquet")
    write_dataset(questions("e", 8), folder)


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def answerer_of(reader, out: Path, **options) -> ShardAnswerer:
    return ShardAnswerer(reader, out, OPTIONS | options)


# which files are shards


def names_of(shards, out: Path) -> dict[str, str]:
    return {shard.source.as_posix(): shard.target.relative_to(out).as_posix() for shard in shards}


def test_files_folders_and_patterns_are_shards_each_with_answers_called_as_it_is(tmp_path, out, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    make_every_format(Path("in"))
    Path("deep/x/y").mkdir(parents=True)
    for name in ("in/notes.txt", "in/_SUCCESS", "in/.hidden.jsonl", "deep/x/one.jsonl", "deep/x/y/two.jsonl.gz"):
        Path(name).touch()
    with caplog.at_level(logging.INFO, "extractive_qa"):
        of_folder = names_of(find_shards(["in"], out), out)
    assert of_folder == {
        "in/a.jsonl": "a.jsonl", "in/b.json": "b.jsonl", "in/c.csv": "c.jsonl", "in/d.parquet": "d.jsonl",
        "in/saved": "saved.jsonl",
    }  # fmt: skip
    assert caplog.messages == ["left out of in, by their endings: notes.txt"]
    below = names_of(find_shards(["deep/**/*.jsonl*"], out, "parquet"), out)
    assert below == {"deep/x/one.jsonl": "x/one.parquet", "deep/x/y/two.jsonl.gz": "x/y/two.parquet"}
    several = names_of(find_shards(["in/b.json", "in/a.jsonl", "in/a*"], out), out)
    assert several == {"in/b.json": "b.jsonl", "in/a.jsonl": "a.jsonl"}, "in the order of the names, each once"


def test_answers_are_never_among_the_questions_when_the_command_is_run_again(tmp_path):
    write_lines(tmp_path / "q.jsonl", 2)
    (tmp_path / "out").mkdir()
    write_lines(tmp_path / "out" / "q.jsonl", 2)
    for name in (str(tmp_path), str(tmp_path / "**" / "*.jsonl")):
        assert [shard.source for shard in find_shards([name], tmp_path / "out")] == [tmp_path / "q.jsonl"]


def test_what_is_no_set_of_shards_is_refused(tmp_path, out):
    for name in ("a.jsonl", "a.csv", "b.jsonl", "b.bad.jsonl"):
        (tmp_path / name).touch()
    a, b = str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")
    for names, target, words in (
        ([a, str(tmp_path / "a.csv")], out, "would both write to"),
        ([b, str(tmp_path / "b.bad.jsonl")], out, "would both write to"),  # its bad records
        ([a, str(tmp_path / "none.jsonl")], out, "none.jsonl is missing"),
        ([str(tmp_path / "*.parquet")], out, "no file of questions is there"),
        ([str(out)], out, "no file of questions is there"),
        ([a, b], tmp_path / "a.csv", "is a file. Expected a folder"),
        ([a, b], tmp_path / "none" / "out", "none is missing"),
        ([a, b], Path("-"), "one stream"),
        (["-", b], out, "one stream"),
    ):
        with pytest.raises(QAError, match=words):
            choose_shards(names, str(target))
    with pytest.raises(QAError, match="are for several files"):
        choose_shards([a], str(tmp_path / "answers.jsonl"), workers=2)
    assert choose_shards([a], str(tmp_path / "answers.jsonl")) is None
    assert choose_shards(["-"], "-") is None
    assert choose_shards([a], f"{tmp_path}/new/") == [Shard(Path(a), tmp_path / "new" / "a.jsonl")]


# what is written


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_shard_of_every_format_is_answered_as_the_file_alone(reader, tmp_path, out, small_groups, kind):
    make_every_format(tmp_path / "in")
    answerer, alone = answerer_of(reader, out), tmp_path / "alone"
    alone.mkdir()
    for shard in find_shards([str(tmp_path / "in")], out, kind):
        outcome = answerer.answer(shard)
        answer_file(reader, shard.source, alone / shard.target.name)
        assert shard.target.read_bytes() == (alone / shard.target.name).read_bytes()
        assert (outcome.fault, outcome.now, outcome.bad) == ("", outcome.answers, 2 * (shard.source.name == "a.jsonl"))
        assert answerer.answer(shard) == outcome._replace(now=0), "it is complete"
    assert bad_path(out / f"a.{kind}").read_bytes() == bad_path(alone / f"a.{kind}").read_bytes()
    left = {path.name for path in out.iterdir()}
    targets = {f"{name}.{kind}" for name in ("a", "b", "c", "d", "saved")}
    assert left == {RUN, bad_path(out / f"a.{kind}").name} | targets | {f"{name}.done" for name in targets}


@pytest.mark.parametrize("top_k", [1, 3])
def test_parquet_says_what_json_lines_say(reader, tmp_path, small_groups, top_k):
    source = write_lines(tmp_path / "q.jsonl", 9)
    for kind in ("jsonl", "parquet"):
        answer_file(reader, source, tmp_path / f"a.{kind}", top_k=top_k)
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert table.to_pylist() == read_lines(tmp_path / "a.jsonl")
    assert table.schema.field("answerable").type == "double", "although this model knows none"
    assert sorted(path.name for path in tmp_path.glob("a.parquet*")) == ["a.parquet", "a.parquet.done"]


def test_parquet_is_written_in_groups_of_rows(reader, tmp_path, monkeypatch):
    monkeypatch.setattr("extractive_qa.batch.parquet_answers.ROWS", 4)
    answer_file(reader, write_lines(tmp_path / "q.jsonl", 9), tmp_path / "a.parquet")
    with pyarrow.parquet.ParquetFile(tmp_path / "a.parquet") as file:
        assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [4, 4, 1]


@pytest.mark.fault(KILLED)
@pytest.mark.parametrize(
    ("owner", "name"), [(os, "fsync"), (Path, "replace"), (Path, "open"), (Path, "unlink"), (json, "loads")]
)
def test_parquet_stopped_dead_at_any_operation_ends_as_undisturbed(
    reader, tmp_path, small_groups, monkeypatch, owner, name, record_property
):
    """json.loads: while the lines are turned into Parquet, too."""
    source = tmp_path / "q.jsonl"
    source.write_text('{"id": "bad"}\n' + as_lines(questions("q", 9)), encoding="utf-8")
    answer_file(reader, source, tmp_path / "whole.parquet")
    expected = [path.read_bytes() for path in (tmp_path / "whole.parquet", bad_path(tmp_path / "whole.parquet"))]
    original, target, tried = getattr(owner, name), tmp_path / "a.parquet", 0
    for number in range(1, 100):
        calls = iter(range(1, 10**6))

        def struck(*args, calls=calls, number=number, **settings):
            # a lock that is not released would be held by this process
            if args[:1] and not str(args[0]).endswith(".lock") and next(calls) == number:
                raise Killed
            return original(*args, **settings)

        if not is_killed(monkeypatch, owner, name, struck, partial(answer_file, reader, source, target)):
            break  # it is not called so often
        tried += 1
        answer_file(reader, source, target)
        assert [path.read_bytes() for path in (target, bad_path(target))] == expected, number
        assert {path.name for path in tmp_path.glob("a.*")} == {
            "a.parquet", "a.parquet.done", bad_path(target).name
        }, number  # fmt: skip
        for path in tmp_path.glob("a.*"):
            path.unlink()
    record_property("tried", tried)
    assert tried >= 2


# a folder is of one run


def test_a_folder_of_another_run_is_refused_and_can_be_started_over(reader, tmp_path, out, small_groups):
    shards = find_shards([str(write_lines(tmp_path / "q.jsonl", 9))], out)
    answer_folder(out, shards, lambda some: [answerer_of(reader, out).answer(one) for one in some])
    before = (out / "q.jsonl").read_bytes()
    with pytest.raises(QAError, match=r"out was begun with another top_k\..*--overwrite"):
        answerer_of(reader, out, top_k=2)
    with pytest.raises(QAError, match="another precision"):
        answerer_of(Reader(reader.model_dir, "cpu", "bf16"), out)
    assert (out / "q.jsonl").read_bytes() == before
    (out / "mine.done").write_text("[]", encoding="utf-8")
    (out / "mine").write_text("mine", encoding="utf-8")
    with locked(lock_path(out / "q.jsonl"), "another run, process", out, "--output"), pytest.raises(InUse):
        start_over(out, shards)
    assert (out / "q.jsonl").read_bytes() == before
    done, faults = answer_folder(
        out, shards, lambda some: [answerer_of(reader, out, top_k=2).answer(one) for one in some], overwrite=True
    )
    assert ("9 answers to 1 of 1 files; 9 answers of now" in done, faults) == (True, "")
    assert "alternatives" in read_lines(out / "q.jsonl")[0]
    assert (out / "mine").read_text(encoding="utf-8") == "mine"


def test_answers_to_files_that_are_no_longer_asked_go_with_overwrite(reader, tmp_path, out, small_groups):
    old, new = (find_shards([str(write_lines(tmp_path / name, 5))], out) for name in ("old.jsonl", "new.jsonl"))
    answerer_of(reader, out).answer(old[0])
    start_over(out, new)
    assert list(out.iterdir()) == []


def test_where_nothing_could_be_answered_the_corrected_command_may_have_other_settings(reader, tmp_path):
    out, source = tmp_path / "out", tmp_path / "q.csv"
    source.write_bytes("id,question,context\n1,谁？,是他。\n".encode("gbk"))
    shards = find_shards([str(source)], out)
    _, faults = answer_folder(out, shards, lambda some: [answerer_of(reader, out).answer(one) for one in some])
    assert "q.csv: none of its 1 record(s) can be answered" in faults
    assert "1 of 1 files could not be answered" in faults
    assert not out.exists()
    _, faults = answer_folder(
        out, shards, lambda some: [answerer_of(reader, out, encoding="gbk").answer(one) for one in some]
    )
    assert faults == ""


def test_another_device_takes_what_is_complete_and_starts_over_what_is_not(
    reader, tmp_path, out, small_groups, monkeypatch, caplog
):
    shards = [Shard(write_lines(tmp_path / f"{name}.jsonl", 9), out / f"{name}.jsonl") for name in "ab"]
    answerer_of(reader, out).answer(shards[0])
    with pytest.raises(Killed):
        answerer_of(MortalReader(reader, 1), out).answer(shards[1])
    assert progress_path(shards[1].target).exists()
    monkeypatch.setattr(type(reader.backend), "describe", lambda self: "another card")
    with caplog.at_level(logging.INFO, "extractive_qa"):
        first, second = (answerer_of(reader, out).answer(shard) for shard in shards)
    assert (first.now, first.answers, second.now, second.answers) == (0, 9, 9, 9)
    assert "b.jsonl was begun with another device: starting over" in caplog.text


def test_a_shard_that_was_corrected_starts_over_unless_it_was_complete(reader, tmp_path, out, small_groups):
    shard = Shard(write_lines(tmp_path / "q.jsonl", 9), out / "q.jsonl")
    with pytest.raises(Killed):
        answerer_of(MortalReader(reader, 1), out).answer(shard)
    write_lines(shard.source, 6)
    assert answerer_of(reader, out).answer(shard) == Outcome(shard, 6, 0, 6)
    write_lines(shard.source, 7)
    fault = answerer_of(reader, out).answer(shard).fault
    assert re.search(r"was answered with another input\. To have this file alone answered again, delete", fault)
    for path in (shard.target, done_path(shard.target)):
        path.unlink()
    assert answerer_of(reader, out).answer(shard) == Outcome(shard, 7, 0, 7)


def test_who_finds_another_at_the_folder_s_record_waits_for_it(out, monkeypatch):
    monkeypatch.setattr(batch_folder, "PATIENCE", 0.3)
    with locked(lock_path(out / RUN), "another run, process", out, "--output"), pytest.raises(InUse):
        claim(out, {"top_k": 1})
    claim(out, {"top_k": 1})
    claim(out, {"top_k": 1})
    with pytest.raises(QAError, match="another top_k"):
        claim(out, {"top_k": 2})


# whose turn it is


def test_free_shards_come_first_then_what_was_complete_or_in_other_hands(tmp_path, monkeypatch):
    shards = [Shard(tmp_path / name, tmp_path / name) for name in ("complete", "locked", "begun", "new")]
    done_path(shards[0].target).touch()
    lock_path(shards[1].target).touch()
    progress_path(shards[2].target).touch()
    turns = Turns(shards)
    order = [turns.next() for _ in range(5)]
    assert order == [shards[2], shards[3], shards[0], shards[1], None]
    turns.wait_for(shards[1])
    assert turns.next() is None, "not at once"
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 10)
    assert turns.next() == shards[1]


def test_a_shard_in_other_hands_is_left_to_them(reader, tmp_path, out):
    shard = Shard(write_lines(tmp_path / "q.jsonl", 3), out / "q.jsonl")
    answerer = answerer_of(reader, out)
    with locked(lock_path(shard.target), "another run, process", out, "--output"):
        assert answerer.answer(shard) == Outcome(shard, in_use=True)
    assert answerer.answer(shard).answers == 3


def test_threads_are_divided_and_each_worker_has_a_gpu_of_its_own(monkeypatch):
    import torch

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [threads_of(count) for count in (1, 2, 3, 8, 20)] == [None, 4, 2, 1, 1]
    settings = {"device": "auto", "backend": "auto", "mixed_precision": "auto"}
    monkeypatch.setattr(batch_folder, "may_have_gpu", lambda: True)
    for gpus, expected in ((0, "auto"), (1, "auto"), (2, "cuda:1")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert device_of(3, settings) == expected
    for name, value in (("backend", "onnx"), ("mixed_precision", "int8")):
        assert device_of(3, settings | {name: value}) == "auto"
    assert device_of(3, settings | {"device": "cuda:0"}) == "cuda:0"


# several processes


def work_of(model: Path, out: Path, threads: int = 1) -> Work:
    settings = {"device": "cpu", "mixed_precision": "auto", "backend": "auto", "threads": threads}
    return Work(out, {"model_dir": model} | settings, OPTIONS)


def batch_flags(model, source, out, *flags) -> list[str]:
    named = ("--model_dir", model, "--device", "cpu", "--threads", 1, "--input", source, "--output", out)
    return ["batch", *map(str, (*named, *flags))]


@pytest.fixture(scope="module")
def alone(exported, tmp_path_factory):
    """Eight files of several groups, and the answers of one process to each alone, in int8, where the last digits
    depend on who shares a batch."""
    made = tmp_path_factory.mktemp("alone")
    (made / "in").mkdir()
    (made / "expected").mkdir()
    reader = Reader(exported, "cpu", threads=1)
    for number in range(8):
        source = write_lines(made / "in" / f"s{number}.jsonl", 300 + number)
        answer_file(reader, source, made / "expected" / source.name)
    return made / "in", {path.name: path.read_bytes() for path in (made / "expected").glob("*.jsonl")}


def answers_in(out: Path) -> dict[str, bytes]:
    assert not list(out.rglob("*.progress")) + list(out.rglob("*.partial"))
    return {path.name: path.read_bytes() for path in out.glob("*.jsonl")}


def test_two_workers_write_what_one_process_writes_and_a_damaged_file_stops_none(exported, alone, tmp_path):
    source, expected = alone
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and no more")
    out = tmp_path / "out"
    flags = batch_flags(exported, tmp_path, f"{out}/", "--workers", 2)
    done = run_script("predict.py", *flags, code=None)
    assert_refused(done, "1 of 9 files could not be answered", "damaged.parquet is not a Parquet file")
    total = sum(300 + n for n in range(8))
    assert f"{total:,} answers to 8 of 9 files; {total:,} answers of now" in done.stdout
    assert answers_in(out) == expected
    (tmp_path / "damaged.parquet").unlink()
    assert f"out is complete: {total:,} answers to 8 of 8 files" in run_script("predict.py", *flags).stdout
    assert_refused(run_script("predict.py", *flags, "--top_k", 2, code=None), "was begun with another top_k")
    assert answers_in(out) == expected


@pytest.mark.fault(KILLED)
def test_a_worker_that_dies_has_its_shard_taken_over(exported, alone, tmp_path, caplog):
    source, expected = alone
    out = tmp_path / "out"
    out.mkdir()
    shards = find_shards([str(source / "s[0-3].jsonl")], out)
    with caplog.at_level(logging.INFO, "extractive_qa"):
        outcomes = answer_shards(shards, work_of(exported, out), 2, begin=mortal_worker.die_once)
    assert re.search(r"worker \d died \(killed by signal 9\): another one goes on", caplog.text)
    assert "resuming after 128 questions" in caplog.text
    assert answers_in(out) == {name: expected[name] for name in ("s0.jsonl", "s1.jsonl", "s2.jsonl", "s3.jsonl")}
    assert [outcome.answers for outcome in outcomes] == [300, 301, 302, 303]
    assert sum(outcome.now for outcome in outcomes) == sum(range(300, 304)) - 128


@pytest.mark.fault(KILLED)
def test_a_file_that_every_worker_dies_of_is_named_and_stops_no_other(exported, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a", "poison", "z"):
        write_lines(tmp_path / f"{name}.jsonl", 5)
    shards = find_shards([str(tmp_path)], out)
    found = answer_shards(shards, work_of(exported, out), 2, begin=mortal_worker.die_of_one)
    assert [outcome.answers for outcome in found] == [5, 0, 5]
    assert re.search(r"poison.jsonl: 3 workers died of it.*signal 9.*--workers", found[1].fault)
    with pytest.raises(QAError, match="workers die as they start"):
        answer_shards(shards, work_of(exported, out), 2, begin=mortal_worker.die_at_once)


def test_workers_ask_a_folder_of_documents_each_with_the_index_opened_again(exported, tmp_path):
    documents, out = tmp_path / "documents", tmp_path / "out"
    for folder in (documents, out, tmp_path / "in"):
        folder.mkdir()
    for name in ("Ada", "Bob", "Cleo"):
        text = "\n\n".join(f"{name} wrote note {n} in {1800 + n}." for n in range(40))
        (documents / f"{name}.txt").write_text(text, encoding="utf-8")
    for name in ("Ada", "Bob"):
        asked = [{"id": f"{name}-{n}", "question": f"When did {name} write note {n}?"} for n in range(5)]
        (tmp_path / "in" / f"{name}.jsonl").write_text(as_lines(asked), encoding="utf-8")
    shards, kept = find_shards([str(tmp_path / "in")], out), tmp_path / "kept"
    work = work_of(exported, out)._replace(documents=(documents, kept))
    assert [outcome.answers for outcome in answer_shards(shards, work, 2)] == [5, 5]
    index, reader = DocumentIndex(documents, kept), Reader(exported, "cpu", threads=1)
    for shard in shards:
        answer_file(reader, shard.source, tmp_path / shard.target.name, index=index)
        assert shard.target.read_bytes() == (tmp_path / shard.target.name).read_bytes()
        assert read_lines(shard.target)[0]["document"]["file"] == f"{shard.source.stem}.txt"


def start(*flags) -> subprocess.Popen:
    """predict.py in a group of processes of its own."""
    command = [sys.executable, str(PROJECT_ROOT / "predict.py"), *flags]
    own = {"start_new_session": True} if os.name == "posix" else {}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", **own)


def wait_for(what, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.fault(KILLED)
def test_workers_end_with_a_parent_that_is_killed_and_the_next_run_resumes(exported, alone, tmp_path):
    source, expected = alone
    out = tmp_path / "out"
    flags = batch_flags(exported, source, f"{out}/", "--workers", 2)
    process = start(*flags)
    wait_for(lambda: list(out.glob("*.progress")))
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    assert len(below) >= 2
    _, alive = psutil.wait_procs(below, timeout=30)
    assert alive == []
    assert len(list(out.glob("*.done"))) < 8
    done = run_script("predict.py", *flags)
    assert "8 of 8 files" in done.stdout
    assert answers_in(out) == expected


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a group of processes, as a terminal does")
def test_ctrl_c_ends_all_without_a_traceback_and_says_how_to_resume(exported, alone, tmp_path):
    source, _ = alone
    out = tmp_path / "out"
    process = start(*batch_flags(exported, source, f"{out}/", "--workers", 2))
    wait_for(lambda: list(out.glob("*.progress")))
    below = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert re.search(r"stopped after \d of 8 files\. To resume, run the same command again", said)
    assert psutil.wait_procs(below, timeout=30)[1] == []


def test_two_commands_at_once_share_a_folder_and_answer_each_question_once(exported, alone, tmp_path):
    source, expected = alone
    out = tmp_path / "out"
    flags = batch_flags(exported, source, f"{out}/")
    both = [start(*flags) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    now = [int(re.search(r"([\d,]+) answers of now", text)[1].replace(",", "")) for text, _ in said]
    assert sum(now) == sum(300 + n for n in range(8))
    assert answers_in(out) == expected


@pytest.mark.slow
@pytest.mark.fault(KILLED)
def test_64_files_and_twenty_killed_workers_end_as_one_process(exported, tmp_path, record_property):
    """Every id once, and the bytes of one process for each file, however often a worker, or all of them, are killed."""
    chance, kills = random.Random(20), 20
    for folder in ("in", "expected"):
        (tmp_path / folder).mkdir()
    reader = Reader(exported, "cpu", threads=1)
    for number in range(64):
        source = write_lines(tmp_path / "in" / f"s{number:02}.jsonl", 130 + 3 * number)
        answer_file(reader, source, tmp_path / "expected" / source.name)
    out = tmp_path / "out"
    flags = batch_flags(exported, tmp_path / "in", f"{out}/", "--workers", 4)
    killed, process, said = 0, start(*flags), ""
    while killed < kills or process.poll() != 0:
        if process.poll() is not None:
            said += process.communicate()[1]
            assert "Traceback" not in said
            # three died of one file, or as they began; else all is complete: some of it is asked again
            some = sorted(out.glob("*.done")) if process.returncode == 0 else []
            for path in chance.sample(some, len(some) // 3):
                for gone in (path, path.with_suffix("")):
                    gone.unlink()
            process = start(*flags)
        time.sleep(chance.uniform(0.5, 3.0))
        workers_now = [child for child in psutil.Process(process.pid).children() if is_worker(child)]
        if killed < kills and workers_now and list(out.glob("*.progress")):
            chance.choice(workers_now).kill()
            killed += 1
    process.communicate()
    expected = {path.name: path.read_bytes() for path in (tmp_path / "expected").glob("*.jsonl")}
    assert answers_in(out) == expected
    ids = Counter(answer["id"] for path in out.glob("*.jsonl") for answer in read_lines(path))
    assert set(ids.values()) == {1}
    assert len(ids) == sum(130 + 3 * number for number in range(64))
    record_property("tried", killed)


def is_worker(process: psutil.Process) -> bool:
    """Not the process that multiprocessing tracks resources with."""
    try:
        return any("spawn_main" in word for word in process.cmdline())
    except psutil.Error:
        return False
