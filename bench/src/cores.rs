//! The cores of the machine: the client has the first half of them, the servers have the rest.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};

/// Core numbers. On a machine with one core the client and the servers share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cores {
    pub(crate) client: Vec<usize>,
    pub(crate) servers: Vec<usize>,
}

static CORES: OnceLock<Cores> = OnceLock::new();

/// Returns the cores of this process and of the servers.
pub(crate) fn cores() -> &'static Cores {
    CORES.get_or_init(|| Cores::split(&allowed()))
}

/// Returns the cores that this process may use.
fn allowed() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("0");
    parse(list.trim()).unwrap_or_else(|| vec![0])
}

/// Parses a list such as `0-2,5`.
fn parse(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cores.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cores)
}

impl Cores {
    fn split(all: &[usize]) -> Self {
        let (client, servers) = all.split_at(all.len() / 2);
        let client = if client.is_empty() { servers } else { client };
        Self { client: client.to_vec(), servers: servers.to_vec() }
    }

    /// Returns the number of all cores.
    pub(crate) fn count(&self) -> usize {
        if self.client == self.servers { self.client.len() } else { self.client.len() + self.servers.len() }
    }

    /// Describes the split in one sentence.
    pub(crate) fn describe(&self) -> String {
        if self.client == self.servers {
            return "The machine has one core, which the client and the servers share.".to_owned();
        }
        format!(
            "The client is pinned to core {}; tutord, its limits, PostgreSQL and Redis are pinned to core {} (taskset). A rate is that \
             of the servers' cores alone.",
            list(&self.client),
            list(&self.servers)
        )
    }
}

/// Returns core numbers as taskset reads them.
pub(crate) fn list(cores: &[usize]) -> String {
    cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Pins this process to the client's cores. To be called before it starts threads: the number of threads of a runtime
/// follows from the number of cores.
pub(crate) fn bind_client() -> anyhow::Result<()> {
    bind(&cores().client, std::process::id())
}

/// Runs `start` while the calling thread, and therefore each process that it starts, is pinned to the servers' cores.
pub(crate) async fn on_servers<T>(start: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let thread = thread_id()?;
    bind(&cores().servers, thread)?;
    let started = start.await;
    bind(&cores().client, thread)?;
    started
}

/// Returns the command that runs a program on these cores.
pub(crate) fn command_on(cores: &[usize], program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &list(cores)]).arg(program);
    command
}

/// Returns the command that runs a program on the servers' cores.
pub(crate) fn server_command(program: impl AsRef<OsStr>) -> Command {
    command_on(&cores().servers, program)
}

/// Pins a thread.
fn bind(cores: &[usize], thread: u32) -> anyhow::Result<()> {
    let mut command = Command::new("taskset");
    command.args(["-cp", &list(cores), &thread.to_string()]).stdout(Stdio::null());
    ensure!(command.status().context("taskset")?.success(), "taskset");
    Ok(())
}

/// Returns the number of the calling thread.
fn thread_id() -> anyhow::Result<u32> {
    let link = std::fs::read_link("/proc/thread-self")?;
    Ok(link.file_name().and_then(OsStr::to_str).context("a thread")?.parse()?)
}

/// Repeats work on a thread for each of the servers' cores; returns the repetitions per second. `begin` creates the work
/// of a thread.
pub(crate) fn on_server_cores<W: FnMut()>(
    round: Duration,
    begin: impl Fn() -> anyhow::Result<W> + Sync,
) -> anyhow::Result<f64> {
    let run = &|core| {
        bind(&[core], thread_id()?)?;
        let mut work = begin()?;
        let began = Instant::now();
        let mut done = 0_u64;
        while began.elapsed() < round {
            work();
            done += 1;
        }
        anyhow::Ok(done as f64 / began.elapsed().as_secs_f64())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = cores().servers.iter().map(|&core| scope.spawn(move || run(core))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_gets_the_smaller_half() {
        for (all, client, servers) in [("0", "0", "0"), ("0-1", "0", "1"), ("0,2-3", "0", "2,3"), ("0-3", "0,1", "2,3")]
        {
            let cores = Cores::split(&parse(all).unwrap());
            assert_eq!((list(&cores.client), list(&cores.servers)), (client.to_owned(), servers.to_owned()), "{all}");
            assert_eq!(cores.count(), parse(all).unwrap().len());
        }
    }
}
