"""Object detection on ordinary computers, with exact linear attention.

>>> from yolo_lat import Detector
>>> detector = Detector("n")
>>> found = detector("assets/chelsea.jpg")
>>> found.class_names
array(['cat'], dtype='<U3')
>>> found.xyxy.shape
(1, 4)
"""

from importlib.metadata import version

from yolo_lat._detections import Detections
from yolo_lat._detector import Detector, shared_detector
from yolo_lat._images import ImageLike
from yolo_lat._native import images_in

__all__ = ["Detections", "Detector", "ImageLike", "images_in", "shared_detector"]
__version__ = version("yolo-lat")
