//! Whole runs with a small network on the three sample photographs.

use super::*;
use crate::batch::to_bytes;
use crate::data::Augmentation;
use crate::teacher::TeacherConfig;

const TINY: &str = "../tests/data/tiny";
const BOOTSTRAP: &str = "../tests/golden/bootstrap/yolo-lat-n";

/// A run on the sample photographs, unchanged, at 96 pixels.
fn config(output: &Path, epochs: usize) -> TrainConfig {
    let model = output.join("model.toml");
    std::fs::write(
        &model,
        include_str!("../../../tests/golden/bootstrap/yolo-lat-n.toml").replace("input = 320", "input = 96"),
    )
    .unwrap();
    TrainConfig {
        model,
        init: Some(format!("{BOOTSTRAP}.safetensors").into()),
        init_only: Vec::new(),
        output: output.to_owned(),
        train: vec![TINY.into()],
        unlabelled: Vec::new(),
        rename: Default::default(),
        val: TINY.into(),
        val_limit: 3,
        size: 96,
        multi_scale: None,
        rectangles: false,
        epochs,
        batch: 3,
        accumulate: 1,
        rate: 2e-3,
        last_rate: 0.02,
        rate_shares: Default::default(),
        warmup_steps: 5,
        weight_decay: 0.0,
        clip: 10.0,
        balance: 0.01,
        ema_decay: 0.9,
        gentle_share: 0.0,
        measure_every: epochs,
        seed: 3,
        class_loss: Default::default(),
        frozen: Vec::new(),
        teachers: Vec::new(),
        limit: None,
        augmentation: Augmentation { flip: 0.0, ..Augmentation::gentle() },
    }
}

fn trainer(config: TrainConfig) -> Trainer {
    Trainer::new(config, Device::Cpu, Path::new(""), Arc::new(AtomicBool::new(false))).unwrap()
}

/// Makes `count` steps; the sum of class and box loss of each. The distribution is left out: its cross-entropy with a
/// position between two bins cannot reach 0.
fn steps(trainer: &mut Trainer, count: usize) -> Vec<f64> {
    let mut losses = Vec::new();
    while losses.len() < count {
        let mut batches = trainer.batches(trainer.state.step).unwrap();
        while losses.len() < count {
            let [mut a, mut b] = [Sums::default(), Sums::default()];
            match trainer.step(&mut batches, [&mut a, &mut b]).unwrap() {
                Some(found) => losses.push(found.class + found.boxes),
                None => break,
            }
        }
    }
    losses
}

fn parameters_of(trainer: &Trainer) -> Vec<(String, Tensor)> {
    trainer.state.network.parameters.iter().map(|(name, value)| (name.clone(), value.detach().copy())).collect()
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut whole = trainer(config(folder.path(), 6));
    whole.start(false).unwrap();
    let expected = steps(&mut whole, 6);
    let mut first = trainer(config(folder.path(), 6));
    first.start(false).unwrap();
    let mut found = steps(&mut first, 3);
    first.state.save(&first.checkpoint()).unwrap();
    let mut second = trainer(config(folder.path(), 6));
    second.start(true).unwrap();
    assert_eq!(second.state.step, 3);
    found.extend(steps(&mut second, 3));
    assert_eq!(found, expected);
    assert_eq!(parameters_of(&whole), parameters_of(&second));
}

#[test]
fn rectangles_follow_from_the_number_of_the_batch_and_teachers_see_them() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let teacher = TeacherConfig { features: [("stage3.7.concat".to_owned(), 1.0)].into(), ..dense_teacher() };
        trainer(TrainConfig {
            rectangles: true,
            multi_scale: Some([64, 128]),
            frozen: vec!["stem".to_owned()],
            teachers: vec![teacher],
            batch: 1,
            augmentation: Augmentation::default(),
            ..config(folder.path(), 3)
        })
    };
    let mut whole = run();
    whole.start(false).unwrap();
    let expected = steps(&mut whole, 6);
    let mut first = run();
    first.start(false).unwrap();
    let mut found = steps(&mut first, 4);
    first.state.save(&first.checkpoint()).unwrap();
    let mut second = run();
    second.start(true).unwrap();
    found.extend(steps(&mut second, 2));
    assert_eq!(found, expected);
    assert_eq!(parameters_of(&whole), parameters_of(&second));
}

