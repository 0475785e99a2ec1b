"""timm classifiers on log-mel windows: resolution, gradients, rebuilding, pretrained weights."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from teachers import timm_teacher
from teachers.timm_teacher import PretrainedUnavailable, build, check_name, final_map

timm = timm_teacher.timm
ROOT = Path(__file__).parents[1]

# name: size of the last map of a window of 32x96
FAMILIES = {
    "resnet18": (2, 6),
    "resnet10t": (2, 6),
    "efficientnet_b0": (2, 6),
    "mobilenetv4_conv_small": (2, 6),
    "convnext_atto": (2, 6),
    "vit_tiny_patch16_224": (4, 12),
}


def strides(model: nn.Module) -> dict[str, object]:
    return {name: layer.stride for name, layer in model.named_modules() if hasattr(layer, "stride")}


@pytest.mark.parametrize("name", FAMILIES)
def test_families_keep_resolution_and_learn(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, classes=7)
    assert final_map(model, 32, 96) == FAMILIES[name]
    model.train()
    with torch.no_grad():  # some start residual branches at zero, which gradients pass a step later
        for p in model.parameters():
            if p.ndim == 1 and not p.any():
                p.fill_(0.5)
    logits = model(torch.randn(4, 1, 32, 96))
    assert logits.shape == (4, 7)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    unreached = [
        key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert not unreached
    weights = [p for p in model.parameters() if p.ndim > 1]
    assert all(p.grad.any() for p in weights)


@pytest.mark.parametrize("name", FAMILIES)
def test_arguments_rebuild_the_same_structure(name: str) -> None:
    model = build(name, classes=3, smallest_map=(2, 3))
    arguments = json.loads(json.dumps(model.arguments))
    assert arguments == model.arguments
    rebuilt = build(**arguments)
    rebuilt.load_state_dict(model.state_dict(), strict=True)
    assert strides(rebuilt) == strides(model)
    windows = torch.randn(2, 1, 32, 96)
    with torch.no_grad():
        assert torch.equal(rebuilt.eval()(windows), model.eval()(windows))


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "convnext_atto"])
def test_only_strides_change(name: str) -> None:
    """Kernels keep the shapes of timm's own network, so that pretrained weights fit."""
    plain = timm.create_model(name, in_chans=1, num_classes=5)
    adapted = build(name)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {
        k: v.shape for k, v in adapted.state_dict().items()
    }
    assert strides(plain) != strides(adapted)


def test_a_level_that_only_pools_goes_first() -> None:
    model = build("resnet18")
    assert model.maxpool.stride == (1, 1)
    assert tuple(model.conv1.stride) == (2, 2)
    further = build("resnet18", smallest_map=(4, 12))
    assert tuple(further.conv1.stride) == (1, 1)
    assert final_map(further, 32, 96) == (4, 12)


def test_parallel_branches_stay_alike() -> None:
    model = build("resnet18", smallest_map=(8, 24))
    assert final_map(model, 32, 96) == (8, 24)
    assert model.layer2[0].conv1.stride == model.layer2[0].downsample[0].stride == (1, 1)
    assert model(torch.randn(2, 1, 32, 96)).shape == (2, 5)


def test_a_patch_convolution_still_covers_its_input() -> None:
    stem = build("convnext_atto").stem[0]
    assert (stem.kernel_size, stem.stride, stem.padding) == ((4, 4), (2, 2), (1, 1))


def test_one_axis_alone() -> None:
    model = build("resnet18", smallest_map=(2, 3))
    assert final_map(model, 32, 96) == (2, 3)
    assert model.maxpool.stride == (1, 2)


def test_large_windows_are_left_alone() -> None:
    plain = timm.create_model("resnet18", in_chans=1, num_classes=5)
    assert strides(build("resnet18", mels=128, frames=400)) == strides(plain)


def test_a_transformer_of_one_resolution_gets_smaller_patches() -> None:
    model = build("vit_tiny_patch16_224")
    assert model.patch_embed.patch_size == (8, 8)
    assert model.patch_embed.grid_size == (4, 12)


def test_probing_leaves_the_network_as_it_was() -> None:
    model = build("resnet18")
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(model.bn1.running_mean, torch.zeros(64))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet81", "resnet18"),
        ("mobilenet_v4_conv_small", "mobilenetv4_conv_small"),
        ("qqqqqqqq", "no model 'qqqqqqqq'"),
        ("resnet18.of_my_own", "no weights called 'of_my_own'"),
        ("", "no model ''"),
    ],
)
def test_unknown_names(name: str, expected: str) -> None:
    with pytest.raises(ValueError) as caught:
        build(name)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_known_names() -> None:
    check_name("resnet18")
    check_name("resnet18.a1_in1k")


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="classes is 1"):
        build("resnet18", classes=1)


def test_a_small_window_keeps_what_it_can() -> None:
    model = build("resnet18", mels=4, frames=4)
    assert final_map(model, 4, 4) == (2, 4)
    assert model(torch.randn(2, 1, 4, 4)).shape == (2, 5)


def test_a_network_that_cannot_keep_resolution_is_refused() -> None:
    with pytest.raises(ValueError, match="vit_tiny_patch16_224.*cannot be built.*1x1"):
        build("vit_tiny_patch16_224", mels=1, frames=1, smallest_map=(2, 2))


