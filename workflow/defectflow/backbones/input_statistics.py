"""What the input of a backbone is normalised with. Imports timm for its networks alone, and torch never."""

from defectflow.backbones.backbone_names import WITHOUT_NETWORK, is_patch_nano

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def input_statistics(backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, in [0, 1] by channel, that the input of a backbone is normalised with.

    ImageNet's for most; timm knows those of each set of weights, and the name without a tag stands for the first set.
    """
    if is_patch_nano(backbone) or backbone in WITHOUT_NETWORK:
        return IMAGENET_MEAN, IMAGENET_STD
    from timm.models import get_pretrained_cfg, is_model_pretrained

    known = get_pretrained_cfg(backbone if is_model_pretrained(backbone) else backbone.split(".")[0])
    return (tuple(known.mean), tuple(known.std)) if known else (IMAGENET_MEAN, IMAGENET_STD)
