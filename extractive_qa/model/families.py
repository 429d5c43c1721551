"""The encoder families that answer here, what they differ in, and what a model of another kind is told.

All have an output layer over a window that begins with [CLS] (or <s>). Those in FAMILIES are tried in
tests/model/test_families.py with small random models and tokenizers of their kind: windows and logits equal
transformers'. Other kinds are refused by name: a model that needs other inputs would answer, and answer nonsense.
"""

import inspect
from collections.abc import Mapping

# as config.json's model_type has them
FAMILIES = (
    "bert", "mobilebert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra", "albert", "mpnet",
    "deberta-v2", "deberta", "modernbert", "ernie", "squeezebert", "convbert", "roformer",
)  # fmt: skip
# whose positions begin behind the padding token's id: 512 of 514 are left for tokens
POSITIONS_BEHIND_PAD = ("roberta", "xlm-roberta", "camembert", "mpnet")
# the weights over the encoder that turn states into start and end, by how their names begin; of all others qa_outputs.
# ModernBERT's `head` is the one of its pretraining, `classifier` that of any task
OUTPUT_LAYERS = {"modernbert": ("classifier.", "head.")}
QA_OUTPUTS = ("qa_outputs.",)
LAST_LAYERS = tuple(names[0] for names in (QA_OUTPUTS, *OUTPUT_LAYERS.values()))  # those that give the two logits
# the settings of config.json that are dropout: of the attention's weights, and of all else
DROPOUT = {
    "distilbert": (("attention_dropout",), ("dropout", "qa_dropout")),
    "modernbert": (("attention_dropout",), ("embedding_dropout", "mlp_dropout", "classifier_dropout")),
}
BERTS_DROPOUT = (("attention_probs_dropout_prob",), ("hidden_dropout_prob",))
KNOWN_REASONS = {
    "longformer": "it attends to the question in a way of its own",
    "big_bird": "it attends in blocks of its own",
    "xlnet": "its [CLS] stands at the end",
    "t5": "it writes answers instead of finding them",
    "mt5": "it writes answers instead of finding them",
    "bart": "it writes text; its readers take other windows",
}


def refuse_family(config: Mapping) -> str | None:
    """Why a model with this config.json can't answer here, None where it can."""
    kind = config.get("model_type")
    if kind in FAMILIES:
        return None
    architectures = config.get("architectures")
    named = isinstance(architectures, list) and ", ".join(map(str, architectures))
    reason = f", {KNOWN_REASONS[kind]}" if isinstance(kind, str) and kind in KNOWN_REASONS else ""
    return (
        f"it holds {named or 'a model'} of the kind {kind!r:.40}{reason}. "
        f"Expected an encoder that finds answers: {', '.join(FAMILIES)}"
    )


def output_layer(config: Mapping) -> tuple[str, ...]:
    """How the names of the output layer's weights begin, first those that give the two logits."""
    return OUTPUT_LAYERS.get(config.get("model_type"), QA_OUTPUTS)


def padding(config: Mapping, tokenizer) -> tuple[int, int]:
    """The token that windows are padded with, and how many of them a window's own tokens can see behind it: so many
    it gets, or an answer would depend on its batch. Attention sees none; MobileBERT joins neighbours, and each layer
    of ConvBERT reads half a kernel of them, which the next layer carries on."""
    pad_id = config.get("pad_token_id") or 0
    if config.get("model_type") != "convbert":
        return pad_id, 1
    named = tokenizer.token_to_id("[PAD]")  # what padding is: config.json has 1 where nobody set it, a word of BERT's
    # the numbers of config.json where it leaves them out, as transformers has them
    seen = max(1, config.get("num_hidden_layers", 12) * (config.get("conv_kernel_size", 9) // 2))
    return pad_id if named is None else named, seen


def dropout_settings(config: Mapping, attention: float | None, hidden: float | None) -> dict[str, float]:
    """What to set in config.json for these shares that are dropped in training, None: as they are."""
    named = zip(DROPOUT.get(config.get("model_type"), BERTS_DROPOUT), (attention, hidden), strict=True)
    return {name: share for names, share in named for name in names if share is not None}


def usable_positions(config: Mapping) -> int | None:
    """Tokens that a window may have, special ones included; None where config.json does not say."""
    positions = config.get("max_position_embeddings")
    if positions and config.get("model_type") in POSITIONS_BEHIND_PAD:
        return positions - (1 if config.get("pad_token_id") is None else config["pad_token_id"]) - 1
    return positions or None


def input_names(model) -> list[str]:
    """The tensors of a batch that a question-answering model of transformers reads: some families know no token types,
    others have one type only and can't look up a second."""
    known = inspect.signature(model.forward).parameters
    names = ["input_ids", "attention_mask"]
    if "token_type_ids" in known and (getattr(model.config, "type_vocab_size", None) or 0) > 1:
        names.append("token_type_ids")
    return names
