"""The JSON interface, asked within this process. As it is served and seen: test_served.py, test_page.py."""

import json
import re
from string import Formatter

import pytest
from scripts import load_script

from extractive_qa.data.examples import read_examples
from extractive_qa.documents.index import DocumentIndex
from extractive_qa.errors import QAError
from extractive_qa.reader import Reader
from extractive_qa.web import app as web
from utils.offline import SAMPLE_MODEL_DIR

pytest.importorskip("fastapi_offline", reason="needs FastAPI: pip install -r requirements-web.txt")
from starlette.testclient import TestClient

INTO_THE_PAGE = "a way into the web page's server"
MILL = "The mill at Brook was built by Ada Miller in 1843. It burnt down in 1901 and was never rebuilt."
BRIDGE = "The bridge was built by Tom Mason in 1911.\n\nIt has four arches."
LINES = {"accept": web.LINES}


@pytest.fixture(scope="module")
def reader():
    return Reader(SAMPLE_MODEL_DIR, device="cpu", mixed_precision="no", backend="torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of documents, and its index."""
    home = tmp_path_factory.mktemp("documents")
    (home / "papers").mkdir()
    (home / "papers" / "mill.txt").write_text(MILL)
    (home / "papers" / "bridge.md").write_text("# Notes\n\n" + BRIDGE)
    return DocumentIndex(home / "papers", home / "cache")


@pytest.fixture(scope="module")
def corrections(tmp_path_factory):
    return tmp_path_factory.mktemp("output") / "corrections.json"


@pytest.fixture(scope="module")
def client(reader, folder, corrections):
    with TestClient(web.make_app(reader, folder, corrections), base_url="http://127.0.0.1") as client:
        yield client


def post(client, path, headers=None, **body):
    answer = client.post(path, json=body, headers=headers)
    return answer.status_code, answer.json() if answer.headers["content-type"] == "application/json" else answer.text


def test_a_context_is_answered_as_the_reader_answers(client, reader):
    status, told = post(client, "/answer", question="Who built the mill?", context=MILL, top_k=3)
    alone = reader.answer("Who built the mill?", MILL, top_k=3)
    assert status == 200
    assert [{name: answer[name] for name in ("text", "start", "end")} for answer in told["answers"]] == [
        {name: answer[name] for name in ("text", "start", "end")} for answer in alone
    ]
    assert told["answers"][0]["probability"] == pytest.approx(alone[0]["probability"])
    assert told["answerable"] == pytest.approx(alone[0]["answerable"])
    assert (told["answered"], told["question"], told["unknown_share"]) == (True, "Who built the mill?", 0.0)


@pytest.mark.parametrize("passages", [None, 3])
def test_documents_are_compared_and_places_are_in_the_document(client, passages):
    filler = "Nothing happened on this day. " * 100
    texts = [{"text": filler}, {"text": filler + MILL, "name": "mill"}, {"text": BRIDGE}]
    _, told = post(client, "/answer", question="Who built the mill?", documents=texts, passages=passages)
    (best,) = told["answers"]
    assert (best["text"], best["document"]) == ("Ada Miller", 1)
    assert texts[1]["text"][best["start"] : best["end"]] == "Ada Miller"


def test_the_folder_is_asked_and_its_places_come_back(client):
    _, told = post(client, "/ask", question="Who built the bridge?")
    (best,) = told["answers"]
    assert best["text"] == "Tom Mason"
    assert (best["document"]["file"], best["document"]["page"]) == ("bridge.md", None)
    assert best["document"]["text"][best["start"] : best["end"]] == "Tom Mason"
    _, told = post(client, "/ask", question="Xylophon?")
    assert (told["answered"], told["answerable"]) == (False, 0.0)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/answer", {"context": MILL + " It rained." * 1_000}), ("/answer", {"documents": [{"text": MILL}]}),
        ("/ask", {}),
    ],
)  # fmt: skip
def test_whoever_wants_to_hears_how_far_it_is(client, path, body):
    _, lines = post(client, path, LINES, question="Who built the mill?", **body)
    *progress, last = map(json.loads, lines.splitlines())
    assert last["result"]["answers"][0]["text"] == "Ada Miller"
    assert progress
    assert all(0 <= line["done"] <= line["windows"] for line in progress)


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/answer", {}, 422, "question"),
        ("/answer", {"question": "Who?"}, 422, "either context or documents"),
        ("/answer", {"question": "Who?", "context": MILL, "documents": [{"text": MILL}]}, 422, "either"),
        ("/answer", {"question": " \u200b", "context": MILL}, 422, "question must hold a word"),
        ("/answer", {"question": "Who?", "context": "\n"}, 422, "context must hold a word"),
        ("/answer", {"question": "Who?", "documents": [{"text": " "}]}, 422, "documents must hold a word"),
        ("/answer", {"question": "Who?", "documents": []}, 422, "documents"),
        ("/answer", {"question": "Who?", "documents": ["a text"]}, 422, "documents"),
        ("/answer", {"question": "w" * 1_001, "context": MILL}, 422, "1000 characters"),
        ("/answer", {"question": "Who?", "context": "a" * 200_001}, 422, "200000 characters"),
        ("/answer", {"question": "Who?", "documents": [{"text": "a " * 60_000}] * 2}, 422, '"passages": 10'),
        ("/answer", {"question": "Who?", "documents": [{"text": "a " * 700_000}] * 2, "passages": 5}, 422, "2,000,000"),
        ("/answer", {"question": "Who?", "context": MILL, "top_k": 0}, 422, "top_k"),
        ("/answer", {"question": "Who?", "context": MILL, "min_confidence": 2}, 422, "min_confidence"),
        ("/answer", {"question": 3, "context": MILL}, 422, "question"),
        ("/corrections", {"question": "Who?", "context": MILL, "start": 5, "end": 5}, 422, "around a piece"),
        ("/corrections", {"question": "Who?", "context": MILL, "start": 90, "end": 9_000}, 422, "around a piece"),
        ("/corrections", {"question": "Who?", "context": MILL, "start": 3, "end": 4}, 422, "around a piece"),
    ],
)  # fmt: skip
def test_what_can_not_be_asked_is_said(client, path, body, status, says):
    answer = client.post(path, json=body)
    assert answer.status_code == status
    assert says in answer.json()["detail"]


