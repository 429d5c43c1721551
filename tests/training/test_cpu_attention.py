"""Attention window by window: the values and gradients of plain attention, its dropout drawn as often as asked."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from small_training import needs_bf16

from extractive_qa.training.cpu_attention import attention, draw_kept

SHAPE = 3, 2, 37, 8  # (B, H, L, D)
TRAINING, SCORING = SimpleNamespace(training=True), SimpleNamespace(training=False)


def drawn(dtype=torch.float64) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(SHAPE, dtype=dtype, requires_grad=True) for _ in range(3)]


def padding(value: float) -> torch.Tensor:
    """The last window's last 12 tokens are padding. (B, 1, L, L)"""
    mask = torch.zeros(SHAPE[0], 1, SHAPE[2], SHAPE[2])
    mask[-1, :, :, -12:] = value
    return mask


def plain(query, key, value, mask, kept=1.0, dropout=0.0) -> torch.Tensor:
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    weights = (scores if mask is None else scores + mask).softmax(-1)
    return (weights * kept / (1 - dropout) @ value).transpose(1, 2)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("mask", [None, padding(torch.finfo(torch.float32).min), padding(-torch.inf)])
def test_values_and_gradients_are_those_of_plain_attention(mask, dropout):
    query, key, value = drawn()
    torch.manual_seed(1)
    weights, none = attention(TRAINING, query, key, value, mask, dropout=dropout)
    assert none is None
    torch.manual_seed(1)
    of_window = torch.empty(SHAPE[1], SHAPE[2], SHAPE[2], dtype=torch.float64)
    kept = torch.stack([draw_kept(of_window, dropout) for _ in range(SHAPE[0])])
    expected = plain(query, key, value, mask, kept, dropout)
    torch.testing.assert_close(weights, expected)
    direction = torch.randn_like(expected)
    gradients = [torch.autograd.grad(out, (query, key, value), direction) for out in (weights, expected)]
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted)


def test_nothing_is_dropped_while_scoring():
    query, key, value = drawn()
    found, _ = attention(SCORING, query, key, value, None, dropout=0.5)
    torch.testing.assert_close(found, plain(query, key, value, None))


def test_a_window_of_padding_alone_is_finite():
    query, key, value = drawn(torch.float32)
    found, _ = attention(TRAINING, query, key, value, torch.full((3, 1, 37, 37), -torch.inf))
    assert found.isfinite().all()


@needs_bf16
def test_bf16_is_near_fp32_and_stays_bf16_under_autocast():
    query, key, value = drawn(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = attention(TRAINING, query.bfloat16(), key.bfloat16(), value.bfloat16(), padding(-1e38))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), plain(query, key, value, padding(-1e38)), atol=0.03, rtol=0)


@pytest.mark.parametrize(("dropout", "dtype"), [(0.1, torch.float32), (0.5, torch.bfloat16), (0.9, torch.float32)])
def test_dropout_is_drawn_as_often_as_asked_at_every_place(dtype, dropout):
    torch.manual_seed(0)
    kept = draw_kept(torch.empty(4, 500, 401, dtype=dtype), dropout)  # 401: rows begin at all places of a number
    assert kept.dtype == dtype
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    for part in [*kept.float(), *(kept.float().flatten()[place::4] for place in range(4))]:
        error = (dropout * (1 - dropout) / part.numel()) ** 0.5
        assert abs(part.mean().item() - (1 - dropout)) < 5 * error
    pairs = itertools.pairwise(kept.float().flatten()[place::4] for place in range(4))
    assert all(abs(torch.corrcoef(torch.stack(pair))[0, 1]) < 0.01 for pair in pairs)
