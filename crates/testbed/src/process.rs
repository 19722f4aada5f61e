//! Processes that end with this process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

/// The time limit for the start of a server without recovery.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A server below a small shell, which stops the server when its standard input closes. This process holds the other
/// end of the pipe. The pipe closes on drop, and also when the process is killed, which no safe hook in Rust can
/// detect.
#[derive(Debug)]
pub(crate) struct Supervised {
    supervisor: Child,
    replies: BufReader<ChildStdout>,
    log: PathBuf,
}

/// Runs the command from its third argument on. Sends the signal `$2` to the command on the order `kill`, and at the
/// end of input, where it also removes the directory `$1`. Echoes each order after its execution.
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
        # Includes child processes, because PostgreSQL has one for each connection.
        pause) kill -STOP $server; kill -STOP $(children) 2>/dev/null ;;
        resume) kill -CONT $(children) $server ;;
    esac
    echo "$order"
done
end
rm -rf "$directory"
"#;

impl Supervised {
    /// Starts `command` in `directory`. `signal`, such as `KILL`, ends it.
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
            // The server must not hold the pipes of the test runner open, because the runner waits for them to close.
            .stderr(Stdio::null())
            // Ctrl-C and test runners with a time-out signal the whole process group. The supervisor needs its own
            // group to clean up.
            .process_group(0)
            .spawn()
            .context("sh")?;
        let replies = BufReader::new(supervisor.stdout.take().context("the supervisor's output")?);
        // The supervisor removes the directory from now on.
        let log = directory.keep().join("server.log");
        Ok(Self { supervisor, replies, log })
    }

    /// Kills the server as in a crash, and leaves its files.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.order("kill")
    }

    /// Restarts the server after [`kill`](Self::kill).
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.order("restart")
    }

    /// Suspends the server: its connections stay open and get no response.
    pub(crate) fn pause(&mut self) -> anyhow::Result<()> {
        self.order("pause")
    }

    /// Resumes the server after [`pause`](Self::pause).
    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        self.order("resume")
    }

    fn order(&mut self, order: &str) -> anyhow::Result<()> {
        writeln!(self.supervisor.stdin.as_ref().context("the supervisor's input")?, "{order}")?;
        let mut reply = String::new();
        self.replies.read_line(&mut reply)?;
        if reply.trim_end() != order {
            bail!("the supervisor of the server has ended");
        }
        Ok(())
    }

    /// Waits until the server accepts connections. The error contains `name`.
    pub(crate) async fn until_listening(&self, name: &str, port: u16) -> anyhow::Result<()> {
        let began = Instant::now();
        // Polls the port, because the server announces its start by opening it.
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > START_TIMEOUT {
                bail!("{name} did not start: {}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Returns the server's log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Stops the server and waits for its end.
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

/// Returns a currently free port of 127.0.0.1.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Returns the path of a program from the search path, or from the newest directory of `elsewhere`.
pub(crate) fn program(name: &str, elsewhere: &[PathBuf], package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain(elsewhere.iter().cloned()).map(|directory| directory.join(name));
    match found.into_iter().find(|candidate| candidate.is_file()) {
        Some(program) => Ok(program),
        None => bail!("{name} is not installed: `apt-get install {package}` on Debian, or put it into PATH"),
    }
}

/// Runs a program to its end, and returns its output.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns whether this process runs as root.
pub(crate) fn is_root() -> anyhow::Result<bool> {
    Ok(run(Command::new("id").arg("-u"))?.trim() == "0")
}

/// Creates a temporary directory for a server.
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
        // Polls, because the supervisor is not a child of this process. It removes the files last.
        while std::fs::read_dir(directories.path()).unwrap().count() > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
