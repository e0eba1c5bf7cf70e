"""devices.toml: valid entries, and a message of one line for every invalid one."""

import sys
import tomllib
from pathlib import Path

import pytest

from mnas.latency.devices.kinds import KINDS
from mnas.latency.devices.registry import (
    DeviceEntry,
    devices_file,
    find_device,
    open_units,
    read_devices,
    unit_addresses,
)
from mnas.latency.latency import Setup
from mnas.latency.onboard.script import RUNTIMES

GOOD = """
[pixel]
kind = "adb"
address = "28291FDH200ABC"
benchmark_model = "/opt/benchmark_model"
adb_server = "127.0.0.1:5037"
max_mhz = 2400

[pis]
kind = "ssh"
address = ["pi@shelf-1", "pi@shelf-2:2222"]
python = "/home/pi/venv/bin/python"
core = 3
batch = 4

[host-4]
kind = "host"
threads = 4
runtime = "onnxruntime"
"""


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "devices.toml"
        path.write_text(text)
        return path

    return write


def test_entries_are_read_with_their_defaults(file):
    devices = read_devices(file(GOOD))
    assert list(devices) == ["host", "pixel", "pis", "host-4"]
    assert devices["host"] == DeviceEntry(name="host", kind="host")
    assert devices["pixel"] == DeviceEntry(
        name="pixel",
        kind="adb",
        address=("28291FDH200ABC",),
        options={"benchmark_model": "/opt/benchmark_model", "adb_server": "127.0.0.1:5037", "max_mhz": 2400},
    )
    assert (devices["pis"].core, devices["pis"].options) == (3, {"python": "/home/pi/venv/bin/python"})
    assert DeviceEntry(name="pi", kind="ssh", address=("pi@shelf",)).options == {"python": "python3"}
    assert unit_addresses(devices["pis"]) == [("pis/0", "pi@shelf-1"), ("pis/1", "pi@shelf-2:2222")]
    assert unit_addresses(devices["pixel"]) == [("pixel", "28291FDH200ABC")]
    assert devices["host-4"].setup == Setup(runtime="onnxruntime", threads=4, batch=1)


def test_the_host_exists_without_a_file_and_can_be_described_in_one(file, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert devices_file() == tmp_path / "config" / "mnas" / "devices.toml"
    assert read_devices() == {"host": DeviceEntry(name="host", kind="host")}
    (tmp_path / "config" / "mnas").mkdir(parents=True)
    devices_file().write_text('[host]\nkind = "host"\nthreads = 2\n')
    assert read_devices()["host"].threads == 2


def test_boards_and_phones_open_as_a_unit_for_each_address_without_connecting(file):
    devices = read_devices(file(GOOD))
    pytest.importorskip("asyncssh")
    assert [unit.name for unit in open_units(devices["pis"], print)] == ["pis/0", "pis/1"]
    pytest.importorskip("adbutils")
    assert [unit.name for unit in open_units(devices["pixel"], print)] == ["pixel"]


def test_the_host_opens_as_one_unit_of_its_name():
    units = open_units(find_device("host"), print)
    assert [unit.name for unit in units] == ["host"]
    assert units[0].fingerprint(Setup())["runtime"].startswith("LiteRT 2.")
    units[0].close()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[pi]\nkind = ", "must be valid TOML: Invalid value"),
        (
            '[pi]\nkind = "ssh"\naddress = "a"\nport = 22',
            "[pi]: unknown key 'port'; the keys of a device of kind ssh are kind, runtime, core, threads, batch, "
            "address, python",
        ),
        (
            '[pi]\nkind = "adb"\naddress = "a"\npython = "p"',
            "[pi]: unknown key 'python'; the keys of a device of kind adb are kind, runtime, .*adb_server",
        ),
        (
            '[host]\nkind = "host"\naddress = "a"',
            "[host]: unknown key 'address'; the keys of a device of kind host are kind, runtime, core, threads, batch",
        ),
        ('[pixel]\nkind = "adb"\naddres = "a"', "[pixel]: unknown key 'addres'; did you mean address?"),
        ('[pixel]\nkind = "adb"\naddress = ""\nmaxmhz = 7', "[pixel]: unknown key 'maxmhz'; did you mean max_mhz?"),
        ('[pixel]\nknd = "adb"\naddress = "a"', "[pixel]: unknown key 'knd'; did you mean kind?"),
        (
            '[pixel]\nkind = "adb"\naddress = "a"\nruntime = "onnxruntime"',
            "[pixel]: runtime of a device of kind adb must be one of litert, litert-builtin, but got 'onnxruntime'",
        ),
        (
            '[pixel]\nkind = "adb"\naddress = "a"\nbenchmark_model = ""',
            "[pixel]: benchmark_model must be a string that is not empty, but got ''",
        ),
        *(
            (
                f'[pixel]\nkind = "adb"\naddress = "a"\nadb_server = {server}',
                '[pixel]: adb_server must be "auto" or HOST:PORT, but got ',
            )
            for server in (
                '"localhost"',
                '"localhost:"',
                '":5037"',
                '"localhost:0"',
                '"localhost:65536"',
                '"h:\u00b2"',
                "5037",
            )
        ),
        (
            'kind = "adb"\naddress = "a"',
            ": the key kind must belong to a device; write the device's name above its keys, as in [pixel]",
        ),
        (
            'max_mhz = 2400\n[pixel]\nkind = "adb"',
            ": the key max_mhz must belong to a device; write the device's name above its keys, as in [pixel]",
        ),
        ('[pi]\nkind = "usb"', "[pi]: kind must be one of host, adb, ssh, but got 'usb'"),
        ("[pi]\nkind = 7", "[pi]: kind must be one of host, adb, ssh, but got 7"),
        ('[pi]\naddress = "a"', "[pi]: kind must be one of host, adb, ssh, but is missing"),
        ('[pi]\nkind = "ssh"', "[pi]: a device of kind ssh must have an address, or a list of them"),
        ('[pi]\nkind = "ssh"\naddress = ""', "[pi]: a device of kind ssh must have an address, or a list of them"),
        ('[pi]\nkind = "ssh"\naddress = []', "[pi]: address must be a string, or a list of strings, but got []"),
        ('[pi]\nkind = "ssh"\naddress = ["a", 1]', "[pi]: address must be a string, or a list of strings"),
        ('[pi]\nkind = "ssh"\naddress = ["a", ""]', "[pi]: a device of kind ssh must have an address"),
        ('[pi]\nkind = "ssh"\naddress = ["a", "b", "a"]', "addresses of a device must differ, but got 'a' twice"),
        ('[pi]\nkind = "host"\nthreads = "2"', "[pi]: threads must be an integer from 1 to 1024, but got '2'"),
        ('[pi]\nkind = "host"\nthreads = true', "[pi]: threads must be an integer from 1 to 1024, but got True"),
        ('[pi]\nkind = "host"\nthreads = 0', "[pi]: threads must be an integer from 1 to 1024, but got 0"),
        ('[pi]\nkind = "host"\ncore = "big"', "[pi]: core must be \"auto\" or an integer of 0 or more, but got 'big'"),
        ('[pi]\nkind = "host"\ncore = -1', '[pi]: core must be "auto" or an integer of 0 or more, but got -1'),
        (
            '[pi]\nkind = "adb"\naddress = "a"\nmax_mhz = 0',
            '[pi]: max_mhz must be "auto" or an integer of 1 or more, but got 0',
        ),
        ('[pi]\nkind = "host"\nruntime = "ncnn"', "[pi]: runtime must be one of litert, .*, but got 'ncnn'"),
        ('["my pi"]\nkind = "host"', "name must consist of letters, digits, '.', '_' and '-', but got 'my pi'"),
        ('pi = "ssh"', "a device must be a table with a kind, as in [pi], but got pi = 'ssh'"),
    ],
)
def test_an_invalid_entry_gets_one_line_with_the_file(file, text, line):
    path = file(text)
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (matched piece by piece below)
        read_devices(path)
    message = str(raised.value)
    assert "\n" not in message
    assert str(path) in message
    for piece in line.split(".*"):
        assert piece in message


