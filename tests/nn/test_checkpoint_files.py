"""Checkpoints in all usual containers, each with the same outputs, and files that are made to do harm."""

import argparse
import datetime
import functools
import io
import os
import pathlib
import pickle
import struct
import subprocess
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mnas.nn.checkpoint import StoredTensor, read_checkpoint
from tests.nn.test_pretrained import load, outputs, tiny


class Settings(dict):
    """A class that does not exist where the file is read, such as Lightning's AttributeDict."""


class Kept:
    def __init__(self) -> None:
        self.value = 3


def prefixed(state, prefix: str):
    return {f"{prefix}{key}": value for key, value in state.items()}


def containers(state) -> dict[str, object]:
    wrong = {key: value + 1 for key, value in state.items()}
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2))])
    optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
    optimizer.step()
    lightning = {
        "epoch": 3, "global_step": 100, "pytorch-lightning_version": "2.1.0",
        "state_dict": prefixed(state, "model.") | {"criterion.weight": torch.ones(3), "metric.total": torch.tensor(4)},
        "loops": {"fit_loop": {"state_dict": {}, "epoch": {"a": np.int64(3)}}}, "callbacks": {"EMA": {"x": Kept()}},
        "optimizer_states": [optimizer.state_dict()], "lr_schedulers": [{"last": np.float64(0.1)}],
        "hparams_name": "kwargs", "hyper_parameters": Settings(lr=np.float32(0.1), path=pathlib.PurePosixPath("/x"),
                                                               act=nn.ReLU, loss=torch.nn.functional.cross_entropy),
    }  # fmt: skip
    return {
        "lightning": lightning,
        "lightning net": {"state_dict": prefixed(state, "net.")},
        "lightning compiled": {"state_dict": prefixed(state, "model._orig_mod.")},
        "two networks": {"state_dict": prefixed(wrong, "model.") | prefixed(state, "ema_model.")},
        "data parallel": prefixed(state, "module."),
        "any prefix": prefixed(state, "classifier_network.inner."),
        "any prefix beside a loss": prefixed(state, "student.inner.") | {"loss.weight": torch.ones(3)},
        "averaged model": prefixed(state, "module.") | {"n_averaged": torch.tensor(3)},
        "averaged in lightning": {"state_dict": prefixed(wrong, "net.") | prefixed(state, "ema_model.module.")},
        "ema": {"model": wrong, "ema": state},
        "ema nested": {"model": wrong, "model_ema": {"module": state, "decay": 0.99}},
        "ema state dict": {"state_dict": wrong, "state_dict_ema": prefixed(state, "module.")},
        "numpy beside": {"model": state, "optimizer": optimizer.state_dict(), "epoch": np.float64(3)},
        "numpy between": {**state, "epoch": np.float64(3), "accuracy": 0.5, "name": "x", "curve": np.ones(3)},
        "one level": {"checkpoint": {"weights": state, "epoch": np.float64(1)}},
        "namespace": {"model": state, "args": argparse.Namespace(lr=0.1, when=datetime.datetime(2024, 1, 1))},
        "classes": {"model": state, "config": Settings(a=Kept()), "set": {1, 2}, "partial": functools.partial(print, 3),
                    "default": defaultdict(list, a=[1]), "array": np.ones((2, 2)), "rng": np.random.default_rng(0),
                    "device": torch.device("cpu"), "dtype": torch.float16, "range": range(3), "function": os.getcwd},
        "settings class": Settings(state_dict=OrderedDict(state)),
        "parameters": {k: nn.Parameter(value) if value.is_floating_point() else value for k, value in state.items()},
    }  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False])
def test_every_container_gives_the_same_network(tmp_path, zipped):
    network = tiny()
    expected = outputs(network)
    for name, content in containers(network.state_dict()).items():
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
        assert torch.equal(outputs(load(tmp_path / "w.pth")), expected), name


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_those_of_torch(tmp_path, zipped):
    base = torch.arange(60, dtype=torch.float32)
    saved = {
        "view": base[7:31].view(4, 6).t(), "step": base[::3], "scalar": torch.tensor(3.5), "empty": torch.zeros(0, 3),
        **{str(dtype): (base * 1.5).to(dtype) for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int8,
                                                           torch.uint8, torch.int64, torch.int32, torch.bool)},
    }  # fmt: skip
    torch.save(saved, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "w.pth")
    assert set(found) == set(saved)
    for key, tensor in saved.items():
        assert isinstance(found[key], StoredTensor)
        read = found[key].tensor()
        assert read.dtype == tensor.dtype
        assert torch.equal(read, tensor), key


def test_several_networks_are_no_guess(tmp_path):
    state = tiny().state_dict()
    wrong = {key: value + 1 for key, value in state.items()}
    torch.save({"teacher": wrong, "student": state}, tmp_path / "w.pth")
    assert "must contain one network, but got several ('teacher', 'student')" in refused(tmp_path / "w.pth")
    torch.save({"teacher": wrong, "student": state, "model": state}, tmp_path / "w.pth")
    assert torch.equal(outputs(load(tmp_path / "w.pth")), outputs(tiny()))
    torch.save({"teacher": wrong, "student": {"epoch": 3}}, tmp_path / "w.pth")
    assert not torch.equal(outputs(load(tmp_path / "w.pth")), outputs(tiny()))


# Harm


def refused(path: Path) -> str:
    with pytest.raises(ValueError, match=r"weights") as caught:
        load(path)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


