"""Folders of the user's files: the XDG variable if it is set, else the platform's own location."""

import os
import sys
from pathlib import Path


def user_cache_dir() -> Path:
    """Return the folder of files that mnas can recreate: XDG_CACHE_HOME/mnas."""
    return _folder("XDG_CACHE_HOME", linux=".cache", mac="Caches", windows="LOCALAPPDATA")


def user_config_dir() -> Path:
    """Return the folder of files that the user writes, such as devices.toml: XDG_CONFIG_HOME/mnas."""
    return _folder("XDG_CONFIG_HOME", linux=".config", mac="Application Support", windows="APPDATA")


def user_state_dir() -> Path:
    """Return the folder of persistent state, such as leases and the repeatability of devices: XDG_STATE_HOME/mnas."""
    return _folder("XDG_STATE_HOME", linux=".local/state", mac="Application Support", windows="LOCALAPPDATA")


def _folder(variable: str, *, linux: str, mac: str, windows: str) -> Path:
    if os.environ.get(variable):
        return Path(os.environ[variable]) / "mnas"
    if sys.platform == "darwin":
        return Path.home() / "Library" / mac / "mnas"
    if sys.platform == "win32":
        return Path(os.environ.get(windows, str(Path.home()))) / "mnas"
    return Path.home() / linux / "mnas"
