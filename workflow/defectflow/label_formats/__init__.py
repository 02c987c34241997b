"""Files of annotation tools other than COCO: recognised by content and converted to COCO."""
