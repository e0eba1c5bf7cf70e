"""Searches on boards over ssh and on phones over adb, as processes: killed, resumed, without devices, side by side."""

import collections
import re
import signal

import pytest
from searching import Search, board_python, entry, let_it_record, sessions
from sshd import needs_sshd

from tests.latency.phones import make_phone

pytest.importorskip("adbutils")
pytest.importorskip("asyncssh")


def plug_in(phones, folder, *serials):
    """Return new phones that log what they measure."""
    made = {serial: make_phone(folder / serial) for serial in serials}
    for phone in made.values():
        let_it_record(phone)
    phones.plug_in(**made)
    return made


def phone_entry(phones, program, *serials):
    address = serials[0] if len(serials) == 1 else serials
    return entry("fake", "adb", address=address, benchmark_model=str(program), adb_server=phones.address)


def board_entry(server):
    return entry("pi", "ssh", address=server.address, python=board_python(server))


def describe(folder, *entries):
    (folder / "devices.toml").write_text("\n".join(entries))


def search_on(folder, device, trials, *options, home=None, name="search", **patience):
    options = ("--device", device, "--trials", str(trials), "--candidates-per-update", "4", *options)
    return Search(folder / name, options, home or folder, patience)


def require_complete(search, trials, units):
    """Assert that all trials finished on these units (device -> names), with milliseconds on one scale."""
    stored = search.stored()
    assert [t.number for t in stored.trials] == list(range(trials))
    assert {t.state for t in stored.trials} == {"complete"}
    measured_on = collections.defaultdict(set)
    for trial in stored.trials:
        assert list(trial.latencies) == list(units)
        for device, latency in trial.latencies.items():
            reference_ms = stored.attributes["calibrations"][device][0]["reference_ms"]
            assert latency.latency_ms == pytest.approx(latency.ratio * reference_ms)
            assert latency.source in ("measured", "cached")
            measured_on[device].add(latency.unit)
    assert measured_on == units
    assert stored.state.status == "finished"


def twice(measured, search):
    """Return the files that were measured more than once; assert that exactly the search's files were measured."""
    count = collections.Counter(measured)
    assert set(count) == search.files()
    return {name for name, times in count.items() if times > 1}


def killed_and_resumed(search, measured, trials, kill_at, units):
    """Kill the search while the device measures candidate number `kill_at`, then run the same command again."""
    begun = []

    def in_the_middle():
        begun[:] = dict.fromkeys(sessions(measured))
        return len(begun) >= kill_at

    search.killed_when(in_the_middle)
    before = search.stored()
    assert before.state.status == "interrupted"
    assert sum(t.is_finished for t in before.trials) < kill_at
    assert search.finish() == 0, search.printed()
    after = search.stored()
    assert after.attributes["calibrations"] == before.attributes["calibrations"]
    assert [t.choices for t in after.trials[: len(before.trials)]] == [t.choices for t in before.trials]
    require_complete(search, trials, units)
    assert twice(sessions(measured), search) <= {begun[-1]}  # what it was at


