"""One file from the network: found on the Hub, downloaded, resumed, checked; never half a file under its own name.

`huggingface_hub` says where a file is and what it must be (address, size, checksum, commit). The bytes are fetched
here, because `hf_hub_download` deletes its partial file when it fails or is interrupted (huggingface_hub 2.4), so
that on a poor line a large file would start from nothing every time. The original JSON files come the same way.
"""

import email.utils
import hashlib
import http.client
import inspect
import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from utils.console import UserError, printable, progress, warn

CONNECT_TIMEOUT = 10.0  # seconds: a host that takes no connection, or knows of no file, by then is not there
BACKOFF = 1.0  # seconds before the first new attempt; doubled each time, up to MAX_BACKOFF
MAX_BACKOFF = 30.0
MAX_RETRY_AFTER = 120.0  # seconds that a server may ask us to wait
MIN_SPEED = 1024  # bytes per second: what trickles in more slowly than this counts as stalled
DIGITS = re.compile("[0-9]{1,15}")  # what a header may hold for a number: int() takes more, and fails at some of it
RETRIES_UNREACHABLE = 2  # a host that was never reached rarely appears by waiting


class FetchError(UserError):
    """A download that failed for good. The text begins with the host that failed and says how; it holds no password,
    and nothing that a server sent can steer the terminal."""

    def __init__(self, text: str):
        super().__init__(printable(without_password(text)))


class Interrupted(Exception):
    """A download that stopped half-way at `url` for a reason that may pass."""

    def __init__(self, url: str, reason: str):
        super().__init__(reason)
        self.url = url


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server: seconds without progress, and how many more attempts after that."""

    timeout: float = 30.0
    retries: int = 5


@dataclass(frozen=True)
class RemoteFile:
    """Where a file is and what it must be.

    checksum: sha256 (64 hex digits) or git's blob hash (40 hex digits). Any other text only tells versions apart.
    """

    url: str
    size: int | None
    checksum: str
    revision: str | None = None

    def __str__(self):
        size = "a file" if self.size is None else f"{self.size:,} bytes"
        return f"{size} with the checksum {self.checksum}"


def find_on_hub(repo: str, repo_type: str, name: str, revision: str, endpoint: str, patience: Patience) -> RemoteFile:
    """Asks the Hub, or a mirror of it, for one file of a repository. No token is ever sent.

    Raises FileNotFoundError where the server answers that there is no such file, FetchError where it can't be asked
    or doesn't answer like a Hub.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    url = hf_hub_url(repo, name, repo_type=repo_type, revision=revision, endpoint=endpoint)
    # clients from before this switch (huggingface_hub 0.36) try some faults again by themselves
    own = "retry_on_errors" not in inspect.signature(get_hf_file_metadata).parameters
    patience = Patience(min(patience.timeout, CONNECT_TIMEOUT), min(patience.retries, 1) if own else patience.retries)

    def attempt():
        try:
            return get_hf_file_metadata(url, token=False, timeout=patience.timeout, endpoint=endpoint)
        except hub_errors() as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status == 404 and not isinstance(error, (RepositoryNotFoundError, RevisionNotFoundError)):
                raise FileNotFoundError(f"{urlsplit(url).hostname}: HTTP 404 Not Found for {url}") from error
            raise

    found = with_retries(attempt, url, patience)
    if not found.commit_hash or not found.etag:
        raise FetchError(
            f"{urlsplit(url).hostname} doesn't answer like the Hub: {url} came without the headers X-Repo-Commit and "
            "ETag, as a web page does. Expected the Hub or a mirror of it"
        )
    # the address that redirects, not its target: the target is signed and expires, maybe before the last attempt
    url = hf_hub_url(repo, name, repo_type=repo_type, revision=found.commit_hash, endpoint=endpoint)
    return RemoteFile(url, found.size, found.etag, found.commit_hash)


def fetch(remote: RemoteFile, path: Path, patience: Patience) -> None:
    """Downloads `remote` to `path`, going on from where an earlier attempt or run stopped.

    What has arrived lies in `path`.<checksum>.part until it is complete and checked. Raises FetchError when the server
    fails for good, sends something else or leads to an address that is not safe, UserError when the disk is too small.
    """
    if path.is_file() and matches(path, remote):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    version = re.sub(r"\W", "", remote.checksum)[:12]
    part = path.with_name(f"{path.name}.{version}.part")
    with_retries(lambda: _download(remote, part, patience), remote.url, patience, lambda: _size(part))
    part.replace(path)


