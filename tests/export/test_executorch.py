"""ExecuTorch programs: equal to torch, run entirely by XNNPACK, with a sidecar of metadata."""

import json

import numpy as np
import pytest
import torch

from mnas.cli.main import run
from mnas.export.executorch import executorch_fp32
from mnas.foreign.sidecar import sidecar
from mnas.metadata import metadata_from_json
from tests.cli.test_train_command import ARCH
from tests.export.networks import assert_equal, assert_ships, inputs, network_of, outputs


@pytest.fixture(scope="module", params=["same", pytest.param("symmetric", marks=pytest.mark.slow)])
def exported(request):
    """(network, info, program) with every kind of layer; writing the program takes 20 s."""
    network, info = network_of(request.param)
    return network, info, executorch_fp32(network, info)


def test_every_kind_of_layer(exported):
    from executorch.runtime import Runtime

    network, info, content = exported
    method = Runtime.get().load_program(content).load_method("forward")
    x = inputs(info)
    got = [method.execute((torch.from_numpy(np.ascontiguousarray(i.transpose(2, 0, 1)[None])),))[0] for i in x]
    assert_equal(np.concatenate([g.numpy() for g in got]), outputs(network, x), 1e-4)
    assert metadata_from_json(json.loads(sidecar(info, b""))) == info


def test_it_passes_the_gate(exported, tmp_path):
    """A slow test, since a measuring process imports ExecuTorch for 10 s; test_runtimes.py has another that does."""
    speed_s = 0.01 if exported[1].arch.padding == "symmetric" else 0
    files = ["m.pte", "m.pte.gate.json", "m.pte.json"]
    assert_ships(*exported, "executorch", tmp_path, files=files, speed_s=speed_s)


def test_a_program_teaches(tmp_path, monkeypatch, capsys):
    """Its outputs are those of the network that it was exported from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tiny.json").write_text(ARCH.to_json())
    quick = ("--data", "digits", "--max-images-per-class", "20", "--epochs", "1", "--fewest-steps", "0")
    train = ["train", "tiny.json", *quick, "--threads", "1", "--input-size", "8"]
    assert run([*train, "--out", "teacher"]) == 0
    assert run(["export", "teacher/tiny-8px", "--to", "executorch", "--out", "model.pte", "--speed-s", "0"]) == 0
    capsys.readouterr()
    for number, teacher in enumerate(("teacher/tiny-8px", "model.pte")):
        assert run([*train, "--teacher", teacher, "--out", str(number)]) == 0
        assert f"teacher {teacher}: 8 px, " in capsys.readouterr().out
    losses = [
        float((tmp_path / name / "tiny-8px" / "metrics.csv").read_text().splitlines()[-1].split(",")[3])
        for name in ("0", "1")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
