"""A folder that is not as it must be is refused: the error names the file, what was found and what was expected."""

import base64
import contextlib
import json
import shutil
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from checkpoints import copy_checkpoint, edit_json, edit_tensors, load_golden, tokens_of
from hostile_pairs import PAIRS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numbert import ConfigError, CrossEncoder, ModelNotFoundError, NumbertError, TokenizerError, WeightsError
from numbert.kernels.parameters import Bfloat16Table, Float16Table
from numbert.loaders import expansion
from numbert.loaders import tokenizer as tokenizer_module
from numbert.loaders.checkpoint import load_checkpoint
from numbert.loaders.expansion import measure_growth
from numbert.loaders.files import ModelFiles
from numbert.loaders.safetensors import read_header
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save_file
from tokenizers import Tokenizer

pytestmark = pytest.mark.usefixtures("files_at_rest")

NARROW = "narrow"  # 3 heads of 16, 2 layers, float32, vocabulary of 503


@pytest.fixture
def folder(tmp_path):
    return copy_checkpoint(NARROW, tmp_path)


def refused(folder, error, *parts) -> None:
    """Assert that loading raises this error, with all parts in its message."""
    with pytest.raises(error) as caught:
        load_checkpoint(folder)
    assert type(caught.value) is error
    for part in parts:
        assert part in str(caught.value)


# ---- config.json

CONFIGS = [
    ({"hidden_size": -64}, "hidden_size: found -64, expected an integer from 1"),
    ({"hidden_size": 48.0}, "hidden_size: found 48.0"),
    ({"hidden_size": True}, "hidden_size: found True"),
    ({"hidden_size": None}, "hidden_size: found nothing"),
    ({"num_attention_heads": 0}, "num_attention_heads: found 0"),
    ({"num_attention_heads": 5}, "hidden_size 48 is not a multiple of num_attention_heads 5"),
    ({"num_hidden_layers": -1}, "num_hidden_layers: found -1"),
    ({"vocab_size": 10**9}, "vocab_size: found 1000000000"),
    ({"layer_norm_eps": float("nan")}, "layer_norm_eps: found nan, expected a number between 0 and 0.01"),
    ({"layer_norm_eps": "small"}, "layer_norm_eps: found 'small'"),
    ({"model_type": "t5"}, "model_type: found 't5', expected one of"),
    ({"model_type": ["bert"]}, "model_type: found ['bert']"),
    ({"hidden_act": "mish"}, "hidden_act: found 'mish', expected 'gelu' or 'gelu_new' or"),
    ({"hidden_act": {"a": 1}}, "hidden_act: found {'a': 1}"),
    ({"position_embedding_type": "alibi"}, "position_embedding_type: found 'alibi', expected 'absolute'"),
    ({"is_decoder": True}, "is_decoder: found True"),
    ({"add_cross_attention": True}, "add_cross_attention: found True"),
    ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map: the model brings its own code"),
    ({"architectures": ["BertModel"]}, "architectures: found ['BertModel']"),
    ({"id2label": {}}, "id2label: found {}"),
    ({"num_labels": 3}, "num_labels: found 3, expected 1, the number of entries of id2label"),
    ({"id2label": 3}, "id2label: found 3"),
    ({"sentence_transformers": 3}, "sentence_transformers: found 3, expected an object"),
    ({"sbert_ce_default_activation_function": 3}, "activation: found 3"),
]


@pytest.mark.parametrize(("change", "message"), CONFIGS)
def test_configurations_that_lie(folder, change, message):
    edit_json(folder / "config.json", lambda config: config.update(change))
    refused(folder, ConfigError, "config.json", message)


def test_no_position_behind_that_of_the_padding(tmp_path):
    folder = copy_checkpoint("mpnet", tmp_path)
    edit_json(folder / "config.json", lambda config: config.update(pad_token_id=40, max_position_embeddings=41))
    refused(folder, ConfigError, "max_position_embeddings: found 41, expected more than 41")


def test_more_labels_than_the_configuration_names(folder):
    edit_json(folder / "config.json", lambda config: (config.pop("id2label"), config.update(num_labels=1)))
    assert load_checkpoint(folder).spec.num_labels == 1


def test_more_buckets_than_distances_can_fill(tmp_path):
    folder = copy_checkpoint("mpnet", tmp_path)
    edit_json(folder / "config.json", lambda config: config.update(relative_attention_num_buckets=512))
    refused(folder, ConfigError, "relative_attention_num_buckets: found 512, expected an integer from 4 to 511")


@pytest.mark.parametrize("buckets", [4, 5, 127, 510, 511])
def test_any_number_of_buckets_within_bounds_is_computed(tmp_path, buckets):
    folder = copy_checkpoint("mpnet", tmp_path)
    edit_json(folder / "config.json", lambda config: config.update(relative_attention_num_buckets=buckets))
    table = "mpnet.encoder.relative_attention_bias.weight"
    edit_tensors(
        folder / "model.safetensors",
        lambda tensors: tensors.update({table: np.ones((buckets, tensors[table].shape[1]), np.float32)}),
    )
    assert np.isfinite(CrossEncoder(folder, backend="reference").predict(("a", "b " * 100)))


def test_a_value_of_any_length_makes_a_short_message(folder):
    edit_json(folder / "config.json", lambda config: config.update(model_type="x" * 10**6, hidden_size=10**4000))
    with pytest.raises(ConfigError) as caught:
        load_checkpoint(folder)
    assert len(str(caught.value)) < 1000


