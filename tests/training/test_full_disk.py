"""A disk or folder that fails in the middle of a training: a clear error, and once it works again the training is
resumed where it was."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scripts import PROJECT_ROOT, assert_refused, run_struck
from small_training import SMALL, assert_equal_weights, log_without_times, train_here
from strike import striking

from extractive_qa.errors import QAError
from extractive_qa.training.checkpoints import latest_checkpoint, list_checkpoints

pytestmark = [
    pytest.mark.fault("disk or folder that fails"),
    pytest.mark.skipif(os.name != "posix", reason="needs limits, and folders that move while they are open"),
]


def assert_ends_as_undisturbed(output: Path, undisturbed: Path) -> None:
    train_here("--output_dir", output, "--resume")
    assert_equal_weights(output / "final_model", undisturbed / "final_model")
    assert log_without_times(output) == log_without_times(undisturbed)


def test_a_disk_that_fills_up_in_a_save_leaves_the_checkpoint_before_it(tiny_model, trained, tmp_path, monkeypatch):
    import resource

    output, limits = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", striking(torch.save, 3, "limit:50000"))  # after checkpoint-3 and -5
        try:
            with pytest.raises(QAError) as refused:
                train_here("--model_dir", tiny_model, "--output_dir", output, *SMALL)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for words in ("checkpoint-6 can't be written", "What was there before is still there", "--resume"):
        assert words in str(refused.value)
    assert latest_checkpoint(output).name == "checkpoint-5"
    assert not list(output.glob(".*"))
    assert_ends_as_undisturbed(output, trained)


@pytest.mark.slow
def test_a_disk_that_fills_up_in_the_log_tears_no_line_for_good(tiny_model, trained, tmp_path):
    flags, log = (
        ["--model_dir", tiny_model, "--output_dir", tmp_path / "out", *SMALL],
        tmp_path / "out" / "training_log.jsonl",
    )
    done = run_struck("extractive_qa.training.log:TrainingLog.write", 4, f"limit:20|{log}", "train.py", *flags)
    assert_refused(done, "training_log.jsonl can't be written: File too large", "--resume")
    assert not log.read_text(encoding="utf-8").endswith("\n")
    assert_ends_as_undisturbed(tmp_path / "out", trained)


def files_of(output: Path) -> dict[str, bytes]:
    """All that a training left, but for its log, and its flags, which name its own folder."""
    found = {path.relative_to(output).as_posix(): path for path in output.rglob("*") if path.is_file()}
    found = {name: path for name, path in found.items() if not name.startswith(("training_", "runs/"))}
    contents = {name: path.read_bytes() for name, path in found.items()}
    for name, content in list(contents.items()):
        if name.endswith(("reader.json", "state.json")):
            values = json.loads(content)
            contents[name] = {key: value for key, value in values.items() if key not in ("training", "settings")}
    return {name: content for name, content in contents.items() if not name.endswith("complete.json")}


# the end of what is put on the disk, and for the how manieth time
SAVES = [("checkpoint-3.new/optimizer.pt", 1), ("final_model.new/model.safetensors", 2)]
MORE_SAVES = [
    ("final_model/.reader.json.new", 1), ("training_log.jsonl", 9), (".training_curve.png.new", 1),
    ("training_log.jsonl", 1), ("training_log.jsonl", 4), ("checkpoint-5.new/.complete.json.new", 1),
    ("checkpoint-6.new", 2), ("final_model.new", 1), ("/out", 4), ("/out", 8), ("final_model", 1),
]  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs to know what is put on the disk (Linux)")
@pytest.mark.parametrize(
    ("place", "number"), [*SAVES, *(pytest.param(*save, marks=pytest.mark.slow) for save in MORE_SAVES)]
)
def test_wherever_the_disk_is_full_nothing_is_lost_twice(tiny_model, trained, tmp_path, monkeypatch, place, number):
    """A save that finds no space (ENOSPC) ends the training. After that it goes on from the save before, and leaves the
    same checkpoints, log and best model, byte for byte, as one whose disk was never full."""
    output, found = tmp_path / "out", []
    flags = ("--model_dir", tiny_model, "--output_dir", output, *SMALL)

    def full(descriptor, fsync=os.fsync):
        if str(Path(f"/proc/self/fd/{descriptor}").readlink()).endswith(place):
            found.append(descriptor)
            if len(found) == number:
                raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch, pytest.raises(QAError, match=r"can't be written.*No space left") as refused:
        patch.setattr(os, "fsync", full)
        train_here(*flags)
    assert not list(output.glob(".*"))
    resumes = bool(list_checkpoints(output))
    assert ("--resume" in str(refused.value)) == resumes
    train_here(*(("--output_dir", output, "--resume") if resumes else flags))
    assert log_without_times(output) == log_without_times(trained)
    one, other = files_of(output), files_of(trained)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


def require_mounts() -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("needs unshare and the right to mount in a namespace (Linux)")


# in a mount namespace of its own: a disk of 200 MB that is filled up, is said to be full, is freed, and the training
# resumed on it
ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size=200m none "$DISK"
code=0
"$PYTHON" tests/strike.py "$FUNCTION" "$NUMBER" "fill:$DISK/filler" train.py "$@" || code=$?
cd "$DISK"
ls -A out | tr '\\n' ' ' >> "$KEPT/listing"
rm filler
cd "$ROOT"
[ $code = 2 ] || exit 9
"$PYTHON" train.py --output_dir "$DISK/out" --resume
rm -r "$DISK"/out/checkpoint-*
cp -r "$DISK/out" "$KEPT/out"
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "number", "words"),
    [
        ("torch:save", 2, "checkpoint-5 can't be written"),
        ("extractive_qa.files.manifest:write_manifest", 2, "checkpoint-5 can't be written"),
        ("extractive_qa.training.run:save_reader", 3, "final_model can't be written"),
        ("extractive_qa.report.charts:draw_training_curve", 1, "training_curve.png can't be written"),
    ],
)
def test_a_disk_that_is_really_full(tiny_model, trained, tmp_path, function, number, words):
    require_mounts()
    (tmp_path / "disk").mkdir()
    (tmp_path / "kept").mkdir()
    settings = {
        "DISK": tmp_path / "disk", "KEPT": tmp_path / "kept", "PYTHON": sys.executable, "FUNCTION": function,
        "NUMBER": number, "ROOT": PROJECT_ROOT,
    }  # fmt: skip
    flags = ["--model_dir", tiny_model, "--output_dir", tmp_path / "disk" / "out", *SMALL, "--save_total_limit", 3]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", ON_A_SMALL_DISK, "sh", *map(str, flags)],
        check=False, capture_output=True, text=True, timeout=300, cwd=PROJECT_ROOT,
        env=os.environ | {name: str(value) for name, value in settings.items()},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert words in done.stderr
    assert "No space left on device" in done.stderr or "the disk is full or fails" in done.stderr
    assert "resumed from" in done.stdout
    assert ".checkpoint" not in (tmp_path / "kept" / "listing").read_text(encoding="utf-8")
    assert_equal_weights(tmp_path / "kept" / "out" / "final_model", trained / "final_model")
    assert log_without_times(tmp_path / "kept" / "out") == log_without_times(trained)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "number", "left"),
    [("extractive_qa.training.finite_guard:FiniteGuard.check", 5, "checkpoint-3"), ("torch:save", 2, "checkpoint-3"),
     ("extractive_qa.training.log:TrainingLog.write", 3, "checkpoint-5")],
)  # fmt: skip
def test_a_folder_that_vanishes(tiny_model, trained, tmp_path, function, number, left):
    """As a drive does that is pulled out. Once it is back, the training goes on."""
    output, away = tmp_path / "out", tmp_path / "away"
    flags = ["--model_dir", tiny_model, "--output_dir", output, *SMALL]
    done = run_struck(function, number, f"move:{output}|{away}", "train.py", *flags)
    assert_refused(done, "is missing", "moved, deleted or disconnected", "--resume")
    assert not output.exists()
    assert latest_checkpoint(away).name == left
    away.rename(output)
    assert_ends_as_undisturbed(output, trained)


def train_on_a_disk(options: str, model_dir: Path, output: Path) -> subprocess.CompletedProcess:
    """train.py with a disk at `output` that was mounted with these options, for this process alone."""
    require_mounts()
    output.mkdir()
    script = 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", options, output,
               sys.executable, "train.py", "--model_dir", model_dir, "--output_dir", output, *SMALL]  # fmt: skip
    command = [str(part) for part in command]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, cwd=PROJECT_ROOT)


@pytest.mark.slow
def test_a_folder_that_can_only_be_read_is_refused_before_any_work(tiny_model, tmp_path):
    """On a disk that is mounted so: permissions alone don't hold an administrator off."""
    done = train_on_a_disk("ro", tiny_model, tmp_path / "out")
    assert_refused(done, "can't be written", "Read-only file system", "--output_dir")
    assert "reading questions" not in done.stderr


@pytest.mark.slow
def test_a_disk_too_small_for_the_checkpoints_is_refused_before_any_step(tiny_model, tmp_path):
    done = train_on_a_disk("size=20m", tiny_model, tmp_path / "out")
    assert_refused(done, "has 20 MB free", "--save_total_limit 1")
    assert "steps:" not in done.stdout
