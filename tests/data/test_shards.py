"""Tar shards are written, found by folder, pattern and URL, and read in lanes; timm reads the same files."""

import functools
import http.server
import io
import itertools
import json
import multiprocessing
import os
import shutil
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnas.data.augment import generator_of
from mnas.data.augmentation import Augmentation
from mnas.data.batches import Batches
from mnas.data.named import imagenet_folder
from mnas.data.shards.batches import ShardBatches, lane_count, write_shards
from mnas.data.shards.index import is_shards, read_index
from tests.data.test_load import make_folder


def opened(data: Path | str, cache: Path, **changed: object) -> ShardBatches:
    options: dict[str, object] = {
        "input_size": 8, "seed": 0, "crop": 1.0, "augmentation": Augmentation(), "workers": 0, "cache_dir": cache,
    }  # fmt: skip
    return ShardBatches(str(data), **(options | changed))  # type: ignore[arg-type]


def levels(batches: Batches, epoch: int = 0, batch_size: int = 8, **options: int) -> list[list[int]]:
    return [images[:, 0, 0, 0].tolist() for images, _ in batches.training(epoch, batch_size, **options)]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Make 5 + 1 shards of 2 x 25 and 2 x 5 images, each with its own gray level."""
    write_shards(make_folder(tmp_path / "gray", {"train": 25, "val": 5}), tmp_path / "shards", 10)
    return tmp_path / "shards"


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as file:
        return {member.name: file.extractfile(member).read() for member in file}  # type: ignore[union-attr]


def rewrite(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


# Writing


def test_shards_hold_the_files_as_they_are(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "gray", {"train": 7, "val": 2, "test": 1})
    written = write_shards(folder, tmp_path / "shards", 5)
    assert {part: [path.name for path in paths] for part, paths in written.items()} == {
        "train": ["train-000000.tar", "train-000001.tar", "train-000002.tar"],
        "val": ["val-000000.tar"],
        "test": ["test-000000.tar"],
    }
    found = {}
    for path in written["train"]:
        files = members(path)
        names = list(files)
        for image, label in zip(names[::2], names[1::2], strict=True):
            assert image.removesuffix(".png") == label.removesuffix(".cls")
            found[files[image]] = int(files[label])
    expected = {path.read_bytes(): int(path.parent.name == "dog") for path in folder.glob("train/*/*.png")}
    assert found == expected
    assert len(expected) == 14
    again = write_shards(folder, tmp_path / "again", 5)
    assert [path.read_bytes() for path in again["train"]] == [path.read_bytes() for path in written["train"]]
    assert (tmp_path / "shards" / "classes.txt").read_text() == "cat\ndog\n"
    info = json.loads((tmp_path / "shards" / "_info.json").read_text())
    assert info["splits"]["train"] == {
        "name": "train", "filenames": [path.name for path in written["train"]], "shard_lengths": [5, 5, 4],
        "num_samples": 14,
    }  # fmt: skip


def test_imagenet_is_written_with_its_fixed_validation_part(tmp_path: Path) -> None:
    source = imagenet_folder(make_folder(tmp_path / "ilsvrc", {"train": 10, "val": 3}))
    write_shards(source, tmp_path / "shards")
    assert opened(tmp_path / "shards", tmp_path).counts == {"train": 16, "val": 4, "test": 6}


def test_nothing_is_overwritten(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the folder for shards must be new or empty"):
        write_shards(tmp_path / "gray", shards)
    with pytest.raises(ValueError, match="images_per_shard must be 1 or more, but got 0"):
        write_shards(tmp_path / "gray", tmp_path / "new", 0)


def test_timm_reads_our_shards(shards: Path) -> None:
    from timm.data import create_dataset

    dataset = create_dataset("wds/gray", root=str(shards), split="train", batch_size=1)
    assert len(dataset) == 50
    seen = {(np.asarray(image)[0, 0, 0], target) for image, target in dataset}
    assert seen == {(level, level // 25) for level in range(50)}


# Finding


def test_folder_and_patterns_name_the_same_shards(shards: Path, tmp_path: Path) -> None:
    expected = read_index(str(shards))
    assert expected.classes == ("cat", "dog")
    assert {part: [shard.images for shard in found] for part, found in expected.parts.items()} == {
        "train": [10] * 5, "val": [10]
    }  # fmt: skip
    patterns = [
        f"{shards}/train-{{000000..000004}}.tar::{shards}/val-000000.tar",
        f"{shards}/{{train-{{000000..000004}},val-000000}}.tar",
        f"file://{shards}/{{train-{{000000..000004}},val-000000}}.tar",
    ]
    for pattern in patterns:
        assert is_shards(pattern)
        assert read_index(pattern).fingerprint == expected.fingerprint
    batches, typed = opened(shards, tmp_path), opened(patterns[2], tmp_path)
    assert levels(typed) == levels(batches)
    assert not is_shards(str(tmp_path / "gray"))
    assert not is_shards("cifar10")
    # counted without an index, and named as by other tools
    (shards / "_info.json").unlink()
    assert read_index(str(shards)).fingerprint == expected.fingerprint
    (shards / "val-000000.tar").rename(shards / "gray-validation-0.tar")
    assert [shard.images for shard in read_index(str(shards)).parts["val"]] == [10]


@pytest.fixture
def server(shards: Path) -> Iterator[str]:
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *args: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(shards))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.skipif(shutil.which("curl") is None, reason="webdataset opens URLs with curl")
def test_shards_of_a_url(shards: Path, server: str, tmp_path: Path) -> None:
    batches = opened(f"{server}/{{train-{{000000..000004}},val-000000}}.tar", tmp_path, workers=2)
    assert batches.fingerprint == read_index(str(shards)).fingerprint
    assert levels(batches) == levels(opened(shards, tmp_path))
    (shards / "_info.json").rename(tmp_path / "lengths.json")
    url = f"{server}/train-{{000000..000004}}.tar::{server}/val-000000.tar"
    with pytest.raises(ValueError, match=r"shards at a URL must come with _info\.json"):
        read_index(url)
    assert read_index(f"{url}::{tmp_path}/lengths.json").fingerprint == batches.fingerprint


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"cat\n\ndog\n", "'' in .* \\(it is blank"),
        ("cat\na\u2028b\n".encode(), "it has a line break"),
        (b"cat\ndo\0g\n", "it has a control character"),
        (b"cat\ncaf\xe9\n", "it is not UTF-8"),
        (b"cat\ncat \n", "the same name"),
    ],
)
def test_names_that_cannot_be_shipped_are_refused(shards: Path, tmp_path: Path, content: bytes, fault: str) -> None:
    (shards / "classes.txt").write_bytes(content)
    with pytest.raises(ValueError, match=fault) as error:
        opened(shards, tmp_path / "cache")
    assert str(error.value).isprintable()


def test_classes_as_other_systems_write_them(shards: Path, tmp_path: Path) -> None:
    (shards / "classes.txt").write_bytes(b"\xef\xbb\xbfcat \r\ndog\r\n\r\n")
    assert opened(shards, tmp_path / "cache").classes == ("cat", "dog")


def test_labels_in_json_and_classes_elsewhere(shards: Path, tmp_path: Path) -> None:
    for path in shards.glob("*.tar"):
        files = members(path)
        rewrite(path, {
            name.replace(".cls", ".json"): json.dumps({"label": int(content)}).encode() if ".cls" in name else content
            for name, content in files.items()
        })  # fmt: skip
    (shards / "classes.txt").rename(tmp_path / "names.txt")
    data = f"{shards}/{{train-{{000000..000004}},val-000000}}.tar::{tmp_path}/names.txt"
    ((images, labels),) = opened(data, tmp_path).scoring("val", 10)
    assert labels.tolist() == (images[:, 0, 0, 0] >= 55).long().tolist()


# Reading


@pytest.mark.parametrize(("batch", "shards_there", "lanes"), [(1, 9, 1), (96, 9, 8), (96, 999, 32), (250, 9, 2),
                                                              (4096, 999, 64), (8, 1, 1)])  # fmt: skip
def test_lanes(batch: int, shards_there: int, lanes: int) -> None:
    assert lane_count(batch, shards_there) == lanes


@pytest.mark.parametrize("batch_size", [1, 4, 6, 9])
@pytest.mark.parametrize("buffered", [1, 7, 8192])
def test_every_batch_size_and_buffer_gives_each_image_at_most_once(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int, buffered: int
) -> None:
    monkeypatch.setattr("mnas.data.shards.batches.BUFFERED", buffered)
    batches = opened(shards, tmp_path)
    whole = levels(batches, 0, batch_size)
    seen = [level for step in whole for level in step]
    assert len(seen) == len(set(seen)) == 50 // batch_size * batch_size
    assert levels(batches, 0, batch_size, start=3) == whole[3:]


def test_a_larger_buffer_shuffles_more(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one lane and no buffer, the images of a shard come in its order, one after the other."""

    def steps_that_go_on(buffered: int) -> int:
        monkeypatch.setattr("mnas.data.shards.batches.BUFFERED", buffered)
        (order,) = zip(*levels(opened(shards, tmp_path), 0, 1), strict=True)
        return sum(follower == following[level] for level, follower in itertools.pairwise(order)
                   if level in following)  # fmt: skip

    written = [
        [int(np.asarray(Image.open(io.BytesIO(content)))[0, 0]) for name, content in members(path).items()
         if name.endswith(".png")]
        for path in sorted(shards.glob("train-*.tar"))
    ]  # fmt: skip
    following = {level: after for shard in written for level, after in itertools.pairwise(shard)}
    assert steps_that_go_on(1) == 45
    assert steps_that_go_on(8192) < 10


