"""The command line as programs and people use it."""

import io
import json
import subprocess
import sys

import pytest
from conftest import ROOT
from numbert.engine.cli import main

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
    assert [row[1:] for row in rows] == [["people", "Rain."], ["people", "Seven people."]]
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
        (["rank", "q"], b"\xff\xfe", 1, "the input is not UTF-8"),
        (["rank", "q", "--top-k", "-1"], b"a", 1, "top_k must be 0 or more"),
        (["rank", "q", "--threads", "0"], b"a", 1, "num_threads must be a positive integer"),
        (["rank"], b"", 2, "QUERY"),
        (["rank", "q", "--top-k", "x"], b"", 2, "invalid int value"),
        ([], b"", 2, "COMMAND"),
    ],
)
def test_errors_are_one_line_and_a_code(run, arguments, stdin, code, message):
    found, out, err = run(*arguments, stdin=stdin)
    assert found == code
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_a_reader_that_stops_early_is_no_error_message():
    command = f"{sys.executable} -m numbert rank q --format jsonl | head -n 1"
    stdin = "\n".join(f"passage {i} " + "x" * 200 for i in range(2000))
    result = subprocess.run(
        command, shell=True, input=stdin, capture_output=True, text=True, timeout=120, cwd=ROOT.parent
    )
    assert len(result.stdout.splitlines()) == 1
    assert "Error" not in result.stderr
