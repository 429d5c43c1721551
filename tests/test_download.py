"""download_data.py against a Hub on loopback, through the unmodified client: what arrives, what is checked, what a user
is told. Small files stand in for the real ones, and the expected rows and checksums are theirs; nothing else differs.
"""

import hashlib
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

import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet
import pytest
from hub_server import COMMIT, PAGE, HubServer, ProxyServer

import download_data
from utils import console, fetch
from utils.console import UserError

ROOT = Path(__file__).resolve().parents[1]
MODEL, DATA = "google/mobilebert-uncased", "datasets/rajpurkar/squad"
TEACHER = "google-bert/bert-large-uncased-whole-word-masking-finetuned-squad"
ROWS = {"train": 20, "validation": 3}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "won", "?", "cafe", "##s", "team"]


def squad_rows(split):
    context = "The team won in the Café. " * 20
    answers = {"text": ["team", "The team"], "answer_start": [4, 0]}
    return [
        {
            "id": f"{split}-{i}",
            "title": "Café_谁",
            "context": f"{context}{i // 5}",
            "question": "Who won?",
            "answers": answers,
        }
        for i in range(ROWS[split])
    ]


@pytest.fixture(scope="session")
def parquet_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parquet")
    for split in ROWS:
        pa.parquet.write_table(pa.Table.from_pylist(squad_rows(split)), folder / split)
    return {f"plain_text/{split}-00000-of-00001.parquet": (folder / split).read_bytes() for split in ROWS}


@pytest.fixture(scope="session")
def json_files():
    """The same questions in the original nested form."""
    files = {}
    for split, name in zip(ROWS, ("train-v1.1.json", "dev-v1.1.json"), strict=True):
        paragraphs = {}
        for row in squad_rows(split):
            pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
            answers = [{"text": text, "answer_start": start} for text, start in pairs]
            question = {"id": row["id"], "question": row["question"], "answers": answers}
            paragraphs.setdefault(row["context"], []).append(question)
        article = {"title": "Café_谁", "paragraphs": [{"context": c, "qas": q} for c, q in paragraphs.items()]}
        files[name] = json.dumps({"version": "1.1", "data": [article]}, ensure_ascii=False).encode()
    return files


@pytest.fixture(scope="session")
def model_files(tmp_path_factory):
    """MobileBERT with two small layers as it is on the Hub: a pickle with the pretraining heads, no safetensors, no
    tokenizer_config.json; the decoder shares the embeddings' matrix."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import MobileBertConfig, MobileBertForPreTraining

    folder = tmp_path_factory.mktemp("model")
    sizes = {"hidden_size": 32, "true_hidden_size": 16, "intra_bottleneck_size": 16, "embedding_size": 16}
    config = MobileBertConfig(
        vocab_size=len(WORDS), num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, **sizes
    )  # fmt: skip
    config.save_pretrained(folder)
    torch.save(MobileBertForPreTraining(config).state_dict(), folder / "pytorch_model.bin")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    BertWordPieceTokenizer({word: i for i, word in enumerate(WORDS)}, lowercase=True).save(
        str(folder / "tokenizer.json")
    )
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(parquet_files, json_files, model_files):
    with HubServer() as server:
        server.add(DATA, parquet_files)
        server.add(MODEL, {**model_files, "tf_model.h5": b"not needed", "README.md": b"not needed"})
        server.add("web", json_files)
        yield server


def stand_ins(json_files):
    """What the real files must be, said of the small ones."""
    known = {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in json_files.items()}
    return {"ROWS": ROWS, "JSON_FILES": known}


@pytest.fixture
def project(tmp_path, monkeypatch, json_files):
    """An empty project folder. The network's settings are those of this test alone, and no pause is long."""
    for name, value in stand_ins(json_files).items():
        monkeypatch.setattr(download_data, name, value)
    monkeypatch.setattr(download_data, "SQUAD_DIR", tmp_path / "data" / "squad")
    monkeypatch.setattr(download_data, "MODEL_DIR", tmp_path / "models" / "mobilebert-uncased")
    monkeypatch.setattr(download_data, "TEACHER_DIR", tmp_path / "models" / "teacher")
    monkeypatch.setattr(fetch, "BACKOFF", 0.01)
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    # a script's own process imports the library after it has set these; here it is there already, maybe offline, and it
    # would ask the real Hub by which program it is used
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    return tmp_path


@pytest.fixture
def download(project, hub):
    """Runs main() as the command line would."""

    def download(*argv):
        download_data.main(
            ["--endpoint", hub.url, "--json_url", f"{hub.url}/web", "--timeout", "0.5", "--retries", "2", *argv]
        )

    return download


def load_squad(project):
    from datasets import load_from_disk

    return load_from_disk(str(project / "data" / "squad"), keep_in_memory=True)


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- what arrives


def test_data_from_hub_and_from_json_are_the_same(project, hub, download):
    download("--only", "data", "--source", "hub")
    from_hub = load_squad(project)
    assert not any("/web/" in request.path for request in hub.requests)
    shutil.rmtree(project / "data" / "squad")
    download("--only", "data", "--source", "json")
    from_json = load_squad(project)
    assert from_hub["train"].features == from_json["train"].features
    for split in ROWS:
        assert from_hub[split].to_list() == from_json[split].to_list() == squad_rows(split)


