"""The report: whatever the data, one well-formed page that runs nothing and fetches nothing."""

import json
import re
import warnings
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scripts import PROJECT_ROOT, assert_refused, run_script

from extractive_qa.data.examples import read_examples
from extractive_qa.report.cards import AROUND, LONGEST, escape, question_card
from extractive_qa.report.outcomes import collect_outcomes, groups_of
from extractive_qa.report.statistics import analyse, compare
from extractive_qa.report.write import report_page, write_report

DEV = PROJECT_ROOT / "data" / "sample" / "dev.json"
LOG = [{"step": i, "epoch": i / 10, "loss": 1 / i, "learning_rate": 1e-5} for i in range(1, 20)]
LOG += [{"step": 10 * e, "epoch": float(e), "exact_match": 50.0 + e, "f1": 60.0 + e, "total": 82} for e in (1, 2)]
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</mark></p></article></main></body></html>",
    "'\" onmouseover='alert(1)' style=\"position:fixed",
    "<!-- --><style>*{display:none}</style>",
    "\u202eevil\u2066\u200f",
    "nul\0 bell\a escape\x1b[2J del\x7f c1\x85",
    "&lt;script&gt; &amp; &#x202e; &NotEqualTilde;",
    "https://evil.example/x.js url(https://evil.example)",
    "javascript:alert(1)",
    "مرحبا بالعالم",
    "]]> ?> <?php <![CDATA[ <svg/onload=alert(1)>",
]
VOID = {"meta", "img", "source", "br"}
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "section", "nav", "footer", "h1", "h2", "h3",
    "p", "div", "span", "a", "b", "i", "u", "ol", "li", "table", "thead", "tbody", "tr", "th", "td",
    "figure", "picture", "source", "img", "figcaption", "article", "mark", "bdi", "br", "details", "summary",
}  # fmt: skip


