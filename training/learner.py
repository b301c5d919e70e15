"""A model with what makes it learn: optimiser, schedule, precision, and the other processes.

Source of mixed precision: Micikevicius et al., 2017 (arXiv:1710.03740).
"""

import math
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from data.options import first_few
from engine.processes import Processes
from training.batches import Batch, derive_seed
from training.optimizer import make_optimizer, make_schedule
from training.recipes import Recipe
from training.validation import clip_losses
from tsn import TSN, to_tasks

__all__ = ["Learner", "prepare_model"]

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def prepare_model(model: TSN, recipe: Recipe) -> None:
    """Put a model in training mode, with what a recipe freezes frozen.

    Args:
        model: the model, changed in place.
        recipe: for `dropout`, `partial_bn` and `freeze_backbone`.
    """
    model.dropout = recipe.dropout
    model.partialBN(recipe.partial_bn)
    model.train()
    if recipe.freeze_backbone:
        model.base_model.requires_grad_(False).eval()
        cast(nn.Module, model.base_model.last_linear).train()  # dropout of features is the heads'


class Learner:
    """A model that learns from batches, alone or with those of the other processes.

    Args:
        model: it is moved to the device of `processes`, and changed in place.
        recipe: how it learns.
        processes: this process among those of the run. Several need torch's process group.
        steps_per_epoch: batches of an epoch, for the schedule.

    Raises:
        ValueError: if the recipe wants what the model or the device does not have.
    """

    def __init__(
        self, model: TSN, recipe: Recipe, processes: Processes, steps_per_epoch: int
    ) -> None:
        self.model = model
        self._recipe = recipe
        self._processes = processes
        device = processes.device
        if recipe.sync_bn:
            if device.type != "cuda":
                raise ValueError("sync_bn must be False on the CPU, where PyTorch has none")
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        prepare_model(model, recipe)
        model.to(device)
        if recipe.channels_last:
            model.to(memory_format=torch.channels_last)
        if recipe.compile:
            model.compile()
        self.optimizer = make_optimizer(model, recipe)
        self.schedule = make_schedule(self.optimizer, recipe, steps_per_epoch)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        self._network: nn.Module = model
        if processes.count > 1:
            self._network = DistributedDataParallel(
                model, device_ids=[device] if device.type == "cuda" else None
            )
        self._losses: list[tuple[Batch, Tensor]] = []  # of the parts of a batch so far

    def lr(self, step: int) -> float:
        """Return the learning rate of a step of the run, from 0, before the groups' factors."""
        return self._recipe.lr * float(self.schedule.lr_lambdas[0](step))

    def state_dict(self) -> dict[str, Any]:
        """Return the states of optimiser, schedule and gradient scaler, by name."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take such states."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])

    def learn(self, batch: Batch, step: int, *, stop: bool) -> tuple[float, bool] | None:
        """Learn from a part of a batch; with its last part, let the optimiser step.

        Args:
            batch: the part.
            step: number of the step in the whole run, from 0. What is drawn depends on it, on the
                seed and on the process alone.
            stop: whether this process wants to stop.

        Returns:
            The mean loss of the batch, of all processes, and whether any wants to stop; None if
            parts are to come.

        Raises:
            ValueError: if the loss or the gradients are not finite; the weights are as before.
        """
        part, recipe = batch.part, self._recipe
        torch.manual_seed(derive_seed(recipe.seed, step, len(self._losses), self._processes.rank))
        wait: Any = nullcontext()
        if isinstance(self._network, DistributedDataParallel) and not part.is_last:
            wait = self._network.no_sync()
        with wait:
            labels = {
                task: label.to(self._processes.device, non_blocking=True)
                for task, label in batch.labels.items()
            }
            losses = clip_losses(
                self.compute(batch.inputs, self._network), labels,
                label_smoothing=recipe.label_smoothing,
            )  # fmt: skip
            losses = losses * (0 if part.is_spare else 1 / part.batch_size)
            # The gradients of processes are averaged, but these are shares of the batch's mean.
            self.scaler.scale(losses.sum() * self._processes.count).backward()
        self._losses.append((batch, losses.detach()))
        return self._step(stop) if part.is_last else None

    def _step(self, stop: bool) -> tuple[float, bool]:
        self.scaler.unscale_(self.optimizer)
        norm = clip_grad_norm_(
            [p for group in self.optimizer.param_groups for p in group["params"]],
            self._recipe.clip_norm or math.inf,
        )
        loss = torch.stack([losses.sum() for _, losses in self._losses]).sum()
        facts = torch.stack([loss, torch.full_like(loss, stop)])
        if self._processes.count > 1:
            distributed.all_reduce(facts)
        # All at once: this waits for the GPU, which has nothing to do until the optimiser steps.
        mean_loss, stopping, total_norm = torch.stack([*facts, norm]).tolist()
        # float16 is scaled up to the edge: there, gradients that are not finite are skipped.
        if not math.isfinite(mean_loss):
            raise ValueError(
                f"the loss is {mean_loss}, of {self._describe_suspects()}: try a lower lr"
            )
        if not self.scaler.is_enabled() and not math.isfinite(total_norm):
            raise ValueError(
                f"the norm of the gradients is {total_norm}, of {self._describe_suspects()}: try a "
                f"lower lr"
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad()
        self._losses.clear()
        return mean_loss, stopping > 0

    def _describe_suspects(self) -> str:
        """Name the segments whose losses are not finite; if there are none, the whole batch."""
        ids = [
            (name, math.isfinite(loss))
            for batch, losses in self._losses
            for name, loss in zip(batch.ids, losses.tolist(), strict=True)
        ]
        ids = self._processes.gather(ids)
        suspects = [name for name, finite in ids if not finite]
        if suspects:
            return f"the segments {first_few(suspects, 20)}"
        return f"the batch of the segments {first_few([name for name, _ in ids], 20)}"

    def compute(self, inputs: Tensor, network: nn.Module | None = None) -> tuple[Tensor, ...]:
        """Return logits of each task (N, classes), in the precision of the recipe.

        Args:
            inputs: float32 (N, T * L' * C, H, W).
            network: what computes them; None: the model, without the other processes.
        """
        device, dtype = self._processes.device, _DTYPES.get(self._recipe.precision)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            return to_tasks((network or self.model)(inputs.to(device, non_blocking=True)))

    def share_statistics(self) -> None:
        """Give all processes the first one's statistics of batch norms, which it saves."""
        if self._processes.count > 1:
            for buffer in self.model.buffers():
                distributed.broadcast(buffer, 0)
