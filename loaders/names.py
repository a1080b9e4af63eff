"""From a spec to the tensors that must be there: the canonical name of each, its name in the file, and its shape.

A family's file has a dict from canonical names to its own:

    "layers.{i}.attention.query": "model.layers.{i}.attn.Wqkv[0/3]"

{i} is the number of a layer, {next} the one after it; a canonical name with {last} is for the last layer, where it goes
before that with {i}. Where layers with weights are in groups, {group} and {inner} are the numbers of the group, and of
the layer in it. [0/3] is the first third of a tensor's rows; [0/3 of heads] the first third of the rows of each head.
Names are without the ".weight" and ".bias" at the end, unless the file has others: then "..query.bias" has its own.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .spec import HeadStep, LinearStep, ModelSpec, NormStep, ResidualStep

Names = Mapping[str, str]
ROWS = re.compile(r"\[(\d+)/(\d+)( of heads)?\]$")


class Source(NamedTuple):
    """Where a tensor is to be found: some of the rows of one in the file."""

    name: str
    shape: tuple[int, ...]  # of the whole tensor in the file
    part: int = 0
    parts: int = 1  # equal ones, into which its rows are divided, or those of each of
    groups: int = 1  # that lie one after the other


TensorTable = dict[str, Source]  # by canonical name


def tensor_table(spec: ModelSpec, names: Names) -> TensorTable:
    """Return every tensor that a model needs of the file with its encoder, and of its head what has a name there."""
    table = _embedding_table(spec, names)
    if spec.relative_buckets:
        table["relative_bias"] = Source(f"{names['relative_bias']}.weight", (spec.relative_buckets, spec.num_heads))
    if spec.distance_rows is not None:
        rows = (2 * spec.distance_rows.span, spec.hidden_size)
        table["distances"] = Source(f"{names['distances']}.weight", rows)
        if spec.distance_rows.normed:
            table |= _with_bias("distances.norm", names["distances.norm"], (spec.hidden_size,), True)
    for i in range(spec.layers_with_weights or spec.num_layers):
        table |= _layer_table(spec, names, i)
    if spec.convolution is not None:
        c, width, groups = spec.hidden_size, spec.convolution.width, spec.convolution.groups
        table["convolution.weight"] = Source(f"{names['convolution']}.weight", (c, c // groups, width))
        table["convolution.bias"] = Source(f"{names['convolution']}.bias", (c,))
        table |= _with_bias("convolution.norm", names["convolution.norm"], (c,), True)
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


def _embedding_table(spec: ModelSpec, names: Names) -> TensorTable:
    table: TensorTable = {}
    rows = {
        "word": spec.vocab_size,
        "position": spec.max_positions if spec.has_position_table else 0,
        "token_type": spec.num_token_types,
    }
    for part, count in rows.items():
        if count:
            table[f"embedding.{part}"] = Source(f"{names[f'embedding.{part}']}.weight", (count, spec.embedding_size))
    width = spec.hidden_size if spec.projection == "before" else spec.embedding_size
    table |= _with_bias("embedding.norm", names["embedding.norm"], (width,), "embedding.norm" not in spec.without_bias)
    if spec.projection is not None:
        bias = "projection" not in spec.without_bias
        table |= _with_bias("projection", names["projection"], (spec.hidden_size, spec.embedding_size), bias)
    return table


def _layer_table(spec: ModelSpec, names: Names, i: int) -> TensorTable:
    group, inner = divmod(i, spec.layers_in_group)
    place = {"i": i, "next": i + 1, "group": group, "inner": inner}
    table: TensorTable = {}
    for part, shape in _layer_parts(spec):
        last = names.get(f"layers.{{last}}.{part}") if i == spec.num_layers - 1 else None
        pattern, ours = f"layers.{{i}}.{part}", f"layers.{i}.{part}"
        theirs = (last or names[pattern]).format(**place)
        table |= _with_bias(ours, theirs, shape, part not in spec.without_bias, spec.num_heads)
        if f"{ours}.bias" in table and f"{pattern}.bias" in names:
            table[f"{ours}.bias"] = Source(names[f"{pattern}.bias"].format(**place), shape[:1])
    return table


def _layer_parts(spec: ModelSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of what each layer has."""
    c, f = spec.hidden_size, spec.intermediate_size
    for part in ("query", "key", "value", "output"):
        yield f"attention.{part}", (c, c)
    if spec.distance_rows is not None and not spec.distance_rows.shared:
        for kind, part in (("c2p", "distance_key"), ("p2c", "distance_query")):
            if kind in spec.distance_rows.kinds:
                yield f"attention.{part}", (c, c)
    yield "attention.norm", (c,)
    for part in ("up", "gate") if spec.gated else ("up",):
        yield f"feed_forward.{part}", (f, c)
    yield "feed_forward.down", (c, f)
    yield "feed_forward.norm", (c,)


def _with_bias(ours: str, theirs: str, shape: tuple[int, ...], bias: bool, heads: int = 1) -> TensorTable:
    """Return the tensors of a linear layer, whose shape has two sizes, or of a norm, whose shape has one."""
    match = ROWS.search(theirs)
    part, parts, groups = (int(match[1]), int(match[2]), heads if match[3] else 1) if match else (0, 1, 1)
    name, whole = ROWS.sub("", theirs), (shape[0] * parts, *shape[1:])
    kind = "weight" if len(shape) == 2 else "gain"
    table = {f"{ours}.{kind}": Source(f"{name}.weight", whole, part, parts, groups)}
    if bias:
        table[f"{ours}.bias"] = Source(f"{name}.bias", whole[:1], part, parts, groups)
    return table
