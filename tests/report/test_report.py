"""The report: whatever the data, one well-formed page that runs nothing and fetches nothing."""

import warnings
from io import BytesIO

import numpy as np
import pytest
from html_page import UNSEEN, Element, Page
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scripts import PROJECT_ROOT

from extractive_qa.data.examples import read_examples
from extractive_qa.report.outcomes import Outcomes, collect_outcomes, groups_of
from extractive_qa.report.statistics import analyse, compare
from extractive_qa.report.write import AROUND, LONGEST, card, environment, report_page, show_hidden, write_report

DEV = PROJECT_ROOT / "data" / "sample" / "dev.json"
LOG = [{"step": i, "epoch": i / 10, "loss": 1 / i, "learning_rate": 1e-5} for i in range(1, 20)]
LOG += [{"step": 10 * e, "epoch": float(e), "exact_match": 50.0 + e, "f1": 60.0 + e, "total": 82} for e in (1, 2)]
# what ends an element or an attribute, is an expression of the template, turns the direction, or is not shown
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</mark></p></article></main></body></html>",
    "'\" onmouseover='alert(1)' style=\"position:fixed",
    "<!-- --><style>*{display:none}</style>",
    "\u202eevil\u2066\u200f",
    "nul\0 bell\a escape\x1b[2J del\x7f c1\x85 lone\udc80",
    "&lt;script&gt; &amp; &#x202e; &NotEqualTilde;",
    "https://evil.example/x.js url(https://evil.example)",
    "javascript:alert(1)",
    "مرحبا بالعالم",
    "]]> ?> <?php <![CDATA[ <svg/onload=alert(1)>",
    "{{ 7 * 7 }} {% raw %} {# ",
]
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page_of(outcomes: Outcomes, log=(), other: Outcomes | None = None, about: dict | None = None) -> Element:
    """The page without pictures, of outcomes without confidences."""
    comparison = compare(outcomes, other) if other else None
    about = about or {"model": "a model"}
    page = Page(report_page(outcomes, analyse(outcomes), list(log), about, {}, comparison, other))
    assert page.declared == ["DOCTYPE html"]
    policies = [meta.attributes["content"] for meta in page.root.all("meta") if "http-equiv" in meta.attributes]
    assert policies == [POLICY]
    return page.root


def sections(page: Element) -> dict[str, Element]:
    return {section.attributes["id"]: section for section in page.all("section") if "id" in section.attributes}


def sample_answers():
    """The sample questions, half of them answered with the beginning of the context, with confidences."""
    examples, answers = read_examples(DEV), {}
    rng = np.random.default_rng(0)
    for q, example in enumerate(examples):
        start = example["answers"]["answer_start"][0] if q % 2 else 0
        text = example["context"][start : start + (len(example["answers"]["text"][0]) if q % 4 == 1 else 9)]
        answers[example["id"]] = {
            "text": text, "start": start, "end": start + len(text), "probability": 0.8 * rng.random(),
        }  # fmt: skip
    return examples, {identifier: answer["text"] for identifier, answer in answers.items()}, answers


def test_the_page_holds_all_parts_and_pictures_and_those_of_an_earlier_report_go(tmp_path):
    examples, predictions, answers = sample_answers()
    outcomes = collect_outcomes(examples, predictions, answers)
    other = collect_outcomes(examples, dict.fromkeys(predictions, "Brazil"))
    write_report(tmp_path, outcomes, LOG, {"model": "a model"}, compare(outcomes, other), other)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8")).root
    parts = sections(page)
    assert list(parts) == ["comparison", "mistakes", "groups", "confidence", "training", "worst"]
    assert [a.attributes["href"] for a in page.all("a")] == [f"#{name}" for name in parts]
    assert [len(parts[name].all("picture")) for name in ("confidence", "training")] == [2, 1]
    for picture in page.all("picture"):
        (dark,), (light,) = picture.all("source"), picture.all("img")
        assert dark.attributes["srcset"] != light.attributes["src"] and "dark" in dark.attributes["media"]
    for name, words in (
        ("comparison", "approximate randomization"), ("mistakes", "too short"), ("groups", "how many/much"),
        ("confidence", "answered from"), ("training", "training_log.jsonl"), ("worst", "Wrong although sure"),
    ):  # fmt: skip
        assert words in parts[name].words
    tracks, bodies = parts["groups"].all("span", "track"), parts["groups"].all("tbody")
    assert len(tracks) == sum(len(body.all("tr")) for body in bodies) == len(groups_of(outcomes))
    (findings,) = page.all("ol")
    assert any("Confidences" in item.words for item in findings.all("li"))
    assert len(page.all("div", "tiles")[0].all("div")) == 5
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report"}
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"groups.png", "mistakes.png", "reliability.png", "thresholds.png", "training.png"}
    for name in names:
        image = Image.open(BytesIO((tmp_path / "report" / name).read_bytes()))
        assert image.format == "PNG" and len(set(image.convert("L").tobytes())) > 10

    write_report(tmp_path, collect_outcomes(examples, predictions), [], {"model": "a model"})
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8")).root
    assert list(sections(page)) == list(parts)[1:]
    assert "file without confidences" in page.words and "No training_log.jsonl" in page.words
    assert not page.all("picture")
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"groups.png", "mistakes.png"}


