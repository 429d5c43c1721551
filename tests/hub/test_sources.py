"""Where the files come from: through the unmodified client from a Hub on loopback, from JSON files, from a folder."""

import logging
import re

import pytest
from hub_server import COMMIT
from small_hub import DATA, MODEL, TEACHER, json_files, parquet_files, put, tree

from extractive_qa.errors import QAError
from extractive_qa.hub import sources
from extractive_qa.hub.options import DownloadOptions, Patience
from extractive_qa.hub.retries import FetchError

# what is in them doesn't matter here
FILES = {
    "config.json": b"{}",
    "vocab.txt": b"who\nwon",
    "tokenizer.json": b"{...}",
    "model.safetensors": b"safe" * 99,
    "pytorch_model.bin": b"pickle" * 99,
}
PICKLED = {name: content for name, content in FILES.items() if name != "model.safetensors"}
TRAIN = "train-00000-of-00001.parquet"


@pytest.fixture
def get(hub, tmp_path):
    """get("data") is {name: content} of what came, where it came from, and the revision."""
    hub.add(DATA, parquet_files())
    hub.add("web", json_files())
    hub.add(MODEL, PICKLED | {"tf_model.h5": b"not needed", "README.md": b"not needed"})

    def get(part, **options):
        options = {"endpoint": hub.url, "json_url": f"{hub.url}/web", "patience": Patience(0.3, 2)} | options
        fetched = sources.get_files(part, get.by_hand, get.partial, DownloadOptions(**options))
        return {name: path.read_bytes() for name, path in fetched.files.items()}, fetched.source, fetched.revision

    get.by_hand, get.partial = tmp_path / "by_hand", tmp_path / "partial"
    return get


def asked(hub):
    """The names of the files that were asked for, but for the second address of large ones."""
    return [request.file for request in hub.requests if not request.path.startswith("/cdn/")]


# ---- from the Hub, from JSON files


