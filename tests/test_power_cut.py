"""A power cut at any moment: what is found after it is the old or the new, never a mixture, and nothing is lost of what
was reported as done. How the states are made: power_cut.py.

Some hundred states in `make test`; all of them, or thousands where they are too many, in `make test-slow`.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from power_cut import Story, survive

from extractive_qa.batch.answer_file import AnswerFile, done_path, progress_path
from extractive_qa.data.formats import Record
from extractive_qa.errors import QAError
from extractive_qa.files.atomic import (
    make_room,
    open_checked,
    recover,
    replace_folder,
    save_checked,
    write_file,
)
from extractive_qa.files.manifest import check_manifest, write_manifest
from extractive_qa.settings import save_settings
from extractive_qa.training.checkpoints import (
    MARKER,
    latest_checkpoint,
    lock_output_dir,
    save_checkpoint,
)
from extractive_qa.training.log import TrainingLog, read_log

pytestmark = [
    pytest.mark.fault("power cut"),
    pytest.mark.skipif(os.name != "posix", reason="POSIX's rules; on Windows folders are not synced"),
]


# checkpoints and the final model


def files_of_step(step: int) -> dict[str, bytes]:
    return {"model.safetensors": b"%d weights " % step * 9, "tokenizer/vocab.txt": b"[PAD]", "state.json": b"%d" % step}


def write_files(files: dict[str, bytes]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)

    return write


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def saves(limit: int) -> Story:
    """Three checkpoints into a folder that is made for them; another one after the power cut."""

    def do(folder, say):
        with lock_output_dir(folder / "new" / "out"):
            for step in (10, 20, 30):
                save_checkpoint(folder / "new" / "out", step, write_files(files_of_step(step)), limit)
                say(step)

    def check(folder, said):
        output = folder / "new" / "out"
        with lock_output_dir(output):
            try:
                latest = latest_checkpoint(output)
            except QAError:
                assert not said
            else:
                step = int(latest.name.removeprefix("checkpoint-"))
                assert step >= max(said, default=0)
                found = contents(latest)
                del found[MARKER]
                assert found == files_of_step(step)
            save_checkpoint(output, 40, write_files(files_of_step(40)), limit)
            assert latest_checkpoint(output).name == "checkpoint-40"
        assert all(path.name.startswith("checkpoint-") for path in output.iterdir())

    return Story(do, check)


def save_over_a_damaged_one() -> Story:
    """A run goes on from 10, as 20 is damaged, and saves 20 again."""

    def before(folder):
        for step in (10, 20):
            save_checkpoint(folder, step, write_files(files_of_step(step)), 2)
        (folder / "checkpoint-20" / "state.json").write_bytes(b"20\0")

    def do(folder, say):
        save_checkpoint(folder, 20, write_files(files_of_step(20)), 1)
        say(20)

    def check(folder, said):
        with lock_output_dir(folder):
            latest = latest_checkpoint(folder)
        assert latest.name in (["checkpoint-20"] if said else ["checkpoint-10", "checkpoint-20"])
        found = contents(latest)
        del found[MARKER]
        assert found == files_of_step(int(latest.name[-2:]))

    return Story(do, check, before)


def final_models() -> Story:
    """The final model is replaced, and gets its confidences; with a list of checksums, as of download_data.py."""
    versions = ({"model.safetensors": b"first" * 9, "a.txt": b"a"}, {"model.safetensors": b"second" * 9})

    def do(folder, say):
        target = folder / "final_model"
        for number, files in enumerate(versions):
            replace_folder(
                target, lambda new, files=files: (write_files(files)(new), write_manifest(new, "test", None))
            )
            say(number)
        save_settings(target, {"temperature": 2.0}, manifests=["manifest.json"])
        say(2)

    def check(folder, said):
        target = folder / "final_model"
        recover(target)
        if not target.exists():
            assert not said
            return
        found = contents(target)
        del found["manifest.json"]
        settings = json.loads(found.pop("reader.json", b'{"temperature": 1.0}'))
        number = versions.index({name: text for name, text in found.items() if not name.startswith(".")})
        assert number >= min(1, max(said, default=0))
        assert settings["temperature"] in ([2.0] if 2 in said else [1.0, 2.0] if number else [1.0])
        assert check_manifest(target, full=True)

    return Story(do, check)


def log_of_a_training() -> Story:
    """Lines are reported by the checkpoint that follows them. The run is resumed once meanwhile."""

    def do(folder, say):
        for begin in (0, 4):
            log = TrainingLog(folder, begin)
            for step in range(begin + 1, begin + 5):
                log.write({"step": step, "loss": 1.0 / step})
                say(step)

    def check(folder, said):
        resume = max(said, default=0)
        if not resume:
            return
        lines = TrainingLog(folder, resume).lines
        assert lines == [{"step": step, "loss": 1.0 / step} for step in range(1, resume + 1)]
        assert read_log(folder / "training_log.jsonl") == lines

    return Story(do, check)


# single files


def one_file() -> Story:
    texts = [f"version {number} " * 20 for number in range(3)]

    def do(folder, say):
        path = folder / "made" / "for" / "file"
        make_room(path, "--output")
        for number, text in enumerate(texts):
            write_file(path, text)
            say(number)

    def check(folder, said):
        path = folder / "made" / "for" / "file"
        if path.exists() or said:
            assert texts.index(path.read_text(encoding="utf-8")) >= max(said, default=0)

    return Story(do, check)


def kept_with_a_checksum() -> Story:
    contents = [bytes([number]) * 3000 for number in range(3)]

    def do(folder, say):
        for number in (0, 1, 2):
            save_checked(folder / "cache" / f"{number % 2}.features", lambda file, n=number: file.write(contents[n]), 1)

    def check(folder, said):
        for number in (0, 1):
            if file := open_checked(folder / "cache" / f"{number}.features"):
                with file:
                    assert file.read() in contents[number::2]

    return Story(do, check)


# answers


RUN = {"input": ["a"], "top_k": 1}
GROUPS = [(["a", "b"], 1), (["c"], 0), ([], 2), (["d", "e"], 1)]  # questions, bad records


def answers(path: Path, run: dict, overwrite: bool, say: Callable = lambda done: None, over: Callable = lambda: None):
    """As predict.py batch answers GROUPS."""
    with AnswerFile(path, 1, run, overwrite) as output:
        assert not output.done or run
        if output.is_complete:
            return
        begin = output.done
        for done, (names, bad) in enumerate(GROUPS, 1):
            if done > begin:
                rows = [
                    [{"id": name, "question": f"{name}?", "answerable": True, "answer": name * 9, "start": 0, "end": 9,
                      "probability": 0.5}]
                    for name in names
                ]  # fmt: skip
                output.write(rows, [Record(n, f"line {n}", None, "no JSON", "x" * 9, 0) for n in range(bad)], done)
                say(done)
        output.finish(1.0, 5)
        over()


def answer_files(path: Path) -> tuple[bytes, bytes]:
    bad = path.with_name(path.name.removesuffix(".jsonl") + ".bad.jsonl")
    return path.read_bytes(), bad.read_bytes()


def answering(name: str, run: dict, earlier: dict | None) -> Story:
    """earlier: the run whose answers are replaced by these, with --overwrite."""

    def before(folder):
        (folder / "whole").mkdir()
        answers(folder / "whole" / name, {}, overwrite=False)
        if earlier is not None:
            answers(folder / name, earlier, overwrite=False)
            (folder / name).write_bytes(b"earlier\n" * 80)
            progress = done_path(folder / name)
            if progress.exists():
                said = json.loads(progress.read_text(encoding="utf-8"))
                said["sizes"][0] = 640
                progress.write_text(json.dumps(said), encoding="utf-8")

    def do(folder, say):
        answers(folder / name, run, earlier is not None, say, lambda: say("all"))

    def check(folder, said):
        target, whole = folder / name, folder / "whole" / name
        if "all" in said:
            assert answer_files(target) == answer_files(whole)
            assert not progress_path(target).exists()
            if run:
                with AnswerFile(target, 1, run, overwrite=False) as output:
                    assert output.is_complete
            return
        if not run:  # nothing to resume: what was begun is refused, or not there, and can be replaced
            answers(target, run, overwrite=True)
            assert answer_files(target) == answer_files(whole)
            return
        done = []
        try:
            answers(target, run, overwrite=False, say=done.append)
        except QAError:  # the earlier ones are still there
            assert earlier is not None
            assert not said
            answers(target, run, overwrite=True)
        assert answer_files(target) == answer_files(whole)
        assert not set(done) & set(said), "a group that was reported is answered again"

    return Story(do, check, before)


STORIES = {
    "checkpoints, one kept": saves(limit=1),
    "checkpoints, two kept": saves(limit=2),
    "a damaged checkpoint is replaced": save_over_a_damaged_one(),
    "the final model": final_models(),
    "the log of a training": log_of_a_training(),
    "a file": one_file(),
    "a file with a checksum": kept_with_a_checksum(),
    "answers": answering("a.jsonl", RUN, None),
    "answers as CSV": answering("a.csv", RUN, None),
    "answers over earlier ones": answering("a.jsonl", RUN, RUN | {"top_k": 2}),
    "answers out of a pipe": answering("a.jsonl", {}, None),
    "answers out of a pipe over earlier ones": answering("a.jsonl", {}, RUN),
}


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch):
    """Its files are pictures of the log."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


@pytest.mark.parametrize("name", STORIES)
def test_some_states_after_a_power_cut(name, record_property):
    tried = survive(STORIES[name], limit=3, cuts=1)
    assert tried > 20
    record_property("tried", tried)


@pytest.mark.slow
@pytest.mark.parametrize("name", STORIES)
def test_all_states_after_a_power_cut(name, record_property):
    record_property("tried", survive(STORIES[name], limit=400, cuts=8))
