"""The page in a real browser (Chromium, headless): make test-web. Skipped where Playwright or Chromium is missing."""

import json
import re
import shutil
from collections import Counter

import pytest
from web.serving import BRIDGE, MILL, make_documents, server

from extractive_qa.data.examples import read_examples
from extractive_qa.web import serve

pytest.importorskip("fastapi_offline", reason="needs FastAPI: pip install -r requirements-web.txt")

HOSTILE_TEXT = "what gets into the web page"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
WORDS = json.loads((serve.Path(serve.__file__).parent / "words.json").read_text(encoding="utf-8"))
EN = WORDS["en"]
PHONE = {"width": 390, "height": 844, "has_touch": True, "is_mobile": True}
IN_VIEW = """(() => { const m = document.querySelector('mark.chosen').getBoundingClientRect(),
    p = document.querySelector('.passage').getBoundingClientRect();
    return m.top >= p.top && m.bottom <= p.bottom && m.top >= 0 && m.bottom <= innerHeight })()"""
FIVE = [("Who built the mill?", "Ada Miller"), ("When did it burn down?", "1901"), ("When was the mill built?", "1843"),
        ("Where was the mill?", "Brook"), ("What was the name of the builder?", "Ada Miller")]  # fmt: skip
FILLER = "Nothing happened on this day, and the clerk wrote down the weather. "


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: make test-web")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"needs a browser, one of {', '.join(BROWSERS)} (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(browser, tmp_path_factory):
    """The addresses of a server without and one with a folder of documents, and the home of the second."""
    plain, home = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("home")
    with server(plain) as (first, _), server(home, "--documents", make_documents(home)) as (second, _):
        yield first, second, home


@pytest.fixture
def visit(browser, served):
    """Opens the page in a fresh browser: visit(width, color_scheme=..., locale=...). At the end: nothing was asked of
    any other server, no script of a text ran, and no fault was reported."""
    asked, reported, ran, contexts = [], [], [], []

    def open_page(width=1280, height=860, folder=False, **settings):
        context = browser.new_context(viewport={"width": width, "height": height}, **{"locale": "en-GB"} | settings)
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: reported.append(str(error)))
        # a browser reports every answer that is an error, which the page tells
        tab.on("console", lambda message: reported.append(message.text)
               if message.type == "error" and "Failed to load resource" not in message.text else None)  # fmt: skip
        tab.on("dialog", lambda dialog: (ran.append(dialog.message), dialog.dismiss()))
        tab.goto(served[folder])
        tab.wait_for_selector("main:not([hidden])")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert asked
    assert [url for url in asked if not url.startswith((served[0], served[1], "data:", "blob:"))] == []
    assert ran == []
    assert reported == []


def until(tab, condition: str, value: object = None) -> None:
    """Waits until a JavaScript expression, or a function of `value`, is true. Playwright's own waiting evaluates text
    within the page, which the page's policy forbids."""
    for _ in range(600):
        if tab.evaluate(condition, value):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"not seen within 30 seconds: {condition}")


def ask_in(tab, question: str, text: str | None = None) -> None:
    if text is not None:
        tab.fill("#context", text)
    tab.fill("#question", question)
    tab.press("#question", "Enter")
    until(tab, """question => document.querySelector('#answering').dataset.kind === 'result'
        && document.querySelector('.asked').textContent === question""", question)  # fmt: skip


@pytest.mark.parametrize("settings", [{}, PHONE])
def test_five_questions_in_one_sitting_are_each_marked_and_in_view(visit, settings):
    tab = visit(**settings)
    text = FILLER * 40 + MILL + " " + FILLER * 40
    for number, (question, answer) in enumerate(FIVE):
        ask_in(tab, question, text if number == 0 else None)
        best = tab.inner_text(".best")
        assert answer in best
        assert tab.inner_text("mark.chosen") == best
        until(tab, IN_VIEW)
        assert tab.inner_text(".asked") == question
    assert tab.text_content(".passage") == text
    assert Counter(tab.locator(".chosen").evaluate_all("nodes => nodes.map(n => n.tagName)")) == {
        "MARK": 1,
        "BUTTON": 1,
    }


