"""What the CUDA kernels become in machine code, without a GPU; and the layout that tensor cores want."""

import os

import numpy as np
import pytest
from conftest import ROOT
from numbert.kernels.cuda import fragments


def test_fragments_are_those_of_the_instruction():
    """Spread operands over 32 lanes as kernels load them, multiply as the PTX manual defines it, and compare."""
    rng = np.random.default_rng(3)
    a, b = rng.integers(-9, 9, (16, 16)), rng.integers(-9, 9, (8, 16))  # (rows, k), (columns, k)
    result = np.zeros((16, 8), int)
    seen_a, seen_b = np.zeros_like(a), np.zeros_like(b)
    for lane in range(32):
        group, member = divmod(lane, 4)
        # PTX ISA, m16n8k16: a0..a7 and b0..b3 of a lane, two in a register
        a_places = [
            (group + 8 * (i in (2, 3, 6, 7)), 2 * member + i % 2 + 8 * (i >= 4)) for i in range(8)
        ]  # fmt: skip
        b_places = [(group, 2 * member + i % 2 + 8 * (i >= 2)) for i in range(4)]
        loaded_a = [(group + row, 2 * (member + word) + half) for row, word in fragments.FRAGMENT_A for half in (0, 1)]
        loaded_b = [(group + row, 2 * (member + word) + half) for row, word in fragments.FRAGMENT_B for half in (0, 1)]
        assert (loaded_a, loaded_b) == (a_places, b_places)
        for place in a_places:
            seen_a[place] += 1
        for place in b_places:
            seen_b[place] += 1
        # c0..c3: rows group and group + 8, columns 2 * member and the next
        for row, column in fragments.FRAGMENT_C:
            result[group + row, 2 * member + column] += a[group + row] @ b[2 * member + column]
    assert (seen_a == 1).all()
    assert (seen_b == 1).all()
    assert (result == a @ b.T).all()


def test_places_cover_what_a_warp_computes_once():
    places = [
        (lane // 4 + row, 2 * (lane % 4) + column) for lane in range(32) for row, column in fragments.PLACES
    ]  # fmt: skip
    assert sorted(places) == [(r, c) for r in range(fragments.WARP_ROWS) for c in range(fragments.WARP_COLUMNS)]


@pytest.fixture(scope="module")
def cuda_code():
    """The benchmark that compiles, where its tools are installed and the simulator is not in the way."""
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        pytest.skip("the simulator compiles nothing")
    pytest.importorskip("numba_cuda", reason="needs numbert[cuda]")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        try:
            import cuda_code

            cuda_code.tool("ptxas")
            cuda_code.tool("nvdisasm")
        except FileNotFoundError as error:
            pytest.skip(str(error))
        yield cuda_code


@pytest.mark.parametrize("gpu", [0, 1])
def test_machine_code_keeps_its_bounds(cuda_code, gpu):
    gpu = cuda_code.GPUS[gpu]
    for name, (_, _, threads) in cuda_code.KERNELS.items():
        code = cuda_code.compile_kernel(name, gpu.capability)
        assert code.spill_bytes == code.stack_bytes == 0, name
        at_once, share = cuda_code.blocks_at_once(code, gpu, threads), code.products / max(code.hot_loop.total(), 1)
        if name.startswith("linear"):
            assert code.hot_loop["FFMA"] == 64 * 8, name  # 8 x 8 sums, unrolled 8 times
            assert share > 0.9, name  # seen 0.91: the rest is loads of shared memory
            assert at_once >= 3, name  # 12 warps hide the latency of FFMA (4 cycles) and of shared memory (30)
        elif name.startswith("tensor core"):
            assert code.hot_loop["HMMA"] == 32, name  # 16 products for each 16 along K, of 32 in a step
            assert code.hot_loop["LDS"] == 48, name  # 4 words of A and 2 of B, 4 times each, for each 16 along K
            assert at_once >= 3, name
        elif name.startswith("attention"):
            assert share > 0.6, name  # seen 0.62 and 0.67: exponentials and the loads of keys and values
            assert at_once >= 4, name
        else:
            assert code.registers <= 40, name  # bound by memory: as many warps as there are
            assert at_once * threads // 32 == gpu.warps, name
        assert code.instructions["LDL"] == code.instructions["STL"] == 0, name  # nothing in local memory either


def test_a_gpu_that_is_twice_as_fast_is_estimated_so(cuda_code):
    """The model of the cost adds up: no phase is free, and time falls with the clock and the bandwidth."""
    gpu, model = cuda_code.GPUS[0], cuda_code.MODELS[0]
    names = [*(f"linear {finish}" for finish in ("none", "add", "gelu")), "attention, heads of 32"]
    codes = {name: cuda_code.compile_kernel(name, gpu.capability) for name in names}
    slow = list(cuda_code.estimate(model, gpu, "float32", codes))
    twice = gpu._replace(gigahertz=2 * gpu.gigahertz, gigabytes_per_second=2 * gpu.gigabytes_per_second)
    for (_, compute, memory), (_, half_compute, half_memory) in zip(
        slow, cuda_code.estimate(model, twice, "float32", codes), strict=True
    ):
        assert memory > 0
        assert (half_compute, half_memory) == pytest.approx((compute / 2, memory / 2))


def test_the_tables_have_every_kernel_and_every_model(cuda_code, capsys):
    cuda_code.main()
    tables = capsys.readouterr().out
    for gpu in cuda_code.GPUS:
        _, _, table = tables.partition(f"({gpu.name})")
        assert all(f"| {name} |" in table.partition("##")[0] for name in cuda_code.KERNELS)
        assert all(f"| {gpu.name} | {model.name} |" in table for model in cuda_code.MODELS)