DEEP = b"[" * 100_000
DIGITS = b'{"hidden_size": ' + b"9" * 5000 + b"}"


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b"3", b"\xff\xfe", DEEP, DIGITS, "{}".encode("utf-16")])
def test_a_configuration_that_is_no_json_object(folder, content):
    (folder / "config.json").write_bytes(content)
    refused(folder, ConfigError, "config.json", "found")


def test_nesting_without_end_is_no_reason_to_download_again(folder):
    (folder / "config.json").write_bytes(DEEP)
    with pytest.raises(ConfigError, match="nested deeper than the call stack has room") as caught:
        load_checkpoint(folder)
    assert "download" not in str(caught.value)


def test_a_configuration_larger_than_any(folder):
    with (folder / "config.json").open("ab") as file:
        file.truncate(65 * 2**20)  # without writing that much
    refused(folder, ConfigError, "config.json: found 68157440 bytes, expected at most")


def test_positions_for_the_special_tokens_only(folder):
    edit_json(folder / "config.json", lambda config: config.update(max_position_embeddings=3))
    table = "bert.embeddings.position_embeddings.weight"
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update({table: tensors[table][:3].copy()}))
    refused(folder, ConfigError, "config.json: max_position_embeddings: found 3, expected more than the 3 special")


def test_fewer_token_types_than_the_tokenizer_gives(folder):
    edit_json(folder / "config.json", lambda config: config.update(type_vocab_size=1))
    table = "bert.embeddings.token_type_embeddings.weight"
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update({table: tensors[table][:1].copy()}))
    refused(folder, ConfigError, "config.json: type_vocab_size: found 1, expected at least 2")


SIZES = [
    ({"vocab_size": 600}, "tensor bert.embeddings.word_embeddings.weight: found shape (503, 48)", "(600, 48)"),
    ({"intermediate_size": 96}, "intermediate.dense.weight: found shape (97, 48)", "(96, 48)"),
    ({"num_hidden_layers": 3}, "lacks bert.encoder.layer.2.", "and 11 more"),
    ({"num_hidden_layers": 1}, "has more than config.json promises: bert.encoder.layer.1.", "and 11 more"),
    ({"id2label": {"0": "a", "1": "b"}}, "tensor classifier.", "promises (2"),
    ({"max_position_embeddings": 512}, "position_embeddings.weight: found shape (64, 48)", "(512, 48)"),
]


@pytest.mark.parametrize(("change", "found", "expected"), SIZES)
def test_configurations_of_another_model(folder, change, found, expected):
    edit_json(folder / "config.json", lambda config: config.update(change))
    refused(folder, WeightsError, "model.safetensors", found, expected)


@pytest.mark.parametrize(("count", "names"), [(5, "e0, e1, e2, e3, e4;"), (6, "e0, e1, e2, e3, e4 and 1 more;")])
def test_of_many_tensors_too_many_five_are_named(folder, count, names):
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update(extra(f"e{i}" for i in range(count))))
    refused(folder, WeightsError, f"has more than config.json promises: {names} expected exactly the")


def test_constants_of_old_files_and_heads_of_pretraining_are_no_tensors_too_many(folder):
    unused = ("bert.embeddings.position_ids", "cls.predictions.bias")
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update(extra(unused)))
    assert not {*unused} & {*load_checkpoint(folder).weights}


# ---- tensors


def extra(names):
    return {name: np.zeros(3, np.float32) for name in names}


def remove(name):
    return lambda tensors: tensors.pop(name)


def replace(name, value):
    return lambda tensors: tensors.update({name: value})


TENSORS = [
    (remove("classifier.weight"), "lacks classifier.weight; expected exactly the", "no classification head"),
    (remove("bert.pooler.dense.bias"), "lacks bert.pooler.dense.bias", "model.safetensors"),
    (replace("bert.extra.weight", np.zeros(3, np.float32)), "bert.extra.weight", "has more than config.json promises"),
    (replace("classifier.bias", np.zeros(1, np.int32)), "classifier.bias: found dtype I32", "expected one of"),
    (replace("classifier.bias", np.zeros(1, np.float64)), "classifier.bias: found dtype F64", "expected one of"),
    (replace("classifier.weight", np.zeros((48, 1), np.float32)), "found shape (48, 1)", "promises (1, 48)"),
]


@pytest.mark.parametrize(("change", "found", "expected"), TENSORS)
def test_tensors_that_are_not_as_promised(folder, change, found, expected):
    edit_tensors(folder / "model.safetensors", change)
    refused(folder, WeightsError, "model.safetensors", found, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(folder, value):
    def spoil(tensors):
        tensors["bert.encoder.layer.1.output.dense.weight"][5, 7] = value

    edit_tensors(folder / "model.safetensors", spoil)
    with pytest.raises(WeightsError, match=rf"layer\.1\.output\.dense\.weight: found {value} at \(5, 7\)"):
        CrossEncoder(folder)


@pytest.mark.parametrize("values", [(np.inf, -np.inf), (3e38, 3e38), (-np.inf, np.nan)])
def test_large_and_infinite_weights_make_no_warning(folder, values):
    def spoil(tensors):
        tensors["classifier.weight"][0, :2] = values

    edit_tensors(folder / "model.safetensors", spoil)
    weights = load_checkpoint(folder).weights
    if np.isfinite(values).all():
        assert weights["head.output.weight"][0, :2].tolist() == np.float32(values).tolist()
    else:
        with pytest.raises(WeightsError, match=r"classifier\.weight: found -?inf at \(0, 0\)"):
            weights["head.output.weight"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found 0 bytes"),
        (b"\x00" * 7, "found 7 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"PK\x03\x04" + b"\x00" * 20, "a pickle or zip file"),
        (b"\x80\x02}q\x00" + b"\x00" * 20, "a pickle or zip file"),
        (struct.pack("<Q", 5 * 2**20) + b"{}", "expected a safetensors file"),
        (struct.pack("<Q", 2) + b"{}", "lacks bert.embeddings"),
        (struct.pack("<Q", 4) + b"[1]}", "found a damaged safetensors file"),
        (struct.pack("<Q", 100) + b"{}", "found a damaged safetensors file"),
    ],
)
def test_files_that_are_no_safetensors(folder, content, message):
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, WeightsError, "model.safetensors", message)


