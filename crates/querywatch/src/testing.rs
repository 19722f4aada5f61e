//! For the tests of those who use this crate.

use crate::watch::Watch;

/// Fails a test that ends while its watch has findings. Made by [`Watch::fail_on_findings`].
#[derive(Debug)]
#[must_use = "it looks when it is dropped"]
pub struct TestGuard(Watch);

impl Watch {
    /// A guard that panics when it is dropped and there are findings, unless the test fails anyway.
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
