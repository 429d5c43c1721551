"""Who may ask the server at all. What stands behind the filter here answers everything."""

import asyncio

import pytest

from extractive_qa.web.request_filter import COOKIE, MAX_BODY, RequestFilter, refusal

INTO_THE_PAGE = "a way into the web page's server"
HOST = {"host": "127.0.0.1:7860"}
ANSWER = "/answer"
SENT = HOST | {"content-length": "2"}
NAMES = frozenset({"mymachine"})
TOKEN = "s3cret-token"


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", HOST), ("HEAD", "/", HOST), ("GET", "/page.js", HOST), ("GET", "/docs", HOST),
        ("POST", ANSWER, SENT),
        ("GET", "/", {"host": "localhost:9000"}), ("GET", "/", {"host": "[::1]:7860"}),
        ("GET", "/", {"host": "MyMachine"}),
        ("GET", "/", {"host": "192.168.1.5:7860"}), ("GET", "/", {"host": "127.0.0.1"}),
        ("POST", ANSWER, SENT | {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}),
        ("POST", ANSWER, SENT | {"host": "localhost:9000", "origin": "http://localhost:9000"}),
        # a link on another site may open the page, as a bookmark does
        ("GET", "/", HOST | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),
    ],
)  # fmt: skip
def test_the_page_and_programs_are_let_through(method, path, headers):
    assert refusal(method, path, headers, NAMES) is None


@pytest.mark.fault(INTO_THE_PAGE)
@pytest.mark.parametrize(
    ("status", "method", "path", "headers"),
    [
        # a foreign name for this machine
        (421, "GET", "/", {"host": "evil.example"}), (421, "GET", "/", {"host": "evil.example:7860"}),
        (421, "GET", "/", {}),
        (421, "GET", "/", {"host": "127.0.0.1.evil.example"}), (421, "GET", "/", {"host": "localhost.evil.example"}),
        (421, "GET", "/", {"host": "evil.example@127.0.0.1@x"}), (421, "GET", "/", {"host": "[::1"}),
        (421, "POST", ANSWER, SENT | {"host": "evil.example", "origin": "http://evil.example"}),
        # other web sites
        (403, "POST", ANSWER, SENT | {"origin": "http://evil.example"}),
        (403, "POST", ANSWER, SENT | {"origin": "null"}),
        (403, "POST", ANSWER, SENT | {"origin": "http://["}), (403, "GET", "/", HOST | {"origin": "http://[::1"}),
        (403, "POST", ANSWER, SENT | {"origin": "http://127.0.0.1:9999"}), (403, "POST", ANSWER, SENT | {"origin": ""}),
        (403, "POST", ANSWER, SENT | {"origin": "http://localhost:7860"}), (403, "GET", "/", HOST | {"origin": "http://x"}),
        (403, "GET", "/page.js", HOST | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}),
        (403, "GET", "/docs", HOST | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),
        (403, "POST", "/", SENT | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),
        (403, "OPTIONS", ANSWER, SENT | {"origin": "http://evil.example"}),
        # other methods, and sizes
        (405, "PUT", "/", SENT), (405, "OPTIONS", ANSWER, HOST), (405, "TRACE", "/", HOST), (411, "POST", ANSWER, HOST),
        (411, "POST", ANSWER, HOST | {"transfer-encoding": "chunked"}),
        (411, "POST", ANSWER, HOST | {"content-length": "-1"}),
        (411, "POST", ANSWER, HOST | {"content-length": "²"}),
        (413, "POST", ANSWER, HOST | {"content-length": str(MAX_BODY + 1)}),
    ],
)  # fmt: skip
def test_everything_else_is_refused(status, method, path, headers):
    assert refusal(method, path, headers, NAMES)[0] == status


async def behind(scope, receive, send):
    """An application that answers everything."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": b"behind"})


def through(path="/", query=b"", token=None, **headers) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of what comes back."""
    sent = []

    async def send(message):
        sent.append(message)

    pairs = [(name.encode(), value.encode("latin-1")) for name, value in ({"host": "127.0.0.1"} | headers).items()]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": pairs}
    asyncio.run(RequestFilter(behind, token=token)(scope, None, send))
    found = [(name.decode().lower(), value.decode()) for name, value in sent[0]["headers"]]
    assert len(dict(found)) == len(found), found
    return sent[0]["status"], dict(found), b"".join(message["body"] for message in sent[1:])


@pytest.mark.parametrize(("path", "host"), [("/", "127.0.0.1"), ("/docs", "127.0.0.1"), ("/", "evil.example")])
def test_every_answer_carries_the_policy(path, host):
    _, headers, _ = through(path, host=host)
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert ("unsafe-inline" in policy) is (path == "/docs")  # a page of FastAPI's own, which shows nothing of anybody's
    assert "http" not in policy  # no other site is named
    assert headers["x-frame-options"] == "DENY"
    assert not any(name.startswith("access-control") for name in headers)


def test_a_refusal_says_why_and_asks_nothing_behind():
    status, headers, body = through(host="evil.example")
    assert status == 421
    assert headers["content-type"] == "application/json"
    assert b"--allow_host" in body
    assert b"behind" not in body


@pytest.mark.fault(INTO_THE_PAGE)
@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer wrong-token"}, {"authorization": f"Basic {TOKEN}"}, {"authorization": "Bearer"},
     {"cookie": f"{COOKIE}=wrong-token"}, {"cookie": f"other={TOKEN}"}, {"cookie": "\xff;;=,"},
     {"authorization": "Bearer \xe9"}],
)  # fmt: skip
def test_without_the_token_nothing_is_answered(headers):
    for path, query in (("/", b""), ("/", b"token=wrong"), ("/health", f"token={TOKEN}".encode()), ("/page.js", b"")):
        status, _, body = through(path, query, TOKEN, **headers)
        assert status == 401
        assert b"token" in body


def test_with_the_token_it_is_and_the_address_leaves_a_cookie():
    assert through(token=TOKEN, authorization=f"Bearer {TOKEN}")[::2] == (200, b"behind")
    status, headers, _ = through(query=f"token={TOKEN}".encode(), token=TOKEN)
    assert (status, headers["location"]) == (303, "/")
    assert "HttpOnly" in headers["set-cookie"]
    assert through(token=TOKEN, cookie=headers["set-cookie"].partition(";")[0])[::2] == (200, b"behind")
