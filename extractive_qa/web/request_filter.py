"""Who may ask the server at all. An ASGI application in front of the one that answers; it lets through

- requests under an address, as `localhost`, or under a name that was told: a foreign name that points to this machine
  (DNS rebinding) is refused;
- requests of the page itself, of programs, and the opening of the page: those of other web sites are refused;
- bodies of a limited size that is said first;
- where there is a token, those that have it.

Every answer carries a content policy: whatever were to get into the page, the browser runs no script that did not come
from here, loads nothing from elsewhere and sends nothing there.
"""

import hmac
import ipaddress
import json
from urllib.parse import parse_qs, urlsplit

MAX_BODY = 20_000_000  # bytes
COOKIE = "extractive-qa-token"
OWN = "'self'"
POLICY = (
    "default-src 'none'; script-src {scripts}; style-src {scripts}; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DESCRIPTION = "/docs"  # of the interface: FastAPI's own page, whose scripts stand in it
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class RequestFilter:
    """Lets through to the ASGI application `app` what may ask. names: host names, besides addresses and localhost,
    under which the server is known. token: what whoever asks must have; None: nothing."""

    def __init__(self, app, names: frozenset[str] = frozenset(), token: str | None = None):
        self.app, self.names, self.token = app, names, token

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a websocket: closed, nothing here uses one
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path, query = scope["path"], scope["query_string"].decode("latin-1")
        if refused := refusal(scope["method"], path, headers, self.names):
            await reply(send, *refused)
        elif self.token and path == "/" and same(parse_qs(query).get("token", [""])[0], self.token):
            # kept by the browser from here on; the address without it is what is seen and copied
            cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Lax; Path=/"
            await reply(send, 303, "", {"location": "/", "set-cookie": cookie})
        elif self.token and not same(token_of(headers), self.token):
            needs = "A token is needed here: open the address that was printed, or send Authorization: Bearer TOKEN."
            await reply(send, 401, needs, {"www-authenticate": "Bearer"})
        else:
            await self.app(scope, receive, with_headers(send, path))


def refusal(method: str, path: str, headers: dict[str, str], names: frozenset[str]) -> tuple[int, str] | None:
    """Status and reason where a request is not let through, else None. headers: names in lower case."""
    host = headers.get("host", "")
    if not known_host(host, names):
        return 421, "Not known by that name. Open it by its address, or start it with --allow_host NAME."
    origin = headers.get("origin")
    if origin is not None and not own_origin(origin, host):
        return 403, "Other web sites are not answered."
    from_elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    if from_elsewhere and (headers.get("sec-fetch-mode") != "navigate" or path != "/" or method != "GET"):
        return 403, "Other web sites are not answered."
    if method in ("GET", "HEAD"):
        return None
    if method != "POST":
        return 405, "Only GET and POST are answered."
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        return 411, "The length of what is sent must be said: Content-Length."
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


def token_of(headers: dict[str, str]) -> str:
    """The token that a request brings, in its Authorization header or as the page's cookie; "" where it has none."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    cookies = dict(part.strip().partition("=")[::2] for part in headers.get("cookie", "").split(";"))
    return cookies.get(COOKIE, "")


def same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())


def with_headers(send, path: str):
    """`send` with the filter's headers on every answer."""

    async def send_with_headers(message) -> None:
        if message["type"] == "http.response.start":
            scripts = f"{OWN} 'unsafe-inline'" if path == DESCRIPTION else OWN
            ours = HEADERS | {"content-security-policy": POLICY.format(scripts=scripts)}
            added = [(name.encode(), value.encode()) for name, value in ours.items()]
            message = message | {"headers": [*message.get("headers", []), *added]}
        await send(message)

    return send_with_headers


async def reply(send, status: int, reason: str, more: dict[str, str] | None = None) -> None:
    """The filter's own answer, in the form that errors of the interface have."""
    body = json.dumps({"detail": reason}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))} | (more or {})
    send = with_headers(send, "")
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
