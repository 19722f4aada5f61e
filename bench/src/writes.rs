//! Log-in, and sending a message: next to what limits them.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier as _;
use argon2::password_hash::phc::PasswordHash;

use crate::bare;
use crate::client::request;
use crate::day::REPLY;
use crate::load::{LoadRequest, Plan, RequestSource, Target, interleaved};
use crate::pgbench::Script;
use crate::proxy::{IssuedStatement, RESPONSE_DELAY, StatementProxy};
use crate::report::{Goal, Report};
use crate::routes::{POOL, compared, issued};
use crate::system::{PASSWORD, System, password_hash, plan as seed_plan, token};

/// Measures both.
pub(crate) async fn run(system: &System, quick: bool, report: &mut Report) -> anyhow::Result<()> {
    let plan = if quick { Plan::new(5, 500) } else { Plan::new(11, 1_000) };
    report.section(
        "Writing",
        "Every request is another student's. A log-in is next to the check of a password (argon2id) on the servers' cores. A message, sent \
         without a cache to a model that answers at once, is next to pgbench with the same statements, on conversations drawn at \
         random; PostgreSQL flushes each commit to disk.",
    );
    let students = system.tokens.len() as u64;
    let seeded = seed_plan(students);
    let login: RequestSource = Arc::new(move |number| {
        let body = format!(r#"{{"email": "{}", "password": "{PASSWORD}"}}"#, seeded.email(1 + number % students));
        LoadRequest { bytes: request("POST", "/api/auth/login", "", &body).into(), writes: true }
    });
    let node = system.node(&POOL).await?;
    let rates = interleaved(&[Target::Cores(check_password), Target::http(&node, &login)], plan).await?;
    let mut rows = vec![compared(report, "log-in", "tutord / argon2", &rates[0], &rates[1], Goal::More, &[1])];
    rows[0].splice(1..2, [String::new(), String::new()]);

    let begin = "INSERT INTO conversations (user_id, title, last_message_at, created_at, updated_at) \
         SELECT id, 'for messages', now(), now(), now() FROM users WHERE id <= $1 ORDER BY id RETURNING id";
    // One for each student, in their order.
    let client = system.client().await?;
    let first: i64 = client.query(begin, &[&i64::try_from(students)?]).await?[0].get(0);
    let conversation = move |student: u64| first + i64::try_from(student).unwrap_or_default() - 1;
    let send = move |student: u64, number: u64| {
        let conversation = conversation(student);
        let body = format!(r#"{{"message": "What about number {number}?", "conversation_id": {conversation}}}"#);
        request("POST", "/api/chat/message", &token(student), &body)
    };
    let model = bare::start(REPLY.as_bytes())?;
    let url = format!("http://{}/v1", model.address);
    let told = [&POOL[..], &["--cache-enabled", "false", "--llm-model", "fake", "--llm-base-url", &url]].concat();
    let node = system.node(&told).await?;
    let wire = StatementProxy::start(system, RESPONSE_DELAY).await?;
    let heard = [&told[..], &["--server-timing", "true"]].concat();
    let heard = system.serve(&wire.url(system)?, system.program(), &heard).await?;
    // A number that is nothing else's.
    let known = students - 1;
    let mut issued = issued(&wire, &heard, &send(known, 0)).await?;
    // What pgbench is to have a result of, it must wait for.
    issued.iter_mut().for_each(|statement| statement.pipelined = false);
    let script = message_script(&system.url, &issued, known, students, conversation(known), first)?;
    let asked: RequestSource =
        Arc::new(move |number| LoadRequest { bytes: send(1 + number % students, number).into(), writes: true });
    let rates = interleaved(&[Target::http(&node, &asked), Target::Pgbench(&script)], plan).await?;
    let sent = [script.statements, script.round_trips];
    rows.push(compared(report, "message and reply", "uncached / pgbench", &rates[1], &rates[0], Goal::More, &sent));
    report.table("writes", &["", "statements", "round trips", "limit", "tutord", "µs", "tutord / limit"], &rows)
}

fn check_password() {
    let checked = PasswordHash::new(password_hash())
        .is_ok_and(|hash| Argon2::default().verify_password(PASSWORD.as_bytes(), &hash).is_ok());
    assert!(checked, "the password of all students");
}

/// The statements of a message by the student `known`, for one drawn at random: who it is, the conversation, the position that
/// the conversation's counter gave, and the message that is replied to differ.
fn message_script(
    url: &str,
    issued: &[IssuedStatement],
    known: u64,
    students: u64,
    conversation: i64,
    first: i64,
) -> anyhow::Result<Script> {
    let head = format!("\\set student random(1, {students})\n\\set conversation {first} + :student - 1\n");
    let (known, conversation) = (known.to_string(), conversation.to_string());
    let question = issued.iter().position(|statement| column(statement, 2) == Some("\"position\"")).unwrap_or_default();
    Script::varied(url, issued, head, |index, number| match column(&issued[index], number) {
        Some("\"position\"") => Some(format!(":s{}_message_count", index - 1)),
        Some("\"reply_to\"") => Some(format!(":s{question}_id")),
        _ if issued[index].values[number - 1].as_deref() == Some(&known) => Some(":student".to_owned()),
        _ if issued[index].values[number - 1].as_deref() == Some(&conversation) => Some(":conversation".to_owned()),
        _ => None,
    })
}

/// The column that a value of an insertion is for.
fn column(statement: &IssuedStatement, number: usize) -> Option<&str> {
    let rest = statement.sql.strip_prefix("INSERT INTO ")?.split_once('(')?.1;
    let (columns, values) = rest.split_once(") VALUES (")?;
    let at = values
        .split(", ")
        .position(|value| value.trim_end_matches(')').strip_prefix('$').is_some_and(|n| n.parse() == Ok(number)))?;
    columns.split(", ").nth(at)
}
