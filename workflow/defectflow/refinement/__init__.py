"""Finer outlines of damaged regions by SAM 2.1, fine-tuned on ground-truth masks, beside those of the map, held out."""
