"""The model card: every line of it, and what is left out where a run has nothing to say."""

import pytest
from defectflow.bundling.bundle_card import card
from jinja2 import UndefinedError

FIGURES = {"auroc": 0.9876, "accuracy": 0.95, "recall": None, "precision": 1.0, "false_positive_rate": 0.05}
SPANS = {"auroc": [0.9, 1.0], "accuracy": [0.8, 0.99], "recall": None, "precision": None, "false_positive_rate": None}
SETTINGS = {
    "name": "set/template/crop/patchcore",
    "segmenter": {"source": "template"},
    "isolation": {"background": "zero", "normalise": ["gray_world", "clahe"], "crop": True, "tight": None},
    "network": {"backbone": "patch-nano", "layers": ["layer2", "layer3"], "input_size": [256, 384]},
    "detector": {"method": "patchcore", "distance": "euclidean"},
    "threshold": {"strategy": "youden", "options": {"max_fpr": 0.1}, "value": 1.23456789},
    "review": [1.1, 1.4],
}
FIT = {"good_images": 20, "banks": {"all": {"size": 1024}}}
CARD = """\
# Inspector set/template/crop/patchcore

Classifies photographs of one part as good or bad, and shows where the damage is. Made by defectflow.

```sh
defectflow inspect THIS_FOLDER photographs/ --out results/
```

## Description

- Segmenter of the part: template.
- Input of the detector: background zero, light gray_world, clahe, cropped, fitted into 384 x 256 pixels.
- Detector: patchcore, backbone patch-nano (layer2, layer3), euclidean distances to 1024 patches of 20 good images.
- Bad from a raw score of 1.23457 (rule: youden, max_fpr 0.1); shown as 0.50.
- To a person: raw scores from 1.1 up to 1.4.

## Held-out figures

Measured on 20 good and 4 bad images, each scored by a bank built without it
and judged by a threshold chosen without it. The bank in this bundle contains all good images. Images that differ
from these (another camera, light or part) are not covered.

| figure | value [95 % interval] |
|---|---|
| AUROC | 0.988 [0.90, 1.00] |
| AUROC, whole groups (sessions) held out | 0.700 [0.50, 0.90] |
| accuracy | 0.950 [0.80, 0.99] |
| recall: bad images called bad | - |
| precision: images called bad that are bad | 1.000 |
| false alarms: good images called bad | 0.050 |

Warnings of the run:

- fewer than <10> bad images & 1 group

## Contents

safetensors, ONNX and JSON: nothing is executed. bundle.json contains the settings, the versions it was made
with, and size and sha256 of every file. prior.safetensors, if there is one, contains gradient pictures and
masks of annotated photographs: treat it as confidentially as these.
"""


def metrics(**image):
    warnings = ["fewer than <10> bad images & 1 group"]
    return {"image": FIGURES | {"n_good": 20, "n_bad": 4} | image, "confidence_intervals": SPANS, "warnings": warnings}


def test_every_line_of_a_full_card():
    apart = {"auroc": 0.7, "auroc_interval": [0.5, 0.9]}
    assert card(SETTINGS, metrics(leave_group_out=apart), FIT) == CARD


def test_what_a_run_has_not_leaves_no_line():
    plain = SETTINGS | {"review": None, "isolation": SETTINGS["isolation"] | {"crop": False}}
    absent = ("- To a person:", "| AUROC, whole groups", "Warnings of the run", "- fewer than")
    lines = [line for line in CARD.replace(", cropped", "").splitlines() if not line.startswith(absent)]
    expected = "\n".join(lines).replace("\n\n\n\n## Contents", "\n\n## Contents") + "\n"
    assert card(plain, metrics() | {"warnings": []}, FIT) == expected


def test_a_setting_that_is_missing_is_an_error_and_no_gap():
    with pytest.raises(UndefinedError):
        card(SETTINGS | {"segmenter": {}}, metrics(), FIT)
