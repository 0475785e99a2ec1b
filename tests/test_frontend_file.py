"""A front end of the user's own: its file, and what is made through it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sounds
from conftest import write_npy_pair

from compress import frontend_file, parents, runs
from compress.chip import frontend_c, frontend_host
from compress.config import DataOptions
from compress.data.audio import stream_mel_power, window_starts
from compress.data.open import open_chosen
from compress.data.sets import SpectrogramSet
from compress.data.splits import make_split
from compress.errors import InputError
from compress.frontend import FrontEnd

OF_A_DEVICE = """
sample_rate_hz = 24_000
window_samples = 480
hop_samples = 240
fft_size = 768
highest_hz = 12_000
reference = "fixed"
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def run_on(folder: Path, data: SpectrogramSet) -> runs.Run:
    """A run folder that records just its data."""
    folder.mkdir()
    manifest = {"schema": runs.SCHEMA, "stage": "train", "status": "complete", "model": "dsc50"}
    (folder / runs.MANIFEST).write_text(json.dumps(manifest | {"data": data.describe()}))
    return runs.open_run(folder)


def test_a_file_says_what_a_device_hears(tmp_path: Path) -> None:
    path = write(tmp_path / "frontend.toml", OF_A_DEVICE)
    frontend, stated = frontend_file.chosen_front_end(DataOptions(frontend=str(path)))
    assert stated
    assert frontend == FrontEnd(
        sample_rate_hz=24_000, window_samples=480, hop_samples=240, fft_size=768,
        highest_hz=12_000.0, reference="fixed",
    )  # fmt: skip
    assert isinstance(frontend.highest_hz, float)  # as in every record of it
    other, _ = frontend_file.chosen_front_end(DataOptions(frontend=str(path), reference="clip"))
    assert other.reference == "clip"


def test_without_a_file_it_is_the_usual_one() -> None:
    assert frontend_file.chosen_front_end(DataOptions()) == (FrontEnd(), False)
    fixed = frontend_file.chosen_front_end(DataOptions(reference="fixed"))
    assert fixed == (FrontEnd(reference="fixed"), False)


def test_what_is_left_out_fits_what_is_said(tmp_path: Path) -> None:
    slow = frontend_file.read_front_end(write(tmp_path / "a.toml", "sample_rate_hz = 8000"))
    assert slow.highest_hz == 4000.0
    long = frontend_file.read_front_end(write(tmp_path / "b.toml", "window_samples = 1500"))
    assert long.fft_size == 2048


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sample_rate = 8000", r"unknown setting 'sample_rate'.*sample_rate_hz"),
        ("hop_samples = 0.5\nmels = true", r"hop_samples is 0.5.*; mels is True"),
        ("lowest_hz = nan", r"lowest_hz is nan"),
        ("mels = 2000000", r"mels is 2000000; it must be a whole number of 1 to"),
        ("reference = 3", r"reference is 3; it must be text"),
        ('reference = "loud"', r"reference is 'loud'"),
        ("highest_hz = 9000", r"do not fit a sample rate of 16000 Hz"),
        ("fft_size = 512", r"a window of 640 samples does not fit an FFT of 512"),
        ("mels = 400", r"of 400 bands hold no bin of an FFT of 1024"),
        ("lowest_hz = 7999.9999999999", r"32 of 32 bands hold no bin"),
        ("sample_rate_hz = 16", r"sample_rate_hz is 16; it must be a whole number of 1000 to"),
        ("quietest_reference_db = -600", r"quietest_reference_db is -600; it must be -200 to 200"),
        ("fixed_reference_db = 1e308", r"fixed_reference_db is 1e\+308; it must be -200 to 200"),
        ("hop_samples = 65536\nframes = 16384", r"is 1,073,676,928 samples long"),
        ("mels = [", r"not valid TOML"),
    ],
)
def test_every_fault_is_said_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path / "frontend.toml", text)
    with pytest.raises(InputError, match=expected) as refusal:
        frontend_file.read_front_end(path)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(str(path))


def test_its_name_is_a_file_a_run_or_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "frontend.toml", OF_A_DEVICE)
    assert frontend_file.named_front_end("~/frontend.toml").sample_rate_hz == 24_000
    with pytest.raises(InputError, match=r"--frontend frontend\.tml: no such TOML file or run"):
        frontend_file.named_front_end("frontend.tml")


def test_sound_is_heard_through_it(tmp_path: Path) -> None:
    root = sounds.class_folders(tmp_path / "sounds")
    path = write(tmp_path / "frontend.toml", OF_A_DEVICE)
    options = DataOptions(data=str(root), frontend=str(path), cache=tmp_path / "cache", workers=1)
    data = open_chosen(options)
    assert data.frontend is not None
    assert (data.frontend.sample_rate_hz, data.frontend.reference) == (24_000, "fixed")
    usual = open_chosen(DataOptions(data=str(root), cache=tmp_path / "cache", workers=1))
    assert data.content_hash != usual.content_hash
    # 2.2 s in hops of 10 ms are 219 frames, read at 24 kHz from files of 16 kHz
    assert len(data) == len(window_starts(219, data.frontend)) * len(np.unique(data.clip_ids))


def test_short_windows_leave_no_sound_out() -> None:
    short = FrontEnd(hop_samples=80, window_samples=160, fft_size=256)  # 96 frames of 5 ms
    starts = window_starts(1000, short)
    assert max(np.diff(starts)) == 64  # two thirds of a window, not the 124 frames of 0.62 s
    assert max(np.diff(window_starts(1000, FrontEnd()))) == 31


