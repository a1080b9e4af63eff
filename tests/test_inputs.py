"""What predict and rank accept, and how they refuse the rest: each error names the place."""

import collections
import enum
import itertools
import re
import types
from unittest import mock

import numpy as np
import pytest
from numbert import CrossEncoder, InputError, InputTypeError, NumbertError
from numbert.engine.inputs import (
    MOST_THREADS,
    check_count,
    check_documents,
    check_pairs,
    check_text,
    check_threads,
    check_threshold,
    is_one_pair,
    show,
)

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


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x" * 38, f"str ('{'x' * 38}')"),  # 40 characters with its quotation marks
        ("x" * 39, f"str ('{'x' * 17}...{'x' * 18}')"),
        (3, "int (3)"),
        (10**5000, "int"),  # which Python refuses to show
    ],
    ids=["long", "too long", "short", "refused"],
)
def test_how_a_value_is_shown(value, shown):
    with pytest.raises((InputError, InputTypeError)) as caught:
        check_pairs(value)
    assert str(caught.value).startswith(f"inputs: found {shown}, expected ")


MESSAGES = [
    (
        lambda: check_pairs("text"),
        "inputs: found str ('text'), expected a pair (query, passage) or a list of pairs; to rank passages, call"
        " rank(query, passages)",
    ),
    (lambda: check_pairs(3), "inputs: found int (3), expected a list; pass one"),
    (lambda: check_pairs([3]), "inputs[0]: found int (3), expected a pair (query, passage); pass two strings"),
    (
        lambda: check_pairs([("a",)]),
        "inputs[0]: found 1 items, expected 2, (query, passage); join or split the texts",
    ),
    (lambda: check_text(3, "query"), "query: found int (3), expected str; convert it"),
    (
        lambda: check_text("ab\udabc\ud800", "query"),
        "query: found a lone surrogate U+DABC at character 2, expected valid Unicode; decode the text again, or replace"
        " with text.encode(errors='replace').decode()",
    ),
    (
        lambda: check_documents("text"),
        "documents: found str ('text'), expected a list of passages; put a single passage into a list",
    ),
    (lambda: check_threshold("x"), "score_threshold: found str ('x'), expected a number; pass one"),
    (lambda: check_threshold(True), "score_threshold: found bool (True), expected a number; pass one"),
    (lambda: check_threshold(float("nan")), "score_threshold: found nan, expected a number; pass one"),
    (lambda: check_count(1.0, "top_k", low=0), "top_k: found float (1.0), expected an integer; pass one"),
    (lambda: check_count(True, "top_k", low=0), "top_k: found bool (True), expected an integer; pass one"),
    (lambda: check_count(-1, "top_k", low=0), "top_k must be 0 or more, got -1."),
    (lambda: check_count(0, "batch_size", low=1), "batch_size must be a positive integer, got 0."),
    (lambda: check_count(3, "max_length", low=4), "max_length must be 4 or more, got 3."),
]


@pytest.mark.parametrize(("action", "message"), MESSAGES, ids=[message[:40] for _, message in MESSAGES])
def test_messages_in_full(action, message):
    with pytest.raises((InputError, InputTypeError), match=f"^{re.escape(message)}$") as caught:
        action()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("value", [bytearray(b"text"), b"text", {"a": "b"}, "text"])
def test_what_is_no_collection_is_no_pair_and_no_list_of_documents(value):
    with pytest.raises(InputError, match=r"^inputs: found"):
        check_pairs(value)
    with pytest.raises(InputError, match=r"^documents: found"):
        check_documents(value)
    with pytest.raises(InputTypeError, match=r"^inputs\[1\]: found"):
        check_pairs([PAIR, value])


