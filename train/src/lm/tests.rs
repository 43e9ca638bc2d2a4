//! What a language model must do, each of which the paper's program does not, or which a slip would break unseen.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tch::{Kind, Reduction, Tensor};
use yolo_lat::attention::{DiffDistance, HadamardExp, Kernel, ModulatedDot, Rows, SumDistance, causal_f32};
use yolo_lat_lm::{Attention, Axis, Bias, ConvolutionTaps, Experts, Link, LmConfig, Mask, Memory, MemoryInput};

use super::attention::{attend, in_chunks, rotate};
use super::config::RunConfig;
use super::evaluate::{bits_per_byte, measure, nats_per_token};
use super::model::{Initialisation, LanguageModel};
use super::run::Trainer;
use super::text::{Chapter, Texts, learn};
use crate::suite::{RunConfig as _, Suite};

const ATTENTIONS: [Attention; 5] =
    [Attention::Softmax, Attention::Hadamard, Attention::Sum, Attention::Difference, Attention::Modulated];

fn tiny() -> LmConfig {
    LmConfig {
        vocabulary: 64,
        width: 16,
        layers: 2,
        heads: 2,
        link: Link::Hyper,
        attention: Attention::Hadamard,
        axis: Axis::Tokens,
        experts: Experts { count: 4, active: 2, width: 8, bias: Bias::None },
        rope: true,
        final_norm: true,
        convolution: ConvolutionTaps(0),
        key_scale: false,
        decay: false,
        memory: None,
    }
}

fn lobe(mask: Mask) -> Option<Memory> {
    Some(Memory { mask, heads: 2, input: MemoryInput::Delta })
}

/// All that is causal.
fn causal_variants() -> Vec<LmConfig> {
    let links = [Link::HyperA, Link::Two, Link::PublishedTwo].map(|link| LmConfig { link, ..tiny() });
    let attentions = ATTENTIONS.map(|attention| LmConfig { attention, ..tiny() });
    let biases = [Bias::Inner, Bias::Outer, Bias::Free];
    let biases = biases.map(|bias| LmConfig { experts: Experts { bias, ..tiny().experts }, ..tiny() });
    let input = Some(Memory { mask: Mask::Causal, heads: 1, input: MemoryInput::Input });
    let levers = LmConfig { convolution: ConvolutionTaps(4), key_scale: true, decay: true, ..tiny() };
    let others = [
        LmConfig { memory: lobe(Mask::Causal), ..tiny() },
        LmConfig { memory: input, ..tiny() },
        LmConfig { attention: Attention::Softmax, ..levers.clone() },
        levers,
        LmConfig { rope: false, ..tiny() },
        LmConfig { experts: Experts { active: 1, ..tiny().experts }, ..tiny() },
        LmConfig { experts: Experts { count: 1, active: 1, width: 16, bias: Bias::None }, ..tiny() },
    ];
    [links.to_vec(), attentions.to_vec(), biases.to_vec(), others.to_vec()].concat()
}

/// In f64, with weights as large as those of a trained model: at the beginning all tokens are nearly alike.
fn lively(config: &LmConfig, seed: u64) -> LanguageModel {
    let model = LanguageModel::new(config, Initialisation::Small, seed, Kind::Double);
    tch::no_grad(|| {
        for (name, value) in &model.parameters {
            let grows = name.ends_with(".weight") || name.ends_with("router") || name == "embedding";
            let _ = value.shallow_clone().g_mul_scalar_(if grows { 15.0 } else { 1.0 });
        }
    });
    model
}

fn random_tokens(count: usize, vocabulary: i64, seed: u64) -> Vec<i64> {
    let mut random = SmallRng::seed_from_u64(seed);
    (0..count).map(|_| random.random_range(1..vocabulary)).collect()
}

fn logits(model: &LanguageModel, tokens: &[i64]) -> Tensor {
    tch::no_grad(|| model.forward(&Tensor::from_slice(tokens).unsqueeze(0)).logits.squeeze_dim(0))
}

