"""Damaged model folders, one cause a line: each is refused with the reason."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import save_tiny_model
from safetensors.torch import load_file, save_file
from scripts import load_script

from extractive_qa.errors import QAError
from extractive_qa.reader import Reader
from utils.offline import SAMPLE_DATA_DIR

CONTEXT = "🙂 In 1871 Ada sailed to Ærø."

BAD_SETTINGS = {  # reader.json
    "[]": "no JSON object, but []",
    "null": "no JSON object, but None",
    "": "can't be read as JSON",
    '{"max_length": 64': "can't be read as JSON",
    '{"a":' * 100_000: "nested too deeply",
    '{"max_length": 64, "max_length": 384}': "duplicate field 'max_length'",
    '{"max_length": "abc"}': "max_length is 'abc', expected a whole number",
    '{"max_length": 384.0}': "max_length is 384.0",
    '{"max_length": null}': "max_length is None",
    '{"max_length": true}': "max_length is True",
    '{"max_length": 1e400}': "max_length is inf",
    '{"max_length": 3}': "max_length=3 is too short",
    '{"doc_stride": [128]}': "doc_stride is [128]",
    '{"doc_stride": -1}': "doc_stride=-1 is negative",
    '{"doc_stride": 384}': "no room to advance",
    '{"max_answer_length": 0}': "max_answer_length is 0, expected at least 1",
    '{"max_answer_length": "30"}': "max_answer_length is '30'",
    '{"temperature": 0}': "temperature is 0, expected a number from 0.01 to 100",
    '{"temperature": -1}': "temperature is -1",
    '{"temperature": NaN}': "temperature is nan",
    '{"temperature": Infinity}': "temperature is inf",
    '{"temperature": 1e-320}': "temperature is 1e-320",
    '{"temperature": "1"}': "temperature is '1'",
}
BAD_CONFIGS = {  # fields of config.json
    "positions in words": ({"max_position_embeddings": "many"}, "max_position_embeddings"),
    "fewer positions than weights": ({"max_position_embeddings": 100}, "is [512, 64], expected [100, 64]"),
    "no positions": ({"max_position_embeddings": 0}, "is [512, 64], expected [0, 64]"),
    "a padding token that is negative": ({"pad_token_id": -1}, "pad_token_id is -1"),
    "a padding token that is not there": ({"pad_token_id": 10**9}, "Padding_idx"),
    "fewer tokens than weights": ({"vocab_size": 100}, "the weights do not fit config.json"),
    "a negative number of tokens": ({"vocab_size": -1}, "can't be loaded"),
    "fewer layers than weights": ({"num_hidden_layers": 1}, "the weights do not fit config.json"),
    "a negative number of layers": ({"num_hidden_layers": -1}, "the weights do not fit config.json"),
    "more layers than weights": ({"num_hidden_layers": 5}, "of its weights"),
    "no attention heads": ({"num_attention_heads": 0}, "can't be loaded"),
    "a width that is null": ({"hidden_size": None}, "can't be loaded"),
    "an activation that does not exist": ({"hidden_act": "none"}, "can't be loaded"),
    "a model that does not exist": ({"model_type": "nothing"}, "can't be loaded"),
    "another model": ({"model_type": "bert"}, "of its weights"),
}


def damaged_model(tiny_model: Path, folder: Path, name: str, content: str) -> Path:
    shutil.copytree(tiny_model, folder)
    (folder / name).write_text(content, encoding="utf-8")
    return folder


@pytest.mark.fault("damaged model folder")
@pytest.mark.parametrize("content", BAD_SETTINGS, ids=lambda content: content[:40])
def test_settings_that_make_no_sense_are_refused(content, tiny_model, tmp_path):
    folder = damaged_model(tiny_model, tmp_path / "model", "reader.json", content)
    with pytest.raises(QAError) as caught:
        Reader(folder, "cpu", "no")
    assert str(folder) in str(caught.value)
    assert BAD_SETTINGS[content] in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.fault("damaged model folder")
@pytest.mark.parametrize("cause", BAD_CONFIGS)
def test_a_config_that_makes_no_sense_is_refused(cause, tiny_model, tmp_path):
    changes, reason = BAD_CONFIGS[cause]
    config = json.loads((tiny_model / "config.json").read_text(encoding="utf-8")) | changes
    folder = damaged_model(tiny_model, tmp_path / "model", "config.json", json.dumps(config))
    with pytest.raises(QAError) as caught:
        Reader(folder, "cpu", "no")
    assert str(folder) in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.fault("damaged model folder")
@pytest.mark.parametrize("content", ["[]", "null", "3", '"mobilebert"', "{}", "{", "[" * 100_000, "\x00" * 100])
def test_a_config_that_is_no_object_is_refused(content, tiny_model, tmp_path):
    folder = damaged_model(tiny_model, tmp_path / "model", "config.json", content)
    with pytest.raises(QAError) as caught:
        Reader(folder, "cpu", "no")
    assert str(folder) in str(caught.value)


@pytest.mark.fault("damaged model folder")
def test_a_tokenizer_of_another_model_is_refused(tiny_model, tokenizer_dir, tmp_path):
    """Its ids would be other words, or none: weights for fewer tokens than the tokenizer has."""
    small = save_tiny_model(tmp_path / "small", tokenizer_dir, with_head=True)
    shutil.copyfile(tiny_model / "tokenizer.json", small / "tokenizer.json")
    with pytest.raises(QAError, match="files of two models"):
        Reader(small, "cpu", "no")


def test_settings_that_make_sense_are_taken(tiny_model, tmp_path):
    """A byte-order mark from an editor; an answer may not be longer than a window, however long it may be."""
    content = (
        '\ufeff{"max_length": 64, "doc_stride": 16, "max_answer_length": 1000000000, "temperature": 2, "note": []}'
    )
    folder = damaged_model(tiny_model, tmp_path / "model", "reader.json", content)
    reader = Reader(folder, "cpu", "no")
    assert reader.settings["max_answer_length"] == 64
    answer = reader.answer("Where to?", CONTEXT * 20)
    assert (CONTEXT * 20)[answer["start"] : answer["end"]] == answer["text"] != ""


@pytest.mark.fault("damaged model folder")
def test_evaluate_leaves_earlier_results_alone_where_the_model_is_of_no_use(tiny_model, tmp_path):
    """Settings that make no sense are found when nothing is written yet; scores that overflow when the first file is
    half written: it goes, and what was there stays."""
    weights = load_file(tiny_model / "model.safetensors")
    weights["qa_outputs.weight"][:] = 3e38  # finite, so the file is good
    model = shutil.copytree(tiny_model, tmp_path / "model")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    output = tmp_path / "output"
    output.mkdir()
    (output / "nbest_predictions.json").write_text("earlier", encoding="utf-8")
    command = ["--model_dir", str(model), "--eval_file", str(SAMPLE_DATA_DIR / "dev.json"), "--max_samples", "4",
               "--output_dir", str(output), "--device", "cpu", "--mixed_precision", "no"]  # fmt: skip
    for settings, words in (('{"temperature": NaN}', "reader.json.*temperature is nan"), ("{}", "NaN or infinity")):
        (model / "reader.json").write_text(settings, encoding="utf-8")
        with pytest.raises(QAError, match=words):
            load_script("evaluate.py").main(command)
        assert [file.name for file in output.iterdir()] == ["nbest_predictions.json"]
        assert (output / "nbest_predictions.json").read_text(encoding="utf-8") == "earlier"
