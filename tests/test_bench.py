"""`numbert bench`: what it prints is complete, and its stopwatches leave no trace."""

import json
import threading
from dataclasses import replace

import pytest
from numbert import CrossEncoder
from numbert.engine.errors import InputError
from numbert.engine.tools.bench import bench, make_pairs
from numbert.engine.tools.cli import main
from numbert.engine.tools.phases import (
    BETWEEN,
    FORWARD,
    FUNCTIONS,
    NOT_TIMED,
    PHASES,
    REST,
    Stopwatch,
    stopwatches,
    useful_flop,
    useful_flop_of_phases,
)
from numbert.kernels.cpu import compiled, peak
from numbert.loaders.spec import ConvolutionRule, LayerRule
from random_models import make_disentangled_spec, make_modern_spec, make_spec

NAMES = {*PHASES.values(), BETWEEN, REST}
MANY, FEW = make_pairs(90, 30), make_pairs(4, 30)  # shards for each thread; one batch that the threads share


def dispatchers() -> dict[str, object]:
    return {name: value for name, value in vars(compiled.KERNELS).items() if hasattr(value, "py_func")}


@pytest.fixture
def untouched():
    """Prove that a test leaves kernels and scorer as it found them."""
    before = dispatchers(), {name: vars(module)[name] for name, module in FUNCTIONS.items()}
    yield
    after = dispatchers(), {name: vars(module)[name] for name, module in FUNCTIONS.items()}
    assert after == before


def test_pairs_are_the_same_at_every_call_and_distinct():
    assert make_pairs(50, 20) == make_pairs(50, 20)
    assert len(set(make_pairs(300, 1))) == 300


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("pairs", [MANY, FEW], ids=["shards", "team"])
def test_phases_have_known_names_and_sum_to_all_thread_time(model, pairs):
    phases = bench(model, pairs, batch_size=32, rounds=3, with_phases=True).phases
    seconds = {phase.name: phase.seconds for phase in phases}
    assert set(seconds) <= NAMES
    assert {"tokenize", "attention", "feed-forward, residual, norm", "head"} <= set(seconds)
    assert sum(phase.share for phase in phases) == pytest.approx(1)
    assert all(value > 0 for value in seconds.values())


@pytest.mark.usefixtures("untouched")
def test_most_of_the_time_of_a_large_call_has_a_name():
    model = CrossEncoder(num_threads=1)
    phases = bench(model, make_pairs(60, 100), batch_size=32, rounds=3, with_phases=True).phases
    named = sum(phase.share for phase in phases if phase.name not in (BETWEEN, REST))
    assert named > 0.6  # about 0.95 on a quiet machine; other processes make what is left longer


def test_every_kernel_has_a_phase():
    assert set(dispatchers()) - NOT_TIMED <= set(PHASES)


@pytest.mark.usefixtures("untouched")
def test_an_unknown_kernel_is_reported_under_its_own_name(model, monkeypatch):
    monkeypatch.delitem(PHASES, "attend")
    model.predict(MANY)
    with stopwatches(model._scorer.runner) as watch:
        model.predict(MANY)
    assert watch.seconds()["attend"] > 0


@pytest.mark.usefixtures("untouched")
def test_kernels_are_back_after_an_error(model):
    def fail():
        assert set(dispatchers()) <= NOT_TIMED
        raise RuntimeError

    with pytest.raises(RuntimeError), stopwatches(model._scorer.runner):
        fail()


def test_without_profile_no_kernel_is_wrapped(model, monkeypatch):
    monkeypatch.setattr(Stopwatch, "wrap", None)
    assert bench(model, FEW, batch_size=32, rounds=1, with_phases=False).phases == []