/// How far the logits at each place move when the token at `place` is another one.
fn moves(model: &LanguageModel, place: usize) -> Vec<f64> {
    let mut tokens = random_tokens(16, 64, 3);
    let before = logits(model, &tokens);
    tokens[place] = (tokens[place] + 31) % 64;
    let difference: Tensor = logits(model, &tokens) - before;
    Vec::try_from(difference.abs().amax(-1, false)).unwrap()
}

#[test]
fn no_token_sees_those_to_come_and_all_see_those_before() {
    for config in causal_variants() {
        let moves = moves(&lively(&config, 1), 5);
        assert!(moves[..5].iter().all(|&moved| moved < 1e-9), "{config:?}: {moves:?}");
        assert!(moves[5..].iter().all(|&moved| moved > 1e-6), "{config:?}: {moves:?}");
    }
}

#[test]
fn attention_over_heads_mixes_no_tokens() {
    for attention in [Attention::Hadamard, Attention::Sum, Attention::Difference, Attention::Modulated] {
        for link in [Link::HyperA, Link::PublishedTwo] {
            let config = LmConfig { attention, link, axis: Axis::Heads, final_norm: false, ..tiny() };
            let moves = moves(&lively(&config, 1), 5);
            let (place, others) = (moves[5], [&moves[..5], &moves[6..]].concat());
            assert!(place > 1e-6 && others.iter().all(|&moved| moved < 1e-9), "{config:?}: {moves:?}");
        }
    }
}

#[test]
fn a_bidirectional_lobe_sees_those_to_come() {
    let moves = moves(&lively(&LmConfig { memory: lobe(Mask::Bidirectional), ..tiny() }, 1), 5);
    assert!(moves[..5].iter().all(|&moved| moved > 1e-6), "{moves:?}");
}

#[test]
fn the_first_loss_is_that_of_guessing() {
    let config = LmConfig { vocabulary: 2048, width: 128, layers: 4, heads: 4, ..tiny() };
    let mut config = LmConfig { experts: Experts { width: 128, ..config.experts }, ..config };
    let loss = |config: &LmConfig, initialisation| {
        let model = LanguageModel::new(config, initialisation, 1, Kind::Float);
        let tokens = Tensor::from_slice(&random_tokens(257, 2048, 2));
        let logits = tch::no_grad(|| model.forward(&tokens.narrow(0, 0, 256).unsqueeze(0)).logits);
        logits.squeeze_dim(0).cross_entropy_for_logits(&tokens.narrow(0, 1, 256)).double_value(&[])
    };
    let small = loss(&config, Initialisation::Small);
    assert!((small - 2048f64.ln()).abs() < 0.15, "{small}");
    // What the paper's curves begin with: its initialisation, not the network.
    assert!(loss(&config, Initialisation::Published) > 20.0);
    // Of the two links, that which adds its normalised input once more says the same louder.
    config.final_norm = false;
    let without = [Link::HyperA, Link::PublishedTwo].map(|link| {
        config.link = link;
        loss(&config, Initialisation::Published)
    });
    assert!(without[0] > 20.0 && without[1] > 2.0 * without[0], "{without:?}");
}

#[test]
fn the_order_of_what_lies_far_back_matters() {
    for attention in ATTENTIONS {
        let model = lively(&LmConfig { attention, ..tiny() }, 2);
        let mut tokens = random_tokens(40, 64, 4);
        assert_ne!(tokens[3], tokens[11]);
        let last = |tokens: &[i64]| logits(&model, tokens).get(39);
        let before = last(&tokens);
        tokens.swap(3, 11);
        assert!((last(&tokens) - before).abs().max().double_value(&[]) > 1e-6, "{attention:?}");
    }
}

/// Queries, keys or values (1, 1, 300, 8), evenly up to `bound`.
fn rows(bound: f64, seed: u64) -> Tensor {
    let mut random = SmallRng::seed_from_u64(seed);
    let values: Vec<f32> = (0..300 * 8).map(|_| random.random_range(-bound..bound) as f32).collect();
    Tensor::from_slice(&values).view([1, 1, 300, 8])
}

