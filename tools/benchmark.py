#!/usr/bin/env python
"""Time this library against a straightforward implementation.

    python tools/benchmark.py [--parts models] [--device cuda] [--json FILE]

Weights are random and the clip is synthetic. Baselines follow the projects that this library
succeeds: frames are cropped, flipped and normalised one by one (tsn-pytorch), networks are stock
ones of torchvision and pretrainedmodels, and every frame of a video is decoded.
"""

import argparse
import json
import platform
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

if not __package__:  # run as a program, when Python looks for modules beside it alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck

from data.sampling import segment_indices
from data.synthetic import make_video
from data.video import load_clip
from data.video_file import VideoFile
from long_videos import window_logits
from model_loader import load_checkpoint, save_checkpoint
from ops.inference import optimize_for_inference
from ops.relation import MAX_SEGMENTS
from predictor import Predictor
from presets import evaluation_transform, training_transform
from streaming import Stream
from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

if TYPE_CHECKING:
    # Elsewhere in the functions that use it: importing it looks for a CUDA compiler, and says so.
    from torch.utils.benchmark import Measurement

__all__ = ["main"]

_MODELS: dict[str, type[TSN]] = {"TSN": TSN, "TRN": TRN, "MTRN": MTRN, "TSM": TSM}
_BACKBONES = ("BNInception", "mobilenetv2", *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)))
_CLASSES = (125, 352)  # EPIC-KITCHENS-55
_MIN_SECONDS = 0.2
"""Time that each way is measured for in each round; a slow one runs once."""

_LEGEND = """\
Ways of one task are interleaved: every round measures each of them. "x 1.5" is one and a half times
as fast as the baseline, the median over the rounds; in brackets are the slowest and the fastest.
Compare ratios rather than times, within a run rather than between two, while nothing else runs.
"unoptimised" models are used as they were built, "optimised" ones come from optimize_for_inference;
"backbone only" is the stock network without heads, its batch norms folded by PyTorch. "windows at
hop 1" are of T frames, from each frame on: clip by clip (baseline), and by window_logits. "frame by
frame" is "backbone only" on each frame (baseline), and a Stream of an optimised uni-directional
TSM. Both include decoding the video. Whatever ends the program, what was measured is written.
"""

Ways = dict[str, Callable[[], object]]
"""Name -> what does a task once in that way; the baseline comes first."""


def measure(part: str, task: str, ways: Ways, *, rounds: int) -> list["Measurement"]:
    """Time the ways of a task, interleaved, since machines are faster at one time than another.

    Args:
        part: of the benchmark.
        task: what all the ways do.
        ways: what to time.
        rounds: how often each is measured.

    Returns:
        A measurement for each way, of all rounds; `metadata` holds `speeds`: how many times as fast
        as the baseline it was in each round.
    """
    from torch.utils.benchmark import Measurement, Timer

    timers = [
        Timer(
            "call()",
            globals={"call": call},
            label=part,
            sub_label=task,
            description=way,
            num_threads=torch.get_num_threads(),
        )
        for way, call in ways.items()
    ]
    measured = [
        [timer.blocked_autorange(min_run_time=_MIN_SECONDS) for timer in timers]
        for _ in range(rounds)
    ]
    results = []
    for column in zip(*measured, strict=True):
        (result,) = Measurement.merge(column)
        ratios = [row[0].median / own.median for row, own in zip(measured, column, strict=True)]
        result.metadata = {"speeds": ratios}
        results.append(result)
    return results


def _speeds(result: "Measurement") -> list[float]:
    assert result.metadata is not None
    return cast(list[float], result.metadata["speeds"])


def _describe(result: "Measurement") -> str:
    """Return the way and its speed: the median and, in brackets, the slowest and fastest round."""
    speeds = _speeds(result)
    spread = f"({min(speeds):.2f} to {max(speeds):.2f})"
    return f"{result.task_spec.description} x {median(speeds):.2f} {spread}"


# What is measured


