"""A shorter encoder computes what plain transformers computes with the same layers, and is a plain folder."""

import json
import shutil

import pytest
import torch
import transformers
from small_families import MADE, make_folder
from transformers import AutoConfig, AutoModelForQuestionAnswering

from extractive_qa.errors import QAError
from extractive_qa.model import layers
from extractive_qa.model.layers import choose_layers, keep_layers
from extractive_qa.model.loading import load_encoder

CUT = [name for name in MADE if name not in ("bert, cased", "albert")]
LAYERS = 5
OLD = transformers.__version__ < "5"
KEPT = [0, 2, 4] if OLD else [0, 2, 3]  # OLD: a ModernBERT's first layer of three sees all tokens


def make_deep_folder(folder, name: str) -> None:
    make_folder(folder, name, **{"n_layers" if name == "distilbert" else "num_hidden_layers": LAYERS})


def plain(folder):
    return AutoModelForQuestionAnswering.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()


def layers_of(model) -> torch.nn.ModuleList:
    """Found by what it is: the only list of so many modules of one class."""
    (found,) = (
        module
        for module in model.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == LAYERS and len({*map(type, module)}) == 1
    )
    return found


def pass_on(layer) -> None:
    """Has a layer give what it is given, in the form in which its own result would come."""
    forward = layer.forward

    def unchanged(hidden_states, *args, **kwargs):
        result = forward(hidden_states, *args, **kwargs)
        if isinstance(result, torch.Tensor):
            return hidden_states
        return result | {"feature_map": hidden_states} if isinstance(result, dict) else (hidden_states, *result[1:])

    layer.forward = unchanged


@torch.no_grad()
def states(model) -> tuple[torch.Tensor, ...]:
    """Last hidden states, (2, 40, H), and logits, (2, 40), of made-up windows, one of them padded."""
    torch.manual_seed(1)
    mask = (torch.arange(40) < torch.tensor([[40], [23]])).long()
    batch = {"input_ids": torch.randint(5, 100, (2, 40)) * mask, "attention_mask": mask}
    output = model(**batch)
    return model.base_model(**batch)[0], output.start_logits, output.end_logits


@pytest.mark.parametrize("name", CUT)
def test_what_is_left_computes_what_these_layers_alone_compute(name, tmp_path):
    make_deep_folder(tmp_path / "whole", name)
    by_hand = plain(tmp_path / "whole")
    before = states(by_hand)
    for number, layer in enumerate(layers_of(by_hand)):
        if number not in KEPT:
            pass_on(layer)
    wanted = states(by_hand)
    assert not torch.allclose(wanted[0], before[0], atol=1e-3)

    model, _ = load_encoder(tmp_path / "whole")
    keep_layers(model, KEPT)
    model.save_pretrained(tmp_path / "cut")
    config = AutoConfig.from_pretrained(tmp_path / "cut")
    assert config.num_hidden_layers == len(KEPT)
    if name == "modernbert" and not OLD:
        kinds = AutoConfig.from_pretrained(tmp_path / "whole").layer_types
        assert config.layer_types == [kinds[number] for number in KEPT]
        assert len(set(config.layer_types)) == 2
    for cut in (model.eval(), plain(tmp_path / "cut")):
        for found, expected in zip(states(cut), wanted, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tmp_path / "whole" / file, tmp_path / "cut" / file)
    again, missing = load_encoder(tmp_path / "cut")
    assert missing == []
    assert sum(p.numel() for p in again.parameters()) < sum(p.numel() for p in by_hand.parameters())


@pytest.mark.skipif(OLD, reason="transformers 4 refuses these layers for another reason")
def test_modernberts_first_layer_is_built_otherwise_and_stays_the_first(tmp_path):
    make_deep_folder(tmp_path / "whole", "modernbert")
    model, _ = load_encoder(tmp_path / "whole")
    with pytest.raises(QAError, match=r"layer 1 of a model of the kind modernbert can't be the first: .*Keep layer 0"):
        keep_layers(model, [1, 2])


@pytest.mark.parametrize(("kept", "fits"), [([0, 1, 2], True), ([0, 3], False), ([0, 1, 2, 3], True), ([0, 2], True)])
def test_with_transformers_4_the_pattern_of_a_modernbert_has_to_fit(kept, fits):
    """There no list says which layers see all tokens: every third does."""
    if fits:
        layers.require_pattern(kept, 3)
    else:
        with pytest.raises(QAError, match="the first of 3 layers of ModernBERT sees all tokens"):
            layers.require_pattern(kept, 3)


def test_a_model_without_a_list_of_layers_is_refused(tmp_path):
    make_folder(tmp_path / "model", "bert")
    model, _ = load_encoder(tmp_path / "model")
    model.bert.encoder.layer = torch.nn.Sequential(*model.bert.encoder.layer)
    with pytest.raises(QAError, match="a model of the kind bert has no list of layers of its own"):
        keep_layers(model, [0])


@pytest.mark.parametrize("name", CUT)
def test_how_many_layers_there_are_is_read_from_any_config(name, tmp_path):
    make_deep_folder(tmp_path / "model", name)
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert choose_layers(str(LAYERS), config) == list(range(LAYERS))
    with pytest.raises(QAError, match=f"expected 1 to {LAYERS}"):
        choose_layers(str(LAYERS + 1), config)


def test_so_many_layers_are_the_first():
    """As MobileBERT is published with 14 of 24."""
    assert choose_layers("14", {"num_hidden_layers": 24}) == list(range(14))
    assert choose_layers("1", {"num_hidden_layers": 6}) == [0]
    assert choose_layers("6", {"n_layers": 6}) == [0, 1, 2, 3, 4, 5]


def test_listed_layers_are_those():
    assert choose_layers("0,2,3", {"num_hidden_layers": 6}) == [0, 2, 3]
    assert choose_layers("1,5", {"n_layers": 6}) == [1, 5]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("0", "keep_layers='0', expected 1 to 6"), ("7", "keep_layers='7', expected 1 to 6"),
        ("-1", "expected how many layers"), ("9" * 5000, "expected how many layers"),
        ("four", "expected how many layers"), ("1.5", "expected how many layers"), ("", "expected how many layers"),
        ("0,", "expected how many layers"), ("0, 2", "expected how many layers"), ("2,0", "each layer once, and in th"),
        ("0,2,2", "each layer once"), ("0,6", "expected 0 to 5: the model has 6 layers"),
    ],
)  # fmt: skip
def test_other_wishes_are_refused_with_what_is_possible(asked, words):
    with pytest.raises(QAError, match=words):
        choose_layers(asked, {"num_hidden_layers": 6})


def test_alberts_layers_share_their_weights():
    with pytest.raises(QAError, match="the layers of an ALBERT share their weights"):
        choose_layers("1", {"model_type": "albert", "num_hidden_layers": 12})
