"""No test talks to anything but this machine: an attempt is stopped, and the test that made it fails, whoever swallows
the error. Holds for the tests' own process; what the scripts do in theirs is looked at in test_offline.py.
"""

import ipaddress
import socket
import sys

import pytest

# audit events that Python's own sockets raise, and which argument says where to
WHERE = {
    "socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0, "socket.getnameinfo": 0,
}  # fmt: skip
INTERNET = (socket.AF_INET, socket.AF_INET6)
attempts = []


class NetworkUsed(Exception):
    """A test tried to reach another machine."""


def is_here(address) -> bool:
    """Whether an address of the internet is this machine's own: a host, or (host, port, ...)."""
    host = address[0] if isinstance(address, tuple) else address
    host = host.decode() if isinstance(host, bytes) else host
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:  # a name that would have to be looked up
        return False


def stop(event, arguments):
    if event not in WHERE:
        return
    address = arguments[WHERE[event]]
    of_this_system = isinstance(arguments[0], socket.socket) and arguments[0].family not in INTERNET
    if not of_this_system and not is_here(address):
        attempts.append((event, address))
        raise NetworkUsed(f"{event} {address}")


sys.addaudithook(stop)


@pytest.fixture(autouse=True)
def no_network():
    attempts.clear()
    yield
    assert not attempts, f"this test tried to reach another machine: {attempts}"
