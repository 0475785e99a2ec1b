"""The training loop and its material, on small cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import band_spectrograms

from compress import fit, recipe, registry
from compress.data.sets import SpectrogramSet, encode_db
from compress.errors import InputError
from compress.material import Material, measure_normalisation, plain_batches
from compress.measure import count_macs, count_params
from compress.recipe import Augmentation, Recipe
from compress.tasks import DistillTask, LabelTask


def small_set(count: int = 60) -> SpectrogramSet:
    spectrograms, labels = band_spectrograms(count)
    numbers = np.arange(count)
    return SpectrogramSet(
        name="bands",
        codes=encode_db(spectrograms),
        labels=labels,
        class_names=tuple("abcde"),
        recording_ids=numbers,
        clip_ids=numbers,
        folds=None,
        frontend=None,
        synthetic=True,
        content_hash="x",
    )


def small_material(augmentation: Augmentation | None = None, count: int = 60) -> Material:
    data = small_set(count)
    windows = np.arange(count)
    normalisation = measure_normalisation(data, windows)
    return Material([(data, windows)], 5, normalisation, augmentation or Augmentation(), seed=0)


def test_normalisation_against_numpy():
    data = small_set()
    windows = np.array([3, 50, 7, 8])
    found = measure_normalisation(data, windows, block=3)
    values = data.decibels(windows).astype(np.float64)
    np.testing.assert_allclose(found.mean, values.mean((0, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.deviation, values.std((0, 2)), rtol=1e-5)


def test_a_band_that_never_changes_is_not_divided_by_zero():
    data = small_set()
    data.codes[:, 4] = -80 * 256
    found = measure_normalisation(data, np.arange(60))
    assert found.mean[4] == -80 and found.deviation[4] == 1.0


def test_without_augmentation_a_view_is_the_standardised_window():
    data = small_set()
    material = small_material()
    x, targets = material.view(torch.tensor([4, 0]), view=9)
    plain, labels = next(
        plain_batches(data, np.array([4, 0]), measure_normalisation(data, np.arange(60)))
    )
    torch.testing.assert_close(x, plain, atol=1e-5, rtol=1e-5)
    assert targets.argmax(1).tolist() == labels.tolist()


@pytest.mark.parametrize("batch_size", [1, 7, 16, 59, 60, 100])
def test_every_window_comes_once_per_epoch(batch_size):
    material = small_material()
    batches = list(material.batches(0, 0, batch_size, view=0))
    seen = torch.cat([batch.positions for batch in batches])
    assert len(seen) == len(seen.unique())
    assert len(batches) == material.steps(batch_size)
    left = 60 % batch_size
    assert len(seen) == (59 if left == 1 and batch_size > 1 else 60)


def test_two_processes_share_each_batch():
    material = small_material()
    alone = [set(b.positions.tolist()) for b in material.batches(3, 0, 16, view=0)]
    parts = [list(material.batches(3, 0, 16, view=0, rank=rank, ranks=2)) for rank in (0, 1)]
    for whole, a, b in zip(alone, *parts, strict=True):
        assert set(a.positions.tolist()) | set(b.positions.tolist()) == whole
        assert len(a.x) == len(b.x)


def test_batches_hold_the_view_that_was_asked_for():
    augmentation = Augmentation(
        time_shift_probability=1.0, noise_probability=1.0, mixup_probability=0.5
    )
    material = small_material(augmentation)
    for batch in material.batches(2, 0, 16, view=5):
        x, targets = material.view(batch.positions, 5)
        assert torch.equal(batch.x, x) and torch.equal(batch.targets, targets)


def test_mixed_targets_stay_distributions():
    material = small_material(Augmentation(mixup_probability=1.0))
    _, targets = material.view(torch.arange(60), view=1)
    torch.testing.assert_close(targets.sum(1), torch.ones(60))
    assert (targets.max(1).values >= 0.5).all() and (targets.max(1).values < 1).any()


def test_unlabelled_windows_have_no_target():
    data = small_set()
    normalisation = measure_normalisation(data, np.arange(60))
    parts = [(data, np.arange(50)), (data, np.arange(50, 60))]
    mixing = Augmentation(mixup_probability=1.0)
    material = Material(parts, 5, normalisation, mixing, seed=0)
    _, targets = material.view(torch.arange(60), view=0)
    assert (targets[50:] == 0).all()
    assert set(targets.sum(1).round(decimals=4).tolist()) == {0.0, 1.0}


def test_cosine_rate_rises_then_falls_to_zero():
    rules = recipe.load("distill", epochs=10, learning_rate=1.0)
    rates = [fit.cosine_rate(rules, epoch) for epoch in np.linspace(0, 10, 101)]
    assert max(rates) == pytest.approx(1.0) and rates.index(max(rates)) == 10
    assert rates[0] < 0.02 and rates[-1] == pytest.approx(0.0, abs=1e-12)


def train(material, task, tmp_path, **changes):
    from lightning_fabric import Fabric

    torch.manual_seed(0)
    model = registry.build_student("audiobot50")
    data = small_set()
    windows = np.arange(60)
    rules = recipe.load("distill", **{"batch_size": 20} | changes)
    progress = fit.train_network(
        model,
        task or LabelTask(rules),
        material,
        (data, windows, measure_normalisation(data, windows)),
        rules,
        0,
        tmp_path / "checkpoint.pt",
        Fabric(accelerator="cpu", devices=1),
        "test",
    )
    return model, progress


def test_a_small_set_is_learnt_and_the_best_weights_are_kept(tmp_path):
    model, progress = train(small_material(), None, tmp_path, epochs=12)
    losses = [row["validation_loss"] for row in progress.history]
    assert progress.best_loss == min(losses) and losses[progress.best_epoch] == min(losses)
    data = small_set()
    windows = np.arange(60)
    found = fit.evaluate_network(model, data, windows, measure_normalisation(data, windows))
    assert found["loss"] == pytest.approx(progress.best_loss, rel=1e-4)
    assert found["accuracy"] > 0.9


def test_the_last_weights_are_kept_where_the_recipe_says_so(tmp_path):
    """Labels are learnt that are not those of validation, so its loss rises from some epoch on."""

    class Confused(LabelTask):
        def __call__(self, logits, batch):
            return super().__call__(logits, replace(batch, targets=batch.targets.roll(1, 1)))

    data, windows = small_set(), np.arange(60)
    normalisation = measure_normalisation(data, windows)
    for keep in ("best", "last"):
        settings = {"epochs": 6, "warmup_share": 0.0, "keep": keep}
        task = Confused(recipe.load("distill"))
        (tmp_path / keep).mkdir()
        model, progress = train(small_material(), task, tmp_path / keep, **settings)
        losses = [row["validation_loss"] for row in progress.history]
        assert progress.best_loss == min(losses) < losses[-1]
        found = fit.evaluate_network(model, data, windows, normalisation)
        wanted = losses[-1] if keep == "last" else min(losses)
        assert found["loss"] == pytest.approx(wanted, rel=1e-4)


def test_averaged_weights_by_hand():
    """d is 1/10, 2/11, 3/12, ... until it reaches the decay; the first step's weights count whole
    in the mean before it."""
    model = torch.nn.BatchNorm1d(1)
    average = fit.weight_average(model, decay=0.2)
    expected = None
    for step, (weight, mean) in enumerate([(1.0, 4.0), (3.0, 2.0), (7.0, -1.0), (5.0, 0.5)]):
        with torch.no_grad():
            model.weight.fill_(weight)
            model.running_mean.fill_(mean)
            model.num_batches_tracked.fill_(step)
        average.update_parameters(model)
        d = min(0.2, (1 + step) / (10 + step))
        now = np.array([weight, mean])
        expected = now if expected is None else d * expected + (1 - d) * now
    found = [average.module.weight.item(), average.module.running_mean.item()]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert average.module.num_batches_tracked == 3
    assert fit.weight_average(model, 0.0) is None


def test_averaged_weights_are_what_is_validated_and_kept(tmp_path):
    settings = {"epochs": 3, "weight_average": 0.9, "keep": "last"}
    for name in ("mean", "plain"):
        (tmp_path / name).mkdir()
    model, progress = train(small_material(), None, tmp_path / "mean", **settings)
    _, plain = train(small_material(), None, tmp_path / "plain", epochs=3)
    losses = [[row[f"{side}_loss"] for row in run.history] for run in (progress, plain)
              for side in ("train", "validation")]  # fmt: skip
    assert losses[0] == losses[2], "the network that trains is the same"
    assert losses[1] != losses[3]
    data, windows = small_set(), np.arange(60)
    found = fit.evaluate_network(model, data, windows, measure_normalisation(data, windows))
    assert found["loss"] == pytest.approx(losses[1][-1], rel=1e-4)


def test_training_stops_early_on_validation_loss(tmp_path):
    _, progress = train(small_material(), None, tmp_path, epochs=40, patience=2, learning_rate=0.0)
    assert len(progress.history) == 3 or progress.best_epoch == len(progress.history) - 3


def test_clips_that_are_trained_on_end_no_training(tmp_path):
    settings = {"epochs": 8, "patience": 1, "learning_rate": 0.0, "train_on_validation": True}
    _, progress = train(small_material(), None, tmp_path, **settings)
    assert len(progress.history) == 8
    assert progress.kept(recipe.load("distill", **settings))["epoch"] == 8


@pytest.mark.parametrize(("keep", "epoch"), [("best", 3), ("last", 4)])
def test_what_is_judged_is_the_epoch_that_is_kept(keep, epoch):
    rows = [{"epoch": number + 1, "validation_loss": loss}
            for number, loss in enumerate([0.9, 0.8, 0.3, 0.7])]  # fmt: skip
    progress = fit.Progress(epoch=4, best_epoch=2, history=rows)
    rules = recipe.load("distill", keep=keep)
    assert progress.kept(rules)["epoch"] == epoch


def test_processes_stop_by_the_figures_of_the_first(tmp_path, monkeypatch):
    """Each has batch norms of its own, and would find another epoch the best."""
    from lightning_fabric import Fabric

    losses = iter([0.5, 0.4, 0.6, 0.7, 0.3])
    heard = lambda self, own, src=0: {"loss": next(losses), "accuracy": 0.25}  # noqa: E731
    monkeypatch.setattr(Fabric, "broadcast", heard)
    _, progress = train(small_material(), None, tmp_path, epochs=9, patience=2, schedule="plateau",
                        plateau_patience=0)  # fmt: skip
    assert [row["validation_loss"] for row in progress.history] == [0.5, 0.4, 0.6, 0.7]
    assert progress.best_epoch == 1 and progress.best_loss == 0.4
    rates = [row["learning_rate"] for row in progress.history]
    assert rates[3] < rates[2], "the rate falls by them too"


def test_a_loss_that_is_not_finite_is_refused(tmp_path):
    def broken(logits, batch):
        return {"loss": (logits * float("nan")).sum()}

    with pytest.raises(InputError, match="learning-rate"):
        train(small_material(), broken, tmp_path, epochs=1)


def test_weights_that_broke_in_the_last_step_are_refused(tmp_path):
    """The loss is of before the step: only validation sees what it left."""
    changes = {"learning_rate": 1e38, "warmup_share": 0.0, "batch_size": 60, "epochs": 1}
    with pytest.raises(InputError, match="validation loss is nan in epoch 1"):
        train(small_material(), None, tmp_path, **changes)


def test_distillation_weighs_both_terms():
    rules = recipe.load("distill")
    material = small_material()
    batch = next(iter(material.batches(0, 0, 20, view=0)))
    teacher = torch.randn(1, 60, 5)
    loss = registry.DISTILL_LOSSES["kd"].load()(2.0)
    terms = DistillTask(rules, loss, 0.25, 3.0, teacher)(torch.zeros(20, 5), batch)
    expected = 0.25 * terms["label_loss"] + 3.0 * terms["distill_loss"]
    assert terms["loss"].item() == pytest.approx(expected.item())
    by_hand = loss(torch.zeros(20, 5), teacher[0, batch.positions])
    assert terms["distill_loss"].item() == pytest.approx(by_hand.item())


@pytest.mark.parametrize("name", sorted(registry.STUDENTS))
def test_parameters_and_macs_agree_with_two_libraries(name):
    fvcore = pytest.importorskip("fvcore.nn")
    torchinfo = pytest.importorskip("torchinfo")
    model = registry.build_student(name).eval()
    assert torchinfo.summary(model, verbose=0).trainable_params == count_params(model)
    assert sum(fvcore.parameter_count(model)[n] for n in [""]) == count_params(model)
    analysis = fvcore.FlopCountAnalysis(model, torch.zeros(1, 1, 32, 96))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_operator = analysis.by_operator()
    assert count_macs(model, 32, 96) == by_operator["conv"] + by_operator["linear"]


def test_class_weights_come_from_the_training_windows():
    material = small_material()
    counts = material.class_counts
    assert counts.tolist() == [12.0] * 5
    rules = recipe.load("distill", class_weights=("balanced",))
    counts[0] = 3
    assert LabelTask(rules, counts).loss.weights.tolist() == pytest.approx(
        (counts.sum() / (5 * counts)).tolist()
    )
    with pytest.raises(ValueError, match="training windows"):
        LabelTask(rules)


def test_a_watcher_sees_every_epoch_and_can_end_the_training(tmp_path):
    seen = []

    class Enough(Exception):
        pass

    def watch(row):
        seen.append(row["epoch"])
        if row["epoch"] == 2:
            raise Enough

    from lightning_fabric import Fabric

    material, data, windows = small_material(), small_set(), np.arange(60)
    rules = recipe.load("distill", batch_size=20, epochs=5)
    with pytest.raises(Enough):
        fit.train_network(
            registry.build_student("audiobot50"), LabelTask(rules), material,
            (data, windows, measure_normalisation(data, windows)), rules, 0,
            tmp_path / "c.pt", Fabric(accelerator="cpu", devices=1), "test", watch,
        )  # fmt: skip
    assert seen == [1, 2]


def test_a_stretched_recipe_counts_all_epochs_alike():
    found = Recipe(epochs=8, patience=4, plateau_patience=2, batch_size=("0:8", "4:32"))
    found = found.stretched(2.5)
    assert (found.epochs, found.patience, found.plateau_patience) == (20, 10, 5)
    assert found.batch_size == ("0:8", "10:32")
    assert Recipe(epochs=8, batch_size=("64",)).stretched(0.1).epochs == 1
