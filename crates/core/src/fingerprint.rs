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
}
