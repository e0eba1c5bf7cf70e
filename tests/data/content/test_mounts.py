"""Mounts in Linux's format: local ones, and the layers of an overlay."""

import sys
from pathlib import Path

import pytest

from mnas.data.content import mounts
from mnas.data.content.mounts import Mount, is_local, layers_of, read_mounts, stat_tells_change

MOUNTINFO = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
31 27 0:30 / /home rw,relatime shared:5 master:2 - nfs4 server:/home rw,vers=4.2,addr=10.0.0.1
32 27 0:31 / /media/a\\040b rw - fuse.sshfs me@host:/ rw,user_id=0
33 27 0:32 / /smb rw - cifs //server/share rw
34 27 0:33 / /vm rw - virtiofs tag rw
35 27 0:34 / /nine rw - 9p share rw,trans=virtio
36 27 0:35 / /stick rw - vfat /dev/sdb1 rw
37 27 0:36 / /drive rw - fuseblk /dev/sdc1 rw
40 27 0:40 / /far rw - overlay overlay rw,lowerdir=LOWER\\072two,upperdir=/nowhere/up,workdir=/nowhere/work
41 27 0:41 / /near rw - overlay overlay rw,lowerdir=/nowhere/one:/nowhere/two,upperdir=/nowhere/up
42 27 0:42 / /odd rw - cephfs-of-the-future x rw
"""


def test_lines_are_read_with_and_without_optional_fields() -> None:
    found = read_mounts(MOUNTINFO)
    assert found[27] == Mount("ext4", "rw,discard")
    assert found[31].kind == "nfs4"
    assert len(found) == 12


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists its mounts so")
def test_only_known_local_file_systems_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_mounts(MOUNTINFO)
    trusted = {}
    for number in (*found, 99):
        monkeypatch.setattr(mounts, "_mount_number", lambda path, number=number: number)
        trusted[number] = is_local("/any", found)
    assert {number for number, local in trusted.items() if local} == {
        27,
        40,
        41,
    }  # overlays whose layers are not visible here


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists its mounts so")
def test_an_overlay_over_a_network_is_none_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lower = tmp_path / "a,b:c"
    lower.mkdir()
    escaped = str(lower).replace(",", "\\,").replace(":", "\\:").replace("\\", "\\134")
    found = read_mounts(MOUNTINFO.replace("LOWER\\072two", escaped))
    assert layers_of(found[40]) == [str(lower), "/nowhere/up"]
    for below, local in ((31, False), (27, True), (40, False)):  # mount 40 is an overlay over itself
        monkeypatch.setattr(mounts, "_mount_number", lambda path, below=below: below if path == str(lower) else 40)
        assert is_local("/any", found) is local


@pytest.mark.parametrize("content", ["", "1 2 3\n", "x - ext4 y z\n", "27 - ext4\n"])
def test_what_cannot_be_told_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    (tmp_path / "mountinfo").write_text(content)
    monkeypatch.setattr(mounts, "Path", lambda path: tmp_path / "mountinfo" if "mountinfo" in path else Path(path))
    assert stat_tells_change(str(tmp_path)) is False


def test_other_systems_do_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts.sys, "platform", "darwin")
    assert stat_tells_change(str(tmp_path)) is False
