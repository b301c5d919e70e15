"""Classify a clip from the command line: the four models, their labels, and a picture.

    python demo.py                                         a synthetic clip, random weights
    python demo.py --clip CLIP --checkpoint FILE           a real clip, real labels
    python demo.py tsm --clip CLIP --pretrained epic-kitchens --fetch-classes

Without arguments nothing is downloaded. The picture shows the frames that the models saw above
the most probable classes.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from checkpoints.errors import UnknownSegmentsError
from data.synthetic import make_flow, make_video
from data.video import FrameSource, open_frames
from epic.classes import choose_class_names
from epic.datasets import DATASETS, OF_PUBLISHED_WEIGHTS
from model_loader import MODELS, get_config, load_checkpoint
from pictures import ClassifiedClip, draw_predictions
from predictor import Predictor
from tsn import TSN

__all__ = ["main"]

_PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")

# Command-line option -> the model types that have it, the constructor's name for it.
_ALL = ("tsn", "trn", "mtrn", "tsm", "tsm-nl")
_OPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "arch": (_ALL, "base_model"),
    "flow_length": (_ALL, "new_length"),
    "dropout": (_ALL, "dropout"),
    "trn_img_feature_dim": (("trn", "mtrn"), "img_feature_dim"),
    "tsn_consensus_type": (("tsn",), "consensus_type"),
    "tsm_shift_div": (("tsm", "tsm-nl"), "shift_div"),
    "tsm_shift_place": (("tsm", "tsm-nl"), "shift_place"),
    "tsm_temporal_pool": (("tsm", "tsm-nl"), "temporal_pool"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Classify a clip with TSN, TRN, MTRN and TSM, and draw what they say."
    )
    parser.add_argument(
        "model_type",
        nargs="?",
        type=str.lower,
        choices=_ALL,
        help="which model (default: the first four in turn)",
    )
    clip = parser.add_argument_group("clip")
    clip.add_argument(
        "--clip",
        help="video file, folder of RGB frames or of flow images (default: a synthetic clip)",
    )
    clip.add_argument("--start", type=int, help="first frame of the clip")
    clip.add_argument("--stop", type=int, help="frame behind the last of the clip")
    clip.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="cut the clip into N equal parts and classify them in one batch (default: 1)",
    )
    clip.add_argument("--crops", type=int, choices=(1, 3, 10), default=1, help="crops of each part")
    weights = parser.add_argument_group("weights (default: random)")
    weights.add_argument("--pretrained", choices=(*OF_PUBLISHED_WEIGHTS, "imagenet"))
    weights.add_argument("--checkpoint", type=Path, help="file with a model and its weights")
    weights.add_argument(
        "--trust",
        action="store_true",
        help="let the checkpoint run any code; only for files whose writer you trust",
    )
    names = parser.add_argument_group("class names (default: the checkpoint's, or numbers)")
    names.add_argument("--verb-classes", type=Path, metavar="CSV", help="EPIC_verb_classes.csv")
    names.add_argument("--noun-classes", type=Path, metavar="CSV", help="EPIC_noun_classes.csv")
    names.add_argument(
        "--fetch-classes",
        action="store_true",
        help="download both files (CC BY-NC 4.0) once into torch.hub's directory",
    )
    model = parser.add_argument_group("model (default: the model's own, or the checkpoint's)")
    model.add_argument("--arch", help="backbone, such as resnet50 or BNInception")
    model.add_argument("--modality", help="RGB, Flow or RGBDiff (default: RGB)")
    model.add_argument("--flow-length", type=int, help="frames in a snippet of flow or RGBDiff")
    model.add_argument("--dropout", type=float)
    model.add_argument("--segment-count", type=int, help="segments of a clip (default: 8)")
    model.add_argument("--trn-img-feature-dim", type=int)
    model.add_argument("--tsn-consensus-type", choices=("avg", "max", "identity"))
    model.add_argument("--tsm-shift-div", type=int)
    model.add_argument("--tsm-shift-place", choices=("block", "blockres"))
    model.add_argument("--tsm-temporal-pool", action="store_true", default=None)
    output = parser.add_argument_group("output")
    output.add_argument("--print-model", action="store_true", help="print the model's layers")
    output.add_argument(
        "--output", type=Path, default=Path("demo.png"), help="picture (default: demo.png)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        argv: command line without the program's name; None: that of the process.

    Returns:
        Exit status: 0, or 1 after an error, which is printed in one line.
    """
    arguments = _parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            _run(arguments, Path(folder))
    except BrokenPipeError:  # whoever read the output has gone, as in `demo.py | head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the interpreter's last flush
        return 1
    except (ValueError, OSError, ImportError) as error:
        print(f"demo.py: error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(arguments: argparse.Namespace, folder: Path) -> None:
    if not arguments.output.parent.is_dir():
        raise FileNotFoundError(f"--output: no such folder: {arguments.output.parent}")
    if arguments.output.suffix.lower() not in _PICTURES:
        raise ValueError(
            f"--output must end in one of {', '.join(_PICTURES)}, got {arguments.output}"
        )
    if arguments.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {arguments.batch_size}")
    models = _models(arguments)
    first = next(iter(models.values()))  # all have the same classes, and see the same frames
    names = choose_class_names(
        first.num_class,
        arguments.verb_classes,
        arguments.noun_classes,
        fetch=arguments.fetch_classes,
    )
    clip, title = arguments.clip, arguments.clip
    if clip is None:
        clip = make_flow(folder) if first.modality == "Flow" else make_video(folder / "clip.mp4")
        title = "synthetic clip"
        print("No --clip given: the clip is a synthetic one, a disc crossing the picture.")
    source = open_frames(clip, first.modality)
    parts = _parts(source, arguments)
    print(f"Clip: {title}, {len(source)} frames, modality {first.modality}")

    count = len(parts)
    endings = [f", part {n} of {count}" for n in range(1, count + 1)] if count > 1 else [""]
    loader = Predictor(first, optimize=False)
    clips = [
        ClassifiedClip(
            f"{Path(title).name}{ending}: sampled frames",
            loader.load(source, start=start, stop=stop),
            first.num_segments,
            {},
        )
        for ending, (start, stop) in zip(endings, parts, strict=True)
    ]
    for name, model in models.items():
        if arguments.print_model:
            print(model)
        predictor = Predictor(model, names, crop_count=arguments.crops)
        predictions = predictor.predict([clip.frames for clip in clips])
        for clip, ending, prediction in zip(clips, endings, predictions, strict=True):
            clip.predictions[name] = prediction
            print(f"\n{name}{ending}\n{prediction}")
    if arguments.checkpoint is None and arguments.pretrained not in OF_PUBLISHED_WEIGHTS:
        what = "The heads' weights" if arguments.pretrained else "The weights"
        caution = f"{what} are random: the labels mean nothing."
        print(f"\n{caution} Real ones come with --checkpoint or --pretrained epic-kitchens.")
    else:
        caution = ""
    draw_predictions(clips, arguments.output, caution=caution)
    print(f"\nPicture: {arguments.output}")


def _models(arguments: argparse.Namespace) -> dict[str, TSN]:
    """Return the models that the command line asks for, by their names."""
    if arguments.checkpoint is not None:
        if arguments.pretrained:
            raise ValueError("--checkpoint and --pretrained exclude each other")
        try:
            model = load_checkpoint(
                arguments.checkpoint,
                num_segments=arguments.segment_count,
                trust=arguments.trust,
            )
        except UnknownSegmentsError:
            raise ValueError(
                f"{arguments.checkpoint}: the file does not record its number of segments: pass "
                f"it, as in --segment-count 8"
            ) from None
        _check_contradictions(arguments, model)
        return {_name(model): model}
    if arguments.model_type is not None:
        model = _make(arguments.model_type, arguments)
        return {_name(model): model}
    models = {}
    refusals = []
    for model_type in MODELS:
        try:
            model = _make(model_type, arguments)
        except ValueError as error:
            refusals.append(f"{model_type}: {error}")
        else:
            models[_name(model)] = model
    if not models:
        raise ValueError(refusals[0].partition(": ")[2])
    for refusal in refusals:
        print(f"Skipped {refusal}")
    return models


def _name(model: TSN) -> str:
    return f"{model.variant} {model.arch} {model.modality}"


def _make(model_type: str, arguments: argparse.Namespace) -> TSN:
    """Build a model from the command line; unset options stay the model's own."""
    options: dict[str, Any] = {}
    for option, (model_types, name) in _OPTIONS.items():
        value = getattr(arguments, option)
        if value is None:
            continue
        if model_type in model_types:
            options[name] = value
        elif arguments.model_type is not None:
            flag = option.replace("_", "-")
            raise ValueError(f"--{flag} is for {' and '.join(model_types)}, not for {model_type}")
    if model_type == "tsm-nl":
        options["non_local"] = True
    dataset = OF_PUBLISHED_WEIGHTS.get(arguments.pretrained, "epic-kitchens-55")
    return MODELS[model_type.removesuffix("-nl")](
        DATASETS[dataset].num_class,
        8 if arguments.segment_count is None else arguments.segment_count,
        arguments.modality or "RGB",
        pretrained=arguments.pretrained,
        **options,
    )


def _check_contradictions(arguments: argparse.Namespace, model: TSN) -> None:
    """Refuse options that say something else than the checkpoint."""
    config = get_config(model)
    model_type = "tsm-nl" if config.non_local else config.model_type
    pairs: dict[str, tuple[Any, Any]] = {
        "model_type": (arguments.model_type, model_type),
        "--modality": (arguments.modality, config.modality),
    }
    for option, (model_types, name) in _OPTIONS.items():
        has = getattr(model, "arch" if name == "base_model" else name, None)
        recorded = has if model_type in model_types else f"no such option ({model_type})"
        pairs["--" + option.replace("_", "-")] = (getattr(arguments, option), recorded)
    for option, (wanted, recorded) in pairs.items():
        if wanted is not None and str(wanted).lower() != str(recorded).lower():
            raise ValueError(
                f"{option} {wanted} contradicts the checkpoint {arguments.checkpoint}, which has "
                f"{recorded}: leave it out"
            )


def _parts(source: FrameSource, arguments: argparse.Namespace) -> list[tuple[int, int]]:
    """Return the ranges of frames that the clip is cut into."""
    start = 0 if arguments.start is None else arguments.start
    stop = len(source) if arguments.stop is None else arguments.stop
    if not 0 <= start < stop <= len(source):
        raise ValueError(
            f"--start and --stop must satisfy 0 <= start < stop <= {len(source)} frames, got "
            f"{start} and {stop}"
        )
    count = arguments.batch_size
    if count > stop - start:
        raise ValueError(f"--batch-size {count} is more than the clip's {stop - start} frames")
    borders = [start + (stop - start) * index // count for index in range(count + 1)]
    return list(pairwise(borders))


if __name__ == "__main__":
    sys.exit(main())
