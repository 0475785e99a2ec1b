"""Augmentation: what each change keeps, and that a view is a function of (seed, view, window)."""

from __future__ import annotations

import pytest
import torch

from compress.augment import (
    Augmenter,
    mix_power,
    shift_bands,
    stretch_and_roll,
    uniforms,
)
from compress.recipe import Augmentation

EVERYTHING = Augmentation(
    time_shift_probability=0.5,
    frequency_shift_probability=0.5,
    time_stretch_probability=0.5,
    noise_probability=0.5,
    mixup_probability=0.5,
)


def spectrograms(count: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return -80 * torch.rand(count, 32, 96, generator=generator)


def test_draws_depend_on_seed_view_and_window_alone():
    windows = torch.tensor([5, 0, 123_456_789])
    one = uniforms(3, 7, windows)
    alone = uniforms(3, 7, torch.tensor([123_456_789]))
    for name in one:
        assert one[name][2] == alone[name][0]
        assert not torch.equal(one[name], uniforms(3, 8, windows)[name])
        assert not torch.equal(one[name], uniforms(4, 7, windows)[name])


def test_draws_are_uniform_and_uncorrelated():
    draws = uniforms(0, 0, torch.arange(50_000))
    table = torch.stack(list(draws.values()))
    assert table.min() >= 0 and table.max() < 1
    assert (table.mean(1) - 0.5).abs().max() < 0.01
    assert (table.var(1) - 1 / 12).abs().max() < 0.002
    correlation = torch.corrcoef(table) - torch.eye(len(table))
    assert correlation.abs().max() < 0.02
    neighbours = torch.corrcoef(torch.stack([table[0, :-1], table[0, 1:]]))[0, 1]
    assert neighbours.abs() < 0.02


def test_rate_one_is_a_roll():
    x = spectrograms(2)
    shifts = torch.tensor([7.0, -20.0])
    moved = stretch_and_roll(x, torch.ones(2), shifts)
    for row, shift in enumerate((7, -20)):
        assert torch.equal(moved[row], torch.roll(x[row], shift, dims=1))


def test_stretch_about_the_middle():
    ramp = torch.arange(96.0).expand(1, 4, 96).clone()
    slow = stretch_and_roll(ramp, torch.tensor([0.8]), torch.zeros(1))
    middle = 95 / 2
    expected = (torch.arange(96) - middle) * 0.8 + middle
    torch.testing.assert_close(slow[0, 0], expected, atol=1e-3, rtol=0)


def test_stretch_keeps_the_range():
    x = spectrograms(16)
    moved = stretch_and_roll(x, torch.linspace(0.8, 1.2, 16), torch.linspace(-48, 48, 16).round())
    assert moved.shape == x.shape
    assert moved.min() >= x.min() and moved.max() <= x.max()


def test_shift_bands_moves_up_and_fills_with_the_floor():
    x = spectrograms(3)
    floor = torch.full((32,), -9.0)
    moved = shift_bands(x, torch.tensor([0, 3, -2]), floor)
    assert torch.equal(moved[0], x[0])
    assert torch.equal(moved[1, 3:], x[1, :-3]) and (moved[1, :3] == -9).all()
    assert torch.equal(moved[2, :-2], x[2, 2:]) and (moved[2, -2:] == -9).all()


def test_mixed_power_by_hand():
    # Equal shares of 0 dB and 0 dB stay 0 dB; 0 dB with -80 dB falls by 3.01 dB, and the loudest
    # bin is set back to the loudest of the two windows.
    a = torch.tensor([[[0.0, -80.0], [0.0, -40.0]]])
    b = torch.tensor([[[0.0, -80.0], [-80.0, -40.0]]])
    mixed = mix_power(a, b, torch.tensor([0.5]))
    expected = torch.tensor([[[0.0, -80.0], [-3.0103, -40.0]]])
    torch.testing.assert_close(mixed, expected, atol=1e-3, rtol=0)


def test_mixture_keeps_floor_and_peak():
    a, b = spectrograms(8, 1), spectrograms(8, 2)
    mixed = mix_power(a, b, torch.linspace(0.5, 1, 8))
    assert mixed.min() >= -80
    loudest = torch.maximum(a.amax((1, 2)), b.amax((1, 2)))
    torch.testing.assert_close(mixed.amax((1, 2)), loudest, atol=1e-3, rtol=0)


def test_nothing_asked_changes_nothing():
    x = spectrograms(6)
    augmenter = Augmenter(Augmentation(), seed=0, count=6)
    draws = augmenter.draw(0, torch.arange(6))
    assert augmenter.mix(draws) is None
    assert torch.equal(augmenter.standardised(x.clone(), draws, torch.zeros(32)), x)


def test_a_window_gets_the_same_view_in_any_batch():
    x = spectrograms(6) / 20
    augmenter = Augmenter(EVERYTHING, seed=1, count=6)
    floor = torch.full((32,), -2.0)
    windows = torch.arange(6)
    together = augmenter.standardised(x.clone(), augmenter.draw(3, windows), floor)
    for row in range(6):
        one = torch.tensor([row])
        alone = augmenter.standardised(x[one].clone(), augmenter.draw(3, one), floor)
        assert torch.equal(alone[0], together[row])
    assert not torch.equal(together, x)


def test_each_change_comes_as_often_as_asked():
    count = 4_000
    x = torch.zeros(count, 32, 96)
    augmenter = Augmenter(Augmentation(noise_probability=0.2), seed=0, count=count)
    noisy = augmenter.standardised(x, augmenter.draw(0, torch.arange(count)), torch.zeros(32))
    changed = noisy.abs().amax((1, 2)) > 0
    assert changed.float().mean().item() == pytest.approx(0.2, abs=0.03)
    spread = noisy[changed].std(dim=(1, 2))
    assert spread.min() > 0.009 and spread.max() < 0.11
