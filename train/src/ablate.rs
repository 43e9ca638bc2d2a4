//! Trains one network in several variants, from the same weights, with the same seed and the same order of data, and compares.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde::Deserialize;
use toml::Table;
use yolo_lat::model::{ModelConfig, graph_of};
use yolo_lat::sink::write_atomically;

use crate::TrainArguments;
use crate::config::TrainConfig;
use crate::log::say;
use crate::plot::{Log, draw};
use crate::run::{Trainer, device, fill_teachers, interrupt_flag};

/// A file of ablations.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ablations {
    /// The run that all variants share, as [`TrainConfig`].
    base: Table,
    variant: Vec<Variant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    /// Folder of its run, too.
    name: String,
    /// What changes in the model's configuration.
    #[serde(default)]
    model: Table,
    /// What changes in the run.
    #[serde(default)]
    train: Table,
}

/// Puts the values of `changes` in place, table by table.
pub(crate) fn merge(into: &mut Table, changes: &Table) {
    for (key, value) in changes {
        match (into.get_mut(key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(changes)) => merge(inner, changes),
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Trains every variant that is not finished, then writes `table.md` and `curves.png` into the base's output folder.
///
/// # Errors
/// A configuration is wrong or a run fails.
pub(crate) fn ablate(arguments: &TrainArguments) -> anyhow::Result<ExitCode> {
    let path = &arguments.config;
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let Ablations { base, variant: variants } = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let common = TrainConfig::parse(&toml::to_string(&base)?).with_context(|| format!("{}: base", path.display()))?;
    let model_text = std::fs::read_to_string(&common.model).with_context(|| common.model.display().to_string())?;
    let interrupted = interrupt_flag()?;
    let mut rows = Vec::new();
    for Variant { name, model, train } in &variants {
        let folder = common.output.join(name);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let mut table: Table = toml::from_str(&model_text)?;
        merge(&mut table, model);
        let (model_file, text) = (folder.join("model.toml"), toml::to_string(&table)?);
        let model = ModelConfig::parse(&text, name)?;
        write_atomically(&model_file, |writer| std::io::Write::write_all(writer, text.as_bytes()))?;
        let mut table = base.clone();
        merge(&mut table, train);
        let mut config = TrainConfig::parse(&toml::to_string(&table)?).with_context(|| format!("variant {name}"))?;
        (config.model, config.output) = (model_file, folder.clone());
        config.init = arguments.init.clone().or(config.init);
        // Not every variant has teachers.
        let teachers = config.teachers.iter().filter(|teacher| teacher.file.is_none()).count();
        fill_teachers(&mut config, &arguments.teacher[..teachers.min(arguments.teacher.len())])?;
        let parameters = graph_of(&model, config.size, config.size)?.parameters();
        let finished = folder.join("finished");
        if !(arguments.resume && finished.exists()) {
            say(&format!("{name}: {parameters} parameters"));
            if !arguments.resume && folder.join("metrics.jsonl").exists() {
                std::fs::remove_file(folder.join("metrics.jsonl"))?;
            }
            let mut trainer = Trainer::new(config, device(&arguments.device)?, &arguments.data, interrupted.clone())?;
            trainer.start(arguments.resume)?;
            let code = trainer.run()?;
            if code != ExitCode::SUCCESS {
                return Ok(code);
            }
            write_atomically(&finished, |_| Ok(()))?;
        }
        rows.push((Log::read(&folder)?, parameters));
    }
    let table = table(&rows)?;
    write_atomically(&common.output.join("table.md"), |writer| std::io::Write::write_all(writer, table.as_bytes()))?;
    let logs: Vec<Log> = rows.into_iter().map(|(log, _)| log).collect();
    draw(&logs, &common.output.join("curves.png"))?;
    say(&format!("{table}\n{}", common.output.join("curves.png").display()));
    Ok(ExitCode::SUCCESS)
}

/// One row a variant: size, accuracy, the class and box losses at the quarters of the run, speed.
fn table(rows: &[(Log, usize)]) -> anyhow::Result<String> {
    let mut table = String::from(
        "| variant | parameters | mAP50 | class loss at 1/4, 1/2, 3/4, end | box loss at 1/4, 1/2, 3/4, end | images/s |\n|---|---|---|---|---|---|\n",
    );
    for (log, parameters) in rows {
        let Some(&(_, map50)) = log.points("map50").last() else { bail!("{}: no mAP50 in its log", log.name) };
        let quarters = |key: &str| {
            let points = log.points(key);
            let at = |quarter: usize| points.get((points.len() * quarter / 4).saturating_sub(1));
            let values = (1..=4).filter_map(at).map(|(_, value)| format!("{value:.3}"));
            values.collect::<Vec<_>>().join(", ")
        };
        let speeds = log.points("images_per_second");
        let mean = speeds.iter().map(|(_, speed)| speed).sum::<f64>() / speeds.len().max(1) as f64;
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {} | {parameters} | {map50:.1} | {} | {} | {mean:.0} |",
            log.name,
            quarters("class"),
            quarters("box")
        );
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_replace_values_and_keep_their_neighbours() {
        let mut table: Table = toml::from_str("a = 1\n[neck]\nwidth = 64\nkernel = \"x\"").unwrap();
        merge(&mut table, &toml::from_str("b = 2\nneck.kernel = \"y\"").unwrap());
        assert_eq!(table, toml::from_str("a = 1\nb = 2\n[neck]\nwidth = 64\nkernel = \"y\"").unwrap());
    }

    #[test]
    fn the_variants_are_valid_and_of_equal_size() {
        for file in ["configs/ablate.toml", "configs/ablate-teacher.toml"] {
            let Ablations { base, variant: variants } =
                toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
            let common = TrainConfig::parse(&toml::to_string(&base).unwrap()).unwrap();
            let text = std::fs::read_to_string(std::path::Path::new("..").join(&common.model)).unwrap();
            let mut sizes = Vec::new();
            for Variant { name, model, train } in &variants {
                let mut table = base.clone();
                merge(&mut table, train);
                TrainConfig::parse(&toml::to_string(&table).unwrap()).unwrap();
                let mut table: Table = toml::from_str(&text).unwrap();
                merge(&mut table, model);
                let model = ModelConfig::parse(&toml::to_string(&table).unwrap(), name).unwrap();
                sizes.push(graph_of(&model, 192, 192).unwrap().parameters());
            }
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(most - least < 100, "{file}: {sizes:?}");
        }
    }
}
