"""Groups, importance, plans and rebuilding, over every registered student and two timm networks."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from compress import checkpoint, evaluate, measure, onnx_export, registry
from compress.errors import InputError
from compress.material import Normalisation
from compress.pruning import importance, latency, sparsity
from compress.pruning.groups import IN, Channels, find_channels
from compress.pruning.planning import (
    MACS,
    PARAMS,
    Counts,
    Dimension,
    LayerCount,
    channels_to_remove,
    make_width,
    plan,
    reachable,
)
from compress.pruning.structure import Measure, Subject, least, prune_to

NETWORKS = [*registry.STUDENTS, "timm/test_resnet", "timm/test_efficientnet"]
WINDOWS = torch.randn(4, 1, 32, 96, generator=torch.Generator().manual_seed(0))


def trained_looking(name: str) -> Subject:
    """A network whose batch norms are not those of a fresh one, so that nothing cancels."""
    torch.manual_seed(0)
    model = registry.build_student(name)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
    return Subject("student", name, model.eval(), 32, 96)


@pytest.fixture(scope="module", params=NETWORKS)
def pruned(request) -> tuple[Subject, Subject]:
    """A network and what is left of it at half its parameters."""
    subject = trained_looking(request.param)
    target = subject.count(PARAMS) / 2
    return subject, prune_to(subject, PARAMS, target, Measure())


def widths_of(model: nn.Module) -> set[int]:
    """Output channels of all layers but the last."""
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    return {layer.weight.shape[0] for layer in layers[:-1]}


# --- over the registry --------------------------------------------------------------------------


def test_the_target_is_kept_and_nearly_used(pruned):
    subject, smaller = pruned
    target = subject.count(PARAMS) / 2
    assert 0.93 * target < smaller.count(PARAMS) <= target


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", [PARAMS, MACS])
def test_no_portion_can_be_given_back(name, kind):
    channels = trained_looking(name).channels()
    widths, counts = channels.widths(8), channels.counts()
    target = 0.4 * counts.count(kind, [width.now for width in widths])
    kept = plan(widths, importance.score("magnitude", channels.groups, 0), counts, kind, target)
    assert counts.count(kind, kept) <= target
    for number, width in enumerate(widths):
        if kept[number] < width.now:
            more = [*kept]
            more[number] = min(width.now, kept[number] + width.unit)
            assert counts.count(kind, more) > target


def test_counts_of_a_plan_are_those_of_the_pruned_network(pruned):
    subject, smaller = pruned
    channels, after = subject.channels(), smaller.channels()
    by_name = {group.name: group.width for group in after.groups}
    kept = [by_name[group.name] for group in channels.groups]
    for kind in (PARAMS, MACS):
        assert channels.counts().count(kind, kept) == pytest.approx(smaller.count(kind))


def test_widths_are_multiples_of_eight(pruned):
    subject, smaller = pruned
    untouched = widths_of(subject.model)
    assert all(width % 8 == 0 or width in untouched for width in widths_of(smaller.model))


def test_pruning_is_what_happens_when_readers_ignore_the_channels(pruned):
    """The network left over computes what the whole one does with those weights at zero."""
    subject, smaller = pruned
    channels = subject.channels()
    left = {group.name: group.width for group in smaller.channels().groups}
    scores = importance.score("magnitude", channels.groups, 0)
    for group, score, width in zip(channels.groups, scores, channels.widths(8), strict=True):
        ignore(channels, group, channels_to_remove(score, width, left[group.name]))
    with torch.no_grad():
        expected, found = channels.model(WINDOWS), smaller.model(WINDOWS)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def ignore(channels: Channels, group, gone: list[int]) -> None:
    removed = torch.zeros(group.width, dtype=torch.bool)
    removed[gone] = True
    for piece in group.slices:
        if piece.side == IN and getattr(piece.layer, "groups", 1) == 1:
            piece.layer.weight.data[:, piece.channels[removed[piece.roots]]] = 0


def test_it_is_rebuilt_by_its_builder_and_loads_strictly(pruned):
    _, smaller = pruned
    arguments = json.loads(json.dumps(smaller.model.arguments))
    fresh = checkpoint.build("student", smaller.name, arguments)
    fresh.load_state_dict(smaller.model.state_dict(), strict=True)
    assert fresh.arguments == smaller.model.arguments
    with torch.no_grad():
        assert torch.equal(fresh.eval()(WINDOWS), smaller.model.eval()(WINDOWS))


def test_it_trains_on(pruned):
    model = copy.deepcopy(pruned[1].model).train()
    nn.functional.cross_entropy(model(torch.randn(8, 1, 32, 96)), torch.arange(8) % 5).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_it_is_pruned_again(pruned):
    subject, smaller = pruned
    target = subject.count(MACS) / 5
    again = prune_to(smaller, MACS, max(target, least(smaller, MACS, 8)[0]), Measure("bn-scale"))
    assert again.count(MACS) <= max(target, least(smaller, MACS, 8)[0])
    assert again.count(PARAMS) < smaller.count(PARAMS)
    with torch.no_grad():
        assert again.model(WINDOWS).shape == (4, 5)


@pytest.mark.parametrize("name", ["dsc50", "audiobot50", "timm/test_resnet"])
def test_the_exported_file_decides_alike(name, tmp_path):
    subject = trained_looking(name)
    smaller = prune_to(subject, MACS, subject.count(MACS) / 2, Measure("random", seed=3))
    normalisation = Normalisation(np.full(32, -50, np.float32), np.full(32, 10, np.float32))
    onnx_export.to_onnx(smaller.model, normalisation, 32, 96, tmp_path / "pruned.onnx")
    decibels = (WINDOWS.numpy() * 10 - 50).astype(np.float32)
    found = evaluate.onnx_predictor(tmp_path / "pruned.onnx")(decibels)
    with torch.no_grad():
        deployed = onnx_export.Deployed(smaller.model, normalisation).eval()
        expected = deployed(torch.from_numpy(decibels))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", NETWORKS)
def test_everything_at_its_least_is_what_can_be_reached(name):
    subject = trained_looking(name)
    floor, unsupported = least(subject, PARAMS, 8)
    assert not unsupported
    assert prune_to(subject, PARAMS, floor, Measure()).count(PARAMS) == floor
    with pytest.raises(InputError, match=f"cannot be reached.*{floor:,}"):
        prune_to(subject, PARAMS, floor - 1, Measure())


# --- importance, by hand --------------------------------------------------------------------------


class TwoFilters(nn.Module):
    """1x1 convolution to two channels, batch norm, 1x1 convolution to three logits."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(2)
        self.last = nn.Conv2d(2, 3, 1, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1))
            self.norm.weight.copy_(torch.tensor([-3.0, 1.0]))
            self.last.weight.copy_(
                torch.tensor([[1.0, 0.0], [1.0, 2.0], [1.0, 0.0]]).reshape(3, 2, 1, 1)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(x))).mean((2, 3))


