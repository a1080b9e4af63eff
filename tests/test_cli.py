"""The command line as programs and people use it."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from unittest import mock

import pytest
from conftest import ROOT
from numbert.engine import progress, records
from numbert.engine.errors import BackendError
from numbert.engine.tools import cli, verify
from numbert.engine.tools.cli import main

BERLIN = str(ROOT / "docs" / "berlin.txt")
QUERY = "How many people live in Berlin?"


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command line in this process; return exit code, stdout and stderr."""

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            code = main(arguments)
        except SystemExit as exit_:  # argparse
            code = exit_.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_rank_prints_the_best_first(run):
    code, out, err = run("rank", QUERY, BERLIN)
    lines = out.splitlines()
    assert code == 0
    assert len(lines) == 10
    assert "Berlin had a population of 3,520,031" in lines[0]
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert "embedded tiny-reranker" in err
    assert "cross-encoder/ms-marco-MiniLM-L6-v2" in err


def test_rank_reads_standard_input_and_leaves_out_empty_lines(run):
    code, out, _ = run("rank", "people", "--format", "jsonl", stdin="Seven people.\r\n\n東京 🙂\n".encode())
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["rank"], row["corpus_id"], row["text"]) for row in rows] == [
        (1, 0, "Seven people."),
        (2, 1, "東京 🙂"),
    ]


def test_rank_carries_ids_of_json_lines_along(run):
    stdin = b'{"id": "x7", "document": "Seven people."}\n{"id": "x8", "document": "Rain."}\n'
    _, out, _ = run("rank", "people", "-", "--format", "json", "--top-k", "1", stdin=stdin)
    (row,) = json.loads(out)
    assert (row["id"], row["text"], row["rank"]) == ("x7", "Seven people.", 1)


def test_score_keeps_the_order_of_the_file(run):
    code, out, _ = run("score", "--format", "tsv", stdin=b"people\tRain.\npeople\tSeven\tpeople.\n")
    assert code == 0
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[1:] for row in rows] == [["0", "people", "Rain."], ["1", "people", "Seven people."]]
    assert float(rows[0][0]) < float(rows[1][0])


def test_info_and_warmup(run):
    code, out, _ = run("info", "--format", "json")
    assert code == 0
    assert json.loads(out)["num_layers"] == 4
    code, out, _ = run("warmup")
    assert code == 0
    assert "kernel_cache" in out


def test_computed_values_win_over_those_of_the_input(run):
    _, out, _ = run("rank", "people", "--format", "jsonl", stdin=b'{"text": "a", "score": 99, "rank": 7, "id": 5}\n')
    row = json.loads(out)
    assert (row["rank"], row["id"]) == (1, 5)
    assert row["score"] < 10
    code, out, _ = run("score", stdin=b'{"query": "a", "text": "b", "score": "high"}\n')
    assert code == 0
    assert float(out.split()[0]) < 10


def test_several_labels_are_written_side_by_side(run):
    _, out, _ = run("score", "--model", str(ROOT / "tests" / "goldens" / "roberta"), stdin=b"a\tb\n")
    assert len([float(number) for number in out.split()[:3]]) == 3


def test_a_row_of_tsv_is_one_line(run):
    _, out, _ = run("rank", "q", "--format", "tsv", stdin=b'{"text": "two\\nlines\\tand a tab"}\n')
    assert out.endswith("\ttwo lines and a tab\n")
    assert out.count("\n") == 1


def test_tsv_has_the_ids_of_the_input_or_positions(run):
    stdin = b'{"id": "x7", "text": "Rain."}\n{"text": "Seven people."}\n{"id": 5, "text": "Two\\tpeople."}\n'
    _, out, _ = run("rank", "people", "--format", "tsv", stdin=stdin)
    rows = [line.split("\t")[1:] for line in out.splitlines()]
    assert sorted(rows) == [["1", "Seven people."], ["5", "Two people."], ["x7", "Rain."]]
    _, out, _ = run("score", "--format", "tsv", stdin=b'{"id": "a\\tb", "query": "q", "text": "t"}\n')
    assert out.split("\t")[1:] == ["a b", "q", "t\n"]


