"""What becomes of the CUDA kernels: registers, spills and instructions, and what they should cost, without a GPU.

Each kernel is compiled to PTX by numba-cuda and to machine code by ptxas, for the GPUs below. Then the time of a
forward pass is estimated from the instructions of the hot loops and the limits of the GPU: written down before anyone
has measured it, so that the first real run can be held against it (docs/cuda.md explains the arithmetic).

    pip install 'numbert[cuda]' nvidia-cuda-nvcc nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm
    python benchmarks/cuda_code.py
"""

import functools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common import forget_own_folder, print_table
from numba import cuda, types
from numbert.kernels.cuda import attention, elementwise, linear
from numbert.kernels.cuda.fragments import WARP_COLUMNS, WARP_ROWS

FLOATS, WORDS, INTEGER, DOUBLE = types.float32[::1], types.int32[::1], types.int64, types.float64
LINEAR = (FLOATS, FLOATS, INTEGER, INTEGER, FLOATS, FLOATS, INTEGER, INTEGER)
TENSOR_CORE_LINEAR = (FLOATS, WORDS, *LINEAR[2:])
ATTENTION = (
    FLOATS, INTEGER, INTEGER, FLOATS, INTEGER, INTEGER, INTEGER, WORDS, WORDS, DOUBLE, FLOATS, INTEGER, FLOATS, INTEGER,
)  # fmt: skip
KERNELS: dict[str, tuple[Any, tuple[Any, ...], int]] = {  # name -> kernel, signature, threads of a block
    **{f"linear {name}": (linear.make_linear(name), LINEAR, 128) for name in linear.FINISH},
    **{f"tensor core linear {n}": (linear.make_tensor_core_linear(n), TENSOR_CORE_LINEAR, 128) for n in linear.FINISH},
    "attention, heads of 32": (attention.make_attention(32, False), ATTENTION, attention.QUERIES),
    "attention, heads of 64": (attention.make_attention(64, False), ATTENTION, attention.QUERIES),
    "attention, heads of 64, with bias": (attention.make_attention(64, True), ATTENTION, attention.QUERIES),
    "embed": (
        elementwise.embed,
        (WORDS, INTEGER, FLOATS, FLOATS, INTEGER, FLOATS, FLOATS, DOUBLE, INTEGER, INTEGER, FLOATS),
        elementwise.THREADS,
    ),
    "normalize": (elementwise.normalize, (FLOATS, FLOATS, FLOATS, DOUBLE, INTEGER, INTEGER), elementwise.THREADS),
    "gather": (elementwise.gather, (FLOATS, WORDS, INTEGER, FLOATS), 128),
}


