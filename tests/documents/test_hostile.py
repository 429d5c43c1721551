"""Documents that were made to do harm, or are damaged: each is read rightly or left out by name and reason, beside good
ones that are still found. Nothing in them is run, followed or fetched, and memory is bounded."""

import io
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest
from scripts import PROJECT_ROOT

from extractive_qa.documents import index as module
from extractive_qa.documents.index import DocumentIndex

docx = pytest.importorskip("docx", reason="needs: pip install -r requirements-documents.txt")
pypdf = pytest.importorskip("pypdf", reason="needs: pip install -r requirements-documents.txt")

HOSTILE = "hostile file"
SECRET = "topsecret"
CHINESE = "青石桥建于一九三二年，全长八十七米，是中国的一座桥。"
LAUGHS = "".join(f'<!ENTITY {b} "{f"&{a};" * 20}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))


def make_pdf(text: str = "Ada wrote it.") -> bytes:
    writer = pypdf.PdfWriter()
    writer.add_blank_page(200, 200)
    stream = pypdf.generic.DecodedStreamObject()
    stream.set_data(f"BT /F1 12 Tf 10 100 Td ({text}) Tj ET".encode())
    font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    name = pypdf.generic.NameObject
    fonts = pypdf.generic.DictionaryObject({
        name("/F1"): pypdf.generic.DictionaryObject({name(key): name(value) for key, value in font.items()})
    })  # fmt: skip
    page = writer.pages[0]
    page[name("/Contents")] = writer._add_object(stream)
    page[name("/Resources")] = pypdf.generic.DictionaryObject({name("/Font"): fonts})
    return written(writer)


def written(writer) -> bytes:
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def encrypted_pdf(user: str, owner: str) -> bytes:
    writer = pypdf.PdfWriter(io.BytesIO(make_pdf()))
    writer.encrypt(user, owner, algorithm="RC4-128")
    return written(writer)


def circular_pdf() -> bytes:
    """Its page tree holds itself."""
    writer = pypdf.PdfWriter(io.BytesIO(make_pdf()))
    pages = writer.root_object["/Pages"]
    pages["/Kids"].insert(0, pages.indirect_reference)
    return written(writer)


def active_pdf() -> bytes:
    """With a script, a file to open and an address to go to when it is opened."""
    writer = pypdf.PdfWriter(io.BytesIO(make_pdf()))
    name, script = pypdf.generic.NameObject, pypdf.generic.TextStringObject("app.launchURL('http://192.0.2.1/')")
    action = {name("/S"): name("/JavaScript"), name("/JS"): script}
    writer.root_object[name("/OpenAction")] = pypdf.generic.DictionaryObject(action)
    writer.add_attachment("secret.txt", SECRET.encode())
    writer.add_uri(0, "http://192.0.2.1/", pypdf.generic.RectangleObject((0, 0, 200, 200)))
    return written(writer)


def bomb_pdf(megabytes: int) -> bytes:
    """A page whose stream inflates to so much."""
    packer = zlib.compressobj(1)
    first, more = (packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    packed = first + more * (megabytes - 1)
    stream = pypdf.generic.EncodedStreamObject()
    stream._data = packed
    stream[pypdf.generic.NameObject("/Filter")] = pypdf.generic.NameObject("/FlateDecode")
    writer = pypdf.PdfWriter(io.BytesIO(make_pdf()))
    writer.pages[0][pypdf.generic.NameObject("/Contents")] = writer._add_object(stream)
    return written(writer)


def make_docx(old: str = "", new: str = "") -> bytes:
    """A Word file, in whose text `old` became `new`."""
    document, out, changed = docx.Document(), io.BytesIO(), io.BytesIO()
    document.add_paragraph("Ada wrote it.")
    document.add_table(1, 1).rows[0].cells[0].text = "Bob sang."
    document.save(out)
    with zipfile.ZipFile(out) as archive, zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "word/document.xml" and old:
                assert old.encode() in content
                content = content.replace(old.encode(), new.encode(), 1)
            copy.writestr(name, content)
    return changed.getvalue()


def cut_docx() -> bytes:
    """Its archive is whole, the XML in it is not."""
    return make_docx("Ada wrote it.", "Ada wrote <")


def bomb_docx(megabytes: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("word/document.xml", "w") as file:
        for _ in range(megabytes):
            file.write(bytes(2**20))
    return out.getvalue()


# name and content, and a piece of the text that is found or of the reason why it was left out
READ = {
    "a PDF with an owner's password": ("a.pdf", encrypted_pdf("", "owner"), "Ada wrote it."),
    "a PDF with a script, a link and a file": ("a.pdf", active_pdf(), "Ada wrote it."),
    "HTML that would run and fetch": (
        "a.html",
        b"<html><head><meta http-equiv=refresh content='0; url=http://192.0.2.1/'><base href='http://192.0.2.1/'>"
        b"<link rel=stylesheet href='http://192.0.2.1/a.css'><script src='http://192.0.2.1/a.js'></script></head>"
        b"<body onload='alert(1)'><script>topsecret()</script><iframe src='file:///etc/passwd'>topsecret</iframe>"
        b"<img src='http://192.0.2.1/a.png'><object data='file:///etc/passwd'></object>"
        b"<a href='file:///etc/passwd'>Ada wrote it.</a></body></html>",
        "Ada wrote it.",
    ),
    "HTML with entities": (
        "a.html", b"<!DOCTYPE html [<!ENTITY s SYSTEM 'file:///etc/passwd'>]><p>Ada &s; wrote it.", "wrote it."
    ),
    "HTML nested 100,000 deep": ("a.html", b"<div><b>" * 100_000 + b"Ada wrote it.", "Ada wrote it."),
    "HTML with 300,000 comments that don't end": ("a.html", b"<p>Ada wrote it." + b"<!--" * 300_000, "Ada wrote it."),
    "HTML without the end of its head": ("a.html", b"<head><title>T</title><body><p>Ada<p>wrote it", "Ada\nwrote it"),
    "HTML with a lone surrogate": ("a.html", b"<p>Ada &#xD800; wrote it.", "Ada \ufffd wrote it."),
    "HTML in GBK that says so": ("a.html", f"<meta charset=gbk><p>{CHINESE[:9]}".encode("gbk"), CHINESE[:9]),
    "HTML in UTF-16": ("a.html", "<p>Ada wrote it.</p>".encode("utf-16"), "Ada wrote it."),
    "HTML with zero bytes": ("a.html", b"<p>Ada\0 wrote\0 it.", "wrote"),
    "a text with zero bytes": ("a.txt", b"Ada\0 wrote\0 it in 1843.", "Ada\0 wrote\0 it in 1843."),
    "UTF-16 with a mark": ("a.txt", "Ada wrote it in Köln.".encode("utf-16"), "Ada wrote it in Köln."),
    "UTF-16 without a mark": ("a.txt", "Ada wrote it in Köln.".encode("utf-16-be"), "Ada wrote it in Köln."),
    "GBK": ("a.txt", CHINESE.encode("gbk"), CHINESE),
    "control characters": ("a.txt", b"Ada \x1b[2J\x07 wrote it.", "Ada \x1b[2J\x07 wrote it."),
    "a Word file with another's DTD": (
        "a.docx", make_docx("?>", '?><!DOCTYPE x SYSTEM "http://192.0.2.1/x.dtd">'), "Ada wrote it."
    ),
    "a Word file with a cell 10^9 columns wide": (
        "a.docx", make_docx("<w:tcPr>", '<w:tcPr><w:gridSpan w:val="1000000000"/>'), "Bob sang."
    ),
}  # fmt: skip
SKIPPED = {
    "an encrypted PDF": ("a.pdf", encrypted_pdf("xyz", "xyz"), "it is encrypted"),
    "a PDF that is cut off": ("a.pdf", make_pdf()[:300], "can't be read as .pdf"),
    "a PDF with its pages in a circle": ("a.pdf", circular_pdf(), "can't be read as .pdf"),
    "a PDF that inflates to 1 GB": ("a.pdf", lambda: bomb_pdf(1024), "can't be read as .pdf"),
    "HTML named .pdf": ("a.pdf", b"<html>Ada wrote it.</html>", "can't be read as .pdf"),
    "a PDF named .docx": ("a.docx", make_pdf(), "can't be read as .docx"),
    "a PDF named .txt": ("a.txt", make_pdf(), "is a PDF, no text"),
    "a picture named .txt": ("a.txt", b"\x89PNG\r\n\x1a\n" + bytes(100), "is a picture (PNG)"),
    "a zip bomb": ("a.docx", lambda: bomb_docx(300), "it unpacks to 300 MB"),
    "a Word file with too much XML": ("a.docx", bomb_docx(33), "it unpacks to 33 MB of XML"),
    "a Word file that is no archive": ("a.docx", b"Ada wrote it.", "File is not a zip file"),
    "a Word file whose XML is cut off": ("a.docx", cut_docx(), "can't be read as .docx"),
    "an empty file": ("a.docx", b"", "can't be read as .docx"),
    "an empty text": ("a.txt", b"", "there is no text in it"),
    "only white space": ("a.txt", b" \n\t\r\n", "there is no text in it"),
    "only a mark": ("a.txt", b"\xef\xbb\xbf", "there is no text in it"),
    "an empty page": ("a.html", b"", "there is no text in it"),
    "only zero bytes": ("a.txt", bytes(1000), "zero bytes"),
    "lone surrogates in UTF-8": ("a.txt", b"Ada \xed\xa0\x80 wrote it.", "is not UTF-8 (byte 4, line 1)"),
    "half a character of UTF-16": ("a.txt", "Ada wrote it.".encode("utf-16") + b"\0", "is not utf-16"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "documents"
    made.mkdir()
    (made / "good.txt").write_text("The blue whale feeds on krill.", encoding="utf-8")
    return made


def write(path: Path, content) -> None:
    path.write_bytes(content() if callable(content) else content)


def open_index(folder: Path) -> DocumentIndex:
    """The index, in which the good document is found."""
    index = DocumentIndex(folder, folder.parent / "kept")
    assert index.best("whale")[0]["file"] == "good.txt"
    return index


def texts_of(index: DocumentIndex, name: str) -> list[str]:
    passages = map(index.passage, range(len(index)))
    return [passage["text"] for passage in passages if passage["file"] == name]


@pytest.mark.fault(HOSTILE)
@pytest.mark.parametrize(("name", "content", "text"), READ.values(), ids=READ)
def test_what_can_be_read_is_read_and_no_more(folder, name, content, text):
    write(folder / name, content)
    index = open_index(folder)
    assert index.skipped == {}
    found = "\n".join(texts_of(index, name))
    assert text in found
    assert SECRET not in found and "root:" not in found and "alert" not in found


@pytest.mark.fault(HOSTILE)
@pytest.mark.parametrize(("name", "content", "reason"), SKIPPED.values(), ids=SKIPPED)
def test_what_can_not_be_read_is_left_out_with_the_reason(folder, name, content, reason):
    write(folder / name, content)
    index = open_index(folder)
    assert reason in index.skipped[name]
    assert str(folder) not in index.skipped[name]
    assert (index.files, texts_of(index, name)) == (1, [])


@pytest.mark.fault(HOSTILE)
@pytest.mark.parametrize("entities", [LAUGHS, '<!ENTITY i SYSTEM "{secret}">'], ids=["many", "of another file"])
def test_entities_of_a_word_file_are_not_filled_in(folder, tmp_path, entities):
    (tmp_path / "secret.txt").write_text(SECRET)
    entities = entities.replace("{secret}", (tmp_path / "secret.txt").as_uri())
    for name, old, new in (
        ("text", "Ada", "&i;"),
        ("dtd", "?>", f'?><!DOCTYPE x [<!ENTITY a "{"ha" * 50}">{entities}]>'),
    ):
        (folder / f"{name}.docx").write_bytes(make_docx(old, new))
    both = make_docx("?>", f'?><!DOCTYPE x [<!ENTITY a "{"ha" * 50}">{entities}]>')
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(both)) as archive, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as copy:
        for one in archive.namelist():
            copy.writestr(one, archive.read(one).replace(b"Ada wrote", b"Ada &i; wrote"))
    (folder / "both.docx").write_bytes(out.getvalue())
    index = open_index(folder)
    assert "text.docx" in index.skipped  # its entity is not defined
    found = "\n".join(texts_of(index, "both.docx"))
    assert SECRET not in found and "haha" not in found


# what is no file, or not its own


def needs_link(link: Path, target: Path) -> None:
    try:
        link.symlink_to(target)
    except OSError:
        pytest.skip("needs the right to make links")


@pytest.mark.fault(HOSTILE)
def test_links_out_of_the_folder_in_a_circle_and_to_nothing_are_not_followed(folder, tmp_path):
    (tmp_path / "secret.txt").write_text(SECRET)
    needs_link(folder / "out.txt", tmp_path / "secret.txt")
    (folder / "self.txt").symlink_to(folder / "self.txt")
    (folder / "nothing.txt").symlink_to(folder / "none.txt")
    (folder / "loop").symlink_to(folder)
    index = open_index(folder)
    assert (index.files, index.skipped) == (1, {}) and index.best(SECRET) == []


@pytest.mark.fault(HOSTILE)
def test_what_is_no_file_is_not_waited_for(folder):
    (folder / "folder.txt").mkdir()
    (folder / "folder.txt" / "in.txt").write_text("Ada wrote it.")
    (folder / ".hidden.txt").write_text(SECRET)
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "a.txt").write_text(SECRET)
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.txt")  # reading it would never end
        needs_link(folder / "device.txt", Path("/dev/zero"))
    index = open_index(folder)
    assert (index.files, index.skipped) == (2, {})
    assert index.best("Ada")[0]["file"] == "folder.txt/in.txt" and index.best(SECRET) == []


@pytest.mark.fault(HOSTILE)
@pytest.mark.skipif(os.name != "posix", reason="Windows has other names")
@pytest.mark.parametrize("name", [b"a\nb.txt", b"a\x1b[2J.txt", b"\xff\xfe.txt", b"-rf.txt", b"a\\..\\b.txt", b"~.txt"])
def test_names_of_any_bytes_are_read(folder, name):
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("Ada wrote it.")
    except OSError:
        pytest.skip("this file system has no such names")
    for read in (2, 0):  # the second time as it was kept
        index = open_index(folder)
        assert (index.files, index.read) == (2, read)
        index.best("Ada")[0]["file"].encode()  # can be printed


@pytest.mark.fault(HOSTILE)
@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read all")
def test_a_file_without_the_right_to_read_it_is_named(folder):
    (folder / "closed.txt").write_text("Ada wrote it.")
    (folder / "closed.txt").chmod(0)
    assert "ermission" in open_index(folder).skipped["closed.txt"]


@pytest.mark.fault(HOSTILE)
@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), FileNotFoundError(2, "No such file")])
@pytest.mark.parametrize("function", ["sha256_of", "read_document"])
def test_a_file_that_can_not_be_read_or_goes_meanwhile_is_named(folder, monkeypatch, function, error):
    (folder / "going.txt").write_text("Ada wrote it.")
    original = getattr(module, function)

    def fails(path: Path):
        if path.name == "going.txt":
            raise error
        return original(path)

    monkeypatch.setattr(module, function, fails)
    assert open_index(folder).skipped == {"going.txt": error.strerror}
    monkeypatch.undo()
    index = open_index(folder)  # it is tried again
    assert index.skipped == {} and index.best("Ada")


