"""Batches: padding that a model can't see, every window once an epoch, and the same learning however a batch is cut."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extractive_qa.preprocessing.batches import (
    epoch_batches,
    length_sorted_batches,
    micro_batches,
    pad_batch,
    padded_length,
)

LENGTHS = st.lists(st.integers(3, 384), min_size=1, max_size=700).map(np.array)


def window(ids, **positions):
    return {
        "input_ids": np.array(ids, dtype=np.int32),
        "token_type_ids": np.arange(len(ids), dtype=np.int32) % 2,
        **positions,
    }


def shares_a_batch(batches):
    """All pairs of windows that meet in a batch."""
    return {
        (a, b)
        for batch in batches
        for i, a in enumerate(sorted(batch.tolist()))
        for b in sorted(batch.tolist())[i + 1 :]
    }


def like_squad(count, seed=0):
    """Window lengths as in SQuAD: most from 100 to 250 tokens, none above 384."""
    return np.random.default_rng(seed).gamma(8, 20, count).clip(40, 384).astype(np.int64)


# padding


@pytest.mark.parametrize(
    ("longest", "length"), [(1, 16), (15, 16), (16, 32), (50, 64), (382, 384), (383, 384), (384, 384)]
)
def test_a_batch_is_padded_beyond_its_longest_window_to_a_multiple_of_16_but_not_beyond_max_length(longest, length):
    assert padded_length(longest, 384) == length
    batch = pad_batch([window([7] * longest), window([7])], 384, pad_id=0)
    assert {array.shape for array in batch.values()} == {(2, length)}


@given(st.lists(st.lists(st.integers(1, 30521), min_size=1, max_size=40), min_size=1, max_size=8), st.integers(0, 3))
def test_a_padded_batch_holds_every_window_and_nothing_else(ids, pad_id):
    batch = pad_batch([window(row) for row in ids], 40, pad_id)
    assert all(array.dtype == np.int64 for array in batch.values())
    for i, row in enumerate(ids):
        rest = batch["input_ids"].shape[1] - len(row)
        assert rest > 0 or len(row) == 40, "a shorter window has a [PAD] behind it"
        assert batch["input_ids"][i].tolist() == row + [pad_id] * rest
        assert batch["attention_mask"][i].tolist() == [1] * len(row) + [0] * rest
        assert batch["token_type_ids"][i].tolist() == [k % 2 for k in range(len(row))] + [0] * rest


def test_positions_are_there_exactly_where_the_windows_have_them():
    rows = [window([1, 2, 3], start_position=1, end_position=2), window([1], start_position=0, end_position=0)]
    batch = pad_batch(rows, 384, 0)
    assert batch["start_positions"].tolist() == [1, 0]
    assert batch["end_positions"].tolist() == [2, 0]
    assert set(pad_batch([window([1])], 384, 0)) == {"input_ids", "token_type_ids", "attention_mask"}


# epochs


@given(LENGTHS, st.integers(1, 40), st.integers(0, 2**63 - 1), st.integers(0, 5))
@example(np.array([5]), 32, 0, 0)
@example(np.full(64, 384), 32, 0, 0)
def test_every_window_comes_exactly_once_an_epoch_in_batches_of_the_size_that_was_asked(
    lengths, batch_size, seed, epoch
):
    batches = epoch_batches(lengths, batch_size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    sizes = Counter(len(batch) for batch in batches)
    whole, rest = divmod(len(lengths), batch_size)
    assert sizes == Counter({batch_size: whole} if whole else {}) + Counter([rest] if rest else [])


@given(LENGTHS, st.integers(1, 40), st.integers(0, 2**63 - 1), st.integers(0, 5))
def test_batches_are_a_pure_function_of_seed_and_epoch(lengths, batch_size, seed, epoch):
    """Resuming relies on it: not on what was drawn before, nor on the global generator."""
    np.random.seed(1)
    first = epoch_batches(lengths, batch_size, seed, epoch)
    np.random.seed(2)
    epoch_batches(lengths, batch_size, seed, epoch + 1)
    second = epoch_batches(lengths.copy(), batch_size, seed, epoch)
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in second]


def test_another_epoch_and_another_seed_give_another_order():
    lengths = like_squad(500)
    orders = {
        tuple(np.concatenate(epoch_batches(lengths, 16, seed, epoch)).tolist())
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


def test_batches_waste_little_on_padding():
    """At random almost half as many tokens again would be padding."""
    lengths = like_squad(12_000)
    batches = epoch_batches(lengths, 32, 0, 0)
    computed = sum(len(batch) * padded_length(lengths[batch].max(), 384) for batch in batches)
    assert computed / lengths.sum() < 1.10


@pytest.mark.parametrize("count", [1_000, 12_000])
def test_windows_meet_others_in_the_next_epoch(count):
    """Length decides who can meet, not who does. In a set of a few batches too: few-shot training has many epochs."""
    lengths = like_squad(count)
    first, second = (shares_a_batch(epoch_batches(lengths, 32, 0, epoch)) for epoch in (0, 1))
    again = len(first & second) / len(first)
    assert again < 0.5, f"{again:.0%} of the pairs in a batch meet again in the next epoch"


def test_short_and_long_batches_come_in_mixed_order():
    """Sorted by length, the learning rate's last steps would see long windows alone."""
    lengths = like_squad(12_000)
    means = np.array([lengths[batch].mean() for batch in epoch_batches(lengths, 32, 0, 0)])
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.2, "lengths rise or fall over the epoch"
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2, "a batch tells the length of the next"


