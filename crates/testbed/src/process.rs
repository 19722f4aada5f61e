//! Starting a server so that it can't outlive this process.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};

/// A server below a small shell that stops it when its standard input closes. The pipe's other end is
/// ours: it closes when this is dropped, and also when the process is killed, for which Rust has no
/// safe hook.
#[derive(Debug)]
pub(crate) struct Supervised {
    supervisor: Child,
}

/// Runs the rest of its arguments; on end of input it stops that server and removes the directory `$1`.
const SUPERVISOR: &str = r#"
directory=$1; shift
"$@" </dev/null >"$directory/server.log" 2>&1 &
server=$!
cat >/dev/null
kill -INT $server 2>/dev/null
wait $server
rm -rf "$directory"
"#;

impl Supervised {
    /// Starts `command`, which is to serve out of `directory`.
    pub(crate) fn start(directory: &Path, command: &[String]) -> anyhow::Result<Self> {
        let supervisor = Command::new("sh")
            .arg("-c")
            .arg(SUPERVISOR)
            .arg("supervisor")
            .arg(directory)
            .args(command)
            .stdin(Stdio::piped())
            // A test runner waits for the pipes it gave us: the server must not hold them open.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("sh")?;
        Ok(Self { supervisor })
    }

    /// Stops the server and waits until it is gone.
    pub(crate) fn stop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port of 127.0.0.1 that was free a moment ago.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The program `name` from the search path, or from the newest directory that `elsewhere` lists.
pub(crate) fn program(name: &str, elsewhere: &[PathBuf], package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain(elsewhere.iter().cloned()).map(|directory| directory.join(name));
    match found.into_iter().find(|candidate| candidate.is_file()) {
        Some(program) => Ok(program),
        None => bail!("{name} is not installed: `apt-get install {package}` on Debian, or put it into PATH"),
    }
}

/// A temporary directory that outlives its handle: the supervisor removes it.
pub(crate) fn directory(prefix: &str) -> anyhow::Result<PathBuf> {
    Ok(tempfile::Builder::new().prefix(prefix).tempdir().context("temporary directory")?.keep())
}
