"""The recipe's parts against the published rules, written out here."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from timm.data.mixup import Mixup
from torch import nn
from train_toy import ARCH, CONFIG

from mnas.data.balance import class_weights
from mnas.nn.network import build_network
from mnas.train.presets import PRESETS
from mnas.train.recipe import (
    MovingAverage,
    apply_overrides,
    loss_of,
    mix_of,
    optimizer_for,
    parameter_groups,
    rmsprop,
    schedule_for,
)

IMAGENET = PRESETS["imagenet"]


def learning_rates(config, batch_size: int, steps: int, at: list[int]) -> list[float]:
    optimizer = optimizer_for(build_network(ARCH, 3), config, batch_size)
    schedule = schedule_for(optimizer, config, steps)
    found = []
    for step in at:
        schedule.step_update(step)
        rates = {group["lr"] for group in optimizer.param_groups}
        assert len(rates) == 1
        found += rates
    return found


def test_the_imagenet_schedule_is_the_published_one() -> None:
    """The rate rises to 0.256 at 4096 images per step in 5 epochs, then decays x0.97 every 2.4 epochs from step 0."""
    steps = 312  # 1,281,167 images in batches of 4096
    epochs = [0, 1, 2.5, 5 - 1 / 312, 5, 7.1, 7.3, 12, 100, 349.99]
    found = learning_rates(IMAGENET, 4096, steps, [round(e * steps) for e in epochs])
    decayed = [0.256 * 0.97**n for n in (2, 2, 3, 5, 41, 145)]  # 5 / 2.4 = 2.08: two decays lie in the warm-up
    assert found == pytest.approx([0, 0.0512, 0.128, 0.256 * (1 - 1 / 1560), *decayed], rel=1e-9)


def test_the_learning_rate_scales_with_the_batch() -> None:
    [at_1024] = learning_rates(IMAGENET, 1024, 1251, [12 * 1251 + 1])
    assert at_1024 == pytest.approx(0.064 * 0.97**5)


def test_the_cosine_ends_at_zero() -> None:
    config = dataclasses.replace(CONFIG, epochs=10, warmup_epochs=1, learning_rate=0.256)
    found = learning_rates(config, 256, 10, [0, 5, 50, 75, 100])
    assert found == pytest.approx([0, 0.128, 0.128, 0.256 * (1 - math.sqrt(0.5)) / 2, 0], abs=1e-12)


def test_a_short_training_has_a_short_warmup() -> None:
    """Warm-up takes at most half of the steps, so a preset's 2 epochs suit `--epochs 1`."""
    config = dataclasses.replace(CONFIG, epochs=1, warmup_epochs=2, learning_rate=0.256)
    cosine = [0.256 * (1 + math.cos(math.pi * step / 10)) / 2 for step in (5, 8)]
    assert learning_rates(config, 256, 10, [0, 1, 4, 5, 8]) == pytest.approx([0, 0.0512, 0.2048, *cosine])
    assert learning_rates(dataclasses.replace(config, epochs=4), 256, 10, [10, 20]) == pytest.approx([0.128, 0.128])


