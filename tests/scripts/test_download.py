"""download_data.py as a user runs it, against a Hub on loopback: what it leaves behind, what it says, and what a run
that ends at any moment loses. What it calls is tested in tests/hub.
"""

import itertools
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_server import COMMIT, ProxyServer
from scripts import PROJECT_ROOT
from small_hub import (  # noqa: F401
    DATA,
    MODEL,
    ROWS,
    TEACHER,
    full_hub,
    hub,
    json_files,
    known_files,
    model_files,
    put,
    small_squad,
    squad_rows,
    teacher_files,
    tree,
)

import download_data
from extractive_qa.errors import QAError
from extractive_qa.hub import fetch, sources
from extractive_qa.text import as_argument
from utils import console

JSON = ("--only", "data", "--source", "json")


@pytest.fixture
def project(tmp_path, monkeypatch, small_squad):  # noqa: F811
    """An empty project folder."""
    monkeypatch.setattr(download_data, "SQUAD_DIR", tmp_path / "data" / "squad")
    monkeypatch.setattr(download_data, "MODEL_DIR", tmp_path / "models" / "mobilebert-uncased")
    monkeypatch.setattr(download_data, "TEACHER_DIR", tmp_path / "models" / "teacher")
    monkeypatch.setitem(console.OUTPUT, "quiet", False)  # and so it is again afterwards
    return tmp_path


@pytest.fixture
def download(project, full_hub):  # noqa: F811
    """Runs main() as the command line would, against `download.hub`."""
    server = ("--endpoint", full_hub.url, "--json_url", f"{full_hub.url}/web", "--timeout", "0.5", "--retries", "2")

    def download(*argv):
        download_data.main([*server, *argv])

    download.hub = full_hub
    return download


def load_squad(project):
    from datasets import load_from_disk

    return load_from_disk(str(project / "data" / "squad"), keep_in_memory=True)


# ---- what a run leaves


def test_a_run_gets_what_is_missing_and_the_next_asks_nobody(project, download, capsys):
    download("--only", "data")
    assert sorted(path.name for path in project.iterdir()) == ["data"]
    download()
    assert sorted(path.relative_to(project).as_posix() for path in project.glob("*/*")) == [
        "data/squad", "models/mobilebert-uncased"
    ]  # fmt: skip
    assert load_squad(project)["train"].to_list() == squad_rows("train")
    for folder, repository in (("data/squad", DATA), ("models/mobilebert-uncased", MODEL)):
        manifest = json.loads((project / folder / "manifest.json").read_text(encoding="utf-8"))
        assert (manifest["source"], manifest["revision"]) == (f"{download.hub.url}/{repository}", COMMIT)
        assert {entry["file"] for entry in manifest["files"]} == set(tree(project / folder)) - {"manifest.json"}
    assert capsys.readouterr().out.splitlines()[-1] == "Next: python train.py"

    asked, before = len(download.hub.requests), tree(project)
    download()
    assert capsys.readouterr().out.splitlines()[-1] == "Next: python train.py"
    download()
    download("--verify")
    assert len(download.hub.requests) == asked
    assert tree(project) == before
    assert capsys.readouterr().out.count("all as they should be") == 4


def test_the_teacher_comes_when_asked_for(project, download, capsys):
    download.hub.add(TEACHER, teacher_files())
    put(download_data.SQUAD_DIR.parent / "downloads" / "squad", json_files())
    put(download_data.MODEL_DIR.parent / "downloads" / "mobilebert-uncased", model_files())
    download()
    assert not download.hub.requests  # all was put there by hand
    assert not download_data.TEACHER_DIR.exists()
    download("--teacher")
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == f"Next: python train.py --teacher_dir {as_argument(download_data.TEACHER_DIR)}"
    )
    asked = len(download.hub.requests)
    download("--only", "teacher", "--verify")
    assert len(download.hub.requests) == asked
    # the user's own, left where they are
    assert tree(project / "data" / "downloads" / "squad") == json_files()
    assert tree(project / "models" / "downloads" / "mobilebert-uncased") == model_files()


def test_quiet_prints_what_is_there_and_no_more(project, download, capsys):
    download(*JSON, "--quiet")
    said = capsys.readouterr()
    assert [line.strip().split()[0] for line in said.out.splitlines()] == [f"{project / 'data' / 'squad'}:", "from"]
    assert said.err == ""


