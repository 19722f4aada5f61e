//! Starting a server so that it can't outlive this process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

/// How long a server that recovers nothing may take to start.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A server below a small shell that stops it when its standard input closes. The pipe's other end is
/// ours: it closes when this is dropped, and also when the process is killed, for which Rust has no
/// safe hook.
#[derive(Debug)]
pub(crate) struct Supervised {
    supervisor: Child,
    replies: BufReader<ChildStdout>,
    log: PathBuf,
}

/// Runs its arguments from the third on. The signal `$2` ends them, on the order `kill` and on end of
/// input, which also removes the directory `$1`. Each order is answered once it is carried out.
const SUPERVISOR: &str = r#"
directory=$1; signal=$2; shift 2
children() { cat /proc/$server/task/$server/children 2>/dev/null; }
start() { "$@" </dev/null >>"$directory/server.log" 2>&1 & server=$!; }
end() { kill -"$signal" $server 2>/dev/null; kill -CONT $server 2>/dev/null; wait $server; }
start "$@"
while read -r order; do
    case $order in
        kill) end ;;
        restart) start "$@" ;;
        # With its processes: PostgreSQL has one for each connection.
        pause) kill -STOP $server; kill -STOP $(children) 2>/dev/null ;;
        resume) kill -CONT $(children) $server ;;
    esac
    echo "$order"
done
end
rm -rf "$directory"
"#;

impl Supervised {
    /// Starts `command`, which is to serve out of `directory`, and which `signal` (such as `KILL`) ends.
    pub(crate) fn start(directory: TempDir, signal: &str, command: &[String]) -> anyhow::Result<Self> {
        let mut supervisor = Command::new("sh")
            .arg("-c")
            .arg(SUPERVISOR)
            .arg("supervisor")
            .arg(directory.path())
            .arg(signal)
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A test runner waits for the pipes it gave us: the server must not hold them open.
            .stderr(Stdio::null())
            // Ctrl-C, and a test runner that ends a hung test, signal the whole process group: who cleans
            // up must not be in it.
            .process_group(0)
            .spawn()
            .context("sh")?;
        let replies = BufReader::new(supervisor.stdout.take().context("the supervisor's output")?);
        // From here on the supervisor removes it.
        let log = directory.keep().join("server.log");
        Ok(Self { supervisor, replies, log })
    }

    /// Ends the server at once, as in a crash, and leaves its files.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.order("kill")
    }

    /// Starts the server again that [`kill`](Self::kill) ended.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.order("restart")
    }

    /// Stops the server's clock: it keeps its connections and answers nothing.
    pub(crate) fn pause(&mut self) -> anyhow::Result<()> {
        self.order("pause")
    }

    /// Ends a [`pause`](Self::pause).
    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        self.order("resume")
    }

    fn order(&mut self, order: &str) -> anyhow::Result<()> {
        writeln!(self.supervisor.stdin.as_ref().context("the supervisor's input")?, "{order}")?;
        let mut reply = String::new();
        self.replies.read_line(&mut reply)?;
        if reply.trim_end() != order {
            bail!("the supervisor of the server is gone");
        }
        Ok(())
    }

    /// Waits until the server accepts connections; `name` is for the error.
    pub(crate) async fn until_listening(&self, name: &str, port: u16) -> anyhow::Result<()> {
        let began = Instant::now();
        // There is no event to wait for: the server opens its port when it is ready.
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > START_TIMEOUT {
                bail!("{name} did not start: {}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// What the server wrote so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
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

/// Runs a program to its end; what it printed.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether this process is root's.
pub(crate) fn is_root() -> anyhow::Result<bool> {
    Ok(run(Command::new("id").arg("-u"))?.trim() == "0")
}

/// A temporary directory for a server to come.
pub(crate) fn directory(prefix: &str) -> anyhow::Result<TempDir> {
    tempfile::Builder::new().prefix(prefix).tempdir().context("temporary directory")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    /// Set in the process that the test below kills.
    const VICTIM: &str = "TESTBED_VICTIM";

    #[test]
    fn a_killed_process_group_leaves_no_server_and_no_files() {
        if std::env::var_os(VICTIM).is_some() {
            let endless = ["tail", "-f", "/dev/null"].map(str::to_owned);
            let mut server = Supervised::start(directory("victim-").unwrap(), "KILL", &endless).unwrap();
            server.kill().unwrap();
            server.restart().unwrap();
            Command::new("sh").args(["-c", "kill -KILL 0"]).status().unwrap();
        }
        let directories = directory("testbed-victim-").unwrap();
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::tests::a_killed_process_group_leaves_no_server_and_no_files"])
            .env(VICTIM, "")
            .env("TMPDIR", directories.path())
            .process_group(0)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(ended.signal(), Some(9));
        // Its supervisor is no child of ours, so there is no event to wait for; it removes the files last.
        while std::fs::read_dir(directories.path()).unwrap().count() > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
