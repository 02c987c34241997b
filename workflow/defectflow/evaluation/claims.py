"""What the figures of a run do and do not prove, given the number of photographs, in plain words."""

import math
from collections.abc import Mapping
from typing import Any

from defectflow.metrics.intervals import better_than_chance, reversed_order

GOAL = 0.01  # an error rate that inspections often require, to say how many photographs would prove it
IN_USE = 0.01  # assumed share of bad parts in production, to say how many alarms are real there


def proven(metrics: Mapping[str, Any]) -> list[str]:
    """What the held-out figures prove, each with the range that chance allows."""
    image, spans = metrics["image"], metrics["confidence_intervals"]
    matrix, said = image["confusion_matrix"], []
    if image["auroc"] is not None:
        low, high = spans["auroc"]
        text = (
            f"Shown a bad and a good photograph that it had never seen, the detector scored the bad one higher in "
            f"{percent(image['auroc'])} of the pairs (AUROC). With other photographs of the same kind it might be "
            f"{percent(low)} to {percent(high)}"
        )
        if better_than_chance(spans["auroc"]):
            text += ": better than guessing."
        elif reversed_order(spans["auroc"]):
            text += f": worse than guessing ({percent(0.5)}). Are the labels swapped?"
        else:
            text += f", which does not exclude guessing ({percent(0.5)})."
        said.append(text)
    if image["n_bad"]:
        low, high = spans["recall"]
        said.append(_rate(matrix["false_negative"], image["n_bad"], "bad", "missed", "miss rate", [1 - high, 1 - low]))
    if image["n_good"]:
        span = spans["false_positive_rate"]
        said.append(_rate(matrix["false_positive"], image["n_good"], "good", "called bad", "false-alarm rate", span))
    if promise := metrics["threshold"].get("promise"):
        low, high = promise["interval"]
        said.append(
            f"The threshold is chosen on {promise['n_good']} good photographs alone: about {percent(promise['rate'])} "
            f"of new good ones like them will be called bad, and with {percent(promise['confidence'])} confidence "
            f"{percent(low)} to {percent(high)}."
        )
    baseline = metrics["baseline"]
    if image["n_good"] and image["n_bad"] and image["accuracy"] is not None:
        gain = "more than" if image["accuracy"] > baseline["accuracy"] else "no more than"
        said.append(
            f"{percent(image['accuracy'])} of the verdicts are right, {gain} the {percent(baseline['accuracy'])} of an "
            f"inspector who calls everything {baseline['majority_class']}."
        )
    review = metrics.get("review")
    if review and review["n_reviewed"]:
        said.append(
            f"Where a person looks at the {review['n_reviewed']} doubtful photographs of {review['n_images']} "
            f"({percent(review['share_reviewed'])}), {_count(review['missed_left'], 'missed defect')} and "
            f"{_count(review['false_alarms_left'], 'false alarm')} are left among the others."
        )
    return said


def not_proven(metrics: Mapping[str, Any]) -> list[str]:
    """What the figures do not prove, although a reader might think so."""
    image, said = metrics["image"], []
    n_good, n_bad = image["n_good"], image["n_bad"]
    if not n_bad:
        said.append("How many defects are missed: no photograph of a bad part was labelled.")
    else:
        needed = without_error(GOAL)
        missed = image["confusion_matrix"]["false_negative"]
        if n_bad < needed or missed:
            said.append(
                f"A miss rate below {percent(GOAL)}. To show that, {needed} bad photographs would have to pass without "
                f"one miss; here {_were(n_bad)}{f', and {missed} {_was(missed)} missed' if missed else ''}."
            )
    if not n_good:
        said.append("How often a good part raises an alarm: no photograph of a good part has a held-out score.")
    said += _another_session(image)
    types = {name: entry["n"] for name, entry in metrics["by_defect"].items() if name != "unspecified"}
    if types:
        few = [name for name, n in types.items() if n < 10]
        text = f"Anything about kinds of defects not seen here. {_count(len(types), 'kind')} had photographs"
        who = "each of them" if len(few) == len(types) > 1 else _list(few) if few else ""
        said.append(text + (f"; {who} fewer than ten, too few to say how well that kind is found." if few else "."))
    elif n_bad:
        said.append("Anything about kinds of defects that are not among the labelled photographs.")
    if worth := alarms_in_use(metrics):
        said.append(
            f"That an alarm means a defect. Here {percent(n_bad / (n_good + n_bad))} of the parts are bad; where only "
            f"{percent(IN_USE)} are, as few as {percent(worth)} of the alarms may be real and the others false."
        )
    if metrics["n_samples"] and not metrics["pixel"]["n_bad_with_mask"]:
        said.append("That the marked spots are the defects: nobody has outlined the defects to compare them with.")
    return said


def alarms_in_use(metrics: Mapping[str, Any]) -> float | None:
    """Precision where a share IN_USE of the parts is bad, by Bayes' rule from recall and the highest likely FPR.

    The upper end of its interval: no false alarm among 40 good photographs does not mean that there are none.
    """
    recall, span = metrics["image"]["recall"], metrics["confidence_intervals"]["false_positive_rate"]
    if not recall or not span:
        return None
    return float(IN_USE * recall / (IN_USE * recall + (1 - IN_USE) * span[1]))


def without_error(rate: float, level: float = 0.95) -> int:
    """How many images without one error show, at ``level``, that errors are rarer than ``rate``: 299 for 1 %.

    Source: the exact one-sided binomial limit; J. A. Hanley, A. Lippman-Hand, If nothing goes wrong, is everything
    all right?, JAMA 249 (1983).
    """
    return math.ceil(math.log(1 - level) / math.log(1 - rate))


def percent(share: float) -> str:
    """A share as a percentage, one decimal where that is below 10 or above 90 and not whole; 0 and 100 are exact."""
    value = 100 * share
    digits = 1 if 0 < value < 10 or 90 < value < 100 else 0
    while digits and digits < 4 and round(value, digits) in (0, 100):
        digits += 1
    return f"{value:.{digits}f}".removesuffix(".0") + "\N{NO-BREAK SPACE}%"


def _rate(errors: int, n: int, kind: str, what: str, rate: str, span: list[float]) -> str:
    text = f"{errors or 'None'} of the {n} {kind} photographs {_was(errors)} {what}. "
    if not errors:
        return text + f"That still fits a {rate} of up to {percent(span[1])} in the long run."
    return text + f"The {rate} in the long run is between {percent(span[0])} and {percent(span[1])}."


def _another_session(image: Mapping[str, Any]) -> list[str]:
    apart = image.get("leave_group_out") or {}
    if apart.get("auroc") is not None:
        return [
            "How well it works in a new session (another day, camera, light), except for this: with whole sessions "
            f"held out the AUROC is {percent(apart['auroc'])}, from {image['n_groups']} sessions in all."
        ]
    if image["n_groups"] == image["n_good"] + image["n_bad"]:  # each image is its own group: no session is named
        return [
            "How well it works with another camera, light or tool. Nothing says which photographs were taken together "
            "(column group of labels.csv), so none could be held out together."
        ]
    return [
        "How well it works with another camera, light or tool. The photographs come from "
        f"{_count(image['n_groups'], 'group')}; no figure here covers what none of them shows."
    ]


def _count(n: int, what: str) -> str:
    return f"{n or 'no'} {what}{'s' * (n != 1)}"


def _was(n: int) -> str:
    return "was" if n == 1 else "were"


def _were(n: int) -> str:
    return "there was 1" if n == 1 else f"there were {n}"


def _list(names: list[str], most: int = 6) -> str:
    if len(names) > most:
        return f"{len(names)} of them"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
