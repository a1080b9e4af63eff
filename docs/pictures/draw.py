"""Draw the pictures of docs/kernels.md from real arrays, real tokens and real machine code.

    python docs/pictures/draw.py [FOLDER]      # without a folder: beside this file

Every number in them is read from what numbert makes of a model. So that they are the same wherever they are drawn,
numbert is told to compile for one processor with AVX-512, whatever this one is: nothing that is compiled here is run.
The excerpts of machine code depend on the versions of Python, Numba and LLVM as well; their picture names them.
"""

import os
import platform
import sys
from pathlib import Path

# What isa.py and Numba read when they are imported.
TARGET = {
    "NUMBA_CPU_NAME": "skylake-avx512",
    "NUMBA_CPU_FEATURES": "+avx512f,+avx512vl,+avx512dq,+avx512bw,+avx2,+fma",
    "NUMBERT_ISA": "avx512",
    "NUMBERT_CACHE_DIR": "off",  # machine code from the cache has no LLVM IR to show
}


def main() -> None:
    """Write the pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    os.environ.update(TARGET)
    import batch
    import multiply_add
    import panels

    pictures = {"panels.svg": panels.draw, "batch.svg": batch.draw}
    if platform.machine() in ("x86_64", "AMD64"):  # Numba compiles for the kind of processor that it runs on
        pictures["multiply-add.svg"] = multiply_add.draw
    for name, draw in pictures.items():
        (folder / name).write_text(draw(), "utf-8", newline="\n")


if __name__ == "__main__":
    main()