def loading(options: argparse.Namespace) -> Iterator[tuple[str, Ways]]:
    """Yield ways to load a model from a checkpoint file."""
    folder = Path(options.folder)
    for backbone in options.backbones:
        model = _model("TSN", backbone, options).cpu()
        weights = folder / "weights.pth"
        torch.save(model.base_model.state_dict(), weights)
        ways: Ways = {"baseline": partial(_load, backbone, weights)}
        for way, name in (("zip", "a.pth"), ("legacy", "b.pth"), ("safetensors", "c.safetensors")):
            path = save_checkpoint(model, folder / name, legacy=way == "legacy")
            ways[way] = partial(load_checkpoint, path)
        yield f"TSN {backbone}", ways


def transforms(options: argparse.Namespace) -> Iterator[tuple[str, Ways]]:
    """Yield ways to turn frames into the input of a model."""
    width, height = options.frame_size
    pixels = torch.randint(0, 256, (options.segments, height, width, 3), dtype=torch.uint8)
    images = [Image.fromarray(frame.numpy()) for frame in pixels]
    frames = pixels.permute(0, 3, 1, 2)  # in memory as a decoder leaves them

    def ways(transform: Callable[[Any], Tensor], baseline: Callable[..., Tensor]) -> Ways:
        return {
            "baseline": lambda: baseline(images).to(options.device),
            "Pillow images": lambda: transform(images).to(options.device),
            "tensor": lambda: transform(frames.to(options.device)),
        }

    for backbone in options.backbones:
        model = _model("TSN", backbone, options)
        for count, name in ((1, "one crop"), (10, "ten crops")):
            baseline = partial(_crops, model, crop_count=count)
            yield f"{name}, {backbone}", ways(evaluation_transform(model, count), baseline)
        yield f"training, {backbone}", ways(training_transform(model), partial(_random_crop, model))


def models(options: argparse.Namespace) -> Iterator[tuple[str, Ways]]:
    """Yield ways to turn the input of a model into logits."""
    for name, backbone in _published_pairs(options):
        model = _model(name, backbone, options)
        networks: dict[str, tuple[Callable[[Tensor], object], torch.dtype]] = {
            "baseline": (_baseline(model), torch.float32),
            "unoptimised": (model, torch.float32),
        }
        for precision in options.precisions:
            dtype = getattr(torch, precision)
            for way in ("optimised", "compiled") if options.compile else ("optimised",):
                network = optimize_for_inference(model, dtype=dtype, compile=way == "compiled")
                networks[f"{way}, {precision}"] = network, dtype
        folded = _folded_backbone(backbone, options.device)
        for batch in options.batches:
            side, channels = model.input_size, 3 * options.segments
            clips = torch.randn(batch, channels, side, side, device=options.device)
            ways: Ways = {
                way: partial(_infer, network, clips.to(dtype))
                for way, (network, dtype) in networks.items()
            }
            frames = _frames(clips).contiguous(memory_format=torch.channels_last)
            ways["backbone only"] = partial(_infer, folded, frames)
            yield f"{name} {backbone}, clips: {batch}", ways


def video(options: argparse.Namespace) -> Iterator[tuple[str, Ways]]:
    """Yield ways to read the frames of a clip from a video file, and to classify them."""
    path = _video_path(options)

    def ways(model: TSN) -> Ways:
        network, predictor = _baseline(model), Predictor(model, crop_count=10)
        return {
            "baseline": lambda: _predict(model, network, path),
            "library": lambda: predictor(VideoFile(path)),
        }

    yield (
        "decode a clip",
        {
            "baseline": lambda: _decode(path, options.segments),
            "library": lambda: load_clip(VideoFile(path), num_segments=options.segments),
        },
    )
    for backbone in options.backbones:
        yield f"ten crops, TSN {backbone}", ways(_model("TSN", backbone, options))


