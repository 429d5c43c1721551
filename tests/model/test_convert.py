"""tools/convert_model.py: readers as they were published years ago, into folders that every script reads."""

import json
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from scripts import assert_refused, load_script, run_script
from tokenizers import Tokenizer

from extractive_qa.errors import QAError
from extractive_qa.model import convert
from extractive_qa.model.loading import load_encoder
from extractive_qa.reader import Reader

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "wrote", "it", "?", "ada", ".", "##s", "cafe"]
CASED = [*WORDS, "Ada", "Who", "CAF", "##É"]


def make_old(folder: Path, words: list[str] = WORDS, kind: str = "ForQuestionAnswering", half: bool = False) -> Path:
    """A BERT as most older ones are on the Hub: config.json, pytorch_model.bin, vocab.txt and nothing else."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=len(words), initializer_range=0.5, **sizes)
    torch.manual_seed(0)
    model = getattr(transformers, f"Bert{kind}")(config)
    folder.mkdir(parents=True)
    torch.save((model.half() if half else model).state_dict(), folder / "pytorch_model.bin")
    plain = {"architectures": [f"Bert{kind}"], "model_type": "bert", "vocab_size": len(words), **sizes}
    (folder / "config.json").write_text(json.dumps(plain), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder


def run_tool(*args: object) -> None:
    load_script("tools/convert_model.py").main([str(arg) for arg in args])


def test_what_the_message_says_makes_a_reader_with_the_same_weights_and_leaves_the_old_folder(tmp_path):
    old, new = make_old(tmp_path / "my old model"), tmp_path / "my old model-converted"
    (old / "README.md").write_text("a card", encoding="utf-8")
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    done = run_script("predict.py", "ask", "--model_dir", old, "--question", "Who?", "--context", "Ada.", code=2)
    assert_refused(done, "no tokenizer.json", "vocab.txt", "model.safetensors", "pytorch_model.bin is a pickle",
                   f'Run: python tools/convert_model.py "{old}" "{new}"')  # fmt: skip
    done = run_script("tools/convert_model.py", old, new)
    assert "logits before and after differ by at most 0" in done.stdout
    assert "predict.py ask --model_dir" in done.stderr
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before
    state = torch.load(old / "pytorch_model.bin", weights_only=True)
    for name, tensor in load_file(new / "model.safetensors").items():
        assert torch.equal(tensor, state[name]), name
    assert (new / "README.md").read_text(encoding="utf-8") == "a card"
    assert Reader(new, "cpu", "no").answer("Who wrote it?", "Ada wrote it.")["text"] in "Ada wrote it."
    assert Tokenizer.from_file(str(new / "tokenizer.json")).encode("WHO", "Café").tokens == [
        "[CLS]", "who", "[SEP]", "cafe", "[SEP]"
    ]  # fmt: skip
    assert not list(new.glob(".*"))


@pytest.mark.parametrize("said", [None, True, False])
def test_a_vocabulary_with_capitals_is_not_lower_cased_unless_the_folder_says_so(said, tmp_path):
    """transformers lower-cases where no tokenizer_config.json says otherwise: every name would be unknown."""
    old = make_old(tmp_path / "old", CASED)
    if said is not None:
        (old / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": said}), encoding="utf-8")
    run_tool(old, tmp_path / "new")
    tokens = Tokenizer.from_file(str(tmp_path / "new" / "tokenizer.json")).encode("Ada").tokens
    assert tokens[1] == ("ada" if said else "Ada")


def test_a_tokenizer_alone_and_weights_alone_are_converted(tiny_model, tmp_path):
    pickled = shutil.copytree(tiny_model, tmp_path / "pickled")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    run_tool(pickled, tmp_path / "weights")
    assert (tmp_path / "weights" / "tokenizer.json").read_bytes() == (tiny_model / "tokenizer.json").read_bytes()
    one, other = (load_encoder(folder)[0].state_dict() for folder in (tiny_model, tmp_path / "weights"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    safe = shutil.copytree(tiny_model, tmp_path / "safe")
    vocabulary = Tokenizer.from_file(str(safe / "tokenizer.json")).get_vocab()
    (safe / "tokenizer.json").unlink()
    (safe / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)) + "\n", encoding="utf-8")
    run_tool(safe, tmp_path / "tokenizer")
    assert Tokenizer.from_file(str(tmp_path / "tokenizer" / "tokenizer.json")).get_vocab() == vocabulary


def test_weights_in_several_pickles_and_in_half_precision_become_one_file_in_single(tmp_path):
    old = make_old(tmp_path / "old", half=True)
    state = torch.load(old / "pytorch_model.bin", weights_only=True)
    names = {name: f"pytorch_model-{1 + i % 2}-of-2.bin" for i, name in enumerate(state)}
    for file in set(names.values()):
        torch.save({name: tensor for name, tensor in state.items() if names[name] == file}, old / file)
    index = old / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}), encoding="utf-8")
    (old / "pytorch_model.bin").unlink()
    with pytest.raises(QAError, match=r"tools/convert_model\.py"):
        Reader(old, "cpu")
    run_tool(old, tmp_path / "new")
    found = load_file(tmp_path / "new" / "model.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in state.items())
    index.write_text(json.dumps({"weight_map": {"x": "../x.bin"}}), encoding="utf-8")
    with pytest.raises(QAError, match="names other files"):
        run_tool(old, tmp_path / "other")


def test_a_config_from_before_model_types_is_known_by_its_architecture(tmp_path):
    old = make_old(tmp_path / "old")
    config = json.loads((old / "config.json").read_text(encoding="utf-8"))
    del config["model_type"]
    (old / "config.json").write_text(json.dumps(config), encoding="utf-8")
    run_tool(old, tmp_path / "new")
    assert Reader(tmp_path / "new", "cpu", "no").answer("Who?", "Ada.")["text"] in "Ada."


@pytest.mark.parametrize("kind", ["ForPreTraining", "Model", "ForSequenceClassification"])
def test_an_encoder_becomes_one_to_train_and_that_is_said(kind, tmp_path, capsys):
    """Of what the head of pretraining shares with the encoder, the encoder's name stays."""
    run_tool(make_old(tmp_path / "old", kind=kind), tmp_path / "new")
    assert "python train.py --model_dir" in capsys.readouterr().err
    assert load_encoder(tmp_path / "new")[1] == ["qa_outputs.bias", "qa_outputs.weight"]


