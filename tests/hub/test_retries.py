"""Which faults of a download are tried again, and how they are named."""

import socket
import ssl

import pytest
import requests

from extractive_qa.hub import retries
from extractive_qa.hub.options import Patience


def failing(monkeypatch, fault, patience):
    """Has with_retries fail with `fault` each time. Returns its error's text and its pauses, in seconds."""
    pauses = []
    monkeypatch.setattr(retries.time, "sleep", pauses.append)

    def attempt():
        raise fault

    with pytest.raises(retries.FetchError) as caught:
        retries.with_retries(attempt, "https://hub.test/file", patience)
    return str(caught.value), pauses


@pytest.mark.fault("download fault")
@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (requests.ConnectionError("the line broke"), 4),
        (requests.exceptions.ChunkedEncodingError("the body broke off"), 4),
        (requests.exceptions.InvalidURL("no host in it"), 1),  # stays so however often it is asked
        (requests.exceptions.MissingSchema("no scheme in it"), 1),
    ],
)
def test_what_may_pass_is_tried_again_and_what_stays_is_not(monkeypatch, error, tries):
    text, pauses = failing(monkeypatch, error, Patience(timeout=1, retries=3))
    assert text.startswith(f"hub.test: {error}")
    assert pauses == sorted(pauses)
    assert len(pauses) == tries - 1


def certificate_error() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed"
    return error


@pytest.mark.fault("download fault")
@pytest.mark.parametrize(
    ("cause", "wrapper", "words", "tries"),
    [
        (certificate_error(), requests.exceptions.SSLError, "can't be trusted (self-signed). In a network", 1),
        (socket.gaierror(-2, "unknown"), requests.ConnectionError, "can't be resolved", 3),
        (ConnectionRefusedError(), requests.ConnectionError, "refuses the connection", 3),
        (TimeoutError("timed out"), requests.ConnectTimeout, "takes no connection (time-out)", 2),
        (TimeoutError("timed out"), requests.ReadTimeout, "sent nothing for 7 s", 10),
    ],
)
def test_a_fault_is_named_by_its_root_and_given_the_patience_it_deserves(monkeypatch, cause, wrapper, words, tries):
    fault = wrapper("wrapped")
    fault.__cause__ = cause
    text, pauses = failing(monkeypatch, fault, Patience(timeout=7, retries=9))
    assert text.startswith("hub.test: ")
    assert words in text
    assert len(pauses) == tries - 1


@pytest.mark.fault("download fault")
def test_a_certificate_that_is_not_trusted_names_both_variables(monkeypatch):
    fault = requests.exceptions.SSLError("wrapped")
    fault.__cause__ = certificate_error()
    text, _ = failing(monkeypatch, fault, Patience())
    assert "SSL_CERT_FILE" in text
    assert "REQUESTS_CA_BUNDLE" in text
