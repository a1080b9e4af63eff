"""What the command line reads and writes: records of text, as lines, JSON lines, one JSON array or columns."""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from .errors import InputError
from .inputs import show

LARGEST_INPUT = 2**30  # bytes; a device that never ends must not fill the memory
TEXT_KEYS = ("text", "document", "passage")  # what others call a passage
# A text may begin with "[1] Smith et al."; an array of strings, objects or arrays begins so (or is empty).
ARRAY = re.compile(r'\s*\[\s*["{[\]]')
SURROGATE = re.compile("[\ud800-\udfff]")
Row = dict[str, Any]


def read_records(file: str, *keys: str, as_text: bool = False) -> list[Row]:
    """Read a file: one record for each line or item, which has at least `keys`, all strings.

    A file that is a JSON array, or that begins as one of strings, objects or arrays, holds one record an item; one
    whose first line begins with ``{`` holds one JSON object a line; any other holds text, the keys separated by tabs.
    Empty lines are left out.

    Parameters
    ----------
    file : str
        A path, or "-" for standard input.
    *keys : str
        What each record must have.
    as_text : bool
        Read lines of text, whatever the file begins with.

    Raises
    ------
    InputError
        When the file is too large, or a line or item has other content or half a character; the message names file
        and place.
    """
    name = "standard input" if file == "-" else file
    content = _read(file, name)
    start = "" if as_text else content.lstrip()[:1]
    if start == "[":
        items = _parse_array(content, name)
        if items is not None:
            return [_record(item, keys, f"{name}, item {i}") for i, item in enumerate(items, 1)]
    parse = _parse_json if start == "{" else _parse_text
    lines = ((i, line) for i, line in enumerate(content.split("\n"), 1) if line.strip())
    return [parse(line.removesuffix("\r"), keys, f"{name}, line {i}") for i, line in lines]


def _read(file: str, name: str) -> str:
    if "\0" in file:
        raise InputError(f"FILE: found {show(file)}, which no file can be called, expected a path; correct it")
    if file == "-":
        content = sys.stdin.buffer.read(LARGEST_INPUT + 1)
    else:
        with Path(file).open("rb") as stream:
            content = stream.read(LARGEST_INPUT + 1)
    if len(content) > LARGEST_INPUT:
        raise InputError(f"{name}: found more than {LARGEST_INPUT:,} bytes, expected at most so many; split the file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte 0x{content[error.start]:02x} at position {error.start}"
        raise InputError(f"{name}: found {found}, expected UTF-8; convert it first") from None


def _parse_array(content: str, name: str) -> list[Any] | None:
    """Return the items of a JSON array; None where the content is a text that only begins with a bracket."""
    try:
        items: list[Any] = json.loads(content)
        return items
    except (ValueError, RecursionError) as error:
        if not ARRAY.match(content):
            return None
        raise InputError(
            f"{name}: found the beginning of a JSON array, but no valid JSON ({error}), expected a whole array;"
            " correct the file, or pass --text if it holds lines of text"
        ) from None


def _parse_text(line: str, keys: tuple[str, ...], place: str) -> Row:
    fields = line.split("\t", len(keys) - 1) if len(keys) > 1 else [line]
    if len(fields) != len(keys):
        raise InputError(
            f"{place}: found {len(fields)} fields, expected {len(keys)} with a tab between: {'<TAB>'.join(keys)};"
            " correct the line"
        )
    return dict(zip(keys, fields, strict=True))


def _parse_json(line: str, keys: tuple[str, ...], place: str) -> Row:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: found no valid JSON ({error}), expected an object; correct the line") from None
    if not isinstance(record, dict):
        raise InputError(f"{place}: found a JSON {type(record).__name__}, expected an object; correct the line")
    return _record(record, keys, place)


def _record(item: Any, keys: tuple[str, ...], place: str) -> Row:
    """Return the record that an item of JSON is: an object, or the values of all keys in their order."""
    if len(keys) == 1 and isinstance(item, str):
        item = {keys[0]: item}
    if len(keys) == 2 and isinstance(item, list) and len(item) == 2:
        item = dict(zip(keys, item, strict=True))
    if not isinstance(item, dict):
        expected = "a string or an object" if len(keys) == 1 else "an object or a list of two strings"
        raise InputError(
            f"{place}: found {show(item)}, expected {expected}; correct it, or pass --text if FILE holds lines of text"
        )
    for other in TEXT_KEYS:
        if "text" not in item and other in item:
            item["text"] = item.pop(other)
    for key in keys:
        if not isinstance(item.get(key), str):
            raise InputError(f"{place}: found {key} = {show(item.get(key))}, expected a string; correct it")
    _check_characters(item, place)
    return item


def _check_characters(item: Any, place: str) -> None:
    """Refuse half a character, which JSON can hold and no output takes, in any text or name of an item."""
    waiting = [item]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and not value.isascii() and (half := SURROGATE.search(value)):
            raise InputError(
                f"{place}: found \\u{ord(half[0]):04x}, half a character, expected valid Unicode; give the whole"
                " character, or leave it out"
            )


def print_rows(rows: Iterable[Row], form: str, columns: tuple[str, ...], out: TextIO) -> None:
    """Write results as text for people, or as JSON lines, one JSON array, or tab-separated values for programs."""
    if form == "json":
        json.dump(list(rows), out, ensure_ascii=False, indent=1)
        out.write("\n")
    elif form == "jsonl":
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif form == "tsv":
        out.writelines(_tsv_lines(rows, columns))
    else:
        for row in rows:
            fields = (_score_text(row[column], "9.4f") if column == "score" else row[column] for column in columns)
            out.write("  ".join(fields) + "\n")


def _tsv_lines(rows: Iterable[Row], columns: tuple[str, ...]) -> Iterator[str]:
    """Write score, id and texts. The id is the input's own, else the position in the file, counted from 0."""
    for position, row in enumerate(rows):
        own = row.get("id", row.get("corpus_id", position))
        values = {**row, "score": _score_text(row["score"], ""), "id": own if isinstance(own, str) else json.dumps(own)}
        fields = (values[column] for column in (columns[0], "id", *columns[1:]))
        yield "\t".join(" ".join(field.splitlines()).replace("\t", " ") for field in fields) + "\n"


def _score_text(score: float | list[float], form: str) -> str:
    """Write a score, or one for each label."""
    return " ".join(format(number, form) for number in (score if isinstance(score, list) else [score]))
