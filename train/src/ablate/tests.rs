use super::*;

/// Where an experiment of the repository is read by a test, which runs in the trainer's folder.
fn from_here(file: &str, folder: &std::path::Path) -> PathBuf {
    let text = std::fs::read_to_string(file).unwrap().replace("file = \"", "file = \"../");
    let path = folder.join("experiment.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_experiments_are_valid_and_their_controls_of_equal_size() {
    let folder = tempfile::tempdir().unwrap();
    for (file, count) in
        [("configs/ablate.toml", 65), ("configs/ablate-ghost.toml", 9), ("configs/ablate-teacher.toml", 15)]
    {
        let suite = Suite::load::<Ablation>(&from_here(file, folder.path())).unwrap();
        let runs = suite.runs::<Ablation>().unwrap();
        assert_eq!(runs.len(), count, "{file}");
        let parameters = |name: &str| {
            let run = runs.iter().find(|run| run.variant == name).unwrap();
            graph_of(&run.config.model, 192, 192).unwrap().parameters()
        };
        for contrast in &suite.contrasts {
            // Levers have no control of equal size.
            let free = ["lobe - base", "experts - base", "position-7 - base", "output-gate - base"];
            if free.contains(&format!("{} - {}", contrast.of, contrast.against).as_str()) {
                continue;
            }
            let (of, against) = (parameters(&contrast.of), parameters(&contrast.against));
            // Labels are a map of 4 x 64 weights, the router's or others, and 64 biases, in both blocks.
            let limit = if contrast.of.starts_with("experts-") { 640 } else { 400 };
            assert!(of.abs_diff(against) <= limit, "{file}: {} {of}, {} {against}", contrast.of, contrast.against);
        }
    }
}

/// Two variants of a small network, two seeds each, on the three sample photographs.
fn small(folder: &std::path::Path) -> AblateArguments {
    let text = format!(
        r#"
        results = "{0}/results"
        seeds = [1, 2]
        [base]
        model = {{ file = "../tests/golden/bootstrap/yolo-lat-n.toml", input = 96 }}
        init = "../tests/golden/bootstrap/yolo-lat-n.safetensors"
        frozen = ["stem", "stage"]
        output = "{0}/runs"
        train = ["../tests/data/tiny"]
        val = "../tests/data/tiny"
        val_limit = 3
        size = 96
        epochs = 2
        batch = 3
        rate = 1e-3
        last_rate = 0.1
        warmup_steps = 1
        weight_decay = 0.0
        clip = 10.0
        ema_decay = 0.5
        gentle_share = 0.5
        measure_every = 1
        [[variant]]
        name = "base"
        [[variant]]
        name = "experts"
        change.model.neck = {{ hidden = 24, experts = {{ count = 4, active = 2, bias = "inner" }} }}
        # Its teacher is named by who makes the run.
        [[variant]]
        name = "taught"
        seeds = [1]
        change.teacher = [{{ class = 1.0, boxes = 1.0 }}]
        [[contrast]]
        group = "experts"
        of = "experts"
        against = "base"
        "#,
        folder.display()
    );
    let config = folder.join("small.toml");
    std::fs::write(&config, text).unwrap();
    AblateArguments {
        config,
        data: "".into(),
        report: false,
        no_report: false,
        teacher: vec!["../tests/golden/bootstrap/yolo-lat-n.toml".into()],
        threads: 1,
        device: "cpu".into(),
    }
}

#[test]
fn a_small_experiment_ends_in_a_table_and_a_picture_and_is_not_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = small(folder.path());
    assert_eq!(ablate(&arguments).unwrap(), ExitCode::SUCCESS);
    let results = folder.path().join("results");
    let table = std::fs::read_to_string(results.join("table.md")).unwrap();
    for row in ["| base | 2 | ", "| experts | 2 | ", "| taught | 1 | ", "| experts | experts - base | 2 | "] {
        assert!(table.contains(row), "{row}: {table}");
    }
    assert!(image::open(results.join("curves.png")).unwrap().width() > 0);
    let log = std::fs::read_to_string(results.join("experts-2.jsonl")).unwrap();
    let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(last["accuracy"]["without"].as_array().unwrap().len(), 3);
    // What is finished is not made again, without photographs it could not be, nor timed again.
    let times = std::fs::metadata(results.join("times.json")).unwrap().modified().unwrap();
    let again = AblateArguments { data: "nowhere".into(), ..small(folder.path()) };
    ablate(&again).unwrap();
    assert_eq!(std::fs::read_to_string(results.join("table.md")).unwrap(), table);
    assert_eq!(std::fs::metadata(results.join("times.json")).unwrap().modified().unwrap(), times);
    // Neither is a run of another configuration a result of this one, nor its checkpoint this one's.
    let text = std::fs::read_to_string(&arguments.config).unwrap().replace("rate = 1e-3", "rate = 2e-3");
    std::fs::write(&arguments.config, text).unwrap();
    let error = ablate(&arguments).unwrap_err().to_string();
    assert!(error.contains("base-1.jsonl: a run with another configuration"), "{error}");
    std::fs::remove_file(results.join("base-1.jsonl")).unwrap();
    let error = ablate(&arguments).unwrap_err().to_string();
    assert!(error.contains("runs/base-1: a run with another configuration; delete the folder"), "{error}");
}

#[test]
fn differences_are_paired_by_seed_and_photograph() {
    let folder = tempfile::tempdir().unwrap();
    let suite = Suite::load::<Ablation>(&small(folder.path()).config).unwrap();
    std::fs::create_dir_all(&suite.results).unwrap();
    for run in suite.runs::<Ablation>().unwrap() {
        // Seeds differ by more than variants do. Without one of the photographs experts would be worse.
        let better = if run.variant == "experts" { 2.0 } else { 0.0 };
        let map50 = 30.0 + 5.0 * run.seed as f64 + better;
        let without = if run.variant == "experts" { [-3.0, -1.5, 1.5] } else { [-2.0, -0.5, 0.5] };
        let head = json!({ "config": run.config.settings(), "parameters": 10, "multiply_adds": 2_500_000 });
        let line =
            |step: usize, map50: f64| json!({ "step": step, "epoch": step, "map50": map50, "images_per_second": 7.0 });
        let accuracy = Accuracy { map50, map50_95: 20.0, without: without.map(|change| map50 + change).to_vec() };
        let log =
            format!("{head}\n{}\n{}\n{}\n", line(1, map50 - 8.0), line(2, map50), json!({ "accuracy": accuracy }));
        std::fs::write(run.result(&suite.results), log).unwrap();
    }
    let times =
        json!({ "engine": "cpu", "variants": { "base": [1.5, null], "experts": [2.0, 3.0], "taught": [1.5, null] } });
    std::fs::write(suite.results.join("times.json"), times.to_string()).unwrap();
    let table = report(&suite).unwrap();
    assert!(table.contains("| base | 2 | 10 | 2.5 | 1.50 |  | 37.50 (3.54) | 20.00 (0.00) | 7 |"), "{table}");
    // Pseudo-values of three photographs: the whole less twice the change, so 2 + 2, 2 + 2 and 2 - 2 apart; at least 0, at most 4.
    assert!(table.contains("| experts | experts - base | 2 | +2.00 | +2.00 to +2.00 | +0.00 to +4.00 |"), "{table}");
}
