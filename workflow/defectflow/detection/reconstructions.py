"""The reconstruction of each photograph by the autoencoder that judged it, beside the picture it was given."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from defectflow.backbones.patch_embedding import picture_of
from defectflow.config.settings_flag import read_settings
from defectflow.core.files import UserError, atomic_dir, stage
from defectflow.detection.scored_photographs import add_arguments, scored_photographs
from defectflow.images.read_write import write_png
from defectflow.methods.method_settings import METHODS
from defectflow.methods.picture_detector import PictureDetector
from defectflow.methods.registry import detector_class

HEIGHT = 256  # pixels at least, so that people see something


def main(args: argparse.Namespace) -> None:
    """Write a PNG for each photograph: the picture on the left, its reconstruction on the right."""
    settings = read_settings(args.settings, METHODS, "score")
    method = detector_class(settings.name)
    if not issubclass(method, PictureDetector) or method.reconstruction is PictureDetector.reconstruction:
        raise UserError(f"reconstructions: method {settings.name} draws no pictures (vae does)")
    torch.set_num_threads(args.threads)
    with atomic_dir(args.out) as folder:
        for image_id, file, item, grid, detector in scored_photographs(args, method, settings):
            assert isinstance(detector, PictureDetector)
            picture = picture_of(file.patches(item), file.position(item), grid)
            with torch.inference_mode():
                both = torch.cat([picture, detector.reconstruction(picture)], dim=2)
            pixels = (both * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            write_png(Path(folder, f"{image_id}.png"), _enlarged(pixels))


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    factor = -(-HEIGHT // pixels.shape[0])
    return cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)


def build_parser() -> argparse.ArgumentParser:
    """Command line of the stage."""
    parser = argparse.ArgumentParser(prog="python -m defectflow.detection.reconstructions", description=__doc__)
    add_arguments(parser)
    return parser


if __name__ == "__main__":
    stage(main, build_parser())
