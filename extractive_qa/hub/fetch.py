"""One file from the network: downloaded, resumed, checked; never half a file under its own name.

`huggingface_hub` says where a file is and what it must be (address, size, checksum, commit). The bytes are fetched
here, because `hf_hub_download` deletes its partial file when it fails or is interrupted (huggingface_hub 2.4), so
that on a poor line a large file would start from nothing every time. The original JSON files come the same way.
"""

import hashlib
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from extractive_qa.errors import QAError
from extractive_qa.files.atomic import make_folder, patiently, sync_entries, sync_file
from extractive_qa.hub.options import Patience, without_password
from extractive_qa.hub.retries import DIGITS, FetchError, Interrupted, with_retries
from extractive_qa.progress import NoProgress

CONNECT_TIMEOUT = 10.0  # seconds: a host that takes no connection, or knows of no file, by then is not there
CHECKSUM = "[0-9a-f]{40}|[0-9a-f]{64}"
MIN_SPEED = 1024  # bytes per second: what trickles in more slowly than this counts as stalled


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


def fetch(remote: RemoteFile, path: Path, patience: Patience, progress: Callable = NoProgress) -> None:
    """Downloads `remote` to `path`, resuming where an earlier attempt or run stopped.

    What has arrived lies in `path`.<checksum>.part until it is complete and checked; that of an earlier run counts only
    where a checksum will tell. progress: called like tqdm, counts bytes. Raises FetchError when the server fails for
    good, sends something else or leads to an address that is not safe, QAError when the disk is too small, OSError when
    it can't be written.
    """
    if path.is_file() and matches(path, remote):
        return
    make_folder(path.parent)
    version = re.sub(r"\W", "", remote.checksum)[:12]
    part = path.with_name(f"{path.name}.{version}.part")
    if not re.fullmatch(CHECKSUM, remote.checksum):
        # after a power cut it may have its length and hold zeros, and nothing would tell
        patiently(part.unlink, True)
    with_retries(lambda: _download(remote, part, patience, progress), remote.url, patience, lambda: _size(part))
    sync_file(part)  # else its name may be on the disk before it
    patiently(part.replace, path)
    sync_entries(path.parent)


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


def _download(remote: RemoteFile, part: Path, patience: Patience, progress: Callable) -> None:
    """One attempt: the rest of the file is appended to `part`, and the whole is checked."""
    start = _size(part)
    if start and start == remote.size and matches(part, remote):
        return  # complete, but interrupted before it got its name: asking for more would be an HTTP 416
    free = shutil.disk_usage(part.parent).free
    if remote.size is not None and free < 2 * (remote.size - start):
        raise QAError(
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
            patiently(part.unlink, True)  # missing is fine
            raise Interrupted(response.url, "can't resume where the last attempt stopped: starting over")
        response.raise_for_status()
        start = start if response.status_code == 206 else 0  # 200: a server without ranges sends all of it again
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if DIGITS.fullmatch(length) else remote.size
        if remote.size not in (None, total):
            raise FetchError(_another_file(response, total, remote))
        received = start + _write(response, part, start, total, patience, progress)
    if total is not None and received < total:
        raise Interrupted(response.url, f"cut the connection after {received:,} of {total:,} bytes")
    if not matches(part, remote):
        patiently(part.unlink)
        if start:
            raise Interrupted(response.url, "the resumed file has the wrong checksum: starting over")
        raise FetchError(_another_file(response, received, remote))


def _check_redirect(response: requests.Response, **_) -> None:
    """A hook of requests. Raises FetchError where the answer leads from https to http, or to no web server at all.

    requests itself takes no login along to another host.
    """
    if not response.is_redirect:
        return
    source, location = urlsplit(response.url), response.headers["Location"]
    allowed = ["https"] if source.scheme == "https" else ["http", "https"]
    try:
        scheme = urlsplit(urljoin(response.url, location)).scheme
    except ValueError:  # half an IPv6 address
        scheme = ""
    if scheme not in allowed:
        raise FetchError(
            f"{source.hostname}: redirects to {location.partition('?')[0]}. Expected an address with "
            f"{' or '.join(allowed)}"
        )


def _write(
    response: requests.Response, part: Path, start: int, total: int | None, patience: Patience, progress: Callable
) -> int:
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


def _another_file(response: requests.Response, size: int, remote: RemoteFile) -> str:
    kind = response.headers.get("Content-Type", "unknown type").split(";")[0]
    return (
        f"{urlsplit(response.url).hostname}: {remote.url} gave another file: {size:,} bytes of {kind}. "
        f"Expected {remote}"
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
