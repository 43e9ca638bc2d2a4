//! Which images a run sees, how often, and what their samples say.

use image::Rgb;

use super::*;

/// An image of one grey, `80 * (index + 1)`, whose set does not label `unknown`.
fn image(index: usize, unknown: &[usize]) -> TrainingImage {
    let pixels = RgbImage::from_pixel(40, 30, Rgb([80 * (index as u8 + 1); 3]));
    TrainingImage { path: PathBuf::new(), pixels, targets: Vec::new(), is_labelled: true, unknown: unknown.into() }
}

#[test]
fn parts_of_a_mosaic_keep_what_their_own_set_does_not_label() {
    let unknown: [&[usize]; 3] = [&[5], &[4], &[2, 7]];
    let images: Vec<TrainingImage> = (0..3).map(|index| image(index, unknown[index])).collect();
    let images = TrainingImages::from(images);
    let augmentation = Augmentation { mosaic: 1.0, ..Augmentation::gentle() };
    for seed in 0..20 {
        let Sample { pixels, regions, .. } = images.sample(seed as usize % 3, (64, 64), &augmentation, seed);
        assert_eq!(regions.len(), 4);
        assert!((regions.iter().map(|region| region.area.area()).sum::<f32>() - 64.0 * 64.0).abs() < 0.1);
        for Region { area, unknown: found } in &regions {
            // Beside the point where the four meet.
            let inside = |low: f32, high: f32| if low > 0.0 { low + 1.0 } else { high - 2.0 }.round() as usize;
            let grey = pixels[inside(area.y1, area.y2) * 64 + inside(area.x1, area.x2)] * 255.0;
            assert_eq!(found[..], *unknown[(grey / 80.0).round() as usize - 1], "{area:?}");
        }
    }
    let all_labelled = TrainingImages::from(vec![image(0, &[])]);
    assert_eq!(all_labelled.sample(0, (64, 64), &augmentation, 1).regions, []);
}

#[test]
fn a_mixture_of_two_knows_what_both_label() {
    let images = TrainingImages::from(vec![image(0, &[1]), image(1, &[2])]);
    let augmentation = Augmentation { mixup: 1.0, ..Augmentation::gentle() };
    let whole = BBox { x1: 0.0, y1: 0.0, x2: 64.0, y2: 64.0 };
    for seed in 0..10 {
        let Sample { regions, .. } = images.sample(0, (64, 64), &augmentation, seed);
        assert_eq!(regions.len(), 2);
        assert!(regions.iter().all(|region| region.area == whole));
        assert_eq!(regions[0].unknown[..], [1]);
    }
}

/// Three data sets of 30, 50 and 7 images, which differ in nothing, with these weights.
fn weighted(weights: [f64; 3]) -> TrainingImages {
    let portions: Vec<Portion> =
        [30, 50, 7].into_iter().zip(weights).map(|(count, weight)| Portion { count, weight }).collect();
    TrainingImages { all: (0..87).map(|_| image(0, &[])).collect(), portions }
}

/// How often each index is among `indices`.
fn counts(indices: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let mut counts = vec![0; 87];
    indices.into_iter().for_each(|index| counts[index] += 1);
    counts
}

#[test]
fn weights_say_how_often_an_image_is_seen() {
    let images = weighted([2.5, 0.25, 0.01]);
    // 75, 12.5 rounded up, and one rather than none.
    assert_eq!(images.per_epoch(), 75 + 13 + 1);
    let mut total = vec![0; 87];
    for epoch in 0..200 {
        let order = images.order(7, epoch);
        assert_eq!(order, images.order(7, epoch));
        let seen = counts(order);
        assert!(seen[..30].iter().all(|&times| times == 2 || times == 3) && seen[30..].iter().all(|&times| times < 2));
        let sums = [&seen[..30], &seen[30..80], &seen[80..]].map(|set| set.iter().sum::<usize>());
        assert_eq!(sums, [75, 13, 1]);
        total.iter_mut().zip(seen).for_each(|(total, seen)| *total += seen);
    }
    // Other ones in every epoch: 500 times, with a deviation of 7, and 52 times, with one of 6.
    assert!(total[..30].iter().all(|times| (465..535).contains(times)), "{total:?}");
    assert!(total[30..80].iter().all(|times| (20..84).contains(times)), "{total:?}");
    assert_ne!(images.order(7, 0), images.order(8, 0));
}

