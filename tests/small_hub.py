"""SQuAD, MobileBERT and a teacher as they are published, but small: made once a process, served by hub_server.

Nothing but their size differs from the real ones. ROWS and JSON_FILES of hub/sources.py say what must arrive; the
fixture `small_squad` says it of these.
"""

import gc
import hashlib
import io
import json
import os
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hub_server import HubServer

from extractive_qa.hub import retries, sources

MODEL, DATA = sources.MODEL_REPOS["model"], f"datasets/{sources.DATA_REPO}"
TEACHER = sources.MODEL_REPOS["teacher"]
ROWS = {"train": 20, "validation": 3}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "won", "?", "cafe", "##s", "team"]


def squad_rows(split: str) -> list[dict]:
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


@cache
def parquet_files() -> dict[str, bytes]:
    import pyarrow as pa
    import pyarrow.parquet

    files = {}
    for name, split in zip(sources.PARQUET_FILES, ROWS, strict=True):
        pa.parquet.write_table(pa.Table.from_pylist(squad_rows(split)), buffer := io.BytesIO())
        files[name] = buffer.getvalue()
    return files


@cache
def json_files() -> dict[str, bytes]:
    """The same questions in the original nested form, with blanks behind so that there is something to break off."""
    files = {}
    for split, name in zip(ROWS, ("train-v1.1.json", "dev-v1.1.json"), strict=True):
        paragraphs = {}
        for row in squad_rows(split):
            pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
            answers = [{"text": text, "answer_start": start} for text, start in pairs]
            question = {"id": row["id"], "question": row["question"], "answers": answers}
            paragraphs.setdefault(row["context"], []).append(question)
        article = {"title": "Café_谁", "paragraphs": [{"context": c, "qas": q} for c, q in paragraphs.items()]}
        text = json.dumps({"version": "1.1", "data": [article]}, ensure_ascii=False)
        files[name] = (text + " " * 60_000).encode()
    return files


@cache
def model_files() -> dict[str, bytes]:
    """MobileBERT with two small layers as it is on the Hub: a pickle with the pretraining heads, no safetensors, no
    tokenizer_config.json; the decoder shares the embeddings' matrix."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import MobileBertConfig, MobileBertForPreTraining

    sizes = {"hidden_size": 32, "true_hidden_size": 16, "intra_bottleneck_size": 16, "embedding_size": 16}
    config = MobileBertConfig(
        vocab_size=len(WORDS), num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, **sizes
    )
    gc.freeze()  # what is imported by now is no garbage: a model's conversion ends in a collection
    torch.manual_seed(0)
    torch.save(MobileBertForPreTraining(config).state_dict(), buffer := io.BytesIO())
    config.architectures = ["MobileBertForPreTraining"]
    tokenizer = BertWordPieceTokenizer({word: i for i, word in enumerate(WORDS)}, lowercase=True)
    return {
        "config.json": config.to_json_string().encode(),
        "vocab.txt": ("\n".join(WORDS) + "\n").encode(),
        "tokenizer.json": tokenizer.to_str().encode(),
        "pytorch_model.bin": buffer.getvalue(),
    }


@cache
def teacher_files() -> dict[str, bytes]:
    """A reader with one small layer as the teacher is on the Hub: safetensors, and a pickle beside them."""
    from transformers import BertConfig, BertForQuestionAnswering

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    with tempfile.TemporaryDirectory() as folder:
        BertForQuestionAnswering(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    words = {name: model_files()[name] for name in ("vocab.txt", "tokenizer.json")}
    return files | words | {"pytorch_model.bin": b"not needed", "flax_model.msgpack": b"not needed"}


def known_files() -> dict[str, tuple[int, str]]:
    """JSON_FILES of the small ones."""
    return {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in json_files().items()}


@pytest.fixture
def small_squad(monkeypatch, tmp_path):
    """The small files count as SQuAD. The network's settings are those of this test alone, and no pause is long."""
    import huggingface_hub.constants

    for known, small in ((sources.ROWS, ROWS), (sources.JSON_FILES, known_files())):
        for name, value in small.items():
            monkeypatch.setitem(known, name, value)
    monkeypatch.setattr(retries, "BACKOFF", 0.01)
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    # a script's own process imports the library after it has set these; here it is there already, maybe offline, and it
    # would ask the real Hub by which program it is used
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    new_client()
    yield
    new_client()


def new_client() -> None:
    """Has huggingface_hub look at the environment's proxies again. Its versions before 1.0 always do."""
    import huggingface_hub.constants

    if hasattr(huggingface_hub, "close_session"):
        huggingface_hub.close_session()


@pytest.fixture
def hub(small_squad):
    """A server with nothing on it."""
    with HubServer() as server:
        yield server


@pytest.fixture
def full_hub(hub):
    """The same with the data, in both forms, and the model."""
    hub.add(DATA, parquet_files())
    hub.add(MODEL, {**model_files(), "tf_model.h5": b"not needed", "README.md": b"not needed"})
    hub.add("web", json_files())
    return hub


def put(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
