"""Attention for training on a CPU: one window after the other, so that its matrices stay in the cache.

Plain attention writes and reads matrices of (B, H, L, L) a dozen times for each layer and draws its dropout number by
number: for long windows that is most of a training step. Here a window's (H, L, L) matrices are made, used and kept in
the precision of the products, and dropout is drawn four numbers at once. The values are those of plain attention, up to
rounding; the draws of dropout are others. `benchmarks/speed/model.py` shows what it is worth.
"""

import torch

NAME = "window_by_window"  # among transformers' attn_implementation


def attend_window_by_window(model: torch.nn.Module) -> None:
    """Has a model of transformers attend so from now on. A family that brings an attention of its own (MPNet, DeBERTa)
    keeps it."""
    if not getattr(model, "_supports_attention_backend", False):
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    model.set_attn_implementation(NAME)


def attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **_):
    """As transformers' attention functions: query, key, value (B, H, L, D); attention_mask (B, 1, L, L), or None.

    Returns (B, L, H, D), and None for the weights, which are not kept.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    attended = WindowByWindow.apply(query * scaling, key, value, attention_mask, dropout if module.training else 0.0)
    return attended.transpose(1, 2).contiguous(), None


class WindowByWindow(torch.autograd.Function):
    """softmax(query key' + mask), with dropout, times value. query is scaled already. Shapes as above."""

    @staticmethod
    def forward(context, query, key, value, mask, dropout):
        if mask is not None:  # a token hidden by -inf in all rows would make NaN
            mask = mask.to(query.dtype).clamp(min=torch.finfo(query.dtype).min)
        attended = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        saved = []
        with torch.autocast("cpu", enabled=False):
            for window in range(len(query)):
                scores = query[window] @ key[window].transpose(-1, -2)
                if mask is not None:
                    scores += mask[window]
                weights = scores.softmax(-1)
                kept = draw_kept(weights, dropout) if dropout else None
                attended[window] = drop(weights, kept) @ value[window]
                saved += [weights, kept]
        context.save_for_backward(query, key, value, *saved)
        context.scale = 1 / (1 - dropout)
        return attended.mul_(context.scale)

    @staticmethod
    def backward(context, gradient):
        query, key, value, *saved = context.saved_tensors
        gradient = gradient * context.scale
        of_query, of_key, of_value = (torch.empty_like(tensor) for tensor in (query, key, value))
        for window, (weights, kept) in enumerate(zip(saved[::2], saved[1::2], strict=True)):
            of_value[window] = drop(weights, kept).transpose(-1, -2) @ gradient[window]
            of_weights = drop(gradient[window] @ value[window].transpose(-1, -2), kept)
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_query[window] = of_scores @ key[window]
            of_key[window] = of_scores.transpose(-1, -2) @ query[window]
        return of_query, of_key, of_value, None, None


def draw_kept(weights: torch.Tensor, dropout: float) -> torch.Tensor:
    """Zeros, each with the probability `dropout` (to 1 in 65,536), and ones, drawn by PyTorch's generator. (H, L, L)"""
    count = weights.numel()
    numbers = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
    numbers = numbers.view(torch.int16)[:count].view(weights.shape)
    return torch.ge(numbers, round(dropout * 2**16) - 2**15, out=torch.empty_like(weights))


def drop(weights: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    return weights if kept is None else weights * kept
