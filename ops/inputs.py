"""Checks of what goes into a network, with errors that show both shapes."""

from typing import cast

import torch
from torch import Tensor

__all__ = ["check_features", "explain_dtype", "to_snippets", "to_streams"]


def to_snippets(inputs: Tensor, segments: int | None, frames: int, channels: int) -> Tensor:
    """Reshape clips into a row of snippets.

    Args:
        inputs: float (N, k*T*L*C, H, W), (N, T, L*C, H, W) or (N, T, L, C, H, W).
        segments: T; None for any number.
        frames: L.
        channels: C.

    Returns:
        float (M, L*C, H, W); the snippets of a clip are neighbours.

    Raises:
        ValueError: for any other shape, an empty batch, or numbers that are not floating-point.
    """
    _check_floating_point(
        "inputs", inputs, "presets.evaluation_transform(model) turns 8-bit frames into one"
    )
    shape, depth = inputs.shape, frames * channels
    if inputs.ndim == 4:
        fits = shape[1] % ((segments or 1) * depth) == 0
    elif inputs.ndim == 5:
        fits = shape[2] == depth and segments in (None, shape[1])
    elif inputs.ndim == 6:
        fits = tuple(shape[2:4]) == (frames, channels) and segments in (None, shape[1])
    else:
        fits = False
    if not fits:
        t = segments or "T"
        product = segments * depth if segments else f"T*{depth}"
        remedy = "; inputs.unsqueeze(0) adds the batch axis" if inputs.ndim == 3 else ""
        raise ValueError(
            f"expected (N, {product}, H, W) = {t} segment{'s' * (t != 1)} x {frames} "
            f"frame{'s' * (frames != 1)} x {channels} channels, (N, {t}, {depth}, H, W) or "
            f"(N, {t}, {frames}, {channels}, H, W), got {tuple(shape)}{remedy}"
        )
    if 0 in shape:
        raise ValueError(f"inputs must not be empty, got {tuple(shape)}")
    # The sides stay as they are, which exporters need to know, whatever the batch.
    snippets = inputs.flatten(2, -3) if inputs.ndim > 4 else inputs.unflatten(1, (-1, depth))
    return cast(Tensor, snippets.flatten(0, 1))


def to_streams(frames: Tensor, streams: int, length: int, channels: int) -> Tensor:
    """Give the next frames of streams the axes of streams and time.

    Args:
        frames: float (n, t, L*C, H, W), n = `streams`; of one stream also (t, L*C, H, W) or
            (L*C, H, W).
        streams: n.
        length: L.
        channels: C.

    Returns:
        float (n, t, L*C, H, W), a view.

    Raises:
        ValueError: for any other shape, no frames, or numbers that are not floating-point.
    """
    _check_floating_point(
        "frames", frames, "presets.evaluation_transform(model) turns 8-bit frames into one"
    )
    depth, shape = length * channels, tuple(frames.shape)
    full = frames[(None,) * (5 - frames.ndim)] if streams == 1 else frames
    if full.ndim != 5 or full.shape[0] != streams or full.shape[2] != depth or 0 in shape:
        short = f"({depth}, H, W), (t, {depth}, H, W) or " if streams == 1 else ""
        raise ValueError(
            f"expected {short}({streams}, t, {depth}, H, W) = {streams} "
            f"stream{'s' * (streams != 1)} x t x ({length} frame{'s' * (length != 1)} x {channels} "
            f"channels), got {shape}"
        )
    return full


def check_features(features: Tensor, segments: int, width: int) -> None:
    """Refuse features that are not those of whole clips.

    Args:
        features: what should be float (N*T, D).
        segments: T.
        width: D.

    Raises:
        ValueError: for any other shape, none at all, or numbers that are not floating-point.
    """
    _check_floating_point("features", features, "model.features(inputs) returns such")
    shape = tuple(features.shape)
    if features.ndim != 2 or shape[1] != width or shape[0] == 0 or shape[0] % segments:
        raise ValueError(
            f"expected features of whole clips, (N*{segments}, {width}) = N x {segments} segments "
            f"x {width} features, got {shape}"
        )


def explain_dtype(error: RuntimeError, inputs: Tensor, expected: torch.dtype) -> None:
    """Name the inputs where PyTorch only says that two dtypes differ.

    To be asked once something failed: with autocast, or weights that are sharded and cast as they
    are used, nothing tells beforehand which dtype a network takes.

    Args:
        error: what the network raised.
        inputs: what it was given.
        expected: dtype of its weights.

    Raises:
        ValueError: if the error is about the inputs' dtype.
    """
    of_dtypes = str(error).startswith(("Input type", "expected scalar type"))
    if of_dtypes and inputs.dtype != expected:
        raise ValueError(
            f"inputs must be {expected}, as the model's weights are, got {inputs.dtype}: "
            f"convert the inputs, or the model with model.to({inputs.dtype})"
        ) from error


def _check_floating_point(argument: str, value: object, remedy: str) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(
            f"{argument} must be a floating-point tensor, got {type(value).__name__} "
            f"(torch.from_numpy makes one of an array): {remedy}"
        )
    if not value.is_floating_point():
        raise ValueError(f"{argument} must be a floating-point tensor, got {value.dtype}: {remedy}")
    if value.layout != torch.strided:
        raise ValueError(
            f"{argument} must be a dense tensor, got one of layout {value.layout}: use "
            f"{argument}.to_dense()"
        )
