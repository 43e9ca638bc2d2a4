//! Every instruction set of this machine against the safe twin.

use super::levels::dispatch_with;
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
            let mut twice = [0.0; 16];
            // SAFETY: the machine has the set; half a vector fits each of the first two arrays, a whole one the third.
            unsafe {
                let vector = S::load_halves(C.as_ptr(), C.as_ptr().add(8));
                S::store_halves(low.as_mut_ptr(), high.as_mut_ptr(), vector);
                self.0.push(S::sum(vector));
                S::store(twice.as_mut_ptr(), S::load_twice(C.as_ptr()));
            }
            self.0.extend(low.into_iter().chain(high).chain(twice));
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
        assert_eq!((&found[17..17 + half], &found[17 + half..17 + 2 * half]), (low, low), "{set}");
    }
}

#[test]
fn a_transposed_block_has_its_columns_in_rows() {
    /// From rows of 17 to rows of 20.
    struct Block<'a>(&'a [f32], &'a mut [f32]);
    impl Work for Block<'_> {
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            // SAFETY: there are 16 rows of 16 at most, on both sides.
            unsafe { S::transpose(self.0.as_ptr(), 17, self.1.as_mut_ptr(), 20) };
        }
    }
    let from: Vec<f32> = (0..16 * 17u16).map(f32::from).collect();
    for set in InstructionSet::available() {
        let mut found = vec![-1.0; 16 * 20];
        // SAFETY: the set is one of this machine's.
        unsafe { dispatch(set, Block(&from, &mut found)) };
        let lanes = set.lanes();
        let expected = |at: usize| {
            let (row, column) = (at / 20, at % 20);
            if row < lanes && column < lanes { from[17 * column + row] } else { -1.0 }
        };
        assert_eq!(found, (0..16 * 20).map(expected).collect::<Vec<_>>(), "{set}");
    }
}

/// The sets of this machine, each with what [`dispatch_levels`] would not choose, too.
fn with_dot_products_and_without() -> impl Iterator<Item = (InstructionSet, bool)> {
    let sets = InstructionSet::available().into_iter();
    sets.flat_map(|set| [false, true].map(|dot| (set, dot))).filter(|&(set, dot)| !dot || set.has_dot_products())
}

#[test]
fn products_of_levels_are_those_of_the_safe_twin() {
    const VECTORS: usize = 15;
    /// Levels of some vectors, and sums of products of all of them with weights.
    struct Products<'a> {
        levels: &'a mut Vec<Vec<u8>>,
        sums: &'a mut Vec<f32>,
        set: InstructionSet,
    }
    impl LevelsWork for Products<'_> {
        #[inline(always)]
        unsafe fn run<L: Levels>(self) {
            let (block, lanes) = (L::Block::LANES, L::Floats::LANES);
            assert_eq!((block, lanes), (self.set.block(), self.set.lanes()));
            // Halves, bounds, what is none, and more vectors than are packed at once.
            let values: Vec<f32> = (0..VECTORS * block)
                .map(|at| match at % 9 {
                    0 => f32::NAN,
                    1 => f32::INFINITY,
                    2 => f32::NEG_INFINITY,
                    3 => 0.5 + (at % 4) as f32,
                    _ => (at as f32 - 25.0) * 3.7,
                })
                .collect();
            let mut bytes = vec![0; VECTORS * DEPTH];
            // The extremes, in which sums of 16 bits come nearest to their bounds.
            let weight = |at: usize| [63, -63, 63, 17, -5][at % 5];
            let weights: Vec<i8> = (0..2 * 4 * lanes).map(|at| if at < 4 * lanes { 63 } else { weight(at) }).collect();
            // SAFETY: the machine has the set; there are as many vectors, room for their levels, and two vectors of weights.
            unsafe {
                let [levels, zeros] = [0.5, 10.0].map(|value| L::Block::splat(value));
                L::of_floats(values.as_ptr(), bytes.as_mut_ptr(), VECTORS, levels, zeros);
                self.levels.extend(bytes.chunks(DEPTH).map(|bytes| bytes[..block].to_vec()));
                let weights = [L::weights(weights.as_ptr()), L::weights(weights.as_ptr().add(4 * lanes))];
                let start: Vec<i32> = (0..lanes as i32).map(|lane| 1000 * lane - 3).collect();
                let mut sums = L::sums(start.as_ptr());
                for levels in [[127; DEPTH], [1, 2, 3, 4, 5, 6, 7, 8], [127, 0, 127, 0, 127, 127, 0, 127]] {
                    sums = L::add_products(sums, levels.as_ptr(), weights);
                }
                let mut floats = [0.0; 16];
                L::Floats::store(floats.as_mut_ptr(), L::floats(sums));
                self.sums.extend(&floats[..lanes]);
            }
        }
    }
    /// The same in plain words.
    fn expected(block: usize, lanes: usize) -> (Vec<u8>, Vec<f32>) {
        let levels = (0..VECTORS * block).map(|at| match at % 9 {
            0 | 2 => 0,
            1 => 127,
            3 => ((0.5 + (at % 4) as f32) * 0.5 + 10.0).round_ties_even() as u8,
            _ => ((at as f32 - 25.0) * 3.7 * 0.5 + 10.0).clamp(0.0, 127.0).round_ties_even() as u8,
        });
        let weight = |part: usize, lane: usize, k: usize| match part {
            0 => 63,
            _ => [63, -63, 63, 17, -5][(4 * lanes + 4 * lane + k) % 5],
        };
        let steps = [[127; DEPTH], [1, 2, 3, 4, 5, 6, 7, 8], [127, 0, 127, 0, 127, 127, 0, 127]];
        let sum = |lane: usize| {
            let products =
                steps.iter().flat_map(|levels| (0..DEPTH).map(move |k| levels[k] * weight(k / 4, lane, k % 4)));
            (1000 * lane as i32 - 3 + products.sum::<i32>()) as f32
        };
        (levels.collect(), (0..lanes).map(sum).collect())
    }
    for (set, dot) in with_dot_products_and_without() {
        let (mut levels, mut sums) = (Vec::new(), Vec::new());
        // SAFETY: the set is one of this machine's.
        unsafe { dispatch_with(set, dot, Products { levels: &mut levels, sums: &mut sums, set }) };
        assert_eq!((levels.concat(), sums), expected(set.block(), set.lanes()), "{set}, dot products: {dot}");
    }
}

