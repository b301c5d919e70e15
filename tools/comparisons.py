"""What the benchmark compares: the plain way of doing something, and the ways of this library.

The plain way is what one writes first, or what the projects before this one do: frames cropped,
flipped, stacked, converted and normalised image by image (tsn-pytorch), the model as it was built.
"""

import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torchvision
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional

from data.sampling import segment_indices
from data.video import VideoFile, load_clip
from model_loader import load_checkpoint, save_checkpoint
from ops.inference import optimize_for_inference
from ops.relation import MultiScaleRelation
from ops.temporal_shift import TemporalShift, temporal_shift
from predictor import Predictor
from presets import evaluation_transform
from tools.measure import OwnProcess, count_flops, tf32
from trn import MTRN, TRN
from tsm import TSM
from tsn import TSN

__all__ = ["BACKBONES", "MODELS", "SECTIONS", "Case", "Comparison"]

MODELS: dict[str, type[TSN]] = {"TSN": TSN, "TRN": TRN, "MTRN": MTRN, "TSM": TSM}
BACKBONES = ("BNInception", *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)))
"""What all four models can be built on."""

_CLASSES = (125, 352)
_REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Case:
    """One way of doing something.

    Attributes:
        call: does it once.
        flops: floating-point operations of its convolutions and matrix products; 0, not counted.
        precision: of these, whose peak they are compared with.
        part_of: the case that this is only a part of, if it is one.
        elsewhere: whether another process does it, whose memory is not measured.
    """

    call: Callable[[], object]
    flops: int = 0
    precision: str = "float32"
    part_of: str | None = None
    elsewhere: bool = False


@dataclass(frozen=True)
class Comparison:
    """Several ways of doing the same.

    Attributes:
        title: what they do.
        cases: makes them, by name; the first is the plain one.
        bare: name of the one that is the bare backbone, if any is.
    """

    title: str
    cases: Callable[[], dict[str, Case]]
    bare: str | None = None


def _model(name: str, backbone: str, options: Namespace) -> TSN:
    """A model with random weights in evaluation mode, on the device."""
    place: Any = {"shift_place": "block"} if (name, backbone) == ("TSM", "BNInception") else {}
    model = MODELS[name](
        _CLASSES, options.segments, "RGB", base_model=backbone, pretrained=None, **place
    )
    model.eval().to(options.device)
    return model


def _clips(model: TSN, count: int, options: Namespace) -> Tensor:
    """Random input of a model, on the device."""
    side = model.input_size
    return torch.randn(count, options.segments * 3, side, side, device=options.device)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number > 1)}"


# Loading


def loading(options: Namespace) -> Iterator[Comparison]:
    """A checkpoint to a model, and the library into a process."""
    yield Comparison("load a ResNet-50", partial(_loading, Path(options.folder)))
    yield Comparison("import", _importing)


def _loading(folder: Path) -> dict[str, Case]:
    model = TSN(_CLASSES, 8, "RGB", base_model="resnet50", pretrained=None)
    bare = folder / "torchvision.pth"
    torch.save(torchvision.models.resnet50().state_dict(), bare)

    def load_bare() -> None:
        state = torch.load(bare, weights_only=True)
        with torch.device("meta"):
            network = torchvision.models.resnet50()
        network.load_state_dict(state, assign=True)

    paths = {
        "load_checkpoint, zip": save_checkpoint(model, folder / "zip.pth"),
        "load_checkpoint, legacy": save_checkpoint(model, folder / "legacy.pth", legacy=True),
        "load_checkpoint, safetensors": save_checkpoint(model, folder / "model.safetensors"),
    }
    cases = {name: Case(partial(load_checkpoint, path)) for name, path in paths.items()}
    return {"torch.load, load_state_dict(assign=True)": Case(load_bare), **cases}


def _importing() -> dict[str, Case]:
    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], cwd=_REPOSITORY, check=True)

    plain = "import torch, torchvision"
    cases = {
        plain: plain,
        "and predictor, model_loader": f"{plain}, predictor, model_loader",
        "and hubconf": f"{plain}, hubconf",
    }
    return {name: Case(partial(run, code), elsewhere=True) for name, code in cases.items()}


# Transforms


def transforms(options: Namespace) -> Iterator[Comparison]:
    """Frames to input: one crop and ten, with and without resizing."""
    for width, height in options.frames:
        for backbone in options.backbones:
            for crop_count in options.crops:
                yield Comparison(
                    f"{options.segments} frames of {width}x{height}, "
                    f"{_counted(crop_count, 'crop')} for {backbone}",
                    partial(_transforms, backbone, width, height, crop_count, options),
                )


