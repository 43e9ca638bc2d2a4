//! Where labels stand beside their boxes, so that none hides another.

use yolo_lat_core::geometry::BBox;

/// Black or white: what can be read on a colour.
pub fn ink(color: [u8; 3]) -> [u8; 3] {
    let [red, green, blue] = color.map(f32::from);
    let luminance = 0.299 * red + 0.587 * green + 0.114 * blue; // of BT.601
    if luminance > 140.0 { [0; 3] } else { [255; 3] }
}

/// Places for the labels of boxes, in the order of `labels`: pairs of a box and its label's width and height.
///
/// A label stands above its box at the left; if it would leave `area` or lie on another label: inside at the top, then
/// the same at the right, then below the box and inside at the bottom. A crowd that leaves no place free puts it where
/// it would stand alone. Boxes are served from the top left, not by confidence, so that labels do not change places from
/// one frame of a video to the next.
pub fn label_places(area: BBox, labels: &[(BBox, (f32, f32))]) -> Vec<BBox> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    let corner = |index: usize| (labels[index].0.y1, labels[index].0.x1);
    order.sort_by(|&a, &b| corner(a).partial_cmp(&corner(b)).unwrap_or(std::cmp::Ordering::Equal));
    let mut places = vec![BBox::default(); labels.len()];
    for (served, &index) in order.iter().enumerate() {
        let (bbox, (width, height)) = labels[index];
        // Never beyond the area's sides, whatever the box does.
        let inside = |x: f32| x.min(area.x2 - width).max(area.x1);
        let (top, bottom) = (bbox.y1.max(area.y1), bbox.y2.min(area.y2) - height);
        let (left, right) = (inside(bbox.x1), inside(bbox.x2 - width));
        let mut candidates = [[bbox.y1 - height, top], [bbox.y2, bottom]]
            .into_iter()
            .flat_map(|[outer, inner]| [(left, outer), (left, inner), (right, outer), (right, inner)])
            .map(|(x, y)| BBox::from_xywh([x, y, width, height]))
            .filter(|place| place.y1 >= area.y1 && place.y2 <= area.y2);
        let taken = |place: &BBox| order[..served].iter().any(|&other| places[other].intersection(place) > 0.0);
        let alone = candidates.clone().next().unwrap_or(BBox::from_xywh([left, top, width, height]));
        places[index] = candidates.find(|place| !taken(place)).unwrap_or(alone);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: BBox = BBox { x1: 0.0, y1: 0.0, x2: 200.0, y2: 100.0 };
    const SIZE: (f32, f32) = (40.0, 10.0);

    fn places(boxes: &[[f32; 4]]) -> Vec<[f32; 4]> {
        let labels: Vec<_> = boxes.iter().map(|&xywh| (BBox::from_xywh(xywh), SIZE)).collect();
        label_places(AREA, &labels).iter().map(BBox::xywh).collect()
    }

    #[test]
    fn a_label_stands_above_its_box_and_never_leaves_the_area() {
        assert_eq!(places(&[[20.0, 30.0, 60.0, 40.0]]), [[20.0, 20.0, 40.0, 10.0]]);
        // At the upper border inside; at the right border pulled in; a box beyond the area at the area's corner.
        assert_eq!(places(&[[20.0, 5.0, 60.0, 40.0]]), [[20.0, 5.0, 40.0, 10.0]]);
        assert_eq!(places(&[[190.0, 30.0, 10.0, 40.0]]), [[160.0, 20.0, 40.0, 10.0]]);
        assert_eq!(places(&[[-90.0, -80.0, 400.0, 400.0]]), [[0.0, 0.0, 40.0, 10.0]]);
        // A label larger than the area begins where the area begins.
        let narrow = label_places(BBox { x2: 30.0, y2: 8.0, ..AREA }, &[(BBox { x2: 30.0, y2: 8.0, ..AREA }, SIZE)]);
        assert_eq!(narrow[0].xywh(), [0.0, 0.0, 40.0, 10.0]);
    }

    #[test]
    fn labels_of_neighbours_do_not_hide_each_other() {
        let boxes = [[20.0, 30.0, 60.0, 40.0], [25.0, 32.0, 60.0, 40.0], [22.0, 31.0, 60.0, 40.0]];
        let found: Vec<BBox> = places(&boxes).into_iter().map(BBox::from_xywh).collect();
        for (index, place) in found.iter().enumerate() {
            assert!(found[..index].iter().all(|other| other.intersection(place) == 0.0), "{found:?}");
        }
        // In whatever order the boxes come, every one keeps its place.
        let turned: Vec<[f32; 4]> = boxes.iter().rev().copied().collect();
        let mut again = places(&turned);
        again.reverse();
        assert_eq!(again, places(&boxes));
        // Where there is no room for all, a label stands where it would stand alone.
        let crowd = places(&[[20.0, 30.0, 40.0, 10.0]; 40]);
        assert_eq!(crowd[39], crowd[0]);
    }

    #[test]
    fn letters_can_be_read_on_every_colour() {
        assert_eq!((ink([255, 255, 0]), ink([0, 0, 255])), ([0; 3], [255; 3]));
    }
}
