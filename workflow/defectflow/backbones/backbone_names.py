"""Names of backbones that are ours; every other name is timm's."""

PATCH_NANO = "patch-nano"
PIXELS = "pixels"  # the picture itself, for the pixel difference


def is_patch_nano(name: str) -> bool:
    """Whether a backbone's name stands for our own network."""
    return name.replace("_", "-") == PATCH_NANO