def test_a_truncated_file(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    refused(folder, WeightsError, "model.safetensors", "damaged", "download it again")


def test_bytes_after_the_last_tensor(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"more")
    refused(folder, WeightsError, "model.safetensors", "found a damaged safetensors file", "expected a whole one")


@pytest.mark.parametrize("offsets", [[4, 8], [0, 8], [0, 10**18], [8, 4]], ids=["hole", "long", "far", "backwards"])
def test_offsets_that_lie(folder, offsets):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": offsets}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\x00" * 8)
    refused(folder, WeightsError, "model.safetensors", "found a damaged safetensors file", "expected a whole one")


def test_a_file_that_shrinks_after_it_was_opened_is_an_error_and_no_signal(folder):
    checkpoint = load_checkpoint(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WeightsError, match="the file was cut"):
        dict(checkpoint.weights)


def test_a_name_that_occurs_twice(folder):
    entry = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = b"{" + entry + b"," + entry + b"}"
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\x00" * 4)
    refused(folder, WeightsError, "model.safetensors", "occurs twice")


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HEADERS = {  # what the header holds, and how many bytes of data follow
    "a list": ([], 0),
    "an entry that is none": ({"a": 3}, 0),
    "no dtype": ({"a": {"shape": [1], "data_offsets": [0, 4]}}, 4),
    "a dtype of no type": ({"a": {**ENTRY, "dtype": ["F32"]}}, 4),
    "an unknown dtype": ({"a": {**ENTRY, "dtype": "F31"}}, 4),
    "a shape of floats": ({"a": {**ENTRY, "shape": [1.0]}}, 4),
    "a shape of truths": ({"a": {**ENTRY, "shape": [True]}}, 4),
    "a negative shape": ({"a": {**ENTRY, "shape": [-1]}}, 4),
    "a shape that overflows": ({"a": {**ENTRY, "shape": [2**40, 2**40]}}, 4),
    "three offsets": ({"a": {**ENTRY, "data_offsets": [0, 4, 8]}}, 8),
    "offsets that are none": ({"a": {**ENTRY, "data_offsets": "04"}}, 4),
    "another size": ({"a": {**ENTRY, "data_offsets": [0, 8]}}, 8),
    "an overlap": ({"a": ENTRY, "b": ENTRY}, 4),
    "a gap": ({"a": ENTRY, "b": {**ENTRY, "data_offsets": [8, 12]}}, 12),
    "data behind the last": ({"a": ENTRY}, 8),
    "data that are missing": ({"a": ENTRY}, 3),
}


@pytest.mark.parametrize(("entries", "size"), HEADERS.values(), ids=HEADERS)
def test_headers_that_the_library_refuses_are_refused(folder, entries, size):
    header = json.dumps(entries).encode()
    content = struct.pack("<Q", len(header)) + header + b"\x00" * size
    with pytest.raises(SafetensorError):
        deserialize(content)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError), ModelFiles(folder) as files:
        read_header(files.open("model.safetensors", WeightsError))


def test_a_header_of_two_hundred_dimensions_or_in_another_encoding_is_refused(folder):
    many = json.dumps({"a": {**ENTRY, "shape": [1] * 200}}).encode()
    for header in (many, json.dumps({"a": ENTRY}).encode("utf-16")):
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\x00" * 4)
        refused(folder, WeightsError, "model.safetensors", "found a damaged safetensors file")


def test_the_header_says_what_the_library_reads(folder):
    extra = {"half": np.ones((2, 3), np.float16), "none": np.zeros((0, 4), np.float32), "one": np.array(3.0)}
    extra |= {"whole": np.arange(3), "truth": np.array([True]), "small": np.zeros(5, np.int8)}
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update(extra))
    content = (folder / "model.safetensors").read_bytes()
    with ModelFiles(folder) as files:
        ours = read_header(files.open("model.safetensors", WeightsError))
    theirs = dict(deserialize(content))
    assert {tensor.name for tensor in ours} == set(theirs)
    for tensor in ours:
        expected = theirs[tensor.name]
        assert (tensor.dtype, list(tensor.shape)) == (expected["dtype"], expected["shape"])
        assert content[tensor.start : tensor.stop] == expected["data"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_words_of_16_bits_that_are_no_numbers(folder, dtype, value, monkeypatch):
    monkeypatch.setattr("numbert.loaders.tensors.CHECKED_ROWS", 2)  # looked at in several parts

    def spoil(tensors):
        for name, array in tensors.items():
            if name.endswith("word_embeddings.weight"):
                array[5, 7] = value
            tensors[name] = array.astype(np.float16)

    edit_tensors(folder / "model.safetensors", spoil)
    if dtype == "BF16":
        as_bfloat16(folder / "model.safetensors", value)
    with pytest.raises(WeightsError, match=rf"word_embeddings\.weight: found {value} at \(5, 7\)"):
        CrossEncoder(folder)


def as_bfloat16(path, value):
    """Call the numbers of a file bfloat16 ones; they become others, but for the one that is none."""
    content = path.read_bytes()
    length = struct.unpack_from("<Q", content)[0]
    header, numbers = content[8 : 8 + length], np.frombuffer(content[8 + length :], np.float16).copy()
    upper = np.float32(value).view(np.uint32) >> 16
    odd = ~np.isfinite(numbers)
    assert odd.sum() == 1
    numbers.view(np.uint16)[odd] = upper
    header = header.replace(b'"F16"', b'"BF16"')
    path.write_bytes(struct.pack("<Q", len(header)) + header + numbers.tobytes())


# ---- shards


@pytest.fixture
def sharded(tmp_path):
    return copy_checkpoint("sharded-bfloat16", tmp_path)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "a\\b.safetensors", "x.bin", "..", ""])