def test_a_perfect_run_and_one_without_any_answer_have_reports():
    examples = read_examples(DEV)[:1]
    right, nothing = {examples[0]["id"]: examples[0]["answers"]["text"][0]}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = page_of(collect_outcomes(examples, right))
        assert "There is no mistake" in page.words and not page.all("article")
        assert "no answer, 100 % of all 1 mistakes" in page_of(collect_outcomes(examples, nothing)).words


def test_questions_without_an_answer_have_a_group_and_a_kind_of_mistake_of_their_own():
    none = {"text": [], "answer_start": []}
    examples = [example | ({"answers": none} if q % 3 == 0 else {}) for q, example in enumerate(read_examples(DEV))]
    predictions = {example["id"]: example["context"][:9] if q % 2 else "" for q, example in enumerate(examples)}
    outcomes = collect_outcomes(examples, predictions)
    unanswered = {by: members for by, name, members in groups_of(outcomes) if name == "no answer"}
    assert set(unanswered) == {"answer length", "position of the answer in the context"}
    for members in unanswered.values():
        assert members.tolist() == [q % 3 == 0 for q in range(len(examples))]
    assert outcomes.exact_match[::6].all() and not outcomes.exact_match[3::6].any()
    page = page_of(outcomes)
    assert any(row.words.startswith("no gold answer") for row in sections(page)["mistakes"].all("th"))
    assert any("gold nothing" in facts.words for facts in page.all("p", "facts"))


@pytest.mark.fault("hostile text in the report")
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_shown_and_do_nothing(text):
    context = f"Before it {text} and the answer {text} is here. {text}"
    examples = [
        {"id": f"{text}{i}", "question": f"{text} what {text}", "context": f"{i} {context}",
         "answers": {"text": [f"answer {text}"], "answer_start": [2 + context.index(f"answer {text}")]}}
        for i in range(3)
    ]  # fmt: skip
    outcomes = collect_outcomes(examples, {example["id"]: f"Before it {text}" for example in examples})
    other = collect_outcomes(examples, {example["id"]: f"answer {text}" for example in examples})
    page = page_of(outcomes, LOG, other, {"model": text, "questions": text, "compared with": text})
    seen = UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    words = " ".join(seen.split())
    assert page.all("title")[0].words == f"Evaluation: {words}"
    assert page.all("p", "about")[0].words == f"model {words} · questions {words} · compared with {words}"
    cards = page.all("article")
    assert len(cards) == 3 + 3  # the worst mistakes, and what the other run alone got right
    for card_of in cards:
        assert card_of.all("p", "question")[0].words == f"{words} what {words}"
        assert card_of.all("p", "context")[0].words[2:] == f"Before it {words} and the answer {words} is here. {words}"
        assert card_of.all("mark", "gold")[0].text == f"answer {seen}"
        assert card_of.all("mark", "predicted")[0].text == f"Before it {seen}"
        quoted = [bdi.text for bdi in card_of.all("p", "facts")[0].all("bdi")]
        assert quoted[0] == f"Before it {seen}" and f"answer {seen}" in quoted and quoted[-1].startswith(seen)


MACROS = environment().get_template("macros.html.j2").module


@given(st.text(), st.text(min_size=1), st.text(), st.text(), st.data())
def test_any_text_makes_a_well_formed_card_that_says_it(before, gold, after, question, data):
    context = before + gold + after
    start = data.draw(st.integers(0, len(context) - 1))
    predicted = context[start : data.draw(st.integers(start + 1, len(context)))]
    example = {"id": question, "question": question, "context": context,
               "answers": {"text": [gold], "answer_start": [len(before)]}}  # fmt: skip
    answer = {"text": predicted, "start": start, "end": start + len(predicted), "probability": 0.5}
    html = MACROS.question(card(collect_outcomes([example], {question: predicted}, {question: answer}), 0))
    html.encode("utf-8")
    page = Page(html).root
    assert {element.tag for element in page.below()} <= {"article", "p", "bdi", "mark"}
    (shown,) = page.all("p", "context")
    if len(context) < AROUND:  # nothing is left out: what is shown is the context, and the marks hold the answers
        assert shown.text == show_hidden(context)
        for kind, text in (("gold", gold), ("predicted", predicted)):
            marks = [mark.text for mark in shown.all("mark") if mark.attributes["class"] in (kind, "both")]
            assert "".join(marks) == show_hidden(text)


def test_the_size_is_limited_whatever_the_texts():
    gold, long = "g" * 4000, "word " * 4000
    examples = [
        {"id": f"{i}" * 1000, "question": long, "context": f"{i} {long}{gold}{long}",
         "answers": {"text": [gold], "answer_start": [2 + len(long)]}}
        for i in range(40)
    ]  # fmt: skip
    page = page_of(collect_outcomes(examples, {example["id"]: long for example in examples}), about={"model": long})
    cards = page.all("article")
    assert len(cards) == 20
    for card_of in cards:
        assert len(card_of.text) < 4 * AROUND + 4 * LONGEST["answer"] + LONGEST["question"] + LONGEST["id"] + 500
    assert len(page.all("title")[0].text) < LONGEST["title"] + 20
    assert len(page.all("p", "about")[0].text) < LONGEST["about"] + 50
