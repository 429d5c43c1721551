"""A Hub on loopback for the tests of download_data.py: what the unmodified client `huggingface_hub` and a plain HTTP
client need (metadata headers, redirects to a second address for large files, ranges), and the faults of real networks.

    with HubServer() as hub:
        hub.add("google/mobilebert-uncased", {"config.json": b"{}"})
        hub.fail("pytorch_model.bin", {"cut": 1000}, {"status": 503})   # first request, second request; then it works
        ...                                                             # talk to hub.url
        assert hub.requests == [...]
"""

import hashlib
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".bin", ".safetensors", ".parquet")  # kept in large-file storage, as on the Hub
PAGE = b"<!doctype html><title>Please log in</title>" + b" " * 1000


@dataclass(frozen=True)
class Request:
    """One request as it reached the server. `file` is the last part of the name of what was asked for."""

    method: str
    path: str
    file: str
    range: str | None
    authorization: str | None


class LoopbackServer(ThreadingHTTPServer):
    """A server on a free port of 127.0.0.1 for the length of a `with`."""

    daemon_threads = True

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests = []
        self.stopping = threading.Event()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that hangs up is part of the tests."""


class HubServer(LoopbackServer):
    """Repositories, and plain files under /web/. Large files lie on a second server, `cdn`, under /cdn/."""

    def __init__(self):
        super().__init__(HubHandler)
        self.hub = self
        self.cdn = LoopbackServer(HubHandler)
        self.cdn.hub = self
        self.files = {}  # path on the server without the revision → bytes
        self.blobs = {}  # sha256 → (name, bytes)
        self.faults = defaultdict(list)  # (method, file) → faults still to come

    def __enter__(self):
        self.cdn.__enter__()
        return super().__enter__()

    def __exit__(self, *_):
        self.stopping.set()
        self.cdn.__exit__()
        super().__exit__()

    def add(self, folder, files):
        """Serves {name: bytes} below `folder`: "owner/model", "datasets/owner/data" or "web/…"."""
        for name, content in files.items():
            self.files[f"/{folder}/{name}"] = content
            self.blobs[hashlib.sha256(content).hexdigest()] = (name, content)

    def fail(self, file, *faults, method="GET"):
        """The next requests for the content of `file` go wrong, one fault each:

        {"silent": True}      no answer at all          {"status": n, "headers": {}}  that status
        {"stall": n}          n bytes, then silence     {"page": True}                a web page instead
        {"cut": n}            n bytes, then hung up     {"content": b}                other bytes
        {"trickle": True}     a byte now and then       {"whole": True}               ranges are ignored
        {"reset": n}          n bytes, then a reset     {"no_length": True}           the end is where it hangs up
        """
        self.faults[method, file] += faults

    def asked(self, file, method="GET"):
        """The Range headers (None without one) of the requests for a file's content so far."""
        content = [r for r in self.requests if r.method == method and r.file == file]
        # a large file is asked for twice: at its address, and where that redirects to
        return [r.range for r in content if r.path.startswith("/cdn/") or not file.endswith(LARGE)]


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackServer

    @property
    def hub(self) -> HubServer:
        return self.server.hub

    def log_message(self, *_):
        """Quiet."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urlsplit(self.path).path
        if path.startswith("/cdn/"):
            name, content = self.hub.blobs[path.removeprefix("/cdn/")]
        elif "/resolve/" in path:
            folder, _, rest = path.partition("/resolve/")
            revision, _, name = rest.partition("/")
            content = self.hub.files.get(f"{folder}/{name}")
        else:
            name, content = path, self.hub.files.get(path)
        file = name.rpartition("/")[2]
        self.hub.requests.append(
            Request(self.command, path, file, self.headers["Range"], self.headers["Authorization"])
        )
        on_hub = "/resolve/" in path
        if on_hub and revision not in ("main", COMMIT):
            return self.answer(
                404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"}
            )
        if content is None:
            return self.answer(
                404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"} if on_hub else {}
            )

        sha256 = hashlib.sha256(content).hexdigest()
        redirects = on_hub and file.endswith(LARGE)
        faults = self.hub.faults[self.command, file]
        fault = faults.pop(0) if faults and not (redirects and self.command == "GET") else {}
        if "silent" in fault:
            self.close_connection = True
            return self.hub.stopping.wait(60)
        if "status" in fault:
            return self.answer(fault["status"], fault.get("headers", {}))
        if "page" in fault:
            return self.answer(200, {"Content-Type": "text/html; charset=utf-8"}, PAGE)
        if redirects:
            headers = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
            return self.answer(
                302, {**headers, "ETag": '"of-the-redirect"', "Location": f"{self.hub.cdn.url}/cdn/{sha256}"}
            )
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if on_hub:
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            headers |= {"X-Repo-Commit": COMMIT, "ETag": f'"{blob}"'}
        content = fault.get("content", content)
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if self.headers["Range"] else 0
        if "whole" in fault or not start:
            return self.answer(200, headers, content, fault)
        if start >= len(content):
            return self.answer(416, {"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.answer(206, headers, content[start:], fault)

    def answer(self, status, headers, body=b"", fault=None):
        fault = fault or {}
        self.send_response(status)
        headers = {**headers, "Content-Length": str(len(body))}
        if "no_length" in fault:
            del headers["Content-Length"]
            self.close_connection = True
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if "reset" in fault:
            self.wfile.write(body[: fault["reset"]])
            self.wfile.flush()
            time.sleep(0.1)  # else the reset overtakes the bytes
            # lingering for 0 seconds: what is closed is reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.close(self.connection.detach())
            self.close_connection = True
        elif "cut" in fault or "stall" in fault:
            self.wfile.write(body[: fault.get("cut", fault.get("stall"))])
            self.wfile.flush()
            self.close_connection = True
            self.hub.stopping.wait(60 if "stall" in fault else 0)
        elif "trickle" in fault:
            for byte in body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if self.hub.stopping.wait(0.05):
                    break
        else:
            self.wfile.write(body)


class ProxyServer(LoopbackServer):
    """An HTTP proxy that knows one host, by any name: every request goes to `target`. Keeps the addresses asked for."""

    def __init__(self, target):
        super().__init__(ProxyHandler)
        self.target = target


class ProxyHandler(BaseHTTPRequestHandler):
    server: ProxyServer

    def log_message(self, *_):
        """Quiet."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.requests.append(self.path)
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in ("host", "proxy-connection")
        }
        url = self.server.target + urlsplit(self.path).path
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)
        try:
            answer = direct.open(urllib.request.Request(url, headers=headers, method=self.command))
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.read())


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A proxy hands redirects on."""

    def redirect_request(self, *_):
        return None
