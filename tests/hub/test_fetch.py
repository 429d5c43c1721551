"""One file from a server on loopback, over poor lines and from servers that send something else."""

import hashlib
import itertools
import logging
import shutil
import socket
import ssl
import subprocess

import pytest
from hub_server import HubServer
from small_hub import tree

from extractive_qa.errors import QAError
from extractive_qa.hub import fetch, retries
from extractive_qa.hub.fetch import RemoteFile
from extractive_qa.hub.options import Patience
from extractive_qa.progress import NoProgress

pytestmark = pytest.mark.fault("download fault")

NAME, CONTENT = "file.json", bytes(range(256)) * 400
SIZE, SHA256 = len(CONTENT), hashlib.sha256(CONTENT).hexdigest()
PART = f"{NAME}.{SHA256[:12]}.part"


@pytest.fixture
def get(hub, tmp_path):
    """get() downloads the file into a folder, and makes sure that it arrived."""
    hub.add("web", {NAME: CONTENT})
    folder = tmp_path / "files"

    def get(*, url=f"{hub.url}/web", size=SIZE, timeout=0.3, tries=2, progress=NoProgress):
        fetch.fetch(RemoteFile(f"{url}/{NAME}", size, SHA256), folder / NAME, Patience(timeout, tries), progress)
        assert tree(folder) == {NAME: CONTENT}

    get.folder = folder
    return get


def refused(get, words, **how):
    """Downloads, which must fail with these words, and leave nothing but a partial file."""
    with pytest.raises(QAError, match=words):
        get(**how)
    assert set(tree(get.folder)) <= {PART}


def left_behind(get, content):
    get.folder.mkdir()
    (get.folder / PART).write_bytes(content)


# ---- poor lines


