"""sentence-transformers' interface beyond predict and rank: old names, prompts, options, copies, saving."""

import copy
import json
import os
import pickle
import shutil
from unittest import mock

import numpy as np
import pytest
from checkpoints import FAMILIES, GOLDENS, REMOTE, copy_checkpoint, edit_json
from hostile_pairs import PAIRS
from numbert import BackendError, CrossEncoder, InputError, InputTypeError, NumbertError, SaveError
from numbert.engine.activations import identity, sigmoid, tanh
from numbert.engine.drop_in import deprecated, saving

needs_links = pytest.mark.skipif(os.name == "nt", reason="on Windows, not everybody may make links")
QUERY = "How many people live in Berlin?"
PASSAGES = ["Berlin has museums.", "Berlin has 3,520,031 inhabitants.", "Rain."]
PAIR_LIST = [(QUERY, passage) for passage in PASSAGES]


@pytest.fixture(autouse=True)
def warn_again():
    """Let each test see warnings that are given once in a process."""
    deprecated.warn_once.cache_clear()


# ---- old names

OLD_NAMES = [
    ("tokenizer_args", {"model_max_length": 20}, "processor_kwargs"),
    ("tokenizer_kwargs", {"model_max_length": 20}, "processor_kwargs"),
    ("automodel_args", {"torch_dtype": "float32"}, "model_kwargs"),
    ("config_args", {"num_labels": 1}, "config_kwargs"),
    ("default_activation_function", "tanh", "activation_fn"),
    ("cache_dir", "unused", "cache_folder"),
]


@pytest.mark.parametrize(("old", "value", "new"), OLD_NAMES)
def test_old_names_of_the_constructor(caplog, old, value, new):
    CrossEncoder(**{old: value})
    expected = f"The CrossEncoder `{old}` argument was renamed and is now deprecated. Please use `{new}` instead."
    assert caplog.messages == [expected]
    CrossEncoder(**{old: value})
    assert len(caplog.messages) == 1


def test_the_models_old_name(caplog):
    assert CrossEncoder(model_name=str(GOLDENS / "narrow")).spec.hidden_size == 48
    assert "`model_name` argument was renamed" in caplog.text


def test_new_names_win(caplog):
    model = CrossEncoder(activation_fn="sigmoid", default_activation_function="tanh")
    assert model.activation_fn is sigmoid


def test_old_positions_of_the_constructor(caplog):
    model = CrossEncoder(str(GOLDENS / "narrow"), 1, 30, "tanh", "cpu")
    assert (model.num_labels, model.max_seq_length, model.activation_fn) == (1, 30, tanh)
    assert caplog.messages[1] == (
        "Passing `max_length` as a positional argument to CrossEncoder is deprecated. "
        "Please use `max_length=30` as a keyword argument instead."
    )
    assert CrossEncoder(str(GOLDENS / "narrow"), 1, 30, max_length=40).max_seq_length == 40
    with pytest.raises(TypeError, match="positional"):
        CrossEncoder(str(GOLDENS / "narrow"), 1, 30, "tanh", "cpu", 5)


def test_classifier_dropout_acts_in_training_only(caplog):
    CrossEncoder(classifier_dropout=0.1)
    assert "Please use `config_kwargs={'classifier_dropout': 0.1}` instead." in caplog.text


def test_old_names_of_predict_and_rank(model, caplog):
    expected = model.predict(PAIR_LIST, activation_fn="tanh")
    assert (model.predict(sentences=PAIR_LIST, activation_fct="tanh", num_workers=3) == expected).all()
    assert caplog.messages == [
        "The `sentences` argument was renamed and is now deprecated. Please use `inputs` instead.",
        "The `activation_fct` argument was renamed and is now deprecated. Please use `activation_fn` instead.",
        "The CrossEncoder.predict `num_workers` argument is deprecated and has no effect. "
        "It will be removed in a future version.",
    ]
    caplog.clear()
    options = {"num_workers": 1, "apply_softmax": True, "convert_to_numpy": True, "convert_to_tensor": True}
    assert model.rank(QUERY, PASSAGES, **options) == model.rank(QUERY, PASSAGES)
    assert len(caplog.messages) == 4
    assert all("deprecated and has no effect" in message for message in caplog.messages)


