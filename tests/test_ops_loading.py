"""Weights get into networks: checked, converted, never copied without need."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from checkpoints.errors import CheckpointError
from ops.loading import load_weights


class Net(nn.Module):
    """A parameter, a buffer, and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.norm.bias.requires_grad_(False)


def net_state(**changed: Tensor) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        for name, tensor in Net().state_dict().items()
    }
    return {**state, **{name.replace("__", "."): value for name, value in changed.items()}}


def assigned(state: dict[str, Tensor]) -> Net:
    with torch.device("meta"):
        model = Net()
    load_weights(model, state, source="file")
    return model


def test_weights_are_assigned_and_not_copied() -> None:
    state = net_state()
    model = assigned(dict(state))
    assert {name: t.data_ptr() for name, t in model.state_dict().items()} == {
        name: t.data_ptr() for name, t in state.items()
    }
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_precision_is_converted(dtype: torch.dtype) -> None:
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in net_state().items()}
    for name, tensor in assigned(state).state_dict().items():
        counter = name.endswith("num_batches_tracked")
        assert tensor.dtype == (torch.int64 if counter else torch.float32)
        torch.testing.assert_close(tensor, state[name].to(tensor.dtype))


def test_a_counter_of_batches_may_be_missing_or_a_fraction() -> None:
    state = net_state(norm__num_batches_tracked=torch.tensor(3.0))
    assert assigned(state).norm.num_batches_tracked.dtype == torch.int64
    del state["norm.num_batches_tracked"]
    assert assigned(state).norm.num_batches_tracked.item() == 0


@pytest.mark.parametrize("kind", ["transposed", "expanded", "columns", "rows"])
def test_odd_strides_become_ordinary(kind: str) -> None:
    odd = {
        "transposed": torch.arange(6.0).reshape(3, 2).T,
        "expanded": torch.ones(1, 3).expand(2, 3),
        "columns": torch.arange(12.0).reshape(2, 6)[:, ::2],
        "rows": torch.arange(600.0).reshape(200, 3)[5:7],
    }[kind]
    weight = assigned(net_state(linear__weight=odd)).linear.weight
    assert torch.equal(weight, odd)
    assert weight.is_contiguous()
    assert weight.untyped_storage().nbytes() == 6 * 4
    with torch.no_grad():
        weight.mul_(2)  # impossible where elements share memory


def test_names_that_share_a_storage_get_their_own() -> None:
    shared = torch.ones(2)
    model = assigned(net_state(norm__weight=shared, linear__bias=shared))
    with torch.no_grad():
        model.norm.weight.zero_()
    assert model.linear.bias.tolist() == [1, 1]


def test_parameters_of_a_file_do_not_become_the_models() -> None:
    state = net_state(norm__running_mean=nn.Parameter(torch.ones(2)))
    state = {n: nn.Parameter(t) if t.is_floating_point() else t for n, t in state.items()}
    model = assigned(state)
    assert [name for name, _ in model.named_parameters()] == [
        name for name, _ in Net().named_parameters()
    ]
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, False]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"linear__weight": None}, "1 missing: linear.weight$"),
        ({"extra": torch.ones(1)}, "1 unexpected: extra$"),
        (
            {"linear__weight": torch.ones(2, 4), "linear__bias": torch.ones(3)},
            r"2 of another shape: linear.weight \(2, 4\) instead of \(2, 3\), linear.bias \(3,\) "
            r"instead of \(2,\)$",
        ),
        (
            {"linear__bias": torch.ones(2, dtype=torch.int8)},
            "1 of another type: linear.bias torch.int8 instead of torch.float32$",
        ),
        (
            {"linear__bias": torch.ones(2, dtype=torch.complex64)},
            "1 of another type: linear.bias torch.complex64",
        ),
        (
            {f"extra{i}": torch.ones(1) for i in range(300)},
            "300 unexpected: extra0, extra1, extra2, extra3, extra4 and 295 more$",
        ),
        (
            {"linear__weight": None, "extra": torch.ones(1), "norm__bias": torch.ones(3)},
            "1 missing: linear.weight; 1 unexpected: extra; 1 of another shape: norm.bias",
        ),
        # Claims 8 TB: refused for its shape before anybody touches its values.
        ({"linear__weight": torch.ones(1).expand(2**20, 2**20)}, "1 of another shape"),
    ],
)
def test_weights_that_do_not_fit(changed: dict[str, Any], message: str) -> None:
    state = {name: tensor for name, tensor in net_state(**changed).items() if tensor is not None}
    with pytest.raises(CheckpointError, match=message) as error:
        assigned(state)
    assert str(error.value).startswith("the weights of file do not fit a Net of its config; ")


def test_weights_that_may_be_absent() -> None:
    state = {name: t for name, t in net_state().items() if not name.startswith("linear.")}
    with torch.device("meta"):
        model = Net()
    load_weights(model, state, source="file", absent=("linear.",))
    assert model.linear.weight.is_meta
    assert not model.norm.weight.is_meta
