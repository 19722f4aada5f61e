//! Connections: their maximum number, their timeouts, and the shutdown.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use testbed::FakeModel;
use testbed::model::Behaviour;

use crate::support::TestApp;
use crate::support::process::{DemoClient, demo_command, start, start_demo, terminate};

/// The beginning of a head.
const INCOMPLETE_HEAD: &[u8] = b"GET /api/health HTTP/1.1\r\nHost: x\r\nX-A: ";

fn open(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    // The server may have closed the connection already.
    let _ = stream.write_all(bytes);
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Reads until the server closes the connection.
fn read_to_end(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

fn address(base: &str) -> SocketAddr {
    base.strip_prefix("http://").unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_too_many_half_open_connections_answers_requests() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let model = FakeModel::start().await.unwrap();
    let mut tutord = demo_command(directory.path(), &model);
    // A proxy may open all connections, any other address half of them.
    tutord.args(["--trusted-proxies", "127.0.0.1"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 1024; exec \"$@\"", "sh"]).arg(tutord.get_program()).args(tutord.get_args());
    limited.current_dir(&directory).env_remove("DATABASE_URL").stdout(Stdio::piped()).stderr(Stdio::null());
    let (mut child, greeting) = start(&mut limited);
    let DemoClient { base_url: base, token, .. } = DemoClient::log_in(&greeting, "student").await;
    let address = address(&base);
    // The newest 900: this process may have a limit too.
    let mut half = VecDeque::new();
    for number in 0..1_100 {
        half.truncate(899);
        half.push_front(open(address, if number % 2 == 0 { INCOMPLETE_HEAD } else { b"" }));
        if number % 100 == 99 {
            for path in ["/live", "/api/health/live", "/api/users/me"] {
                let request = format!(
                    "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
                );
                let response = read_to_end(open(address, request.as_bytes()));
                assert!(response.starts_with("HTTP/1.1 200"), "{path} with {number} open: {response}");
            }
        }
    }
    let metrics = read_to_end(open(address, b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
    let evicted = metrics.lines().find_map(|line| line.split("closed_total{reason=\"evicted\"} ").nth(1)).unwrap();
    assert!(evicted.parse::<u32>().unwrap() > 100, "{evicted}");
    // The shutdown does not wait for these connections.
    terminate(&child);
    assert!(child.wait().unwrap().success());
}

/// The timeout of a head is ten seconds, also for the second one of a connection.
#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_head_times_out() {
    let app = TestApp::sqlite().start().await;
    let address = address(&app.base_url);
    let second = tokio::task::spawn_blocking(move || {
        let first = open(address, INCOMPLETE_HEAD);
        let mut second = open(address, b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n");
        let mut bytes = [0; 4_096];
        let count = second.read(&mut bytes).unwrap();
        assert!(bytes[..count].starts_with(b"HTTP/1.1 200"));
        second.write_all(INCOMPLETE_HEAD).unwrap();
        [first, second].map(read_to_end)
    });
    for text in second.await.unwrap() {
        assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    }
    assert!(app.get("/metrics").await.text().contains("{reason=\"head_timeout\"} 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed() {
    let app = TestApp::sqlite().idle_timeout_seconds(1).max_connections(16).start().await;
    let address = address(&app.base_url);
    let idle = open(address, b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n");
    let text = tokio::task::spawn_blocking(move || read_to_end(idle)).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_beyond_the_limit_serves_the_liveness_route() {
    // All connections but one wait for the model. A proxy may open that many.
    let app = TestApp::sqlite().max_connections(16).trusted_proxies("127.0.0.1").start().await;
    let ada = app.student("ada").await;
    let address = address(&app.base_url);
    let mut waiting = Vec::new();
    for number in 1..=15 {
        app.model.next(Behaviour::Hang);
        // Each message has its own text: the server combines equal requests of one student.
        let request = format!(
            "POST /api/chat/message HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: 18\r\n\r\n{{\"message\": \"h{number:02}\"}}",
            ada.token
        );
        waiting.push(open(address, request.as_bytes()));
        app.model.until_arrived(number).await;
    }
    let get = |path: &str| open(address, format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
    let live = read_to_end(get("/live"));
    assert!(live.starts_with("HTTP/1.1 200") && live.contains("connection: close"), "{live}");
    let other = read_to_end(get("/api/health"));
    assert!(other.starts_with("HTTP/1.1 503") && other.contains("OVERLOADED"), "{other}");
}

/// The message in flight gets an error after the shutdown timeout, also with idle connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_gets_a_response_at_shutdown() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let model = FakeModel::start().await.unwrap();
    let (mut child, greeting) = start_demo(directory.path(), &model, &["--shutdown-timeout-seconds", "1"]);
    let client = DemoClient::log_in(&greeting, "student").await;
    let address = address(&client.base_url);
    let _idle = [open(address, INCOMPLETE_HEAD), open(address, b"")];
    model.next(Behaviour::Hang);
    let sent = tokio::spawn(client.post("/api/chat/message", &json!({"message": "hello"})).send());
    model.until_arrived(1).await;
    terminate(&child);
    let response = sent.await.unwrap().unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["connection"].to_str().unwrap()), (503, "close"));
    assert!(response.headers().contains_key("retry-after"));
    assert!(child.wait().unwrap().success());
}

#[test]
fn every_start_names_a_port_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for number in 0..20 {
        let command = ["serve", "demo"][number % 2];
        let output = Command::new(env!("CARGO_BIN_EXE_tutord"))
            .args([command, "--listen", &address, "--data-dir"])
            .arg(directory.path())
            .current_dir(&directory)
            .env_remove("DATABASE_URL")
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        let expected = format!("tutord: address in use: {address}; stop the other process or choose another");
        assert!(message.lines().count() == 1 && message.starts_with(&expected), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlasts_the_idle_timeout() {
    let app = TestApp::sqlite().idle_timeout_seconds(1).start().await;
    let ada = app.student("ada").await;
    let (feed, pieces) = tokio::sync::mpsc::channel(4);
    app.model.next(Behaviour::Feed(pieces));
    let request = format!(
        "POST /api/chat/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n{{\"message\": \"hi\"}}",
        ada.token
    );
    let mut lines = BufReader::new(open(address(&app.base_url), request.as_bytes())).lines();
    feed.send("Once ".to_owned()).await.unwrap();
    lines.find(|line| line.as_ref().unwrap().contains("Once")).unwrap().unwrap();
    // The server closes another connection that became idle later.
    read_to_end(open(address(&app.base_url), b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n"));
    feed.send("upon a time".to_owned()).await.unwrap();
    lines.find(|line| line.as_ref().unwrap().contains("upon")).unwrap().unwrap();
}
