"""Which cores this process may use, and where threads that help others are bound."""

import math
import os
from pathlib import Path

import pytest
from numbert.engine import cores
from numbert.engine.cores import FULL_SPEED, choose_cores, current_core, quota, speed_of, stay_on, usable_cores

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no threads")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Pretend to have eight cores and to be on core 2; return what else can be pretended."""

    def pretend(allowed=range(8), own=2, capacities=()):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(allowed), raising=False)
        monkeypatch.setattr(cores, "_current_core", lambda: own)
        monkeypatch.setattr(cores, "CAPACITY", str(tmp_path / "cpu{}"))
        for core, capacity in enumerate(capacities):
            (tmp_path / f"cpu{core}").write_text(f"{capacity}\n")

    speed_of.cache_clear()
    yield pretend
    speed_of.cache_clear()


# ---- the choice


def test_helpers_get_neither_the_core_of_the_one_that_they_help_nor_one_that_is_taken(machine):
    machine()
    assert choose_cores(3, {0, 4}) == [3, 5, 6]


def test_those_for_whom_no_core_is_left_stay_where_the_system_puts_them(machine):
    machine(allowed=[1, 2, 5])
    assert choose_cores(4, {1}) == [5, None, None, None]
    assert choose_cores(0, ()) == []


def test_only_cores_of_the_calling_thread_are_chosen(machine):
    machine(allowed=[3, 5, 7], own=0)
    assert choose_cores(3, ()) == [3, 5, 7]
    machine(allowed=[2])
    assert choose_cores(1, ()) == [None]


@pytest.mark.parametrize(("own", "chosen"), [(2, [3, 4, 5]), (6, [7, 0, 1]), (7, [0, 1, 2])])
def test_the_first_is_the_one_behind_the_callers_own(machine, own, chosen):
    machine(own=own)
    assert choose_cores(3, ()) == chosen


def test_helpers_of_callers_on_different_cores_do_not_meet(machine):
    chosen = set()
    for own in range(8):
        machine(own=own)
        chosen |= set(choose_cores(1, ()))
    assert len(chosen) == 8


def test_the_fastest_cores_come_first(machine):
    machine(capacities=[446, 446, 1024, 446, 1024, 871, 871, 446])
    assert choose_cores(7, ()) == [4, 5, 6, 3, 7, 0, 1]


@pytest.mark.parametrize(("content", "speed"), [("446\n", 446), ("", FULL_SPEED), ("fast", FULL_SPEED)])
def test_a_core_whose_speed_is_not_told_is_as_fast_as_any(machine, tmp_path, content, speed):
    machine()
    (tmp_path / "cpu0").write_text(content)
    assert speed_of(0) == speed
    assert speed_of(1) == FULL_SPEED  # no file
    assert speed_of(None) == FULL_SPEED


def test_where_the_system_does_not_tell_the_core_nobody_is_bound(monkeypatch):
    monkeypatch.setattr(cores, "_current_core", None)
    assert current_core() is None
    assert choose_cores(2, ()) == [None, None]


@pytest.mark.skipif(cores._current_core is None, reason="the system does not tell the core")
def test_the_own_core_is_one_that_is_allowed():
    assert current_core() in os.sched_getaffinity(0)


# ---- staying there


@needs_affinity
def test_a_thread_stays_on_a_core_and_is_free_again_after_an_error():
    allowed = os.sched_getaffinity(0)
    core = max(allowed)
    with stay_on(core):
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == allowed
    with pytest.raises(KeyError), stay_on(core):
        raise KeyError
    assert os.sched_getaffinity(0) == allowed


def test_staying_where_one_is_asks_the_system_for_nothing(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", None, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", None, raising=False)
    with stay_on(None):
        pass


@needs_affinity
def test_a_system_that_forbids_it_is_no_error(monkeypatch):
    def forbid(pid, mask):
        raise PermissionError("not here")

    monkeypatch.setattr(os, "sched_setaffinity", forbid)
    with stay_on(max(os.sched_getaffinity(0))):
        pass


# ---- how many


def folder_of(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "25000 50000"}, 0.5),
        ({"cpu.max": "max 100000"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ({"cpu.max": "200000 100000", "cpu/cpu.cfs_quota_us": "1", "cpu/cpu.cfs_period_us": "1"}, 2),  # newer first
        ({"cpu.max": "", "cpu/cpu.cfs_quota_us": "7", "cpu/cpu.cfs_period_us": "2"}, 3.5),
        ({"cpu.max": "nonsense"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "100000"}, math.inf),
        ({}, math.inf),
    ],
    ids=lambda value: " ".join(value) or "none" if isinstance(value, dict) else "",
)
def test_the_quota_of_a_control_group(tmp_path, files, expected):
    assert quota(folder_of(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("affinity", "limit", "expected"),
    [(8, "max", 8), (8, "300000", 3), (8, "250000", 3), (8, "20000", 1), (2, "300000", 2)],
)
def test_usable_are_the_cores_of_the_affinity_that_the_quota_pays_for(monkeypatch, tmp_path, affinity, limit, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(3, 3 + affinity)), raising=False)
    monkeypatch.setattr(cores, "CGROUP", folder_of(tmp_path, {"cpu.max": f"{limit} 100000"}))
    monkeypatch.setattr(cores, "MEMBERSHIP", tmp_path / "none")
    assert usable_cores() == expected


@pytest.mark.parametrize(("inner", "expected"), [("", 8), ("a.slice/b.service", 2), ("a.slice", 3), ("gone", 8)])
def test_the_quota_of_a_service_is_found_where_the_system_says_that_it_is(monkeypatch, tmp_path, inner, expected):
    for folder, limit in (("a.slice", "300000"), ("a.slice/b.service", "200000")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "cpu.max").write_text(f"{limit} 100000\n")
    (tmp_path / "cgroup").write_text(f"1:name=systemd:/other\n0::/{inner}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    monkeypatch.setattr(cores, "MEMBERSHIP", tmp_path / "cgroup")
    assert usable_cores() == expected


@pytest.mark.parametrize(("counted", "expected"), [(6, 6), (None, 1)])
def test_without_affinity_all_cores_are_usable(monkeypatch, tmp_path, counted, expected):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: counted)
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    assert usable_cores() == expected
