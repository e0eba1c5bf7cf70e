"""The devices of a user: a table for each in `devices.toml`, and this machine, which is always available as `host`.

[pixel]
kind = "adb"
address = "28291FDH200ABC"                          # as `adb devices` prints it

[pi]
kind = "ssh"
address = ["pi@shelf-1.local", "pi@shelf-2.local"]  # two of one model, used in parallel
threads = 1
"""

import difflib
import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mnas.folders import user_config_dir
from mnas.latency.devices.kinds import KINDS, DeviceKind, auto_or_integer
from mnas.latency.latency import Setup
from mnas.latency.unit import Unit
from mnas.readers import read_toml
from mnas.require import require_choice

COMMON_KEYS = ("kind", "runtime", "core", "threads", "batch")
"""Keys of every device."""
CORE = auto_or_integer(0)


@dataclass(frozen=True, kw_only=True)
class DeviceEntry:
    """A user's entry for a device; raises ValueError where a field is out of its range."""

    name: str
    """Name of the device in commands."""
    kind: str
    """Name of the kind in `mnas.latency.devices.kinds.KINDS`."""
    address: tuple[str, ...] = ()
    """Address of each unit: serials for adb, [USER@]HOST[:PORT] for ssh, none for this machine."""
    runtime: str = "litert"
    """Runtime of the models on the device."""
    core: int | Literal["auto"] = "auto"
    """Core that measures; auto: the one with the highest clock."""
    threads: int = 1
    """Threads of the runtime; several are not pinned."""
    batch: int = 1
    """Images of one inference."""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Keys that only this kind has; defaults are filled in."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(
                f"a device's name must consist of letters, digits, '.', '_' and '-', but got {self.name!r}"
            )
        require_choice("kind", self.kind, tuple(KINDS))
        for name in self.options:
            _require_key(name, self.kind)
        self._check_address()
        if not CORE.holds(self.core):
            raise ValueError(f"core must be {CORE.rule}, but got {self.core!r}")
        self.setup  # noqa: B018 (checks runtime, threads and batch)
        if self.runtime not in self.of_kind.runtimes:
            names = ", ".join(self.of_kind.runtimes)
            raise ValueError(
                f"runtime of a device of kind {self.kind} must be one of {names}, but got {self.runtime!r}"
            )
        for name, value in self.options.items():
            if not self.of_kind.keys[name].holds(value):
                raise ValueError(f"{name} must be {self.of_kind.keys[name].rule}, but got {value!r}")
        defaults = {name: key.default for name, key in self.of_kind.keys.items()}
        object.__setattr__(self, "options", {**defaults, **self.options})

    @property
    def of_kind(self) -> DeviceKind:
        """Properties of the device's kind."""
        return KINDS[self.kind]

    @property
    def setup(self) -> Setup:
        """Settings for running models on the device."""
        return Setup(runtime=self.runtime, threads=self.threads, batch=self.batch)

    def _check_address(self) -> None:
        if not all(isinstance(address, str) for address in self.address):
            raise ValueError(f"address must be a string, or a list of strings, but got {list(self.address)}")
        if self.of_kind.local == bool(self.address) or not all(self.address):
            rule = "have no address" if self.of_kind.local else "have an address, or a list of them"
            raise ValueError(f"a device of kind {self.kind} must {rule}, but got {list(self.address) or 'none'}")
        if twice := sorted({a for a in self.address if self.address.count(a) > 1}):
            raise ValueError(f"the addresses of a device must differ, but got {twice[0]!r} twice")


def devices_file() -> Path:
    """Return the path of the user's file of devices."""
    return user_config_dir() / "devices.toml"