# --- pretrained weights -----------------------------------------------------------------------


def test_pretrained_weights_that_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(timm_teacher, "_hub_is_reachable", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    offline_before = constants.HF_HUB_OFFLINE
    started = time.monotonic()
    with pytest.raises(PretrainedUnavailable) as caught:
        build("resnet18", pretrained=True)
    assert time.monotonic() - started < 20
    message = str(caught.value)
    assert "resnet18" in message and "leave out --pretrained" in message
    assert "\n" not in message
    assert offline_before == constants.HF_HUB_OFFLINE


def test_the_hub_is_asked_once_and_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    started = time.monotonic()
    assert timm_teacher._hub_is_reachable() is False
    assert time.monotonic() - started < 10
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert timm_teacher._hub_is_reachable() is False


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_pretrained_weights_are_adapted(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Weights for three colours and 1,000 classes, from a file in place of the hub."""
    torch.manual_seed(0)
    source = timm.create_model(name)
    file = tmp_path / "weights.pth"
    torch.save(source.state_dict(), file)
    create = timm.create_model

    def from_file(model_name: str, pretrained: bool = False, **options: object) -> nn.Module:
        overlay = {"file": str(file)} if pretrained else None
        return create(model_name, pretrained=pretrained, pretrained_cfg_overlay=overlay, **options)

    monkeypatch.setattr(timm, "create_model", from_file)
    monkeypatch.setattr(timm_teacher, "_hub_is_reachable", lambda: True)
    model = build(name, pretrained=True)
    loaded, original = model.state_dict(), source.state_dict()
    assert model(torch.randn(2, 1, 32, 96)).shape == (2, 5)
    first = next(key for key, value in original.items() if value.ndim == 4)
    summed = original[first].sum(dim=1, keepdim=True)
    if loaded[first].shape == summed.shape:
        torch.testing.assert_close(loaded[first], summed)
    else:  # patches resampled from 16x16 to 8x8
        assert loaded[first].shape == (summed.shape[0], 1, 8, 8)
        assert (
            torch.corrcoef(torch.stack([loaded[first].sum((1, 2, 3)), summed.sum((1, 2, 3))]))[0, 1]
            > 0.9
        )
    kept = [
        key
        for key, value in original.items()
        if value.ndim > 1 and key in loaded and loaded[key].shape == value.shape
    ]
    assert len(kept) > 10
    assert all(torch.equal(loaded[key], original[key]) for key in kept)
    assert "pretrained" not in model.arguments


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file_are_those_of_pretrained(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = timm.create_model("resnet10t")
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": source.state_dict()}, file)
    else:
        save_file(source.state_dict(), file)
    model = build("resnet10t", weights=file)
    loaded, original = model.state_dict(), source.state_dict()
    torch.testing.assert_close(
        loaded["conv1.0.weight"], original["conv1.0.weight"].sum(1, keepdim=True)
    )
    same = [k for k in loaded if k in original and torch.equal(loaded[k], original[k])]
    assert len(same) == len(loaded) - 3, "all but the input layer and the head"
    assert "weights" not in model.arguments
    assert model(torch.randn(2, 1, 32, 96)).shape == (2, 5)


def test_a_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    """timm passes over what it does not know; here nothing may keep what it was drawn with."""
    whole = timm.create_model("resnet10t").state_dict()
    files = {
        "of another network": timm.create_model("test_resnet").state_dict(),
        "in part": {k: v for k, v in whole.items() if not k.startswith("layer3.0.conv2")},
    }
    for content, state in files.items():
        file = tmp_path / f"{content}.safetensors"
        save_file(state, file)
        with pytest.raises(PretrainedUnavailable) as caught:
            build("resnet10t", weights=file)
        message = str(caught.value)
        assert str(file) in message and "resnet10t" in message and "\n" not in message
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no tensors")
    pickled = tmp_path / "pickled.pth"
    torch.save({"state_dict": whole, "more": Path("x")}, pickled)
    for file in (broken, pickled, tmp_path / "missing.pth"):
        with pytest.raises(PretrainedUnavailable, match=file.name):
            build("resnet10t", weights=file)


# --- imports ----------------------------------------------------------------------------------


def in_a_new_process(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_the_package_imports_no_torch() -> None:
    in_a_new_process("import sys, teachers; assert 'torch' not in sys.modules")


def test_the_shim_imports_no_torch_and_acts_once_and_the_package_stands_alone() -> None:
    in_a_new_process(
        "import sys\n"
        "from teachers import torchvision_shim as shim\n"
        "shim.install()\n"
        "shim.install()\n"
        "def ours(): return [f for f in sys.meta_path if type(f) is shim.TorchvisionFinder]\n"
        "assert len(ours()) == 1\n"
        "assert 'torch' not in sys.modules\n"
        "import torchvision, timm\n"
        "assert not ours()\n"
        "shim.install()\n"
        "assert not ours()\n"
        "import torch\n"
        "assert hasattr(torch.ops.torchvision, 'nms')\n"
        "import torchvision.transforms, torchvision.ops, teachers.timm_teacher\n"
        "assert not {'compress', 'students', 'reports'} & set(sys.modules)\n"
    )
