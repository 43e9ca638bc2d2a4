//! Values for all classes or for single ones: `--conf 0.3,person=0.5`.

use anyhow::{Context, bail};
use clap::Args;
use yolo_lat::model::classes::find_class;
use yolo_lat::zones::LeastSize;

/// One value.
#[derive(Clone, Debug, PartialEq)]
struct ForClass<T> {
    /// As it was written; `None` for all that have none of their own.
    class: Option<String>,
    value: T,
}

/// Reads `VALUE` or `CLASS=VALUE`.
fn for_class<T>(
    parse: fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<ForClass<T>, String> + Clone + Send + Sync + 'static
where
    T: 'static,
{
    move |text| match text.rsplit_once('=') {
        Some((class, _)) if class.trim().is_empty() => Err(format!("{text:?} names no class before its =")),
        Some((class, value)) => Ok(ForClass { class: Some(class.trim().to_owned()), value: parse(value.trim())? }),
        None => Ok(ForClass { class: None, value: parse(text.trim())? }),
    }
}

/// A number in 0..=1.
pub(super) fn parse_share(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        Ok(share) => Err(format!("expected a number from 0 to 1, found {share}")),
        Err(_) => Err(format!("expected a number from 0 to 1, found {text:?}")),
    }
}

/// Limits that may differ from class to class.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What counts as a detection")]
pub(super) struct ClassLimitArguments {
    /// Least confidence of a detection, 0 to 1, of all classes, of single ones or both: 0.3, or person=0.5,bus=0.2, or 0.3,sofa=0.5;
    /// default: the model's (`confidence` in its file), else 0.25
    #[arg(long, value_delimiter = ',', value_parser = for_class(parse_share), value_name = "SHARE")]
    conf: Vec<ForClass<f32>>,
    /// Least area of a box, of all classes or of single ones, as --conf: below 1 a share of the image's area (0.01), from 1 on
    /// square pixels (5000)
    #[arg(long, value_delimiter = ',', value_parser = for_class(str::parse::<LeastSize>), value_name = "AREA")]
    min_size: Vec<ForClass<LeastSize>>,
}

impl ClassLimitArguments {
    /// Whether nothing was asked for.
    #[cfg(feature = "window")]
    pub(super) fn is_usual(&self) -> bool {
        self.conf.is_empty() && self.min_size.is_empty()
    }

    /// Least confidence of all classes that have none of their own, if it was given.
    pub(super) fn confidence(&self) -> Option<f32> {
        self.conf.iter().find(|conf| conf.class.is_none()).map(|conf| conf.value)
    }

    /// Least confidences of single classes, by their names.
    pub(super) fn class_confidence(&self) -> Vec<(String, f32)> {
        self.conf.iter().filter_map(|conf| Some((conf.class.clone()?, conf.value))).collect()
    }

    /// Least sizes, by the names of classes.
    pub(super) fn least_size(&self) -> Vec<(Option<String>, LeastSize)> {
        self.min_size.iter().map(|size| (size.class.clone(), size.value)).collect()
    }

    /// The same with what the names mean in a model, of which each may be there once.
    pub(super) fn find(&self, classes: &[String]) -> anyhow::Result<ClassLimits> {
        let confidence = find("--conf", &self.conf, classes)?;
        let own = confidence.into_iter().filter_map(|(class, least)| Some((class?, least))).collect();
        Ok(ClassLimits { confidence: own, size: find("--min-size", &self.min_size, classes)? })
    }
}

/// Limits of a model's classes, by their numbers.
pub(super) struct ClassLimits {
    pub(super) confidence: Vec<(usize, f32)>,
    pub(super) size: Vec<(Option<usize>, LeastSize)>,
}

/// Finds the classes that are meant. What is said of one twice is an error, under whatever names.
fn find<T: Copy>(
    option: &'static str,
    given: &[ForClass<T>],
    classes: &[String],
) -> anyhow::Result<Vec<(Option<usize>, T)>> {
    let mut found = Vec::<(Option<usize>, T)>::new();
    for ForClass { class, value } in given {
        let class = class.as_ref().map(|name| find_class(name, classes)).transpose().context(option)?;
        if found.iter().any(|(other, _)| *other == class) {
            let of = class.map_or("all classes; that of one is written CLASS=VALUE", |class| &classes[class]);
            bail!("{option} has two values for {of}");
        }
        found.push((class, *value));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use yolo_lat::model::classes::COCO;

    fn read(texts: &[&str]) -> anyhow::Result<Vec<(Option<usize>, f32)>> {
        let given: Result<Vec<_>, _> = texts.iter().map(|text| for_class(parse_share)(text)).collect();
        find("--conf", &given.map_err(anyhow::Error::msg)?, &COCO.map(str::to_owned))
    }

    #[test]
    fn classes_are_found_by_any_of_their_names() {
        let found = read(&["0.3", "tvmonitor=0.4", " sofa = 0.5", "aeroplane=0.6", "0=0.7", "cell phone=1"]).unwrap();
        let wanted = [(None, 0.3), (Some(62), 0.4), (Some(57), 0.5), (Some(4), 0.6), (Some(0), 0.7), (Some(67), 1.0)];
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (texts, wrong) in [
            (&["persn=0.5"][..], "--conf: the model knows no \"persn\"; did you mean \"person\"?"),
            (&["tv=0.3", "television=0.4"], "--conf has two values for tv"),
            (&["0.3", "0.4"], "--conf has two values for all classes; that of one is written CLASS=VALUE"),
            (&["=0.4"], "\"=0.4\" names no class"),
            (&["person="], "expected a number from 0 to 1, found \"\""),
            (&["person=2"], "expected a number from 0 to 1, found 2"),
        ] {
            let said = crate::reason(&read(texts).unwrap_err());
            assert!(said.contains(wrong), "{texts:?}: {said}");
        }
    }
}
