"""Stages that read a data set: survey, ingest, sam_pairs, split."""
