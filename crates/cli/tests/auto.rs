//! `--engine auto`: the fastest measured engine, which is remembered. Any adapter that is named will do as the GPU.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{PROGRAM, stderr};
use serde_json::Value;

const CAT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/chelsea.jpg");

/// The program with a folder of its own for what it remembers.
fn program(home: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env("HOME", home).env("XDG_CACHE_HOME", home.join("cache"));
    command
}

/// A GPU of this machine, a software one too.
fn adapter(home: &Path) -> String {
    let output = program(home).args(["devices", "--json"]).output().unwrap();
    let devices: Value = serde_json::from_slice(&output.stdout).unwrap();
    let suitable = devices["adapters"].as_array().unwrap().iter().find(|adapter| adapter["suitable"] == true);
    let name = suitable.expect("no adapter; `make test` installs a software one")["name"].as_str().unwrap();
    name.split(" (").next().unwrap().to_owned()
}

/// What is said of a run on the processor or that adapter, whichever is faster.
fn detect(home: &Path, adapter: &str) -> String {
    let choice = ["--engine", "auto", "--adapter", adapter, "--size", "64", "-v"];
    let output = program(home).args(["detect", CAT]).args(choice).output().unwrap();
    let log = stderr(&output);
    assert!(output.status.success(), "{log}");
    log
}

/// The files of measurements.
fn remembered(home: &Path) -> Vec<PathBuf> {
    let files = walkdir::WalkDir::new(home).into_iter().map(|entry| entry.unwrap().into_path());
    let is_measurement = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "txt");
    files.filter(is_measurement).collect()
}

/// Names the other engine as the faster one, whichever it is.
fn turn_round(file: &Path) {
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let [head, identity, cpu, gpu] = lines[..] else { unreachable!("{text}") };
    let (cpu, gpu) = (cpu.strip_prefix("cpu ").unwrap(), gpu.strip_prefix("gpu ").unwrap());
    std::fs::write(file, format!("{head}\n{identity}\ncpu {gpu}\ngpu {cpu}\n")).unwrap();
}

#[test]
fn the_fastest_engine_is_measured_once_and_remembered() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let adapter = adapter(home);
    let first = detect(home, &adapter);
    assert!(first.contains("engine is the fastest: cpu ") && first.contains("measured now"), "{first}");
    let files = remembered(home);
    let [file] = &files[..] else { unreachable!("one machine and one network: {files:?}") };

    let runs_on = |log: &str| if log.contains("n on gpu (") { "gpu" } else { "cpu" };
    let again = detect(home, &adapter);
    assert!(again.contains(&format!("measured by an earlier run ({})", file.display())), "{again}");
    assert_eq!(runs_on(&again), runs_on(&first));

    // What is remembered decides.
    turn_round(file);
    let turned = detect(home, &adapter);
    assert_ne!(runs_on(&turned), runs_on(&first), "{turned}");

    // What is damaged does not.
    std::fs::write(file, "cpu gpu").unwrap();
    let mended = detect(home, &adapter);
    assert!(mended.contains("measured now") && remembered(home) == files, "{mended}");
}

#[test]
fn a_folder_that_cannot_be_written_costs_only_the_memory() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let adapter = adapter(home);
    let _ = std::fs::remove_dir_all(home.join("cache"));
    std::fs::write(home.join("cache"), "no folder").unwrap();
    for _ in 0..2 {
        let log = detect(home, &adapter);
        assert!(log.contains("measured now") && !log.contains("cannot be written"), "{log}");
    }
}

/// Where there is no choice nothing is measured, and it is said why.
#[test]
fn without_a_gpu_the_cpu_runs() {
    let home = tempfile::tempdir().unwrap();
    let log = detect(home.path(), "voodoo");
    assert!(log.contains("no adapter is called \"voodoo\"") && log.contains("; the cpu engine runs instead"), "{log}");
    assert!(log.contains("n on cpu (") && remembered(home.path()).is_empty(), "{log}");
}
