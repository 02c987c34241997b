import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from defectflow.backbones.network_settings import OPENVINO_BFLOAT16
from defectflow.backbones.openvino_network import compiled
from defectflow.core.files import UserError


def test_the_first_use_of_openvino_is_by_one_thread_after_the_other(monkeypatch):
    active = []  # requests at work
    seen = []  # for each call how many of its request came before, and how many were active

    class Request:
        calls = 0

        def infer(self, *_, **__):
            active.append(self)
            time.sleep(0.1)
            seen.append((self.calls, len(active)))
            active.remove(self)
            self.calls += 1

        def get_output_tensor(self, _):
            return SimpleNamespace(data=np.zeros((1, 2, 2, 3), np.float32))

    core = SimpleNamespace(compile_model=lambda *_: SimpleNamespace(create_infer_request=Request))
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=lambda: core))
    run, both = compiled("network.xml", "float32", 2, 2), threading.Barrier(2)

    def work(_):
        for _ in range(2):
            both.wait()
            assert run(np.zeros((8, 8, 3), np.uint8)).shape == (4, 3)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    assert [number for calls, number in seen if calls == 0] == [1, 1]
    assert max(number for calls, number in seen if calls == 1) == 2


def test_bfloat16_on_a_processor_without_it_is_one_line(monkeypatch):
    core = SimpleNamespace(get_property=lambda *_: ["FP32", "INT8"])
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=lambda: core))
    with pytest.raises(UserError, match=r"no bfloat16 \(use float32\)"):
        compiled("network.xml", OPENVINO_BFLOAT16)
