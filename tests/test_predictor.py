import copy
import dataclasses
from typing import Any

import pytest
import torch
from helpers.numbered_images import save, values
from helpers.small_models import randomised
from torch import Tensor

from data.synthetic import make_flow, make_video
from data.video import open_frames
from epic.classes import ClassNames
from predictor import Predictor
from presets import evaluation_transform
from trn import MTRN
from tsn import TSN


def small(
    num_class: Any,
    num_segments: int = 3,
    modality: str = "RGB",
    *,
    kind: type[TSN] = TSN,
    **options: Any,
) -> TSN:
    """A model whose crops are 64 pixels wide."""
    model = kind(num_class, num_segments, modality, "resnet18", pretrained=None, **options)
    model.preprocessing = dataclasses.replace(model.preprocessing, input_size=64, scale_size=72)
    return model


@pytest.fixture(scope="module")
def model() -> TSN:
    torch.manual_seed(0)
    return small((5, 7)).eval()


@pytest.fixture(scope="module")
def frames() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, 3, 76, 90), dtype=torch.uint8, generator=generator)


NAMES = ClassNames(tuple("vwxyz"), tuple("abcdefg"))


@pytest.mark.essential
@pytest.mark.parametrize("crop_count", [1, 3, 10])
def test_probabilities_are_the_softmax_of_the_crops_mean_logits(
    model: TSN, frames: Tensor, crop_count: int
) -> None:
    predictor = Predictor(model, crop_count=crop_count)
    clip = evaluation_transform(model, crop_count)(frames).unsqueeze(0)
    with torch.no_grad():
        logits = model(clip)
    for task, expected in zip(predictor.probabilities([frames]), logits, strict=True):
        assert len(expected) == crop_count
        torch.testing.assert_close(task, expected.mean(0, keepdim=True).softmax(-1))


def test_probabilities_are_not_softmaxed_twice(frames: Tensor) -> None:
    model = small(5, before_softmax=False).eval()
    predictor = Predictor(model, crop_count=10)
    clip = evaluation_transform(model, 10)(frames).unsqueeze(0)
    with torch.no_grad():
        expected = model(clip).mean(0, keepdim=True)
    torch.testing.assert_close(predictor.probabilities([frames])[0], expected)


def test_identity_consensus_averages_over_segments(frames: Tensor) -> None:
    model = small(5, consensus_type="identity")
    (probabilities,) = Predictor(model, crop_count=3).probabilities([frames, frames])
    assert probabilities.shape == (2, 5)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2))


def test_a_batch_agrees_with_its_clips(model: TSN, frames: Tensor) -> None:
    predictor = Predictor(model, crop_count=3)
    clips = [frames, frames.flip(0), frames.flip(3)]
    together = predictor.probabilities(clips)
    for index, clip in enumerate(clips):
        for task, alone in zip(together, predictor.probabilities([clip]), strict=True):
            torch.testing.assert_close(task[index], alone[0])


def test_a_cpu_takes_one_crop_at_a_time(model: TSN, frames: Tensor) -> None:
    predictor, shapes = Predictor(model, crop_count=10), []
    predictor.model.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    predictor.probabilities([frames, frames])
    assert shapes == 20 * [(1, 9, 64, 64)]


def test_a_cpu_prepares_one_clip_at_a_time(model: TSN, frames: Tensor) -> None:
    """Inputs are larger than the frames: those of all clips need not fit into the memory."""
    predictor, order = Predictor(model), []
    predictor.model.register_forward_pre_hook(lambda *_: order.append("model"))
    transform = predictor.transform

    def noting(clip: Tensor) -> Tensor:
        order.append("transform")
        return transform(clip)

    predictor.transform = noting
    predictor.probabilities([frames, frames])
    assert order == 2 * ["transform", "model"]


@pytest.mark.essential
def test_actions_are_the_best_products(model: TSN, frames: Tensor) -> None:
    predictor = Predictor(model, NAMES)
    (prediction,) = predictor.predict([frames], top_k=6)
    verbs, nouns = (task[0] for task in predictor.probabilities([frames]))
    products = torch.outer(verbs, nouns)
    values, order = products.flatten().topk(6)
    assert [label.classes for label in prediction.actions] == [divmod(i, 7) for i in order.tolist()]
    found = torch.tensor([label.probability for label in prediction.actions])
    torch.testing.assert_close(found, values)
    verb, noun = prediction.actions[0].classes
    assert prediction.actions[0].name == f"{NAMES.verbs[verb]} {NAMES.nouns[noun]}"
    assert len(prediction.verbs) == 5  # no more than there are
    assert prediction.verbs[0].name == NAMES.verbs[int(verbs.argmax())]
    assert not prediction.classes


