"""Releases: bundles with a version, a note and an approver; the version in use; and a log of all changes.

FOLDER/releases/VERSION/bundle/       as the workflow made it
FOLDER/releases/VERSION/release.json  version, note, who, time, figures
FOLDER/releases/VERSION/verdicts.csv  the held-out verdicts of its run, to compare with
FOLDER/releases/VERSION/report.html   the report of its run
FOLDER/releases/current               a link to the bundle in use: `defectflow serve FOLDER/releases/current`
FOLDER/releases/audit.jsonl           append-only; each line contains the sha256 of the one before
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd

from defectflow.core.files import UserError, atomic_dir, read_json, sha256_of, write_json
from defectflow.core.tables import PREDICTIONS, read_table
from defectflow.desk.project import Project
from defectflow.desk.records.results import Run, last_run
from defectflow.inspection.bundle_files import MANIFEST as BUNDLE
from defectflow.inspection.bundle_files import made_at, read_bundle

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,39}")
TAKEN = {"current", "audit.jsonl"}  # names in the folder that are not versions
WHO, NOTE = 100, 2000  # characters
COLUMNS = ("number", "time", "who", "action", "version", "note", "bundle_sha256", "previous_sha256")
NOTHING = "0" * 64  # before the first line
SHOWN = ["filename", "sha256", "label", "defect_type", "verdict", "raw_score", "threshold"]


def folder_of(project: Project) -> Path:
    """Folder of the releases."""
    return project.folder / "releases"


def candidate(project: Project) -> dict[str, Any] | None:
    """The bundle of the last run, which can be released; None if there is none.

    Returns:
        run; sha256 of its bundle.json; time it was made; outdated: whether the run was evaluated again since; taught:
        version of what it was taught, or None; released: the version under which it was released, or None.
    """
    run = last_run(project)
    if run is None or not (run.folder / "bundle" / BUNDLE).is_file():
        return None
    manifest = run.folder / "bundle" / BUNDLE
    settings, digest = read_json(manifest), sha256_of(manifest)
    taught = settings.get("taught")
    same = next((one["version"] for one in releases(project) if one["bundle_sha256"] == digest), None)
    return {
        "run": "/".join(run.recipe[1:]),
        "sha256": digest,
        "time": manifest.stat().st_mtime,
        "outdated": (run.folder / "metrics.json").stat().st_mtime_ns > made_at(manifest.parent),
        "taught": taught["version"] if taught else None,
        "released": same,
        "figures": figures_of(run, settings),
    }


def figures_of(run: Run, bundle: dict[str, Any]) -> dict[str, Any]:
    """Threshold of a bundle, and the held-out figures of its run, or, if it was taught, those after the lesson."""
    metrics = run.metrics()
    image = metrics.get("image") or {}
    if taught := bundle.get("taught"):
        path = run.folder / "bundle" / f"taught-{taught['version']}/learned.json"
        after = read_json(path)["photographs_of_the_run"]["after"] if path.is_file() else {}
        good, bad = after.get("good", image.get("n_good")), after.get("bad", image.get("n_bad"))
        image = {"n_good": good, "n_bad": bad}
        metrics = {}
        if after and bad:
            metrics["recall"] = 1 - after["missed"] / bad
        if after and good:
            image["false_positive_rate"] = after["false_alarms"] / good
    return {
        "threshold": bundle["threshold"]["value"],
        "strategy": bundle["threshold"]["strategy"],
        "review": bundle.get("review"),
        "n_good": image.get("n_good"),
        "n_bad": image.get("n_bad"),
        "recall": metrics.get("recall"),
        "false_positive_rate": image.get("false_positive_rate"),
        "auroc": metrics.get("auroc"),
    }


def releases(project: Project) -> list[dict[str, Any]]:
    """Every release, the newest first."""
    found = []
    for path in folder_of(project).glob("*/release.json"):
        if not path.parent.is_symlink():
            found.append(read_json(path))
    return sorted(found, key=lambda one: (-one["time"], one["version"]))


def current(project: Project) -> str | None:
    """The version in use; None if none is."""
    try:
        version = Path(os.readlink(folder_of(project) / "current")).parts[0]
    except OSError:
        return None
    return version if (folder_of(project) / version / "bundle" / BUNDLE).is_file() else None


def bundle_in_use(project: Project) -> Path | None:
    """The folder of the bundle in use."""
    version = current(project)
    return folder_of(project) / version / "bundle" if version else None


def suggested(project: Project) -> str:
    """The next version: the newest with its last number raised, or 1."""
    taken = {one["version"] for one in releases(project)}
    found = re.fullmatch(r"(.*?)(\d+)", next((one["version"] for one in releases(project)), "0"))
    if not found:
        return "1" if "1" not in taken else ""
    number = int(found[2]) + 1
    while f"{found[1]}{number}" in taken:
        number += 1
    return f"{found[1]}{number}"


def release(project: Project, version: str, note: str, who: str) -> dict[str, Any]:
    """Give the bundle of the last run a version, and put it into use.

    Raises:
        UserError: there is no bundle, it is older than its run or damaged, the version is taken or invalid, or no
            approver is named.
    """
    version, note, who = version.strip(), note.strip()[:NOTE], _named(who)
    if not VERSION.fullmatch(version) or version in TAKEN:
        raise UserError(f"version {version[:50]!r}: use letters and digits, and _ . + - after the first, at most 40")
    with project.lock:
        ready, run = candidate(project), last_run(project)
        if ready is None or run is None:
            raise UserError("there is no bundle to release (run with the bundle on the page Run)")
        if ready["outdated"]:
            raise UserError("the bundle is older than its run (run again with the bundle on the page Run)")
        if (folder_of(project) / version).exists():
            raise UserError(f"version {version} exists already (choose another)")
        bundle = read_bundle(run.folder / "bundle")  # checks every file
        folder_of(project).mkdir(exist_ok=True)
        about = {
            "version": version,
            "note": note,
            "who": who,
            "time": time.time(),
            "run": ready["run"],
            "taught": ready["taught"],
            "bundle_sha256": ready["sha256"],
            **ready["figures"],
        }
        with atomic_dir(folder_of(project) / version) as temporary:
            shutil.copytree(bundle.folder, temporary / "bundle", ignore=shutil.ignore_patterns(".snakemake_timestamp"))
            verdicts_of(run).to_csv(temporary / "verdicts.csv", index=False)
            if (run.folder / "report.html").is_file():
                shutil.copyfile(run.folder / "report.html", temporary / "report.html")
            write_json(temporary / "release.json", about)
        _log(project, who, "released", about, note)
        _put_in_use(project, version)
    return about


def use(project: Project, version: str, note: str, who: str) -> dict[str, Any]:
    """Put a release into use again: roll back or forward.

    Raises:
        UserError: there is no such release, it was changed since, or no approver is named.
    """
    who = _named(who)
    about = about_release(project, version)
    bundle = read_bundle(folder_of(project) / version / "bundle")
    if sha256_of(bundle.folder / BUNDLE) != about["bundle_sha256"]:
        raise UserError(f"version {version}: its bundle was changed after the release (do not use it)")
    with project.lock:
        before = current(project)
        if before == version:
            raise UserError(f"version {version} is already in use")
        _log(project, who, "put in use", about, note.strip()[:NOTE])
        _put_in_use(project, version)
    return about


def about_release(project: Project, version: str) -> dict[str, Any]:
    """What release.json says.

    Raises:
        UserError: there is no such release.
    """
    path = folder_of(project) / version / "release.json"
    if not VERSION.fullmatch(version) or version in TAKEN or not path.is_file():
        raise UserError(f"version {version[:50]!r}: no such release")
    found: dict[str, Any] = read_json(path)
    return found


def _named(who: str) -> str:
    who = " ".join(who.split())[:WHO]
    if not who:
        raise UserError("no approver (enter the name of the person who approves it)")
    return who


def _put_in_use(project: Project, version: str) -> None:
    """Point the link to a bundle, atomically: readers see the old one or the new one."""
    link = folder_of(project) / f".current-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(Path(version) / "bundle")
    os.replace(link, folder_of(project) / "current")


# --- The log ----------------------------------------------------------------------------------------------------------
def _log(project: Project, who: str, action: str, about: dict[str, Any], note: str) -> None:
    path = folder_of(project) / "audit.jsonl"
    lines = path.read_bytes().splitlines() if path.is_file() else []
    entry = {
        "number": len(lines) + 1,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "who": who,
        "action": action,
        "version": about["version"],
        "note": note,
        "bundle_sha256": about["bundle_sha256"],
        "previous_sha256": hashlib.sha256(lines[-1]).hexdigest() if lines else NOTHING,
    }
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    with open(descriptor, "ab") as stream:
        stream.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def audit(project: Project) -> tuple[list[dict[str, Any]], str]:
    """The log, oldest entry first, and what is wrong with it ("" if every line matches the one before)."""
    path = folder_of(project) / "audit.jsonl"
    entries, before, wrong = [], NOTHING, ""
    for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else [], 1):
        try:
            entry = json.loads(line)
            if not wrong and (entry["previous_sha256"], entry["number"]) != (before, number):
                wrong = f"line {number} of audit.jsonl does not match the one before: the log was changed"
            entries.append({key: entry[key] for key in COLUMNS})
        except (ValueError, KeyError, TypeError):
            wrong = wrong or f"line {number} of audit.jsonl is damaged"
        before = hashlib.sha256(line).hexdigest()
    return entries, wrong


def audit_table(project: Project) -> str:
    """The log as CSV. Texts that a spreadsheet would read as formulas get a leading apostrophe."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for entry in audit(project)[0]:
        writer.writerow({key: _plain(value) for key, value in entry.items()})
    return stream.getvalue()


