//! Programs that read the API's description: a validator, a generated TypeScript client, and schemathesis.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::support::TestApp;
use crate::support::fixtures::PASSWORD;
use crate::support::openapi::description;

crate::on_both!(schemathesis_finds_no_violation);

/// Returns the directory in which `cargo xtask test` installs the programs.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools")
}

async fn run(command: &mut Command) -> String {
    let output = command.kill_on_drop(true).output().await.expect("a program that `cargo xtask test` installs");
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {printed}");
    printed
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_valid() {
    let app = TestApp::sqlite().start().await;
    let file = app.directory.path().join("openapi.json");
    std::fs::write(&file, description(&app).await.to_string()).unwrap();
    run(Command::new(tools().join("python/bin/openapi-spec-validator")).arg(&file)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_client_works() {
    let app = TestApp::sqlite().start().await;
    app.user("ada").password(PASSWORD).create().await;

    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/typescript");
    for name in ["client.ts", "tsconfig.json", "package.json"] {
        std::fs::copy(source.join(name), path(name)).unwrap();
    }
    let modules = tools().join("typescript/node_modules");
    std::os::unix::fs::symlink(&modules, path("node_modules")).unwrap();
    std::fs::write(path("openapi.json"), description(&app).await.to_string()).unwrap();
    let node = |arguments: &[&str]| {
        let mut command = Command::new("node");
        command.args(arguments).current_dir(directory.path());
        command
    };
    run(&mut node(&["node_modules/openapi-typescript/bin/cli.js", "openapi.json", "--output", "api.d.ts"])).await;
    // The compiler writes no output if a type is wrong.
    run(&mut node(&["node_modules/typescript/bin/tsc"])).await;
    let printed = run(&mut node(&["out/client.js", &app.base_url, "ada@example.com", PASSWORD])).await;
    assert_eq!(printed.trim(), "15 calls");
}

async fn schemathesis_finds_no_violation(app: &TestApp) {
    app.load_catalogue().await;
    let admin = app.admin("root").await;
    for message in ["one", "two", "three"] {
        admin.start_conversation(message).await;
    }
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/schemathesis.toml");
    let printed = run(Command::new(tools().join("python/bin/st"))
        .arg("--config-file")
        .arg(config)
        .args(["run", "--continue-on-failure", "--max-examples", "50", "--seed", "1", "--no-color"])
        .args(["--exclude-deprecated", "--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all"])
        .args(["--header", &format!("Authorization: Bearer {}", admin.token)])
        .arg(format!("{}/api/openapi.json", app.base_url))
        .current_dir(app.directory.path()))
    .await;
    println!("{printed}");
}