class Calls:
    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_that_a_file_names_runs(tmp_path, zipped):
    mark = tmp_path / "ran"
    state = tiny().state_dict()
    for call in (
        Calls(os.system, f"touch {mark}"), Calls(eval, f"open({str(mark)!r}, 'w')"), Calls(mark.touch),
        Calls(exec, "1"), Calls(getattr, os, "system"), Calls(map, os.mkdir, [str(mark)]), Calls(open, str(mark), "w"),
    ):  # fmt: skip
        for content in (call, {"state_dict": state, "more": call}, {**state, "more": call}):
            try:
                torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
            except TypeError:  # a module cannot be pickled
                continue
            assert ", which mnas does not run; save the model's state_dict() instead" in refused(tmp_path / "w.pth")
    popen = Calls(subprocess.Popen, ["touch", str(mark)])  # a class is harmless, because no object of it is made
    torch.save({"state_dict": state, "more": popen}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert torch.equal(outputs(load(tmp_path / "w.pth")), outputs(tiny()))
    assert not mark.exists()


def archive(path: Path, pickled: bytes, *, compressed: bool = False, **entries: bytes) -> Path:
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as file:
        file.writestr("w/data.pkl", pickled)
        file.writestr("w/version", b"3\n")
        for name, content in entries.items():
            file.writestr(f"w/data/{name}", content)
    return path


def tensor_pickle(numel: int, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """Return a state dict of one tensor, written by hand."""

    class Writer(pickle._Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", numel) if value is mark else None

    mark = object()
    file = io.BytesIO()
    rebuilt = Calls(torch._utils._rebuild_tensor_v2, mark, offset, shape, stride, False, OrderedDict())
    Writer(file, 2).dump({"stem.conv.weight": rebuilt})
    return file.getvalue()


@pytest.mark.parametrize(
    ("numel", "offset", "shape", "stride"),
    [
        (2**40, 0, (2**40,), (1,)),
        (4, 0, (2**40,), (0,)),
        (4, 0, (2**20, 2**20), (0, 0)),
        (4, 2**61, (1,), (1,)),
        (4, 0, (2,), (2**61,)),
        (4, 1, (4,), (1,)),
        (4, -1, (1,), (1,)),
        (4, 0, (-1,), (1,)),
        (4, 0, (4,), (-1,)),
        (4, 0, (2, 2), (1,)),
        (4, 0, ("a",), (1,)),
        (4, 0, (1,) * 100, (1,) * 100),
    ],
)
def test_tensors_larger_than_their_file(tmp_path, numel, offset, shape, stride):
    pickled = tensor_pickle(numel, offset, shape, stride)
    path = archive(tmp_path / "w.pth", pickled, **{"0": struct.pack("<4f", 1, 2, 3, 4)})
    assert "damaged" in refused(path)


def test_a_bomb_is_not_unpacked(tmp_path):
    path = archive(tmp_path / "w.pth", tensor_pickle(4, 0, (4,), (1,)), compressed=True, **{"0": bytes(50_000_000)})
    assert path.stat().st_size < 100_000
    assert "damaged" in refused(path)


LAUGHS = b"\x80\x02)" + b"q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(100))


@pytest.mark.parametrize(
    "pickled",
    [
        LAUGHS + b"}h\x64K\x01s.",  # a key whose hash would take 2^100 steps
        LAUGHS + b"(h\x64\x91.",  # a set that contains it
        b"\x80\x02(" + b"(l" * 100_000 + b".",
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",  # 100,000 nested lists
        b"\x80\x02]r\xff\xff\xff\x7f.",  # memo number 2^31
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",  # a bytearray of a terabyte
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"x.",
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
        b"L" + b"9" * 100_000 + b"L\n.",
        b"\x82\x01.",
        b"(i__main__\nTests\n.",
        b"\x80\x02}q\x00U\x05modelh\x00s.",  # a mapping that contains itself
        b"\x80\x02}q\x00(U\x05modelh\x00U\x05statedh\x00U\x01aK\x01u.",
    ],
)
def test_pickles_that_are_made_to_hang(tmp_path, pickled):
    (tmp_path / "plain.pth").write_bytes(pickled)
    for path in (tmp_path / "plain.pth", archive(tmp_path / "w.pth", pickled)):
        assert "weights file" in refused(path)


def test_a_cyclic_state_dict(tmp_path):
    network = tiny()
    saved: dict[str, object] = {"state_dict": network.state_dict()}
    saved["self"] = saved
    saved["model"] = saved
    torch.save(saved, tmp_path / "w.pth")
    assert torch.equal(outputs(load(tmp_path / "w.pth")), outputs(network))
    alone: dict[str, object] = {}
    alone["state_dict"] = alone
    torch.save(alone, tmp_path / "w.pth")
    assert "must contain a state dict of tensors only, but got state_dict" in refused(tmp_path / "w.pth")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "w.pth")
    assert ", which is not a regular file" in refused(tmp_path / "w.pth")


def test_changed_bytes_give_weights_or_one_line(tmp_path):
    draws = np.random.default_rng(0)
    files = []
    for zipped in (True, False):
        torch.save({"model": tiny().state_dict()}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
        files.append((tmp_path / "w.pth").read_bytes())
    for turn in range(60):
        damaged = bytearray(files[turn % 2])
        for place in draws.integers(0, len(damaged), draws.integers(1, 20)):
            damaged[place] = draws.integers(256)
        (tmp_path / "w.pth").write_bytes(damaged)
        try:
            load(tmp_path / "w.pth")
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017