ARRAYS = [
    ("rank", b'["Rain.", "Seven people."]', ["Rain.", "Seven people."]),
    ("rank", b'\n [\n"Rain.", {"document": "Seven people.", "id": 3}]\n', ["Rain.", "Seven people."]),
    ("rank", b"[]", []),
    ("rank", b"[1] Smith et al.\n[2] Jones\n", ["[1] Smith et al.", "[2] Jones"]),
    ("score", b'[["q", "Rain."], {"query": "q", "text": "Seven people."}]', ["Rain.", "Seven people."]),
    ("score", b"[1] what\tRain.\n", ["Rain."]),
]


@pytest.mark.parametrize(("command", "stdin", "texts"), ARRAYS)
def test_a_json_array_is_read_as_one_and_a_text_in_brackets_as_text(run, command, stdin, texts):
    query = ["people"] if command == "rank" else []
    code, out, _ = run(command, *query, "--format", "jsonl", stdin=stdin)
    assert code == 0
    assert sorted(json.loads(line)["text"] for line in out.splitlines()) == texts


def test_lines_are_text_when_the_caller_says_so(run):
    for line in ('{"text": "a"}', '["a"]', '["a" note'):
        code, out, _ = run("rank", "q", "--text", "--format", "jsonl", stdin=line.encode())
        assert (code, json.loads(out)["text"]) == (0, line)


def test_nothing_but_the_name_prints_the_help(run):
    code, out, err = run()
    assert (code, err) == (0, "")
    assert "COMMAND" in out
    assert "rank" in out


def test_an_input_without_end_is_refused(run, monkeypatch):
    monkeypatch.setattr(records, "LARGEST_INPUT", 10)
    assert run("rank", "q", stdin=b"0123456789")[0] == 0
    code, _, err = run("rank", "q", stdin=b"0123456789a")
    assert code == 1
    assert "standard input: found more than 10 bytes" in err


@pytest.mark.parametrize(
    ("error", "message"), [(MemoryError(), "the memory is not enough"), (RecursionError(), "nested")]
)
def test_what_python_runs_out_of_is_one_line(run, monkeypatch, error, message):
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "load_model", fail)
    code, out, err = run("rank", "q", stdin=b"a")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert message in err


def test_lines_of_progress_come_when_time_has_passed(capsys):
    times = iter([0.0, 5.0, 12.0, 15.0, 22.0, 23.0])
    with progress.show_lines(20_000, lambda: next(times)) as update:
        for count in (500, 700, 100, 700, 18_000):
            update(count)
    assert capsys.readouterr().err.splitlines() == [
        "numbert: 1,200 of 20,000 pairs, 100 pairs/s",
        "numbert: 2,000 of 20,000 pairs, 90.9 pairs/s",
    ]


def test_progress_goes_to_a_file_as_lines_and_never_for_short_jobs(run, monkeypatch):
    stdin = "\n".join(f"passage {i}" for i in range(1100)).encode()
    assert "pairs/s" not in run("rank", "q", stdin=stdin)[2]
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    err = run("rank", "q", stdin=stdin)[2]
    assert "numbert: 576 of 1,100 pairs" in err
    assert "numbert: 1,100 of 1,100 pairs" in err


def test_verify_says_what_it_could_not_compare(run, monkeypatch):
    def missing(*_):
        raise BackendError("torch is not installed")

    monkeypatch.setattr(verify, "_Transformers", missing)
    monkeypatch.setattr(verify, "TOKEN_PAIRS", 4)
    monkeypatch.setattr(verify, "LOGIT_PAIRS", 4)
    code, out, _ = run("verify")
    assert code == 0
    *compared, last = out.splitlines()[2:]
    assert all(line.endswith("| ok |") for line in compared)
    assert last == "| against transformers |  | torch is not installed | not compared |"
    _, out, _ = run("verify", "--format", "json")
    assert [check["passed"] for check in json.loads(out)] == [True, True, None]