#[test]
fn the_products_equal_the_state_token_by_token() {
    let kernels: [(Attention, &dyn Kernel, &[f64]); 4] = [
        // At once, and in chunks.
        (Attention::Hadamard, &HadamardExp, &[1.0, 30.0, 400.0, 1e4]),
        (Attention::Sum, &SumDistance, &[1.0, 1e4]),
        (Attention::Difference, &DiffDistance, &[1.0, 1e4]),
        (Attention::Modulated, &ModulatedDot, &[1.0, 1e4]),
    ];
    for (attention, kernel, bounds) in kernels {
        for &bound in bounds {
            let [q, k] = [1, 2].map(|seed| rows(bound, seed));
            let v = rows(1.0, 3);
            let found: Vec<f32> =
                Vec::try_from(attend([&q, &k, &v], attention, Mask::Causal, None).flatten(0, -1)).unwrap();
            // What the products do to queries and keys, in the same f32.
            let scale = 8f64.powf(-0.25);
            let [q, k, v] = [&q * scale, &k * scale, v].map(|x| Vec::<f32>::try_from(x.flatten(0, -1)).unwrap());
            let expected = match attention {
                Attention::Hadamard => causal_f32(HadamardExp, Rows::new(&q, 8), Rows::new(&k, 8), Rows::new(&v, 8)),
                Attention::Sum => causal_f32(SumDistance, Rows::new(&q, 8), Rows::new(&k, 8), Rows::new(&v, 8)),
                Attention::Difference => causal_f32(DiffDistance, Rows::new(&q, 8), Rows::new(&k, 8), Rows::new(&v, 8)),
                _ => causal_f32(ModulatedDot, Rows::new(&q, 8), Rows::new(&k, 8), Rows::new(&v, 8)),
            };
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{} to {bound}: {worst}", kernel.name());
        }
    }
}

#[test]
fn chunks_and_their_gradients_are_those_of_one_product() {
    let grown = |x: Tensor| x.narrow(2, 0, 40).to_kind(Kind::Double).set_requires_grad(true);
    let decay = Tensor::from_slice(&[0.9f64.ln()]).reshape([-1, 1, 1]);
    let places = Tensor::arange(40, (Kind::Double, tch::Device::Cpu));
    let faded = (places.unsqueeze(1) - places.unsqueeze(0)).clamp_min(0.0) * &decay;
    for faded in [None, Some(&faded)] {
        let side = |chunks: bool| {
            let [q, k, v] = [1, 2, 3].map(|seed| grown(rows(2.0, seed)));
            let y = if chunks {
                let scale = 8f64.powf(-0.25);
                in_chunks([&(&q * scale), &(&k * scale), &v], faded)
            } else {
                attend([&q, &k, &v], Attention::Hadamard, Mask::Causal, faded.map(|_| &decay))
            };
            // Not a plain sum: of that, weights that add up to 1 leave nothing to queries and keys.
            (&y * y.cos()).sum(Kind::Double).backward();
            [y.detach(), q.grad(), k.grad(), v.grad()]
        };
        for (a, b) in side(true).iter().zip(&side(false)) {
            assert!((a - b).abs().max().double_value(&[]) < 1e-12);
        }
    }
}

#[test]
fn forgetting_is_what_its_formula_says() {
    let [q, k, v] = [1, 2, 3].map(|seed| rows(1.0, seed).narrow(2, 0, 5).to_kind(Kind::Double));
    let gamma = 0.7f64;
    let decay = Tensor::from_slice(&[gamma.ln()]).reshape([-1, 1, 1]);
    let found = attend([&q, &k, &v], Attention::Hadamard, Mask::Causal, Some(&decay));
    let scale = 8f64.powf(-0.25);
    let at = |x: &Tensor, token: i64, d: i64| x.double_value(&[0, 0, token, d]);
    for i in 0..5 {
        let weight = |j: i64| {
            let kernel: f64 = (0..8).map(|d| (scale * (at(&q, i, d) + at(&k, j, d))).exp()).sum();
            kernel * gamma.powi((i - j) as i32)
        };
        let total: f64 = (0..=i).map(weight).sum();
        for d in 0..8 {
            let expected = (0..=i).map(|j| weight(j) * at(&v, j, d)).sum::<f64>() / total;
            assert!((at(&found, i, d) - expected).abs() < 1e-12);
        }
    }
}

