"""The engines that rerank.py compares, each behind the same function: pairs of text -> logits.

All tokenize in the timed call, sort by length, pad as little as they can (numbert: not at all), and use `threads`
threads. Libraries are imported when an engine is made; one that is missing raises ImportError.

Not compared: OpenVINO on weights that were quantized with NNCF, which is a package of its own, and torch compiled by
torchao, for the same reason.
"""

import importlib
import os
import queue
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import Pairs, Setting, progress
from graphs import (
    Feeds,
    GraphScorer,
    Logits,
    dynamic_int8_graph,
    float_graph,
    load_tokenizer,
    static_int8_graph,
)
from numbert import CrossEncoder
from numbert.engine.errors import InputError
from numbert.kernels.cpu.isa import ISA

PRECISIONS = ("float32", "bfloat16", "int8")


class Engine(NamedTuple):
    """A model that is loaded and ready to score."""

    name: str
    precision: str  # one of PRECISIONS: what the large matrix products are computed in
    can_split: bool
    score: Callable[[Pairs, Setting], Logits]  # logits: (N, labels)


class Mode(NamedTuple):
    """A way in which numbert computes."""

    name: str
    precision: str
    arguments: Mapping[str, Any]  # of CrossEncoder


MODES = (
    Mode("numbert float32", "float32", {"dtype": "float32"}),
    Mode("numbert float32 high", "float32", {"matmul_precision": "high"}),
    Mode("numbert bfloat16", "bfloat16", {"dtype": "bfloat16"}),
    Mode("numbert int8", "int8", {"dtype": "int8"}),
)


def load_engines(folder: Path, threads: int, max_length: int, precisions: Collection[str]) -> list[Engine]:
    """Load numbert and every other engine that is installed, in these precisions.

    The first engine is always numbert in float32, which the others are checked against.
    """
    wanted = {"float32", *precisions}
    engines = [numbert_engine(folder, threads, max_length, mode) for mode in supported_modes(folder, wanted)]
    for make in (sentence_transformers_engines, onnx_runtime_engines, openvino_engines):
        progress(f"loading {make.__name__}")
        try:
            engines += make(folder, threads, max_length, precisions)
        except ImportError as error:
            progress(f"left out: {error}")
    return engines


def supported_modes(folder: Path, precisions: Collection[str]) -> list[Mode]:
    """Return the modes of these precisions that numbert has on this machine; say why the others are left out."""
    supported = []
    for mode in MODES:
        if "matmul_precision" in mode.arguments and not ISA.amx:
            progress(f"left out: {mode.name}: on this processor it is computed as float32 is")
        elif mode.precision in precisions:
            try:
                CrossEncoder(folder, **mode.arguments)
            except InputError as error:
                progress(f"left out: {mode.name}: {error}")
            else:
                supported.append(mode)
    return supported


def numbert_engine(folder: Path, threads: int, max_length: int, mode: Mode) -> Engine:
    """Load numbert in one of its modes."""
    model = CrossEncoder(
        folder, num_threads=threads, max_length=max_length, activation_fn="identity", **mode.arguments
    )  # fmt: skip

    def score(pairs: Pairs, setting: Setting) -> Logits:
        return _as_rows(model.predict(pairs, batch_size=setting.batch_size))

    return Engine(mode.name, mode.precision, can_split=False, score=score)


def sentence_transformers_engines(
    folder: Path, threads: int, max_length: int, precisions: Collection[str], device: str = "cpu"
) -> Iterator[Engine]:
    """Load sentence-transformers, which computes with torch; int8 is torch's dynamic quantization, on the CPU only."""
    library, torch = importlib.import_module("sentence_transformers"), importlib.import_module("torch")
    torch.set_num_threads(threads)
    for precision in PRECISIONS:
        if precision not in precisions:
            continue
        model = library.CrossEncoder(
            str(folder), device=device, max_length=max_length, activation_fn=torch.nn.Identity(),
            model_kwargs={"dtype": "bfloat16" if precision == "bfloat16" else "float32"},
        )  # fmt: skip
        if precision == "int8":
            _quantize_torch(model.model, torch)

        def score(pairs: Pairs, setting: Setting, model: Any = model) -> Logits:
            logits = model.predict(
                pairs, batch_size=setting.batch_size, show_progress_bar=False, convert_to_tensor=True
            )
            return _as_rows(logits.float().cpu().numpy())

        yield Engine(f"sentence-transformers {precision}", precision, can_split=False, score=score)


