//! Large images, many of them: memory stays below what small machines have.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{PROGRAM, stderr, stdout};
use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};

/// Most that `detect` and `eval` may have resident, in KiB.
const LIMIT_KIB: u64 = 512 << 10;

/// Runs the program and gives the most KiB that it had resident, with what it printed.
fn peak_kib(arguments: &[&str], folder: &Path) -> (u64, String) {
    let watch = "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; \
                 print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(code)";
    let mut command = Command::new("python3");
    command.args(["-c", watch, PROGRAM]).args(arguments).arg(folder);
    let output = command.output().unwrap();
    let errors = stderr(&output);
    assert!(output.status.success(), "{errors}");
    (errors.lines().last().unwrap().parse().unwrap(), stdout(&output))
}

fn photograph(side: u32) -> RgbImage {
    RgbImage::from_fn(side, side, |x, y| Rgb([(x >> 5) as u8, (y >> 5) as u8, (x ^ y) as u8 & 31]))
}

#[test]
fn large_images_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let [images, labels] = ["images", "labels"].map(|name| folder.path().join(name));
    std::fs::create_dir(&images).unwrap();
    std::fs::create_dir(&labels).unwrap();
    std::fs::write(folder.path().join("data.yaml"), "path: .\nval: images\nnames: [person]\n").unwrap();
    let encoded = |side| {
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 75).encode_image(&photograph(side)).unwrap();
        bytes
    };
    let (large, usual) = (encoded(8192), encoded(4000));
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(images.join(name).with_extension("jpg"), bytes).unwrap();
        std::fs::write(labels.join(name).with_extension("txt"), "0 0.5 0.5 0.2 0.2\n").unwrap();
    };
    for number in 0..5 {
        write(&format!("{number}-large"), &large);
        (0..4).for_each(|other| write(&format!("{number}-{other}"), &usual));
    }
    let usual = ["-q", "--engine", "cpu", "--threads", "2"];
    let (peak, lines) = peak_kib(&[&["detect", "-f", "jsonl"], &usual[..]].concat(), &images);
    assert_eq!(lines.lines().count(), 25);
    assert!(peak < LIMIT_KIB, "{peak} KiB, at most {LIMIT_KIB} may be");
    let (peak, measured) = peak_kib(&[&["eval", "--json"], &usual[..]].concat(), folder.path());
    assert!(measured.contains("\"images\":25,"), "{measured}");
    assert!(peak < LIMIT_KIB, "{peak} KiB, at most {LIMIT_KIB} may be");
}
