"""Two devices that are the same machine: a thread that waits for its lease ends when asked to."""

import signal
import threading

import pytest

from mnas.candidate import Candidate
from mnas.export.render import render
from mnas.latency.devices.registry import DeviceEntry
from mnas.latency.fleet.fleet import Fleet, Measured, Post
from mnas.latency.fleet.lease import lease, lease_key
from mnas.latency.fleet.pool import open_device
from mnas.latency.protocol import make_reference
from mnas.zoo.architectures import named_arch

SMALL = named_arch("mnasnet-small@0.35")


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "mnas"


@pytest.fixture
def fleet(state):
    posts = {}
    for name, runtime in (("desk", "litert"), ("shelf", "litert-builtin")):
        entry = DeviceEntry(name=name, kind="host", runtime=runtime)
        make_file = render(entry.setup)
        posts[name] = Post(
            device=open_device(entry, say=lambda text: None),
            reference=make_reference(SMALL, "small", 32, 10, make_file),
            render=make_file,
        )
    with Fleet(posts, num_classes=10, budget_s=0.1) as opened:
        opened.start(None, budget_s=0.1)
        yield opened


def test_each_is_measured_on_both(fleet):
    [(number, found)] = fleet.measure({3: Candidate(arch=SMALL, input_size=32)})
    assert number == 3
    assert isinstance(found, Measured)
    assert list(found.latencies) == ["desk", "shelf"]
    assert [latency.unit for latency in found.latencies.values()] == ["desk", "shelf"]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system sends no signals to threads")
def test_ctrl_c_ends_the_wait_for_somebody_elses_lease(fleet, state):
    held, released = threading.Event(), threading.Event()

    def hold():
        with lease(state / "leases", lease_key("host", ""), "host", say=print):
            held.set()
            released.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    before = threading.active_count()
    ctrl_c = threading.Timer(0.5, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    ctrl_c.start()
    with pytest.raises(KeyboardInterrupt):
        list(fleet.measure({3: Candidate(arch=SMALL, input_size=32)}))
    ctrl_c.join()
    assert holder.is_alive()  # nothing waited for it
    assert threading.active_count() <= before
    released.set()
    holder.join()


def test_a_disk_that_takes_no_leases_is_no_bug(fleet, state):
    for file in (state / "leases").iterdir():
        file.unlink()
    (state / "leases").rmdir()
    (state / "leases").write_text("in the way")
    with pytest.raises(OSError, match="leases"):
        list(fleet.measure({3: Candidate(arch=SMALL, input_size=32)}))
