"""The commands of object detection."""
