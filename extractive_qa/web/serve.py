"""Serves the page and its interface until Ctrl-C."""

import importlib.util
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from extractive_qa.errors import QAError
from extractive_qa.text import shown

logger = logging.getLogger(__name__)


def require_fastapi() -> None:
    if any(importlib.util.find_spec(name) is None for name in ("fastapi", "fastapi_offline", "uvicorn")):
        raise QAError("the page is made with FastAPI, which is not installed. Run: pip install -r requirements-web.txt")


def describe(reader) -> str:
    """Which model answers, and where it computes."""
    precision = {"no": "fp32"}.get(reader.backend.precision, reader.backend.precision)
    return f"{shown(reader.model_dir)} · {reader.backend.describe()} · {precision}"


def listen(host: str, port: int):
    """A socket that listens. Raises QAError where the address can't be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:  # OverflowError: no port has that number
        reason = getattr(error, "strerror", None) or error
        raise QAError(
            f"the page can't have port {port} of {host}: {reason}. Expected one that is free. "
            "Run: python predict.py web --port 0 (any that is free)"
        ) from None


def serve(
    reader, host: str, port: int, announce: Callable[[str], object], index=None, corrections: Path | None = None,
    allow_host: str | None = None, token: str | None = None, seconds: float = 300.0, **page: object,
) -> None:  # fmt: skip
    """Serves the page on http://host:port (port 0: one that is free) until Ctrl-C. announce: is given its address.

    index, corrections, token, seconds, and `page`: as make_app has them. allow_host: a further name of this server.
    Raises QAError where the address can't be had. FastAPI must be there: require_fastapi.
    """
    with listen(host, port) as listening:
        import uvicorn

        from extractive_qa.web.app import make_app

        names = frozenset(name.lower() for name in (host, socket.gethostname(), allow_host) if name)
        app = make_app(
            reader, index, corrections, seconds=seconds, names=names, token=token, model=describe(reader), **page
        )
        address, port = listening.getsockname()[:2]
        if token is None and not ipaddress.ip_address(address).is_loopback:
            logger.warning(f"everyone who can reach {address} can use this page. With --token they need one")
        announce(f"http://{f'[{host}]' if ':' in host else host}:{port}/{f'?token={token}' if token else ''}")
        logger.info("Open this address in a browser. Ctrl-C ends it.")

        class Server(uvicorn.Server):
            def handle_exit(self, sig, frame):
                if sig == signal.SIGINT:  # a person at the terminal does not wait; SIGTERM finishes what was asked
                    app.turns.stop()
                super().handle_exit(sig, frame)

        config = uvicorn.Config(
            app, access_log=False, log_level="warning", server_header=False, timeout_graceful_shutdown=int(seconds) + 5
        )
        Server(config).run(sockets=[listening])
