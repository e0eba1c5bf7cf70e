"""Login on a board as the user's OpenSSH does it: with its configuration, keys, agent and known_hosts.

A host key that is not in known_hosts is rejected, whatever the configuration allows, because numbers from the wrong
machine cost more than adding a key.
"""

import asyncio
import contextlib
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnas.latency.latency import UnitError

if TYPE_CHECKING:
    import asyncssh

LOGIN_TIMEOUT_S = 20.0
"""Limit in seconds for each of reaching the board, agreeing on keys, and logging in; a waking board takes a few."""
KEEPALIVE_S, KEEPALIVES = 3, 3
"""Seconds between keep-alive requests, and the number of unanswered ones after which the board counts as lost."""
CONFIGURATION = ("~/.ssh/config", "/etc/ssh/ssh_config")
KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


@dataclass(frozen=True)
class Address:
    """Address of a board; the ssh configuration supplies a missing user or port."""

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{f'{self.user}@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"

    @property
    def arguments(self) -> str:
        """Return the address as arguments of OpenSSH's programs."""
        return f"{f'-p {self.port} ' if self.port else ''}{f'{self.user}@' if self.user else ''}{self.host}"


def parse_address(text: str) -> Address:
    """Return the parts of `user@host:port`, `host` or `user@[::1]:22`. Raises ValueError."""
    match = re.fullmatch(
        r"(?:([^@\s]+)@)?(?:\[([0-9a-fA-F:.%\w]+)\]|([^@:\s\[\]/-][^@:\s\[\]/]*))(?::(\d{1,5}))?", text
    )
    if not match or not 0 < int(match[4] or 22) < 65536:
        raise ValueError(f"an ssh address must be user@host:port, user@host or host, but got {text!r}")
    return Address(match[2] or match[3], match[1], int(match[4]) if match[4] else None)


async def log_in(address: Address) -> "asyncssh.SSHClientConnection":
    """Return a connection to `address`.

    Raises:
        UnitError: the board is unreachable, its host key is unknown or has changed, or it refuses the user; the
            message gives a remedy.
    """
    import asyncssh

    refused: list[tuple[str, int, str]] = []

    class Client(asyncssh.SSHClient):
        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
            refused.append((host, port, f"{key.get_algorithm()} {key.get_fingerprint()}"))
            return False

    given = {"username": address.user, "port": address.port}
    known_hosts: list[str] = []
    try:
        options = await asyncssh.SSHClientConnectionOptions.construct(
            host=address.host,
            config=_files(CONFIGURATION),
            client_factory=Client,
            connect_timeout=LOGIN_TIMEOUT_S,
            login_timeout=LOGIN_TIMEOUT_S,
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=KEEPALIVES,
            **{name: value for name, value in given.items() if value is not None},
        )
        # an empty option counts as the default files, because asyncssh accepts any host key for `none`
        known_hosts = _files(options.known_hosts if isinstance(options.known_hosts, list) else ()) or _files(
            KNOWN_HOSTS
        )
        with contextlib.suppress(asyncssh.ConnectionLost, asyncssh.KeyExchangeFailed, ConnectionResetError):
            return await asyncssh.connect(address.host, options=options, known_hosts=known_hosts or b"")
        # the host may have no key of a kind in known_hosts; the message then shows the key that it has
        return await asyncssh.connect(
            address.host, options=options, known_hosts=known_hosts or b"", server_host_key_algs="default"
        )
    except asyncssh.PermissionDenied:
        raise UnitError(
            f"{address} rejected all your ssh keys; copy one there with `ssh-copy-id {address.arguments}` "
            "(mnas asks for no passwords, and a key with a passphrase must be in ssh-agent)"
        ) from None
    except asyncssh.HostKeyNotVerifiable as error:
        raise UnitError(_distrust(address, refused, known_hosts, str(error))) from None
    except (asyncssh.Error, OSError, ValueError) as error:
        raise UnitError(f"{address} cannot be reached by ssh: {_reason(error)}") from None


def _distrust(address: Address, refused: list[tuple[str, int, str]], known_hosts: list[str], reason: str) -> str:
    """Return what is wrong with the host's key, and the remedy."""
    import asyncssh

    host, port, key = refused[0] if refused else (address.host, address.port or 22, "")
    name = host if port == 22 else f"[{host}]:{port}"
    try:
        keys = asyncssh.match_known_hosts(known_hosts or b"", host, "", port if port != 22 else None)[0]
    except (OSError, ValueError) as error:
        return f"{address}: known_hosts cannot be read: {_reason(error)}"
    if keys:
        return (
            f"the host key of {address} ({key or reason}) differs from the one in known_hosts, so another machine may "
            f"be intercepting the connection. If the board was reinstalled, run `ssh-keygen -R '{name}'`, then connect "
            f"once by hand: `ssh {address.arguments}`"
        )
    if not refused:
        return f"{address} cannot be reached by ssh: {reason}"
    return (
        f"the host key of {address} ({key}) is not in known_hosts. Compare it with the board's key, then add it: "
        f"connect once by hand (`ssh {address.arguments}`), or run `ssh-keyscan -p {port} {host} >> ~/.ssh/known_hosts`"
    )


def _files(names: Any) -> list[str]:
    """Return the readable files among `names`."""
    paths = [Path(name).expanduser() for name in names]
    return [str(path) for path in paths if path.is_file()]


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return f"no answer within {LOGIN_TIMEOUT_S:.0f} s"
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)  # asyncio's own text repeats the address
    return " ".join(str(error).split()) or type(error).__name__
