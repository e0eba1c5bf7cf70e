"""`mnas COMMAND ...`: one file per command, each with a dataclass whose fields are the options."""

import difflib
import importlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from types import TracebackType

from mnas import children
from mnas.cli import signals
from mnas.cli.streams import close_streams, complain, is_broken_pipe, open_streams
from mnas.text import clean

COMMANDS = {
    "search": ("mnas.cli.search:SearchCommand", "Search for the best trade-offs between accuracy and latency"),
    "proxy-check": (
        "mnas.cli.proxy_check:ProxyCheckCommand",
        "Find the cheapest short training that ranks networks like a long one",
    ),
    "train": ("mnas.cli.train:TrainCommand", "Run the full training of a network or of a search's best candidates"),
    "report": ("mnas.cli.report:ReportCommand", "Write the report of a run as one HTML file"),
    "runs": ("mnas.cli.runs:RunsCommand", "List runs and their states"),
    "export": (
        "mnas.cli.export:ExportCommand",
        "Export a trained model to LiteRT, ONNX or ExecuTorch, and check it",
    ),
    "predict": ("mnas.cli.predict:PredictCommand", "Classify images with any supported model"),
    "eval": ("mnas.cli.eval:EvalCommand", "Score any supported model on labelled images"),
    "latency": ("mnas.cli.latency:LatencyCommand", "Measure the latency of architectures and model files"),
    "latency fit": ("mnas.cli.latency_fit:LatencyFitCommand", "Fit a latency predictor for a search space"),
    "detect check": (
        "mnas.cli.detect.check:DetectCheckCommand",
        "Check images with boxes, and which of them a detector can learn",
    ),
    "detect train": ("mnas.cli.detect.train:DetectTrainCommand", "Train an object detector on one's own boxes"),
    "detect eval": ("mnas.cli.detect.eval:DetectEvalCommand", "Score a detector on images with boxes"),
    "detect predict": ("mnas.cli.detect.predict:DetectPredictCommand", "Find objects in images and videos"),
    "detect export": (
        "mnas.cli.detect.export:DetectExportCommand",
        "Export a trained detector to LiteRT or ONNX, and check it",
    ),
    "devices list": ("mnas.cli.devices:DevicesListCommand", "List the devices that latency can be measured on"),
    "devices check": ("mnas.cli.devices:DevicesCheckCommand", "Check that a device is fit to measure on"),
    "devices calibrate": (
        "mnas.cli.devices:DevicesCalibrateCommand",
        "Measure how much the latencies of a device vary between sessions",
    ),
    "bench": ("mnas.cli.bench:BenchCommand", "Compare controllers on a benchmark"),
    "show": ("mnas.cli.show:ShowCommand", "Print or draw an architecture"),
    "paper table3": (
        "mnas.cli.paper:PaperTable3Command",
        "Print the paper's Table 3, detectors on COCO, beside our counts and latencies",
    ),
    "space": ("mnas.cli.space:SpaceCommand", "Print a search space and its size"),
    "demo": ("mnas.cli.demo:DemoCommand", "Run a short search on built-in images"),
    "completion": ("mnas.cli.completion:CompletionCommand", "Print a shell completion script"),
}
"""Name of one word or two ("latency fit") -> (module, purpose). A command is imported when it is called, so that the
help appears immediately."""

_PATIENCE_S = 10.0
"""Seconds to wait for torchrun, which checks its processes every 0.1 s, and gives them 30 s to end."""

USAGE = "usage: mnas COMMAND [OPTIONS] [--debug]   (mnas COMMAND --help shows a command's options)"
_NOTE = "With --debug, an error also prints its Python traceback. mnas --version prints the version."
HELP = ("-h", "--help", "--help-all", "help")


def main() -> None:
    """Run the console script; exit code 0, 2 for an error that the user can correct, 128 + N after signal N."""
    open_streams()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        children.end_with(os.getppid())
    sys.excepthook = _print_traceback
    signals.listen()
    try:
        code = run(sys.argv[1:])
    finally:
        children.kill_all()  # a surviving child would hang, and Python's end would wait for it
    code = close_streams(code)
    if code > 128:
        signals.ignore()  # Python's end would undo the handlers
    sys.exit(code)


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print Python's traceback for `--debug`, cleaned of control characters from files or servers."""
    for line in "".join(traceback.format_exception(kind, error, trace)).split("\n"):
        print(clean(line), file=sys.stderr)


