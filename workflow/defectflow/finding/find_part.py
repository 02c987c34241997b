"""Stage find_part: the part in the candidates of all shards: masks to learn from, and whether to trust them."""

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from defectflow.core.arguments import add_seed, add_threads
from defectflow.core.files import atomic, atomic_dir, stage, write_json
from defectflow.core.tables import PAIRS, write_table
from defectflow.finding.candidate_files import Candidates, read_all
from defectflow.finding.choice import Found, find, typical
from defectflow.finding.self_check import Check, judge, shows_surface
from defectflow.images.read_write import write_png
from defectflow.parts.common_shape import CommonShape
from defectflow.parts.patch_finder import SIDE
from defectflow.parts.registration_frame import fit_size

LEAST = 3  # photographs that the part has to be found in


def full_size(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A bool mask of a square, in the photograph's (height, width)."""
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) >= 0.5


def row_of(image_id: str, path: str, mask: np.ndarray, name: str) -> dict[str, Any]:
    """Row of the PAIRS table of a found mask; ``pair`` is the file of the mask."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    box = {"bbox_x": x, "bbox_y": y, "bbox_width": width, "bbox_height": height}
    size = {"height": mask.shape[0], "width": mask.shape[1], "area": int(mask.sum())}
    return {"image_id": image_id, "path": path, "group": "", "pair": name, "n_annotations": 1} | size | box


def look(candidates: Candidates, seed: int) -> tuple[Found | None, CommonShape | None, Check]:
    """Find the part, judge it, and find the shape that its masks share; None where there is none."""
    if len(candidates.image_ids) < LEAST:
        count = len(candidates.image_ids)
        return (
            None,
            None,
            Check("whole", 0.0, f"{count} photographs are too few to find the part in them (at least {LEAST})"),
        )
    alike = len(set(candidates.sizes)) == 1
    figure, doubt = np.stack(candidates.figure), float(np.mean(candidates.doubt))
    others = np.stack(candidates.others) if len(candidates.others) else None
    surface = float(np.median(candidates.surface))
    outlined = not shows_surface(float(np.median(figure.max((1, 2)))), surface)
    found = find(candidates.squares, candidates.features, figure, doubt, alike, seed, others, outlined)
    found.signs["surface"] = surface
    shape = CommonShape.fit([full_size(found.masks[k], fit_size(candidates.sizes[k], SIDE)) for k in found.sound()])
    found.signs["shape"] = shape.agreement if shape is not None else 0.0
    return found, shape if shape is not None and shape.alike else None, judge(found.signs)


def main(args: argparse.Namespace) -> None:
    """Write the masks that were found, their table and the report."""
    cv2.setNumThreads(args.threads)
    candidates = read_all(args.candidates)
    found, shape, check = look(candidates, args.seed)
    rows, out = [], Path(args.out_dir)
    with atomic_dir(out) as folder:
        for k in found.sound() if found is not None and check.use != "whole" else []:
            assert found is not None
            mask, image_id, like = full_size(found.masks[k], candidates.sizes[k]), candidates.image_ids[k], True
            if shape is not None:
                completed = shape.complete(mask)
                mask, like = completed.mask, completed.fit >= shape.usual
            if mask.any() and like:
                write_png(folder / f"{image_id}.png", mask)
                path = candidates.paths[k]
                rows.append(row_of(image_id, path, mask, str(out / f"{image_id}.png")))
    ask = Path(candidates.paths[typical(candidates.features)]).name if candidates.paths else ""
    report = {"use": check.use, "trust": round(check.trust, 3), "reason": check.reason, "outline_asked_for": ask}
    if found is not None:
        report["backbone"] = candidates.backbone
        report |= {"looked_at": len(found.masks), "taught_by": len(rows), "map": found.chosen}
        report["usual_agreement"] = round(found.usual_agreement(), 4)
        report["signs"] = {name: round(value, 4) for name, value in found.signs.items()}
    if len(rows) < LEAST and report["use"] != "whole":
        report |= {"use": "whole", "reason": f"the part was found in {len(rows)} photographs only"}
    print(f"find_part: {report['use']}, trust {report['trust']:.2f} {report['reason']}", file=sys.stderr)
    tensors = found.finder.tensors() if found is not None else {"mean": np.zeros(0, np.float32)}
    if shape is not None:
        tensors["shape"] = shape.mean
        report["shape"] = {"agreement": shape.agreement, "usual": shape.usual}
    with atomic(args.finder) as temporary:
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, temporary)
    write_table(args.table, pd.DataFrame(rows, columns=PAIRS), PAIRS)
    write_json(args.report, report)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="defectflow.finding.find_part", description=__doc__)
    parser.add_argument("--candidates", nargs="+", required=True, help="candidates of every shard")
    add_seed(parser)
    add_threads(parser, 1)
    parser.add_argument("--out-dir", required=True, help="folder for {image_id}.png")
    parser.add_argument("--table", required=True, help="table of the masks to write (PAIRS)")
    parser.add_argument("--finder", required=True, help="what was learned of the part's patches (safetensors)")
    parser.add_argument("--report", required=True, help="JSON to write")
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
