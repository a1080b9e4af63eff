"""What can be wrong with a checkpoint. Each message names the file, what was found, what was expected, a way out."""


class NumbertError(Exception):
    """Base of all errors that numbert defines."""


class ModelNotFoundError(NumbertError, FileNotFoundError):
    """No such folder or hub model, or a file that a model must have is missing."""


class ModelIsFileError(ModelNotFoundError, NotADirectoryError):
    """A file was named where the folder of a model must be."""


class ConfigError(NumbertError, ValueError):
    """A configuration file cannot be read, contradicts itself, or asks for something that numbert does not compute."""


class WeightsError(NumbertError, ValueError):
    """A weights file is damaged, or its tensors are not those that the configuration promises."""


class ModelChangedError(NumbertError, RuntimeError):
    """A model's files changed while they were read; what was read may be of two models, and is thrown away."""


class TokenizerError(NumbertError, ValueError):
    """A tokenizer file is missing, damaged, or does not fit the model."""


def shown(text: str) -> str:
    """Return a text of a stranger's for a message: short, and without characters that move a terminal's cursor."""
    return text[:200].encode("unicode_escape").decode()