def test_no_warning_without_old_names(model, caplog):
    model.predict(PAIR_LIST)
    model.rank(QUERY, PASSAGES)
    CrossEncoder(max_length=20, activation_fn="tanh")
    assert caplog.messages == []


def test_old_properties(caplog):
    model = CrossEncoder()
    assert model.max_length == model.max_seq_length == 512
    model.max_length = 256
    assert model.max_seq_length == model.tokenizer.model_max_length == 256
    assert "`max_length` property was renamed" in caplog.text
    with pytest.warns(DeprecationWarning, match="Please use `activation_fn` instead"):
        assert model.default_activation_function is identity


# ---- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules": []}, "modules: found list"),
        ({"model_card_data": {}}, "model_card_data: found dict"),
        ({"device": "cuda:1"}, "device: found 'cuda:1'"),
        ({"backend": "onnx"}, "backend: found 'onnx'"),
        ({"model_kwargs": {"torch_dtype": "float16"}}, "dtype: found 'float16', expected"),
        ({"dtype": "float64"}, "dtype: found 'float64', expected .*; float64 is computed by backend='reference'"),
        ({"matmul_precision": "medium"}, r"matmul_precision: found 'medium', expected one of \['highest', 'high'\]"),
        ({"matmul_precision": "high", "dtype": "int8"}, "matmul_precision: found 'high' with dtype 'int8'"),
        ({"dtype": "int8", "backend": "reference"}, "dtype: found 'int8', expected .*computed by backend='cpu'"),
        ({"dtype": "bfloat16", "keep_in_fp32_modules": ["pooler"]}, r"keep_in_fp32_modules: found \['pooler'\]"),
        ({"model_kwargs": {"device_map": "auto"}}, r"model_kwargs\['device_map'\]: found 'auto'"),
        ({"config_kwargs": {"num_hidden_layers": 2}}, r"config_kwargs\['num_hidden_layers'\]: found 2"),
        ({"config_kwargs": {"num_labels": 2}}, "num_labels: found 2, the checkpoint has 1"),
        ({"processor_kwargs": {"truncation_side": "left"}}, r"processor_kwargs\['truncation_side'\]: found 'left'"),
        ({"default_prompt_name": "none"}, "default_prompt_name: found 'none', expected one of"),
        ({"default_prompt_name": []}, r"default_prompt_name: found \[\], expected one of"),
        ({"prompts": {"a": "\ud800"}}, r"prompts\['a'\]: found a lone surrogate"),
        ({"max_length": 513}, "max_length: found 513"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(options, message):
    with pytest.raises(InputError, match=message):
        CrossEncoder(**options)


@pytest.mark.parametrize("name", ["prompts", "model_kwargs", "processor_kwargs", "config_kwargs"])
def test_dictionaries_are_dictionaries(name):
    with pytest.raises(InputTypeError, match=f"{name}: found list, expected a dict"):
        CrossEncoder(**{name: []})


def test_options_that_change_nothing_are_accepted(model, caplog):
    options = {
        "device": "cpu",
        "trust_remote_code": True,
        "keep_in_fp32_modules": ["classifier"],
        "model_kwargs": {"attn_implementation": "sdpa", "dtype": "auto"},
        "processor_kwargs": {"use_fast": True},
    }
    assert (CrossEncoder(**options).predict(PAIR_LIST) == model.predict(PAIR_LIST)).all()
    assert caplog.messages == [
        "trust_remote_code: numbert never runs a model's code; a model that needs it is refused."
    ]


def test_length_of_one_call(model):
    short = {"processing_kwargs": {"text": {"max_length": 8, "truncation": True, "padding": "longest"}}}
    assert model.predict(PAIR_LIST[1], **short) == CrossEncoder(max_length=8).predict(PAIR_LIST[1])
    assert model.predict(PAIR_LIST[1], **short) != model.predict(PAIR_LIST[1])
    with pytest.raises(InputError, match=r"processing_kwargs\['text'\]\['truncation'\]: found False"):
        model.predict(PAIR_LIST, processing_kwargs={"text": {"truncation": False}})
    with pytest.raises(InputError, match=r"processing_kwargs\['image'\]"):
        model.predict(PAIR_LIST, processing_kwargs={"image": {}})


def test_pools_are_accepted(model):
    pool = model.start_multi_process_pool(["cpu", "cpu"])
    expected = model.predict(PAIR_LIST)
    assert (model.predict(PAIR_LIST, pool=pool, chunk_size=2) == expected).all()
    assert (model.predict(PAIR_LIST, device=["cpu"] * 4) == expected).all()
    model.stop_multi_process_pool(pool)
    with pytest.raises(ValueError, match="chunk_size must be a positive integer"):
        model.predict(PAIR_LIST, pool=pool, chunk_size=0)
    with pytest.raises(InputError, match="device: found 'cuda:0'"):
        model.predict(PAIR_LIST, device=["cuda:0"])


def test_tensors_need_torch(model):
    try:
        import torch
    except ImportError:
        with pytest.raises(BackendError, match="torch is not installed"):
            model.predict(PAIR_LIST, convert_to_tensor=True)
    else:
        result = model.predict(PAIR_LIST, convert_to_tensor=True)
        assert isinstance(result, torch.Tensor)
        assert result.numpy().tolist() == model.predict(PAIR_LIST).tolist()


def test_what_integrations_look_at(model):
    assert model.tokenizer.pad_token == "[PAD]"
    assert model.config.num_labels == 1
    assert model.config.model_type == "bert"
    assert (str(model.device), model.dtype, model.modalities) == ("cpu", "float32", ["text"])
    assert model.supports("text")
    assert not model.supports("image")
    assert [model.is_singular_input(x) for x in (("a", "b"), [("a", "b")], [], np.array(["a", "b"]))] == [1, 0, 0, 1]


# ---- prompts


def test_prompts_go_before_the_query():
    model = CrossEncoder(prompts={"short": "q: ", "long": "query: "}, default_prompt_name="short")
    plain = CrossEncoder()
    assert model.predict(("a", "b")) == plain.predict(("q: a", "b"))
    assert model.predict(("a", "b"), prompt_name="long") == plain.predict(("query: a", "b"))
    assert model.predict(("a", "b"), prompt="x ") == plain.predict(("x a", "b"))
    assert model.predict(("a", "b"), prompt="") == plain.predict(("a", "b"))
    assert model.rank("a", ["b"], prompt_name="long")[0]["score"] == float(plain.predict(("query: a", "b")))


def test_an_unknown_prompt(model):
    with pytest.raises(
        ValueError, match=r"Prompt name 'x' not found in the configured prompts dictionary with keys \[\]"
    ):
        model.predict(("a", "b"), prompt_name="x")


def test_a_prompt_wins_over_its_name(model, caplog):
    model.predict(("a", "b"), prompt="x", prompt_name="y")
    assert "Ignoring the `prompt_name` in favor of `prompt`" in caplog.text


# ---- copies


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_score_alike_and_are_independent(backend, duplicate):
    model = CrossEncoder(GOLDENS / "roberta", backend=backend, num_threads=2)
    twin = duplicate(model)
    pairs = PAIRS[:20]
    assert (twin.predict(pairs) == model.predict(pairs)).all()
    twin.max_seq_length = 10
    twin.activation_fn = sigmoid
    assert model.max_seq_length == 64
    assert model.activation_fn is identity


def test_a_model_pickled_for_another_processor_is_refused(monkeypatch):
    content = pickle.dumps(CrossEncoder(GOLDENS / "narrow"))
    here = {"instruction_set": "another", "kernel_cache": ""}
    monkeypatch.setattr("numbert.kernels.cpu.compiled.describe", lambda: here)
    with pytest.raises(BackendError, match="computes with another; load the model from its folder"):
        pickle.loads(content)


# ---- saving


@pytest.mark.parametrize("name", ["narrow", "sharded-bfloat16", "vocab-txt", *FAMILIES, *REMOTE])
def test_a_saved_model_is_the_same_model(tmp_path, name):
    model = CrossEncoder(
        GOLDENS / name, max_length=20, activation_fn="tanh", prompts={"q": "q: "}, default_prompt_name="q"
    )
    model.save_pretrained(tmp_path / "new" / "folder")
    again = CrossEncoder(tmp_path / "new" / "folder")
    assert (again.predict(PAIRS[:30]) == model.predict(PAIRS[:30])).all()
    assert (again.max_seq_length, again.activation_fn, again.prompts) == (20, tanh, {"q": "q: "})


def test_saving_over_itself_keeps_the_weights(tmp_path):
    folder = copy_checkpoint("narrow", tmp_path)
    model = CrossEncoder(folder, activation_fn="sigmoid")
    model.save(folder)
    assert (CrossEncoder(folder).predict(PAIRS[:5]) == model.predict(PAIRS[:5])).all()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_model_is_saved_over_itself_again_and_again(tmp_path):
    folder = copy_checkpoint("sharded-bfloat16", tmp_path)
    model = CrossEncoder(folder)
    for _ in range(3):
        model.save(folder)
    assert CrossEncoder(folder).predict(PAIRS[0]) == model.predict(PAIRS[0])


def test_a_file_system_without_links_keeps_what_was_there_too(tmp_path, monkeypatch):
    CrossEncoder(GOLDENS / "narrow").save_pretrained(tmp_path)
    before = content_of(tmp_path)
    monkeypatch.setattr(os, "link", mock.Mock(side_effect=PermissionError(1, "Operation not permitted")))
    model = CrossEncoder(GOLDENS / "vocab-txt")
    with monkeypatch.context() as patch:
        fail_at(patch, saving.Path, "replace", OSError(28, "No space left on device"), 3)
        with pytest.raises(SaveError, match="No space left on device"):
            model.save_pretrained(tmp_path)
    assert content_of(tmp_path) == before
    model.save_pretrained(tmp_path)
    assert CrossEncoder(tmp_path).predict(PAIRS[0]) == model.predict(PAIRS[0])


@pytest.mark.parametrize(("first", "second"), [("narrow", "sharded-bfloat16"), ("sharded-bfloat16", "narrow")])
def test_what_another_model_left_in_the_folder_is_not_read(tmp_path, first, second):
    CrossEncoder(GOLDENS / first).save_pretrained(tmp_path)
    model = CrossEncoder(GOLDENS / second)
    model.save_pretrained(tmp_path)
    assert (CrossEncoder(tmp_path).predict(PAIRS[:5]) == model.predict(PAIRS[:5])).all()


def test_a_vocabulary_is_not_shadowed_by_an_older_tokenizer(tmp_path):
    CrossEncoder(GOLDENS / "narrow").save_pretrained(tmp_path)
    model = CrossEncoder(GOLDENS / "vocab-txt")
    model.save_pretrained(tmp_path)
    assert (CrossEncoder(tmp_path).predict(PAIRS[:5]) == model.predict(PAIRS[:5])).all()


def test_shards_of_any_name_are_saved(tmp_path):
    folder = copy_checkpoint("sharded-bfloat16", tmp_path)
    (folder / "model-00001-of-00005.safetensors").rename(folder / "part0.safetensors")
    text = (folder / "model.safetensors.index.json").read_text()
    (folder / "model.safetensors.index.json").write_text(text.replace("model-00001-of-00005", "part0"))
    CrossEncoder(folder).save_pretrained(tmp_path / "new")
    assert CrossEncoder(tmp_path / "new").predict(PAIRS[0]) == CrossEncoder(folder).predict(PAIRS[0])


def test_threads_that_save_to_one_folder_leave_a_whole_model(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    model = CrossEncoder(GOLDENS / "narrow")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: model.save_pretrained(tmp_path), range(20)))
    assert CrossEncoder(tmp_path).predict(PAIRS[0]) == model.predict(PAIRS[0])


