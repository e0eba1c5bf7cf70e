"""Flat keyword arguments for nested settings."""

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from mnas.settings import from_options, option_names, signature_of


@dataclass(frozen=True, kw_only=True)
class Inner:
    epochs: int = 5
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Outer:
    data: str
    run: Path = Path("runs")
    workers: int | Literal["auto"] = "auto"
    folder: Path | None = None
    inner: Inner = field(default_factory=lambda: Inner(epochs=7))
    fresh: bool = False


def test_options_reach_nested_settings_and_get_the_type_of_the_field() -> None:
    settings = from_options(Outer, {"data": "photos", "run": "runs/a", "share": 1, "workers": 2, "folder": "x"})
    expected = Outer(data="photos", run=Path("runs/a"), workers=2, folder=Path("x"), inner=Inner(epochs=7, share=1.0))
    assert settings == expected
    assert type(settings.inner.share) is float


def test_the_defaults_are_those_of_the_dataclass() -> None:
    assert from_options(Outer, {"data": "photos"}) == Outer(data="photos")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "photos", "epoch": 3}, "unknown option 'epoch'; did you mean epochs?"),
        ({}, "data is required"),
        ({"data": 3}, "data must be text, but got 3"),
        ({"data": "photos", "workers": "two"}, "workers must be an integer or auto, but got 'two'"),
        ({"data": "photos", "epochs": True}, "epochs must be an integer, but got True"),
        ({"data": "photos", "epochs": 2.5}, "epochs must be an integer, but got 2.5"),
        ({"data": "photos", "fresh": 1}, "fresh must be True or False, but got 1"),
    ],
)
def test_invalid_options_are_rejected_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=r"option|must be|is required") as error:
        from_options(Outer, options)
    assert str(error.value) == message


def test_a_signature_lists_every_option() -> None:
    assert list(option_names(Outer)) == ["data", "run", "workers", "folder", "epochs", "share", "fresh"]
    signature = signature_of(Outer, returns=int)
    assert next(iter(signature.parameters)) == "data"
    assert signature.parameters["data"].default is inspect.Parameter.empty
    assert signature.parameters["epochs"].annotation is int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    rate: float
    """A field without a default; the enclosing settings give one."""


@dataclass(frozen=True, kw_only=True)
class Named:
    arch: str = field(kw_only=False)
    to: str
    recipe: Recipe = field(default_factory=lambda: Recipe(rate=0.5))


def test_a_signature_has_positional_arguments_and_the_defaults_of_nested_settings() -> None:
    parameters = signature_of(Named, returns=None, defaults={"to": "litert"}).parameters
    assert [(p.name, p.kind.name, p.default) for p in parameters.values()] == [
        ("arch", "POSITIONAL_OR_KEYWORD", inspect.Parameter.empty),
        ("to", "KEYWORD_ONLY", "litert"),
        ("rate", "KEYWORD_ONLY", 0.5),
    ]
    assert from_options(Named, {"arch": "a", "to": "b", "rate": 1}).recipe == Recipe(rate=1.0)
