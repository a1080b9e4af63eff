"""The second picture: two pairs of different lengths, computed by two threads."""

from collections.abc import Sequence

import numpy as np
from numbert.engine.tokenization import lay_out, tokenize
from numbert.kernels.cpu.compiled import make_team
from numbert.kernels.cpu.isa import ISA, TILE_WIDTH
from numbert.kernels.cpu.workspace import Workspace
from numbert.loaders.checkpoint import load_checkpoint
from svg import GREY, INK, LIGHT_BLUE, LIGHT_ORANGE, LINE, ORANGE, PALE, PAPER, Canvas

QUERY = "How many people live in Berlin?"
PAIRS = [
    (QUERY, "Berlin is subdivided into 12 boroughs or districts."),
    (QUERY, "Berlin is well known for its museums."),
]
LIGHT = (LIGHT_BLUE, LIGHT_ORANGE)  # of each thread
ROW, TOP = 17, 150  # height of a token, and where the first one is
TOKENS, X, QKV, MEETING, CONTEXT = 42, 172, 272, 762, 862  # left edges
SLAB, GAP = 34, 5  # a head's matrix, and what is between two
EXAMPLE_HEAD = 1


def draw() -> str:
    """Return the picture."""
    with load_checkpoint(None) as checkpoint:
        tokenizer, spec = checkpoint.tokenizer, checkpoint.spec
        tokens = lay_out(tokenize(PAIRS, tokenizer, 512), tokenizer.template, spec)
        words = [tokenizer.tokenizer.id_to_token(int(id)) or "" for id in tokens.ids]
    total, width = len(words), spec.hidden_size // spec.num_heads
    team = make_team(2)
    shares = [member.rows_of(total) for member in team]
    qkv = team[0].take_shared("query_key_value", 3 * spec.num_heads, total + TILE_WIDTH, width)
    description = (
        f"Two pairs of {' and '.join(str(n) for n in np.diff(tokens.offsets))} tokens lie end to end, {total} rows"
        f" without padding. Thread 0 computes rows {shares[0][0]} to {shares[0][1] - 1}, thread 1 the rest. Each writes"
        f" its rows of queries, keys and values, an array of {qkv.shape}; both meet; then each computes the attention"
        " of its own queries over all keys and values of the pair, whoever wrote them."
    )
    canvas = Canvas(TOP + (total + 3) * ROW + 112, "A ragged batch of two pairs, computed by two threads", description)
    _draw_heads_of_columns(canvas, qkv, total, spec.hidden_size, spec.num_heads)
    _draw_rows(canvas, words, shares, spec.num_heads)
    _draw_pairs(canvas, tokens.offsets)
    _draw_meeting(canvas, team, total)
    _draw_example(canvas, tokens.offsets, shares[1][0], spec.num_heads)
    return canvas.finish()


def _slab_at(slab: int, heads: int) -> float:
    return QKV + slab * (SLAB + GAP) + slab // heads * 6


def _draw_heads_of_columns(canvas: Canvas, qkv: np.ndarray, total: int, hidden: int, heads: int) -> None:
    canvas.text(20, 30, "A ragged batch of two pairs, computed by two threads", 18, bold=True)
    canvas.lines(20, 54, [
        f"Embedded model: C = {hidden}, H = {heads} heads of D = {qkv.shape[2]}; one attention block of a layer before"
        f" the last. Rows as {ISA.name} divides them.",
        f"query_key_value is one array (3H, T + {TILE_WIDTH}, D) = {qkv.shape}, float32, {qkv.nbytes:,} bytes, which"
        " both threads see.",
    ])  # fmt: skip
    canvas.text(TOKENS + 50, TOP - 26, "tokens", bold=True, anchor="middle")
    canvas.lines(X + 40, TOP - 26, ["x", f"({total}, {hidden})"], anchor="middle", bold=True)
    for part, name in enumerate(("queries", "keys", "values")):
        left, right = _slab_at(part * heads, heads), _slab_at((part + 1) * heads - 1, heads) + SLAB
        canvas.text((left + right) / 2, TOP - 26, name, bold=True, anchor="middle")
        for head in range(heads):
            at = _slab_at(part * heads + head, heads) + SLAB / 2
            canvas.text(at, TOP - 8, f"{'QKV'[part]}{head}", anchor="middle")
    canvas.lines(CONTEXT + 50, TOP - 26, ["context", f"({total}, {hidden})"], anchor="middle", bold=True)


