"""manifest.json: every damage is found and named, nothing else is."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from scripts import PROJECT_ROOT, assert_refused, load_script, run_script

from extractive_qa.errors import QAError
from extractive_qa.files import manifest as manifest_module
from extractive_qa.files.manifest import check_manifest, read_manifest, sha256_of, stays_inside, write_manifest
from extractive_qa.model.backends import OnnxBackend
from extractive_qa.model.folder import ONNX_FILES, ONNX_MANIFEST
from extractive_qa.reader import Reader
from extractive_qa.settings import read_settings, save_settings

DEV = PROJECT_ROOT / "data" / "sample" / "dev.json"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "数据 set"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "data.arrow").write_bytes(b"x" * 3_000_000)
    (folder / "问题.json").write_text('["谁?"]', encoding="utf-8")
    write_manifest(folder, "https://example.org/squad", "abc")
    return folder


def test_lists_every_file_with_size_and_sha256(folder):
    manifest = read_manifest(folder)
    assert [entry["file"] for entry in manifest["files"]] == ["train/data.arrow", "问题.json"]
    assert [entry["size"] for entry in manifest["files"]] == [3_000_000, 8]
    assert [entry["sha256"] for entry in manifest["files"]] == [
        sha256_of(folder / "train/data.arrow"),
        sha256_of(folder / "问题.json"),
    ]
    assert (manifest["source"], manifest["revision"]) == ("https://example.org/squad", "abc")
    assert manifest["date"].count("-") == 2


def test_untouched_folder_passes_and_writing_again_changes_nothing(folder):
    before = (folder / "manifest.json").read_bytes()
    assert check_manifest(folder, full=True)
    write_manifest(folder, "https://example.org/squad", "abc")
    assert (folder / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "train", "问题.json"]


def test_moved_or_copied_folder_passes(folder, tmp_path):
    assert check_manifest(shutil.copytree(folder, tmp_path / "elsewhere"), full=True)


@pytest.mark.fault("tampered file")
def test_every_damaged_file_is_named_with_what_to_run(folder):
    (folder / "train" / "data.arrow").write_bytes(b"x" * 2_999_999)
    (folder / "问题.json").unlink()
    with pytest.raises(QAError, match="Run: this") as caught:
        check_manifest(folder, full=False, remedy="Run: this")
    assert "train/data.arrow has 2,999,999 bytes, expected 3,000,000" in str(caught.value)
    assert "问题.json is missing" in str(caught.value)


@pytest.mark.fault("tampered file")
def test_same_size_other_content_is_found_by_the_full_check_only(folder):
    (folder / "train" / "data.arrow").write_bytes(b"x" * 2_999_999 + b"y")
    assert check_manifest(folder, full=False)
    with pytest.raises(QAError, match=r"train/data\.arrow has sha256 [0-9a-f]{64}, expected [0-9a-f]{64}"):
        check_manifest(folder, full=True)


def test_files_of_the_user_are_ignored(folder):
    (folder / "train" / "cache-1234.arrow").write_bytes(b"a library's")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    assert check_manifest(folder, full=True)


def test_folder_without_manifest_is_a_users_own(tmp_path):
    assert check_manifest(tmp_path, full=True) is False


@pytest.mark.fault("tampered file")
def test_a_file_that_the_system_refuses_to_read_is_named(folder):
    list_also(folder, "n" * 300)
    with pytest.raises(QAError, match=r"n can't be read \(|n is missing"):
        check_manifest(folder, full=True)


OUTSIDE = {
    "above": "../secret", "above by a detour": "train/../../secret", "in the end": "train/..",
    "absolute": "/etc/passwd", "a drive": "C:\\secret", "a drive's folder": "C:secret", "backslashes": "..\\secret",
    "a share": "\\\\host\\share", "another share": "//host/share", "an address": "file:///etc/passwd",
    "a stream": "data.arrow:stream",
    "dots and a space": ".. /secret", "three dots": ".../secret", "NUL": "train\0/../../secret", "a line break": "a\nb",
    "wide dots": "．．/secret", "wide slash": "..／secret", "wide drive": "Ｃ：＼secret", "two-dot sign": "‥/secret",
    "right to left": "\u202eterces", "surrogate": "\ud800",
}  # fmt: skip


@pytest.mark.fault("hostile folder")
@pytest.mark.parametrize("name", OUTSIDE.values(), ids=OUTSIDE)
def test_names_outside_the_folder_are_refused(folder, name):
    (folder.parent / "secret").write_bytes(b"1")
    list_also(folder, name)
    with pytest.raises(QAError, match=r"outside the folder.*again"):
        check_manifest(folder, full=True)


@pytest.mark.fault("hostile folder")
@pytest.mark.parametrize("name", ["link", "linked/secret", "loop"])
def test_links_out_of_the_folder_are_refused(folder, name, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret").write_bytes(b"1")
    try:
        (folder / "link").symlink_to(elsewhere / "secret")
        (folder / "linked").symlink_to(elsewhere, target_is_directory=True)
        (folder / "loop").symlink_to(folder / "loop")
    except OSError:
        pytest.skip("needs the right to make links")
    list_also(folder, name)
    with pytest.raises(QAError, match="loop is missing" if name == "loop" else "outside the folder"):
        check_manifest(folder, full=True)


def test_usual_names_and_a_folder_behind_a_link_are_fine(folder, tmp_path):
    for name in ("a b/c.json", "数据：一.json", "..data", "x..y", "naïve-café.arrow", "问题?.json"):
        assert stays_inside(name), name
    try:
        (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    except OSError:
        pytest.skip("needs the right to make links")
    assert check_manifest(tmp_path / "link", full=True)


def list_also(folder, name):
    """Adds a name to the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    sha256 = hashlib.sha256(b"1").hexdigest()
    manifest["files"].append({"file": name, "size": 1, "sha256": sha256})
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@pytest.mark.fault("tampered file")
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"files": 1}', b'{"files": [1]}', b'{"files": [{"file": "a"}]}',
     b'{"files": [{"file": 1, "size": 1, "sha256": "a"}]}', b'{"files": [{"file": "a", "size": "1", "sha256": "a"}]}',
     b'{"source": "", "revision": "", "date": "", "files": []}', b"null", b"[" * 100_000, b"9" * 10_000,
     b'{"files": [{"file": "a", "size": 1, "sha256": "' + b"0" * 64 + b'"}]}'],
    ids=range(15),
)  # fmt: skip
def test_unreadable_manifest_is_an_error_with_a_remedy(folder, content):
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(QAError, match=r"manifest\.json can't be read.*again"):
        check_manifest(folder, full=False)