def _quantize_torch(model: Any, torch: Any) -> None:
    """Let the linear layers compute in int8: a scale for each output, and one for each activation as it comes."""
    quantization = torch.ao.quantization
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of torchao, which is a package of its own
        rules = {torch.nn.Linear: quantization.per_channel_dynamic_qconfig}
        quantization.quantize_dynamic(model, rules, inplace=True)


def _as_rows(logits: Logits) -> Logits:
    return logits.reshape(len(logits), -1)


def onnx_runtime_engines(folder: Path, threads: int, max_length: int, precisions: Collection[str]) -> Iterator[Engine]:
    """Load ONNX Runtime, in float32 and with dynamic int8."""
    library = importlib.import_module("onnxruntime")
    tokenizer = load_tokenizer(folder, max_length)

    def session(model: bytes, session_threads: int) -> Callable[[Feeds], Logits]:
        options = library.SessionOptions()
        options.intra_op_num_threads = session_threads
        own = library.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [taken.name for taken in own.get_inputs()]
        return lambda feeds: own.run(None, {name: feeds[name] for name in names})[0]

    for precision, make_graph in (("float32", float_graph), ("int8", dynamic_int8_graph)):
        if precision in precisions:
            model = make_graph(folder)
            scorer = GraphScorer(tokenizer, session(model, threads), session(model, 1), threads)
            yield Engine(f"ONNX Runtime {precision}", precision, can_split=threads > 1, score=scorer)


def openvino_engines(folder: Path, threads: int, max_length: int, precisions: Collection[str]) -> Iterator[Engine]:
    """Load OpenVINO; what it does not compute in int8 is computed in what it takes for the rest by itself."""
    core = importlib.import_module("openvino").Core()
    tokenizer = load_tokenizer(folder, max_length)
    # The list of capabilities does not heed the variable by which machine.py forces AVX2; the kernels do.
    forced = "ONEDNN_MAX_CPU_ISA" in os.environ
    computes_bfloat16 = not forced and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    hints = {"float32": "f32", "bfloat16": "bf16", "int8": "bf16" if computes_bfloat16 else "f32"}
    for precision in PRECISIONS:
        if precision not in precisions or (precision == "bfloat16" and not computes_bfloat16):
            continue
        model = core.read_model(static_int8_graph(folder, max_length) if precision == "int8" else float_graph(folder))
        settings = {"INFERENCE_PRECISION_HINT": hints[precision], "INFERENCE_NUM_THREADS": threads}
        together, alone = (
            _run_openvino(core.compile_model(model, "CPU", settings | {"NUM_STREAMS": streams}), streams)
            for streams in (1, threads)
        )
        scorer = GraphScorer(tokenizer, together, alone, threads)
        name = f"OpenVINO {precision}{', fixed scales' if precision == 'int8' else ''}"
        yield Engine(name, precision, can_split=threads > 1, score=scorer)


def _run_openvino(compiled: Any, streams: int) -> Callable[[Feeds], Logits]:
    names = [taken.any_name for taken in compiled.inputs]
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(streams):
        requests.put(compiled.create_infer_request())

    def run(feeds: Feeds) -> Logits:
        request = requests.get()
        try:
            return np.array(
                request.infer({name: feeds[name] for name in names})[0]
            )  # a copy: the request reuses its own
        finally:
            requests.put(request)

    return run