def run(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    try:
        return _run(arguments)
    except (BrokenPipeError, SystemExit) as error:  # `mnas runs | head`
        if not is_broken_pipe(error):
            raise
        return 0


def _run(arguments: Sequence[str]) -> int:
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        if not arguments or arguments[0] in HELP:
            return _print_help(list(COMMANDS))
        if arguments[0] not in COMMANDS and _group(arguments[0]) and arguments[1:2] in ([word] for word in HELP):
            return _print_help(_group(arguments[0]))
        if arguments[0] == "--version":
            from mnas.version import __version__

            print(f"mnas {__version__}")
            return 0
        words, options = _command(arguments)
        module, _, name = COMMANDS[words][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        from mnas.cli.help import print_command_help, wants_help

        if wants_help(options):
            print_command_help(command, words, options)
            return 0
        import optuna

        from mnas.cli.parsing import parse

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        parsed = parse(command, words, options)
        signals.heed()
        parsed.run()
    except KeyboardInterrupt as stop:
        return signals.exit_code(stop)
    except Exception as error:
        if debug or is_broken_pipe(error):
            raise
        try:
            _let_the_first_process_speak(error)
        except KeyboardInterrupt as stop:  # torchrun ends this process, as the first one has printed the error
            return signals.exit_code(stop)
        complain(f"mnas: {clean(_one_line(error))}")
        return 2 if _is_users(error) else 1
    return 0


def _let_the_first_process_speak(error: Exception) -> None:
    """Wait, in a process of torchrun, until the first process has reported the error, which mostly concerns all.

    Torchrun ends the other processes once the first has printed its line and ended; a process that survives prints its
    own.
    """
    first = os.environ.get("RANK", "0") == "0"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not (first and _is_users(error) and not _lost(error)):
        time.sleep(_PATIENCE_S)


def _lost(error: BaseException) -> bool:
    """Return whether the error is that another process of the training has ended."""
    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo", "NCCL", "TCPStore")
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1 and isinstance(error, RuntimeError)
    return together and any(word in str(error) for word in words)


def _print_help(names: Sequence[str]) -> int:
    width = 2 + max(map(len, names))
    print(USAGE, "", *(f"  {name:<{width}}{COMMANDS[name][1]}" for name in names), "", _NOTE, sep="\n")
    return 0


def _group(word: str) -> list[str]:
    """Return the commands of two words that begin with `word`."""
    return [name for name in COMMANDS if name.startswith(f"{word} ")]


def _command(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the command that the arguments begin with, of one word or two, and its options. Raises ValueError."""
    for count in (2, 1):
        if (words := " ".join(arguments[:count])) in COMMANDS:
            return words, arguments[count:]
    group = _group(arguments[0])
    got = " ".join(arguments[:2]) if group else arguments[0]
    names = {name.split()[-1]: name for name in group or COMMANDS}
    close = difflib.get_close_matches(next(iter(arguments[1:] if group else arguments), ""), names, n=1)
    hint = f"; did you mean {names[close[0]]}?" if close else ""
    raise ValueError(f"command must be one of {', '.join(group or COMMANDS)}, but got {got!r}{hint}")


def _is_users(error: Exception) -> bool:
    """Return whether the user can correct the error (a value, file, disk or missing extra); otherwise it is our bug."""
    import optuna
    import sqlalchemy

    from mnas.latency.latency import MeasurementError, UnitError

    users: tuple[type[Exception], ...] = (
        MemoryError,
        ValueError,
        OSError,
        ImportError,
        MeasurementError,
        UnitError,
        optuna.exceptions.OptunaError,
        sqlalchemy.exc.SQLAlchemyError,
    )
    return isinstance(error, users) or _lost(error) or bool(_machines(error))


def _machines(error: Exception) -> str:
    """Return the failure of the machine, where that is the only cause; else an empty string."""
    from mnas.train.failures import machine_failure

    return machine_failure(error) if isinstance(error, RuntimeError | MemoryError) else ""


def _one_line(error: Exception) -> str:
    import optuna
    import sqlalchemy

    cause: BaseException = error
    while isinstance(cause, optuna.exceptions.OptunaError | sqlalchemy.exc.SQLAlchemyError) and cause.__cause__:
        cause = cause.__cause__  # they contain the database's own message
    text = " ".join(str(cause).split()) or type(cause).__name__
    if isinstance(cause, OSError) and cause.strerror:
        text = f"{cause.strerror}: {cause.filename}" if cause.filename else cause.strerror
    if failure := _machines(error):
        return f"{failure}; free some, or use smaller images, smaller batches or fewer workers"
    if _lost(error):
        return "another process of this training ended, so this one ends too; see the error of that process"
    if _is_users(error):
        return text
    return f"{type(error).__name__}: {text} (a bug in mnas; --debug prints the traceback)"


if __name__ == "__main__":  # torchrun -m mnas.cli.main
    main()
