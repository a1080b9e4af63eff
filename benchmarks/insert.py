"""Put what a benchmark printed into a page, in place of what stood there: README's tables are made by nobody's hand.

    python benchmarks/rerank.py --model MODEL > tables.md
    python benchmarks/insert.py README.md rerank < tables.md

The section of the page begins with the line ``<!-- NAME -->`` and ends with ``<!-- end of NAME -->``.
"""

import argparse
import sys
from pathlib import Path


def replace_section(page: str, name: str, text: str) -> str:
    """Return the page with another text in a section.

    Raises
    ------
    ValueError
        When the page does not have exactly one such section.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"found {page.count(begin)} times {begin.strip()!r}, expected once with {end!r}; add both")
    before, rest = page.split(begin)
    return f"{before}{begin}\n{text.strip()}\n\n{end}{rest.split(end)[1]}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("name")
    arguments = parser.parse_args()
    try:
        changed = replace_section(arguments.page.read_text("utf-8"), arguments.name, sys.stdin.read())
    except (OSError, ValueError) as error:
        sys.exit(f"{arguments.page}: {error}")
    arguments.page.write_text(changed, "utf-8")