def _transforms(
    backbone: str, width: int, height: int, crop_count: int, options: Namespace
) -> dict[str, Case]:
    device = options.device
    model = _model("TSN", backbone, options)
    transform = evaluation_transform(model, crop_count)
    together = torch.randint(0, 256, (options.segments, height, width, 3), dtype=torch.uint8)
    images = [Image.fromarray(frame.numpy()) for frame in together]
    decoded = together.permute(0, 3, 1, 2)  # as load_clip gives them
    planes = decoded.contiguous()
    cases: dict[str, Callable[[], object]] = {
        "plain, Pillow": lambda: _image_by_image(model, images, crop_count).to(device),
        "plain, tensors": lambda: _tensor_by_tensor(model, planes, crop_count).to(device),
        "Pillow images": lambda: transform(images).to(device),
        "tensor, as decoded": lambda: transform(decoded).to(device),
        "tensor, planes": lambda: transform(planes).to(device),
    }
    if device.type != "cpu":
        cases["tensor, there"] = lambda: transform(decoded.to(device))
    return {name: Case(call) for name, call in cases.items()}


def _scaled_size(model: TSN, width: int, height: int) -> tuple[int, int]:
    scale = model.scale_size
    if width <= height:
        return scale, int(scale * height / width)
    return int(scale * width / height), scale


def _places(width: int, height: int, size: int, crop_count: int) -> list[tuple[int, int]]:
    if crop_count == 1:
        return [(round((width - size) / 2), round((height - size) / 2))]
    x, y = (width - size) // 4, (height - size) // 4
    return [(0, 0), (4 * x, 0), (0, 4 * y), (4 * x, 4 * y), (2 * x, 2 * y)]


def _image_by_image(model: TSN, images: list[Image.Image], crop_count: int) -> Tensor:
    """The plain way with Pillow, as in tsn-pytorch."""
    size = model.input_size
    w, h = _scaled_size(model, *images[0].size)
    scaled = [image.resize((w, h), Image.Resampling.BILINEAR) for image in images]
    crops = []
    for x, y in _places(w, h, size, crop_count):
        group = [image.crop((x, y, x + size, y + size)) for image in scaled]
        crops += group
        if crop_count == 10:
            crops += [ImageOps.mirror(image) for image in group]
    arrays = [np.array(image) for image in crops]
    if model.preprocessing.input_space == "BGR":
        arrays = [array[:, :, ::-1] for array in arrays]
    stacked = torch.from_numpy(np.concatenate(arrays, axis=2)).permute(2, 0, 1).contiguous().float()
    if model.preprocessing.input_range[1] == 1:
        stacked = stacked.div(255)
    for channel, plane in enumerate(stacked):
        mean, std = (s[channel % len(s)] for s in (model.input_mean, model.input_std))
        plane.sub_(mean).div_(std)
    return stacked


def _tensor_by_tensor(model: TSN, frames: Tensor, crop_count: int) -> Tensor:
    """The same with tensors."""
    size = model.input_size
    w, h = _scaled_size(model, frames.shape[-1], frames.shape[-2])
    resize = torchvision.transforms.v2.functional.resize
    scaled = [resize(frame, [h, w], antialias=True) for frame in frames]
    mean, std = (torch.tensor(s).view(-1, 1, 1) for s in (model.input_mean, model.input_std))
    outputs = []
    for x, y in _places(w, h, size, crop_count):
        group = [frame[:, y : y + size, x : x + size] for frame in scaled]
        if crop_count == 10:
            group += [frame.flip(-1) for frame in group]
        for frame in group:
            pixels = (frame.flip(0) if model.preprocessing.input_space == "BGR" else frame).float()
            outputs.append(
                ((pixels / 255 if model.preprocessing.input_range[1] == 1 else pixels) - mean) / std
            )
    return torch.cat(outputs)


# Models


def models(options: Namespace) -> Iterator[Comparison]:
    """Clips to logits: as built, optimised, and the backbone alone."""
    for backbone in options.backbones:
        for name in options.models:
            for batch in options.batches:
                yield Comparison(
                    f"{name} {backbone}, {_counted(batch, 'clip')}",
                    partial(_models, name, backbone, batch, options),
                    bare="bare backbone",
                )


