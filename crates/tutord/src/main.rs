//! The binary: loads `.env`, parses the command line, and runs the command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// A request allocates some hundred times, and mimalloc is faster than glibc's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Err(error) = dotenvy::dotenv()
        && !error.not_found()
    {
        eprintln!("tutord: .env: {}", wrong_line(&error));
        return ExitCode::from(2);
    }
    let cli = tutord::cli::Cli::from_process();
    // One provider for every TLS client of the process: HTTP, SMTP and Redis.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("tutord: could not install the TLS provider: another provider is installed");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tutord: could not start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli.run()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("tutord: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Describes what is wrong with `.env`. Names a line by its number, because its text can be a secret.
fn wrong_line(error: &dotenvy::Error) -> String {
    let dotenvy::Error::LineParse(wrong, _) = error else { return error.to_string() };
    let mut directories = std::env::current_dir().unwrap_or_default();
    // dotenvy looks in the directories above too.
    let file = loop {
        match std::fs::read_to_string(directories.join(".env")) {
            Ok(text) => break text,
            Err(_) if directories.pop() => {}
            Err(_) => break String::new(),
        }
    };
    let first = wrong.lines().next().unwrap_or_default().trim();
    // dotenvy names the whole line or its value alone.
    match file.lines().position(|line| !first.is_empty() && line.trim().ends_with(first)) {
        Some(index) => {
            format!("line {} is invalid: must be NAME=value, with quotes around values that contain spaces", index + 1)
        }
        None => "a line is invalid: must be NAME=value, with quotes around values that contain spaces".to_owned(),
    }
}
