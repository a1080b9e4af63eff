"""The third picture: one multiply-add, from the call in Python to the instruction."""

import importlib.metadata
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding
import numpy as np
from numba import int64, typeof
from numbert.kernels.cpu import linear
from numbert.kernels.cpu.compiled import make_team
from numbert.kernels.cpu.float32 import pack_float32
from numbert.kernels.cpu.isa import ISA, TILE_ROWS
from numbert.kernels.parameters import Linear
from svg import LINE, Canvas

KERNELS = Path(linear.__file__).parent
LEFT, WIDTH = 16, 968
FUSED = "vfmadd"


class Box(NamedTuple):
    """A piece of code."""

    title: str
    code: list[str]
    marked: str  # what stands in the lines that matter
    then: str  # how it becomes the next; beside the arrow


def draw() -> str:
    """Return the picture."""
    ir, assembly = compile_linear_rows()
    loop = find_loop(assembly)
    boxes = _of_python() + _of_llvm(ir, loop)
    height = 144 + sum(len(box.code) * LINE + 68 for box in boxes) - 50
    canvas = Canvas(height, "The way of one multiply-add", _description(loop))
    canvas.text(LEFT, 30, "The way of one multiply-add", 18, bold=True)
    versions = f"Kernel linear_rows in float32, compiled for {ISA.name} ({_versions()})."
    canvas.text(LEFT, 52, f"{versions} Excerpts; ... is what was left out.")
    y = 84.0
    for box in boxes:
        canvas.text(LEFT, y, box.title, 14, bold=True)
        y = canvas.code(LEFT, y + 8, WIDTH, box.code, box.marked)
        if box.then:
            canvas.line(LEFT + 24, y + 2, LEFT + 24, y + 30, arrow=True)
            canvas.text(LEFT + 40, y + 21, box.then)
        y += 50
    canvas.lines(LEFT, y - 24, _remarks(loop))
    return canvas.finish()


def _of_python() -> list[Box]:
    return [
        Box(
            "linear.py: linear_rows asks for a tile",
            source("linear.py", "def linear_rows(", "for panel in", "multiply("),
            "multiply(",
            "overload: the arithmetic is chosen when Numba compiles linear_rows, not while it runs",
        ),
        Box(
            "products.py: the type of the layer says which",
            source("products.py", "def _multiply(", "return {", "}["),
            "Float32Linear",
            "multiply_float32 = product_by(tile)",
        ),
        Box(
            "float32.py: where the tile's operands lie",
            source("float32.py", "def multiply(", "steps =", "tile("),
            "tile(",
            "tile calls an intrinsic: this Python runs while Numba compiles, and leaves instructions behind",
        ),
        Box(
            "micro_kernel.py: the intrinsic emits LLVM IR",
            source("micro_kernel.py", "def add_step(", "for a_word, totals", "builder.store("),
            "product.multiply_add(",
            "multiply_floats says that the words are floats",
        ),
        Box(
            "simd.py: what a multiply-add is in LLVM IR",
            source("simd.py", "def multiply_add(", "if ISA.fma", "return call_llvm"),
            "call_llvm",
            "LLVM keeps each sum in a phi: a register from one round of the loop to the next",
        ),
    ]


def _of_llvm(ir: str, loop: Sequence[str]) -> list[Box]:
    fused = count(loop, FUSED)
    return [
        Box(
            "LLVM IR, optimised: the loop over k",
            shorten(ir_step(ir)),
            "@llvm.fma",
            f"LLVM chooses registers, {ISA.lanes} numbers in each zmm; a round is {steps_in(loop)} steps of k",
        ),
        Box(
            f"Assembly: the same loop, {len(loop) - 1} instructions, {fused} of them multiply-adds",
            shorten(assembly_step(loop)),
            FUSED,
            "",
        ),
    ]


def compile_linear_rows() -> tuple[str, str]:
    """Compile the kernel for a layer in float32; return its LLVM IR and its assembly. It is not run."""
    layer = pack_float32(Linear(np.zeros((1536, 384), np.float32), None))
    workspace = make_team(1)[0]
    x, out, operand = workspace.take("x", 96, 384), workspace.take("out", 96, 1536), workspace.operand(1)
    kernel: Any = linear.linear_rows
    kernel.compile((typeof(x), int64, int64, typeof(layer), typeof(operand), typeof(out)))
    (ir,), (assembly,) = kernel.inspect_llvm().values(), kernel.inspect_asm().values()
    return ir, assembly


def source(file: str, function: str, first: str, last: str) -> list[str]:
    """Return lines of a function, from the one that holds `first` to the one that holds `last`, less their indent."""
    text = (KERNELS / file).read_text("utf-8").splitlines()
    begin = next(i for i, line in enumerate(text) if function in line)
    start = next(i for i in range(begin, len(text)) if first in text[i])
    stop = next(i for i in range(start, len(text)) if last in text[i])
    indent = len(text[start]) - len(text[start].lstrip())
    return [line[indent:] for line in text[start : stop + 1]]