@pytest.mark.fault(INTO_THE_PAGE)
@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"[]", b"null", b'{"question": "\xff"}', b"[" * 100_000,
     b'{"question": "\\ud800", "context": "a \\udfff b"}', b'{"question": "x", "context": "x", "top_k": 1e400}'],
)  # fmt: skip
def test_a_body_that_is_no_question_is_refused(client, body):
    for path in ("/answer", "/ask", "/corrections"):
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422)
        assert "\\ud800" not in answer.text


def test_below_the_confidence_asked_for_there_is_no_answer(client):
    asked = {"question": "Who built the mill?", "context": MILL}
    assert post(client, "/answer", **asked, min_confidence=0.5)[1]["answered"]
    _, told = post(client, "/answer", **asked, min_confidence=0.999)
    assert (told["answered"], told["answers"][0]["text"]) == (False, "")


def test_a_correction_can_be_trained_on(client, corrections):
    start = MILL.index("1901")
    status, told = post(client, "/corrections", question="When?", context=MILL, start=start, end=start + 4, title="m")
    assert (status, told["corrections"]) == (200, 1)
    (example,) = read_examples(corrections)
    assert example["answers"] == {"text": ["1901"], "answer_start": [start]}
    corrections.write_text("something else")
    assert post(client, "/corrections", question="When?", context=MILL, start=start, end=start + 4)[0] == 409
    assert corrections.read_text() == "something else"