#[test]
fn rotated_products_depend_on_the_distance_alone() {
    let row = rows(1.0, 1).narrow(2, 0, 1).to_kind(Kind::Double);
    let turned = rotate(&row.expand([1, 12, 1, 8], false)).reshape([12, 8]);
    let product = |i: i64, j: i64| turned.get(i).dot(&turned.get(j)).double_value(&[]);
    assert!((product(7, 4) - product(11, 8)).abs() < 1e-12);
    assert!((product(7, 4) - product(11, 7)).abs() > 1e-3);
}

/// Loss with the experts' balance, so that all gradients count; in the kind of the logits, where tch's own short form rounds to f32.
fn loss(model: &LanguageModel, tokens: &Tensor) -> Tensor {
    let answer = model.forward(&tokens.narrow(0, 0, 12).unsqueeze(0));
    let (logits, target) = (answer.logits.squeeze_dim(0), tokens.narrow(0, 1, 12));
    logits.cross_entropy_loss::<Tensor>(&target, None, Reduction::Mean, -100, 0.0) + answer.balance * 0.01
}

#[test]
fn gradients_are_those_of_finite_differences() {
    const STEP: f64 = 1e-5;
    let tokens = Tensor::from_slice(&random_tokens(13, 64, 5));
    for config in causal_variants() {
        let model = lively(&config, 3);
        loss(&model, &tokens).backward();
        for (name, value) in &model.parameters {
            tch::manual_seed(7);
            let direction = Tensor::randn_like(value).detach();
            let direction = &direction / direction.norm();
            let expected = (value.grad() * &direction).sum(Kind::Double).double_value(&[]);
            let at = |step: f64| {
                tch::no_grad(|| {
                    let _ = value.shallow_clone().g_add_(&(&direction * step));
                    let loss = loss(&model, &tokens).double_value(&[]);
                    let _ = value.shallow_clone().g_sub_(&(&direction * step));
                    loss
                })
            };
            let found = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            assert!((found - expected).abs() < 1e-6 * (1.0 + expected.abs()), "{config:?} {name}: {found} {expected}");
        }
    }
}

#[test]
fn of_equal_scores_the_first_experts_are_chosen_and_use_is_balanced() {
    let model = lively(&tiny(), 1);
    let tokens = random_tokens(8, 64, 6);
    tch::no_grad(|| {
        for layer in 0..2 {
            let _ = model.parameters[&format!("layers.{layer}.router")].shallow_clone().zero_();
        }
    });
    let before = logits(&model, &tokens);
    let answer = tch::no_grad(|| model.forward(&Tensor::from_slice(&tokens).unsqueeze(0)));
    // 1 a layer, as of experts that are all used alike.
    assert!((answer.balance.double_value(&[]) - 2.0).abs() < 1e-12);
    // The last two are never asked.
    tch::no_grad(|| {
        for layer in 0..2 {
            let _ = model.parameters[&format!("layers.{layer}.experts.down.weight")].narrow(0, 2, 2).fill_(9.0);
        }
    });
    assert_eq!(logits(&model, &tokens), before);
}

/// Texts without any order.
fn noise(vocabulary: u32, seed: u64) -> Texts {
    let tokens = |count, seed| -> Vec<u32> {
        random_tokens(count, vocabulary.into(), seed).into_iter().map(|token| token as u32).collect()
    };
    let text = "It is a truth universally acknowledged, that a single man in possession of a good fortune";
    Texts {
        tokenizer: learn(&[text], 257).unwrap(),
        train: tokens(400_000, seed),
        validation: vec![Chapter { text: text.into(), tokens: tokens(8000, seed + 1) }],
    }
}