#[test]
fn a_resumed_run_draws_by_weight_what_an_uninterrupted_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let weighted = |weight| TrainingSet { weight, ..TINY.into() };
    for rectangles in [false, true] {
        let run = || {
            trainer(TrainConfig {
                rectangles,
                train: vec![weighted(2.5), weighted(0.5)],
                batch: 2,
                augmentation: Augmentation::default(),
                ..config(folder.path(), 2)
            })
        };
        let mut whole = run();
        // 8 samples of one set and 2 of the other.
        assert_eq!((whole.batches.images.len(), whole.batches.steps_per_epoch()), (6, 5));
        whole.start(false).unwrap();
        let expected = steps(&mut whole, 10);
        let mut first = run();
        first.start(false).unwrap();
        let mut found = steps(&mut first, 7);
        first.state.save(&first.checkpoint()).unwrap();
        let mut second = run();
        second.start(true).unwrap();
        found.extend(steps(&mut second, 3));
        assert_eq!(found, expected);
        assert_eq!(parameters_of(&whole), parameters_of(&second));
    }
}

/// Batches of 4 out of 103 images of three shapes, one pixel of which tells them apart: as many wide as upright and square ones together.
fn batches_of_shapes() -> Batches {
    let image = |index: usize| {
        let (width, height) = [(40, 30), (30, 40), (40, 30), (30, 30)][index % 4];
        let grey = image::Rgb([index as u8 + 100; 3]);
        crate::data::TrainingImage {
            path: PathBuf::new(),
            pixels: image::RgbImage::from_pixel(width, height, grey),
            targets: Vec::new(),
            is_labelled: true,
            unknown: Arc::default(),
        }
    };
    let config = TrainConfig { rectangles: true, size: 320, batch: 4, ..config(&std::env::temp_dir(), 2) };
    let images = TrainingImages::from((0..103).map(image).collect::<Vec<_>>());
    Batches {
        shapes: Arc::new(shapes(&config, &images)),
        config: Arc::new(config),
        images: Arc::new(images),
        dense: Arc::default(),
        frozen: None,
        device: Device::Cpu,
    }
}

#[test]
fn a_batch_has_the_shape_of_its_images() {
    let batches = batches_of_shapes();
    assert_eq!(batches.steps_per_epoch(), 25);
    let mut seen = std::collections::BTreeMap::new();
    for number in 0..50 {
        let batch = batches.load(number).unwrap();
        let (width, height) = batch.size;
        assert!(width % 32 == 0 && height % 32 == 0 && width * height <= 320 * 320 * 11 / 10);
        *seen.entry(batch.size).or_insert(0) += 1;
        let middle = |sample: &crate::data::Sample| {
            (sample.pixels[height / 2 * width + width / 2] * 255.0).round() as usize - 100
        };
        let chosen: Vec<usize> = batch.samples.iter().map(middle).collect();
        let expected = yolo_lat::input_size::rectangle(320, batches.images.all[chosen[2]].pixels.dimensions());
        assert!(batch.size == expected || batches.config.other_shape(number).is_some(), "{number}: {:?}", batch.size);
        // The same again, whatever was loaded before.
        assert!(batch.samples.iter().zip(batches.load(number).unwrap().samples).all(|(a, b)| a.pixels == b.pixels));
    }
    assert!(seen[&(384, 288)] > 18 && seen[&(288, 384)] > 7 && seen[&(320, 320)] > 7, "{seen:?}");
    // Every image at most once an epoch; three of 103 are left out.
    let order = || batches.images.order(batches.config.seed, 1);
    let mut all: Vec<usize> = (0..25).flat_map(|index| batches.of_like_shape(order(), 1, index)).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 100);
}

#[test]
fn three_images_are_learnt_by_heart() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = trainer(config(folder.path(), 150));
    trainer.start(false).unwrap();
    let losses = steps(&mut trainer, 150);
    let model = trainer.averaged().unwrap();
    let (measured, classes) = trainer.measure(&model, 3).unwrap().unwrap();
    let map50 = 100.0 * measured.evaluate(classes).map50;
    assert!(map50 > 90.0, "mAP50 {map50}, losses {losses:?}");
    assert!(losses[149] < losses[0] / 10.0, "{} from {}", losses[149], losses[0]);
    let written = folder.path().join("yolo-lat-n.toml");
    assert!(Model::load(written.to_str().unwrap()).is_ok(), "the engines load what was written");
}