def test_an_index_that_leads_out_of_the_folder(sharded, name):
    (sharded.parent / "outside.safetensors").write_bytes(b"secret")
    edit_json(
        sharded / "model.safetensors.index.json", lambda index: index["weight_map"].update({"classifier.bias": name})
    )
    refused(sharded, WeightsError, "index.json: weight_map: found file", repr(name), "expected a plain name")


def test_a_missing_shard(sharded):
    (sharded / "model-00003-of-00005.safetensors").unlink()
    refused(sharded, WeightsError, "weight_map: names 'model-00003-of-00005.safetensors', which is not in the folder")


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_without_a_map(sharded, content):
    (sharded / "model.safetensors.index.json").write_text(content)
    refused(sharded, WeightsError, "index.json: found no weight_map")


def test_a_tensor_in_two_shards(sharded):
    first, second = sorted(sharded.glob("model-*.safetensors"))[:2]
    second.write_bytes(first.read_bytes())
    refused(sharded, WeightsError, "found again, expected once")


def test_shards_hold_what_one_file_would(sharded):
    expected = dict(load_checkpoint(sharded).weights)
    widened = {}
    for path in sorted(sharded.glob("model-*.safetensors")):
        widened.update(load_bfloat16(path))
        path.unlink()
    (sharded / "model.safetensors.index.json").unlink()
    save_file(widened, sharded / "model.safetensors")
    weights = load_checkpoint(sharded).weights
    assert weights.stored_dtypes() == ["F32"]
    assert weights.keys() == expected.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(array, expected[name])


def load_bfloat16(path):
    """Read bfloat16 tensors, the upper halves of float32 numbers; the library does not, as NumPy has no such type."""
    tensors = {}
    for name, tensor in deserialize(path.read_bytes()):
        assert tensor["dtype"] == "BF16"
        halves = np.frombuffer(tensor["data"], "<u2").astype(np.uint32)
        tensors[name] = (halves << 16).view(np.float32).reshape(tensor["shape"])
    return tensors


def test_stored_dtypes_are_widened_exactly(folder):
    kept = dict(load_checkpoint(folder).weights)
    assert {array.dtype for array in kept.values()} == {np.dtype(np.float32)}
    edit_tensors(
        folder / "model.safetensors",
        lambda tensors: tensors.update({k: v.astype(np.float16) for k, v in tensors.items()}),
    )
    for name, halved in load_checkpoint(folder).weights.items():
        assert (halved == kept[name].astype(np.float16).astype(np.float32)).all()


def test_words_stay_in_the_dtype_of_the_file_and_score_the_same(folder, sharded, tmp_path):
    edit_tensors(
        folder / "model.safetensors",
        lambda tensors: tensors.update({k: v.astype(np.float16) for k, v in tensors.items()}),
    )
    for name, kind in ((folder, Float16Table), (sharded, Bfloat16Table)):
        widened = tmp_path / f"widened {kind.__name__}"
        shutil.copytree(name, widened)
        for path in widened.glob("*.safetensors*"):
            path.unlink()
        arrays = {source.name: tensor for tensor, source in as_published(name)}
        save_file(arrays, widened / "model.safetensors")
        pairs = [("how many people", "some words of a passage"), ("a", "b " * 20)]
        stored, wide = CrossEncoder(name), CrossEncoder(widened)
        assert type(stored._scorer.runner.encoder.embedding.word) is kind
        assert isinstance(wide._scorer.runner.encoder.embedding.word, np.ndarray)
        assert (stored.predict(pairs) == wide.predict(pairs)).all()


def as_published(folder):
    """Yield the tensors of a checkpoint, widened, and their sources."""
    weights = load_checkpoint(folder).weights
    for name, (_, source) in weights._tensors.items():
        yield weights[name], source


def test_bfloat16_is_the_upper_half_of_float32(sharded):
    weights = load_checkpoint(sharded).weights
    assert weights.stored_dtypes() == ["BF16"]
    bits = np.concatenate([array.ravel() for array in weights.values()]).view(np.uint32)
    assert (bits & 0xFFFF == 0).all()
    assert len(np.unique(bits)) > 1000


# ---- modules

TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
DENSE = {"idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.base.modules.dense.Dense"}
MODULES = {
    "a further Dense": ([TRANSFORMER, DENSE], "found modules Transformer, Dense, expected a Transformer alone, or"),
    "none": ([], "found modules of none, expected a Transformer alone"),
    "only a Dense": ([DENSE], "found modules Dense, expected"),
    "of someone else": ([{**TRANSFORMER, "type": "evil.Transformer"}], "found modules 'evil.Transformer', expected"),
    "no list": ({"type": "x"}, "found modules a JSON dict, expected"),
    "no objects": ([3], "found modules None, expected"),
    "elsewhere": ([{**TRANSFORMER, "path": "0_Transformer"}], "path: found '0_Transformer', expected '', the folder"),
}


