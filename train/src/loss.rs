//! What training minimises: varifocal (or cross-entropy) classes, CIoU boxes, distribution focal distances, on task-aligned
//! assignments; the same against what teachers say.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use yolo_lat::model::config::{HeadConfig, STRIDES};

/// Cells of one scale that may learn an object.
const CANDIDATES: i64 = 10;
/// Weights of the parts.
const BOX_WEIGHT: f64 = 2.0;
const DISTRIBUTION_WEIGHT: f64 = 0.5;
/// A teacher's boxes count where its best class has at least this score.
const LEAST_CERTAINTY: f64 = 0.05;

/// How classes are learnt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClassLoss {
    /// Varifocal loss (Zhang et al. 2021): positives weighted by their quality, negatives by 0.75 p^2.
    #[default]
    Varifocal,
    /// Binary cross-entropy with the quality, every cell alike.
    Bce,
}

/// Boxes of a batch, padded to the image with the most of them.
pub(crate) struct Targets {
    /// (n, m) class indices, 0 where padded.
    pub(crate) classes: Tensor,
    /// (n, m, 4) corners in network pixels.
    pub(crate) boxes: Tensor,
    /// (n, m) 1 for an object, 0 for padding.
    pub(crate) mask: Tensor,
    /// (n, m, classes) a teacher's probabilities; without them the class is certain.
    pub(crate) scores: Option<Tensor>,
    /// Where classes are not labelled; `None` if all are everywhere.
    pub(crate) regions: Option<Regions>,
}

/// Parts of a batch's images in which some classes are not labelled, padded to the image with the most of them.
pub(crate) struct Regions {
    /// (n, r, 4) corners in network pixels, 0 where padded.
    pub(crate) areas: Tensor,
    /// (n, r, classes) 1 for a class that is not labelled there.
    pub(crate) unknown: Tensor,
}

/// What a teacher says to a batch.
pub(crate) enum Answers {
    /// Cell by cell, to the very images of the batch.
    Dense(DenseAnswers),
    /// Boxes that it found in the images, moved with them.
    Boxes(Targets),
}

/// A teacher and how much its answers weigh.
pub(crate) struct TeacherOutput {
    pub(crate) answers: Answers,
    pub(crate) class_weight: f64,
    pub(crate) box_weight: f64,
}

/// A teacher's answers cell by cell.
pub(crate) struct DenseAnswers {
    /// (n, a, classes) probabilities.
    pub(crate) scores: Tensor,
    /// (n, a, 4) corners in network pixels.
    pub(crate) boxes: Tensor,
    /// (n, channels, rows, columns) of each layer that the teacher shows.
    pub(crate) features: Vec<Tensor>,
}

/// The loss and its parts.
pub(crate) struct Loss {
    pub(crate) total: Tensor,
    pub(crate) class: f64,
    pub(crate) boxes: f64,
    pub(crate) distribution: f64,
    /// 0 without a teacher.
    pub(crate) teacher: f64,
    /// 0 without a teacher that shows its maps.
    pub(crate) distillation: f64,
}

/// Predictions of all cells of a batch, flattened: finest scale first, rows of cells first.
struct Predictions {
    /// (n, a, classes)
    class_logits: Tensor,
    /// (n, a, 4, bins)
    box_logits: Tensor,
    /// (n, a, 4) corners in network pixels.
    boxes: Tensor,
    /// (a, 2) centres in network pixels.
    centers: Tensor,
    /// (a)
    strides: Tensor,
}

impl DenseAnswers {
    /// What a model of this project says: after its results, the maps that it shows. `classes` has the indices of the wanted ones.
    pub(crate) fn of(outputs: &[Tensor], head: HeadConfig, classes: &Tensor) -> Self {
        let (results, features) = outputs.split_at(2 * STRIDES.len());
        let Predictions { class_logits, boxes, .. } = flatten(results, head);
        let features = features.iter().map(Tensor::shallow_clone).collect();
        Self { scores: class_logits.sigmoid().index_select(-1, classes), boxes, features }
    }
}

