"""Model files run in a child process: a file may crash the child, and the parent names the file."""

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mnas.arch import Arch
from mnas.block import Block
from mnas.foreign import served, session
from mnas.foreign.limits import most_threads_here
from mnas.foreign.session import ForeignSession
from mnas.predict.model import load_model
from mnas.tflite.runtime import run_tflite
from mnas.tflite.writer import graph_bytes

SIZE = 16
TINY = Arch(blocks=(Block(op="sepconv", kernel=3, stride=2, filters=8),), stem_filters=8, head_filters=8)
UNIT = {"mean": [0.0], "std": [1.0]}


@pytest.fixture(scope="module")
def tflite(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.tflite"
    path.write_bytes(graph_bytes(TINY, SIZE, 4))
    return path


@pytest.fixture
def opened(tflite):
    found = ForeignSession("litert", tflite, 1)
    found.resize((1, SIZE, SIZE, 3))
    yield found
    found.close()


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, SIZE, SIZE, 3), np.float32)


def process_of(found: ForeignSession) -> "subprocess.Popen[bytes]":
    return found._child._process


def rows_of(path: Path, values: np.ndarray) -> np.ndarray:
    """Return the outputs of the runtime in this process."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    entry, output = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    rows = []
    for one in values:
        interpreter.set_tensor(entry, one[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(output)[0])
    return np.array(rows)


def test_the_child_gives_what_the_runtime_gives_here_to_the_bit(opened, tflite, monkeypatch):
    monkeypatch.setattr(session, "MOST_BYTES", 7 * 4 * 3 * SIZE * SIZE)  # in several pieces
    values = pixels(50)
    np.testing.assert_array_equal(opened.run(values, 1, 4), rows_of(tflite, values))
    np.testing.assert_array_equal(run_tflite(tflite.read_bytes(), values[:3]), rows_of(tflite, values[:3]))
    assert opened.run(values[:0], 1, 4).shape == (0, 4)
    assert (opened.inputs[0].shape, opened.inputs[0].dtype, opened.outputs[0].shape) == ((1, 16, 16, 3), "<f4", (1, 4))


def test_a_process_that_dies_is_one_line_now_and_later(opened):
    os.kill(process_of(opened).pid, signal.SIGSEGV)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"LiteRT cannot run '.*model.tflite', which is damaged .* signal 11") as e:
            opened.run(pixels(1), 1, 4)
        assert "\n" not in str(e.value)


def test_a_process_that_stands_still_is_given_up_and_killed(opened, monkeypatch):
    monkeypatch.setattr(session, "RUN_S", 0.3)
    process = process_of(opened)
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(ValueError, match=r"LiteRT did not run '.*model.tflite' within 0 s and was stopped"):
        opened.run(pixels(1), 1, 4)
    assert process.returncode == -signal.SIGKILL


def test_a_model_that_nobody_holds_has_no_process(tflite):
    model = load_model(tflite, **UNIT)
    process = process_of(model._run.close.__self__)
    assert process.poll() is None
    del model
    gc.collect()
    assert process.poll() in (-signal.SIGKILL, 0)  # it may end by itself before, because no request arrives any more
    with load_model(tflite, **UNIT) as model:
        assert model.run(np.zeros((2, SIZE, SIZE, 3), np.uint8)).shape == (2, 4)
    with pytest.raises(ValueError, match=r"model.tflite' cannot run because it was closed"):
        model.run(np.zeros((2, SIZE, SIZE, 3), np.uint8))


def test_threads_take_turns(opened, tflite):
    values, found = pixels(24), {}

    def run(number: int) -> None:
        found[number] = opened.run(values[number * 3 : number * 3 + 3], 1, 4)

    threads = [threading.Thread(target=run, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(np.concatenate([found[n] for n in range(8)]), rows_of(tflite, values))


def test_a_forked_process_opens_the_file_anew(opened, tflite):
    values = pixels(3)
    process = process_of(opened)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, opened.run(values, 1, 4).tobytes())
        opened.close()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == rows_of(tflite, values).tobytes()
    os.waitpid(child, 0)
    assert process.poll() is None
    np.testing.assert_array_equal(opened.run(values, 1, 4), rows_of(tflite, values))


def endless(path: Path) -> None:
    """Return a classifier with a loop of 2 ** 62 iterations."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sin", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("Loop", ["turns", "yes", "mean"], ["classes"], body=body),
        ],
        "endless",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [None, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("classes", TensorProto.FLOAT, [None, 3])],
        [
            helper.make_tensor("turns", TensorProto.INT64, [], [2**62]),
            helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def test_a_model_that_never_ends_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "RUN_S", 0.2)
    monkeypatch.setattr(session, "IMAGE_S", 0.1)
    endless(tmp_path / "endless.onnx")
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"ONNX Runtime did not run '.*endless.onnx' within 0 s and was stopped"):
        load_model(tmp_path / "endless.onnx", **UNIT)
    assert time.monotonic() - began < 60


