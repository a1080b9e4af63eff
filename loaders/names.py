"""From a spec to the tensors that must be there: the canonical name of each, its name in the file, and its shape.

A family's file has a dict from canonical names to its own, both without the ".weight" and ".bias" at the end:

    "layers.{i}.attention.query": "model.layers.{i}.attn.Wqkv[0/3]"

{i} is the number of a layer, {next} the one after it; a canonical name with {last} is for the last layer, where it goes
before that with {i}. [0/3] is the first third of a tensor's rows.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .spec import HeadStep, LinearStep, ModelSpec, NormStep, ResidualStep

Names = Mapping[str, str]
ROWS = re.compile(r"\[(\d+)/(\d+)\]$")


class Source(NamedTuple):
    """Where a tensor is to be found: some of the rows of one in the file."""

    name: str
    shape: tuple[int, ...]  # of the whole tensor in the file
    part: int = 0
    parts: int = 1  # equal ones, into which its rows are divided


TensorTable = dict[str, Source]  # by canonical name


def tensor_table(spec: ModelSpec, names: Names) -> TensorTable:
    """Return every tensor that a model needs of the file with its encoder, and of its head what has a name there."""
    table: TensorTable = {}
    rows = {
        "word": spec.vocab_size,
        "position": spec.max_positions if spec.has_position_table else 0,
        "token_type": spec.num_token_types,
    }
    for part, count in rows.items():
        if count:
            table[f"embedding.{part}"] = Source(f"{names[f'embedding.{part}']}.weight", (count, spec.embedding_size))
    if spec.relative_buckets:
        table["relative_bias"] = Source(f"{names['relative_bias']}.weight", (spec.relative_buckets, spec.num_heads))
    table |= _with_bias("embedding.norm", names["embedding.norm"], (spec.embedding_size,), spec.biases.norms)
    if spec.embedding_size != spec.hidden_size:
        table |= _with_bias("projection", names["projection"], (spec.hidden_size, spec.embedding_size), True)
    for i in range(spec.num_layers):
        for part, shape, bias in _layer_parts(spec):
            table |= _with_bias(f"layers.{i}.{part}", _name_in_layer(names, part, i, spec.num_layers), shape, bias)
    for step in tensors_of_head(spec.head):
        if step.name in names:
            table |= step_table(step, names[step.name])
    return table


def without_head(names: Names, ignored: tuple[str, ...]) -> tuple[Names, tuple[str, ...]]:
    """Return what a file with nothing but the encoder calls its tensors, and how those begin that it may have besides.

    Its names lack the first word, and there may be a pooler, which only transformers' own head would have used.
    """
    base = names["embedding.word"].partition(".")[0] + "."
    encoder = {ours: name.removeprefix(base) for ours, name in names.items() if not ours.startswith("head.")}
    poolers = [f"{name}." for ours, name in names.items() if ours.startswith("head.") and name.startswith(base)]
    return encoder, tuple(name.removeprefix(base) for name in (*ignored, *poolers))


def tensors_of_head(steps: tuple[HeadStep, ...]) -> Iterator[LinearStep | NormStep]:
    """Yield the steps that have tensors."""
    for step in steps:
        if isinstance(step, ResidualStep):
            yield from tensors_of_head(step.steps)
            if step.shortcut is not None:
                yield step.shortcut
        elif not isinstance(step, str):
            yield step


def step_table(step: LinearStep | NormStep, name: str) -> TensorTable:
    """Return the tensors of a step of the head, whose name in the file is given."""
    shape = (step.width,) if isinstance(step, NormStep) else (step.outputs, step.inputs)
    return _with_bias(step.name, name, shape, step.bias)


def _layer_parts(spec: ModelSpec) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Yield name, shape and whether there is a bias, of what each layer has."""
    c, f, biases = spec.hidden_size, spec.intermediate_size, spec.biases
    for part in ("query", "key", "value", "output"):
        yield f"attention.{part}", (c, c), biases.attention
    yield "attention.norm", (c,), biases.norms
    for part in ("up", "gate") if spec.gated else ("up",):
        yield f"feed_forward.{part}", (f, c), biases.feed_forward
    yield "feed_forward.down", (c, f), biases.feed_forward
    yield "feed_forward.norm", (c,), biases.norms


def _name_in_layer(names: Names, part: str, i: int, num_layers: int) -> str:
    pattern = names[f"layers.{{i}}.{part}"]
    if i == num_layers - 1:
        pattern = names.get(f"layers.{{last}}.{part}", pattern)
    return pattern.format(i=i, next=i + 1)


def _with_bias(ours: str, theirs: str, shape: tuple[int, ...], bias: bool) -> TensorTable:
    """Return the tensors of a linear layer, whose shape has two sizes, or of a norm, whose shape has one."""
    match = ROWS.search(theirs)
    part, parts = (int(match[1]), int(match[2])) if match else (0, 1)
    name, whole = ROWS.sub("", theirs), (shape[0] * parts, *shape[1:])
    table = {f"{ours}.{'weight' if len(shape) == 2 else 'gain'}": Source(f"{name}.weight", whole, part, parts)}
    if bias:
        table[f"{ours}.bias"] = Source(f"{name}.bias", whole[:1], part, parts)
    return table
