"""Settings that mean something: what config.json and sentence-transformers' files may ask for."""

import json
from pathlib import Path
from typing import Any

from hostile import NUMBERS, Random, render, value
from mutate_json import mutate

SIZES = "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings".split()
SIZES += "type_vocab_size dim n_layers n_heads hidden_dim embedding_size relative_attention_num_buckets".split()
SIZES += "pad_token_id num_labels layer_norm_eps position_buckets max_relative_positions conv_kernel_size".split()
SIZES += "conv_groups num_hidden_groups inner_group_num head_dim attention_head_size pooler_hidden_size".split()
SIZES += ["rope_theta"]
BENDS = ["gelu_new", "relu", "gelu_pytorch_tanh", "gelu_fast", "silu", "swish", "tanh", "sigmoid", "GELU", "mish"]
BENDS += [["gelu"], {"gelu": 1}, None]
RULES: dict[str, list[Any]] = {
    **dict.fromkeys(("hidden_act", "activation", "hidden_activation", "classifier_activation"), BENDS),
    "position_embedding_type": ["relative_key", "relative_key_query", "rotary", "rope", "alibi", "absolute", None,
    ["absolute"], {}],
    "is_decoder": [True, 1, 0, "false", [], {}],
    "add_cross_attention": [True, 1, []],
    "auto_map": [{"AutoModel": "modeling.Model"}, None, {}, [], "x"],
    "architectures": [["BertModel"], [], None, "BertForSequenceClassification", [["x"]], {"0": "x"}],
    "model_type": ["bert", "roberta", "mpnet", "distilbert", "electra", "camembert", "xlm-roberta", "BERT", "albert",
    "deberta", "deberta-v2", "nomic_bert", "gte", "new", "modernbert", "t5", [], {}],
    "id2label": [{"0": "a"}, {"0": "a", "1": "b"}, {}, [], ["a"], None, {"0": "a", "00": "b"}, {"1": "a"}, {"x": "a"}],
    "label2id": [{}, {"a": 0}, {"a": 0, "b": 0}, []],
    "num_labels": [1, 2, 3, 0, -1, True, 1.0, "1", None],
    "pruned_heads": [{"0": [1]}, {}],
    "quantization_config": [{"quant_method": "bitsandbytes", "load_in_8bit": True}],
    "sbert_ce_default_activation_function": ["torch.nn.modules.linear.Identity", "torch.nn.Sigmoid", "torch.nn.ReLU",
    "x", 3],
    "sentence_transformers": [{"activation_fn": "torch.nn.modules.activation.Tanh"}, {"activation_fn": {}}, [], "x",
    None],
    "problem_type": ["multi_label_classification", "regression", 3],
    "tie_word_embeddings": [False, None, "x"],
    "dtype": ["float64", "int8", 3, None],
}  # fmt: skip
RATES: list[Any] = [
    {"rope_theta": 40.0}, {"rope_theta": 40.0, "rope_type": "default"}, {"rope_theta": None}, {"rope_theta": -1.0}, {},
    {"rope_theta": "x"}, {"rope_theta": 1e300}, {"rope_type": "ntk", "factor": 3.0}, {"type": "ntk", "factor": 3.0},
    {"type": "ntk", "rope_type": "default", "factor": 2}, {"type": "linear", "factor": 2.0}, {"type": "ntk"},
    {"type": "ntk", "factor": 2.0, "mixed_b": 0.5}, {"type": "ntk", "factor": 2.0, "mixed_b": None},
    {"type": "ntk", "factor": 0}, {"type": "ntk", "factor": True}, {"type": "ntk", "factor": 1e308, "rope_theta": 1e9},
    {"rope_type": "yarn", "factor": 4.0}, {"rope_type": "default", "partial_rotary_factor": 0.5}, {"type": ["ntk"]},
    {"rope_type": None}, {"full_attention": {"rope_theta": 40.0}}, [], "ntk", 8, None,
]  # fmt: skip
RULES |= {
    "pos_att_type": [["c2p"], ["p2c"], [], None, "c2p|p2c", "P2C | c2p", "c2p", "", ["c2p", "c2p"], ["p2p"], "p2p",
    ["c2p", 3], {"c2p": 1}, 3],
    "relative_attention": [True, False, None, 1, "x"], "share_att_key": [True, False, None, 1],
    "position_biased_input": [True, False, None, 0], "position_buckets": [-1, 0, 1, 2, 3, 4, 8, 16, 256, None, 8.0],
    "max_relative_positions": [-1, 0, 1, 2, 16, 64, 512, None, -2], "norm_rel_ebd": ["none", "layer_norm",
    "Layer_Norm|x", "", None, ["layer_norm"]],
    "conv_kernel_size": [0, 1, 2, 3, 5, -1, None], "conv_groups": [1, 2, 4, 0, -1, None], "conv_act": BENDS,
    "pooler_hidden_act": BENDS, "talking_head": [True, False, 1], "embedding_size": [1, 16, 128, None],
    "num_hidden_groups": [1, 2, 3, 0, 4], "inner_group_num": [1, 2, 0, 3], "rope_theta": [40.0, 10000, None, 0, "x"],
    "rope_parameters": RATES, "rope_scaling": RATES, "head_dim": [None, 16, 18, 1, 0],
    "feed_forward_type": ["geglu", "reglu", "original", "swiglu", None, ["geglu"]],
    "layer_norm_type": ["layer_norm", "rms_norm", None], "logn_attention_scale": [True, False, None],
}  # fmt: skip
ACTIVATIONS = [
    "torch.nn.modules.linear.Identity",
    "torch.nn.modules.activation.Sigmoid",
    "torch.nn.Tanh",
    "torch.nn.GELU",
]
ACTIVATIONS += ["torch.nn.modules.activation.Softmax", "os.system", "", "torch.", ".sigmoid"]
TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
FURTHER = ["Dense", "Pooling", "Normalize", "LayerNorm", "Dropout", "Transformer", "CNN", "WordEmbeddings", "Evil"]


