import argparse
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from defectflow.core.files import UserError
from defectflow.drawing.heat_style import ALPHA_MODES, COLOURS, Look, add_options, look_of

SCHEMA = Path(__file__).parents[3] / "workflow/schemas/config.schema.yaml"


def parsed(*words):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return look_of(parser.parse_args(words))


def test_the_options_stand_for_the_look():
    assert parsed() == Look()
    words = ["--colours", "viridis", "--vmax-quantile", "0.9", "--gamma", "0.5", "--blur", "2", "--alpha-mode", "heat"]
    words += ["--alpha-min", "0.1", "--alpha-max", "0.4", "--opacity", "0.8"]
    assert parsed(*words) == Look("viridis", 0.9, 0.5, 2.0, "heat", 0.1, 0.4, 0.8)


def test_the_config_has_the_same_keys_and_defaults():
    known = yaml.safe_load(SCHEMA.read_text())["properties"]["drawing"]["properties"]
    assert {key: value["default"] for key, value in known.items() if key != "triptychs"} == asdict(Look())
    assert tuple(known["colours"]["enum"]) == COLOURS and tuple(known["alpha_mode"]["enum"]) == ALPHA_MODES


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--vmax-quantile", "0"), "--vmax-quantile 0: must be above 0"),
        (("--gamma", "-1"), "--gamma -1: must be above 0"),
        (("--blur", "-1"), "--blur -1"),
        (("--alpha-min", "0.7"), "--alpha-min 0.7: must be from 0 to alpha_max"),
        (("--alpha-max", "1.5"), "--alpha-max 1.5"),
        (("--opacity", "2"), "--opacity 2"),
    ],
)
def test_a_number_out_of_range_is_told(words, message):
    with pytest.raises(UserError, match=message):
        parsed(*words)