def test_frames_further_apart_than_a_window_keep_their_places() -> None:
    sparse = FrontEnd(window_samples=400, hop_samples=800)
    sound = np.random.default_rng(0).normal(0, 0.1, 40_000).astype(np.float32)
    whole = np.concatenate(list(stream_mel_power(iter([sound]), sparse)), axis=1)
    blocks = iter(np.split(sound, [7_000, 7_100, 7_500, 20_650]))
    parts = np.concatenate(list(stream_mel_power(blocks, sparse)), axis=1)
    np.testing.assert_allclose(parts, whole, rtol=1e-9)


def test_it_tells_how_spectrograms_were_made(tmp_path: Path) -> None:
    root = write_npy_pair(tmp_path / "bands", count=40)
    path = write(tmp_path / "frontend.toml", OF_A_DEVICE)
    options = DataOptions(data=str(root), frontend=str(path), cache=tmp_path / "cache", workers=1)
    told = open_chosen(options)
    assert told.frontend is not None and told.frontend.sample_rate_hz == 24_000
    untold = open_chosen(DataOptions(data=str(root), cache=tmp_path / "cache", workers=1))
    assert untold.frontend is None
    narrow = write(tmp_path / "narrow.toml", OF_A_DEVICE + "mels = 24\n")
    with pytest.raises(InputError, match=r"makes 24 bands x 96 frames"):
        open_chosen(
            DataOptions(data=str(root), frontend=str(narrow), cache=tmp_path / "cache", workers=1)
        )


def test_more_bands_than_frames_are_no_mistake_where_it_says_so(tmp_path: Path) -> None:
    root = write_npy_pair(tmp_path / "bands", count=40)
    np.save(root / "training.npy", np.load(root / "training.npy").transpose(0, 2, 1))
    with pytest.raises(InputError, match=r"save array.transpose\(0, 2, 1\), or where it is"):
        open_chosen(DataOptions(data=str(root), cache=tmp_path / "cache", workers=1))
    path = write(tmp_path / "frontend.toml", "mels = 96\nframes = 32\nfft_size = 4096\n")
    data = open_chosen(
        DataOptions(data=str(root), frontend=str(path), cache=tmp_path / "cache", workers=1)
    )
    assert (data.mels, data.frames, data.frontend.mels) == (96, 32, 96)


def test_levels_that_it_cannot_have_made_are_noted(tmp_path: Path) -> None:
    root = tmp_path / "bands"
    write_npy_pair(root, count=40)
    path = write(tmp_path / "frontend.toml", "sample_rate_hz = 16_000")
    levels = np.load(root / "training.npy")
    levels -= levels.max((1, 2), keepdims=True)
    options = DataOptions(data=str(root), frontend=str(path), cache=tmp_path / "cache", workers=1)

    def notes() -> str:
        return " ".join(open_chosen(options).notes)

    np.save(root / "training.npy", np.maximum(levels, -80))
    assert "stated front end" not in notes()
    np.save(root / "training.npy", np.maximum(levels, -80) - 20)
    assert "values down to -100.0 dB" in notes()
    assert "a loudest value of -20.0 dB in the median window" in notes()


def test_what_differs_from_the_usual_is_told() -> None:
    assert frontend_file.words(FrontEnd(reference="fixed").to_dict()) == ""
    other = FrontEnd(
        sample_rate_hz=24_000, window_samples=480, hop_samples=240, mels=40, highest_hz=12_000.0
    )
    assert (
        frontend_file.words(other.to_dict())
        == "24 kHz, to 12 kHz, 40 x 96, 20 ms every 10 ms"
    )
    assert frontend_file.words({"mels": "many", "frames": None}) == ""
    assert frontend_file.words({}) == ""


def test_data_given_again_is_heard_as_the_run_heard_it(tmp_path: Path) -> None:
    root = sounds.class_folders(tmp_path / "sounds")
    path = write(tmp_path / "frontend.toml", OF_A_DEVICE)
    again = DataOptions(data=str(root), cache=tmp_path / "cache", workers=1)
    heard = open_chosen(replace(again, frontend=str(path), drop_quiet=20.0))
    run = run_on(tmp_path / "run", heard)
    assert parents.recorded_data(run, again).content_hash == heard.content_hash
    with pytest.raises(InputError, match="which is other data"):
        parents.recorded_data(run, replace(again, reference="clip"))


def test_spectrograms_given_again_are_those_of_the_stated_front_end(tmp_path: Path) -> None:
    root = write_npy_pair(tmp_path / "bands", count=40)
    path = write(tmp_path / "frontend.toml", OF_A_DEVICE)
    again = DataOptions(data=str(root), cache=tmp_path / "cache", workers=1)
    run = run_on(tmp_path / "run", open_chosen(replace(again, frontend=str(path))))
    data = parents.recorded_data(run, again)
    assert data.frontend == frontend_file.read_front_end(path)
    split = make_split(data, 0)
    frontend_c.write_frontend(tmp_path, FrontEnd())

    def network(codes: np.ndarray) -> np.ndarray:
        raise AssertionError("no sound lies behind spectrograms")

    none = np.zeros((0, 5), dtype=np.int8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frontend_host, "_run_golden", lambda folder: None)
        found = frontend_host.measure(tmp_path, network, none, data, split, str(root))
    assert found == {"windows": 0}
