"""Who may ask the web page's server what: everything else that Gradio's server can do is not reached.

Gradio serves files, fetches addresses for its visitors, describes its API, and answers requests of other web sites
where it is not called by the name localhost. The page needs none of it. The filter before it lets through

- requests under an address, as `localhost`, or under a name that was told: a foreign name that points to this machine
  (DNS rebinding) is refused;
- requests of the page itself, of programs, and the opening of the page: those of other web sites are refused;
- the few paths that the page uses, and bodies of limited size that hold texts. In place of a text Gradio would take the
  description of a file, and fetch it from the address in it.

Every answer carries a content policy: whatever were to get into the page, the browser runs no script that did not come
from here, loads nothing from elsewhere and sends nothing there.
"""

import ipaddress
import re
import secrets
from urllib.parse import urlsplit

from extractive_qa.files.reading import parse_json

MAX_BODY = 2_000_000  # bytes: the longest text that the page takes, in JSON's longest spelling, and what is around it
PAGE = "/"
GET = re.compile(
    r"/(page\.js|favicon\.ico|theme\.css|assets/[\w-]+(\.[\w-]+)*|static/js/[\w-]+(\.[\w-]+)*|"
    r"gradio_api/(queue/data|heartbeat/\w+))?"
)
POST = re.compile(r"/gradio_api/queue/join")
POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'self'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
# previews of links, with the addresses of other sites, and the description of an app that can be installed
UNWANTED = re.compile(rb'\s*<(?:meta\s+(?:property="og:|name="twitter:)|link rel="manifest")[^>]*>')


def refusal(method: str, path: str, headers: dict[str, str], names: frozenset[str]) -> tuple[int, str] | None:
    """Status and reason where a request is not let through, else None.

    headers: names in lower case. names: host names, besides addresses and localhost, under which the page is known.
    """
    host = headers.get("host", "")
    if not known_host(host, names):
        return 421, "This page is not known by that name. Open it by its address, or start it with --host NAME."
    origin = headers.get("origin")
    if origin is not None and not own_origin(origin, host):
        return 403, "This page answers no other web site."
    from_elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    if from_elsewhere and (headers.get("sec-fetch-mode") != "navigate" or path != PAGE):
        return 403, "This page answers no other web site."
    if method in ("GET", "HEAD"):
        return None if GET.fullmatch(path) else (404, "There is nothing here.")
    if method != "POST":
        return 405, "This page can't do that."
    if not POST.fullmatch(path):
        return 404, "There is nothing here."
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        return 411, "The length of what is sent must be said."
    return (413, f"That is too long: at most {MAX_BODY:,} bytes.") if int(length) > MAX_BODY else None


def known_host(host: str, names: frozenset[str]) -> bool:
    """Whether a Host header names an address, localhost or one of `names`; any port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name in names or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def own_origin(origin: str, host: str) -> bool:
    """Whether an Origin header names the page's own host and port."""
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def holds_texts(body: bytes) -> bool:
    """Whether what is sent to Gradio's queue is JSON whose `data` are texts (null: what the server itself keeps)."""
    try:
        content = parse_json(body.decode())
    except ValueError:
        return False
    data = content.get("data") if isinstance(content, dict) else None
    return isinstance(data, list) and all(isinstance(item, str | None) for item in data)


class RequestFilter:
    """An ASGI application that lets through to `app` what the page needs. names: as in `refusal`."""

    def __init__(self, app, names: frozenset[str] = frozenset()):
        self.app, self.names = app, names

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a websocket: closed, the page uses none
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        nonce = secrets.token_urlsafe(16)
        refused = refusal(scope["method"], scope["path"], headers, self.names)
        if not refused and scope["method"] == "POST":
            body = await read_body(receive)
            if holds_texts(body):
                receive = again(body, receive)
            else:
                refused = 400, "Texts can be asked about, nothing else."
        if refused:
            status, reason = refused
            await send({"type": "http.response.start", "status": status, "headers": reply_headers([], nonce)})
            await send({"type": "http.response.body", "body": reason.encode()})
            return
        if scope["path"] == PAGE:  # to be written into, so not compressed; and only the page itself, no saved state
            kept = [(name, value) for name, value in scope["headers"] if name.lower() != b"accept-encoding"]
            scope = scope | {"headers": kept, "query_string": b""}
        await self.app(scope, receive, Reply(send, nonce, is_page=scope["path"] == PAGE))


async def read_body(receive) -> bytes:
    """All that is sent: the server has held it to its Content-Length, and the filter that to MAX_BODY."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body


def again(body: bytes, receive):
    """`receive` with the body that was read from it before what is still to come."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again():
        return waiting.pop() if waiting else await receive()

    return receive_again


class Reply:
    """Sends the application's answer on with the filter's headers; the page itself with its scripts marked as ours."""

    def __init__(self, send, nonce: str, is_page: bool):
        self.send, self.nonce, self.is_page = send, nonce, is_page
        self.start, self.body = {}, b""

    async def __call__(self, message) -> None:
        if message["type"] == "http.response.start":
            message = message | {"headers": reply_headers(message.get("headers", []), self.nonce)}
            if self.is_page:
                self.start = message  # sent with the length of what we make of it
                return
        elif self.is_page and message["type"] == "http.response.body":
            self.body += message.get("body", b"")
            if message.get("more_body"):
                return
            body = UNWANTED.sub(b"", self.body)
            # Gradio writes its settings with < as \u003c: no text of anybody's can begin a script here
            body = body.replace(b"<script", f'<script nonce="{self.nonce}"'.encode())
            headers = [(name, value) for name, value in self.start["headers"] if name.lower() != b"content-length"]
            await self.send(self.start | {"headers": [*headers, (b"content-length", str(len(body)).encode())]})
            message = {"type": "http.response.body", "body": body}
        await self.send(message)


def reply_headers(headers, nonce: str) -> list[tuple[bytes, bytes]]:
    """The application's headers, without leave for other web sites, and the filter's own."""
    kept = [(name, value) for name, value in headers if not name.lower().startswith(b"access-control-")]
    ours = HEADERS | {"content-security-policy": POLICY.format(nonce=nonce)}
    if not any(name.lower() == b"content-type" for name, _ in kept):
        ours["content-type"] = "text/plain; charset=utf-8"
    return kept + [(name.encode(), value.encode()) for name, value in ours.items()]
