//! A kernel of your own for exact linear attention: `k(a, b) = (1 + (a . b)^2)`, checked against the four rules and run.
//! `cargo run --example own_kernel`

use yolo_lat::attention::{CausalState, Kernel, Rows, Similarity, check, linear_f32};

/// `k(a, b) = 1 + (a . b)^2 = phi(a) . psi(b)` with `phi = psi = (1, a_i a_j for all i, j)`.
#[derive(Clone)]
struct SquaredDot;

impl Similarity for SquaredDot {
    fn name(&self) -> &'static str {
        "squared_dot"
    }

    fn row(&self, query: &[f64], keys: &[f64], weights: &mut [f64]) {
        for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(query.len())) {
            *weight = 1.0 + query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>().powi(2);
        }
    }
}

impl Kernel for SquaredDot {
    fn features(&self, dimensions: usize) -> usize {
        1 + dimensions * dimensions
    }

    fn phi(&self, query: &[f64], _: &[f64], features: &mut [f64]) {
        let products = query.iter().flat_map(|a| query.iter().map(move |b| a * b));
        features.iter_mut().zip(std::iter::once(1.0).chain(products)).for_each(|(feature, value)| *feature = value);
    }

    fn psi(&self, key: &[f64], peak: &[f64], features: &mut [f64]) {
        self.phi(key, peak, features);
    }
}

fn main() {
    match check(&SquaredDot) {
        Ok(()) => println!("squared_dot keeps the four rules"),
        Err(violation) => println!("{violation}"),
    }
    let tokens = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
    let values = [10.0, 20.0, 30.0];
    let rows = Rows::new(&tokens, 2);
    println!("all tokens:  {:?}", linear_f32(&SquaredDot, rows, rows, Rows::new(&values, 1)));
    let mut state = CausalState::new(SquaredDot, 2, 1);
    for (token, value) in tokens.chunks_exact(2).zip(values) {
        state.push(token, &[value]);
        println!("one by one:  {:?}", state.query(token));
    }
}
