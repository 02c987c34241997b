from dataclasses import dataclass
from typing import Literal

import pytest
from defectflow.config.settings import Settings, setting
from defectflow.config.settings_flag import add_settings, read_settings
from defectflow.config.values import ABSENT, REQUIRED
from defectflow.core.files import UserError


@dataclass(frozen=True, kw_only=True)
class Oven(Settings):
    heat: float = setting(REQUIRED, "of the oven", unit="degrees", above=0, maximum=300, stage="bake")
    fan: bool = setting(False, "whether air moves", stage="bake", formerly="blower")
    mode: Literal["top", "both"] = setting("both", "where heat comes from", stage="bake")
    speed: int = setting(1, "of the fan", minimum=1, stage="bake", read_if=lambda oven: oven.fan, refused="no fan")
    rack: int | None = setting(ABSENT, "height", stage="load")


def test_a_stage_gets_what_it_reads_and_nothing_else():
    oven = Oven.from_dict({"heat": 180}, "x")
    assert oven.read_by("bake") == {"heat": 180, "fan": False, "mode": "both"} and oven.read_by("load") == {}
    assert oven.read_by("load", "bake")["heat"] == 180 and Oven(heat=1, rack=2).read_by("load") == {"rack": 2}
    assert oven.completed({"heat": 180}) == {"heat": 180, "fan": False, "mode": "both", "speed": 1}
    bake = oven.only_for("bake")
    assert bake.heat == 180.0 and isinstance(bake.heat, float)
    with pytest.raises(AttributeError, match="rack is not read by this stage"):
        _ = bake.rack


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "'heat' is a required property"),
        ('{"heat": 0}', "heat: 0 must be above 0 degrees"),
        ('{"heat": 301}', "heat: 301 is greater than the maximum of 300 degrees"),
        ('{"heat": true}', "heat: True is not of type number"),
        ('{"heat": NaN}', "heat: nan is not a finite number"),
        ('{"heat": 1, "fann": true}', r"unknown key 'fann' \(did you mean 'fan'\?\)"),
        ('{"heat": 1, "blower": true}', "'blower' is called 'fan' now"),
        ('{"heat": 1, "mode": "bth"}', "'bth' is not one of top, both; did you mean 'both'"),
        ('{"heat": 1, "speed": 2}', "no fan"),
        ('{"heat": 1, "speed": 1.5, "fan": true}', "speed: 1.5 is not of type integer"),
        ("[1]", "no such file"),
        ('{"heat": 1', "not valid JSON"),
    ],
)
def test_a_mistake_is_one_line(text, message):
    with pytest.raises(UserError, match=f"(?s)^(?!.*\n).*{message}"):
        read_settings(text, Oven, "bake")


def test_the_settings_may_lie_in_a_file(tmp_path):
    (tmp_path / "oven.json").write_text('{"heat": 200, "fan": true, "speed": 3}')
    assert read_settings(str(tmp_path / "oven.json"), Oven, "bake").speed == 3


def test_the_help_has_a_line_for_each_value_of_the_stage(capsys):
    import argparse

    parser = argparse.ArgumentParser()
    add_settings(parser, Oven, "bake")
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    told = capsys.readouterr().out
    assert "heat: of the oven (number, above 0 to 300 degrees; required)" in told and "rack" not in told
    assert "mode: where heat comes from (top or both; default: both)" in told


def test_a_whole_number_with_a_point_is_that_whole_number_everywhere():
    oven = Oven.from_dict({"heat": 180, "fan": True, "speed": 5.0, "rack": 2.0}, "x")
    same = Oven.from_dict({"heat": 180, "fan": True, "speed": 5, "rack": 2}, "x")
    for found in (oven.read_by("bake", "load"), oven.completed({"speed": 5.0, "rack": 2.0})):
        assert repr(found["speed"]) == "5" and repr(found["rack"]) == "2"  # also in the hash of a rule's params
    assert oven == same and repr(oven) == repr(same)
