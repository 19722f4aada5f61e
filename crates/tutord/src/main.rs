//! The binary: reads `.env` and the command line, and runs the command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// A request allocates some hundred times, which this one does in less time than glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Err(error) = dotenvy::dotenv()
        && !error.not_found()
    {
        eprintln!("tutord: .env: {}", wrong_line(&error));
        return ExitCode::from(2);
    }
    let cli = tutord::commands::Cli::from_process();
    // One provider for every TLS client of the process: HTTP, SMTP and Redis.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("tutord: another TLS provider was installed first");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tutord: {error}");
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

/// What is wrong with `.env`. A line is named by its number: its text may be a secret.
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
        Some(index) => format!("line {} can't be read: must be NAME=value, with quotes around spaces", index + 1),
        None => "a line can't be read: must be NAME=value, with quotes around spaces".to_owned(),
    }
}
