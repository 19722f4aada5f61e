//! A mail server that stores received mails, and simulates the faults of real servers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A fault for one mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Responds to the recipient with this code, such as 451 (greylisting) or 550 (unknown mailbox).
    Refuse(u16),
    /// Accepts the mail and closes the connection without a response, so that the client can't determine the outcome.
    TakeSilently,
    /// Responds to the sender with 550 5.7.1, like a server that does not permit the sender.
    RefuseSender,
    /// Responds to the log-in and the recipient with this code.
    RefuseLogIn,
}

#[derive(Debug, Default)]
struct State {
    faults: VecDeque<Fault>,
    mails: Vec<String>,
    attempts: usize,
}

/// A running mail server.
#[derive(Debug, Clone)]
pub struct SmtpSink {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl SmtpSink {
    /// Serves on a free port until the runtime ends.
    ///
    /// # Errors
    /// Returns an error if no port is free.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let sink = Self { address: listener.local_addr()?, state: Arc::default() };
        let serving = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sink = serving.clone();
                tokio::spawn(async move { sink.serve(stream).await });
            }
        });
        Ok(sink)
    }

    /// Returns the URL for `SMTP_URL`.
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// Queues the fault for one mail.
    pub fn next(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    /// Returns the accepted mails in the order of their arrival.
    pub fn mails(&self) -> Vec<String> {
        self.lock().mails.clone()
    }

    /// Returns the number of mails that clients tried to send.
    pub fn attempts(&self) -> usize {
        self.lock().attempts
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 sink ESMTP\r\n").await?;
        let mut fault = None;
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            let answer = match verb.as_str() {
                "EHLO" => "250-sink\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n".to_owned(),
                "AUTH" if self.lock().faults.front() == Some(&Fault::RefuseLogIn) => {
                    "535 5.7.8 wrong password for student@example.com\r\n".to_owned()
                }
                "AUTH" => "235 ok\r\n".to_owned(),
                "MAIL" => {
                    let mut state = self.lock();
                    state.attempts += 1;
                    fault = state.faults.pop_front();
                    match fault {
                        Some(Fault::RefuseSender) => "550 5.7.1 not from you, student@example.com\r\n".to_owned(),
                        _ => "250 ok\r\n".to_owned(),
                    }
                }
                "RCPT" => match fault {
                    Some(Fault::Refuse(code)) => format!("{code} not now, student@example.com\r\n"),
                    _ => "250 ok\r\n".to_owned(),
                },
                "DATA" => {
                    stream.write_all(b"354 go on\r\n").await?;
                    let mut mail = String::new();
                    loop {
                        line.clear();
                        if stream.read_line(&mut line).await? == 0 {
                            return Ok(());
                        }
                        if line == ".\r\n" {
                            break;
                        }
                        mail.push_str(&line);
                    }
                    self.lock().mails.push(mail);
                    if fault == Some(Fault::TakeSilently) {
                        return Ok(());
                    }
                    "250 taken\r\n".to_owned()
                }
                "QUIT" => {
                    stream.write_all(b"221 bye\r\n").await?;
                    return Ok(());
                }
                _ => "250 ok\r\n".to_owned(),
            };
            stream.write_all(answer.as_bytes()).await?;
        }
    }
}