#[test]
fn a_whole_run_writes_log_checkpoint_and_weights() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), 2);
    config.multi_scale = Some([64, 128]);
    config.augmentation = Augmentation { mixup: 1.0, ..Augmentation::default() };
    config.class_loss = crate::loss::ClassLoss::Bce;
    config.rate_shares = [("stage".to_owned(), 0.1)].into();
    let mut trainer = trainer(config);
    trainer.start(false).unwrap();
    // Who trains in the background goes on editing.
    std::fs::remove_file(folder.path().join("model.toml")).unwrap();
    assert_eq!(trainer.run().unwrap(), ExitCode::SUCCESS);
    let log = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(last["epoch"], 2);
    assert!(last["map50"].is_number() && last["waited_seconds"].is_number());
    for file in ["checkpoint.safetensors", "yolo-lat-n.safetensors", "yolo-lat-n.toml", "best/yolo-lat-n.safetensors"] {
        assert!(folder.path().join(file).exists(), "{file}");
    }
}

/// The lines of a run's log that have a measurement.
fn measurements(folder: &Path) -> Vec<serde_json::Value> {
    let log = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["map50"].is_number()).collect()
}

#[test]
fn the_best_average_is_kept_and_survives_a_resume() {
    let folder = tempfile::tempdir().unwrap();
    let run = |epochs| trainer(TrainConfig { val_limit: 2, measure_every: 1, ..config(folder.path(), epochs) });
    let mut first = run(3);
    first.start(false).unwrap();
    assert_eq!(first.run().unwrap(), ExitCode::SUCCESS);
    let best = first.state.best.unwrap();
    let lines = measurements(folder.path());
    assert_eq!(lines.len(), 3);
    for line in &lines[..2] {
        assert!(line["map50"].as_f64().unwrap() <= percent(best.map50, 1e2), "{line}");
    }
    assert_eq!(lines[2]["best_map50"], percent(best.map50, 1e2));
    assert_eq!(lines[2]["best_epoch"], best.epoch);
    assert_eq!(best.photographs, 2);
    // What is kept measures as the log says.
    let kept = Model::load(folder.path().join("best/yolo-lat-n.toml").to_str().unwrap()).unwrap();
    let (measured, classes) = first.measure(&kept, 2).unwrap().unwrap();
    assert_eq!(measured.evaluate(classes).map50, best.map50);
    // Better than all that can come.
    let unreachable = Best { epoch: 2, map50: 1.5, photographs: 2 };
    first.state.best = Some(unreachable);
    first.state.save(&first.checkpoint()).unwrap();
    std::fs::remove_dir_all(folder.path().join("best")).unwrap();
    let mut second = run(4);
    second.start(true).unwrap();
    assert_eq!(second.run().unwrap(), ExitCode::SUCCESS);
    assert_eq!(second.state.best, Some(unreachable));
    assert_eq!(measurements(folder.path())[3]["best_epoch"], 2);
    assert!(!folder.path().join("best").exists());
    // Who begins anew knows of none.
    assert_eq!(run(3).state.best, None);
}

#[test]
fn the_end_is_compared_on_the_photographs_of_the_measurements_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = trainer(TrainConfig { val_limit: 2, ..config(folder.path(), 1) });
    trainer.start(false).unwrap();
    assert_eq!(trainer.run().unwrap(), ExitCode::SUCCESS);
    let model = trainer.averaged().unwrap();
    let (few, classes) = trainer.measure(&model, 2).unwrap().unwrap();
    let best = Best { epoch: 1, map50: few.evaluate(classes).map50, photographs: 2 };
    assert_eq!(trainer.state.best, Some(best));
    // Another limit, others to compare with.
    trainer.state.best = Some(Best { map50: 1.5, photographs: 1, ..best });
    trainer.keep_best(&model, &few, classes, 1).unwrap();
    assert_eq!(trainer.state.best, Some(best));
}

