"""train.py starts from some of a model's layers, with other dropout, and goes on with them."""

import json
import shutil

import pytest
from small_families import MADE, make_folder
from small_training import SMALL, assert_equal_weights, make_run, settings_of, train_here
from transformers import AutoModelForQuestionAnswering

from extractive_qa.errors import QAError
from utils.console import in_flags

CUT = (*SMALL, "--max_steps", 2, "--save_steps", 1, "--keep_layers", 1, "--attention_dropout", 0.2)


@pytest.fixture(scope="module")
def shortened(tiny_model, tmp_path_factory):
    """The output of a training of one of two layers, taught by both."""
    output = tmp_path_factory.mktemp("shortened")
    train_here(*CUT, "--model_dir", tiny_model, "--teacher_dir", tiny_model, "--output_dir", output)
    return output


def read(folder, name: str = "config.json") -> dict:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_a_shorter_reader_is_a_plain_folder_that_says_what_it_was(shortened, tiny_model):
    model, loaded = AutoModelForQuestionAnswering.from_pretrained(
        shortened / "final_model", local_files_only=True, output_loading_info=True
    )
    assert not any(loaded.values())
    assert (model.config.num_hidden_layers, read(tiny_model)["num_hidden_layers"]) == (1, 2)
    assert len(model.mobilebert.encoder.layer) == 1
    assert model.config.attention_probs_dropout_prob == 0.2
    training = read(shortened / "final_model", "reader.json")["training"]
    assert (training["keep_layers"], training["attention_dropout"], training["hidden_dropout"]) == ("1", 0.2, None)
    card = (shortened / "final_model" / "README.md").read_text(encoding="utf-8")
    assert "| keep_layers | 1 |" in card
    assert "hidden_dropout" not in card


def test_it_is_resumed_as_it_is_and_not_cut_again(shortened, tmp_path):
    shutil.copytree(shortened / "checkpoint-1", tmp_path / "out" / "checkpoint-1")
    train_here("--resume", "--output_dir", tmp_path / "out")
    assert_equal_weights(shortened / "checkpoint-2", tmp_path / "out" / "checkpoint-2")


@pytest.mark.parametrize(("flags", "words"), [
    (("--keep_layers", 2), "--keep_layers 2 (was 1)"),
    (("--attention_dropout", 0.1), "--attention_dropout 0.1 (was 0.2)"),
])  # fmt: skip
def test_other_layers_or_dropout_are_another_training(shortened, tmp_path, flags, words):
    shutil.copytree(shortened / "checkpoint-1", tmp_path / "out" / "checkpoint-1")
    with pytest.raises(QAError) as refused:
        train_here("--resume", "--output_dir", tmp_path / "out", *flags)
    assert words in str(refused.value)


def test_too_many_layers_are_refused_before_anything_is_read(tiny_model, tmp_path):
    with pytest.raises(QAError) as refused:
        settings_of(tiny_model, tmp_path / "out", "--keep_layers", 3)
    assert "--keep_layers 3, expected 1 to 2, the layers of this model" in in_flags(str(refused.value))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["attention_dropout", "hidden_dropout"])
def test_a_share_that_is_dropped_is_less_than_all(tiny_model, tmp_path, flag):
    for value in ("-0.1", "1", "nan"):
        with pytest.raises(QAError, match="expected 0 to less than 1"):
            settings_of(tiny_model, tmp_path / "out", f"--{flag}", value)


@pytest.mark.parametrize("name", [name for name in MADE if name != "bert, cased"])
def test_dropout_is_what_the_flags_say_in_every_family(name, tmp_path):
    """Counted in the modules: a setting of another name would be kept in config.json and do nothing."""
    make_folder(tmp_path / "model", name)

    def shares(*flags) -> set[float]:
        run, _ = make_run(tmp_path / "model", tmp_path / "out", *flags)
        values = [vars(module) for module in run.model.modules()]
        found = {value[key] for value in values for key in ("p", "attention_dropout", "dropout_prob") if key in value}
        return {share for share in found if isinstance(share, float)}

    assert shares("--attention_dropout", 0.25, "--hidden_dropout", 0.125) == {0.25, 0.125}
    assert shares("--attention_dropout", 0, "--hidden_dropout", 0) <= {0.0}