def test_notes_of_threads_add_up():
    watch = Stopwatch()
    nothing = watch.wrap("nothing", lambda: None)
    threads = [threading.Thread(target=lambda: [nothing() for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(watch._notes) == 2000
    event = threading.Event()
    for _ in range(3):
        watch.wrap("attend", event.wait)(0.02)
    assert watch.seconds()["attend"] >= 3 * 0.02


def test_what_a_timed_function_calls_counts_as_that_function_but_in_a_forward_pass():
    watch = Stopwatch()
    inner = watch.wrap("linear_rows", lambda: None)
    outer = watch.wrap("head", inner)
    watch.wrap(FORWARD, lambda: (inner(), outer()))()
    assert [name for name, _ in watch._notes] == ["linear_rows", "head", FORWARD]


def test_operations_of_one_layer_by_hand(model):
    spec = model.spec
    c, f, length = spec.hidden_size, spec.intermediate_size, 10
    token = 2 * (4 * c * c + 2 * c * f) + 2 * 2 * length * c  # products of a token in a layer that is computed whole
    last = length * 2 * 2 * c * c + 2 * (2 * c * c + 2 * c * f) + 2 * 2 * length * c
    head = 2 * c * c + 2 * c * spec.num_labels
    assert useful_flop(spec, length) == (spec.num_layers - 1) * length * token + last + head
    several = sum(useful_flop_of_phases(spec, [10, 7, 7]).values())
    assert several == pytest.approx(useful_flop(spec, 10) + 2 * useful_flop(spec, 7))
    assert set(useful_flop_of_phases(spec, [10])) <= set(PHASES.values())


def test_operations_count_windows_gates_and_poolings_by_hand():
    rules = (LayerRule(10.0, None), LayerRule(10.0, (2, 1)))
    c, f, length = 48, 97, 10
    spec = replace(make_modern_spec(c, 3, f, 2, 1, pooling="mean"), layers=rules)
    keys = length * length + sum(min(place + 2, length) - max(place - 2, 0) for place in range(length))
    layer = 2 * length * (4 * c * c + 3 * c * f)
    head = 2 * (c * c + c)
    assert useful_flop(spec, length) == 2 * layer + 2 * 2 * c * keys + head
    first = replace(spec, pooling="first")  # one row has queries, output and feed-forward in the last layer
    saved = (length - 1) * 2 * (2 * c * c + 3 * c * f) + 2 * 2 * c * (keys - length * length - 2)
    assert useful_flop(first, length) == 2 * layer + 2 * 2 * c * keys + head - saved


def test_operations_count_contents_that_meet_distances_and_a_convolution_by_hand():
    plain, c, length = make_spec(48, 3, 97, 3, 2), 48, 10
    queries = 2 * length + 1  # of the last layer, one
    for kinds in (("c2p",), ("c2p", "p2c")):
        spec = make_disentangled_spec(*kinds, convolution=ConvolutionRule(3, 4, "tanh"))
        more = 2 * len(kinds) * c * queries * length + 2 * length * c * (c // 4) * 3
        assert useful_flop(spec, length) == useful_flop(plain, length) + more
        assert set(useful_flop_of_phases(spec, [length])) <= set(PHASES.values())


def test_the_chains_of_the_peak_are_computed():
    assert peak.largest_error(peak.start_values()) < 1e-6


def test_reference_is_timed_and_cannot_be_profiled():
    model = CrossEncoder(backend="reference")
    facts, phases, limit = bench(model, FEW, batch_size=32, rounds=1, with_phases=False)
    assert facts["pairs_per_second"] > 0
    assert (phases, limit) == ([], None)
    with pytest.raises(InputError, match="backend 'reference', expected one whose kernels are timed"):
        bench(model, FEW, batch_size=32, rounds=1, with_phases=True)


# ---- command line


def test_command_prints_facts_and_a_table(capsys):
    assert main(["bench", "--pairs", "8", "--words", "10", "--rounds", "2", "--threads", "2", "--profile"]) == 0
    out = capsys.readouterr().out
    assert "pairs_per_second" in out
    assert "| feed-forward, residual, norm |" in out
    assert all(line.count("|") == 6 for line in out.splitlines() if line.startswith("|"))


def test_command_reads_pairs_of_a_file(capsys, tmp_path):
    file = tmp_path / "pairs.tsv"
    file.write_text("how many people\tSeven people.\nrain\tSun.\nrain\tSun.\n")
    assert main(["bench", str(file), "--rounds", "1", "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["pairs"] == 2
    assert facts["longest"] > facts["shortest"] > 0
    assert 0 < facts["share_of_float32_peak"] < 1
    assert "phases" not in facts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "0"], "pairs must be a positive integer, got 0"),
        (["--words", "-1"], "words must be a positive integer, got -1"),
        (["--rounds", "0"], "rounds must be a positive integer, got 0"),
        (["--batch-size", "0"], "batch_size must be a positive integer, got 0"),
        (["EMPTY"], "pairs: found none"),
        (["EMPTY", "--pairs", "5"], "bench: found FILE and --pairs or --words"),
        (["--backend", "reference", "--profile", "--pairs", "2"], "profile: found backend 'reference'"),
    ],
)
def test_wrong_use_is_one_line(capsys, tmp_path, arguments, message):
    (tmp_path / "empty").write_text("")
    assert main(["bench", *(str(tmp_path / "empty") if part == "EMPTY" else part for part in arguments)]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
