"""One fresh process of startup.py: import, load and score, and print the times as JSON.

Started as ``python -P startup_child.py LIBRARY``, LIBRARY being one of LOADERS, or tokenizers, with which nothing is
computed; the rest comes on stdin as JSON, so that nothing but the standard library is imported before the clock runs.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEAVY = ("numba", "llvmlite", "huggingface_hub", "onnxruntime", "torch", "transformers")
LONGEST = 512  # tokens


def main() -> None:
    """Do what stdin says and print what it took."""
    library, task = sys.argv[1], json.load(sys.stdin)
    importlib.import_module("numpy")
    importlib.import_module("tokenizers")
    begin = time.perf_counter()
    result: dict[str, Any] = {"end": begin, "peak": peak_memory()}
    if library in LOADERS:
        module = importlib.import_module(library)
        imported = time.perf_counter()
        score = LOADERS[library](module, task)
        loaded = time.perf_counter()
        pairs = [tuple(pair) for pair in task["pairs"]]
        score(pairs[:1])
        end = time.perf_counter()
        result |= {"import": imported - begin, "load": loaded - imported, "first": end - loaded, "end": end}
        result["peak"] = peak_memory()
        score(pairs)
    imported_by_now = [name for name in HEAVY if name in sys.modules]
    print(json.dumps(result | {"peak_of_all": peak_memory(), "imported": imported_by_now}))


def load_numbert(module: Any, task: dict[str, Any]) -> Callable[[Any], Any]:
    """Load the model with numbert."""
    model = module.CrossEncoder(task["model"], num_threads=task["threads"])
    return lambda pairs: model.predict(pairs)


def load_sentence_transformers(module: Any, task: dict[str, Any]) -> Callable[[Any], Any]:
    """Load the model with sentence-transformers."""
    importlib.import_module("torch").set_num_threads(task["threads"])
    model = module.CrossEncoder(task["model"], device="cpu", model_kwargs={"dtype": "float32"})
    return lambda pairs: model.predict(pairs)


def load_onnxruntime(module: Any, task: dict[str, Any]) -> Callable[[Any], Any]:
    """Load the graph with ONNX Runtime, and the tokenizer with what numbert uses too."""
    numpy, tokenizers = importlib.import_module("numpy"), importlib.import_module("tokenizers")
    settings = module.SessionOptions()
    settings.intra_op_num_threads = task["threads"]
    session = module.InferenceSession(task["model"], settings, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    tokenizer = tokenizers.Tokenizer.from_file(str(Path(task["folder"], "tokenizer.json")))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding()

    def score(pairs: Any) -> Any:
        encodings = tokenizer.encode_batch_fast(pairs)
        parts = {
            "input_ids": [encoding.ids for encoding in encodings],
            "attention_mask": [encoding.attention_mask for encoding in encodings],
            "token_type_ids": [encoding.type_ids for encoding in encodings],
        }
        return session.run(None, {name: numpy.array(parts[name], numpy.int64) for name in names})

    return score


LOADERS = {
    "numbert": load_numbert,
    "sentence_transformers": load_sentence_transformers,
    "onnxruntime": load_onnxruntime,
}


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