#[test]
fn without_weights_the_order_is_a_shuffle() {
    let mut order: Vec<usize> = (0..87).collect();
    order.shuffle(&mut SmallRng::seed_from_u64(7 ^ 3u64.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    assert_eq!(weighted([1.0; 3]).order(7, 3), order);
    // So are the partners in a mosaic.
    let images = weighted([1.0; 3]);
    let [mut a, mut b] = [SmallRng::seed_from_u64(5), SmallRng::seed_from_u64(5)];
    assert!((0..100).all(|_| images.any(&mut a) == b.random_range(0..87)));
}

#[test]
fn partners_in_mosaics_are_drawn_by_weight() {
    let images = weighted([2.5, 0.25, 1.0]);
    let mut random = SmallRng::seed_from_u64(1);
    let seen = counts((0..95_000).map(|_| images.any(&mut random)));
    // Of 75 + 13 + 7 samples; 2500, 260 and 1000 of each image, with deviations of 50, 16 and 32.
    assert!(seen[..30].iter().all(|times| (2250..2750).contains(times)), "{seen:?}");
    assert!(seen[30..80].iter().all(|times| (180..340).contains(times)), "{seen:?}");
    assert!(seen[80..].iter().all(|times| (840..1160).contains(times)), "{seen:?}");
}

#[test]
fn sets_say_which_classes_they_label() {
    let folder = tempfile::tempdir().unwrap();
    let [coco, voc, yolo] = ["coco", "voc", "yolo"].map(|name| folder.path().join(name));
    for path in
        [coco.clone(), voc.join("Annotations"), voc.join("JPEGImages"), yolo.join("images"), yolo.join("labels")]
    {
        std::fs::create_dir_all(path).unwrap();
    }
    for path in [coco.join("a.png"), voc.join("JPEGImages/a.png"), yolo.join("images/a.png")] {
        RgbImage::new(40, 30).save(path).unwrap();
    }
    let labels = r#"{"info": {"labelled_classes": ["cat", "laptop"]},
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "potted plant"}, {"id": 3, "name": "laptop"}],
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [4, 4, 20, 20]}]}"#;
    std::fs::write(coco.join("annotations.json"), labels).unwrap();
    let corners = "<bndbox><xmin>4</xmin><ymin>4</ymin><xmax>24</xmax><ymax>24</ymax></bndbox>";
    let object = |name: &str| format!("<object><name>{name}</name>{corners}</object>");
    let xml = format!("<annotation>{}{}</annotation>", object("cat"), object("pottedplant"));
    std::fs::write(voc.join("Annotations/a.xml"), xml).unwrap();
    std::fs::write(yolo.join("classes.txt"), "laptop\ncat\nplant pot").unwrap();
    std::fs::write(yolo.join("labels/a.txt"), "0 0.5 0.5 0.2 0.2").unwrap();
    let classes = ["cat", "potted plant", "laptop"].map(str::to_owned);
    let rename = [("plant pot".to_owned(), "potted plant".to_owned())].into();
    let labelled = [coco, voc, yolo].map(TrainingSet::from).to_vec();
    let sources = Sources { labelled, unlabelled: vec![], classes: &classes, rename: &rename, limit: None };
    let mut notes = Vec::new();
    let images = TrainingImages::load(&sources, |note| notes.push(note.to_owned())).unwrap();
    let unknown: Vec<&[usize]> = images.all.iter().map(|image| &image.unknown[..]).collect();
    let expected: [&[usize]; 3] = [&[1], &[2], &[]];
    assert_eq!(unknown, expected);
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes.iter().all(|note| note.contains("1 of the model's 3 classes are not labelled there")), "{notes:?}");
}