fn run_config(model: LmConfig, steps: usize, output: &std::path::Path) -> RunConfig {
    RunConfig {
        output: output.to_owned(),
        texts: vec![super::text::Source::File { file: "none".into() }],
        train_tokens: None,
        steps,
        batch: 8,
        length: 64,
        rate: 1e-2,
        last_rate: 0.1,
        warmup_steps: 10,
        weight_decay: 0.1,
        clip: 1.0,
        balance: 0.01,
        measure_every: steps,
        seed: 1,
        initialisation: Initialisation::Small,
        model,
    }
}

#[test]
fn of_noise_nothing_is_learnt_but_by_a_leak() {
    let texts = Arc::new(noise(64, 8));
    // In short stretches a lobe that sees them whole need not find the next token among many.
    let loss = |model| {
        let folder = tempfile::tempdir().unwrap();
        let config = RunConfig { batch: 64, length: 8, ..run_config(model, 200, folder.path()) };
        let mut trainer = Trainer::new(config, texts.clone(), Arc::new(AtomicBool::new(false))).unwrap();
        trainer.start().unwrap();
        trainer.run().unwrap();
        nats_per_token(&measure(&trainer.model, &texts.validation, 8).unwrap())
    };
    // 63 tokens occur.
    let guessing = 63f64.ln();
    let found = loss(LmConfig { memory: lobe(Mask::Causal), ..tiny() });
    assert!((found - guessing).abs() < 0.05, "{found} {guessing}");
    let found = loss(LmConfig { memory: lobe(Mask::Bidirectional), ..tiny() });
    assert!(found < guessing - 0.05, "{found} {guessing}");
}

#[test]
fn every_token_of_a_chapter_is_measured_once() {
    let texts = noise(64, 9);
    let model = LanguageModel::new(&tiny(), Initialisation::Small, 1, Kind::Float);
    // Without an embedding every answer is a guess.
    let _ = tch::no_grad(|| model.parameters["embedding"].shallow_clone().zero_());
    let measured = measure(&model, &texts.validation, 64).unwrap();
    assert_eq!(measured[0].tokens, 7999);
    assert!((nats_per_token(&measured) - 64f64.ln()).abs() < 1e-5);
    let bits = 7999.0 * 6.0 / measured[0].bytes as f64;
    assert!((bits_per_byte(&measured) - bits).abs() < 1e-3);
}

#[test]
fn a_resumed_run_equals_one_that_was_not_interrupted() {
    let texts = Arc::new(noise(64, 10));
    let model = LmConfig { memory: lobe(Mask::Causal), ..tiny() };
    let whole = tempfile::tempdir().unwrap();
    let halves = tempfile::tempdir().unwrap();
    let run = |folder: &std::path::Path, interrupted: bool| {
        let config = RunConfig { measure_every: 10, ..run_config(model.clone(), 30, folder) };
        let mut trainer = Trainer::new(config, texts.clone(), Arc::new(AtomicBool::new(interrupted))).unwrap();
        trainer.start().unwrap();
        trainer.run().unwrap();
        trainer
    };
    let whole_run = run(whole.path(), false);
    // An interrupt stops after the next step; each goes on from the checkpoint.
    for step in 1..=13 {
        assert_eq!(run(halves.path(), true).step, step);
    }
    // What was logged after the checkpoint is made again.
    let log = halves.path().join("metrics.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, format!("{text}{{\"step\":20,\"loss\":0.0}}\n{{\"ste")).unwrap();
    let resumed = run(halves.path(), false);
    for (name, value) in &whole_run.model.parameters {
        assert_eq!(value, &resumed.model.parameters[name], "{name}");
    }
    let lines = |folder: &std::path::Path| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        let mut lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &mut lines {
            line.as_object_mut().unwrap().remove("tokens_per_second");
        }
        lines
    };
    assert_eq!(lines(whole.path()), lines(halves.path()));
    // Another configuration does not go on with it.
    let other = RunConfig { rate: 1e-3, ..run_config(model.clone(), 30, halves.path()) };
    let mut trainer = Trainer::new(other, texts.clone(), Arc::new(AtomicBool::new(false))).unwrap();
    assert!(trainer.start().unwrap_err().to_string().contains("another configuration"));
}

