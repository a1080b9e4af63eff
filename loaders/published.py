"""The folder of a model as it was published becomes a specification, checked weights and a tokenizer.

modules       modules.json: is it a model that is computed here?
modular_head  the folders of modules behind an encoder -> steps of a head
spec          config.json -> ModelSpec; bert, modernbert and their like hold what differs between families
remote        families whose folders bring code, which is not run
names         the tensors that a spec promises
tensors       safetensors files -> weights under canonical names
tokenizer     tokenizer.json or vocab.txt -> token ids of a text
"""

from types import ModuleType
from typing import NamedTuple

from . import (
    albert,
    bert,
    deberta,
    deberta_v1,
    distilbert,
    electra,
    gte,
    modernbert,
    mpnet,
    nomic_bert,
    remote,
    roberta,
)
from .files import ModelFiles
from .modular_head import read_head
from .modules import SETTINGS, Chain, read_modules
from .names import Names, tensor_table, without_head
from .spec import Config, ModelSpec
from .tensors import Headers, Weights, open_weights, read_headers
from .tokenizer import PairTemplate, PairTokenizer, check_template, load_tokenizer

MODULES = (bert, roberta, electra, distilbert, mpnet, modernbert, deberta, deberta_v1, albert, nomic_bert, gte)
FAMILIES: dict[str, ModuleType] = {model_type: module for module in MODULES for model_type in module.ARCHITECTURES}
HEAD = "ForSequenceClassification"  # ends the names of transformers' classes
OF_HEAD = ("id2label", "num_labels", "classifier_")  # how keys of config.json begin that say something of a head


class Published(NamedTuple):
    """What a folder's own files say of a model."""

    spec: ModelSpec
    weights: Weights
    tokenizer: PairTokenizer
    config: Config
    chain: Chain


def read_published(files: ModelFiles) -> Published:
    """Read and check all but the numbers of the weights.

    Raises
    ------
    ModelNotFoundError, ConfigError, WeightsError, TokenizerError
        When anything is not as it must be.
    """
    chain = read_modules(files)
    config, headers = Config.read(files, "config.json"), read_headers(files)
    family = _family(config, headers, has_head=not chain.behind)
    if chain.behind:
        spec, weights = _read_modular(files, chain, config, headers, family)
    else:
        spec, weights = _read_whole(config, headers, family)
    tokenizer = load_tokenizer(files, spec.vocab_size, spec.num_token_types)
    check_template(config, spec, tokenizer.template)
    if chain.longest is not None:
        tokenizer = tokenizer._replace(max_length=_check_length(files, chain.longest, tokenizer.template))
    return Published(spec, weights, tokenizer, config, chain)


def _read_whole(config: Config, headers: Headers, family: ModuleType) -> tuple[ModelSpec, Weights]:
    """Read a model with a head of its own."""
    if family in remote.MODULES:
        config = _with_labels(config, headers, family.NAMES)
    spec: ModelSpec = family.read_spec(config)
    return spec, open_weights(headers, tensor_table(spec, family.NAMES), family.IGNORED)


def _with_labels(config: Config, headers: Headers, names: Names) -> Config:
    """Let the last layer say how many logits there are where config.json does not, as that of some models."""
    last = headers.tensors.get(f"{names['head.output']}.weight")
    if last is None or not last.shape or not {"id2label", "num_labels"}.isdisjoint(config.values):
        return config
    return Config(config.path, {**config.values, "num_labels": last.shape[0]})


def _read_modular(
    files: ModelFiles, chain: Chain, config: Config, headers: Headers, family: ModuleType
) -> tuple[ModelSpec, Weights]:
    """Read an encoder and the modules behind it; what config.json says of a head means nothing then."""
    of_encoder = {key: value for key, value in config.values.items() if not key.startswith(OF_HEAD)}
    spec, tables = read_head(files, chain.behind, family.read_spec(Config(config.path, of_encoder)))
    names, ignored = without_head(family.NAMES, family.IGNORED)
    weights = open_weights(headers, tensor_table(spec, names), ignored)
    for folder, table in tables.items():
        weights |= open_weights(read_headers(files.inside(folder)), table, ())
    return spec, weights


def _family(config: Config, headers: Headers, *, has_head: bool) -> ModuleType:
    """Return the module that knows this architecture."""
    family, model_type = remote.recognise(config, headers.tensors), config.values.get("model_type")
    if family is None:
        remote.refuse_unknown_code(config)
        if not isinstance(model_type, str) or model_type not in FAMILIES:
            raise config.error("model_type", model_type, f"one of {sorted(FAMILIES)}")
        family = FAMILIES[model_type]
    architectures = config.values.get("architectures")
    expected, kind = family.ARCHITECTURES[model_type], "with a classification head"
    if not has_head:
        expected, kind = f"{expected.removesuffix(HEAD)}Model", "without a head, as modules.json has one"
    if architectures is not None and architectures != [expected]:
        raise config.error("architectures", architectures, f"['{expected}'], a model {kind}")
    return family


def _check_length(files: ModelFiles, longest: int, template: PairTemplate) -> int:
    """Refuse a length that leaves no token for text; the tokenizers library would then cut nothing off at all."""
    if longest <= template.num_special:
        config = Config(files.folder / SETTINGS, {})
        raise config.error("max_seq_length", longest, f"more than the {template.num_special} special tokens of a pair")
    return longest
