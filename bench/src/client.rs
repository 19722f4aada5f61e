//! A client that costs next to nothing: requests are bytes, answers are read by their length.

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// The number of concurrent clients: each sends its next request after the response to the one before.
pub(crate) const CONNECTIONS: usize = 16;

/// A connection that is kept open.
pub(crate) struct Connection(BufReader<TcpStream>);

/// A response.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Statements on the database, where the server tells.
    pub(crate) statements: u64,
    /// The access token that the answer sets as a cookie.
    pub(crate) access_token: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// The bytes of a request.
pub(crate) fn request(method: &str, path: &str, token: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

impl Connection {
    pub(crate) async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn send(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        let (mut answer, length) = self.begin(request).await?;
        answer.body = vec![0; length];
        self.0.read_exact(&mut answer.body).await?;
        Ok(answer)
    }

    /// Sends a request and reads the answer up to its body, with the length of that; 0 for a stream.
    pub(crate) async fn begin(&mut self, request: &[u8]) -> anyhow::Result<(Answer, usize)> {
        self.0.get_mut().write_all(request).await?;
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).context("a status line")?;
        let (mut length, mut statements, mut access_token) = (0, 0, None);
        loop {
            line.clear();
            if self.0.read_line(&mut line).await? == 0 {
                bail!("the connection ended within an answer");
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name {
                "content-length" => length = value.parse()?,
                "server-timing" => {
                    let number = value.split("db_queries;desc=\"").nth(1).and_then(|rest| rest.split('"').next());
                    statements = number.context("db_queries")?.parse()?;
                }
                "set-cookie" => {
                    let token = value.strip_prefix("access_token=").and_then(|rest| rest.split(';').next());
                    access_token = token.map(ToOwned::to_owned).or(access_token);
                }
                _ => {}
            }
        }
        Ok((Answer { status, statements, access_token, body: Vec::new() }, length))
    }

    /// The repeated, of which nothing but success will do, or that it was done before.
    pub(crate) async fn expect_success(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        self.expect_success_or(409, request).await
    }

    /// The repeated, or this other status.
    pub(crate) async fn expect_success_or(&mut self, other: u16, request: &[u8]) -> anyhow::Result<Answer> {
        let answer = self.send(request).await?;
        if !matches!(answer.status, 200..300 | 409) && answer.status != other {
            bail!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        Ok(answer)
    }
}