@pytest.mark.parametrize(
    ("inputs", "one"),
    [
        (PAIR, True),
        (["a"], True),
        (["a", PAIR], True),
        ([PAIR, "a"], False),
        ([], False),
        ((), False),
        (np.array(PAIR), True),
        (np.array(["a"]), True),
        (np.array("a"), True),
        (np.array([PAIR, PAIR]), False),
        (np.array([PAIR]), False),
        (np.array([["a"]]), False),
        (np.array([[PAIR]]), False),
        (np.array([]), False),
        (np.array([None, list(PAIR)], object)[1:], False),
        (np.array([None, PAIR], object)[1:], False),
        (np.array([None, PAIR, "a"], object)[1:], False),
        (np.array([None, np.array(PAIR)], object)[1:], False),
        (iter(PAIR), False),
        ("ab", False),
    ],
)
def test_what_is_one_pair_by_itself(inputs, one):
    assert is_one_pair(inputs) is one


@pytest.mark.parametrize("inputs", [("a", "b"), ["é", "東京"], np.array(["a", "b"]), np.array(["a", "b"], object)])
def test_what_is_checked_is_made_of_plain_strings(inputs):
    ((pair,), single) = check_pairs(inputs)
    assert single
    assert type(pair) is tuple
    assert pair == tuple(inputs)
    assert [type(text) for text in pair] == [str, str]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (0, 0.0),
        (-2, -2.0),
        (0.25, 0.25),
        (np.float64(0.25), 0.25),
        (np.int64(3), 3.0),
        (float("inf"), float("inf")),
        (float("-inf"), float("-inf")),
        (10**400, float("inf")),
        (-(10**400), float("-inf")),
    ],
    ids=lambda value: f"{value:.1e}" if isinstance(value, float) else type(value).__name__,
)
def test_thresholds(value, expected):
    threshold = check_threshold(value)
    assert threshold == expected
    assert threshold is None or type(threshold) is float


@pytest.mark.parametrize(("value", "low"), [(1, 1), (0, 0), (5, 1), (np.int64(4), 4), (10**30, 1)])
def test_counts(value, low):
    count = check_count(value, "count", low=low)
    assert count == value
    assert type(count) is int


class Colour(enum.StrEnum):
    RED = "red \u00e9"


def test_the_text_of_an_enumeration_is_its_value():
    assert check_text(Colour.RED, "query") == "red \u00e9"
    assert type(check_text(Colour.RED, "query")) is str


def test_documents():
    documents = iter(["b", np.str_("a")])
    assert check_documents(documents) == (["b", "a"], ["b", "a"])


def test_documents_of_an_array_are_given_back_as_plain_strings():
    texts, given = check_documents(np.array(["b", "a"]))
    assert texts == given == ["b", "a"]
    assert [type(text) for text in given] == [str, str]


@pytest.mark.parametrize(
    ("documents", "error", "message"),
    [
        ("one passage", InputError, r"documents: found str .* put a single passage into a list"),
        (np.array("one passage"), InputTypeError, "documents: found an array of no dimension"),
        (types.MappingProxyType({"a": 1}), InputError, "documents: found mappingproxy"),
        (memoryview(b"text"), InputError, "documents: found memoryview"),
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
        (
            {"return_documents": np.array([1, 2])},
            TypeError,
            "return_documents: found ndarray .*, expected True or False",
        ),
        ({"long_documents": 5}, TypeError, "long_documents: found int"),
    ],
)
def test_wrong_options_of_rank(model, options, error, message):
    with pytest.raises(error, match=message):
        model.rank(**{"query": "q", "documents": ["a"], **options})


# ---- values of other classes


class CallersError(Exception):
    """What a method of a caller's class raises."""


def refuse(*_):
    raise CallersError


def hostile(base, value, *names):
    """Make a value of a class whose methods `names` raise."""
    return type("Hostile", (base,), dict.fromkeys(names, refuse))(*value)


class WrongLength(collections.abc.Sequence):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, place):
        raise IndexError


class Unplaced:
    __module__ = None

    def __call__(self, logits):
        return logits


NESTED: list = []
for _ in range(10_000):
    NESTED = [NESTED]
