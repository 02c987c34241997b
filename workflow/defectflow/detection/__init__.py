"""Stages that run a method over a data set: features, fit, score, calibrate, normal_embed."""
