"""The web page as it is served, and as it is seen in a real browser (Chromium, headless): make test-web.

Skipped where Gradio is missing (requirements-web.txt); the tests in the browser where Playwright or Chromium is.
"""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from scripts import PROJECT_ROOT

from extractive_qa.web import page
from extractive_qa.web.request_filter import MAX_BODY
from utils.offline import SAMPLE_MODEL_DIR, SWITCHES

pytest.importorskip("gradio", reason="needs Gradio: pip install -r requirements-web.txt")
from starlette.testclient import TestClient

INTO_THE_PAGE = "a way into the web page's server"
HOSTILE_TEXT = "what gets into the web page"
NO_NETWORK = "network that must not be used"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
# a script under the tests' hook on sockets, which says at the end what was tried
GUARDED = """
import atexit, runpy, sys
sys.path.insert(0, {tests!r})
import network_guard
atexit.register(lambda: print("ATTEMPTS", network_guard.attempts, file=sys.stderr))
sys.argv = sys.argv[1:]
sys.path[0] = {root!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
TEXT = "The mill at Brook was built by Ada Miller in 1843. It burnt down in 1901 and was never rebuilt."


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of `predict.py web` with the bundled model, and a fresh home that it can write to; everything that
    could lead it to the network is set. At the end it must not have tried, and must leave quietly."""
    home = tmp_path_factory.mktemp("home")
    code = GUARDED.format(tests=str(PROJECT_ROOT / "tests"), root=str(PROJECT_ROOT))
    command = [sys.executable, "-c", code, PROJECT_ROOT / "predict.py", "web", "--port", "0", "--model_dir"]
    kept = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    environment = kept | {
        "HOME": str(home), "USERPROFILE": str(home), "TMPDIR": str(home), "TEMP": str(home), "TMP": str(home),
        "HTTP_PROXY": "http://192.0.2.1:9", "HTTPS_PROXY": "http://192.0.2.1:9", "ALL_PROXY": "http://192.0.2.1:9",
        "GRADIO_ANALYTICS_ENABLED": "True", "GRADIO_SHARE": "True", "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_MCP_SERVER": "True", "GRADIO_ALLOWED_PATHS": "/", "GRADIO_SSR_MODE": "True", "HF_HUB_OFFLINE": "0",
        "PYTHONIOENCODING": "utf-8",
    }  # fmt: skip
    server = subprocess.Popen(
        [*map(str, command), str(SAMPLE_MODEL_DIR)], env=environment, cwd=home, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip
    try:
        address = server.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), server.communicate(timeout=60)
        yield address, home
        if os.name == "posix":
            server.send_signal(signal.SIGINT)
            errors = server.communicate(timeout=60)[1]
            assert server.returncode == 130, errors
            assert "ATTEMPTS []" in errors
            assert "Traceback" not in errors
    finally:
        server.kill()
        server.communicate(timeout=60)


def request(url: str, data: bytes | None = None, **headers) -> tuple[int, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json"} | named)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(asked, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def asking(config: dict) -> dict:
    """Of Gradio's settings, the event that asks: question, text and language in, state and panel out."""
    return next(event for event in config["dependencies"] if len(event["inputs"]) == 3)


def config_of(html: str) -> dict:
    return json.loads(re.search(r"window\.gradio_config = (\{.*?\});</script>", html, re.DOTALL)[1])


def submit(address: str, data: list, session: str) -> str:
    """What the server's queue answers to one question: Gradio's stream of events."""
    event = asking(config_of(request(f"{address}/")[1].decode()))
    body = json.dumps({"data": data, "fn_index": event["id"], "session_hash": session}).encode()
    status, answer = request(f"{address}/gradio_api/queue/join", body)
    assert status == 200, answer
    return request(f"{address}/gradio_api/queue/data?session_hash={session}")[1].decode()


# ---- the server


def test_a_question_is_answered_through_the_queue(served):
    assert "Ada Miller" in submit(served[0], ["Who built the mill?", TEXT, "en"], "s1")


@pytest.mark.fault(INTO_THE_PAGE)
@pytest.mark.parametrize(
    "path",
    ["/gradio_api/file=/etc/passwd", "/gradio_api/file=requirements.txt", "/gradio_api/info", "/docs", "/config",
     "/gradio_api/openapi.json", "/openapi.json", "/gradio_api/proxy=http://192.0.2.1/", "/assets/..%2findex.html",
     "/static/%2e%2e/%2e%2e/routes.py", "/gradio_api/runs", "/monitoring", "/gradio_api/mcp/sse"],
)  # fmt: skip
def test_the_server_gives_no_files_and_does_not_describe_itself(served, path):
    status, body = request(served[0] + path)
    assert (status, body) == (404, b"There is nothing here.")


@pytest.mark.fault(INTO_THE_PAGE)
@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "evil.example"}, 421), ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403),
     ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors"}, 403)],
)  # fmt: skip
def test_other_web_sites_are_refused(served, headers, status):
    for path, data in (("/gradio_api/queue/join", b"{}"), ("/", None)):
        assert request(served[0] + path, data, **headers)[0] == status


