"""Determine whether a file system shows every change of a file in its stat.

On a local one the kernel itself sets the time of change (ctime), and no program can set it back. Network file systems
and FUSE report the times of a server or a program, partly from caches, and FAT has no such time at all.
"""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOCAL = frozenset({
    "bcachefs", "btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "iso9660", "jfs", "nilfs2", "overlay", "ramfs",
    "reiserfs", "rootfs", "squashfs", "tmpfs", "udf", "xfs", "zfs",
})  # fmt: skip
"""Allow-list of file systems that keep ctime and inodes; no other is trusted."""
_LAYER = re.compile(r"(?:^|,)(?:lowerdir\+?|datadir\+?|upperdir)=((?:[^,\\]|\\.)*)")
_DEEPEST = 4  # layers that are overlays themselves


@dataclass(frozen=True)
class Mount:
    """A line of /proc/self/mountinfo."""

    kind: str
    """ext4, nfs4, fuse.sshfs, ..."""
    options: str
    """Options of the file system itself; those of an overlay name its layers."""


def stat_tells_change(path: str) -> bool:
    """Return whether a change of the file always shows in its stat; False if that cannot be determined.

    Only Linux reports the mount of a file.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        return is_local(path, read_mounts(Path("/proc/self/mountinfo").read_text(errors="surrogateescape")))
    except (OSError, ValueError, IndexError):
        return False


def read_mounts(mountinfo: str) -> dict[int, Mount]:
    """Return the mounts of /proc/self/mountinfo by their number. Raises ValueError or IndexError for another format."""
    mounts = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        mounts[int(before.split(" ", 1)[0])] = Mount(kind, options)
    return mounts


def is_local(path: str, mounts: Mapping[int, Mount], depth: int = 0) -> bool:
    """Return whether the path lies on a local file system, and all layers of an overlay that are visible here do.

    Raises OSError, ValueError or IndexError if the kernel does not report the mount.
    """
    mount = mounts.get(_mount_number(path))
    if mount is None or mount.kind not in LOCAL:
        return False
    if mount.kind != "overlay":
        return True
    layers = [layer for layer in layers_of(mount) if os.path.isdir(layer)]  # others belong to another namespace
    return depth < _DEEPEST and all(is_local(layer, mounts, depth + 1) for layer in layers)


def layers_of(mount: Mount) -> list[str]:
    """Return the folders that an overlay lies over."""
    options = re.sub(r"\\(0[0-7]{2}|1[0-7]{2})", lambda code: chr(int(code[1], 8)), mount.options)
    groups = [re.split(r"(?<!\\):", names) for names in _LAYER.findall(options)]
    return [re.sub(r"\\(.)", r"\1", name) for names in groups for name in names if name]


def _mount_number(path: str) -> int:
    """Return the number of the mount that holds the file (not a link to it): exact, where prefixes of paths are not."""
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        lines = Path(f"/proc/self/fdinfo/{handle}").read_text().splitlines()
    finally:
        os.close(handle)
    (number,) = (line.split(":")[1] for line in lines if line.startswith("mnt_id:"))
    return int(number)
