"""How often a 95 % interval of the AUROC contains the true value: ours and the percentile bootstrap, simulated scores.

    python benchmarks/intervals.py [--sets 1000]

Good and bad scores are normal with a shift that gives the true AUROC; scores of a group share a common part, which has
a fixed share of the variance. Prints a table in Markdown.
"""

import argparse

import numpy as np
from defectflow.metrics.bootstrap import bootstrap
from defectflow.metrics.intervals import auroc_interval
from scipy.stats import norm

IMAGES = ((6, 6), (12, 9), (40, 24))
GROUPS = ((6, 4), (10, 4))  # groups of each class, images in each
COMMON = 0.7  # share of the variance


def main() -> None:
    """Draw the sets and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000, help="for each row (%(default)s)")
    sets = parser.parse_args().sets
    rng = np.random.default_rng(0)
    print("| photographs | AUROC | holds it | its width | bootstrap holds it |\n|---|---|---|---|---|")
    cases = [(f"{m} good, {n} bad", np.repeat([0, 1], [m, n]), np.arange(m + n), 0.0) for m, n in IMAGES]
    for count, size in GROUPS:
        name = f"{count} groups of {size} of either kind"
        cases.append((name, np.repeat([0, 1], count * size), np.repeat(np.arange(2 * count), size), COMMON))
    for name, labels, units, common in cases:
        for area in (0.5, 0.9, 0.99):
            held, width, others = [], [], []
            for number in range(sets):
                shared = rng.normal(size=units.max() + 1)[units]
                noise = common**0.5 * shared + (1 - common) ** 0.5 * rng.normal(size=len(labels))
                scores = norm.ppf(area) * 2**0.5 * labels + noise
                low, high = auroc_interval(labels, scores, units)
                held.append(low <= area <= high)
                width.append(high - low)
                if number < sets // 10:  # it takes a thousand times as long
                    low, high = bootstrap(labels, scores, scores > 1, units, resamples=300)["auroc"]
                    others.append(low <= area <= high)
            figures = f"{np.mean(held):.1%} | {np.mean(width):.2f} | {np.mean(others):.0%}".replace("%", " %")
            print(f"| {name} | {area} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
