"""What a case can come to."""


class Refusable(Exception):  # noqa: N818  # a verdict, no error
    """The files must be refused: whatever is computed from them is the score of another model."""


class Unsure(Exception):  # noqa: N818  # a verdict, no error
    """There is no second opinion on these files."""


class Failed(Exception):  # noqa: N818  # a verdict, no error
    """A promise is broken; the first word of the message says which: stranger, wrong, silent, memory ..."""
