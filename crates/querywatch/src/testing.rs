//! Guards for tests.

use crate::unscoped;
use crate::watch::Watch;

/// Fails a test whose watch has findings or unscoped statements when it ends. Created by [`Watch::fail_on_findings`] and
/// [`Watch::fail_on_unscoped`].
#[derive(Debug)]
#[must_use = "the guard checks the watch when it is dropped"]
pub struct TestGuard {
    watch: Watch,
    check: Check,
}

#[derive(Debug, Clone, Copy)]
enum Check {
    Findings,
    /// The number of unscoped statements when the guard was created.
    Unscoped(u64),
}

impl Watch {
    /// Returns a guard that panics when it is dropped if the watch has findings, unless the test panics already.
    pub fn fail_on_findings(&self) -> TestGuard {
        TestGuard { watch: self.clone(), check: Check::Findings }
    }

    /// Returns a guard that panics when it is dropped if statements ran outside of every scope since its creation, unless
    /// the test panics already.
    pub fn fail_on_unscoped(&self) -> TestGuard {
        TestGuard { watch: self.clone(), check: Check::Unscoped(self.0.unscoped.count()) }
    }
}

impl Drop for TestGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        match self.check {
            Check::Findings => {
                let findings = self.watch.findings();
                let list: String = findings.iter().map(|finding| format!("\n  {finding}")).collect();
                assert!(findings.is_empty(), "the watch has findings:{list}");
            }
            Check::Unscoped(before) => {
                let log = &self.watch.0.unscoped;
                let count = log.count().saturating_sub(before);
                assert!(count == 0, "the watch lost statements{}", unscoped::describe(count, &log.since(before)));
            }
        }
    }
}
