"""The fuzzer sees what it is there for: each way to be wrong is made on purpose."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from numbert.loaders import modular_head

FUZZ = ROOT / "tests" / "fuzz"


@pytest.fixture
def hold(monkeypatch, tmp_path):
    """A function that runs a known case here."""
    monkeypatch.syspath_prepend(str(FUZZ))
    import case

    return lambda name: case.run_case("known", name, tmp_path / "case")


@pytest.fixture
def failed(hold):
    """What a broken promise raises."""
    from verdict import Failed

    return Failed


def test_a_sound_model_is_right(hold):
    assert hold("sound-narrow")[0] == "right"


def test_an_array_that_is_not_the_files_is_seen(hold, failed, monkeypatch):
    from numbert.loaders.tensors import Weights

    read = Weights.__getitem__
    monkeypatch.setattr(Weights, "__getitem__", lambda self, name: read(self, name) + np.float32(1e-6))
    with pytest.raises(failed, match=r"array .* is not what the file holds"):
        hold("sound-narrow")


def test_a_wrong_head_of_modules_is_seen(hold, failed, monkeypatch):
    assert hold("weightedmean-of-modules")[0] == "right"
    monkeypatch.setitem(modular_head.POOLINGS, "weightedmean", "mean")
    with pytest.raises(failed, match="wrong: float64 reference"):
        hold("weightedmean-of-modules")


def test_a_wrong_truncation_is_seen(hold, failed, monkeypatch):
    monkeypatch.setattr(
        "numbert.engine.tokenization.truncate_longest_first", lambda first, second, budget: (1, budget - 1)
    )
    with pytest.raises(failed, match="wrong: float64 reference"):
        hold("sound-narrow")


def test_a_wrong_kernel_is_seen(hold, failed, monkeypatch):
    from numbert.kernels.cpu import compiled

    head = compiled.head
    monkeypatch.setattr(compiled, "head", lambda *arguments: head(*arguments) * np.float32(1.001))
    with pytest.raises(failed, match="wrong: cpu"):
        hold("sound-narrow")


def test_a_distance_that_is_told_from_the_other_side_is_seen(hold, failed, monkeypatch):
    from numbert.engine import assembly

    rows = assembly.row_of_distance
    monkeypatch.setattr(assembly, "row_of_distance", lambda *arguments: rows(*arguments)[::-1].copy())
    with pytest.raises(failed, match="wrong: float64 reference"):
        hold("sound-deberta-v3")


def test_fused_rows_that_are_divided_wrongly_are_seen(hold, failed, monkeypatch):
    from numbert.loaders import deberta_v1

    for part, third in (("query", 0), ("key", 1), ("value", 2)):
        name = f"deberta.encoder.layer.{{i}}.attention.self.in_proj[{third}/3]"  # not of each head
        monkeypatch.setitem(deberta_v1.NAMES, f"layers.{{i}}.attention.{part}", name)
    with pytest.raises(failed, match="wrong: float64 reference"):
        hold("sound-deberta-v1")


def test_a_sound_model_that_is_refused_is_seen(hold, failed, monkeypatch):
    from numbert.loaders.published import FAMILIES

    monkeypatch.delitem(FAMILIES, "albert")
    with pytest.raises(failed, match=r"refused: a model that nothing is wrong with: .*ConfigError"):
        hold("sound-albert")


def test_a_check_that_is_gone_is_seen(hold, failed, monkeypatch):
    from numbert.loaders.modules import Chain

    assert hold("further-dense")[0] == "refused at load: ConfigError"
    monkeypatch.setattr("numbert.loaders.published.read_modules", lambda *arguments: Chain())
    with pytest.raises(failed, match=r"silent: .*modules"):
        hold("further-dense")


def test_an_error_outside_the_taxonomy_is_seen(hold, failed, monkeypatch):
    monkeypatch.setattr("numbert.loaders.published.open_weights", lambda *arguments: {}["nothing"])
    with pytest.raises(failed, match="stranger: KeyError"):
        hold("sound-narrow")


def test_a_score_of_something_that_is_no_text_is_seen(hold, failed, monkeypatch):
    import inputs

    monkeypatch.setattr("numbert.engine.inputs.check_text", lambda text, place: f"{text!r:.99}")
    with pytest.raises(failed, match=r"silent: a (score|ranking) of something that is no"):  # noqa: PT012
        for seed in range(1000):
            inputs.run(str(seed))


@pytest.mark.skipif(sys.platform == "win32", reason="limits of memory and pipes as the runner uses them are POSIX's")
def test_signals_hangs_and_open_files_are_seen():
    command = [sys.executable, FUZZ / "run.py", "--jobs", "1", "--hang", "2"]
    command += [part for alarm in ("leak", "signal", "hang") for part in ("--case", f"alarm:{alarm}")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1, run.stderr
    for word in ("signal: the process ended with -6", "hang: more than 2 s", "leak: 1 files were left open"):
        assert f"\n    {word}" in run.stdout, run.stdout
