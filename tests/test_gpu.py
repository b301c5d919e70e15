"""On a GPU: what it computes is what the CPU computes. Run with -m gpu."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.counting import NoiseFrames, tiny
from helpers.evaluation_data import arguments, write_evaluation_data
from helpers.model_variants import MODELS, assert_near, baseline, clips, each, model_of, run
from helpers.streams import (
    FRAMES,
    SHIFTS,
    as_tuple,
    batched,
    frames_for,
    in_chunks,
    make,
    past,
    per_frame,
)

from data.synthetic import make_video
from engine.feature_files import read_features
from epic.scores import read_scores
from long_videos import frame_features, window_logits
from model_loader import load_checkpoint, save_checkpoint
from ops.inference import optimize_for_inference
from predictor import Predictor
from streaming import Stream
from tools import evaluate, extract_features, label_video
from tsn import TSN

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Convolutions in float32; by default PyTorch lets GPUs round their inputs to TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    yield
    torch._dynamo.reset()


def on_gpu(model: TSN) -> TSN:
    """A copy there; `model` may be shared by tests."""
    return deepcopy(model).cuda()


@each(name for name in MODELS if "random" not in name)  # a GPU draws other relations
@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_models_agree_with_the_cpu(name: str, dtype: torch.dtype) -> None:
    model = on_gpu(model_of(name)).to(dtype)
    inputs = clips(name).cuda().to(dtype)
    expected = tuple(task.cuda() for task in baseline(name))
    assert_near(run(model, inputs), expected, dtype)
    assert_near(run(optimize_for_inference(model), inputs), expected, dtype)


@torch.no_grad()
@pytest.mark.parametrize("name", ["MTRN", "TSM-past"])
def test_compiled_copies(name: str) -> None:
    fast = optimize_for_inference(on_gpu(model_of(name)), compile=True)
    expected = tuple(task.cuda() for task in baseline(name))
    assert_near(run(fast, clips(name).cuda()), expected, torch.float32)


@pytest.mark.parametrize("variant", ["TSM", "TSN", "MTRN"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_streams_agree_with_the_cpu(variant: str, dtype: torch.dtype) -> None:
    model, frames = make(variant), frames_for(make(variant), 2, FRAMES)
    expected = tuple(task.cuda() for task in as_tuple(Stream(model, 2, window=3)(frames)))
    fast = optimize_for_inference(on_gpu(model), dtype=dtype)
    scores = in_chunks(Stream(fast, 2, window=3), frames.cuda().to(dtype))
    assert_near(scores, expected, dtype)


def test_a_stream_goes_on_on_the_other_device() -> None:
    model, frames = past(), frames_for(past(), 2, FRAMES)
    there, here = Stream(on_gpu(model), 2), Stream(model, 2)
    expected = as_tuple(Stream(model, 2)(frames))
    there(frames[:, :5].cuda())
    here.load_state_dict(there.state_dict())
    assert_near(as_tuple(here(frames[:, 5:])), tuple(t[:, 5:] for t in expected), torch.float32)
    there.reset(1)
    there.load_state_dict(here.state_dict(0), 1)


@pytest.mark.parametrize("name", ["TSN", "MTRN", "TSM", "TSM-past"])
def test_gradients_agree_with_the_cpu(name: str) -> None:
    gradients = []
    for device in ("cpu", "cuda"):
        model = deepcopy(model_of(name)).to(device, torch.float64)
        outputs = run(model, clips(name).to(device, torch.float64))
        torch.stack([task.square().mean() for task in outputs]).sum().backward()
        gradients.append([p.grad.cpu() for p in model.parameters() if p.grad is not None])
    for expected, ours in zip(*gradients, strict=True):
        assert (ours - expected).abs().max() <= 1e-9 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_mixed_precision_has_the_same_gradient(dtype: torch.dtype) -> None:
    gradients = []
    for enabled in (False, True):
        model = on_gpu(model_of("TSM"))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        scale = enabled and dtype == torch.float16
        scaler = torch.amp.GradScaler("cuda", init_scale=1.0, enabled=scale)
        with torch.autocast("cuda", dtype, enabled=enabled):
            verbs, nouns = model(clips("TSM").cuda())
            loss = verbs.float().logsumexp(1).mean() + nouns.float().logsumexp(1).mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        each_gradient = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        gradients.append(torch.cat(each_gradient))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.mark.parametrize("crop_count", [1, 10])
def test_predictor(crop_count: int) -> None:
    model = tiny("MTRN")
    frames = NoiseFrames(20).read(range(20))
    expected = Predictor(model, crop_count=crop_count).probabilities([frames, frames[5:]])
    found = Predictor(on_gpu(model), crop_count=crop_count).probabilities([frames, frames[5:]])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_checkpoints_of_models_on_a_gpu_load_on_the_cpu(tmp_path: Path) -> None:
    model = tiny("TSM")
    loaded = load_checkpoint(save_checkpoint(on_gpu(model), tmp_path / "model.pth.tar"))
    expected = model.state_dict()
    for name, tensor in loaded.state_dict().items():
        assert tensor.device.type == "cpu"
        assert tensor.equal(expected[name])


@pytest.mark.parametrize("variant", ["TSN", "TSM"])
def test_frame_features(variant: str) -> None:
    model, source = tiny(variant), NoiseFrames(21)
    expected = torch.cat([part for _, part in frame_features(model, source)])
    found = torch.cat([part for _, part in frame_features(on_gpu(model), source)]).cpu()
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("variant", ["TSN", "MTRN", "TSM"])
def test_windows(variant: str) -> None:
    model, source = tiny(variant), NoiseFrames(21)
    expected = torch.cat([verbs for _, (verbs, _) in window_logits(model, source, hop=2)])
    found = torch.cat([verbs for _, (verbs, _) in window_logits(on_gpu(model), source, hop=2)])
    assert (found.cpu() - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("kind", SHIFTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_shift_over_a_stream_is_that_of_the_batched_network(
    kind: str, dtype: torch.dtype
) -> None:
    """In the same precision: what 52 layers of a MobileNetV2 round differs more from float32."""
    frames = frames_for(past(kind), FRAMES).cuda().to(dtype)
    alone, whole = (
        optimize_for_inference(on_gpu(model), dtype=dtype) for model in (past(kind), batched(kind))
    )
    assert_near(in_chunks(Stream(alone), frames), per_frame(whole, frames), dtype)


def test_a_stream_takes_no_more_memory_after_a_thousand_frames() -> None:
    model = on_gpu(past())
    stream, frame = Stream(model, window=12), frames_for(model, 1).cuda()
    for _ in range(20):
        stream(frame)
    before = torch.cuda.memory_allocated()
    for _ in range(1000):
        stream(frame)
    assert torch.cuda.memory_allocated() <= before


@pytest.mark.parametrize("model", ["MTRN", "past"])
def test_labels_of_a_video(model: str, tmp_path: Path) -> None:
    save_checkpoint(past() if model == "past" else tiny(model), tmp_path / "model.pth.tar")
    video = make_video(tmp_path / "clip.mp4", 30)
    rows = {}
    for device in ("cpu", "cuda"):
        output = tmp_path / f"{device}.csv"
        options = ["--checkpoint", tmp_path / "model.pth.tar", "--output", output]
        assert label_video.main([*map(str, [video, *options]), "--device", device]) == 0
        rows[device] = [line.split(",")[:3] for line in output.read_text().splitlines()]
    assert rows["cuda"] == rows["cpu"]


def test_evaluation(tmp_path: Path) -> None:
    """Clips come in page-locked memory from other processes."""
    data = write_evaluation_data(tmp_path / "data")
    scores: dict[str, Any] = {}
    for device in ("cpu", "cuda"):
        options: dict[str, Any] = {"device": device, "workers": 2, "crops": 3}
        assert evaluate.main(arguments(data, tmp_path / device, **options)) == 0
        scores[device] = read_scores(tmp_path / device / "rgb" / "scores.pt")
    assert scores["cuda"]["ids"] == scores["cpu"]["ids"]
    for task in ("verb", "noun"):
        np.testing.assert_allclose(scores["cuda"][task], scores["cpu"][task], rtol=1e-3, atol=1e-4)


def test_extraction(tmp_path: Path) -> None:
    data = write_evaluation_data(tmp_path / "data")
    arrays = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        command = [data / "rgb.pth.tar", data / "frames", "--out", out, "--device", device]
        assert extract_features.main([*map(str, command), "--workers", "2"]) == 0
        arrays[device] = read_features(out / "P01_11.safetensors")[0]["features"]
    scale = np.abs(arrays["cpu"]).max()
    np.testing.assert_allclose(arrays["cuda"] / scale, arrays["cpu"] / scale, rtol=0, atol=1e-4)