@pytest.mark.parametrize("settings", [{}, PHONE])
def test_the_folder_is_asked_and_the_source_is_seen(visit, settings):
    tab = visit(folder=True, **settings)
    assert tab.locator("#context").is_hidden()
    for question, answer, place in [("Who built the bridge?", "Tom Mason", "bridge.md, line 3"),
                                    ("Who built the mill?", "Ada Miller", "mill.txt, line 1")]:  # fmt: skip
        ask_in(tab, question)
        assert tab.inner_text(".best") == tab.inner_text("mark.chosen") == answer
        assert tab.inner_text("li:first-child .place") == place
        until(tab, IN_VIEW)
    ask_in(tab, "Who built it?")
    places = tab.locator("li .place").all_inner_texts()
    first, *others = (place.partition(",")[0] for place in places)
    other = tab.locator("li button").nth(1 + next(n for n, name in enumerate(others) if name != first))
    other.click()
    assert tab.text_content(".passage").endswith({"bridge.md": MILL, "mill.txt": BRIDGE}[first])
    assert other.get_attribute("aria-pressed") == "true"
    ask_in(tab, "Xylophones?")
    assert tab.inner_text(".best") == EN["absent_many"]


def drop(tab, *files: tuple[str, bytes]) -> None:
    """Drops files on the page, as a person does with a mouse."""
    data = tab.evaluate_handle(
        """files => { const data = new DataTransfer();
        for (const [name, bytes] of files) data.items.add(new File([new Uint8Array(bytes)], name));
        return data }""",
        [[name, list(content)] for name, content in files],
    )
    tab.dispatch_event("#asking", "drop", {"dataTransfer": data})
    until(tab, "n => document.querySelectorAll('#files li').length === n "
                          "|| document.querySelector('#file-status.failed')", len(files))  # fmt: skip


@pytest.mark.parametrize("folder", [False, True])
def test_several_files_are_dropped_and_asked(visit, folder):
    tab = visit(folder=folder)
    page = f"<title>x</title><script>alert(1)</script><p>{BRIDGE}</p>".encode()
    drop(
        tab, ("mill <b>.txt", MILL.encode()), ("bridge.html", page), ("gbk.txt", "模型在哪里？就在本页。".encode("gbk"))
    )
    assert tab.locator("#files li span").all_inner_texts() == ["mill <b>.txt", "bridge.html", "gbk.txt"]
    ask_in(tab, "Who built the bridge?")
    assert tab.inner_text("mark.chosen") == "Tom Mason"
    assert tab.inner_text("li:first-child .place") == "bridge.html, line 1"
    ask_in(tab, "Who built the mill?")
    assert tab.inner_text("mark.chosen") == "Ada Miller"
    tab.get_by_role("button", name="Remove mill <b>.txt").click()
    assert tab.locator("#files li").count() == 2
    ask_in(tab, "Who built the mill?")
    assert "mill" not in tab.inner_text("#answering ol")


def test_of_large_files_the_best_passages_are_read(visit):
    tab = visit()
    drop(tab, ("a.txt", (FILLER * 2_000).encode()), ("b.txt", (FILLER * 300 + "\n" + MILL + FILLER * 300).encode()))
    ask_in(tab, "Who built the mill?")
    assert tab.inner_text("mark.chosen") == "Ada Miller"
    assert tab.inner_text("li:first-child .place") == "b.txt, line 2"
    until(tab, IN_VIEW)


@pytest.mark.fault(HOSTILE_TEXT)
@pytest.mark.parametrize(
    ("name", "content"), [("x.exe", b"MZ"), ("empty.txt", b""), ("cut <img src=x onerror=alert(1)>.pdf", b"%PDF-1.7 x")]
)
def test_a_file_that_can_not_be_read_is_named(visit, name, content):
    tab = visit()
    drop(tab, (name, content))
    assert tab.inner_text("#file-status").startswith(f"{name}: ")
    assert tab.locator("#files li").count() == 0


