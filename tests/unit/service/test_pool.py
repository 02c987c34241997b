"""The queue and the workers behind it, without a web server."""

import errno
import multiprocessing
import os
import signal
import time

import bundle_set
import pytest
from defectflow.core.files import UserError
from defectflow.service import pool as pool_module
from defectflow.service.options import Options
from defectflow.service.pool import Closed, Job, Pool, QueueFull
from defectflow.service.served_bundles import copied
from running_service import png

GOOD = png(bundle_set.photograph(80))


def job() -> Job:
    return Job("plate", "a.png", GOOD)


def test_a_worker_that_takes_too_long_is_replaced_and_the_queue_goes_on(bundle_folder, tmp_path):
    before = set(multiprocessing.active_children())
    options = Options(bundles=("plate",), timeout=5, queue=3)
    pool = Pool(copied({"plate": bundle_folder}, tmp_path / "copies"), options, tmp_path / "work")
    try:
        pool.wait_until_ready()
        assert pool.alive == 1 and pool.runtimes.keys() == {"plate"}
        (worker,) = set(multiprocessing.active_children()) - before
        os.kill(worker.pid, signal.SIGSTOP)
        stuck, given_up, waiting, other = (job() for _ in range(4))
        pool.submit([stuck])
        while pool.waiting:  # until the worker has it
            time.sleep(0.01)
        pool.submit([given_up, waiting])
        with pytest.raises(QueueFull):
            pool.submit([other, job()])
        assert pool.waiting == 2 and pool.room  # all or none
        pool.withdraw(given_up)
        answer = stuck.answer.result(60)
        assert answer["cause"] == "timeout" and "5 s" in answer["reason"]
        assert waiting.answer.result(60)["verdict"] == "good"
        assert pool.replaced == 1 and not given_up.answer.done()
        pool.submit([other])
    finally:
        pool.close()
    assert other.answer.result(0)["verdict"] == "good"  # what was accepted is judged before the end
    with pytest.raises(Closed):
        pool.submit([job()])
    assert set(multiprocessing.active_children()) == before


def test_a_worker_that_the_system_cannot_start_now_is_said_and_started_later(bundle_folder, tmp_path, monkeypatch):
    start, left = pool_module._Worker, [OSError(errno.ENOMEM, "Cannot allocate memory")]

    def worker(*given):
        if left:
            raise left.pop()
        return start(*given)

    monkeypatch.setattr(pool_module, "_Worker", worker)
    pool = Pool(copied({"plate": bundle_folder}, tmp_path / "copies"), Options(bundles=("plate",)), tmp_path / "work")
    try:
        with pytest.raises(UserError, match="cannot be started"):
            pool.wait_until_ready()
        assert not pool.usable
        waiting = job()
        pool.submit([waiting])
        assert waiting.answer.result(60)["verdict"] == "good" and pool.usable
    finally:
        pool.close()


def test_a_bundle_that_cannot_be_loaded_is_said_and_jobs_are_answered(bundle_folder, tmp_path):
    served = copied({"plate": bundle_folder}, tmp_path / "copies")
    (served["plate"].folder / "bank.safetensors").write_bytes(b"x")
    pool = Pool(served, Options(bundles=("plate",)), tmp_path / "work")
    waiting = job()
    pool.submit([waiting])
    with pytest.raises(UserError, match="damaged"):
        pool.wait_until_ready()
    assert not pool.usable
    pool.close()
    assert waiting.answer.result(0)["cause"] == "worker"
