"""What the web page's server can be asked, by whom. Needs no Gradio: what stands behind the gate here answers all."""

import asyncio

import pytest

from extractive_qa.web.request_filter import MAX_BODY, RequestFilter, refusal

INTO_THE_PAGE = "a way into the web page's server"
HOST = {"host": "127.0.0.1:7860"}
JOIN = "/gradio_api/queue/join"
SENT = HOST | {"content-length": "2"}
NAMES = frozenset({"mymachine"})


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", HOST), ("HEAD", "/", HOST), ("GET", "/page.js", HOST), ("GET", "/theme.css", HOST),
        ("GET", "/assets/index-Ab_1.js", HOST), ("GET", "/assets/a.module.css", HOST), ("POST", JOIN, SENT),
        ("GET", "/static/js/iframeResizer.contentWindow.min.js", HOST), ("GET", "/gradio_api/queue/data", HOST),
        ("GET", "/gradio_api/heartbeat/4x9", HOST),
        ("GET", "/", {"host": "localhost:9000"}), ("GET", "/", {"host": "[::1]:7860"}),
        ("GET", "/", {"host": "MyMachine"}),
        ("GET", "/", {"host": "192.168.1.5:7860"}), ("GET", "/", {"host": "127.0.0.1"}),
        ("POST", JOIN, SENT | {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}),
        ("POST", JOIN, SENT | {"host": "localhost:9000", "origin": "http://localhost:9000"}),
        # a link on another site may open the page, as a bookmark does
        ("GET", "/", HOST | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),
    ],
)  # fmt: skip
def test_the_page_gets_what_it_needs(method, path, headers):
    assert refusal(method, path, headers, NAMES) is None


@pytest.mark.fault(INTO_THE_PAGE)
@pytest.mark.parametrize(
    ("status", "method", "path", "headers"),
    [
        # files, and addresses that are fetched for a visitor
        (404, "GET", "/gradio_api/file=/etc/passwd", HOST), (404, "GET", "/file=/etc/passwd", HOST),
        (404, "GET", "/gradio_api/file/etc/passwd", HOST), (404, "GET", "/gradio_api/file=http://192.0.2.1/", HOST),
        (404, "GET", "/gradio_api/proxy=http://192.0.2.1/", HOST), (404, "GET", "/static/../../x", HOST),
        (404, "GET", "/assets/..", HOST), (404, "GET", "/assets/../x", HOST), (404, "GET", "/assets/a/../../x", HOST),
        (404, "GET", "/static/js/..%2f..%2fx", HOST), (404, "GET", "//etc/passwd", HOST), (404, "GET", "/\n", HOST),
        (404, "GET", "/assets/x\n", HOST), (404, "GET", "/svelte/x", HOST), (404, "GET", "/gradio_api/deep_link", HOST),
        (404, "GET", "/custom_component/x/client/component/index.js", HOST),
        # uploads, and calls past the queue
        (404, "POST", "/gradio_api/upload", SENT), (404, "POST", "/gradio_api/run/predict", SENT),
        (404, "POST", "/gradio_api/call/predict", SENT), (404, "POST", "/gradio_api/api/predict", SENT),
        (404, "POST", "/gradio_api/vibe-edit/", SENT), (404, "POST", "/gradio_api/component_server", SENT),
        (404, "POST", "/login", SENT), (404, "POST", "/", SENT),
        # what it tells about itself
        (404, "GET", "/gradio_api/info", HOST), (404, "GET", "/gradio_api/openapi.json", HOST),
        (404, "GET", "/docs", HOST),
        (404, "GET", "/openapi.json", HOST), (404, "GET", "/config", HOST), (404, "GET", "/monitoring", HOST),
        (404, "GET", "/gradio_api/runs", HOST), (404, "GET", "/gradio_api/mcp/sse", HOST),
        # a foreign name for this machine
        (421, "GET", "/", {"host": "evil.example"}), (421, "GET", "/", {"host": "evil.example:7860"}),
        (421, "GET", "/", {}),
        (421, "GET", "/", {"host": "127.0.0.1.evil.example"}), (421, "GET", "/", {"host": "localhost.evil.example"}),
        (421, "GET", "/", {"host": "evil.example@127.0.0.1@x"}), (421, "GET", "/", {"host": "[::1"}),
        (421, "POST", JOIN, SENT | {"host": "evil.example", "origin": "http://evil.example"}),
        # other web sites
        (403, "POST", JOIN, SENT | {"origin": "http://evil.example"}), (403, "POST", JOIN, SENT | {"origin": "null"}),
        (403, "POST", JOIN, SENT | {"origin": "http://["}), (403, "GET", "/", HOST | {"origin": "http://[::1"}),
        (403, "POST", JOIN, SENT | {"origin": "http://127.0.0.1:9999"}), (403, "POST", JOIN, SENT | {"origin": ""}),
        (403, "POST", JOIN, SENT | {"origin": "http://localhost:7860"}), (403, "GET", "/", HOST | {"origin": "http://x"}),
        (403, "GET", "/page.js", HOST | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}),
        (403, "GET", "/gradio_api/queue/data", HOST | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),
        (403, "OPTIONS", JOIN, SENT | {"origin": "http://evil.example"}),
        # other methods, and sizes
        (405, "PUT", "/", SENT), (405, "OPTIONS", JOIN, HOST), (405, "TRACE", "/", HOST), (411, "POST", JOIN, HOST),
        (411, "POST", JOIN, HOST | {"transfer-encoding": "chunked"}),
        (411, "POST", JOIN, HOST | {"content-length": "-1"}),
        (411, "POST", JOIN, HOST | {"content-length": "²"}),
        (413, "POST", JOIN, HOST | {"content-length": str(MAX_BODY + 1)}),
    ],
)  # fmt: skip
def test_everything_else_is_refused(status, method, path, headers):
    assert refusal(method, path, headers, NAMES)[0] == status


