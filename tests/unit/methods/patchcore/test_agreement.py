"""PatchCore is written three times: with torch, in numpy for an inspector, as a graph for other runtimes."""

import numpy as np
import pytest
import torch
from defectflow.methods.patchcore.bank_as_graph import Search
from defectflow.methods.patchcore.bank_in_numpy import PatchCore as InNumpy
from defectflow.methods.patchcore.memory_bank import PatchCore as WithTorch
from defectflow.methods.patchcore.memory_bank import comparable
from defectflow.methods.patchcore.settings import PatchCoreSettings
from defectflow.search.coreset import Subspace


class Given(torch.nn.Module):
    """A network that gives these patches, whatever it sees."""

    def __init__(self, patches: torch.Tensor) -> None:
        super().__init__()
        self.patches = patches

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return self.patches[None, None]


@pytest.mark.parametrize("stored", ["float32", "float16", "pca_float16"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize(("size", "neighbours"), [(200, 9), (200, 1), (5, 9), (1, 9)])
def test_all_three_say_the_same(stored, distance, size, neighbours):
    generator = torch.Generator().manual_seed(size + neighbours)
    basis = torch.randn(12, 40, generator=generator)
    points = comparable(torch.randn(size, 12, generator=generator) @ basis + 3, distance)
    patches = torch.randn(60, 12, generator=generator) @ basis + 3.5
    tensors = {"": points}
    if stored == "pca_float16":
        subspace = Subspace.of(torch.cat([points, patches[:3]]))
        tensors = {"": subspace.project(points), **subspace._asdict()}
    if stored != "float32":
        tensors[""] = tensors[""].half()
    settings, cells = {"distance": distance}, torch.arange(10, 50)
    options = PatchCoreSettings(neighbours=neighbours)
    floats = {name: tensor.float() for name, tensor in tensors.items()}
    score, distances = WithTorch(tensors, settings, options).judge(patches[cells], cells)
    numbers = {name: tensor.numpy() for name, tensor in tensors.items()}
    score_numpy, distances_numpy = InNumpy(numbers, settings, options).judge(patches[cells].numpy(), cells.numpy())
    distances_graph, score_graph = Search(Given(patches), floats, settings, neighbours)(torch.zeros(1), cells)
    assert score > 0 and distances.std() > 0
    for other in (distances_numpy, distances_graph.numpy()):
        np.testing.assert_allclose(other, distances, rtol=1e-4, atol=1e-5)
    assert [score_numpy, float(score_graph)] == pytest.approx([score] * 2, rel=1e-4, abs=1e-6)
