"""A fitted inspector: judges new photographs from a bundle, with numpy, OpenCV and a runtime."""
