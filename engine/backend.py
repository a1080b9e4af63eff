"""The choice of what computes: made once, when a model is loaded. Below this line nothing asks for it again."""

import contextlib
import importlib
import logging
from typing import Any, Protocol

from numpy import int32, int64
from numpy.typing import NDArray

from ..kernels.parameters import Attention, Convolution, Embedding, FeedForward, Head, Positions
from .errors import BackendError, InputError, InputTypeError

logger = logging.getLogger("numbert")
Array = NDArray[Any]
BACKENDS = ("auto", "cpu", "cuda", "reference")
MODULES = {"cpu": "cpu.compiled", "cuda": "cuda.blocks", "reference": "reference.blocks"}
MATMUL_PRECISIONS = ("highest", "high")


class Blocks(Protocol):
    """The blocks of a forward pass; kernels/reference/blocks.py says what each computes.

    DTYPES are those that it computes in. LOWERS_FLOAT32 tells whether it has a faster float32, of fewer bits.
    LARGEST_SHARD is how many tokens it computes best at once; a pair that is longer is a shard of its own.
    SHARES_SHARDS tells whether several threads can compute one shard together.
    MOST_WORKERS is how many threads it keeps busy at once with shards of their own; None: as many as there are.
    PICKLES tells whether its weights can be sent to another process.
    PEAK has multiply-adds and nothing else, to be timed (kernels/cpu/peak.py); None where there are none.

    Weights and activations are the backend's own: whoever calls passes them on and looks at none but the logits.
    """

    DTYPES: tuple[str, ...]
    LOWERS_FLOAT32: bool
    LARGEST_SHARD: int
    SHARES_SHARDS: bool
    MOST_WORKERS: int | None
    PICKLES: bool
    PEAK: Any

    def describe(self) -> dict[str, str]:
        """Return what it chose for this machine: the instruction set, and where machine code is kept."""

    def make_team(self, size: int) -> list[Any]:
        """Make the workspaces of `size` threads that compute a shard together, each some of its rows.

        All must run at once, each with the whole shard; their logits, one after the other, are those of its pairs.
        A member that fails must say so with the `leave` of its workspace. A team of one is a thread by itself; in a
        larger one, `divide` tells how fast each member is, which gets so much of the rows.
        """

    def embedding(
        self, ids: NDArray[int32], type_ids: NDArray[int32], position_ids: NDArray[int32], weights: Any, workspace: Any
    ) -> Any:
        """Look up the tokens: a stream of (T, C)."""

    def convolve(self, stream: Any, offsets: NDArray[int64], weights: Any, workspace: Any) -> Any:
        """Mix the embeddings of neighbours: what is added to the first layer's result by `add_convolved`."""

    def add_convolved(self, stream: Any, change: Any, weights: Any, workspace: Any) -> Any:
        """Add what `convolve` returned to a stream, and normalise."""

    def attention_block(
        self, stream: Any, offsets: NDArray[int64], weights: Any, rows: NDArray[int64] | None, workspace: Any
    ) -> Any:
        """Let the tokens of each pair attend to each other: a stream of (T, C), or of one row of each pair."""

    def feed_forward_block(self, stream: Any, weights: Any, workspace: Any) -> Any:
        """Transform each row by itself."""

    def head(self, stream: Any, offsets: NDArray[int64], weights: Any, workspace: Any) -> Array:
        """Turn the normed rows of each pair into logits: (B, labels)."""


class Backend(Blocks, Protocol):
    """The blocks, and what packs the weights for them.

    The precision in which weights are packed is one that `choose_precision` returned. What packs a record raises
    NotImplementedError when it asks for something that the backend does not compute; its text names that.
    """

    def pack_positions(self, rule: Positions, precision: str) -> Any:
        """Prepare the tables of a rule of positions, which the attention of many layers may share."""

    def pack_embedding(self, embedding: Embedding, precision: str) -> Any:
        """Prepare the embedding tables."""

    def pack_attention(self, attention: Attention, precision: str) -> Any:
        """Prepare the weights of an attention block; its rule of positions is prepared already."""

    def pack_feed_forward(self, feed_forward: FeedForward, precision: str) -> Any:
        """Prepare the weights of a feed-forward block."""

    def pack_convolution(self, convolution: Convolution, precision: str) -> Any:
        """Prepare the weights of a convolution."""

    def pack_head(self, head: Head, precision: str) -> Any:
        """Prepare the weights of the head."""