def _plain(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


# --- Comparing --------------------------------------------------------------------------------------------------------
def verdicts_of(run: Run) -> pd.DataFrame:
    """The verdicts of a run, columns SHOWN: of labelled photographs held out."""
    table = read_table(run.folder / "predictions.csv", PREDICTIONS)
    digests = read_table(run.dataset / "manifest.csv", ["image_id", "sha256"]).set_index("image_id")["sha256"]
    called = table["predicted_label"].map({0: "good", 1: "bad"}).fillna("")
    table["verdict"] = called.mask(table["review"] == 1, "review")
    table["sha256"] = table["image_id"].map(digests).fillna("")
    return table[SHOWN]


def compare(old: pd.DataFrame, new: pd.DataFrame) -> dict[str, Any]:
    """Which verdicts differ between two releases, on the photographs that both have judged.

    Args:
        old, new: what `verdicts_of` returned. Photographs are matched by content.

    Returns:
        both, only_old, only_new: numbers of photographs; changed: rows {filename, label, kind, before, after}, those
        that become wrong first; better, worse: numbers of changed verdicts that become right and wrong.
    """
    old, new = (table[table["verdict"] != ""].drop_duplicates("sha256").set_index("sha256") for table in (old, new))
    both = new.index.intersection(old.index)
    rows = []
    for digest in both:
        one, before = new.loc[digest], old.loc[digest, "verdict"]
        if one["verdict"] == before:
            continue
        # The label as it is now: it may have been corrected between the two.
        truth = {0: "good", 1: "bad"}.get(one["label"], "")
        effect = (one["verdict"] == truth) - (before == truth) if truth else 0
        rows.append(
            {
                "filename": one["filename"],
                "label": truth,
                "kind": one["defect_type"],
                "before": before,
                "after": one["verdict"],
                "effect": int(effect),
            }
        )
    rows.sort(key=lambda row: (row["effect"], row["filename"]))
    return {
        "both": len(both),
        "only_old": len(old) - len(both),
        "only_new": len(new) - len(both),
        "changed": rows,
        "better": sum(row["effect"] > 0 for row in rows),
        "worse": sum(row["effect"] < 0 for row in rows),
    }


def stored_verdicts(project: Project, version: str) -> pd.DataFrame:
    """The verdicts of a release."""
    about_release(project, version)
    text = dict.fromkeys(("filename", "sha256", "defect_type", "verdict"), str)
    numbers = {name: [""] for name in SHOWN if name not in text}
    return pd.read_csv(
        folder_of(project) / version / "verdicts.csv", dtype=text, keep_default_na=False, na_values=numbers
    )
