"""What kernels.py checks and times: each kernel with data of the shapes that models have.

Letters as in the package: C hidden size, F intermediate size, H heads; T tokens are TOKENS here.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numbert.kernels.cpu import linear, peak
from numbert.kernels.cpu.attention import attend
from numbert.kernels.cpu.elementwise import embed, normalize_rows
from numbert.kernels.cpu.float32 import tile
from numbert.kernels.cpu.isa import ISA, LANES, TILE_ROWS, TILE_WIDTH
from numbert.kernels.cpu.jit import kernel
from numbert.kernels.cpu.linear import ROW_BLOCK
from numbert.kernels.cpu.memory import aligned_empty
from numbert.kernels.cpu.packed import Operand, PackedFeedForward, PackedLinear, ScoreRule
from numbert.kernels.cpu.packing import pack_linear, pack_norm
from numbert.kernels.cpu.panels import fill_up
from numbert.kernels.cpu.scratch import scratch_size
from numbert.kernels.cpu.simd import load, store
from numbert.kernels.cpu.vector_math import GELU, exp, gelu, tanh
from numbert.kernels.cpu.view import View
from numbert.kernels.parameters import FeedForward, Linear, Norm, Stream
from numbert.kernels.reference import blocks as reference
from numpy import float32, float64, int32, int64
from numpy.typing import NDArray

Array = NDArray[Any]
TOKENS = 8 * ROW_BLOCK
UNUSED = Operand(np.empty((1, 1), int32), np.empty(1, float32))  # float32 activations need no other form
REPEATS = 50  # of small work within one call, so that calling from Python does not count
generator = np.random.default_rng(4)


class Case(NamedTuple):
    """A kernel with its arguments."""

    name: str
    unit: str  # FLOP or elements
    work: float  # units in one call of `run`
    run: Callable[[], object]
    error: Callable[[], float]  # run it on fresh data and return the largest difference to the reference


MODELS = {"MiniLM": (384, 1536, 12), "base": (768, 3072, 12)}  # C, F, H


def all_cases() -> list[Case]:
    """Prepare every kernel; the first case is the peak."""
    cases = [_peak_case(), *_vector_math_cases()]
    for model, (c, f, heads) in MODELS.items():
        cases += _tile_cases(model, c // heads, c, f)
        cases += _linear_cases(model, c, f, heads)
        cases += [_attention_case(model, c, heads, length) for length in (77, 512)]
        cases += _row_cases(model, c)
    return cases


# ---- data


def _normal(*shape: int, scale: float = 1.0) -> Array:
    return fill_up(generator.standard_normal(shape, float32) * float32(scale), *shape)


def _linear(outputs: int, inputs: int) -> Linear:
    return Linear(_normal(outputs, inputs, scale=1 / math.sqrt(inputs)), _normal(outputs))


def _layer_norm(size: int) -> Norm:
    return Norm(_normal(size, scale=0.3) + float32(1), _normal(size), 1e-12)


def _difference(result: Array, expected: Array) -> float:
    return float(np.abs(result - expected).max())


def _double(x: Array) -> NDArray[float64]:
    return x.astype(float64)


# ---- cases


def _peak_case() -> Case:
    """Bind the chains of multiply-adds."""
    data = peak.start_values()
    name = f"peak: {peak.CHAINS} chains of multiply-adds"
    return Case(name, "FLOP", peak.FLOP, lambda: peak.run_chains(data), lambda: peak.largest_error(data))


@kernel
def _repeat_tile(a: Array, b: Array, start: Array, c: Array, repeats: int) -> None:
    depth = a.shape[1]
    for _ in range(repeats):
        tile(View(a, 0, depth), len(a), View(b, 0, b.shape[1]), depth, View(start, 0, 0), View(c, 0, c.shape[1]))


def _tile_cases(model: str, *depths: int) -> Iterator[Case]:
    """Bind the register tile alone, on one block of data, for each depth of the model's products."""
    for depth in depths:
        a, b = _normal(TILE_ROWS, depth), _normal(depth, TILE_WIDTH, scale=1 / math.sqrt(depth))
        start, c = _normal(TILE_WIDTH), aligned_empty(TILE_ROWS, TILE_WIDTH)

        def run(a: Array = a, b: Array = b, start: Array = start, c: Array = c) -> None:
            _repeat_tile(a, b, start, c, REPEATS)

        def error(a: Array = a, b: Array = b, start: Array = start, c: Array = c) -> float:
            _repeat_tile(a, b, start, c, 1)
            return _difference(c, _double(a) @ _double(b) + start)

        yield Case(f"{model}: tile, depth {depth}", "FLOP", 2 * REPEATS * c.size * depth, run, error)