# micro-batches


@given(st.integers(1, 70), st.integers(1, 40), st.integers(1, 9))
@example(1, 4, 3)  # fewer windows than processes
@example(32, 4, 1)
@example(33, 4, 2)
def test_micro_batches_of_all_processes_are_the_batch_exactly_once(size, micro_batch_size, processes):
    batch = np.arange(100, 100 + size)
    shares = [micro_batches(batch, micro_batch_size, rank, processes) for rank in range(processes)]

    assert len({len(share) for share in shares}) == 1, "every process takes part in every step"
    counted = []
    for indices, weights in (micro for share in shares for micro in share):
        assert 1 <= len(indices) == len(weights) <= micro_batch_size
        assert set(weights.tolist()) <= {0.0, 1.0}
        assert set(indices.tolist()) <= set(batch.tolist())
        counted += indices[weights == 1].tolist()
    assert counted == batch.tolist()
    assert sum(weights.sum() for share in shares for _, weights in share) == size


@given(st.integers(1, 70), st.integers(1, 40), st.integers(1, 9))
def test_no_process_computes_much_more_than_its_share(size, micro_batch_size, processes):
    batch = np.arange(size)
    share = -(-size // processes)
    for rank in range(processes):
        micros = micro_batches(batch, micro_batch_size, rank, processes)
        assert len(micros) == -(-share // micro_batch_size)
        assert sum(len(indices) for indices, _ in micros) <= share


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 40), st.integers(1, 9))
def test_the_weighted_sum_over_a_batch_does_not_depend_on_how_it_is_cut(micro_a, processes_a, micro_b, processes_b):
    """Gradients are such sums: accumulation and processes must not change what is learned."""
    batch = np.random.default_rng(0).permutation(500)[:33]
    gradient = np.random.default_rng(1).integers(-1000, 1000, 500)

    def total(micro_batch_size, processes):
        micros = [m for rank in range(processes) for m in micro_batches(batch, micro_batch_size, rank, processes)]
        return sum((gradient[indices] * weights).sum() for indices, weights in micros)

    assert total(micro_a, processes_a) == total(micro_b, processes_b) == gradient[batch].sum()


# answering


@given(LENGTHS, st.integers(1, 40))
def test_length_sorted_batches_hold_every_window_once_longest_first(lengths, batch_size):
    batches = length_sorted_batches(lengths, batch_size)
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert (np.diff(lengths[order]) <= 0).all()
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= batch_size


def test_no_window_gives_no_batch():
    assert length_sorted_batches(np.zeros(0, dtype=np.int64), 8) == []
    assert epoch_batches(np.zeros(0, dtype=np.int64), 8, 0, 0) == []