def _models(name: str, backbone: str, batch: int, options: Namespace) -> dict[str, Case]:
    model = _model(name, backbone, options)
    clips = _clips(model, batch, options)
    bare = _bare(backbone).to(options.device)
    frames = clips.view(-1, 3, *clips.shape[2:]).contiguous(memory_format=torch.channels_last)
    rows: dict[str, tuple[TSN, Tensor, str]] = {"plain": (model, clips, "float32")}
    for precision in options.precisions:
        dtype = torch.float32 if precision == "tf32" else getattr(torch, precision)
        fast = optimize_for_inference(model, dtype=dtype)
        rows[f"optimised, {precision}"] = fast, clips.to(dtype), precision
        if options.compile:
            compiled = optimize_for_inference(model, dtype=dtype, compile=True)
            rows[f"compiled, {precision}"] = compiled, clips.to(dtype), precision
    flops = count_flops(_inference(model, clips))
    cases = {
        row: Case(_inference(network, inputs, precision), flops, precision)
        for row, (network, inputs, precision) in rows.items()
    }
    alone = _inference(bare, frames)
    whole = f"optimised, {options.precisions[0]}"
    fast, inputs, precision = rows[whole]
    with torch.inference_mode():
        features = fast.features(inputs)
    cases |= {
        "its features": Case(_inference(fast.features, inputs, precision), part_of=whole),
        "its heads": Case(_inference(fast.logits, features, precision), part_of=whole),
    }
    if isinstance(fast.consensus, MultiScaleRelation):
        drawing = deepcopy(fast)
        cast(MultiScaleRelation, drawing.consensus).sampling = "random"
        cases["its heads, drawing three relations"] = Case(
            _inference(drawing.logits, features, precision), part_of=whole
        )
    return cases | {"bare backbone": Case(alone, count_flops(alone))}


def _inference(
    network: Callable[[Tensor], object], inputs: Tensor, precision: str = "float32"
) -> Callable[[], object]:
    def call() -> object:
        with torch.inference_mode(), tf32(precision == "tf32"):
            return network(inputs)

    return call


def _bare(backbone: str) -> nn.Module:
    """Somebody else's backbone, batch norms folded by PyTorch itself, in channels_last."""
    if backbone == "BNInception":
        import pretrainedmodels

        network = pretrainedmodels.bninception(num_classes=1000, pretrained=None)
    else:
        network = torchvision.models.get_model(backbone)
    fused: nn.Module = fuse(network.eval())
    return fused.requires_grad_(False).to(memory_format=torch.channels_last)


# Freed memory


def memory(options: Namespace) -> Iterator[Comparison]:
    """On a CPU, TSN in processes that give freed memory back, and in such that keep it."""
    if options.device.type == "cpu":
        for backbone in options.backbones:
            for batch in options.batches:
                yield Comparison(
                    f"TSN {backbone}, {_counted(batch, 'clip')}, in own processes",
                    partial(_memory, backbone, batch, options),
                )


def _memory(backbone: str, batch: int, options: Namespace) -> dict[str, Case]:
    cases = {}
    for row, optimize in (("plain", False), ("optimised", True)):
        make = partial(_forward, optimize, backbone, batch, options)
        cases[row] = Case(OwnProcess(make, options.device))
        cases[f"{row}, memory kept"] = Case(OwnProcess(make, options.device, keep_memory=True))
    return cases


def _forward(optimize: bool, backbone: str, batch: int, options: Namespace) -> Callable[[], object]:
    model = _model("TSN", backbone, options)
    network = optimize_for_inference(model) if optimize else model
    clips = _clips(model, batch, options)

    @torch.inference_mode()
    def forward() -> None:
        network(clips)

    return forward


# The shift


_Way = Callable[[Tensor, int], Tensor]


def shift(options: Namespace) -> Iterator[Comparison]:
    """TSM beside TSN, optimised and in training, and other ways to shift."""
    for backbone in options.backbones:
        yield Comparison(f"{backbone}, inference", partial(_shift_in_inference, backbone, options))
        training = partial(_shift_in_training, backbone, options)
        yield Comparison(f"{backbone}, training step", training)


def _shift_in_inference(backbone: str, options: Namespace) -> dict[str, Case]:
    """Forward passes of an optimised model."""
    model = optimize_for_inference(_model("TSM", backbone, options))
    clip = _clips(model, 1, options)
    # All with the same weights, since where they lie makes a difference of a percent.
    shared = {id(weight): weight for weight in model.parameters()}
    ways = {**_WAYS, "TSM, by a copy": temporal_shift}
    return {
        row: Case(_inference(_shifting(deepcopy(model, dict(shared)), way), clip))
        for row, way in ways.items()
    }


def _shift_in_training(backbone: str, options: Namespace) -> dict[str, Case]:
    """Training steps, without the optimiser's."""
    # Nobody trains two models in turns: see OwnProcess.
    makers = {row: partial(_training, way, backbone, options) for row, way in _WAYS.items()}
    return {
        row: Case(OwnProcess(make, options.device, keep_memory=True))
        for row, make in makers.items()
    }


