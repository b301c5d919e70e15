"""Exported by either exporter of PyTorch, models give the same numbers in onnxruntime."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_models import assert_close, randomised

from ops.non_local import NonLocalBlock
from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

T = 4


@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (TSN, {}),
        (TRN, {}),
        (MTRN, {}),
        (TSM, {}),
        (TSM, {"shift_direction": "past"}),
        (TSM, {"shift_direction": "past", "base_model": "mobilenetv2"}),
        pytest.param(
            TSM, {"shift_place": "block", "base_model": "BNInception"}, marks=pytest.mark.slow
        ),
        (TSM, {"non_local": True, "temporal_pool": True}),
    ],
)
def test_onnx_with_a_dynamic_batch(
    kind: type[TSN], options: dict[str, Any], dynamo: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    options = {"base_model": "resnet18", "pretrained": None, **options}
    model = randomised(kind((5, 7), T, "RGB", **options))
    for module in model.modules():
        if isinstance(module, NonLocalBlock):  # or its softmax would magnify rounding
            module.theta.weight.data.mul_(0.05)
    example = torch.randn(2, T * 3, 64, 64)
    names: dict[str, Any] = {"input_names": ["clips"], "output_names": ["verbs", "nouns"]}
    if dynamo:
        names["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
    else:
        names["dynamic_axes"] = {name: {0: "batch"} for name in ("clips", "verbs", "nouns")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporters' own future
        torch.onnx.export(model, (example,), str(tmp_path / "m.onnx"), dynamo=dynamo, **names)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 3):
        clips = torch.randn(count, T * 3, 64, 64)
        verbs, nouns = map(torch.from_numpy, session.run(None, {"clips": clips.numpy()}))
        with torch.no_grad():
            assert_close((verbs, nouns), model(clips))
