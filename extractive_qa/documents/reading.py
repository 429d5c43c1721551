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
MOST_UNPACKED = 256 * 2**20  # of a Word file, which is a zip archive
INSTALL = "Run: pip install -r requirements-documents.txt"
# HTML: what is no text to read, and what ends a line
SILENT = ("script", "style", "noscript", "template", "svg", "head", "nav")
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
    return [(None, decode_text(path, content, encoding if encoding != "utf-8" else None))]


def html(path: Path, content: bytes) -> list[tuple[int | None, str]]:
    """What a browser would show of a page, a block a line."""
    bs4 = optional("bs4")
    soup = bs4.BeautifulSoup(content, "html.parser")
    for tag in soup.find_all(SILENT):
        tag.decompose()
    for tag in soup.find_all(BLOCKS):
        tag.append("\n")
    lines = (" ".join(line.split()) for line in soup.get_text().splitlines())
    return [(None, re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip())]


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
        if (size := sum(entry.file_size for entry in archive.infolist())) > MOST_UNPACKED:
            raise QAError(f"it unpacks to {size / 2**20:,.0f} MB. Expected at most {MOST_UNPACKED // 2**20} MB")
    lines = []
    for block in library.Document(io.BytesIO(content)).iter_inner_content():
        rows = getattr(block, "rows", None)
        lines += [block.text] if rows is None else [" | ".join(cell.text for cell in row.cells) for row in rows]
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
