"""The web page without its server: languages, limits, what is shown. Needs no Gradio. The gate: test_gate.py; the page
as it is served and seen: test_page_served.py."""

import re
from html.parser import HTMLParser
from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import assert_refused, load_script, run_script

from extractive_qa.data.examples import read_examples
from extractive_qa.errors import QAError
from extractive_qa.reader import Reader
from extractive_qa.web import page
from extractive_qa.web.page import WORDS, ask, choose_language, find_problem, mark_answers, render

HOSTILE_TEXT = "what gets into the web page"
TEXT = "Ada won. <script>alert(1)</script> <img src=x onerror=alert(2)> & ${alert(3)} {{value}} 'a' \"b\""
# what render() makes, and nothing else may
TAGS = {"section", "h2", "p", "ol", "li", "button", "span", "div", "mark"}
ATTRIBUTES = {"class", "dir", "aria-label", "type", "data-answer", "style", "tabindex", "role"}


class Shown(HTMLParser):
    """What a browser makes of HTML: the text of each element of `wanted` class or tag, and all tags and attributes."""

    def __init__(self, html: str, wanted: str):
        super().__init__()
        self.wanted, self.depth, self.tags, self.attributes, self.text = wanted, 0, set(), set(), ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.depth += self.depth > 0 or self.wanted in (tag, dict(attributes).get("class"))

    def handle_endtag(self, tag):
        self.depth -= self.depth > 0

    def handle_data(self, data):
        self.text += data * (self.depth > 0)


def result(context: str, *spans: tuple[int, int], probability: float = 0.5) -> dict:
    answers = [
        {"text": context[start:end], "start": start, "end": end, "probability": probability, "answerable": None}
        for start, end in spans
    ]
    return {"context": context, "answers": answers, "seconds": 0.1, "unknown": 0.0}


def drawn_result(draw):
    context = draw(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1) | st.just(TEXT)
    )
    places = st.integers(0, len(context))
    spans = draw(st.lists(st.tuples(places, places).map(sorted), min_size=1, max_size=5))
    return result(context, *spans)


@pytest.mark.fault(HOSTILE_TEXT)
@given(st.composite(drawn_result)())
def test_any_text_is_shown_letter_by_letter_and_is_never_markup(made):
    html = render(made, "en", "models/<b>mine</b>")
    shown = Shown(html, "passage")
    assert shown.text == made["context"]
    assert shown.tags <= TAGS
    assert shown.attributes <= ATTRIBUTES
    assert Shown(html, "model").text == "models/<b>mine</b>"
    assert Shown(html, "best").text == made["answers"][0]["text"] or not made["answers"][0]["text"]


@pytest.mark.fault(HOSTILE_TEXT)
def test_what_a_model_says_in_an_error_is_no_markup():
    assert "<script>" not in render({"error": TEXT}, "en", "m")
    assert Shown(render({"error": TEXT}, "en", "m"), "result problem").text == TEXT


def test_each_answer_is_marked_where_it_stands():
    context = "Ada won in Zürich <1999>."
    html = mark_answers(context, result(context, (0, 3), (18, 24), (11, 17))["answers"])
    marks = re.findall(r'<mark data-answer="(\d)">(.*?)</mark>', html)
    assert marks == [("1", "Ada"), ("3", "Zürich"), ("2", "&lt;1999&gt;")]


def test_an_answer_that_overlaps_another_or_is_empty_leaves_the_text_whole():
    context = "Ada won."
    html = mark_answers(context, result(context, (0, 7), (4, 8), (3, 3))["answers"])
    assert Shown(f"<p>{html}</p>", "p").text == context
    assert html.count("<mark") == 1


def test_both_languages_say_everything_with_the_same_figures():
    assert WORDS.keys() == set(page.LANGUAGES.values())
    assert WORDS["en"].keys() == WORDS["zh"].keys()
    for name, text in WORDS["en"].items():
        assert text and WORDS["zh"][name] and text != WORDS["zh"][name]
        fields = [[field for _, field, *_ in Formatter().parse(WORDS[language][name])] for language in ("en", "zh")]
        assert [f for f in fields[0] if f] == [f for f in fields[1] if f], name


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-GB,en;q=0.9,zh;q=0.8", "en"), ("de, zh-TW;q=0.5", "zh"),
        ("de,en;q=0.2,zh-Hans;q=0.7", "zh"), ("fr", "en"), ("", "en"), ("zh;q=0", "en"), ("zh;q=much", "en"),
        ("*", "en"), ("ZH", "zh"),
    ],
)  # fmt: skip
def test_the_browser_s_language_is_taken(accepted, language):
    assert choose_language(accepted) == language