def configuration(config: dict[str, Any], rng: Random) -> tuple[dict[str, Any], str]:
    """Return config.json with another size or rule."""
    if rng.random() < 0.5:
        key = rng.choice([size for size in SIZES if size in config] or SIZES)
        old = config.get(key)
        near = [old + 1, old - 1, old * 2, old // 2, str(old), float(old), [old], True] if isinstance(old, int) else []
        new = rng.choice([*near, *near, *NUMBERS])
    else:
        key = rng.choice([rule for rule in RULES if rule in config] if rng.random() < 0.6 else list(RULES))
        new = rng.choice(RULES[key])
    return {**config, key: new}, f"{key} -> {new!r:.60}"


def modules(rng: Random) -> Any:
    """Return a modules.json: what sentence-transformers runs one after the other."""
    chain: list[Any] = [dict(TRANSFORMER)]
    for i in range(rng.randrange(3)):
        name = rng.choice(FURTHER)
        chain.append(
            {
                "idx": i + 1,
                "name": str(i + 1),
                "path": f"{i + 1}_{name}",
                "type": f"sentence_transformers.models.{name}",
            }
        )
    change = rng.randrange(8)
    if change == 0:
        chain[0]["type"] = rng.choice(
            ["transformers.Transformer", "sentence_transformers.models.CLIPModel", "x", 3, None]
        )
    elif change == 1:
        chain[0]["path"] = rng.choice(["0_Transformer", "..", "/etc", None, 3])
    elif change == 2:
        return value(rng)
    elif change == 3:
        chain.insert(rng.randrange(len(chain) + 1), value(rng))
    elif change == 4:
        chain.pop(0)
    return chain


def sentence_transformers(rng: Random) -> Any:
    """Return a config_sentence_transformers.json: activation and prompts."""
    kind = rng.choice(["CrossEncoder", "CrossEncoder", "CrossEncoder", "SentenceTransformer", None, 3])
    settings: dict[str, Any] = {"model_type": kind, "activation_fn": rng.choice(ACTIVATIONS)}
    if rng.random() < 0.5:
        settings["prompts"] = rng.choice(
            [{"q": "query: "}, {"q": 3}, {}, [], {"q": "\ud800"}, {"\ud800": "x"}, {"": ""}]
        )
        settings["default_prompt_name"] = rng.choice(["q", "x", None, 3, [], ""])
    if rng.random() < 0.4:
        settings[rng.choice(list(settings))] = value(rng)
    return settings


def sentence_bert(rng: Random) -> Any:
    """Return a sentence_bert_config.json: length and case."""
    return rng.choice([
        {"max_seq_length": rng.choice([*NUMBERS, 16, 64, 512, None, "8"]), "do_lower_case": rng.choice([True, False,
        None, "x"])},
        value(rng),
    ])  # fmt: skip


# ---- a model of modules

OF_MODULES: dict[str, dict[str, list[Any]]] = {
    "Pooling": {
        "pooling_mode": ["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ["max"], ["cls",
        "max"], [], None, "x"],
        "pooling_mode_cls_token": [True, False, 1], "pooling_mode_lasttoken": [True, False],
        "include_prompt": [True, False, None], "embedding_dimension": [24, 25, None, "24"],
        "word_embedding_dimension": [24, 25],
    },
    "Dense": {
        "activation_function": [*(f"torch.nn.modules.activation.{name}" for name in ("Tanh", "GELU", "ReLU", "SiLU",
        "Sigmoid", "Softmax", "Hardtanh")), "torch.nn.Identity", "os.system", None, 3],
        "use_residual": [True, False, 1, None], "bias": [True, False, 0], "in_features": [24, 40, 1],
        "out_features": [24, 40, 1, 0], "module_input_name": ["sentence_embedding", "token_embeddings", "scores", None],
        "module_output_name": ["sentence_embedding", "scores", "other", None],
    },
    "LayerNorm": {"dimension": [24, 40, 41, None], "eps": [1e-12], "norm_eps": [1e-5]},
    "Normalize": {"module_input_name": ["sentence_embedding", "scores"], "module_output_name": ["scores", None]},
}  # fmt: skip


