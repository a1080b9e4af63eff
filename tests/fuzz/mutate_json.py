"""Change a JSON tree in one or more places: configuration, tokenizer settings, the index of shards."""

import copy
from collections.abc import Callable
from typing import Any

from hostile import TWICE, Random, value

Place = tuple[Any, Any]  # a list or dict, and the index or key in it


def mutate(tree: Any, rng: Random, donor: Any = None) -> tuple[Any, str]:
    """Return a changed copy and a description.

    Parameters
    ----------
    tree : JSON value
    rng : random.Random
    donor : JSON value, optional
        The same file of another model, from which parts may be taken.
    """
    tree = copy.deepcopy(tree)
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        place = _choose(tree, rng)
        if place is None:
            return value(rng), "the whole file is another value"
        change = rng.choice(CHANGES)
        done.append(f"{place[1]!r:.40}: {change(*place, rng, donor)}")
    return tree, "; ".join(done)


def _choose(tree: Any, rng: Random) -> Place | None:
    """Go down at random; every level is as likely as the next, however many values lie below."""
    place = None
    while isinstance(tree, dict | list) and tree and (place is None or rng.random() < 0.7):
        key = rng.choice(list(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
        place = (tree, key)
        tree = tree[key]
    return place


def _replace(holder: Any, key: Any, rng: Random, donor: Any) -> str:
    holder[key] = value(rng)
    return f"now {holder[key]!r:.60}"


def _delete(holder: Any, key: Any, rng: Random, donor: Any) -> str:
    del holder[key]
    return "deleted"


def _repeat(holder: Any, key: Any, rng: Random, donor: Any) -> str:
    if isinstance(holder, dict):
        holder[f"{TWICE}{key}"] = value(rng)
        return "twice in the object"
    holder.insert(rng.randrange(len(holder) + 1), holder[key])
    return "twice in the list"


def _rename(holder: Any, key: Any, rng: Random, donor: Any) -> str:
    if not isinstance(holder, dict):
        holder.reverse()
        return "list reversed"
    new = rng.choice([key.upper(), key + " ", key[:-1], "_" + key, rng.choice(list(holder)), "\ud800", "x" * 5000])
    holder[new] = holder.pop(key)
    return f"renamed to {new!r:.40}"


def _transplant(holder: Any, key: Any, rng: Random, donor: Any) -> str:
    """Take the value of the same key from the other model, or any part of it."""
    if isinstance(donor, dict) and key in donor and rng.random() < 0.7:
        holder[key] = copy.deepcopy(donor[key])
    else:
        place = _choose(donor, rng)
        holder[key] = copy.deepcopy(place[0][place[1]]) if place else None
    return f"from another model: {holder[key]!r:.60}"


def _nudge(holder: Any, key: Any, rng: Random, donor: Any) -> str:
    """Change a value a little, so that it stays of its type."""
    old = holder[key]
    if isinstance(old, bool):
        new: Any = not old
    elif isinstance(old, int | float):
        new = rng.choice([old + 1, old - 1, old * 2, -old, old // 2, float(old), str(old), old * 1000])
    elif isinstance(old, str):
        new = rng.choice([old.upper(), old + "x", old[:-1], old * 2, " " + old, old.swapcase(), [old]])
    elif isinstance(old, list):
        new = rng.choice([old * 2, old[:-1], [*old, None], [old], {str(i): part for i, part in enumerate(old)}])
    elif isinstance(old, dict):
        new = rng.choice([list(old.items()), list(old.values()), {**old, "x": value(rng)}, [old], {"x": old}])
    else:
        new = value(rng)
    holder[key] = new
    return f"{old!r:.40} -> {new!r:.40}"


CHANGES: list[Callable[[Any, Any, Random, Any], str]] = [
    _replace, _replace, _replace, _delete, _repeat, _rename, _transplant, _transplant, _nudge, _nudge, _nudge
]  # fmt: skip
