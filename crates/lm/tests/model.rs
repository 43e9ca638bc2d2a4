//! A tiny model against the trainer's logits, and what becomes of files and texts that are no model's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use yolo_lat_lm::{Decoder, Generation, LmError, Model, Sampling, surprise};

const GREEDY: Sampling = Sampling { temperature: 0.0, seed: 1 };

fn folder() -> &'static Path {
    Path::new("tests/golden")
}

fn tiny() -> Model {
    Model::load(&folder().join("tiny.toml")).unwrap()
}

#[test]
fn logits_are_the_trainers() {
    #[derive(serde::Deserialize)]
    struct Golden {
        tokens: Vec<u32>,
        logits: Vec<f32>,
    }
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(folder().join("tiny.json")).unwrap()).unwrap();
    let model = tiny();
    let mut decoder = Decoder::new(&model).unwrap();
    assert_eq!(golden.logits.len(), golden.tokens.len() * 260);
    let mut bytes = None;
    for (&token, expected) in golden.tokens.iter().zip(golden.logits.chunks_exact(260)) {
        let found = decoder.step(token).unwrap();
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "token {}: {worst}", decoder.position());
        // However many tokens: the same memory.
        assert_eq!(*bytes.get_or_insert(decoder.bytes()), decoder.bytes());
    }
    let refused = decoder.step(260).unwrap_err();
    assert_eq!(refused.to_string(), "token 260: the vocabulary has 260");
}

#[test]
fn a_text_goes_on_the_same_way_every_time() {
    let model = tiny();
    let text = |prompt: &str, sampling| -> String {
        Generation::new(&model, prompt, 40, sampling).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(text("in want", GREEDY), text("in want", GREEDY));
    let warm = |seed| Sampling { temperature: 2.0, seed };
    assert_eq!(text("in want", warm(1)), text("in want", warm(1)));
    assert_ne!(text("in want", warm(1)), text("in want", warm(2)));
    assert_eq!(Generation::new(&model, "", 0, GREEDY).unwrap().count(), 0);
    // Whole characters come, whatever the tokens.
    assert!(text("Ünï", warm(3)).chars().count() > 0);
}

#[test]
fn the_surprise_is_that_of_the_logits() {
    let model = tiny();
    let text = "in want of a wife";
    let found = surprise(&model, text, None).unwrap();
    let mut tokens = vec![0];
    tokens.extend(model.tokenizer().encode(text));
    tokens.push(0);
    assert_eq!((found.tokens, found.bytes), (tokens.len() - 1, text.len()));
    let mut decoder = Decoder::new(&model).unwrap();
    let mut nats = 0.0;
    for pair in tokens.windows(2) {
        let logits = decoder.step(pair[0]).unwrap();
        let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        nats += total.ln() - f64::from(logits[pair[1] as usize]);
    }
    assert!((found.nats - nats).abs() < 1e-4);
    assert!((found.bits_per_byte() - nats / 2f64.ln() / text.len() as f64).abs() < 1e-5);
    // Forgetting after every token changes what is known.
    assert!((surprise(&model, text, Some(1)).unwrap().nats - nats).abs() > 1e-3);
}

#[test]
fn files_of_other_models_are_refused_in_a_line() {
    let read = |name: &str| std::fs::read(folder().join(name)).unwrap();
    let config = String::from_utf8(read("tiny.toml")).unwrap();
    let (weights, tokenizer) = (read("tiny.safetensors"), read("tiny.tokenizer.json"));
    let refused = |config: &str, weights: &[u8], tokenizer: &[u8]| {
        let error: LmError = Model::parse("tiny", config, weights, tokenizer).err().unwrap();
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line}");
        line
    };
    assert!(Model::parse("tiny", &config, &weights, &tokenizer).is_ok());
    let wider = config.replacen("width = 8", "width = 12", 1);
    let line = refused(&wider, &weights, &tokenizer);
    assert_eq!(
        line,
        "tiny: embedding: expected floats of shape [260, 12], found F32 of shape [260, 8]; another model's weights?"
    );
    assert_eq!(
        refused(&config.replacen("heads = 2", "heads = 3", 1), &weights, &tokenizer),
        "heads = 3: does not divide width = 8 into heads of an even width"
    );
    assert!(refused(&config, &weights[..100], &tokenizer).starts_with("tiny: no safetensors file: "));
    assert!(refused(&config, &weights, b"{").starts_with("tokeniser: "));
    let missing = Model::load(Path::new("no/model.toml")).err().unwrap().to_string();
    assert!(missing.starts_with("no/model.toml: cannot be read: "), "{missing}");
}
