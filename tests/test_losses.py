"""Losses against slow references and values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from compress import registry
from compress.losses.distillation import SoftTargets
from compress.losses.labels import CrossEntropy, Focal, balanced_weights
from compress.tasks import smooth


def test_soft_targets_by_hand():
    # T = 2: teacher softens (2 ln 3, 0) to (3/4, 1/4), the student (0, 0) to (1/2, 1/2).
    # KL = 3/4 ln(3/2) + 1/4 ln(1/2); times T^2 = 4. The second window agrees and costs nothing.
    teacher = torch.tensor([[2 * math.log(3), 0.0], [5.0, 1.0]])
    student = torch.tensor([[0.0, 0.0], [5.0, 1.0]])
    by_hand = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2
    assert SoftTargets(2.0)(student, teacher).item() == pytest.approx(by_hand, abs=1e-6)


def test_soft_targets_against_a_slow_reference():
    generator = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 7, 5, generator=generator).double().unbind(0)
    temperature, total = 3.0, 0.0
    for s, t in zip(student, teacher, strict=True):
        p = [math.exp(v / temperature) for v in t]
        q = [math.exp(v / temperature) for v in s]
        p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    expected = temperature**2 * total / 7
    assert SoftTargets(temperature)(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_gradient_of_soft_targets_keeps_its_size_over_temperatures():
    teacher = torch.tensor([[0.3, -0.2, 0.1]])
    sizes = []
    for temperature in (5.0, 50.0):
        student = torch.zeros(1, 3, requires_grad=True)
        SoftTargets(temperature)(student, teacher).backward()
        sizes.append(student.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


@pytest.mark.parametrize("name", sorted(registry.DISTILL_LOSSES))
def test_every_distillation_loss_vanishes_where_the_student_equals_the_teacher(name):
    loss = registry.DISTILL_LOSSES[name].load()(2.0)
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    assert loss(logits, logits.clone()).item() == pytest.approx(0.0, abs=1e-6)
    other = logits.flip(0).requires_grad_()
    value = loss(other, logits)
    value.backward()
    assert value.item() > 0 and torch.isfinite(other.grad).all() and other.grad.abs().sum() > 0


def test_cross_entropy_by_hand_and_unlabelled_rows():
    logits = torch.tensor([[math.log(3), 0.0, 0.0], [0.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    targets = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0, 0, 0]])
    expected = (-math.log(3 / 5) + math.log(3)) / 2
    assert CrossEntropy()(logits, targets).item() == pytest.approx(expected, abs=1e-6)


def test_all_rows_unlabelled_costs_nothing():
    assert CrossEntropy()(torch.randn(3, 4), torch.zeros(3, 4)).item() == 0


def test_focal_by_hand():
    # p of the label is 3/5: (2/5)^2 * ln(5/3)
    logits = torch.tensor([[math.log(3), 0.0, 0.0]])
    targets = torch.tensor([[1.0, 0, 0]])
    assert Focal()(logits, targets).item() == pytest.approx(0.16 * math.log(5 / 3), abs=1e-6)
    assert Focal(0.0)(logits, targets).item() == pytest.approx(math.log(5 / 3), abs=1e-6)


@pytest.mark.parametrize("name", sorted(registry.LABEL_LOSSES))
def test_every_label_loss_prefers_the_right_class(name):
    loss = registry.LABEL_LOSSES[name].load()()
    targets = torch.eye(4)
    assert loss(4 * torch.eye(4), targets) < loss(torch.zeros(4, 4), targets)


def test_smoothing_keeps_the_mass_of_a_label():
    targets = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]])
    smoothed = smooth(targets, 0.2)
    assert smoothed[0].tolist() == pytest.approx([0.85, 0.05, 0.05, 0.05])
    assert smoothed[1].sum() == 0


@pytest.mark.parametrize("name", sorted(registry.LABEL_LOSSES))
def test_equal_class_weights_change_nothing(name):
    build = registry.LABEL_LOSSES[name].load()
    logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(2))
    targets = torch.eye(4)[[0, 1, 2, 3, 3, 1, 0, 2, 2]]
    targets[4] = 0  # unlabelled
    weighted = build(weights=torch.full((4,), 3.0))(logits, targets)
    assert weighted.item() == pytest.approx(build()(logits, targets).item(), rel=1e-6)


def test_weighted_cross_entropy_is_torchs_for_hard_labels():
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0, 0])
    weights = torch.tensor([0.5, 2.0, 0.0])
    expected = torch.nn.functional.cross_entropy(logits, labels, weight=weights)
    found = CrossEntropy(weights)(logits, torch.eye(3)[labels])
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_weighted_focal_by_hand():
    # p of the labels: 3/5 and 1/3; weights 1 and 3: (1 * 0.16 ln(5/3) + 3 * (4/9) ln 3) / 4
    logits = torch.tensor([[math.log(3), 0.0, 0.0], [0.0, 0.0, 0.0]])
    targets = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    expected = (0.16 * math.log(5 / 3) + 3 * (4 / 9) * math.log(3)) / 4
    found = Focal(weights=torch.tensor([1.0, 3.0, 9.0]))(logits, targets)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_only_windows_of_weight_zero_cost_nothing():
    found = CrossEntropy(torch.tensor([0.0, 1.0]))(torch.randn(3, 2), torch.eye(2)[[0, 0, 0]])
    assert found.item() == 0


def test_balanced_weights_are_scikit_learns():
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    labels = torch.tensor([0] * 7 + [1] * 2 + [2] * 11)
    expected = sklearn.compute_class_weight(
        "balanced", classes=torch.arange(3).numpy(), y=labels.numpy()
    )
    counts = torch.bincount(labels).float()
    assert balanced_weights(counts).tolist() == pytest.approx(expected.tolist())
    assert balanced_weights(torch.tensor([4.0, 0.0, 4.0])).tolist() == [1.0, 0.0, 1.0]
