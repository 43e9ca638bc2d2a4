//! Makes the program smaller where the linker can, the one that comes with Rust for Linux on x86-64 unless another one is asked for:
//! functions that are the same code are linked once (a twentieth), and relocations are packed (1.5 MB) where the C library knows
//! packed ones, glibc from 2.36.

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
        if glibc().is_some_and(|version| version >= (2, 36)) {
            println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        }
    }
}

/// Some systems' Rust comes without.
fn has_own_linker() -> bool {
    let sysroot = std::env::var_os("RUSTC").and_then(|rustc| output(Command::new(rustc).args(["--print", "sysroot"])));
    sysroot.is_some_and(|root| {
        PathBuf::from(root.trim()).join("lib/rustlib").join(TARGET).join("bin/gcc-ld/ld.lld").exists()
    })
}

/// Version of the system's C library: the program needs one as new in any case.
fn glibc() -> Option<(u32, u32)> {
    let text = output(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
    let mut numbers = text.trim().strip_prefix("glibc ")?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn output(command: &mut Command) -> Option<String> {
    String::from_utf8(command.output().ok()?.stdout).ok()
}
