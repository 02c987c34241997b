"""The data set as Croissant metadata: JSON-LD that search engines and loaders of data sets read.

Source: Croissant Format Specification 1.0 (ML Commons, 2024), http://mlcommons.org/croissant/1.0, and its vocabulary
for responsible AI, http://mlcommons.org/croissant/RAI/1.0. ``mlcroissant`` loads what this writes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from defectflow.core.files import sha256_of

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
# What the format requires and nobody can read from files: `about` in the entry of the data set (published is
# datePublished there).
ABOUT = ("license", "creator", "url", "published")
# The context that the specification recommends (appendix 1), and the vocabulary for responsible AI.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
# Columns of photographs.csv: type and description.
COLUMNS = {
    "name": ("sc:Text", "Path below the folder of the photographs."),
    "label": ("sc:Text", "good, bad, or empty where nobody has labelled it."),
    "class": ("sc:Text", "good, the kind of defect, or no label."),
    "group": ("sc:Text", "Session or burst; empty if unknown."),
    "split": ("sc:Text", "train or test; empty where the data set fixes none."),
    "width": ("sc:Integer", "Pixels of the upright picture."),
    "height": ("sc:Integer", "Pixels of the upright picture."),
    "brightness": ("sc:Float", "Mean grey level, 0 to 255."),
    "overexposed": ("sc:Float", "Share of pixels at 254 and above."),
    "sharpness": ("sc:Float", "Standard deviation of the Laplacian at a longer side of at most 1024 pixels."),
    "file_bytes": ("sc:Integer", "Size of the file."),
    "has_mask": ("sc:Boolean", "Whether a ground-truth mask marks its defect."),
    "sha256": ("sc:Text", "Checksum of the file."),
}
MEDIA_TYPES = {"jpg": "image/jpeg", "tif": "image/tiff", "tiff": "image/tiff"}


def croissant(
    name: str,
    description: str,
    photographs: Path,
    suffixes: Mapping[str, Sequence[str]],
    classes: Mapping[str, int],
    limits: Sequence[str],
    about: Mapping[str, str],
) -> dict[str, Any]:
    """The metadata, as an object to be written as JSON.

    Args:
        name: of the data set.
        description: in a sentence or two.
        photographs: the table photographs.csv, which lies beside the metadata.
        suffixes: of each format, as the files have them, e.g. jpg: .JPG and .jpeg.
        classes: number of photographs of each.
        limits: sentences on what is missing.
        about: license, creator, url and published of the config; those left out are left out here too.
    """
    known = {key: about[key] for key in ("license", "url") if about.get(key)}
    if about.get("creator"):
        known["creator"] = {"@type": "sc:Organization", "name": about["creator"]}  # type: ignore[assignment]
    if about.get("published"):
        known["datePublished"] = about["published"]
    table = photographs.name
    files: list[dict[str, Any]] = [
        {
            "@type": "cr:FileObject",
            "@id": table,
            "name": table,
            "description": "One row for each photograph.",
            "contentUrl": table,
            "contentSize": f"{photographs.stat().st_size} B",
            "encodingFormat": "text/csv",
            "sha256": sha256_of(photographs),
        }
    ]
    for format, endings in suffixes.items():
        files.append(
            {
                "@type": "cr:FileSet",
                "@id": f"{format}-files",
                "name": f"{format}-files",
                "description": f"Photographs in the format {format}, below the folder that column name counts from.",
                "encodingFormat": MEDIA_TYPES.get(format, f"image/{format}"),
                "includes": [f"**/*{ending}" for ending in endings],
            }
        )
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": name,
        "description": description,
        "conformsTo": CONFORMS_TO,
        **known,
        "keywords": ["visual inspection", "anomaly detection", "image classification"],
        "rai:dataLimitations": list(limits),
        "distribution": files,
        "recordSet": [_photographs(table), _classes(classes)],
    }


def _photographs(table: str) -> dict[str, Any]:
    fields = []
    for column, (kind, text) in COLUMNS.items():
        source = {"fileObject": {"@id": table}, "extract": {"column": column}}
        field: dict[str, Any] = {"@type": "cr:Field", "@id": f"photographs/{column}", "name": column}
        field |= {"description": text, "dataType": kind, "source": source}
        if column == "class":
            field["references"] = {"field": {"@id": "classes/name"}}
        fields.append(field)
    return {
        "@type": "cr:RecordSet",
        "@id": "photographs",
        "name": "photographs",
        "description": "Labels and measurements of every photograph.",
        "key": {"@id": "photographs/name"},
        "field": fields,
    }


def _classes(classes: Mapping[str, int]) -> dict[str, Any]:
    fields = [
        {"@type": "cr:Field", "@id": f"classes/{name}", "name": name, "dataType": kind}
        for name, kind in (("name", "sc:Text"), ("photographs", "sc:Integer"))
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "description": "The classes and their numbers of photographs.",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/name"},
        "field": fields,
        "data": [{"classes/name": name, "classes/photographs": n} for name, n in classes.items()],
    }
