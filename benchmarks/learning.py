"""Learning from mistakes: rounds of feedback on photographs that were judged wrongly, and errors on all others.

The photographs of BUNDLE's run are few on purpose, so that it errs. ASK and REST are folders of further ones, with
good/ and bad/ in each. In each round, ten photographs of ASK that the inspector of that moment judges wrongly (all, if
there are fewer) are told to it; errors are counted on REST, of which it never hears. A lesson that lowers the held-out
F1 is refused, as `defectflow learn` does, and the inspector stays as it was.

    python benchmarks/learning.py results/casting/.../bundle casting/ask casting/rest --out learning.png

Compared: the whole (`difference`: what ships), the same with the ratio of the distances in place of their difference,
good patches alone, and the threshold alone.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from defectflow.core.files import sha256_of
from defectflow.decision.verdict_rule import decide, nine_digits
from defectflow.inspection.bundle_files import read_bundle
from defectflow.inspection.held_out import read_held_out
from defectflow.inspection.inspector import Inspector
from defectflow.inspection.mask_and_score import read_bank, settings_of
from defectflow.inspection.photo_sources import photographs
from defectflow.learning import rescoring
from defectflow.learning.lessons import Lesson, lesson
from defectflow.learning.rescoring import Taught, of_lessons, rescore
from defectflow.learning.threshold_after_lessons import outcome_of
from defectflow.methods.patchcore.bank_in_numpy import PatchCore
from defectflow.methods.patchcore.known_defects import toward_defects
from defectflow.sources.feedback import Feedback
from tqdm import tqdm

ROUNDS, EACH = 5, 10


def ratio(good: np.ndarray, defect: np.ndarray) -> np.ndarray:
    """The distance times good / defect, at most three times, where a known defect is nearer."""
    return good * np.clip(good / np.maximum(defect, 1e-6), 1, 3)


def plain_difference(good: np.ndarray, defect: np.ndarray) -> np.ndarray:
    """The difference of distances everywhere, also where good patches are nearer."""
    return good + 0.5 * (good - defect)


def only_good(good: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Defects are not learned."""
    return good


def bare(lessons: list[Lesson]) -> list[Lesson]:
    """The same photographs, which teach no patch: the threshold alone is chosen again."""
    from dataclasses import replace

    return [replace(one, teaches=[patches[:0] for patches in one.teaches]) for one in lessons]


WAYS: dict[str, tuple[Callable[..., Any], bool]] = {
    "difference": (toward_defects, True),
    "ratio": (ratio, True),
    "plain difference": (plain_difference, True),
    "good patches alone": (only_good, True),
    "threshold alone": (only_good, False),
}


def embedded(folder: Path, inspector: Inspector, detector: PatchCore, settings: Any) -> list[Lesson]:
    """Every photograph below good/ and bad/ as the lesson that it could be."""
    files = [(path, kind == "bad") for kind in ("good", "bad") for path in photographs([folder / kind])]
    rows = [Feedback(number, path, sha256_of(path), bad) for number, (path, bad) in enumerate(files)]
    return [lesson(row, inspector, detector, settings) for row in tqdm(rows, desc=folder.name, disable=None)]


def rounds(
    way: str,
    ask: list[Lesson],
    rest: list[Lesson],
    held: Any,
    parent: dict,
    detector: PatchCore,
    settings: Any,
    seed: int,
) -> list[tuple[int, int]]:
    """(misses, false alarms) on ``rest`` before the first round and after each."""
    contrast, patches = WAYS[way]
    order = np.random.default_rng(seed).permutation(len(ask))
    ask = [ask[i] for i in order]
    given: list[Lesson] = []
    none = Taught(*([np.empty((0, scale.dimensions), np.float32) for scale in detector.scales],) * 2)
    taught, threshold = none, parent["threshold"]["value"]
    with patch.object(rescoring, "toward_defects", contrast):
        found = [count(rest, taught, threshold, detector, settings)]
        for _ in range(ROUNDS):
            left = [one for one in ask if one not in given]
            wrong = [
                one
                for one, bad in zip(left, judged(left, taught, threshold, detector, settings), strict=True)
                if bad != one.said.bad
            ]
            given += wrong[:EACH]
            outcome = outcome_of(given if patches else bare(given), held, parent, detector, settings) if given else None
            if outcome and not outcome.worse:
                taught, threshold = outcome.taught, outcome.threshold["value"]
            found.append(count(rest, taught, threshold, detector, settings))
    return found


def judged(lessons: list[Lesson], taught: Taught, threshold: float, detector: PatchCore, settings: Any) -> np.ndarray:
    """Whether each photograph is called bad."""
    return decide(nine_digits(rescore(of_lessons(lessons, detector), taught, detector, settings)), threshold).bad


def count(rest: list[Lesson], taught: Taught, threshold: float, detector: PatchCore, settings: Any) -> tuple[int, int]:
    bad, said = judged(rest, taught, threshold, detector, settings), np.array([one.said.bad for one in rest])
    return int((~bad & said).sum()), int((bad & ~said).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("ask", type=Path)
    parser.add_argument("rest", type=Path)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--seeds", type=int, default=5, help="orders in which the photographs are told (%(default)s)")
    parser.add_argument("--out", type=Path, help="figure to write (.png)")
    args = parser.parse_args()
    bundle = read_bundle(args.bundle)
    settings = settings_of(bundle, "detector")
    detector = PatchCore(*read_bank(bundle), settings)
    inspector, held = Inspector.load(args.bundle), read_held_out(bundle)
    ask, rest = (embedded(folder, inspector, detector, settings) for folder in (args.ask, args.rest))
    bad = sum(one.said.bad for one in rest)
    print(
        f"{len(held.score)} photographs in the run; told of {len(ask)}; errors among {len(rest) - bad} good, {bad} bad"
    )
    print(
        "missed + false alarms, mean of the orders\n| | before | "
        + " | ".join(f"round {i + 1}" for i in range(ROUNDS))
        + " |"
    )
    print("|---" * (ROUNDS + 2) + "|")
    curves = {}
    for way in args.ways:
        runs = np.array(
            [rounds(way, ask, rest, held, bundle.settings, detector, settings, seed) for seed in range(args.seeds)]
        )
        curves[way] = runs
        cells = [f"{m:.1f} + {a:.1f} = {m + a:.1f}" for m, a in runs.mean(axis=0)]
        print(f"| {way} | " + " | ".join(cells) + " |", flush=True)
        total = runs.sum(axis=2)
        worst = int((total - total[:, :1]).max())
        print(f"  {way}: {total[:, -1].min()} to {total[:, -1].max()} at the end; at worst {worst:+d} against before")
    if args.out:
        draw(args.out, curves)


def draw(path: Path, curves: dict[str, np.ndarray]) -> None:
    """Errors after each round as a figure, mean and range of the orders."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained", dpi=150)
    for axis, column, name in zip(figure.subplots(1, 2, sharey=True), (0, 1), ("missed", "false alarms"), strict=True):
        for way, runs in curves.items():
            (line,) = axis.plot(runs[:, :, column].mean(axis=0), marker="o", label=way)
            low, high = runs[:, :, column].min(axis=0), runs[:, :, column].max(axis=0)
            axis.fill_between(range(ROUNDS + 1), low, high, color=line.get_color(), alpha=0.12)
        axis.set_title(name)
        axis.set_xlabel("rounds of ten corrected verdicts")
    axis.legend()
    figure.suptitle("Errors on photographs that nobody spoke about: mean and range of the orders")
    figure.savefig(path)


if __name__ == "__main__":
    main()
