"""Thresholds with few bad photographs, or none: whether false alarms come at the promised rate, and what is found.

Without arguments, on seven known distributions: the rate at which new good scores lie at or above the threshold that
each strategy chooses on n good ones, mean of all distributions (lowest and highest), and how often the interval of
`tail` holds the rate. With run folders, on their scores: 70 % of the good photographs, and no to four bad ones, to
choose on, the others to judge; mean over random draws. "scatter" is the standard deviation of the thresholds by their
median.

    python benchmarks/good_only.py
    python benchmarks/good_only.py results/demo/template/crop/patchcore results/cookie/found/zero_out/patchcore
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

import numpy as np
from defectflow.core.tables import PREDICTIONS, read_table
from defectflow.decision.chosen_threshold import calibrate
from defectflow.decision.threshold_strategies import strategy_of
from scipy import stats

KNOWN = (stats.norm(), stats.gumbel_r(), stats.lognorm(0.3), stats.lognorm(0.6), stats.expon(), stats.t(5),
         stats.weibull_min(3))  # fmt: skip
RULES = (("f1_adaptive", {}), ("conformal", {"alpha": 0.05}), ("tail", {"alpha": 0.05}), ("tail", {"alpha": 0.02}))


def simulated(n: int, draws: int, rng: np.random.Generator) -> str:
    """A row of the table: rates of false alarms of each rule on ``n`` good scores."""
    cells = [str(n)]
    samples = [[known.rvs(n, random_state=rng) for _ in range(draws)] for known in KNOWN]
    for name, options in RULES:
        rates, held = [], []
        for known, of_known in zip(KNOWN, samples, strict=True):
            try:
                cuts = np.array([calibrate(scores, np.zeros(n), name, **options).value for scores in of_known])
            except ValueError:
                break
            rates.append(known.sf(cuts).mean())
            if name == "tail":
                spans = [strategy_of(name, options).promise(np.sort(scores)).interval for scores in of_known]
                held += [low <= rate <= high for (low, high), rate in zip(spans, known.sf(cuts), strict=True)]
        told = f"{np.mean(rates):.1%} ({min(rates):.1%} to {max(rates):.1%})" if rates else "too few"
        cells.append(told + (f", held {np.mean(held):.0%}" if held else ""))
    return f"| {' | '.join(cells)} |"


def real(folder: Path, draws: int, rng: np.random.Generator) -> list[str]:
    """Rows of a run: false alarms, recall, their balance and the scatter of thresholds, for each rule."""
    table = read_table(folder / "predictions.csv", PREDICTIONS, lambda part: part["label"].notna()).dropna(
        subset="raw_score"
    )
    table = table[table["split"] != "train"]
    scores, labels = table["raw_score"].to_numpy(float), table["label"].to_numpy(int)
    good, bad = scores[labels == 0], scores[labels == 1]
    n = int(0.7 * len(good))
    found: dict[str, list[tuple[float, float, float]]] = {}
    for _ in range(draws):
        good, bad = rng.permutation(good), rng.permutation(bad)
        rules = [(name, options, 0) for name, options in RULES] + [("f1_adaptive", {}, k) for k in (1, 2, 3, 4)]
        for name, options, k in rules:
            try:
                chosen = np.append(good[:n], bad[:k]), np.repeat([0, 1], [n, k])
                cut = calibrate(*chosen, name, **options).value
            except ValueError:
                continue
            key = " ".join([name, *(f"{value:g}" for value in options.values()), f"{k} bad" if k else ""])
            found.setdefault(key, []).append(((good[n:] >= cut).mean(), (bad[4:] >= cut).mean(), cut))
    rows = []
    for key, values in found.items():
        alarms, recall, cuts = np.array(values).T
        balance = (1 - alarms.mean() + recall.mean()) / 2
        told = f"{alarms.mean():.3f} | {recall.mean():.3f} | {balance:.3f} | {cuts.std() / abs(np.median(cuts)):.3f}"
        rows.append(f"| {folder} ({n} good) | {key} | {told} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="run folders, with predictions.csv")
    parser.add_argument("--draws", type=int, default=100)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    if args.runs:
        print("| run | chosen by | false alarms | recall | balanced accuracy | scatter |\n|---|---|---|---|---|---|")
        for run in args.runs:
            print(*real(run, args.draws, rng), sep="\n", flush=True)
        return
    print(f"| good | {' | '.join(' '.join([name, *map(str, options.values())]) for name, options in RULES)} |")
    print("|---" * (len(RULES) + 1) + "|")
    for n in (12, 20, 40, 100, 300):
        print(simulated(n, args.draws, rng), flush=True)


if __name__ == "__main__":
    main()
