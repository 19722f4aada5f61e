//! The demo as a process of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use testbed::FakeModel;

/// `tutord demo` in a directory, and what it says of itself.
pub(crate) fn demo(directory: &Path, model: &FakeModel, arguments: &[&str]) -> (Child, Value) {
    start(command(directory, model).args(arguments))
}

/// What starts it.
pub(crate) fn command(directory: &Path, model: &FakeModel) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tutord"));
    command
        .args(["demo", "--print", "json", "--listen", "127.0.0.1:0", "--llm-model", "fake-1", "--llm-max-retries", "0"])
        .args(["--llm-base-url", &model.base_url(), "--data-dir"])
        .arg(directory)
        .current_dir(directory)
        .env_remove("DATABASE_URL")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Starts it; what it says of itself.
pub(crate) fn start(command: &mut Command) -> (Child, Value) {
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, serde_json::from_str(&line).unwrap())
}

/// A client, the server's address, and a token of the demo's `student` or `admin`.
pub(crate) async fn log_in(greeting: &Value, who: &str) -> (reqwest::Client, String, String) {
    let client = reqwest::Client::new();
    let base = greeting["base_url"].as_str().unwrap().to_owned();
    let response = client.post(format!("{base}/api/auth/login")).json(&greeting[who]).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut cookies = response.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    let token = cookies.find_map(|cookie| cookie.strip_prefix("access_token=")).unwrap();
    let token = token.split(';').next().unwrap().to_owned();
    (client, base, token)
}