def streaming(options: argparse.Namespace) -> Iterator[tuple[str, Ways]]:
    """Yield ways to classify all windows of a video file, and all its frames as a stream."""
    path = _video_path(options)

    def windows(model: TSN) -> Ways:
        predictor = Predictor(model)
        return {
            "baseline": lambda: _predict_clips(predictor, VideoFile(path)),
            "library": lambda: list(window_logits(predictor.model, VideoFile(path), hop=1)),
        }

    def frames(backbone: str) -> Ways:
        model = _model("TSM", backbone, options, shift_direction="past")
        stream = Stream(optimize_for_inference(model))
        alone = _folded_backbone(backbone, options.device)
        return {
            "baseline": lambda: _run_frames(model, lambda frame: alone(frame[None]), path),
            "library": lambda: _run_frames(model, stream, path),
        }

    for name, backbone in _published_pairs(options):
        yield f"windows at hop 1, {name} {backbone}", windows(_model(name, backbone, options))
    for backbone in options.backbones:
        if backbone != "BNInception":
            yield f"frame by frame, TSM {backbone}", frames(backbone)


_PARTS = {
    "loading": loading,
    "transforms": transforms,
    "models": models,
    "video": video,
    "streaming": streaming,
}


def _published_pairs(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield models and backbones; of TSM with BN-Inception, no weights are published."""
    for pair in product(options.models, options.backbones):
        if pair != ("TSM", "BNInception"):
            yield pair


def _model(name: str, backbone: str, options: argparse.Namespace, **others: Any) -> TSN:
    """Build a model with random weights, in evaluation mode on the device."""
    others = {"base_model": backbone, "pretrained": None, **others}
    return _MODELS[name](_CLASSES, options.segments, "RGB", **others).eval().to(options.device)


def _video_path(options: argparse.Namespace) -> Path:
    """Return the video file, which ways open anew: a source that was read before is faster."""
    path = options.video or make_video(Path(options.folder) / "clip.mp4")
    return cast(Path, path)


@torch.inference_mode()
def _infer(network: Callable[[Tensor], object], inputs: Tensor) -> object:
    return network(inputs)


# Baselines


def _stock_backbone(name: str) -> nn.Module:
    """Build somebody else's network, without its classifier."""
    if name == "BNInception":
        import pretrainedmodels

        network: Any = pretrainedmodels.bninception(num_classes=1000, pretrained=None)
        network.last_linear = nn.Identity()
    else:
        theirs = {"mobilenetv2": "mobilenet_v2"}.get(name, name)
        network = torchvision.models.get_model(theirs)
        setattr(network, "fc" if name.startswith("resnet") else "classifier", nn.Identity())
    return cast(nn.Module, network.eval())


def _folded_backbone(name: str, device: torch.device) -> nn.Module:
    folded: nn.Module = fuse(_stock_backbone(name)).requires_grad_(False)
    return folded.to(device).to(memory_format=torch.channels_last)


def _load(backbone: str, path: Path) -> None:
    network = _stock_backbone(backbone)
    network.load_state_dict(torch.load(path, weights_only=True))


def _frames(clips: Tensor) -> Tensor:
    # (N, T*C, H, W) -> (N*T, C, H, W)
    frames: Tensor = clips.unflatten(1, (-1, 3)).flatten(0, 1)
    return frames


def _baseline(model: TSN) -> Callable[[Tensor], Any]:
    """Build a model's baseline: its weights in a stock backbone, its own heads.

    Heads take about a hundredth of the time, so those are not written again.
    """
    network = _stock_backbone(model.arch)
    if isinstance(model, TSM):
        for module in network.modules():
            shift = partial(_shift, num_segments=model.num_segments)
            if isinstance(module, BasicBlock | Bottleneck):
                module.conv1.register_forward_pre_hook(shift)
            elif isinstance(module, InvertedResidual) and module.use_res_connect:
                module.conv[0].register_forward_pre_hook(shift)
    # In the same order under other names.
    weights = model.base_model.state_dict().values()
    network.load_state_dict(dict(zip(network.state_dict(), weights, strict=True)))
    network.to(next(model.parameters()).device)
    return lambda clips: model.logits(network(_frames(clips)))


def _shift(_: nn.Module, inputs: tuple[Tensor], num_segments: int) -> Tensor:
    """Shift an eighth of the channels each way through time, slice by slice."""
    x = inputs[0].unflatten(0, (-1, num_segments))
    fold = x.shape[2] // 8
    shifted = torch.zeros_like(x)
    shifted[:, :-1, :fold] = x[:, 1:, :fold]
    shifted[:, 1:, fold : 2 * fold] = x[:, :-1, fold : 2 * fold]
    shifted[:, :, 2 * fold :] = x[:, :, 2 * fold :]
    return shifted.flatten(0, 1)


def _crops(model: TSN, images: list[Image.Image], crop_count: int) -> Tensor:
    """Resize and crop images one by one: the centre, or corners, centre and their mirror images."""
    size, scale = model.input_size, model.scale_size
    w, h = images[0].size
    w, h = (scale, int(scale * h / w)) if w <= h else (int(scale * w / h), scale)
    scaled = [image.resize((w, h), Image.Resampling.BILINEAR) for image in images]
    if crop_count == 1:
        return _stacked(model, _cropped(scaled, round((w - size) / 2), round((h - size) / 2), size))
    x, y = (w - size) // 4, (h - size) // 4
    crops = []
    for place in ((0, 0), (4 * x, 0), (0, 4 * y), (4 * x, 4 * y), (2 * x, 2 * y)):
        group = _cropped(scaled, *place, size)
        crops += group + [ImageOps.mirror(image) for image in group]
    return _stacked(model, crops)


def _cropped(images: list[Image.Image], x: int, y: int, size: int) -> list[Image.Image]:
    return [image.crop((x, y, x + size, y + size)) for image in images]


def _random_crop(model: TSN, images: list[Image.Image]) -> Tensor:
    """Cut a random rectangle out of the images, resize it, and mirror half of the clips."""
    size, (w, h) = model.input_size, images[0].size
    crop_w, crop_h = (int(min(w, h) * random.choice((1, 0.875, 0.75, 0.66))) for _ in range(2))
    x, y = random.randint(0, w - crop_w), random.randint(0, h - crop_h)
    crops = [image.crop((x, y, x + crop_w, y + crop_h)) for image in images]
    crops = [image.resize((size, size), Image.Resampling.BILINEAR) for image in crops]
    return _stacked(model, [ImageOps.mirror(i) for i in crops] if random.random() < 0.5 else crops)


def _stacked(model: TSN, images: list[Image.Image]) -> Tensor:
    """Stack images along their channels, and normalise these one by one."""
    arrays = [np.array(image) for image in images]
    if model.preprocessing.input_space == "BGR":
        arrays = [array[:, :, ::-1] for array in arrays]
    stacked = torch.from_numpy(np.concatenate(arrays, axis=2)).permute(2, 0, 1).contiguous().float()
    if model.preprocessing.input_range[1] == 1:
        stacked = stacked.div(255)
    for channel, plane in enumerate(stacked):
        mean, std = (s[channel % len(s)] for s in (model.input_mean, model.input_std))
        plane.sub_(mean).div_(std)
    return stacked


def _decode(path: Path, num_segments: int) -> list[Image.Image]:
    """Decode a whole video, and keep the frames that are wanted."""
    import av

    with av.open(str(path)) as container:
        frames: list[Any] = list(container.decode(video=0))
    wanted = segment_indices(len(frames), num_segments, 1).flatten().tolist()
    return [frames[index].to_image() for index in wanted]


@torch.inference_mode()
def _predict(model: TSN, network: Callable[[Tensor], Any], path: Path) -> list[Tensor]:
    inputs = _crops(model, _decode(path, model.num_segments), 10)
    # (crops*T*C, H, W) -> (crops, T*C, H, W)
    clips = inputs.unflatten(0, (10, -1)).to(next(model.parameters()).device)
    return [scores.mean(0).softmax(-1).cpu() for scores in network(clips)]


def _predict_clips(predictor: Predictor, source: VideoFile) -> None:
    """Classify T frames from each frame on, clip by clip."""
    t = predictor.model.num_segments
    for start in range(len(source) - t + 1):
        predictor.probabilities([predictor.load(source, start=start, stop=start + t)])


@torch.inference_mode()
def _run_frames(model: TSN, network: Callable[[Tensor], object], path: Path) -> None:
    """Decode a video, and run a network on each frame as it comes."""
    transform = model.evaluation_transform()
    for frame in VideoFile(path).blocks(1):
        network(transform(frame.to(next(model.parameters()).device)))


# The program


def describe_machine(device: torch.device) -> dict[str, str]:
    """Return what figures are worth nothing without: processor, threads and versions."""
    processor = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    instructions = torch.backends.cpu.get_cpu_capability()
    machine = {"CPU": f"{processor}, {instructions}, {torch.get_num_threads()} threads"}
    if device.type == "cuda":
        machine["GPU"] = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return {
        **machine,
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "packages": f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"Pillow {PIL.__version__}",
    }


def write(results: list["Measurement"], options: argparse.Namespace) -> None:
    """Write all times and ratios to the JSON file."""
    rows = [
        {
            "part": result.task_spec.label,
            "task": result.task_spec.sub_label,
            "way": result.task_spec.description,
            "speed": median(_speeds(result)),
            "speeds": _speeds(result),
            "median": result.median,
            "iqr": result.iqr,
            "times": result.times,
        }
        for result in results
    ]
    machine = describe_machine(options.device)
    contents = {"options": vars(options), "machine": machine, "results": rows}
    options.json.write_text(json.dumps(contents, indent=1, default=str))


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.json:
            options.json.open("a").close()  # what cannot be written costs no measurements
    except OSError as error:
        parser.error(f"argument --json: {error}")
    if options.device.type == "cuda":
        torch.cuda.set_device(options.device)  # the one that Timer waits for
    for name, value in describe_machine(options.device).items():
        print(f"{name}: {value}")
    results: list[Measurement] = []
    try:
        with tempfile.TemporaryDirectory() as options.folder:
            for part in options.parts:
                for task, ways in _PARTS[part](options):
                    measured = measure(part, task, ways, rounds=options.rounds)
                    results += measured
                    print(f"{part}, {task}: {', '.join(map(_describe, measured[1:]))}", flush=True)
    finally:
        if options.json:
            write(results, options)
        if results:
            from torch.utils.benchmark import Compare

            table = Compare(results)
            table.trim_significant_figures()
            print(f"\n{table}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_LEGEND, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--parts", nargs="+", choices=_PARTS, default=list(_PARTS), help="default: all")
    add("--models", nargs="+", choices=_MODELS, default=list(_MODELS), help="default: all")
    backbones = ["resnet50", "BNInception"]
    help_on_backbones = f"default: {' '.join(backbones)}"
    add("--backbones", nargs="+", choices=_BACKBONES, default=backbones, help=help_on_backbones)
    add("--device", type=_device, default="cpu", help="such as cuda; default: %(default)s")
    segments = range(2, MAX_SEGMENTS + 1)  # what MTRN takes
    add("--segments", type=int, choices=segments, default=8, metavar="T", help="default: 8")
    add("--rounds", type=_positive, default=5, metavar="N", help="default: %(default)s")
    size = (456, 256)
    add("--frame-size", type=_size, default=size, metavar="WxH", help="default: 456x256")
    add("--batches", nargs="+", type=_positive, default=[1], metavar="N", help="clips; default: 1")
    precisions = ("float32", "bfloat16", "float16")
    help_on_precisions = "of optimised models; default: float32"
    add("--precisions", nargs="+", choices=precisions, default=["float32"], help=help_on_precisions)
    add("--compile", action="store_true", help="measure optimised models with torch.compile too")
    add("--video", type=_video, metavar="FILE", help="default: a synthetic one")
    add("--json", type=Path, metavar="FILE", help="write every time and ratio")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    try:
        return _positive(width), _positive(height)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT, got {text!r}") from error


def _device(text: str) -> torch.device:
    try:
        return torch.empty(0, device=text).device
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used: {error}") from error


def _video(text: str) -> Path:
    try:
        return Path(VideoFile(text).name)
    except (OSError, ValueError, ImportError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