def read_devices(file: Path | Literal["auto"] = "auto") -> dict[str, DeviceEntry]:
    """Return the devices in `file` by name, always with `host`; auto: in `devices_file()`, which may be missing.

    Raises:
        ValueError: the file cannot be read, or an entry is invalid; one line with file, entry and allowed keys.
    """
    path = _path(file)
    host = DeviceEntry(name="host", kind="host")
    if file == "auto" and not path.exists():
        return {"host": host}
    try:
        tables = read_toml(path)
    except OSError as error:
        raise ValueError(f"devices file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # includes TOML's and UTF-8's errors
        raise ValueError(f"devices file {path} must be valid TOML: {error}") from None
    return {"host": host, **{name: _entry(path, name, table) for name, table in tables.items()}}


def find_device(name: str, file: Path | Literal["auto"] = "auto", *, option: str = "--device") -> DeviceEntry:
    """Return the device called `name`, the value of `option`.

    Raises:
        ValueError: the name is unknown, or the file is invalid as in `read_devices`.
    """
    path = _path(file)
    try:
        devices = read_devices(file)
    except ValueError as error:
        if option == "--device" and file != "auto" and str(file) == file.stem and not file.exists():
            raise ValueError(f"{error}; did you mean --device {file}?") from None
        raise
    if name not in devices:
        raise ValueError(
            f"{option} must be one of {', '.join(devices)}, but got {name!r}; describe other devices in {path}"
        )
    return devices[name]


def open_units(entry: DeviceEntry, say: Callable[[str], None]) -> list[Unit]:
    """Return the units of a device, one for each address; each connects on first use.

    Units call `say` when they wait, in the thread that uses them.

    Raises:
        ImportError: the extra for this kind of device is not installed.
        ValueError: the entry names something that this machine does not have.
    """
    kind = entry.of_kind
    if kind.package and importlib.util.find_spec(kind.package) is None:
        raise ImportError(f"devices of kind {entry.kind} need {kind.package}: pip install 'mnas[{kind.extra}]'")
    module, function = kind.opener.split(":")
    opener: Callable[..., Unit] = getattr(importlib.import_module(module), function)
    return [opener(name, address, core=entry.core, say=say, **entry.options) for name, address in unit_addresses(entry)]


def unit_addresses(entry: DeviceEntry) -> list[tuple[str, str]]:
    """Return (name, address) of the device's units: its own name, or name/0, name/1, ... where there are several."""
    if len(entry.address) <= 1:
        return [(entry.name, "".join(entry.address))]
    return [(f"{entry.name}/{i}", address) for i, address in enumerate(entry.address)]


def _path(file: Path | Literal["auto"]) -> Path:
    return devices_file() if file == "auto" else file


def _entry(path: Path, name: str, table: object) -> DeviceEntry:
    where = f"{path}, [{name}]"
    if not isinstance(table, dict):
        if name in _all_keys():
            raise ValueError(
                f"{path}: the key {name} must belong to a device; write the device's name above its keys, as in [pixel]"
            )
        raise ValueError(f"{path}: a device must be a table with a kind, as in [{name}], but got {name} = {table!r}")
    if "kind" not in table:
        if misspelt := difflib.get_close_matches("kind", [key for key in table if key not in _all_keys()], n=1):
            raise ValueError(f"{where}: unknown key {misspelt[0]!r}; did you mean kind?")
        raise ValueError(f"{where}: kind must be one of {', '.join(KINDS)}, but is missing")
    try:
        require_choice("kind", table["kind"], tuple(KINDS))
        return DeviceEntry(name=name, **_fields(table))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _fields(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an entry from its table. Raises ValueError for an address of another type."""
    fields = {key: value for key, value in table.items() if key in COMMON_KEYS}
    options = {key: value for key, value in table.items() if key not in COMMON_KEYS}
    if KINDS[table["kind"]].local or "address" not in options:
        return {**fields, "options": options}
    address = options.pop("address")
    if not isinstance(address, str | list) or address == []:
        raise ValueError(f"address must be a string, or a list of strings, but got {address!r}")
    return {**fields, "options": options, "address": (address,) if isinstance(address, str) else tuple(address)}


def _require_key(name: str, kind: str) -> None:
    """Raise ValueError unless devices of `kind` have the key `name`."""
    keys = _keys(KINDS[kind])
    if name not in keys:
        close = difflib.get_close_matches(name, keys, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the keys of a device of kind {kind} are {', '.join(keys)}"
        raise ValueError(f"unknown key {name!r}; {hint}")


def _all_keys() -> set[str]:
    return {key for kind in KINDS.values() for key in _keys(kind)}


def _keys(kind: DeviceKind) -> tuple[str, ...]:
    return (*COMMON_KEYS, *(() if kind.local else ("address",)), *kind.keys)
