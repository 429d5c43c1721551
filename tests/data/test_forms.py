"""Every form of docs/FORMATS.md: what people's files look like, and what is read from them."""

import gzip
import json
import re
from pathlib import Path

import pytest
from question_files import refusal

from extractive_qa.data.examples import read_examples
from utils.offline import PROJECT_ROOT

CONTEXT = "The blue kettle boils in four minutes. The red kettle boils in six minutes."
BLUE = {"id": "a", "question": "How long does the blue kettle take?"}
ANSWER = {"text": "four minutes", "answer_start": 25}
QA = BLUE | {"answers": [ANSWER]}
PARAGRAPH = {"context": CONTEXT, "qas": [QA]}
SQUAD = {"version": "1.1", "data": [{"title": "Kettles", "paragraphs": [PARAGRAPH]}]}
FLAT = BLUE | {"context": CONTEXT, "answers": {"text": ["four minutes"], "answer_start": [25]}}
COLUMNS = {name: value for name, value in FLAT.items() if name != "answers"}
ROW = "How long does the blue kettle take?", CONTEXT, "four minutes"
ANSWERS = {"text": ["four minutes"], "answer_start": [25]}


def qa(**changes) -> dict:
    """SQuAD JSON of one question with some fields replaced, those that are `...` left out."""
    fields = {name: value for name, value in (QA | changes).items() if value is not ...}
    return {"data": [{"paragraphs": [{"context": CONTEXT, "qas": [fields]}]}]}


def lines(*records) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def table(names: str, *cells: str, separator: str = ",") -> str:
    return f"{names}\n" + separator.join(cells) + "\n"


def packed(content: object) -> bytes:
    return gzip.compress((content if isinstance(content, str) else json.dumps(content)).encode())


# form of docs/FORMATS.md -> (name of the file, content): each holds the one question, answered at character 25
READ = {
    "squad": ("a.json", SQUAD),
    "list of files": ("a.json", [SQUAD, {"data": []}]),
    "list of articles": ("a.json", SQUAD["data"]),
    "empty article": ("a.json", {"data": [{"title": "Empty"}, *SQUAD["data"]]}),
    "one article": ("a.json", SQUAD["data"][0]),
    "one paragraph": ("a.json", PARAGRAPH),
    "list of paragraphs": ("a.json", [PARAGRAPH, {"context": "Nothing is asked of this."}]),
    "splits": ("a.json", {"train": [], "dev": SQUAD}),
    "flat": ("a.json", [FLAT]),
    "flat in data": ("a.json", {"data": [FLAT]}),
    "json lines": ("a.jsonl", lines(FLAT)),
    "lines of paragraphs": ("a.jsonl", lines({"header": {"dataset": "Own"}}, PARAGRAPH)),
    "lines called json": ("a.json", lines(FLAT, FLAT | {"id": "b"})),
    "json called lines": ("a.jsonl", lines(SQUAD)),
    "csv": ("a.csv", table("question,context,answer", *ROW)),
    "semicolons": ("a.csv", table("question;context;answer", *ROW, separator=";")),
    "tsv": ("a.tsv", table("question\tcontext\tanswer", *ROW, separator="\t")),
    "gzip": ("a.json.gz", packed(SQUAD)),
    "gzip of lines": ("a.jsonl.gz", packed(lines(FLAT))),
    "gzip of a table": ("a.csv.gz", packed(table("question,context,answer", *ROW))),
    "names": ("a.csv", table(" Question,CONTEXT,answer_text,Answer Start", *ROW, "25.0")),
    "id names": ("a.json", [{"question_id" if name == "id" else name: value for name, value in FLAT.items()}]),
    "no ids": ("a.json", qa(id=...)),
    "question list": ("a.json", qa(id=["a"], question=[BLUE["question"]])),
    "one object": ("a.json", [COLUMNS | {"answers": ANSWER}]),
    "text": ("a.json", [COLUMNS | {"answer": "four minutes"}]),
    "texts": ("a.json", [COLUMNS | {"answers": ["four minutes"]}]),
    "json in a cell": ("a.json", [COLUMNS | {"answers": json.dumps(ANSWERS)}]),
    "python in a cell": ("a.json", [COLUMNS | {"answers": "{'text': array(['four minutes'], dtype=object)}"}]),
    "fraction": ("a.json", [COLUMNS | {"answer": "four minutes", "answer_start": 25.0}]),
    "nan": ("a.json", [COLUMNS | {"answer": "four minutes", "answer_start": float("nan")}]),
    "mrqa": ("a.jsonl", lines({"context": CONTEXT, "qas": [
        {"qid": "a", "question": BLUE["question"], "answers": ["Four"],
         "detected_answers": [{"text": "four minutes", "char_spans": [[25, 36]]}]}]})),
    # repaired, with a warning
    "offset near": ("a.json", qa(answers=[ANSWER | {"answer_start": 27}])),
    "offset once": ("a.json", qa(answers=[ANSWER | {"answer_start": 3}])),
    "white space": ("a.json", qa(answers=[{"text": " four\u00a0 minutes", "answer_start": 25}])),
    "unicode form": ("a.json", qa(answers=[{"text": "\uff46our minutes", "answer_start": 25}])),
    "case": ("a.json", qa(answers=[{"text": "Four minutes", "answer_start": 25}])),
    "empty beside": ("a.json", qa(answers=[ANSWER, {"text": "", "answer_start": 0}])),
}  # fmt: skip
REPAIRED = ("offset near", "offset once", "white space", "unicode form", "case", "empty beside")
# form -> (name of the file, content, what must be said)
REFUSED = {
    "ambiguous": ("a.json", qa(answers=[{"text": "kettle", "answer_start": 20}]), "occurs at 9 ("),
    "inside a word": ("a.json", qa(answers=[{"text": "oil", "answer_start": 0}]), "occurs at 17 ("),
    "absent": (
        "a.json",
        qa(answers=[{"text": "four miles", "answer_start": 25}]),
        "'four mi[l]es', where the context has",
    ),
    "no answer": ("a.json", qa(answers=...), "no answer, as in SQuAD 2"),
    "other keys": ("a.json", [{"query_text": "Who?", "context_text": "Bob."}], "`query_text` may be it"),
    "text elsewhere": ("a.json", [QA | {"paragraphs": [12, 7]}], "`paragraphs` holds no text"),
    "duplicate id": ("a.json", [FLAT, FLAT], "renumber_ids=True"),
    "other split": ("a.json", {"train": SQUAD, "test": SQUAD}, "no part called validation"),
    "workbook": ("a.xlsx", "PK", "CSV UTF-8"),
    "numbers of answers": ("a.json", [COLUMNS | {"answers": {"text": ["a"], "answer_start": [1, 2]}}], "1 and 2"),
}


