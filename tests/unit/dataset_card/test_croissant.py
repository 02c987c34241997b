"""Croissant metadata: what the format requires, and that its parts point at each other."""

import csv
import hashlib
import json
import re

import pytest
from defectflow.dataset_card.croissant import ABOUT as KEYS
from defectflow.dataset_card.croissant import COLUMNS, CONFORMS_TO, croissant

# Croissant Format Specification 1.0, "Required" and "Modified and Added Properties".
REQUIRED = {
    "@context", "@type", "conformsTo", "description", "license", "name", "url", "creator", "datePublished",
    "distribution",
}  # fmt: skip
ABOUT = {
    "license": "https://spdx.org/licenses/CC0-1.0", "creator": "A. Plant", "url": "https://example.org",
    "published": "2026-11-30",
}  # fmt: skip


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "photographs.csv"
    path.write_text(",".join(COLUMNS) + "\n")
    return path


def metadata(table, about=ABOUT):
    return croissant(
        "mine",
        "Some photographs.",
        table,
        {"jpg": [".JPG", ".jpeg"], "png": [".png"]},
        {"good": 3, "dent": 2},
        ["Few."],
        about,
    )


def test_it_has_everything_that_the_format_requires(table):
    found = metadata(table)
    assert found.keys() >= REQUIRED and set(ABOUT) == set(KEYS) and all(found[key] for key in REQUIRED)
    assert found["conformsTo"] == CONFORMS_TO and found["@type"] == "sc:Dataset"
    assert found["creator"] == {"@type": "sc:Organization", "name": "A. Plant"}
    assert found["datePublished"] == "2026-11-30" and found["rai:dataLimitations"] == ["Few."]


def test_what_nobody_said_is_left_out_and_not_made_up(table):
    found = metadata(table, {})
    assert REQUIRED - found.keys() == {"license", "url", "creator", "datePublished"}


def test_the_table_is_named_with_its_checksum_and_size(table):
    first, *sets = metadata(table)["distribution"]
    assert (
        first["sha256"] == hashlib.sha256(table.read_bytes()).hexdigest() and first["contentUrl"] == "photographs.csv"
    )
    assert first["contentSize"] == f"{table.stat().st_size} B"
    assert [(one["encodingFormat"], one["includes"]) for one in sets] == [
        ("image/jpeg", ["**/*.JPG", "**/*.jpeg"]), ("image/png", ["**/*.png"])
    ]  # fmt: skip


def test_every_reference_leads_to_something_and_ids_are_unique(table):
    found = metadata(table)
    ids, references = [], []

    def walk(node):
        if isinstance(node, dict):
            if set(node) == {"@id"}:
                references.append(node["@id"])
            elif "@id" in node:
                ids.append(node["@id"])
            for key, value in node.items():
                if key != "@context":
                    walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(found)
    assert len(set(ids)) == len(ids) and set(references) <= set(ids) and len(references) > len(COLUMNS)


def test_fields_are_the_columns_of_the_table(table):
    photographs, classes = metadata(table)["recordSet"]
    header = next(csv.reader(table.open()))
    assert [field["source"]["extract"]["column"] for field in photographs["field"]] == header
    assert classes["data"] == [
        {"classes/name": "good", "classes/photographs": 3}, {"classes/name": "dent", "classes/photographs": 2}
    ]  # fmt: skip


def test_every_term_is_of_a_vocabulary_that_the_context_names(table):
    found = metadata(table)
    words = set(
        re.findall(r'"(\w+):\w+"', json.dumps({key: value for key, value in found.items() if key != "@context"}))
    )
    assert words <= found["@context"].keys()
