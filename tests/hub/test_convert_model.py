"""A model as it is published into a folder that every script reads."""

import io
import json
import pickle
from pathlib import Path

import pytest
from hub_server import PAGE
from small_hub import WORDS, model_files, put, teacher_files, tree

from extractive_qa.errors import QAError
from extractive_qa.hub.convert_model import save_model

QUERY = "mobilebert.encoder.layer.1.attention.self.query.weight"


def save(folder, files, part="model"):
    """Saves the model of {name: content} in `folder`/model."""
    put(folder / "files", files)
    save_model(part, {name: folder / "files" / name for name in files}, "a mirror", folder / "model")
    return folder / "model"


def published():
    import torch

    return torch.load(io.BytesIO(model_files()["pytorch_model.bin"]), weights_only=True)


def pickled(state):
    import torch

    torch.save(state, buffer := io.BytesIO())
    return buffer.getvalue()


def test_the_folder_loads_offline_and_holds_the_published_weights(tmp_path):
    import torch
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    folder = save(tmp_path, model_files())
    names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    assert sorted(tree(folder)) == names
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # all may be read by the same people
    state, written = published(), load_file(folder / "model.safetensors")
    # what is not written is the same tensor as one that is: the pretraining head's copy of the embeddings
    assert all(name.startswith("cls.predictions.") for name in set(state) - set(written))
    for name, tensor in written.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, state[name]), name
    model = AutoModelForQuestionAnswering.from_pretrained(folder, local_files_only=True)
    embeddings = model.get_input_embeddings().weight
    assert torch.equal(embeddings, state["mobilebert.embeddings.word_embeddings.weight"])

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert tokenizer.tokenize("WHO won CAFÉS?") == ["who", "won", "cafe", "##s", "?"]
    assert tokenizer.model_max_length == 512
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode("WHO").tokens == ["[CLS]", "who", "[SEP]"]
    assert json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["do_lower_case"] is True


@pytest.mark.parametrize("tokenizer_json", ["absent", "cased"])
def test_the_tokenizer_lower_cases_whatever_was_published(tokenizer_json, tmp_path):
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    files = dict(model_files())
    del files["tokenizer.json"]
    if tokenizer_json == "cased":
        cased = BertWordPieceTokenizer({word: i for i, word in enumerate(WORDS)}, lowercase=False)
        files["tokenizer.json"] = cased.to_str().encode()
    tokenizer = Tokenizer.from_file(str(save(tmp_path, files) / "tokenizer.json"))
    assert tokenizer.encode("Who WON").tokens == ["[CLS]", "who", "won", "[SEP]"]


def test_half_precision_becomes_single(tmp_path):
    import torch
    from safetensors.torch import load_file
    from safetensors.torch import save as serialized

    halves = {name: tensor.clone().half() for name, tensor in published().items()}
    folder = save(tmp_path, {**model_files(), "model.safetensors": serialized(halves), "pytorch_model.bin": b"unread"})
    written = load_file(folder / "model.safetensors")
    assert written[QUERY].dtype == torch.float32
    assert torch.equal(written[QUERY], halves[QUERY].float())


@pytest.mark.fault("download fault")
def test_a_teacher_answers_and_an_encoder_is_none(tmp_path):
    from extractive_qa.reader import Reader

    with pytest.raises(QAError, match=r"\(a mirror\) was not trained to answer questions\..*--only teacher"):
        save(tmp_path / "encoder", model_files(), "teacher")
    folder = save(tmp_path / "teacher", teacher_files(), "teacher")
    assert Reader(folder, "cpu", "no").answer("Who won?", "The team.")["text"]


@pytest.mark.fault("download fault")
@pytest.mark.parametrize("file", ["config.json", "vocab.txt", "tokenizer.json", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", PAGE], ids=["empty", "page"])
def test_a_file_that_is_none_is_refused(content, file, tmp_path):
    """A mirror may have a web page for every file, with that page's checksum: the content itself must tell."""
    with pytest.raises(QAError, match="--only model"):
        save(tmp_path, model_files() | {file: content})


@pytest.mark.fault("download fault")
def test_words_without_an_embedding_are_refused(tmp_path):
    vocabulary = model_files()["vocab.txt"] + b"more\n"
    with pytest.raises(QAError, match=r"hold 12 and 11 words.*vocab\.txt is enough"):
        save(tmp_path / "two", model_files() | {"vocab.txt": vocabulary})
    files = {name: content for name, content in model_files().items() if name != "tokenizer.json"}
    with pytest.raises(QAError, match="has 12 words for 11 embeddings"):
        save(tmp_path / "one", files | {"vocab.txt": vocabulary})


@pytest.mark.fault("hostile folder")
@pytest.mark.parametrize("damage", ["a pickle that runs code", "truncated", "without a layer", "other sizes"])
def test_bad_weights_are_refused(damage, tmp_path):
    import torch

    good, trap = model_files()["pytorch_model.bin"], tmp_path / "trap"

    class Trap:
        def __reduce__(self):
            return Path.touch, (trap,)

    state = published()
    bad, words = {
        "a pickle that runs code": lambda: (pickle.dumps(Trap(), protocol=2), "can't be read as weights"),
        "truncated": lambda: (good[: len(good) // 2], "can't be read as weights"),
        "without a layer": lambda: (pickled({k: v for k, v in state.items() if k != QUERY}), "lacks 1 of its weights"),
        "other sizes": lambda: (pickled({**state, QUERY: torch.zeros(3, 3)}), "do not fit config.json"),
    }[damage]()
    with pytest.raises(QAError, match=words):
        save(tmp_path, {**model_files(), "pytorch_model.bin": bad})
    assert not trap.exists()
