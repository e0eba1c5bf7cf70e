"""`mnas devices` on this machine and on a phone behind a server of adb's protocol."""

import json

import pytest

from mnas.cli.main import run
from mnas.latency.devices.host import host_unit
from mnas.latency.latency import Setup
from mnas.latency.repeatability import session_error_of
from tests.latency.phones import make_phone, run_phones, write_program


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")


def printed(capsys, *arguments):
    code = run([str(a) for a in arguments])
    told = capsys.readouterr()
    assert code == 0, told.err
    return told.out


def complaint(capsys, *arguments):
    assert run([str(a) for a in arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_list_shows_the_host_and_what_the_file_describes(tmp_path, capsys):
    shown = printed(capsys, "devices", "list")
    assert "host" in shown
    assert f"devices file: {tmp_path / 'config' / 'mnas' / 'devices.toml'} (does not exist yet)" in shown
    assert shown.endswith("\nnext, check that a device is fit to measure on: mnas devices check NAME\n")
    file = tmp_path / "devices.toml"
    file.write_text('[pi]\nkind = "ssh"\naddress = ["pi@one", "pi@two"]\nthreads = 4\n')
    shown = printed(capsys, "devices", "list", "--devices", file)
    row = next(line for line in shown.splitlines() if "pi@one" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["pi", "ssh", "pi@one", "litert", "auto", "4", "1"]
    assert "pi@two" in shown
    assert f"devices file: {file}\n" in shown
    assert shown.endswith(f": mnas devices check NAME --devices {file}\n")


def test_a_search_checks_the_devices_before_it_reads_the_images(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = complaint(capsys, "search", "--data", "no-such-folder", "--devices", "pixel")
    assert line == ("mnas: devices file pixel cannot be read: No such file or directory; did you mean --device pixel?")
    assert "--device must be one of host, but got 'pixle'" in complaint(
        capsys, "search", "--data", "no-such-folder", "--device", "pixle"
    )


def test_check_describes_this_machine_and_calibrate_measures_its_session_error(tmp_path, capsys):
    shown = printed(capsys, "devices", "check", "host")
    assert "runtime" in shown
    assert "LiteRT 2." in shown
    assert "not measured yet (run mnas devices calibrate host)" in shown
    assert "nothing disturbs measurements" in shown or "disturbances and remedies:" in shown
    shown = printed(capsys, "devices", "calibrate", "host", "--sessions", 3, "--budget-s", 0.1, "--input-size", 32)
    rows = [line for line in shown.splitlines() if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows] == ["1", "2", "3"]
    (path,) = (tmp_path / "state" / "mnas" / "devices").iterdir()
    assert f"saved to {path}" in shown
    kept = json.loads(path.read_text())
    assert (kept["sessions"], kept["input_size"], kept["runtime"]) == (3, 32, "litert")
    unit = host_unit()
    assert session_error_of(path.parent, unit.fingerprint(Setup()), Setup()) == kept["session_error"] >= 0.002
    unit.close()
    assert "% between 3 sessions" in printed(capsys, "devices", "check", "host")


def test_check_of_a_phone_prints_its_cores_battery_and_temperature(tmp_path, capsys):
    pytest.importorskip("adbutils")
    file = tmp_path / "devices.toml"
    program = write_program(tmp_path)
    (tmp_path / "server").mkdir()
    with run_phones(tmp_path / "server") as phones:
        phone = make_phone(tmp_path / "phone")
        phones.plug_in(FAKE0001=phone)
        entry = f'kind = "adb"\nbenchmark_model = "{program}"\nadb_server = "{phones.address}"\n'
        file.write_text(f'[pixel]\n{entry}address = "FAKE0001"\n[two]\n{entry}address = ["FAKE0001", "GONE"]\n')
        shown = printed(capsys, "devices", "check", "pixel", "--devices", file)
        assert shown.startswith("pixel: adb FAKE0001\n")
        for word in ("model", "SoC", "clocks", "MHz", "governor", "temperature", "battery", "pinned to", "core 7"):
            assert word in shown
        shown = printed(capsys, "devices", "check", "two", "--devices", file)
        assert "two/0: adb FAKE0001" in shown
        assert "not usable: two/1: " in shown
        phones.plug_in()
        assert "no unit of two is usable: two/0: " in complaint(capsys, "devices", "check", "two", "--devices", file)
        assert "pixel: " in complaint(capsys, "devices", "check", "pixel", "--devices", file)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["check", "pixle"], "NAME must be one of host, but got 'pixle'"),
        (["calibrate", "pixle"], "NAME must be one of host, but got 'pixle'"),
        (["list", "--devices", "none.toml"], "devices file none.toml cannot be read: No such file or directory"),
        (["calibrate", "host", "--sessions", "2"], "--sessions must be at least 3, but got 2"),
        (["calibrate", "host", "--budget-s", "0"], "--budget-s must be finite and greater than 0, but got 0.0"),
        (["calibrate", "host", "--input-size", "0"], "--input-size must be an integer from 32 to 8192, but got 0"),
        (["chekc", "host"], "command must be one of devices list, devices check, devices calibrate"),
    ],
)
def test_mistakes_get_one_line(capsys, arguments, line):
    assert line in complaint(capsys, "devices", *arguments)