@pytest.mark.fault("tampered file")
def test_damage_is_found_named_and_repaired_by_force(project, download):
    download(*JSON)
    asked, before = len(download.hub.requests), tree(project / "data")
    victim = next((project / "data" / "squad").glob("train/*.arrow"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    for flags in (["--only", "data"], ["--verify"]):
        with pytest.raises(QAError, match=rf"train/{re.escape(victim.name)} has sha256 .*--force --only data") as told:
            download(*flags)
    assert "mobilebert-uncased is missing" in str(told.value)  # everything at once
    assert len(download.hub.requests) == asked
    download.hub.files.clear()
    with pytest.raises(QAError):
        download(*JSON, "--force")
    assert victim.read_bytes() == content  # better than nothing
    download.hub.add("web", json_files())
    download(*JSON, "--force")
    assert tree(project / "data") == before


@pytest.mark.fault("tampered file")
def test_a_folder_of_unknown_origin_stays_as_it_is(project, download):
    put(project / "data" / "squad", {"mine.txt": b"mine"})
    with pytest.raises(QAError, match=r"has no manifest\.json.*--force"):
        download("--only", "data")
    assert tree(project) == {"data/squad/mine.txt": b"mine"}
    assert not download.hub.requests


@pytest.mark.fault("download fault")
@pytest.mark.parametrize("part", ["data", "model"])
def test_what_is_not_what_it_should_be_leaves_no_folder(part, project, download):
    name, folder = {
        "data": ("plain_text/validation-00000-of-00001.parquet", "data/.partial-squad"),
        "model": ("pytorch_model.bin", "models/.partial-mobilebert-uncased"),
    }[part]
    download.hub.add(DATA if part == "data" else MODEL, {name: b"with the checksum of this"})
    with pytest.raises(QAError, match=f"can't be read .*--only {part}"):
        download("--only", part)
    assert [path.relative_to(project).as_posix() for path in project.glob("*/*")] == [folder]


def test_everything_in_a_folder_is_on_the_disk_before_it_gets_its_name(project, download, monkeypatch):
    """Else a power cut leaves a whole folder of files with nothing in them."""
    synced, fsync = set(), os.fsync

    def record(descriptor):
        if not download_data.SQUAD_DIR.exists():
            synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    download(*JSON)
    paths = list(download_data.SQUAD_DIR.rglob("*"))
    assert any(path.is_dir() for path in paths)
    assert {path.stat().st_ino for path in paths if path.is_file() or os.name == "posix"} <= synced


# ---- runs that break off


@pytest.mark.fault("download fault")
def test_a_run_that_failed_is_resumed_by_the_next(project, download):
    size = len(model_files()["pytorch_model.bin"])
    download.hub.fail("pytorch_model.bin", {"cut": size // 2}, {"status": 404})
    with pytest.raises(QAError, match="HTTP 404"):
        download("--only", "model")
    (part,) = (project / "models" / ".partial-mobilebert-uncased").glob("pytorch_model.bin.*.part")
    kept = part.stat().st_size
    assert 0 < kept <= size // 2
    assert [path.name for path in (project / "models").iterdir()] == [".partial-mobilebert-uncased"]
    download("--only", "model")
    assert download.hub.asked("pytorch_model.bin") == [None, f"bytes={kept}-", f"bytes={kept}-"]
    assert download.hub.asked("vocab.txt") == [None]  # was complete
    assert [path.name for path in (project / "models").iterdir()] == ["mobilebert-uncased"]


@pytest.fixture
def small_disk():
    """small_disk(folder, size) makes the folder a disk of so many bytes, or gives that disk another size."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs Linux and the right to mount a disk")
    mounted = []

    def small_disk(folder, size):
        folder.mkdir(parents=True, exist_ok=True)
        options = f"remount,size={size}" if folder in mounted else f"size={size}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False, capture_output=True
        )
        if done.returncode:
            pytest.skip(f"can't mount: {done.stderr.decode()}")
        mounted.append(folder)

    yield small_disk
    for folder in set(mounted):
        subprocess.run(["umount", folder], check=True)


LARGE_DISK = 1 << 30
MANY = pytest.mark.slow


@pytest.mark.fault("download fault")
@pytest.mark.parametrize(
    ("part", "force", "moments"),
    [
        ("data", False, 2), ("model", True, 2),
        *(pytest.param(part, force, 40, marks=MANY) for part in ("data", "model") for force in (False, True)),
    ],
)  # fmt: skip
def test_a_disk_that_fills_up_loses_nothing(
    part, force, moments, project, download, small_disk, monkeypatch, record_property
):
    """Whatever is being written when it is full: another program takes what was free when the download began."""
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 0, 2**40))
    folder = download_data.SQUAD_DIR if part == "data" else download_data.MODEL_DIR
    flags = ["--only", part, *(["--force"] if force else [])]
    small_disk(folder.parent, LARGE_DISK)
    download("--only", part)
    whole = tree(folder)
    kept = 1 + sum(1 + len(content) // 4096 for content in whole.values()) if force else 0  # pages
    if not force:
        shutil.rmtree(folder)
    needed = sum(2 + 3 * len(content) // 4096 for content in whole.values())  # with what it is made from
    tried = 0
    for pages in sorted({1 + i * needed // moments for i in range(moments)}):
        small_disk(folder.parent, 4096 * (kept + pages))
        try:
            download(*flags)
        except QAError as error:
            assert "No space left on device" in str(error), error
            tried += 1
            assert tree(folder) == (whole if force else {})
            assert {path.name for path in folder.parent.iterdir()} <= {f".partial-{folder.name}", folder.name}
        # the next run resumes
        small_disk(folder.parent, LARGE_DISK)
        download(*flags)
        assert tree(folder) == whole
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]
        if not force:
            shutil.rmtree(folder)
    record_property("tried", tried)
    assert tried >= moments / 4


@pytest.mark.fault("download fault")
@pytest.mark.parametrize("part", ["data", "model"])
def test_a_file_that_may_not_grow_while_it_is_converted_loses_nothing(part, project, download):
    """As on a disk with a quota, or one that can't hold large files."""
    resource = pytest.importorskip("resource", reason="needs limits of POSIX")
    folder = download_data.SQUAD_DIR if part == "data" else download_data.MODEL_DIR
    put(folder.parent / "downloads" / folder.name, json_files() if part == "data" else model_files())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(QAError, match=f"{folder.name} can't be written: .*File too large.*run the same command"):
            download("--only", part)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in folder.parent.iterdir()] == ["downloads"]
    download("--only", part)
    download("--only", part, "--verify")


def forked(function) -> int:
    """Runs `function` in a copy of this process, which ends with it. The number of that process."""
    number = os.fork()
    if number == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return number


needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="needs fork")


def kill_at(moment: int, end: str) -> None:
    """Ends this process as a power cut would, before the `moment`-th change below data/ of a path that ends so."""
    left = moment

    def before(event, args):
        nonlocal left
        if event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            return
        path = args[1] if event == "os.rename" else args[0]
        if event == "open" and (isinstance(path, int) or not args[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        path = os.fsdecode(path)
        # what is removed with its folder is named as seen from there
        below = path.startswith(str(download_data.SQUAD_DIR.parent)) or not Path(path).is_absolute()
        if below and path.endswith(end):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(before)


@pytest.fixture
def killed(download):
    """killed(n, end, *flags) runs main() up to that change in a copy of this process. Whether it was killed there."""

    def killed(moment, end, *flags):
        def run():
            kill_at(moment, end)
            download(*flags)

        code = os.waitstatus_to_exitcode(os.waitpid(forked(run), 0)[1])
        assert code in (0, -signal.SIGKILL)
        return code != 0

    return killed


@needs_fork
@pytest.mark.fault("download fault")
def test_a_run_that_is_killed_between_two_renames_loses_nothing(killed, download):
    """When the old folder has gone aside and the new one is not in its place yet, and the network has gone too."""
    download(*JSON)
    before = tree(download_data.SQUAD_DIR)
    assert killed(0, f"{os.sep}squad", *JSON, "--force")
    assert not download_data.SQUAD_DIR.exists()
    asked = len(download.hub.requests)
    download("--only", "data", "--verify")
    assert tree(download_data.SQUAD_DIR) == before
    assert len(download.hub.requests) == asked


@needs_fork
@pytest.mark.fault("download fault")
@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("force", [False, True], ids=["first", "again"])
def test_a_run_that_is_killed_at_any_moment_loses_nothing(force, every, killed, download, record_property):
    folder = download_data.SQUAD_DIR
    download(*JSON)
    before, tried = tree(folder), 0
    for moment in itertools.count(0, every):
        shutil.rmtree(folder.with_name(".partial-squad"), ignore_errors=True)
        if not force:
            shutil.rmtree(folder)
        if not killed(moment, "", *JSON, *(["--force"] if force else [])):
            break
        tried += 1
        if force:
            asked = len(download.hub.requests)
            download("--only", "data", "--verify")
            assert len(download.hub.requests) == asked
        else:
            assert tree(folder) in ({}, before)
            download(*JSON)
        assert tree(folder) == before
    record_property("tried", tried)
    assert moment > 10


# ---- in a process of its own


@pytest.fixture
def script(tmp_path):
    """Starts the script in a process of its own, in a copy of the project under a name with spaces and signs, where the
    small files count as SQuAD."""
    project = tmp_path / "мой 项目"
    project.mkdir()
    shutil.copy2(PROJECT_ROOT / "download_data.py", project)
    for folder in ("utils", "extractive_qa"):
        shutil.copytree(PROJECT_ROOT / folder, project / folder)
    (project / "small.py").write_text(
        "import download_data\n"
        "from extractive_qa.hub import sources\n"
        f"sources.ROWS.update({ROWS!r})\n"
        f"sources.JSON_FILES.update({known_files()!r})\n"
        "download_data.run(download_data.main)\n",
        encoding="utf-8",
    )
    home = tmp_path / "home"
    home.mkdir()

    def script(*argv, start=subprocess.run, **environment):
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and not name.startswith(("HF_", "XDG_", "TRANSFORMERS_"))
        }
        own |= {"HOME": str(home), "USERPROFILE": str(home), "PYTHONDONTWRITEBYTECODE": "1", **environment}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
        return start([sys.executable, "small.py", *argv], cwd=project, env=own, **pipes)

    script.project, script.home = project, home
    return script


def test_a_first_run_through_a_proxy_leaves_two_folders_and_nothing_at_home(script, download):
    before = set(script.project.glob("*/*"))
    with ProxyServer(download.hub.url) as proxy:
        done = script(
            "--proxy", proxy.url, "--endpoint", "http://hub.test/", "--timeout", "60",
            HF_HUB_OFFLINE="1", LC_ALL="C", ALL_PROXY="socks5://127.0.0.1:1",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        hosts = {address.partition("://")[2].partition("/")[0] for address in proxy.requests}
    assert hosts == {"hub.test", download.hub.cdn.url.removeprefix("http://")}
    asked = {request.file for request in download.hub.requests if not request.path.startswith("/cdn/")}
    # and nothing that a library thought of by itself
    assert asked == {*sources.MODEL_FILES, *(name.rpartition("/")[2] for name in sources.PARQUET_FILES)}
    assert done.stdout.count("all as they should be") == 2
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert "data: http://hub.test/datasets/rajpurkar/squad" in done.stderr
    folders = {path.relative_to(script.project).as_posix() for path in set(script.project.glob("*/*")) - before}
    assert folders == {"data/squad", "models/mobilebert-uncased"}
    assert list(script.home.rglob("*")) == []


@pytest.mark.fault("download fault")
@pytest.mark.skipif(sys.platform != "linux", reason="needs fork, and a process that can be sent these signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_a_run_that_is_stopped_keeps_what_has_arrived(name, script, project, download, monkeypatch):
    """By Ctrl-C, in a process of its own, or without a chance to do anything. The next run resumes."""
    file = "train-v1.1.json"
    size = len(json_files()[file])
    download.hub.fail(file, {"stall": size // 2})
    monkeypatch.setattr(download_data, "SQUAD_DIR", script.project / "data" / "squad")

    def start(*arguments, **keywords):
        # a background job's children ignore SIGINT by inheritance; a user's terminal does not
        keywords["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(*arguments, **keywords)

    def stop(number):
        part, deadline = None, time.monotonic() + 60
        while not (part and part.stat().st_size > size // 4) and time.monotonic() < deadline:
            time.sleep(0.02)
            part = next(script.project.glob(f"data/.partial-*/{file}.*.part"), None)
        os.kill(number, getattr(signal, name))
        return part

    if name == "SIGINT":
        running = script(*JSON, "--json_url", f"{download.hub.url}/web", start=start)
        part = stop(running.pid)
        _, errors = running.communicate(timeout=60)
        assert running.returncode == 130, errors
        assert "interrupted" in errors
        assert "Traceback" not in errors
    else:
        number = forked(lambda: download(*JSON, "--timeout", "60"))
        part = stop(number)
        assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == -signal.SIGKILL
    kept = part.stat().st_size
    assert size // 4 < kept <= size // 2
    assert not download_data.SQUAD_DIR.exists()
    download(*JSON)
    assert download.hub.asked(file) == [None, f"bytes={kept}-"]
    download("--only", "data", "--verify")


def test_arguments_are_read_before_anything_that_takes_time_is_imported():
    code = """
import download_data, sys
for argv in (["--help"], ["--no_such_flag"], ["--timeout", "0"]):
    try:
        download_data.main(argv)
    except SystemExit as end:
        print(end.code, file=sys.stderr)
slow = {"torch", "datasets", "transformers", "huggingface_hub", "numpy", "pyarrow", "requests", "http.client", "tqdm"}
print(sorted(slow & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=True, capture_output=True, text=True)
    said = done.stderr.splitlines()
    assert [line for line in said if line.isdigit()] == ["0", "2", "2"]
    assert said[-1] == "[]"


# ---- addresses, proxies, passwords


def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.fault("download fault")
def test_an_unreachable_host_tells_the_three_ways_out(project):
    address = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(QAError) as caught:
        download_data.main(["--endpoint", address, "--json_url", f"{address}/web", "--retries", "0"])
    told = str(caught.value)
    assert told.count("127.0.0.1: refuses the connection") == 2  # the Hub, and the JSON files
    for folder in ("data/downloads/squad", "models/downloads/mobilebert-uncased"):
        assert f"into {(project / folder)}\n" in told
    assert "Partial downloads are kept" in told


@pytest.mark.fault("download fault")
def test_an_unreachable_proxy_is_named_without_its_password(project, monkeypatch):
    place = f"127.0.0.1:{closed_port()}"
    flags = ["--endpoint", "http://hub.test", "--retries", "0", "--only", "model"]
    with pytest.raises(QAError, match=f"through the proxy http://{place}") as caught:
        download_data.main([*flags, "--proxy", f"http://me:secret@{place}"])
    assert "secret" not in str(caught.value)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delitem(os.environ, name)
    monkeypatch.setitem(os.environ, "HTTP_PROXY", f"me:secret@{place}")  # as curl takes it too
    with pytest.raises(QAError, match=f"through the proxy {place}") as caught:
        download_data.main(flags)
    assert "secret" not in str(caught.value)


def test_a_proxy_is_used_for_the_json_files_too(project, download):
    with ProxyServer(download.hub.url) as proxy:
        download_data.main([*JSON, "--proxy", proxy.url, "--json_url", "http://squad.test/web"])
        assert proxy.requests == [f"http://squad.test/web/{name}" for name in json_files()]


def test_a_socks_proxy_of_the_environment_is_explained(project, monkeypatch):
    monkeypatch.setitem(os.environ, "ALL_PROXY", "socks5://me:secret@127.0.0.1:1")
    with pytest.raises(QAError, match=r"socks5://127\.0\.0\.1:1, which.*--proxy http://"):
        download_data.main(["--only", "data"])


@pytest.mark.fault("download fault")
def test_a_password_in_an_address_is_not_shown_nor_kept(project, download, capsys, caplog):
    own = download.hub.url.replace("//", "//me:secret@")
    caplog.set_level("INFO", "extractive_qa")
    download("--only", "data", "--endpoint", own)
    assert {request.authorization for request in download.hub.requests if request.path.startswith("/cdn/")} == {None}
    download.hub.fail("train-00000-of-00001.parquet", *[{"status": 503}] * 9, method="HEAD")
    download.hub.fail("train-v1.1.json", {"page": True})
    with pytest.raises(QAError) as caught:
        download("--only", "data", "--force", "--endpoint", own, "--json_url", f"{own}/web")
    said = capsys.readouterr()
    assert "secret" not in said.out + said.err + caplog.text + str(caught.value)
    assert "127.0.0.1" in caplog.text
    assert b"secret" not in b"".join(tree(project).values())


REFUSED = [
    "socks5://me:secret@host:1",
    "me:secret@host",
    "http://me:secret/x@host",
    "http://me:secret x@host",
    "me:secret\n@host",
]


@pytest.mark.parametrize("flag", ["--endpoint", "--proxy", "--json_url", "--endpont", None])
def test_a_password_in_an_address_that_is_refused_is_not_shown(flag, project, monkeypatch, capsys):
    for address in REFUSED:
        if flag is None:
            monkeypatch.setitem(os.environ, "HF_ENDPOINT", address)
        with pytest.raises(SystemExit):
            download_data.main(["--verify"] if flag is None else ["--verify", flag, address])
        said = capsys.readouterr().err
        assert "secret" not in said
        assert f"{flag or '--endpoint'} {address.partition('me:')[0]}host" in said
    assert not list(project.iterdir())


def test_the_endpoint_of_the_environment_is_taken_and_its_password_not_shown(project, monkeypatch, capsys):
    own = "https://me:secret@mirror.test/hub"
    assert download_data.parse_args([]).endpoint == download_data.HUB
    monkeypatch.setitem(os.environ, "HF_ENDPOINT", own + "/")
    assert download_data.parse_args([]).endpoint == own
    assert download_data.parse_args(["--endpoint", "https://other.test"]).endpoint == "https://other.test"
    with pytest.raises(SystemExit):
        download_data.parse_args(["--help"])
    said = capsys.readouterr().out
    assert "HF_ENDPOINT" in said
    assert "secret" not in said
    assert "mirror.test" not in said


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--endpoint", "hf-mirror.com"], "expected an address like http://host:port"),
        (["--proxy", "socks5://127.0.0.1:1"], "expected an address like http://host:port"),
        (["--revision", "v1"], "add --only"),
        (["--only", "model", "--source", "json"], "leave it out"),
        (["--only", "data", "--revision", "v1", "--source", "json"], "leave it out"),
        (["--teacher", "--only", "data"], "exclude each other"),
        (["--timeout", "0", "--retries", "-1"], "expected more than 0"),
        (["--timeout", "inf"], "at most 86400"),
        (["--timeout", "nan"], "at most 86400"),
        (["--verify", "--force"], "not allowed with"),
    ],
)
def test_flags_that_make_no_sense_are_refused_before_any_work(flags, says, project, capsys):
    with pytest.raises(SystemExit) as caught:
        download_data.main(flags)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err
    assert list(project.iterdir()) == []


# ---- a company's certificate

VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture
def company(full_hub, monkeypatch, tmp_path_factory):  # noqa: F811
    """The Hub behind TLS with a certificate of its own, as in a company's network. Returns the certificate's file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("certificates")
    key, certificate = folder / "key.pem", folder / "company.pem"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    for server in (full_hub, full_hub.cdn):
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.url = server.url.replace("http:", "https:")
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return certificate


@pytest.mark.fault("download fault")
@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_one_variable_with_a_company_s_certificate_is_enough(project, company, full_hub, monkeypatch, name):  # noqa: F811
    """Metadata came by one HTTP library and bytes by another, which read different variables."""
    monkeypatch.setenv(name, str(company))
    download_data.main(["--endpoint", full_hub.url, "--timeout", "5", "--retries", "0", "--only", "model"])
    assert (project / "models" / "mobilebert-uncased" / "model.safetensors").is_file()


@pytest.mark.fault("download fault")
def test_without_the_certificate_the_message_names_the_variables(project, company, full_hub):  # noqa: F811
    with pytest.raises(QAError, match=r"certificate can't be trusted.*SSL_CERT_FILE or REQUESTS_CA_BUNDLE"):
        download_data.main(["--endpoint", full_hub.url, "--timeout", "5", "--retries", "0", "--only", "model"])


@pytest.mark.fault("download fault")
@pytest.mark.parametrize("name", VARIABLES[:3])
@pytest.mark.parametrize("content", [None, b"no certificate"], ids=["missing", "other"])
def test_a_certificate_that_can_not_be_read_is_named_with_its_variable(project, full_hub, monkeypatch, name, content):  # noqa: F811
    path = project / "company.pem"
    if content:
        path.write_bytes(content)
    monkeypatch.setenv(name, str(path))
    with pytest.raises(QAError, match=rf"{name} names .*company\.pem, which can't be read"):
        download_data.main(["--endpoint", full_hub.url, "--only", "model"])
    assert not full_hub.requests
