"""MobileBERT without its norms computes what it computed with them."""

import copy

import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering, MobileBertConfig, MobileBertForQuestionAnswering

from extractive_qa.model.fold_norms import fold_norms

SMALL = {
    "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64,
    "embedding_size": 32, "intra_bottleneck_size": 32, "num_feedforward_networks": 3, "initializer_range": 0.1,
}  # fmt: skip


def draw(norm: str = "no_norm", **settings) -> MobileBertForQuestionAnswering:
    """A model whose norms do something, as in a trained one."""
    torch.manual_seed(0)
    model = MobileBertForQuestionAnswering(MobileBertConfig(normalization_type=norm, **SMALL | settings)).eval()
    for name, parameter in model.named_parameters():
        if "LayerNorm" in name:
            parameter.data = torch.rand_like(parameter) + 0.5 * name.endswith("weight")
    return model


def logits(model) -> torch.Tensor:
    ids = torch.arange(80).reshape(2, 40) % 100
    mask = torch.ones_like(ids)
    mask[0, 30:] = 0
    with torch.inference_mode():
        output = model(input_ids=ids, attention_mask=mask, token_type_ids=ids % 2)
    return torch.stack([output.start_logits, output.end_logits])


def norms_left(model) -> int:
    return sum(type(module).__name__ == "NoNorm" for module in model.modules())


@pytest.mark.parametrize("feed_forward_layers", [1, 4])
def test_logits_stay_and_no_norm_is_left(feed_forward_layers):
    model = draw(num_feedforward_networks=feed_forward_layers)
    before = logits(model)
    fold_norms(model)
    assert norms_left(model) == 0
    assert torch.allclose(logits(model), before, atol=1e-5 * before.abs().max().item())


@pytest.mark.parametrize("value", [0.0, 1e-7, 1e7])
def test_a_scale_that_can_not_be_carried_is_computed_where_it_stands(value):
    model = draw()
    layer = model.mobilebert.encoder.layer[1]
    for norm in (layer.attention.output.LayerNorm, layer.output.bottleneck.LayerNorm):
        norm.weight.data[5] = value
    before = logits(model)
    fold_norms(model)
    assert norms_left(model) == 2
    assert torch.allclose(logits(model), before, atol=1e-5 * before.abs().max().item())


def test_small_scales_of_many_layers_do_not_add_up():
    model = draw(num_hidden_layers=12)
    for layer in model.mobilebert.encoder.layer:
        layer.output.bottleneck.LayerNorm.weight.data[:] = 0.01
    before = logits(model)
    fold_norms(model)
    assert 0 < norms_left(model) < 12
    assert torch.allclose(logits(model), before, atol=1e-5 * before.abs().max().item())


OTHERS = {
    "layer norms": {"norm": "layer_norm"},
    "no bottlenecks": {"use_bottleneck": False},
    "attention from the bottleneck": {"use_bottleneck_attention": True},
}


@pytest.mark.parametrize("kind", [*OTHERS, "BERT"])
def test_other_models_are_left_alone(kind):
    if kind == "BERT":
        config = BertConfig(num_hidden_layers=1, hidden_size=32, num_attention_heads=2, intermediate_size=32)
        model = BertForQuestionAnswering(config)
    else:
        model = draw(**OTHERS[kind])
    before = copy.deepcopy(model.state_dict())
    fold_norms(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
