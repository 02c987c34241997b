"""The detection methods: each learns from patches of good photographs and scores others."""
