//! Reads the mails that the server wrote into files.

use std::path::PathBuf;
use std::time::Duration;

use crate::harness::TestApp;

/// Waits for the mail number `count` (1 is the first) and returns its text.
pub(crate) async fn mail(app: &TestApp, count: usize) -> String {
    let directory = app.directory.path().join("mail");
    loop {
        let mut mails: Vec<PathBuf> = std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
            .collect();
        mails.sort();
        match mails.get(count - 1) {
            Some(path) => return std::fs::read_to_string(path).unwrap(),
            // Mails are sent in the background; the runner ends a test that waits for ever.
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// The token in a mail's link, whose long line the mail may have folded.
pub(crate) fn token(mail: &str) -> String {
    let unfolded = mail.replace("=\r\n", "").replace("=3D", "=");
    let rest = unfolded.split("token=").nth(1).expect("a link with a token");
    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect()
}