def mock_transformers(monkeypatch, missing=()):
    transformers = mock.MagicMock()
    loaded = (mock.MagicMock(), {"missing_keys": set(missing)})
    transformers.AutoModelForSequenceClassification.from_pretrained.return_value = loaded
    monkeypatch.setitem(sys.modules, "torch", mock.MagicMock())
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    return transformers


def test_verify_compares_with_no_class_that_would_fill_up_with_random_numbers(monkeypatch, tmp_path):
    mock_transformers(monkeypatch, missing=["pooler.weight", "layer.0.weight"])
    with pytest.raises(BackendError, match=r"transformers has no class for this model: .* needs layer\.0\.weight"):
        verify._Transformers(tmp_path, 20)


@pytest.mark.parametrize("error", [ValueError("no `new`\nUpgrade"), KeyError("ntk"), RuntimeError("sizes\nmore")])
def test_verify_says_in_a_line_why_transformers_cannot_load_a_model(monkeypatch, tmp_path, error):
    transformers = mock_transformers(monkeypatch)
    transformers.AutoModelForSequenceClassification.from_pretrained.side_effect = error
    with pytest.raises(BackendError, match=r"^transformers cannot load this model: \w+Error: .*(new|ntk|sizes)[`']?$"):
        verify._Transformers(tmp_path, 20)


