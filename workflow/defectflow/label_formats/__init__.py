"""Files of annotation tools beside COCO: recognised by content, and read into COCO's form."""
