"""Features to padded batches: which windows go together, and how far they are padded. NumPy only."""

from collections.abc import Sequence

import numpy as np

LENGTH_STEP = 16  # tokens


def padded_length(longest: int, max_length: int, seen: int = 1) -> int:
    """Tokens to which a batch is padded: at least `seen` more than its longest window has, rounded up to a multiple of
    16.

    MobileBERT's input at each position joins its two neighbours' embeddings, so the last real token sees whether there
    is a [PAD] behind it. With one [PAD] or more behind every window that is shorter than max_length, a window sees
    exactly what it would see padded to max_length, and an answer can't depend on the batch it came in. A family that
    sees further (model/families.py, padding) needs as many more. The rounding keeps the number of different shapes
    small: on a CPU every shape costs compiled kernels and fragmented memory (60 training steps of MiniLM: 2.4 GB
    against 3.5 GB and growing).
    """
    return min(-(-(longest + seen) // LENGTH_STEP) * LENGTH_STEP, max_length)


def pad_batch(features: Sequence[dict], max_length: int, pad_id: int, seen: int = 1) -> dict[str, np.ndarray]:
    """B windows as int64 arrays (B, L): input_ids, token_type_ids, attention_mask; start_positions and end_positions
    (B,) where the features have them."""
    shape = len(features), padded_length(max(len(feature["input_ids"]) for feature in features), max_length, seen)
    names = ("input_ids", "token_type_ids", "attention_mask")
    batch = {name: np.full(shape, pad_id if name == "input_ids" else 0, dtype=np.int64) for name in names}
    for row, feature in enumerate(features):
        size = len(feature["input_ids"])
        batch["input_ids"][row, :size] = feature["input_ids"]
        batch["token_type_ids"][row, :size] = feature["token_type_ids"]
        batch["attention_mask"][row, :size] = 1
    if "start_position" in features[0]:
        batch["start_positions"] = np.array([feature["start_position"] for feature in features], dtype=np.int64)
        batch["end_positions"] = np.array([feature["end_position"] for feature in features], dtype=np.int64)
    return batch


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """All windows of one epoch as effective batches of indices, each window once: a pure function of its arguments.

    Windows of like length go together, so that little padding is computed: they are shuffled, cut into groups of 50
    batches, sorted by length (ties stay shuffled) within a group, cut into batches, and the batches shuffled. Which
    windows meet in a batch, and when it comes, is drawn again each epoch. Only the last batch of the last group is
    smaller than batch_size.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    group_size = batch_size * max(1, min(50, len(order) // batch_size // 2))
    batches = []
    for begin in range(0, len(order), group_size):
        group = order[begin : begin + group_size]
        group = group[np.argsort(lengths[group], kind="stable")]
        batches += [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def micro_batches(
    batch: np.ndarray, micro_batch_size: int, rank: int = 0, processes: int = 1
) -> list[tuple[np.ndarray, np.ndarray]]:
    """One process's share of an effective batch: micro-batches of (indices, weights).

    Every process gets the same number of micro-batches, as gradients are averaged at the last one: a process that
    would have fewer repeats windows with weight 0. Otherwise weights are 1.
    """
    share = -(-len(batch) // processes)
    count = -(-share // micro_batch_size)
    mine = batch[rank * share : (rank + 1) * share]
    weights = np.ones(len(mine), dtype=np.float32)
    missing = (count - 1) * micro_batch_size + 1 - len(mine)
    if missing > 0:
        mine = np.concatenate([mine, np.repeat(batch[:1], missing)])
        weights = np.concatenate([weights, np.zeros(missing, dtype=np.float32)])
    return [
        (mine[i : i + micro_batch_size], weights[i : i + micro_batch_size])
        for i in range(0, len(mine), micro_batch_size)
    ]


def length_sorted_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """All windows as batches of indices by falling length: little padding, and running out of memory shows first."""
    order = np.argsort(-lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
