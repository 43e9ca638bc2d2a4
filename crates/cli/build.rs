//! Functions that are the same code are linked once, which makes the program a twentieth smaller, where the linker can: the one that
//! comes with Rust for Linux on x86-64, unless another one is asked for.

use std::path::PathBuf;
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name| std::env::var(name).unwrap_or_default();
    let is_asked_for =
        std::env::var_os("RUSTC_LINKER").is_some() || variable("CARGO_ENCODED_RUSTFLAGS").contains("link");
    if variable("PROFILE") == "release" && variable("TARGET") == TARGET && !is_asked_for && has_own_linker() {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}

/// Some systems' Rust comes without.
fn has_own_linker() -> bool {
    let output =
        std::env::var_os("RUSTC").and_then(|rustc| Command::new(rustc).args(["--print", "sysroot"]).output().ok());
    let sysroot = output.and_then(|output| String::from_utf8(output.stdout).ok());
    sysroot.is_some_and(|root| {
        PathBuf::from(root.trim()).join("lib/rustlib").join(TARGET).join("bin/gcc-ld/ld.lld").exists()
    })
}
