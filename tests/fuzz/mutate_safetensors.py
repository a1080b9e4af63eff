"""Change a safetensors file: fields of its header, names, and the numbers of its tensors."""

import json
import math
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from decode import BYTES, split
from hostile import NUMBERS, Random, render, value
from mutate_json import mutate

Header = dict[str, Any]
EXTREMES = [
    float("nan"),
    float("inf"),
    float("-inf"),
    3.4e38,
    -3.4e38,
    1e20,
    1e10,
    1e4,
    1e-40,
    1e-45,
    -0.0,
    0.0,
    65504.0,
]


class Tensor(NamedTuple):
    """A tensor as it is stored."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def file(content: bytes, rng: Random) -> tuple[bytes, str]:
    """Return a changed file and a description."""
    change = rng.choice(CHANGES)
    content, what = change(content, rng)
    return content, f"{change.__name__.strip('_')}: {what}"


def take_apart(content: bytes) -> tuple[list[Tensor], Header]:
    """Return the tensors in the order of their data, and the header's metadata."""
    header, data = split(content)
    metadata = header.pop("__metadata__", {})
    entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    return [Tensor(n, e["dtype"], tuple(e["shape"]), data[slice(*e["data_offsets"])]) for n, e in entries], metadata


def put_together(tensors: list[Tensor], metadata: Any = None) -> bytes:
    """Write a valid file, whatever the tensors are."""
    header: Header = {} if metadata is None else {"__metadata__": metadata}
    at = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": (at, at + len(tensor.data)),
        }
        at += len(tensor.data)
    return with_header(json.dumps(header).encode(), b"".join(tensor.data for tensor in tensors))


def with_header(header: bytes, data: bytes) -> bytes:
    """Put the length in front."""
    return struct.pack("<Q", len(header)) + header + data


def _header_tree(content: bytes, rng: Random) -> tuple[bytes, str]:
    """Change the header as any JSON tree."""
    header, data = split(content)
    tree, what = mutate(header, rng, {"dtype": "BF16", "shape": [4, 4], "data_offsets": [0, 32]})
    return with_header(render(tree), data), what


def _one_field(content: bytes, rng: Random) -> tuple[bytes, str]:
    """Change one field of one entry; the data stay."""
    header, data = split(content)
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    shape, (start, stop) = entry["shape"], entry["data_offsets"]
    other = header[rng.choice([key for key in header if key != "__metadata__"])]
    key, new = rng.choice([
        ("dtype", rng.choice("F64 F16 BF16 I32 U8 F8_E4M3 F8_E5M2 F4 BOOL C64 f32 X".split())),
        ("shape", rng.choice([shape[::-1], [*shape, 1], [1, *shape], [math.prod(shape)], [], shape[:-1],
        other["shape"]])),
        ("shape", [rng.choice([0, -1, 10**15, 2**63, 2**64, *NUMBERS]) for _ in shape]),
        ("data_offsets", rng.choice([[start + 4, stop + 4], [start, stop - 4], [stop, start], [start],
        other["data_offsets"]])),
        ("data_offsets", [rng.choice(NUMBERS), rng.choice(NUMBERS)]),
        (rng.choice(["x", "dtype", "shape", "data_offsets"]), value(rng)),
    ])  # fmt: skip
    entry[key] = new
    return with_header(render(header), data), f"{name} {key} -> {new!r:.60}"


def _exchange_offsets(content: bytes, rng: Random) -> tuple[bytes, str]:
    """Let two tensors of one size change their places: valid, and another model."""
    header, data = split(content)
    groups: dict[Any, list[str]] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            groups.setdefault(str(entry["shape"]), []).append(name)
    pairs = [group for group in groups.values() if len(group) > 1]
    if not pairs:  # a shard may hold one tensor of each size only
        return _length(content, rng)
    one, two = rng.sample(rng.choice(pairs), 2)
    header[one]["data_offsets"], header[two]["data_offsets"] = header[two]["data_offsets"], header[one]["data_offsets"]
    return with_header(json.dumps(header).encode(), data), f"{one} and {two} exchanged"