#[test]
fn what_is_left_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    // Two steps an epoch; measured after epochs 2, 4 and 5.
    let shape = TrainConfig { batch: 1, accumulate: 1, limit: Some(2), val_limit: 2, ..config(folder.path(), 5) };
    let mut trainer = trainer(TrainConfig { measure_every: 2, ..shape });
    let mut rest = |step, val_count| {
        (trainer.state.step, trainer.val_count) = (step, val_count);
        let Rest { steps, measurements, photographs } = trainer.rest();
        (steps, measurements, photographs)
    };
    assert_eq!(rest(1, None), (9, 3, None));
    assert_eq!(rest(1, Some(3)), (9, 3, Some(2 + 2 + 3)));
    // The second epoch's measurement comes after its last step.
    assert_eq!(rest(4, Some(3)), (6, 3, Some(7)));
    assert_eq!(rest(5, Some(3)), (5, 2, Some(5)));
    assert_eq!(rest(10, Some(3)), (0, 1, Some(3)));
}

#[test]
fn a_checkpoint_without_a_best_measurement_loads() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = trainer(config(folder.path(), 1));
    trainer.state.save(&trainer.checkpoint()).unwrap();
    trainer.state.best = Some(Best { epoch: 1, map50: 0.5, photographs: 3 });
    trainer.start(true).unwrap();
    assert_eq!(trainer.state.best, None);
}

#[test]
fn an_interrupt_saves_and_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let interrupted = Arc::new(AtomicBool::new(true));
    let mut trainer = Trainer::new(config(folder.path(), 2), Device::Cpu, Path::new(""), interrupted).unwrap();
    trainer.start(false).unwrap();
    assert_eq!(trainer.run().unwrap(), ExitCode::from(130));
    let mut again = self::trainer(config(folder.path(), 2));
    again.start(true).unwrap();
    assert_eq!(again.run().unwrap(), ExitCode::SUCCESS);
    assert_eq!(again.state.step, 2);
}

#[test]
fn a_loss_that_is_no_number_stops_and_leaves_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = trainer(config(folder.path(), 2));
    trainer.start(false).unwrap();
    let stem = trainer.state.network.parameters["stem.weight"].shallow_clone();
    let _ = tch::no_grad(|| stem.shallow_clone().fill_(f64::NAN));
    let error = trainer.run().unwrap_err().to_string();
    assert!(error.contains("not a number at step 0"), "{error}");
    let batch = Tensor::read_safetensors(folder.path().join("bad-batch.safetensors")).unwrap();
    let images = batch.iter().find(|(name, _)| name == "images").unwrap();
    assert_eq!(images.1.size(), [3, 3, 96, 96]);
}

#[test]
fn what_stays_as_it_is_may_be_computed_beforehand() {
    let folder = tempfile::tempdir().unwrap();
    for (frozen, is_first) in [(vec!["stem".to_owned(), "stage2".to_owned()], true), (vec!["stage3".to_owned()], false)]
    {
        let run = || trainer(TrainConfig { frozen: frozen.clone(), ..config(folder.path(), 2) });
        let (mut beforehand, mut within) = (run(), run());
        for trainer in [&mut beforehand, &mut within] {
            trainer.start(false).unwrap();
        }
        // Only what stands before all that learns.
        assert_eq!(beforehand.batches.frozen.is_some(), is_first);
        let batch = beforehand.batches(0).unwrap().next_item().unwrap().1.unwrap();
        if let (Some(part), Some(maps)) = (&beforehand.batches.frozen, &batch.frozen) {
            let network = &beforehand.state.network;
            let found = network.forward_from(part.first(maps, Device::Cpu), Mode::Eval);
            for (a, b) in found.iter().zip(network.forward(&batch.images(Device::Cpu), Mode::Eval)) {
                assert!((a - b).abs().max().double_value(&[]) < 1e-4);
            }
        }
        // The same steps, whichever way; AdamW makes much of a gradient that is nothing but rounding, so losses are compared.
        within.batches.frozen = None;
        let first = parameters_of(&within);
        let [a, b] = [&mut beforehand, &mut within].map(|trainer| steps(trainer, 2));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} {b:?}");
        for ((name, first), (_, found)) in first.iter().zip(parameters_of(&beforehand)) {
            let stays = frozen.iter().any(|prefix| name.starts_with(prefix.as_str()));
            assert!(*first == found || !stays, "{name}");
        }
    }
}

