//! The binary: reads `.env` and the command line, and runs the command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;

/// A request allocates some hundred times, which this one does in less time than glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Err(error) = dotenvy::dotenv()
        && !error.not_found()
    {
        eprintln!("tutord: .env: {error}");
        return ExitCode::from(2);
    }
    let cli = tutord::commands::Cli::parse();
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
