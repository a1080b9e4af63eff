"""The first picture: the way of a weight into panels and registers, and the cache in which each part lies."""

import numpy as np
from numbert.kernels.cpu.compiled import make_team
from numbert.kernels.cpu.float32 import pack_float32
from numbert.kernels.cpu.isa import ISA, LANES, TILE_ROWS, TILE_WIDTH
from numbert.kernels.cpu.linear import ROW_BLOCK
from numbert.kernels.parameters import Linear
from svg import BLUE, GREEN, GREY, LIGHT_BLUE, LIGHT_GREEN, LIGHT_ORANGE, MONO, ORANGE, PALE, Canvas

OUTPUTS, INPUTS = 1536, 384  # the first feed-forward layer of MiniLM-L6
SHOWN = 1  # the panel that is drawn
REGISTERS = 32  # of AVX-512
TOP, BOTTOM = 92, 572
# Name, size as the servers with AVX-512 have it, left edge, width
LEVELS = [
    ("memory, or L3 cache", "", 16, 226),
    ("L2 cache", "1 to 2 MiB a core", 250, 226),
    ("L1 data cache", "32 or 48 KiB a core", 484, 226),
    ("vector registers", f"{REGISTERS} x {4 * LANES} = {REGISTERS * 4 * LANES:,} bytes", 718, 266),
]


def draw() -> str:
    """Return the picture."""
    # Each number is its own position in the weight, so that the packed array itself says what lies where.
    weight = np.arange(OUTPUTS * INPUTS, dtype=np.float32).reshape(OUTPUTS, INPUTS)
    panels = pack_float32(Linear(weight, None)).panels
    workspace = make_team(1)[0]
    x = workspace.take("x", ROW_BLOCK, INPUTS)
    hidden = workspace.take("hidden", ROW_BLOCK, OUTPUTS)
    description = (
        f"A weight of {weight.shape} is packed once into {len(panels)} panels of {panels.shape[1:]}. A block of"
        f" {ROW_BLOCK} rows of activations stays in the L2 cache while the panels pass by. A register tile of"
        f" {TILE_ROWS} by {TILE_WIDTH} sums is computed from {TILE_ROWS} of these rows and one panel, which is read"
        " from its beginning to its end: from the L1 cache as far as that holds it, the rest from L2."
    )
    canvas = Canvas(742, "From a weight to panels to the register tile", description)
    canvas.text(16, 30, "From a weight to panels to the register tile", 18, bold=True)
    canvas.text(16, 52, f"First feed-forward layer of MiniLM-L6 ({INPUTS} to {OUTPUTS}) in float32, instruction set"
                f" {ISA.name}: tiles of {TILE_ROWS} x {TILE_WIDTH}.")  # fmt: skip
    for name, size, x_at, width in LEVELS:
        canvas.rect(x_at, TOP - 28, width, BOTTOM - TOP + 28, "#fafafa", GREY)
        canvas.text(x_at + 8, TOP - 10, name, 14, bold=True)
        canvas.text(x_at + 8, TOP + 8, size)
    _draw_memory(canvas, weight, panels)
    _draw_panel(canvas, x[:TILE_ROWS], panels[SHOWN])
    _draw_rows(canvas, x, hidden)
    _draw_registers(canvas)
    _draw_order(canvas, panels)
    return canvas.finish()


def _name(value: np.float32) -> str:
    """Return which number of the weight it is."""
    return "w[{},{}]".format(*divmod(int(value), INPUTS))