@pytest.mark.parametrize(("modules", "message"), MODULES.values(), ids=MODULES)
def test_modules_that_would_be_left_out_are_refused_by_name(folder, modules, message):
    (folder / "modules.json").write_text(json.dumps(modules))
    refused(folder, ConfigError, "modules.json: ", message)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"transformer_task": "feature-extraction"}, "transformer_task: found 'feature-extraction', expected"),
        ({"do_lower_case": True}, "do_lower_case: found True, expected False"),
        ({"processing_kwargs": {"text": {"max_length": 9}}}, "processing_kwargs: found {'text': {'max_length': 9}}"),
        ({"module_output_name": "other"}, "module_output_name: found 'other', expected 'scores'"),
        ({"modality_config": {"text": {"method": "embed"}}}, "modality_config: found {'text': {'method': 'embed'}}"),
        ({"modality_config": 3}, "modality_config: found 3"),
        ({"something": 3}, "something: found 3, expected no such setting"),
        ({"max_seq_length": 0}, "max_seq_length: found 0, expected an integer from 1"),
        ({"max_seq_length": 3}, "max_seq_length: found 3, expected more than the 3 special tokens of a pair"),
        ([], "found a JSON list, expected an object"),
    ],
)
def test_settings_of_the_one_module_that_numbert_does_not_follow_are_refused(folder, settings_, message):
    (folder / "modules.json").write_text(json.dumps([TRANSFORMER]))
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings_))
    refused(folder, ConfigError, "sentence_bert_config.json: ", message)


@pytest.mark.parametrize(("longest", "expected"), [(None, 64), (40, 40), (4, 4), (1000, 64)])
def test_the_length_that_the_one_module_is_set_to_is_followed(folder, longest, expected):
    (folder / "modules.json").write_text(json.dumps([TRANSFORMER]))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": longest}))
    assert CrossEncoder(folder, backend="reference").max_seq_length == expected


def test_settings_under_an_old_name_are_not_left_out(folder):
    (folder / "modules.json").write_text(json.dumps([TRANSFORMER]))
    (folder / "sentence_roberta_config.json").write_text("{}")
    refused(folder, ConfigError, "sentence_roberta_config.json: found settings under an old name")


def test_an_adapter_is_not_left_out(folder):
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, ConfigError, "adapter_config.json: found an adapter, expected none")


# ---- tokenizer


def test_no_tokenizer_at_all(folder):
    (folder / "tokenizer.json").unlink()
    refused(folder, ModelNotFoundError, "found no tokenizer.json or vocab.txt")


@pytest.mark.parametrize("content", ["{}", "", "[", '{"version": "1.0", "model": {"type": "WordPiece", "vocab": {}}}'])
def test_a_tokenizer_that_is_none(folder, content):
    (folder / "tokenizer.json").write_text(content)
    refused(folder, TokenizerError, "tokenizer.json")


def test_a_tokenizer_that_knows_more_than_the_model(folder):
    edit_json(
        folder / "tokenizer.json",
        lambda content: content["model"]["vocab"].update({f"new{i}": 900 + i for i in range(9)}),
    )
    refused(folder, TokenizerError, "tokenizer.json", "the model's word embeddings have 503 rows")


