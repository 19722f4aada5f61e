//! The lock of the process that serves a file, and the file's identity.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tutord_core::operations::DatabaseIdentity;
use tutord_core::{Error, Result};

/// The lock, held while the process serves; the operating system releases it when the process ends.
pub(super) struct ServeLock {
    _file: File,
    identity: DatabaseIdentity,
}

/// The content of the lock file, for processes that fail to acquire the lock.
#[derive(Serialize, Deserialize)]
struct Holder {
    pid: u32,
    /// A random id, generated with the lock file.
    database: String,
    /// A random id, generated at each start.
    start: String,
}

impl Holder {
    fn identity(&self) -> DatabaseIdentity {
        DatabaseIdentity::of(&[&self.database], &self.start)
    }
}

impl ServeLock {
    /// Locks a file for serving.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if another process serves the file, or the lock file can't be created.
    pub(super) fn acquire(path: &Path) -> Result<Self> {
        let lock_path = lock_path(path);
        let failed = |error: std::io::Error| Error::Unavailable(format!("{}: {error}", lock_path.display()));
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock_path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let process =
                    read(&mut file).map_or_else(|| "another process".to_owned(), |by| format!("process {}", by.pid));
                return Err(Error::Unavailable(format!(
                    "{process} already serves {} (lock {}); stop it, or use another file",
                    path.display(),
                    lock_path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let database = read(&mut file).map_or_else(random, |before| before.database);
        let holder = Holder { pid: std::process::id(), database, start: random() };
        let text = serde_json::to_string(&holder).map_err(|error| failed(error.into()))?;
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(text.as_bytes())
        };
        write(&mut file).map_err(failed)?;
        Ok(Self { _file: file, identity: holder.identity() })
    }

    pub(super) const fn identity(&self) -> &DatabaseIdentity {
        &self.identity
    }
}

/// Returns the identity of the process that serves a file, or served it last.
pub(super) fn identity(path: &Path) -> Option<DatabaseIdentity> {
    Some(read(&mut File::open(lock_path(path)).ok()?)?.identity())
}

/// Returns the path of the lock file, next to the real file behind any links.
fn lock_path(path: &Path) -> PathBuf {
    let real = path.canonicalize().or_else(|_| {
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok::<_, std::io::Error>(directory.canonicalize()?.join(path.file_name().unwrap_or_default()))
    });
    let mut name = real.unwrap_or_else(|_| path.to_owned()).into_os_string();
    name.push(".lock");
    name.into()
}

fn read(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(1_024).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn random() -> String {
    format!("{:016x}", rand::random::<u64>())
}