def choose_backend(name: str, dtype: str) -> tuple[str, Backend]:
    """Return a backend and its name.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda", "reference", "torch"}
        "auto" is "cpu", or the slow "reference" if Numba cannot be imported. "torch" is sentence-transformers' word and
        means "auto".
    dtype : {"float32", "bfloat16", "int8", "float64"}
        "float64" is computed by the reference only, "int8" by the cpu only, "bfloat16" by both with kernels.

    Raises
    ------
    InputError
        When the name or the dtype is unknown, or they do not go together.
    BackendError
        When Numba cannot be imported, and "cpu" is asked for by name or by a dtype that the reference lacks; when
        memory does not suffice for it, or its settings in the environment forbid what kernels need; when "cuda" is
        asked for and something that it needs is missing.
    """
    if not isinstance(name, str) or not isinstance(dtype, str):
        raise InputTypeError(
            f"backend, dtype: found {type(name).__name__}, {type(dtype).__name__}, expected two strings; pass them"
        )
    asked = "auto" if name == "torch" else name
    if asked not in BACKENDS:
        raise InputError(f"backend: found {name!r}, expected one of {list(BACKENDS)}; choose one")
    chosen = "cpu" if asked == "auto" else asked
    try:
        ops = _load(chosen)
    except ImportError as error:  # no wheel for this platform, or a NumPy that Numba does not know yet
        if chosen == "cuda":
            raise BackendError(
                f"device 'cuda': numba.cuda cannot be imported ({error}); install numbert[cuda]"
            ) from error
        reference = _load("reference")
        if asked == "cpu" or dtype not in reference.DTYPES:
            raise BackendError(
                f"backend 'cpu', dtype {dtype!r}: Numba cannot be imported ({error}); install it or use"
                " backend='reference' with float32"
            ) from error
        logger.warning("Numba cannot be imported (%s): computing with NumPy, much slower", error)
        chosen, ops = "reference", reference
    if dtype not in ops.DTYPES:
        raise _lacks_dtype(chosen, ops, dtype)
    if chosen == "cuda":
        _check_cuda(dtype)
    return chosen, ops


def _load(name: str) -> Backend:
    if name == "cpu":
        _check_cpu()
    module: Any = importlib.import_module(f"..kernels.{MODULES[name]}", __package__)
    backend: Backend = module
    return backend


def _lacks_dtype(name: str, ops: Backend, dtype: str) -> InputError:
    hint = "choose one"
    for other in ("cpu", "reference"):
        with contextlib.suppress(ImportError, BackendError):  # it cannot be had here
            if other != name and dtype in _load(other).DTYPES:
                hint = f"{dtype} is computed by backend={other!r}"
    return InputError(f"dtype: found {dtype!r}, expected one of {list(ops.DTYPES)} for backend {name!r}; {hint}")


def _check_cpu() -> None:
    try:
        from ..kernels.cpu import compiled, isa  # noqa: F401 - here, because they import Numba and read its settings
    except ValueError as error:  # a setting; the message names it
        raise BackendError(f"backend 'cpu': {error}") from error
    except (MemoryError, OSError) as error:  # what LLVM's library raises where it cannot be mapped
        raise BackendError(
            f"backend 'cpu': Numba cannot be loaded ({type(error).__name__}: {error}), expected about 1 GiB of address"
            " space; raise the limit (ulimit -v) or use backend='reference'"
        ) from error
    problem = isa.find_problem()
    if problem:
        raise BackendError(f"backend 'cpu': {problem}")


def _check_cuda(dtype: str) -> None:
    from ..kernels.cuda.availability import find_problem  # here, because it imports Numba and CUDA

    problem = find_problem(dtype)
    if problem:
        raise BackendError(f"device 'cuda', dtype {dtype!r}: {problem}")


def choose_precision(matmul_precision: str, dtype: str, *, lowers_float32: bool) -> str:
    """Return how a backend is to multiply: the dtype, or "high" for a float32 that it may compute as it is faster.

    Raises
    ------
    InputError
        When the matmul precision is unknown, or is lowered for a dtype that has one of its own.
    """
    if matmul_precision not in MATMUL_PRECISIONS:
        raise InputError(
            f"matmul_precision: found {matmul_precision!r}, expected one of {list(MATMUL_PRECISIONS)}; choose one"
        )
    if matmul_precision == "highest":
        return dtype
    if dtype != "float32":
        raise InputError(
            f"matmul_precision: found {matmul_precision!r} with dtype {dtype!r}, expected 'highest', since only"
            " products in float32 have a choice; leave out one of the two"
        )
    return "high" if lowers_float32 else dtype
