"""A page of HTML as elements. Reading it fails where it is not well formed, runs something, or fetches something."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser

# control characters, marks of direction, lone surrogates: a page shows them as \u202e
UNSEEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
VOID = {"meta", "img", "source", "br"}
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "section", "nav", "footer", "h1", "h2", "h3",
    "p", "div", "span", "a", "b", "i", "u", "ol", "li", "table", "thead", "tbody", "tr", "th", "td",
    "figure", "picture", "source", "img", "figcaption", "article", "mark", "bdi", "br", "details", "summary",
}  # fmt: skip


class Element:
    def __init__(self, tag: str, attributes: dict):
        self.tag, self.attributes, self.children = tag, attributes, []

    def all(self, tag: str, kind: str | None = None) -> "list[Element]":
        """The elements below with this tag, and this class if any is named."""
        return [e for e in self.below() if e.tag == tag and (kind is None or e.attributes.get("class") == kind)]

    def below(self) -> "Iterator[Element]":
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child.below()

    @property
    def text(self) -> str:
        """Every character, but for styles."""
        return "".join(c if isinstance(c, str) else c.text if c.tag != "style" else "" for c in self.children)

    @property
    def words(self) -> str:
        """The text as a browser shows it: white space is one space."""
        return " ".join(self.text.split())


class Page(HTMLParser):
    """Reads a page, and fails where it is not well formed, runs something, or fetches something."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open, self.declared = [self.root], []
        self.feed(text)
        self.close()
        assert self.open == [self.root]
        ids = [element.attributes["id"] for element in self.root.below() if "id" in element.attributes]
        assert len(ids) == len(set(ids))
        assert {link.attributes["href"][1:] for link in self.root.all("a")} <= set(ids)
        for style in self.root.all("style"):
            assert not re.search(r"//|@import|url\(|expression", "".join(style.children))
        assert not UNSEEN.search(self.root.text)

    def handle_starttag(self, tag, attributes):
        assert tag in ALLOWED, tag
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names))
        for name, value in attributes:
            assert not name.startswith("on")
            if name in ("src", "srcset"):
                assert value.startswith("data:image/png;base64,")
            elif name == "href":
                assert value.startswith("#")
            elif name == "style":
                assert re.fullmatch(r"(?:(?:left|width):-?[\d.]+%;?)+", value), value
        element = Element(tag, dict(attributes))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        raise AssertionError(f"<{tag}/>")

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def handle_pi(self, data):
        raise AssertionError(f"an instruction: {data}")

    def handle_decl(self, declaration):
        self.declared.append(declaration)
