"""The official tool's output: what is read and what is rejected. The texts come from published logs of real devices."""

import pytest

from mnas.latency.devices.benchmark_model import Statistics, arguments, failure, parse
from mnas.latency.latency import UnitError

OLD = """STARTING!
Num threads: [1]
Graph: [/data/local/tmp/albert_base.tflite]
Loaded model /data/local/tmp/albert_base.tflite
INFO: Initialized TensorFlow Lite runtime.
The input model file size (MB): 11.983
Initialized session in 20.283ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=2 first=339304 curr=266325 min=266325 max=339304 avg=302814 std=36489

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=266601 curr=266931 min=265837 max=268116 avg=266473 std=419

Inference timings in us: Init: 20283, First inference: 339304, Warmup (avg): 302814, Inference (avg): 266473
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory \
footprint of the model at runtime. Take the information at your discretion.
Peak memory footprint (MB): init=4.92969 overall=138.809
"""
NEW = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Graph: [/usr/share/oob-demo-assets/models/ssd_mobilenet_v2_coco.tflite]
INFO: Use xnnpack: [0]
INFO: Loaded model /usr/share/oob-demo-assets/models/ssd_mobilenet_v2_coco.tflite
INFO: The input model file size (MB): 67.3128
INFO: Initialized session in 5.579ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=1 curr=1357602 p5=1357602 median=1357602 p95=1357602

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=1249964 curr=1240143 min=1238588 max=1252566 avg=1.24027e+06 std=2565 p5=1238753 median=1239807 \
p95=1247415

INFO: Inference timings in us: Init: 5579, First inference: 1357602, Warmup (avg): 1.3576e+06, \
Inference (avg): 1.24027e+06
INFO: Memory footprint delta from the start of the tool (MB): init=6.36328 overall=109.832
INFO: Overall peak memory footprint (MB) via periodic monitoring: 93.2383
"""


def test_both_formats_are_read():
    old = parse(OLD, elapsed_s=15.0)
    assert old.timed == Statistics(50, 266601.0, 265837.0, 266473.0, 268116.0)
    assert (old.init_us, old.warm_up.count, old.grown_bytes) == (20283.0, 2, round(138.809 * 2**20))
    new = parse(NEW, elapsed_s=70.0)
    assert new.timed == Statistics(50, 1249964.0, 1238588.0, 1240270.0, 1252566.0)
    assert new.warm_up == Statistics(1, *4 * (1357602.0,))
    assert new.grown_bytes == round(109.832 * 2**20)
    assert parse("\n".join(OLD.splitlines()[:-2]), elapsed_s=15.0).grown_bytes is None


def test_the_short_form_of_equal_times_is_read():
    same = OLD.replace("count=50 first=266601 curr=266931 min=265837 max=268116 avg=266473 std=419", "{}")
    for text in ("count=50 curr=266473(all same)", "count=50 curr=266473 (all same) p5=1 median=1 p95=1"):
        assert parse(same.format(text), elapsed_s=15.0).timed == Statistics(50, *4 * (266473.0,))


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        ("in ms:", "in us:", "unexpected format"),
        ("min=0 ", "min=265837 ", "contradicts itself"),
        ("min=-265837 ", "min=265837 ", "unexpected format"),
        ("avg=nan std=419", "avg=266473 std=419", "unexpected format"),
        ("avg=inf std=419", "avg=266473 std=419", "unexpected format"),
        ("avg=266.473 std=419", "avg=266473 std=419", "contradicts itself"),
        ("Inference (avg): 266.473", "Inference (avg): 266473", "in another"),
        ("Init: 20.283", "Init: 20283", "in another"),
        ("count=0", "count=50 first=266601 curr=266931 min=265837 max=268116 avg=266473 std=419", "unexpected format"),
        ("cou", "count=50", "2 line"),
        ("max=26", "max=268116", "contradicts itself"),
        ("WARN: Unconsumed cmdline flags: --use_xnnpack=true", "STARTING!", "newer"),
    ],
)
def test_garbled_output_is_refused(wrong, right, said):
    assert right in OLD
    with pytest.raises(UnitError, match=said) as caught:
        parse(OLD.replace(right, wrong), elapsed_s=15.0)
    assert "\n" not in str(caught.value)


def test_output_that_is_cut_off_anywhere_before_the_summary_is_refused():
    end = OLD.index("266473\nNote")
    for cut in range(0, end, 7):
        with pytest.raises(UnitError):
            parse(OLD[:cut], elapsed_s=15.0)
    assert parse(OLD[: end + 6], elapsed_s=15.0).timed.count == 50


def test_times_that_do_not_fit_into_the_call_are_refused():
    with pytest.raises(UnitError, match="another unit"):
        parse(OLD, elapsed_s=13.0)  # 14 s of work
    milliseconds = (
        OLD.replace("20283,", "20.283,").replace("20.283ms", "0.020283ms")
        .replace("count=2 first=339304 curr=266325 min=266325 max=339304 avg=302814", "count=2 curr=302")
        .replace("count=50 first=266601 curr=266931 min=265837 max=268116 avg=266473 std=419", "count=50 curr=25")
        .replace(" std=36489", "").replace("339304", "302").replace("302814", "302").replace("266473", "25")
    )  # fmt: skip
    with pytest.raises(UnitError, match=r"52 inferences in 1\.85 ms, but should have run for 0\.1 s"):
        parse(milliseconds, elapsed_s=15.0)
    assert parse(milliseconds, elapsed_s=15.0, once=True).timed.count == 50


def test_arguments_are_the_tool_s():
    assert arguments("m.tflite", threads=2, xnnpack=False) == [
        "--graph=m.tflite", "--num_threads=2", "--use_xnnpack=false", "--num_runs=3", "--min_secs=0.05",
        "--max_secs=20", "--warmup_runs=1", "--warmup_min_secs=0.05",
    ]  # fmt: skip
    shaped = arguments("m", threads=1, xnnpack=True, input_shape=("x", (8, 32, 32, 3)), once=True)
    assert shaped[-3:] == ["--report_peak_memory_footprint=true", "--input_layer=x", "--input_layer_shape=8,32,32,3"]
    assert "--num_runs=1" in shaped


def test_the_reason_of_a_failure_is_its_last_error():
    told = "INFO: STARTING!\nERROR: Node number 3 (FOO) failed to prepare.\nERROR: Benchmarking failed.\n"
    assert failure(told) == "ERROR: Node number 3 (FOO) failed to prepare."
    assert failure("sh: not found\n") == "sh: not found"
    assert failure("") == "it printed nothing"
