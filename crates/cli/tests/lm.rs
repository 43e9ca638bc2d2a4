//! `yolo-lat lm` as users run it, with the tiny model of crates/lm.

#![cfg(feature = "lm")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{program, stderr, stdout, utf8, yolo_lat};
use serde_json::Value;

const TINY: &str = "crates/lm/tests/golden/tiny.toml";

#[test]
fn a_prompt_is_gone_on_with() {
    let generate = |more: &[&str]| {
        let output = yolo_lat(&[&["lm", "generate", "-m", TINY, "--prompt", "in want"], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    };
    assert_eq!(generate(&["--tokens", "0"]), "in want\n");
    let text = generate(&["--tokens", "20", "--seed", "3"]);
    assert!(text.starts_with("in want") && text.len() > "in want\n".len(), "{text}");
    assert_eq!(generate(&["--tokens", "20", "--seed", "3"]), text);
    assert_ne!(generate(&["--tokens", "20", "--seed", "4"]), text);
}

/// It learnt Jane Austen and the King James Bible, and knows them better than letters without order.
#[test]
fn the_model_that_comes_with_the_program_is_the_default() {
    let output = yolo_lat(&["lm", "generate", "--prompt", "It is a truth", "--tokens", "12", "--temperature", "0"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("It is a truth") && stdout(&output).len() > 30, "{}", stdout(&output));
    let folder = tempfile::tempdir().unwrap();
    let bits = |text: &str| {
        let file = folder.path().join("text.txt");
        std::fs::write(&file, text).unwrap();
        let output = yolo_lat(&["lm", "eval", "--json", utf8(&file)]);
        let line: Value = serde_json::from_str(&stdout(&output)).unwrap();
        line["bits_per_byte"].as_f64().unwrap()
    };
    let sentence = "She was very glad to see him, and could not help saying that it was a great pleasure to her.";
    let mut letters: Vec<char> = sentence.chars().collect();
    letters.sort_by_key(|letter| (*letter as u32).wrapping_mul(2_654_435_761));
    assert!(bits(sentence) < 2.2 && bits(&letters.into_iter().collect::<String>()) > 4.0);
}

#[test]
fn texts_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "in want of a wife").unwrap();
    let output = yolo_lat(&["lm", "eval", "-m", TINY, "--json", utf8(&text)]);
    let line: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let number = |key: &str| line[key].as_f64().unwrap();
    assert_eq!(number("bytes"), 17.0);
    let bits = number("nats_per_token") * number("tokens") / 17.0 / 2f64.ln();
    assert!((number("bits_per_byte") - bits).abs() < 1e-9);
    assert!(stdout(&yolo_lat(&["lm", "eval", "-m", TINY, utf8(&text)])).contains(" bits a byte ("));
}

#[test]
fn what_cannot_be_is_said_in_a_line() {
    let refused = |arguments: &[&str]| {
        let output = yolo_lat(&[&["lm"], arguments].concat());
        assert_eq!(output.status.code(), Some(2));
        let line = stderr(&output);
        assert_eq!(line.lines().count(), 1, "{line}");
        line
    };
    let folder = tempfile::tempdir().unwrap();
    let golden = |name: &str| std::path::Path::new("../lm/tests/golden").join(name);
    let changed = |from: &str, to: &str| {
        let text = std::fs::read_to_string(golden("tiny.toml")).unwrap();
        assert!(text.contains(from));
        std::fs::write(folder.path().join("tiny.toml"), text.replacen(from, to, 1)).unwrap();
    };
    for name in ["tiny.safetensors", "tiny.tokenizer.json"] {
        std::fs::copy(golden(name), folder.path().join(name)).unwrap();
    }
    let model = folder.path().join("tiny.toml");
    let generate = ["generate", "-m", utf8(&model), "-p", "a"];
    changed("mask = \"causal\"", "mask = \"bidirectional\"");
    assert!(refused(&generate).contains("no state can decode it"));
    changed("heads = 2", "heads = 3");
    assert!(refused(&generate).contains("heads = 3: does not divide width = 8"));
    changed("width = 8", "width = 16");
    assert!(refused(&generate).contains("tiny.safetensors: embedding: expected floats of shape [260, 16]"));
    assert!(refused(&["generate", "-m", "no.toml", "-p", "a"]).contains("no.toml: cannot be read"));
}

#[test]
fn a_text_that_is_none_is_said_and_the_others_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let [bytes, empty, missing, text] = ["bytes", "empty", "missing", "text"].map(|name| folder.path().join(name));
    std::fs::write(&bytes, [0xff, 0xfe]).unwrap();
    std::fs::write(&empty, "").unwrap();
    std::fs::write(&text, "in want of a wife").unwrap();
    let output = yolo_lat(&["lm", "eval", "-m", TINY, utf8(&bytes), utf8(&empty), utf8(&missing), utf8(&text)]);
    assert_eq!(output.status.code(), Some(1));
    let (lines, errors) = (stdout(&output), stderr(&output));
    assert!(lines.lines().count() == 1 && lines.contains("text: "), "{lines}");
    let errors: Vec<&str> = errors.lines().collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors[0].ends_with("bytes: no text in UTF-8") && errors[1].ends_with("empty: an empty file"));
    assert!(errors[2].contains("missing: cannot be read: "));
}

#[cfg(unix)]
#[test]
fn a_prompt_that_is_no_utf_8_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let prompt = std::ffi::OsStr::from_bytes(&[b'a', 0xff]);
    let output = program().args(["lm", "generate", "-m", TINY, "-p"]).arg(prompt).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(2), "yolo-lat: --prompt: no text in UTF-8\n"));
}