@pytest.mark.parametrize("top_k", [1, 5, 6, 50])
def test_the_best_of_equal_actions_is_the_best_verb_with_the_best_noun(
    model: TSN, top_k: int
) -> None:
    predictor = Predictor(model, NAMES)
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        verbs, nouns = (torch.randint(1, 4, (n,), generator=random) / 1000 for n in (5, 7))
        prediction = predictor.to_prediction([verbs, nouns], top_k=top_k)
        best = prediction.actions[0]
        assert best.classes == (int(verbs.argmax()), int(nouns.argmax()))  # the first of equals
        assert best.name == f"{prediction.verbs[0].name} {prediction.nouns[0].name}"
        products = torch.outer(verbs.double(), nouns.double())
        expected = products.flatten().sort(descending=True).values[:top_k]
        assert [label.probability for label in prediction.actions] == expected.tolist()
        assert [products[label.classes] for label in prediction.actions] == expected.tolist()
        assert len({label.classes for label in prediction.actions}) == len(expected)


def test_one_task_has_classes_alone(frames: Tensor) -> None:
    model = small(4)
    (prediction,) = Predictor(model, ["a", "b", "c", "d"]).predict([frames], top_k=2)
    assert len(prediction.classes) == 2
    assert not prediction.verbs
    assert not prediction.actions
    assert "classes" in str(prediction)
    (unnamed,) = Predictor(model).predict([frames], top_k=1)
    assert unnamed.classes[0].name == f"class {unnamed.classes[0].classes[0]}"


@pytest.mark.essential
def test_video_file_and_a_part_of_it(model: TSN, tmp_path) -> None:
    clip = make_video(tmp_path / "clip.mp4", 20)
    predictor = Predictor(model, NAMES)
    whole, part = predictor(clip, top_k=3), predictor(clip, start=15, stop=20, top_k=3)
    assert len(whole.verbs) == len(part.actions) == 3
    assert predictor(clip, top_k=3) == whole
    assert predictor.load(clip, start=15, stop=20).shape == (3, 3, 72, 128)
    assert "verb" in str(whole)


@pytest.mark.parametrize("crop_count", [1, 10])
def test_frames_are_resized_as_they_are_read_and_nothing_changes(crop_count: int) -> None:
    model = TSN((5, 7), 3, "RGB", base_model="resnet18", pretrained=None)
    model.preprocessing = dataclasses.replace(model.preprocessing, input_size=32, scale_size=36)
    predictor = Predictor(model, crop_count=crop_count)
    generator = torch.Generator().manual_seed(2)
    clip = torch.randint(0, 256, (3, 3, 90, 131), dtype=torch.uint8, generator=generator)
    loaded = predictor.load(clip)
    assert loaded.shape == (3, 3, 36, 52)
    assert torch.equal(predictor.transform(loaded), predictor.transform(clip))
    assert predictor(loaded) == predictor.predict([clip])[0]


def test_a_part_by_file_number(model: TSN, tmp_path) -> None:
    for number in (10, 11, 13):
        save(tmp_path, f"frame_{number}.jpg", number, size=(456, 256))
    predictor = Predictor(model, NAMES)
    frames = predictor.load(tmp_path, start=11, stop=14, by_number=True)
    assert values(frames) == [[11] * 3, [11] * 3, [13] * 3]
    assert predictor(tmp_path, start=11, stop=14, by_number=True) == predictor(frames)
    with pytest.raises(ValueError, match=r"10 <= start < stop <= 14"):
        predictor(tmp_path, start=1, stop=3, by_number=True)


@pytest.mark.essential
def test_flow_folder(tmp_path) -> None:
    model = small((5, 7), 3, "Flow", new_length=2, kind=MTRN)
    clip = make_flow(tmp_path, 8)
    predictor = Predictor(model, crop_count=10)
    assert predictor.load(clip).shape == (6, 2, 72, 128)
    assert predictor(clip) == predictor(clip)  # the expectation over relations, not a draw


def test_rgb_difference_loads_one_frame_more(tmp_path) -> None:
    model = small(4, 2, "RGBDiff", new_length=3)
    predictor = Predictor(model)
    clip = make_video(tmp_path / "clip.mp4", 12)
    assert predictor.load(clip).shape == (2 * 4, 3, 72, 128)
    assert len(predictor(clip, top_k=2).classes) == 2


