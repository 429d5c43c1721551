"""Documents of each kind, and of each what must be refused."""

import io
import zipfile

import pytest

from extractive_qa.documents import reading
from extractive_qa.documents.reading import KINDS, read_document
from extractive_qa.errors import QAError

docx = pytest.importorskip("docx", reason="needs: pip install -r requirements-documents.txt")
pypdf = pytest.importorskip("pypdf", reason="needs: pip install -r requirements-documents.txt")

HTML = """<!doctype html><html><head><title>T</title><style>p{}</style><script>alert("x")</script></head>
<body onload="alert(1)"><nav>Menu</nav><h1>Ada &amp; Bob</h1><p>wrote   it<br>in 1843.</p><noscript>no</noscript>
<table><tr><td>a</td><td>b</td></tr></table></body></html>"""


def make_pdf(*texts: str, password: str = "") -> bytes:
    """A small PDF with a line of ASCII text a page."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in texts:
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects)} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    body, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    made = f"{body}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}".encode()
    if not password:
        return made
    writer = pypdf.PdfWriter(io.BytesIO(made))
    writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def make_docx() -> bytes:
    document, out = docx.Document(), io.BytesIO()
    document.add_paragraph("Ada wrote it.")
    row = document.add_table(1, 2).rows[0]
    row.cells[0].text, row.cells[1].text = "year", "1843"
    document.add_paragraph("Bob sang.")
    document.save(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "pages"),
    [
        ("a.txt", b"Ada wrote it.\r\nBob sang.", [(None, "Ada wrote it.\r\nBob sang.")]),
        ("a.MD", "\ufeff# Ada".encode(), [(None, "# Ada")]),
        ("a.txt", "Ada und Bob schrieben über Käse in Köln für Jürgen.".encode("cp1252"),
         [(None, "Ada und Bob schrieben über Käse in Köln für Jürgen.")]),
        ("a.html", HTML.encode(), [(None, "Ada & Bob\nwrote it\nin 1843.\n\na\nb")]),
        ("a.pdf", make_pdf("Ada wrote it.", "Bob sang."), [(1, "Ada wrote it."), (2, "Bob sang.")]),
        ("a.docx", make_docx(), [(None, "Ada wrote it.\nyear | 1843\nBob sang.")]),
    ],
)  # fmt: skip
def test_what_a_document_says(tmp_path, name, content, pages):
    (tmp_path / name).write_bytes(content)
    assert read_document(tmp_path / name) == pages


def bomb() -> bytes:
    """A Word file that unpacks to more than it may."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("word/document.xml", "w") as file:
        for _ in range(300):
            file.write(bytes(2**20))
    return out.getvalue()


@pytest.mark.fault("hostile file")
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.exe", b"MZ", ".exe is not read. Expected .txt"),
        ("a.txt", b"", "no text in it"),
        ("a.txt", b"\x89PNG\r\n\x1a\n" + bytes(100), "no text"),
        ("a.pdf", b"%PDF-1.4\n1 0 obj <<", "can't be read as .pdf"),
        ("a.pdf", b"no pdf", "can't be read as .pdf"),
        ("a.pdf", make_pdf("secret", password="xyz"), "is encrypted"),
        ("a.pdf", make_pdf(""), "scanned pages?"),
        ("a.docx", b"PK\x03\x04 cut", "can't be read as .docx"),
        ("a.docx", bomb(), "it unpacks to 300 MB"),
        ("a.html", b"<script>alert(1)</script>", "no text in it"),
    ],
)
def test_what_can_not_be_read_is_said(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(QAError) as refused:
        read_document(tmp_path / name)
    assert words in str(refused.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MOST_BYTES", 10)
    (tmp_path / "a.txt").write_text("more than ten bytes")
    with pytest.raises(QAError, match="split it"):
        read_document(tmp_path / "a.txt")


def test_without_its_library_a_kind_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pypdf", None)
    (tmp_path / "a.pdf").write_bytes(make_pdf("Ada"))
    with pytest.raises(QAError, match=r"pip install -r requirements-documents\.txt"):
        read_document(tmp_path / "a.pdf")
    assert set(KINDS) >= {".txt", ".md", ".html", ".pdf", ".docx"}
