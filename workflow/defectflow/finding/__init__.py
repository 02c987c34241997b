"""The part found without an outline: what stands out in all photographs of a set, and whether to trust it."""