@pytest.mark.fault(INTO_THE_PAGE)
def test_nothing_can_be_uploaded_and_what_is_sent_is_limited(served):
    assert request(f"{served[0]}/gradio_api/upload", b"x")[0] == 404
    connection = http.client.HTTPConnection(served[0].removeprefix("http://"), timeout=60)
    connection.putrequest("POST", "/gradio_api/queue/join")
    connection.putheader("Content-Length", str(MAX_BODY + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413  # before any of it is sent
    connection.close()


@pytest.mark.fault(INTO_THE_PAGE)
@pytest.mark.parametrize("place", ["/etc/passwd", "http://192.0.2.1/x"])
def test_a_file_in_place_of_a_text_is_not_opened(served, place):
    """Gradio would fetch it from its address. That the server tried to reach none is seen when it ends: `served`."""
    file = {"path": place, "url": place, "orig_name": "x", "meta": {"_type": "gradio.FileData"}}
    event = asking(config_of(request(f"{served[0]}/")[1].decode()))["id"]
    for data in ([file, TEXT, "en"], ["Who?", file, "en"], ["Who?", TEXT, file]):
        body = json.dumps({"data": data, "fn_index": event, "session_hash": "f"}).encode()
        assert request(f"{served[0]}/gradio_api/queue/join", body)[0] == 400


@pytest.mark.fault(INTO_THE_PAGE)
def test_the_limits_hold_on_the_server_too(served):
    answer = submit(served[0], ["Who?", "a " * page.MAX_CONTEXT, "en"], "long")
    assert "The text is too long: 400,000 characters, at most 200,000." in answer


def test_it_listens_on_this_machine_alone(served):
    """GRADIO_SERVER_NAME says otherwise, and is not asked."""
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    if not all(table.exists() for table in tables):
        pytest.skip("needs /proc/net/tcp (Linux)")
    port = f":{int(served[0].rpartition(':')[2]):04X}"
    lines = "".join(table.read_text() for table in tables)
    listening = [line.split()[1] for line in lines.splitlines() if line.split()[3] == "0A" and port in line.split()[1]]
    assert listening == [f"0100007F{port}"]


def test_nothing_that_the_page_names_is_elsewhere(served):
    html = request(f"{served[0]}/")[1].decode()
    outside = config_of(html)
    assert outside["analytics_enabled"] is False
    assert outside["stylesheets"] == []
    links = re.findall(r"""(?:src|href|content|action)\s*=\s*["'](https?:)?//[^"']*""", html)
    assert links == []
    assert not re.findall(r"url\(\s*['\"]?(?:https?:)?//", html + request(f"{served[0]}/theme.css")[1].decode())


class OwnReader:
    """Answers with what `answer` gives, called anew for each question."""

    model_dir = PROJECT_ROOT

    def __init__(self, answer):
        self.answer = answer
        self.backend = SimpleNamespace(precision="no", describe=lambda: "a test")

    def answer_all(self, examples, top_k):
        yield self.answer()

    def unknown_share(self, text):
        return 0.0


def with_reader(answer):
    """The page with an OwnReader, served within this process, and what Gradio needs to be asked a question."""
    client = TestClient(page.make_app(page.build(OwnReader(answer), [])), base_url="http://127.0.0.1")
    body = {"data": ["Who?", TEXT, "en"], "fn_index": asking(config_of(client.get("/").text))["id"]}
    return client, body


@pytest.mark.fault(INTO_THE_PAGE)
def test_the_queue_is_limited():
    """While a question is answered, MAX_WAITING others wait; all further ones are refused with a message."""
    go_on = threading.Event()

    def answer():
        assert go_on.wait(60)
        return [{"text": "The", "start": 0, "end": 3, "probability": 1.0, "answerable": None}]

    client, body = with_reader(answer)

    def join(number):
        return client.post("/gradio_api/queue/join", json=body | {"session_hash": f"q{number}"})

    with client, ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(join, range(page.MAX_WAITING + 20)))
        go_on.set()
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 18 <= len(refused) <= 20  # one or two are with the model
    assert all("full" in answer.text.lower() for answer in refused)


def test_a_fault_of_ours_is_no_traceback_in_the_page():
    def answer():
        raise RuntimeError("a detail of the inside")

    client, body = with_reader(answer)
    with client:
        assert client.post("/gradio_api/queue/join", json=body | {"session_hash": "f"}).status_code == 200
        told = client.get("/gradio_api/queue/data?session_hash=f").text
    assert '"success":false' in told
    assert "Traceback" not in told
    assert "inside" not in told


# ---- the browser


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


@pytest.fixture
def visit(browser, served):
    """Opens the page in a fresh browser: visit(width, color_scheme=..., locale=...). At the end: nothing was asked of
    any other server, no script of a text ran, and no fault was reported."""
    asked, reported, ran, contexts = [], [], [], []

    def open_page(width=1280, height=860, **settings):
        context = browser.new_context(viewport={"width": width, "height": height}, **{"locale": "en-GB"} | settings)
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: reported.append(str(error)))
        tab.on("console", lambda message: reported.append(message.text) if message.type == "error" else None)
        tab.on("dialog", lambda dialog: (ran.append(dialog.message), dialog.dismiss()))
        tab.goto(served[0])
        tab.wait_for_function("document.querySelector('#heading[data-spoken]') && document.documentElement.lang && "
                              "document.querySelector('#answer[aria-live]')")  # fmt: skip
        tab.wait_for_load_state("load")
        tab.wait_for_function("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert asked
    assert [url for url in asked if not url.startswith((served[0], "data:"))] == []
    assert ran == []
    assert reported == []


def ask_in(tab, question: str, text: str | None = None) -> None:
    if text is not None:
        tab.fill("#context textarea", text)
    tab.fill("#question input", question)
    tab.click("#ask")
    tab.wait_for_selector("#answer .result")


def test_type_ask_and_see_the_answer_marked_in_its_text(visit):
    tab = visit()
    ask_in(tab, "Who built the mill?", TEXT)
    best = tab.inner_text("#answer .best")
    assert "Ada Miller" in best
    assert tab.inner_text("#answer mark[data-answer='1']") == best
    assert tab.inner_text("#answer .passage").strip() == TEXT
    assert "chosen" in tab.get_attribute("#answer mark[data-answer='1']", "class")
    assert tab.get_attribute("#answer li:first-child .bar", "style").startswith("--share: 0.")
    assert re.search(r"\d\.\d\d s · .*sample · CPU", tab.inner_text("#answer .facts"))


def test_the_keyboard_is_enough(visit):
    """Tab from the top: language, text, file, question. Enter asks; on to the answers and the text below."""
    tab = visit()
    focused = "document.activeElement.closest('[id]:not([id^=component])')?.id || document.activeElement.className"
    outline = """(n => getComputedStyle(n.matches('[type=radio], [type=file]') ? n.closest('label') : n).outlineStyle)(
        document.activeElement)"""
    order = []
    for _ in range(20):
        tab.keyboard.press("Tab")
        order.append(tab.evaluate(focused))
        assert tab.evaluate(outline) == "solid", order
        if order[-1] == "context":
            tab.keyboard.type(TEXT)
        if order[-1] == "question":
            tab.keyboard.type("When did it burn down?")
            tab.keyboard.press("Enter")
            break
    assert list(dict.fromkeys(order)) == ["language", "context", "file", "question"]
    tab.wait_for_selector("#answer .result")
    assert "1901" in tab.inner_text("#answer .best")
    for _ in range(20):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.className") == "passage":
            break
    else:
        raise AssertionError("the text with the answer is not reached")
    assert tab.evaluate("document.activeElement.getAttribute('aria-label')") == page.WORDS["en"]["passage"]


def test_every_field_has_a_name(visit):
    tab = visit()
    tab.get_by_label("Text", exact=True).fill(TEXT)
    tab.get_by_label("Question", exact=True).fill("Who built it?")
    tab.get_by_role("button", name="Ask", exact=True).click()
    tab.wait_for_selector("#answer .result")
    assert tab.get_by_role("radio", name="English").is_checked()
    assert tab.get_by_label("Open a .txt file").count() == 1


@pytest.mark.parametrize("settings", [{}, {"color_scheme": "dark"}, {"locale": "zh-CN"}])
def test_on_a_phone_nothing_sticks_out(visit, settings):
    tab = visit(390, 844, has_touch=True, is_mobile=True, **settings)
    tab.locator("#examples button").first.tap()
    tab.wait_for_selector("#answer .result")
    tab.wait_for_function("document.querySelector('#answer').getBoundingClientRect().top < innerHeight * 0.6")
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
    tab = visit(color_scheme=scheme)
    ask_in(tab, "Who built the mill?", TEXT)
    tab.mouse.move(0, 0)
    texts = tab.evaluate("""[...document.querySelectorAll('main *')].filter(n => n.checkVisibility() &&
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
    tab.wait_for_function("document.documentElement.lang === 'zh'")
    ask_in(tab, "Who built the mill?", TEXT)
    words = page.WORDS["zh"]
    for name in ("context", "question", "ask", "examples", "file", "answer", "confidence"):
        assert words[name] in tab.inner_text("main")
    tab.get_by_text("English", exact=True).click()
    tab.wait_for_function("document.documentElement.lang === 'en'")
    shown = tab.inner_text("main").replace("中文", "")
    assert not re.search("[\u4e00-\u9fff]", shown)
    assert "Ada Miller" in tab.inner_text("#answer .best")  # what was found stays


@pytest.mark.fault(HOSTILE_TEXT)
@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "${alert(1)}",
    "{{constructor.constructor('alert(1)')()}}", "</div><svg onload=alert(1)>", "`${alert(1)}`", "&lt;script&gt;",
    "<iframe src='javascript:alert(1)'></iframe>", "<a href='javascript:alert(1)' autofocus onfocus=alert(1)>x</a>",
    "<style>body{display:none}</style>", "<base href='http://192.0.2.1/'>"])  # fmt: skip
def test_no_script_in_a_text_runs(visit, hostile):
    text = f"Ada {hostile} won {hostile}."
    tab = visit()
    ask_in(tab, f"Who won {hostile}?", text)
    tab.wait_for_timeout(200)
    assert tab.text_content("#answer .passage") == text
    assert tab.locator("#answer").locator("script, img, svg, iframe, a, style, base").count() == 0


def test_a_long_text_scrolls_to_its_answer(visit):
    tab = visit()
    filler = "Nothing happened on this day, and the clerk wrote down the weather. " * 300
    ask_in(tab, "Who built the mill?", f"{filler}{TEXT} {filler}")
    tab.wait_for_selector("#answer mark.chosen")
    assert "Ada Miller" in tab.inner_text("#answer .best")
    inside = """(() => { const m = document.querySelector('#answer mark.chosen').getBoundingClientRect(),
        p = document.querySelector('#answer .passage').getBoundingClientRect();
        return m.top >= p.top && m.bottom <= p.bottom })()"""
    assert tab.evaluate(inside)
    assert tab.evaluate("document.querySelector('#answer .passage').scrollTop") > 1000


def test_another_answer_is_shown_where_it_stands(visit):
    tab = visit()
    tab.locator("#examples button").first.click()
    tab.wait_for_selector("#answer .result")
    tab.locator("#answer li button").nth(1).click()
    assert tab.locator("#answer mark.chosen").get_attribute("data-answer") == "2"
    assert tab.locator("#answer li button").nth(1).get_attribute("aria-pressed") == "true"


@pytest.mark.fault(HOSTILE_TEXT)
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("Büch 书 <img src=x onerror=alert(1)>.txt", b"\xef\xbb\xbf" + TEXT.encode(), None),
        ("gbk.txt", "模型在哪里".encode("gbk"), "not_utf8"),
        ("utf16.txt", "Ada won.".encode("utf-16"), "not_utf8"),
        ("utf16le.txt", "Ada won.".encode("utf-16-le"), "not_utf8"),
        ("large.txt", b"a" * (page.MAX_FILE + 1), "too_large"),
    ],
)
def test_a_file_is_opened_or_refused_by_name(visit, tmp_path, name, content, says):
    tab = visit()
    tab.set_input_files("#file", {"name": name, "mimeType": "text/plain", "buffer": content})
    tab.wait_for_function("name => document.querySelector('#file-status').textContent.includes(name)", arg=name)
    assert tab.inner_text("#file-status") == (f"{name}: {page.WORDS['en'][says]}" if says else name)
    assert tab.input_value("#context textarea") == ("" if says else TEXT)
    if not says:
        ask_in(tab, "Who built the mill?")
        assert "Ada Miller" in tab.inner_text("#answer .best")


def test_nothing_to_ask_is_a_message_in_the_page(visit):
    tab = visit()
    tab.click("#ask")
    tab.wait_for_selector("#answer [role='alert']")
    assert tab.inner_text("#answer [role='alert']") == page.WORDS["en"]["no_question"]
    ask_in(tab, "Who?", TEXT)
    tab.wait_for_selector("#answer .best")  # and the next question is answered


@pytest.mark.fault(NO_NETWORK)
def test_what_is_kept_on_disk_is_nothing_of_the_user_s(visit, served):
    tab = visit()
    secret = "Xylophone-4711"
    ask_in(tab, "Who?", f"{TEXT} {secret}")
    files = [path for path in served[1].rglob("*") if path.is_file()]
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
    assert tab.evaluate("JSON.stringify([localStorage, document.cookie])").find(secret) == -1
    assert tab.evaluate("indexedDB.databases()") == []