def matches(path: Path, remote: RemoteFile) -> bool:
    """Whether the file at `path` has the size and the checksum of `remote`, as far as these are known."""
    size = path.stat().st_size
    if remote.size not in (None, size):
        return False
    if re.fullmatch("[0-9a-f]{64}", remote.checksum):
        digest = hashlib.sha256()
    elif re.fullmatch("[0-9a-f]{40}", remote.checksum):
        digest = hashlib.sha1(b"blob %d\0" % size)  # git's name for a file's content
    else:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest() == remote.checksum


def _download(remote: RemoteFile, part: Path, patience: Patience) -> None:
    """One attempt: the rest of the file is appended to `part`, and the whole is checked."""
    start = _size(part)
    if start and start == remote.size and matches(part, remote):
        return  # complete, but interrupted before it got its name: asking for more would be an HTTP 416
    free = shutil.disk_usage(part.parent).free
    if remote.size is not None and free < 2 * (remote.size - start):
        raise UserError(
            f"{part.parent} has {free / 1e6:,.0f} MB of free disk, expected {2 * (remote.size - start) / 1e6:,.0f} MB: "
            f"room for {without_password(remote.url)} and for what is made from it. "
            "Free some, then run the same command again."
        )
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    timeout = (min(CONNECT_TIMEOUT, patience.timeout), patience.timeout)
    hooks = {"response": _check_redirect}
    with requests.get(remote.url, headers=headers, stream=True, timeout=timeout, hooks=hooks) as response:
        asked = re.match(rf"bytes {start}-", response.headers.get("Content-Range", ""))
        if response.status_code == 416 or (response.status_code == 206 and not asked):
            part.unlink(missing_ok=True)
            raise Interrupted(response.url, "can't go on from where the last attempt stopped: starting over")
        response.raise_for_status()
        start = start if response.status_code == 206 else 0  # 200: a server without ranges sends all of it again
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if DIGITS.fullmatch(length) else remote.size
        if remote.size not in (None, total):
            raise FetchError(_another_file(response, total, remote))
        received = start + _write(response, part, start, total, patience)
    if total is not None and received < total:
        raise Interrupted(response.url, f"cut the connection after {received:,} of {total:,} bytes")
    if not matches(part, remote):
        part.unlink()
        if start:
            raise Interrupted(response.url, "the resumed file has the wrong checksum: starting over")
        raise FetchError(_another_file(response, received, remote))


def _check_redirect(response: requests.Response, **_) -> None:
    """A hook of requests. Raises FetchError where the answer leads from https to http, or to no web server at all.

    requests itself takes no login along to another host.
    """
    if not response.is_redirect:
        return
    source, allowed = urlsplit(response.url), ("http", "https")
    try:
        target = urlsplit(urljoin(response.url, response.headers["Location"]))
    except ValueError:  # half an IPv6 address
        allowed = ()
    if source.scheme == "https":
        allowed = allowed[1:]
    if not allowed or target.scheme not in allowed:
        raise FetchError(
            f"{source.hostname}: redirects to {response.headers['Location'].partition('?')[0]}. Expected an address "
            f"with {'https' if source.scheme == 'https' else 'http or https'}"
        )


def _write(response: requests.Response, part: Path, start: int, total: int | None, patience: Patience) -> int:
    """Writes the body to `part` from byte `start` on, with a progress bar, and returns how many bytes came.

    Raises Interrupted when nothing comes for `patience.timeout` seconds, or less than MIN_SPEED for as long. Reads no
    more than one block beyond `total`, whatever a server sends.
    """
    received, seen, since = 0, 0, time.monotonic()
    bar = {"total": total, "initial": start, "unit": "B", "unit_scale": True, "unit_divisor": 1024}
    with part.open("ab" if start else "wb") as file, progress(desc=part.name.rsplit(".", 2)[0], **bar) as shown:
        try:
            # hands over what has come, where read() would wait for a full block and never notice a trickle
            read = getattr(response.raw, "read1", response.raw.read)  # urllib3 has it since 2.x
            while (total is None or start + received <= total) and (block := read(1 << 16)):
                file.write(block)
                received += len(block)
                shown.update(len(block))
                if time.monotonic() - since > patience.timeout:
                    if received - seen < MIN_SPEED * patience.timeout:
                        raise Interrupted(response.url, f"sent {received - seen:,} bytes in {patience.timeout:g} s")
                    seen, since = received, time.monotonic()
        except urllib3.exceptions.ReadTimeoutError as error:
            raise Interrupted(response.url, f"sent nothing for {patience.timeout:g} s") from error
        except urllib3.exceptions.HTTPError as error:
            raise Interrupted(response.url, f"cut the connection after {start + received:,} bytes") from error
    return received


