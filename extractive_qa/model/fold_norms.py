"""MobileBERT without its norms, for answering: the same function with fewer steps.

MobileBERT normalizes nothing: where BERT has layer norms it has "NoNorm", weight * x + bias for each channel
(arXiv 2004.02984). Every one of them is between linear layers and sums, so it can be carried along into the weights
of the next linear layers: in exact arithmetic nothing changes, in fp32 nothing but rounding, and of each norm's two
passes over memory none is left (MobileBERT has 193 norms).
"""

import torch
from torch import nn

MOST = 2.0**12  # a channel's scale is carried on between 1 / MOST and MOST, so that no weight comes near fp32's ends


class Carried:
    """The difference between a tensor as it is computed now and as it was: `was = scale * now + shift`, per channel."""

    def __init__(self, channels: int):
        self.scale = torch.ones(channels, dtype=torch.float64)
        self.shift = torch.zeros(channels, dtype=torch.float64)

    def into(self, linear: nn.Linear) -> None:
        """Has `linear` read the tensor as it is computed now."""
        weight = linear.weight.double()
        set_linear(linear, weight * self.scale, linear.bias.double() + weight @ self.shift)

    def through(self, dense: nn.Linear, norm: nn.Module) -> nn.Module:
        """Carries on through norm(dense(...) + tensor). Returns what takes the place of `norm`."""
        set_linear(dense, dense.weight.double() / self.scale[:, None], dense.bias.double() / self.scale)
        return self.through_norm(norm)

    def through_norm(self, norm: nn.Module) -> nn.Module:
        scale = norm.weight.double() * self.scale
        shift = norm.weight.double() * self.shift + norm.bias.double()
        if bool(((scale.abs() < 1 / MOST) | (scale.abs() > MOST)).any()):  # computed here, and nothing carried on
            norm.weight.data, norm.bias.data = scale.float(), shift.float()
            self.__init__(len(scale))
            return norm
        self.scale, self.shift = scale, shift
        return nn.Identity()


def set_linear(linear: nn.Linear, weight: torch.Tensor, bias: torch.Tensor) -> None:
    linear.weight.data, linear.bias.data = weight.float(), bias.float()


def is_as_published(config) -> bool:
    """Whether a model of this configuration is built as google/mobilebert-uncased, of any size."""
    return (
        config.model_type == "mobilebert"
        and config.normalization_type == "no_norm"
        and config.use_bottleneck
        and config.key_query_shared_bottleneck
        and not config.use_bottleneck_attention
    )


@torch.no_grad()
def fold_norms(model: nn.Module) -> nn.Module:
    """`model`, a MobileBertForQuestionAnswering in fp32, with its norms taken into its linear layers, in place. Models
    of any other kind are returned as they are."""
    if not is_as_published(model.config) or not hasattr(model, "qa_outputs"):
        return model
    embeddings = model.mobilebert.embeddings
    hidden = Carried(model.config.hidden_size)
    embeddings.LayerNorm = hidden.through_norm(embeddings.LayerNorm)
    for layer in model.mobilebert.encoder.layer:
        bottleneck, attention, output = layer.bottleneck, layer.attention, layer.output
        for part in (bottleneck.input, bottleneck.attention):
            hidden.into(part.dense)
            # no sum before this norm: it goes into the layer that it follows
            weight, bias = part.LayerNorm.weight.double(), part.LayerNorm.bias.double()
            dense = part.dense
            set_linear(dense, dense.weight.double() * weight[:, None], dense.bias.double() * weight + bias)
            part.LayerNorm = nn.Identity()
        hidden.into(attention.self.value)  # queries and keys read the bottleneck
        inner = Carried(model.config.true_hidden_size)
        attention.output.LayerNorm = inner.through(attention.output.dense, attention.output.LayerNorm)
        for ffn in getattr(layer, "ffn", ()):
            inner.into(ffn.intermediate.dense)
            ffn.output.LayerNorm = inner.through(ffn.output.dense, ffn.output.LayerNorm)
        inner.into(layer.intermediate.dense)
        output.LayerNorm = inner.through(output.dense, output.LayerNorm)
        inner.into(output.bottleneck.dense)
        output.bottleneck.LayerNorm = hidden.through(output.bottleneck.dense, output.bottleneck.LayerNorm)
    hidden.into(model.qa_outputs)
    return model