def two_filters():
    channels = find_channels(TwoFilters(), "two", 4, 4)
    assert len(channels.groups) == 1 and channels.groups[0].width == 2
    return channels


def test_magnitude_by_hand():
    """Filters 1, 9 relative to 5: 0.2, 1.8. Readers 3, 4 relative to 3.5: 6/7, 8/7; their mean."""
    found = importance.magnitude(two_filters().groups[0])
    torch.testing.assert_close(found, torch.tensor([(0.2 + 6 / 7) / 2, (1.8 + 8 / 7) / 2]))


def test_bn_scale_by_hand():
    torch.testing.assert_close(
        importance.bn_scale(two_filters().groups[0]), torch.tensor([1.5, 0.5])
    )


def test_taylor_by_hand():
    """Readers of channel 0 weigh 1, 1, 1, of channel 1 0, 2, 0; gradients 1, 2, 3 and 4, 5, 6."""
    channels = two_filters()
    gradient = torch.tensor([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]).reshape(3, 2, 1, 1)
    taylor = importance.Taylor(channels.groups)
    for sign in (1, -1):
        channels.model.last.weight.grad = sign * gradient
        taylor.add()
    torch.testing.assert_close(taylor.scores()[0], torch.tensor([36.0, 100.0]))


def test_taylor_predicts_the_change_of_the_loss():
    """Shrinking all readers of a channel by a little changes the loss as its score says."""
    subject = trained_looking("dsc50")
    channels = subject.channels()
    labels = torch.arange(4)

    def loss() -> torch.Tensor:
        return nn.functional.cross_entropy(channels.model(WINDOWS), labels)

    taylor = importance.Taylor(channels.groups)
    loss().backward()
    taylor.add()
    small = 1e-3
    for group, score in zip(channels.groups, taylor.scores(), strict=True):
        channel = int(score.argmax())
        before = float(loss().detach())
        for piece in group.slices:
            if piece.side == IN:
                chosen = piece.channels[piece.roots == channel]
                piece.layer.weight.data[:, chosen] *= 1 - small
        after = float(loss().detach())
        for piece in group.slices:
            if piece.side == IN:
                chosen = piece.channels[piece.roots == channel]
                piece.layer.weight.data[:, chosen] /= 1 - small
        assert abs(after - before) / small == pytest.approx(float(score.max()) ** 0.5, rel=0.05)


