//! Connections: how many there may be, how long they may wait, and what becomes of them when the server stops.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use testbed::FakeModel;
use testbed::model::Behaviour;

use crate::demo::{command, demo, log_in, start};
use crate::harness::TestApp;

const HALF: &[u8] = b"GET /api/health HTTP/1.1\r\nHost: x\r\nX-A: ";

fn open(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    // The server may have refused it already.
    let _ = stream.write_all(bytes);
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// What comes until the server closes the connection.
fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

fn address(base: &str) -> SocketAddr {
    base.strip_prefix("http://").unwrap().parse().unwrap()
}

fn terminate(child: &Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_do_not_stop_the_service() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let model = FakeModel::start().await.unwrap();
    let mut tutord = command(directory.path(), &model);
    // As if a proxy had opened them: one address alone has half of the connections.
    tutord.args(["--trusted-proxies", "127.0.0.1"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 1024; exec \"$@\"", "sh"]).arg(tutord.get_program()).args(tutord.get_args());
    limited.current_dir(&directory).env_remove("DATABASE_URL").stdout(Stdio::piped()).stderr(Stdio::null());
    let (mut child, greeting) = start(&mut limited);
    let (_, base, token) = log_in(&greeting, "student").await;
    let address = address(&base);
    // The newest 900: this process may have a limit, too.
    let mut half = VecDeque::new();
    for number in 0..1_100 {
        half.truncate(899);
        half.push_front(open(address, if number % 2 == 0 { HALF } else { b"" }));
        if number % 100 == 99 {
            for path in ["/live", "/api/health/live", "/api/users/me"] {
                let request = format!(
                    "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
                );
                let answer = rest(open(address, request.as_bytes()));
                assert!(answer.starts_with("HTTP/1.1 200"), "{path} with {number} open: {answer}");
            }
        }
    }
    let metrics = rest(open(address, b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
    let evicted = metrics.lines().find_map(|line| line.split("closed_total{reason=\"evicted\"} ").nth(1)).unwrap();
    assert!(evicted.parse::<u32>().unwrap() > 100, "{evicted}");
    // At the end none of them is waited for.
    terminate(&child);
    assert!(child.wait().unwrap().success());
}

/// A head that is not complete after ten seconds is answered with 408; the second one of a connection, too.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_head_is_answered_after_its_time() {
    let app = TestApp::sqlite(&[]).await;
    let address = address(&app.base);
    let second = tokio::task::spawn_blocking(move || {
        let first = open(address, HALF);
        let mut second = open(address, b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n");
        let mut bytes = [0; 4_096];
        let count = second.read(&mut bytes).unwrap();
        assert!(bytes[..count].starts_with(b"HTTP/1.1 200"));
        second.write_all(HALF).unwrap();
        [first, second].map(rest)
    });
    for text in second.await.unwrap() {
        assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    }
    assert!(app.get("/metrics").await.body.as_str().unwrap().contains("{reason=\"head_timeout\"} 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed_and_those_beyond_the_limit_serve_the_liveness_route() {
    let app = TestApp::sqlite(&["--idle-timeout-seconds", "1", "--max-connections", "16"]).await;
    let address = address(&app.base);
    let kept = open(address, b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n");
    let text = tokio::task::spawn_blocking(move || rest(kept)).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    // All but one wait for the model, which one address alone may not.
    let app = TestApp::sqlite(&["--max-connections", "16", "--trusted-proxies", "127.0.0.1"]).await;
    let ada = app.student("ada").await;
    let address = self::address(&app.base);
    let mut waiting = Vec::new();
    for number in 1..=15 {
        app.model.next(Behaviour::Hang);
        // Each its own text: the same request of one student is asked once.
        let request = format!(
            "POST /api/chat/message HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: 18\r\n\r\n{{\"message\": \"h{number:02}\"}}",
            ada.token
        );
        waiting.push(open(address, request.as_bytes()));
        app.model.until_arrived(number).await;
    }
    let get = |path: &str| open(address, format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
    let live = rest(get("/live"));
    assert!(live.starts_with("HTTP/1.1 200") && live.contains("connection: close"), "{live}");
    let other = rest(get("/api/health"));
    assert!(other.starts_with("HTTP/1.1 503") && other.contains("OVERLOADED"), "{other}");
}

/// The message that is being answered gets its time, and then an answer, however many idle connections there are.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_answered_when_the_server_stops() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let model = FakeModel::start().await.unwrap();
    let (mut child, greeting) = demo(directory.path(), &model, &["--shutdown-timeout-seconds", "1"]);
    let (client, base, token) = log_in(&greeting, "student").await;
    let _idle = [open(address(&base), HALF), open(address(&base), b"")];
    model.next(Behaviour::Hang);
    let sent = client.post(format!("{base}/api/chat/message")).bearer_auth(&token).json(&json!({"message": "hello"}));
    let sent = tokio::spawn(sent.send());
    model.until_arrived(1).await;
    terminate(&child);
    let answer = sent.await.unwrap().unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["connection"].to_str().unwrap()), (503, "close"));
    assert!(answer.headers().contains_key("retry-after"));
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_port_in_use_is_named_every_time() {
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

/// A client that reads the head of a stream and no more is told nothing wrong by the server's time-outs.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlasts_the_idle_timeout() {
    let app = TestApp::sqlite(&["--idle-timeout-seconds", "1"]).await;
    let ada = app.student("ada").await;
    let (feed, pieces) = tokio::sync::mpsc::channel(4);
    app.model.next(Behaviour::Feed(pieces));
    let request = format!(
        "POST /api/chat/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n{{\"message\": \"hi\"}}",
        ada.token
    );
    let mut lines = BufReader::new(open(address(&app.base), request.as_bytes())).lines();
    feed.send("Once ".to_owned()).await.unwrap();
    lines.find(|line| line.as_ref().unwrap().contains("Once")).unwrap().unwrap();
    // Another connection, opened later, has been closed for being idle meanwhile.
    rest(open(address(&app.base), b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n"));
    feed.send("upon a time".to_owned()).await.unwrap();
    lines.find(|line| line.as_ref().unwrap().contains("upon")).unwrap().unwrap();
}