def _names(content: bytes, rng: Random) -> tuple[bytes, str]:
    """Leave out, rename, double or add tensors in a file that is valid otherwise."""
    tensors, metadata = take_apart(content)
    at = rng.randrange(len(tensors))
    old = tensors[at]
    change = rng.randrange(6)
    if change == 0:
        del tensors[at]
    elif change == 1:
        new = rng.choice(
            [old.name.upper(), old.name + ".", "module." + old.name, "\ud800", "", "x" * 10_000, "__metadata__"]
        )
        new = rng.choice(
            [new, old.name.replace("LayerNorm.weight", "LayerNorm.gamma"), old.name.replace(".0.", ".00.")]
        )
        tensors[at] = old._replace(name=new)
    elif change == 2:
        tensors.append(
            old._replace(name=rng.choice(["extra", "cls.x", "lm_head.x", "vocab_x", old.name.replace(".0.", ".9.")]))
        )
    elif change == 3:
        tensors = [tensor._replace(name=tensor.name.partition(".")[2]) for tensor in tensors]
    elif change == 4:
        rng.shuffle(tensors)
    else:
        tensors += [Tensor(f"empty.{i}", "F32", (0, 10**15), b"") for i in range(rng.choice([1, 20_000]))]
    metadata = rng.choice([None, metadata, metadata, {"format": "pt", "x": "y" * 100_000}, value(rng)])
    return put_together(tensors, metadata), f"change {change} of {old.name}"


def _other_dtype(content: bytes, rng: Random) -> tuple[bytes, str]:
    """Store a tensor, or all of them, in another dtype: valid for floats, to be refused for integers."""
    tensors, metadata = take_apart(content)
    dtype = rng.choice(["F16", "BF16", "F32", "F64", "I32", "I8", "F8_E4M3"])
    chosen = range(len(tensors)) if rng.random() < 0.3 else [rng.randrange(len(tensors))]
    for at in chosen:
        size = int(BYTES[dtype] * math.prod(tensors[at].shape))
        data = (np.frombuffer(tensors[at].data, np.uint8).tobytes() * 8)[:size]
        if tensors[at].dtype == "F32" and dtype == "F16":
            data = np.frombuffer(tensors[at].data, "<f4").astype("<f2").tobytes()
        elif tensors[at].dtype == "F32" and dtype == "BF16":
            data = (np.frombuffer(tensors[at].data, "<u4") >> 16).astype("<u2").tobytes()
        tensors[at] = tensors[at]._replace(dtype=dtype, data=data)
    return put_together(tensors, metadata), f"{len(chosen)} tensors as {dtype}"


def _numbers(content: bytes, rng: Random) -> tuple[bytes, str]:
    """Put extreme numbers into a tensor, or multiply it."""
    tensors, metadata = take_apart(content)
    at = rng.randrange(len(tensors))
    tensor = tensors[at]
    if tensor.dtype != "F32":
        data = bytearray(tensor.data)
        for _ in range(rng.choice([1, 8]) if data else 0):
            data[rng.randrange(len(data))] = rng.choice([0, 0x7F, 0x80, 0x7B, 0xFF])
        tensors[at] = tensor._replace(data=bytes(data))
        return put_together(tensors, metadata), f"{tensor.name}: some bytes"
    values = np.frombuffer(tensor.data, "<f4").copy()
    new = rng.choice(EXTREMES)
    change = rng.randrange(4)
    with np.errstate(all="ignore"):
        if change == 0:
            values[[rng.randrange(values.size) for _ in range(rng.choice([1, 5]))]] = new
        elif change == 1:
            values[:] = new
        elif change == 2:
            new = rng.choice([0, -1, 10, 1e-3, 1e3, 1e6, 1e15, 1e-20])
            values *= np.float32(new)
        else:
            values += np.float32(new)
    tensors[at] = tensor._replace(data=values.tobytes())
    return put_together(tensors, metadata), f"{tensor.name}: {['some are', 'all are', 'times', 'plus'][change]} {new}"


def _length(content: bytes, rng: Random) -> tuple[bytes, str]:
    """Lie about the header's length, pad it, or cut and extend the data."""
    size = struct.unpack("<Q", content[:8])[0]
    header, data = content[8 : 8 + size], content[8 + size :]
    change = rng.randrange(6)
    if change == 0:
        new = rng.choice([0, 1, size - 1, size + 1, len(content), 2**31, 2**63, 2**64 - 1, 10**8])
        return struct.pack("<Q", new) + header + data, f"header of {new} bytes"
    if change == 1:
        return with_header(header + b" " * rng.choice([1, 8, 5_000_000]), data), "padded header"
    if change == 2:
        return with_header(rng.choice([b" ", b"\n", b"\xef\xbb\xbf", b"\xff"]) + header, data), "something before {"
    if change == 3:
        return content[: rng.randrange(len(content))], "cut"
    if change == 4:
        return content + bytes(rng.choice([1, 4, 1000])), "longer"
    name = json.dumps(next(iter(json.loads(header)))).encode()
    return with_header(
        header[:1] + name + b':{"dtype":"F32","shape":[0],"data_offsets":[0,0]},' + header[1:], data
    ), "twice"


CHANGES: list[Callable[[bytes, Random], tuple[bytes, str]]] = [
    _header_tree, _one_field, _exchange_offsets, _names, _other_dtype, _numbers, _numbers, _length
]  # fmt: skip