def test_random_differs_by_seed_and_repeats():
    groups = two_filters().groups
    first, again, other = (importance.score("random", groups, seed) for seed in (1, 1, 2))
    assert first == again != other
    subject = trained_looking("audiobot50")
    states = [
        prune_to(subject, PARAMS, 25_000, Measure("random", seed=seed)).model.state_dict()
        for seed in (1, 1, 2)
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(
        states[0][key].shape != states[2][key].shape or not torch.equal(states[0][key], tensor)
        for key, tensor in states[2].items()
    )


# --- plans, by hand -------------------------------------------------------------------------------


def two_layers() -> Counts:
    """8 -> a -> b -> 4 linear layers without biases; a and b are the groups 0 and 1."""
    a, b = Dimension(0, ((0, 1),)), Dimension(0, ((1, 1),))
    layers = [(Dimension(8), a), (a, b), (b, Dimension(4))]
    counted = tuple(LayerCount(i, o, params_per_pair=1, macs_per_pair=2) for i, o in layers)
    return Counts(counted, {PARAMS: 10, MACS: 0})


def test_the_least_important_portion_goes_first():
    counts = two_layers()
    widths = [make_width(16, 1, 8), make_width(16, 1, 8)]
    assert counts.count(PARAMS, [16, 16]) == 10 + 128 + 256 + 64
    scores = [[1.0] * 16, [2.0] * 16]
    assert plan(widths, scores, counts, PARAMS, 400) == [8, 16]
    assert plan(widths, scores[::-1], counts, PARAMS, 400) == [16, 8]
    assert plan(widths, scores, counts, PARAMS, 200) == [8, 8]
    assert reachable(widths, counts, PARAMS) == 10 + 64 + 64 + 32


def test_weighing_against_cost_prefers_what_saves_more():
    widths = [make_width(16, 1, 8), make_width(16, 1, 8)]
    scores = [[1.05] * 16, [1.0] * 16]
    counts = two_layers()
    assert plan(widths, scores, counts, PARAMS, 400) == [16, 8]
    assert plan(widths, scores, counts, PARAMS, 400, per_cost=True) == [8, 16]


def test_a_ragged_width_loses_its_remainder_first():
    width = make_width(21, 1, 8)
    assert width.portions() == [5, 8] and width.least == 8
    assert make_width(6, 1, 8).portions() == []
    assert make_width(12, 3, 8).portions() == []  # 3 blocks lose alike: only 24s are multiples
    assert make_width(48, 3, 8).portions() == [24]


def test_blocks_lose_the_same_channels():
    width = make_width(16, 2, 4)
    assert channels_to_remove([5, 1, 7, 2, 9, 9, 3, 4], width, 8) == [1, 3, 6, 7, 9, 11, 14, 15]


# --- what the library cannot do -------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 16, 3, padding=1)
        self.memory = nn.GRU(16, 12, batch_first=True)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.convolution(x).relu().mean(2).transpose(1, 2)
        return self.head(self.memory(features)[0].mean(1))


def test_an_unsupported_operator_is_named_with_its_layer():
    with pytest.raises(InputError, match="nothing can be pruned.*GRU at memory"):
        find_channels(Recurrent(), "recurrent", 8, 8)


def test_what_can_be_pruned_beside_it_is():
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 1, 3), Recurrent())
    channels = find_channels(model, "mixed", 16, 16)
    names = [group.name for group in channels.groups]
    assert "0" in names and "3.convolution" not in names
    assert any("GRU at 3.memory" in reason for reason in channels.unsupported)


