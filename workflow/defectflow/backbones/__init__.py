"""Networks that turn an image into feature maps, and these into the patches that detectors learn from."""
