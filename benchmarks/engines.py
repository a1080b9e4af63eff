"""The engines that rerank.py compares, each behind the same function: pairs of text -> logits.

All tokenize in the timed call, sort by length, pad as little as they can (numbert: not at all), and use `threads`
threads. Libraries are imported when an engine is made; one that is missing raises ImportError.
"""

import functools
import importlib
import queue
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import Pairs, progress
from numbert import CrossEncoder
from numpy import int64
from numpy.typing import NDArray

Logits = NDArray[Any]
Feeds = dict[str, NDArray[int64]]
PRECISIONS = ("float32", "bfloat16", "int8")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Setting(NamedTuple):
    """How an engine computes a job."""

    batch_size: int
    split: bool  # each thread computes batches of its own; else all threads work on one batch after the other

    def __str__(self) -> str:
        return f"{self.batch_size}{', a thread each' if self.split else ''}"


class Engine(NamedTuple):
    """A model that is loaded and ready to score."""

    name: str
    precision: str  # of the matrix products with weights: "float32", "bfloat16" or "int8"
    can_split: bool
    score: Callable[[Pairs, Setting], Logits]  # logits: (N, labels)


def load_engines(folder: Path, threads: int, max_length: int) -> list[Engine]:
    """Load numbert and every other engine that is installed; precision by precision, numbert first in each."""
    engines = []
    for make in (_numbert, _sentence_transformers, _onnx_runtime, _openvino):
        progress(f"loading {make.__name__.strip('_')}")
        try:
            engines += make(folder, threads, max_length)
        except ImportError as error:
            progress(f"left out: {error}")
    return sorted(engines, key=lambda engine: PRECISIONS.index(engine.precision))


def _numbert(folder: Path, threads: int, max_length: int) -> Iterator[Engine]:
    for precision in PRECISIONS:
        model = CrossEncoder(
            folder, num_threads=threads, max_length=max_length, activation_fn="identity", dtype=precision
        )

        def score(pairs: Pairs, setting: Setting, model: CrossEncoder = model) -> Logits:
            return _as_rows(model.predict(pairs, batch_size=setting.batch_size))

        yield Engine(f"numbert {precision}", precision, can_split=False, score=score)


def _sentence_transformers(folder: Path, threads: int, max_length: int) -> Iterator[Engine]:
    library, torch = importlib.import_module("sentence_transformers"), importlib.import_module("torch")
    torch.set_num_threads(threads)
    for dtype in ("float32", "bfloat16"):
        model = library.CrossEncoder(
            str(folder), device="cpu", max_length=max_length, activation_fn=torch.nn.Identity(),
            model_kwargs={"dtype": dtype},
        )  # fmt: skip

        def score(pairs: Pairs, setting: Setting, model: Any = model) -> Logits:
            logits = model.predict(
                pairs, batch_size=setting.batch_size, show_progress_bar=False, convert_to_tensor=True
            )
            return _as_rows(logits.float().numpy())

        yield Engine(f"sentence-transformers {dtype}", dtype, can_split=False, score=score)


def _as_rows(logits: Logits) -> Logits:
    return logits.reshape(len(logits), -1)


# ---- runtimes that compute an exported graph


class GraphScorer:
    """Tokenize, sort, pad, and run a graph, in either of two ways of sharing the work between threads.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Truncates and does not pad.
    together, alone : callable
        Feeds to logits: with all threads at work on it, and with the calling thread alone.
    threads : int
        Threads that call `alone`.
    """

    def __init__(
        self, tokenizer: Any, together: Callable[[Feeds], Logits], alone: Callable[[Feeds], Logits], threads: int
    ) -> None:
        self.tokenizer, self.together, self.alone = tokenizer, together, alone
        self.pool = ThreadPoolExecutor(threads)

    def __call__(self, pairs: Pairs, setting: Setting) -> Logits:
        """Return the logits in the order of the pairs."""
        encodings = self.tokenizer.encode_batch_fast(pairs)
        order = sorted(range(len(pairs)), key=lambda i: -len(encodings[i]))
        batches = [
            _pad([encodings[i] for i in order[start : start + setting.batch_size]])
            for start in range(0, len(order), setting.batch_size)
        ]
        results = self.pool.map(self.alone, batches) if setting.split else map(self.together, batches)
        sorted_logits = np.concatenate(list(results))
        logits = np.empty_like(sorted_logits)
        logits[order] = sorted_logits
        return logits


