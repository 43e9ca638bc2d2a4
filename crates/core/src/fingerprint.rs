//! FNV-1a with 64 bits: a hash that is the same for every version of this program, for what is kept in files.
//!
//! Fowler, Noll, Vo; RFC 9923. It tells files apart, it does not protect against forgers.

/// Takes bytes in, gives a number out.
#[derive(Clone, Copy, Debug)]
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Fingerprint {
    /// Adds bytes; in how many pieces they come makes no difference.
    pub fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
        }
    }

    /// Which of `shares` equal shares of all inputs these bytes belong to, from 0. The finalizer of MurmurHash3 (Appleby), fmix64,
    /// comes before the division: without it names that differ in one digit would not spread.
    pub fn share(self, shares: u64) -> u64 {
        let Self(mut hash) = self;
        for factor in [0xFF51_AFD7_ED55_8CCD, 0xC4CE_B9FE_1A85_EC53] {
            hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
        }
        (hash ^ (hash >> 33)) % shares.max(1)
    }

    /// Of all bytes so far, as 16 hexadecimal digits.
    pub fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        for (text, hash) in [("", "cbf29ce484222325"), ("a", "af63dc4c8601ec8c"), ("foobar", "85944171f73967e8")] {
            let mut fingerprint = Fingerprint::default();
            text.bytes().for_each(|byte| fingerprint.add(&[byte]));
            assert_eq!(fingerprint.text(), hash);
        }
    }

    /// Names that differ little, as those of images and frames do, spread evenly; and the same for ever.
    #[test]
    fn shares_are_equal_and_do_not_change() {
        for shares in [1, 2, 3, 4, 5, 16] {
            for step in [1, 2, 10] {
                let mut count = vec![0u32; shares as usize];
                for number in 0..4000 {
                    let mut fingerprint = Fingerprint::default();
                    fingerprint.add(format!("{:06}", number * step).as_bytes());
                    count[fingerprint.share(shares) as usize] += 1;
                }
                let even = 4000.0 / shares as f64;
                assert!(
                    count.iter().all(|&count| (f64::from(count) - even).abs() < 5.0 * even.sqrt()),
                    "{step} {count:?}"
                );
            }
        }
        let share = |name: &str| {
            let mut fingerprint = Fingerprint::default();
            fingerprint.add(name.as_bytes());
            fingerprint.share(1000)
        };
        assert_eq!([share(""), share("a"), share("foobar")], [342, 315, 275]);
    }
}
