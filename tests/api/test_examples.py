"""The examples in the docstrings of the functions of `import mnas`, run in one folder, one after another."""

import doctest
import inspect
import signal

import pytest

import mnas
from mnas.latency.fleet.pool import Device
from mnas.train.process import TrainingStopped
from tests.bench.bench_toy import write_table

ORDER = (
    "search",
    "open_run",
    "train",
    "train_best",
    "export",
    "load",
    "latency",
    "fit_latency",
    "bench",
    "proxy_check",
)
"""A later example may use the files of an earlier one."""

SPACE = """
name = "tiny"
[skeleton]
filters = [16, 24]
layers = [1, 2]
strides = [1, 2]
head_filters = 64
"""


def test_examples(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for home in ("CACHE", "STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{home}_HOME", str(tmp_path / home))
    calibrate = Device.calibrate
    monkeypatch.setattr(Device, "calibrate", lambda self, reference, *_, **__: calibrate(self, reference, 0.1))
    write_table(tmp_path / "toy.csv")
    (tmp_path / "tiny.toml").write_text(SPACE)
    runner, report = doctest.DocTestRunner(), []
    for name in ORDER:
        test = doctest.DocTestParser().get_doctest(inspect.getdoc(getattr(mnas, name)), {"mnas": mnas}, name, None, 0)
        assert test.examples, name
        runner.run(test, out=report.append)
    assert not report, "".join(report)


def test_options_are_those_of_the_commands() -> None:
    with pytest.raises(ValueError, match="unknown option 'epoch'; did you mean epochs"):
        mnas.train("mnasnet-small", data="digits", epoch=3)
    with pytest.raises(ValueError, match=r"mnas\.train trains one network, but got 2 sizes"):
        mnas.train("mnasnet-small/s8", data="digits", input_size=(16, 24))
    with pytest.raises(ValueError, match=r"mnas\.train trains one network, but got top=3; use mnas\.train_best"):
        mnas.train("mnasnet-small", data="digits", top=3)
    with pytest.raises(ValueError, match="watcher must be a TrainWatcher, auto, bar or none, but got 'rich'"):
        mnas.train("mnasnet-small/s8", data="digits", input_size=16, watcher="rich")
    with pytest.raises(ValueError, match=r"^to must be one or more of litert, onnx, executorch, but got 'coreml'"):
        mnas.export("model.safetensors", to=["litert", "coreml"])
    with pytest.raises(ValueError, match=r"^runtime must be one or more of"):
        mnas.latency("mnasnet-a1", runtime=["litert", "tvm"])
    with pytest.raises(ValueError, match=r"^controllers must be different names separated by commas"):
        mnas.bench(path="toy.csv", controllers=["ppo", "ppo"])
    with pytest.raises(ValueError, match=r"^try_epochs must be auto, or integers"):
        mnas.proxy_check(data="digits", try_epochs=[0])


def test_an_interrupted_training_is_a_keyboard_interrupt(monkeypatch, tmp_path) -> None:
    def stopped(*_: object) -> None:
        raise TrainingStopped(signal.SIGINT, "epoch 3 of 30, step 17 of 312")

    monkeypatch.setattr("mnas.api.train.run_training", stopped)
    with pytest.raises(KeyboardInterrupt, match="stopped at epoch 3 of 30, step 17 of 312; the same call"):
        mnas.train("mnasnet-small/s8", data="digits", out=tmp_path)


def test_errors_name_keywords_as_python_spells_them() -> None:
    with pytest.raises(ValueError, match=r"^latency_budget_s must be greater than 0 and at most 86400, but got -1\.0"):
        mnas.search(data="digits", latency_budget_s=-1)
    with pytest.raises(ValueError, match=r"^batch_size must be an integer from 2 to 1000000000, but got -1"):
        mnas.train("mnasnet-small", data="digits", batch_size=-1)