def with_retries(attempt: Callable, url: str, patience: Patience, arrived: Callable[[], int] = lambda: 0):
    """The result of `attempt()`, which is made again, after growing pauses, while it fails for reasons that may pass.

    The count starts anew whenever `arrived()` (bytes on the disk) has grown: a slow line may break off as often as it
    likes. Raises FetchError when it fails for good.
    """
    failures, most = 0, arrived()
    while True:
        try:
            return attempt()
        except (requests.RequestException, urllib3.exceptions.HTTPError, Interrupted, *hub_errors()) as error:
            text, retries, pause = _diagnose(error, url, patience)
        failures = 1 if arrived() > most else failures + 1
        most = max(most, arrived())
        if failures > retries:
            raise FetchError(text)
        pause = max(pause, min(BACKOFF * 2 ** (failures - 1), MAX_BACKOFF))
        warn(f"{text}; attempt {failures + 1} of {retries + 1} in {pause:g} s")
        time.sleep(pause)


def hub_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises for a failed request: its HTTP library was requests, then httpx, now httpx2."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError, HfHubHTTPError.__bases__[0]


def _diagnose(error: Exception, url: str, patience: Patience) -> tuple[str, int, float]:
    """(which host failed and how, how many more attempts make sense, seconds that the server asks us to wait)."""
    url = _failed_url(error) or url
    host, retries, pause = urlsplit(url).hostname, patience.retries, 0.0
    response = getattr(error, "response", None)
    root = error
    while inner := root.__cause__ or root.__context__:
        root = inner
    if response is not None:
        status = response.status_code
        # a signed address is a page long after its question mark
        how = f"HTTP {status} {http.client.responses.get(status, '')} for {url.partition('?')[0]}"
        how += f" ({message})" if (message := response.headers.get("X-Error-Message")) else ""
        pause = _retry_after(response.headers.get("Retry-After", ""))
        if pause > MAX_RETRY_AFTER:
            how += f", come back in {pause:.0f} s"
        if pause > MAX_RETRY_AFTER or (status < 500 and status not in (408, 425, 429)):
            retries = 0
    elif isinstance(error, Interrupted):
        how = str(error)
    elif isinstance(root, ssl.SSLCertVerificationError):
        how, retries = f"its certificate can't be trusted ({root.verify_message})", 0
    elif isinstance(root, socket.gaierror):
        how, retries = "its name can't be resolved", min(retries, RETRIES_UNREACHABLE)
    elif isinstance(root, ConnectionRefusedError):
        how, retries = "refuses the connection", min(retries, RETRIES_UNREACHABLE)
    elif "ConnectTimeout" in type(error).__name__:
        how, retries = "takes no connection (time-out)", min(retries, 1)
    elif isinstance(root, TimeoutError):
        how = f"sent nothing for {patience.timeout:g} s"
    else:
        how, retries = str(root) or type(root).__name__, 0 if isinstance(error, ValueError) else retries
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    through = f", through the proxy {without_login(proxy)}" if proxy else ""
    return printable(without_password(f"{host}: {how}{through}")), retries, pause


def without_password(text: str) -> str:
    """`text` without the user names and passwords that addresses in it may hold."""
    return re.sub(r"//[^/\s]*@", "//", text)


def without_login(address: str) -> str:
    """An address of a server, good or not, without the user name and password that it may hold. They may hold anything,
    so nothing before the last @ is left but http:// or the like."""
    return re.sub(r"^(\w*://)?.*@", r"\1", address, flags=re.DOTALL)


def _failed_url(error: Exception) -> str | None:
    """The address that failed where the error knows it: a redirect may lead to another host."""
    if isinstance(error, Interrupted):
        return error.url
    try:
        return str(error.request.url)
    except (AttributeError, RuntimeError):  # requests has None there, httpx refuses to be asked
        return None


def _retry_after(value: str) -> float:
    """Seconds that the header Retry-After asks for: a number or a date (RFC 9110, 10.2.3); 0 for anything else."""
    if DIGITS.fullmatch(value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):  # the last two: years and time zones far from ours
        return 0.0


def _another_file(response: requests.Response, size: int, remote: RemoteFile) -> str:
    kind = response.headers.get("Content-Type", "unknown type").split(";")[0]
    return (
        f"{urlsplit(response.url).hostname}: {remote.url} gave another file: {size:,} bytes of {kind}. "
        f"Expected {remote}"
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
