"""Windows as transformers cuts them, to compare ours with."""

import unicodedata


def goes_on(text, place):
    """Whether the character at `place` belongs to the one before it: a mark, a joiner, or what is joined."""
    if not 0 < place < len(text):
        return False
    kind = unicodedata.category(text[place])[0]
    return kind == "M" or text[place] == "\u200d" or (text[place - 1] == "\u200d" and kind in "LS")


def widened(text, start, end):
    """A token's offsets such that no mark is parted from its letter, by going character by character."""
    while goes_on(text, start):
        start -= 1
    while goes_on(text, end):
        end += 1
    return [start, end]


def trimmed(text, start, end):
    """A token's offsets without the white space around it; one of nothing else stays."""
    if text[start:end].strip():
        while text[start].isspace():
            start += 1
        while text[end - 1].isspace():
            end -= 1
    return start, end


def transformers_windows(tokenizer, examples, max_length, doc_stride):
    """(example, ids, token types, offsets) of every window as transformers cuts them, offsets (-1, -1) and with marks
    as ours."""
    for begin in range(0, len(examples), 500):
        some = examples[begin : begin + 500]
        encoded = tokenizer(
            [example["question"] for example in some],
            [example["context"] for example in some],
            truncation="only_second",
            max_length=max_length,
            stride=doc_stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
        )
        for k, ids in enumerate(encoded["input_ids"]):
            pairs = zip(encoded["offset_mapping"][k], encoded.sequence_ids(k), strict=True)
            example_index = begin + encoded["overflow_to_sample_mapping"][k]
            context = examples[example_index]["context"]
            offsets = [
                widened(context, *trimmed(context, *offset)) if sequence == 1 else [-1, -1]
                for offset, sequence in pairs
            ]
            yield example_index, ids, encoded["token_type_ids"][k], offsets


def assert_equal_to_transformers(features, expected):
    count = 0
    for i, (example_index, ids, types, offsets) in enumerate(expected):
        window = features[i]
        found = (window["example_index"], window["input_ids"].tolist(), window["token_type_ids"].tolist())
        assert found == (example_index, ids, types), f"window {i}"
        assert window["offsets"].tolist() == offsets, f"window {i}"
        assert (window["context_start"], window["context_end"]) == context_range(offsets, window), f"window {i}"
        count += 1
    assert len(features) == count


def context_range(offsets, window):
    inside = [i for i, offset in enumerate(offsets) if offset != [-1, -1]]
    return (inside[0], inside[-1] + 1) if inside else (window["context_start"],) * 2
