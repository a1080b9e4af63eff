"""What ARM's kernels become, and how far their scores are from others': instructions are counted, nothing is timed.

Emulation says nothing about time. So this shows what does: the instructions of the loops in which nearly all of it
passes, and how many of them go to the stack. And the largest differences of the embedded model's logits: from the
float64 reference, and from those that another processor has saved. Markdown on stdout.

    python benchmarks/arm.py --save FILE          on any processor
    python benchmarks/arm.py --compare FILE       on an ARM
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import forget_own_folder, machine_lines, make_pairs, print_header, print_table
from numba import typeof
from numbert import CrossEncoder
from numbert.kernels.cpu import bfloat16, float32, int8, linear
from numbert.kernels.cpu.isa import ISA
from numbert.kernels.cpu.packing import pack_linear
from numbert.kernels.cpu.workspace import Workspace
from numbert.kernels.parameters import Linear

TILES: dict[str, Callable[..., Any]] = {
    "float32": float32.tile, "bfloat16": bfloat16.tile_bfloat16, "int8": int8.tile_int8,
}  # fmt: skip
PRODUCT = re.compile(r"(fmla|mla|sdot|smmla|bfmmla)")
PAIRS, WORDS = 12, 40


def main() -> None:
    """Read the arguments, count or score, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--loops", action="store_true", help="print the inner loops' instructions as JSON, and no more")
    asked.add_argument("--save", type=Path, metavar="FILE", help="write the logits in each precision")
    asked.add_argument("--compare", type=Path, metavar="FILE", help="print instructions, and differences from FILE")
    arguments = parser.parse_args()
    forget_own_folder()
    if arguments.loops:
        print(json.dumps(inner_loops()))
    elif arguments.save:
        np.savez(arguments.save, exact=logits("float64"), **{precision: logits(precision) for precision in TILES})
    else:
        print_header("ARM", [*machine_lines(("numbert", "numpy", "numba", "llvmlite")), f"instruction set: {ISA.name}"])
        print_loops()
        with np.load(arguments.compare) as others:
            print_differences(dict(others))


def logits(precision: str) -> np.ndarray:
    """Compute the embedded model's logits of some pairs; in float64 with the reference."""
    backend = "reference" if precision == "float64" else "cpu"
    model = CrossEncoder(dtype=precision, backend=backend, activation_fn="identity")
    return np.asarray(model.predict(make_pairs(PAIRS, WORDS)), np.float64)


def inner_loops() -> dict[str, Any]:
    """Compile the tile of each precision; return the instructions of its inner loop and how many use the stack.

    Not where a kernel cache is: code that comes from it cannot be looked at.
    """
    return {precision: _inner_loop(precision, tile) for precision, tile in TILES.items()}


def _inner_loop(precision: str, tile: Any) -> dict[str, Any]:
    layer, workspace = pack_linear(Linear(np.ones((64, 96), np.float32), None), precision), Workspace()
    arrays = workspace.take("x", 96, 96), workspace.operand(96), workspace.take("out", 96, 64)
    x, operand, out = map(typeof, arrays)
    linear.linear_rows.compile((x, typeof(0), typeof(0), typeof(layer), operand, out))
    (assembly,) = tile.inspect_asm().values()
    loop = max(_loops(assembly), key=lambda lines: sum(map(_is_product, lines)))
    instructions = Counter(line.split()[0] for line in loop)
    return {"instructions": instructions, "stack": sum("[sp" in line for line in loop)}


def _loops(assembly: str) -> list[list[str]]:
    """Return the instructions between each label and the branch back to it."""
    lines = [line.strip() for line in assembly.splitlines()]
    labels = {line.partition(":")[0]: number for number, line in enumerate(lines) if re.match(r"\.?LBB\w+:", line)}
    loops = []
    for number, line in enumerate(lines):
        target = line.split()[-1] if re.match(r"(b\.|cbn?z|tbn?z)", line) else ""
        if labels.get(target, number) < number:
            body = lines[labels[target] : number + 1]
            loops.append([line for line in body if re.match(r"[a-z]", line)])
    return loops


def _is_product(line: str) -> bool:
    return PRODUCT.match(line) is not None


def print_loops() -> None:
    """Print a row for each precision."""
    environment = os.environ | {"NUMBERT_CACHE_DIR": "off"}
    output = subprocess.run([sys.executable, __file__, "--loops"], env=environment, check=True, capture_output=True)
    rows = []
    for precision, loop in json.loads(output.stdout).items():
        products = {name: count for name, count in loop["instructions"].items() if _is_product(name)}
        named = ", ".join(f"{count} {name.upper()}" for name, count in products.items())
        rows.append([precision, named, str(sum(loop["instructions"].values())), str(loop["stack"])])
    print_table(["inner loop", "products", "instructions", "accesses to the stack"], rows)


def print_differences(others: dict[str, np.ndarray]) -> None:
    """Print a row for each precision."""
    rows = []
    for precision in TILES:
        ours = logits(precision)
        distances = (np.abs(ours - others[which]).max() for which in (precision, "exact"))
        rows.append([precision, *(f"{distance:.2g}" for distance in distances)])
    print_table(["precision", "largest difference of a logit from the other processor's", "from float64"], rows)


if __name__ == "__main__":
    main()