def test_a_download_that_breaks_off_more_often_than_it_may_fail_arrives(hub, get):
    """Each attempt brought something: they are counted from the start again."""
    hub.fail(NAME, *[{"cut": SIZE // 6}] * 5)
    get()
    starts = [0, *(int(range_[6:-1]) for range_ in hub.asked(NAME)[1:])]
    assert len(starts) >= 6
    assert all(0 < later - earlier <= SIZE // 6 for earlier, later in itertools.pairwise(starts))


@pytest.mark.parametrize("fault", ["cut", "reset", "stall"])
def test_a_line_that_breaks_half_way_is_resumed_there(fault, hub, get):
    hub.fail(NAME, {fault: SIZE // 2})
    get()
    first, then = hub.asked(NAME)
    assert first is None
    # a reset may throw away what lay unread in the system
    assert (fault == "reset" and then is None) or 0 < int(then[6:-1]) <= SIZE // 2


def test_a_body_without_a_length_that_is_cut_is_resumed_too(hub, get):
    hub.fail(NAME, {"content": CONTENT[:500], "no_length": True}, {"no_length": True})
    get()
    assert hub.asked(NAME) == [None, "bytes=500-"]


def test_a_download_that_failed_is_resumed_by_the_next(hub, get):
    hub.fail(NAME, {"cut": SIZE // 2}, {"status": 404})
    refused(get, "HTTP 404")
    kept = (get.folder / PART).stat().st_size
    assert 0 < kept <= SIZE // 2
    get()
    get()  # all there: nobody is asked
    assert hub.asked(NAME) == [None, f"bytes={kept}-", f"bytes={kept}-"]


@pytest.mark.parametrize(
    ("left", "size", "asked"),
    [
        (CONTENT, SIZE, []),  # finished, but for its name
        (CONTENT, None, [f"bytes={SIZE}-", None]),  # finished too, but who knows: what follows its end is a 416
        (CONTENT + b"?", SIZE, [f"bytes={SIZE + 1}-", None]),
        (b"?" * 100, SIZE, ["bytes=100-", None]),  # wrong checksum
    ],
    ids=["finished", "of unknown size", "too long", "other content"],
)
def test_a_partial_file_is_used_where_it_can_be(left, size, asked, hub, get):
    left_behind(get, left)
    get(size=size)
    assert hub.asked(NAME) == asked


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        ({"status": 416}, 3),
        ({"content": CONTENT[:-1] + b"?"}, 3),  # a bit flips in the resumed part
        ({"whole": True}, 2),  # a server without ranges sends all of it again
    ],
    ids=["refused", "damaged", "ignored"],
)
def test_a_range_that_does_not_bring_the_rest_costs_nothing_but_time(fault, requests, hub, get):
    hub.fail(NAME, {"cut": SIZE // 2}, fault)
    get()
    first, then, *again = hub.asked(NAME)
    assert first is None
    assert then.startswith("bytes=")
    assert again == [None] * (requests - 2)


@pytest.mark.parametrize(
    "faults",
    [[{"status": 500}, {"status": 503}], [{"status": 429, "headers": {"Retry-After": "0"}}], [{"silent": True}]],
    ids=["5xx", "429", "silent"],
)
def test_faults_that_pass_are_waited_for(faults, hub, get, caplog):
    hub.fail(NAME, *faults)
    get()
    assert caplog.text.count("WARNING") == len(faults)
    assert caplog.text.count("127.0.0.1: ") == len(faults)
    assert "attempt 2 of 3 in" in caplog.text


def test_retry_after_is_honoured(hub, get, monkeypatch):
    pauses = []
    monkeypatch.setattr(retries.time, "sleep", pauses.append)
    hub.fail(NAME, {"status": 429, "headers": {"Retry-After": "7200"}})
    refused(get, "come back in 7200 s")
    hub.fail(NAME, {"status": 429, "headers": {"Retry-After": "7"}})
    get()
    assert pauses == [7.0]


NO_PAUSES = [
    "\xb2",
    "9" * 5000,
    "-1",
    "1e9",
    "soon",
    "Mon, 01 Jan 0001 00:00:00 -0000",
    "Fri, 31 Dec 99999 23:59:59 GMT",
    "0 0",
    "1-Jan-2020 00:00:00 99999999999999999999",
]


def test_a_retry_after_that_is_none_is_ignored(hub, get, monkeypatch):
    pauses = []
    monkeypatch.setattr(retries.time, "sleep", pauses.append)
    hub.fail(NAME, *({"status": 503, "headers": {"Retry-After": value}} for value in NO_PAUSES))
    get(tries=len(NO_PAUSES))
    assert len(hub.asked(NAME)) == len(NO_PAUSES) + 1
    assert pauses == [retries.BACKOFF * 2**i for i in range(len(NO_PAUSES))]  # as without one


@pytest.mark.parametrize(
    ("fault", "says"),
    [({"silent": True}, "sent nothing"), ({"stall": 0}, "sent nothing"), ({"trickle": True}, r"sent \d+ bytes")],
    ids=["silent", "stall", "trickle"],
)
def test_a_server_that_hangs_is_given_up(fault, says, hub, get, monkeypatch):
    monkeypatch.setattr(fetch, "MIN_SPEED", 1000)
    hub.fail(NAME, fault)
    refused(get, rf"^127\.0\.0\.1: {says} (for|in) 0\.3 s", tries=0)


def test_a_full_disk_is_noticed_before_the_download(hub, get, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    refused(get, "MB of free disk, expected")
    assert not hub.requests


def test_a_bar_counts_the_bytes_and_begins_where_the_file_does(hub, get):
    bars = []

    class Bar(NoProgress):
        def __init__(self, **settings):
            super().__init__(**settings)
            bars.append((settings, self))

    left_behind(get, CONTENT[:1000])
    get(progress=Bar)
    ((settings, bar),) = bars
    assert (settings["desc"], settings["initial"], settings["total"], bar.n) == (NAME, 1000, SIZE, SIZE)


# ---- other bytes

WRONG = {
    "a page": {"page": True},
    "other bytes": {"content": b"#" * SIZE},
    "one bit": {"content": CONTENT[:99] + bytes([CONTENT[99] ^ 4]) + CONTENT[100:]},
    "shorter": {"content": CONTENT[:-1]},
    "longer": {"content": CONTENT + b"\n"},
    "nothing": {"content": b""},
    "without end": {"content": CONTENT + b" " * 10_000_000, "no_length": True},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_bytes_are_never_taken(wrong, hub, get, monkeypatch):
    written, write = [0], fetch._write
    monkeypatch.setattr(fetch, "_write", lambda *arguments: written.append(write(*arguments)) or written[-1])
    hub.fail(NAME, WRONG[wrong])
    refused(get, r"another file: [\d,]+ bytes of .*Expected [\d,]+ bytes with the checksum")
    assert max(written) <= SIZE + (1 << 16)  # a block more than asked for
    get()


@pytest.mark.fault("hostile folder")
def test_what_a_server_says_cannot_steer_the_terminal(hub, get):
    hub.fail(NAME, {"status": 403, "headers": {"X-Error-Message": "\x1b]0;title\x07\x1b[2J"}})
    with pytest.raises(QAError, match="HTTP 403") as caught:
        get()
    assert r"(\x1b]0;title\x07\x1b[2J)" in str(caught.value)  # shown, not sent


# ---- other hosts


def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_the_host_that_failed_is_named_where_it_was_redirected_to(hub, get, caplog):
    caplog.set_level(logging.WARNING)
    target = f"http://localhost:{closed_port()}/{NAME}"
    hub.fail(NAME, *[{"status": 302, "headers": {"Location": target}}] * 9)
    refused(get, "^localhost: refuses the connection")
    assert "localhost: refuses the connection; attempt 2 of 3" in caplog.text


@pytest.mark.parametrize("target", ["file:///etc/hosts", "ftp://127.0.0.1/x", "http://[", "//[::1", "javascript:1"])
def test_a_redirect_to_no_web_server_is_refused(target, hub, get):
    hub.fail(NAME, {"status": 302, "headers": {"Location": target}})
    refused(get, r"127\.0\.0\.1: redirects to .*Expected an address with http or https")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for this machine and its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path]
    command = ["openssl", "req", "-x509", *key, "-days", "2", "-subj", "/CN=localhost", "-addext", names]
    subprocess.run([*command, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_name(f"{path.name}.crt").read_bytes())
    return path


def test_a_redirect_from_https_to_http_is_refused(get, certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    safe = HubServer()
    safe.add("web", {NAME: CONTENT})
    safe.socket = context.wrap_socket(safe.socket, server_side=True)
    safe.url = safe.url.replace("http:", "https:")
    with safe:
        safe.fail(NAME, {"status": 302, "headers": {"Location": f"{safe.cdn.url}/cdn/{SHA256}"}})
        refused(get, r"127\.0\.0\.1: redirects to http:.*Expected an address with https", url=f"{safe.url}/web")
        assert not any(request.path.startswith("/cdn/") for request in safe.requests)
        safe.fail(NAME, {"status": 302, "headers": {"Location": f"{safe.url}/web/{NAME}?again"}})
        get(url=f"{safe.url}/web")
