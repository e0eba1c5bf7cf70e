"""Recentred networks have the images' statistics and the same function."""

import pytest
import torch
from torch import Tensor, nn

from mnas.nn.network import Network, build_network
from mnas.nn.pretrained import load_pretrained
from mnas.nn.recentre import recentre
from mnas.zoo.architectures import named_arch
from tests.nn.test_pretrained import randomise
from tests.nn.test_published_weights import needs_packages


def batches(size: int) -> list[Tensor]:
    """Return dark, blurred images in two batches of different sizes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(12, 3, size // 8, size // 8, generator=generator) * 0.7 - 1
    return list(nn.functional.interpolate(pixels, size=size, mode="bilinear").split(8))


def pretrained() -> Network:
    return load_pretrained("pretrained", named_arch("efficientnet-lite0"), None, name="efficientnet-lite0")


def random_weights(name: str) -> Network:
    torch.manual_seed(0)
    network = build_network(named_arch(name), 5)
    randomise(network)
    return network


def inputs_of_norms(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    inputs: dict[str, Tensor] = {}
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    hooks = [
        norm.register_forward_pre_hook(lambda _, given, name=name: inputs.update({name: given[0]}))
        for name, norm in norms.items()
    ]
    network(images)
    for hook in hooks:
        hook.remove()
    return inputs


@pytest.mark.parametrize("name", [pytest.param("pretrained", marks=needs_packages), "mobilenetv3-large", "mnasnet-a1"])
@torch.no_grad()
def test_the_function_stays_and_the_statistics_are_the_images(name: str) -> None:
    network = pretrained() if name == "pretrained" else random_weights(name)
    network.eval()
    images = batches(64)
    before = network(torch.cat(images))
    other = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    before_other = network(other)
    recentre(network, images)
    assert not network.training
    torch.testing.assert_close(network(torch.cat(images)), before, rtol=0, atol=1e-4)
    torch.testing.assert_close(network(other), before_other, rtol=0, atol=1e-4 * float(before_other.abs().max()))
    for name, given in inputs_of_norms(network, torch.cat(images)).items():
        norm = network.get_submodule(name)
        mean, variance = given.mean((0, 2, 3)), given.var((0, 2, 3))
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(norm.running_var, variance, rtol=1e-3, atol=1e-3)


@needs_packages
@torch.no_grad()
def test_training_mode_begins_near_the_function() -> None:
    """Batch norm with the statistics of one batch changes what a pretrained network computes, unless recentred."""
    images = torch.cat(batches(64))
    distances = []
    for recentred in (False, True):
        network = pretrained()
        expected = network.eval()(images)
        if recentred:
            recentre(network, [images])
        network.train()
        network.dropout.p = 0.0
        distances.append(float((network(images) - expected).std() / expected.std()))
    assert distances[0] > 0.5
    assert distances[1] < 0.05


def test_recentring_needs_images() -> None:
    with pytest.raises(ValueError, match="recentring needs images, but got none"):
        recentre(random_weights("mnasnet-small"), [])