/// `sum_dim_intlist` without its ceremony.
fn sum(x: &Tensor, dim: i64) -> Tensor {
    x.sum_dim_intlist(&[dim][..], false, Kind::Float)
}

fn flatten(outputs: &[Tensor], head: HeadConfig) -> Predictions {
    let device = outputs[0].device();
    let bins = head.bins as i64;
    let (mut class_logits, mut box_logits, mut centers, mut strides) = (vec![], vec![], vec![], vec![]);
    for (pair, stride) in outputs.chunks_exact(2).zip(STRIDES) {
        let size = pair[0].size();
        let (batch, height, width) = (size[0], size[2], size[3]);
        let rows = |x: &Tensor| x.permute([0, 2, 3, 1]).reshape([batch, height * width, -1]);
        class_logits.push(rows(&pair[0]));
        box_logits.push(rows(&pair[1]));
        let axis = |count: i64| (Tensor::arange(count, (Kind::Float, device)) + 0.5) * stride as f64;
        let grid = Tensor::meshgrid_indexing(&[axis(height), axis(width)], "ij");
        centers.push(Tensor::stack(&[&grid[1], &grid[0]], -1).reshape([-1, 2]));
        strides.push(Tensor::full([height * width], stride as f64, (Kind::Float, device)));
    }
    let (class_logits, centers, strides) =
        (Tensor::cat(&class_logits, 1), Tensor::cat(&centers, 0), Tensor::cat(&strides, 0));
    let box_logits = Tensor::cat(&box_logits, 1);
    let box_logits = box_logits.reshape([box_logits.size()[0], -1, 4, bins]);
    let projection = Tensor::linspace(0.0, f64::from(head.max_distance), bins, (Kind::Float, device));
    let distances = box_logits.softmax(-1, Kind::Float).matmul(&projection) * strides.reshape([1, -1, 1]);
    let center = centers.unsqueeze(0);
    let low = &center - distances.narrow(-1, 0, 2);
    let high = &center + distances.narrow(-1, 2, 2);
    Predictions { class_logits, box_logits, boxes: Tensor::cat(&[low, high], -1), centers, strides }
}

/// IoU and, if `complete`, CIoU (Zheng et al. 2020) of boxes (..., 4) that broadcast against each other.
fn overlap(a: &Tensor, b: &Tensor, complete: bool) -> Tensor {
    let part = |x: &Tensor, index: i64| x.select(-1, index);
    let [ax1, ay1, ax2, ay2] = [0, 1, 2, 3].map(|index| part(a, index));
    let [bx1, by1, bx2, by2] = [0, 1, 2, 3].map(|index| part(b, index));
    let width = (ax2.minimum(&bx2) - ax1.maximum(&bx1)).clamp_min(0.0);
    let height = (ay2.minimum(&by2) - ay1.maximum(&by1)).clamp_min(0.0);
    let intersection = width * height;
    let (aw, ah, bw, bh) = (&ax2 - &ax1, &ay2 - &ay1, &bx2 - &bx1, &by2 - &by1);
    let iou = &intersection / (&aw * &ah + &bw * &bh - &intersection).clamp_min(1e-7);
    if !complete {
        return iou;
    }
    let (hull_w, hull_h) = (ax2.maximum(&bx2) - ax1.minimum(&bx1), ay2.maximum(&by2) - ay1.minimum(&by1));
    let diagonal = hull_w.square() + hull_h.square() + 1e-7;
    let distance = ((ax1 + ax2 - bx1 - bx2).square() + (ay1 + ay2 - by1 - by2).square()) / 4.0;
    let angle = |w: &Tensor, h: &Tensor| (w / h.clamp_min(1e-7)).atan();
    let aspect = (angle(&bw, &bh) - angle(&aw, &ah)).square() * (4.0 / std::f64::consts::PI.powi(2));
    let weight = (&aspect / (&aspect - &iou + (1.0 + 1e-7))).detach();
    iou - distance / diagonal - weight * aspect
}

