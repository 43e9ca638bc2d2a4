//! Paired differences between variants, with intervals.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Share of cases in which an interval holds the truth.
const CONFIDENCE: f64 = 0.95;
const RESAMPLES: usize = 10_000;

/// Mean of some numbers; not a number without any.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation of a sample of at least two.
pub(crate) fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// What differences between pairs say of the difference behind them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TTest {
    /// Half of the width of the 95 % interval.
    pub(crate) half_width: f64,
    /// Chance of a mean as far from 0 if the difference were 0.
    pub(crate) p: f64,
}

/// Student's t over at least two differences.
pub(crate) fn t_test(differences: &[f64]) -> Option<TTest> {
    let error = deviation(differences)? / (differences.len() as f64).sqrt();
    let student = StudentsT::new(0.0, 1.0, (differences.len() - 1) as f64).ok()?;
    let half_width = student.inverse_cdf(0.5 + CONFIDENCE / 2.0) * error;
    let mean = mean(differences).abs();
    let p = if error > 0.0 { 2.0 * student.cdf(-mean / error) } else { f64::from(u8::from(mean == 0.0)) };
    Some(TTest { half_width, p })
}

/// 95 % interval of the difference a token by resampling chapters; `chapters` are (difference in nats, tokens).
pub(crate) fn bootstrap(chapters: &[(f64, usize)]) -> [f64; 2] {
    let mut random = SmallRng::seed_from_u64(1);
    let mut resample = || {
        let (nats, tokens) = (0..chapters.len()).fold((0.0, 0), |(nats, tokens), _| {
            let (more, of) = chapters[random.random_range(0..chapters.len())];
            (nats + more, tokens + of)
        });
        nats / tokens as f64
    };
    let mut means: Vec<f64> = (0..RESAMPLES).map(|_| resample()).collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[((RESAMPLES - 1) as f64 * share).round() as usize];
    [at(0.5 - CONFIDENCE / 2.0), at(0.5 + CONFIDENCE / 2.0)]
}

/// Chances corrected for looking at several contrasts (Holm 1979), in their order.
pub(crate) fn holm(chances: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..chances.len()).collect();
    order.sort_by(|&a, &b| chances[a].total_cmp(&chances[b]));
    let mut corrected = vec![0.0; chances.len()];
    let mut least = 0.0f64;
    for (rank, &index) in order.iter().enumerate() {
        least = least.max((chances[index] * (chances.len() - rank) as f64).min(1.0));
        corrected[index] = least;
    }
    corrected
}

/// The first x at which a falling line reaches `level`, between its points; `None` if it never does.
pub(crate) fn reaches(points: &[(f64, f64)], level: f64) -> Option<f64> {
    let after = points.iter().position(|&(_, y)| y <= level)?;
    let (x1, y1) = points[after];
    let Some(&(x0, y0)) = after.checked_sub(1).and_then(|before| points.get(before)) else { return Some(x1) };
    Some(x0 + (x1 - x0) * (y0 - level) / (y0 - y1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_of_seeds_are_students() {
        // Tables: t = 4.303 for three pairs, 2.776 for five; of sd 1 that is 2.48 and 1.24.
        let three = t_test(&[-1.0, 0.0, 1.0]).unwrap();
        assert!((three.half_width - 4.3027 / 3f64.sqrt()).abs() < 1e-3, "{three:?}");
        assert!((three.p - 1.0).abs() < 1e-9);
        let scale = 2.5f64.sqrt();
        let five: Vec<f64> = [-2.0, -1.0, 0.0, 1.0, 2.0].iter().map(|x| x / scale).collect();
        assert!((t_test(&five).unwrap().half_width - 1.2416).abs() < 1e-3);
        // R: t.test(c(1, 2, 3)) gives p = 0.07418.
        assert!((t_test(&[1.0, 2.0, 3.0]).unwrap().p - 0.07418).abs() < 1e-5);
        assert_eq!(t_test(&[1.0]), None);
        assert_eq!(t_test(&[2.0, 2.0]).unwrap(), TTest { half_width: 0.0, p: 0.0 });
    }

    #[test]
    fn chapters_are_resampled_with_their_tokens() {
        assert_eq!(bootstrap(&[(2.0, 4), (1.0, 2)]), [0.5, 0.5]);
        // The mean of 100 coins: 0.5 +- 1.96 * 0.05.
        let coins: Vec<(f64, usize)> = (0..100).map(|index| (f64::from(index % 2), 1)).collect();
        let [low, high] = bootstrap(&coins);
        assert!((low - 0.402).abs() < 0.015 && (high - 0.598).abs() < 0.015, "{low} {high}");
    }

    #[test]
    fn several_looks_are_paid_for() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        let expected = [0.03, 0.06, 0.06, 0.02];
        assert!(
            corrected.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-12),
            "{corrected:?}"
        );
    }

    #[test]
    fn a_line_reaches_a_level_between_two_points() {
        let points = [(0.0, 8.0), (10.0, 4.0), (20.0, 3.0)];
        assert_eq!(reaches(&points, 5.0), Some(7.5));
        assert_eq!(reaches(&points, 3.0), Some(20.0));
        assert_eq!(reaches(&points, 2.9), None);
    }
}
