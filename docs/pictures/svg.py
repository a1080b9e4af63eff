"""Shapes and words as SVG: as much of it as the pictures need."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

WIDTH = 1000
INK, GREY, PALE, PAPER = "#1a1a1a", "#767676", "#ececec", "#ffffff"
# Of Okabe and Ito's palette, which readers of all kinds of colour vision can tell apart; and the same two, light.
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
LIGHT_BLUE, LIGHT_ORANGE, LIGHT_GREEN, YELLOW = "#cce5f6", "#fbdcc4", "#cdeee3", "#fff3b0"
SMALLEST_TEXT = 12
LINE = 17  # from one line of text to the next
SANS, MONO = "Helvetica, Arial, 'DejaVu Sans', sans-serif", "'DejaVu Sans Mono', Menlo, Consolas, monospace"
ADVANCE = {SANS: 0.57, MONO: 0.61}  # width of a character, in sizes of the text: of wide fonts, on average


class Canvas:
    """A picture in the making, WIDTH wide.

    Parameters
    ----------
    height : int
    title, description : str
        What screen readers say.
    """

    def __init__(self, height: int, title: str, description: str) -> None:
        self.height = height
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
            ' role="img" aria-labelledby="title description">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="description">{escape(description)}</desc>',
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"'
            f' orient="auto"><path d="M0 0L10 5L0 10z" fill="{INK}"/></marker></defs>',
        ]
        self.rect(0, 0, WIDTH, height, PAPER, stroke=None)

    def rect(
        self, x: float, y: float, width: float, height: float, fill: str = "none", stroke: str | None = INK,
        thickness: float = 1,
    ) -> None:  # fmt: skip
        """Draw a rectangle."""
        border = f' stroke="{stroke}" stroke-width="{thickness:g}"' if stroke else ""
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}"{border}/>')

    def text(
        self, x: float, y: float, words: str, size: int = SMALLEST_TEXT, font: str = SANS, anchor: str = "start",
        bold: bool = False, colour: str = INK,
    ) -> None:  # fmt: skip
        """Write a line of text on the base line y.

        Raises
        ------
        ValueError
            When it would be too small to read, or run out of the picture.
        """
        length = len(words) * size * ADVANCE[font]
        left = x - length * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        if size < SMALLEST_TEXT or left < 0 or left + length > WIDTH or y > self.height:
            raise ValueError(f"{words!r} at {x:g}, {y:g}: {size} high, from {left:.0f} to {left + length:.0f}")
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-family="{font}" text-anchor="{anchor}" fill="{colour}"'
            f'{weight} xml:space="preserve">{escape(words)}</text>'
        )

    def lines(self, x: float, y: float, words: Sequence[str], anchor: str = "start", bold: bool = False) -> None:
        """Write lines of text, the first on the base line y."""
        for i, line in enumerate(words):
            self.text(x, y + i * LINE, line, anchor=anchor, bold=bold)

    def code(self, x: float, y: float, width: float, code: Sequence[str], marked: str) -> float:
        """Draw a box of code in which the lines that hold `marked` stand out; return where it ends."""
        height = len(code) * LINE + 10
        self.rect(x, y, width, height, "#f7f7f7", GREY)
        for i, line in enumerate(code):
            if marked in line:
                self.rect(x + 1, y + 5 + i * LINE, width - 2, LINE, YELLOW, stroke=None)
            self.text(x + 8, y + 18 + i * LINE, line, font=MONO)
        return y + height

    def line(
        self, x: float, y: float, to_x: float, to_y: float, arrow: bool = False, dashed: bool = False,
        thickness: float = 1.5, colour: str = INK,
    ) -> None:  # fmt: skip
        """Draw a straight line."""
        more = (' marker-end="url(#head)"' if arrow else "") + (' stroke-dasharray="6 4"' if dashed else "")
        ends = f'x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y:g}"'
        self.parts.append(f'<line {ends} stroke="{colour}" stroke-width="{thickness:g}"{more}/>')

    def finish(self) -> str:
        """Return the picture."""
        return "\n".join([*self.parts, "</svg>\n"])
