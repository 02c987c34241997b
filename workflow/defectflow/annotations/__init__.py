"""What people drew: outlines in COCO files and ground-truth masks, read, and checked against their photographs."""
