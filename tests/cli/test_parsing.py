"""Parsing of a command line into the dataclass of a command."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from cyclopts import Parameter

from mnas.cli.options import options_of
from mnas.cli.parsing import numbers_joined, parse


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe."""

    epochs: int
    """Passes over the images."""
    rate: float = 0.1
    """Learning rate."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be 1 or more, but got {self.epochs}")


@dataclass(frozen=True, kw_only=True)
class Toy:
    """A command."""

    model: str = field(kw_only=False)
    """The model."""
    files: tuple[str, ...] = field(kw_only=False)
    """Files."""
    data: str
    """The data."""
    preset: str = "small"
    """small or large."""
    out: Annotated[Path | None, Parameter(name="--into")] = None
    """Folder."""
    seed: int | Literal["auto"] = "auto"
    """Seed."""
    devices: Path | Literal["auto"] = "auto"
    """File."""
    kind: Literal["auto"] | Literal["hard", "soft"] = "auto"
    """Kind."""
    fast: bool = False
    """Whether to hurry."""
    recipe: Annotated[Recipe, Parameter(name="*")] = field(default_factory=lambda: Recipe(epochs=3))
    """The recipe."""

    @classmethod
    def defaults(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the values of a preset."""
        return {"epochs": 30, "kind": "hard"} if given.get("preset") == "large" else {}


def parsed(line: str) -> Toy:
    return parse(Toy, "toy", line.split(" "))


def test_values_of_all_kinds():
    toy = parsed("net --seed 7 a.jpg --rate=-.5 b.jpg --data none --into none --fast --devices auto -- --c.jpg")
    assert toy == Toy(
        "net", ("a.jpg", "b.jpg", "--c.jpg"), data="none", out=Path("none"), seed=7, fast=True,
        recipe=Recipe(epochs=3, rate=-0.5),
    )  # fmt: skip
    assert toy.devices == "auto"


def test_the_last_value_of_a_repeated_option_counts():
    toy = parsed("net --data a --fast --epochs 5 --data b --no-fast --epochs=6 --rate -1e-3")
    assert (toy.data, toy.fast, toy.recipe) == ("b", False, Recipe(epochs=6, rate=-1e-3))
    assert toy.files == ()  # commands that need files reject that


def test_a_preset_replaces_defaults_and_options_replace_the_presets():
    assert parsed("net --data a --preset large").recipe.epochs == 30
    toy = parsed("net --epochs 4 --data a --preset=large")
    assert (toy.recipe.epochs, toy.kind) == (4, "hard")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("net", "--data is required. The data"),
        ("--fast", "MODEL is required. The model. --data is required. The data"),
        ("net --data", "--data must have a value (text), but got none"),
        ("net --data --fast", "--data must have a value (text), but got none"),
        ("net --data a --seed", "--seed must have a value (an integer or auto), but got none"),
        ("net --data a --seed 2.7", "--seed must be an integer or auto, but got '2.7'"),
        ("net --data a --epochs 0x10", "--epochs must be an integer, but got '0x10'"),
        ("net --data a --epochs=", "--epochs must be an integer, but got ''"),
        ("net --data a --rate fast", "--rate must be a number, but got 'fast'"),
        ("net --data a --kind hrad", "--kind must be one of auto, hard, soft, but got 'hrad'"),
        ("net --data a --fast=maybe", "--fast must be yes or no, but got 'maybe'"),
        ("net --data a --epoch 3", "unknown option --epoch; did you mean --epochs?"),
        ("net --data a --epoch=3", "unknown option --epoch; did you mean --epochs?"),
        ("net --data a -q", "unknown option -q"),
        ("net --data a --epochs 0", "epochs must be 1 or more, but got 0"),
    ],
)
def test_errors_are_one_line(line, message):
    with pytest.raises(ValueError, match=r"mnas toy --help") as error:
        parsed(line)
    assert str(error.value) == f"{message} (mnas toy --help)"


def test_a_surplus_argument_is_rejected():
    with pytest.raises(ValueError, match=r"^unexpected argument 'b' \(mnas toy --help\)$"):
        parse(Recipe, "toy", ["--epochs", "3", "b"])


def test_options_are_flat_and_described_by_docstrings():
    options = {option.flag: option for option in options_of(Toy)}
    assert list(options) == [
        "MODEL", "FILES", "--data", "--preset", "--into", "--seed", "--devices", "--kind", "--fast", "--epochs",
        "--rate",
    ]  # fmt: skip
    assert (options["--epochs"].help, options["--epochs"].default) == ("Passes over the images.", 3)
    assert (options["--epochs"].group, options["--seed"].group) == ("The recipe", "")
    assert options["--kind"].choices == ("auto", "hard", "soft")


def test_up_to_three_numbers_go_to_mean_and_std():
    assert numbers_joined(["--std", "0.2", "0.2", ".2", "4.jpg"]) == ["--std=0.2,0.2,.2", "4.jpg"]
    assert numbers_joined(["--mean", "0.5", "MODEL", "--std", "0,0,0"]) == ["--mean=0.5", "MODEL", "--std", "0,0,0"]
    with pytest.raises(ValueError, match="--std must be one number or three"):
        numbers_joined(["--std", "MODEL"])
