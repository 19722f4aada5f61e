//! The binary as a separate process: its commands, the demo, and concurrent starts.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use testbed::model::Behaviour;
use testbed::{FakeModel, Postgres, Redis};

use crate::support::fixtures::Conversation;
use crate::support::process::{DemoClient, kill, run, start_demo, tutord_command};
use crate::support::{TestApp, database};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_demo_loses_no_acknowledged_message() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let model = FakeModel::start().await.unwrap();
    let (child, greeting) = start_demo(directory.path(), &model, &[]);
    DemoClient::log_in(&greeting, "admin").await;
    let client = DemoClient::log_in(&greeting, "student").await;
    let before: Value = client.get("/api/chat/conversations?limit=1").send().await.unwrap().json().await.unwrap();
    assert!(before["total"].as_i64().unwrap() > 20, "more than one page: {before}");

    let mut acknowledged = Vec::new();
    for number in 0..5 {
        let body = json!({"message": format!("message {number}")});
        let sent: Value = client.post("/api/chat/message", &body).send().await.unwrap().json().await.unwrap();
        acknowledged.push(sent["conversation_id"].as_i64().unwrap());
    }
    // The process dies while it waits for the reply to one more message, which it has stored.
    model.next(Behaviour::Hang);
    let pending = tokio::spawn(client.post("/api/chat/message", &json!({"message": "unanswered"})).send());
    model.until_arrived(6).await;
    kill(child);
    assert!(pending.await.unwrap().is_err());

    let (child, greeting) = start_demo(directory.path(), &model, &[]);
    let client = DemoClient::log_in(&greeting, "student").await;
    let after: Value = client.get("/api/chat/conversations?limit=6").send().await.unwrap().json().await.unwrap();
    assert_eq!(
        after["total"].as_i64().unwrap(),
        before["total"].as_i64().unwrap() + 6,
        "the second start adds no sample data"
    );
    let listed = after["conversations"].as_array().unwrap();
    assert_eq!((&listed[0]["title"], &listed[0]["message_count"]), (&json!("unanswered"), &json!(1)));
    for (conversation, id) in listed[1..].iter().zip(acknowledged.iter().rev()) {
        assert_eq!((&conversation["id"], &conversation["message_count"]), (&json!(id), &json!(2)));
    }
    kill(child);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watch_finds_the_naive_list_of_the_demo() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let model = FakeModel::start().await.unwrap();
    let (child, greeting) = start_demo(directory.path(), &model, &["--naive"]);
    let get = async |client: &DemoClient, name: &str| {
        let request = client.http.get(greeting["compare"][name].as_str().unwrap()).bearer_auth(&client.token);
        request.send().await.unwrap().json::<Value>().await.unwrap()
    };
    let client = DemoClient::log_in(&greeting, "student").await;
    let naive = get(&client, "naive").await;
    let bounded = get(&client, "bounded").await;
    let listed = naive["conversations"].as_array().unwrap();
    assert!(listed.len() > 5, "{naive}");
    for (naive, bounded) in listed.iter().zip(bounded["conversations"].as_array().unwrap()) {
        for field in ["id", "message_count", "last_message_preview"] {
            assert_eq!(naive[field], bounded[field]);
        }
    }
    let description = client.get("/api/openapi.json").send().await.unwrap().text().await.unwrap();
    assert!(!description.contains("/api/demo/"));

    let report = get(&DemoClient::log_in(&greeting, "admin").await, "report").await;
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 2, "the counts and the newest messages: {report:#}");
    for finding in findings {
        assert_eq!((&finding["kind"], &finding["calls"]), (&json!("n_plus_one"), &json!(listed.len())));
        assert_eq!(finding["route"], "GET /api/demo/conversations");
    }
    kill(child);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_naive_list_is_not_a_route_by_default() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let model = FakeModel::start().await.unwrap();
    let (child, greeting) = start_demo(directory.path(), &model, &[]);
    let client = DemoClient::log_in(&greeting, "student").await;
    assert_eq!(client.get("/api/demo/conversations").send().await.unwrap().status(), 404);
    kill(child);
}

