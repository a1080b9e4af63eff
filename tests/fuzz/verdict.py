"""What a case can come to."""


class Refusable(Exception):
    """The files must be refused: whatever is computed from them is the score of another model."""


class Unsure(Exception):
    """There is no second opinion on these files."""


class Failed(Exception):
    """A promise is broken; the first word of the message says which: stranger, wrong, silent, memory ..."""
