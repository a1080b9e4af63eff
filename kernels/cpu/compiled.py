"""The CPU backend: the blocks, with kernels that Numba compiles in this process when they are first called."""

from . import cache, peak
from .attention import attend
from .blocks import (
    LARGEST_SHARD,
    MOST_WORKERS,
    SHARES_SHARDS,
    add_convolved,
    attention_block,
    convolve,
    embedding,
    feed_forward_block,
    head,
)
from .elementwise import embed, normalize_rows
from .head import activate_rows, pool_rows, shorten_rows
from .isa import ISA
from .linear import (
    add_rows,
    convolve_rows,
    feed_forward,
    linear_residual_norm,
    linear_rows,
    project_heads,
)
from .meeting import arrive, await_arrivals
from .packing import (
    pack_attention,
    pack_convolution,
    pack_embedding,
    pack_feed_forward,
    pack_head,
    pack_positions,
)
from .workspace import Kernels, Workspace
from .workspace import make_team as make_workspaces

KERNELS = Kernels(
    ISA,
    embed,
    normalize_rows,
    project_heads,
    linear_rows,
    linear_residual_norm,
    feed_forward,
    convolve_rows,
    add_rows,
    attend,
    pool_rows,
    activate_rows,
    shorten_rows,
    arrive,
    await_arrivals,
)
DTYPES = ("float32", "bfloat16", "int8")
LOWERS_FLOAT32 = True
PICKLES = True
PEAK = peak
__all__ = [  # the backend's, beside what is here
    "LARGEST_SHARD",
    "MOST_WORKERS",
    "SHARES_SHARDS",
    "add_convolved",
    "attention_block",
    "convolve",
    "embedding",
    "feed_forward_block",
    "head",
    "pack_attention",
    "pack_convolution",
    "pack_embedding",
    "pack_feed_forward",
    "pack_head",
    "pack_positions",
]


def make_team(size: int) -> list[Workspace]:
    """Return the workspaces of `size` threads that compute one shard together."""
    return make_workspaces(KERNELS, size)


def describe() -> dict[str, str]:
    """Return what is computed with, and where machine code is kept."""
    return {"instruction_set": ISA.name, "kernel_cache": str(cache.DIRECTORY or "in memory only")}
