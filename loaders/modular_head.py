"""The modules behind an encoder, as sentence-transformers keeps them, each in a folder: a pooling and steps of a head.

They hand on features by name: Pooling makes "sentence_embedding", the others change it, and the last one, a Dense,
makes "scores" of it. Source: `sentence_transformers.base.modules` and `sentence_transformers.sentence_transformer.
modules` of sentence-transformers 6.2.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from .errors import ConfigError, shown
from .files import ModelFiles
from .modules import CONFIG, FILES_OF, MODULES, Module
from .names import TensorTable, step_table
from .spec import Config, HeadStep, LinearStep, ModelSpec, NormStep, ResidualStep

POOLINGS = {
    "cls": "first",
    "mean": "mean",
    "max": "max",
    "mean_sqrt_len_tokens": "mean_sqrt",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
OLD_POOLINGS = {  # a flag for each
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
WIDTHS = ("embedding_dimension", "word_embedding_dimension")  # the newer and the older name
STEPS = {"Tanh": "tanh", "GELU": "gelu", "ReLU": "relu", "SiLU": "silu", "Sigmoid": "sigmoid"}
ACTIVATIONS = {
    path: step for name, step in STEPS.items() for path in (f"torch.nn.modules.activation.{name}", f"torch.nn.{name}")
} | dict.fromkeys(("torch.nn.modules.linear.Identity", "torch.nn.Identity"))
TANH = "torch.nn.modules.activation.Tanh"
EPS = 1e-5  # of torch.nn.LayerNorm
EMBEDDING, SCORES = "sentence_embedding", "scores"
MOST_OUTPUTS = 4096  # labels


class Part(NamedTuple):
    """What a module is."""

    steps: tuple[HeadStep, ...]
    table: TensorTable  # of the file in its folder
    width: int  # of the rows that come out
    gives_scores: bool = False


def read_head(
    files: ModelFiles, modules: tuple[Module, ...], spec: ModelSpec
) -> tuple[ModelSpec, dict[str, TensorTable]]:
    """Put the modules behind an encoder into its spec; return that, and the tensors of each folder that has any.

    Raises
    ------
    ConfigError
        When a module is set to do what is not understood here, or the modules do not fit each other.
    """
    pooling, *others = modules
    mode = read_pooling(_settings(files, pooling), spec.hidden_size)
    steps: tuple[HeadStep, ...] = ()
    tables: dict[str, TensorTable] = {}
    width, scores = spec.hidden_size, False
    for place, module in enumerate(others, 1):
        if scores:
            raise ConfigError(
                f"{files.folder / MODULES}: found {module.kind} behind the Dense that makes {SCORES!r}, expected that"
                " one to be the last; choose another model"
            )
        part = READERS[module.kind](_settings(files, module), f"head.{place}", width)
        steps += part.steps
        width, scores = part.width, part.gives_scores
        if part.table:
            tables[module.folder] = part.table
    if not scores:
        raise ConfigError(
            f"{files.folder / MODULES}: found no Dense whose module_output_name is {SCORES!r}, expected the last module"
            " to be one; choose a cross-encoder"
        )
    return replace(spec, pooling=mode, head=steps, num_labels=width), tables


def _settings(files: ModelFiles, module: Module) -> Config:
    """Read a module's config.json, which a Normalize need not have; git does not even keep its folder then."""
    needed = CONFIG in FILES_OF[module.kind]
    if not needed and module.folder not in files:
        return Config(files.folder / module.folder / CONFIG, {})
    inside = files.inside(module.folder)
    return Config.read(inside, CONFIG) if needed else Config.read_if_there(inside, CONFIG)


def read_pooling(config: Config, width: int) -> str:
    """Return how the rows of a pair become one."""
    _check_keys(config, (*WIDTHS, "pooling_mode", *OLD_POOLINGS, "include_prompt"))
    for key in [key for key in WIDTHS if key in config.values] or WIDTHS[:1]:
        _check_width(config, key, width)
    if not config.flag("include_prompt", True):
        raise config.error("include_prompt", False, "true, as the tokens of a prompt are not told from others")
    modes = config.values.get("pooling_mode")
    if "pooling_mode" not in config.values:
        modes = [mode for key, mode in OLD_POOLINGS.items() if config.flag(key, False)] or ["mean"]
    if isinstance(modes, str):
        modes = [modes]
    if not isinstance(modes, list) or len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in POOLINGS:
        raise config.error("pooling_mode", modes, f"one of {list(POOLINGS)}")
    return POOLINGS[modes[0]]


def read_dense(config: Config, name: str, width: int) -> Part:
    """activation(linear(x)), and x added to it where there is a residual."""
    keys = ("in_features", "out_features", "bias", "activation_function", "use_residual")
    _check_keys(config, (*keys, "module_input_name", "module_output_name"))
    _check_width(config, "in_features", width)
    outputs = config.integer("out_features")
    linear = LinearStep(f"{name}.linear", width, outputs, config.flag("bias", True))
    config.require("activation_function", TANH, tuple(ACTIVATIONS), "the activations that are implemented")
    activation = ACTIVATIONS[config.values.get("activation_function", TANH)]
    table = step_table(linear, "linear")
    steps: tuple[HeadStep, ...] = (linear,) if activation is None else (linear, activation)
    if config.flag("use_residual", False):
        shortcut = None if width == outputs else LinearStep(f"{name}.residual", width, outputs, bias=False)
        steps = (ResidualStep(steps, shortcut),)
        table |= {} if shortcut is None else step_table(shortcut, "residual")
    _check_input(config)
    output = _output_name(config, (EMBEDDING, SCORES))
    if output == SCORES and outputs > MOST_OUTPUTS:
        raise config.error("out_features", outputs, f"at most {MOST_OUTPUTS} scores")
    return Part(steps, table, outputs, output == SCORES)


def read_norm(config: Config, name: str, width: int) -> Part:
    """LayerNorm."""
    _check_keys(config, ("dimension",))
    _check_width(config, "dimension", width)
    step = NormStep(f"{name}.norm", width, EPS, bias=True)
    return Part((step,), step_table(step, "norm"), width)


def read_normalize(config: Config, name: str, width: int) -> Part:
    """Rows are brought to length 1."""
    _check_keys(config, ("module_input_name", "module_output_name"))
    _check_input(config)
    _output_name(config, (EMBEDDING,))
    return Part(("normalize",), {}, width)


READERS: dict[str, Callable[[Config, str, int], Part]] = {
    "Dense": read_dense,
    "LayerNorm": read_norm,
    "Normalize": read_normalize,
}


def _check_keys(config: Config, known: tuple[str, ...]) -> None:
    for key in config.values:
        if key not in known:
            raise config.error(shown(key), config.values[key], "no such setting")


def _check_width(config: Config, key: str, width: int) -> None:
    value = config.integer(key)
    if value != width:
        raise config.error(key, value, f"{width}, the width of what comes in")


def _check_input(config: Config) -> None:
    config.require("module_input_name", EMBEDDING, (EMBEDDING,), "what the module before it makes")


def _output_name(config: Config, allowed: tuple[str, ...]) -> str:
    """Return the name of what a module makes; where none is given, that of what it reads."""
    config.require("module_output_name", None, (*allowed, None), "what other modules read")
    return config.values.get("module_output_name") or EMBEDDING