def test_a_failed_write_leaves_the_old_manifest(folder, monkeypatch):
    before = (folder / "manifest.json").read_bytes()

    def disk_full(*_):
        raise OSError("no space")

    monkeypatch.setattr(manifest_module, "sha256_of", disk_full)
    with pytest.raises(OSError, match="no space"):
        write_manifest(folder, "elsewhere", "def")
    assert (folder / "manifest.json").read_bytes() == before


# ---- what training and scoring make of it


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


TAMPERED = {
    "cut": lambda folder: os.truncate(folder / "model.safetensors", 1000),
    "missing": lambda folder: (folder / "vocab.txt").unlink(),
    "no JSON": lambda folder: (folder / "manifest.json").write_text("<html>"),
    "listing nothing": lambda folder: (folder / "manifest.json").write_text('{"files": []}'),
    "listing what is outside": lambda folder: list_also(folder, "../other/secret"),
    "one bit": lambda folder: flip_a_bit(folder / "model.safetensors"),
}


@pytest.fixture
def downloaded(tiny_model, tmp_path):
    """A model folder with a manifest, as download_data.py leaves one."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "vocab.txt").write_text("a\nb\n", encoding="utf-8")
    write_manifest(model, "https://example.org/model", "abc")
    return model


@pytest.mark.fault("tampered file")
@pytest.mark.parametrize("how", TAMPERED)
@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_no_script_works_on_a_tampered_folder(name, how, downloaded, tmp_path):
    """Neither trains nor scores: sizes are always compared, every byte with --verify_files."""
    script = load_script(f"{name}.py")
    files = ["--train_file", str(DEV)] if name == "train" else []
    flags = ["--model_dir", str(downloaded), "--eval_file", str(DEV), "--output_dir", str(tmp_path / "output"), *files]
    TAMPERED[how](downloaded)
    with pytest.raises(QAError, match="Get it again"):
        look = script.parse_and_check if name == "train" else script.main
        look([*flags, *(["--verify_files"] if how == "one bit" else [])])
    assert not (tmp_path / "output" / "final_model").exists()
    assert not list(tmp_path.glob("output/*.json*"))


def test_a_bit_is_what_the_sizes_do_not_show(downloaded):
    """The doubt that --verify_files is for: seconds for a large model, milliseconds without."""
    train = load_script("train.py")
    flags = ["--model_dir", str(downloaded), "--train_file", str(DEV), "--eval_file", str(DEV)]
    TAMPERED["one bit"](downloaded)
    train.check_files(train.parse_args(flags))
    with pytest.raises(QAError, match=r"model\.safetensors has sha256"):
        train.check_files(train.parse_args([*flags, "--verify_files"]))


@pytest.mark.fault("tampered file")
def test_tampered_questions_are_found_before_training(tiny_model, sample_examples, tmp_path):
    from datasets import Dataset, DatasetDict

    data = tmp_path / "squad"
    questions = Dataset.from_list(sample_examples[:3])
    DatasetDict({"train": questions, "validation": questions}).save_to_disk(str(data))
    write_manifest(data, "https://example.org/squad", "abc")
    flags = ("--model_dir", tiny_model, "--train_file", data, "--eval_file", data, "--output_dir", tmp_path / "output")
    flip_a_bit(next((data / "validation").glob("*.arrow")))
    assert_refused(run_script("train.py", *flags, "--verify_files", code=2), "validation/data", "sha256", "--force")
    next((data / "validation").glob("*.arrow")).write_bytes(b"")
    assert_refused(run_script("train.py", *flags, code=2), "has 0 bytes", "download_data.py --force")


# ---- links


def link(path, target) -> None:
    try:
        path.symlink_to(target)
    except OSError:
        pytest.skip("needs the right to make links")


@pytest.fixture
def snapshot(exported, tmp_path):
    """The exported model as the Hub's cache has one: each file a link to a blob."""
    repository = tmp_path / "hub" / "models--a--reader"
    folder, blobs = repository / "snapshots" / "abc", repository / "blobs"
    for made in (folder / "onnx", blobs):
        made.mkdir(parents=True)
    for path in filter(Path.is_file, exported.rglob("*")):
        name = path.relative_to(exported)
        blob = blobs / hashlib.sha256(name.as_posix().encode()).hexdigest()
        shutil.copyfile(path, blob)
        link(folder / name, f"{'../' * len(name.parts)}../blobs/{blob.name}")
    return folder