#[test]
fn accumulated_gradients_are_means_of_batches() {
    let folder = tempfile::tempdir().unwrap();
    // Two batches of the same images, accumulated, are one batch.
    let mut twice = trainer(TrainConfig { accumulate: 2, limit: Some(1), batch: 1, ..config(folder.path(), 2) });
    let mut once = trainer(TrainConfig { limit: Some(1), batch: 1, ..config(folder.path(), 2) });
    let mut found = Vec::new();
    for trainer in [&mut twice, &mut once] {
        trainer.start(false).unwrap();
        steps(trainer, 2);
        found.push(parameters_of(trainer));
    }
    for ((name, twice), (_, once)) in found[0].iter().zip(&found[1]) {
        let difference = (twice - once).abs().max().double_value(&[]);
        assert!(difference < 1e-4, "{name}: {difference}");
    }
    assert_eq!(twice.state.step, 2);
}

#[test]
fn with_a_rate_of_nothing_the_published_backbone_computes_what_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let text = include_str!("../../../tests/golden/bootstrap/yolo-lat-n.toml");
    let model = ModelConfig::parse(text, "n").unwrap();
    let mut network = Network::new(graph_of(&model, 352, 352).unwrap(), Device::Cpu);
    for stage in ["stage2.3.concat", "stage3.7.concat", "stage4.3.concat"] {
        network.tap(stage).unwrap();
    }
    let weights = Weights::load("golden/backbone.safetensors".as_ref()).unwrap();
    let report = network.init(&weights, |_| true).unwrap();
    assert!(report.skipped.is_empty() && report.missing.iter().all(|name| !name.starts_with("sta")), "{report:?}");
    let (count, side) = (3 * 352 * 352, 352);
    let value = |index: usize| {
        let (c, y, x) = (index / (side * side), index / side % side, index % side);
        ((7 * c + 3 * y + 5 * x) % 256) as f32 / 255.0
    };
    let image = Tensor::from_slice(&(0..count).map(value).collect::<Vec<f32>>()).reshape([1, 3, 352, 352]);
    tch::no_grad(|| network.forward(&image, Mode::Restore));
    // A step of the trainer with a learning rate of 0: statistics of the batch, decay and all.
    let mut optimizer = crate::optimizer::AdamW::new(&mut network.parameters, 0.05, &Default::default()).unwrap();
    let outputs = network.forward(&image, Mode::Train);
    outputs[0].square().sum(Kind::Float).backward();
    optimizer.step(&network.parameters, 0.0, 10.0);
    let outputs = network.forward(&image, Mode::Train);
    let published: serde_json::Value = serde_json::from_str(include_str!("../../golden/stages.json")).unwrap();
    for (stage, output) in ["stage2", "stage3", "stage4"].into_iter().zip(&outputs[outputs.len() - 3..]) {
        let found: Vec<f32> = Vec::try_from(&output.detach().contiguous().reshape([-1])).unwrap();
        let expected: Vec<f64> = serde_json::from_value(published[stage].clone()).unwrap();
        let largest = expected.iter().fold(1.0f64, |largest, x| largest.max(x.abs()));
        assert_eq!(found.len().div_ceil(97), expected.len());
        for (found, expected) in found.iter().step_by(97).zip(expected) {
            let difference = (f64::from(*found) - expected).abs() / largest;
            assert!(difference < 1e-4, "{stage}: {found} instead of {expected}");
        }
    }
    drop(folder);
}

