"""Test --mirror: the images trained on, the stored setting and resuming; arrows to the left and right are learnt."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from mnas.arch import Arch
from mnas.block import Block
from mnas.cli.main import run
from mnas.data.mirror import Mirror
from mnas.evaluate.config import ProxyConfig
from mnas.evaluate.proxy import train
from mnas.nn.network import build_network
from mnas.search.settings import search_settings

TINY = Arch(
    blocks=(Block(op="sepconv", kernel=3, stride=2, filters=8, skip="none"),),
    stem_filters=8,
    stem_stride=1,
    head_filters=16,
)
QUICK = ("--input-size", "16", "--epochs", "1", "--warmup-epochs", "0.5", "--fewest-steps", "0")
OFF = (
    "warning: the names of these classes suggest that they are mirror images of each other: 'left' and 'right'. "
    "Training images are not mirrored; use --mirror yes to mirror them."
)
ON = OFF.replace("not mirrored; use --mirror yes to mirror them.", "mirrored nevertheless, because of --mirror yes.")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.json").write_text(TINY.to_json())


def arrows(root: Path, degrees: dict[str, float], count: int) -> None:
    """Return noisy arrows of random colours that point in the direction of their class."""
    draw = np.random.default_rng(0)
    for name in degrees:
        (root / name).mkdir(parents=True)
    for index in range(count):
        ground, colour = draw.integers(30, 120, 3), draw.integers(170, 256, 3)
        x, y = draw.integers(-2, 3, 2)
        image = Image.new("RGB", (32, 32), tuple(map(int, ground)))
        corners = ((-10, -2), (2, -2), (2, -7), (10, 0), (2, 7), (2, 2), (-10, 2))
        points = [(16 + x + a, 16 + y + b) for a, b in corners]
        ImageDraw.Draw(image).polygon(points, fill=tuple(map(int, colour)))
        noisy = np.clip(np.asarray(image) + draw.normal(0, 12, (32, 32, 3)), 0, 255).astype(np.uint8)
        for name, angle in degrees.items():
            Image.fromarray(noisy).rotate(angle).save(root / name / f"{index:03}.png")


def trained(*options: str) -> int:
    return run(["train", "tiny.json", "--data", "lr", *QUICK, *options])


def identity() -> dict[str, object]:
    found: dict[str, object] = json.loads(Path("trained/tiny-16px/config.json").read_text())["identity"]
    return found


def test_names_turn_mirroring_off_with_a_warning_and_it_is_stored(capsys: pytest.CaptureFixture[str]) -> None:
    arrows(Path("lr"), {"right": 0, "left": 180}, 20)
    assert trained() == 0
    printed = capsys.readouterr().out.splitlines()
    assert OFF in printed
    assert "majority share: 50.00% of the val images are left (the accuracy of always predicting it)" in printed
    assert identity()["mirror"] == "no"
    assert trained("--resume") == 0
    assert trained("--resume", "--mirror", "yes") == 2
    assert "contains a training with other settings (mirror: no before, None now)" in capsys.readouterr().err


def test_what_was_begun_mirrored_goes_on_mirrored(capsys: pytest.CaptureFixture[str]) -> None:
    """Trainings from before the option existed store no setting, like trainings with --mirror yes."""
    arrows(Path("lr"), {"right": 0, "left": 180}, 20)
    assert trained("--mirror", "yes") == 0
    assert ON in capsys.readouterr().out.splitlines()
    assert "mirror" not in identity()
    assert trained("--resume") == 0
    assert ON in capsys.readouterr().out.splitlines()
    assert trained("--resume", "--mirror", "no") == 2


def test_other_choices_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "tiny.json", "--data", "lr", *QUICK, "--mirror", "maybe"]) == 2
    assert "--mirror" in capsys.readouterr().err


def test_a_search_stores_it_and_goes_on_as_it_was_begun() -> None:
    arrows(Path("lr"), {"right": 0, "left": 180}, 10)
    settings = search_settings({"data": "lr", "run": "run", "input_size": "16"})
    [dataset] = settings.load_data().values()
    space = settings.candidate_space()
    assert settings.identity(space, dataset)["proxy"]["mirror"] == "no"
    assert settings.as_begun(dataset) is settings
    Path("run").mkdir()
    Path("run/config.json").write_text(json.dumps({"proxy": {"epochs": 5}}))  # from before the option existed
    begun = settings.as_begun(dataset)
    assert begun.proxy.mirror == "yes"
    assert "mirror" not in begun.identity(space, dataset)["proxy"]
    Path("run/config.json").write_text(json.dumps({"start_from": "auto", "proxy": {"epochs": 5, "mirror": "no"}}))
    assert settings.as_begun(dataset) is settings
    provenance = dataset.table.to_dict()
    assert provenance["images"] == {"train": (8, 8), "val": (2, 2)}


def test_candidates_are_trained_as_it_says() -> None:
    arrows(Path("lr"), {"right": 0, "left": 180}, 20)
    [dataset] = search_settings({"data": "lr", "input_size": "16"}).load_data().values()

    def weights(mirror: Mirror) -> bytes:
        torch.manual_seed(0)
        proxy = ProxyConfig(epochs=2, fewest_steps=1, batch_size=8, mirror=mirror)
        network = train(build_network(TINY, 2), dataset, proxy, torch.device("cpu"), seed=1)
        return bytes(next(network.parameters()).detach().numpy().tobytes())

    assert weights("auto") == weights("no") != weights("yes")


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [{"right": 0, "left": 180}, {"up": 90, "down": 270}])
def test_directions_are_learnt(degrees: dict[str, float]) -> None:
    arrows(Path("lr"), degrees, 160)
    assert run(["train", "mnasnet-small@0.35/s8", "--data", "lr", "--input-size", "32", "--epochs", "12"]) == 0
    result = json.loads(Path("trained/mnasnet-small@0.35-s8-32px/result.json").read_text())
    assert result["accuracy"] > 0.95
