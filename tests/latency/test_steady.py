"""Pinning and priority: set inside the context, and restored afterwards."""

import gc
import os
import resource

import pytest

from mnas.latency.onboard.script import prioritised, steady

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not pin threads")


def state():
    return os.sched_getaffinity(0), os.sched_getscheduler(0), os.sched_getparam(0).sched_priority, gc.isenabled()


def test_the_thread_is_on_one_core_inside_and_where_it_was_afterwards():
    before, core = state(), max(os.sched_getaffinity(0))
    with steady(core):
        assert os.sched_getaffinity(0) == {core}
        assert not gc.isenabled()
    assert state() == before
    with pytest.raises(KeyError), steady(core):
        raise KeyError
    assert state() == before


def test_real_time_priority_is_left_out_where_it_is_not_allowed(monkeypatch):
    def refuse(*_):
        raise PermissionError

    before = state()
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with prioritised(2.0) as realtime:
        assert not realtime
    assert state() == before


def test_real_time_priority_is_limited_inside_and_gone_afterwards():
    before, limits = state(), resource.getrlimit(resource.RLIMIT_RTTIME)
    with prioritised(2.5) as realtime:
        if realtime:  # otherwise this system does not allow it
            assert os.sched_getscheduler(0) == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
            assert resource.getrlimit(resource.RLIMIT_RTTIME)[0] == 2_500_000
    assert (state(), resource.getrlimit(resource.RLIMIT_RTTIME)) == (before, limits)


def test_a_core_that_is_no_longer_ours_is_not_pinned_to():
    before = os.sched_getaffinity(0)
    with steady(max(before) + 1000):
        assert os.sched_getaffinity(0) == before