#[test]
fn two_steps_are_summed_up_as_one_by_one_where_their_weights_fit_16_bits() {
    /// Sums of two steps at once, and one after the other.
    struct Both<'a> {
        weights: [[i8; DEPTH]; 2],
        levels: [[u8; DEPTH]; 2],
        found: &'a mut Vec<[f32; 2]>,
    }
    impl LevelsWork for Both<'_> {
        #[inline(always)]
        unsafe fn run<L: Levels>(self) {
            let lanes = L::Floats::LANES;
            let four = |step: usize, half: usize| -> Vec<i8> {
                (0..lanes).flat_map(|_| self.weights[step][4 * half..4 * half + 4].iter().copied()).collect()
            };
            // SAFETY: the machine has the set; weights and levels are as many as are read.
            unsafe {
                let weights = [0, 1].map(|step| [0, 1].map(|half| L::weights(four(step, half).as_ptr())));
                let [first, second] = &self.levels;
                let start = L::sums([-7; 16].as_ptr());
                let both = L::add_both(start, [first.as_ptr(), second.as_ptr()], weights);
                let single = L::add_products(start, first.as_ptr(), weights[0]);
                let single = L::add_products(single, second.as_ptr(), weights[1]);
                let [mut both_floats, mut single_floats] = [[0.0; 16]; 2];
                L::Floats::store(both_floats.as_mut_ptr(), L::floats(both));
                L::Floats::store(single_floats.as_mut_ptr(), L::floats(single));
                self.found.extend((0..lanes).map(|lane| [both_floats[lane], single_floats[lane]]));
            }
        }
    }
    let sum = |weights: [[i8; DEPTH]; 2], levels: [[u8; DEPTH]; 2]| {
        let products = weights.as_flattened().iter().zip(levels.as_flattened());
        -7 + products.map(|(&weight, &level)| i32::from(weight) * i32::from(level)).sum::<i32>()
    };
    // 258 times 127 is the most that fits: of eight that meet, four of 63 and one of 6.
    let most = [[63, 63, 63, 63, 63, 63, 63, 63], [6, 0, 6, 0, 0, 0, 0, 0]];
    let over = [[63, 63, 63, 63, 63, 63, 63, 63], [7, 0, 6, 0, 0, 0, 0, 0]];
    let mixed = [[63, -63, 5, -5, 63, -63, 17, -17], [63, -63, -63, 1, 63, -63, -63, 63]];
    assert!(fit_16_bits(most) && fit_16_bits(mixed) && !fit_16_bits(over));
    assert!(fit_16_bits(most.map(|step| step.map(|weight| -weight))));
    assert!(!fit_16_bits(over.map(|step| step.map(|weight| -weight))));
    let alternating = [[127, 0, 127, 0, 127, 0, 127, 0]; 2];
    for weights in [most, most.map(|step| step.map(|weight| -weight)), mixed] {
        for levels in [[[127; DEPTH]; 2], alternating, [[1, 2, 3, 4, 5, 6, 7, 8], [127, 126, 0, 1, 64, 63, 9, 100]]] {
            for (set, dot) in with_dot_products_and_without() {
                let mut found = Vec::new();
                // SAFETY: the set is one of this machine's.
                unsafe { dispatch_with(set, dot, Both { weights, levels, found: &mut found }) };
                assert_eq!(found, vec![[sum(weights, levels) as f32; 2]; set.lanes()], "{set}, dot products: {dot}");
            }
        }
    }
}
