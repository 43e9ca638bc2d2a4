//! The command that installs what is missing, with the package manager that this system has.

use yolo_lat::source::find_program;

/// What may be missing, in the order of [`Manager::packages`].
#[allow(dead_code, reason = "a build without all features asks for fewer")]
#[derive(Clone, Copy)]
pub(super) enum Package {
    Ffmpeg,
    /// Vulkan for AMD and Intel.
    Mesa,
    Nvidia,
    /// What a window loads when it opens.
    Window,
    Pip,
}

/// A package manager, and what it calls each [`Package`].
struct Manager {
    program: &'static str,
    installs: &'static str,
    packages: [&'static str; 5],
}

const LINUX: [Manager; 3] = [
    Manager {
        program: "apt-get",
        installs: "apt-get install",
        packages: [
            "ffmpeg",
            "mesa-vulkan-drivers",
            "nvidia-driver libvulkan1",
            "libxkbcommon-x11-0 libwayland-client0",
            "python3-pip",
        ],
    },
    Manager {
        program: "dnf",
        installs: "dnf install",
        packages: [
            "ffmpeg-free",
            "mesa-vulkan-drivers",
            "akmod-nvidia vulkan-loader",
            "libxkbcommon-x11 libwayland-client",
            "python3-pip",
        ],
    },
    Manager {
        program: "pacman",
        installs: "pacman -S",
        packages: [
            "ffmpeg",
            "vulkan-radeon vulkan-intel",
            "nvidia-utils vulkan-icd-loader",
            "libxkbcommon-x11 wayland",
            "python-pip",
        ],
    },
];

/// As it would be typed.
pub(super) fn command(package: Package) -> String {
    // Graphics and window libraries come with these systems, and Python's installer with Python.
    if cfg!(target_os = "macos") {
        return if let Package::Ffmpeg = package { "brew install ffmpeg" } else { "softwareupdate --install --all" }
            .into();
    }
    if cfg!(windows) {
        return if let Package::Ffmpeg = package { "winget install Gyan.FFmpeg" } else { "winget upgrade --all" }
            .into();
    }
    let [debian, ..] = &LINUX;
    let manager = LINUX.iter().find(|manager| find_program(manager.program).is_some()).unwrap_or(debian);
    let sudo = if is_root() { "" } else { "sudo " };
    format!("{sudo}{} {}", manager.installs, manager.packages[package as usize])
}

/// Python's ONNX Runtime, with Python's installer where that is missing, and with the consent that a Python wants which the
/// system manages.
#[cfg(feature = "ort")]
pub(super) fn onnx_runtime() -> String {
    let python = if cfg!(windows) { "python" } else { "python3" };
    let asks = "import importlib.util as u, os, sysconfig as s; \
                print(u.find_spec('pip') is not None, os.path.exists(s.get_path('stdlib') + '/EXTERNALLY-MANAGED'))";
    let answer = std::process::Command::new(python).args(["-c", asks]).output().ok();
    let answer = answer.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let first =
        if answer.starts_with("True") || cfg!(windows) { String::new() } else { command(Package::Pip) + " && " };
    let consent = if answer.ends_with("True") { "--break-system-packages " } else { "" };
    format!("{first}{python} -m pip install {consent}onnxruntime")
}

#[cfg(unix)]
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}