def _draw_memory(canvas: Canvas, weight: np.ndarray, panels: np.ndarray) -> None:
    canvas.lines(24, TOP + 34, [f"panels {panels.shape}", f"{panels.nbytes:,} bytes"])
    for i in range(12):
        canvas.rect(24, TOP + 64 + 10 * i, 90, 8, BLUE if i == SHOWN else PALE)
    canvas.text(120, TOP + 94, f"panel {SHOWN}")
    canvas.text(120, TOP + 182, f"... {len(panels)} in all")
    canvas.line(69, TOP + 252, 69, TOP + 196, arrow=True)
    canvas.lines(80, TOP + 220, ["pack_float32,", "once, at load"])
    canvas.lines(24, TOP + 272, [f"weight {weight.shape}", f"{weight.nbytes:,} bytes in float32"])
    canvas.rect(24, TOP + 302, 90, 128, PALE)
    canvas.rect(24, TOP + 305, 90, 4, BLUE)
    rows = [int(row) // INPUTS for row in panels[SHOWN, 0, [0, -1]]]
    canvas.lines(120, TOP + 314, [f"rows {rows[0]} to {rows[1]}:", f"{TILE_WIDTH} outputs"])
    canvas.lines(24, TOP + 448, ["The sizes are multiples of the", "tile: nothing is filled up."])


def _draw_panel(canvas: Canvas, rows: np.ndarray, panel: np.ndarray) -> None:
    """Draw the panel across the border of the caches, since it lies in both."""
    canvas.lines(492, TOP + 34, [f"panel {SHOWN}: {panel.shape}", f"{panel.nbytes:,} bytes"])
    left, top = 400, TOP + 64
    canvas.line(118, top + 14, left - 4, top + 14, arrow=True)
    canvas.lines(258, top + 34, ["The next panel is", "prefetched while", "this one is read."])
    canvas.rect(left, top, 302, 100, LIGHT_BLUE, BLUE, 2)
    canvas.rect(left, top, 302, 22, BLUE)
    first = f"k = 0: {TILE_WIDTH} numbers, {panel[0].nbytes} bytes, 2 cache lines"
    canvas.text(left + 6, top + 15, first, colour="#ffffff")
    canvas.lines(left + 6, top + 40, ["k = 1", "...", "", f"k = {INPUTS - 1}"])
    canvas.line(706, top + 11, 794, top + 11, arrow=True)
    canvas.lines(492, TOP + 306, [
        f"Panel and rows have {panel.nbytes + rows.nbytes:,}",
        "bytes, more than this cache. What",
        "it does not hold comes from L2,",
        f"{panel[0].nbytes} bytes of B for each step.",
        "",
        f"(With avx2, tiles are {TILE_WIDTH // 2} wide,",
        f"and a panel has {panel.nbytes // 2:,} bytes.)",
    ])  # fmt: skip


def _draw_rows(canvas: Canvas, x: np.ndarray, hidden: np.ndarray) -> None:
    """Draw what a block of rows reads and writes."""
    canvas.lines(258, TOP + 200, [f"x: {ROW_BLOCK} rows, {x.shape}", f"{x.nbytes:,} bytes, for all panels"])
    for tile in range(ROW_BLOCK // TILE_ROWS):
        canvas.rect(258, TOP + 230 + 10 * tile, 110, 10, ORANGE if tile == 0 else LIGHT_ORANGE)
    canvas.line(372, TOP + 235, 488, TOP + 235, arrow=True)
    canvas.lines(376, TOP + 256, [f"{TILE_ROWS} rows:", "one tile"])
    canvas.lines(258, TOP + 340, [f"hidden {hidden.shape}", f"{hidden.nbytes:,} bytes: the result"])
    canvas.rect(258, TOP + 370, 210, 80, PALE)
    canvas.rect(258 + 4.5 * SHOWN, TOP + 370, 4.5, 10, GREEN)
    canvas.text(274, TOP + 400, "green: where this tile goes")
    rows = x[:TILE_ROWS]
    canvas.lines(492, TOP + 200, [f"{TILE_ROWS} rows of x: {rows.shape}", f"{rows.nbytes:,} bytes"])
    canvas.rect(492, TOP + 230, 210, 36, LIGHT_ORANGE)
    canvas.rect(492, TOP + 230, 8, 36, ORANGE)
    canvas.text(508, TOP + 253, "one number of each row a step")
    canvas.line(706, TOP + 248, 722, TOP + 248, arrow=True)


def _draw_registers(canvas: Canvas) -> None:
    left, top, cell = 800, TOP + 122, 84
    vectors = TILE_WIDTH // LANES
    canvas.text(726, TOP + 34, f"B: {vectors} registers, one row of the panel")
    canvas.text(726, TOP + 112, f"A: 1 register, a number in all {LANES} lanes")
    for v in range(vectors):
        canvas.rect(left + v * cell, TOP + 64, cell - 6, 24, BLUE)
        canvas.text(left + v * cell + 39, TOP + 80, f"{LANES} outputs", anchor="middle", colour="#ffffff")
    for row in range(TILE_ROWS):
        y = top + row * 20
        canvas.text(726, y + 14, f"row {row}")
        canvas.rect(left - 24, y, 16, 18, ORANGE)
        for v in range(vectors):
            canvas.rect(left + v * cell, y, cell - 6, 18, LIGHT_GREEN, GREEN)
    sums = TILE_ROWS * vectors
    canvas.lines(726, top + TILE_ROWS * 20 + 18, [
        f"C: {sums} registers of sums, {sums * 4 * LANES:,} bytes;",
        f"{sums} + {vectors} + 1 = {sums + vectors + 1} of {REGISTERS} registers.",
        f"In each step, {vectors} loads, {TILE_ROWS} broadcasts",
        f"and {sums} multiply-adds of {LANES} numbers.",
        f"After {INPUTS} steps the sums are stored:",
        "a store for each register.",
    ])  # fmt: skip


def _draw_order(canvas: Canvas, panels: np.ndarray) -> None:
    """Show the numbers at the beginning of a panel, and their addresses."""
    canvas.text(
        16,
        602,
        f"The order in memory, from the beginning of panel {SHOWN} on: read from left to right, without a jump",
        14,
        bold=True,
    )
    base = panels.__array_interface__["data"][0]
    x = 16
    for k in range(3):
        row = panels[SHOWN, k]
        offset = row.__array_interface__["data"][0] - base
        canvas.text(x, 628, f"byte {offset:,}")
        for j, text in enumerate([_name(row[0]), _name(row[1]), "...", _name(row[-1])]):
            canvas.rect(x + 76 * j, 636, 76, 26, LIGHT_BLUE if k % 2 == 0 else "#ffffff", BLUE)
            canvas.text(x + 76 * j + 38, 653, text, font=MONO, anchor="middle")
        x += 4 * 76 + 12
    first, second = panels[SHOWN, 0, 0], panels[SHOWN, 1, 0]
    jump = panels[SHOWN, 0, 1] - first
    canvas.lines(16, 690, [
        f"In the file, {_name(first)} and {_name(second)} are neighbours, and {_name(panels[SHOWN, 0, 1])} lies"
        f" {int(jump) * 4:,} bytes further on. Packed, the {TILE_WIDTH} outputs that a tile computes at once",
        "are neighbours, and the next k follows. w[n,k] multiplies input k and adds to output n.",
        f"Loops, from outside: blocks of {ROW_BLOCK} rows; panels; tiles of {TILE_ROWS} rows; steps of k. The sums"
        " begin with the bias.",
    ])  # fmt: skip