def chain(folder: Path, rng: Random) -> str:
    """Change what modules.json lists, or the settings of one of the modules; return what was done."""
    place = folder / "modules.json"
    listed = json.loads(place.read_text())
    at = rng.randrange(1, len(listed))
    change = rng.choice(["settings", "settings", "settings", "order", "kind", "residual", "entry", "tree", "encoder"])
    if change == "order":
        other = rng.randrange(1, len(listed))
        listed[at], listed[other] = listed[other], listed[at]
    elif change == "kind":
        listed[at]["type"] = f"sentence_transformers.models.{rng.choice([*OF_MODULES, 'Dropout', 'Transformer'])}"
    elif change == "entry":
        key = rng.choice(["name", "path", "type", "idx", "kwargs"])
        listed[at][key] = rng.choice(["0", "", "..", "1_Pooling", "4_Dense", "../modular/4_Dense", None, 3, ["x"]])
    elif change == "tree":
        listed, _ = mutate(listed, rng, listed)
    elif change == "residual":  # of the width that goes in
        path = folder / "2_Dense" / "config.json"
        path.write_bytes(render({**json.loads(path.read_text()), "use_residual": True}))
    elif change == "encoder":
        name = rng.choice(["sentence_bert_config.json", "config_sentence_transformers.json"])
        tree, _ = mutate(json.loads((folder / name).read_text()), rng, None)
        (folder / name).write_bytes(render(tree))
        return f"{name}: {tree!r:.200}"
    if change == "settings":
        kind = listed[at]["type"].rpartition(".")[2]
        path = folder / listed[at]["path"] / "config.json"
        key = rng.choice(list(OF_MODULES[kind]))
        values = {**json.loads(path.read_text()), key: rng.choice(OF_MODULES[kind][key])}
        if rng.random() < 0.3:
            values.pop(rng.choice(list(values)))
        path.write_bytes(render(values))
        return f"{path.parent.name}: {values!r:.200}"
    place.write_bytes(render(listed))
    return f"{change}: {listed!r:.300}"