@pytest.mark.parametrize(
    "body", [b'{"data": ["Who?", "", null]}', b'{"data": [], "fn_index": 1}', '{"data": ["书"]}'.encode()]
)
def test_texts_are_let_through_as_they_were_sent(body):
    assert through_the_gate(JOIN, method="POST", body=body)[::2] == (200, PAGE + b"deep_link=x" + body)


FILE = b'{"path": "x", "url": "http://192.0.2.1/x", "meta": {"_type": "gradio.FileData"}}'


@pytest.mark.fault(INTO_THE_PAGE)
@pytest.mark.parametrize(
    "body",
    [b'{"data": [%s]}' % FILE, b'{"data": ["Who?", [%s]]}' % FILE, b'{"data": [1]}', b'{"data": [true]}',
     b'{"data": "x"}', b'{"data": %s}' % FILE, b"{}", b"[]", b"", b"x",
     b'{"data": ["\xff"]}', b'{"data": ["x"], "data": [%s]}' % FILE,
     b'{"data": [' + b"[" * 100_000, '{"data": ["x"]}'.encode("utf-16")],
)  # fmt: skip
def test_anything_else_in_place_of_a_text_is_refused(body):
    assert through_the_gate(JOIN, method="POST", body=body)[0] == 400


PAGE = (
    b'<head><meta property="og:image"\n content="https://elsewhere.example/a.jpg"/><link rel="manifest" href="/m" />'
    b'<script>1</script><script src="a.js"></script></head>'
)


async def behind(scope, receive, send):
    """An application that lets every web site in and answers everything, in two pieces, with what it was sent."""
    headers = [(b"access-control-allow-origin", b"*"), (b"Content-Length", str(len(PAGE)).encode()), (b"x-own", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    assert not any(name == b"accept-encoding" for name, _ in scope["headers"]) or scope["path"] != "/"
    await send({"type": "http.response.body", "body": PAGE[:70], "more_body": True})
    sent = (await receive())["body"]
    await send({"type": "http.response.body", "body": PAGE[70:] + scope["query_string"] + sent})


def through_the_gate(path="/", host=b"127.0.0.1", method="GET", body=b"") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of what comes back."""
    sent = []
    pieces = [{"type": "http.request", "body": body[5:]}, {"type": "http.request", "body": body[:5], "more_body": True}]

    async def receive():
        return pieces.pop() if method == "POST" else {"type": "http.request", "body": body}

    async def send(message):
        sent.append(message)

    length = (b"content-length", str(len(body)).encode())
    scope = {"type": "http", "method": method, "path": path, "query_string": b"deep_link=x",
             "headers": [(b"host", host), (b"accept-encoding", b"br"), length]}  # fmt: skip
    asyncio.run(RequestFilter(behind)(scope, receive, send))
    headers = [(name.decode().lower(), value.decode()) for name, value in sent[0]["headers"]]
    assert len(dict(headers)) == len(headers), headers
    return sent[0]["status"], dict(headers), b"".join(message["body"] for message in sent[1:])


@pytest.mark.parametrize("path", ["/", "/page.js", "/gradio_api/info"])
def test_every_answer_carries_the_policy_and_lets_no_other_site_in(path):
    _, headers, _ = through_the_gate(path)
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert "http" not in policy  # no other site is named
    assert headers["x-frame-options"] == "DENY"
    assert not any(name.startswith("access-control") for name in headers)


def test_the_page_s_own_scripts_run_and_nothing_of_other_sites_is_named():
    status, headers, body = through_the_gate()
    nonce = headers["content-security-policy"].partition("'nonce-")[2].partition("'")[0]
    assert status == 200
    assert len(nonce) >= 16
    assert (
        body == f'<head><script nonce="{nonce}">1</script><script nonce="{nonce}" src="a.js"></script></head>'.encode()
    )
    assert int(headers["content-length"]) == len(body)
    assert headers["x-own"] == "1"
    assert nonce not in through_the_gate()[1]["content-security-policy"]  # another each time


def test_other_answers_are_passed_on_as_they_are():
    status, _, body = through_the_gate("/page.js")
    assert (status, body) == (200, PAGE + b"deep_link=x")


def test_a_refusal_says_why_and_asks_nothing_behind():
    status, headers, body = through_the_gate(host=b"evil.example")
    assert status == 421
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert b"--host" in body
