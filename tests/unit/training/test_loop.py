"""The training loop: rates, clipping, resuming, the end; and the schedule."""

import math

import pytest
import torch
from defectflow.training.loop import Loop, warmup_cosine


def problem():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(3))
    return weight, torch.optim.AdamW([{"params": [weight], "peak": 0.1}], lr=1.0)


def loss_of(weight, step):
    return (weight * torch.randn(3, generator=torch.Generator().manual_seed(step))).square().sum()


def run(weight, optimizer, **options):
    loop = Loop(optimizer, lambda progress: 1 - progress, total_steps=6, **options)
    return loop, [(step, loop.learn(loss_of(weight, step)), optimizer.param_groups[0]["lr"]) for step in loop]


def test_rates_follow_the_progress_and_losses_are_averaged():
    loop, seen = run(*problem(), smoothing=0.25)
    assert [step for step, _, _ in seen] == list(range(6))
    assert [rate for _, _, rate in seen] == pytest.approx([0.1 * (1 - k / 6) for k in range(6)])
    mean = seen[0][1]
    for _, loss, _ in seen[1:]:
        mean = 0.75 * mean + 0.25 * loss
    assert loop.loss == mean
    assert loop.progress == 1 and loop.minutes > 0


def test_an_interrupted_run_goes_on_to_the_same_weights():
    whole, optimizer = problem()
    run(whole, optimizer)
    weight, optimizer = problem()
    loop, seen = run(weight, optimizer, stop_at=4)
    assert len(seen) == loop.steps == 4
    _, seen = run(weight, optimizer, steps=4)
    assert [step for step, _, _ in seen] == [4, 5]
    assert torch.equal(weight, whole)


def test_gradients_are_clipped_together():
    weight, optimizer = problem()
    for _ in (loop := Loop(optimizer, total_steps=1, clip=[weight], max_norm=0.01)):
        loop.learn(loss_of(weight, 0))
    assert torch.linalg.vector_norm(weight.grad) == pytest.approx(0.01, rel=1e-3)
    assert optimizer.param_groups[0]["lr"] == 1.0  # without a schedule the rate stays


def test_a_run_ends_with_its_time_or_at_once_without_steps():
    weight, optimizer = problem()
    loop = Loop(optimizer, total_minutes=0.001, minutes=0.0005)
    count = sum(1 for step in loop if loop.learn(loss_of(weight, step)) is not None)
    assert count > 0 and loop.minutes >= 0.001
    assert list(Loop(optimizer, total_steps=0)) == []
    with pytest.raises(ValueError, match="number of steps or of minutes"):
        Loop(optimizer)


def test_a_title_shows_a_bar_with_the_time_left(capsys):
    run(*problem(), title="train")
    assert "train: 100%" in capsys.readouterr().err
    run(*problem())
    assert capsys.readouterr().err == ""


def test_schedule_rises_to_its_peak_and_falls_to_its_last_value():
    steps = [warmup_cosine(step, 200, 20, last=0.1, ahead=1) for step in range(201)]
    assert steps[0] == 1 / 20 and steps[19] == steps[20] == 1 and steps[200] == pytest.approx(0.1)
    assert steps[19:] == sorted(steps[19:], reverse=True)
    assert warmup_cosine(0, 1, 0.02, last=0.01, first=0.01) == 0.01
    assert warmup_cosine(1.5, 1, 0.02, last=0.01) == pytest.approx(0.01)  # the clock may run over
    assert warmup_cosine(0.51, 1, 0.02, last=0) == pytest.approx((1 + math.cos(math.pi / 2)) / 2)


def test_the_bar_of_a_run_by_the_clock_shows_the_time_left(capsys):
    weight, optimizer = problem()
    loop = Loop(optimizer, total_minutes=0.02, title="learn")
    for step in loop:
        loop.learn(loss_of(weight, step))
    shown = capsys.readouterr().err.split("\r")
    assert "learn:" in shown[-1] and "/0.02 min [left: " in shown[-1]