PARENT = """
import sys
from pathlib import Path
from mnas.predict import model
import mnas.foreign.session as session
spawn = session.spawn
def recorded(*arguments, **options):
    process = spawn(*arguments, **options)
    print(process.pid, flush=True)
    return process
session.spawn = recorded
model.load_model(sys.argv[1], mean=[0.0], std=[1.0])
"""


def test_a_model_that_never_ends_ends_with_the_process_that_opened_it(tmp_path):
    endless(tmp_path / "endless.onnx")
    environment = {**os.environ, "PYTHONPATH": str(Path(session.__file__).parents[2])}
    command = [sys.executable, "-c", PARENT, str(tmp_path / "endless.onnx")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    child = int(parent.stdout.readline())
    while cpu_s(child) < 0.5:  # it is computing
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    until = time.monotonic() + 3
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()


def cpu_s(pid: int) -> float:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11]) / os.sysconf("SC_CLK_TCK")


def test_damaged_files_never_end_this_process(tflite, tmp_path):
    whole = bytearray(tflite.read_bytes())
    draw = np.random.default_rng(1)
    outcomes = []
    for number in range(6):
        damaged = bytearray(whole)
        for at in draw.integers(8, len(whole), 1 + 200 * number):
            damaged[at] = int(draw.integers(256))
        (tmp_path / "damaged.tflite").write_bytes(damaged)
        try:
            with load_model(tmp_path / "damaged.tflite", **UNIT):
                outcomes.append("opened")
        except ValueError as error:
            outcomes.append(str(error))
    refused = [outcome for outcome in outcomes if outcome != "opened"]
    assert refused
    assert all("damaged.tflite" in outcome or "finite" in outcome for outcome in refused)
    assert not any("\n" in outcome for outcome in refused)


def test_too_many_threads_are_refused_at_once(tflite):
    with pytest.raises(
        ValueError, match=f"threads must be an integer from 1 to {most_threads_here()} on this machine, but got 1000000"
    ):
        ForeignSession("litert", tflite, 1_000_000)
    with pytest.raises(ValueError, match=f"threads must be .* {most_threads_here()}"):
        load_model(tflite, threads=1_000_000, **UNIT)


def test_a_child_has_limits(tflite, opened):
    limits = Path(f"/proc/{process_of(opened).pid}/limits").read_text().splitlines()
    soft = {line[:26].strip(): line[26:47].strip() for line in limits}
    assert soft["Max core file size"] == "0"
    assert served.LEAST_BYTES <= int(soft["Max data size"]) <= max(served.LEAST_BYTES, served.available_bytes())
    assert Path(f"/proc/{process_of(opened).pid}/oom_score_adj").read_text() == "1000\n"


def test_answers_that_are_none_are_refused():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(ValueError, match="a frame must have at most"):
            served.receive(ours, 100)
        served.send(theirs, {"ok": 1}, np.zeros(1000, np.float32))
        with pytest.raises(ValueError, match="an array must have at most 100 bytes of numbers"):
            served.receive(ours, 100)
