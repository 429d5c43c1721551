"""The text of documents that people have: plain text, Markdown, HTML, PDF, Word. Nothing in them is run or followed."""

import io
import re
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from extractive_qa.errors import QAError, brief
from extractive_qa.files.encodings import guess_encoding
from extractive_qa.files.reading import decode_text
from extractive_qa.text import replace_surrogates

MOST_BYTES = 64 * 2**20  # of a file
MOST_UNPACKED = {".xml": 32 * 2**20, "": 256 * 2**20}  # of a Word file; read, XML takes up to 30 times as much
INSTALL = "Run: pip install -r requirements-documents.txt"
# HTML: what is no text to read, and what ends a line
SILENT = ("script", "style", "noscript", "template", "svg", "title", "nav", "iframe")
BLOCKS = (
    "address", "article", "blockquote", "br", "dd", "div", "dt", "figcaption", "footer", "h1", "h2", "h3", "h4", "h5",
    "h6", "header", "hr", "li", "main", "p", "pre", "section", "table", "td", "th", "tr", "ul",
)  # fmt: skip


def read_document(path: Path) -> list[tuple[int | None, str]]:
    """The text of a document: as read_content has it. Raises OSError too."""
    kind_of(path)
    require_size(path.stat().st_size)
    return read_content(path, path.read_bytes())


def read_content(path: Path, content: bytes) -> list[tuple[int | None, str]]:
    """The text of a document with this name and content: (page, text) of each page, counted from 1; one with None where
    the kind has no pages.

    Raises QAError where it is of another kind, too large, damaged, encrypted, or holds no text.
    """
    require_size(len(content))
    pages = [(page, replace_surrogates(text)) for page, text in kind_of(path)(path, content) if text.strip()]
    if not pages:
        scanned = " (scanned pages?)" if path.suffix.lower() == ".pdf" else ""
        raise QAError(f"there is no text in it{scanned}")
    return pages


def kind_of(path: Path) -> Callable:
    if kind := KINDS.get(path.suffix.lower()):
        return kind
    raise QAError(f"{path.suffix or 'a name without an ending'} is not read. Expected {', '.join(KINDS)}")


def require_size(size: int) -> None:
    if size > MOST_BYTES:
        raise QAError(f"{size / 2**20:,.0f} MB are too many. Expected at most {MOST_BYTES // 2**20} MB: split it")


def plain(path: Path, content: bytes) -> list[tuple[int | None, str]]:
    """Text in UTF-8, or in the encoding that it seems to have."""
    encoding = guess_encoding(content)
    return [(None, decode_text(Path("it"), content, encoding if encoding != "utf-8" else None))]


def html(path: Path, content: bytes) -> list[tuple[int | None, str]]:
    """What a browser would show of a page, a block a line."""
    etree = optional("lxml.etree")
    encoding = guess_encoding(content)
    if encoding and encoding.startswith("utf"):
        content, encoding = plain(path, content)[0][1].encode(), "utf-8"
    elif b"charset" in content[:2000].lower():  # what the page says of itself
        encoding = None
    page = ShownText()
    parser = etree.HTMLParser(target=page, encoding=encoding, huge_tree=True)
    parser.feed(content or b" ")
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(page.parts).splitlines())
    return [(None, re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip())]


class ShownText:
    """Takes the text of a page, in `parts`, from a parser that keeps no tree: a nesting of any depth is read."""

    def __init__(self):
        self.parts, self.silent = [""], 0

    def start(self, tag: str, attributes: dict) -> None:
        self.silent += tag in SILENT
        if tag == "br" or (tag in BLOCKS and not self.parts[-1].endswith("\n")):
            self.parts.append("\n")

    def end(self, tag: str) -> None:
        self.silent -= tag in SILENT
        if tag in BLOCKS and tag != "br":
            self.parts.append("\n")

    def data(self, text: str) -> None:
        if not self.silent:
            self.parts.append(text)

    def close(self) -> None:
        pass


def pdf(path: Path, content: bytes) -> list[tuple[int | None, str]]:
    """The pages of a PDF; one with an owner's password alone can be read."""
    pypdf = optional("pypdf")
    reader = pypdf.PdfReader(io.BytesIO(content))
    if reader.is_encrypted and not reader.decrypt(""):
        raise QAError("it is encrypted. Save it without a password")
    return [(number, page.extract_text()) for number, page in enumerate(reader.pages, 1)]


def docx(path: Path, content: bytes) -> list[tuple[int | None, str]]:
    """Paragraphs and tables of a Word file, in their order, a paragraph or a row of a table a line."""
    library = optional("docx")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for ending, most in MOST_UNPACKED.items():
            size = sum(entry.file_size for entry in archive.infolist() if entry.filename.endswith(ending))
            if size > most:
                what = f"{size / 2**20:,.0f} MB{' of XML' * bool(ending)}"
                raise QAError(f"it unpacks to {what}. Expected at most {most // 2**20} MB")
    lines = []
    for block in library.Document(io.BytesIO(content)).iter_inner_content():
        rows = getattr(block, "rows", None)
        # not row.cells, which has a merged cell as often as it says to be wide
        cells = [[library.table._Cell(cell, block).text for cell in row._tr.tc_lst] for row in rows or ()]
        lines += [block.text] if rows is None else map(" | ".join, cells)
    return [(None, "\n".join(lines))]


def optional(name: str):
    """A library that only some documents need. Raises QAError where it is missing."""
    try:
        return import_module(name)
    except ImportError:
        raise QAError(f"the library {name} is missing. {INSTALL}") from None


def whatever_happens(read: Callable) -> Callable:
    """`read`, with QAError for whatever a library raises on a damaged file."""

    def guarded(path: Path, content: bytes) -> list[tuple[int | None, str]]:
        try:
            return read(path, content)
        except (QAError, MemoryError):
            raise
        except Exception as error:  # damaged files make these libraries raise anything
            raise QAError(f"it can't be read as {path.suffix.lower()} ({brief(error)})") from None

    return guarded


KINDS: dict[str, Callable] = {
    ".txt": plain, ".md": plain, ".html": whatever_happens(html), ".htm": whatever_happens(html),
    ".pdf": whatever_happens(pdf), ".docx": whatever_happens(docx),
}  # fmt: skip
