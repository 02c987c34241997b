"""Names of backbones that are ours; every other name is timm's."""

PATCH_NANO = "patch-nano"
PIXELS = "pixels"  # mean colours of the cells of the picture, for the pixel difference
PICTURE = "picture"  # all pixels of the cells of the picture, for methods that learn from pictures
PICTURE_CELL = 4  # sides of these cells in pixels
OUTLINE = "outline"  # share of each pixel that the mask of the part covers, for methods that measure outlines
WITHOUT_NETWORK = (PIXELS, PICTURE, OUTLINE)


def is_patch_nano(name: str) -> bool:
    """Whether a backbone's name stands for our own network."""
    return name.replace("_", "-") == PATCH_NANO