class Page(HTMLParser):
    """Reads a page, and fails where it is not well formed, runs something, or fetches something."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.links, self.words, self.tags = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        assert {link[1:] for link in self.links} <= set(self.ids)

    def handle_starttag(self, tag, attributes):
        assert tag in ALLOWED, tag
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names))
        self.tags.append(tag)
        for name, value in attributes:
            assert not name.startswith("on")
            if name in ("src", "srcset"):
                assert value.startswith("data:image/png;base64,")
            elif name == "href":
                assert value.startswith("#")
                self.links.append(value)
            elif name == "style":
                assert re.fullmatch(r"(?:(?:left|width):-?[\d.]+%;?)+", value), value
            elif name == "id":
                self.ids.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        raise AssertionError(f"<{tag}/>")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def pages_of(tmp_path, examples, predictions, answers=None, log=(), other=None, about=None) -> tuple[str, Page]:
    outcomes = collect_outcomes(examples, predictions, answers)
    theirs = collect_outcomes(examples, other) if other else None
    comparison = compare(outcomes, theirs) if other else None
    write_report(tmp_path, outcomes, list(log), about or {"model": "a model"}, comparison, theirs)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def sample_answers(sure: float = 0.8):
    """The sample questions, each answered with the beginning of its context, with confidences."""
    examples = read_examples(DEV)
    rng = np.random.default_rng(0)
    answers = {}
    for q, example in enumerate(examples):
        start = example["answers"]["answer_start"][0] if q % 2 else 0
        end = start + (len(example["answers"]["text"][0]) if q % 4 == 1 else 9)
        text = example["context"][start:end]
        answers[example["id"]] = {
            "text": text,
            "start": start,
            "end": start + len(text),
            "probability": rng.random() * sure,
        }
    return examples, {identifier: answer["text"] for identifier, answer in answers.items()}, answers


def test_the_page_holds_all_parts_and_the_pictures_are_there(tmp_path):
    examples, predictions, answers = sample_answers()
    text, page = pages_of(tmp_path, examples, predictions, answers, LOG, other=dict.fromkeys(predictions, "Brazil"))
    assert page.ids == ["comparison", "mistakes", "groups", "confidence", "training", "worst"]
    assert page.tags.count("picture") == 3
    for words in (
        "What to improve",
        "By question word",
        "how many/much",
        "too short",
        "answered from",
        "calibration error",
    ):
        assert words in page.text
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report"}
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"groups.png", "mistakes.png", "reliability.png", "thresholds.png", "training.png"}
    for name in names:
        image = Image.open(BytesIO((tmp_path / "report" / name).read_bytes()))
        assert image.format == "PNG" and len(set(image.convert("L").tobytes())) > 10
    assert not re.search(r"(?:https?:)?//|@import|url\(", re.sub(r"base64,[\w+/=]+", "", text).replace("/* ", ""))


def test_without_confidences_and_log_their_parts_say_so_and_old_pictures_go(tmp_path):
    examples, predictions, answers = sample_answers()
    pages_of(tmp_path, examples, predictions, answers, LOG)
    _, page = pages_of(tmp_path, examples, predictions)
    assert "file without confidences" in page.text and "No training_log.jsonl" in page.text
    assert page.tags.count("picture") == 0
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"groups.png", "mistakes.png"}


def test_a_perfect_run_and_one_without_any_answer_have_reports(tmp_path):
    examples = read_examples(DEV)[:1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, page = pages_of(tmp_path, examples, {examples[0]["id"]: examples[0]["answers"]["text"][0]})
        assert "There is no mistake" in page.text
        _, page = pages_of(tmp_path, examples, {})
    assert "no answer, 100 % of all 1 mistakes" in page.text


def test_questions_without_an_answer_have_a_group_and_a_kind_of_mistake_of_their_own(tmp_path):
    none = {"text": [], "answer_start": []}
    examples = [example | ({"answers": none} if q % 3 == 0 else {}) for q, example in enumerate(read_examples(DEV))]
    given = [(example["context"][:9] if q % 2 else "") for q, example in enumerate(examples)]
    outcomes = collect_outcomes(examples, {example["id"]: text for example, text in zip(examples, given, strict=True)})
    unanswered = {(by, name): members for by, name, members in groups_of(outcomes) if name == "no answer"}
    assert {by for by, _ in unanswered} == {"answer length", "position of the answer in the context"}
    for members in unanswered.values():
        assert members.tolist() == [q % 3 == 0 for q in range(len(examples))]
    assert outcomes.exact_match[::6].all() and not outcomes.exact_match[3::6].any()
    _, page = pages_of(tmp_path, examples, dict(zip([e["id"] for e in examples], given, strict=True)))
    assert "no gold answer" in page.text and "gold nothing" in page.text


@pytest.mark.fault("hostile text in the report")
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_shown_and_do_nothing(text):
    context = f"Before it {text} and the answer {text} stands here. {text}"
    examples = [
        {"id": f"{text}{i}", "question": f"{text} what {text}", "context": f"{i} {context}",
         "answers": {"text": [f"answer {text}"], "answer_start": [2 + context.index(f"answer {text}")]}}
        for i in range(3)
    ]  # fmt: skip
    predictions = {example["id"]: f"Before it {text}" for example in examples}
    other = {example["id"]: f"answer {text}" for example in examples}
    outcomes, theirs = collect_outcomes(examples, predictions), collect_outcomes(examples, other)
    about = {"model": text, "questions": text, "compared with": text}
    page_text = report_page(outcomes, analyse(outcomes), LOG, about, {}, compare(outcomes, theirs), theirs)
    page = Page(page_text)
    shown = " ".join(escape(text).split())
    assert page_text.count(escape(text)) > 20
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200f]", page_text)
    assert " ".join(Page(f"<p>{shown}</p>").words) in page.text
    assert "default-src 'none'" in page_text


@settings(max_examples=150)
@given(st.text(), st.text(min_size=1), st.text(), st.text(), st.data())
def test_any_text_makes_a_well_formed_card_that_says_it(before, gold, after, question, data):
    context = before + gold + after
    start = data.draw(st.integers(0, len(context) - 1))
    predicted = context[start : data.draw(st.integers(start + 1, len(context)))]
    example = {"id": question, "question": question, "context": context,
               "answers": {"text": [gold], "answer_start": [len(before)]}}  # fmt: skip
    answer = {"text": predicted, "start": start, "end": start + len(predicted), "probability": 0.5}
    card = question_card(collect_outcomes([example], {question: predicted}, {question: answer}), 0)
    page = Page(card)
    assert set(page.tags) <= {"article", "p", "bdi", "mark"}
    card.encode("utf-8")
    if len(context) < AROUND:  # nothing is left out: what is shown is the context, and the marks hold the answers
        shown = re.search(r'<p class="context" dir="auto">(.*?)</p>', card, re.DOTALL)[1]
        assert re.sub("</?mark[^>]*>", "", shown) == escape(context)
        for kind, words in (("gold", gold), ("predicted", predicted)):
            pieces = re.findall(rf'<mark class="(?:{kind}|both)">(.*?)</mark>', shown, re.DOTALL)
            assert "".join(pieces) == escape(words)


def test_the_size_is_limited_whatever_the_texts(tmp_path):
    gold, long = "g" * 4000, "word " * 4000
    examples = [
        {"id": f"{i}" * 1000, "question": long, "context": f"{i} {long}{gold}{long}",
         "answers": {"text": [gold], "answer_start": [2 + len(long)]}}
        for i in range(40)
    ]  # fmt: skip
    text, page = pages_of(tmp_path, examples, {example["id"]: long for example in examples})
    assert page.tags.count("article") == 20
    assert len(text) < 20 * (4 * AROUND + 4 * LONGEST["answer"] + LONGEST["question"] + 1500) + 40_000


def test_the_script_writes_the_report_and_compares(tiny_model, tmp_path):
    """With a model first, then with its predictions alone."""
    this, other = tmp_path / "this", tmp_path / "other"
    flags = ("--eval_file", DEV, "--max_samples", 20, "--mixed_precision", "no")
    other.mkdir()
    gold = {example["id"]: example["answers"]["text"][0] for example in read_examples(DEV)[:20]}
    (other / "predictions.json").write_text(json.dumps(gold), encoding="utf-8")
    (other / "nbest_predictions.json").write_text("{}", encoding="utf-8")
    done = run_script("evaluate.py", "--model_dir", tiny_model, *flags, "--output_dir", this, "--report", "--compare",
                      other)  # fmt: skip
    assert "is not of the same run" in done.stderr
    assert "wrote report.html" in done.stdout
    (em,) = re.findall(r"^EM +([\d.]+) +([\d.]+) +([-+][\d.]+) .*\((.+)\)$", done.stdout, re.MULTILINE)
    this_em, other_em, difference, verdict = em
    assert float(other_em) == 100 and float(difference) == pytest.approx(float(this_em) - 100)
    assert verdict == "may be chance"  # 20 questions stand on 4 contexts: chance alone agrees on 4 in 1 of 8 cases
    page = Page((this / "report.html").read_text(encoding="utf-8"))
    assert "1 window" in page.text and "Compared with the other run" in page.text
    done = run_script("evaluate.py", "--predictions", other / "predictions.json", *flags[:4], "--output_dir", this,
                      "--report")  # fmt: skip
    page = Page((this / "report.html").read_text(encoding="utf-8"))
    assert "There is no mistake" in page.text and "file without confidences" in page.text


@pytest.mark.fault("damaged predictions")
def test_a_folder_with_other_questions_or_none_is_refused_before_the_model_is_asked(tiny_model, tmp_path):
    other = tmp_path / "other"
    flags = ("--model_dir", tiny_model, "--eval_file", DEV, "--output_dir", tmp_path / "this", "--compare")
    assert_refused(run_script("evaluate.py", *flags, other, code=2), "predictions.json is missing", "--output_dir")
    other.mkdir()
    ids = [example["id"] for example in read_examples(DEV)]
    for predictions, words in (
        ({"x": "y"}, "answers none of the questions"),
        (dict.fromkeys(ids[:-2], "y"), "lacks 2 of the"),
    ):
        (other / "predictions.json").write_text(json.dumps(predictions), encoding="utf-8")
        assert_refused(run_script("evaluate.py", *flags, other, code=2), words)
    assert_refused(run_script("evaluate.py", *flags, tmp_path / "this", code=2), "--compare is --output_dir itself")
    assert not (tmp_path / "this").exists()


def test_a_report_that_can_not_be_written_is_refused_and_the_old_one_stays(tmp_path):
    examples = read_examples(DEV)
    gold = tmp_path / "gold.json"
    gold.write_text(json.dumps({e["id"]: e["answers"]["text"][0] for e in examples}), encoding="utf-8")
    (tmp_path / "report").write_text("a file", encoding="utf-8")
    flags = ("--predictions", gold, "--eval_file", DEV, "--output_dir", tmp_path, "--report")
    assert_refused(run_script("evaluate.py", *flags, code=2), "can't be written", "--output_dir")
    assert not (tmp_path / "report.html").exists()
