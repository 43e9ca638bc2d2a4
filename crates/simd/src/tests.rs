//! Every instruction set of this machine against the safe twin.

use super::*;

/// Numbers with either sign, zeros, and one that is none.
const A: [f32; 16] =
    [0.0, -0.0, 1.0, -1.0, 0.5, 3.25, -7.0, 1e-3, 1e6, -1e6, f32::NAN, 2.0, 88.5, -90.0, 12.75, -0.125];
const B: [f32; 16] =
    [-0.0, 0.0, 2.0, -3.0, f32::NAN, 0.1, 7.0, -1e-3, 1e5, 1e6, 4.0, f32::NAN, 3.0, -0.7, 1.0 / 3.0, 9.0];
const C: [f32; 16] = [1.0, 2.0, 3.0, 4.0, -1.0, -2.0, -3.0, -4.0, 0.25, 0.5, 1.5, 2.5, 1e-2, 1e-4, 100.0, -100.0];

type Results = Vec<(&'static str, [f32; 16])>;

/// Each operation on 16 numbers, as many vectors as that takes.
struct All<'a>(&'a mut Results);

impl Work for All<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut each = |name, operation: &dyn Fn(S::Vector, S::Vector, S::Vector) -> S::Vector| {
            let mut result = [0.0; 16];
            for at in (0..16).step_by(S::LANES) {
                // SAFETY: the machine has the set, and a vector fits at each of these places.
                unsafe {
                    let [a, b, c] = [&A, &B, &C].map(|values| S::load(values.as_ptr().add(at)));
                    S::store(result.as_mut_ptr().add(at), operation(a, b, c));
                }
            }
            self.0.push((name, result));
        };
        // SAFETY: the machine has the set.
        unsafe {
            each("splat", &|_, _, _| S::splat(1.5));
            each("add", &|a, b, _| S::add(a, b));
            each("sub", &|a, b, _| S::sub(a, b));
            each("mul", &|a, b, _| S::mul(a, b));
            each("div", &|a, b, _| S::div(a, b));
            each("max", &|a, b, _| S::max(a, b));
            each("min", &|a, b, _| S::min(a, b));
            each("fma", &|a, b, c| S::fma(a, b, c));
            // NaN becomes the lower bound, as in `exp`.
            let integral = |x| {
                S::sub(
                    S::add(S::min(S::max(x, S::splat(-126.0)), S::splat(127.0)), S::splat(12_582_912.0)),
                    S::splat(12_582_912.0),
                )
            };
            each("exp2_integral", &|a, _, _| S::exp2_integral(integral(a)));
            each("exp", &|a, _, _| S::exp(a));
        }
    }
}

fn results(set: InstructionSet) -> Results {
    let mut results = Vec::new();
    // SAFETY: the set is one of this machine's.
    unsafe { dispatch(set, All(&mut results)) };
    results
}

#[test]
fn every_operation_is_that_of_the_safe_twin() {
    let expected = results(InstructionSet::Plain);
    for set in InstructionSet::available() {
        for ((name, expected), (_, found)) in expected.iter().zip(results(set)) {
            for (at, (expected, found)) in expected.iter().zip(found).enumerate() {
                // Where multiplication and addition are one instruction, they round once.
                let rounded_once = matches!(*name, "fma" | "exp");
                let same = expected.to_bits() == found.to_bits() || expected.is_nan() && found.is_nan();
                // Of zeros of different signs either is the greater.
                let near =
                    expected == &found || rounded_once && (expected - found).abs() <= 4e-7 * expected.abs().max(1e-3);
                assert!(same || near, "{name} on {set} of {}, {}, {}: {found}, not {expected}", A[at], B[at], C[at]);
            }
        }
    }
}

#[test]
fn halves_and_sums_are_those_of_the_safe_twin() {
    struct Halves<'a>(&'a mut Vec<f32>);
    impl Work for Halves<'_> {
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            let (mut low, mut high) = ([0.0; 8], [0.0; 8]);
            // SAFETY: the machine has the set; half a vector fits each array.
            unsafe {
                let vector = S::load_halves(C.as_ptr(), C.as_ptr().add(8));
                S::store_halves(low.as_mut_ptr(), high.as_mut_ptr(), vector);
                self.0.push(S::sum(vector));
            }
            self.0.extend(low.into_iter().chain(high));
        }
    }
    for set in InstructionSet::available() {
        let mut found = Vec::new();
        // SAFETY: the set is one of this machine's.
        unsafe { dispatch(set, Halves(&mut found)) };
        let half = set.lanes() / 2;
        let (low, high) = (&C[..half], &C[8..8 + half]);
        assert_eq!(found[0], low.iter().chain(high).sum::<f32>(), "{set}");
        assert_eq!((&found[1..=half], &found[9..9 + half]), (low, high), "{set}");
    }
}