#[test]
fn the_demo_adds_no_admin_to_a_database_with_accounts() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", directory.path().join("own.db").display());
    let tutord = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tutord"));
        command.args(arguments).args(["--database-url", &url]).current_dir(&directory).output().unwrap()
    };
    let seeded = tutord(&["seed", "--users", "1", "--conversations", "0", "--messages", "0", "--exercises", "0"]);
    assert!(seeded.status.success(), "{}", String::from_utf8_lossy(&seeded.stderr));
    let rejected = tutord(&["demo", "--listen", "127.0.0.1:0"]);
    let message = String::from_utf8(rejected.stderr).unwrap();
    assert_eq!(rejected.status.code(), Some(1), "{message}");
    assert!(message.contains("DATABASE_URL"), "{message}");
}

#[test]
fn an_invalid_value_stops_the_start_and_names_the_flag() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tutord")).arg("serve").env("DATABASE_POOL_SIZE", "many").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("--database-pool-size") && message.contains("many"), "{message}");
}

#[test]
fn the_doctor_reports_each_check() {
    let directory = tempfile::tempdir().unwrap();
    let doctor = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tutord"));
        command.current_dir(directory.path()).env_remove("DATABASE_URL").args(arguments);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = doctor(&["doctor"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("database    FAILED   there is no database at ./data/tutord.db yet"), "{text}");
    assert_eq!(directory.path().read_dir().unwrap().count(), 0, "the doctor creates no file");
    let (code, text) = doctor(&["migrate"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("Migrated the sqlite database: 0001, 0002, 0004"), "{text}");
    let (code, text) = doctor(&["doctor"]);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "database    ok",
        "clock       ok",
        "migrations  ok",
        "addresses   ok",
        "catalogue   ok",
        "writing     ok",
        "redis       skipped",
        "model       skipped",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let (code, text) =
        doctor(&["doctor", "--redis-url", "redis://127.0.0.1:1", "--database-url", "postgres://127.0.0.1:1/x"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("database    FAILED") && text.contains("redis       FAILED"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seed_command_writes_rows_once() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", directory.path().join("seed.db").display());
    let seed = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tutord"))
            .args(["seed", "--database-url", &url])
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let small = ["--users", "3", "--conversations", "9", "--messages", "50", "--exercises", "2"];
    let (code, text) = seed(&small);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("Wrote 64 rows to the sqlite database"), "{text}");
    assert_eq!(database::query_count(&url, "SELECT count(*)").await, 1);
    assert_eq!(database::query_count(&url, "SELECT count(*) FROM messages").await, 50);
    let (code, text) = seed(&small);
    assert_eq!(code, Some(1));
    assert!(text.contains("unique constraint"), "{text}");
    let (code, text) = seed(&["--messages", "5", "--conversations", "0"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("--messages requires --conversations"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_command_loads_a_file_completely_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", directory.path().join("own.db").display());
    let file = directory.path().join("own.toml");
    let tutord = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tutord"));
        let output = command.args(arguments).args(["--database-url", &url]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let path = file.display().to_string();
    let load = ["catalogue", "load", &path];
    let exercise = |slug: &str, difficulty: &str| {
        let (description, instructions) = ("Something to do. ".repeat(2), "Do it step by step. ".repeat(4));
        format!(
            "[[exercise]]\nslug = \"{slug}\"\ntitle = \"Title\"\nlanguage = \"python\"\ndifficulty = \"{difficulty}\"\n\
             type = \"practical\"\ntopics = [\"loops\"]\ndescription = \"{description}\"\n\
             instructions = \"{instructions}\"\nsolution = \"pass\"\nhints = [\"Begin at once.\"]\ntest_cases = \"none\"\n"
        )
    };
    std::fs::write(&file, exercise("own-one", "easy")).unwrap();
    let (code, text) = tutord(&load);
    assert!(code == Some(1) && text.contains("run `tutord migrate` first"), "{text}");
    assert_eq!(tutord(&["migrate"]).0, Some(0));
    let exercises = "SELECT count(*) FROM exercises";
    let built_in = database::query_count(&url, exercises).await;

    std::fs::write(&file, exercise("own-one", "easy") + &exercise("own-two", "brutal")).unwrap();
    let (code, text) = tutord(&load);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("own.toml:17: ") && text.contains("brutal"), "{text}");
    assert_eq!(database::query_count(&url, exercises).await, built_in, "an invalid file changes no row");

    std::fs::write(&file, exercise("own-one", "easy") + &exercise("own-two", "hard")).unwrap();
    for _ in 0..2 {
        let (code, text) = tutord(&load);
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(database::query_count(&url, exercises).await, built_in + 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rebuild_command_recomputes_the_statistics() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", directory.path().join("stats.db").display());
    let tutord = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tutord"));
        let output = command.args(arguments).args(["--database-url", &url]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    tutord(&["migrate"]);
    tutord(&["seed", "--users", "3", "--conversations", "0", "--messages", "0", "--exercises", "0"]);
    database::execute(
        &url,
        "INSERT INTO user_exercises (user_id, exercise_id, status, completed_at, completed_on, ended_at, created_at, \
         updated_at, points_earned) SELECT (SELECT max(id) FROM users), id, 'completed', 1767225600000000, '2026-01-01', 1767225600000000, \
         1767225600000000, 1767225600000000, 10 FROM exercises ORDER BY id LIMIT 4",
    )
    .await;
    assert_eq!(tutord(&["rebuild-stats"]), "Recomputed the statistics of 3 students on the sqlite database.\n");
    let completed =
        "SELECT exercises_completed FROM activity WHERE user_id = (SELECT max(id) FROM users) AND period = 'all'";
    assert_eq!(database::query_count(&url, completed).await, 4);
    assert!(database::query_count(&url, "SELECT sum(students) FROM leaderboard_counts WHERE level = 2").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_repeats_the_request_to_the_model_of_a_dead_node() {
    let redis = Redis::start().await.unwrap();
    let survivor = TestApp::postgres().redis(&redis).start().await;
    let model_url = survivor.model.base_url();
    let directory = tempfile::tempdir().unwrap();
    let url = survivor.database_url();
    // The lease of a request to the model is far shorter than the model's timeout.
    let mut child = tutord_command(
        directory.path(),
        &[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--database-url",
            &url,
            "--redis-url",
            &redis.url(),
            "--log-format",
            "json",
        ],
    )
    .args(["--llm-base-url", &model_url, "--llm-model", "fake-1", "--llm-timeout-seconds", "600"])
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = lines.find_map(|line| {
        let line: Value = serde_json::from_str(&line.ok()?).ok()?;
        line["address"].as_str().map(str::to_owned)
    });
    let ada = survivor.student("ada").await;
    let body = json!({"message": "why?", "idempotency_key": "k1"});
    survivor.model.next(Behaviour::Hang);
    let request = reqwest::Client::new().post(format!("http://{}/api/chat/message", address.unwrap()));
    let lost = tokio::spawn(request.bearer_auth(&ada.token).json(&body).send());
    survivor.model.until_arrived(1).await;
    kill(child);
    assert!(lost.await.unwrap().is_err());
    let answered = ada.send_message(body).await.assert_ok().body;
    assert_eq!(answered["response"], "You said: why?");
    assert_eq!(survivor.model.received().len(), 2);
    let page = ada.get(&Conversation::of(&answered).path()).await.assert_ok().body;
    assert_eq!(page["conversation"]["message_count"], 2, "one question and one reply");
}

#[test]
fn a_closed_pipe_causes_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = tutord_command(directory.path(), &["doctor"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Closed before the first line is written.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "as without a pipe: {text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_loads_the_catalogue_that_a_killed_start_missed() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", directory.path().join("data/tutord.db").display());
    assert_eq!(run(&mut tutord_command(directory.path(), &["migrate"])).0, Some(0));
    let exercises = "SELECT count(*) FROM exercises";
    let built_in = database::query_count(&url, exercises).await;
    // The state after the migrations and before the catalogue.
    database::execute(&url, "DELETE FROM metadata WHERE key = 'catalogue'").await;
    database::execute(&url, "DELETE FROM exercises").await;
    let (code, text) = run(&mut tutord_command(directory.path(), &["migrate"]));
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(database::query_count(&url, exercises).await, built_in);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_a_later_release_stops_every_command() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", directory.path().join("data/tutord.db").display());
    assert_eq!(run(&mut tutord_command(directory.path(), &["migrate"])).0, Some(0));
    database::execute(&url, "UPDATE metadata SET value = '98.7.6' WHERE key = 'oldest_version'").await;
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["migrate"], &["doctor"]] {
        let (code, text) = run(&mut tutord_command(directory.path(), command));
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("requires tutord 98.7.6 or later"), "{text}");
    }
}

/// Starts `serve` and four `migrate` on an empty database.
fn start_concurrently(url: &str) {
    let directory = tempfile::tempdir().unwrap();
    let start = |arguments: &[&str]| {
        let arguments = [arguments, &["--database-url", url]].concat();
        tutord_command(directory.path(), &arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut server = start(&["serve", "--listen", "127.0.0.1:0"]);
    let children: Vec<_> = (0..4).map(|_| start(&["migrate"])).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(server.stderr.take().unwrap()));
    let mut log = String::new();
    assert!(
        lines.any(|line| {
            let line = line.unwrap();
            log += &line;
            log += "\n";
            line.contains("serving")
        }),
        "{log}"
    );
    kill(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_starts_all_succeed() {
    let url = Postgres::shared().await.unwrap().empty_database().await.unwrap();
    start_concurrently(&url);
    let directory = tempfile::tempdir().unwrap();
    start_concurrently(&format!("sqlite://{}", directory.path().join("new.db").display()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_waits_for_a_migration_is_live_and_not_ready() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let postgres = Postgres::shared().await.unwrap();
    let url = postgres.empty_database().await.unwrap();
    let client = postgres.client(database::name(&url)).await.unwrap();
    // The lock of a process that migrates.
    client.batch_execute("SELECT pg_advisory_lock(7261983450118273641)").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let mut child = tutord_command(directory.path(), &["serve", "--listen", &address, "--database-url", &url]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("another process is migrating the database")));
    let status = async |path: &str| reqwest::get(format!("http://{address}{path}")).await.unwrap().status().as_u16();
    assert_eq!((status("/live").await, status("/ready").await, status("/api/users/me").await), (200, 503, 503));
    client.batch_execute("SELECT pg_advisory_unlock(7261983450118273641)").await.unwrap();
    assert!(lines.any(|line| line.unwrap().contains("serving")));
    assert_eq!((status("/live").await, status("/ready").await, status("/api/users/me").await), (200, 200, 401));
    kill(child);
}

#[test]
fn the_doctor_reports_a_full_disk() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(run(&mut tutord_command(directory.path(), &["migrate"])).0, Some(0));
    // The limit of a file's blocks: the database opens, but the log of a write exceeds the limit. The process ignores
    // the signal, which a full disk does not send.
    let script = "trap '' XFSZ; ulimit -f 80; exec \"$0\" doctor";
    let mut limited = Command::new("sh");
    limited.args(["-c", script, env!("CARGO_BIN_EXE_tutord")]).current_dir(directory.path());
    limited.env_remove("DATABASE_URL").env_remove("REDIS_URL");
    let (code, text) = run(&mut limited);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("writing     FAILED   the database's disk is full"), "{text}");
}

#[test]
fn an_invalid_line_of_the_env_file_is_named_without_its_value() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(".env");
    std::fs::write(&file, "# Settings\n\nSMTP_URL=smtps://a:b c@host\n").unwrap();
    let (code, text) = run(&mut tutord_command(directory.path(), &["doctor"]));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains(".env: line 3") && !text.contains("smtps"), "{text}");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let directory = tempfile::tempdir().unwrap();
    let mut empty = tutord_command(directory.path(), &["doctor", "--public-url", ""]);
    let (code, text) = run(empty.env("DATABASE_POOL_SIZE", "").env("DATABASE_URL", "").env("LLM_BASE_URL", ""));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("there is no database at ./data/tutord.db yet"), "{text}");
}

#[test]
fn an_invalid_variable_is_named_without_its_value() {
    let directory = tempfile::tempdir().unwrap();
    let mut wrong = tutord_command(directory.path(), &["serve"]);
    let (code, text) = run(wrong.env("MAX_BODY_BYTES", "0"));
    assert_eq!(code, Some(2), "{text}");
    for part in ["--max-body-bytes", "MAX_BODY_BYTES", "between 65536 and 1073741824"] {
        assert!(text.contains(part), "{text}");
    }
    for (variable, value, flag) in [
        ("SMTP_URL", "http://user:secret@host", "--smtp-url"),
        ("REDIS_URL", "http://:secret@host", "--redis-url"),
        ("DATABASE_URL", "mysql://user:secret@host", "--database-url"),
        ("MAIL_FROM", "nobody", "--mail-from"),
        ("CORS_ORIGINS", "*", "--cors-origins"),
        ("PUBLIC_URL", "https://tutor.example/?a=b", "--public-url"),
    ] {
        let (code, text) = run(tutord_command(directory.path(), &["serve"]).env(variable, value));
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(flag) && text.contains(variable) && !text.contains("secret"), "{text}");
    }
}