def test_attention_is_left_alone_and_the_rest_pruned():
    subject = trained_looking("timm/test_vit")
    floor, unsupported = least(subject, PARAMS, 8)
    assert any("qkv" in reason for reason in unsupported)
    smaller = prune_to(subject, PARAMS, 0.8 * subject.count(PARAMS), Measure())
    assert floor < smaller.count(PARAMS) <= 0.8 * subject.count(PARAMS)


# --- single weights -------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_smallest_weights_become_zero(scope):
    model = registry.build_student("audiobot50")
    before = {name: weight.detach().clone() for name, weight in sparsity.prunable_weights(model)}
    sparsity.set_zeros(model, 0.5, scope)
    assert sparsity.sparsity_of(model) == pytest.approx(0.5, abs=1e-3)
    for name, weight in sparsity.prunable_weights(model):
        zero = weight == 0
        if scope == "layer":
            assert float(zero.float().mean()) == pytest.approx(0.5, abs=0.01)
        if zero.any() and not zero.all():
            assert before[name][zero].abs().max() <= before[name][~zero].abs().min()
        assert torch.equal(weight[~zero], before[name][~zero])


def test_zeros_stay_zero_while_training():
    model = registry.build_student("audiobot50")
    sparsity.set_zeros(model, 0.7, "global")
    places = {name: weight == 0 for name, weight in sparsity.prunable_weights(model)}
    sparsity.keep_zeros(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(WINDOWS), torch.arange(4)).backward()
        optimiser.step()
    for name, weight in sparsity.prunable_weights(model):
        assert not weight[places[name]].any()
        assert (weight[~places[name]] != 0).all()


# --- latency --------------------------------------------------------------------------------------


def test_a_latency_is_looked_for_by_measuring(monkeypatch, tmp_path):
    """With a time in proportion to the MACs, what is found is just under the wanted share."""
    subject = trained_looking("dsc50")
    whole = subject.count(MACS)
    monkeypatch.setattr(latency, "measured_ratio", lambda s, *_: 0.2 + 0.8 * s.count(MACS) / whole)
    normalisation = Normalisation(np.zeros(32, np.float32), np.ones(32, np.float32))
    found = latency.macs_for_ratio(subject, normalisation, tmp_path, 0.6, Measure())
    assert 0.4 * whole < found <= 0.55 * whole
    with pytest.raises(InputError, match="cannot be reached"):
        latency.macs_for_ratio(subject, normalisation, tmp_path, 0.1, Measure())


def test_counts_of_layers_are_exact_for_every_student():
    for name in registry.STUDENTS:
        channels = trained_looking(name).channels()
        now = [group.width for group in channels.groups]
        counts = channels.counts()
        assert counts.count(PARAMS, now) == measure.count_params(channels.model)
        assert abs(counts.rest[MACS]) < 1, "every multiply-accumulate belongs to some layer"
