"""Every registered student: counts, rebuilding, gradients, widths, export, and its promises."""

from __future__ import annotations

import io
import json
import logging
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from compress.registry import STUDENTS
from students.audiobot import audiobot50, audiobot500
from students.separable import SeparableBlock, dsc50, dsc500
from students.timefrequency import tfnet50, tfnet500

logging.getLogger("fvcore").setLevel(logging.ERROR)
ROOT = Path(__file__).parents[1]

# name: learnable parameters and MACs (convolutions and linear layers) at 1x32x96 and 5 classes
COUNTS = {
    "audiobot500": (499_853, 17_600_128),
    "audiobot50": (49_733, 3_789_120),
    "dsc500": (494_557, 17_266_328),
    "dsc50": (49_405, 3_764_248),
    "tfnet500": (471_167, 17_466_888),
    "tfnet50": (49_031, 3_765_062),
    "audiobot500-dsc": (125_549, 2_066_560),
    "audiobot50-dsc": (16_589, 902_208),
}
# name: widths unlike the default, as pruning would leave them
PRUNED: dict[str, dict[str, object]] = {
    "audiobot500": {"widths": [24, 41, 96, 130], "head": [50, 30]},
    "audiobot50": {"widths": [7, 30, 33], "head": []},
    "audiobot500-dsc": {"widths": [16, 24, 48, 77], "head": [64]},
    "audiobot50-dsc": {"widths": [8, 16, 24], "head": [10, 12]},
    "dsc500": {
        "stem_width": 20,
        "widths": [40, 40, 104, 104, 104, 104, 104],
        "inner_widths": [90, 13, 200, 150, 100, 300, 1],
    },
    "dsc50": {
        "stem_width": 8,
        "widths": [24, 24, 24, 24, 24],
        "inner_widths": [30, 40, 50, 60, 8],
    },
    "tfnet500": {"widths": [20, 40, 70], "row_width": 90, "inner_widths": [100, 7, 200]},
    "tfnet50": {"widths": [9, 24, 33], "row_width": 24, "inner_widths": [50, 1]},
}


def builder(name: str) -> Callable[..., nn.Module]:
    return STUDENTS[name].load()


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module, mels: int = 32, frames: int = 96) -> int:
    analysis = FlopCountAnalysis(model.eval(), torch.zeros(1, 1, mels, frames))
    analysis.unsupported_ops_warnings(False)
    operators = analysis.by_operator()
    return int(operators["conv"] + operators["linear"])


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


# --- every student ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name: str) -> None:
    import torchinfo

    model = builder(name)()
    assert (parameters(model), macs(model)) == COUNTS[name]
    summary = torchinfo.summary(model, input_size=(1, 1, 32, 96), verbose=0)
    assert summary.trainable_params == summary.total_params == COUNTS[name][0]
    # torchinfo counts batch norms, and a bias as one multiplication per output value.
    by_torchinfo = 0
    for layer in summary.summary_list:
        if isinstance(layer.module, (torch.nn.Conv2d, torch.nn.Linear)):
            biased = layer.module.bias is not None
            by_torchinfo += layer.macs - biased * math.prod(layer.output_size)
    assert by_torchinfo == COUNTS[name][1]


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("pruned", [False, True])
def test_arguments_rebuild_the_same_structure(name: str, pruned: bool) -> None:
    model = builder(name)(classes=7, **(PRUNED.get(name, {}) if pruned else {}))
    rebuilt = builder(name)(**json.loads(json.dumps(model.arguments)))
    assert shapes(rebuilt) == shapes(model)
    assert rebuilt.arguments == model.arguments == json.loads(json.dumps(model.arguments))
    rebuilt.load_state_dict(model.state_dict(), strict=True)
    windows = torch.randn(3, 1, 32, 96)
    with torch.no_grad():
        assert torch.equal(rebuilt.eval()(windows), model.eval()(windows))


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("pruned", [False, True])
def test_gradient_reaches_every_parameter(name: str, pruned: bool) -> None:
    torch.manual_seed(0)
    model = builder(name)(dropout=0.0, **(PRUNED.get(name, {}) if pruned else {})).train()
    torch.nn.functional.cross_entropy(
        model(torch.randn(16, 1, 32, 96)), torch.arange(16) % 5
    ).backward()
    unreached = [
        key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert not unreached
    # A bias right before a batch norm, or a channel that ReLU silences, may get exactly zero.
    silent = [key for key, p in model.named_parameters() if p.ndim > 1 and not p.grad.any()]
    assert not silent


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize(("classes", "mels", "frames"), [(2, 32, 96), (50, 40, 101), (10, 16, 31)])
def test_any_classes_and_windows(name: str, classes: int, mels: int, frames: int) -> None:
    model = builder(name)(classes=classes, mels=mels, frames=frames).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 1, mels, frames))
    assert logits.shape == (2, classes)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", STUDENTS)
