"""Each Numba kernel against plain NumPy in float64, on awkward sizes."""

import itertools
import math

import numpy as np
import pytest

pytest.importorskip("numba", reason="the CPU kernels need Numba")
from numbert.kernels.cpu import elementwise, linear
from numbert.kernels.cpu.attention import attend
from numbert.kernels.cpu.elementwise import add_and_normalize
from numbert.kernels.cpu.isa import ISA, LANES, TILE_ROWS, TILE_WIDTH
from numbert.kernels.cpu.jit import kernel
from numbert.kernels.cpu.memory import CACHE_LINE, aligned_empty
from numbert.kernels.cpu.packed import Operand, PackedFeedForward, ScoreRule
from numbert.kernels.cpu.packing import pack_linear, pack_norm
from numbert.kernels.cpu.panels import fill_up, round_up
from numbert.kernels.cpu.positions import pack_positions
from numbert.kernels.cpu.scratch import scratch_size
from numbert.kernels.cpu.simd import load, store
from numbert.kernels.cpu.transpose import transpose_block
from numbert.kernels.cpu.vector_math import GELU, GELU_TANH, activate, exp, gelu, sigmoid, tanh
from numbert.kernels.cpu.view import View
from numbert.kernels.parameters import (
    Bfloat16Table,
    Disentangled,
    DistanceBias,
    FeedForward,
    Float16Table,
    Linear,
    Norm,
    Rotary,
    Stream,
)
from numbert.kernels.positions import rotary_tables, row_of_distance
from numbert.kernels.reference import blocks as reference
from numbert.kernels.tables import widen

PRECISIONS = ["float32", "high", "bfloat16", "int8"]


@kernel
def apply_exp(x, out):
    for i in range(0, x.size, LANES):
        store(out, i, exp(load(x, i)))


@kernel
def apply_gelu_tanh(x, out):
    for i in range(0, x.size, LANES):
        store(out, i, activate(load(x, i), GELU_TANH))


@kernel
def apply_gelu(x, out):
    for i in range(0, x.size, LANES):
        store(out, i, gelu(load(x, i)))


@kernel
def apply_tanh(x, out):
    for i in range(0, x.size, LANES):
        store(out, i, tanh(load(x, i)))


@kernel
def apply_sigmoid(x, out):
    for i in range(0, x.size, LANES):
        store(out, i, sigmoid(load(x, i)))


@kernel
def transpose(x, out):
    transpose_block(View(x, 0, x.shape[1]), View(out, 0, out.shape[1]))


@kernel
def add_and_normalize_rows(sums, change, norm, out):
    for i in range(sums.shape[0]):
        at = i * sums.shape[1]
        add_and_normalize(sums, at, change, at, norm, out, at)


def grid(low: float, high: float) -> np.ndarray:
    """About a million numbers, as many as fill whole vectors, none of them round."""
    return np.linspace(low, high, 2**20).astype(np.float32)


def random_linear(rng, outputs: int, inputs: int) -> Linear:
    weight = rng.standard_normal((outputs, inputs)) / math.sqrt(inputs)
    return Linear(weight.astype(np.float32), rng.standard_normal(outputs).astype(np.float32))


def filled(array: np.ndarray) -> np.ndarray:
    return fill_up(array, array.shape[0], round_up(array.shape[1]))


def test_exp():
    x = grid(-87, 88)
    out = np.empty_like(x)
    apply_exp(x, out)
    exact = np.exp(x.astype(np.float64))
    assert np.abs(out / exact - 1).max() < 1.3e-7  # 1 ulp is 1.2e-7 relative; the worst seen is 9.6e-8


def test_exp_far_below_is_zero_and_never_more_than_finite():
    x = np.resize(np.array([-87.4, -100, -1e30, -np.inf, 1e30], np.float32), 8 * LANES)
    out = np.empty_like(x)
    apply_exp(x, out)
    assert (out[x < 0] == 0).all()
    assert np.isfinite(out).all()


def test_gelu():
    x = grid(-30, 30)
    out = np.empty_like(x)
    apply_gelu(x, out)
    exact = np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x[::16].tolist()])
    # float32's own rounding of x * Phi(x) is 2e-7 for |x| < 4 and grows with x; the worst seen is 5.3e-7
    assert (np.abs(out[::16] - exact) <= np.maximum(6e-7, 2**-23 * np.abs(exact))).all()


def test_gelu_by_tanh():
    x = grid(-30, 30)
    out = np.empty_like(x)
    apply_gelu_tanh(x, out)
    exact = reference.gelu_tanh(x.astype(np.float64))
    # The sigmoid's two roundings and that of exp, times x, of a result that is no larger; seen 5e-7
    assert (np.abs(out - exact) <= np.maximum(8e-7, 3e-7 * np.abs(exact))).all()