/// What each cell shall learn.
struct Assignment {
    /// (n, a) index of the object, 0 where none.
    object: Tensor,
    /// (n, a) quality in 0..1, 0 where there is no object.
    quality: Tensor,
}

/// Task-aligned assignment (Feng et al. 2021): an object goes to the ten cells of highest `score^0.5 IoU^6` among those
/// inside its box or within half a stride of its centre; a cell that several objects want goes to the best overlap.
fn assign(predictions: &Predictions, targets: &Targets) -> Assignment {
    let scores = predictions.class_logits.detach().sigmoid();
    let cells = scores.size()[1];
    let objects = targets.classes.size()[1];
    // All (n, m, a).
    let index = targets.classes.unsqueeze(-1).expand([-1, objects, cells], false);
    let score = scores.transpose(1, 2).gather(1, &index, false);
    let boxes = targets.boxes.unsqueeze(2);
    let iou = overlap(&predictions.boxes.detach().unsqueeze(1), &boxes, false).clamp(0.0, 1.0);
    let centers = predictions.centers.reshape([1, 1, -1, 2]);
    let reach = predictions.strides.reshape([1, 1, -1, 1]) * 0.5;
    let middle = (boxes.narrow(-1, 0, 2) + boxes.narrow(-1, 2, 2)) / 2.0;
    // The box, stretched so that it reaches at least half a stride from its centre.
    let low = boxes.narrow(-1, 0, 2).minimum(&(&middle - &reach));
    let high = boxes.narrow(-1, 2, 2).maximum(&(&middle + &reach));
    let inside = (&centers - low).minimum(&(high - &centers)).amin(-1, false).gt(0.0);
    let allowed = inside.logical_and(&targets.mask.unsqueeze(-1).gt(0.0)).to_kind(Kind::Float);
    let alignment = score.sqrt() * iou.pow_tensor_scalar(6.0) * &allowed;
    // A tiny floor lets objects that nothing overlaps yet have candidates too.
    let (_, best) = (&alignment + &allowed * 1e-9).topk(CANDIDATES.min(cells), -1, true, true);
    let chosen = alignment.zeros_like().scatter_value(-1, &best, 1.0) * allowed;
    let (claim, object) = (&chosen * (&iou + 1e-9)).max_dim(1, false);
    let is_positive = claim.gt(0.0).to_kind(Kind::Float);
    let owned = alignment.zeros_like().scatter_value(1, &object.unsqueeze(1), 1.0) * &chosen * is_positive.unsqueeze(1);
    let owned_alignment = &alignment * &owned;
    let peak_alignment = owned_alignment.amax(-1, true);
    let peak_iou = (&iou * &owned).amax(-1, true);
    let quality = (owned_alignment / (peak_alignment + 1e-9) * peak_iou).amax(1, false);
    Assignment { object, quality }
}

/// The loss of a batch and, added to it, its difference from what teachers say, and what the network does not tell of their maps.
pub(crate) fn loss(
    outputs: &[Tensor],
    targets: &Targets,
    teacher_outputs: &[TeacherOutput],
    distillation: Option<Tensor>,
    head: HeadConfig,
    class_loss: ClassLoss,
) -> Loss {
    let predictions = flatten(outputs, head);
    let parts = box_loss(&predictions, targets, head, class_loss);
    let mut teacher = parts.class.zeros_like();
    for TeacherOutput { answers, class_weight, box_weight } in teacher_outputs {
        teacher += match answers {
            Answers::Dense(answers) => dense_loss(&predictions, answers, head, *class_weight, *box_weight),
            Answers::Boxes(targets) => {
                let parts = box_loss(&predictions, targets, head, class_loss);
                let boxes = parts.boxes * BOX_WEIGHT + parts.distribution * DISTRIBUTION_WEIGHT;
                parts.class * *class_weight + boxes * *box_weight
            }
        };
    }
    let distillation = distillation.unwrap_or_else(|| teacher.zeros_like());
    // All at once: whoever reads a number waits until the device has come to it.
    let all = Tensor::stack(&[&parts.class, &parts.boxes, &parts.distribution, &teacher, &distillation], 0);
    let read = Vec::<f32>::try_from(all.detach().to_device(Device::Cpu)).ok().and_then(|read| read.try_into().ok());
    let [class, boxes, distribution, teachers, distillations] = read.unwrap_or([f32::NAN; 5]).map(f64::from);
    Loss {
        class,
        boxes,
        distribution,
        teacher: teachers,
        distillation: distillations,
        total: parts.class
            + parts.boxes * BOX_WEIGHT
            + parts.distribution * DISTRIBUTION_WEIGHT
            + teacher
            + distillation,
    }
}