def test_rmsprop_is_tensorflows() -> None:
    """tf.train.RMSPropOptimizer: ms from 1; ms = d ms + (1-d) g^2; mom = m mom + lr g / sqrt(ms + eps); w -= mom."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 3))
    parameter = nn.Parameter(torch.tensor(weight))
    optimizer = rmsprop([{"params": [parameter], "weight_decay": 0.01}], 0.0)
    mean_square, momentum = np.ones_like(weight), np.zeros_like(weight)
    for rate in (0.0, 0.1, 0.2, 0.05, 0.01):
        gradient = rng.normal(size=weight.shape)
        parameter.grad = torch.tensor(gradient)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        gradient = gradient + 0.01 * weight  # the gradient of 0.01 x tf.nn.l2_loss
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        momentum = 0.9 * momentum + rate * gradient / np.sqrt(mean_square + 1e-3)
        weight = weight - momentum
        np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-12)


def test_all_but_batch_norm_is_decayed() -> None:
    network = build_network(ARCH, 3)
    norms = {id(p) for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    decayed, others = optimizer_for(network, CONFIG, 16).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (1e-5, 0.0)
    assert {id(p) for p in others["params"]} == norms
    assert len(decayed["params"]) + len(others["params"]) == len(list(network.parameters()))
    without_biases = parameter_groups(network, 1e-5, biases=False)
    assert all(p.ndim > 1 for p in without_biases[0]["params"])


def test_the_average_is_tensorflows_and_holds_statistics_too() -> None:
    """tf.train.ExponentialMovingAverage with num_updates: decay min(d, (1 + n) / (10 + n))."""
    torch.manual_seed(0)
    network = build_network(ARCH, 3)
    average = MovingAverage(network, 0.5)
    names = ("classifier.bias", "stem.conv.weight", "stem.norm.running_mean", "head.norm.running_var")
    expected = {name: network.state_dict()[name].double() for name in names}
    for n in range(1, 12):
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor))
        average.update(network, n)
        decay = min(0.5, (1 + n) / (10 + n))  # 0.5 from n = 8 on
        for name in names:
            expected[name] = decay * expected[name] + (1 - decay) * network.state_dict()[name].double()
    for name in names:
        torch.testing.assert_close(average.network.state_dict()[name].double(), expected[name], rtol=1e-5, atol=1e-6)


def test_overrides_change_the_network_and_not_its_architecture() -> None:
    network = build_network(ARCH, 3)
    apply_overrides(network, dataclasses.replace(CONFIG, dropout=0.7, bn_momentum=0.25))
    assert network.dropout.p == 0.7
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.25}
    assert network.arch == ARCH


def test_mixing_depends_on_its_seed_and_leaves_numpy_alone() -> None:
    config = dataclasses.replace(CONFIG, mixup=0.2, cutmix=1.0)
    mix = mix_of(config, 3)
    images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    x, targets = mix(images.clone(), labels, 11)
    assert np.random.rand() == expected
    again, _ = mix(images.clone(), labels, 11)
    other, _ = mix(images.clone(), labels, 12)
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    np.random.seed(11)
    theirs, their_targets = Mixup(0.2, 1.0, label_smoothing=0.1, num_classes=3)(images.clone(), labels)
    assert torch.equal(x, theirs)
    assert torch.equal(targets, their_targets)
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    logits = torch.randn(4, 3)
    expected_loss = -(targets * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss_of(config)(logits, targets), expected_loss)
    assert mix_of(CONFIG, 3) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0), ("batch_size", 1), ("batch_size", 64.0), ("learning_rate", 0), ("learning_rate", math.nan),
        ("optimizer", "adam"),
        ("schedule", "linear"), ("warmup_epochs", -1),
        ("estimate_statistics", 1), ("estimate_statistics", 15),
        ("decay_rate", 2), ("ema_decay", 1.0), ("dropout", 1.0),
        ("bn_momentum", 0), ("estimate_statistics", -1), ("mixup", -1), ("augmentation", "none"), ("scale_low", 0),
        ("random_erasing", 2), ("crop", 0), ("seed", -1), ("accelerator", "tpu"), ("mixed_precision", "fp8"),
        ("threads", 0), ("checkpoint_every", 0), ("label_smoothing", 1.0), ("weight_decay", -1),
    ],
)  # fmt: skip
def test_fields_out_of_range(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"--{field.replace('_', '-')} must be") as caught:
        dataclasses.replace(CONFIG, **{field: value})
    assert "\n" not in str(caught.value)


def test_mixup_wants_even_batches() -> None:
    with pytest.raises(ValueError, match="--batch-size must be even"):
        dataclasses.replace(CONFIG, mixup=0.2, batch_size=15)


def test_small_data_sets_get_smaller_batches() -> None:
    config = dataclasses.replace(PRESETS["small"], epochs=30, batch_size=128, fewest_steps=3000)
    assert [config.batch_size_for(n) for n in (6, 1151, 5000, 40_000)] == [6, 16, 32, 128]


def test_finetuning_is_adamw_at_a_rate_for_its_batch() -> None:
    optimizer = optimizer_for(build_network(ARCH, 3), PRESETS["finetune"], 32)
    assert type(optimizer) is torch.optim.AdamW
    decayed, others = optimizer.param_groups
    assert (decayed["lr"], others["lr"]) == (pytest.approx(5e-4), pytest.approx(5e-4))
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.05, 0.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_balanced_loss_is_the_weighted_mean_by_hand(smoothing: float) -> None:
    """Each image weighs N / (classes * images of its class), and smoothing spreads its target over all classes."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(8, 3)), np.array([0, 0, 0, 0, 0, 1, 1, 2])
    weights = class_weights(torch.tensor(labels), 3)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    losses = -((1 - smoothing) * log_p[np.arange(8), labels] + smoothing * log_p.mean(1))
    expected = sum(loss * 8 / (3 * {0: 5, 1: 2, 2: 1}[label]) for loss, label in zip(losses, labels, strict=True)) / 8
    loss = loss_of(dataclasses.replace(CONFIG, label_smoothing=smoothing), weights.double())
    assert float(loss(torch.tensor(logits), torch.tensor(labels))) == pytest.approx(expected)
    mixed = loss_of(dataclasses.replace(CONFIG, mixup=0.2, label_smoothing=smoothing), weights.double())
    target = np.array([[0.25, 0, 0.75]])
    expected = -(target * log_p[:1]).sum() * (0.25 * 8 / 15 + 0.75 * 8 / 3)
    assert float(mixed(torch.tensor(logits[:1]), torch.tensor(target))) == pytest.approx(expected)


@pytest.mark.parametrize(("images", "epochs"), [(20, 30), (200, 30), (300, 20), (480, 12), (1000, 12), (50_000, 12)])
def test_automatic_epochs_give_few_images_more_of_them(images: int, epochs: int) -> None:
    """180 steps of 32 images, in 12 to 30 epochs; a number stays as it is."""
    config = PRESETS["finetune"]
    assert config.for_images(images).fixed_epochs == epochs
    fixed = dataclasses.replace(config, epochs=3)
    assert fixed.for_images(images) is fixed
    with pytest.raises(ValueError, match="--epochs must be"):
        dataclasses.replace(config, epochs=0)
