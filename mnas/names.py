"""One way to name a network in every command: a named network, a trial of a run, a file or an architecture string.

`resolve_arch` is for commands that need an architecture, `resolve_weights` for those that need a trained model.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mnas.arch import Arch
from mnas.architecture import Architecture, architecture_from_json
from mnas.formats import ARCH_SUFFIXES, WEIGHTS_NAME, WEIGHTS_SUFFIX, format_of
from mnas.nn.weights_info import read_weights_info, require_unchanged
from mnas.readers import JSON_BYTES, MODEL_BYTES, read_regular
from mnas.space.candidates import candidate_space, input_sizes_of
from mnas.space.cuts import can_be_cut
from mnas.study import TrialRecord, is_trained, needed, objectives_of, read_run, trained_path
from mnas.study.results import find_result, recommend, references_of
from mnas.zoo.architectures import ZOO, named_arch

_TRIAL = re.compile(r"(.+)#(\d{1,9}|[A-Za-z][A-Za-z0-9@._-]*)", re.ASCII)
_BLOCK_STRING = re.compile(r"\s*[rkseio]+\d+_")


def resolve_arch(name: str) -> Architecture:
    """Return the architecture that `name` names.

    A name is one of:
    - a named network, `mnasnet-a1`, with a width multiplier, `mnasnet-a1@0.5`, or an output stride, `mnasnet-small/s8`;
    - a trial, `runs/NAME#17`, or the reference network that the search trained like its trials,
      `runs/NAME#mobilenetv2`;
    - the path of a file that an architecture's `to_json` wrote, of a .safetensors or .tflite file that mnas wrote, or
      of the folder of a finished training;
    - an architecture string, that is block strings joined by commas.

    Raises:
        ValueError: no architecture has this name; the message is one line with suggestions.
    """
    if re.split("[@/]", name)[0] in ZOO and not os.path.exists(name):
        return named_arch(name)
    if _BLOCK_STRING.match(name):
        return Arch.from_block_strings(name)
    if (trial := _result(name)) and not os.path.isfile(name):
        return find_result(read_run(trial[0]), trial[1]).arch
    if name.endswith(ARCH_SUFFIXES):
        return _arch_of_model(name)
    if os.path.isfile(os.path.join(name, WEIGHTS_NAME)):
        return _arch_of_model(os.path.join(name, WEIGHTS_NAME))
    if name.endswith(".json") or os.path.isfile(name):
        return _read_arch(name)
    if os.path.isfile(os.path.join(name, "study.db")):
        raise ValueError(f"{name!r} is a run; name one of its trials, such as {name}#{_suggested(Path(name))}")
    close = difflib.get_close_matches(name.lower(), ZOO, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise ValueError(
        f"{name!r} is not a network{hint}; a network must be one of {', '.join(ZOO)} (also NAME@0.5 and NAME/s8), "
        "a trial (runs/NAME#17), a .json file or an architecture string (r1_k3_s11_e1_o16,...)"
    )


def resolve_weights(name: str, *, by: Literal["mnas train", "mnas detect train"] = "mnas train") -> Path:
    """Return the file of the trained model that `name` names.

    For `runs/NAME#17`, or the reference network `runs/NAME#mobilenetv2`, these are the weights of the full training
    (`mnas train runs/NAME --top ...`) if it is finished, else those that the search stored. If several trials drew the
    same network, the weights of any of them serve. The folder of a training names its model.safetensors. Any other file
    names itself, whatever its format.

    Args:
        by: command that trains such a model, for errors.

    Raises:
        ValueError: there are no such weights; the message is one line with the way to get them.
    """
    if os.path.isfile(name):
        return Path(name)
    if trial := _result(name):
        return _trial_weights(*trial)
    if not os.path.exists(name):
        if re.split("[@/]", name)[0] in ZOO or _BLOCK_STRING.match(name):
            raise ValueError(
                f"a model must have trained weights, but got the network {name!r}; train it with `{by} {name} "
                f"--data DIR`, then name the folder of the training{', or use --weights' if by == 'mnas train' else ''}"
            )
        raise ValueError(
            f"{name!r} does not exist; a model must be a file, the folder of a training or a trial (runs/NAME#17)"
        )
    if not os.path.isdir(name):  # it may be a pipe, and opening that would wait for a writer
        raise ValueError(
            f"{name!r} is not a regular file; a model must be a file, the folder of a training or a trial "
            "(runs/NAME#17)"
        )
    if os.path.isfile(os.path.join(name, "study.db")):
        raise ValueError(f"{name!r} is a run; name one of its trials, such as {name}#{_suggested(Path(name))}")
    if not os.path.isfile(os.path.join(name, WEIGHTS_NAME)):
        if files := sorted(file for file in os.listdir(name) if format_of(file)):
            raise ValueError(
                f"the folder {name!r} contains no {WEIGHTS_NAME}; name a file, such as {Path(name) / files[0]}"
            )
        raise ValueError(
            f"the folder of a training must contain {WEIGHTS_NAME}, but got {name!r}, which does not; resume an "
            "interrupted training with --resume"
        )
    return Path(name) / WEIGHTS_NAME


def as_file_name(name: str, arch: Architecture) -> str:
    """Return mnasnet-small-s8 for `mnasnet-small/s8`, NAME-17 for `runs/NAME#17`, else a fingerprint."""
    if "," in name or ("_" in name and re.match(r"\s*r\d+_", name)):
        return f"arch-{arch.fingerprint}"
    if "#" in name or name.split(" ")[0].endswith((".json", *ARCH_SUFFIXES)):
        name = Path(name).name  # of a trial, or of a file
    for suffix in (".json", *ARCH_SUFFIXES):
        name = re.sub(rf"{re.escape(suffix)}\b", "", name)
    return re.sub(r"[^A-Za-z0-9@.]+", "-", name).strip("-")


def searched_as(name: str) -> tuple[int, int]:
    """Return (input size in pixels, number of classes) of a trained model or of a trial's search; else (224, 1000).

    Raises:
        ValueError: the run does not exist, or the file was not written by mnas.
    """
    return _searched_as(name) or (224, 1000)  # ImageNet's, as for the published architectures


def searched_size(name: str) -> int | None:
    """Return the input size, in pixels, of a trained model or of a trial's search; None for other names."""
    shape = _searched_as(name)
    return None if shape is None else shape[0]