@pytest.mark.fault(HOSTILE)
def test_a_file_that_is_changed_while_it_is_read_is_read_again(folder, monkeypatch):
    path = folder / "growing.txt"
    path.write_text("Ada wrote it.")
    original = module.read_document

    def grows(file: Path):
        if file == path:
            path.write_text("Ada wrote it, and Bob sang it.")
        return original(file)

    monkeypatch.setattr(module, "read_document", grows)
    open_index(folder)
    monkeypatch.undo()
    assert open_index(folder).best("Bob")[0]["file"] == "growing.txt"
    assert open_index(folder).read == 0


# memory

LIMITED = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))  # addresses: libraries reserve more than they use
sys.path.insert(0, sys.argv[1])
from extractive_qa.documents.index import DocumentIndex
folder = Path(sys.argv[2])
index = DocumentIndex(folder, folder.parent / "kept")
assert index.best("whale")[0]["file"] == "good.txt"
megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
assert megabytes < 1536, megabytes
print(len(index), sorted(index.skipped))
"""


def read_with_limits(folder: Path) -> str:
    command = [sys.executable, "-c", LIMITED, str(PROJECT_ROOT), str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.fault(HOSTILE)
@pytest.mark.skipif(os.name != "posix", reason="needs limits of memory")
def test_all_of_them_at_once_take_little_memory(folder):
    for number, (name, content, _) in enumerate([*READ.values(), *SKIPPED.values()]):
        write(folder / f"{number}{name}", content)
    (folder / "line.txt").write_bytes(b"word " * 400_000)
    assert read_with_limits(folder).count(", '") == len(SKIPPED) - 1


@pytest.mark.slow
@pytest.mark.fault(HOSTILE)
@pytest.mark.skipif(os.name != "posix", reason="needs limits of memory")
@pytest.mark.parametrize("name", ["line.txt", "line.html", "lines.txt", "paragraphs.docx"])
def test_a_document_as_large_as_may_be_takes_bounded_memory(folder, name):
    contents = {
        "line.txt": b"word " * 10_000_000, "line.html": b"x<b>" * 5_000_000, "lines.txt": b"\nx" * 10_000_000,
    }  # fmt: skip
    (folder / name).write_bytes(contents.get(name) or make_docx("<w:body>", "<w:body>" + "<w:p/>" * 2_000_000))
    assert read_with_limits(folder).endswith("[]\n")
