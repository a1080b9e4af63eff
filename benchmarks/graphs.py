"""The model as an ONNX graph, in float32 and in int8, and what feeds pairs of text to a runtime that computes it."""

import functools
import importlib
import inspect
import logging
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from common import Pairs, Setting, make_pairs
from numpy import int64
from numpy.typing import NDArray

Logits = NDArray[Any]
Feeds = dict[str, NDArray[int64]]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")  # of which a model may lack the last
CALIBRATION_PAIRS = 16  # enough for the range of each activation; they are none of the pairs that are timed
CALIBRATION_WORDS = 40


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
            pad([encodings[i] for i in order[start : start + setting.batch_size]])
            for start in range(0, len(order), setting.batch_size)
        ]
        results = self.pool.map(self.alone, batches) if setting.split else map(self.together, batches)
        sorted_logits = np.concatenate(list(results))
        logits = np.empty_like(sorted_logits)
        logits[order] = sorted_logits
        return logits


def pad(encodings: list[Any]) -> Feeds:
    """Lay encodings, the longest of which is the first, into arrays (B, L) that are zero behind each."""
    feeds = {name: np.zeros((len(encodings), len(encodings[0])), int64) for name in INPUTS}
    for row, encoding in enumerate(encodings):
        length = len(encoding)
        parts = (encoding.ids, encoding.attention_mask, encoding.type_ids)
        for name, values in zip(INPUTS, parts, strict=True):
            feeds[name][row, :length] = values
    return feeds


def load_tokenizer(folder: Path, max_length: int) -> Any:
    """Load the tokenizer of a model, set to truncate and not to pad."""
    tokenizer = importlib.import_module("transformers").AutoTokenizer.from_pretrained(folder).backend_tokenizer
    tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()
    return tokenizer


@functools.cache
def float_graph(folder: Path) -> bytes:
    """Return the model of transformers as an ONNX file in float32."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    importlib.import_module("onnx")  # torch fails late without it
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    example, inputs = torch.tensor([[1, 2, 3], [1, 2, 3]]), inputs_of(model)
    axes = {name: {0: "pairs", 1: "length"} for name in inputs} | {"logits": {0: "pairs"}}
    examples = {"input_ids": example, "attention_mask": torch.ones_like(example), "token_type_ids": 0 * example}
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its age and of constants; the outputs are checked
        path = Path(scratch, "model.onnx")
        torch.onnx.export(
            model, (), str(path), kwargs={name: examples[name] for name in inputs},
            input_names=list(inputs), output_names=["logits"], dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip
        return path.read_bytes()


def inputs_of(model: Any) -> list[str]:
    """Return those of INPUTS that a model of transformers takes."""
    taken = inspect.signature(model.forward).parameters
    return [name for name in INPUTS if name in taken]


def dynamo_graph(folder: Path) -> bytes:
    """Return the model of transformers as torch's newer exporter writes it, in float32; it needs onnxscript."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    importlib.import_module("onnxscript")  # torch fails late without it
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    example, inputs = torch.ones((2, 3), dtype=torch.int64), inputs_of(model)
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about packages that the exporter would also know
        path = Path(scratch, "model.onnx")
        torch.onnx.export(
            model, kwargs=dict.fromkeys(inputs, example), f=str(path), input_names=inputs,
            output_names=["logits"], dynamic_shapes=dict.fromkeys(inputs, axes), dynamo=True, external_data=False,
            verbose=False,
        )  # fmt: skip
        return path.read_bytes()


def fused_graph(folder: Path) -> bytes:
    """Return the graph in float32 in which ONNX Runtime's own tool has fused attention, GELU and normalization."""
    optimizer = importlib.import_module("onnxruntime.transformers.optimizer")
    config = importlib.import_module("transformers").AutoConfig.from_pretrained(folder)
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch, "float.onnx"), Path(scratch, "fused.onnx")
        source.write_bytes(float_graph(folder))
        fused = optimizer.optimize_model(
            str(source), "bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size
        )
        fused.save_model_to_file(str(target))
        return target.read_bytes()


def dynamic_int8_graph(folder: Path) -> bytes:
    """Return the graph with int8 weights, a scale for each output; activations get their scale as they come."""
    quantization = importlib.import_module("onnxruntime.quantization")

    def quantize(source: Path, target: Path) -> None:
        quantization.quantize_dynamic(source, target, per_channel=True, weight_type=quantization.QuantType.QInt8)

    return _quantized(folder, quantize)


def static_int8_graph(folder: Path, max_length: int) -> bytes:
    """Return the graph with int8 weights and fixed scales of activations, found with a few pairs.

    OpenVINO computes this one in int8. Of the dynamic graph it makes float operations, slower than those it began with.
    """
    quantization = importlib.import_module("onnxruntime.quantization")
    encodings = load_tokenizer(folder, max_length).encode_batch_fast(make_pairs(CALIBRATION_PAIRS, CALIBRATION_WORDS))

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]  # imported when it is run
        feeds = iter([pad([encoding]) for encoding in encodings])

        def get_next(self) -> Feeds | None:
            return next(self.feeds, None)

    def quantize(source: Path, target: Path) -> None:
        quantization.quantize_static(
            source, target, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
            weight_type=quantization.QuantType.QInt8, activation_type=quantization.QuantType.QUInt8,
            op_types_to_quantize=["MatMul"], extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip

    return _quantized(folder, quantize)


def _quantized(folder: Path, quantize: Callable[[Path, Path], None]) -> bytes:
    logging.disable(logging.WARNING)  # the quantizer recommends preparations that change nothing in these graphs
    try:
        with tempfile.TemporaryDirectory() as scratch:
            source, target = Path(scratch, "float.onnx"), Path(scratch, "int8.onnx")
            source.write_bytes(float_graph(folder))
            quantize(source, target)
            return target.read_bytes()
    finally:
        logging.disable(logging.NOTSET)
