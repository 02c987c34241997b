"""The loop of every training: steps of an optimiser at a scheduled learning rate, with a progress bar and time left.

Imports torch; import this module inside the function that needs it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

CLOCK = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:g} min [left: {remaining}{postfix}]"


class Optimizer(Protocol):
    """What the loop needs of an optimiser; those of torch have it."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...

    def zero_grad(self) -> None: ...

    def step(self) -> Any: ...


class Loop:
    """Iterate over the numbers of the steps; the body hands the loss of its step to `learn`.

    A run that breaks off goes on from a checkpoint of weights, optimiser, ``steps`` and ``minutes``.

    Attributes:
        steps: optimiser steps done.
        minutes: time they took, that of earlier parts of the run included.
        loss: running mean of the losses since the run began or was resumed; NaN before the first.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: Callable[[float], float] | None = None,
        *,
        total_steps: int | None = None,
        total_minutes: float | None = None,
        steps: int = 0,
        minutes: float = 0.0,
        stop_at: int | None = None,
        clip: Iterable[nn.Parameter] = (),
        max_norm: float = 1.0,
        smoothing: float = 0.01,
        title: str | None = None,
    ) -> None:
        """Give either ``total_steps``, for a run that can be repeated, or ``total_minutes``.

        Args:
            factor: from the progress in [0, 1] to the learning rate as a share of the ``peak`` of each parameter group;
                None leaves the learning rates alone.
            steps, minutes: what was done before, for a run that is resumed.
            stop_at: end after this step, as a run does that is interrupted.
            clip: parameters whose gradients together are scaled down to the norm ``max_norm``.
            smoothing: weight of the newest loss in the running mean.
            title: of the progress bar; None shows none.
        """
        if (total_steps is None) == (total_minutes is None):
            raise ValueError("a training needs a number of steps or of minutes")
        self.steps, self.minutes, self.loss = steps, minutes, math.nan
        self._optimizer, self._factor = optimizer, factor
        self._total_steps, self._total_minutes, self._stop_at = total_steps, total_minutes, stop_at
        self._clip, self._max_norm, self._smoothing = list(clip), max_norm, smoothing
        self._began, self._earlier = time.monotonic(), minutes
        self._title = title
        self._bar: tqdm[Any] = tqdm(disable=True)

    @property
    def progress(self) -> float:
        """Share of the run that is done; 1 or more at its end."""
        if self._total_steps is not None:
            return self.steps / self._total_steps if self._total_steps else 1.0
        return self.minutes / self._total_minutes if self._total_minutes else 1.0

    def __iter__(self) -> Iterator[int]:
        self._began, self._earlier = time.monotonic(), self.minutes
        # Of a run by the clock the bar counts minutes, so that it shows the time left as well.
        steps = self._total_minutes is None
        self._bar = tqdm(
            total=self._total_steps if steps else self._total_minutes,
            initial=self.steps if steps else self.minutes,
            desc=self._title,
            unit="step",
            bar_format=None if steps else CLOCK,
            disable=self._title is None,
        )
        with self._bar:
            while self.progress < 1 and self.steps != self._stop_at:
                yield self.steps

    def learn(self, loss: Tensor) -> float:
        """Take one step down the gradient of ``loss``, a scalar; returns its value."""
        self._optimizer.zero_grad()
        loss.backward()
        if self._clip:
            torch.nn.utils.clip_grad_norm_(self._clip, self._max_norm)
        if self._factor:
            factor = self._factor(self.progress)
            for group in self._optimizer.param_groups:
                group["lr"] = group["peak"] * factor
        self._optimizer.step()
        value = float(loss.item())
        self.loss = value if math.isnan(self.loss) else (1 - self._smoothing) * self.loss + self._smoothing * value
        self.steps += 1
        before, self.minutes = self.minutes, self._earlier + (time.monotonic() - self._began) / 60
        self._bar.update(1 if self._total_minutes is None else self.minutes - before)
        return value

    def show(self, **values: Any) -> None:
        """Show these values at the end of the progress bar."""
        self._bar.set_postfix(values)


def warmup_cosine(
    done: float, total: float, warm_up: float, *, last: float, first: float = 0.0, ahead: float = 0.0
) -> float:
    """Learning rate as a share of its peak: a linear warm-up, then half a cosine.

    Args:
        done, total, warm_up: in one unit, steps or shares of the run.
        last: value at the end.
        first: smallest value of the warm-up.
        ahead: by how much the warm-up runs ahead of ``done``: 1 for steps, so that the first is not one of rate 0.

    >>> [round(warmup_cosine(step, 100, 10, last=0.1, ahead=1), 3) for step in (0, 9, 10, 55, 100)]
    [0.1, 1.0, 1.0, 0.55, 0.1]
    """
    if done < warm_up:
        return max((done + ahead) / warm_up, first)
    share = min(1.0, (done - warm_up) / max(total - warm_up, 1e-9))
    return last + (1 - last) * (1 + math.cos(math.pi * share)) / 2