class Gpu(NamedTuple):
    """Limits of a GPU. Sources: NVIDIA's whitepapers on A100 and H100; CUDA programming guide, compute capabilities."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    gigahertz: float  # boost
    ffma_cycles: int  # of a quarter of a multiprocessor for a warp's 32 multiply-adds
    hmma_cycles: int  # the same for one mma.m16n8k16
    gigabytes_per_second: float
    registers: int = 65536  # of a multiprocessor
    shared_bytes: int = 164 * 1024
    warps: int = 64


# HMMA: 16*8*16 multiply-adds at 256 a cycle (A100), 512 (H100). mma.sync is said to reach 0.6 of the latter.
GPUS = (
    Gpu("A100", (8, 0), 108, 1.41, 2, 8, 1555),
    Gpu("H100", (9, 0), 132, 1.83, 1, 4, 3350, shared_bytes=228 * 1024),
)


class Code(NamedTuple):
    """What ptxas made of a kernel."""

    kernel: str
    registers: int
    stack_bytes: int
    spill_bytes: int
    shared_bytes: int
    instructions: Counter[str]
    hot_loop: Counter[str]  # the innermost loop with most of the multiply-adds

    @property
    def products(self) -> int:
        """Multiply-adds in the hot loop, of whichever kind there are."""
        return self.hot_loop["FFMA"] + self.hot_loop["HMMA"]


def tool(name: str) -> str:
    """Return the path of one of CUDA's programs, from NVIDIA's packages or the path."""
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    found = [*map(str, packages.glob(f"*/bin/{name}")), shutil.which(name)]
    for path in found:
        if path:
            return path
    raise FileNotFoundError(
        f"{name}: not found; pip install nvidia-cuda-nvcc nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm"
    )


@functools.cache
def compile_kernel(name: str, capability: tuple[int, int]) -> Code:
    """Compile a kernel of KERNELS and read what became of it."""
    kernel, signature, _ = KERNELS[name]
    ptx, _ = cuda.compile_ptx(kernel.py_func, signature, cc=capability)
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(ptx)
        architecture = f"sm_{capability[0]}{capability[1]}"
        report = _run(tool("ptxas"), "-v", f"-arch={architecture}", str(source), "-o", str(binary)).stderr
        assembly = _run(tool("cuobjdump"), "-sass", str(binary)).stdout
    (frame,) = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    shared = re.search(r"(\d+) bytes smem", report)
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]*)([^;]*);", assembly)
    code = [(int(address, 16), operation.split(".")[0], rest) for address, operation, rest in lines]
    return Code(
        name,
        int(re.findall(r"Used (\d+) registers", report)[0]),
        int(frame[0]),
        int(frame[1]) + int(frame[2]),
        int(shared[1]) if shared else 0,
        Counter(operation for _, operation, _ in code),
        _hot_loop(code),
    )


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    folders = [str(Path(command[0]).parent), os.environ.get("PATH", "")]  # cuobjdump calls nvdisasm
    environment = {**os.environ, "PATH": os.pathsep.join(folders)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        raise RuntimeError(f"{command[0]}: {result.stderr[-2000:]}")
    return result


def _hot_loop(code: list[tuple[int, str, str]]) -> Counter[str]:
    """Return the instructions of the shortest loop that has at least a quarter of all multiply-adds."""
    total = sum(operation in ("FFMA", "HMMA") for _, operation, _ in code)
    loops = []
    for address, operation, rest in code:
        target = re.search(r"0x([0-9a-f]+)", rest)
        if operation == "BRA" and target and int(target[1], 16) < address:
            body = Counter(name for place, name, _ in code if int(target[1], 16) <= place <= address)
            if 4 * (body["FFMA"] + body["HMMA"]) >= total > 0:
                loops.append(body)
    return min(loops, key=lambda body: body.total(), default=Counter())


def blocks_at_once(code: Code, gpu: Gpu, threads: int) -> int:
    """Return how many blocks a multiprocessor holds: registers come by 256 for a warp, shared memory by 1 KiB."""
    warps = threads // 32
    per_warp = -(-code.registers * 32 // 256) * 256
    shared = code.shared_bytes + 1024
    return min(gpu.registers // (per_warp * warps), gpu.shared_bytes // shared, gpu.warps // warps, 32)


def cycles_of_loop(code: Code, gpu: Gpu) -> float:
    """Return the cycles that a quarter of a multiprocessor needs for one turn of the hot loop of one warp.

    The largest of three: the multiply-adds, all instructions at one a cycle, and reading shared memory, which all four
    quarters share, at 128 bytes a cycle: 4 cycles for LDS.128, of which broadcasts save half, else 1.
    """
    loop = code.hot_loop
    products = loop["FFMA"] * gpu.ffma_cycles + loop["HMMA"] * gpu.hmma_cycles
    shared = loop["LDS"] * (1 if loop["HMMA"] else 2) * 4
    return max(products, loop.total(), shared)


class Model(NamedTuple):
    """The sizes of a model that cost time."""

    name: str
    layers: int
    hidden: int
    inner: int
    heads: int


MODELS = (Model("MiniLM-L6", 6, 384, 1536, 12), Model("BERT base", 12, 768, 3072, 12))
PAIRS, TOKENS = 128, 77
LAUNCH_MICROSECONDS = 6.0  # a kernel with a few arrays, from Python; they run ahead of the GPU where it is slower


def estimate(model: Model, gpu: Gpu, dtype: str, codes: dict[str, Code]) -> Iterator[tuple[str, float, float]]:
    """Yield the phases of a forward pass: name, seconds by the instructions, seconds by memory."""
    rows, c, f = PAIRS * TOKENS, model.hidden, model.inner
    tensor = "tensor core " if dtype == "bfloat16" else ""
    weight_bytes = 2 if dtype == "bfloat16" else 4
    for name, finish, outputs, inputs in (
        ("query, key, value", linear.NONE, 3 * c, c),
        ("attention output", linear.ADD, c, c),
        ("up", linear.GELU, f, c),
        ("down", linear.ADD, c, f),
    ):
        code = codes[f"{tensor}linear {finish}"]
        if tensor:
            warps = _blocks(rows, WARP_ROWS) * outputs / WARP_COLUMNS
            turns = inputs / 16 / (code.hot_loop["HMMA"] / 16)  # 16 products of a warp for each 16 along K
        else:
            warps = _blocks(rows, 128) * 4 * outputs / 64
            turns = inputs / (code.hot_loop["FFMA"] / 64)
        seconds = _compute(warps * turns * cycles_of_loop(code, gpu), gpu)
        moved = 4 * rows * (inputs + outputs * (2 if finish == linear.ADD else 1)) + weight_bytes * inputs * outputs
        yield name, model.layers * seconds, model.layers * moved / gpu.gigabytes_per_second / 1e9
    code = codes[f"attention, heads of {c // model.heads}"]
    warps = PAIRS * model.heads * _blocks(TOKENS, attention.QUERIES) * attention.QUERIES / 32
    turns = TOKENS / attention.AT_ONCE
    seconds = _compute(warps * turns * cycles_of_loop(code, gpu), gpu)
    yield "attention", model.layers * seconds, model.layers * 4 * rows * 4 * c / gpu.gigabytes_per_second / 1e9
    moved = 2 * (2 + 1) * 4 * rows * c  # two norms a layer; the second and third reading come from the cache
    yield "normalize", 0.0, model.layers * moved / 2 / gpu.gigabytes_per_second / 1e9


def _blocks(size: int, of: int) -> int:
    return -(-size // of)


def _compute(warp_cycles: float, gpu: Gpu) -> float:
    return warp_cycles / (4 * gpu.multiprocessors * gpu.gigahertz * 1e9)


def main() -> None:
    """Print both tables."""
    forget_own_folder()
    rows = []
    for gpu in GPUS:
        codes = {name: compile_kernel(name, gpu.capability) for name in KERNELS}
        architecture = f"sm_{gpu.capability[0]}{gpu.capability[1]}"
        print(f"\n## {architecture} ({gpu.name})\n")
        print_table(
            ("kernel", "registers", "stack", "spilled", "shared", "blocks at once", "hot loop", "products in it"),
            [
                (
                    name, str(code.registers), str(code.stack_bytes), str(code.spill_bytes), str(code.shared_bytes),
                    str(blocks_at_once(code, gpu, KERNELS[name][2])), str(code.hot_loop.total()),
                    f"{code.products} {'HMMA' if code.hot_loop['HMMA'] else 'FFMA'}" if code.products else "",
                )
                for name, code in codes.items()
            ],
        )  # fmt: skip
        for model in MODELS:
            for dtype in ("float32", "bfloat16"):
                phases = list(estimate(model, gpu, dtype, codes))
                total = sum(max(compute, memory) for _, compute, memory in phases)
                launches = (7 * model.layers + 6) * LAUNCH_MICROSECONDS / 1e6
                rows.append(
                    (
                        gpu.name, model.name, dtype,
                        f"{sum(compute for _, compute, _ in phases) * 1e3:.2f}",
                        f"{sum(memory for _, _, memory in phases) * 1e3:.2f}",
                        f"{launches * 1e3:.2f}", f"{max(total, launches) * 1e6 / PAIRS:.1f}",
                    )
                )  # fmt: skip
    print(f"\n## Estimated, {PAIRS} pairs of {TOKENS} tokens in one batch\n")
    print_table(
        ("GPU", "model", "dtype", "instructions ms", "memory ms", "launches ms", "microseconds a pair, at best"), rows
    )


if __name__ == "__main__":
    sys.exit(main())