def test_a_matrix_that_is_shared_keeps_the_encoder_s_name_in_every_family(tmp_path):
    """`lm_head.decoder.weight` is before `roberta.embeddings...` in the alphabet."""
    shared = torch.ones(3, 2)
    state = {"lm_head.decoder.weight": shared, "roberta.embeddings.word_embeddings.weight": shared}
    (tmp_path / "config.json").touch()
    convert.save_weights(state, tmp_path)
    assert list(load_file(tmp_path / "model.safetensors")) == ["roberta.embeddings.word_embeddings.weight"]


@pytest.mark.fault("damaged model folder")
def test_what_can_not_be_converted_is_refused_and_leaves_nothing(tmp_path):
    good = make_old(tmp_path / "good")

    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "trap",)

    def changed(**fields: object):
        def change(folder):
            path = folder / "config.json"
            path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")

        return change

    cases = {
        "can't be read as weights": lambda old: (old / "pytorch_model.bin").write_bytes(pickle.dumps(Trap())),
        "has no pytorch_model.bin": lambda old: (old / "pytorch_model.bin").unlink(),
        "has no tokenizer": lambda old: (old / "vocab.txt").unlink(),
        "config.json is missing": lambda old: (old / "config.json").unlink(),
        "the model knows 13 tokens, its tokenizer has 17": lambda old: (old / "vocab.txt").write_text("\n".join(CASED)),
        "of the kind 'gpt2'": changed(model_type="gpt2"),
        "of its weights": changed(num_hidden_layers=5),
        "quantization_config": changed(quantization_config={"quant_method": "gptq"}),
    }
    for number, (words, damage) in enumerate(cases.items()):
        old = shutil.copytree(good, tmp_path / f"old{number}")
        damage(old)
        with pytest.raises(QAError) as refused:
            run_tool(old, tmp_path / "new")
        assert words in str(refused.value)
        assert not (tmp_path / "new").exists()
        assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "trap").exists()
    (tmp_path / "new").mkdir()
    with pytest.raises(QAError, match="is there already"):
        run_tool(good, tmp_path / "new")


def test_other_logits_afterwards_are_refused(tmp_path, monkeypatch):
    def spoil(state, folder, save=convert.save_weights):
        save({name: tensor * 2 if "dense.weight" in name else tensor for name, tensor in state.items()}, folder)

    monkeypatch.setattr(convert, "save_weights", spoil)
    with pytest.raises(QAError, match="its logits differ by up to"):
        run_tool(make_old(tmp_path / "old"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["spiece.model", "spm.model", "sentencepiece.bpe.model"])
def test_a_tokenizer_that_needs_packages_names_them(name, tmp_path, monkeypatch):
    old = make_old(tmp_path / "old")
    (old / "vocab.txt").rename(old / name)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    monkeypatch.setattr(convert, "is_installed", lambda module: module != "sentencepiece")
    with pytest.raises(QAError, match=r"needs sentencepiece.*Run: pip install sentencepiece, then the same command"):
        run_tool(old, tmp_path / "new")


def test_a_tokenizer_of_sentencepiece_becomes_the_same_pieces(tmp_path):
    """Where the two packages are there. XLM-RoBERTa's ids are one higher than the pieces' numbers."""
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    old = make_old(tmp_path / "old")
    (old / "vocab.txt").unlink()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["Who wrote it? Ada wrote it in 1843. The end."] * 20), model_prefix=str(old / "x"),
        vocab_size=40, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (old / "x.model").rename(old / "sentencepiece.bpe.model")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.XLMRobertaConfig(vocab_size=80, architectures=["XLMRobertaForQuestionAnswering"], **sizes)
    (old / "config.json").write_text(config.to_json_string(), encoding="utf-8")
    torch.save(transformers.XLMRobertaForQuestionAnswering(config).state_dict(), old / "pytorch_model.bin")
    run_tool(old, tmp_path / "new")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(old / "sentencepiece.bpe.model"))
    found = Tokenizer.from_file(str(tmp_path / "new" / "tokenizer.json")).encode("Who wrote it?")
    assert found.ids[1:-1] == [number + 1 for number in pieces.encode("Who wrote it?")]