def at(*keys, value):
    """Return a change of a JSON file: put a value at the place that the keys lead to."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


UNKNOWN_TOKEN = {"SpecialToken": {"id": "[NONE]", "type_id": 0}}
TOKENIZERS = {
    "id beyond the table": (at("model", "vocab", "e", value=999_999), "found token id 999999, but the model's word"),
    "template id beyond the table": (
        at("post_processor", "special_tokens", "[SEP]", "ids", value=[503]), "found token id 503, but the model's word",
    ),
    "negative id": (at("model", "vocab", "e", value=-1), "found no usable tokenizer (invalid value: integer `-1`"),
    "no template": (at("post_processor", value=None), "expected special tokens around two texts"),
    "template for one text": (
        at("post_processor", "pair", value=[{"Sequence": {"id": "A", "type_id": 0}}]), "expected one for a pair",
    ),
    "template with an unknown token": (  # makes the library panic
        at("post_processor", "pair", value=[UNKNOWN_TOKEN]), "found no usable tokenizer",
    ),
    "no token for the unknown": (at("model", "unk_token", value="[NONE]"), "found no usable tokenizer"),
    "broken pattern": (
        at("normalizer", value={"type": "Replace", "pattern": {"Regex": "(("}, "content": ""}), "no usable tokenizer",
    ),
    "broken table of characters": (
        at("normalizer", value={"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "found no usable tokenizer",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), TOKENIZERS.values(), ids=TOKENIZERS)
def test_tokenizers_that_are_refused(folder, change, message):
    edit_json(folder / "tokenizer.json", change)
    refused(folder, TokenizerError, "tokenizer.json: ", message)


def double(character: str, times: int) -> dict:
    step = {"type": "Replace", "pattern": {"String": character}, "content": character * 2}
    return {"type": "Sequence", "normalizers": [step] * times}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
WRITES_MUCH = {
    "a long replacement": (("normalizer",), {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 65}),
    "for any place": (("normalizer",), {"type": "Replace", "pattern": {"Regex": "x*"}, "content": "e" * 64}),
    "a long beginning": (("normalizer",), {"type": "Prepend", "prepend": "e" * 65}),
    "bytes of bytes": (("pre_tokenizer",), {"type": "Sequence", "pretokenizers": [BYTES] * 33}),
}


@pytest.mark.parametrize(("place", "value"), WRITES_MUCH.values(), ids=WRITES_MUCH)
def test_a_step_that_writes_much_for_a_character_is_refused(folder, place, value):
    edit_json(folder / "tokenizer.json", at(*place, value=value))
    refused(folder, TokenizerError, "tokenizer.json", "characters for one, expected at most 64")


def test_a_chain_that_doubles_the_text_again_and_again_is_refused_for_the_text_that_it_doubles(folder):
    edit_json(folder / "tokenizer.json", at("normalizer", value=double("z", 33)))
    model = CrossEncoder(folder, backend="reference")
    model.predict(("bcd", "efgh"))  # nothing to double
    with pytest.raises(
        TokenizerError, match=r"tokenizer\.json: found a normalizer that makes \d+ characters of a text"
    ):
        model.predict(("z" * 100, "efgh"))


@pytest.mark.parametrize("character", ["a", "x", "\u9f98"])
def test_a_chain_that_doubles_what_every_model_is_tried_with_is_refused_at_load(folder, character):
    edit_json(folder / "tokenizer.json", at("normalizer", value=double(character, 33)))
    refused(folder, TokenizerError, "found a normalizer that makes")


def added(content: str, number: int = 0, **flags: bool) -> dict:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": number, "content": content, **plain, **flags}


@pytest.mark.parametrize("escaped", [False, True])
def test_an_added_token_that_the_library_would_normalize_while_it_reads_the_file_is_looked_at_before(folder, escaped):
    edit_json(folder / "tokenizer.json", at("normalizer", value=double("z", 33)))
    edit_json(folder / "tokenizer.json", at("added_tokens", value=[added("z", normalized=True)]))
    if escaped:  # a name that is written in escapes is not seen in the text
        path = folder / "tokenizer.json"
        path.write_text(path.read_text().replace('"normalized"', '"normali\\u007aed"'))
    refused(folder, TokenizerError, "found a normalizer that makes")


def test_added_tokens_are_few_since_the_library_compares_each_with_all(folder):
    tokens = [added(f"<{i}>", i) for i in range(20_001)]
    edit_json(folder / "tokenizer.json", at("added_tokens", value=tokens))
    refused(folder, TokenizerError, "tokenizer.json", "found 20001 added tokens, expected at most 20000")


def test_chains_have_few_steps(folder):
    steps = {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 65}
    edit_json(folder / "tokenizer.json", at("normalizer", value=steps))
    refused(folder, TokenizerError, "found more than 64 normalizers, expected some")


def test_a_step_is_not_taken_that_could_fill_the_memory(folder, monkeypatch):
    monkeypatch.setattr(expansion, "LARGEST_TEXT", 1000)
    edit_json(folder / "tokenizer.json", at("normalizer", value=double("z", 10)))
    model = CrossEncoder(folder, backend="reference")
    with pytest.raises(TokenizerError, match="found a normalizer that makes 2000 characters of a text of 1000"):
        model.predict(("b" * 1000, "efgh"))


ADDED_ELSEWHERE = {
    "added_tokens.json": ("added_tokens.json", {"<new>": 77}),
    "another number": ("added_tokens.json", {"[SEP]": 77}),
    "decoder": ("tokenizer_config.json", {"added_tokens_decoder": {"77": {"content": "<new>"}}}),
    "special": ("tokenizer_config.json", {"additional_special_tokens": ["<new>"]}),
    "no token": ("tokenizer_config.json", {"extra_special_tokens": {"a": 3}}),
}


@pytest.mark.parametrize(("name", "values"), ADDED_ELSEWHERE.values(), ids=ADDED_ELSEWHERE)
def test_tokens_that_transformers_would_add_from_other_files_are_refused(folder, name, values):
    path = folder / name
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **values}))
    refused(folder, TokenizerError, f"{name}: found a token")


def test_tokens_of_other_files_that_the_tokenizer_has_are_fine(folder):
    number = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]["[SEP]"]
    (folder / "added_tokens.json").write_text(json.dumps({"[SEP]": number}))
    more = {"added_tokens_decoder": {str(number): {"content": "[SEP]"}}, "additional_special_tokens": ["[SEP]"]}
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(more))
    load_checkpoint(folder)
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(additional_special_tokens=3))
    refused(folder, ConfigError, "additional_special_tokens: found 3, expected an object or a list")


def test_names_of_tensors_move_no_cursor(folder):
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update({"\x1b[2J": np.zeros(1, np.float32)}))
    with pytest.raises(WeightsError) as caught:
        load_checkpoint(folder)
    assert "\x1b" not in str(caught.value)
    assert "\\x1b[2J" in str(caught.value)


def test_a_chain_that_stays_within_bounds_gives_the_tokens_that_the_library_gives(folder):
    chain = [{"type": kind} for kind in ("NFKC", "Lowercase", "NFD", "StripAccents", "NFKC")]
    edit_json(folder / "tokenizer.json", at("normalizer", value={"type": "Sequence", "normalizers": chain}))
    tokenizer = load_checkpoint(folder).tokenizer
    assert len(tokenizer.growth.steps) == len(chain)
    texts = ["\ufdfa" * 50, "Ünïcode and ½", ""]
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode(texts) == [library.encode(text, add_special_tokens=False).ids for text in texts]


def charsmap(longest: int) -> str:
    """Return a table as sentencepiece has it, with an empty trie and one text."""
    return base64.b64encode(struct.pack("<I", 4) + b"\0" * 4 + b"e" * longest + b"\0").decode()


@pytest.mark.parametrize("longest", [18, 65])
def test_a_table_of_characters_is_bound_by_its_longest_text(longest):
    step = {"type": "Precompiled", "precompiled_charsmap": charsmap(longest)}
    given = SimpleNamespace(
        pre_tokenizer=None, normalizer=SimpleNamespace(__getstate__=lambda: json.dumps(step).encode())
    )
    if longest <= 64:
        assert measure_growth(given).steps == ()
    else:
        with pytest.raises(ValueError, match="Precompiled may write 65 characters for one, expected at most 64"):
            measure_growth(given)


@pytest.mark.parametrize("dropout", [0.1, 1.0])
def test_dropout_that_gives_other_tokens_each_time_is_refused(tmp_path, dropout):
    folder = copy_checkpoint("roberta", tmp_path)
    edit_json(folder / "tokenizer.json", at("model", "dropout", value=dropout))
    refused(
        folder, TokenizerError, f"tokenizer.json: model.dropout: found {dropout:g}, which gives a text other tokens"
    )


def test_words_of_any_length_would_take_hours(folder):
    edit_json(folder / "tokenizer.json", at("model", "max_input_chars_per_word", value=1001))
    refused(folder, TokenizerError, "model.max_input_chars_per_word: found 1001, expected at most 1000")


def special(name: str) -> dict:
    return {"SpecialToken": {"id": name, "type_id": 0}}


def text_of(name: str) -> dict:
    return {"Sequence": {"id": name, "type_id": 0}}


A, B, CLS, SEP = text_of("A"), text_of("B"), special("[CLS]"), special("[SEP]")
TEMPLATES = {
    "the first text twice": [CLS, A, A, SEP, B, SEP],
    "the second text twice": [CLS, A, SEP, B, B, SEP],
    "the second text first": [CLS, B, SEP, A, SEP],
    "nothing before": [A, SEP, B, SEP],
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_templates_that_are_not_two_texts_with_special_tokens_around_are_refused(folder, template):
    edit_json(folder / "tokenizer.json", at("post_processor", "pair", value=template))
    refused(folder, TokenizerError, "tokenizer.json: found a template that numbert cannot reproduce")


PADDING = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
TRUNCATION = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst"}
BAKED_IN = {
    "truncation": {"truncation": TRUNCATION | {"stride": 0}},
    "impossible truncation": {"truncation": TRUNCATION | {"stride": 9}},  # would make the library panic
    "padding": {"padding": PADDING | {"strategy": {"Fixed": 40}}},
    "impossible padding": {"padding": PADDING | {"strategy": "BatchLongest", "pad_to_multiple_of": 0}},
}


@pytest.mark.parametrize("baked_in", BAKED_IN.values(), ids=BAKED_IN)
def test_settings_baked_into_the_tokenizer_are_ignored(folder, baked_in):
    pair = ("some words here", "and more words there")
    expected = CrossEncoder(folder, backend="reference").predict(pair)
    edit_json(folder / "tokenizer.json", lambda content: content.update(baked_in))
    assert CrossEncoder(folder, backend="reference").predict(pair) == expected


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"truncation_side": "left"}, TokenizerError, "truncation_side: found 'left', expected 'right'"),
        ({"model_max_length": 3}, ConfigError, "model_max_length: found 3, expected an integer from 4"),
        ({"model_max_length": -1}, ConfigError, "model_max_length: found -1"),
        ({"model_max_length": "long"}, ConfigError, "model_max_length: found 'long'"),
    ],
)
def test_tokenizer_settings_that_are_refused(folder, change, error, message):
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(change))
    refused(folder, error, "tokenizer_config.json", message)


@pytest.mark.parametrize("value", [None, 10**30, 1e30])
def test_no_limit_in_the_tokenizer_means_the_models_positions(folder, value):
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(model_max_length=value))
    assert CrossEncoder(folder).max_length == 64


def test_a_vocabulary_without_special_tokens(tmp_path):
    folder = copy_checkpoint("vocab-txt", tmp_path)
    path = folder / "vocab.txt"
    path.write_text(path.read_text().replace("[SEP]\n", "[sep]\n"))
    refused(folder, TokenizerError, "vocab.txt: found no token '[SEP]', expected it in the vocabulary")


def test_a_vocabulary_with_a_setting_that_is_no_token(tmp_path):
    folder = copy_checkpoint("vocab-txt", tmp_path)
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(sep_token=3))
    refused(folder, ConfigError, "tokenizer_config.json: sep_token: found 3, expected a token")


# ---- folders


def test_only_pickled_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, ModelNotFoundError, "found no model.safetensors", "never loaded", "save_pretrained")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_is_not_there(folder, name):
    (folder / name).unlink()
    refused(folder, ModelNotFoundError, f"{folder}: found no {name}", "check that the download is complete")


@pytest.mark.parametrize("name", [3, b"narrow", ["narrow"], object])
def test_a_name_that_is_none(name):
    with pytest.raises(TypeError, match=r"model_name_or_path: found .*, expected a str or a path; pass one"):
        load_checkpoint(name)


@pytest.mark.parametrize("name", ["\ud800", "./\ud800", "a/\ud800"])
def test_names_of_half_characters_make_messages_that_can_be_printed(name):
    with pytest.raises(ModelNotFoundError) as caught:
        load_checkpoint(name)
    assert "\\ud800: found no such folder" in str(caught.value).encode().decode()


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "a/b/c", "..\\model", "~/model", "/" + "x" * 999])
def test_a_folder_that_is_not_there(name):
    refused(name, ModelNotFoundError, f"{name}: found no such folder")


def test_a_file_instead_of_a_folder(folder):
    with pytest.raises(NotADirectoryError, match=r"config\.json: found a file, expected the folder"):
        load_checkpoint(folder / "config.json")


# ---- whatever the bytes are


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors"]),
    place=st.floats(0, 1, exclude_max=True),
    bytes_=st.binary(min_size=1, max_size=4),
    cut=st.booleans(),
)
def test_damaged_files_load_or_raise_our_errors(tmp_path_factory, name, place, bytes_, cut):
    folder = copy_checkpoint("old-names", tmp_path_factory.mktemp("damaged"))
    content = bytearray((folder / name).read_bytes())
    end = len(content) if name != "model.safetensors" else 3000  # its header
    at = int(place * end)
    content[at : at + len(bytes_)] = bytes_
    (folder / name).write_bytes(content[:at] if cut else content)
    with contextlib.suppress(NumbertError):
        CrossEncoder(folder, num_threads=1).predict(("a b", "c d"))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.data(), value=st.sampled_from([None, -1, 0, 3, 2**40, 0.5, "x", [], {}, [1], True, {"content": "[SEP]"}]))
def test_any_value_of_any_setting_loads_or_raises_our_errors(tmp_path_factory, key, value):
    folder = copy_checkpoint("vocab-txt", tmp_path_factory.mktemp("settings"))
    path = folder / key.draw(st.sampled_from(["config.json", "tokenizer_config.json"]))
    names = [
        *sorted(json.loads(path.read_text())),
        "sep_token",
        "cls_token",
        "do_lower_case",
        "strip_accents",
        "id2label",
    ]
    edit_json(path, lambda config: config.update({key.draw(st.sampled_from(names)): value}))
    with contextlib.suppress(NumbertError):
        CrossEncoder(folder, num_threads=1).predict(("a b", "c d"))


SPECIAL = ("cls", "pad", "sep", "unk", "mask")


def test_byte_pairs_from_vocabulary_and_merges(tmp_path):
    expected = load_golden("roberta")
    folder = copy_checkpoint("roberta", tmp_path)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"]), "utf-8")
    loaded = CrossEncoder(folder)
    ids, _ = tokens_of(PAIRS, loaded._scorer.tokenizer, loaded.spec, loaded.max_seq_length)
    assert ids == expected.ids
    for name in SPECIAL:
        edit_json(folder / "tokenizer_config.json", lambda config, key=f"{name}_token": config.update({key: "<no>"}))
        refused(folder, TokenizerError, f"vocab.json: found no {name} token '<no>'")
        edit_json(folder / "tokenizer_config.json", lambda config, key=f"{name}_token": config.pop(key))


def test_an_empty_name_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(copy_checkpoint("narrow", tmp_path))
    refused("", ModelNotFoundError, "model_name_or_path: found an empty string")


@pytest.mark.parametrize("number", [True, 7])  # JSON's true is 1 to Python, and to the library
def test_byte_pairs_of_which_two_have_one_id_are_refused(tmp_path, number):
    folder = copy_checkpoint("roberta", tmp_path)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"] | {"e": number}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"]), "utf-8")
    refused(folder, TokenizerError, f"found id {int(number)} for both", "expected an id of its own")


@pytest.mark.parametrize("kind", ["DebertaTokenizer", "GPT2TokenizerFast"])
def test_vocabulary_and_merges_of_another_class_than_robertas_are_refused(tmp_path, kind):
    folder = copy_checkpoint("roberta", tmp_path)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(tokenizer_class=kind))
    refused(folder, TokenizerError, f"vocab.json: found tokenizer_class '{kind}', expected RoBERTa's")


def test_berts_special_tokens_are_found_in_texts_also_where_no_setting_names_them(tmp_path):
    folder = copy_checkpoint("vocab-txt", tmp_path)
    texts = ["a [MASK] b", "[SEP]", "[UNK] [PAD][CLS]"]
    expected = load_checkpoint(folder).tokenizer.encode(texts)
    edit_json(folder / "tokenizer_config.json", lambda config: [config.pop(f"{name}_token") for name in SPECIAL])
    assert load_checkpoint(folder).tokenizer.encode(texts) == expected
    assert [len(ids) for ids in expected] == [3, 1, 3]


@pytest.mark.parametrize("line", ["a", "a b c", "", " b"])
def test_merges_that_are_no_pairs(tmp_path, line):
    folder = copy_checkpoint("roberta", tmp_path)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text(f"#version: 0.2\nĠ t\n{line}\nĠ a\n", "utf-8")
    refused(folder, TokenizerError, f"merges.txt: found no usable tokenizer ({line!r} is no pair of tokens")


@pytest.mark.parametrize(("names", "types"), [(["input_ids"], (0, 0)), (["input_ids", "token_type_ids"], (0, 1))])
def test_token_types_are_given_where_the_tokenizer_names_them(folder, names, types):
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(model_input_names=names))
    kinds = load_checkpoint(folder).tokenizer.template.types
    assert (kinds[1], kinds[3]) == types


@pytest.mark.parametrize("name", ["Roberta", "XLMRoberta", "Camembert", "MPNet", "DistilBert", "Bert", "Electra"])
def test_where_nothing_names_them_the_class_says_whether_there_are_token_types(folder, name):
    kind = f"{name}TokenizerFast"
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(tokenizer_class=kind))
    assert any(load_checkpoint(folder).tokenizer.template.types) == (name in ("Bert", "Electra"))


def test_an_interrupt_within_the_library_is_no_damaged_file(folder, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tokenizer_module, "measure_growth", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_checkpoint(folder)


def test_a_plain_vocabulary_of_another_class(tmp_path):
    folder = copy_checkpoint("vocab-txt", tmp_path)
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(tokenizer_class="MPNetTokenizer"))
    refused(folder, TokenizerError, "vocab.txt: found tokenizer_class 'MPNetTokenizer'")


@pytest.mark.parametrize("name", ["tokenizer_config.json", "config_sentence_transformers.json"])
def test_an_optional_file_that_is_there_must_be_readable(folder, name):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(folder / "gone")
    refused(folder, ConfigError, f"{name}: cannot be read")