def test_a_resumed_training_opens_only_what_it_has_yet_to_read(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnas.data.shards.batches.BUFFERED", 5)
    batches = opened(shards, tmp_path)
    whole = levels(batches, 0, 5)
    first = torch.randperm(5, generator=generator_of(0, 0, 0))[0]
    (shards / f"train-{int(first):06d}.tar").unlink()
    assert levels(batches, 0, 5, start=2) == whole[2:]
    with pytest.raises(ValueError, match="a shard must be a complete tar file"):
        levels(batches, 0, 5, start=1)


def test_too_many_processes_for_the_shards(shards: Path, tmp_path: Path) -> None:
    batches = opened(shards, tmp_path)
    with pytest.raises(
        ValueError, match=r"the processes must share 4 lanes equally .* but got 8 processes; write more"
    ):
        batches.training(0, 8, rank=0, world=8)


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_replaced_left_out_named_and_limited(tmp_path: Path, workers: int) -> None:
    folder = make_folder(tmp_path / "gray", {"train": 90, "val": 30})
    for name in ("train/cat/7.png", "val/dog/3.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:40])
    write_shards(folder, tmp_path / "shards", 20)
    batches = opened(tmp_path / "shards", tmp_path / "cache", workers=workers)
    steps = levels(batches, 0, 20)
    assert [len(step) for step in steps] == [20] * 9
    seen = {level for step in steps for level in step}
    assert 7 not in seen
    assert len(seen) == 179
    assert sum(len(labels) for _, labels in batches.scoring("val", 20)) == 59
    assert len(batches.skipped) == 2
    assert all(".tar: 0000" in name for name in batches.skipped)
    shard = tmp_path / "shards" / "train-000003.tar"
    rewrite(shard, {name: b"x" if name.endswith("png") else content for name, content in members(shard).items()})
    with pytest.raises(ValueError, match=r"at most 1 % of the images") as error:
        levels(batches, 0, 20)
    assert "\n" not in str(error.value)
    assert multiprocessing.active_children() == []  # they ended immediately


# Mistakes


def message(data: Path | str, cache: Path, workers: int = 0) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        levels(opened(data, cache, workers=workers))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_shards_have_their_line(shards: Path, tmp_path: Path, workers: int) -> None:
    opened(shards, tmp_path / "cache")  # so that the mistakes appear during training
    path = shards / "train-000003.tar"
    whole, files = path.read_bytes(), members(path)
    path.write_bytes(whole[:3000])
    assert "a shard must be a complete tar file, but got" in message(shards, tmp_path, workers)
    path.write_bytes(b"not a tar file" * 100)
    assert "a shard must be a complete tar file" in message(shards, tmp_path, workers)
    rewrite(path, dict(list(files.items())[:6]))
    assert "as many images as its index lists (10), but " in message(shards, tmp_path, workers)
    rewrite(path, {name: b"7" if name.endswith("cls") else content for name, content in files.items()})
    assert "labels must be from 0 to 1, but got 7 for" in message(shards, tmp_path, workers)
    rewrite(path, {name: b"cat" if name.endswith("cls") else content for name, content in files.items()})
    assert "must have its label in .cls, or as `label` in .json, but got none for" in message(shards, tmp_path, workers)


def test_shards_that_are_not_there_have_their_line(shards: Path, tmp_path: Path) -> None:
    train = f"{shards}/train-{{000000..000004}}.tar"
    assert "shards must have a val part (val-000000.tar), but got train" in message(train, tmp_path)
    assert "(no such file)" in message(f"{train}::{shards}/val-000009.tar", tmp_path)
    (shards / "more.tar").write_bytes(b"")
    assert "a shard's name must contain train, val or test" in message(shards, tmp_path)
    (shards / "more.tar").unlink()
    (shards / "_info.json").write_text("{}")
    assert "_info.json must be JSON of splits with filenames and shard_lengths" in message(shards, tmp_path)
    (shards / "_info.json").unlink()
    (shards / "val-000000.tar").write_bytes(b"nothing")
    assert "a shard must be a tar file, but got" in message(shards, tmp_path)
    rewrite(shards / "val-000000.tar", {"1.cls": b"0"})
    assert "a shard must contain images" in message(shards, tmp_path)
    (shards / "classes.txt").unlink()
    assert "shards must come with a file of at least 2 classes" in message(shards, tmp_path)


@pytest.mark.parametrize("lost", ["train-000002.tar", "train-000004.tar", "val-000000.tar", "train-000000.tar"])
def test_a_missing_shard_of_those_listed_is_named(shards: Path, tmp_path: Path, lost: str) -> None:
    if lost.startswith("val"):  # the part must exist for its gap to be detected
        shutil.copy(shards / lost, shards / "val-000001.tar")
    (shards / lost).unlink()
    assert f"a folder of shards must be complete, but {lost} is missing" in message(shards, tmp_path / "cache")


def test_gaps_in_the_numbers_are_noticed_without_a_list(shards: Path, tmp_path: Path) -> None:
    (shards / "_info.json").unlink()
    for number in (1, 3):
        (shards / f"train-00000{number}.tar").unlink()
    line = message(shards, tmp_path / "cache")
    assert "but train-000001.tar, train-000003.tar are missing (by the numbers of the others)" in line
    found = "::".join(f"{shards}/{name}.tar" for name in ("train-00000{0,2,4}", "val-000000"))
    assert opened(found, tmp_path / "cache").counts["train"] == 30  # the remedy in the message
    for number in (0, 2, 4):
        (shards / f"train-00000{number}.tar").rename(shards / f"train-0000{number // 2}-of-00004.tar")
    assert "but train-00003-of-00004.tar is missing (by the total in the names)" in message(shards, tmp_path / "cache")
    for number in (2, 1, 0):
        (shards / f"train-0000{number}-of-00004.tar").rename(shards / f"train-0000{number + 1}-of-00003.tar")
    assert opened(shards, tmp_path / "cache").counts["train"] == 30  # numbered from 1


def test_without_webdataset_the_extra_is_named(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "webdataset"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ImportError, match=r"pip install 'mnas\[webdataset\]'"):
        opened(f"{shards}/{{train-{{000000..000004}},val-000000}}.tar", tmp_path)


def test_moments_are_cached_while_no_shard_changes(shards: Path, tmp_path: Path) -> None:
    decoded: list[int] = []

    def mean() -> tuple[float, float, float]:
        return opened(shards, tmp_path / "cache", on_progress=lambda done, total: decoded.append(done)).mean

    first = mean()
    calls = len(decoded)
    assert calls > 0
    assert mean() == first
    assert len(decoded) == calls
    for path in shards.glob("train-*.tar"):
        os.truncate(path, 10)
    with pytest.raises(ValueError, match="a shard must be a complete tar file"):
        mean()
