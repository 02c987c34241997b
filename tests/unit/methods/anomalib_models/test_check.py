import json

import pytest
from defectflow.core.files import UserError
from defectflow.methods.anomalib_models import check


def run(**settings):
    check.main(check.build_parser().parse_args(["--settings", json.dumps(settings)]))


def test_a_model_that_can_be_made_passes():
    run(model="Ganomaly", image_size=64, options={"n_features": 8})


def test_one_that_cannot_is_told():
    with pytest.raises(UserError, match=r"--settings: anomalib's Ganomaly has no option 'features'"):
        run(model="Ganomaly", options={"features": 8})