@pytest.mark.parametrize(
    ("name", "content", "status", "says"),
    [
        ("Büch 书.txt", b"\xef\xbb\xbf" + MILL.encode(), 200, MILL),
        ("gbk.txt", "模型在哪里？它就在本页的机器上运行。".encode("gbk"), 200, "模型在哪里"),
        ("page.html", b"<p>Ada <script>alert(1)</script>won.</p>", 200, "Ada won."),
        ("x.exe", b"MZ", 415, ".pdf"),
        ("x", b"text", 415, ".pdf"),
        ("x.pdf", b"%PDF-1.7 cut off", 422, ".pdf"),
        ("x.docx", b"no archive", 422, ".docx"),
        ("x.txt", b"", 422, "no text"),
        ("../../etc/passwd.txt", b"only a name", 200, "only a name"),
    ],
)
def test_a_file_s_text_comes_back_and_no_file_of_the_server_s(client, name, content, status, says):
    answer = client.post("/text", params={"name": name}, content=content)
    assert answer.status_code == status
    assert says in (answer.json()[0]["text"] if status == 200 else answer.json()["detail"])


def test_a_server_without_documents_says_how_it_gets_some(reader, tmp_path):
    with TestClient(web.make_app(reader, None, tmp_path / "c.json"), base_url="http://127.0.0.1") as client:
        assert "--documents" in client.post("/ask", json={"question": "Who?"}).json()["detail"]
        assert client.get("/health").json()["documents"] is None
        assert client.get("/start.json").json()["folder"] is None


def test_health_says_what_answers(client):
    told = client.get("/health").json()
    assert (told["status"], told["documents"], told["waiting"], told["precision"]) == ("ok", 2, 0, "no")
    assert told["model"].endswith("sample")


@pytest.mark.fault(INTO_THE_PAGE)
@pytest.mark.parametrize("path", ["/etc/passwd", "/page.py", "/../app.py", "/static-offline-docs/../core.py", "/redoc"])
def test_no_other_file_is_served(client, path):
    assert client.get(path).status_code == 404


def test_its_description_needs_no_other_site(client):
    html = client.get("/docs").text
    links = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)["']""", html)
    assert len(links) > 2
    for link in links:
        assert link.startswith("/")
        assert client.get(link).status_code == 200
    assert set(client.get("/openapi.json").json()["paths"]) == {"/answer", "/ask", "/text", "/corrections", "/health"}


def test_a_model_that_can_not_answer_says_so(reader, tmp_path, monkeypatch):
    def broken(*_):
        raise QAError("the model gives NaN")

    monkeypatch.setattr(reader, "answer_all", broken)
    with TestClient(web.make_app(reader, None, tmp_path / "c.json"), base_url="http://127.0.0.1") as client:
        assert post(client, "/answer", question="Who?", context=MILL) == (500, {"detail": "the model gives NaN"})
        _, lines = post(client, "/answer", LINES, question="Who?", context=MILL)
        assert json.loads(lines.splitlines()[-1]) == {"detail": "the model gives NaN", "status": 500}


def test_a_fault_of_ours_is_no_traceback_in_the_answer(reader, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("a detail of the inside")

    monkeypatch.setattr(reader, "answer_all", broken)
    app = web.make_app(reader, None, tmp_path / "c.json")
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        for headers in ({}, LINES):
            answer = client.post("/answer", json={"question": "Who?", "context": MILL}, headers=headers)
            assert "inside" not in answer.text
            assert "Traceback" not in answer.text


def test_both_languages_say_everything_with_the_same_figures():
    words = json.loads((web.FOLDER / "words.json").read_text(encoding="utf-8"))
    assert words["en"].keys() == words["zh"].keys()
    for name, text in words["en"].items():
        assert text and words["zh"][name]
        fields = [sorted(field for _, field, *_ in Formatter().parse(words[one][name]) if field) for one in words]
        assert fields[0] == fields[1], name
    script = (web.FOLDER / "page.js").read_text() + (web.FOLDER / "page.html").read_text()
    for name in words["en"]:
        assert re.search(rf"\b{name}\b", script), f"{name} is not used"


def test_the_examples_are_ours_and_answered_well(reader):
    predict = load_script("predict.py")
    examples = {example["id"]: example for example in read_examples(predict.SAMPLE_QUESTIONS)}
    for name in predict.PAGE_EXAMPLES:
        example = examples[name]
        assert reader.answer(example["question"], example["context"])["text"] in example["answers"]["text"]