def test_a_folder_of_a_hub_s_cache_answers_with_its_exported_model(snapshot):
    """Export said that it wrote, and nothing could use it."""
    assert check_manifest(snapshot, full=True, name=ONNX_MANIFEST)
    for backend in ("auto", "onnx"):
        reader = Reader(snapshot, "cpu", "no", backend=backend)
        assert isinstance(reader.backend, OnnxBackend)


def test_what_is_written_into_a_folder_of_a_hub_s_cache_changes_no_blob(snapshot, tiny_model):
    blobs = snapshot.parent.parent / "blobs"
    (blobs / "settings").write_text("{}", encoding="utf-8")
    link(snapshot / "reader.json", "../../blobs/settings")
    before = {path.name: path.read_bytes() for path in blobs.iterdir()}
    save_settings(snapshot, {"max_answer_length": 20}, manifests=[ONNX_MANIFEST])
    write_manifest(snapshot, "a test", None, paths=[snapshot / "config.json"], name=ONNX_MANIFEST)
    load_script("tools/export_onnx.py").main(
        ["--model_dir", str(snapshot), "--eval_file", str(DEV), "--max_samples", "4", "--force"]
    )
    assert {path.name: path.read_bytes() for path in blobs.iterdir()} == before
    assert read_settings(snapshot)["max_answer_length"] == 20
    assert not (snapshot / ONNX_FILES["no"]).is_symlink()
    assert check_manifest(snapshot, full=True, name=ONNX_MANIFEST)


@pytest.mark.fault("hostile folder")
@pytest.mark.parametrize("target", ["secret", "blobs/secret", "models--a--b/secret", "models--a--b/blobs/x/secret"])
def test_a_link_to_anything_but_a_blob_of_a_hub_s_cache_is_refused(folder, tmp_path, target):
    path = tmp_path / target
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    link(folder / "link", path)
    write_manifest(folder, "a stranger", None)
    with pytest.raises(QAError, match="names 'link', which is outside the folder"):
        read_manifest(folder)


@pytest.mark.fault("hostile folder")
def test_a_blob_that_leads_on_is_refused(folder, tmp_path):
    """Where a link leads in the end counts."""
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"x")
    link(blobs / "abc", tmp_path / "secret")
    link(folder / "link", blobs / "abc")
    write_manifest(folder, "a stranger", None)
    with pytest.raises(QAError, match="names 'link', which is outside the folder"):
        read_manifest(folder)