def _draw_rows(canvas: Canvas, words: Sequence[str], shares: Sequence[tuple[int, int]], heads: int) -> None:
    """Draw each token's row of every array in the colour of its thread, and what is said below."""
    for thread, (first, last) in enumerate(shares):
        for row in range(first, last):
            y = TOP + row * ROW
            canvas.rect(TOKENS, y, 100, ROW, LIGHT[thread], GREY, 0.5)
            canvas.text(TOKENS + 6, y + 13, words[row])
            for slab in range(3 * heads):
                canvas.rect(_slab_at(slab, heads), y, SLAB, ROW, LIGHT[thread], GREY, 0.5)
        for left, across in ((X, 80), (CONTEXT, 100)):
            canvas.rect(left, TOP + first * ROW, across, (last - first) * ROW, LIGHT[thread], GREY, 0.5)
        middle = TOP + (first + last) / 2 * ROW + 4
        canvas.text(X + 40, middle - LINE, f"thread {thread}", anchor="middle", bold=True)
        canvas.text(X + 40, middle, f"rows {first}", anchor="middle")
        canvas.text(X + 40, middle + LINE, f"to {last - 1}", anchor="middle")
        canvas.text(CONTEXT + 50, middle, f"thread {thread}", anchor="middle", bold=True)
    end = TOP + len(words) * ROW
    for slab in range(3 * heads):
        canvas.rect(_slab_at(slab, heads), end, SLAB, 2 * ROW, PALE, GREY, 0.5)
    canvas.text(
        _slab_at(0, heads),
        end + 2 * ROW + 16,
        f"{TILE_WIDTH} further rows: tiles of keys may read into them; their products do not count.",
    )


def _draw_pairs(canvas: Canvas, offsets: np.ndarray) -> None:
    """Draw where pairs begin and end."""
    for pair in range(len(offsets) - 1):
        first, last = (TOP + int(offset) * ROW for offset in offsets[pair : pair + 2])
        canvas.rect(TOKENS - 14, first + 2, 6, last - first - 4, INK)
        canvas.text(TOKENS - 18, first + 13, f"{offsets[pair]}", anchor="end")
        canvas.line(TOKENS - 14, last, CONTEXT + 100, last, thickness=2)
    canvas.text(TOKENS - 18, TOP + int(offsets[-1]) * ROW + 13, f"{offsets[-1]}", anchor="end")
    canvas.text(TOKENS - 30, TOP + int(offsets[-1]) * ROW + 2 * ROW + 16, f"offsets: {', '.join(map(str, offsets))}")


def _draw_meeting(canvas: Canvas, team: Sequence[Workspace], total: int) -> None:
    """Draw the one place in a layer where threads wait for each other."""
    canvas.rect(MEETING, TOP - 8, 14, total * ROW + 16, INK)
    canvas.lines(MEETING + 7, TOP - 43, ["workspace", ".meet()"], anchor="middle", bold=True)
    border = TOP + team[0].rows_of(total)[1] * ROW
    canvas.line(TOKENS - 14, border, CONTEXT + 100, border, dashed=True, thickness=2.5, colour=ORANGE)


def _draw_example(canvas: Canvas, offsets: np.ndarray, first: int, heads: int) -> None:
    """Mark what one tile of thread 1 reads that thread 0 has written."""
    pair = int(np.searchsorted(offsets, first, side="right")) - 1
    begin, end = int(offsets[pair]), int(offsets[pair + 1])
    rows = min(ISA.tile_rows, end - first)
    for part, (top, count) in enumerate([(first, rows), (begin, end - begin), (begin, end - begin)]):
        at = _slab_at(part * heads + EXAMPLE_HEAD, heads)
        canvas.rect(at, TOP + top * ROW, SLAB, count * ROW, "none", INK, 3)
    y = TOP + first * ROW + rows * ROW / 2
    canvas.line(MEETING + 16, y, CONTEXT - 2, y, arrow=True)
    canvas.lines(MEETING + 22, y - 10, ["attend"])
    canvas.rect(CONTEXT + 100 / heads * EXAMPLE_HEAD, TOP + first * ROW, 100 / heads, rows * ROW, "none", INK, 3)
    below = TOP + int(offsets[-1]) * ROW + 2 * ROW + 44
    written = max(0, first - begin)
    canvas.rect(24, below + 2, 18, 14, PAPER, INK, 3)
    canvas.lines(52, below + 14, [
        f"One tile of attention, head {EXAMPLE_HEAD}: thread 1 computes rows {first} to {first + rows - 1}, of pair"
        f" {pair}. They ask all {end - begin} keys and values",
        f"of the pair, rows {begin} to {end - 1}. Thread 0 has written {written} of these: so both meet between"
        " projecting and attending, once a layer.",
        "No row asks one of the other pair, and nothing is padded: where a pair ends, the next begins.",
        f"Shares begin at multiples of {ISA.tile_rows // 2} rows, half a tile; threads (dashed line) and pairs (solid"
        " line) need no common border.",
    ])  # fmt: skip