def test_a_device_that_is_given_as_the_file_is_recognised(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (compared below)
        find_device("host", Path("pixel"))
    assert str(raised.value) == (
        "devices file pixel cannot be read: No such file or directory; did you mean --device pixel?"
    )
    for name, option in (("none.toml", "--device"), ("lab/pixel", "--device"), ("pixel", "NAME")):
        with pytest.raises(ValueError, match=rf"^devices file {name} cannot be read: No such file or directory$"):
            find_device("host", Path(name), option=option)
    (tmp_path / "pixel").mkdir()
    with pytest.raises(ValueError, match=r"^devices file pixel cannot be read: Is a directory$"):
        find_device("host", Path("pixel"))


def test_phones_have_the_runtimes_of_their_tool():
    pytest.importorskip("adbutils")
    from mnas.latency.devices.adb import XNNPACK

    assert KINDS["adb"].runtimes == tuple(XNNPACK)
    assert KINDS["host"].runtimes == KINDS["ssh"].runtimes == tuple(RUNTIMES)


def test_an_unknown_device_and_a_missing_file_get_one_line(file, tmp_path):
    path = file(GOOD)
    with pytest.raises(
        ValueError,
        match=r"^--device must be one of host, pixel, pis, host-4, but got 'pixle'; describe .* in .*devices.toml",
    ):
        find_device("pixle", path)
    with pytest.raises(ValueError, match=r"devices file .*none.toml cannot be read: No such file"):
        read_devices(tmp_path / "none.toml")
    with pytest.raises(ValueError, match=r"cannot be read: Is a directory"):
        read_devices(tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"must be valid TOML: it is not text in UTF-8"):
        read_devices(path)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.package])
def test_a_kind_without_its_package_names_the_extra_which_pyproject_has(kind, monkeypatch):
    entry = DeviceEntry(name="far", kind=kind, address=("a",))
    extras = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert any(requirement.startswith(KINDS[kind].package) for requirement in extras[KINDS[kind].extra])
    monkeypatch.setitem(sys.modules, KINDS[kind].package, None)
    with pytest.raises(ImportError, match=rf"kind {kind} need \w+: pip install 'mnas\[{KINDS[kind].extra}\]'"):
        open_units(entry, print)
