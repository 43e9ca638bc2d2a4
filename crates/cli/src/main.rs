//! The program: [`yolo_lat_cli::run`] with the arguments of the process.

fn main() -> std::process::ExitCode {
    yolo_lat_cli::run(std::env::args_os().collect())
}