def write(form: tuple, folder: Path) -> Path:
    name, content = form[:2]
    content = json.dumps(content) if not isinstance(content, str | bytes) else content
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


@pytest.mark.parametrize("form", READ)
def test_a_form_is_read(form, tmp_path, caplog):
    path = write(READ[form], tmp_path)
    first = read_examples(path, "validation")[0]
    assert (first["question"], first["context"]) == (BLUE["question"], CONTEXT)
    assert first["id"] in ("a", "1"), "its own, or its number"
    assert first["answers"] == {"text": ["four minutes"], "answer_start": [25]}
    assert ("repaired 1 of 1 records" in caplog.text) == (form in REPAIRED)
    if form in REPAIRED:
        assert "strict=True" in caplog.text
        refusal(path, split="validation", strict=True)


@pytest.mark.parametrize("form", REFUSED)
def test_a_form_is_refused_with_a_reason(form, tmp_path):
    assert REFUSED[form][2] in refusal(write(REFUSED[form], tmp_path), split="validation")


def test_the_guide_has_every_form_and_no_other():
    for name in ("FORMATS.md", "FORMATS.zh-CN.md"):
        text = (PROJECT_ROOT / "docs" / name).read_text(encoding="utf-8")
        assert re.findall(r"^\| `([a-z ]+)` \|", text, re.M) == [*READ, *REFUSED], name


def test_the_guides_examples_of_answers_are_read(tmp_path):
    """Each line of the guide's block is one record."""
    text = (PROJECT_ROOT / "docs" / "FORMATS.md").read_text(encoding="utf-8")
    block = re.search(r"```json\n(.*?)```", text, re.S)[1]
    (tmp_path / "a.jsonl").write_text(block, encoding="utf-8")
    assert {tuple(item["answers"]["text"]) for item in read_examples(tmp_path / "a.jsonl")} == {("four minutes",)}