@pytest.mark.parametrize("function", [apply_gelu, apply_gelu_tanh])
def test_gelu_of_large_numbers_is_the_number_or_zero(function):
    x = np.resize(np.array([-3.4e38, -1e30, -1000, 1000, 1e30, 3.4e38], np.float32), 6 * LANES)
    out = np.empty_like(x)
    function(x, out)
    assert (out == np.maximum(x, 0)).all()


def test_tanh():
    x = grid(-20, 20)
    out = np.empty_like(x)
    apply_tanh(x, out)
    assert np.abs(out - np.tanh(x.astype(np.float64))).max() < 2.5e-7  # two roundings of numbers up to 1; seen 1.4e-7


def test_sigmoid():
    x = grid(-200, 200)
    out = np.empty_like(x)
    apply_sigmoid(x, out)
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    assert np.abs(out - exact).max() < 2.5e-7  # two roundings of numbers up to 1, and that of exp


@pytest.mark.parametrize("function", [apply_exp, apply_gelu, apply_gelu_tanh, apply_tanh, apply_sigmoid])
def test_nan_stays_nan(function):
    x = np.zeros(LANES, np.float32)
    x[1] = np.nan
    out = np.empty_like(x)
    function(x, out)
    assert np.isnan(out[1])
    assert np.isfinite(np.delete(out, 1)).all()


def test_transpose_block(rng):
    x = rng.standard_normal((LANES, LANES + 3)).astype(np.float32)
    out = np.zeros((LANES, LANES + 5), np.float32)
    transpose(x, out)
    assert (out[:, :LANES] == x[:, :LANES].T).all()
    assert (out[:, LANES:] == 0).all()


@pytest.mark.parametrize("width", [1, LANES - 1, LANES, TILE_WIDTH, 312, 384])
def test_add_and_normalize(rng, width):
    a, b = (rng.standard_normal((5, width)).astype(np.float32) * 10 + 3 for _ in range(2))
    norm = Norm(*rng.standard_normal((2, width)).astype(np.float32), 1e-6)
    out = np.full((5, round_up(width)), np.nan, np.float32)
    sums = filled(a)
    add_and_normalize_rows(sums, filled(b), pack_norm(norm), out)
    assert (sums[:, :width] == a + b).all()
    exact = reference.layer_norm(a.astype(np.float64) + b, norm)
    np.testing.assert_allclose(out[:, :width], exact, atol=1e-5)  # numbers of size 1 to 4 after a few roundings of 3e-7
    assert (out[:, width:] == 0).all()