def _linear_cases(model: str, c: int, f: int, heads: int) -> list[Case]:
    """Bind every product of a layer as the forward pass calls it."""
    return [
        _project_heads_case(model, c, heads),
        _rows_case(model, "linear_rows", linear.linear_rows, lambda x: x, c, f),
        _rows_case(model, "activated_linear_rows, GELU", _gelu_rows, reference.gelu, f, c),
        _residual_case(model, c),
        _feed_forward_case(model, c, f),
    ]


def _project_heads_case(model: str, c: int, heads: int) -> Case:
    layer, x = _linear(2 * c, c), _normal(TOKENS, c)
    packed, out = pack_linear(layer, "float32"), aligned_empty(2 * heads, TOKENS + TILE_WIDTH, c // heads)
    places = np.zeros(0, int64)

    def run() -> None:
        linear.project_heads(x, places, packed, None, 0, UNUSED, out, 0)

    def error() -> float:
        run()
        columns = out[:, :TOKENS].transpose(1, 0, 2).reshape(TOKENS, -1)
        return _difference(columns, reference.linear(_double(x), layer))

    return Case(f"{model}: project_heads, keys and values", "FLOP", 4.0 * TOKENS * c * c, run, error)


def _rows_case(
    model: str, name: str, function: Callable[..., None], bend: Callable[[Array], Array], outputs: int, inputs: int
) -> Case:
    layer, x, out = _linear(outputs, inputs), _normal(ROW_BLOCK, inputs), aligned_empty(ROW_BLOCK, outputs)
    packed = pack_linear(layer, "float32")

    def run() -> None:
        function(x, 0, ROW_BLOCK, packed, UNUSED, out)

    def error() -> float:
        run()
        return _difference(out, bend(reference.linear(_double(x), layer)))

    return Case(f"{model}: {name}, {inputs} to {outputs}", "FLOP", 2.0 * ROW_BLOCK * inputs * outputs, run, error)


def _gelu_rows(x: Array, first: int, rows: int, layer: PackedLinear, operand: Operand, out: Array) -> None:
    linear.activated_linear_rows(x, first, rows, layer, GELU, operand, out)


def _residual_case(model: str, c: int) -> Case:
    layer, norm, a, given = _linear(c, c), _layer_norm(c), _normal(TOKENS, c), _normal(TOKENS, c)
    packed, packed_norm = pack_linear(layer, "float32"), pack_norm(norm)
    x, product = fill_up(given, *given.shape), aligned_empty(ROW_BLOCK, c)

    def run() -> None:
        linear.linear_residual_norm(a, packed, packed_norm, UNUSED, product, Stream(x, x))

    def error() -> float:
        x[...] = given
        run()
        return _difference(x, reference.layer_norm(given + reference.linear(_double(a), layer), norm))

    return Case(f"{model}: linear_residual_norm", "FLOP", 2.0 * TOKENS * c * c, run, error)


def _feed_forward_case(model: str, c: int, f: int) -> Case:
    up, down, norm, given = _linear(f, c), _linear(c, f), _layer_norm(c), _normal(TOKENS, c)
    packed = PackedFeedForward(pack_linear(up, "float32"), None, pack_linear(down, "float32"), GELU, pack_norm(norm))
    x, hidden, product = fill_up(given, *given.shape), aligned_empty(ROW_BLOCK, f), aligned_empty(ROW_BLOCK, c)

    def run() -> None:
        linear.feed_forward(Stream(x, x), packed, None, UNUSED, hidden, product)

    def error() -> float:
        x[...] = given
        run()
        stream = Stream(_double(given), _double(given))
        weights = FeedForward(up, None, down, "gelu", norm, keeps_sum=False)
        return _difference(x, reference.feed_forward_block(stream, weights, reference.Workspace()).normed)

    return Case(f"{model}: feed_forward", "FLOP", 4.0 * TOKENS * c * f, run, error)


def _attention_case(model: str, c: int, heads: int, length: int) -> Case:
    """Bind attention over pairs of equal length."""
    count, width = max(1, TOKENS // length), c // heads
    tokens, rule = count * length, ScoreRule(1 / math.sqrt(width), None, None)
    query, key_value = _normal(heads, tokens, width), _normal(2 * heads, tokens + TILE_WIDTH, width)
    offsets, context = np.arange(count + 1, dtype=int64) * length, aligned_empty(tokens, c)
    positions = np.zeros(count, int64)
    scratch = aligned_empty(scratch_size(length, width, ISA, disentangled=False))

    def run() -> None:
        attend(query, offsets, positions, key_value, offsets, rule, scratch, context)

    def error() -> float:
        run()
        shape = (heads, count, length, width)
        key, value = (part[:, :tokens].reshape(shape) for part in (key_value[:heads], key_value[heads:]))
        scores = _double(query).reshape(shape) @ key.transpose(0, 1, 3, 2) * rule.scale
        expected = (reference.softmax(scores) @ value).transpose(1, 2, 0, 3)
        return _difference(context, expected.reshape(tokens, c))

    return Case(f"{model}: attend, {count} x {length} tokens", "FLOP", 4.0 * tokens * length * c, run, error)


def _row_cases(model: str, c: int) -> Iterator[Case]:
    """Bind LayerNorm by itself, and the embedding lookup, which is LayerNorm on rows from all over a large table."""
    norm, word, place = _layer_norm(c), _normal(30_000, c), _normal(2 * 512, c)
    packed, ids = pack_norm(norm), generator.integers(0, len(word), TOKENS, int32)
    places, out = np.arange(TOKENS, dtype=int32), aligned_empty(TOKENS, c)

    def normalize() -> None:
        normalize_rows(word[:TOKENS], packed, out)

    def normalize_error() -> float:
        normalize()
        return _difference(out, reference.layer_norm(_double(word[:TOKENS]), norm))

    def look_up() -> None:
        embed(ids, places, word, place, packed, out)

    def look_up_error() -> float:
        look_up()
        return _difference(out, reference.layer_norm(_double(word[ids]) + place[places], norm))

    yield Case(f"{model}: normalize_rows", "elements", out.size, normalize, normalize_error)
    yield Case(f"{model}: embed", "elements", out.size, look_up, look_up_error)


def _apply(function: Callable[[Any], Any]) -> Callable[[Array, Array, int], None]:
    @kernel
    def run(x: Array, out: Array, repeats: int) -> None:
        for _ in range(repeats):
            for i in range(0, x.size, LANES):
                store(out, i, function(load(x, i)))

    return run  # type: ignore[no-any-return]


def _vector_math_cases() -> Iterator[Case]:
    """Bind the functions of a vector, over arrays in the L1 cache."""
    wave = _normal(2048)
    for function, expected in ((exp, np.exp), (gelu, reference.gelu), (tanh, np.tanh)):
        x = fill_up(-np.abs(wave), wave.size) if function is exp else wave  # as in softmax
        out, apply = aligned_empty(wave.size), _apply(function)

        def run(x: Array = x, out: Array = out, apply: Callable[..., None] = apply) -> None:
            apply(x, out, REPEATS)

        def error(
            x: Array = x, out: Array = out, run: Callable[[], None] = run, expected: Callable[..., Any] = expected
        ) -> float:
            run()
            return _difference(out, expected(_double(x)))

        yield Case(function.__name__, "elements", REPEATS * wave.size, run, error)
