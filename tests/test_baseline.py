"""Baselines: statistics by hand, the file against scikit-learn, run folders in the report."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from conftest import band_spectrograms

pytest.importorskip("sklearn")

from compress import baseline, baselines, cli, report, runs  # noqa: E402
from compress.config import BaselineConfig, ReportConfig  # noqa: E402
from compress.errors import InputError  # noqa: E402


def test_statistics_by_hand():
    x = np.array([[[0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0]]])
    found = baselines.band_statistics(x)
    assert found[0].tolist() == pytest.approx([10, np.sqrt(40), 2, 18, 2])


def training() -> baselines.Training:
    decibels, labels = band_spectrograms(60)
    features = baselines.band_statistics(decibels)
    return baselines.Training(features[:40], labels[:40], features[40:], labels[40:], 5, 0)


def test_forest_and_bayes_in_numpy_are_those_of_scikit_learn():
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.naive_bayes import GaussianNB

    given = training()
    forest = RandomForestClassifier(
        baselines.FOREST_TREES, min_samples_leaf=baselines.FOREST_LEAST_LEAF, random_state=0
    ).fit(given.features, given.labels)
    ours = baselines._USES["random-forest"](
        baselines.random_forest(given), given.validation_features
    )
    assert np.allclose(ours, forest.predict_proba(given.validation_features), atol=1e-5)
    bayes = GaussianNB().fit(given.features.astype(np.float64), given.labels)
    ours = baselines._USES["naive-bayes"](baselines.naive_bayes(given), given.validation_features)
    assert np.allclose(ours, bayes.predict_proba(given.validation_features), atol=1e-6)


def test_runs_stand_in_the_report_and_files_are_the_same_again(npy_data, tmp_path):
    def made(root):
        arguments = ["--data", str(npy_data), "--runs", str(root)]
        arguments += ["--baseline", "naive-bayes", "--baseline", "svm"]
        assert cli.main(BaselineConfig, baseline.run, "", arguments) == 0
        return {run.name: run for run in map(runs.open_run, runs.find_runs(root))}

    one, again = made(tmp_path / "one"), made(tmp_path / "again")
    assert set(one) == {"naive-bayes", "svm"}
    for name, run in one.items():
        run.check_unchanged()
        figures = run.metrics()
        assert figures["splits"]["test"]["accuracy"] > 0.9
        assert figures["sha256"] == runs.sha256_file(run.folder / "model.npz")
        assert figures["sha256"] == again[name].metrics()["sha256"]
    assert cli.main(ReportConfig, report.run, "", ["--runs", str(tmp_path / "one")]) == 0
    records = json.loads((tmp_path / "one" / "report" / "report.json").read_text())
    assert {r["stage"] for r in records} == {"baseline"} and all(r["sha256"] for r in records)


def test_a_damaged_file_and_several_with_out_are_refused(npy_data, tmp_path, capsys):
    (tmp_path / "model.npz").write_bytes(b"not arrays")
    with pytest.raises(InputError, match="cannot be read as a baseline"):
        baselines.load(tmp_path / "model.npz")
    arguments = ["--data", str(npy_data), "--out", str(tmp_path / "x")]
    assert cli.main(BaselineConfig, baseline.run, "", arguments) == 2
    assert "choose one with --baseline" in capsys.readouterr().err


@pytest.mark.parametrize("kind", baselines._USES)
@pytest.mark.parametrize("change", ["lacks", "other size", "text", "endless"])
def test_arrays_that_do_not_fit_one_another_are_refused(kind, change, tmp_path):
    fitted = {
        "naive-bayes": baselines.naive_bayes,
        "svm": baselines.support_vectors,
        "random-forest": baselines.random_forest,
    }[kind](training())
    if change == "endless":
        if kind != "random-forest":
            pytest.skip("has no depth")
        fitted["depth"] = np.int64(2**62)
    else:
        name = {"naive-bayes": "mean", "svm": "landmarks", "random-forest": "roots"}[kind]
        array = fitted.pop(name)
        if change == "other size":
            fitted[name] = array[..., :0] if kind != "random-forest" else array + 10**6
        elif change == "text":
            fitted[name] = np.full(array.shape, "x")
    path = tmp_path / "model.npz"
    baselines.save(path, kind, fitted)
    with pytest.raises(InputError, match="do not fit"):
        baselines.predictor(path)(band_spectrograms(4)[0][:, None])


def test_a_member_that_is_no_array_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    baselines.save(path, "naive-bayes", baselines.naive_bayes(training()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("variance2", b"no array")
    with pytest.raises(InputError, match="not all of it are arrays"):
        baselines.load(path)
