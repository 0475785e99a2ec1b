"""Every layout to a SpectrogramSet, and every fault of the input to one clear line."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import sounds

from compress.data import clips as clip_reader
from compress.data import five, open_data, open_transfer
from compress.data.audio import (
    AudioError,
    read_blocks,
    read_info,
    stream_mel_power,
    stream_windows,
    window_starts,
)
from compress.data.open import find_layout
from compress.data.sets import SpectrogramSet, decode_db
from compress.data.waves import window_waveforms
from compress.errors import InputError
from compress.frontend import FLOOR_DB, FrontEnd, log_mel, mel_power

FRONTEND = FrontEnd()
SHARED = Path(__file__).parents[2] / "shared" / "data"
ESC10 = SHARED / "esc10"


def read(path: Path | str, tmp_path: Path, **options: object) -> SpectrogramSet:
    options = {"workers": 1, **options}
    return open_data(str(path), frontend=FRONTEND, cache=tmp_path / "cache", **options)


def faults_of(path: Path | str, tmp_path: Path, **options: object) -> str:
    """The message of the refusal, checked to be one line; nothing may be left in the cache."""
    with pytest.raises(InputError) as refusal:
        read(path, tmp_path, **options)
    message = str(refusal.value)
    assert "\n" not in message
    assert not list(tmp_path.glob("cache/sets/*/set.json"))
    return message


# --- sound files ---------------------------------------------------------------------------------


def waveform_of(path: Path, rate_hz: int = 16_000) -> np.ndarray:
    return np.concatenate(list(read_blocks(path, rate_hz)))


def test_window_starts_by_hand() -> None:
    # 5.0 s at 16 kHz are 249 frames: five windows every 31 frames, the last aligned to the end.
    assert window_starts(249, FRONTEND) == [0, 31, 62, 93, 124, 153]
    assert window_starts(96, FRONTEND) == [0]
    assert window_starts(127, FRONTEND) == [0, 31]
    assert window_starts(95, FRONTEND) == []


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_every_format_is_read(ending: str, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    if ending.upper() not in soundfile.available_formats():
        pytest.skip(f"this libsndfile has no {ending}")
    original = sounds.tone(440, 2.5)
    path = sounds.write(tmp_path / f"a.{ending}", original)
    waveform = waveform_of(path)
    assert abs(len(waveform) - len(original)) <= 2_304  # mp3 pads by up to two frames
    middle = log_mel(waveform[None, 4_000:36_000], FRONTEND)[0]
    expected = log_mel(original[None, 4_000:36_000], FRONTEND)[0]
    assert (middle.argmax(axis=0) == expected.argmax(axis=0)).all()


def test_stereo_is_the_mean_of_its_channels(tmp_path: Path) -> None:
    left, right = sounds.tone(300, 2.0), sounds.tone(2000, 2.0)
    path = sounds.write(tmp_path / "a.wav", np.stack([left, right], axis=1), subtype="FLOAT")
    assert waveform_of(path) == pytest.approx((left + right) / 2, abs=1e-7)


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000])
def test_any_sample_rate_gives_the_same_spectrogram(rate_hz: int, tmp_path: Path) -> None:
    path = sounds.write(tmp_path / "a.wav", sounds.tone(1000, 3.0, rate_hz), rate_hz)
    waveform = waveform_of(path)
    assert len(waveform) == pytest.approx(48_000, abs=2)
    theirs = log_mel(waveform[None, 8_000:40_000], FRONTEND)[0]
    ours = log_mel(sounds.tone(1000, 3.0)[None, 8_000:40_000], FRONTEND)[0]
    loud = ours > -30
    assert np.abs(theirs - ours)[loud].max() < 0.1


def test_reading_in_pieces_equals_reading_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    path = sounds.write(tmp_path / "a.wav", generator.uniform(-0.5, 0.5, 16_000 * 9))
    power = mel_power(waveform_of(path)[None], FRONTEND)[0]
    starts = window_starts(power.shape[1], FRONTEND)
    monkeypatch.setattr("compress.data.audio._BLOCK_SECONDS", 1)
    monkeypatch.setattr("compress.data.audio._BLOCK_VALUES", 5_001)
    found = list(stream_windows(stream_mel_power(read_blocks(path, 16_000), FRONTEND), FRONTEND))
    assert len(found) > 3
    firsts = [first + 31 * i for first, windows in found for i in range(len(windows))]
    assert firsts == starts
    windows = np.concatenate([windows for _, windows in found])
    for start, window in zip(starts, windows, strict=True):
        np.testing.assert_allclose(window, power[:, start : start + 96], rtol=1e-5)


def bad_sound(kind: str, path: Path) -> Path:
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is no sound\n" * 100)
    elif kind == "no samples":
        sounds.write(path, np.zeros(0, dtype=np.float32))
    elif kind == "very short":
        sounds.write(path, np.ones(300, dtype=np.float32))
    elif kind == "nan":
        waveform = sounds.tone(440, 2.0)
        waveform[1000] = np.nan
        sounds.write(path, waveform, subtype="FLOAT")
    elif kind == "huge":
        sounds.write(path, sounds.tone(440, 2.0) * 1e25, subtype="FLOAT")
    elif kind == "truncated":
        sounds.truncate(sounds.write(path, sounds.tone(440, 4.0)))
    return path


BAD_SOUNDS = {
    ("empty", "wav"): "is empty",
    ("text", "wav"): "not readable as sound",
    ("text", "mp3"): "not readable as sound|holds no sound",
    ("no samples", "wav"): "holds no sound",
    ("very short", "wav"): r"too short \(19 ms",
    ("nan", "wav"): "NaN or infinite",
    ("huge", "wav"): "too large|louder than",
    ("truncated", "wav"): "is truncated",
    ("truncated", "flac"): "truncated|not readable",
    ("truncated", "ogg"): "truncated",
}


@pytest.mark.parametrize(("kind", "ending"), BAD_SOUNDS)
def test_unusable_sound_is_skipped_by_name_or_refused(
    kind: str, ending: str, tmp_path: Path
) -> None:
    root = sounds.class_folders(tmp_path / "set")
    bad_sound(kind, root / "low" / f"bad.{ending}")
    data = read(root, tmp_path)
    assert len(np.unique(data.clip_ids)) == 8
    (note,) = data.notes
    assert note.startswith(f"1 file skipped: low/bad.{ending}: ")
    assert re.search(BAD_SOUNDS[kind, ending], note)
    for cache in (tmp_path, tmp_path / "fresh"):  # also where the set was built without --strict
        with pytest.raises(InputError, match=f"low/bad.{ending}.*--strict"):
            read(root, cache, strict=True)


def test_a_class_without_a_usable_file_is_refused(tmp_path: Path) -> None:
    root = sounds.class_folders(tmp_path / "set")
    (root / "alarm").mkdir()
    for name in ("a: b.wav", "c.wav"):
        bad_sound("empty", root / "alarm" / name)
    for _ in range(2):  # prepared, and opened again
        with pytest.raises(InputError, match="no file of class 'alarm' is usable") as refusal:
            read(root, tmp_path)
        message = str(refusal.value)
        assert "(alarm/a: b.wav: " in message and "add recordings" in message
        assert "\n" not in message
    (root / "alarm").rename(root / ".alarm")
    assert read(root, tmp_path).class_names == ("high", "low")


def test_wav_that_a_pipe_wrote_is_not_called_truncated(tmp_path: Path) -> None:
    path = sounds.write(tmp_path / "a.wav", sounds.tone(440, 2.0))
    content = bytearray(path.read_bytes())
    at = content.index(b"data")
    content[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(waveform_of(path)) == 32_000


def test_missing_file_and_strange_rate_are_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="cannot be opened"):
        read_info(tmp_path / "none.wav")
    sounds.write(tmp_path / "slow.wav", np.zeros(1000, dtype=np.float32), 10)
    with pytest.raises(AudioError, match="sample rate of 10 Hz"):
        read_info(tmp_path / "slow.wav")


# --- class folders -------------------------------------------------------------------------------


def test_class_folders(tmp_path: Path) -> None:
    root = sounds.class_folders(tmp_path / "set")
    sounds.write(root / "low" / "deep" / "er" / "x.wav", sounds.tone(350, 6.0))
    data = read(root, tmp_path)
    assert find_layout(str(root)) == "class folders"
    assert data.class_names == ("high", "low")
    assert data.name == "set"
    assert not data.synthetic
    assert data.frontend == FRONTEND
    assert data.folds is None
    assert len(np.unique(data.clip_ids)) == len(np.unique(data.recording_ids)) == 9
    # 2.2 s are 109 frames: windows at 0 and 13. 6.0 s are 299 frames: 0, 31 ... 186, and 203.
    assert Counter(data.labels.tolist()) == {0: 8, 1: 16}
    loudest = data.decibels(np.arange(len(data))).mean(axis=2).argmax(axis=1)
    assert loudest[data.labels == 0].min() > loudest[data.labels == 1].max()
    assert data.decibels(np.arange(4)).max(axis=(1, 2)) == pytest.approx(np.zeros(4))


def test_windows_equal_the_front_end(tmp_path: Path) -> None:
    root = sounds.class_folders(tmp_path / "set", per_class=1)
    data = read(root, tmp_path)
    waveform = waveform_of(root / "low" / "0.wav")
    own = np.flatnonzero(data.labels == 1)
    for index, start in zip(own, window_starts(109, FRONTEND), strict=True):
        samples = waveform[start * 320 : start * 320 + FRONTEND.clip_samples]
        expected = log_mel(samples[None], FRONTEND)[0]
        assert np.abs(decode_db(data.codes[index]) - expected).max() <= 1 / 512 + 1e-4


def test_fixed_reference_keeps_the_level(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for label, amplitude in (("loud", 0.5), ("soft", 0.05)):
        sounds.write(root / label / "a.wav", sounds.tone(800, 2.0, amplitude=amplitude))
    fixed = FrontEnd(reference="fixed")
    data = open_data(str(root), frontend=fixed, cache=tmp_path / "cache", workers=1)
    peaks = decode_db(data.codes).max(axis=(1, 2))
    assert peaks[data.labels == 0][0] - peaks[data.labels == 1][0] == pytest.approx(20, abs=0.1)


def burst(seconds: float, loud_until: float, below_db: float) -> np.ndarray:
    """A tone that falls by so many dB at a time."""
    wave = sounds.tone(800, seconds, amplitude=0.3)
    wave[round(loud_until * 16_000) :] *= 10 ** (-below_db / 20)
    return wave


def pauses(root: Path) -> Path:
    """One class of bursts of 1 s before 4 s of pause, one that sounds all the time."""
    for i in range(4):
        sounds.write(root / "burst" / f"{i}.wav", burst(5.0, 1.0, 40))
        sounds.write(root / "hum" / f"{i}.wav", burst(5.0, 1.0, 10))
    return root


def test_quiet_windows_are_left_out_on_request(tmp_path: Path) -> None:
    root = pauses(tmp_path / "set")
    every, loud = read(root, tmp_path), read(root, tmp_path, drop_quiet_db=20.0)
    # Windows begin at 0, 0.62, 1.24 s, ...: the first two hear the burst, the rest is 40 dB lower.
    assert np.bincount(every.labels).tolist() == [24, 24]
    assert np.bincount(loud.labels).tolist() == [8, 24]
    for clip in np.unique(loud.clip_ids):
        rows = loud.codes[loud.clip_ids == clip]
        assert np.array_equal(rows, every.codes[every.clip_ids == clip][: len(rows)])
    assert loud.notes == ("16 windows left out, much quieter than the loudest of their clip",)
    assert loud.content_hash != every.content_hash
    assert loud.describe()["drop_quiet_db"] == 20.0 and "drop_quiet_db" not in every.describe()
    # 40 dB lower is within 41; and whatever the reference, the same windows stay.
    assert len(read(root, tmp_path, drop_quiet_db=41.0)) == 48
    fixed = open_data(str(root), frontend=FrontEnd(reference="fixed"), drop_quiet_db=20.0,
                      cache=tmp_path / "cache", workers=1)  # fmt: skip
    assert np.array_equal(fixed.clip_ids, loud.clip_ids)


def test_loud_windows_by_hand() -> None:
    powers = np.array([2.0, 0.02, 0.0])  # 20 dB apart, and silence
    assert clip_reader.loud_enough(powers, 20.5).tolist() == [True, True, False]
    assert clip_reader.loud_enough(powers, 19.5).tolist() == [True, False, False]
    assert clip_reader.loud_enough(powers, 0.0).tolist() == [True, False, False]
    assert clip_reader.loud_enough(powers, None).all()
    assert clip_reader.loud_enough(np.zeros(3), 20.0).all()  # silence throughout is one level


def test_the_sound_of_the_kept_windows_is_found_again(tmp_path: Path) -> None:
    root = pauses(tmp_path / "set")
    data = read(root, tmp_path, drop_quiet_db=20.0)
    found = list(window_waveforms(data, np.arange(len(data)), str(root), 0))
    assert np.concatenate([rows for rows, _ in found]).tolist() == list(range(len(data)))
    last = found[3][1]  # the fourth burst: windows from 0 s and 0.62 s
    assert np.array_equal(last[1, :200], waveform_of(root / "burst" / "3.wav")[9_920:10_120])


def test_short_clip_is_padded_and_counted(tmp_path: Path) -> None:
    root = sounds.class_folders(tmp_path / "set")
    sounds.write(root / "low" / "short.wav", sounds.tone(300, 0.5))
    data = read(root, tmp_path)
    (note,) = data.notes
    assert note == "1 clip shorter than one window, padded with zeros: low/short.wav"
    short = decode_db(data.codes[-1])  # the last name in the last class
    assert (short[:, 30:] == FLOOR_DB).all() and (short[:, :20].max(axis=0) > -10).all()


def test_recordings_table_groups_files(tmp_path: Path) -> None:
    root = sounds.class_folders(tmp_path / "set")
    (root / "recordings.csv").write_text(
        "file,recording\nlow/0.wav,tape\nlow/1.flac,tape\nlow/gone.wav,tape\n"
    )
    data = read(root, tmp_path)
    assert len(np.unique(data.recording_ids)) == 7
    assert data.notes[0] == "recordings.csv lists 1 file not there: low/gone.wav"
    assert "leaves out 6 files, each a recording of its own: high/" in data.notes[1]
    (root / "recordings.csv").write_text("file,recording\nlow\\0.wav,tape\nlow\\1.flac,tape\n")
    error = faults_of(root, tmp_path / "paths")
    assert "none of the files that it lists is there" in error and "write them as high/" in error
    (root / "recordings.csv").write_text("file,recording\nlow/0.wav,a\nlow/0.wav,b\n")
    assert "gives low/0.wav two recordings" in faults_of(root, tmp_path / "twice")
    (root / "recordings.csv").write_text("name,tape\n")
    assert "has no column file, recording" in faults_of(root, tmp_path / "again")


def test_names_map_to_the_five_classes(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for folder in ("Siren", "car_horn", "Acoustic guitar", "singing", "unheard of"):
        sounds.write(root / folder / "a.wav", sounds.tone(400, 2.0))
    data = read(root, tmp_path, classes="five")
    assert data.class_names == five.REPORT_CLASSES
    assert Counter(data.class_names[i] for i in data.labels) == {"alarm": 4, "music": 2}
    (note,) = data.notes
    assert note.startswith("2 folders left out") and "singing (1 clip)" in note


def test_what_does_not_belong_is_named(tmp_path: Path) -> None:
    root = sounds.class_folders(tmp_path / "set")
    (root / "low" / "notes.txt").write_text("hello")
    (root / "low" / ".hidden.wav").write_text("hidden")
    (root / "empty class").mkdir()
    sounds.write(root / "loose.wav", sounds.tone(400, 2.0))
    sounds.write(tmp_path / "elsewhere.wav", sounds.tone(400, 2.0))
    os.symlink(tmp_path / "elsewhere.wav", root / "low" / "link.wav")
    os.symlink(root / "low" / "0.wav", root / "low" / "inner.wav")
    data = read(root, tmp_path)
    assert len(np.unique(data.clip_ids)) == 9  # the link inside counts, the one outside does not
    assert data.notes == (
        "folder empty class holds no audio and is no class",
        "1 file skipped, not sound files by their names: low/notes.txt",
        "1 file skipped, links that lead out of the folder or to folders: low/link.wav",
        "1 file skipped, not in a class folder: loose.wav",
    )
    assert "notes.txt" in faults_of(root, tmp_path / "strict", strict=True)
    (root / "empty class").rmdir()
    (root / "low" / "link.wav").unlink()
    (root / "high" / "new.txt").write_text("hello")
    assert read(root, tmp_path).notes == (  # of today, though the prepared set is the same
        "2 files skipped, not sound files by their names: high/new.txt, low/notes.txt",
        "1 file skipped, not in a class folder: loose.wav",
    )


def test_second_start_reads_no_sound_and_a_changed_file_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = sounds.class_folders(tmp_path / "set")
    first = read(root, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(clip_reader, "_windows", None)
        assert read(root, tmp_path).content_hash == first.content_hash
    sounds.write(root / "low" / "0.wav", sounds.tone(600, 2.5))
    assert read(root, tmp_path).content_hash != first.content_hash


def test_long_files_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = sounds.class_folders(tmp_path / "set", per_class=1)
    sounds.write(root / "low" / "long.wav", sounds.tone(300, 20.0))
    monkeypatch.setattr(clip_reader, "_PIECE_SECONDS", 6.0)
    monkeypatch.setattr(clip_reader, "_MAYBE_LONG_BYTES", 0)
    data = read(root, tmp_path)
    _, counts = np.unique(data.clip_ids, return_counts=True)
    # 20 s in four pieces of 5.0 s, of six windows each; one clip and one recording all the same.
    assert sorted(counts) == [2, 2, 24]
    assert len(np.unique(data.recording_ids)) == 3


def test_workers_do_not_change_the_content(tmp_path: Path) -> None:
    root = sounds.class_folders(tmp_path / "set", per_class=20, seconds=2.0)
    one = read(root, tmp_path / "one", workers=1)
    two = read(root, tmp_path / "two", workers=2)
    assert one.content_hash == two.content_hash


# --- layouts of known data sets ------------------------------------------------------------------


def test_esc50_layout(tmp_path: Path) -> None:
    root = sounds.esc50_layout(tmp_path / "esc")
    data = read(root, tmp_path)
    assert data.class_names == ("dog", "rain")
    assert len(data) == 20 * 6  # 4.5 s is padded, 5.5 s is cut
    assert np.bincount(data.folds).tolist() == [0, 24, 24, 24, 24, 24]
    assert len(np.unique(data.recording_ids)) == 10
    assert data.notes == ()


def test_esc50_mapped_to_five(tmp_path: Path) -> None:
    root = sounds.esc50_layout(tmp_path / "esc", ("dog", "siren", "coughing"))
    data = read(root, tmp_path, classes="five")
    assert {data.class_names[i] for i in data.labels} == {"other", "alarm"}
    assert data.notes[0].startswith("10 clips left out") and "coughing" in data.notes[0]
    assert data.notes[1] == "no clip of class music, human voice, engine sounds"


def test_esc50_faults(tmp_path: Path) -> None:
    root = sounds.esc50_layout(tmp_path / "esc")
    table = root / "meta" / "esc50.csv"
    text = table.read_text()
    (root / "audio" / "1-1-A-0.wav").unlink()
    assert "1 file skipped, listed but not there" in read(root, tmp_path).notes[0]
    assert "1-1-A-0.wav" in faults_of(root, tmp_path / "s", strict=True)
    for name in re.findall("^.*?wav(?=.*,rain,)", text, re.MULTILINE):
        (root / "audio" / name).rename(tmp_path / name)
    assert "no file of class 'rain' is there" in faults_of(root, tmp_path / "rain")
    for path in tmp_path.glob("*.wav"):
        path.rename(root / "audio" / path.name)
    for broken, message in (
        (text.replace("target", "aim"), "has no column target"),
        (text.replace(",1,0,dog", ",one,0,dog"), "fold 'one', not a whole number"),
        (text.replace(",1,0,dog", ",1,0,cat"), "target 0 is both"),
        (text.splitlines()[0], "lists no clip"),
        (f"{text}1-1-A-0.wav,2,0,dog,True,9,A\n", "lists 1-1-A-0.wav twice; leave one row out"),
        ("\n".join(row for row in text.splitlines() if ",rain," not in row), "only one class"),
        (text.replace("1-1-A-0.wav,1,0,dog", "../../../../etc/passwd,1,0,dog"), "passwd"),
    ):
        table.write_text(broken)
        if message == "passwd":
            assert "skipped, listed but not there" in read(root, tmp_path / message).notes[0]
        else:
            assert message in faults_of(root, tmp_path / message.replace(" ", ""))


def fsd50k_layout(root: Path) -> Path:
    """Nine clips whose labels come with all their ancestors, as in the real files."""
    ids = five._ontology().id_of
    doorbell = ["doorbell", "door", "domestic sounds home sounds", "alarm"]
    rows = {
        "dev": [
            ("1", "/m/02sgy,/m/0342h,/m/0fx80y,/m/04szw,/m/04rlf"),  # electric guitar: music
            ("2", "/m/09x0r,/m/09l8g"),  # speech
            ("3", ",".join(ids[name] for name in doorbell)),  # a doorbell: alarm
            ("4", "/m/02sgy,/m/04rlf,/m/04_sv,/m/012f08,/m/07yv9"),  # guitar and motorcycle: two
            ("5", "/m/015lz1,/m/04rlf"),  # singing: ambiguous
            ("6", "/m/nonsense"),
            ("7", "/m/0k4j,/m/012f08,/m/07yv9"),  # car, of vehicle, which alone is ambiguous
        ],
        "eval": [("8", "/m/04rlf"), ("9", "/m/0k4j")],
    }
    (root / "FSD50K.ground_truth").mkdir(parents=True)
    for side, listed in rows.items():
        lines = ["fname,labels,mids" + (",split" if side == "dev" else "")]
        for name, mids in listed:
            lines.append(f'{name},"x","{mids}"' + (",train" if side == "dev" else ""))
            sounds.write(root / f"FSD50K.{side}_audio" / f"{name}.wav", sounds.tone(400, 2.0))
        (root / "FSD50K.ground_truth" / f"{side}.csv").write_text("\n".join(lines))
    (root / "FSD50K.ground_truth" / "vocabulary.csv").write_text("0,Doorbell,/m/03wwcy\n")
    return root


def test_fsd50k_layout(tmp_path: Path) -> None:
    root = fsd50k_layout(tmp_path / "fsd")
    data = read(root, tmp_path)
    assert data.class_names == five.REPORT_CLASSES
    per_clip = {
        (int(data.folds[i]), data.class_names[data.labels[i]]) for i in range(len(data.labels))
    }
    assert per_clip == {
        (1, "music"),
        (1, "engine sounds"),
        (2, "music"),
        (2, "human voice"),
        (2, "alarm"),
        (2, "engine sounds"),
    }
    assert "2 clips left out, with an ambiguous label or none that is known" in data.notes
    assert "1 clip left out, with labels of more than one class" in data.notes
    assert "no clip of class other" in data.notes
    assert len(np.unique(data.recording_ids)) == 6
    (root / "FSD50K.metadata").mkdir()
    (root / "FSD50K.metadata" / "dev_clips_info_FSD50K.json").write_text(
        json.dumps({name: {"uploader": "ann"} for name in ("1", "2")})
    )
    assert len(np.unique(read(root, tmp_path).recording_ids)) == 5
    (root / "FSD50K.eval_audio" / "8.wav").unlink()
    assert "8.wav" in faults_of(root, tmp_path / "strict", strict=True)
    table = root / "FSD50K.ground_truth" / "eval.csv"
    table.write_text(table.read_text() + '\n8,"x","/m/0k4j"')
    assert "lists 8 twice" in faults_of(root, tmp_path / "twice")
    (root / "FSD50K.ground_truth" / "eval.csv").unlink()
    assert "needs dev.csv and eval.csv" in faults_of(root, tmp_path / "half")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not beside the repository")
def test_mapping_agrees_with_the_shared_facts() -> None:
    facts = json.loads((SHARED / "audioset" / "five_classes.json").read_text())
    names = {"human_voice": "human voice", "engine": "engine sounds"}
    for short, nodes in facts["classes"].items():
        for node, _ in nodes:
            assert five.class_of_node(node) == names.get(short, short)
    for node, _ in facts["ambiguous"]:
        assert five.class_of_node(node) is None
    listed = {c: names.get(s, s) for s, row in facts["esc50_to_five"].items() for c in row}
    table = five._ontology().esc50
    assert len(table) == 50
    for category in table:
        expected = listed.get(category, "other")
        assert five.class_of_esc50(category) == (None if expected == "ambiguous" else expected)


@pytest.mark.skipif(not ESC10.is_dir(), reason="ESC-10 is not beside the repository")
def test_real_esc10_clips(tmp_path: Path) -> None:
    """Two clips per fold of four classes, through the whole reader."""
    import csv

    root = tmp_path / "esc10"
    (root / "meta").mkdir(parents=True)
    os.symlink(ESC10 / "audio", root / "audio")
    with (ESC10 / "meta" / "esc50.csv").open() as file:
        rows = list(csv.DictReader(file))
    taken, counts = [], Counter()
    for row in rows:
        key = (row["fold"], row["category"])
        if row["category"] in ("dog", "rain", "sneezing", "helicopter") and counts[key] < 2:
            counts[key] += 1
            taken.append(row)
    with (root / "meta" / "esc50.csv").open("w") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(taken)
    # The audio folder is a link out of the set, which is refused: copy the files instead.
    assert "not there" in faults_of(root, tmp_path)
    (root / "audio").unlink()
    (root / "audio").mkdir()
    for row in taken:
        (root / "audio" / row["filename"]).write_bytes(
            (ESC10 / "audio" / row["filename"]).read_bytes()
        )
    data = read(root, tmp_path)
    assert data.class_names == ("dog", "rain", "sneezing", "helicopter")
    assert len(data) == 40 * 6
    assert np.bincount(data.folds).tolist() == [0] + [48] * 5
    assert data.notes == ()
    decibels = data.decibels(np.arange(len(data)))
    silent = decibels.max(axis=(1, 2)) == FLOOR_DB
    assert np.isfinite(decibels).all() and decibels.min() == FLOOR_DB and decibels.max() == 0
    assert 0 < silent.sum() < 40
    assert (data.labels[silent] != 1).all()  # rain is never silent


# --- npy pair ------------------------------------------------------------------------------------


def npy_pair(root: Path, count: int = 40) -> Path:
    root.mkdir(parents=True)
    generator = np.random.default_rng(0)
    np.save(root / "training.npy", generator.uniform(-80, 0, (count, 32, 96)).astype(np.float32))
    np.save(root / "training_labels.npy", np.arange(count) % 5)
    return root


def test_npy_pair(tmp_path: Path) -> None:
    root = npy_pair(tmp_path / "pair")
    np.save(root / "test.npy", np.zeros((3, 32, 96), dtype=np.float32))
    data = read(root, tmp_path)
    assert data.class_names == five.REPORT_CLASSES
    assert data.frontend is None and data.folds is None
    original = np.load(root / "training.npy")
    assert np.abs(data.decibels(np.arange(40)) - original).max() <= 1 / 512
    assert data.labels.tolist() == [i % 5 for i in range(40)]
    assert data.recording_ids.tolist() == list(range(40))
    assert data.notes[0].startswith("test.npy holds 3 spectrograms without labels")


def test_npy_pair_variants(tmp_path: Path) -> None:
    root = npy_pair(tmp_path / "pair")
    spectrograms = np.load(root / "training.npy")
    np.save(root / "training.npy", np.asfortranarray(spectrograms.astype(">f8")))
    np.save(root / "training_labels.npy", (np.arange(40) % 7).astype(np.float64)[:, None])
    np.save(root / "training_recordings.npy", np.arange(40) // 2)
    (root / "classes.json").write_text(json.dumps(list("abcdefg")))
    data = read(root, tmp_path)
    assert data.class_names == tuple("abcdefg")
    assert len(np.unique(data.recording_ids)) == 20
    assert np.abs(data.decibels(np.arange(40)) - spectrograms).max() <= 1 / 512
    (root / "classes.json").unlink()
    (root / "class_names.txt").write_text("\n".join("abcdefgh") + "\n")
    assert read(root, tmp_path).notes == ("no clip of class h",)
    assert "has classes of its own" in _refusal(root, tmp_path, classes="five")


def _refusal(root: Path, tmp_path: Path, **options: object) -> str:
    with pytest.raises(InputError) as refusal:
        read(root, tmp_path, **options)
    return str(refusal.value)


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("touch was-run",))


def _with(value: float, index: tuple[int, ...]) -> np.ndarray:
    array = np.full((40, 32, 96), -40, dtype=np.float32)
    array[index] = value
    return array


GOOD = np.full((40, 32, 96), -40, dtype=np.float32)
LABELS = np.arange(40) % 5
NPY_FAULTS = {
    "labels of another length": (GOOD, LABELS[:39], "39 labels for 40 spectrograms"),
    "label above": (GOOD, np.arange(40) % 6, "label 5 at index 5 is outside the classes 0..4"),
    "label below": (GOOD, LABELS - 1, "label -1 at index 0"),
    "one class": (GOOD, np.full(40, 3), "every clip is of class 'engine sounds'"),
    "nan": (_with(np.nan, (7, 3, 2)), LABELS, "spectrogram 7 holds NaN"),
    "infinite": (_with(-np.inf, (39, 0, 0)), LABELS, "spectrogram 39 holds NaN or infinite"),
    "out of range": (_with(3e4, (4, 0, 0)), LABELS, "spectrogram 4 has values from -40 to 3e+04"),
    "two dimensions": (GOOD[0], LABELS, "has shape (32, 96)"),
    "four dimensions": (GOOD[:, None], LABELS, "has shape (40, 1, 32, 96)"),
    "transposed": (GOOD.transpose(0, 2, 1), LABELS, "save array.transpose(0, 2, 1)"),
    "no clip": (GOOD[:0], LABELS[:0], "holds no spectrogram"),
    "whole numbers": (GOOD.astype(np.int16), LABELS, "has type int16"),
    "complex": (GOOD.astype(np.complex64), LABELS, "has type complex64"),
    "text labels": (GOOD, LABELS.astype(str), "labels must be whole numbers"),
    "fractional labels": (GOOD, LABELS + 0.5, "labels must be whole numbers"),
    "label matrix": (GOOD, np.zeros((40, 2), dtype=int), "has shape (40, 2)"),
    "objects": (np.array([_Payload()] * 40, dtype=object), LABELS, "pickled Python objects"),
    "object labels": (GOOD, np.array([_Payload()] * 40, dtype=object), "pickled Python objects"),
}


@pytest.mark.parametrize("fault", NPY_FAULTS)
def test_npy_faults(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spectrograms, labels, message = NPY_FAULTS[fault]
    root = tmp_path / "pair"
    root.mkdir()
    np.save(root / "training.npy", spectrograms, allow_pickle=True)
    np.save(root / "training_labels.npy", labels, allow_pickle=True)
    assert message in faults_of(root, tmp_path)
    assert not (tmp_path / "was-run").exists()


LINEAR = {
    "power": (lambda power: power, True),
    "power of the loudest": (lambda power: power / power.max(axis=(1, 2), keepdims=True), True),
    "amplitude": (np.sqrt, True),
    "dB": (lambda power: 10 * np.log10(power), False),
    "dB above the floor": (lambda power: 10 * np.log10(power) + 80, False),
    "dB above much of it": (lambda power: np.maximum(10 * np.log10(power) + 25, 0), False),
    "dB from 0 to 1": (lambda power: (10 * np.log10(power) + 80) / 100, False),
    "standardised": (lambda power: np.log10(power) - np.log10(power).mean(), False),
}


@pytest.mark.parametrize("form", LINEAR)
def test_linear_spectrograms_are_warned_of(form: str, tmp_path: Path) -> None:
    waves = [sounds.tone(300 + 50 * i, FRONTEND.clip_seconds) for i in range(40)]
    power = np.maximum(mel_power(np.stack(waves), FRONTEND), 1e-8)
    made, linear = LINEAR[form]
    root = npy_pair(tmp_path / "pair")
    np.save(root / "training.npy", made(power).astype(np.float32))
    warnings = [note for note in read(root, tmp_path).notes if "10 * log10(power)" in note]
    assert len(warnings) == linear
    np.save(tmp_path / "more.npy", made(power).astype(np.float32))
    transfer = open_transfer([tmp_path / "more.npy"], FRONTEND, tmp_path / "cache", workers=1)
    assert len(transfer.notes) == linear


def test_npy_files_that_are_none(tmp_path: Path) -> None:
    root = npy_pair(tmp_path / "pair")
    whole = (root / "training.npy").read_bytes()
    np.savez(tmp_path / "archive.npz", a=np.zeros(3))
    for content, message in (
        (whole[: len(whole) // 2], "not a whole .npy file"),
        (b"", "not a whole .npy file"),
        (b"hello, this is text", "pickled|not a whole"),
        (b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00K\x01.", "pickled"),
        ((tmp_path / "archive.npz").read_bytes(), "archive of arrays"),
    ):
        (root / "training.npy").write_bytes(content)
        found = faults_of(root, tmp_path)
        assert any(part in found for part in message.split("|")), found
    (root / "training.npy").unlink()
    assert "training.npy: no such file" in faults_of(root, tmp_path)


@pytest.mark.parametrize("names", ['["a"]', '["a", "a"]', '["a", 1]', '{"a": 1}', "not json"])
def test_bad_class_names(names: str, tmp_path: Path) -> None:
    root = npy_pair(tmp_path / "pair")
    (root / "classes.json").write_text(names)
    assert "classes.json" in faults_of(root, tmp_path)


# --- what a path may be --------------------------------------------------------------------------


def test_paths_that_hold_no_data_set(tmp_path: Path) -> None:
    assert "no such folder" in faults_of(tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "the folder is empty" in faults_of(tmp_path / "empty", tmp_path)
    (tmp_path / "file.txt").write_text("x")
    assert "is a file" in faults_of(tmp_path / "file.txt", tmp_path)
    (tmp_path / "texts" / "a").mkdir(parents=True)
    (tmp_path / "texts" / "a" / "b.txt").write_text("x")
    assert "no known layout" in faults_of(tmp_path / "texts", tmp_path)
    sounds.write(tmp_path / "flat" / "a.wav", sounds.tone(400, 2.0))
    assert "without class folders" in faults_of(tmp_path / "flat", tmp_path)
    sounds.write(tmp_path / "single" / "only" / "a.wav", sounds.tone(400, 2.0))
    assert "only one class is there (only)" in faults_of(tmp_path / "single", tmp_path)


@pytest.mark.parametrize("spec", ["scenes:", "scenes:0", "scenes:-5", "scenes:many", "scenes:1e5"])
def test_scenes_need_a_number(spec: str, tmp_path: Path) -> None:
    assert "no number of clips" in faults_of(spec, tmp_path)


def test_scenes(tmp_path: Path) -> None:
    data = read("scenes:24", tmp_path, seed=3)
    assert data.synthetic
    assert data.class_names == five.REPORT_CLASSES
    assert data.codes.shape == (24, 32, 96)
    assert data.frontend == FRONTEND
    again = read("scenes:24", tmp_path / "again", seed=3)
    assert again.content_hash == data.content_hash
    assert read("scenes:24", tmp_path, seed=4).content_hash != data.content_hash
    longer = read("scenes:30", tmp_path, seed=3)
    assert np.array_equal(longer.codes[:24], data.codes)


# --- unlabelled material -------------------------------------------------------------------------


def test_transfer_takes_sound_and_arrays(tmp_path: Path) -> None:
    root = sounds.class_folders(tmp_path / "sounds", per_class=2)
    bad_sound("text", root / "bad.wav")
    pair = npy_pair(tmp_path / "pair")
    np.save(pair / "test.npy", np.full((5, 32, 96), -30, dtype=np.float32))
    single = sounds.write(tmp_path / "one.wav", sounds.tone(400, 2.0))
    cache = tmp_path / "cache"
    data = open_transfer([root, pair, single], FRONTEND, cache, 1)
    assert (data.labels == -1).all()
    assert data.class_names == ()
    assert len(np.unique(data.clip_ids)) == 4 + 5 + 1
    assert (data.codes == -30 * 256).all(axis=(1, 2)).sum() == 5
    assert data.notes[0].startswith("1 file skipped: bad.wav: ")
    with pytest.raises(InputError, match=r"bad.wav.*--strict"):
        open_transfer([root], FRONTEND, cache, 1, strict=True)


def test_transfer_faults(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("x")
    np.save(tmp_path / "other.npy", np.zeros((3, 40, 96), dtype=np.float32))
    for path, message in (
        ("nowhere", "no such file or folder"),
        ("empty", "no audio below this folder"),
        ("a.txt", "not a sound file by its name"),
        ("other.npy", "spectrograms of 40 x 96; the data set has 32 x 96"),
    ):
        with pytest.raises(InputError, match=message):
            open_transfer([tmp_path / path], FRONTEND, cache, 1)
    single = sounds.write(tmp_path / "one.wav", sounds.tone(400, 2.0))
    with pytest.raises(InputError, match="front end that sound would need is unknown"):
        open_transfer([single], None, cache, 1, shape=(32, 96))
    np.save(tmp_path / "right.npy", np.zeros((3, 32, 96), dtype=np.float32))
    data = open_transfer([tmp_path / "right.npy"], None, cache, 1, shape=(32, 96))
    assert len(data) == 3 and data.frontend is None
