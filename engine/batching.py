"""Which pairs are computed together: shards of whole pairs, about equal in tokens, the longest first.

How pairs are grouped has no influence on their scores (docs/numerics.md), only on speed and memory.
"""

from collections.abc import Sequence

SMALLEST_SHARD = 96  # tokens, when there are few pairs for the threads
SHARDS_PER_THREAD = 4  # so that a thread that finishes early finds more to do
FEWEST_ROWS = (
    24  # tokens for each of several threads that share a shard: with fewer, reading the weights is all they do
)


def team_size(lengths: Sequence[int], num_threads: int, batch_size: int, largest: int) -> int:
    """Return how many threads should share one shard of all the pairs; 1 when pairs are enough for shards of their own.

    A request of up to four full shards for each thread is shared out evenly, token by token: no thread is idle at the
    end, and each reads the weights once.
    """
    total = sum(lengths)
    if total > 4 * num_threads * largest or len(lengths) > batch_size:
        return 1
    return max(min(num_threads, total // FEWEST_ROWS), 1)


def make_shards(lengths: Sequence[int], num_threads: int, batch_size: int, largest: int) -> list[list[int]]:
    """Group pairs into shards.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each pair.
    num_threads : int
        Threads that will share the work.
    batch_size : int
        The most pairs in one shard.
    largest : int
        The most tokens in a shard of several pairs; the backend's LARGEST_SHARD.

    Returns
    -------
    list of list of int
        Positions of pairs; every pair is in exactly one shard, and long pairs come first, so that no thread begins a
        long shard when the others are about to finish.
    """
    budget = sum(lengths) // (num_threads * SHARDS_PER_THREAD)
    budget = min(max(budget, SMALLEST_SHARD), largest)
    shards: list[list[int]] = []
    tokens = budget  # as if a full shard came before
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if tokens + lengths[position] > budget or len(shards[-1]) == batch_size:
            shards.append([])
            tokens = 0
        shards[-1].append(position)
        tokens += lengths[position]
    return shards
