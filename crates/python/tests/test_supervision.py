"""The real packages supervision and trackers take what is found: annotated, tracked, counted."""

import numpy as np
import pytest
from conftest import ASSETS
from PIL import Image

sv = pytest.importorskip("supervision")


def frames():
    """A cat that crosses the image from left to right in 24 frames."""
    cat = np.asarray(Image.open(ASSETS / "chelsea.jpg").convert("RGB").resize((300, 200)))
    for left in np.linspace(0, 500, 24).astype(int):
        frame = np.full((300, 800, 3), 114, np.uint8)
        frame[50:250, left : left + 300] = cat
        yield frame


def test_arrays_are_taken_as_they_are(detector):
    found = detector(ASSETS / "chelsea.jpg")
    taken = found.to_supervision()
    assert taken.xyxy is found.xyxy and taken.confidence is found.confidence and taken.class_id is found.class_id
    assert list(taken["class_name"]) == list(found.class_names) == ["cat"]
    by_hand = sv.Detections(xyxy=found.xyxy, confidence=found.confidence, class_id=found.class_id)
    assert len(by_hand) == len(taken[taken.class_id == detector.names.index("cat")]) == 1
    nothing = detector(np.zeros((32, 32, 3), np.uint8)).to_supervision()
    assert len(nothing) == 0 and len(sv.Detections.merge([nothing, taken])) == 1


def test_boxes_and_labels_are_drawn(detector):
    image = np.asarray(Image.open(ASSETS / "chelsea.jpg").convert("RGB"))
    found = detector(image).to_supervision()
    drawn = sv.BoxAnnotator(thickness=2).annotate(image.copy(), found)
    changed = np.argwhere((drawn != image).any(axis=2))
    (left, top), (right, bottom) = found.xyxy[0, :2], found.xyxy[0, 2:]
    assert np.abs(changed.min(axis=0) - [top, left]).max() < 4 and np.abs(changed.max(axis=0) - [bottom, right]).max() < 4
    labelled = sv.LabelAnnotator(text_position=sv.Position.CENTER).annotate(drawn.copy(), found, labels=list(found["class_name"]))
    assert (labelled != drawn).any()


def test_a_track_is_followed_and_counted(detector):
    trackers = pytest.importorskip("trackers")
    tracker = trackers.ByteTrackTracker(minimum_consecutive_frames=1)
    line = sv.LineZone(sv.Point(400, 300), sv.Point(400, 0), triggering_anchors=[sv.Position.CENTER])
    tracks, seen = set(), 0
    for found in map(detector, frames()):
        tracked = tracker.update(found.to_supervision())
        tracked = tracked[tracked.tracker_id != -1]
        line.trigger(tracked)
        tracks.update(tracked.tracker_id.tolist())
        seen += len(tracked)
    assert len(tracks) == 1 and seen >= 20
    assert sorted([line.in_count, line.out_count]) == [0, 1]
