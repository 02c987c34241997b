import pytest
from defectflow.config.settings_flag import read_settings
from defectflow.core.files import UserError
from defectflow.drawing.heat_settings import Look


def test_what_is_not_given_has_its_default():
    look = read_settings('{"colours": "viridis", "gamma": 2}', Look, "render")
    assert (look.colours, look.gamma, look.alpha_max) == ("viridis", 2, 0.6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"vmax_quantile": 0}', "vmax_quantile: 0 must be above 0"),
        ('{"gamma": -1}', "gamma: -1 must be above 0"),
        ('{"blur": -1}', "blur: -1 is less than the minimum of 0 pixels"),
        ('{"alpha_min": 0.7}', "alpha_min 0.7 must be from 0 to alpha_max, 0.6"),
        ('{"alpha_max": 1.5}', "alpha_max: 1.5 is greater"),
        ('{"opacity": 2}', "opacity: 2 is greater"),
        ('{"colours": "pink"}', "colours: 'pink' is not one of inferno"),
        ('{"clip_q": 1}', "'clip_q' is called 'vmax_quantile' now"),
    ],
)
def test_a_value_out_of_range_is_told(text, message):
    with pytest.raises(UserError, match=message):
        read_settings(text, Look, "render")