def parent_command(name: str) -> str:
    """Return the command that trains a trial from the weights of its parent; empty for other names.

    Raises:
        ValueError: the run or the trial does not exist.
    """
    named = _result(name)
    if not named or not os.path.isdir(named[0]):
        return ""
    run = read_run(named[0])
    return command_from_parent(run.path, run.attributes, find_result(run, named[1]))


def command_from_parent(path: Path, attributes: Mapping[str, Any], trial: TrialRecord) -> str:
    """Return the command that trains a trial of the run from the weights of its parent; empty without a parent.

    A network that is cut from its parent also has it as its teacher.

    Args:
        attributes: those of the run at `path`.
    """
    if not trial.parent:
        return ""
    parents = {parent.name: parent for parent in candidate_space(attributes["config"]).parents}
    if attributes["config"].get("cuts") and can_be_cut(parents[trial.parent].arch):
        tuned = parents[trial.parent].tuned_weights(path)
        return f"mnas train {path}#{trial.label} --weights {tuned} --teacher {tuned}"
    weights = needed(path, attributes, "parent_weights", trial.parent)
    return f"mnas train {trial.parent} --weights {weights} --input-size {trial.input_size}"


def _searched_as(name: str) -> tuple[int, int] | None:
    weights = os.path.join(name, WEIGHTS_NAME) if os.path.isdir(name) else name
    if weights.endswith(WEIGHTS_SUFFIX) and os.path.isfile(weights):
        info = read_weights_info(Path(weights))
        return info.input_size, len(info.classes)
    trial = _result(name)
    if not trial:
        return None
    run = read_run(trial[0])
    classes = needed(run.path, run.attributes, "provenance", "data", "classes")
    sizes = input_sizes_of(needed(run.path, run.attributes, "config"))
    return sizes[0] if len(sizes) == 1 else find_result(run, trial[1]).input_size, len(classes)


def _result(name: str) -> tuple[Path, str] | None:
    """Return run and label of `runs/NAME#17`, or of `runs/NAME#mobilenetv2` if the folder exists; else None."""
    parts = _TRIAL.fullmatch(name)
    if not parts or not (parts[2].isdecimal() or os.path.isdir(parts[1])):
        return None
    return Path(parts[1]), parts[2]


def _read_arch(path: str) -> Architecture:
    try:
        text = read_regular(path, JSON_BYTES)
    except OSError as error:
        raise ValueError(f"architecture file {path!r} cannot be read: {error.strerror}") from None
    try:
        return architecture_from_json(text)
    except ValueError as error:
        raise ValueError(f"architecture file {path!r}: {error}") from None


def _arch_of_model(path: str) -> Architecture:
    if path.endswith(WEIGHTS_SUFFIX):
        return read_weights_info(Path(path)).arch
    from mnas.tflite.metadata import read_metadata

    try:
        return read_metadata(read_regular(path, MODEL_BYTES)).arch
    except OSError as error:
        raise ValueError(f"model file {path!r} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"model file {path!r}: {error}") from None


def _trial_weights(path: Path, label: str) -> Path:
    run = read_run(path)
    result = find_result(run, label)
    same = [trial for trial in run.trials if trial.identity == result.identity and trial is not result]
    labels = [trial.label for trial in (result, *same)]  # its own first
    trained = [trained_path(path, name) / WEIGHTS_NAME for name in labels if is_trained(path, name)]
    searched = [path / "models" / f"{name}{WEIGHTS_SUFFIX}" for name in labels]
    for file in [*trained, *searched]:
        if file.is_file():
            require_unchanged(file, result.fingerprint)
            return file
    way = f"train the best candidates with `mnas train {path} --top 15`"
    if result.number < 0:
        way = f"train it with `mnas train {path}#{label} --data DIR`"
    raise ValueError(
        f"{path} stores no weights of {result.title} (a search stores those of its front, up to --keep-models-mb); "
        f"{way}"
    )


def _suggested(path: Path) -> str:
    """Return the label of the recommendation for the run's first target, or 0."""
    run = read_run(path)
    objectives = objectives_of(run.attributes)
    recommendation = recommend(run.trials, references_of(run), objectives[0], 0) if objectives else None
    return "0" if recommendation is None else recommendation.best.label
