"""What is learned about the part from annotated photographs: mean mask, registered templates, appearance."""
