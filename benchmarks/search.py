"""Search: ways to find the nearest patch of a bank, and the errors of the faster ones.

The bank is a coreset of the patches of all images except the last ``--queries``; their patches are the queries, one
image at a time, with one thread, all ways alternately. Times are processor times, the best of ``--repeats``, so a busy
machine hardly affects them. "found" is the share of patches whose nearest one was found, "excess" how much farther than
the nearest the one found is, on average over all patches and at most. faiss is measured if it is installed
(``pip install --target DIR --no-deps faiss-cpu``, PYTHONPATH=DIR); it is not a dependency.

    python benchmarks/search.py                                                # 40 made-up images of 512 pixels
    python benchmarks/search.py --images data/pool --limit 223 --backbone resnet18.tv_in1k --weights ...
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.backbones.patch_embedding import PatchEmbedder
from defectflow.images.read_write import letterbox, read_rgb
from defectflow.search.coreset import k_center_greedy, project
from defectflow.search.distance_bounds import COLUMNS
from defectflow.search.nearest_neighbours import Neighbours

Search = Callable[[torch.Tensor], torch.Tensor]  # patches (p, d) -> indices of what is nearest (p,)


def ways(bank: torch.Tensor) -> Iterator[tuple[str, Search, float]]:
    """Name, search, and bytes in memory for each patch of the bank (ours: with the number of axes it starts with)."""
    dimensions = bank.shape[1]
    exact = Neighbours(bank)
    yield "defectflow, exact", lambda patches: exact.nearest(patches)[1], 2 * COLUMNS + 4 * dimensions
    single = Neighbours(bank, torch.float32)
    yield "defectflow without bfloat16, exact", lambda patches: single.nearest(patches)[1], 4 * COLUMNS + 4 * dimensions
    squares = bank.square().sum(dim=1)
    yield (
        "product and minimum in float32",
        lambda patches: torch.cat(
            [torch.addmm(squares, p, bank.T, alpha=-2).argmin(dim=1) for p in patches.split(256)]
        ),
        4 * dimensions + 4,
    )

    origin = bank.mean(dim=0)
    centered = bank - origin
    rough, rough_squares = centered.bfloat16(), centered.square().sum(dim=1)[:, None]
    yield (
        "product in bfloat16, unchecked",
        lambda patches: torch.cat(
            [(rough_squares - 2 * torch.mm(rough, (p - origin).T.bfloat16())).argmin(dim=0) for p in patches.split(256)]
        ),
        2 * dimensions + 4,
    )
    step = centered.abs().max() / 127
    small = (centered / step).round().to(torch.int8)
    scaled = (rough_squares / step**2).int()

    def in_int8(patches: torch.Tensor) -> torch.Tensor:
        queries = ((patches - origin) / step).round().clamp(-127, 127).to(torch.int8).T.contiguous()
        return torch.cat(
            [(scaled - 2 * torch._int_mm(small, q.contiguous())).argmin(dim=0) for q in queries.split(256, dim=1)]
        )

    yield "product in int8, unchecked", in_int8, dimensions + 4
    for share in (0.99, 0.95):
        variances, vectors = torch.linalg.eigh(torch.cov(centered.T.double()))
        count = int((variances.flip(0).cumsum(0) / variances.sum() < share).sum()) + 1
        axes = vectors.flip(1)[:, :count].float()
        reduced = Neighbours(centered @ axes)
        yield (
            f"in the {count} components with {share:.0%} of the variance",
            lambda patches, axes=axes, reduced=reduced: reduced.nearest((patches - origin) @ axes)[1],
            6 * count + 12,
        )
    if find_spec("faiss"):
        yield from faiss_ways(bank)


def faiss_ways(bank: torch.Tensor) -> Iterator[tuple[str, Search, float]]:
    """`ways` of faiss: exact, inverted lists of which 8 are searched, a graph, and exact on numbers of 8 bits."""
    import faiss

    faiss.omp_set_num_threads(1)
    dimensions = bank.shape[1]
    for key, size in (("Flat", 4), (f"IVF{int(len(bank) ** 0.5)},Flat", 4), ("HNSW32,Flat", 4), ("SQ8", 1)):
        index = faiss.index_factory(dimensions, key)
        index.train(bank.numpy())
        index.add(bank.numpy())
        if key.startswith("IVF"):
            index.nprobe = 8
        yield (
            f"faiss {faiss.__version__}, {key}",
            lambda patches, index=index: torch.from_numpy(index.search(patches.numpy(), 1)[1][:, 0]),
            size * dimensions + 256 * key.startswith("HNSW"),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder of images; made up if absent")
    parser.add_argument("--limit", type=int, default=40, help="images at most")
    parser.add_argument("--queries", type=int, default=10, help="of them to search for")
    parser.add_argument("--image-size", type=int, default=256, help="of the network's input")
    parser.add_argument("--backbone", default="patch-nano")
    parser.add_argument("--weights")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.01, 0.1])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    from common import photographs

    folder = args.images or photographs(Path(tempfile.gettempdir()) / "defectflow-benchmark", args.limit, 512)
    embedder = PatchEmbedder(args.backbone, ["layer2", "layer3"], args.weights)
    pictures = [
        np.ascontiguousarray(letterbox(read_rgb(file), (args.image_size, args.image_size))[0])
        for file in sorted(Path(folder).iterdir())[: args.limit]
    ]
    patches = [embedder(picture[None]).flatten(0, 2) for picture in pictures]
    pool, queries = torch.cat(patches[: -args.queries]), patches[-args.queries :]
    projected = project(pool)
    torch.set_num_threads(1)
    print("| bank | way | processor ms per image | found | mean excess | largest | bytes per patch |")
    print("|---|---|---|---|---|---|---|")
    for ratio in args.ratios:
        bank = pool[k_center_greedy(projected, ratio, progress=False)]
        nearest = [torch.cdist(q.double(), bank.double()).amin(dim=1) for q in queries]
        for name, search, size in ways(bank):
            times, results = [], []
            for _ in range(args.repeats):
                begin = time.process_time()
                results = [search(q) for q in queries]
                times.append((time.process_time() - begin) / len(queries))
            found = [
                torch.linalg.vector_norm(q.double() - bank[i], dim=1) for q, i in zip(queries, results, strict=True)
            ]
            excess = torch.cat(found) / torch.cat(nearest) - 1
            errors = f"{(excess < 1e-6).double().mean():.2%} | {excess.mean():.1e} | {excess.max():.1e}"
            print(f"| {len(bank)} | {name} | {min(times) * 1e3:.1f} | {errors} | {size} |", flush=True)


if __name__ == "__main__":
    main()
