//! `data.yaml`, as ultralytics, Roboflow, CVAT and FiftyOne write it: names of the classes and where the parts of a set lie.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Fault;
use super::files::read_text;

/// What such a file says.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a mapping with names")]
pub(crate) struct DataYaml {
    /// The set's folder, if it is not the file's own.
    #[serde(default)]
    pub(crate) path: Texts,
    #[serde(default)]
    train: Texts,
    #[serde(default)]
    val: Texts,
    #[serde(default)]
    valid: Texts,
    #[serde(default)]
    test: Texts,
    #[serde(default)]
    minival: Texts,
    /// Number of classes; without names they are numbered.
    nc: Option<usize>,
    names: Option<Names>,
    /// Key points of an object and numbers of each, in labels of poses.
    pub(crate) kpt_shape: Option<[usize; 2]>,
}

/// No text, one, or a list of them.
#[derive(Debug, Default)]
pub(crate) struct Texts(pub(crate) Vec<String>);

/// Names by their number, as texts that are as they were written: `no` is not `false`, `07` not 7.
#[derive(Debug)]
struct Names(Vec<String>);

impl DataYaml {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Fault> {
        serde_saphyr::from_str(&read_text(path)?).map_err(|error| {
            let error = error.without_snippet();
            let text = error.to_string();
            // The first of several lines; what comes after shows the place in the file.
            let text = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            // The parser advises its caller.
            Fault::new(path, if text.contains("from_str_multiple") { "it holds several documents (---)" } else { text })
        })
    }

    /// Parts of the set that the file names, with where they lie.
    pub(crate) fn splits(&self) -> Vec<(&'static str, &[String])> {
        let splits = [
            ("train", &self.train),
            ("val", &self.val),
            ("valid", &self.valid),
            ("test", &self.test),
            ("minival", &self.minival),
        ];
        splits.into_iter().filter(|(_, texts)| !texts.0.is_empty()).map(|(name, texts)| (name, &texts.0[..])).collect()
    }

    /// Names of the classes; `None` if the file says nothing of them.
    pub(crate) fn classes(&self) -> Option<Vec<String>> {
        let numbered = || self.nc.map(|count| (0..count).map(|class| format!("class{class}")).collect());
        self.names.as_ref().map(|names| names.0.clone()).or_else(numbered)
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a path or a list of paths")
    }

    fn visit_unit<E: Error>(self) -> Result<Texts, E> {
        Ok(Texts::default())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Texts, E> {
        Ok(Texts([value.trim()].iter().filter(|text| !text.is_empty()).map(|text| (*text).to_owned()).collect()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Texts, E> {
        Ok(Texts(vec![value.to_string()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element::<String>()? {
            texts.push(text.trim().to_owned());
        }
        Ok(Texts(texts))
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamesVisitor)
    }
}

/// `null` and `~` are names like others.
fn name_of(name: Option<String>) -> String {
    name.map_or_else(|| "null".to_owned(), |name| name.trim().to_owned())
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("names of the classes: a list ([bolt, nut]) or numbered (0: bolt)")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = list.next_element::<Option<String>>()? {
            names.push(name_of(name));
        }
        Ok(Names(names))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
        let mut names = BTreeMap::new();
        while let Some((number, name)) = map.next_entry::<String, Option<String>>()? {
            let number: usize = number.trim().parse().map_err(|_| {
                A::Error::custom(format!("names of the classes: {number:?} is no number; expected 0: {number}"))
            })?;
            names.insert(number, name_of(name));
        }
        if !names.keys().copied().eq(0..names.len()) {
            return Err(A::Error::custom("names of the classes must be numbered 0, 1, 2 and so on"));
        }
        Ok(Names(names.into_values().collect()))
    }
}