def test_the_data_come_from_the_hub_or_as_the_original_json(hub, get, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert get("data") == (parquet_files(), f"{hub.url}/{DATA}", COMMIT)
    assert not any("/web/" in request.path for request in hub.requests)
    assert {request.authorization for request in hub.requests} == {None}  # a user's token stays at home
    assert get("data", source="json") == (json_files(), f"{hub.url}/web", "v1.1")
    assert set(tree(get.partial)) == {*json_files(), *(name.rpartition("/")[2] for name in parquet_files())}


def test_only_what_is_needed_of_a_model_is_asked_for(hub, get):
    assert get("model") == (PICKLED, f"{hub.url}/{MODEL}", COMMIT)
    assert set(asked(hub)) == set(FILES)
    del hub.files[f"/{MODEL}/tokenizer.json"]  # can be made of the vocabulary
    assert set(get("model")[0]) == set(PICKLED) - {"tokenizer.json"}
    hub.requests.clear()
    hub.add(TEACHER, FILES)
    assert get("teacher")[0] == {name: FILES[name] for name in FILES if name != "pytorch_model.bin"}
    assert "pytorch_model.bin" not in asked(hub)  # safetensors are preferred to the pickle


@pytest.mark.fault("download fault")
@pytest.mark.parametrize(
    "faults",
    [[{"status": 500}, {"status": 503}], [{"status": 429, "headers": {"Retry-After": "0"}}], [{"silent": True}]],
    ids=["5xx", "429", "silent"],
)
def test_faults_of_the_hub_that_pass_are_waited_for(faults, hub, get):
    hub.fail(TRAIN, *faults, method="HEAD")
    assert get("data", source="hub")[0] == parquet_files()


@pytest.mark.fault("download fault")
def test_the_json_files_are_taken_where_the_hub_fails(hub, get, caplog):
    caplog.set_level(logging.INFO)
    hub.fail(TRAIN, *[{"status": 503}] * 20, method="HEAD")
    assert get("data") == (json_files(), f"{hub.url}/web", "v1.1")
    assert re.search(r"HTTP 503 .*\. Using the original JSON files instead\n.*data: http://.*/web", caplog.text)
    with pytest.raises(FetchError, match="HTTP 503"):
        get("data", source="hub")  # asked for: the other is no substitute


@pytest.mark.fault("download fault")
@pytest.mark.parametrize(
    ("fault", "words", "requests"),
    [
        ({"status": 404}, r"HTTP 404 .*config\.json", 1),
        ({"status": 401}, "HTTP 401", 1),
        ({"page": True}, "doesn't answer like the Hub", 1),
        ({"silent": True}, r"127\.0\.0\.1: sent nothing for 0\.3 s", 2),
    ],
    ids=["missing", "forbidden", "a web page", "silent"],
)
def test_what_the_hub_answers_is_told(fault, words, requests, hub, get):
    hub.fail("config.json", *[fault] * 9, method="HEAD")
    with pytest.raises(FetchError, match=words):
        get("model", patience=Patience(0.3, requests - 1))
    assert len(hub.requests) == requests
    assert tree(get.partial) == {}


@pytest.mark.fault("download fault")
def test_an_unknown_revision_is_named(hub, get):
    with pytest.raises(FetchError, match=r"HTTP 404 .*Invalid rev id: v9"):
        get("data", revision="v9")
    assert not any("/web/" in request.path for request in hub.requests)


@pytest.mark.fault("download fault")
def test_another_file_from_the_second_address_of_a_large_one_is_not_taken(hub, get):
    hub.fail(TRAIN, {"content": b"#" * 999})
    with pytest.raises(FetchError, match=r"another file: 999 bytes of .*Expected [\d,]+ bytes with the checksum"):
        get("data", source="hub")
    assert get("data", source="hub")[0] == parquet_files()


@pytest.mark.fault("download fault")
@pytest.mark.parametrize("what", ["a large file", "a folder"])
def test_a_place_that_cannot_be_written_is_named(what, get):
    """A large file: as on a disk with a quota, or one that can't hold large files."""
    if what == "a folder":
        get.partial.write_bytes(b"a file where the folder should be")
        with pytest.raises(QAError, match="partial can't be written: File exists"):
            get("data")
        return
    resource = pytest.importorskip("resource", reason="needs limits of POSIX")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(QAError, match=r"partial can't be written: File too large.*run the same command again"):
            get("data", source="json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert get("data", source="json")[0] == json_files()


# ---- hostile servers


@pytest.mark.fault("hostile folder")
def test_a_checksum_of_a_server_that_names_a_path_leads_nowhere(hub, get, tmp_path):
    """The checksum is part of a file's name."""
    headers = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": '"../../../../outside"', "X-Linked-Size": "5"}
    hub.fail("config.json", {"status": 302, "headers": {**headers, "Location": f"{hub.url}/x"}}, method="HEAD")
    with pytest.raises(QAError):
        get("model")
    assert {path.name for path in tmp_path.rglob("*") if not path.name.startswith("config.json.outside")} <= {"partial"}


@pytest.mark.fault("download fault")
def test_a_login_for_one_host_is_not_taken_to_another(hub, get, tmp_path, monkeypatch):
    """Large files lie on another host, as on the Hub."""
    hub.cdn.url = hub.cdn.url.replace("127.0.0.1", "localhost")
    login = tmp_path / "netrc"
    login.write_text("machine 127.0.0.1 login me password secret\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(login))
    get("data")
    given = {(request.path.startswith("/cdn/"), bool(request.authorization)) for request in hub.requests}
    assert (False, True) in given  # it was there to be taken along
    assert (True, True) not in given


# ---- put there by hand


def test_files_that_were_all_put_there_by_hand_need_no_network(hub, get):
    for part, files in (("data", json_files()), ("model", PICKLED), ("model", FILES)):
        put(get.by_hand, files)
        content, source, _ = get(part)
        assert source == sources.BY_HAND
        assert content == {name: files[name] for name in content}
        assert set(files) - set(content) <= {"pytorch_model.bin"}  # one file of weights is enough
    for name in json_files():
        (get.by_hand / name).unlink()
    put(get.by_hand, {name.rpartition("/")[2]: content for name, content in parquet_files().items()})
    assert get("data") == (parquet_files(), sources.BY_HAND, None)
    assert not hub.requests
    assert not get.partial.exists()


def test_one_file_that_was_put_there_by_hand_saves_its_download(hub, get):
    hub.add(MODEL, FILES)
    put(get.by_hand, {"pytorch_model.bin": PICKLED["pytorch_model.bin"]})
    assert get("model") == (PICKLED, f"{hub.url}/{MODEL}", COMMIT)  # weights by hand decide which form is taken
    assert hub.asked("pytorch_model.bin") == []
    put(get.by_hand, {"pytorch_model.bin": b"something else"})
    with pytest.raises(QAError, match=r"pytorch_model\.bin has 14 bytes and is not the file at .*/pytorch_model\.bin"):
        get("model")


@pytest.mark.fault("download fault")
def test_a_wrong_file_that_was_put_there_by_hand_is_named(hub, get, monkeypatch):
    put(get.by_hand, {**json_files(), "dev-v1.1.json": json_files()["dev-v1.1.json"] + b"\n"})
    with pytest.raises(QAError, match=r"dev-v1\.1\.json has [\d,]+ bytes and is not the file at") as caught:
        get("data", json_url="http://me:secret@web.test")
    assert "secret" not in str(caught.value)
    assert not hub.requests

    def closed(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sources, "matches", closed)
    with pytest.raises(QAError, match=r"train-v1\.1\.json can't be read: Permission denied"):
        get("data")


def test_the_ways_out_name_every_file_and_where_it_goes(tmp_path):
    told = sources.ways_out({"data": tmp_path / "squad", "model": tmp_path / "mobilebert"})
    for words in ("--endpoint https://hf-mirror.com", "--proxy http://", f"into {tmp_path / 'squad'}\n"):
        assert words in told
    urls = re.findall(r"https://\S+/(?:dataset|main)/(\S+)", told)
    assert urls == [*json_files(), "config.json", "vocab.txt", "tokenizer.json", "pytorch_model.bin"]
    assert "teacher" not in told
    told = sources.ways_out({"teacher": tmp_path})
    assert re.findall(r"https://\S+/main/(\S+)", told)[-1] == "model.safetensors"
