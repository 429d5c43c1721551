"""A shorter encoder: only some of a model's layers, for train.py to start from. Imports torch when called."""

import re
from collections.abc import Mapping

from extractive_qa.errors import QAError

LISTED = re.compile("[0-9]{1,4}(,[0-9]{1,4})*")


def choose_layers(asked: str, config: Mapping) -> list[int]:
    """The layers that stay, of a model with this config.json, counted from 0.

    asked: their numbers, rising, between commas; or one number, the first so many: of BERT's and RoBERTa's layers the
    upper ones are missed least (arXiv 2004.03844), and MobileBERT is published with 14 of its 24, 0 to 13
    (oBERT-MobileBERT, MLPerf Inference 3.0). Four of models/sample's six, taught by it on 300 questions for 2 epochs:
    the first have an F1 of 83 on 100 held-out ones, 0, 2, 3 and 5 (even distances, as DistilBERT began with) of 72.
    Raises QAError where they are not there, or nothing would be left or gone.
    """
    count = config.get("num_hidden_layers") or config.get("n_layers")  # DistilBERT's name for it
    count = count if type(count) is int else None  # what else is wrong with the file is said where it is loaded
    if config.get("model_type") == "albert":
        raise QAError(
            f"keep_layers={asked!r:.40}: the layers of an ALBERT share their weights, and none can be left out"
        )
    if not LISTED.fullmatch(asked):
        raise QAError(f"keep_layers={asked!r:.40}, expected how many layers (4), or which, from 0 (0,2,3,5)")
    numbers = [int(number) for number in asked.split(",")]
    if "," not in asked:
        if not 1 <= numbers[0] <= (count or numbers[0]):
            raise QAError(f"keep_layers={asked!r}, expected 1 to {count}, the layers of this model")
        return list(range(numbers[0]))
    if numbers != sorted(set(numbers)):
        raise QAError(f"keep_layers={asked!r}, expected each layer once, and in their order")
    if count and numbers[-1] >= count:
        raise QAError(f"keep_layers={asked!r}, expected 0 to {count - 1}: the model has {count} layers")
    return numbers


def keep_layers(model, kept: list[int]) -> None:
    """Leaves only these layers in a model of transformers, in place: saved, it is a plain folder of fewer layers.

    The first of them reads the embeddings, whichever it was. Raises QAError where the model is built otherwise, or
    plain transformers could not load what is left.
    """
    import torch

    config, shown = model.config, ",".join(map(str, kept))
    parts = [model.base_model, *(getattr(model.base_model, name, None) for name in ("encoder", "transformer"))]
    places = [(part, name) for part in parts for name in ("layer", "layers") if hasattr(part, name)]
    if len(places) != 1 or not isinstance(layers := getattr(*places[0]), torch.nn.ModuleList):
        raise QAError(
            f"keep_layers={shown!r}: a model of the kind {config.model_type} has no list of layers of its own"
        )
    setattr(*places[0], torch.nn.ModuleList(layers[number] for number in kept))
    config.num_hidden_layers = len(kept)
    if kinds := getattr(config, "layer_types", None):  # ModernBERT: which layers see all tokens, which their neighbours
        config.layer_types = [kinds[number] for number in kept]
    elif every := getattr(config, "global_attn_every_n_layers", None):  # the same in transformers 4: a pattern
        require_pattern(kept, every)
    with torch.device("meta"):  # names and shapes, without memory
        plain = {name: tensor.shape for name, tensor in type(model)(config).state_dict().items()}
    left = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if differing := sorted(left.items() ^ plain.items()):
        raise QAError(
            f"keep_layers={shown!r}: layer {kept[0]} of a model of the kind {config.model_type} can't be the first: "
            f"{differing[0][0]} would have no place. Keep layer 0."
        )


def require_pattern(kept: list[int], every: int) -> None:
    """Raises QAError where the layers that see all tokens, each so many, would no longer be in their places."""
    if any((number % every == 0) != (place % every == 0) for place, number in enumerate(kept)):
        raise QAError(
            f"keep_layers={','.join(map(str, kept))!r}: with transformers 4, the first of {every} layers of ModernBERT "
            "sees all tokens, and here others would. Keep the first ones, or install the versions of "
            "requirements.txt."
        )
