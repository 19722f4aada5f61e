//! The binary as a separate process.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use testbed::FakeModel;

/// Returns the command that runs the binary in a directory, without the variables of this process.
pub(crate) fn tutord_command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tutord"));
    command.args(arguments).current_dir(directory).env_remove("DATABASE_URL").env_remove("REDIS_URL");
    command
}

/// Runs a command; returns its exit code, and its output followed by its errors.
pub(crate) fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), text)
}

/// Runs `tutord demo` in a directory; returns the process and its greeting.
pub(crate) fn start_demo(directory: &Path, model: &FakeModel, arguments: &[&str]) -> (Child, Value) {
    start(demo_command(directory, model).args(arguments))
}

/// Returns the command that runs `tutord demo`.
pub(crate) fn demo_command(directory: &Path, model: &FakeModel) -> Command {
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

/// Starts a demo; returns the process and its greeting.
pub(crate) fn start(command: &mut Command) -> (Child, Value) {
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, serde_json::from_str(&line).unwrap())
}

/// Kills a process and waits for its end.
pub(crate) fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Sends SIGTERM to a process.
pub(crate) fn terminate(child: &Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
}

/// A user of the demo who is logged in.
pub(crate) struct DemoClient {
    pub(crate) http: reqwest::Client,
    pub(crate) base_url: String,
    pub(crate) token: String,
}

impl DemoClient {
    /// Logs in as the demo's `student` or `admin`.
    pub(crate) async fn log_in(greeting: &Value, role: &str) -> Self {
        let http = reqwest::Client::new();
        let base_url = greeting["base_url"].as_str().unwrap().to_owned();
        let response = http.post(format!("{base_url}/api/auth/login")).json(&greeting[role]).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut cookies = response.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
        let token = cookies.find_map(|cookie| cookie.strip_prefix("access_token=")).unwrap();
        let token = token.split(';').next().unwrap().to_owned();
        Self { http, base_url, token }
    }

    pub(crate) fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(format!("{}{path}", self.base_url)).bearer_auth(&self.token)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.http.post(format!("{}{path}", self.base_url)).bearer_auth(&self.token).json(body)
    }
}
