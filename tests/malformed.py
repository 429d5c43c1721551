"""Files of a model folder that are malformed, made from good ones: {cause: what damages a folder}.

Each is what a bad download, a failing disk, another program or a stranger may leave: of model.safetensors (the format:
https://huggingface.co/docs/safetensors, "Format"), tokenizer.json, config.json and reader.json.
"""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

Damage = Callable[[Path], object]
DEEP = 100_000
WEIGHTS, TOKENIZER, CONFIG, SETTINGS = "model.safetensors", "tokenizer.json", "config.json", "reader.json"


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fails where the block takes longer, where the system has alarms (POSIX)."""

    def too_long(*_: object) -> None:
        raise AssertionError(f"more than {seconds} seconds")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    handler = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


# model.safetensors: 8 bytes with the length of a header, the header in JSON, the tensors' bytes


def parts(path: Path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_parts(path: Path, header: dict | bytes, data: bytes, length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)


def with_length(length: int | None, folder: Path) -> None:
    """None: one byte less than it has."""
    header, data = parts(folder / WEIGHTS)
    text = json.dumps(header).encode()
    write_parts(folder / WEIGHTS, text, data, len(text) - 1 if length is None else length)


def with_header(change: Callable[[dict, list[str]], object], folder: Path) -> None:
    """change(header, names): names of the tensors by their place."""
    header, data = parts(folder / WEIGHTS)
    names = sorted(header.keys() - {"__metadata__"}, key=lambda name: header[name]["data_offsets"])
    changed = change(header, names)
    write_parts(folder / WEIGHTS, changed if isinstance(changed, bytes) else header, data)


def with_tensor(values: dict, folder: Path, number: int = 0) -> None:
    with_header(lambda header, names: header[names[number]].update(values), folder)


def with_offsets(change: Callable[[int, int], list], folder: Path) -> None:
    """Of the second tensor."""
    with_header(
        lambda header, names: header[names[1]].update(data_offsets=change(*header[names[1]]["data_offsets"])), folder
    )


def twice(header: dict, names: list[str]) -> bytes:
    """The name of the first tensor once more, for the second."""
    text = json.dumps(header)
    assert text.count(f'"{names[1]}"') == 1
    return text.replace(f'"{names[1]}"', f'"{names[0]}"').encode()


def cut(share: float, folder: Path, name: str = WEIGHTS) -> None:
    content = (folder / name).read_bytes() if (folder / name).exists() else b'{"max_length": 384}'
    (folder / name).write_bytes(content[: int(len(content) * share)])


def with_content(name: str, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)


MALFORMED_WEIGHTS: dict[str, Damage] = {
    "nothing": partial(with_content, WEIGHTS, b""),
    "seven bytes": partial(with_content, WEIGHTS, b"\x10\0\0\0\0\0\0"),
    "nothing but zeros": partial(with_content, WEIGHTS, bytes(5000)),
    "a web page": partial(with_content, WEIGHTS, b"<!DOCTYPE html><p>404</p>" * 99),
    "a pointer of Git LFS": partial(
        with_content, WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
    ),
    "a header of no bytes": partial(with_length, 0),
    "a header of one byte": partial(with_length, 1),
    "a header one byte short": partial(with_length, None),
    "a header longer than the file": partial(with_length, 10**9),
    "a header of 2^63 bytes": partial(with_length, 2**63),
    "a header of -1 bytes": partial(with_length, 2**64 - 1),
    "a header that is no JSON": partial(with_header, lambda header, names: b"x" * 500),
    "a header that is not UTF-8": partial(with_header, lambda header, names: b'{"\xff": 1}'),
    "a header that is a list": partial(with_header, lambda header, names: b"[]"),
    "a header without tensors": partial(with_header, lambda header, names: b"{}"),
    "a header that is nested deeply": partial(
        with_header, lambda header, names: b'{"a":' * DEEP + b"1" + b"}" * DEEP
    ),
    "a duplicate name": partial(with_header, twice),
    "a tensor without a type": partial(with_header, lambda header, names: header[names[0]].pop("dtype")),
    "a tensor without a shape": partial(with_header, lambda header, names: header[names[0]].pop("shape")),
    "a tensor without offsets": partial(with_header, lambda header, names: header[names[0]].pop("data_offsets")),
    "a tensor that is null": partial(with_header, lambda header, names: header.update({names[0]: None})),
    "a type that does not exist": partial(with_tensor, {"dtype": "F33"}),
    "a type that is a number": partial(with_tensor, {"dtype": 32}),
    "a wider type than its bytes": partial(with_tensor, {"dtype": "F64"}),
    "a type of text": partial(with_tensor, {"dtype": "F32 "}),
    "a shape of words": partial(with_tensor, {"shape": ["many"]}),
    "a negative shape": partial(with_tensor, {"shape": [-1, 4]}),
    "a shape that overflows": partial(with_tensor, {"shape": [2**62, 2**62]}),
    "a huge shape": partial(with_tensor, {"shape": [10**12]}),
    "a shape of fractions": partial(with_tensor, {"shape": [1.5, 2]}),
    "a shape of a thousand dimensions": partial(with_tensor, {"shape": [1] * 1000}),
    "overlapping tensors": partial(with_offsets, lambda begin, end: [begin - 4, end - 4]),
    "a gap between tensors": partial(with_offsets, lambda begin, end: [begin + 4, end + 4]),
    "offsets the wrong way round": partial(with_offsets, lambda begin, end: [end, begin]),
    "negative offsets": partial(with_offsets, lambda begin, end: [-4, end]),
    "offsets behind the end": partial(with_offsets, lambda begin, end: [10**12, 10**12 + end - begin]),
    "offsets that overflow": partial(with_offsets, lambda begin, end: [2**64 - 1, 2**64]),
    "one offset": partial(with_offsets, lambda begin, end: [begin]),
    "metadata of numbers": partial(with_header, lambda header, names: header.update(__metadata__={"format": 1})),
    "metadata that is a list": partial(with_header, lambda header, names: header.update(__metadata__=["pt"])),
    "metadata of another framework": partial(
        with_header, lambda header, names: header.update(__metadata__={"format": "own"})
    ),
    "cut in the length": partial(cut, 0.00001),
    "cut in half": partial(cut, 0.5),
    "cut near the end": partial(cut, 0.9999),
    "bytes behind the end": lambda folder: with_content(WEIGHTS, (folder / WEIGHTS).read_bytes() + b"1234", folder),
}  # fmt: skip


# JSON


def with_json(name: str, change: Callable[[dict], object], folder: Path) -> None:
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    changed = change(content)
    (folder / name).write_text(json.dumps(content if changed is None else changed), encoding="utf-8")


def fields(name: str, **values) -> Damage:
    return partial(with_json, name, lambda content: content.update(values))


def model_of(**values) -> Damage:
    return partial(with_json, TOKENIZER, lambda content: content["model"].update(values))


def added(**values) -> Damage:
    return partial(with_json, TOKENIZER, lambda content: content["added_tokens"][0].update(values))


def no_json(name: str) -> dict[str, Damage]:
    return {
        "nothing": partial(with_content, name, b""),
        "zeros": partial(with_content, name, bytes(4096)),
        "not UTF-8": partial(with_content, name, b'{"a": "\xff\xfe"}'),
        "UTF-16": partial(with_content, name, '{"a": 1}'.encode("utf-16")),
        "a list": partial(with_content, name, b"[]"),
        "null": partial(with_content, name, b"null"),
        "a number": partial(with_content, name, b"1e999"),
        "cut in half": partial(cut, 0.5, name=name),
        "a nesting of lists": partial(with_content, name, b"[" * DEEP),
        "a nesting of objects": partial(with_content, name, b'{"a":' * DEEP + b"1" + b"}" * DEEP),
        "a number of 5,000 digits": partial(with_content, name, b'{"model_type": ' + b"1" * 5000 + b"}"),
    }


MALFORMED_TOKENIZERS: dict[str, Damage] = no_json(TOKENIZER) | {
    "an empty object": partial(with_content, TOKENIZER, b"{}"),
    "no model": partial(with_json, TOKENIZER, lambda content: content.pop("model") and None),
    "a model that is null": fields(TOKENIZER, model=None),
    "a model that is a list": fields(TOKENIZER, model=[]),
    "a model of no kind": fields(TOKENIZER, model={"type": "Own", "vocab": {}}),
    "a model without a vocabulary": partial(
        with_json, TOKENIZER, lambda content: content["model"].pop("vocab") and None
    ),
    "an empty vocabulary": model_of(vocab={}),
    "a vocabulary that is a list": model_of(vocab=["a", "b"]),
    "a vocabulary of words for ids": model_of(vocab={"[UNK]": "first"}),
    "a vocabulary of fractions": model_of(vocab={"[UNK]": 0.5}),
    "a negative id": model_of(vocab={"[UNK]": -1}),
    "an id of 2^32 - 1": partial(with_json, TOKENIZER, lambda content: content["model"]["vocab"].update(a=2**32 - 1)),
    "an id of 2^31": partial(with_json, TOKENIZER, lambda content: content["model"]["vocab"].update(a=2**31)),
    "an id of 2^64": partial(with_json, TOKENIZER, lambda content: content["model"]["vocab"].update(a=2**64)),
    "two tokens of one id": partial(with_json, TOKENIZER, lambda content: content["model"]["vocab"].update(a=5, b=5)),
    "an unknown token that is not there": model_of(unk_token="[NONE]"),
    "an unknown token that is a number": model_of(unk_token=1),
    "a prefix that is null": model_of(continuing_subword_prefix=None),
    "words of no characters": model_of(max_input_chars_per_word=0),
    "words of -1 characters": model_of(max_input_chars_per_word=-1),
    "BPE with merges of nothing": fields(
        TOKENIZER, model={"type": "BPE", "vocab": {"a": 0}, "merges": [["x", "y"]]}
    ),
    "an empty Unigram": fields(TOKENIZER, model={"type": "Unigram", "unk_id": 0, "vocab": []}),
    "a Unigram whose unknown is not there": fields(
        TOKENIZER, model={"type": "Unigram", "unk_id": 9, "vocab": [["a", -1.0], ["b", -1.0]]}
    ),
    "an added token without content": partial(
        with_json, TOKENIZER, lambda content: content["added_tokens"][0].pop("content") and None
    ),
    "an added token of nothing": added(content=""),
    "an added token of a huge id": added(id=2**32 - 1),
    "an added token of a negative id": added(id=-1),
    "added tokens that are an object": fields(TOKENIZER, added_tokens={"a": 1}),
    "a normalizer of no kind": fields(TOKENIZER, normalizer={"type": "Own"}),
    "a pattern that is none": fields(
        TOKENIZER, pre_tokenizer={"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}
    ),
    "a pattern that never ends": fields(
        TOKENIZER,
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a|aa)+$"}, "behavior": "Isolated", "invert": False},
    ),
    "no template": fields(TOKENIZER, post_processor=None),
    "a template of tokens that are not there": partial(
        with_json, TOKENIZER, lambda content: content["post_processor"].update(special_tokens={})
    ),
    "a template of no sequence": partial(
        with_json, TOKENIZER, lambda content: content["post_processor"].update(pair=[], single=[])
    ),
    "truncation to nothing": fields(
        TOKENIZER, truncation={"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 9}
    ),
    "padding to a huge length": fields(
        TOKENIZER,
        padding={"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                 "pad_type_id": 0, "pad_token": "[PAD]"},
    ),
}  # fmt: skip


MALFORMED_CONFIGS: dict[str, Damage] = no_json(CONFIG) | {
    f"{name} is {value!r:.30}": fields(CONFIG, **{name: value})
    for name, value in (
        ("model_type", None), ("model_type", 7), ("model_type", ["bert"]), ("architectures", {"a": 1}),
        ("vocab_size", 10**9), ("vocab_size", 10**15), ("vocab_size", "many"), ("vocab_size", 2.5),
        ("vocab_size", float("nan")), ("hidden_size", 10**6), ("hidden_size", 4096), ("hidden_size", 0),
        ("hidden_size", float("inf")), ("hidden_size", [64]), ("intermediate_size", 10**9),
        ("intermediate_size", -1), ("embedding_size", 10**8), ("true_hidden_size", 10**8),
        ("intra_bottleneck_size", 10**8), ("num_hidden_layers", 10**6), ("num_hidden_layers", 10**12),
        ("num_hidden_layers", float("nan")), ("num_feedforward_networks", 10**9), ("num_attention_heads", 10**9),
        ("num_attention_heads", 0), ("num_attention_heads", 3), ("max_position_embeddings", 10**10),
        ("max_position_embeddings", 10**18), ("max_position_embeddings", float("nan")),
        ("max_position_embeddings", float("inf")), ("max_position_embeddings", -5), ("type_vocab_size", 10**10),
        ("type_vocab_size", 0), ("pad_token_id", 10**9), ("pad_token_id", float("nan")), ("pad_token_id", 2.5),
        ("layer_norm_eps", float("nan")), ("layer_norm_eps", "small"), ("initializer_range", float("nan")),
        ("hidden_dropout_prob", float("nan")), ("hidden_dropout_prob", 7), ("hidden_act", {"a": 1}),
        ("normalization_type", "none"), ("trigram_input", "no"), ("id2label", {"a": 1}), ("id2label", [1, 2]),
        ("num_labels", 10**9), ("dtype", "float999"), ("torch_dtype", "float999"), ("dtype", {"a": 1}),
        ("chunk_size_feed_forward", 3), ("output_attentions", "yes"), ("return_dict", False),
        ("is_decoder", True), ("pruned_heads", {"0": [0, 1, 2, 3]}), ("tie_word_embeddings", "x"),
    )
}  # fmt: skip


MALFORMED_SETTINGS: dict[str, Damage] = no_json(SETTINGS) | {
    f"{name} is {value!r:.30}": partial(with_content, SETTINGS, json.dumps({name: value}).encode())
    for name, value in (
        ("max_length", float("nan")), ("max_length", 10**18), ("max_length", -(10**18)), ("max_length", "384"),
        ("doc_stride", float("nan")), ("doc_stride", 10**18), ("max_answer_length", 10**30),
        ("max_answer_length", float("inf")), ("handle_impossible_answer", 1), ("handle_impossible_answer", "no"),
        ("temperature", float("nan")), ("temperature", 10**400), ("temperature", [1.0]), ("references", 0),
        ("references", float("nan")), ("calibrator", 7), ("calibrator", []), ("calibrator", {}),
        ("calibrator", {"answerable": float("nan")}), ("calibrator", {"weights": [1] * 10**5}),
    )
}  # fmt: skip

MALFORMED = {
    f"{name}: {cause}": damage
    for name, damages in (
        (WEIGHTS, MALFORMED_WEIGHTS), (TOKENIZER, MALFORMED_TOKENIZERS), (CONFIG, MALFORMED_CONFIGS),
        (SETTINGS, MALFORMED_SETTINGS),
    )
    for cause, damage in damages.items()
}  # fmt: skip
