"""Augmentation: what each change keeps, and that a view is a function of (seed, view, window)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from compress.augment import (
    Augmenter,
    OtherClasses,
    add_background,
    beta_quantiles,
    change_gain,
    later_window,
    mask,
    mix_power,
    mix_ratio,
    mix_style,
    shift_bands,
    stretch_and_roll,
    uniforms,
)
from compress.data.sets import SpectrogramSet, encode_db
from compress.frontend import FrontEnd
from compress.material import Material, measure_normalisation
from compress.recipe import Augmentation

PROBABILITIES = [
    spec.name
    for spec in dataclasses.fields(Augmentation)
    if spec.name.endswith("_probability")
]
EVERYTHING = Augmentation(**dict.fromkeys(PROBABILITIES, 0.5))


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


def test_gain_by_hand():
    x = torch.tensor([[[-80.0, -75.0, -30.0, -2.0]], [[-80.0, -75.0, -30.0, -2.0]]])
    changed = change_gain(x, torch.tensor([6.0, -6.0]))
    expected = torch.tensor([[[-80.0, -69.0, -24.0, 0.0]], [[-80.0, -80.0, -36.0, -8.0]]])
    torch.testing.assert_close(changed, expected)


def test_background_by_hand():
    # One bin of sound in each; the background's is brought to 10 dB below the window's.
    a = torch.tensor([[[0.0, -80.0]]])
    b = torch.tensor([[[-80.0, -20.0]]])
    mixed = add_background(a, b, torch.tensor([10.0]))
    torch.testing.assert_close(mixed, torch.tensor([[[0.0, -10.0]]]), atol=1e-3, rtol=0)
    torch.testing.assert_close(add_background(a, a, torch.tensor([10.0])), a, atol=0.5, rtol=0)


def test_background_keeps_floor_and_peak():
    a, b = spectrograms(6, 1), spectrograms(6, 2)
    mixed = add_background(a, b, torch.linspace(0, 40, 6))
    assert mixed.min() >= -80
    torch.testing.assert_close(mixed.amax((1, 2)), a.amax((1, 2)), atol=1e-3, rtol=0)
    assert (mixed[5] - a[5]).abs().mean() < (mixed[0] - a[0]).abs().mean()


def test_between_class_ratio_by_hand():
    # Equal levels: r = 0.8 means amplitudes 0.8 and 0.2, powers 0.64 and 0.04, a gap of 12.04 dB.
    a, b = torch.tensor([[[0.0, -80.0]]]), torch.tensor([[[-80.0, 0.0]]])
    mixed = mix_ratio(a, b, torch.tensor([0.8]))
    torch.testing.assert_close(mixed, torch.tensor([[[0.0, -12.0412]]]), atol=1e-3, rtol=0)
    # The second 20 dB lower in level: what is heard stays the same.
    quieter = torch.tensor([[[-80.0, -20.0]]])
    mixed = mix_ratio(a, quieter, torch.tensor([0.8]))
    torch.testing.assert_close(mixed, torch.tensor([[[0.0, -12.0412]]]), atol=0.02, rtol=0)


def test_between_class_ratio_one_is_the_first_alone():
    a, b = spectrograms(2, 1), spectrograms(2, 2)
    a[:, 0, 0] = b[:, 1, 1] = 0.0
    torch.testing.assert_close(mix_ratio(a, b, torch.ones(2)), a, atol=1e-3, rtol=0)
    torch.testing.assert_close(mix_ratio(a, b, torch.zeros(2)), b, atol=1e-3, rtol=0)


def test_partners_are_of_other_classes_and_reach_all_of_them():
    labels = torch.tensor([2, 0, 1, 0, -1, 2, 0])
    others = OtherClasses(labels)
    uniform = torch.linspace(0, 0.9999, 50)
    for window in range(7):
        found = others.pick(torch.full((50,), window), uniform)
        assert set(found.tolist()) == set(torch.nonzero(labels != labels[window])[:, 0].tolist())
    assert not OtherClasses(torch.zeros(4, dtype=torch.long)).several


def test_style_by_hand():
    # Mean 1 and deviation 1 with half of mean 5 and deviation 3: mean 3, deviation 2.
    x, other = torch.tensor([[[0.0, 2.0, 0.0, 2.0]]]), torch.tensor([[[2.0, 8.0, 2.0, 8.0]]])
    styled = mix_style(x, other, torch.tensor([0.5]))
    torch.testing.assert_close(styled, torch.tensor([[[1.0, 5.0, 1.0, 5.0]]]))
    torch.testing.assert_close(mix_style(x, other, torch.ones(1)), x)
    silent = torch.full((1, 1, 4), -3.0)
    assert torch.isfinite(mix_style(silent, other, torch.tensor([0.5]))).all()


def test_shares_of_style_follow_the_beta_distribution():
    for alpha in (0.3, 1.0):
        shares = beta_quantiles(alpha)
        assert shares.min() > -1e-9 and shares.max() <= 1 and (shares.diff() >= 0).all()
        assert shares.mean().item() == pytest.approx(0.5, abs=1e-3)
        variance = 1 / (4 * (2 * alpha + 1))
        assert shares.var().item() == pytest.approx(variance, abs=1e-3)


def test_masks_by_hand():
    x = torch.ones(3, 4, 10)
    hidden = mask(x, torch.tensor([0.9, 3.7, 10.0]), torch.tensor([0.5, 0.0, 0.999]), 2) == 0
    assert not hidden[0].any() and hidden[2].all()
    assert hidden[1, :, :3].all() and not hidden[1, :, 3:].any()
    hidden = mask(x[:1], torch.tensor([2.0]), torch.tensor([0.999]), 1) == 0
    assert hidden[0, 2:].all() and not hidden[0, :2].any()


def test_a_later_window_is_the_sound_in_between():
    sound = spectrograms(1, 5)[0].expand(1, 32, 96)
    long = torch.cat([sound, spectrograms(1, 6)], dim=2).clamp(max=-1.0)  # (1, 32, 192)
    first, second = long[:, :, :96].clone(), long[:, :, 31:127].clone()
    first[0, 3, 0] = 0.0  # the loudest bin of the first, which the later ones have not
    by = torch.tensor([12])
    lower = (second - 7).clamp(min=-80)  # the second has another reference
    found = later_window(first, lower, by, 31, to_loudest=False)
    expected = long[:, :, 12:108]
    audible = expected[:, :, 84:] > -72
    torch.testing.assert_close(found[:, :, :84], expected[:, :, :84])
    torch.testing.assert_close(
        found[:, :, 84:][audible], expected[:, :, 84:][audible], atol=1e-3, rtol=0
    )
    found = later_window(first, lower, by, 31, to_loudest=True)
    assert found.max().item() == pytest.approx(0, abs=1e-4) and found.min() >= -80
    # Windows that lie otherwise to one another are left alone.
    assert torch.equal(later_window(first, spectrograms(1, 9), by, 31, True), first)


def clips_of_two_windows(count: int = 6) -> SpectrogramSet:
    """Clips of 127 frames, cut into windows 31 frames apart."""
    long = np.concatenate([spectrograms(count, 5), spectrograms(count, 6)], axis=2)
    windows = np.stack([long[:, :, :96], long[:, :, 31:127]], axis=1).reshape(-1, 32, 96)
    numbers = np.arange(len(windows))
    return SpectrogramSet(
        name="clips", codes=encode_db(windows), labels=numbers // 2 % 2, class_names=("a", "b"),
        recording_ids=numbers // 2, clip_ids=numbers // 2, folds=None,
        frontend=FrontEnd(reference="fixed"), synthetic=True, content_hash="",
    )  # fmt: skip


def material(data: SpectrogramSet, augmentation: Augmentation) -> Material:
    windows = np.arange(len(data))
    return Material([(data, windows)], 2, measure_normalisation(data, windows), augmentation, 3)


def test_crop_in_material_takes_frames_of_the_next_window_of_the_clip():
    data = clips_of_two_windows()
    crops = material(data, Augmentation(time_crop_probability=1.0))
    plain = material(data, Augmentation())
    assert crops.croppable == 6 and plain.croppable == 0
    x, _ = crops.view(torch.arange(12), 0)
    whole, _ = plain.view(torch.arange(12), 0)
    assert torch.equal(x[1::2], whole[1::2])  # the last of a clip has no next one
    for row in range(0, 12, 2):
        long = torch.cat([whole[row, 0], whole[row + 1, 0, :, 65:]], dim=1)
        starts = [by for by in range(1, 31)
                  if torch.allclose(x[row, 0], long[:, by : by + 96], atol=1e-2)]  # fmt: skip
        assert len(starts) == 1


def test_labels_are_mixed_as_the_sounds_are():
    data = clips_of_two_windows()
    plain, _ = material(data, Augmentation()).view(torch.arange(12), 0)
    for probability, mixed in (
        ("between_class_probability", True),
        ("background_probability", False),
        ("style_probability", False),
        ("gain_probability", False),
        ("time_mask_probability", False),
        ("frequency_mask_probability", False),
    ):
        x, targets = material(data, Augmentation(**{probability: 1.0})).view(torch.arange(12), 0)
        assert not torch.equal(x, plain) and x.shape == plain.shape, probability
        assert torch.isfinite(x).all()
        torch.testing.assert_close(targets.sum(1), torch.ones(12))
        assert bool(((targets > 0.01) & (targets < 0.99)).any()) == mixed, probability


def test_a_view_is_the_same_in_any_batch_with_everything_on():
    data = clips_of_two_windows()
    everything = material(data, EVERYTHING)
    together, targets = everything.view(torch.arange(12), 5)
    for row in range(12):
        alone, target = everything.view(torch.tensor([row]), 5)
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(target[0], targets[row])