def test_an_activation_may_work_in_place(model):
    ranks = [
        model.rank(QUERY, PASSAGES, activation_fn=function) for function in (lambda x: x * 0, lambda x: x.__imul__(0))
    ]
    assert ranks[0] == ranks[1]


def test_what_cannot_be_saved_is_refused(tmp_path):
    with pytest.raises(InputError, match="safe_serialization: found False"):
        CrossEncoder().save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(InputError, match="to be saved by name"):
        CrossEncoder(activation_fn=lambda logits: logits).save_pretrained(tmp_path)


def content_of(folder):
    """Return every path below a folder, and what is in it."""
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("here before")
    return tmp_path / "file"


def below_a_file(tmp_path):
    return in_the_place_of_the_folder(tmp_path) / "model"


def beside_a_folder_with_the_name_of_a_file(tmp_path):
    (tmp_path / "model" / "config.json").mkdir(parents=True)
    return tmp_path / "model"


def beside_a_folder_with_the_name_of_a_file_to_remove(tmp_path):
    (tmp_path / "model" / "vocab.txt").mkdir(parents=True)
    return tmp_path / "model"


IMPOSSIBLE = [
    (in_the_place_of_the_folder, "file: cannot save the model: found File exists, expected a folder"),
    (below_a_file, "cannot save the model: found Not a directory, expected a folder"),
    (beside_a_folder_with_the_name_of_a_file, "config.json: found a folder, expected a file or nothing; give"),
    (beside_a_folder_with_the_name_of_a_file_to_remove, "vocab.txt: found a folder, expected a file or nothing; give"),
    (lambda tmp_path: tmp_path / "new" / ("x" * 300), "cannot save the model: found File name too long"),
    (lambda tmp_path: str(tmp_path / "a\0b"), "path: found .*, expected a folder's name .*; give another"),
    (lambda tmp_path: str(tmp_path / "\ud800"), "path: found .*, expected a folder's name .*; give another"),
    (lambda tmp_path: "/proc/model", "cannot save the model: found .*, expected a folder that can be written"),
]


