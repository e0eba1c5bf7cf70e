"""Fixtures for boards over ssh."""

import pytest
from sshd import running_sshd


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A board that listens."""
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def home(server, monkeypatch):
    """The home of a user whom the server knows."""
    monkeypatch.setenv("HOME", str(server.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return server.home
