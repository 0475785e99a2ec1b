"""Training steps by hand on the CPU, and as graphs on a CUDA device where there is one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_fit import small_set

from compress import fit, recipe, registry
from compress.losses.distillation import SoftTargets
from compress.losses.labels import CrossEntropy
from compress.material import Material, measure_normalisation
from compress.recipe import Augmentation
from compress.steps import GraphedSteps, PlainSteps, follow, rates_on_device, set_rate
from compress.tasks import DistillTask, LabelTask

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(autouse=True)
def deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    """As compress.session.start_processes sets it."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def test_a_mean_of_weights_without_asking_the_device_is_the_same_mean() -> None:
    torch.manual_seed(0)
    model = registry.build_student("audiobot50")
    asking, silent = fit.weight_average(model, 0.9), fit.weight_average(model, 0.9)
    assert asking is not None and silent is not None
    for step in range(12):
        with torch.no_grad():
            for weight in model.parameters():
                weight += torch.randn_like(weight)
            for name, value in model.named_buffers():
                value += step if name.endswith("num_batches_tracked") else 0.1 * step
        asking.update_parameters(model)
        follow(silent, model, 0.9)
    for name, value in asking.state_dict().items():
        torch.testing.assert_close(silent.state_dict()[name], value, rtol=1e-5, atol=1e-5)


def test_a_mean_of_weights_counts_its_steps_on_the_device_of_the_network() -> None:
    model = torch.nn.Linear(2, 2, device="meta")
    average = fit.weight_average(model, 0.9)
    assert average is not None and average.n_averaged.device.type == "meta"


def test_a_step_is_not_recorded_where_its_state_lies_elsewhere() -> None:
    model = torch.nn.Linear(2, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    with pytest.raises(ValueError, match="on the CUDA device"):
        GraphedSteps(model, optimiser, LabelTask(recipe.load("distill")), None)


class Rehearsed(GraphedSteps):
    """Recorded steps without a device: a replay computes the held batch anew."""

    def __init__(self, *arguments, **named) -> None:
        PlainSteps.__init__(self, *arguments, **named)
        self._recorded = {}

    running = PlainSteps.running

    def _capture(self, held):
        terms: dict = {}
        return SimpleNamespace(replay=lambda: terms.update(self.compute(held))), held, terms


@pytest.mark.parametrize("name", ["audiobot50", "tfnet50", "dsc50"])
def test_recording_leaves_no_trace_in_a_training(tmp_path, monkeypatch, name: str) -> None:
    """Warm-up steps are taken back: weights, batch norms, moments, mean and random numbers."""
    found = []
    for kind in (PlainSteps, Rehearsed):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        monkeypatch.setattr(fit, "PlainSteps", kind)
        found.append(trained(folder, True, name, device="cpu", precision="float32"))
    (plain, one), (recorded, other) = found
    assert [row["train_loss"] for row in one.history] == [r["train_loss"] for r in other.history]
    for key, value in plain.items():
        assert torch.equal(value, recorded[key]), key


def test_a_rate_is_set_as_a_number_and_as_a_tensor() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    optimiser = torch.optim.AdamW([weight], lr=1.0, fused=True)
    set_rate(optimiser, 0.5)
    assert optimiser.param_groups[0]["lr"] == 0.5
    rates_on_device(optimiser, torch.device("cpu"))
    rate = optimiser.param_groups[0]["lr"]
    set_rate(optimiser, 0.25)
    assert rate is optimiser.param_groups[0]["lr"] and float(rate) == 0.25


def test_a_plain_step_is_one_step_of_the_optimiser_by_hand() -> None:
    from lightning_fabric import Fabric

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32 * 96, 5))
    fabric = Fabric(accelerator="cpu", devices=1)
    wrapped, optimiser = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    material = material_of("cpu", Augmentation())
    batch = next(material.batches(0, 0, 20, view=0))
    weight = model[1].weight
    loss = CrossEntropy()(model(batch.x), batch.targets)
    expected = weight.detach() - 0.1 * torch.autograd.grad(loss, weight)[0]
    average = fit.weight_average(model, 0.9)
    steps = PlainSteps(
        wrapped, optimiser, LabelTask(recipe.load("distill")), fabric, average=average, decay=0.9
    )
    terms = steps(batch)
    assert terms["loss"].item() == pytest.approx(loss.item()) and not terms["loss"].requires_grad
    torch.testing.assert_close(weight.detach(), expected)
    assert int(average.n_averaged) == 1
    torch.testing.assert_close(average.module[1].weight.detach(), expected)


