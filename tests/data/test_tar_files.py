"""The content of shards is data: no name in a folder or a tar is a command, a URL or a path to write to."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from mnas.data.shards import tar_files
from mnas.data.shards.index import is_shards, read_index
from mnas.data.shards.tar_files import location, names, samples
from tests.data.test_shards import opened


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), level).save(file, "PNG")
    return file.getvalue()


def shard(path: Path, *levels: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for level in levels:
            for name, content in ((f"{level}.png", png(level)), (f"{level}.cls", b"%d" % (level > 5))):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


HOSTILE = [
    "pipe:touch touched; cat train-0.tar",
    "pipe:touch touched #-train-0.tar",
    "train-{0..3}.tar",
    "http:-train-0.tar",
    "a::b-train-0.tar",
    "train-%d $(touch touched) `touch touched`.tar",
    "train-\n0.tar",
    "-o-train-0.tar",
    "train-0.tar;touch touched;.tar",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_is_a_file_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def started(*arguments: object, **options: object) -> None:
        raise AssertionError("a program was started")

    folder = tmp_path / "data"
    shard(folder / "train-0.tar", 1, 9)
    shard(folder / name, 3, 8)
    shard(folder / "val-0.tar", 2, 7)
    (folder / "classes.txt").write_text("dark\nlight\n")
    monkeypatch.chdir(folder)
    for function in ("subprocess.Popen", "os.system", "os.posix_spawn"):
        monkeypatch.setattr(function, started)
    there = sorted(os.listdir(folder))
    for data in (str(folder), "."):
        assert is_shards(data)
        batches = opened(data, tmp_path / "cache")
        seen = sorted(int(i) for images, _ in batches.scoring("train", 4) for i in images[:, 0, 0, 0])
        assert seen == [1, 3, 8, 9]
    assert sorted(os.listdir(folder)) == there


def test_a_name_that_is_typed_and_there_is_no_pattern(tmp_path: Path) -> None:
    shard(tmp_path / "train-{a,b}.tar", 1, 9)
    shard(tmp_path / "val-0.tar", 2, 7)
    (tmp_path / "classes.txt").write_text("dark\nlight\n")
    index = read_index(f"{tmp_path}/train-{{a,b}}.tar::{tmp_path}/val-0.tar")
    assert [Path(found.url).name for found in index.parts["train"]] == ["train-{a,b}.tar"]


@pytest.mark.parametrize(
    ("typed", "way"),
    [
        ("pipe:cat train-0.tar", "mnas runs none"),
        ("PIPE:cat train-0.tar", "mnas runs none"),
        ("gs://bucket/train-0.tar", "use https://storage.googleapis.com/BUCKET"),
        ("hf://datasets/a/b/train-0.tar", r"use https://huggingface\.co/datasets"),
        ("s3://bucket/train-0.tar", r"use https://BUCKET\.s3"),
        ("ais://bucket/train-0.tar", "download them"),
        ("sftp://host/train-0.tar", "download them"),
        ("ftps://host/train-0.tar", "download them"),
        ("scp://host/train-0.tar", "download them"),
        ("htgs://host/train-0.tar", "download them"),
    ],
)
def test_no_command_and_no_program_behind_a_url(typed: str, way: str) -> None:
    with pytest.raises(ValueError, match=f"shards must be files or URLs of http or https.*{way}") as caught:
        read_index(typed)
    assert "\n" not in str(caught.value)


def test_what_may_be_typed() -> None:
    assert location("https://host/train-0.tar") == "https://host/train-0.tar"
    assert location("file:///data/train%200.tar") == "/data/train 0.tar"
    assert location("/data/pipe:x/train-0.tar") == "/data/pipe:x/train-0.tar"
    assert location("C:\\data\\train-0.tar") == "C:\\data\\train-0.tar"


@pytest.mark.parametrize("pattern", ["train-{0..999999999999}.tar", "train-{0..1000}{0..1000}{0..1000}.tar"])
def test_braces_are_bounded(pattern: str) -> None:
    with pytest.raises(ValueError, match="a pattern must name at most 200,000 shards"):
        read_index(pattern)
    with pytest.raises(ValueError, match="must be in pairs"):
        read_index("train-{0..3.tar")


# Files in the tar


def tar_of(*members: tuple[str, bytes, bytes], size: int | None = None) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content)
            info.linkname = "/etc/passwd"
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def test_only_regular_files_count(tmp_path: Path) -> None:
    regular = tarfile.REGTYPE
    (tmp_path / "a.tar").write_bytes(tar_of(
        ("/etc/0.png", regular, b"a"), ("../../1.png", regular, b"b"), ("1.cls", tarfile.SYMTYPE, b""),
        ("2.png", tarfile.LNKTYPE, b""), ("3.png", tarfile.FIFOTYPE, b""), ("4.png", tarfile.CHRTYPE, b""),
        ("5.png", tarfile.DIRTYPE, b""), ("__meta__", regular, b"m"), ("noext", regular, b"n"),
        ("6.cls", regular, b"1"),
    ))  # fmt: skip
    expected = [("/etc/0", {"png": b"a"}), ("../../1", {"png": b"b"}), ("6", {"cls": b"1"})]
    assert list(samples(str(tmp_path / "a.tar"))) == expected
    (tmp_path / "b.tar").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    assert list(samples(str(tmp_path / "b.tar"))) == expected
    assert list(names(str(tmp_path / "b.tar"))) == list(names(str(tmp_path / "a.tar")))
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "b.tar"]


def with_size(content: bytes, field: bytes) -> bytes:
    """Return the tar with another size in its first header, and the matching checksum."""
    head = bytearray(content[:512])
    head[124:136] = field
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + content[512:]


@pytest.mark.parametrize("field", [b"\xff" * 11 + b"\xf0", b"\x80" + b"\0" * 4 + b"\x7f" * 7, b"77777777777\0"])
def test_sizes_that_cannot_be(tmp_path: Path, field: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(with_size(tar_of(("0.png", tarfile.REGTYPE, b"a")), field))
    for read in (samples, names):
        with pytest.raises((ValueError, tarfile.TarError, OSError)):
            list(read(str(path)))


def test_two_files_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(("0.png", tarfile.REGTYPE, b"a"), ("0.PNG", tarfile.REGTYPE, b"b")))
    with pytest.raises(ValueError, match=r"it has two files named '0\.PNG'"):
        list(samples(str(tmp_path / "a.tar")))


def test_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_files, "_FREE_BYTES", 1_000_000)
    bomb = tar_of(*((f"{i}.png", tarfile.REGTYPE, bytes(1_000_000)) for i in range(20)))
    (tmp_path / "a.tar").write_bytes(gzip.compress(bomb))
    for read in (samples, names):
        with pytest.raises(OSError, match="it unpacks to more than 100 times its size"):
            list(read(str(tmp_path / "a.tar")))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train-0.tar")
    for read in (samples, names):
        with pytest.raises(OSError, match="regular file"):
            list(read(str(tmp_path / "train-0.tar")))
