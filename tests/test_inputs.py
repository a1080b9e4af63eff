"""What predict and rank accept, and how they refuse the rest: each error names the place."""

import numpy as np
import pytest
from numbert import InputError, InputTypeError
from numbert.engine.inputs import check_documents, check_pairs

PAIR = ("query", "passage")


@pytest.mark.parametrize(
    "inputs",
    [
        [PAIR, PAIR],
        [list(PAIR), PAIR],
        (PAIR, PAIR),
        np.array([PAIR, PAIR]),
        np.array([PAIR, PAIR], dtype=object),
        iter([PAIR, PAIR]),
        zip(["query"] * 2, ["passage"] * 2, strict=True),
        [np.array(PAIR), PAIR],
        {PAIR: 1, ("query", "passage "): 2}.keys(),
    ],
    ids=lambda inputs: type(inputs).__name__,
)
def test_collections_of_pairs(inputs):
    pairs, single = check_pairs(inputs)
    assert [(query, passage.strip()) for query, passage in pairs] == [PAIR, PAIR]
    assert not single
    assert all(type(text) is str for pair in pairs for text in pair)


@pytest.mark.parametrize("inputs", [PAIR, list(PAIR), np.array(PAIR), np.array(PAIR, dtype=object)])
def test_one_pair(inputs):
    assert check_pairs(inputs) == ([PAIR], True)


@pytest.mark.parametrize("inputs", [[], (), np.array([]), iter([])])
def test_no_pairs(inputs):
    assert check_pairs(inputs) == ([], False)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ("text", InputError, r"inputs: found str \('text'\), expected a pair .* rank\(query, passages\)"),
        (b"text", InputError, "inputs: found bytes"),
        ({"query": "passage"}, InputError, "inputs: found dict"),
        (None, InputTypeError, r"inputs: found NoneType \(None\), expected a list"),
        (3, InputTypeError, r"inputs: found int \(3\)"),
        (["a", "b", "c"], InputError, "inputs: found 3 items, expected 2"),
        (["a"], InputError, "inputs: found 1 items, expected 2"),
        ([PAIR, ("a",)], InputError, r"inputs\[1\]: found 1 items, expected 2"),
        ([PAIR, ("a", "b", "c")], InputError, r"inputs\[1\]: found 3 items"),
        ([PAIR] * 17 + [("a", float("nan"))], InputTypeError, r"inputs\[17\]\[1\]: found float \(nan\), expected str"),
        ([(None, "a")], InputTypeError, r"inputs\[0\]\[0\]: found NoneType"),
        ([PAIR, (b"a", "b")], InputTypeError, r"inputs\[1\]\[0\]: found bytes"),
        ([PAIR, "ab"], InputTypeError, r"inputs\[1\]: found str \('ab'\), expected a pair"),
        ([PAIR, {"a": "b"}], InputTypeError, r"inputs\[1\]: found dict"),
        ([PAIR, {"a", "b"}], InputTypeError, r"inputs\[1\]: found set"),
        ([PAIR, 5], InputTypeError, r"inputs\[1\]: found int"),
        ([PAIR, ("a", "b\ud800")], InputError, r"inputs\[1\]\[1\]: found a lone surrogate U\+D800 at character 1"),
        (np.array([1.0, 2.0]), InputTypeError, r"inputs\[0\]: found float"),
        (np.array([[1, 2]]), InputTypeError, r"inputs\[0\]\[0\]: found int"),
    ],
)
def test_everything_else_is_refused_with_its_place(inputs, error, message):
    with pytest.raises(error, match=message):
        check_pairs(inputs)


class Named(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another text"


def test_a_string_of_another_class_is_its_characters():
    assert check_pairs(("q", Named("Berlin has many people"))) == ([("q", "Berlin has many people")], True)


def test_long_values_are_shortened_in_messages():
    with pytest.raises(InputError) as caught:
        check_pairs("x" * 10_000)
    assert len(str(caught.value)) < 200


def test_documents():
    documents = iter(["b", np.str_("a")])
    assert check_documents(documents) == (["b", "a"], ["b", "a"])


@pytest.mark.parametrize(
    ("documents", "error", "message"),
    [
        ("one passage", InputError, r"documents: found str .* put a single passage into a list"),
        (None, InputTypeError, "documents: found NoneType"),
        (123, InputTypeError, "documents: found int"),
        ([1, 2, 3], InputTypeError, r"documents\[0\]: found int \(1\), expected str"),
        (["a", ["b"]], InputTypeError, r"documents\[1\]: found list"),
        (["a", "\udfff"], InputError, r"documents\[1\]: found a lone surrogate U\+DFFF at character 0"),
    ],
)
def test_wrong_documents_are_refused_with_their_place(documents, error, message):
    with pytest.raises(error, match=message):
        check_documents(documents)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be a positive integer, got 0."),
        ({"batch_size": -1}, ValueError, "batch_size must be a positive integer, got -1."),
        ({"batch_size": "8"}, TypeError, "batch_size: found str"),
        ({"activation_fn": "relu"}, ValueError, "activation_fn: found 'relu', expected one of"),
        ({"activation_fn": 3}, TypeError, "activation_fn: found int"),
        ({"activation_fn": lambda logits: logits * 1j}, TypeError, "activation_fn: made complex"),
        ({"activation_fn": lambda logits: logits.astype(object)}, TypeError, "activation_fn: made object"),
        ({"prompt": 0}, TypeError, "prompt: found int"),
        ({"prompt": "\ud800"}, ValueError, "prompt: found a lone surrogate"),
        ({"prompt_name": []}, ValueError, "Prompt name"),
        ({"processing_kwargs": []}, TypeError, "processing_kwargs: found list, expected a dict"),
        ({"activation_fn": lambda logits: logits[:1]}, ValueError, r"activation_fn: made shape \(1, 1\)"),
    ],
)
def test_wrong_options_of_predict(model, options, error, message):
    with pytest.raises(error, match=message):
        model.predict([PAIR, PAIR], **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"top_k": -1}, ValueError, "top_k must be 0 or more, got -1"),
        ({"top_k": 1.5}, TypeError, "top_k: found float"),
        ({"query": None}, TypeError, "query: found NoneType"),
        ({"score_threshold": float("nan")}, ValueError, "score_threshold: found nan"),
        ({"score_threshold": "x"}, TypeError, "score_threshold: found str"),
        ({"top_k": 10**5000, "query": 10**5000}, TypeError, "query: found int, expected str"),
    ],
)
def test_wrong_options_of_rank(model, options, error, message):
    with pytest.raises(error, match=message):
        model.rank(**{"query": "q", "documents": ["a"], **options})