def _training(way: _Way | None, backbone: str, options: Namespace) -> Callable[[], object]:
    model = _shifting(_model("TSM", backbone, options).train(), way)
    clip = _clips(model, 1, options)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        verbs, nouns = model(clip)
        (verbs.sum() + nouns.sum()).backward()

    return step


def _shifting(model: TSN, way: _Way | None) -> TSN:
    """A model of which all shifts are done another way."""
    for module in model.modules():
        if isinstance(module, TemporalShift) and way is not None:
            module.forward = partial(_shift_another_way, module, way)  # type: ignore[method-assign]
    return model


def _shift_another_way(module: TemporalShift, way: _Way, x: Tensor) -> Tensor:
    return cast(Tensor, module.net(way(x, module.num_segments)))


def _leave_alone(x: Tensor, num_segments: int) -> Tensor:
    return x


def _shift_by_slices(x: Tensor, num_segments: int) -> Tensor:
    fold = x.shape[1] // 8
    shifted = torch.zeros_like(x)
    source, target = (y.unflatten(0, (-1, num_segments)) for y in (x, shifted))
    target[:, :-1, :fold] = source[:, 1:, :fold]
    target[:, 1:, fold : 2 * fold] = source[:, :-1, fold : 2 * fold]
    target[:, :, 2 * fold :] = source[:, :, 2 * fold :]
    return shifted


def _shift_by_concatenation(x: Tensor, num_segments: int) -> Tensor:
    fold = x.shape[1] // 8
    clips = x.unflatten(0, (-1, num_segments))
    later = functional.pad(clips[:, 1:, :fold], (*6 * (0,), 0, 1))
    earlier = functional.pad(clips[:, :-1, fold : 2 * fold], (*6 * (0,), 1, 0))
    return torch.cat((later, earlier, clips[:, :, 2 * fold :]), dim=2).flatten(0, 1)


_WAYS: dict[str, _Way | None] = {
    "TSN": _leave_alone,
    "TSM": None,
    "TSM, by assignments to slices, as in the original": _shift_by_slices,
    "TSM, by padding and concatenation": _shift_by_concatenation,
}
"""Name -> how a TSM shifts; None, as it does by itself. Without its shift, it is a TSN."""


# From a video file


def video(options: Namespace) -> Iterator[Comparison]:
    """A video file to probabilities."""
    yield Comparison("decode the frames of a clip", partial(_decoding, options))
    for backbone in options.backbones:
        for name in options.models:
            for crop_count in options.crops if name == "TSN" else options.crops[:1]:
                yield Comparison(
                    f"{name} {backbone}, {_counted(crop_count, 'crop')}",
                    partial(_video, name, backbone, crop_count, options),
                )


def _decoding(options: Namespace) -> dict[str, Case]:
    return {
        "plain": Case(partial(_decoded, options.video, options.segments)),
        "load_clip": Case(lambda: load_clip(_opened(options), num_segments=options.segments)),
    }


def _opened(options: Namespace) -> VideoFile:
    """The video, opened anew: of a path, a second call would find it open."""
    return VideoFile(options.video)


def _decoded(path: Path, num_segments: int) -> list[Image.Image]:
    """The plain way: everything is decoded, and what is wanted kept."""
    import av

    with av.open(str(path)) as container:
        frames: list[Any] = list(container.decode(video=0))
    wanted = segment_indices(len(frames), num_segments, 1).flatten().tolist()
    return [frames[index].to_image() for index in wanted]


def _video(name: str, backbone: str, crop_count: int, options: Namespace) -> dict[str, Case]:
    model = _model(name, backbone, options)

    @torch.inference_mode()
    def plain() -> list[Tensor]:
        images = _decoded(options.video, options.segments)
        inputs = _image_by_image(model, images, crop_count).to(options.device)
        return [logits.softmax(-1).mean(0).cpu() for logits in model(inputs.unsqueeze(0))]

    unchanged = Predictor(model, crop_count=crop_count, optimize=False)
    fast = Predictor(model, crop_count=crop_count)
    return {
        "plain": Case(plain),
        "Predictor, optimize=False": Case(lambda: unchanged(_opened(options))),
        "Predictor": Case(lambda: fast(_opened(options))),
    }


SECTIONS: dict[str, Callable[[Namespace], Iterator[Comparison]]] = {
    "loading": loading,
    "transforms": transforms,
    "models": models,
    "memory": memory,
    "shift": shift,
    "video": video,
}
"""Name -> what is compared under it."""