def find_loop(assembly: str) -> list[str]:
    """Return the loop of a whole tile: of the innermost loops, the one with the most multiply-adds."""
    lines = assembly.splitlines()
    labels = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\.LBB\d+_\d+:", line)}
    loops = []
    for i, line in enumerate(lines):
        jump = re.fullmatch(r"\s+j\w+\s+(\.LBB\d+_\d+)", line)
        if jump and labels.get(jump[1], i) < i:
            body = lines[labels[jump[1]] : i + 1]
            if not any(re.fullmatch(r"\s+j\w+\s+.*", inner) for inner in body[:-1]):
                loops.append(
                    [re.sub(r"^\t(\w+)\t", lambda m: f"    {m[1]:<14}", inner).replace("\t", "    ") for inner in body]
                )
    return max(loops, key=lambda body: count(body, FUSED))


def count(lines: Iterable[str], word: str) -> int:
    """Return how many lines hold a word."""
    return sum(word in line for line in lines)


def steps_in(loop: Sequence[str]) -> int:
    """Return how many steps of k a loop makes: each has two multiply-adds for a row."""
    return count(loop, FUSED) // (2 * TILE_ROWS)


def assembly_step(loop: Sequence[str]) -> list[str | None]:
    """Return a loop with most lines replaced by None: loads of B, prefetches, the first two rows, and the end."""
    wanted: set[int] = {0, len(loop) - 3, len(loop) - 2, len(loop) - 1}
    wanted |= set(_first(loop, lambda line: "vmovups" in line and "rsp" not in line, 2))
    wanted |= set(_first(loop, lambda line: "prefetch" in line, 2))
    for row in _first(loop, lambda line: "vbroadcastss" in line, 2):
        wanted |= {row, row + 1, row + 2}
    return [line if i in wanted else None for i, line in enumerate(loop)]


def ir_step(ir: str) -> list[str | None]:
    """Return the block of LLVM IR with the most multiply-adds, most lines replaced by None."""
    blocks = re.split(r"\n(?=[\w.]+:)", ir)
    block = max(blocks, key=lambda text: text.count("call <16 x float> @llvm.fma")).split("\n\n")[0].splitlines()
    fused = _first(block, lambda line: "@llvm.fma" in line, 2)
    sums = [re.findall(r"%[\w.]+", block[i])[-1] for i in fused]
    wanted = {0, *fused}
    wanted |= {i for i, line in enumerate(block) if any(line.strip().startswith(f"{name} = phi") for name in sums)}
    wanted |= set(_first(block, lambda line: "load <16 x float>" in line, 2))
    wanted |= set(_first(block, lambda line: "@llvm.prefetch" in line, 1))
    for word in ("= load i32", "= insertelement", "= bitcast", "= shufflevector"):
        wanted.add(next(i for i, line in enumerate(block) if word in line))
    return [re.sub(r"\s*;.*", "", line) if i in wanted else None for i, line in enumerate(block)]


def _first(lines: Sequence[str], holds: Callable[[str], bool], number: int) -> list[int]:
    return [i for i, line in enumerate(lines) if holds(line)][:number]


def shorten(lines: Iterable[str | None]) -> list[str]:
    """Replace each run of None by a line that counts them."""
    result: list[str] = []
    left_out = 0
    for line in [*lines, ""]:
        if line is None:
            left_out += 1
            continue
        if left_out:
            result.append(f"    ... {left_out} more")
        result, left_out = [*result, line], 0
    return result[:-1]


def _versions() -> str:
    python = ".".join(platform.python_version_tuple()[:2])
    llvm = ".".join(map(str, llvmlite.binding.llvm_version_info))
    return f"Python {python}, Numba {importlib.metadata.version('numba')}, LLVM {llvm}"


def _spills(loop: Sequence[str]) -> tuple[int, int]:
    """Return how many vectors the loop stores on the stack, and how many it loads from there."""
    moves = [line for line in loop if "vmovups" in line and "(%rsp)" in line]
    stores = sum(line.rstrip().endswith("(%rsp)") for line in moves)
    return stores, len(moves) - stores


def _remarks(loop: Sequence[str]) -> list[str]:
    stores, loads = _spills(loop)
    stack = f"{stores} stores and {loads} loads of the stack in each round."
    return [
        "vfmadd231ps a, b, c is c = a * b + c: the last operand is the result."
        f" {count(loop, 'vbroadcastss')} vbroadcastss read A; {count(loop, 'prefetch')} prefetcht1 ask for the next"
        " panel.",
        f"LLVM loads B for {steps_in(loop)} steps at once, and so lacks a register for one sum: {stack}"
        if stores
        else "All sums stay in registers over the whole loop.",
    ]


def _description(loop: Sequence[str]) -> str:
    return (
        "From top to bottom: linear_rows calls multiply; an overload chooses multiply_float32 by the type of the layer;"
        " that calls tile; an intrinsic emits the steps of the tile; each becomes a call of llvm.fma in LLVM IR; and"
        f" that one instruction, vfmadd231ps. The loop has {count(loop, FUSED)} of them."
    )
