"""What can be wrong with a call. Every message names the place, what was found, what was expected, and a way out."""

from ..loaders.errors import NumbertError


class InputError(NumbertError, ValueError):
    """An input has the wrong form or value."""


class InputTypeError(NumbertError, TypeError):
    """An input has the wrong type."""


class NonFiniteScoreError(NumbertError, ArithmeticError):
    """A pair's logits are infinite or not a number, or an activation makes of them what is not a number."""


class ParityError(NumbertError, ArithmeticError):
    """A model computes something else here than it should."""


class BackendError(NumbertError, RuntimeError):
    """The chosen backend cannot run on this machine."""


class SaveError(NumbertError, OSError):
    """A model cannot be written to a folder; what stood there before still does."""
