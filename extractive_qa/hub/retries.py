"""Failed requests: which host failed and how, whether another attempt makes sense, and after which pause."""

import http.client
import logging
import re
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar
from urllib.parse import urlsplit

import requests
import urllib3

from extractive_qa.errors import QAError
from extractive_qa.hub.options import Patience, without_login, without_password
from extractive_qa.text import printable

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

BACKOFF = 1.0  # seconds before the first new attempt; doubled each time, up to MAX_BACKOFF
MAX_BACKOFF = 30.0
MAX_RETRY_AFTER = 120.0  # seconds that a server may ask us to wait
RETRIES_UNREACHABLE = 2  # a host that was never reached rarely appears by waiting
COMPANY_CERTIFICATE = (
    "In a network that has a certificate of its own, set SSL_CERT_FILE or REQUESTS_CA_BUNDLE to the file (PEM) with it"
)
DIGITS = re.compile("[0-9]{1,15}")  # what a header may hold for a number: int() takes more, and fails at some of it


class FetchError(QAError):
    """A download that failed for good. The text begins with the host that failed and says how; it holds no password,
    and nothing that a server sent can steer the terminal."""

    def __init__(self, text: str):
        super().__init__(printable(without_password(text)))


class Interrupted(Exception):
    """A download that stopped half-way at `url` for a reason that may pass."""

    def __init__(self, url: str, reason: str):
        super().__init__(reason)
        self.url = url


def with_retries(
    attempt: Callable[[], Result], url: str, patience: Patience, arrived: Callable[[], int] = lambda: 0
) -> Result:
    """The result of `attempt()`, which is made again, after growing pauses, while it fails for reasons that may pass.

    url: what is asked for, named where the error itself names no address. The attempts are counted from the start
    again whenever `arrived()` (bytes on the disk) has grown: a slow line may break off as often as it likes.
    Raises FetchError when it fails for good.
    """
    failures, most = 0, arrived()
    while True:
        try:
            return attempt()
        except (requests.RequestException, urllib3.exceptions.HTTPError, Interrupted, *hub_errors()) as error:
            failure, retries, pause = _diagnose(error, url, patience)
        failures = 1 if arrived() > most else failures + 1
        most = max(most, arrived())
        if failures > retries:
            raise failure
        pause = max(pause, min(BACKOFF * 2 ** (failures - 1), MAX_BACKOFF))
        logger.warning(f"{failure}; attempt {failures + 1} of {retries + 1} in {pause:g} s")
        time.sleep(pause)


def hub_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises for a failed request: its HTTP library was requests, then httpx, now httpx2."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError, HfHubHTTPError.__bases__[0]


def _diagnose(error: Exception, url: str, patience: Patience) -> tuple[FetchError, int, float]:
    """(which host failed and how, how many more attempts make sense, seconds that the server asks us to wait)."""
    with suppress(AttributeError, RuntimeError):  # requests may have None there, httpx refuses to be asked
        # a redirect may have led to another host
        url = error.url if isinstance(error, Interrupted) else str(error.request.url)
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
        how = f"its certificate can't be trusted ({root.verify_message}). {COMPANY_CERTIFICATE}"
        retries = 0
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
    return FetchError(f"{host}: {how}{through}"), retries, pause


def _retry_after(value: str) -> float:
    """Seconds that the header Retry-After asks for: a number or a date (RFC 9110, 10.2.3); 0 for anything else."""
    try:
        return float(urllib3.Retry(retry_after_max=10**9).parse_retry_after(value))
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):  # years, time zones and numbers far from ours
        return 0.0