@needs_sshd
@pytest.mark.parametrize(
    ("trials", "kill_at"), [(6, 3), pytest.param(40, 22, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_a_search_over_ssh_killed_once_is_resumed_and_measures_nothing_twice(server, tmp_path, trials, kill_at):
    describe(tmp_path, board_entry(server))
    search = search_on(tmp_path, "pi", trials, home=server.home)
    killed_and_resumed(search, server.folder / "measured", trials, kill_at, {"pi": {"pi"}})
    assert server.left() == []


@pytest.mark.slow  # the test over ssh also covers a killed search
@pytest.mark.parametrize(("trials", "kill_at"), [(6, 3), pytest.param(40, 22, marks=[pytest.mark.timeout(1800)])])
def test_a_search_over_adb_killed_once_is_resumed_and_measures_nothing_twice(
    phones, program, tmp_path, trials, kill_at
):
    phone = plug_in(phones, tmp_path, "FAKE0001")["FAKE0001"]
    describe(tmp_path, phone_entry(phones, program, "FAKE0001"))
    search = search_on(tmp_path, "fake", trials)
    killed_and_resumed(search, phone.root / "measured", trials, kill_at, {"fake": {"fake"}})
    assert phone.files() == []


@pytest.mark.slow  # most of a minute
@needs_sshd
def test_a_search_on_a_phone_and_a_board_whose_connection_drops(phones, program, server, tmp_path):
    phone = plug_in(phones, tmp_path, "FAKE0001")["FAKE0001"]
    describe(tmp_path, board_entry(server), phone_entry(phones, program, "FAKE0001"))
    search = search_on(tmp_path, "pi,fake", 3, "--target-latency-ms", "pi=0.1,fake=0.01", home=server.home)
    on_board, on_phone = server.folder / "measured", phone.root / "measured"
    with search.started() as process:
        search.wait_for(lambda: len(sessions(on_board)) == 4, process)  # after the space's two ends
        server.drop()
        assert process.wait() == 0, search.printed()
    assert re.search(r"pi: .* ssh connection .*; candidate \d is tried again later", search.printed())
    assert re.search(r"pi works again after \d+ s", search.printed())
    require_complete(search, 3, {"pi": {"pi"}, "fake": {"fake"}})
    assert len(twice(sessions(on_board), search)) <= 1  # what it was at
    assert not twice(sessions(on_phone), search)
    for trial in search.stored().trials:  # the phone's target is far harder
        assert trial.latency_ms == pytest.approx(0.1 * trial.latencies["fake"].latency_ms / 0.01)
    assert "target pi 0.1 ms, fake 0.01 ms" in search.printed()
    assert server.left() == phone.files() == []


@pytest.mark.slow  # most of a minute
def test_one_of_two_phones_vanishes_then_the_other_and_both_come_back(phones, program, tmp_path):
    units = plug_in(phones, tmp_path, "FAKE0001", "FAKE0002")
    describe(tmp_path, phone_entry(phones, program, *units))
    search = search_on(tmp_path, "fake", 10, away_s=2.0, backoff_s=0.2)

    def begun():
        return sum(len(sessions(phone.root / "measured")) for phone in units.values())

    with search.started() as process:
        search.wait_for(lambda: begun() >= 3, process)
        phones.plug_in(FAKE0002=units["FAKE0002"])
        search.wait_for(lambda: "phone FAKE0001 is not connected to adb" in search.printed(), process)
        begun_then = begun()
        search.wait_for(lambda: begun() >= begun_then + 2, process)  # the other one continues
        phones.plug_in()
        assert process.wait() == 2
    line = search.printed().splitlines()[-1]
    assert re.match(
        r"mnas: fake: no unit can measure: failing for \d+ s: .*phone FAKE000[12] is not connected to adb.*plug it in",
        line,
    )
    assert "Traceback" not in search.printed()
    stopped = search.stored()
    assert (stopped.state.status, f"mnas: {stopped.state.reason}") == ("stopped", line)
    phones.plug_in(**units)
    assert search.finish() == 0, search.printed()
    require_complete(search, 10, {"fake": {"fake/0", "fake/1"}})
    assert [t.choices for t in search.stored().trials[: len(stopped.trials)]] == [t.choices for t in stopped.trials]
    assert [phone.files() for phone in units.values()] == [[], []]


@pytest.mark.slow  # most of a minute
def test_who_wants_a_phone_that_another_search_has_waits_until_it_is_killed(phones, program, tmp_path):
    phone = plug_in(phones, tmp_path, "FAKE0001")["FAKE0001"]
    describe(tmp_path, phone_entry(phones, program, "FAKE0001"))
    phone.fault("hang", 2)
    holder = search_on(tmp_path, "fake", 2, name="holder")
    waiting = search_on(tmp_path, "fake", 2, "--seed", "1", name="waiting")
    measured = phone.root / "measured"
    with holder.started() as killed:
        holder.wait_for(lambda: phone.calls() == 2, killed)
        with waiting.started() as process:
            words = f"waiting for fake, held by pid {killed.pid} "
            waiting.wait_for(lambda: words in waiting.printed(), process)
            assert phone.calls() == 2
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            with holder.started() as again:  # from now on they take turns
                assert process.wait() == 0, waiting.printed()
                assert again.wait() == 0, holder.printed()
    assert re.search(r"fake is free after \d+ s", waiting.printed())
    for search in (holder, waiting):
        require_complete(search, 2, {"fake": {"fake"}})
    assert sorted(sessions(measured)) == sorted(holder.files() | waiting.files())  # never two at a time, none twice
    assert phone.files() == []
