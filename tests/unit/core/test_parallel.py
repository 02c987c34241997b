import os
import signal
import threading
import time

import pytest
import torch
from defectflow.core.files import UserError
from defectflow.core.parallel import can_fork, in_forks, in_order, in_threads

forks = pytest.mark.skipif(not can_fork(), reason="processes are forked on Linux only")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def product(seed: int) -> tuple[int, float, int]:
    """Of matrices large enough for torch to share it out where it may."""
    matrix = torch.rand(600, 600, generator=torch.Generator().manual_seed(seed))
    return os.getpid(), float((matrix @ matrix).sum()), torch.get_num_threads()


@forks
def test_forks_give_what_threads_give_in_order_each_with_one_thread(two_threads):
    expected = [value for _, value, _ in in_threads(product, range(20))]  # threads have computed before the fork
    found = list(in_forks(product, range(20)))
    assert [value for _, value, _ in found] == expected
    assert {threads for *_, threads in found} == {1} and torch.get_num_threads() == 2
    assert os.getpid() not in {process for process, *_ in found} and len({process for process, *_ in found}) == 2


@forks
def test_forks_see_the_memory_of_their_parent(two_threads):
    tensor = torch.arange(10)
    assert list(in_forks(lambda i: tensor[i].item() + 1, range(10))) == list(range(1, 11))


@forks
def test_bad_input_met_in_a_fork_is_told_as_such(two_threads):
    def refuse(item: int) -> None:
        raise UserError(f"photo {item}: no part in it")

    with pytest.raises(UserError, match="photo 0: no part in it"):
        list(in_forks(refuse, range(5)))


@forks
def test_a_killed_fork_is_told_in_one_line(two_threads):
    with pytest.raises(UserError, match="one of 2 processes was killed"):
        list(in_forks(lambda _: os.kill(os.getpid(), signal.SIGKILL), range(5)))


@forks
def test_forks_die_with_their_parent(tmp_path):
    def parent() -> None:
        def note(item: int) -> None:
            (tmp_path / str(item)).write_text(str(os.getpid()))
            time.sleep(60)

        torch.set_num_threads(2)
        list(in_forks(note, range(2)))

    child = os.fork()
    if not child:
        try:
            parent()
        finally:
            os._exit(0)
    deadline = time.monotonic() + 20
    while len(written := [path for path in tmp_path.iterdir() if path.read_text()]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    def alive(process: int) -> bool:
        try:
            return "Z" not in open(f"/proc/{process}/stat").read().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return False

    processes = [int(path.read_text()) for path in written]
    while any(alive(process) for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_no_more_than_a_few_results_wait_to_be_taken():
    started = []
    results = in_order(lambda item: started.append(item) or item, range(100), workers=2, ahead=3)
    assert next(results) == 0
    time.sleep(0.2)
    assert len(started) <= 8
    assert list(results) == list(range(1, 100))


def test_what_was_computed_before_an_item_that_cannot_be_had_is_not_lost():
    def items():
        yield from range(7)
        raise UserError("item 7: no such file")

    found = []
    with pytest.raises(UserError, match="item 7"):
        for result in in_order(lambda item: item, items(), workers=4):
            found.append(result)
    assert found == list(range(7))


def test_threads_have_ended_when_the_last_result_is_taken():
    """A fork made while one of them still frees memory would wait for its lock for ever."""
    for _ in range(50):
        threads = set(in_order(lambda _: threading.get_native_id(), range(8), workers=4))
        assert not [thread for thread in threads if os.path.exists(f"/proc/self/task/{thread}")]
