//! A run in parts: each process takes the inputs of its shard, whatever the others do.

use std::fmt::{Display, Formatter};
use std::str::FromStr;

use super::Input;
use yolo_lat_core::fingerprint::Fingerprint;

/// `I/N`: shard I of N. An input belongs to one shard, by its path below the folder that all inputs have in common: so the shards of
/// a run are disjoint, all inputs are in one of them, and neither their order nor where that folder lies makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    index: u64,
    count: u64,
}

impl Shard {
    /// Whether an input is one of this shard's. A video is so as a whole.
    pub fn has(self, input: &Input) -> bool {
        let mut name = Fingerprint::default();
        // Which of a.jpg and a.png has the stem `a` depends on which came first.
        let folders = input.stem.parent().into_iter().flat_map(|folder| folder.iter());
        for part in folders.chain(input.path.file_name()) {
            name.add(part.as_encoded_bytes());
            // Not the system's own separator.
            name.add(b"/");
        }
        name.share(self.count) + 1 == self.index
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u64>().ok().filter(|&number| number > 0);
        match text.split_once('/').map(|(index, count)| (number(index), number(count))) {
            Some((Some(index), Some(count))) if index <= count => Ok(Self { index, count }),
            Some((Some(index), Some(count))) => Err(format!("of {count} shards there is none with the number {index}")),
            _ => Err(format!("expected a shard and how many there are, 1/4 to 4/4; found {text:?}")),
        }
    }
}

impl Display for Shard {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_is_in_one_shard_wherever_it_lies() {
        let input = |path: &str, stem: &str| Input { path: path.into(), stem: stem.into(), contents: None };
        for count in 1..=7u64 {
            let shards: Vec<Shard> = (1..=count).map(|index| format!("{index}/{count}").parse().unwrap()).collect();
            for number in 0..200 {
                let stem = format!("night/{number}");
                let here = input(&format!("photos/night/{number}.jpg"), &stem);
                let there = input(&format!("/mnt/photos/night/{number}.jpg"), &stem);
                let mine = shards.iter().filter(|shard| shard.has(&here)).collect::<Vec<_>>();
                assert_eq!(mine.len(), 1);
                assert!(mine[0].has(&there), "{} {stem}", mine[0]);
            }
        }
    }

    #[test]
    fn what_is_no_shard_is_refused() {
        for (text, wrong) in [
            ("3/2", "of 2 shards there is none with the number 3"),
            ("0/2", "expected a shard and how many there are"),
            ("1/0", "expected"),
            ("a/b", "expected"),
            ("1", "expected"),
            ("", "expected"),
            ("-1/2", "expected"),
            ("1/2/3", "expected"),
        ] {
            let error = text.parse::<Shard>().unwrap_err();
            assert!(error.contains(wrong), "{text}: {error}");
        }
        assert_eq!("2/3".parse::<Shard>().unwrap().to_string(), "2/3");
    }
}
