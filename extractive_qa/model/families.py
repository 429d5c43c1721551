"""The encoder families that answer here, what they differ in, and what a model of another kind is told.

All have an output layer `qa_outputs` over a window that begins with [CLS] (or <s>). Those in FAMILIES are tried in
tests/test_families.py with small random models and tokenizers of their kind: windows and logits equal transformers'.
Other kinds are refused by name: a model that needs other inputs would answer, and answer nonsense.
"""

import inspect
from collections.abc import Mapping

# as config.json's model_type has them
FAMILIES = (
    "bert", "mobilebert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra", "albert", "mpnet",
    "deberta-v2",
)  # fmt: skip
# whose positions begin behind the padding token's id: 512 of 514 are left for tokens
POSITIONS_BEHIND_PAD = ("roberta", "xlm-roberta", "camembert", "mpnet")
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
