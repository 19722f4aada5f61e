//! The mails that the server writes to files.

use std::path::PathBuf;

use super::TestApp;
use super::wait::wait_for;

/// Waits for the mail with this number (the first is 1) and returns its text.
pub(crate) async fn read_mail(app: &TestApp, number: usize) -> String {
    let directory = app.directory.path().join("mail");
    wait_for(async || {
        let mut mails: Vec<PathBuf> = std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
            .collect();
        mails.sort();
        mails.get(number - 1).map(|path| std::fs::read_to_string(path).unwrap())
    })
    .await
}

/// Returns the token in a mail's link, whose long line the mail may have folded.
pub(crate) fn mailed_token(mail: &str) -> String {
    let unfolded = mail.replace("=\r\n", "").replace("=3D", "=");
    let rest = unfolded.split("token=").nth(1).expect("a link with a token");
    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect()
}