SHOWING = ("__repr__", "__str__", "__format__", "__eq__", "__hash__", "__bool__")
HOSTILE = {
    "an object": hostile(object, (), *SHOWING),
    "a string": hostile(str, ("x",), *SHOWING, "isascii", "encode", "lower"),
    "an integer": hostile(int, (-1,), *SHOWING, "__lt__", "__index__", "__int__"),
    "an empty list": hostile(list, ((),), *SHOWING),
    "5,000 digits": 10**5000,
    "minus 5,000 digits": -(10**5000),
    "a nest": NESTED,
    "an array": np.array([1, 2]),
    "a mock of a string": mock.MagicMock(spec=str),
    "a mock of an integer": mock.MagicMock(spec=int),
    "long": "x" * 100_000,
}
OF_CONSTRUCTOR = (
    "modules model_card_data device prompts default_prompt_name trust_remote_code model_kwargs processor_kwargs"
    " config_kwargs num_labels max_length activation_fn keep_in_fp32_modules num_threads"
).split()
OF_PREDICT = (
    "inputs prompt_name prompt batch_size show_progress_bar activation_fn apply_softmax convert_to_numpy device"
    " chunk_size processing_kwargs"
).split()
OF_RANK = "query documents top_k return_documents score_threshold long_documents".split()


def check_outcome(function, value):
    """Let a call go well, or raise an error of numbert with a message that can be read."""
    message = ""
    try:
        function(value)
    except NumbertError as error:
        message = str(error)
    assert len(message) < 600


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_hostile_values_are_refused_or_understood(model, value, capsys):
    for name in OF_CONSTRUCTOR:
        check_outcome(lambda value, name=name: CrossEncoder(**{name: value}), value)
    for name in ("attn_implementation", "dtype", "torch_dtype", "other"):
        check_outcome(lambda value, name=name: CrossEncoder(model_kwargs={name: value}), value)
    for name in ("truncation_side", "model_max_length"):
        check_outcome(lambda value, name=name: CrossEncoder(processor_kwargs={name: value}), value)
    check_outcome(lambda value: CrossEncoder(keep_in_fp32_modules=value, dtype="bfloat16"), value)
    check_outcome(lambda value: CrossEncoder(config_kwargs={"num_labels": value}), value)
    check_outcome(lambda value: CrossEncoder(prompts={"q": value}), value)
    check_outcome(lambda value: CrossEncoder(classifier_dropout=value), value)
    check_outcome(lambda value: CrossEncoder(None, value), value)
    for name in OF_PREDICT:
        check_outcome(lambda value, name=name: model.predict(**{"inputs": [PAIR], name: value}), value)
    for name in ("truncation", "max_length", "other"):
        check_outcome(lambda value, name=name: model.predict([PAIR], processing_kwargs={"text": {name: value}}), value)
    for name in OF_RANK:
        check_outcome(lambda value, name=name: model.rank(**{"query": "q", "documents": ["a"], name: value}), value)
    for inputs in ([value], [("q", value)], ("q", value)):
        check_outcome(lambda _, inputs=inputs: model.predict(inputs), value)
    check_outcome(lambda value: model.find_truncated(value), value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 10**5000}, "max_length: found int, the model has positions for 512"),
        ({"max_length": -(10**5000)}, "max_length must be 4 or more, got int"),
        ({"num_labels": 10**5000}, "num_labels: found int, the checkpoint has 1"),
        ({"num_threads": 10**9}, "num_threads: found 1000000000, expected at most 1024"),
        ({"num_threads": 10**5000}, "num_threads: found int, expected at most 1024"),
        ({"trust_remote_code": np.array([1, 2])}, "trust_remote_code: found ndarray"),
        ({"dtype": 5}, r"dtype: found int \(5\), expected str"),
        ({"model_kwargs": {5: 6}}, r"model_kwargs, a name: found int \(5\), expected str"),
    ],
)
def test_values_out_of_all_bounds(options, message):
    with pytest.raises((InputError, InputTypeError), match=message):
        CrossEncoder(**options)