def test_model_folder_loads_offline_and_holds_the_published_weights(project, hub, download, model_files):
    import io

    import torch
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    download("--only", "model")
    folder = project / "models" / "mobilebert-uncased"
    names = [
        "config.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    assert sorted(path.name for path in folder.iterdir()) == names
    asked = {request.file for request in hub.requests if not request.path.startswith("/cdn/")}
    assert asked == set(download_data.MODEL_FILES)  # and nothing that a library thought of by itself
    before = len(hub.requests)

    published = torch.load(io.BytesIO(model_files["pytorch_model.bin"]), weights_only=True)
    written = load_file(folder / "model.safetensors")
    # what is not written is the same tensor as one that is: the pretraining head's copy of the embeddings
    assert all(name.startswith("cls.predictions.") for name in set(published) - set(written))
    for name, tensor in written.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, published[name]), name
    model = AutoModelForQuestionAnswering.from_pretrained(folder, local_files_only=True)
    embeddings = model.get_input_embeddings().weight
    assert torch.equal(embeddings, published["mobilebert.embeddings.word_embeddings.weight"])

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert tokenizer.tokenize("WHO won CAFÉS?") == ["who", "won", "cafe", "##s", "?"]
    assert tokenizer.model_max_length == 512
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode("WHO").tokens == ["[CLS]", "who", "[SEP]"]
    assert json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["do_lower_case"] is True
    assert len(hub.requests) == before


@pytest.mark.parametrize("tokenizer_json", ["absent", "cased"])
def test_tokenizer_lower_cases_whatever_the_hub_has(tokenizer_json, project, hub, download):
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    del hub.files[f"/{MODEL}/tokenizer.json"]
    if tokenizer_json == "cased":
        cased = BertWordPieceTokenizer({word: i for i, word in enumerate(WORDS)}, lowercase=False)
        hub.add(MODEL, {"tokenizer.json": cased.to_str().encode()})
    download("--only", "model")
    tokenizer = Tokenizer.from_file(str(project / "models" / "mobilebert-uncased" / "tokenizer.json"))
    assert tokenizer.encode("Who WON").tokens == ["[CLS]", "who", "won", "[SEP]"]


def test_safetensors_are_preferred_to_the_pickle(project, hub, download, model_files, tmp_path):
    import io

    import torch
    from safetensors.torch import save

    state = torch.load(io.BytesIO(model_files["pytorch_model.bin"]), weights_only=True)
    hub.add(MODEL, {"model.safetensors": save({name: tensor.clone().half() for name, tensor in state.items()})})
    download("--only", "model")
    assert "pytorch_model.bin" not in {request.file for request in hub.requests}
    assert (project / "models" / "mobilebert-uncased" / "model.safetensors").is_file()


