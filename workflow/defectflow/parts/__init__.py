"""What the annotated photographs say of the part: its mean mask, its registered templates, its appearance."""
