"""The page and its interface as they are served: predict.py web as a process of its own."""

import json
import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from scripts import assert_refused, run_script
from web.serving import MILL, make_documents, request, server

from extractive_qa.errors import QAError
from extractive_qa.web import serve

pytest.importorskip("fastapi_offline", reason="needs FastAPI: pip install -r requirements-web.txt")

INTO_THE_PAGE = "a way into the web page's server"
NO_NETWORK = "network that must not be used"
LONG = "Nothing happened on this day, and the clerk wrote down the weather. " * 800
ASKED = {"question": "Who built the mill?", "context": MILL}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """At the end it must not have tried the network, and must leave quietly."""
    home = tmp_path_factory.mktemp("home")
    with server(home, "--documents", make_documents(home)) as (address, process):
        yield address, process, home
        if os.name == "posix":
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=60)[1]
            assert process.returncode == 130, errors
            assert "ATTEMPTS []" in errors
            assert "Traceback" not in errors


def text_of(content: bytes) -> str:
    return json.loads(content)["answers"][0]["text"]


def test_questions_are_answered_and_the_folder_is_asked(served):
    address = served[0]
    status, content = request(f"{address}answer", ASKED)
    assert (status, text_of(content)) == (200, "Ada Miller")
    status, content = request(f"{address}ask", {"question": "Who built the bridge?"})
    assert (status, text_of(content)) == (200, "Tom Mason")


def test_200_at_once_are_answered_as_alone_or_refused_and_memory_stays(served):
    address, process, _ = served
    questions = ["Who built the mill?", "When did it burn down?", "Where was the mill?", "When was it built?"]
    alone = {question: request(f"{address}answer", ASKED | {"question": question})[1] for question in questions}
    expected = {question: json.loads(content)["answers"] for question, content in alone.items()}

    def ask(number):
        question = questions[number % len(questions)]
        status, content = request(f"{address}answer", ASKED | {"question": question})
        return question, status, json.loads(content)

    with ThreadPoolExecutor(200) as threads:
        list(threads.map(ask, range(200)))
        before = psutil.Process(process.pid).memory_info().rss
        told = list(threads.map(ask, range(200)))
    assert psutil.Process(process.pid).memory_info().rss < before + 50 * 2**20
    answered = [(question, content["answers"]) for question, status, content in told if status == 200]
    assert len(answered) > 16
    assert all(answers == expected[question] for question, answers in answered)
    assert {status for _, status, _ in told} <= {200, 503}
    assert all("wait already" in content["detail"] for _, status, content in told if status == 503)


def test_whoever_leaves_stops_the_work(served):
    address = served[0]
    body = json.dumps({"question": "Who built the mill?", "context": LONG}).encode()
    place = urlsplit(address)
    with socket.create_connection((place.hostname, place.port)) as one:
        head = f"POST /answer HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        one.sendall(f"{head}Accept: application/x-ndjson\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        assert b"200 OK" in one.recv(1_000)
    for _ in range(200):
        if json.loads(request(f"{address}health")[1])["waiting"] == 0:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("it goes on")


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGTERM")
def test_sigterm_finishes_what_runs(tmp_path):
    with server(tmp_path) as (address, process), ThreadPoolExecutor(1) as threads:
        running = threads.submit(request, f"{address}answer", ASKED | {"context": MILL + LONG[:20_000]})
        while json.loads(request(f"{address}health")[1])["waiting"] == 0:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        status, content = running.result()
        assert (status, text_of(content)) == (200, "Ada Miller")
        errors = process.communicate(timeout=60)[1]
    assert "Traceback" not in errors


def test_what_takes_too_long_is_told(tmp_path):
    with server(tmp_path, "--timeout", "0.2") as (address, _):
        status, content = request(f"{address}answer", ASKED | {"context": LONG})
    assert (status, "more than 0 seconds" in json.loads(content)["detail"]) == (503, True)


@pytest.mark.fault(INTO_THE_PAGE)
def test_with_a_token_only_the_address_that_was_printed_opens(tmp_path):
    with server(tmp_path, "--token") as (address, _):
        plain, _, token = address.partition("?token=")
        assert re.fullmatch(r"[\w-]{20,}", token)
        assert request(f"{plain}health")[0] == 401
        assert request(f"{plain}health", Authorization=f"Bearer {token}")[0] == 200


@pytest.mark.fault(INTO_THE_PAGE)
def test_it_listens_on_this_machine_alone(served):
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    if not all(table.exists() for table in tables):
        pytest.skip("needs /proc/net/tcp (Linux)")
    port = f":{urlsplit(served[0]).port:04X}"
    lines = "".join(table.read_text() for table in tables)
    listening = [line.split()[1] for line in lines.splitlines() if line.split()[3] == "0A" and port in line.split()[1]]
    assert listening == [f"0100007F{port}"]


@pytest.mark.fault(INTO_THE_PAGE)
@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "evil.example"}, 421), ({"Origin": "http://evil.example"}, 403),
     ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors"}, 403)],
)  # fmt: skip
def test_other_web_sites_are_refused(served, headers, status):
    assert request(f"{served[0]}answer", ASKED, **headers)[0] == status


@pytest.mark.fault(NO_NETWORK)
def test_what_is_kept_on_disk_is_nothing_that_was_asked(served):
    address, _, home = served
    secret = "Xylophone-4711"
    request(f"{address}answer", {"question": f"Who is {secret}?", "context": f"{MILL} {secret}"})
    request(f"{address}text?name={secret}.txt", MILL)
    files = [path for path in home.rglob("*") if path.is_file()]
    assert [path for path in files if secret.encode() in path.read_bytes() or secret in path.name] == []


# ---- before it is served


def test_without_fastapi_it_says_what_to_run(monkeypatch):
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(QAError, match=r"pip install -r requirements-web\.txt"):
        serve.require_fastapi()


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", "taken"), ("127.0.0.1", 70_000), ("192.0.2.1", 0)])
def test_an_address_that_can_not_be_had_is_refused(host, port):
    with serve.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1] if port == "taken" else port
        with pytest.raises(QAError, match="--port 0"):
            serve.listen(host, port)


def test_the_flags_say_what_they_are():
    shown = " ".join(run_script("predict.py", "--help").stdout.split())
    assert re.search(r"--host \S+ .*0\.0\.0\.0.*default: 127\.0\.0\.1", shown)
    assert "requirements-web.txt" in shown
    assert_refused(run_script("predict.py", "web", "--question", "Who?", code=2), "predict.py ask")
    assert_refused(run_script("predict.py", "web", "--token", "short", code=2), "8 or more")
    assert_refused(run_script("predict.py", "web", "--timeout", "nan", code=2), "--timeout")
