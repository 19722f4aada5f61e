//! Guards for tests.

use crate::watch::Watch;

/// Fails a test whose watch has findings when it ends. Created by [`Watch::fail_on_findings`].
#[derive(Debug)]
#[must_use = "the guard checks the watch when it is dropped"]
pub struct TestGuard(Watch);

impl Watch {
    /// Returns a guard that panics when it is dropped if the watch has findings, unless the test panics already.
    pub fn fail_on_findings(&self) -> TestGuard {
        TestGuard(self.clone())
    }
}

impl Drop for TestGuard {
    fn drop(&mut self) {
        let findings = self.0.findings();
        if std::thread::panicking() || findings.is_empty() {
            return;
        }
        let list: String = findings.iter().map(|finding| format!("\n  {finding}")).collect();
        assert!(findings.is_empty(), "the watch has findings:{list}");
    }
}
