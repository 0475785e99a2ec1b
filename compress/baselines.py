"""Classifiers without a network, on statistics of the mel bands: what a network has to beat.

    dB (B, mels, frames) -> five statistics per band (B, 5 mels) -> log-probabilities (B, classes)

scikit-learn fits them; what is kept is model.npz, plain arrays without code, and what is measured
is that file, evaluated in numpy by :func:`predictor`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.data.sets import SpectrogramSet
from compress.errors import InputError
from compress.metrics import softmax

STATISTICS = ("mean", "deviation", "10 % quantile", "90 % quantile", "mean change per frame")
NYSTROEM_LANDMARKS = 500
"""Landmarks of the kernel map that keeps a support vector machine linear in the number of clips."""
FOREST_TREES, FOREST_LEAST_LEAF = 200, 5
_BLOCK = 2_048
_LEAST_PROBABILITY = 1e-6
_KIND = "kind"

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Training:
    """features (n, F) float32 and labels (n,) of the training windows, and of the validation."""

    features: np.ndarray
    labels: np.ndarray
    validation_features: np.ndarray
    validation_labels: np.ndarray
    classes: int
    seed: int


def band_statistics(decibels: np.ndarray) -> np.ndarray:
    """STATISTICS of every mel band: (B, mels, frames) dB -> (B, 5 mels) float32."""
    ordered = np.sort(decibels, axis=2)
    frames = decibels.shape[2]
    low, high = (ordered[:, :, round(q * (frames - 1))] for q in (0.1, 0.9))
    change = np.abs(np.diff(decibels, axis=2)).mean(axis=2)
    parts = (decibels.mean(axis=2), decibels.std(axis=2), low, high, change)
    return np.concatenate(parts, axis=1).astype(np.float32)


def statistics_of(data: SpectrogramSet, windows: np.ndarray, step: Callable[[int], Any]) -> Any:
    """Features of some windows of a set, (n, 5 mels); ``step`` is told how many were read."""
    parts = []
    for at in range(0, len(windows), _BLOCK):
        chosen = windows[at : at + _BLOCK]
        parts.append(band_statistics(data.decibels(chosen)))
        step(len(chosen))
    return np.concatenate(parts)


def fitting() -> None:
    """Raise InputError where scikit-learn is not there."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise InputError(
            "baselines are fitted by scikit-learn, which is not installed: "
            "pip install '.[baselines]'"
        ) from None


# --- fitting: training windows -> arrays ---------------------------------------------------------


def naive_bayes(training: Training) -> Arrays:
    """A normal distribution of every statistic and class, all independent."""
    from sklearn.naive_bayes import GaussianNB

    model = GaussianNB().fit(training.features.astype(np.float64), training.labels)
    prior = np.full(training.classes, -np.inf)
    mean = np.zeros((training.classes, training.features.shape[1]))
    variance = np.ones_like(mean)
    prior[model.classes_] = np.log(model.class_prior_)
    mean[model.classes_], variance[model.classes_] = model.theta_, model.var_
    return {"log_prior": prior, "mean": mean, "variance": variance}


def support_vectors(training: Training) -> Arrays:
    """Linear support vector machines, one class against the rest, on a Nystroem map of an RBF
    kernel; probabilities are a softmax of the margins, sharpened to fit the validation windows."""
    from sklearn.kernel_approximation import Nystroem
    from sklearn.svm import LinearSVC

    mean = training.features.mean(axis=0)
    deviation = np.maximum(training.features.std(axis=0), 1e-3)
    scaled = (training.features - mean) / deviation
    landmarks = min(NYSTROEM_LANDMARKS, len(scaled))
    kernel = Nystroem(gamma=1.0 / scaled.shape[1], n_components=landmarks,
                      random_state=training.seed)  # fmt: skip
    mapped = kernel.fit_transform(scaled)
    model = LinearSVC(C=1.0, dual=False, random_state=training.seed).fit(mapped, training.labels)
    coefficients, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        coefficients = np.concatenate([-coefficients, coefficients])
        intercept = np.concatenate([-intercept, intercept])
    weights = np.zeros((training.classes, landmarks))
    offsets = np.full(training.classes, -1e3)  # a class without training clips
    weights[model.classes_], offsets[model.classes_] = coefficients, intercept
    arrays = {
        "feature_mean": mean,
        "feature_deviation": deviation,
        "landmarks": kernel.components_,
        # the map is kernel(x, landmarks) @ normalization.T, and the margins are linear in it
        "weights": (weights @ kernel.normalization_).astype(np.float32),
        "offsets": offsets.astype(np.float32),
        "gamma": np.float64(kernel.gamma),
        "sharpness": np.float64(1.0),
    }
    margins = _margins(arrays, training.validation_features)
    arrays["sharpness"] = np.float64(fit_sharpness(margins, training.validation_labels))
    return arrays