def test_logits_of_a_view_are_those_that_the_task_was_given() -> None:
    logits = torch.randn(3, 60, 5)
    task = DistillTask(recipe.load("distill"), SoftTargets(2.0), 0.0, 1.0, logits)
    material = material_of("cpu", Augmentation())
    for view in (2, 0, 2, 1):
        batch = next(material.batches(0, 0, 20, view=view))
        terms = task(torch.zeros(20, 5), batch)
        by_hand = SoftTargets(2.0)(torch.zeros(20, 5), logits[view, batch.positions])
        assert terms["loss"].item() == pytest.approx(by_hand.item())


def material_of(device: str, augmentation: Augmentation) -> Material:
    data = small_set()
    windows = np.arange(60)
    normalisation = measure_normalisation(data, windows)
    return Material([(data, windows)], 5, normalisation, augmentation, seed=0, device=device)


def trained(folder, graphs: bool, name: str, device: str = "cuda", **changes):
    """A student under made-up logits on the device: weights on the CPU, and how it went."""
    from lightning_fabric import Fabric

    rules = recipe.load("few", batch_size=16, patience=1000, **{"epochs": 8, **changes})
    material = material_of(device, rules.augmentation)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(rules.views or rules.epochs, 60, 5, generator=generator)
    task = DistillTask(rules, SoftTargets(2.0), 0.5, 0.5, logits, material.class_counts)
    torch.manual_seed(0)
    model = registry.build_student(name)
    data, windows = small_set(), np.arange(60)
    progress = fit.train_network(
        model, task, material, (data, windows, measure_normalisation(data, windows)), rules, 0,
        folder / "checkpoint.pt", Fabric(accelerator=device, devices=1), "test", graphs=graphs,
    )  # fmt: skip
    return {key: value.cpu() for key, value in model.state_dict().items()}, progress


@cuda
@pytest.mark.parametrize("name", sorted(registry.STUDENTS))
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_graphs_train_as_single_launches_do(tmp_path, name: str, precision: str) -> None:
    """Alike, not equal: dropout draws other numbers in a graph."""
    found = []
    for graphs in (True, False):
        folder = tmp_path / str(graphs)
        folder.mkdir()
        changes = {"precision": precision, "class_weights": ("balanced",)}
        found.append(trained(folder, graphs, name, **changes))
    (recorded, one), (launched, other) = found
    losses = [[row["train_loss"] for row in progress.history] for progress in (one, other)]
    assert np.isfinite(losses).all() and losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[0][:2], losses[1][:2], rtol=0.2)
    assert recorded.keys() == launched.keys()


@cuda
def test_a_recorded_training_repeats_itself_and_continues(tmp_path, monkeypatch) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    whole, _ = trained(folders[0], True, "tfnet50")
    again, _ = trained(folders[1], True, "tfnet50")
    for key, value in whole.items():
        assert torch.equal(value, again[key]), key

    class Killed(Exception):
        pass

    save = fit._save

    def save_and_die(path, progress, *rest):
        save(path, progress, *rest)
        if progress.epoch == 4:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(fit, "_SECONDS_BETWEEN_CHECKPOINTS", -1.0)
        patch.setattr(fit, "_save", save_and_die)
        trained(folders[2], True, "tfnet50")
    continued, progress = trained(folders[2], True, "tfnet50")
    assert len(progress.history) == 8
    for key, value in whole.items():
        assert torch.equal(continued[key], value), key
