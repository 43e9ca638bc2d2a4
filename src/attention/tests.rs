use arbtest::arbtest;

use super::*;

/// Values in -scale..scale.
fn vector(u: &mut arbtest::arbitrary::Unstructured, count: usize, scale: f64) -> arbtest::arbitrary::Result<Vec<f64>> {
    (0..count).map(|_| Ok((f64::from(u.arbitrary::<i16>()?) / 32768.0) * scale)).collect()
}

const KERNELS: [&dyn Kernel; 3] = [&HadamardExp, &SumDistance, &DiffDistance];

#[test]
fn linear_form_equals_quadratic_form() {
    arbtest(|u| {
        let (dimensions, tokens, width) = (u.int_in_range(1..=9)?, u.int_in_range(1..=33)?, u.int_in_range(1..=5)?);
        let scale = *u.choose(&[0.1, 1.0, 10.0, 1e4])?;
        let queries = vector(u, dimensions * 3, scale)?;
        let (keys, values) = (vector(u, dimensions * tokens, scale)?, vector(u, width * tokens, 1.0)?);
        for kernel in KERNELS {
            let expected = quadratic(kernel, &queries, &keys, &values, dimensions);
            let found = linear(kernel, &queries, &keys, &values, dimensions);
            for (expected, found) in expected.iter().zip(&found) {
                assert!((expected - found).abs() < 1e-5, "{}: {expected} != {found} at scale {scale}", kernel.name());
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
