"""What a user decides about a download: from which addresses, and how patiently.

Imports nothing that takes time: the script's arguments are read with this alone.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from extractive_qa.progress import NoProgress

HUB = "https://huggingface.co"
JSON_URL = "https://rajpurkar.github.io/SQuAD-explorer/dataset"


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server: seconds without progress, and how many more attempts after that."""

    timeout: float = 30.0
    retries: int = 5


@dataclass(frozen=True)
class DownloadOptions:
    """Where files are looked for, and how.

    endpoint: address of the Hub or of a mirror of it. json_url: of the web folder with the original JSON files.
    source: of the data, "hub" or "json"; None: the Hub, and the JSON files where that fails.
    revision: branch, tag or commit on the Hub. progress: called like tqdm.
    """

    endpoint: str = HUB
    json_url: str = JSON_URL
    source: str | None = None
    revision: str = "main"
    patience: Patience = Patience()
    progress: Callable = NoProgress


def is_address(text: str) -> bool:
    """Whether `text` is the address of a web server: http or https, a host, maybe a login, a port and a path."""
    try:
        url = urlsplit(text)
        # no blanks: without_password would not find a login with one
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and len(text.split()) == 1
    except ValueError:  # no port number, half an IPv6 address
        return False


def without_password(text: str) -> str:
    """`text` without the user names and passwords that addresses in it may hold."""
    return re.sub(r"//[^/\s]*@", "//", text)


def without_login(address: str) -> str:
    """An address of a server, good or not, without the user name and password that it may hold. They may hold anything,
    so nothing before the last @ is left but http:// or the like."""
    return re.sub(r"^(\w*://)?.*@", r"\1", address, flags=re.DOTALL)