/// The three parts of the loss against boxes, each over the sum of qualities.
struct Parts {
    class: Tensor,
    boxes: Tensor,
    distribution: Tensor,
}

fn box_loss(predictions: &Predictions, targets: &Targets, head: HeadConfig, class_loss: ClassLoss) -> Parts {
    let Assignment { object, quality } = tch::no_grad(|| assign(predictions, targets));
    let normalizer = quality.sum(Kind::Float).clamp_min(1.0);
    let wanted = wanted_scores(predictions, targets, &object, &quality);
    let known = targets.regions.as_ref().map(|regions| known_classes(predictions, regions));
    let class = score_loss(&predictions.class_logits, &wanted, known.as_ref(), class_loss) / &normalizer;
    // A teacher's box counts as far as the teacher is sure of it.
    let weight = match &targets.scores {
        Some(_) => wanted.amax(-1, false),
        None => quality,
    };
    let positive = weight.gt(0.0).reshape([-1]).nonzero().squeeze_dim(-1);
    let weight = weight.reshape([-1]).index_select(0, &positive);
    let object_boxes = targets.boxes.gather(1, &object.unsqueeze(-1).expand([-1, -1, 4], false), false);
    let wanted = object_boxes.reshape([-1, 4]).index_select(0, &positive);
    let found = predictions.boxes.reshape([-1, 4]).index_select(0, &positive);
    let boxes = ((overlap(&found, &wanted, true).neg() + 1.0) * &weight).sum(Kind::Float) / &normalizer;
    let distribution = distribution_loss(predictions, &wanted, &positive, &weight, head) / normalizer;
    Parts { class, boxes, distribution }
}

/// (n, a, classes): each cell's quality at its object's class, or spread over the classes as the teacher sees them.
fn wanted_scores(predictions: &Predictions, targets: &Targets, object: &Tensor, quality: &Tensor) -> Tensor {
    let quality = quality.unsqueeze(-1);
    match &targets.scores {
        Some(scores) => {
            let classes = scores.size()[2];
            scores.gather(1, &object.unsqueeze(-1).expand([-1, -1, classes], false), false) * quality
        }
        None => {
            let class = targets.classes.gather(1, object, false);
            predictions.class_logits.zeros_like().scatter(2, &class.unsqueeze(-1), &quality)
        }
    }
}

/// (n, a, classes): 0 where the middle of a cell lies in a region that does not label the class, else 1.
fn known_classes(predictions: &Predictions, regions: &Regions) -> Tensor {
    let centers = predictions.centers.reshape([1, -1, 1, 2]);
    let areas = regions.areas.unsqueeze(1);
    let low = &centers - areas.narrow(-1, 0, 2);
    let inside = low.minimum(&(areas.narrow(-1, 2, 2) - &centers)).amin(-1, false).ge(0.0).to_kind(Kind::Float);
    inside.matmul(&regions.unknown).lt(0.5).to_kind(Kind::Float)
}

