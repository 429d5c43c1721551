"""Which faults of a download are tried again; what a user sees of downloads is in test_download.py."""

import socket
import ssl

import pytest
import requests

from extractive_qa.hub import fetch


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
    pauses, tried = [], []
    monkeypatch.setattr(fetch.time, "sleep", pauses.append)

    def attempt():
        tried.append(1)
        raise error

    with pytest.raises(fetch.FetchError, match=rf"hub\.test: {error}"):
        fetch.with_retries(attempt, "https://hub.test/file", fetch.Patience(timeout=1, retries=3))
    assert len(tried) == tries
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
        (certificate_error(), requests.exceptions.SSLError, r"can't be trusted \(self-signed\)", 1),
        (socket.gaierror(-2, "unknown"), requests.ConnectionError, "can't be resolved", 1 + fetch.RETRIES_UNREACHABLE),
        (ConnectionRefusedError(), requests.ConnectionError, "refuses the connection", 1 + fetch.RETRIES_UNREACHABLE),
        (TimeoutError("timed out"), requests.ConnectTimeout, r"takes no connection \(time-out\)", 2),
        (TimeoutError("timed out"), requests.ReadTimeout, "sent nothing for 7 s", 10),
    ],
)
def test_a_fault_is_named_by_its_root_and_given_the_patience_it_deserves(monkeypatch, cause, wrapper, words, tries):
    tried = []
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)

    def attempt():
        tried.append(1)
        raise wrapper("wrapped") from cause

    with pytest.raises(fetch.FetchError, match=rf"hub\.test: .*{words}"):
        fetch.with_retries(attempt, "https://hub.test/file", fetch.Patience(timeout=7, retries=9))
    assert len(tried) == tries
