"""Every runtime in the measuring process: models of all kinds load, run, are timed and report their memory."""

import contextlib
import dataclasses
import math
import re
import sys
import time

import numpy as np
import pytest
import torch
from foreign_models import FOREIGN, onnx_model
from model_files import ARCH, CLASSES, RUNTIMES, SIZE, foreign_program, model_file
from onnx import TensorProto

from mnas.arch import Arch
from mnas.export.gate import normalised
from mnas.export.images import photographs
from mnas.export.random_network import random_network
from mnas.export.render import render
from mnas.latency.devices.host import host_unit
from mnas.latency.devices.scripted import EndedError
from mnas.latency.latency import MeasurementError, Setup
from mnas.latency.onboard import script
from mnas.latency.onboard.script import ModelError, clock_of, load
from mnas.latency.protocol import calibrate, make_reference, measure
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import named_arch


@pytest.fixture(scope="module")
def unit():
    with contextlib.closing(host_unit()) as unit:
        yield unit


def one_round(unit, model, setup):
    with unit.session((model, model_file("litert")), setup, Setup(threads=setup.threads, batch=setup.batch)) as session:
        return session.round(False), session.round(True)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_runtime_takes_turns_with_litert(unit, runtime):
    setup = Setup(runtime=runtime)
    for round_ in one_round(unit, model_file(runtime), setup):
        for times in round_:
            assert len(times.wall_ms) == len(times.kept_ms) + 1 >= 3
            assert all(0 < t < math.inf for t in (*times.wall_ms, *times.kept_ms))


@pytest.mark.parametrize(
    "runtime",
    # slow: each measurement of a peak starts a process that imports torch
    [pytest.param(r, marks=pytest.mark.slow) if r in ("executorch", "torch") else r for r in RUNTIMES],
)
def test_each_runtime_reports_its_peak_memory(unit, runtime):
    peak = unit.peak_memory_bytes(model_file(runtime), Setup(runtime=runtime))
    assert peak is None if not sys.platform.startswith("linux") else 4096 < peak < 2**28


@pytest.mark.parametrize(
    "runtime", [pytest.param(r, marks=pytest.mark.slow) if r == "executorch" else r for r in RUNTIMES]
)
def test_batches_and_threads(unit, runtime):
    """The model of ExecuTorch is also the one in int8, because a program takes 10 s to write."""
    setup = Setup(runtime=runtime, batch=4, threads=2)
    model = model_file(runtime, batch=4, int8=True) if runtime == "executorch" else model_file(runtime)
    with unit.session((model, model), setup) as session:
        assert (session.pinned_core, session.realtime) == (None, False)
        first, second = session.round(False)
    assert min(first.kept_ms) > 0 < min(second.kept_ms)


def test_a_batch_of_eight_takes_longer_than_one_image():
    large = graph_bytes(named_arch("mnasnet-small"), 96, 10)

    def fastest_ns(batch):
        run = load("litert", large, 1, batch)
        times = []
        for _ in range(5):
            start = time.process_time_ns()
            run()
            times.append(time.process_time_ns() - start)
        return min(times)

    assert fastest_ns(8) > 2 * fastest_ns(1)  # 8 times the arithmetic


@pytest.mark.parametrize(
    "runtime",
    # slow: test_batches_and_threads runs another such program
    ["litert", "litert-builtin", "onnxruntime", pytest.param("executorch", marks=pytest.mark.slow)],
)
def test_int8_of_an_architecture(unit, runtime):
    model = model_file(runtime, int8=True)
    assert model != model_file(runtime)
    (candidate, _), _ = one_round(unit, model, Setup(runtime=runtime))
    assert min(candidate.kept_ms) > 0


def test_int8_files_are_about_a_quarter_of_the_size():
    arch = named_arch("mnasnet-small@0.5")
    whole, eighth = (len(render(Setup(), int8=int8)(arch, 32, 10)) for int8 in (False, True))
    assert eighth < 0.5 * whole


def test_int8_onnx_files_give_nearly_the_same_outputs():
    import onnxruntime

    _, info = random_network(ARCH, SIZE, CLASSES)
    images = normalised(info, photographs(SIZE, 8).pixels).transpose(0, 3, 1, 2)
    files = (model_file("onnxruntime"), model_file("onnxruntime", int8=True))
    whole, eighth = (onnxruntime.InferenceSession(file).run(None, {"image": images})[0] for file in files)
    assert 0 < np.abs(whole - eighth).max() < 0.2 * np.abs(whole).max()


def test_int8_of_torch_is_rejected_with_the_runtimes_that_support_it():
    with pytest.raises(
        ValueError, match=r"--int8 requires one of the runtimes litert, litert-builtin, onnxruntime, execu"
    ):
        render(Setup(runtime="torch"), int8=True)


def test_what_executorch_cannot_run_in_int8_is_refused_before_it_is_written():
    arch = Arch(blocks=(dataclasses.replace(ARCH.blocks[0], skip="pool"),), stem_filters=8, head_filters=16)
    with pytest.raises(ValueError, match="an int8 network for executorch must have no pooled skip at stride 2"):
        render(Setup(runtime="executorch"), int8=True)(arch, SIZE, CLASSES)


def test_random_weights_are_the_same_every_time_and_leave_torch_alone():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = render(Setup(runtime="torch"))(ARCH, SIZE, CLASSES)
    assert torch.equal(torch.get_rng_state(), state)
    assert render(Setup(runtime="torch"))(ARCH, SIZE, CLASSES) == first