@pytest.mark.skipif(os.name == "nt", reason="other words for the same errors")
@pytest.mark.parametrize(("place", "message"), IMPOSSIBLE)
def test_an_impossible_place_is_refused_and_nothing_is_left(model, tmp_path, place, message):
    target = place(tmp_path)
    before = content_of(tmp_path)
    with pytest.raises(SaveError, match=message):
        model.save_pretrained(target)
    assert content_of(tmp_path) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_parent_is_refused(model, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SaveError, match="model: cannot save the model: found Permission denied"):
        model.save_pretrained(tmp_path / "model")


@pytest.mark.parametrize("path", [5, None, b"model", []])
def test_a_place_is_a_name(model, path):
    with pytest.raises(InputTypeError, match=r"path: found .*, expected the name of a folder"):
        model.save_pretrained(path)


def fail_at(monkeypatch, where, name, error, k):
    """Let the k-th call of a function, counted from 0, raise."""
    usual, calls = getattr(where, name), iter(range(10**6))

    def failing(*args, **kwargs):
        if next(calls) == k:
            raise error
        return usual(*args, **kwargs)

    monkeypatch.setattr(where, name, failing)


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize(
    ("where", "name"),
    [
        (shutil, "copyfile"),
        (saving.Path, "write_bytes"),
        (saving.Path, "replace"),
        (saving.Path, "mkdir"),
        (os, "link"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
def test_a_disk_that_is_full_at_any_step_leaves_what_was_there(tmp_path, monkeypatch, existing, where, name, error):
    target = tmp_path / "model"
    if existing:
        CrossEncoder(GOLDENS / "vocab-txt").save_pretrained(target)
    model = CrossEncoder(GOLDENS / "narrow", activation_fn="tanh")
    before = content_of(tmp_path)
    for k in range(100):
        with monkeypatch.context() as patch:
            fail_at(patch, where, name, error, k)
            message = ""
            try:
                model.save_pretrained(target)
                break  # fewer than k steps, or one that there is another way for
            except (SaveError, KeyboardInterrupt) as caught:
                message = str(caught)
        assert message == "" or "No space left on device" in message
        assert content_of(tmp_path) == before
    assert CrossEncoder(target).predict(PAIRS[0]) == model.predict(PAIRS[0])
    assert not [path for path in target.iterdir() if path.name.startswith(".")]


def test_a_source_that_has_been_replaced_is_not_saved(tmp_path):
    folder = copy_checkpoint("narrow", tmp_path)
    model = CrossEncoder(folder)
    shutil.copy(GOLDENS / "odd-heads-float16" / "model.safetensors", folder)
    with pytest.raises(SaveError, match=r"narrow: found other files than those that were loaded.*load it again"):
        model.save_pretrained(tmp_path / "new")
    shutil.rmtree(folder)
    with pytest.raises(NumbertError, match="narrow"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


LINKED = ["README.md", "LICENSE", "special_tokens_map.json", "vocab.txt", "model.safetensors", "tokenizer_config.json"]


@needs_links
@pytest.mark.parametrize("name", LINKED)
def test_a_link_out_of_the_folder_is_not_followed(tmp_path, name):
    folder = copy_checkpoint("narrow", tmp_path)
    secret = tmp_path / "credentials"
    secret.write_text("{}")
    if (folder / name).exists():
        (folder / name).replace(secret)
    (folder / name).symlink_to("../credentials")
    model = CrossEncoder(folder)
    with pytest.raises(SaveError, match=rf"{name}: found a link to {secret}, expected one to a file of the model; if"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@needs_links
def test_a_folder_whose_parent_is_named_snapshots_may_not_read_what_is_beside_its_blobs(tmp_path):
    snapshot = copy_checkpoint("narrow", tmp_path / "repository" / "snapshots")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("secret")
    (tmp_path / "repository" / "blobs").symlink_to(tmp_path / "secrets")
    (snapshot / "README.md").symlink_to("../../blobs/key")
    with pytest.raises(SaveError, match=r"README\.md: found a link to .*key"):
        CrossEncoder(snapshot).save_pretrained(tmp_path / "new")


@needs_links
@pytest.mark.parametrize("parent", ["snapshots", "others"])
def test_the_links_of_a_snapshot_of_the_hub_are_followed(tmp_path, monkeypatch, parent):
    repository = tmp_path / "models--a--b"
    snapshot = copy_checkpoint("narrow", repository / parent)
    # A blob has no suffix, and weights may be larger than other files.
    monkeypatch.setattr(saving, "LARGEST_FILE", (snapshot / "model.safetensors").stat().st_size - 1)
    (repository / "blobs").mkdir()
    for i, path in enumerate(sorted(snapshot.iterdir())):
        path.replace(repository / "blobs" / str(i))
        path.symlink_to(f"../../blobs/{i}")
    (tmp_path / "link").symlink_to(snapshot)
    model = CrossEncoder(tmp_path / "link")
    if parent == "snapshots":
        model.save_pretrained(tmp_path / "new")
        assert CrossEncoder(tmp_path / "new").predict(PAIRS[0]) == model.predict(PAIRS[0])
        assert not [path for path in (tmp_path / "new").iterdir() if path.is_symlink()]
    else:
        with pytest.raises(SaveError, match="found a link to"):
            model.save_pretrained(tmp_path / "new")


@needs_links
def test_a_link_inside_the_folder_is_followed(tmp_path):
    folder = copy_checkpoint("narrow", tmp_path)
    (folder / "tokenizer.json").replace(folder / "kept")
    (folder / "tokenizer.json").symlink_to("kept")
    model = CrossEncoder(folder)
    model.save_pretrained(tmp_path / "new")
    assert CrossEncoder(tmp_path / "new").predict(PAIRS[0]) == model.predict(PAIRS[0])


def test_the_configuration_that_was_loaded_is_saved(tmp_path):
    folder = copy_checkpoint("narrow", tmp_path)
    model = CrossEncoder(folder)
    edit_json(folder / "config.json", lambda config: config.update(layer_norm_eps=0.5))
    model.save_pretrained(tmp_path / "new")
    assert CrossEncoder(tmp_path / "new").predict(PAIRS[0]) == model.predict(PAIRS[0])


@pytest.mark.parametrize("content", ['{"do_lower_case": true}', "[]", "{", None], ids=["other", "list", "cut", "gone"])
def test_the_settings_of_the_tokenizer_that_were_loaded_are_saved(tmp_path, content):
    folder = copy_checkpoint("vocab-txt", tmp_path)
    path = folder / "tokenizer_config.json"
    edit_json(path, lambda config: config.update(do_lower_case=False))
    model, settings = CrossEncoder(folder), json.loads(path.read_text())
    some = PAIRS[::5]
    scores = model.predict(some)
    assert (scores != CrossEncoder(GOLDENS / "vocab-txt").predict(some)).any()
    path.unlink() if content is None else path.write_text(content)
    for target in (tmp_path / "new", folder, folder):  # in place, and again
        model.save_pretrained(target)
        assert (CrossEncoder(target).predict(some) == scores).all()
        assert json.loads((target / "tokenizer_config.json").read_text()) == settings


def test_a_source_that_has_been_replaced_by_a_file_of_the_same_size_and_time_is_not_saved(tmp_path):
    folder = copy_checkpoint("narrow", tmp_path)
    path = folder / "model.safetensors"
    model, before = CrossEncoder(folder), path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    (tmp_path / "other").write_bytes(content)
    os.utime(tmp_path / "other", ns=(before.st_atime_ns, before.st_mtime_ns))
    shutil.copy2(tmp_path / "other", path)  # as cp -p
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(SaveError, match="found other files than those that were loaded"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_can_be_read_and_not_written_for_its_depth_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(saving.json, "dumps", mock.Mock(side_effect=RecursionError))
    with pytest.raises(SaveError, match="nested too deeply to be written again"):
        model.save_pretrained(tmp_path / "new")


def test_prompts_of_any_characters_are_saved(tmp_path):
    folder = copy_checkpoint("narrow", tmp_path)
    edit_json(folder / "config.json", lambda config: config.update(note="\ud800"))
    model = CrossEncoder(folder, prompts={"東京": "ü: "})
    model.save_pretrained(tmp_path / "new")
    assert CrossEncoder(tmp_path / "new").prompts == {"東京": "ü: "}


# ---- long passages and thresholds

LONG = "Nothing of interest stands here. " * 120 + "Berlin has 3,520,031 inhabitants."


def test_windows_read_what_truncation_cuts_off(model):
    truncated = model.rank(QUERY, [LONG, PASSAGES[1]])
    read = model.rank(QUERY, [LONG, PASSAGES[1]], long_documents="windows")
    scores, all_scores = ({row["corpus_id"]: row["score"] for row in ranks} for ranks in (truncated, read))
    assert all_scores[0] > scores[0] + 1
    assert all_scores[1] == scores[1]  # short passages are scored as ever
    assert model.find_truncated([(QUERY, LONG), (QUERY, PASSAGES[1])]) == [0]


def test_windows_cover_the_passage_and_overlap(model):
    from numbert.engine.tokenization import tokenize_windows

    words = " ".join(str(i) for i in range(900))
    tokenizer = model._scorer.tokenizer
    ((query, passage),) = [tokenizer.encode(["the query", words])]
    windows = tokenize_windows(("the query", words), tokenizer, 64)
    assert {tuple(window.first) for window in windows} == {tuple(query)}
    assert all(len(window.first) + len(window.second) == 61 for window in windows)
    assert windows[0].second == passage[: len(windows[0].second)]
    assert windows[-1].second == passage[-len(windows[-1].second) :]
    steps = [a.second[i:] for a in windows[:-1] for i in [len(a.second) - len(a.second) // 4]]
    assert all(step == window.second[: len(step)] for step, window in zip(steps[:-1], windows[1:-1], strict=True))


def test_a_window_has_room_beside_the_longest_query(model):
    long_query = "how " * 700
    ranks = model.rank(long_query, [LONG, "short"], long_documents="windows")
    assert all(np.isfinite(row["score"]) for row in ranks)


def test_an_unknown_way_with_long_documents(model):
    with pytest.raises(InputError, match="long_documents: found 'cut', expected 'truncate' or 'windows'"):
        model.rank(QUERY, PASSAGES, long_documents="cut")


def test_score_threshold(model):
    ranks = model.rank(QUERY, PASSAGES, activation_fn="sigmoid", score_threshold=0.5)
    assert [row["corpus_id"] for row in ranks] == [1]
    assert model.rank(QUERY, PASSAGES, score_threshold=100) == []


def test_a_model_saved_by_an_embedding_library_keeps_its_prompts_to_itself(tmp_path):
    folder = copy_checkpoint("narrow", tmp_path)
    content = {"prompts": {"query": "q: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(content))
    assert CrossEncoder(folder).prompts == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"prompts": []}, None),
        ({"prompts": {"q": 3}}, "prompts: found {'q': 3}"),
        ({"prompts": 3}, "prompts: found 3, expected an object"),
        ({"default_prompt_name": "q"}, "default_prompt_name: found 'q', expected one of"),
        ({"default_prompt_name": []}, "default_prompt_name: found []"),
    ],
)
def test_saved_prompts_are_checked(tmp_path, content, message):
    folder = copy_checkpoint("narrow", tmp_path)
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps({"model_type": "CrossEncoder", **content}))
    if message is None:
        assert CrossEncoder(folder).prompts == {}
    else:
        with pytest.raises(ValueError, match=r"config_sentence_transformers\.json: ") as caught:
            CrossEncoder(folder)
        assert message in str(caught.value)


def test_a_literal_padding_token_takes_no_position():
    # The rule of RoBERTa: test_goldens compares it with transformers; here it must not shift what stands behind it.
    model = CrossEncoder(GOLDENS / "roberta")
    from numbert.engine.tokenization import TokenPair, lay_out

    scorer = model._scorer
    batch = lay_out([TokenPair([7, 1, 8], [9])], scorer.tokenizer.template, model.spec)
    assert batch.ids.tolist() == [0, 7, 1, 8, 2, 2, 9, 2]
    assert batch.position_ids.tolist() == [2, 3, 1, 4, 5, 6, 7, 8]


def test_a_bert_model_with_a_tokenizer_without_types_gets_zeros(tmp_path):
    folder = copy_checkpoint("narrow", tmp_path)
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(tokenizer_class="XLMRobertaTokenizer"))
    assert set(CrossEncoder(folder)._scorer.tokenizer.template.types) == {0}


def test_eight_threads_with_lengths_of_their_own(model):
    from concurrent.futures import ThreadPoolExecutor

    lengths = [8, 12, 16, 20, 64, 128, 256, 512] * 4
    pairs = [*PAIR_LIST, (QUERY, LONG)]

    def score(length):
        return model.predict(pairs, processing_kwargs={"text": {"max_length": length}}).tolist()

    expected = {length: score(length) for length in set(lengths)}
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(score, lengths)) == [expected[length] for length in lengths]