/// Sum over all cells and classes. Negatives count as far as they are `known`; positives always do.
fn score_loss(logits: &Tensor, wanted: &Tensor, known: Option<&Tensor>, kind: ClassLoss) -> Tensor {
    let weight = match kind {
        ClassLoss::Bce => known.map(|known| known.maximum(&wanted.gt(0.0).to_kind(Kind::Float))),
        ClassLoss::Varifocal => {
            let negatives = logits.detach().sigmoid().square() * 0.75;
            let negatives = match known {
                Some(known) => negatives * known,
                None => negatives,
            };
            Some(wanted.where_self(&wanted.gt(0.0), &negatives))
        }
    };
    logits.binary_cross_entropy_with_logits(wanted, weight.as_ref(), None::<&Tensor>, tch::Reduction::Sum)
}

/// Difference from a teacher: cross-entropy with its class scores, CIoU and distribution loss against its boxes where
/// it is sure of an object. Both are sums over cells, divided by the sum of the teacher's best scores.
fn dense_loss(
    predictions: &Predictions,
    teacher: &DenseAnswers,
    head: HeadConfig,
    class_weight: f64,
    box_weight: f64,
) -> Tensor {
    let certainty = teacher.scores.amax(-1, false).reshape([-1]);
    let certainty = certainty.where_self(&certainty.gt(LEAST_CERTAINTY), &certainty.zeros_like());
    let normalizer = certainty.sum(Kind::Float).clamp_min(1.0);
    let logits = &predictions.class_logits;
    let class =
        logits.binary_cross_entropy_with_logits(&teacher.scores, None::<&Tensor>, None::<&Tensor>, tch::Reduction::Sum);
    // Less the entropy of the teacher, below which no student gets: 0 is perfect.
    let clamped = teacher.scores.clamp(1e-6, 1.0 - 1e-6);
    let rest: Tensor = 1.0 - &clamped;
    let entropy = (&clamped * clamped.log() + &rest * rest.log()).sum(Kind::Float);
    let class = (class + entropy) / &normalizer;
    let positive = certainty.gt(0.0).nonzero().squeeze_dim(-1);
    let weight = certainty.index_select(0, &positive);
    let wanted = teacher.boxes.reshape([-1, 4]).index_select(0, &positive);
    let found = predictions.boxes.reshape([-1, 4]).index_select(0, &positive);
    let boxes = ((overlap(&found, &wanted, true).neg() + 1.0) * &weight).sum(Kind::Float) * BOX_WEIGHT;
    let distribution = distribution_loss(predictions, &wanted, &positive, &weight, head) * DISTRIBUTION_WEIGHT;
    class * class_weight + (boxes + distribution) / normalizer * box_weight
}