@pytest.fixture
def teacher_files(model_files, tmp_path):
    """A reader with one small layer as the teacher is on the Hub: safetensors, and a pickle beside them."""
    from transformers import BertConfig, BertForQuestionAnswering

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForQuestionAnswering(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(tmp_path / "made")
    files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    words = {name: model_files[name] for name in ("vocab.txt", "tokenizer.json")}
    return files | words | {"pytorch_model.bin": b"not needed", "flax_model.msgpack": b"not needed"}


def test_the_teacher_comes_when_asked_for_and_answers(project, hub, download, teacher_files, capsys):
    from utils.reader import Reader

    hub.add(TEACHER, teacher_files)
    download()
    assert not (project / "models" / "teacher").exists()
    download("--teacher")
    assert "pytorch_model.bin" not in {request.file for request in hub.requests if TEACHER in request.path}
    assert Reader(project / "models" / "teacher", "cpu", "no").answer("Who won?", "The team.")["text"]
    out = capsys.readouterr().out
    assert out.count("all as they should be") == 5  # two, and then all three
    assert "Next: python train.py --teacher_dir" in out.splitlines()[-1]
    asked = len(hub.requests)
    download("--only", "teacher", "--verify")
    assert len(hub.requests) == asked


@pytest.mark.fault("download fault")
def test_an_encoder_in_the_teachers_place_is_refused(project, hub, download, model_files, teacher_files):
    hub.add(TEACHER, {name: model_files[name] for name in ("config.json", "pytorch_model.bin", "vocab.txt")})
    with pytest.raises(UserError, match=r"was not trained to answer questions.*--only teacher"):
        download("--only", "teacher")
    hub.add(TEACHER, {name: teacher_files[name] for name in ("config.json", "model.safetensors")})
    hub.fail("model.safetensors", {"cut": 1000})
    download("--only", "teacher")
    assert (project / "models" / "teacher" / "manifest.json").is_file()


def test_manifest_names_source_and_commit(project, hub, download):
    download("--only", "data")
    manifest = json.loads((project / "data" / "squad" / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["source"], manifest["revision"]) == (f"{hub.url}/datasets/rajpurkar/squad", COMMIT)
    assert {entry["file"] for entry in manifest["files"]} == set(tree(project / "data" / "squad")) - {"manifest.json"}


def test_only_fetches_only_that(project, download):
    download("--only", "data")
    assert not (project / "models").exists()
    download("--only", "model")
    assert sorted(path.name for path in (project / "models").iterdir()) == ["mobilebert-uncased"]
    assert sorted(path.name for path in (project / "data").iterdir()) == ["squad"]  # no leftovers


def test_a_users_token_stays_at_home(download, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download("--only", "data")
    assert {request.authorization for request in hub.requests} == {None}


# ---- second runs


def test_second_run_verifies_and_asks_nobody(project, hub, download, capsys):
    download()
    asked, before = len(hub.requests), tree(project)
    capsys.readouterr()
    download()
    download("--verify")
    assert len(hub.requests) == asked
    assert tree(project) == before
    assert capsys.readouterr().out.count("all as they should be") == 4


def test_quiet_prints_what_is_there_and_no_more(project, hub, download, capsys, monkeypatch):
    monkeypatch.setitem(console.OUTPUT, "quiet", False)  # and so it is again afterwards
    download("--only", "data", "--quiet")
    said = capsys.readouterr()
    assert [line.strip().split()[0] for line in said.out.splitlines()] == [f"{project / 'data' / 'squad'}:", "from"]
    assert said.err == ""


@pytest.mark.fault("tampered file")
def test_damage_is_found_named_and_mended_by_force(project, hub, download):
    download("--only", "data")
    asked, before = len(hub.requests), tree(project / "data")
    victim = next((project / "data" / "squad").glob("train/*.arrow"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    for flags in ([], ["--verify"]):
        with pytest.raises(UserError, match=rf"train/{re.escape(victim.name)} has sha256 .*--force --only data"):
            download("--only", "data", *flags)
    assert len(hub.requests) == asked
    download("--only", "data", "--force")
    assert tree(project / "data") == before


@pytest.mark.fault("tampered file")
def test_verify_reports_everything_at_once_and_downloads_nothing(project, hub, download):
    download("--only", "data")
    asked = len(hub.requests)
    (project / "data" / "squad" / "dataset_dict.json").unlink()
    with pytest.raises(UserError) as caught:
        download("--verify")
    assert "dataset_dict.json is missing" in str(caught.value)
    assert "mobilebert-uncased is missing" in str(caught.value)
    assert len(hub.requests) == asked


@pytest.mark.fault("tampered file")
def test_a_folder_of_unknown_origin_is_left_alone(project, hub, download):
    mine = project / "data" / "squad"
    mine.mkdir(parents=True)
    (mine / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"has no manifest\.json.*--force"):
        download("--only", "data")
    assert tree(mine) == {"mine.txt": b"mine"}
    assert not hub.requests


@pytest.mark.fault("download fault")
def test_failed_force_keeps_what_was_there(project, hub, download):
    download("--only", "data")
    before = tree(project / "data" / "squad")
    hub.files.clear()
    with pytest.raises(UserError):
        download("--only", "data", "--force")
    assert tree(project / "data" / "squad") == before


# ---- poor lines


@pytest.mark.fault("download fault")
def test_a_cut_download_goes_on_within_the_run(project, hub, download, model_files):
    size = len(model_files["pytorch_model.bin"])
    # more cuts than --retries: each attempt brought something
    hub.fail("pytorch_model.bin", *[{"cut": size // 6}] * 5)
    download("--only", "model")
    starts = [0, *(int(range_[6:-1]) for range_ in hub.asked("pytorch_model.bin")[1:])]
    assert len(starts) >= 6
    assert all(0 < later - earlier <= size // 6 for earlier, later in itertools.pairwise(starts))


@pytest.mark.fault("download fault")
@pytest.mark.parametrize("fault", ["cut", "reset", "stall"])
def test_a_line_that_breaks_half_way_goes_on_from_there(fault, project, hub, download, model_files):
    size = len(model_files["pytorch_model.bin"])
    hub.fail("pytorch_model.bin", {fault: size // 2})
    download("--only", "model")
    first, then = hub.asked("pytorch_model.bin")
    assert first is None
    # a reset may throw away what lay unread in the system
    assert (fault == "reset" and then is None) or 0 < int(then[6:-1]) <= size // 2


@pytest.mark.fault("download fault")
def test_a_body_without_a_length_that_is_cut_goes_on_too(project, hub, download, json_files):
    content = json_files["train-v1.1.json"]
    hub.fail("train-v1.1.json", {"content": content[:500], "no_length": True}, {"no_length": True})
    download("--only", "data", "--source", "json")
    assert hub.asked("train-v1.1.json") == [None, "bytes=500-"]
    assert load_squad(project)["train"].to_list() == squad_rows("train")


@pytest.mark.fault("download fault")
def test_a_run_that_failed_is_resumed_by_the_next(project, hub, download, model_files):
    size = len(model_files["pytorch_model.bin"])
    hub.fail("pytorch_model.bin", {"cut": size // 2}, {"status": 404})
    with pytest.raises(UserError, match="HTTP 404"):
        download("--only", "model")
    assert not (project / "models" / "mobilebert-uncased").exists()
    (part,) = (project / "models" / ".partial-mobilebert-uncased").glob("pytorch_model.bin.*.part")
    kept = part.stat().st_size
    assert 0 < kept <= size // 2
    download("--only", "model")
    assert hub.asked("pytorch_model.bin") == [None, f"bytes={kept}-", f"bytes={kept}-"]
    assert hub.asked("vocab.txt") == [None]  # was complete
    assert sorted(path.name for path in (project / "models").iterdir()) == ["mobilebert-uncased"]


@pytest.mark.fault("download fault")
def test_a_finished_partial_file_is_not_asked_for_again(project, hub, download, json_files):
    staging = project / "data" / ".partial-squad"
    staging.mkdir(parents=True)
    sha256 = hashlib.sha256(json_files["train-v1.1.json"]).hexdigest()
    (staging / f"train-v1.1.json.{sha256[:12]}.part").write_bytes(json_files["train-v1.1.json"])
    download("--only", "data", "--source", "json")
    assert hub.asked("train-v1.1.json") == []


@pytest.mark.fault("download fault")
@pytest.mark.parametrize("damage", ["other content", "too long"])
def test_a_damaged_partial_file_is_thrown_away(damage, project, hub, download, json_files):
    staging = project / "data" / ".partial-squad"
    staging.mkdir(parents=True)
    content = json_files["train-v1.1.json"]
    sha256 = hashlib.sha256(content).hexdigest()
    partial = b"?" * 100 if damage == "other content" else content + b"?"
    (staging / f"train-v1.1.json.{sha256[:12]}.part").write_bytes(partial)
    download("--only", "data", "--source", "json")
    assert load_squad(project)["train"].to_list() == squad_rows("train")
    assert hub.asked("train-v1.1.json")[-1] is None


@pytest.mark.fault("download fault")
def test_a_range_that_is_refused_starts_over(project, hub, download, model_files):
    hub.fail("pytorch_model.bin", {"cut": len(model_files["pytorch_model.bin"]) // 2}, {"status": 416})
    download("--only", "model")
    first, rest, again = hub.asked("pytorch_model.bin")
    assert (first, again) == (None, None)
    assert rest.startswith("bytes=")


@pytest.mark.fault("download fault")
def test_a_finished_file_of_unknown_size_is_fetched_again(project, hub, json_files):
    """Asking for what follows its end is answered with 416."""
    content = json_files["train-v1.1.json"]
    sha256, path = hashlib.sha256(content).hexdigest(), project / "train-v1.1.json"
    path.with_name(f"{path.name}.{sha256[:12]}.part").write_bytes(content)
    remote = fetch.RemoteFile(f"{hub.url}/web/train-v1.1.json", None, sha256)
    fetch.fetch(remote, path, fetch.Patience(0.5, 2))
    assert hub.asked("train-v1.1.json") == [f"bytes={len(content)}-", None]
    assert tree(project) == {"train-v1.1.json": content}


@pytest.mark.fault("download fault")
def test_a_bit_that_flips_in_the_resumed_part_starts_over(project, hub, download, parquet_files):
    file, content = "train-00000-of-00001.parquet", parquet_files["plain_text/train-00000-of-00001.parquet"]
    hub.fail(file, {"cut": len(content) // 2}, {"content": content[:-1] + bytes([content[-1] ^ 1])})
    download("--only", "data", "--source", "hub")
    assert len(hub.asked(file)) == 3
    assert load_squad(project)["train"].to_list() == squad_rows("train")


@pytest.mark.fault("download fault")
def test_a_server_without_ranges_sends_all_again(project, hub, download):
    hub.fail("train-v1.1.json", {"cut": 500}, {"whole": True})
    download("--only", "data", "--source", "json")
    assert load_squad(project)["train"].to_list() == squad_rows("train")


@pytest.mark.fault("download fault")
@pytest.mark.parametrize(
    "faults",
    [[{"status": 500}, {"status": 503}], [{"status": 429, "headers": {"Retry-After": "0"}}], [{"silent": True}]],
    ids=["5xx", "429", "silent"],
)
@pytest.mark.parametrize("where", ["HEAD", "GET"])
def test_passing_faults_are_passed_over(where, faults, project, hub, download):
    hub.fail("train-00000-of-00001.parquet", *faults, method=where)
    download("--only", "data", "--source", "hub")
    assert load_squad(project).num_rows == ROWS


@pytest.mark.fault("download fault")
def test_retry_after_is_honoured(project, hub, download, monkeypatch):
    pauses = []
    monkeypatch.setattr(fetch.time, "sleep", pauses.append)
    hub.fail("train-v1.1.json", {"status": 429, "headers": {"Retry-After": "7"}})
    download("--only", "data", "--source", "json")
    assert pauses == [7.0]
    hub.fail("train-v1.1.json", {"status": 429, "headers": {"Retry-After": "7200"}})
    with pytest.raises(UserError, match="come back in 7200 s"):
        download("--only", "data", "--source", "json", "--force")


@pytest.mark.fault("download fault")
@pytest.mark.parametrize(
    "value",
    [
        "\xb2",
        "9" * 5000,
        "-1",
        "1e9",
        "soon",
        "Mon, 01 Jan 0001 00:00:00 -0000",
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "0 0",
        "1-Jan-2020 00:00:00 99999999999999999999",
    ],
)
def test_a_retry_after_that_is_none_is_left_aside(value, project, hub, download):
    assert fetch._retry_after(value) >= 0
    hub.fail("train-v1.1.json", {"status": 503, "headers": {"Retry-After": value}})
    download("--only", "data", "--source", "json")


@pytest.mark.fault("download fault")
@pytest.mark.parametrize(
    ("fault", "says"),
    [({"silent": True}, "sent nothing"), ({"stall": 0}, "sent nothing"), ({"trickle": True}, r"sent \d+ bytes")],
)
def test_a_server_that_hangs_is_given_up(fault, says, hub, download, monkeypatch):
    hub.fail("train-v1.1.json", *[fault] * 100)
    monkeypatch.setattr(fetch, "MIN_SPEED", 1000)
    with pytest.raises(UserError, match=rf"127\.0\.0\.1: {says} (for|in) 0\.5 s"):
        download("--only", "data", "--source", "json", "--retries", "0")


@pytest.mark.fault("download fault")
def test_a_server_that_hangs_before_the_metadata_is_given_up(hub, download):
    hub.fail("config.json", *[{"silent": True}] * 20, method="HEAD")
    with pytest.raises(UserError, match=r"127\.0\.0\.1: sent nothing for 0\.5 s"):
        download("--only", "model", "--retries", "1")


@pytest.mark.fault("download fault")
def test_a_host_that_was_redirected_to_is_named(hub, download):
    hub.cdn.url = f"http://localhost:{closed_port()}"
    with pytest.raises(UserError, match=r"^localhost: refuses the connection"):
        download("--only", "model")


@pytest.mark.fault("download fault")
def test_a_full_disk_is_noticed_before_the_download(hub, download, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(UserError, match="MB of free disk, expected"):
        download("--only", "data", "--source", "json")
    assert not hub.requests


# ---- full disks


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


@pytest.mark.fault("download fault")
@pytest.mark.parametrize(
    "moments", [2, pytest.param(40, marks=pytest.mark.slow)], ids=["a few moments", "many moments"]
)
@pytest.mark.parametrize("force", [False, True], ids=["first", "again"])
@pytest.mark.parametrize("part", ["data", "model"])
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
        except UserError as error:
            assert "No space left on device" in str(error), error
            tried += 1
            assert tree(folder) == (whole if force else {})
            assert {path.name for path in folder.parent.iterdir()} <= {f".partial-{folder.name}", folder.name}
        # it goes on from what it has
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
def test_a_file_that_may_not_grow_loses_nothing(part, project, download):
    """As on a disk with a quota, or one that can't hold large files."""
    resource = pytest.importorskip("resource", reason="needs limits of POSIX")
    folder = download_data.SQUAD_DIR if part == "data" else download_data.MODEL_DIR
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(UserError, match="File too large"):
            download("--only", part)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in folder.parent.iterdir()] == [f".partial-{folder.name}"]
    download("--only", part)
    download("--only", part, "--verify")


# ---- wrong answers


@pytest.mark.fault("download fault")
def test_a_missing_file_is_final(hub, download):
    del hub.files[f"/{MODEL}/config.json"]
    with pytest.raises(UserError, match=r"HTTP 404 .*config\.json"):
        download("--only", "model")
    assert [request.file for request in hub.requests] == ["config.json"]


@pytest.mark.fault("download fault")
def test_an_unknown_revision_is_named(hub, download):
    with pytest.raises(UserError, match=r"HTTP 404 .*Invalid rev id: v9"):
        download("--only", "data", "--revision", "v9")
    assert not any("/web/" in request.path for request in hub.requests)


@pytest.mark.fault("download fault")
def test_forbidden_is_final(hub, download):
    hub.fail("config.json", {"status": 401}, method="HEAD")
    with pytest.raises(UserError, match="HTTP 401"):
        download("--only", "model")
    assert len(hub.requests) == 1


@pytest.mark.fault("download fault")
def test_a_web_page_in_place_of_the_hub_is_recognised(hub, download):
    hub.fail("config.json", {"page": True}, method="HEAD")
    with pytest.raises(UserError, match="doesn't answer like the Hub"):
        download("--only", "model")


@pytest.mark.fault("download fault")
@pytest.mark.parametrize("source", ["hub", "json"])
@pytest.mark.parametrize("fault", [{"page": True}, {"content": b"#"}], ids=["page", "checksum"])
def test_another_file_is_never_taken(fault, source, project, hub, download, json_files, parquet_files):
    file = "train-v1.1.json" if source == "json" else "train-00000-of-00001.parquet"
    right = json_files[file] if source == "json" else parquet_files[f"plain_text/{file}"]
    hub.fail(file, {"content": b"#" * len(right)} if "content" in fault else fault)
    with pytest.raises(UserError, match=r"another file: [\d,]+ bytes of .*Expected [\d,]+ bytes with the checksum"):
        download("--only", "data", "--source", source)
    assert not (project / "data" / "squad").exists()
    download("--only", "data", "--source", source)


WRONG = {
    "one bit": lambda right: {"content": right[:99] + bytes([right[99] ^ 4]) + right[100:]},
    "shorter": lambda right: {"content": right[:-1]},
    "longer": lambda right: {"content": right + b"\n"},
    "nothing": lambda right: {"content": b""},
    "without end": lambda right: {"content": right + b" " * 10_000_000, "no_length": True},
}


@pytest.mark.fault("download fault")
@pytest.mark.parametrize("source", ["hub", "json"])
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_bytes_are_never_taken(wrong, source, project, hub, download, json_files, parquet_files, monkeypatch):
    file = "dev-v1.1.json" if source == "json" else "validation-00000-of-00001.parquet"
    right = json_files[file] if source == "json" else parquet_files[f"plain_text/{file}"]
    written, write = [], fetch._write
    monkeypatch.setattr(fetch, "_write", lambda *arguments: written.append(write(*arguments)) or written[-1])
    hub.fail(file, WRONG[wrong](right))
    with pytest.raises(UserError, match=r"another file: [\d,]+ bytes of .*Expected [\d,]+ bytes with the checksum"):
        download("--only", "data", "--source", source)
    assert max(written) <= max(len(right), *map(len, json_files.values())) + (1 << 16)  # a block more than asked for
    assert [path.name for path in (project / "data").iterdir()] == [".partial-squad"]
    download("--only", "data", "--source", source)
    download("--only", "data", "--verify")


@pytest.mark.fault("download fault")
@pytest.mark.parametrize("file", ["config.json", "vocab.txt", "tokenizer.json", "pytorch_model.bin"])
def test_a_mirror_that_has_web_pages_for_files_is_refused(file, project, hub, download):
    """With the checksums of these pages: the content itself must tell."""
    hub.add(MODEL, {file: PAGE})
    with pytest.raises(UserError, match="--only model"):
        download("--only", "model")
    assert [path.name for path in (project / "models").iterdir()] == [".partial-mobilebert-uncased"]


@pytest.mark.fault("download fault")
@pytest.mark.parametrize("fault", [b"<html>", b"PAR1", b"half", b"bit"])
def test_a_mirror_with_damaged_data_is_refused(fault, project, hub, download, parquet_files):
    name = "plain_text/train-00000-of-00001.parquet"
    right = parquet_files[name]
    damaged = {
        b"half": right[: len(right) // 2] + right[-8:],
        b"bit": right[:-9] + bytes([right[-9] ^ 255]) + right[-8:],
    }
    hub.add(DATA, {name: damaged.get(fault, fault)})
    with pytest.raises(UserError, match=r"train-00000-of-00001\.parquet can't be read as SQuAD"):
        download("--only", "data", "--source", "hub")
    assert [path.name for path in (project / "data").iterdir()] == [".partial-squad"]


@pytest.mark.fault("hostile folder")
def test_names_and_texts_of_a_server_can_do_no_harm(project, hub, download, monkeypatch):
    """Its checksum would be part of a file name, and its message would move the cursor."""
    headers = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": '"../../../../outside"', "X-Linked-Size": "5"}
    hub.fail("config.json", {"status": 302, "headers": {**headers, "Location": f"{hub.url}/x"}}, method="HEAD")
    with pytest.raises(UserError):
        download("--only", "model")
    assert {path.name for path in project.rglob("*") if not path.name.startswith("config.json.outside")} <= {
        "models", ".partial-mobilebert-uncased"
    }  # fmt: skip
    hub.fail("dev-v1.1.json", {"status": 403, "headers": {"X-Error-Message": "\x1b]0;title\x07\x1b[2J"}})
    with pytest.raises(UserError, match="HTTP 403") as caught:
        download("--only", "data", "--source", "json")
    assert r"(\x1b]0;title\x07\x1b[2J)" in str(caught.value)  # shown, not sent


@pytest.mark.fault("download fault")
def test_data_with_the_wrong_number_of_questions_are_refused(project, hub, download, parquet_files):
    hub.add(
        DATA, {"plain_text/train-00000-of-00001.parquet": parquet_files["plain_text/validation-00000-of-00001.parquet"]}
    )
    with pytest.raises(UserError, match=r"has 3 questions. Expected the 20"):
        download("--only", "data")
    assert not (project / "data" / "squad").exists()


@pytest.mark.fault("hostile folder")
@pytest.mark.parametrize("damage", ["a pickle that runs code", "truncated", "without a layer", "other sizes"])
def test_bad_weights_are_refused(damage, project, hub, download, model_files, tmp_path):
    import io
    import pickle

    import torch

    good = model_files["pytorch_model.bin"]
    trap = tmp_path / "trap"
    if damage == "a pickle that runs code":

        class Trap:
            def __reduce__(self):
                return Path.touch, (trap,)

        bad = pickle.dumps(Trap(), protocol=2)
    elif damage == "truncated":
        bad = good[: len(good) // 2]
    else:
        state = torch.load(io.BytesIO(good), weights_only=True)
        name = "mobilebert.encoder.layer.1.attention.self.query.weight"
        state[name] = torch.zeros(3, 3)
        if damage == "without a layer":
            del state[name]
        buffer = io.BytesIO()
        torch.save(state, buffer)
        bad = buffer.getvalue()
    hub.add(MODEL, {"pytorch_model.bin": bad})
    with pytest.raises(UserError, match=r"can't be read as weights|lacks 1 of its weights|do not fit config.json"):
        download("--only", "model")
    assert not trap.exists()
    assert not (project / "models" / "mobilebert-uncased").exists()


# ---- other hosts


@pytest.mark.fault("download fault")
def test_a_login_for_one_host_is_not_taken_to_another(project, hub, download, monkeypatch):
    """Large files lie on another host, as on the Hub."""
    hub.cdn.url = hub.cdn.url.replace("127.0.0.1", "localhost")
    login = project / "netrc"
    login.write_text("machine 127.0.0.1 login me password secret\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(login))
    download("--only", "data", "--source", "hub")
    given = {(request.path.startswith("/cdn/"), bool(request.authorization)) for request in hub.requests}
    assert (False, True) in given  # it was there to be taken along
    assert (True, True) not in given


@pytest.mark.fault("download fault")
def test_a_password_in_an_address_is_not_shown_nor_kept(project, hub, download, capsys):
    own = hub.url.replace("//", "//me:secret@")
    download("--endpoint", own)
    assert {request.authorization for request in hub.requests if request.path.startswith("/cdn/")} == {None}
    hub.fail("train-00000-of-00001.parquet", *[{"status": 503}] * 9, method="HEAD")
    hub.fail("train-v1.1.json", {"page": True})
    with pytest.raises(UserError) as caught:
        download("--only", "data", "--force", "--endpoint", own, "--json_url", f"{own}/web")
    said = capsys.readouterr()
    assert "secret" not in said.out + said.err + str(caught.value)
    assert "127.0.0.1" in said.err
    assert b"secret" not in b"".join(tree(project).values())


@pytest.mark.parametrize("flag", ["--endpoint", "--proxy", "--json_url", "--endpont", None])
@pytest.mark.parametrize(
    "address",
    [
        "socks5://me:secret@host:1",
        "me:secret@host",
        "http://me:secret/x@host",
        "http://me:secret x@host",
        "me:secret\n@host",
    ],
)
def test_a_password_in_an_address_that_is_refused_is_not_shown(flag, address, project, monkeypatch, capsys):
    if flag is None:
        monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(SystemExit):
        download_data.main(["--verify"] if flag is None else ["--verify", flag, address])
    said = capsys.readouterr().err
    assert "secret" not in said
    assert f"{flag or '--endpoint'} {address.partition('me:')[0]}host" in said
    assert not list(project.iterdir())


def test_the_endpoint_of_the_environment_is_taken_and_its_password_not_shown(project, monkeypatch, capsys):
    own = "https://me:secret@mirror.test/hub"
    assert download_data.parse_args([]).endpoint == download_data.HUB
    monkeypatch.setenv("HF_ENDPOINT", own + "/")
    assert download_data.parse_args([]).endpoint == own
    assert download_data.parse_args(["--endpoint", "https://other.test"]).endpoint == "https://other.test"
    with pytest.raises(SystemExit):
        download_data.parse_args(["--help"])
    said = capsys.readouterr().out
    assert "HF_ENDPOINT" in said
    assert "secret" not in said
    assert "mirror.test" not in said


@pytest.mark.fault("download fault")
@pytest.mark.parametrize("target", ["file:///etc/hosts", "ftp://127.0.0.1/x", "http://[", "//[::1", "javascript:1"])
def test_a_redirect_to_no_web_server_is_refused(target, project, hub, download):
    hub.fail("train-v1.1.json", {"status": 302, "headers": {"Location": target}})
    with pytest.raises(UserError, match=r"127\.0\.0\.1: redirects to .*Expected an address with http or https"):
        download("--only", "data", "--source", "json")
    assert not (project / "data" / "squad").exists()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for this machine and its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(
        [*command, "-addext", names, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True
    )
    path.write_bytes(path.read_bytes() + path.with_name(f"{path.name}.crt").read_bytes())
    return path


@pytest.mark.fault("download fault")
def test_a_redirect_from_https_to_http_is_refused(project, download, certificate, json_files, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    safe = HubServer()
    safe.add("web", json_files)
    safe.socket = context.wrap_socket(safe.socket, server_side=True)
    safe.url = safe.url.replace("http:", "https:")
    name = "train-v1.1.json"
    plain = f"{safe.cdn.url}/cdn/{hashlib.sha256(json_files[name]).hexdigest()}"
    flags = ("--only", "data", "--source", "json", "--json_url", f"{safe.url}/web")
    with safe:
        safe.fail(name, {"status": 302, "headers": {"Location": plain}})
        with pytest.raises(UserError, match=r"127\.0\.0\.1: redirects to http:.*Expected an address with https"):
            download(*flags)
        assert not any(request.path.startswith("/cdn/") for request in safe.requests)
        safe.fail(name, {"status": 302, "headers": {"Location": f"{safe.url}/web/{name}?again"}})
        download(*flags)
    assert load_squad(project).num_rows == ROWS


# ---- other ways


@pytest.mark.fault("download fault")
def test_json_stands_in_where_the_hub_fails(project, hub, download, capsys):
    hub.fail("train-00000-of-00001.parquet", *[{"status": 503}] * 20, method="HEAD")
    download("--only", "data")
    assert load_squad(project).num_rows == ROWS
    manifest = json.loads((project / "data" / "squad" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["source"] == f"{hub.url}/web"
    assert "HTTP 503" in capsys.readouterr().err


def test_files_put_by_hand_need_no_network(project, hub, download, json_files, model_files):
    put(project / "data" / "downloads" / "squad", json_files)
    put(project / "models" / "downloads" / "mobilebert-uncased", model_files)
    download()
    assert not hub.requests
    assert load_squad(project)["train"].to_list() == squad_rows("train")
    assert tree(project / "data" / "downloads" / "squad") == json_files  # the user's own, left where they are
    download("--verify")


def test_parquet_files_put_by_hand_are_counted(project, hub, download, parquet_files):
    files = {name.rpartition("/")[2]: content for name, content in parquet_files.items()}
    put(project / "data" / "downloads" / "squad", files)
    download("--only", "data")
    assert not hub.requests
    put(project / "data" / "downloads" / "squad", {"train-00000-of-00001.parquet": b"<html>"})
    with pytest.raises(UserError, match=r"train-00000-of-00001\.parquet can't be read"):
        download("--only", "data", "--force")


def test_one_file_put_by_hand_saves_its_download(project, hub, download, model_files):
    hand = project / "models" / "downloads" / "mobilebert-uncased"
    put(hand, {"pytorch_model.bin": model_files["pytorch_model.bin"]})
    download("--only", "model")
    assert hub.asked("pytorch_model.bin") == []
    put(hand, {"pytorch_model.bin": b"something else"})
    with pytest.raises(UserError, match=r"pytorch_model\.bin has 14 bytes and is not the file at"):
        download("--only", "model", "--force")


@pytest.mark.fault("download fault")
def test_a_wrong_file_put_by_hand_is_named(project, hub, download, json_files):
    put(project / "data" / "downloads" / "squad", {**json_files, "dev-v1.1.json": json_files["dev-v1.1.json"] + b"\n"})
    with pytest.raises(UserError, match=r"dev-v1\.1\.json has [\d,]+ bytes and is not the file at"):
        download("--only", "data")
    assert not hub.requests


@pytest.mark.fault("download fault")
@pytest.mark.parametrize("file", ["config.json", "vocab.txt", "tokenizer.json", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", PAGE], ids=["empty", "page"])
def test_broken_files_put_by_hand_are_refused(content, file, project, hub, download, model_files):
    put(project / "models" / "downloads" / "mobilebert-uncased", {**model_files, file: content})
    with pytest.raises(UserError, match="--only model"):
        download("--only", "model")
    assert not hub.requests
    assert not (project / "models" / "mobilebert-uncased").exists()


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


# ---- as a user runs it


@pytest.fixture
def script(tmp_path, json_files):
    """Runs the script in a process of its own, in a copy of the project under a name with spaces and Chinese signs."""
    project = tmp_path / "мой 项目"
    project.mkdir()
    shutil.copy(ROOT / "download_data.py", project)
    shutil.copytree(ROOT / "utils", project / "utils", ignore=shutil.ignore_patterns("__pycache__"))
    (project / "small.py").write_text(
        "import download_data\n"
        f"vars(download_data).update({stand_ins(json_files)!r})\n"
        "download_data.run(download_data.main)\n",
        encoding="utf-8",
    )
    home = tmp_path / "home"
    home.mkdir()

    def script(*argv, name="download_data.py", start=subprocess.run, **environment):
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and not name.startswith(("HF_", "XDG_", "TRANSFORMERS_"))
        }
        own |= {"HOME": str(home), "USERPROFILE": str(home), "PYTHONDONTWRITEBYTECODE": "1", **environment}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
        return start([sys.executable, name, *argv], cwd=project, env=own, **pipes)

    script.project, script.home = project, home
    return script


def test_first_run_leaves_two_folders_and_nothing_at_home(script, hub):
    done = script(
        "--endpoint", hub.url + "/", "--json_url", f"{hub.url}/web", "--timeout", "5",
        name="small.py", HF_HUB_OFFLINE="1", LC_ALL="C",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("all as they should be") == 2
    assert "HF_HUB_OFFLINE is set" in done.stderr
    folders = {path.relative_to(script.project).as_posix() for path in script.project.glob("*/*") if path.is_dir()}
    assert folders - {"utils/__pycache__"} == {"data/squad", "models/mobilebert-uncased"}
    assert list(script.home.rglob("*")) == []


def test_proxy_is_used_for_everything(script, hub, json_files):
    with ProxyServer(hub.url) as proxy:
        flags = ["--proxy", proxy.url, "--only", "data", "--timeout", "5"]
        done = script(*flags, "--endpoint", "http://hub.test", name="small.py")
        assert done.returncode == 0, done.stderr
        hosts = {address.partition("://")[2].partition("/")[0] for address in proxy.requests}
        assert hosts == {"hub.test", hub.cdn.url.removeprefix("http://")}
        before = len(proxy.requests)
        done = script(*flags, "--force", "--source", "json", "--json_url", "http://squad.test/web", name="small.py")
        assert done.returncode == 0, done.stderr
        assert proxy.requests[before:] == [f"http://squad.test/web/{name}" for name in json_files]


@pytest.mark.fault("download fault")
@pytest.mark.skipif(sys.platform == "win32", reason="a process can't be sent these signals there")
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_a_run_that_is_stopped_keeps_what_has_arrived(name, script, project, hub, download, model_files, monkeypatch):
    """By Ctrl-C, or without a chance to do anything. The next run goes on."""
    size = len(model_files["pytorch_model.bin"])
    hub.fail("pytorch_model.bin", {"stall": size // 2})

    def start(*arguments, **keywords):
        # a background job's children ignore SIGINT by inheritance; a user's terminal does not
        keywords["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(*arguments, **keywords)

    running = script("--endpoint", hub.url, "--only", "model", start=start)
    part, deadline = None, time.monotonic() + 60
    while not (part and part.stat().st_size > size // 4) and time.monotonic() < deadline:
        time.sleep(0.02)
        part = next(script.project.glob("models/.partial-*/pytorch_model.bin.*.part"), None)
    running.send_signal(getattr(signal, name))
    _, errors = running.communicate(timeout=60)
    if name == "SIGINT":
        assert running.returncode == 130, errors
        assert "interrupted" in errors
        assert "Traceback" not in errors
    else:
        assert running.returncode == -signal.SIGKILL
    kept = part.stat().st_size
    assert size // 4 < kept <= size // 2
    folder = script.project / "models" / "mobilebert-uncased"
    assert not folder.exists()

    monkeypatch.setattr(download_data, "MODEL_DIR", folder)
    download("--only", "model")
    assert hub.asked("pytorch_model.bin") == [None, f"bytes={kept}-"]
    download("--only", "model", "--verify")


# runs the small script, and ends it as a power cut would before the n-th change of a path that ends so
KILLED = """
import os, signal, sys
left, end = int(sys.argv.pop(1)), sys.argv.pop(1)
def before(event, args):
    global left
    if event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
        return
    path = args[1] if event == "os.rename" else args[0]
    if event == "open" and (isinstance(path, int) or not args[2] & (os.O_WRONLY | os.O_RDWR)):
        return
    path = os.path.join(os.getcwd(), os.fsdecode(path))
    if path.startswith(os.path.join(os.getcwd(), "data")) and path.endswith(end):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
sys.addaudithook(before)
import small
"""


@pytest.fixture
def killed(script, project, monkeypatch):
    """killed(n, end, *flags) runs the script up to that change, and tells whether it was killed there."""
    (script.project / "killed.py").write_text(KILLED, encoding="utf-8")
    monkeypatch.setattr(download_data, "SQUAD_DIR", script.project / "data" / "squad")

    def killed(moment, end, *flags):
        done = script(str(moment), end, *flags, name="killed.py")
        assert done.returncode in (0, -signal.SIGKILL if os.name == "posix" else signal.SIGTERM), done.stderr
        return done.returncode != 0

    return killed


@pytest.mark.fault("download fault")
def test_a_run_that_is_killed_between_two_renames_loses_nothing(killed, hub, download):
    """When the old folder has gone aside and the new one is not in its place yet, and the network has gone too."""
    download("--only", "data")
    before = tree(download_data.SQUAD_DIR)
    assert killed(0, f"{os.sep}squad", "--endpoint", hub.url, "--only", "data", "--force")
    assert not download_data.SQUAD_DIR.exists()
    asked = len(hub.requests)
    download("--only", "data", "--verify")
    assert tree(download_data.SQUAD_DIR) == before
    assert len(hub.requests) == asked


@pytest.mark.slow
@pytest.mark.fault("download fault")
@pytest.mark.parametrize("force", [False, True], ids=["first", "again"])
def test_a_run_that_is_killed_at_any_moment_loses_nothing(force, killed, hub, download, record_property):
    folder = download_data.SQUAD_DIR
    download("--only", "data")
    before = tree(folder)
    for moment in itertools.count():
        shutil.rmtree(folder.with_name(".partial-squad"), ignore_errors=True)
        if not force:
            shutil.rmtree(folder)
        if not killed(moment, "", "--endpoint", hub.url, "--only", "data", *(["--force"] if force else [])):
            break
        if force:
            asked = len(hub.requests)
            download("--only", "data", "--verify")
            assert len(hub.requests) == asked
        else:
            assert tree(folder) in ({}, before)
            download("--only", "data")
        assert tree(folder) == before
        record_property("tried", moment + 1)
    assert moment > 10


def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.fault("download fault")
def test_unreachable_host_tells_the_three_ways_out(script):
    address = f"http://127.0.0.1:{closed_port()}"
    done = script("--endpoint", address, "--json_url", f"{address}/web", "--retries", "0")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "error: 127.0.0.1: refuses the connection" in done.stderr
    for way in (
        "--endpoint https://hf-mirror.com",
        "--proxy http://",
        "data/downloads/squad",
        "models/downloads/mobilebert-uncased",
    ):
        assert way in done.stderr.replace(os.sep, "/")
    for name in ("dataset/train-v1.1.json", "dataset/dev-v1.1.json", "main/config.json", "main/pytorch_model.bin"):
        assert re.search(rf"https://\S+/{re.escape(name)}\n", done.stderr)


@pytest.mark.fault("download fault")
def test_unreachable_proxy_is_named_without_its_password(script):
    place = f"127.0.0.1:{closed_port()}"
    flags = ("--endpoint", "http://hub.test", "--retries", "0", "--only", "model")
    done = script(*flags, "--proxy", f"http://me:secret@{place}")
    assert done.returncode == 2
    assert f"through the proxy http://{place}" in done.stderr
    assert "secret" not in done.stderr
    done = script(*flags, HTTP_PROXY=f"me:secret@{place}")  # as curl takes it too
    assert done.returncode == 2
    assert f"through the proxy {place}" in done.stderr
    assert "secret" not in done.stderr


def test_socks_proxy_of_the_environment_is_explained(script):
    done = script("--only", "data", ALL_PROXY="socks5://127.0.0.1:1")
    assert done.returncode == 2
    assert "--proxy http://" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--endpoint", "hf-mirror.com"], "expected an address like http://host:port"),
        (["--proxy", "socks5://127.0.0.1:1"], "expected an address like http://host:port"),
        (["--revision", "v1"], "add --only"),
        (["--only", "model", "--source", "json"], "leave it out"),
        (["--teacher", "--only", "data"], "exclude each other"),
        (["--timeout", "0", "--retries", "-1"], "expected more than 0"),
        (["--timeout", "inf"], "at most 86400"),
        (["--timeout", "1e11"], "at most 86400"),
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
