import argparse
import os

import pytest
from defectflow.core.arguments import add_device, add_seed, add_threads


def test_options_have_one_spelling_and_defaults():
    parser = argparse.ArgumentParser()
    add_threads(parser)
    add_device(parser)
    add_seed(parser)
    assert vars(parser.parse_args([])) == {"threads": os.cpu_count(), "device": "auto", "seed": 0}
    assert vars(parser.parse_args(["--threads", "3", "--device", "cpu", "--seed", "7"])) == {
        "threads": 3, "device": "cpu", "seed": 7,
    }  # fmt: skip


def test_a_stage_may_have_another_number_of_threads_and_words_of_its_own(capsys):
    parser = argparse.ArgumentParser()
    add_threads(parser, 1, "images at a time")
    assert parser.parse_args([]).threads == 1 and "images at a time (default: 1)" in parser.format_help()
    with pytest.raises(SystemExit):
        parser.parse_args(["--threads", "many"])
