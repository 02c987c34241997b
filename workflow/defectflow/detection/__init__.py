"""Stages that run a method over a data set: features, fit, score, calibrate, keep_features, and drawings."""