def test_a_correction_is_selected_saved_and_can_be_trained_on(visit, served):
    tab = visit(folder=True)
    tab.get_by_text(EN["own_texts"]).click()
    text = f"🏔 {MILL}"
    ask_in(tab, "When was the mill lost?", text)
    tab.click(".correct")
    assert tab.locator(".save").is_disabled()
    tab.evaluate("""() => { const node = [...document.querySelector('.passage').childNodes].find(n =>
        n.textContent.includes('never rebuilt')); const text = node.firstChild ?? node;
        const start = text.data.indexOf('never rebuilt');
        getSelection().setBaseAndExtent(text, start - 1, text, start + 13) }""")
    until(tab, "document.querySelector('.save').textContent.includes('never rebuilt')")
    tab.click(".save")
    tab.wait_for_selector(".correction [role=status]")
    assert "corrections.json (1 so far)" in tab.inner_text(".correction")
    (example,) = read_examples(served[2] / "corrections.json")
    assert example["question"] == "When was the mill lost?"
    assert example["context"] == text
    assert example["answers"] == {"text": ["never rebuilt"], "answer_start": [text.index("never rebuilt")]}
    # or one of the answers is the right one, which needs no mouse
    ask_in(tab, "When was it made?")
    tab.click(".correct")
    second = tab.locator("li button").nth(1)
    said = second.locator(".text").inner_text()
    second.press("Enter")
    tab.press(".save", "Enter")
    tab.wait_for_selector(".correction [role=status]")
    saved = {
        example["question"]: example["answers"]["text"] for example in read_examples(served[2] / "corrections.json")
    }
    assert saved["When was it made?"] == [said]


def test_a_long_text_shows_how_far_it_is_and_can_be_stopped(visit):
    tab = visit()
    tab.fill("#context", FILLER * 2_000)
    tab.fill("#question", "Who built the mill?")
    tab.click("#ask")
    until(tab, "/Reading: [1-9]\\d* of \\d+ windows/.test(document.querySelector('#answering').innerText)")
    assert tab.locator("progress").get_attribute("max")
    tab.press("#question", "Enter")  # one question at a time
    tab.click("#stop")
    tab.wait_for_selector(".problem")
    assert tab.inner_text(".problem") == EN["stopped"]
    ask_in(tab, "Who built the mill?", MILL)
    assert tab.inner_text("mark.chosen") == "Ada Miller"


def test_an_answer_that_is_not_there(visit):
    tab = visit()
    ask_in(tab, "How many passengers fit into the aeroplane?", MILL)
    assert tab.inner_text(".best") == EN["absent"]
    assert tab.locator("li button").count() >= 1  # the candidates stay to be seen


def test_the_examples_are_asked_with_their_texts(visit):
    tab = visit()
    for number in range(tab.locator("#examples button").count()):
        example = tab.locator("#examples button").nth(number)
        example.click()
        until(tab, """question => document.querySelector('#answering').dataset.kind === 'result'
            && document.querySelector('.asked').textContent === question""", example.inner_text())  # fmt: skip
        assert tab.inner_text(".best") == tab.inner_text("mark.chosen")
        until(tab, IN_VIEW)


def test_the_keyboard_is_enough(visit):
    """Tab from the top: language, text, files, question. Enter asks; on to the text and the answers."""
    tab = visit()
    outline = """(n => getComputedStyle(n.matches('[type=radio], [type=file]') ? n.closest('label') : n).outlineStyle)(
        document.activeElement)"""
    order = []
    for _ in range(6):
        tab.keyboard.press("Tab")
        order.append(tab.evaluate("document.activeElement.name || document.activeElement.id"))
        assert tab.evaluate(outline) == "solid", order
        if order[-1] == "context":
            tab.keyboard.type(MILL)
        if order[-1] == "question":
            tab.keyboard.type("When did it burn down?")
            tab.keyboard.press("Enter")
            break
    assert order == ["language", "context", "file", "question"]
    tab.wait_for_selector("mark.chosen")
    assert "1901" in tab.inner_text(".best")
    reached = []
    for _ in range(12):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.className || document.activeElement.dataset.answer"))
    assert {"passage", "correct", "chosen"} <= set(reached)


def test_every_field_has_a_name(visit):
    tab = visit()
    tab.get_by_label("Text", exact=True).fill(MILL)
    tab.get_by_label("Question", exact=True).fill("Who built it?")
    tab.get_by_role("button", name="Ask", exact=True).click()
    tab.wait_for_selector("mark.chosen")
    assert tab.get_by_role("radio", name="English").is_checked()
    assert tab.get_by_label(EN["file"]).count() == 1
    assert tab.get_by_role("region", name=EN["passage"]).count() == 1


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("settings", [{}, {"color_scheme": "dark"}, {"locale": "zh-CN"}])
def test_on_a_phone_nothing_sticks_out(visit, settings, folder):
    tab = visit(folder=folder, **PHONE, **settings)
    tab.locator("#examples button").first.tap()
    tab.wait_for_selector("mark.chosen")
    until(tab, "document.querySelector('#answering').getBoundingClientRect().top < innerHeight * 0.6")
    tab.tap(".correct")
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    boxes = tab.evaluate("""[...document.querySelectorAll('main *')].filter(n => n.checkVisibility()).map(n =>
        [n.tagName + n.id, n.getBoundingClientRect().left, n.getBoundingClientRect().right])""")
    assert [box for box in boxes if box[1] < 0 or box[2] > 390] == []