@pytest.mark.parametrize(
    ("runtime", "model"),
    [
        ("onnxruntime", lambda: onnx_model(channels_first=False, batch=1)),
        ("onnxruntime", lambda: onnx_model(dtype=TensorProto.UINT8)),
        ("onnxruntime", lambda: onnx_model(outputs=2)),
        ("executorch", lambda: foreign_program()),
        ("executorch", lambda: foreign_program(torch.uint8)),
    ],
    ids=["onnx NHWC", "onnx uint8", "onnx two outputs", "pte", "pte uint8"],
)
def test_models_of_others(runtime, model):
    """Foreign models get the input that they declare: `load` runs each once, and then it runs again."""
    run = load(runtime, model(), 1, 1)
    run()


@pytest.mark.skipif(not FOREIGN.exists(), reason="the published uint8 model is not here")
def test_a_published_uint8_model(unit):
    model = FOREIGN.read_bytes()
    (candidate, base), _ = one_round(unit, model, Setup())
    assert min(candidate.kept_ms) > min(base.kept_ms)  # 300M MACs against 30k
    load("litert-builtin", model, 2, 1)()


@pytest.mark.parametrize(
    ("runtime", "model", "words"),
    [
        ("onnxruntime", lambda: onnx_model(batch=2), "the model takes batches of 2, but got batch=1"),
        ("onnxruntime", lambda: onnx_model(size="S"), "all dimensions of input .* but the batch must be fixed"),
        ("onnxruntime", lambda: onnx_model(dtype=TensorProto.DOUBLE), "must be one of tensor.float., .*tensor.double."),
        (
            "executorch",
            lambda: foreign_program(batch=4),
            "the program takes batches of 4, but got batch=1",
        ),
        (
            "executorch",
            lambda: foreign_program(torch.float64),
            "input 0 must be one of torch.float32, .* but got type 7 of ExecuTorch",
        ),
    ],
)
def test_models_with_unsupported_inputs_get_one_line(runtime, model, words):
    with pytest.raises(ModelError, match=words):
        load(runtime, model(), 1, 1)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("cut", [0, 5, 2000, -500])
def test_damaged_files_get_one_line(unit, runtime, cut):
    with (
        pytest.raises(MeasurementError) as raised,
        unit.session((model_file(runtime)[:cut], model_file(runtime)), Setup(runtime=runtime)),
    ):
        pass
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 700


def test_a_file_that_crashes_its_runtime_ends_only_the_child(unit):
    """Most flipped bytes are harmless or reported; some end the process that runs ExecuTorch.

    The same file also ends a second process, which shows that a new one replaced the first.
    """
    good, setup = model_file("executorch"), Setup(runtime="executorch")

    def fate(model, setup=setup):
        try:
            with unit.session((model, model_file("litert")), setup, Setup()):
                return None
        except (EndedError, MeasurementError) as error:
            return error

    for at in range(len(good) // 4, len(good), 131):
        damaged = good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :]
        if isinstance(fate(damaged), EndedError):
            break
    else:
        pytest.fail("no flipped byte ended the process: this test says nothing any more")
    assert re.match(r"executorch crashed on the model 2 times: host: the measuring pro", str(fate(damaged)))
    assert fate(model_file("litert"), Setup()) is None


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_one_thread_computes_all_so_that_processor_time_is_the_wall_clock(runtime):
    """If a runtime computed in several threads, processor time would exceed wall-clock time."""
    assert clock_of(1) in (time.process_time_ns, time.perf_counter_ns)
    assert clock_of(2) is time.perf_counter_ns
    run = load(runtime, model_file(runtime), 1, 1)
    process, own = time.process_time_ns(), time.thread_time_ns()
    while time.thread_time_ns() - own < 100e6:
        run()
    process, own = time.process_time_ns() - process, time.thread_time_ns() - own
    assert own >= 0.9 * process  # the calling thread is the one


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process's peak")
def test_peak_memory_repeats_and_grows_with_the_model(unit):
    setup, file = Setup(), render(Setup())
    small, large = (file(named_arch(name), 64, 10) for name in ("mnasnet-small@0.5", "mobilenetv2"))
    peaks = [unit.peak_memory_bytes(large, setup) for _ in range(3)]
    assert max(peaks) < 1.2 * min(peaks)
    # at least its weights are packed again; the runtime itself needs the same for both
    assert min(peaks) - unit.peak_memory_bytes(small, setup) > (len(large) - len(small)) / 2


def test_peak_memory_is_none_where_the_system_does_not_report_it(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert script.peak_memory_bytes("nowhere", "litert", 1, 1) is None


def test_a_runtime_is_measured_against_the_reference_in_another(unit):
    reference = make_reference(ARCH, "own", SIZE, CLASSES)
    calibration = calibrate(unit, reference, budget_s=0.1)
    setup = Setup(runtime="onnxruntime")
    latency = measure(unit, model_file("onnxruntime"), reference, calibration, setup=setup, budget_s=0.1)
    assert latency.latency_ms == pytest.approx(latency.ratio * calibration.reference_ms)
    with pytest.raises(ValueError, match="threads and batch must equal the calibration's"):
        measure(unit, model_file("litert"), reference, calibration, setup=Setup(threads=2))
    with pytest.raises(MeasurementError, match="a model must be a LiteRT file"):
        measure(unit, model_file("onnxruntime"), reference, calibration)
