"""The smallest SAM 2.1 that the sam2 package builds: nano's configuration with less of everything, at 128 px."""

from pathlib import Path

import torch
from defectflow.segmentation import sam_model
from omegaconf import OmegaConf


def write_micro(folder: Path) -> str:
    """Write micro.yaml and return its path, which ``--model-config`` takes."""
    config = OmegaConf.load(sam_model.config_path("nano"))
    model = config.model
    encoder = model.image_encoder
    encoder.trunk.update({"embed_dim": 8, "stages": [1, 1, 1, 1], "global_att_blocks": [], "window_spec": [8, 4, 8, 4]})
    encoder.neck.update({"d_model": 32, "backbone_channel_list": [64, 32, 16, 8]})
    encoder.neck.position_encoding.num_pos_feats = 32
    attention = model.memory_attention
    attention.update({"d_model": 32})
    attention.layer.update({"d_model": 32, "dim_feedforward": 16})
    attention.layer.self_attention.update({"embedding_dim": 32, "feat_sizes": [8, 8]})
    attention.layer.cross_attention.update({"embedding_dim": 32, "feat_sizes": [8, 8], "kv_in_dim": 16})
    memory = model.memory_encoder
    memory.update({"in_dim": 32, "out_dim": 16})
    memory.position_encoding.num_pos_feats = 16
    memory.mask_downsampler.embed_dim = 32
    memory.fuser.layer.dim = 32
    model.image_size = 128
    path = folder / "micro.yaml"
    path.write_text("# @package _global_\n" + OmegaConf.to_yaml(config))
    return str(path)


def write_checkpoint(folder: Path, config: str, seed: int = 3) -> Path:
    """A checkpoint of the official form with random weights."""
    path = folder / f"checkpoint_{seed}.pt"
    torch.save({"model": sam_model.build(config, seed=seed).state_dict()}, path)
    return path