@pytest.mark.parametrize(
    ("question", "context", "problem"),
    [
        ("Who?", "Ada won.", None),
        ("", "Ada won.", "no_question"),
        (" \u200b\n", "Ada won.", "no_question"),
        ("Who?", "", "no_context"),
        ("w" * page.MAX_QUESTION, "a" * page.MAX_CONTEXT, None),
        ("w" * (page.MAX_QUESTION + 1), "Ada won.", "long_question"),
        ("Who?", "a" * (page.MAX_CONTEXT + 1), "long_context"),
    ],
)
def test_what_can_not_be_asked_is_said_in_both_languages(question, context, problem):
    found = find_problem(question, context)
    assert (found and found[0]) == problem
    if problem:
        for language in WORDS:
            shown = Shown(render({"problem": found}, language, "m"), "result problem").text
            assert shown == WORDS[language][problem].format(found[1])


def test_nothing_is_answered_beyond_the_limits_whatever_the_browser_sent():
    """The limits hold on the server: a reader that were asked would fail, as None has no answer_all."""
    assert ask(None, "Who?", "a " * page.MAX_CONTEXT)["problem"][0] == "long_context"
    assert ask(None, None, None)["problem"][0] == "no_question"


def test_answers_belong_to_the_text_that_is_shown(tiny_model):
    reader = Reader(tiny_model, device="cpu", mixed_precision="no", backend="torch")
    found = ask(reader, "Who won? \ud800", TEXT + " \ud800" * 3)
    assert found["context"] == TEXT + " \ufffd" * 3  # a lone surrogate can't be sent to a browser
    assert 1 <= len(found["answers"]) <= page.ANSWERS
    for answer in found["answers"]:
        assert found["context"][answer["start"] : answer["end"]] == answer["text"]
    assert all(answer["probability"] >= page.WORTH_SHOWING for answer in found["answers"][1:])
    assert "<script" not in render(found, "zh", page.describe(reader))


def test_a_model_that_can_not_answer_says_so_in_the_page():
    class Broken:
        def answer_all(self, examples, top_k):
            raise QAError("the model gives NaN")

    assert "the model gives NaN" in render(ask(Broken(), "Who?", "Ada won."), "en", "m")


def test_characters_that_the_model_does_not_know_are_said(tiny_model):
    reader = Reader(tiny_model, device="cpu", mixed_precision="no", backend="torch")
    text = "青石桥建于一九三二年，全长八十七米，由本地石匠修建。"
    assert "does not know" in render(ask(reader, "有多长？", text), "en", "m")
    assert "不认识" in render(ask(reader, "有多长？", text), "zh", "m")
    known = result("Ada won.", (0, 3))
    assert "does not know" not in render(known, "en", "m")


def test_below_the_confidence_asked_for_nothing_counts_as_found():
    found = result("Ada won.", (0, 3), probability=0.4)
    assert Shown(render(found, "en", "m", 0.4), "best").text == "Ada"
    unsure = render(found, "en", "m", 0.5)
    assert WORDS["en"]["no_answer"] in unsure
    assert "50%" in unsure
    assert Shown(unsure, "passage").text == "Ada won."
    assert 'class="best" ' not in unsure


def test_the_examples_are_ours_and_there():
    predict = load_script("predict.py")
    examples = {example["id"]: example for example in read_examples(predict.SAMPLE_QUESTIONS)}
    for name in predict.PAGE_EXAMPLES:
        assert find_problem(examples[name]["question"], examples[name]["context"]) is None


def test_without_gradio_it_says_what_to_run(monkeypatch):
    monkeypatch.setattr(page.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(QAError, match=r"pip install -r requirements-web\.txt"):
        page.require_gradio()


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", "taken"), ("127.0.0.1", 70_000), ("192.0.2.1", 0)])
def test_an_address_that_can_not_be_had_is_refused(host, port):
    with page.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1] if port == "taken" else port
        with pytest.raises(QAError, match="--port 0"):
            page.listen(host, port)


def test_the_flags_of_the_page_say_what_they_are(tmp_path):
    shown = " ".join(run_script("predict.py", "--help").stdout.split())
    assert re.search(r"--host \S+ .*0\.0\.0\.0.*default: 127\.0\.0\.1", shown)
    assert "requirements-web.txt" in shown
    assert_refused(run_script("predict.py", "web", "--question", "Who?", code=2), "predict.py ask")
