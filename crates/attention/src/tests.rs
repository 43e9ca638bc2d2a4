use arbtest::arbtest;

use ::half::f16;

use super::rows::{Left, exp_in_place, multiply_add};
use super::*;
use yolo_lat_simd::InstructionSet;

/// Values in -scale..scale.
fn vector(u: &mut arbtest::arbitrary::Unstructured, count: usize, scale: f64) -> arbtest::arbitrary::Result<Vec<f64>> {
    (0..count).map(|_| Ok((f64::from(u.arbitrary::<i16>()?) / 32768.0) * scale)).collect()
}

const KERNELS: [&dyn Kernel; 4] = [&HadamardExp, &SumDistance, &DiffDistance, &ModulatedDot];

#[test]
fn linear_form_equals_quadratic_form() {
    arbtest(|u| {
        let (dimensions, tokens, width) = (u.int_in_range(1..=9)?, u.int_in_range(1..=33)?, u.int_in_range(1..=5)?);
        let scale = *u.choose(&[0.1, 1.0, 10.0, 1e4])?;
        let queries = vector(u, dimensions * 3, scale)?;
        let (keys, values) = (vector(u, dimensions * tokens, scale)?, vector(u, width * tokens, 1.0)?);
        for kernel in KERNELS {
            for query in queries.chunks_exact(dimensions) {
                let narrow = |x: &[f64]| -> Vec<f32> { x.iter().map(|&x| x as f32).collect() };
                if kernel.name() == "modulated_dot" && condition(kernel, &narrow(query), &narrow(&keys)) > 1e8 {
                    continue; // all keys opposed to the query: weights that are rounding errors of 0
                }
                let expected = quadratic(kernel, query, &keys, &values, dimensions);
                let found = linear(kernel, query, &keys, &values, dimensions);
                for (expected, found) in expected.iter().zip(&found) {
                    let name = kernel.name();
                    assert!((expected - found).abs() < 1e-5, "{name}: {expected} != {found} at scale {scale}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_row_without_any_weight_is_the_mean_of_the_values() {
    let (query, values) = ([1.0, -2.0], [3.0, 5.0]);
    for (kernel, key) in [(&SumDistance as &dyn Kernel, [-1.0, 2.0]), (&DiffDistance, [1.0, -2.0])] {
        let keys = [key, key].concat();
        assert_eq!(quadratic(kernel, &query, &keys, &values, 2), [4.0], "{}", kernel.name());
        assert_eq!(linear(kernel, &query, &keys, &values, 2), [4.0], "{}", kernel.name());
    }
}

#[test]
fn softmax_weights_follow_the_dot_product() {
    let found = quadratic(&Softmax, &[1.0], &[0.0, (2.0f64).ln()], &[0.0, 3.0], 1);
    assert!((found[0] - 2.0).abs() < 1e-12, "weights 1/3 and 2/3 give 2, found {}", found[0]);
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn floats(u: &mut arbtest::arbitrary::Unstructured, count: usize, scale: f64) -> arbtest::arbitrary::Result<Vec<f32>> {
    Ok(vector(u, count, scale)?.into_iter().map(|x| x as f32).collect())
}

/// Largest difference, relative to the largest value.
fn difference(expected: &[f64], found: &[f32], values: &[f32]) -> f64 {
    let scale = values.iter().fold(f64::MIN_POSITIVE, |scale, x| scale.max(f64::from(x.abs())));
    assert_eq!(expected.len(), found.len());
    expected.iter().zip(found).fold(0.0, |worst, (a, b)| f64::max(worst, (a - f64::from(*b)).abs() / scale))
}

#[test]
fn products_and_exponentials_are_right_on_every_instruction_set() {
    arbtest(|u| {
        let (rows, depth, width) = (u.int_in_range(1..=9)?, u.int_in_range(1..=9)?, u.int_in_range(1..=83)?);
        let (left, right) = (floats(u, rows * depth, 1.0)?, floats(u, depth * width, 1.0)?);
        for set in InstructionSet::available() {
            for transposed in [false, true] {
                let stride = width + 3;
                let mut out = vec![0.5; rows * stride];
                let (row, step) = if transposed { (1, rows) } else { (depth, 1) };
                let left_view = Left { values: &left, row, depth: step };
                multiply_add(set, left_view, Rows::new(&right, width), &mut out, stride, rows);
                for (r, out) in out.chunks_exact(stride).enumerate() {
                    for (c, &found) in out.iter().enumerate() {
                        let terms = (0..depth).map(|d| left[r * row + d * step] * right[d * width + c.min(width - 1)]);
                        let expected = if c < width { 0.5 + terms.sum::<f32>() } else { 0.5 };
                        assert!((found - expected).abs() < 1e-5, "{set} ({r}, {c}): {found} != {expected}");
                    }
                }
            }
            let mut exps = right.clone();
            exp_in_place(set, &mut exps);
            assert!(exps.iter().zip(&right).all(|(found, x)| (found / x.exp() - 1.0).abs() < 1e-6));
        }
        Ok(())
    });
}

#[test]
fn the_f32_form_equals_the_quadratic_form_for_all_finite_inputs() {
    arbtest(|u| {
        let (dimensions, width) = (u.int_in_range(1..=33)?, u.int_in_range(1..=33)?);
        let (tokens, count) = (u.int_in_range(1..=300)?, u.int_in_range(1..=140)?);
        let scale = *u.choose(&[1e-3, 1.0, 80.0, 1e4, 1e15, 1e30, 3e38])?;
        let value_scale = *u.choose(&[1.0, 3e38])?;
        // Few random bytes are stretched over large inputs.
        let seeds = floats(u, 97, 1.0)?;
        let fill = |count: usize, offset: usize, scale: f64| -> Vec<f32> {
            let at = |i: usize| seeds[(i * 31 + offset + i / 97) % 97] * scale as f32;
            (0..count).map(at).collect()
        };
        let (q, k) = (fill(count * dimensions, 0, scale), fill(tokens * dimensions, 11, scale));
        let v = fill(tokens * width, 23, value_scale);
        for kernel in KERNELS {
            let singular = q.chunks_exact(dimensions).any(|q| condition(kernel, q, &k) > 10.0);
            if kernel.name() == "modulated_dot" && singular {
                continue; // f32 cannot hold weights that are differences of much larger features
            }
            let expected = quadratic(kernel, &wide(&q), &wide(&k), &wide(&v), dimensions);
            let rows = (Rows::new(&q, dimensions), Rows::new(&k, dimensions), Rows::new(&v, width));
            let found = linear_f32(kernel, rows.0, rows.1, rows.2);
            let worst = difference(&expected, &found, &v);
            assert!(worst < 1e-5, "{}: {worst} at scale {scale}, {tokens} tokens", kernel.name());
        }
        let expected = quadratic(&Softmax, &wide(&q), &wide(&k), &wide(&v), dimensions);
        if scale <= 1.0 && value_scale == 1.0 {
            let found = softmax_f32(Rows::new(&q, dimensions), Rows::new(&k, dimensions), Rows::new(&v, width));
            assert!(difference(&expected, &found, &v) < 1e-5, "softmax at scale {scale}");
        }
        Ok(())
    });
}

/// How many times the rounding errors of a row of the linear form may be larger than those of a sum of positive terms:
/// `sum |phi psi| / sum phi psi`. 1 for the Hadamard exp kernel; large where features of both signs cancel.
fn condition(kernel: &dyn Kernel, query: &[f32], keys: &[f32]) -> f64 {
    let features = kernel.features(query.len());
    let (mut phi, mut psi, peak) = (vec![0.0; features], vec![0.0; features], vec![0.0; query.len()]);
    kernel.phi(&wide(query), &peak, &mut phi);
    let (mut sum, mut magnitude) = (0.0, 0.0);
    for key in keys.chunks_exact(query.len()) {
        kernel.psi(&wide(key), &peak, &mut psi);
        sum += phi.iter().zip(&psi).map(|(phi, psi)| phi * psi).sum::<f64>();
        magnitude += phi.iter().zip(&psi).map(|(phi, psi)| (phi * psi).abs()).sum::<f64>();
    }
    magnitude / sum.max(1e-300)
}

/// Attention to tokens 0..=i for each query i, the quadratic way.
fn causal_quadratic(kernel: &dyn Similarity, q: &[f32], k: &[f32], v: &[f32], d: usize, width: usize) -> Vec<f64> {
    let rows = q.chunks_exact(d).enumerate();
    rows.flat_map(|(i, q)| quadratic(kernel, &wide(q), &wide(&k[..(i + 1) * d]), &wide(&v[..(i + 1) * width]), d))
        .collect()
}

#[test]
fn states_can_be_pushed_merged_and_written_at_any_point() {
    fn case<K: Kernel + Clone>(kernel: &K, q: &[f32], k: &[f32], v: &[f32], d: usize, width: usize, cut: usize) {
        let expected = causal_quadratic(kernel, q, k, v, d, width);
        let found = causal_f32(kernel.clone(), Rows::new(q, d), Rows::new(k, d), Rows::new(v, width));
        for (token, (expected, found)) in expected.chunks_exact(width).zip(found.chunks_exact(width)).enumerate() {
            let allowed = (1e-6 * condition(kernel, &q[token * d..][..d], &k[..(token + 1) * d])).max(1e-5);
            let worst = difference(expected, found, v);
            assert!(worst < allowed, "{} token {token}: {worst}, allowed {allowed}", kernel.name());
        }
        let mut parts = [CausalState::new(kernel.clone(), d, width), CausalState::new(kernel.clone(), d, width)];
        for (token, (k, v)) in k.chunks_exact(d).zip(v.chunks_exact(width)).enumerate() {
            parts[usize::from(token >= cut)].push(k, v);
        }
        let [mut first, second] = parts;
        let json = serde_json::to_string(first.memory()).unwrap();
        let mut first_again = CausalState::resume(kernel.clone(), serde_json::from_str(&json).unwrap()).unwrap();
        first.merge(&second);
        first_again.merge(&second);
        let last = q.chunks_exact(d).last().unwrap();
        assert_eq!(first.query(last), first_again.query(last), "a state that was written goes on as before");
        let allowed = (1e-6 * condition(kernel, last, k)).max(1e-5);
        let worst = difference(&expected[expected.len() - width..], &first.query(last), v);
        assert!(worst < allowed, "{}: merged, {worst}, allowed {allowed}", kernel.name());
    }
    arbtest(|u| {
        let (d, width, tokens) = (u.int_in_range(1..=9)?, u.int_in_range(1..=20)?, u.int_in_range(1..=40)?);
        let scale = *u.choose(&[0.1, 1.0, 20.0])?;
        let (q, k) = (floats(u, d * tokens, scale)?, floats(u, d * tokens, scale)?);
        let v = floats(u, width * tokens, 1.0)?;
        let cut = u.int_in_range(0..=tokens)?;
        case(&HadamardExp, &q, &k, &v, d, width, cut);
        case(&SumDistance, &q, &k, &v, d, width, cut);
        case(&DiffDistance, &q, &k, &v, d, width, cut);
        case(&ModulatedDot, &q, &k, &v, d, width, cut);
        let mut cache = KeyValueCache::with_capacity(d, width, tokens);
        let expected = causal_quadratic(&Softmax, &q, &k, &v, d, width);
        let mut found = vec![0.0; tokens * width];
        for token in 0..tokens {
            cache.push(&k[token * d..][..d], &v[token * width..][..width]);
            cache.query_into(&q[token * d..][..d], &mut found[token * width..][..width]);
        }
        assert!(difference(&expected, &found, &v) < 1e-4, "cache at scale {scale}");
        Ok(())
    });
}

#[test]
fn a_damaged_state_is_refused() {
    let mut state = CausalState::new(HadamardExp, 2, 1);
    assert_eq!(state.query(&[1.0, 2.0]), [0.0], "nothing seen yet");
    state.push(&[1.0, 2.0], &[3.0]);
    let mut memory = state.memory().clone();
    assert!(CausalState::resume(SumDistance, memory.clone()).is_none(), "another kernel has other features");
    memory.width = 2;
    assert!(CausalState::resume(HadamardExp, memory).is_none());
}

#[test]
fn heads_are_independent() {
    let x: Vec<f32> = (0..5 * 6).map(|i| (i as f32 * 0.7).sin()).collect();
    let attend = |q: Rows, k: Rows, v: Rows| linear_f32(&HadamardExp, q, k, v);
    let both = multi_head(2, [&x, &x, &x], [3, 3], attend);
    for head in 0..2 {
        let own: Vec<f32> = Rows::head(&x, 2, head, 3).iter().flatten().copied().collect();
        let alone = linear_f32(&HadamardExp, Rows::new(&own, 3), Rows::new(&own, 3), Rows::new(&own, 3));
        let found: Vec<f32> = Rows::head(&both, 2, head, 3).iter().flatten().copied().collect();
        assert_eq!(found, alone);
    }
}

#[test]
fn the_cost_is_linear_in_the_tokens() {
    /// Counts how many rows of features are asked for.
    struct Counting(std::sync::atomic::AtomicUsize);
    impl Similarity for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }
        fn row(&self, query: &[f64], keys: &[f64], weights: &mut [f64]) {
            HadamardExp.row(query, keys, weights);
        }
    }
    impl Kernel for Counting {
        fn features(&self, dimensions: usize) -> usize {
            dimensions
        }
        fn phi(&self, query: &[f64], peak: &[f64], features: &mut [f64]) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            HadamardExp.phi(query, peak, features);
        }
        fn psi(&self, key: &[f64], peak: &[f64], features: &mut [f64]) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            HadamardExp.psi(key, peak, features);
        }
    }
    for tokens in [10, 100, 3000] {
        let x = vec![0.25; tokens * 4];
        let kernel = Counting(Default::default());
        linear_f32(&kernel, Rows::new(&x, 4), Rows::new(&x, 4), Rows::new(&x, 4));
        assert_eq!(kernel.0.into_inner(), 2 * tokens, "one feature map a query and one a key");
    }
}

#[test]
fn the_kernels_keep_the_four_rules_and_bad_ones_do_not() {
    for kernel in KERNELS {
        check(kernel).unwrap_or_else(|violation| panic!("{violation}"));
    }
    /// A kernel from closures, to break one rule after the other.
    struct Bad {
        weight: fn(f64, f64) -> f64,
        phi: fn(f64) -> [f64; 2],
        psi: fn(f64) -> [f64; 2],
    }
    impl Similarity for Bad {
        fn name(&self) -> &'static str {
            "bad"
        }
        fn row(&self, query: &[f64], keys: &[f64], weights: &mut [f64]) {
            for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(query.len())) {
                *weight = (self.weight)(query[0], key[0]);
            }
        }
    }
    impl Kernel for Bad {
        fn features(&self, _: usize) -> usize {
            2
        }
        fn phi(&self, query: &[f64], _: &[f64], features: &mut [f64]) {
            features.copy_from_slice(&(self.phi)(query[0]));
        }
        fn psi(&self, key: &[f64], _: &[f64], features: &mut [f64]) {
            features.copy_from_slice(&(self.psi)(key[0]));
        }
    }
    let one = |_| [1.0, 0.0];
    let found = |weight, phi, psi| check(&Bad { weight, phi, psi }).unwrap_err();
    let split_wrongly = found(|a, b| (a * b).exp(), one, |b| [b.exp(), 0.0]);
    assert!(matches!(split_wrongly, Violation::Decomposable { .. }), "{split_wrongly}");
    let negative = found(|a, b| a * b, |a| [a, 0.0], |b| [b, 0.0]);
    assert!(matches!(negative, Violation::NonNegative { .. }), "{negative}");
    let constant = found(|_, _| 1.0, one, one);
    assert!(matches!(constant, Violation::Discriminative { .. }), "{constant}");
    let waves = found(|_, b| 1.0 + (9.0 * b).sin(), one, |b| [1.0 + (9.0 * b).sin(), 0.0]);
    assert!(matches!(waves, Violation::Ordering { .. }), "{waves}");
}

#[test]
fn gradients_agree_with_finite_differences() {
    let kernels: [&dyn Differentiable; 4] = [&HadamardExp, &SumDistance, &DiffDistance, &ModulatedDot];
    arbtest(|u| {
        let (d, width, tokens) = (u.int_in_range(1..=4)?, u.int_in_range(1..=3)?, u.int_in_range(2..=5)?);
        // Away from rows without weight, where the result jumps.
        let shifted =
            |x: Vec<f64>| -> Vec<f64> { x.into_iter().enumerate().map(|(i, x)| x + 0.3 * i as f64).collect() };
        let inputs = [
            shifted(vector(u, d * 2, 0.2)?),
            shifted(vector(u, d * tokens, 0.2)?).into_iter().map(|x| x + 1.0).collect(),
            vector(u, width * tokens, 1.0)?,
        ];
        let d_result = vector(u, width * 2, 1.0)?;
        for kernel in kernels {
            if kernel.name() == "modulated_dot" && d == 1 {
                continue; // in one dimension the direction is a step
            }
            let scalar = |x: &[Vec<f64>; 3]| -> f64 {
                let y = quadratic(kernel, &x[0], &x[1], &x[2], d);
                y.iter().zip(&d_result).map(|(y, d)| y * d).sum()
            };
            let found = gradients(kernel, &inputs[0], &inputs[1], &inputs[2], &d_result, d);
            for (part, found) in [&found.queries, &found.keys, &found.values].into_iter().enumerate() {
                for (index, found) in found.iter().enumerate() {
                    let moved = |step: f64| {
                        let mut x = inputs.clone();
                        x[part][index] += step;
                        scalar(&x)
                    };
                    let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    let worst = (expected - found).abs() / (1.0 + expected.abs());
                    assert!(worst < 1e-5, "{} {part} {index}: {found} != {expected} {inputs:?}", kernel.name());
                }
            }
        }
        Ok(())
    });
}

#[test]
fn the_naive_form_overflows_where_the_stable_form_is_exact() {
    let at = |scale: f32| -> [Vec<f32>; 3] {
        let wave = |count: usize, step: f32| (0..count).map(|i| scale * (i as f32 * step).sin()).collect();
        [wave(4 * 4, 0.7), wave(16 * 4, 1.3), (0..16 * 4).map(|i| (i as f32 * 0.37).cos()).collect()]
    };
    let d_result = [1.0f32; 16];
    for scale in [1.0, 60.0, 100.0, 1e4] {
        let [q, k, v] = at(scale);
        let plain = naive(&q, &k, &v, &d_result, 4);
        let is_finite = plain.result.iter().all(|x| x.is_finite()) && plain.gradient_norm.is_finite();
        assert_eq!(is_finite, scale < 2.0, "naive at scale {scale}: {plain:?}");
        let expected = quadratic(&HadamardExp, &wide(&q), &wide(&k), &wide(&v), 4);
        let found = linear_f32(&HadamardExp, Rows::new(&q, 4), Rows::new(&k, 4), Rows::new(&v, 4));
        let worst = difference(&expected, &found, &v);
        assert!(worst < 1e-5, "stable at scale {scale}: {worst}");
        let norm = gradients(&HadamardExp, &wide(&q), &wide(&k), &wide(&v), &wide(&d_result), 4).norm();
        assert!(norm < 16.0, "gradients stay bounded: {norm} at scale {scale}");
    }
}

#[test]
fn the_f16_form_fits_f16_at_any_scale_and_length() {
    for (scale, tokens) in [(0.5, 7), (10.0, 100), (80.0, 20_000), (30_000.0, 50)] {
        let wave = |count: usize, step: f32, scale: f32| -> Vec<f16> {
            (0..count).map(|i| f16::from_f32(scale * (i as f32 * step).sin())).collect()
        };
        let (q, k, v) = (wave(12, 0.7, scale), wave(tokens * 4, 1.3, scale), wave(tokens * 4, 0.37, 1000.0));
        let wide = |x: &[f16]| -> Vec<f64> { x.iter().map(|x| x.to_f64()).collect() };
        let expected = quadratic(&HadamardExp, &wide(&q), &wide(&k), &wide(&v), 4);
        for (found, expected) in linear_f16(&q, &k, &v, 4).iter().zip(&expected) {
            let error = (found.to_f64() - expected).abs();
            assert!(error < 1000.0 * 3e-3, "{found} != {expected} at scale {scale}, {tokens} tokens");
        }
    }
}