@pytest.mark.parametrize("optimize", [True, False])
def test_predictions_in_the_midst_of_training_change_nothing(
    frames: Tensor, optimize: bool
) -> None:
    model = TSN(4, 3, "RGB", base_model="resnet18", pretrained=None, partial_bn=False)
    model.base_model.layer1.eval()  # as somebody may freeze it
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    predictor = Predictor(model, optimize=optimize)
    expected = Predictor(copy.deepcopy(model).eval(), optimize=optimize).probabilities([frames])
    for _ in range(2):
        assert predictor.probabilities([frames])[0].equal(expected[0])
    assert [module.training for module in model.modules()] == modes
    assert all(before[name].equal(tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("before_softmax", [True, False])
def test_precision_of_the_model(before_softmax: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = randomised(
        TSN((50, 70), 2, "RGB", "resnet18", before_softmax=before_softmax, pretrained=None)
    )
    with torch.no_grad():
        for head in (model.fc_verb, model.fc_noun):
            head.weight.mul_(0.2)  # away from probabilities of 0 and 1
    model.preprocessing = dataclasses.replace(model.preprocessing, input_size=32, scale_size=36)
    clip = torch.randint(0, 256, (2, 3, 36, 48), dtype=torch.uint8)
    expected = Predictor(model, crop_count=10).probabilities([clip])
    ours = Predictor(copy.deepcopy(model).to(dtype), crop_count=10).probabilities([clip])
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == torch.float32
        assert other.max() < 0.9
        assert (one - other).abs().max() <= 10 * max(torch.finfo(dtype).eps, 1e-6) * other.max()
        # Crops are averaged in float32, so that the sum is off by no more than each one's.
        assert abs(one.sum() - 1) <= torch.finfo(dtype).eps + 1e-6


@pytest.mark.parametrize("names", [NAMES, (list(NAMES.verbs), list(NAMES.nouns)), [*NAMES]])
def test_names_are_a_pair_of_lists(model: TSN, frames: Tensor, names: Any) -> None:
    (verb, noun) = Predictor(model, names)(frames).actions[0].name.split()
    assert verb in NAMES.verbs
    assert noun in NAMES.nouns


@pytest.mark.parametrize("optimize", [True, False])
def test_names_of_the_model_are_used_where_none_are_given(frames: Tensor, optimize: bool) -> None:
    model = small(4)
    model.class_names = ["a", "b", "c", "d"]
    label = Predictor(model, optimize=optimize)(frames).classes[0]
    assert label.name == "abcd"[label.classes[0]]
    other = Predictor(model, ["w", "x", "y", "z"], optimize=optimize)(frames).classes[0]
    assert other.name == "wxyz"[label.classes[0]]
    assert copy.deepcopy(model).class_names == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (ClassNames(("a",), ("b",)), r".*, for \(5, 7\) classes, got \(1, 1\)"),
        ((NAMES.verbs, NAMES.nouns, NAMES.nouns), r".* got \(5, 7, 7\)"),
        (["a", "b"], r"must be \(verbs, nouns\), a list of names each, .* got list"),
        (["vwxyz", "abcdefg"], r"must be \(verbs, nouns\), a list of names each"),
        ((NAMES.verbs, range(7)), r"must be \(verbs, nouns\), a list of names each"),
    ],
)
def test_names_must_fit_the_model(model: TSN, names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"class_names {message}"):
        Predictor(model, names)


def test_names_of_two_tasks_do_not_fit_one() -> None:
    with pytest.raises(
        ValueError, match=r"must be a list of names, for \(2,\) classes, got ClassNames"
    ):
        Predictor(small(2), ClassNames(("a",), ("b",)))


def test_clips_of_any_kind_are_sampled_and_loaded_frames_are_not(model: TSN, tmp_path) -> None:
    clip = make_video(tmp_path / "clip.mp4", 20)
    predictor = Predictor(model, NAMES)
    frames = open_frames(clip).read(range(20))
    expected = predictor(clip)
    array = frames.permute(0, 2, 3, 1).numpy()
    assert predictor.predict([clip, str(clip), predictor.load(clip), frames, array]) == (
        5 * [expected]
    )
    assert predictor(predictor.load(clip)) == expected
    last = predictor.load(clip).permute(0, 2, 3, 1)
    assert predictor.predict([last, last.numpy()]) == [expected, expected]


@pytest.mark.parametrize(
    ("names", "given"),
    [({"verbs": ["a"]}, "dict"), ("abcd", "str"), (iter("abcd"), "str_.*iterator")],
)
def test_names_are_in_a_list(names: object, given: str) -> None:
    model = TSN(4, 3, "RGB", base_model="resnet18", pretrained=None)
    with pytest.raises(ValueError, match=f"class_names must be a list of names, .* got {given}"):
        Predictor(model, names)  # type: ignore[arg-type]


def test_bad_input(model: TSN, frames: Tensor, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"model must be a TSN, .* got Linear"):
        Predictor(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="crop_count must be 1, 3 or 10, got 2"):
        Predictor(model, crop_count=2)
    with pytest.raises(ValueError, match=r"optimize must be True or False, got torch.bfloat16 \("):
        Predictor(model, optimize=torch.bfloat16)  # type: ignore[arg-type]
    predictor = Predictor(model)
    with pytest.raises(ValueError, match="top_k"):
        predictor.predict([frames], top_k=0)
    with pytest.raises(ValueError, match="at least one clip"):
        predictor.probabilities([])
    for single in ("clip.mp4", tmp_path, frames):
        with pytest.raises(ValueError, match=r"must be a list .* goes to predictor\(clip\)"):
            predictor.predict(single)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        predictor(tmp_path / "nowhere.mp4")


def test_what_is_used_is_an_optimised_copy_or_the_model_itself(model: TSN, frames: Tensor) -> None:
    copied, itself = Predictor(model), Predictor(model, optimize=False)
    assert copied.model.inference_only
    assert copied.model is not model
    assert itself.model is model
    for ours, expected in zip(
        copied.probabilities([frames]), itself.probabilities([frames]), strict=True
    ):
        torch.testing.assert_close(ours, expected)