def test_verify_lets_transformers_neither_unpickle_nor_run_code_nor_ask_the_hub(monkeypatch, tmp_path):
    transformers = mock_transformers(monkeypatch)
    verify._Transformers(tmp_path, 20)
    (tokenizer,) = transformers.AutoTokenizer.from_pretrained.call_args_list
    (model,) = transformers.AutoModelForSequenceClassification.from_pretrained.call_args_list
    for call in (tokenizer, model):
        assert call.args == (tmp_path,)
        assert (call.kwargs["local_files_only"], call.kwargs["trust_remote_code"]) == (True, False)
    assert model.kwargs["use_safetensors"] is True


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.parametrize("wait_for", ["argparse", "numpy", "stdin"])
def test_ctrl_c_ends_with_130_and_one_line(wait_for):
    # SIGINT comes while a module is imported, or while input is awaited.
    code = f"""
import builtins, os, signal, sys, time
from numbert.__main__ import main
usual = builtins.__import__
def interrupted(name, *args, **options):
    if name == {wait_for!r}:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    return usual(name, *args, **options)
builtins.__import__ = interrupted
sys.argv = ["numbert", "rank", "q"]
print("ready", flush=True)
sys.exit(main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=ROOT.parent,
    )  # fmt: skip
    if wait_for == "stdin":
        assert process.stdout.readline() == "ready\n"
        time.sleep(1)
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "numbert: interrupted\n")


@pytest.mark.parametrize("closed", [">&-", "<&-"])
def test_closed_streams_are_an_error_message(closed):
    result = subprocess.run(
        f"{sys.executable} -m numbert info {closed}",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT.parent,
    )
    assert result.returncode == 1
    assert result.stderr == "numbert: error: standard input or output is closed; leave both open\n"


def test_no_passages_give_no_output(run):
    assert run("rank", "q", stdin=b"")[:2] == (0, "")


HALF_ON_LINE_2 = "standard input, line 2: found \\ud83d, half a character, expected valid Unicode"


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        (["rank", "q", "no-such-file"], b"", 1, "no-such-file: No such file or directory"),
        (["rank", "q", "--model", "./nowhere"], b"a", 1, "./nowhere: found no such folder"),
        (["score"], b"one field\n", 1, "standard input, line 1: found 1 fields, expected 2"),
        (["rank", "q"], b'{"text": "a"}\nplain\n', 1, "standard input, line 2: found no valid JSON"),
        (["rank", "q"], b'{"text": 5}\n', 1, "standard input, line 1: found text = 5, expected a string"),
        (["rank", "q"], b'{"text": "a"}\n[1]\n', 1, "line 2: found a JSON list, expected an object"),
        (["rank", "q"], b'{"text":' + b"[" * 100_000, 1, "standard input, line 1: found no valid JSON"),
        (["rank", "q", "--score-threshold", "nan"], b"a", 1, "score_threshold: found nan"),
        (["rank", "q"], b"a\xff\xfe", 1, "standard input: found byte 0xff at position 1, expected UTF-8"),
        (["info", BERLIN], b"", 1, "berlin.txt: found a file, expected the folder"),
        (["info", "./no such\nmodel"], b"", 1, "no such model: found no such folder"),
        (["rank", "q", "--top-k", "-1"], b"a", 1, "top_k must be 0 or more"),
        (["rank", "q", "--threads", "0"], b"a", 1, "num_threads must be a positive integer"),
        (["rank"], b"", 2, "QUERY"),
        (["rank", "q", "--threads", "1000000000"], b"a", 1, "num_threads: found 1000000000, expected at most 1024"),
        (["rank", "q", "--max-length", "3"], b"a", 1, "max_length must be 4 or more, got 3"),
        (["rank", "q", "."], b"", 1, ".: Is a directory"),
        (["rank", "q", "a\0b"], b"", 1, "FILE: found 'a\\x00b', which no file can be called"),
        (["rank", "\udcff"], b"a", 1, "query: found a lone surrogate U+DCFF"),
        (["rank", "q"], b'["a", "b"', 1, "standard input: found the beginning of a JSON array, but no valid JSON"),
        (["rank", "q"], b'[{"text": "a"},]', 1, "pass --text if it holds lines of text"),
        (["rank", "q"], b'["a", 5]', 1, "standard input, item 2: found 5, expected a string or an object"),
        (["rank", "q"], b'[{"text": ["a"]}]', 1, "standard input, item 1: found text = ['a'], expected a string"),
        (["score"], b'["a", "b"]', 1, "standard input, item 1: found 'a', expected an object or a list of two strings"),
        (["score"], b'[["a", "b", "c"]]', 1, "standard input, item 1: found ['a', 'b', 'c'], expected an object"),
        (["rank", "q", "--top-k", "x"], b"", 2, "invalid int value"),
        *(
            (["rank", "q", "--format", "jsonl"], b'{"text": "a"}\n{"text": "b", ' + other + b"}", 1, HALF_ON_LINE_2)
            for other in (b'"id": "\\ud83d"', b'"\\ud83d": 1', b'"meta": [{"a": ["e\\u0301\\ud83d"]}]')
        ),
        (["rank", "q"], b'{"text": "a"}\n{"text": "\\ud83d"}', 1, HALF_ON_LINE_2),
        (["rank", "q"], b'["a", "\\ud83d"]', 1, "standard input, item 2: found \\ud83d, half a character"),
        (["score"], b'[["q", "\\uDE42"]]', 1, "standard input, item 1: found \\ude42, half a character"),
    ],
)
def test_errors_are_one_line_and_a_code(run, arguments, stdin, code, message):
    found, out, err = run(*arguments, stdin=stdin)
    assert found == code
    assert out == ""
    assert message in err
    assert code == 2 or err.splitlines()[-1].startswith("numbert: error: ")
    assert "Traceback" not in err


def test_both_halves_of_a_character_are_one(run):
    code, out, _ = run("rank", "q", "--format", "jsonl", stdin=b'{"text": "a", "id": "\\ud83d\\ude42"}')
    assert (code, json.loads(out)["id"]) == (0, "🙂")


def test_a_reader_that_stops_early_is_no_error_message():
    command = f"{sys.executable} -m numbert rank q --format jsonl | head -n 1"
    stdin = "\n".join(f"passage {i} " + "x" * 200 for i in range(2000))
    result = subprocess.run(
        command, shell=True, input=stdin, capture_output=True, text=True, timeout=120, cwd=ROOT.parent
    )
    assert len(result.stdout.splitlines()) == 1
    assert "Error" not in result.stderr
