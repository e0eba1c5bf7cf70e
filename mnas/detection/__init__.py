"""Object detection: default boxes that fit the data, training, COCO's metrics, prediction and drawing."""