def _pad(encodings: list[Any]) -> Feeds:
    """Lay encodings, the longest of which is the first, into arrays (B, L) that are zero behind each."""
    feeds = {name: np.zeros((len(encodings), len(encodings[0])), int64) for name in INPUTS}
    for row, encoding in enumerate(encodings):
        length = len(encoding)
        parts = (encoding.ids, encoding.attention_mask, encoding.type_ids)
        for name, values in zip(INPUTS, parts, strict=True):
            feeds[name][row, :length] = values
    return feeds


def _load_tokenizer(folder: Path, max_length: int) -> Any:
    tokenizer = importlib.import_module("transformers").AutoTokenizer.from_pretrained(folder).backend_tokenizer
    tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()
    return tokenizer


@functools.cache
def _export(folder: Path) -> bytes:
    """Return the model of transformers as an ONNX file."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    importlib.import_module("onnx")  # torch fails late without it
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    example = torch.tensor([[1, 2, 3], [1, 2, 3]])
    axes = {name: {0: "pairs", 1: "length"} for name in INPUTS} | {"logits": {0: "pairs"}}
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its age and of constants; the outputs are checked
        path = Path(scratch, "model.onnx")
        torch.onnx.export(
            model, (example, torch.ones_like(example), torch.zeros_like(example)), str(path),
            input_names=list(INPUTS), output_names=["logits"], dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip
        return path.read_bytes()


def _onnx_runtime(folder: Path, threads: int, max_length: int) -> Iterator[Engine]:
    library = importlib.import_module("onnxruntime")
    tokenizer = _load_tokenizer(folder, max_length)
    for precision, model in (("float32", _export(folder)), ("int8", _quantize(_export(folder)))):

        def run_with(session_threads: int, model: bytes = model) -> Callable[[Feeds], Logits]:
            options = library.SessionOptions()
            options.intra_op_num_threads = session_threads
            session = library.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            return lambda feeds: session.run(None, feeds)[0]  # type: ignore[no-any-return]

        scorer = GraphScorer(tokenizer, run_with(threads), run_with(1), threads)
        yield Engine(f"ONNX Runtime {precision}", precision, can_split=threads > 1, score=scorer)


def _quantize(model: bytes) -> bytes:
    """Let ONNX Runtime make its dynamic int8 model, with a scale for each output channel of a weight."""
    quantization = importlib.import_module("onnxruntime.quantization")
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch, "float32.onnx"), Path(scratch, "int8.onnx")
        source.write_bytes(model)
        quantization.quantize_dynamic(source, target, per_channel=True, weight_type=quantization.QuantType.QInt8)
        return target.read_bytes()


def _openvino(folder: Path, threads: int, max_length: int) -> list[Engine]:
    core = importlib.import_module("openvino").Core()
    model = core.read_model(_export(folder))
    tokenizer = _load_tokenizer(folder, max_length)
    given = core.compile_model(model, "CPU").get_property("INFERENCE_PRECISION_HINT").to_string()
    engines = []
    for precision in dict.fromkeys(("f32", given)):
        hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
        together, alone = (
            _run_openvino(core.compile_model(model, "CPU", hints | {"NUM_STREAMS": streams}), streams)
            for streams in (1, threads)
        )
        scorer = GraphScorer(tokenizer, together, alone, threads)
        ours = {"f32": "float32", "bf16": "bfloat16", "f16": "bfloat16"}[precision]  # both halves are one class here
        name = f"OpenVINO {'float32' if precision == 'f32' else f'{precision} (its default here)'}"
        engines.append(Engine(name, ours, can_split=threads > 1, score=scorer))
    return engines


def _run_openvino(compiled: Any, streams: int) -> Callable[[Feeds], Logits]:
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(streams):
        requests.put(compiled.create_infer_request())

    def run(feeds: Feeds) -> Logits:
        request = requests.get()
        try:
            return np.array(request.infer(feeds)[0])  # a copy: the request reuses its own
        finally:
            requests.put(request)

    return run