/// The sample photographs as a VOC and as a YOLO folder.
fn other_formats(folder: &Path) -> [PathBuf; 2] {
    let dataset = Dataset::load(TINY.as_ref(), Split::Prefer("val")).unwrap();
    let (voc, yolo) = (folder.join("voc"), folder.join("yolo"));
    for path in [voc.join("Annotations"), voc.join("JPEGImages"), yolo.join("labels"), yolo.join("images")] {
        std::fs::create_dir_all(path).unwrap();
    }
    std::fs::write(yolo.join("classes.txt"), dataset.classes.join("\n")).unwrap();
    for image in &dataset.images {
        let (stem, name) = (image.path.file_stem().unwrap(), image.path.file_name().unwrap());
        let (stem, name) = (stem.to_string_lossy(), name.to_string_lossy());
        let (width, height) = image::image_dimensions(&image.path).unwrap();
        let (mut xml, mut txt) = (format!("<annotation><filename>{name}</filename>"), String::new());
        for object in &image.objects {
            let (class, bbox) = (&dataset.classes[object.class], object.bbox);
            xml += &format!(
                "<object><name>{class}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>",
                bbox.x1, bbox.y1, bbox.x2, bbox.y2
            );
            let (w, h) = (width as f32, height as f32);
            let (x, y) = ((bbox.x1 + bbox.x2) / 2.0 / w, (bbox.y1 + bbox.y2) / 2.0 / h);
            txt += &format!("{} {x} {y} {} {}\n", object.class, bbox.width() / w, bbox.height() / h);
        }
        std::fs::write(voc.join(format!("Annotations/{stem}.xml")), xml + "</annotation>").unwrap();
        std::fs::write(yolo.join(format!("labels/{stem}.txt")), txt).unwrap();
        std::fs::copy(&image.path, voc.join("JPEGImages").join(&*name)).unwrap();
        std::fs::copy(&image.path, yolo.join("images").join(&*name)).unwrap();
    }
    [voc, yolo]
}

#[test]
fn data_sets_of_all_formats_mix_and_classes_are_matched_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let [voc, yolo] = other_formats(folder.path());
    let classes = yolo_lat::model::load_config("n").unwrap().classes;
    let load = |labelled: Vec<PathBuf>, rename: &std::collections::BTreeMap<String, String>| {
        let labelled = labelled.into_iter().map(TrainingSet::from).collect();
        let sources = Sources { labelled, unlabelled: Vec::new(), classes: &classes, rename, limit: None };
        TrainingImages::load(&sources, |line| {
            let is_known =
                line.ends_with("the model lacks homo sapiens; left out") || line.contains("not labelled there");
            assert!(is_known, "{line}")
        })
    };
    let none = Default::default();
    let mixed = load(vec![TINY.into(), voc.clone(), yolo.clone()], &none).unwrap();
    assert_eq!(mixed.len(), 9);
    for index in 0..3 {
        for other in [index + 3, index + 6] {
            let (a, b) = (&mixed.all[index].targets, &mixed.all[other].targets);
            assert_eq!(a.len(), b.len());
            for (a, b) in a.iter().zip(b) {
                assert_eq!(a.class, b.class);
                assert!(a.bbox.iou(&b.bbox) > 0.999);
            }
        }
    }
    // A name that nobody knows is mapped by the configuration.
    let names = std::fs::read_to_string(yolo.join("classes.txt")).unwrap();
    std::fs::write(yolo.join("classes.txt"), names.replace("person", "homo sapiens")).unwrap();
    let people = |images: &TrainingImages| {
        let person = classes.iter().position(|class| class == "person");
        images.all.iter().flat_map(|image| &image.targets).filter(|t| Some(t.class) == person).count()
    };
    let expected = people(&load(vec![voc], &none).unwrap());
    assert!(expected > 0);
    assert_eq!(people(&load(vec![yolo.clone()], &none).unwrap()), 0);
    let rename = [("homo sapiens".to_owned(), "person".to_owned())].into();
    assert_eq!(people(&load(vec![yolo], &rename).unwrap()), expected);
}

