"""manifest.json: every damage is found and named, nothing else is."""

import json
import shutil

import pytest

from utils.console import UserError
from utils.manifest import check_manifest, read_manifest, sha256_of, write_manifest


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


def test_every_damaged_file_is_named_with_what_to_run(folder):
    (folder / "train" / "data.arrow").write_bytes(b"x" * 2_999_999)
    (folder / "问题.json").unlink()
    with pytest.raises(UserError, match="Run: this") as caught:
        check_manifest(folder, full=False, remedy="Run: this")
    assert "train/data.arrow has 2,999,999 bytes, expected 3,000,000" in str(caught.value)
    assert "问题.json is missing" in str(caught.value)


def test_same_size_other_content_is_found_by_the_full_check_only(folder):
    (folder / "train" / "data.arrow").write_bytes(b"x" * 2_999_999 + b"y")
    assert check_manifest(folder, full=False)
    with pytest.raises(UserError, match=r"train/data\.arrow has sha256 [0-9a-f]{64}, expected [0-9a-f]{64}"):
        check_manifest(folder, full=True)


def test_files_of_the_user_are_ignored(folder):
    (folder / "train" / "cache-1234.arrow").write_bytes(b"a library's")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    assert check_manifest(folder, full=True)


def test_folder_without_manifest_is_a_users_own(tmp_path):
    assert check_manifest(tmp_path, full=True) is False


@pytest.mark.parametrize(
    "name",
    ["../secret", "train/../../secret", "/etc/passwd", "C:\\secret", "C:secret", "..\\secret", "\\\\host\\share"],
)
def test_names_outside_the_folder_are_refused(folder, name):
    manifest = read_manifest(folder)
    manifest["files"].append({"file": name, "size": 1, "sha256": "0" * 64})
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(UserError, match="outside the folder"):
        check_manifest(folder, full=False)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"files": 1}', b'{"files": [1]}', b'{"files": [{"file": "a"}]}',
     b'{"files": [{"file": 1, "size": 1, "sha256": "a"}]}', b'{"files": [{"file": "a", "size": "1", "sha256": "a"}]}'],
)  # fmt: skip
def test_unreadable_manifest_is_an_error_with_a_remedy(folder, content):
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json can't be read.*Run: "):
        check_manifest(folder, full=False)


def test_a_failed_write_leaves_the_old_manifest(folder, monkeypatch):
    before = (folder / "manifest.json").read_bytes()

    def disk_full(*_):
        raise OSError("no space")

    monkeypatch.setattr("utils.manifest.sha256_of", disk_full)
    with pytest.raises(OSError, match="no space"):
        write_manifest(folder, "elsewhere", "def")
    assert (folder / "manifest.json").read_bytes() == before
