"""The index of a folder: what is found, and what is read again."""

import json
import os
import shutil

import pytest

from extractive_qa.documents import index as module
from extractive_qa.documents.index import DocumentIndex
from extractive_qa.errors import QAError
from extractive_qa.reader import Reader

TEXTS = {
    "tea.txt": "Tea is made of leaves.\n\nGreen tea is heated early, by steaming in Japan.",
    "deep/er/whale.md": "The blue whale feeds on krill.",
    "桥.txt": "青石桥建于一九三二年，全长八十七米。",
}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "documents"
    for name, text in TEXTS.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text, encoding="utf-8")
    return made


def test_the_best_passage_comes_with_its_file_and_line(folder, tmp_path):
    index = DocumentIndex(folder, tmp_path / "kept")
    assert (index.files, index.read, index.skipped, len(index)) == (3, 3, {}, 3)
    (best,) = index.best("What does the blue whale feed on?")
    assert best == {"text": TEXTS["deep/er/whale.md"], "file": "deep/er/whale.md", "page": None, "line": 1, "start": 0}
    assert index.best("石桥多长？")[0]["file"] == "桥.txt"
    assert len(index.best("tea whale")) == 2 and len(index.best("tea whale", 1)) == 1
    assert index.best("the of xyzzy") == [] == index.best("")


def test_a_place_that_two_passages_share_is_one_place(tiny_model, tmp_path):
    """As if the text had come once: neither found twice, nor surer for it."""
    reader = Reader(tiny_model, "cpu", "no")
    sentences = [f"Sentence {n} tells of tea and of what is drunk in house number {n}." for n in range(60)]
    text = " ".join([*sentences[:11], "Ada Lovelace wrote it in 1843.", *sentences[11:]])
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "long.txt").write_text(text, encoding="utf-8")
    index = DocumentIndex(tmp_path / "texts", tmp_path / "kept")
    assert len(index) > 3
    for question in ("Who wrote of tea in house number 11?", "What tells of tea?"):
        (whole,) = index.best(question)
        assert (whole["text"], whole["start"]) == (text, 0)
        (answers,) = index.answers(reader, [question], top_k=3)
        asked = reader.answer(question, text, top_k=3)
        for found, expected in zip(answers, asked, strict=True):
            assert {name: found[name] for name in ("text", "start", "end")} == {
                name: expected[name] for name in ("text", "start", "end")
            }
            assert found["probability"] == pytest.approx(expected["probability"], abs=1e-5)
            assert len(found["places"]) == len(expected["places"])


def test_only_what_is_new_or_changed_is_read_again(folder, tmp_path, monkeypatch):
    read = []
    real = module.read_document
    monkeypatch.setattr(module, "read_document", lambda path: read.append(path.name) or real(path))

    def open_again() -> DocumentIndex:
        read.clear()
        return DocumentIndex(folder, tmp_path / "kept")

    open_again()
    assert sorted(read) == ["tea.txt", "whale.md", "桥.txt"]
    written = (open_again().kept / "index.json").stat()
    index = open_again()
    assert index.read == 0 and read == [] and os.path.samestat((index.kept / "index.json").stat(), written)
    os.utime(folder / "tea.txt", (1, 1))  # touched: its contents are compared
    assert open_again().read == 0 and open_again().files == 3
    (folder / "new.txt").write_text("Ada wrote it.", encoding="utf-8")
    (folder / "tea.txt").write_text("Coffee is made of beans.", encoding="utf-8")
    (folder / "deep" / "er" / "whale.md").unlink()
    index = open_again()
    assert sorted(read) == ["new.txt", "tea.txt"] and index.files == 3
    assert index.best("whale krill tea") == []
    assert index.best("coffee beans")[0]["file"] == "tea.txt" and index.best("Ada")[0]["line"] == 1
    assert index.best("石桥")[0]["file"] == "桥.txt"


@pytest.mark.fault("damaged file")
@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 0, "files": {}}'])
def test_a_damaged_or_older_index_is_made_again(folder, tmp_path, damage):
    kept = DocumentIndex(folder, tmp_path / "kept").kept
    (kept / "index.json").write_text(damage, encoding="utf-8")
    assert DocumentIndex(folder, tmp_path / "kept").read == 3
    shutil.rmtree(kept)
    assert DocumentIndex(folder, tmp_path / "kept").best("krill")


@pytest.mark.fault("damaged file")
@pytest.mark.parametrize(
    "name", ["terms.npy", "offsets.npy", "vocabulary.json", "passages.jsonl", "bm25/params.index.json"]
)
@pytest.mark.parametrize("is_cut", [True, False])
def test_a_damaged_part_is_named_with_what_to_do(folder, tmp_path, name, is_cut):
    kept = DocumentIndex(folder, tmp_path / "kept").kept
    (folder / "tea.txt").write_text("Coffee.", encoding="utf-8")  # so that all parts are read
    if is_cut:
        (kept / name).write_bytes(b"")
    else:
        (kept / name).unlink()
    try:
        assert DocumentIndex(folder, tmp_path / "kept").best("coffee")[0]["text"] == "Coffee."
    except QAError as error:
        assert "Delete it: it is made again" in str(error)
        shutil.rmtree(kept)
        assert DocumentIndex(folder, tmp_path / "kept").best("coffee")[0]["text"] == "Coffee."


@pytest.mark.fault("hostile file")
def test_what_can_not_be_read_is_left_out_and_named(folder, tmp_path):
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 cut")
    (folder / "empty.txt").write_bytes(b"")
    (folder / ".hidden.txt").write_text("hidden krill")
    (folder / "~$open.docx").write_bytes(b"lock")
    (folder / "program.exe").write_bytes(b"MZ")
    for index in (DocumentIndex(folder, tmp_path / "kept"), DocumentIndex(folder, tmp_path / "kept")):
        assert set(index.skipped) == {"broken.pdf", "empty.txt"} and index.files == 3
    assert index.read == 0  # the second time they are not tried again
    assert [passage["file"] for passage in index.best("krill")] == ["deep/er/whale.md"]


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
@pytest.mark.fault("hostile file")
def test_links_that_lead_out_of_the_folder_are_not_followed(folder, tmp_path):
    (tmp_path / "secret.txt").write_text("the secret krill")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "more.txt").write_text("more krill")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "folder").symlink_to(tmp_path / "outside")
    (folder / "again.txt").symlink_to(folder / "tea.txt")
    (folder / "loop").symlink_to(folder)
    index = DocumentIndex(folder, tmp_path / "kept")
    assert index.files == 4 and len(index.best("krill")) == 1


def test_a_folder_without_documents_is_refused(tmp_path):
    with pytest.raises(QAError, match="is no folder"):
        DocumentIndex(tmp_path / "none", tmp_path / "kept")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_bytes(b" ")
    with pytest.raises(QAError, match=r"a\.txt: there is no text in it"):
        DocumentIndex(tmp_path / "empty", tmp_path / "kept")
    assert not list((tmp_path / "kept").glob("documents-*"))


def test_what_is_kept_is_json_and_a_text_of_any_character_comes_back(tmp_path):
    (tmp_path / "documents").mkdir()
    text = 'Ada "quoted" \u2028 😀 \\ wrote'
    (tmp_path / "documents" / "a.txt").write_text(text, encoding="utf-8")
    index = DocumentIndex(tmp_path / "documents", tmp_path / "kept")
    assert index.best("Ada")[0]["text"] == text
    assert json.loads((index.kept / "index.json").read_text("utf-8"))["files"]["a.txt"]["passages"] == 1