#[test]
fn the_experiment_is_valid_and_its_controls_are_of_equal_size() {
    let suite = Suite::load::<RunConfig>(std::path::Path::new("configs/lm/fair.toml")).unwrap();
    let runs = suite.runs::<RunConfig>().unwrap();
    assert!(runs.iter().all(|run| !run.config.leaks()));
    let size = |name: &str| runs.iter().find(|run| run.variant == name).unwrap().config.model.parameter_count();
    assert_eq!(runs[..5].iter().map(|run| run.seed).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(runs[..5].iter().all(|run| run.variant == "base"));
    assert_eq!(size("softmax"), size("base"));
    assert_eq!(size("lobe"), size("wide"));
}

/// The model as the program runs it, with a tokeniser of 260 tokens.
fn without_libtorch(model: &LanguageModel) -> yolo_lat_lm::Model {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let weights: Vec<_> =
        model.parameters.iter().map(|(name, value)| (name, value.detach().to_kind(Kind::Float).contiguous())).collect();
    crate::checkpoint::write_tensors(&file, &weights).unwrap();
    let config = toml::to_string(&model.config).unwrap();
    let tokenizer = learn(&["in want of a wife, in want of a wife"], 260).unwrap();
    yolo_lat_lm::Model::parse("model", &config, &std::fs::read(&file).unwrap(), tokenizer.as_bytes()).unwrap()
}

/// Largest difference between these logits (T, V) and those of the program, token by token.
fn difference(model: &yolo_lat_lm::Model, tokens: &[i64], expected: &[f32]) -> f32 {
    let mut decoder = yolo_lat_lm::Decoder::new(model).unwrap();
    let rows = expected.chunks_exact(model.config().vocabulary);
    let worst = tokens.iter().zip(rows).map(|(&token, expected)| {
        let found = decoder.step(token as u32).unwrap();
        found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    });
    worst.fold(0.0, f32::max)
}

#[test]
fn the_program_says_what_the_trainer_does() {
    let tokens = random_tokens(300, 260, 11);
    for config in causal_variants() {
        // Heads that forget are not decoded.
        let config = LmConfig { vocabulary: 260, decay: false, ..config };
        let mut model = LanguageModel::new(&config, Initialisation::Small, 5, Kind::Float);
        model.parameters.values_mut().for_each(|value| *value = value.detach() * 3.0);
        let expected = Vec::<f32>::try_from(logits(&model, &tokens).flatten(0, -1)).unwrap();
        let worst = difference(&without_libtorch(&model), &tokens, &expected);
        assert!(worst < 1e-4, "{config:?}: {worst}");
    }
    let refused = |config| {
        let model = without_libtorch(&LanguageModel::new(&config, Initialisation::Small, 1, Kind::Float));
        yolo_lat_lm::Decoder::new(&model).err().unwrap().to_string()
    };
    let bidirectional = LmConfig { vocabulary: 260, memory: lobe(Mask::Bidirectional), ..tiny() };
    assert!(refused(bidirectional).starts_with("memory.mask = \"bidirectional\": "));
    assert!(refused(LmConfig { vocabulary: 260, decay: true, ..tiny() }).starts_with("decay = true: "));
}

/// Model and logits by which crates/lm is tested where there is no libtorch; `YOLO_LAT_GOLDEN=1` writes them anew.
#[test]
fn the_golden_logits_are_the_trainers() {
    let folder = std::path::Path::new("../crates/lm/tests/golden");
    if std::env::var_os("YOLO_LAT_GOLDEN").is_some() {
        let experts = Experts { count: 4, active: 2, width: 4, bias: Bias::Inner };
        let config = LmConfig { vocabulary: 260, width: 8, experts, convolution: ConvolutionTaps(3), ..tiny() };
        let config = LmConfig { key_scale: true, memory: lobe(Mask::Causal), ..config };
        let model = LanguageModel::new(&config, Initialisation::Small, 5, Kind::Float);
        let weights: Vec<_> = model.parameters.iter().map(|(name, value)| (name, (value * 3.0).detach())).collect();
        crate::checkpoint::write_tensors(&folder.join("tiny.safetensors"), &weights).unwrap();
        std::fs::write(folder.join("tiny.toml"), toml::to_string(&config).unwrap()).unwrap();
        let tokenizer = learn(&["in want of a wife, in want of a wife"], 260).unwrap();
        std::fs::write(folder.join("tiny.tokenizer.json"), tokenizer).unwrap();
        let tokens = random_tokens(20, 260, 12);
        let logits = Vec::<f64>::try_from(golden_model(folder, &tokens).flatten(0, -1).to_kind(Kind::Double)).unwrap();
        let logits: Vec<f64> = logits.iter().map(|logit| (logit * 1e6).round() / 1e6).collect();
        let json = serde_json::json!({ "tokens": tokens, "logits": logits });
        std::fs::write(folder.join("tiny.json"), json.to_string()).unwrap();
    }
    let golden: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("tiny.json")).unwrap()).unwrap();
    let tokens: Vec<i64> = serde_json::from_value(golden["tokens"].clone()).unwrap();
    let expected: Vec<f32> = serde_json::from_value(golden["logits"].clone()).unwrap();
    let found = Vec::<f32>::try_from(golden_model(folder, &tokens).flatten(0, -1)).unwrap();
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
}

