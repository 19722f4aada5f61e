//! A temporary nginx.

use std::path::PathBuf;

use crate::process::{self, Supervised, directory, free_port, is_root};

/// A reverse proxy with nginx's default settings.
#[derive(Debug)]
pub struct Nginx {
    port: u16,
    /// Stops nginx on drop.
    _server: Supervised,
}

impl Nginx {
    /// Starts nginx in front of the server at `upstream`, such as `http://127.0.0.1:8080`. Adds the directives `http`
    /// to the block `http`.
    ///
    /// # Errors
    /// Returns an error if nginx is not installed or does not start, for example because of invalid directives.
    pub async fn start(upstream: &str, http: &str) -> anyhow::Result<Self> {
        let program = program()?.display().to_string();
        let home = directory("testbed-nginx-")?;
        let port = free_port()?;
        // Only root can set the user of the workers, and another user could not read the directory.
        let user = if is_root()? { "user root;" } else { "" };
        let file = home.path().join("nginx.conf");
        std::fs::write(&file, config(user, port, upstream, http))?;
        let (home_text, file_text) = (home.path().display().to_string(), file.display().to_string());
        let command = [&program, "-e", "stderr", "-p", &home_text, "-c", &file_text].map(str::to_owned);
        // TERM closes all connections at once and ends the workers too.
        let server = Supervised::start(home, "TERM", &command)?;
        server.until_listening("nginx", port).await?;
        Ok(Self { port, _server: server })
    }

    /// Returns the URL, such as `http://127.0.0.1:8081`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Returns the configuration. Its paths are relative to the directory of the option `-p`.
fn config(user: &str, port: u16, upstream: &str, http: &str) -> String {
    format!(
        "{user}
daemon off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path client_body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {http}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {upstream};
        }}
    }}
}}
"
    )
}

pub(crate) fn program() -> anyhow::Result<PathBuf> {
    // Debian installs nginx in a directory that is not in the search path of all users.
    process::program("nginx", &[PathBuf::from("/usr/sbin")], "nginx-light")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;
    use crate::FakeModel;

    #[tokio::test(flavor = "multi_thread")]
    async fn requests_reach_the_upstream_until_nginx_is_dropped() {
        let model = FakeModel::start().await.unwrap();
        let upstream = model.base_url().trim_end_matches("/v1").to_owned();
        let nginx = Nginx::start(&upstream, "add_header X-Passed-By nginx;").await.unwrap();
        let port = nginx.port;
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"GET /v1/models HTTP/1.0\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.contains("X-Passed-By: nginx") && response.contains("fake"), "{response}");
        drop(nginx);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    }
}