def test_counts_without_bound_are_taken(model):
    assert len(model.rank("q", ["a", "b"], top_k=10**5000, batch_size=10**5000)) == 2
    assert model.rank("q", ["a", "b"], score_threshold=10**5000) == []
    assert len(model.rank("q", ["a", "b"], score_threshold=-(10**5000))) == 2
    assert model.rank("q", ["a", "b"], score_threshold=1e300) == []


@pytest.mark.parametrize("value", [5, 0.5, np.float32(0.5), np.int8(5), float("inf"), np.float64("-inf")])
def test_thresholds_are_floats(value):
    assert check_threshold(value) == value
    assert type(check_threshold(value)) is float


def test_an_integer_that_lies_about_itself_is_its_digits():
    assert check_threshold(hostile(int, (3,), "__float__")) == 3


def test_a_string_that_lies_about_itself_is_its_characters(model):
    text = hostile(str, ("passage",), *SHOWING, "isascii", "encode", "__len__", "__iter__")
    assert model.predict([("query", text)]) == model.predict([PAIR])
    assert CrossEncoder(backend=hostile(str, ("reference",), *SHOWING)).backend == "reference"
    assert CrossEncoder(prompts={"passage": "q: "}, default_prompt_name=text).default_prompt_name == "passage"
    assert len(model.predict([PAIR], batch_size=hostile(int, (5,), *SHOWING, "__lt__", "__gt__", "__index__"))) == 1
    assert len(model.predict([PAIR], activation_fn=Unplaced())) == 1
    assert CrossEncoder(activation_fn=hostile(str, ("tanh",), *SHOWING, "lower")).activation_fn.__name__ == "tanh"


@pytest.mark.parametrize("length", [2, 5])
def test_a_sequence_that_is_wrong_about_its_length(length):
    with pytest.raises(InputError, match=r"inputs\[0\]: found 0 items, expected 2"):
        check_pairs([WrongLength(length)])
    assert check_pairs(WrongLength(length)) == ([], False)


def test_a_pair_without_end_is_refused():
    class Endless(WrongLength):
        def __getitem__(self, place):
            return "text"

    with pytest.raises(InputError, match=r"inputs\[0\]: found 1000 items"):
        check_pairs([Endless(2)])


def test_an_error_of_the_callers_iterator_passes_unchanged(model):
    def pairs():
        yield PAIR
        raise CallersError

    with pytest.raises(CallersError):
        model.predict(pairs())
    with pytest.raises(CallersError):
        model.rank("q", map(refuse, itertools.count()))


@pytest.mark.parametrize(
    ("value", "shown"),
    [("a\nb", "'a\\nb'"), (10**5000, "int"), (NESTED, "[[[[[[[...]]]]]]]"), (hostile(object, (), "__repr__"), "<Host")],
    ids=["text", "digits", "nest", "hostile"],
)
def test_values_are_shown_shortly(value, shown):
    assert show(value).startswith(shown)
    assert len(show(value)) <= 40


def test_a_value_that_is_shown_by_half_ends_with_three_points():
    words = ["a word"] * 6
    assert show(words) == repr(words)[:37] + "..."
    assert show(words[:4]) == repr(words[:4])  # 40 characters
    assert len(show(words[:4])) == 40


def test_a_string_is_shown_as_its_characters_whatever_its_type_says():
    class Name(enum.StrEnum):
        PASSAGE = "a passage"

    assert show(Name.PASSAGE) == "'a passage'"


def test_one_thread_is_enough_and_there_is_a_most():
    assert check_threads(1) == 1
    assert check_threads(MOST_THREADS) == MOST_THREADS
    for number in (0, MOST_THREADS + 1):
        with pytest.raises(InputError, match="num_threads"):
            check_threads(number)