def fit_sharpness(margins: np.ndarray, labels: np.ndarray) -> float:
    """The factor on margins (n, classes) whose softmax gives labels (n,) the highest likelihood."""
    from scipy.optimize import minimize_scalar

    def loss(logarithm: float) -> float:
        probabilities = softmax(np.exp(logarithm) * margins)
        likelihood = probabilities[np.arange(len(labels)), labels]
        return float(-np.log(np.maximum(likelihood, 1e-12)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 5), method="bounded").x))


def random_forest(training: Training) -> Arrays:
    """Trees on random parts of clips and statistics; probabilities are means over leaves."""
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(
        FOREST_TREES, min_samples_leaf=FOREST_LEAST_LEAF, random_state=training.seed, n_jobs=1
    ).fit(training.features, training.labels)
    trees = [estimator.tree_ for estimator in model.estimators_]
    sizes = np.array([tree.node_count for tree in trees])
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    leaf = np.zeros((int(sizes.sum()), training.classes), dtype=np.float32)
    values = np.concatenate([tree.value[:, 0] for tree in trees])
    leaf[:, model.classes_] = values / values.sum(axis=1, keepdims=True)

    def children(side: str) -> np.ndarray:
        """Numbers over all trees; a leaf's child is itself."""
        numbers = []
        for tree, start in zip(trees, first, strict=True):
            child = getattr(tree, side)
            numbers.append(np.where(child < 0, np.arange(tree.node_count), child) + start)
        return np.concatenate(numbers).astype(np.int32)

    return {
        "roots": first.astype(np.int32),
        "feature": np.concatenate([np.maximum(t.feature, 0) for t in trees]).astype(np.int16),
        "threshold": np.concatenate([tree.threshold for tree in trees]),
        "left": children("children_left"),
        "right": children("children_right"),
        "leaf": leaf,
        "depth": np.array(max(tree.max_depth for tree in trees), np.int64),
    }


# --- using: arrays -> log-probabilities ----------------------------------------------------------


def _naive_bayes(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    apart = features[:, None, :].astype(np.float64) - arrays["mean"]  # (B, classes, F)
    terms = np.log(2 * np.pi * arrays["variance"]) + apart**2 / arrays["variance"]
    joint = arrays["log_prior"] - 0.5 * terms.sum(axis=2)
    return softmax(joint)


def _support_vectors(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    return softmax(float(arrays["sharpness"]) * _margins(arrays, features))


def _margins(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    scaled = (features - arrays["feature_mean"]) / arrays["feature_deviation"]
    landmarks = arrays["landmarks"]
    squares = (scaled**2).sum(axis=1)[:, None] + (landmarks**2).sum(axis=1)
    distances = np.maximum(squares - 2 * scaled @ landmarks.T, 0)
    return np.exp(-float(arrays["gamma"]) * distances) @ arrays["weights"].T + arrays["offsets"]


def _random_forest(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    rows = np.arange(len(features))[:, None]
    nodes = np.repeat(arrays["roots"][None], len(features), axis=0)  # (B, trees)
    depth = int(arrays["depth"])
    if depth > len(arrays["left"]):
        raise ValueError(f"depth {depth} of {len(arrays['left'])} nodes")
    for _ in range(depth):
        goes_left = features[rows, arrays["feature"][nodes]] <= arrays["threshold"][nodes]
        nodes = np.where(goes_left, arrays["left"][nodes], arrays["right"][nodes])
    return arrays["leaf"][nodes].mean(axis=1, dtype=np.float64)


_USES: Mapping[str, Callable[[Arrays, np.ndarray], np.ndarray]] = {
    "naive-bayes": _naive_bayes,
    "svm": _support_vectors,
    "random-forest": _random_forest,
}


def save(path: Path, kind: str, arrays: Arrays) -> None:
    """Write model.npz, arrays only, whole or not at all; the same bytes for the same arrays."""
    from compress.runs import atomic_path

    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, value in sorted({_KIND: np.array(kind), **arrays}.items()):
            # a fixed date: np.savez would write the hour into the file, and so into its hash
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(value), allow_pickle=False)


def load(path: Path) -> tuple[str, Arrays]:
    """(kind, arrays) of a model.npz; raises InputError where it is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("not all of it are arrays")
        kind = str(arrays.pop(_KIND))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read as a baseline's arrays ({reason})") from None
    if kind not in _USES:
        raise InputError(f"{path}: holds {kind!r}, none of {', '.join(_USES)}")
    return kind, arrays


def predictor(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The file as a function: (B, 1, mels, frames) dB -> log-probabilities (B, classes).

    Raises InputError, then or when it is called, where its arrays do not make a classifier.
    """
    kind, arrays = load(path)
    use = _USES[kind]

    def predict(decibels: np.ndarray) -> np.ndarray:
        try:
            found = use(arrays, band_statistics(decibels[:, 0]))
        except (KeyError, IndexError, TypeError, ValueError, MemoryError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(
                f"{path}: its arrays do not fit one another or the spectrograms ({reason})"
            ) from None
        return np.log(np.maximum(found, _LEAST_PROBABILITY))

    return predict


def count_numbers(arrays: Arrays) -> int:
    """What stands for parameters: numbers in the file that were fitted."""
    return int(sum(np.size(value) for value in arrays.values()))
