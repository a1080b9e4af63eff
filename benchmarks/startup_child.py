"""One fresh process of startup.py: import, load and score, and print the times as JSON.

Started as ``python -P startup_child.py LIBRARY``, LIBRARY being numpy, numbert or sentence_transformers; the rest
comes on stdin as JSON, so that nothing but the standard library is imported before the clock runs.
"""

import importlib
import json
import sys
import time
from typing import Any

HEAVY = ("numba", "llvmlite", "tokenizers", "huggingface_hub", "safetensors", "torch", "transformers")


def main() -> None:
    """Do what stdin says and print what it took."""
    library, task = sys.argv[1], json.load(sys.stdin)
    start = time.perf_counter()
    importlib.import_module("numpy")
    numpy_done = time.perf_counter()
    module = importlib.import_module(library)
    import_done = time.perf_counter()
    result: dict[str, Any] = {
        "import": import_done - numpy_done,
        "imported": [name for name in HEAVY if name in sys.modules],
    }
    if task["pairs"]:
        pairs = [tuple(pair) for pair in task["pairs"]]
        model = load(module, task["model"], task["threads"])
        load_done = time.perf_counter()
        model.predict(pairs[:1])
        first_done = time.perf_counter()
        model.predict(pairs)
        result |= {"load": load_done - import_done, "first": first_done - load_done, "total": first_done - start}
    print(json.dumps(result | {"memory": peak_memory()}))


def load(module: Any, folder: str, threads: int) -> Any:
    """Load the model with the library."""
    if module.__name__ == "numbert":
        return module.CrossEncoder(folder, num_threads=threads)
    importlib.import_module("torch").set_num_threads(threads)
    return module.CrossEncoder(folder, device="cpu", model_kwargs={"dtype": "float32"})


def peak_memory() -> int:
    """Return the largest resident size that this process had, in bytes; 0 where Python cannot tell (Windows)."""
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


if __name__ == "__main__":
    main()
