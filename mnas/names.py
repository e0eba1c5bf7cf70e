"""One way to name a network in every command: a zoo name, a trial of a run, a file, or block strings."""

import difflib
import os
import re
from pathlib import Path

from mnas.arch import Arch
from mnas.study import load_trial_arch, read_run
from mnas.zoo.architectures import ZOO, named_arch


def resolve_arch(name: str) -> Arch:
    """The architecture that `name` names.

    `mnasnet-a1`, with a width multiplier `mnasnet-a1@0.5`, at an output stride `mnasnet-small/s8`; `runs/NAME#17`, a
    trial; the path of a file as `Arch.to_json` writes it; block strings joined by commas.

    Raises:
        ValueError: it names none; one line with what could have been meant.
    """
    if re.split("[@/]", name)[0] in ZOO:
        return named_arch(name)
    if re.match(r"\s*[rkseio]+\d+_", name):
        return Arch.from_block_strings(name)
    if trial := re.fullmatch(r"(.+)#(\d{1,9})", name, re.ASCII):
        return load_trial_arch(Path(trial[1]), int(trial[2]))
    if name.endswith((".tflite", ".safetensors")):
        raise ValueError(
            f"an architecture must be named or a .json file, but got {name!r}; use its arch.json or its trial"
        )
    if name.endswith(".json") or os.path.isfile(name):
        return _read_arch(name)
    if os.path.isfile(os.path.join(name, "study.db")):
        raise ValueError(f"{name!r} is a run; name one of its trials, as {name}#0")
    close = difflib.get_close_matches(name.lower(), ZOO, n=1)
    raise ValueError(
        f"architecture must be one of {', '.join(ZOO)} (as in NAME@0.5, NAME/s8), a trial (runs/NAME#17), a .json file "
        f"or block strings (r1_k3_s11_e1_o16,...), but got {name!r}{f' (did you mean {close[0]}?)' if close else ''}"
    )


def searched_as(name: str) -> tuple[int, int]:
    """(input size in pixels, classes) of the search that a trial `runs/NAME#17` is of; (224, 1000) for others.

    Raises:
        ValueError: there is no such run.
    """
    trial = re.fullmatch(r"(.+)#(\d{1,9})", name, re.ASCII)
    if not trial:
        return 224, 1000  # ImageNet's, as the published architectures
    attributes = read_run(Path(trial[1])).attributes
    return int(attributes["config"]["input_size"]), len(attributes["provenance"]["data"]["classes"])


def _read_arch(path: str) -> Arch:
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"architecture file {path!r} cannot be read: {error.strerror}") from None
    try:
        return Arch.from_json(text)
    except ValueError as error:
        raise ValueError(f"architecture file {path!r}: {error}") from None
