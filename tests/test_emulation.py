"""C code on emulated processors: the same codes, counts that repeat, sizes, limits, the report."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import run_folders
from test_chip import MADE, write_c

from compress import budgets, cli, export, gate, report, runs
from compress.chip import counts, elf, emulate, emulated_runs, figures, frontend_c, toolchain
from compress.chip.fixed_point import FIXED_POINT
from compress.chip.targets import TARGETS, estimates
from compress.config import ExportConfig, GateConfig, ReportConfig
from compress.errors import InputError
from compress.frontend import FrontEnd
from compress.int8.reference import IntegerNetwork

STANDIN = Path(__file__).parent / "chip_standin"
MISSING = [tool for tool in (toolchain.CROSS_COMPILER, toolchain.EMULATOR, "cc")
           if not shutil.which(tool)]  # fmt: skip
needs_tools = pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)}; make chip-tools"
)
SOUND = FrontEnd(mels=2, frames=6, reference="fixed")
WINDOWS = np.random.default_rng(0).integers(-20480, 1, (5, 2, 6)).astype(np.int16)


def numbers(name: str) -> np.ndarray:
    """A constant array of the stand-in, read off its source."""
    text = (STANDIN / "model.c").read_text()
    inside = text.split(f" {name}[", 1)[1].split("{", 1)[1].split("}", 1)[0]
    return np.array([int(part) for part in inside.split(",")])


def standin_codes(windows: np.ndarray) -> np.ndarray:
    """What the stand-in computes, in numpy."""
    x = windows.reshape(len(windows), -1).astype(np.int64)
    x = np.trunc(x / 160).astype(np.int64) + 64
    x = (x + 128) % 256 - 128
    for layer in ("hidden_", ""):
        matrix = numbers(f"{layer}weights").reshape(-1, x.shape[1])
        x = np.clip((x @ matrix.T + numbers(f"{layer}biases")) >> 8, -128, 127)
    return x.astype(np.int8)


@needs_tools
@pytest.mark.parametrize("name", TARGETS)
def test_codes_are_those_of_numpy_and_counts_repeat(name, tmp_path):
    target = TARGETS[name]
    seen = emulate.run(target, STANDIN, WINDOWS)
    emulate.compare(target, seen, standin_codes(WINDOWS))
    again = emulate.run(target, STANDIN, WINDOWS)
    for field in ("windows", "layers", "encoding", "stack_bytes"):
        assert getattr(seen, field) == getattr(again, field)
    assert [(layer.name, layer.macs) for layer in seen.layers] == [("hidden", 48), ("linear", 12)]
    parts = seen.encoding.instructions + sum(layer.instructions for layer in seen.layers)
    assert parts < seen.windows[0].instructions < parts + 100  # copying codes, the largest one
    assert all(3 * layer.macs < layer.instructions < 15 * layer.macs for layer in seen.layers)
    assert 0 < seen.stack_bytes < 256

    emulate.link_minimal(target, STANDIN, tmp_path / "minimal.elf", seen.stack_bytes)
    found = emulate.figures(seen, elf.read(tmp_path / "minimal.elf"))
    assert found["arena_bytes"] == 24 and found["ram_bytes"] == 24 + 4 + found["stack_bytes"]
    assert found["weights_bytes"] == 48 + 12 + 4 * (4 + 3)
    assert found["flash_bytes"] == sum(
        found[part] for part in ("weights_bytes", "code_bytes", "startup_bytes")
    )
    assert found["instructions_per_mac"] == found["instructions"] / 60

    wrong = standin_codes(WINDOWS)
    wrong[3, 0] += 1
    with pytest.raises(InputError, match="1 of 5 windows .*first: window 3"):
        emulate.compare(target, seen, wrong)


@needs_tools
@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])  # M7 takes the path of M4
@pytest.mark.parametrize("make", MADE)
def test_every_kernel_gives_the_bits_of_numpy_on_the_processor(make, target, tmp_path):
    net, output = make()
    path = net.save(tmp_path / "int8.onnx", output)
    network, _ = write_c(path, tmp_path)
    steps = np.random.default_rng(0).integers(-20480, 1, (8, *net.shape)).astype(np.int16)
    reference = IntegerNetwork(path, FIXED_POINT, network.model)
    reference(steps[:, None].astype(np.float32) / 256)
    wanted = reference.codes[network.output].values.reshape(len(steps), -1)
    seen = emulate.run(TARGETS[target], tmp_path, steps)
    np.testing.assert_array_equal(seen.codes, wanted)
    vectors = sum(layer.vector_instructions for layer in seen.layers)
    assert (vectors > 0) == (target == "cortex-m55")


@needs_tools
def test_image_headers_agree_with_the_tools(tmp_path):
    image_file = tmp_path / "minimal.elf"
    emulate.link_minimal(TARGETS["cortex-m4"], STANDIN, image_file, 60)
    image = elf.read(image_file)
    told = subprocess.run(
        ["arm-none-eabi-size", "-A", image_file], capture_output=True, text=True, check=True
    )
    sizes = {
        line.split()[0]: int(line.split()[1])
        for line in told.stdout.splitlines()
        if line.startswith(".")
    }
    assert {name: image.section(name).size for name in sizes} == sizes
    told = subprocess.run(
        ["arm-none-eabi-size", image_file], capture_output=True, text=True, check=True
    )
    text, data, bss = map(int, told.stdout.splitlines()[1].split()[:3])
    assert image.flash_bytes == text + data and image.ram_bytes == data + bss
    assert image.stack_bytes == 64
    told = subprocess.run(
        ["arm-none-eabi-nm", image_file], capture_output=True, text=True, check=True
    )
    addresses = {line.split()[2]: int(line.split()[0], 16) for line in told.stdout.splitlines()}
    for name in ("scene_classify", "main", "image_stack_top"):
        assert image.symbols[name] & ~1 == addresses[name] & ~1

    content = image_file.read_bytes()
    cut = [content[:size] for size in (0, 20, 300, len(content) // 2)]
    for number, damaged in enumerate([*cut, b"\x7fELF\x02" + content[5:]]):
        (tmp_path / f"{number}.elf").write_bytes(damaged)
        with pytest.raises(InputError, match="not a 32-bit Arm ELF"):
            elf.read(tmp_path / f"{number}.elf")


def test_vector_instructions_by_hand():
    """movs; vldrb.8 (ed91 1e00); wls (f040 c001, no vector); vmladava.s8 (eef0 ...); bx lr."""
    code = b"".join(half.to_bytes(2, "little") for half in
                    (0x2000, 0xED91, 0x1E00, 0xF040, 0xC001, 0xEEF0, 0x0F02, 0x4770))  # fmt: skip
    assert counts.vector_instructions(code, 0, 5) == 2
    assert counts.vector_instructions(code, 6, 2) == 1


def test_estimates_by_hand():
    """51 MACs at 0.51 a cycle are 100 cycles, more than 60 instructions take; 120 are more."""
    core = TARGETS["cortex-m4"].core
    found = estimates(core, 51, 60, 0, separable=True, clock_mhz=0.1, microwatts_per_mhz=20)
    assert found["cycles"] == 100 and found["milliseconds"] == 1.0
    assert found["microjoules"] == pytest.approx(100 * 20e-6)
    assert "MLPerf Tiny" in found["cycles_source"] and not found["at_least"]
    found = estimates(core, 51, 120, 0, separable=True)
    assert found["cycles"] == 120 and found["at_least"]
    assert '"Cortex-M4 Technical Reference Manual"' in found["cycles_source"]
    core = TARGETS["cortex-m55"].core
    assert estimates(core, 51, 120, 20, separable=True)["cycles"] == 140


def exported(*arguments: object) -> int:
    return cli.main(ExportConfig, export.run, "", list(map(str, arguments)))


def test_missing_tools_are_one_line_before_anything_is_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    out = tmp_path / "out"
    arguments = ("--run", tmp_path, "--format", "c", "--out", out)
    assert exported(*arguments, "--target", "cortex-m4") == 2
    (line,) = capsys.readouterr().err.splitlines()
    for part in ("gcc-arm-none-eabi", "qemu-system-arm", "make chip-tools"):
        assert part in line
    assert not out.exists()
    assert exported(*arguments, "--target", "cortex-m5") == 2
    assert "cortex-m55" in capsys.readouterr().err
    assert exported("--run", tmp_path, "--format", "onnx", "--target", "cortex-m4") == 2
    assert "--target: is for --format c" in capsys.readouterr().err


# --- an export with its figures ------------------------------------------------------------------


@pytest.fixture(scope="module")
def emulated_once(tmp_path_factory) -> Path:
    """A C export of the stand-in, emulated on two processors."""
    root = tmp_path_factory.mktemp("emulated") / "runs"
    folder = run_folders.make(root, "standin", name="standin", stage="export", accuracy=0.9)
    (folder / "model.onnx").unlink()
    for name in figures.SOURCES:
        shutil.copy(STANDIN / name, folder / name)
    found = json.loads((folder / "metrics.json").read_text())
    found |= {"artifact": "model.c", "sha256": runs.sha256_file(folder / "model.c")}
    (folder / "metrics.json").write_text(json.dumps(found))
    manifest = json.loads((folder / "manifest.json").read_text())
    sound = [*frontend_c.write_frontend(folder, SOUND), *frontend_c.write_scene(folder, SOUND, 0.1)]
    names = (*figures.SOURCES, "metrics.json", *sound)
    manifest |= {"artefacts": {name: runs.sha256_file(folder / name) for name in names},
                 "format": "c"}  # fmt: skip
    manifest["data"]["frontend"] = SOUND.to_dict()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.MonkeyPatch.context() as patch:
        reference = emulated_runs.Reference(
            WINDOWS, standin_codes(WINDOWS), False, standin_codes
        )
        patch.setattr(emulated_runs, "_reference", lambda run, config: reference)
        arguments = ["--run", folder, "--target", "cortex-m4", "--target", "cortex-m55"]
        assert exported(*arguments, "--clock-mhz", 10) == 0
        before = (folder / "chip/cortex-m4.elf").stat().st_mtime_ns
        patch.setattr(emulate, "run", None)  # nothing changed: it is not run again
        assert exported(*arguments) == 0
        assert (folder / "chip/cortex-m4.elf").stat().st_mtime_ns == before
    return root


@pytest.fixture
def emulated(emulated_once, tmp_path) -> Path:
    return Path(shutil.copytree(emulated_once, tmp_path / "runs"))


@needs_tools
def test_the_run_folder_records_what_was_emulated(emulated):
    run = runs.open_run(emulated / "standin")
    run.check_unchanged()
    assert run.complete and figures.targets_of(run.manifest) == ["cortex-m4", "cortex-m55"]
    found = figures.read(run.folder, run.manifest, "cortex-m4").values
    image = run.folder / "chip/cortex-m4.elf"
    assert found["image_sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
    assert found["windows"] == found["windows_equal"] == 5
    assert found["estimates"][0]["clock_mhz"] == TARGETS["cortex-m4"].core.clock_mhz
    assert [guess["core"] for guess in found["estimates"]] == ["cortex-m4", "cortex-m33"]


@needs_tools
def test_the_stream_is_counted_from_sound(emulated, monkeypatch, capsys):
    reference = emulated_runs.Reference(WINDOWS, standin_codes(WINDOWS), False, standin_codes)
    wrong = dataclasses.replace(reference, ask=lambda windows: 1 + standin_codes(windows))
    monkeypatch.setattr(emulated_runs, "_reference", lambda run, config: wrong)
    arguments = ["--run", emulated / "standin", "--target", "cortex-m4", "--from-wave"]
    assert exported(*arguments) == 2
    assert "windows of sound have other outputs" in capsys.readouterr().err
    monkeypatch.setattr(emulated_runs, "_reference", lambda run, config: reference)
    assert exported(*arguments) == 0
    assert "from sound, per decision" in capsys.readouterr().out
    run = runs.open_run(emulated / "standin")
    found = figures.read(run.folder, run.manifest, "cortex-m4").values["sound"]
    parts = [found[f"{part}_instructions"] for part in ("front_end", "stream", "network")]
    assert found["instructions"] == sum(parts)
    frames = 4  # of 20 ms, two thirds of a window
    assert 150_000 < parts[0] / frames < 300_000
    assert all(part > 0 for part in parts)
    assert found["hop_seconds"] == pytest.approx(0.08) and found["decisions"] == 3
    assert found["flash_bytes"] > 8_000 and found["ram_bytes"] > 16 * SOUND.fft_size // 2

    monkeypatch.setattr(emulate, "run_sound", None)  # nothing changed: it is not run again
    assert exported(*arguments) == 0
    assert cli.main(ReportConfig, report.run, "", ["--runs", str(emulated)]) == 0
    text = (emulated / "report" / "report.md").read_text()
    assert "standin, from sound" in text and f"{found['instructions']:,}" in text


def gated(root: Path, text: str) -> int:
    limits = root.parent / "limits.toml"
    limits.write_text(text)
    return cli.main(GateConfig, gate.run, "", [str(root), "--budgets", str(limits)])


@needs_tools
def test_the_gate_holds_limits_on_processors(emulated, capsys):
    run = runs.open_run(emulated / "standin")
    on_m4 = figures.read(run.folder, run.manifest, "cortex-m4").values
    for figure in ("flash_bytes", "ram_bytes", "instructions"):
        assert gated(emulated, f"[fail.cortex-m4]\n{figure} = {on_m4[figure]}\n") == 0
        capsys.readouterr()
        assert gated(emulated, f"[fail.cortex-m4]\n{figure} = {on_m4[figure] - 1}\n") == 1
        out = capsys.readouterr().out
        assert f"standin on cortex-m4: {figure} {on_m4[figure]:,} is over the limit" in out
        assert "FAIL" not in out.split("cortex-m55:")[1]
    assert gated(emulated, "[fail]\nflash_bytes = 1\n[fail.cortex-m4]\nflash_bytes = 10_000\n") == 1
    assert "on cortex-m55: flash_bytes" in capsys.readouterr().out.split("FAIL")[1]
    assert gated(emulated, "[warn]\ninstructions = 1\n") == 0
    assert "WARN" in capsys.readouterr().out
    assert gated(emulated, "[fail]\nchip_accuracy = 0.9\n") == 0
    assert gated(emulated, "[fail]\nchip_accuracy = 0.901\n") == 1
    assert "chip_accuracy 90.00 % is under the least of 90.10 %" in capsys.readouterr().out


@needs_tools
@pytest.mark.parametrize(
    "name", ["chip/cortex-m4.elf", "chip/cortex-m4.json", "kernels.c", "metrics.json"]
)
def test_the_gate_believes_no_changed_file(name, emulated, capsys):
    path = emulated / "standin" / name
    path.write_bytes(path.read_bytes() + b" ")
    assert gated(emulated, "[fail]\nflash_bytes = 1_000_000\n") == 2
    assert f"{name} changed since" in capsys.readouterr().out


@needs_tools
def test_figures_of_other_code_are_refused_though_the_manifest_has_its_hash(emulated):
    """Somebody who edits the C code and its hash has not measured it."""
    folder = emulated / "standin"
    (folder / "model.c").write_bytes((folder / "model.c").read_bytes() + b"\n")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["artefacts"]["model.c"] = runs.sha256_file(folder / "model.c")
    with pytest.raises(InputError, match="measured on other C code"):
        figures.read(folder, manifest, "cortex-m4")


def test_faults_of_limits_on_processors_are_named(tmp_path):
    path = tmp_path / "limits.toml"
    path.write_text("[fail.cortex-m4]\nram_byte = 3\ninstructions = -1\n[fail.cortex-m3]\nx = 1\n")
    with pytest.raises(InputError) as error:
        budgets.load(path)
    for part in ("did you mean ram_bytes", "instructions: -1 is negative", "cortex-m3"):
        assert part in str(error.value)


@needs_tools
def test_the_report_has_a_table_of_chips(emulated, capsys):
    (emulated.parent / "limits.toml").write_text("[fail]\nram_bytes = 10\n")
    arguments = ["--runs", str(emulated), "--budgets", str(emulated.parent / "limits.toml")]
    assert cli.main(ReportConfig, report.run, "", arguments) == 0
    printed = capsys.readouterr().out
    assert "cortex-m4" in printed and "est. time" in printed
    listed = json.loads((emulated / "report" / "chip.json").read_text())
    assert [entry["target"] for entry in listed] == ["cortex-m4", "cortex-m55"]
    assert listed[0]["accuracy"] == 0.9 and listed[0]["within_budget"] is False
    assert listed[0]["over"] == {"ram_bytes": listed[0]["ram_bytes"] - 10}
    page = (emulated / "report" / "report.html").read_text()
    text = (emulated / "report" / "report.md").read_text()
    table = (emulated / "report" / "chip.csv").read_text().splitlines()
    assert "estimated_milliseconds" in table[0] and len(table) == 3
    for written in (page, text):
        assert f"{listed[0]['instructions']:,}" in written
        assert "NOT measured" in written
        assert "MLPerf Tiny" in written or "Technical Reference Manual" in written
    assert "instructions per layer" in page and "hidden" in page

    (emulated / "standin" / "chip/cortex-m4.elf").write_bytes(b"")
    assert cli.main(ReportConfig, report.run, "", arguments) == 0
    assert "chip/cortex-m4.elf changed since" in capsys.readouterr().out
    listed = json.loads((emulated / "report" / "chip.json").read_text())
    assert [entry["target"] for entry in listed] == ["cortex-m55"]


def test_every_target_has_a_linker_script_and_a_choice():
    choices = {field.name: field for field in dataclasses.fields(ExportConfig)}["target"]
    assert list(choices.metadata["choices"]) == list(TARGETS)
    for name in TARGETS:
        assert (toolchain.FIRMWARE / f"{name}.ld").is_file()