#[test]
fn a_cached_teacher_is_asked_once_and_labels_what_nobody_did() {
    let folder = tempfile::tempdir().unwrap();
    let taught = |labels_from| {
        let teacher = TeacherConfig {
            file: Some(format!("{BOOTSTRAP}.toml").into()),
            answers: teacher::Mode::Cached,
            class: 1.0,
            boxes: 1.0,
            size: Some(160),
            cache: Some(folder.path().join("answers.safetensors")),
            features: Default::default(),
            labels_from: Some(labels_from),
        };
        TrainConfig {
            unlabelled: vec!["../assets".into()],
            teachers: vec![teacher],
            limit: Some(2),
            ..config(folder.path(), 1)
        }
    };
    let mut trainer = trainer(taught(0.3));
    let images = &trainer.batches.images.all;
    assert_eq!(images.len(), 4);
    let labels = |index: usize| images[index].targets.iter().filter(|target| target.scores.is_none()).count();
    assert!(images[2].targets.len() > labels(2), "soft boxes are kept beside the labels");
    let expected = Dataset::load(TINY.as_ref(), Split::Prefer("val")).unwrap().images[0].objects.len();
    assert_eq!(labels(0), expected, "labelled images keep their labels");
    assert!(labels(2) + labels(3) > 0, "unlabelled images get some");
    trainer.start(false).unwrap();
    let written = std::fs::metadata(folder.path().join("answers.safetensors")).unwrap().modified().unwrap();
    let [mut a, mut b] = [Sums::default(), Sums::default()];
    let mut batches = trainer.batches(0).unwrap();
    let found = trainer.step(&mut batches, [&mut a, &mut b]).unwrap().unwrap();
    assert!(found.teacher > 0.0);
    let again = self::trainer(taught(0.3));
    assert_eq!(std::fs::metadata(folder.path().join("answers.safetensors")).unwrap().modified().unwrap(), written);
    for (a, b) in trainer.batches.images.all.iter().zip(&again.batches.images.all) {
        assert_eq!(a.targets, b.targets);
    }
    // Nothing is so sure as to become a label.
    let unsure = self::trainer(taught(1.1));
    assert!(unsure.batches.images.all[2].targets.iter().all(|target| target.scores.is_some()));
}

/// The bootstrap, asked about every sample.
fn dense_teacher() -> TeacherConfig {
    TeacherConfig {
        file: Some(format!("{BOOTSTRAP}.toml").into()),
        answers: teacher::Mode::Dense,
        class: 1.0,
        boxes: 1.0,
        size: None,
        cache: None,
        features: Default::default(),
        labels_from: None,
    }
}

#[test]
fn dense_teachers_answer_every_sample() {
    let folder = tempfile::tempdir().unwrap();
    // A student that is the teacher has little to learn (the cross-entropy with a position between two bins, and what
    // batch norms of another batch change), one that knows nothing has much.
    let taught = |init: Option<PathBuf>| {
        let config = TrainConfig { teachers: vec![dense_teacher()], init, batch: 16, ..config(folder.path(), 1) };
        let mut trainer = trainer(config);
        trainer.start(false).unwrap();
        let batch = trainer.batches(0).unwrap().next_item().unwrap().1.unwrap();
        trainer.backward(&batch).unwrap().teacher
    };
    let (same, nothing) = (taught(Some(format!("{BOOTSTRAP}.safetensors").into())), taught(None));
    assert!(same < 0.1 * nothing, "{same} against {nothing}");
}

#[test]
fn a_teacher_on_the_device_teaches_as_one_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let teacher = TeacherConfig { features: [("stage3.7.concat".to_owned(), 1.0)].into(), ..dense_teacher() };
    let mut trainer = trainer(TrainConfig { teachers: vec![teacher], batch: 4, ..config(folder.path(), 1) });
    trainer.start(false).unwrap();
    let batch = |trainer: &Trainer| trainer.batches(0).unwrap().next_item().unwrap().1.unwrap();
    let beside = batch(&trainer);
    let expected = trainer.backward(&beside).unwrap();
    trainer.on_device = vec![trainer.batches.dense[0].on(Device::Cpu).unwrap()];
    trainer.batches.dense = Arc::default();
    let on_device = batch(&trainer);
    assert!(!beside.dense.is_empty() && on_device.dense.is_empty());
    let found = trainer.backward(&on_device).unwrap();
    for (found, expected) in [(found.teacher, expected.teacher), (found.distillation, expected.distillation)] {
        assert!(expected > 0.0 && (found - expected).abs() < 1e-3 * expected, "{found} instead of {expected}");
    }
}

#[test]
fn a_run_that_is_over_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut long = trainer(config(folder.path(), 3));
    long.start(false).unwrap();
    assert_eq!(long.run().unwrap(), ExitCode::SUCCESS);
    for epochs in [3, 1] {
        let mut again = trainer(config(folder.path(), epochs));
        again.start(true).unwrap();
        assert_eq!(again.run().unwrap(), ExitCode::SUCCESS);
        assert_eq!(again.state.step, 3);
    }
}

