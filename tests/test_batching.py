"""Which pairs are computed together: every pair once, within the budgets, the longest first."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbert.engine.batching import make_shards, team_size

LENGTHS = st.lists(st.integers(3, 600), max_size=80)
THREADS, BATCH_SIZES, LARGEST = st.integers(1, 9), st.integers(1, 40), st.sampled_from([1, 48, 96, 384, 16_384])


@given(LENGTHS, THREADS, BATCH_SIZES, LARGEST)
def test_every_pair_is_in_exactly_one_shard(lengths, num_threads, batch_size, largest):
    shards = make_shards(lengths, num_threads, batch_size, largest)
    assert sorted(itertools.chain(*shards)) == list(range(len(lengths)))
    assert all(shards)


@given(LENGTHS, THREADS, BATCH_SIZES, LARGEST)
def test_no_shard_exceeds_its_budgets(lengths, num_threads, batch_size, largest):
    for shard in make_shards(lengths, num_threads, batch_size, largest):
        assert len(shard) <= batch_size
        assert len(shard) == 1 or sum(lengths[i] for i in shard) <= largest


@given(LENGTHS, THREADS, BATCH_SIZES, LARGEST)
def test_the_longest_come_first_and_equal_ones_keep_their_order(lengths, num_threads, batch_size, largest):
    order = list(itertools.chain(*make_shards(lengths, num_threads, batch_size, largest)))
    assert order == sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))


@given(LENGTHS, THREADS, BATCH_SIZES, LARGEST)
def test_a_shard_ends_only_where_the_next_pair_has_no_room(lengths, num_threads, batch_size, largest):
    target = min(max(sum(lengths) // (4 * num_threads), 96), largest)
    for shard, following in itertools.pairwise(make_shards(lengths, num_threads, batch_size, largest)):
        tokens = sum(lengths[i] for i in shard)
        assert len(shard) == batch_size or tokens + lengths[following[0]] > target


@pytest.mark.parametrize(
    ("lengths", "num_threads", "batch_size", "largest", "sizes"),
    [
        ([12] * 64, 1, 99, 384, [16] * 4),  # four shards for each thread
        ([12] * 96, 2, 99, 384, [12] * 8),
        ([12] * 24, 2, 99, 384, [8] * 3),  # but none of less than 96 tokens while there are more
        ([97] * 3, 2, 99, 384, [1] * 3),
        ([48, 48], 8, 99, 384, [2]),
        ([48, 49], 8, 99, 384, [1, 1]),
        ([12] * 64, 1, 99, 48, [4] * 16),  # and none of more than the backend likes
        ([192] * 64, 1, 99, 384, [2] * 32),
        ([12] * 64, 1, 5, 384, [5] * 12 + [4]),  # or than the caller allows
        ([5000, 5000], 1, 99, 384, [1, 1]),  # a pair that is longer is a shard of its own
        ([], 2, 99, 384, []),
    ],
)
def test_sizes_of_shards(lengths, num_threads, batch_size, largest, sizes):
    assert [len(shard) for shard in make_shards(lengths, num_threads, batch_size, largest)] == sizes


@given(LENGTHS, THREADS, BATCH_SIZES, LARGEST)
def test_a_team_has_no_more_members_than_threads_and_work_for_each(lengths, num_threads, batch_size, largest):
    size = team_size(lengths, num_threads, batch_size, largest)
    assert 1 <= size <= num_threads
    if size > 1:
        assert sum(lengths) >= 24 * size
        assert len(lengths) <= batch_size


@pytest.mark.parametrize(
    ("lengths", "num_threads", "batch_size", "size"),
    [
        ([47], 2, 32, 1),  # too few for two
        ([48], 2, 32, 2),
        ([71], 8, 32, 2),
        ([72], 8, 32, 3),
        ([100] * 32, 8, 32, 8),
        ([100] * 33, 8, 32, 1),  # more pairs than may be computed together
        ([384] * 8, 2, 32, 2),  # four full shards for each thread
        ([384] * 8 + [1], 2, 32, 1),  # enough for shards of their own
        ([384] * 8 + [1], 3, 32, 3),
        ([500], 1, 32, 1),
        ([], 4, 32, 1),
    ],
)
def test_sizes_of_teams(lengths, num_threads, batch_size, size):
    assert team_size(lengths, num_threads, batch_size, 384) == size
