"""The cached form of every data set: rounding, resuming, locking."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from compress.data import sets
from compress.data.sets import (
    ROUNDING_ERROR_DB,
    Shard,
    SpectrogramSet,
    build_cached,
    decode_db,
    encode_db,
    find_recorded,
)
from compress.errors import InputError


def test_rounding_error_is_within_the_stated_bound() -> None:
    decibels = np.random.default_rng(0).uniform(-80, 20, 100_000).astype(np.float32)
    difference = np.abs(decode_db(encode_db(decibels)) - decibels)
    assert ROUNDING_ERROR_DB == 1 / 512
    assert difference.max() <= ROUNDING_ERROR_DB
    assert difference.max() > 0.9 * ROUNDING_ERROR_DB  # the bound is tight


def test_codes_by_hand_and_clipping() -> None:
    decibels = np.array([-80.0, 0.0, 0.5, -200.0, 200.0])
    assert encode_db(decibels).tolist() == [-20480, 0, 128, -32768, 32767]
    assert decode_db(np.array([-20480, 128], dtype=np.int16)).tolist() == [-80.0, 0.5]


def make(job: int, log: Path, fail_at: int | None = None, empty: bool = False) -> Shard:
    """Two windows per job; writes one line to ``log`` each time that it runs."""
    if job == fail_at:
        raise RuntimeError("power cut")
    with log.open("a") as file:
        file.write(f"{job}\n")
    count = 0 if empty else 2
    return {
        "codes": np.full((count, 4, 3), job, dtype=np.int16),
        "labels": [job % 2] * count,
        "recording_ids": [job] * count,
        "clip_ids": range(2 * job, 2 * job + count),
        "notes": [f"job {job}"],
    }


def build(
    cache: Path,
    log: Path,
    workers: int = 1,
    jobs: int = 6,
    name: str = "numbers",
    **options: object,
):
    return build_cached(
        name=name,
        key={"jobs": jobs, "root": name},
        jobs=list(range(jobs)),
        make=partial(make, log=log, **options),
        class_names=("even", "odd"),
        frontend=None,
        cache=cache,
        workers=workers,
    )


def runs_of(log: Path) -> list[int]:
    return sorted(int(line) for line in log.read_text().split())


def test_set_holds_all_jobs_in_order_and_stays_on_disk(tmp_path: Path) -> None:
    data = build(tmp_path / "cache", tmp_path / "log")
    assert isinstance(data, SpectrogramSet)
    assert isinstance(data.codes, np.memmap)
    assert data.codes[:, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert data.labels.tolist() == [0, 0, 1, 1] * 3
    assert data.clip_ids.tolist() == list(range(12))
    assert (data.mels, data.frames, len(data)) == (4, 3, 12)
    assert data.folds is None
    assert data.notes == tuple(f"job {i}" for i in range(6))


def test_second_start_builds_nothing(tmp_path: Path) -> None:
    first = build(tmp_path / "cache", tmp_path / "log")
    second = build(tmp_path / "cache", tmp_path / "log")
    assert first.content_hash == second.content_hash
    assert runs_of(tmp_path / "log") == list(range(6))


def test_a_set_is_found_under_the_name_of_its_folder(tmp_path: Path) -> None:
    made = [build(tmp_path / "cache", tmp_path / "log", name=name) for name in ("ours", "theirs")]
    assert made[0].content_hash == made[1].content_hash
    for data in made:
        found = find_recorded(data.describe(), tmp_path / "cache")
        assert found is not None and found.name == data.name
    assert find_recorded({"name": "ours"}, tmp_path / "cache") is None


def test_interrupted_building_continues_where_it_stopped(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(RuntimeError, match="power cut"):
        build(tmp_path / "cache", log, fail_at=3)
    assert runs_of(log) == [0, 1, 2]
    data = build(tmp_path / "cache", log)
    assert runs_of(log) == [0, 1, 2, 3, 4, 5]  # each job once over both starts
    whole = build(tmp_path / "other", tmp_path / "log2")
    assert data.content_hash == whole.content_hash
    assert data.notes == whole.notes


def test_interruption_after_the_join_loses_no_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def power_cut(*_: object) -> str:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr("compress.data.sets.content_hash", power_cut)
        with pytest.raises(RuntimeError):
            build(tmp_path / "cache", tmp_path / "log")
    data = build(tmp_path / "cache", tmp_path / "log")
    assert len(data.notes) == 6
    assert runs_of(tmp_path / "log") == list(range(6))


def test_number_of_workers_does_not_change_the_content(tmp_path: Path) -> None:
    one = build(tmp_path / "one", tmp_path / "log1", workers=1)
    two = build(tmp_path / "two", tmp_path / "log2", workers=2)
    assert one.content_hash == two.content_hash


def test_two_processes_on_one_cache_build_once(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_sets
        make = test_sets.make
        def slow(job, **options):
            time.sleep(0.1)
            return make(job, **options)
        test_sets.make = slow
        data = test_sets.build(Path({str(tmp_path / "cache")!r}), Path({str(tmp_path / "log")!r}))
        print(data.content_hash)
        """
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    hashes = [process.communicate(timeout=50)[0].strip() for process in processes]
    assert hashes[0] == hashes[1] != ""
    assert runs_of(tmp_path / "log") == list(range(6))


def test_no_window_at_all_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not one usable clip"):
        build(tmp_path / "cache", tmp_path / "log", empty=True)
    assert not list((tmp_path / "cache" / "sets").glob("*/"))


@pytest.mark.parametrize(("name", "left"), [("spectrograms.npy", 50), ("labels.npy", 0)])
def test_damaged_cache_is_named(name: str, left: int, tmp_path: Path) -> None:
    build(tmp_path / "cache", tmp_path / "log")
    (stored,) = (tmp_path / "cache" / "sets").glob(f"*/{name}")
    stored.write_bytes(stored.read_bytes()[:left])
    with pytest.raises(InputError, match="prepared data is damaged.*delete this folder"):
        build(tmp_path / "cache", tmp_path / "log")


def test_a_large_set_is_read_from_its_file_and_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = build(tmp_path / "cache", tmp_path / "log")
    wanted = np.array([7, 0, 11, 7])
    mapped = [data.read(wanted), data.read(slice(3, 9))]
    monkeypatch.setattr(sets, "_MOST_MAPPED_BYTES", 0)
    assert np.array_equal(data.read(wanted), mapped[0])
    assert np.array_equal(data.read(slice(3, 9)), mapped[1])
    file = Path(data.codes.filename)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="ends too soon"):
        data.read(np.array([11]))