#[test]
fn classes_that_a_set_does_not_label_are_no_negatives() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = trainer(config(folder.path(), 1));
    trainer.start(false).unwrap();
    let batch = trainer.batches(0).unwrap().next_item().unwrap().1.unwrap();
    trainer.backward(&batch).unwrap();
    let labelled = Dataset::load(TINY.as_ref(), Split::Prefer("train")).unwrap().classes;
    let labelled: Vec<usize> = labelled
        .iter()
        .map(|name| yolo_lat::model::classes::find_class(name, &trainer.model.classes).unwrap())
        .collect();
    for head in ["head8", "head16", "head32"] {
        let gradient = trainer.state.network.parameters[&format!("{head}.class.out.bias")].grad();
        for class in 0..trainer.model.classes.len() {
            let is_learnt = gradient.double_value(&[class as i64]) != 0.0;
            assert_eq!(is_learnt, labelled.contains(&class), "{head} class {class}");
        }
    }
}

#[test]
fn images_travel_as_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let trainer = trainer(config(folder.path(), 1));
    let mut batch = trainer.batches(0).unwrap().next_item().unwrap().1.unwrap();
    let expected = batch.images(Device::Cpu);
    batch.bytes = Some(to_bytes(&mut batch.samples, batch.size, Device::Cpu));
    assert!(batch.samples.iter().all(|sample| sample.pixels.is_empty()));
    let found = batch.images(Device::Cpu);
    assert_eq!(found.size(), expected.size());
    let worst = (found - expected).abs().max().double_value(&[]);
    assert!(worst < 0.501 / 255.0, "{worst}");
}

#[test]
fn what_a_teacher_shows_is_told_from_the_own_maps() {
    let folder = tempfile::tempdir().unwrap();
    let teacher = |layer: &str| TeacherConfig {
        class: 0.0,
        boxes: 0.0,
        features: [(layer.to_owned(), 1.0)].into(),
        ..dense_teacher()
    };
    let taught = |init: Option<PathBuf>| {
        let teachers = vec![teacher("stage3.7.concat")];
        let mut trainer = trainer(TrainConfig { teachers, init, batch: 16, ..config(folder.path(), 30) });
        trainer.start(false).unwrap();
        trainer
    };
    let untold = |trainer: &Trainer| {
        let batch = trainer.batches(0).unwrap().next_item().unwrap().1.unwrap();
        let Tensors { teacher_outputs, .. } = trainer.tensors(&batch, None);
        let images = batch.images(Device::Cpu);
        let outputs = trainer.state.network.forward(&images, Mode::Train);
        FeatureDistillation::loss(&trainer.distillations, &trainer.state.network, &outputs[6..], &teacher_outputs)
            .unwrap()
    };
    let number = |loss: &Tensor| loss.double_value(&[]);
    // Who is the teacher tells all of it, batch norms of another batch aside.
    let same = number(&untold(&taught(Some(format!("{BOOTSTRAP}.safetensors").into()))));
    // Who knows nothing learns from it, in the layers before as well as in the linear map.
    let student = taught(None);
    let before = untold(&student);
    before.backward();
    for (name, parameter) in &student.state.network.parameters {
        if name.starts_with("stage3.0") || name.starts_with("distillation0") {
            assert!(parameter.grad().abs().max().double_value(&[]) > 0.0, "{name}");
        }
    }
    // A step down the gradients that is to take a hundredth of the loss does so.
    let parameters = || student.state.network.parameters.values().filter(|parameter| parameter.grad().defined());
    let steepness: f64 = parameters().map(|parameter| number(&parameter.grad().square().sum(Kind::Float))).sum();
    let before = number(&before);
    tch::no_grad(|| {
        for parameter in parameters() {
            let _ = parameter.shallow_clone().g_sub_(&(parameter.grad() * (0.01 * before / steepness)));
        }
    });
    let after = number(&untold(&student));
    assert!(100.0 * same < before, "{same} against {before}");
    assert!((0.5..1.5).contains(&(100.0 * (1.0 - after / before))), "{before}, then {after}");

    let config = TrainConfig { teachers: vec![teacher("stage9")], ..config(folder.path(), 1) };
    let found = Trainer::new(config, Device::Cpu, Path::new(""), Arc::new(AtomicBool::new(false)));
    let error = found.err().unwrap().to_string();
    assert!(error.contains("no layer \"stage9\""), "{error}");
}