/// What the trainer says about `tokens` with the golden weights.
fn golden_model(folder: &std::path::Path, tokens: &[i64]) -> Tensor {
    let config = LmConfig::load(&folder.join("tiny.toml")).unwrap();
    let mut model = LanguageModel::new(&config, Initialisation::Small, 1, Kind::Float);
    for (name, value) in Tensor::read_safetensors(folder.join("tiny.safetensors")).unwrap() {
        assert!(model.parameters.insert(name, value).is_some());
    }
    logits(&model, tokens)
}

/// `configs/lm/quick.toml` with its output in `folder`.
fn quick(folder: &std::path::Path) -> super::LmArguments {
    let text = std::fs::read_to_string("configs/lm/quick.toml").unwrap();
    let text = text.replace("train/configs", "configs").replace("runs/", &format!("{}/", folder.display()));
    let config = folder.join("quick.toml");
    std::fs::write(&config, text).unwrap();
    super::LmArguments { config, data: folder.to_owned(), threads: 1 }
}

#[test]
fn a_small_experiment_ends_in_a_table_and_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = quick(folder.path());
    super::suite::suite(&arguments).unwrap();
    let results = folder.path().join("lm-quick/results");
    let table = std::fs::read_to_string(results.join("table.md")).unwrap();
    for row in [
        "| base | 2 | ",
        "| softmax | 2 | ",
        "| lobe | 2 | ",
        "| F1 | base - softmax | 2 | ",
        "| F3 | lobe - base | 2 | ",
    ] {
        assert!(table.contains(row), "{row}: {table}");
    }
    assert!(image::open(results.join("curves.png")).unwrap().width() > 0);
    let log = std::fs::read_to_string(results.join("base-1.jsonl")).unwrap();
    let losses: Vec<f64> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["validation"].as_f64())
        .collect();
    assert_eq!(losses.len(), 4);
    assert!((losses[0] - 512f64.ln()).abs() < 0.15, "{losses:?}");
    assert!(losses[3] < losses[0] - 1.0, "{losses:?}");
    // What is finished is not made again: without texts it could not be.
    let again = super::LmArguments { data: "nowhere".into(), ..quick(folder.path()) };
    super::suite::suite(&again).unwrap();
    assert_eq!(std::fs::read_to_string(results.join("table.md")).unwrap(), table);
    // A run of another configuration is no result of this one.
    let text = std::fs::read_to_string(&arguments.config).unwrap().replace("steps = 60", "steps = 61");
    std::fs::write(&arguments.config, text).unwrap();
    let error = super::suite::suite(&arguments).unwrap_err().to_string();
    assert!(error.contains("base-1.jsonl: a run with another configuration"), "{error}");
    // The program goes on with a text by what was trained.
    let model = yolo_lat_lm::Model::load(&folder.path().join("lm-quick/base-1/model.toml")).unwrap();
    let text = std::fs::read_to_string("configs/lm/excerpt.txt").unwrap();
    let bits = yolo_lat_lm::surprise(&model, &text[..2000], Some(64)).unwrap().bits_per_byte();
    assert!(bits < 4.0, "{bits}");
}