def luminance(colour: str) -> float:
    """Relative luminance of rgb(r, g, b), WCAG 2.1."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_in_light_and_dark(visit, scheme):
    """Contrast of at least 4.5 to 1 (WCAG 2.1 AA) between every text and what it stands on."""
    tab = visit(folder=True, color_scheme=scheme)
    ask_in(tab, "Who built the mill?")
    tab.click(".correct")
    tab.mouse.move(0, 0)
    texts = tab.evaluate("""[...document.querySelectorAll('main *:not(:disabled)')].filter(n => n.checkVisibility() &&
        [...n.childNodes].some(c => c.nodeType === 3 && c.data.trim())).map(n => {
            let m = n; while (getComputedStyle(m).backgroundColor === 'rgba(0, 0, 0, 0)') m = m.parentElement;
            return [n.innerText.slice(0, 30), getComputedStyle(n).color, getComputedStyle(m).backgroundColor] })""")
    assert len(texts) > 15
    for text, *colours in texts:
        dark, light = sorted(map(luminance, colours))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, colours)
    assert (luminance(tab.evaluate("getComputedStyle(document.body).backgroundColor")) < 0.2) is (scheme == "dark")


def test_the_browser_s_language_and_the_switch(visit):
    tab = visit(locale="zh-CN")
    assert tab.evaluate("document.documentElement.lang") == "zh"
    ask_in(tab, "Who built the mill?", MILL)
    for name in ("context", "question", "ask", "examples", "file", "answer", "confidence", "correct"):
        assert WORDS["zh"][name] in tab.inner_text("main")
    assert "英语" in tab.inner_text("header")  # what the model knows
    tab.get_by_text("English", exact=True).click()
    assert tab.evaluate("document.documentElement.lang") == "en"
    shown = tab.inner_text("main").replace("中文", "")
    assert not re.search("[\u4e00-\u9fff]", shown)
    assert "Ada Miller" in tab.inner_text(".best")  # what was found stays
    assert "The model knows: English." in shown
    assert visit(locale="fr-FR").inner_text("#ask") == EN["ask"]


@pytest.mark.fault(HOSTILE_TEXT)
@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "${alert(1)}",
    "{{constructor.constructor('alert(1)')()}}", "</div><svg onload=alert(1)>", "`${alert(1)}`", "&lt;script&gt;",
    "<iframe src='javascript:alert(1)'></iframe>", "<a href='javascript:alert(1)' autofocus onfocus=alert(1)>x</a>",
    "<style>body{display:none}</style>", "<base href='http://192.0.2.1/'>"])  # fmt: skip
def test_no_script_in_a_text_runs(visit, hostile):
    text = f"Ada {hostile} won {hostile}."
    tab = visit()
    ask_in(tab, f"Who won {hostile}?", text)
    tab.wait_for_timeout(100)
    assert tab.text_content(".passage") == text
    assert tab.locator("#answering").locator("script, img, svg, iframe, a, style, base").count() == 0


def test_nothing_to_ask_is_a_message_in_the_page(visit):
    tab = visit()
    tab.click("#ask")
    assert tab.inner_text("[role=alert]") == EN["no_question"]
    tab.fill("#question", "Who?")
    tab.click("#ask")
    assert tab.inner_text("[role=alert]") == EN["no_context"]
    tab.fill("#context", "a " * 150_000)
    tab.click("#ask")
    assert tab.inner_text("[role=alert]").startswith("The text is too long: 300,000")
    ask_in(tab, "Who?", MILL)


def test_nothing_is_kept_in_the_browser(visit):
    tab = visit()
    ask_in(tab, "Who?", MILL)
    assert tab.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])") == '[{},{},""]'
    assert tab.evaluate("indexedDB.databases()") == []


def test_the_interface_is_described_without_the_internet(visit):
    tab = visit()
    tab.click("footer a")
    tab.wait_for_selector("#operations-default-answer_answer_post")
    assert tab.locator(".opblock").count() == 5