def scratch(rows: int, width: int) -> Operand:
    rows = -(-rows // linear.ROW_BLOCK) * linear.ROW_BLOCK
    return Operand(np.full((rows, width), -1, np.int32), np.full(rows, np.nan, np.float32))


def rounded_operands(x: np.ndarray, weight: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """What the two sides of a product are rounded to before they are multiplied, in float64."""
    if dtype == "int8":
        return quantized(x), quantized(weight)
    if dtype == "bfloat16":
        return (x if ISA.bfloat16 == "widen" else to_bfloat16(x)).astype(np.float64), to_bfloat16(weight)
    return x.astype(np.float64), weight


def quantized(x: np.ndarray) -> np.ndarray:
    scale = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.divide(
        np.float32(127), np.abs(x).max(axis=1, keepdims=True), where=scale > 0, out=np.zeros_like(scale)
    )
    return np.rint(x * inverse).astype(np.float64) * scale


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """Round to 8 significant bits, ties to even, by way of a power of two; float64."""
    unit = np.exp2(np.floor(np.log2(np.maximum(np.abs(x.astype(np.float64)), 1e-30))) - 7)
    return np.rint(x / unit) * unit


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("rows", [1, TILE_ROWS // 2 + 1, TILE_ROWS, TILE_ROWS + 1, linear.ROW_BLOCK - 5])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (TILE_WIDTH, 3), (97, 312), (384, 130)])
def test_linear_rows(rng, rows, outputs, inputs, dtype):
    layer, x = random_linear(rng, outputs, inputs), rng.standard_normal((rows, inputs)).astype(np.float32)
    out = np.full((rows, round_up(outputs)), np.nan, np.float32)
    linear.linear_rows(filled(x), 0, rows, pack_linear(layer, dtype), scratch(rows, round_up(inputs)), out)
    a, weight = rounded_operands(x, layer.weight, dtype)
    exact = a @ weight.T + layer.bias
    # 312 products of size 1/18: worst seen 1.4e-6. An int8 tie that float32 and float64 round apart would be 1e-2.
    # Factors of 16 bits, of which the last is rounded: 2**-17 of each product of size 1/18; worst seen 2.5e-5.
    np.testing.assert_allclose(out[:, :outputs], exact, atol=1e-4 if dtype == "high" and ISA.amx else 5e-6)
    assert (out[:, outputs:] == 0).all()


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(rng, dtype, bad):
    layer, x = random_linear(rng, 40, 70), rng.standard_normal((3, 70)).astype(np.float32)
    x[1, 20] = bad
    out = np.zeros((3, round_up(40)), np.float32)
    linear.linear_rows(filled(x), 0, 3, pack_linear(layer, dtype), scratch(3, round_up(70)), out)
    assert not np.isfinite(out[1, :40]).any()
    assert np.isfinite(out[[0, 2]]).all()


@pytest.mark.parametrize(("kind", "infinity"), [(Float16Table, 0x7C00), (Bfloat16Table, 0x7F80)])
def test_every_number_of_16_bits_is_widened_exactly(kind, infinity):
    bits = np.arange(2**16, dtype=np.uint16)
    finite = bits[(bits & 0x7FFF) < infinity].reshape(-1, TILE_WIDTH)
    table = kind(finite)
    out, ids = np.full(finite.shape, np.nan, np.float32), np.arange(len(finite), dtype=np.int32)
    nothing = np.zeros((1, TILE_WIDTH), np.float32)
    elementwise.embed(ids, ids * 0, table, nothing, None, out)
    expected = widen(table) + nothing  # which makes 0 of -0
    assert (out.view(np.uint32) == expected.view(np.uint32)).all()


def test_int8_rows_and_weights_of_zeros():
    layer = Linear(np.zeros((5, 9), np.float32), np.arange(5, dtype=np.float32))
    out = np.full((2, round_up(5)), np.nan, np.float32)
    linear.linear_rows(np.zeros((2, round_up(9)), np.float32), 0, 2, pack_linear(layer, "int8"), scratch(2, 32), out)
    assert (out[:, :5] == layer.bias).all()


def test_int8_takes_the_largest_numbers_without_saturation():
    inputs = 3072  # the deepest sums of a base model: 3072 * 127 * 127 = 5e7
    layer = Linear(np.full((1, inputs), -3.0, np.float32), np.zeros(1, np.float32))
    out = np.zeros((1, round_up(1)), np.float32)
    x = np.full((1, inputs), 2.0, np.float32)
    linear.linear_rows(x, 0, 1, pack_linear(layer, "int8"), scratch(1, inputs), out)
    np.testing.assert_allclose(out[0, 0], -6.0 * inputs, rtol=1e-6)  # three roundings of 6e-8


@pytest.mark.parametrize("keeps_sum", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("rows", [1, linear.ROW_BLOCK + 1])
def test_feed_forward(rng, rows, gated, keeps_sum):
    width, inner = 50, 97
    up, gate, down = (random_linear(rng, *sizes) for sizes in ((inner, width), (inner, width), (width, inner)))
    norm = Norm(*rng.standard_normal((2, width)).astype(np.float32), 1e-12)
    total, normed = rng.standard_normal((2, rows, width)).astype(np.float32)
    given = Stream(total, normed) if keeps_sum else Stream(normed, normed)
    weights = FeedForward(up, gate if gated else None, down, "gelu", norm, keeps_sum)
    exact = reference.feed_forward_block(
        Stream(*(part.astype(np.float64) for part in given)), weights, reference.Workspace()
    )
    out = filled(given.normed)
    stream = Stream(filled(total), out) if keeps_sum else Stream(out, out)
    hidden, product = (aligned_empty(linear.ROW_BLOCK, round_up(size)) for size in (inner, width))
    operand = scratch(rows, round_up(inner))
    packed = [None if layer is None else pack_linear(layer, "float32") for layer in (up, weights.gate, down)]
    weights = PackedFeedForward(*packed, GELU, pack_norm(norm))
    linear.feed_forward(stream, weights, weights.gate, operand, hidden, product)
    # LayerNorm scales up roundings; worst seen 3e-6, and twice as much where gates multiply
    np.testing.assert_allclose(stream.normed[:, :width], exact.normed, atol=2e-5)
    np.testing.assert_allclose(stream.sum[:, :width], exact.sum, atol=2e-5)


def random_rule(rng, kind: str, heads: int, width: int, longest: int):
    """A rule of positions for so many heads; None where it does not suit them."""
    if kind == "distance":
        return DistanceBias(rng.standard_normal((heads, 2 * longest - 1)).astype(np.float32))
    if kind in CONTENT:
        tables = rng.standard_normal((2, heads, 16, width)).astype(np.float32)
        tables = [table if part in CONTENT[kind] else None for part, table in zip(("c2p", "p2c"), tables, strict=True)]
        return Disentangled(*tables, row_of_distance(longest, 8, 8, 40))
    return rotary_tables(longest, width, 100.0) if kind == "rotary" else None


CONTENT = {"contents": ("c2p", "p2c"), "queries": ("c2p",), "keys": ("p2c",)}


@pytest.mark.parametrize("kind", ["none", "distance", *CONTENT])
@pytest.mark.parametrize("reach", [None, (0, 0), (3, 1), (TILE_WIDTH, LANES - 1), (64, 64)])
@pytest.mark.parametrize("width", [1, 26, TILE_WIDTH, 64])
@pytest.mark.parametrize("lengths", [[1], [LANES, LANES + 1, 1], [TILE_WIDTH + 1, 2, 77], [130]])
def test_attend(rng, width, lengths, reach, kind):
    heads, padded = 3, round_up(width)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = offsets[-1]
    query, key, value = rng.standard_normal((3, heads, tokens, width)).astype(np.float32)
    filled_query = fill_up(query, heads, tokens, padded)
    key_value = fill_up(np.concatenate([key, value]), 2 * heads, tokens + TILE_WIDTH, padded)
    key_value[:, tokens:] = np.nan  # what lies behind the last pair must not matter
    positions = random_rule(rng, kind, heads, width, max(lengths))
    packed = pack_positions(positions)
    room = scratch_size(max(lengths), padded, ISA, disentangled=isinstance(packed, Disentangled))
    scratch = np.full(room, np.nan, np.float32)
    context = np.full((tokens, heads * padded), np.nan, np.float32)
    rule = ScoreRule(1 / math.sqrt(width), packed, reach)
    attend(filled_query, offsets, np.zeros(len(lengths), np.int64), key_value, offsets, rule, scratch, context)
    for start, end in itertools.pairwise(offsets):
        q, k, v = (part[:, start:end].astype(np.float64) for part in (query, key, value))
        places = np.arange(end - start)
        products = q @ k.transpose(0, 2, 1) + reference.disentangled_scores(q, k, places, positions)
        scores = products * rule.scale + reference.distance_scores(places, positions)
        exact = reference.softmax(reference.hide(scores, places, reach)) @ v  # (H, L, D)
        got = context[start:end].reshape(-1, heads, padded).transpose(1, 0, 2)
        np.testing.assert_allclose(got[..., :width], exact, atol=5e-6)  # values up to 4, scores up to 8; seen 2e-6
        assert (got[..., width:] == 0).all()


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("width", [TILE_WIDTH, 2 * TILE_WIDTH, 3 * TILE_WIDTH])
def test_project_heads_turns_queries_and_keys_by_their_places(rng, width, dtype):
    heads, inputs, rows = 2, 70, linear.ROW_BLOCK + 3
    layer, places = random_linear(rng, 3 * heads * width, inputs), rng.integers(0, 50, rows)
    rotary, x = rotary_tables(50, width, 100.0), filled(rng.standard_normal((rows, inputs)).astype(np.float32))
    results = []
    for rule in (None, rotary):
        out = np.full((3 * heads, rows + 5, width), np.nan, np.float32)
        operand = scratch(rows, round_up(inputs))
        linear.project_heads(x, places, pack_linear(layer, dtype), rule, 2 * heads, operand, out, 4)
        assert np.isnan(out[:, [0, 1, 2, 3, -1]]).all()
        results.append(out[:, 4:-1])
    plain, turned = results
    exact = reference.turn(plain[: 2 * heads].astype(np.float64), places, Rotary(*(t.astype(float) for t in rotary)))
    np.testing.assert_allclose(turned[: 2 * heads], exact, atol=2e-6)  # two products of size 4 and their sum
    assert (turned[2 * heads :] == plain[2 * heads :]).all()


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("rows", range(1, 2 * TILE_ROWS + 1))
def test_a_row_has_the_same_bits_wherever_it_stands(rng, rows, dtype):
    layer = pack_linear(random_linear(rng, 40, 70), dtype)
    x = filled(rng.standard_normal((2 * TILE_ROWS, 70)).astype(np.float32))
    whole, part = (np.empty((2 * TILE_ROWS, round_up(40)), np.float32) for _ in range(2))
    operand = scratch(2 * TILE_ROWS, round_up(70))
    linear.linear_rows(x, 0, len(x), layer, operand, whole)
    linear.linear_rows(np.ascontiguousarray(x[-rows:]), 0, rows, layer, operand, part)
    assert (part[:rows] == whole[-rows:]).all()


def test_arrays_begin_on_a_cache_line():
    assert all(aligned_empty(size, 3).ctypes.data % CACHE_LINE == 0 for size in range(1, 50))
