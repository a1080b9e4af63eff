"""Rank passages with cross-encoder transformers in Python, NumPy and Numba alone.

>>> from numbert import CrossEncoder
>>> model = CrossEncoder()  # the small model that comes with numbert; give a folder or a hub id for another
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine.cross_encoder import CrossEncoder
    from .engine.errors import (
        BackendError,
        InputError,
        InputTypeError,
        NonFiniteScoreError,
        ParityError,
        SaveError,
    )
    from .loaders.errors import (
        ConfigError,
        ModelChangedError,
        ModelIsFileError,
        ModelNotFoundError,
        NumbertError,
        TokenizerError,
        WeightsError,
    )

__version__ = "0.1.0"
__all__ = [
    "BackendError",
    "ConfigError",
    "CrossEncoder",
    "InputError",
    "InputTypeError",
    "ModelChangedError",
    "ModelIsFileError",
    "ModelNotFoundError",
    "NonFiniteScoreError",
    "NumbertError",
    "ParityError",
    "SaveError",
    "TokenizerError",
    "WeightsError",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: ``import numbert`` itself takes no time."""
    if name == "CrossEncoder":
        from .engine.cross_encoder import CrossEncoder

        return CrossEncoder
    if name in __all__:
        from .engine import errors as engine_errors
        from .loaders import errors as loader_errors

        return getattr(engine_errors, name, None) or getattr(loader_errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
