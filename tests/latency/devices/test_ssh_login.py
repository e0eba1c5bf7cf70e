"""Login and host keys: as in OpenSSH, except that an unknown host key is never accepted."""

import contextlib
import getpass
import re
import socket
import subprocess
import sys

import pytest
from sshd import needs_sshd

from mnas.latency.devices import ssh_login
from mnas.latency.devices.ssh import ssh_unit
from mnas.latency.devices.ssh_login import Address, parse_address
from mnas.latency.latency import Setup, UnitError


@pytest.fixture
def fresh_home(home, tmp_path, monkeypatch):
    """Return a copy of the user's `.ssh` that a test may change."""
    subprocess.run(["cp", "-a", home / ".ssh", tmp_path / ".ssh"], check=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".ssh"


def new_key(path, kind="ed25519"):
    path.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def connect(address):
    with contextlib.closing(ssh_unit("pi", address, python=sys.executable)) as unit:
        return unit.fingerprint(Setup())


def refusal(address):
    with pytest.raises(UnitError, match=r"^pi: ") as raised:
        connect(address)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@needs_sshd
def test_an_unknown_host_key_is_rejected_whatever_the_configuration_allows(server, fresh_home):
    (fresh_home / "known_hosts").unlink()
    key = subprocess.run(
        ["ssh-keygen", "-lf", server.folder / "host_key.pub"], check=True, capture_output=True, text=True
    ).stdout.split()[1]
    for configuration in (
        "",
        "StrictHostKeyChecking no\n",
        "UserKnownHostsFile none\nStrictHostKeyChecking no\n",
        "UserKnownHostsFile /dev/null\n",
    ):
        (fresh_home / "config").write_text(configuration)
        told = refusal(server.address)
        assert f"(ssh-ed25519 {key}) is not in known_hosts" in told
        assert f"`ssh -p {server.port} {getpass.getuser()}@127.0.0.1`" in told
        assert f"`ssh-keyscan -p {server.port} 127.0.0.1 >> ~/.ssh/known_hosts`" in told
    assert server.left() == []


@needs_sshd
def test_the_command_in_the_message_adds_the_host_key(server, fresh_home):
    (fresh_home / "known_hosts").unlink()
    command = refusal(server.address).split("`")[3].replace("~", str(fresh_home.parent))
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert connect(server.address)["os"] == "Linux"


@needs_sshd
def test_a_host_key_that_differs_from_known_hosts_is_rejected(server, fresh_home, tmp_path):
    other = new_key(tmp_path / "other")
    (fresh_home / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {other}\n")
    told = refusal(server.address)
    assert re.search(r"\(ssh-ed25519 SHA256:\S+\) differs from the one in known_hosts", told)
    assert f"`ssh-keygen -R '[127.0.0.1]:{server.port}'`" in told
    rsa = new_key(tmp_path / "rsa", "rsa")
    (fresh_home / "known_hosts").write_text(
        f"[127.0.0.1]:{server.port} {rsa}\n"
    )  # a kind of key that the server does not have
    assert "differs from the one in known_hosts" in refusal(server.address)
    assert server.left() == []


@needs_sshd
def test_a_rejected_key_gets_a_message_with_the_remedy(server, fresh_home):
    new_key(fresh_home / "id_ed25519")
    told = refusal(server.address)
    assert "rejected all your ssh keys" in told
    assert f"`ssh-copy-id -p {server.port} {getpass.getuser()}@127.0.0.1`" in told
    (fresh_home / "id_ed25519").unlink()
    assert "rejected all your ssh keys" in refusal(server.address)


@needs_sshd
def test_a_key_with_a_passphrase_is_the_agents(server, fresh_home, monkeypatch):
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", fresh_home / "agent"], stdout=subprocess.PIPE)
    try:
        assert agent.stdout.readline()  # the agent listens
        monkeypatch.setenv("SSH_AUTH_SOCK", str(fresh_home / "agent"))
        subprocess.run(
            ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", fresh_home / "id_ed25519"], check=True
        )
        assert "a key with a passphrase must be in ssh-agent" in refusal(server.address)
        subprocess.run(["ssh-add", "-q", server.home / ".ssh" / "id_ed25519"], check=True)
        assert connect(server.address)["os"] == "Linux"
    finally:
        agent.kill()
        agent.communicate()


@needs_sshd
def test_the_ssh_configuration_gives_user_host_and_key(server, fresh_home):
    (fresh_home / "id_ed25519").rename(fresh_home / "elsewhere")
    (fresh_home / "known_hosts").rename(fresh_home / "boards")
    (fresh_home / "config").write_text(f"""
Host shelf
    HostName 127.0.0.1
    Port {server.port}
    User {getpass.getuser()}
    IdentityFile {fresh_home}/elsewhere
    UserKnownHostsFile {fresh_home}/boards
Host *
    ServerAliveInterval 60
""")
    assert connect("shelf")["os"] == "Linux"
    (fresh_home / "config").write_text("Host *\n    Port many\n")
    assert "Port" in refusal("shelf")


def test_a_board_that_is_not_there_or_silent_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ssh_login, "LOGIN_TIMEOUT_S", 0.5)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"pi@127.0.0.1:{listener.getsockname()[1]}"
        assert "cannot be reached by ssh: " in refusal(address)
        listener.listen()
        assert "cannot be reached by ssh: " in refusal(address)
    assert "cannot be reached by ssh: " in refusal("pi@no-such-board.invalid")


def test_addresses():
    assert parse_address("pi@raspberrypi.local:22") == Address("raspberrypi.local", "pi", 22)
    assert parse_address("shelf") == Address("shelf")
    assert parse_address("pi@[fe80::1%eth0]:2222") == Address("fe80::1%eth0", "pi", 2222)
    for text in ("pi@raspberrypi.local:22", "shelf", "pi@[::1]:2222", "10.0.0.7"):
        assert str(parse_address(text)) == text
    assert parse_address("pi@10.0.0.7:2222").arguments == "-p 2222 pi@10.0.0.7"
    for text in ("", "pi@", "a b", "pi@host:", "host:0", "host:65536", "host:x", "::1", "-oProxyCommand=x", "u@-l"):
        with pytest.raises(ValueError, match="an ssh address must be user@host:port"):
            ssh_unit("pi", text)