def test_each_layer_is_registered_once(name: str) -> None:
    model = builder(name)()
    modules = [module for _, module in model.named_modules(remove_duplicate=False)]
    assert len(modules) == len(set(map(id, modules)))
    tensors = [p for _, p in model.named_parameters(remove_duplicate=False)]
    assert len(tensors) == len(set(map(id, tensors)))


@pytest.mark.parametrize("name", STUDENTS)
def test_initialisation(name: str) -> None:
    torch.manual_seed(0)
    for key, layer in builder(name)().named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        assert layer.bias is None or not layer.bias.any(), key
        fan_in = layer.weight[0].numel()
        expected = (2.0 / fan_in) ** 0.5
        uncertainty = 4.0 * expected / (2 * layer.weight.numel()) ** 0.5
        assert abs(layer.weight.std().item() - expected) < uncertainty + 0.006 * expected, key


@pytest.mark.parametrize("name", STUDENTS)
def test_memory_format_and_batch_leave_the_logits_alone(name: str) -> None:
    torch.manual_seed(0)
    model = builder(name)().eval()
    windows = torch.randn(4, 1, 32, 96)
    with torch.no_grad():
        together = model(windows)
        one_by_one = torch.cat([model(window[None]) for window in windows])
        channels_last = model.to(memory_format=torch.channels_last)(windows)
    torch.testing.assert_close(one_by_one, together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(channels_last, together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", STUDENTS)
def test_fx_can_trace(name: str) -> None:
    """Folding and quantisation-aware training rewrite the traced graph."""
    model = builder(name)().eval()
    traced = torch.fx.symbolic_trace(model)
    windows = torch.randn(2, 1, 32, 96)
    with torch.no_grad():
        torch.testing.assert_close(traced(windows), model(windows))


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": 1},
        {"mels": 0},
        {"frames": 0},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"widths": [16]},
        {"widths": []},
        {"kernels": [4, 4]},
    ],
)
def test_arguments_that_make_no_network(name: str, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError) as caught:
        builder(name)(**wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("width", [0, -3, 1.5, True])
@pytest.mark.parametrize("name", STUDENTS)
def test_widths_that_are_no_widths(name: str, width: object) -> None:
    widths = [width, *builder(name)().arguments["widths"][1:]]
    with pytest.raises(ValueError, match="whole number"):
        builder(name)(widths=widths)


# --- the report's networks --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["audiobot500", "audiobot50", "audiobot500-dsc", "audiobot50-dsc"])
def test_order_inside_a_block(name: str) -> None:
    model = builder(name)()
    for index, block in enumerate(model.blocks):
        convolutions, rest = list(block)[:-3], list(block)[-3:]
        assert type(rest[0]) is (nn.ReLU if "500" in name else nn.LeakyReLU)
        assert [type(layer) for layer in rest[1:]] == [nn.BatchNorm2d, nn.Dropout2d]
        if name.endswith("-dsc") and index > 0:
            depthwise, pointwise = convolutions
            assert depthwise.groups == depthwise.in_channels == depthwise.out_channels
            assert pointwise.kernel_size == (1, 1) and pointwise.groups == 1
        else:
            assert [layer.groups for layer in convolutions] == [1]
        assert convolutions[-1].bias is not None


@pytest.mark.parametrize(
    ("name", "layer"), [("relu", nn.ReLU), ("leaky_relu", nn.LeakyReLU), ("elu", nn.ELU)]
)
def test_activation_of_the_blocks_only(name: str, layer: type[nn.Module]) -> None:
    model = audiobot50(activation=name)
    assert [type(block[1]) for block in model.blocks] == [layer] * 3
    assert [type(part) for part in model.head] == [
        nn.Linear,
        nn.ReLU,
        nn.Linear,
        nn.ReLU,
        nn.Linear,
    ]


def test_defaults_are_those_of_the_report() -> None:
    assert audiobot500().arguments == {
        "classes": 5,
        "mels": 32,
        "frames": 96,
        "widths": [32, 64, 128, 256],
        "kernels": [5, 5, 3, 3],
        "head": [200, 128],
        "activation": "relu",
        "dropout": 0.08,
    }
    small = audiobot50().arguments
    assert (small["activation"], small["dropout"]) == ("leaky_relu", 0.026)


def test_an_unknown_activation_lists_the_known() -> None:
    with pytest.raises(ValueError, match="'swish'.*relu, leaky_relu, elu"):
        audiobot500(activation="swish")


# --- our own designs --------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [5, 10])
@pytest.mark.parametrize(
    ("build", "most_parameters", "most_macs"),
    [
        (dsc500, 500_000, 17_600_000),
        (dsc50, 50_000, 3_800_000),
        (tfnet500, 500_000, 17_600_000),
        (tfnet50, 50_000, 3_800_000),
    ],
)
def test_budgets_are_kept_and_used(
    build: Callable[..., nn.Module], most_parameters: int, most_macs: int, classes: int
) -> None:
    model = build(classes=classes)
    assert 0.9 * most_parameters <= parameters(model) <= most_parameters
    assert 0.9 * most_macs <= macs(model) <= most_macs


@pytest.mark.parametrize("build", [dsc500, dsc50, tfnet500, tfnet50])
def test_every_batch_norm_follows_a_convolution(build: Callable[..., nn.Module]) -> None:
    nodes = list(torch.fx.symbolic_trace(build().eval()).graph.nodes)
    modules = dict(build().named_modules())
    norms = [n for n in nodes if isinstance(modules.get(str(n.target)), nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        source = norm.args[0]
        assert isinstance(modules[str(source.target)], nn.Conv2d)
        assert list(source.users) == [norm]


def test_block_by_hand() -> None:
    """One channel, a centred kernel: the block is relu(x + 3 relu(-2 x)), but for eps."""
    block = SeparableBlock(1, 1, 1, 3, (1, 1), skip=True).eval()
    with torch.no_grad():
        block.depthwise[0].weight.zero_()
        block.depthwise[0].weight[0, 0, 1, 1] = -2.0
        block.expand[0].weight.fill_(1.0)
        block.project[0].weight.fill_(3.0)
    features = torch.tensor([[[[1.0, -1.0], [0.5, -3.0]]]])
    with torch.no_grad():
        skipping = block(features)
        block.skip = False
        plain = block(features)
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(skipping, torch.tensor([[[[1.0, 5.0], [0.5, 15.0]]]]), **tolerance)
    torch.testing.assert_close(plain, torch.tensor([[[[0.0, 6.0], [0.0, 18.0]]]]), **tolerance)


def test_a_skip_is_explicit() -> None:
    """Widths that pruning made equal do not grow a skip that the trained network lacked."""
    model = dsc50(stem_width=8, widths=[24] * 5, strides=[[1, 1]] * 5, skips=[False] * 5)
    assert not any(block.skip for block in model.blocks)


@pytest.mark.parametrize(
    "wrong",
    [
        {"skips": [True, True, False, True, True]},
        {"widths": [32, 40, 56, 56, 56]},
        {"skips": [False, True]},
        {"strides": [[2], [1], [2], [1], [1]]},
        {"strides": [[2, 0], [1, 1], [2, 2], [1, 1], [1, 1]]},
        {"stem_kernel": 4},
        {"inner_widths": [64, 64, 0, 112, 112]},
    ],
)
def test_separable_arguments_that_make_no_network(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        dsc50(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"inner_widths": [92]},
        {"time_kernels": [15, 14]},
        {"row_width": 0},
        {"inner_widths": [92, 0]},
        {"strides": [[2, 2], [2], [2, 1]]},
        {"strides": [[2, 2], [2, 2], [2, 0]]},
    ],
)
def test_time_frequency_arguments_that_make_no_network(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        tfnet50(**wrong)


def test_frequency_ends_in_one_row_and_time_is_kept() -> None:
    """An eighth of the bands, a quarter of the frames, then a weight for every band left."""
    model = tfnet50().eval()
    with torch.no_grad():
        stages = model.stages(torch.zeros(2, 1, 32, 96))
        row = model.row(stages)
        blocks = model.blocks(row)
    assert stages.shape == (2, 40, 4, 24)
    assert row.shape == blocks.shape == (2, 46, 1, 24)


# --- around the models ------------------------------------------------------------------------


@pytest.mark.parametrize("build", [audiobot50, dsc50])
def test_onnx_export(build: Callable[..., nn.Module]) -> None:
    import onnx
    import onnxruntime

    torch.manual_seed(0)
    model = build(classes=6)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(16, 1, 32, 96) + 1.0)  # batch norms unlike the identity
    model.eval()
    program = torch.onnx.export(
        model,
        (torch.randn(2, 1, 32, 96),),
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=["windows"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    file = io.BytesIO()
    program.save(file)
    operators = {node.op_type for node in onnx.load_from_string(file.getvalue()).graph.node}
    assert not any("Dropout" in operator for operator in operators)
    if build is dsc50:
        assert "BatchNormalization" not in operators
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        windows = torch.randn(batch, 1, 32, 96)
        (logits,) = session.run(None, {session.get_inputs()[0].name: windows.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, model(windows).numpy(), rtol=1e-4, atol=1e-5)


def test_the_package_is_light_and_stands_alone() -> None:
    code = (
        "import sys, students\n"
        "assert 'torch' not in sys.modules\n"
        "import students.separable, students.audiobot_original\n"
        "assert not {'compress', 'teachers', 'reports'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