#[test]
fn the_experiments_describe_runs() {
    for (name, runs) in [("fair", 50), ("paper", 5), ("confirm", 15), ("quick", 6)] {
        let suite = Suite::load::<RunConfig>(std::path::Path::new(&format!("configs/lm/{name}.toml"))).unwrap();
        assert_eq!(suite.runs::<RunConfig>().unwrap().len(), runs, "{name}");
        assert_eq!(suite.note.is_some(), name == "paper");
    }
}

#[test]
fn differences_are_paired_by_seed_and_chapter() {
    let folder = tempfile::tempdir().unwrap();
    let suite = Suite::load::<RunConfig>(&quick(folder.path()).config).unwrap();
    std::fs::create_dir_all(&suite.results).unwrap();
    for run in suite.runs::<RunConfig>().unwrap() {
        // Seeds differ by more than variants do; 100 tokens in each of two chapters.
        let better =
            [0.0, 0.1, -0.2][["base", "softmax", "lobe"].iter().position(|name| *name == run.variant).unwrap()];
        let nats = 4.0 + run.seed as f64 + better + 0.002 * (run.seed as f64) * better;
        let line = |step: usize, nats: f64| {
            let chapters = [[nats * 100.0, 100.0, 250.0], [nats * 100.0, 100.0, 250.0]];
            let chapters = chapters.map(|[nats, tokens, bytes]| serde_json::json!([nats, tokens as u64, bytes as u64]));
            serde_json::json!({ "step": step, "validation": nats, "chapters": chapters })
        };
        let head = serde_json::json!({
            "config": run.config.settings(), "parameters": 10, "macs_per_token": 20,
        });
        let norms =
            serde_json::json!({ "step": 10, "loss": nats, "gradient_norms": [0.25, 0.5], "tokens_per_second": 1000.0 });
        let log = format!("{head}\n{}\n{norms}\n{}\n", line(0, nats + 1.0), line(60, nats));
        std::fs::write(run.result(&suite.results), log).unwrap();
    }
    let table = super::report::report(&suite).unwrap();
    // 4 + seed: mean 5.5, deviation 0.7071; 550 nats in 250 bytes are 3.1739 bits a byte.
    assert!(
        table.contains("| base | 2 | 10 | 20 | 5.5000 (0.7071) | 3.1739 | 1000 | 0.2500, 0.5000 | 5.500 |  |"),
        "{table}"
    );
    // -0.1002 and -0.1004: t of one degree of freedom 12.706 times 0.0001.
    let row = "| F1 | base - softmax | 2 | -0.1003 | -0.1016 to -0.0990 | -0.1003 to -0.1003 | 0.001 | better |";
    assert!(table.contains(row), "{table}");
    // The lobe reaches the base's last loss after 0.8 of the way: 60 steps of 512 tokens.
    assert!(table.contains("| F3 | lobe - base | 2 | -0.2006 |"), "{table}");
    assert!(table.contains("| 0.02 of 0.03 M |"), "{table}");
}