/// Cross-entropy with the two bins next to each distance (Li et al. 2020).
fn distribution_loss(
    predictions: &Predictions,
    wanted: &Tensor,
    positive: &Tensor,
    weight: &Tensor,
    head: HeadConfig,
) -> Tensor {
    let bins = head.bins as i64;
    let batch = predictions.boxes.size()[0];
    let pick = |x: &Tensor, width: i64| {
        let all = x.unsqueeze(0).expand([batch, -1, width], false).reshape([-1, width]);
        all.index_select(0, positive)
    };
    let centers = pick(&predictions.centers, 2);
    let strides = pick(&predictions.strides.unsqueeze(-1), 1);
    let distances = Tensor::cat(&[&centers - wanted.narrow(-1, 0, 2), wanted.narrow(-1, 2, 2) - &centers], -1);
    let step = f64::from(head.max_distance) / (bins - 1) as f64;
    let position = (distances / strides / step).clamp(0.0, (bins - 1) as f64 - 1e-3);
    let lower = position.floor();
    let upper_share = &position - &lower;
    let logits = predictions.box_logits.reshape([-1, 4, bins]).index_select(0, positive).log_softmax(-1, Kind::Float);
    let lower = lower.to_kind(Kind::Int64).unsqueeze(-1);
    let at = |index: &Tensor| logits.gather(-1, index, false).squeeze_dim(-1);
    let entropy = (at(&lower) * (upper_share.neg() + 1.0) + at(&(&lower + 1)) * upper_share).neg();
    (sum(&entropy, -1) / 4.0 * weight).sum(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: i64 = 3;

    /// Gradients (a, classes) of the class logits, an object of class 0 around the middle of 64 x 64 pixels.
    fn gradients(regions: Option<Regions>, class_loss: ClassLoss) -> Tensor {
        let head = HeadConfig { bins: 8, max_distance: 7.0, shared: 0 };
        let maps = |channels: i64, value: f64| {
            STRIDES.map(|stride| {
                let side = 64 / stride as i64;
                Tensor::full([1, channels, side, side], value, (Kind::Float, Device::Cpu)).set_requires_grad(true)
            })
        };
        let (class, boxes) = (maps(CLASSES, -1.0), maps(4 * 8, 0.0));
        let outputs: Vec<Tensor> =
            class.iter().zip(&boxes).flat_map(|(a, b)| [a, b].map(Tensor::shallow_clone)).collect();
        let targets = Targets {
            classes: Tensor::zeros([1, 1], (Kind::Int64, Device::Cpu)),
            boxes: Tensor::from_slice(&[12.0f32, 10.0, 52.0, 54.0]).reshape([1, 1, 4]),
            mask: Tensor::ones([1, 1], (Kind::Float, Device::Cpu)),
            scores: None,
            regions,
        };
        loss(&outputs, &targets, &[], None, head, class_loss).total.backward();
        let rows = class.iter().map(|map| map.grad().permute([0, 2, 3, 1]).reshape([-1, CLASSES]));
        Tensor::cat(&rows.collect::<Vec<_>>(), 0)
    }

    /// The left half, padded, with these classes unlabelled.
    fn left(unknown: &[f32]) -> Option<Regions> {
        let areas = Tensor::from_slice(&[0.0f32, 0.0, 32.0, 64.0, 0.0, 0.0, 0.0, 0.0]).reshape([1, 2, 4]);
        let unknown = Tensor::from_slice(unknown).reshape([1, 1, CLASSES]);
        Some(Regions { areas, unknown: Tensor::cat(&[&unknown, &unknown.zeros_like()], 1) })
    }

    #[test]
    fn a_class_that_is_not_labelled_in_a_region_teaches_nothing_there_but_where_it_is_found() {
        for kind in [ClassLoss::Varifocal, ClassLoss::Bce] {
            let (all, some) = (gradients(None, kind), gradients(left(&[1.0, 1.0, 0.0]), kind));
            let columns = STRIDES.iter().flat_map(|stride| {
                (0..64 / stride).flat_map(move |_| 0..64 / stride).map(move |column| (column * stride) < 32)
            });
            let mut kept = 0;
            for (cell, in_region) in columns.enumerate() {
                let at = |gradients: &Tensor, class: i64| gradients.double_value(&[cell as i64, class]);
                assert!((0..CLASSES).all(|class| at(&all, class) != 0.0), "{kind:?}");
                assert_eq!(at(&some, 2), at(&all, 2));
                assert_eq!(at(&some, 1), if in_region { 0.0 } else { at(&all, 1) });
                // The object's own cells learn in the region too; other cells of its class do not.
                let is_kept = at(&some, 0) == at(&all, 0);
                assert!(is_kept || in_region && at(&some, 0) == 0.0, "{kind:?}");
                kept += usize::from(is_kept && in_region);
            }
            assert!((1..=CANDIDATES as usize).contains(&kept), "{kind:?}: {kept}");
        }
    }

    #[test]
    fn where_all_is_labelled_regions_change_nothing() {
        for kind in [ClassLoss::Varifocal, ClassLoss::Bce] {
            assert_eq!(gradients(None, kind), gradients(left(&[0.0; 3]), kind));
        }
    }
}
