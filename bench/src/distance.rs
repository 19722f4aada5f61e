//! The latency of requests by the distance of the database.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::bare;
use crate::client::{Connection, request};
use crate::cores::server_command;
use crate::day::REPLY;
use crate::delay::DelayProxy;
use crate::plot::{Axes, Line};
use crate::report::{Goal, Report};
use crate::system::{EXERCISES, Node, STARTED, System, plan, start_exercises, started};
use crate::turns::{Spread, slope};

/// The round trips to the database, in milliseconds.
const DISTANCES: [f64; 6] = [0.0, 0.5, 1.0, 2.0, 5.0, 10.0];

/// The measured routes, in the order of a turn, and how many round trips each may take, one after the other.
const ROUTES: [(&str, f64); 4] = [("message", 2.0), ("complete", 2.0), ("list", 1.0), ("log-in", 2.0)];

/// A slope of the latency within this of a number of round trips is that number.
const SLOPE_TOLERANCE: f64 = 0.25;

const STUDENTS: u64 = 60;

/// The password of the students that `tutord seed` generates.
const PASSWORD: &str = "Seed-Pass-1";

/// The number of unmeasured turns: connections are opened and statements prepared.
const WARMING: u64 = 4;

/// A program with a database of its own, at each distance.
struct Program {
    name: &'static str,
    /// For each distance.
    connections: Vec<Connection>,
    /// Of each student: the access token and a conversation.
    students: Vec<(String, i64)>,
    /// The number of turns so far.
    turns: u64,
    /// Milliseconds by distance and route.
    times: Vec<[Vec<f64>; ROUTES.len()]>,
    _nodes: Vec<Node>,
}

/// Measures one program, or two in turns.
pub(crate) async fn run(
    system: &System,
    before: Option<&Path>,
    quick: bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    let turns = if quick { 9 } else { 40 };
    report.section(
        "By the distance of the database",
        &format!(
            "One request at a time with the cache on, tutord and PostgreSQL that far apart: a proxy delays all bytes by half of the round \
             trip in each direction. Redis and the model are near. The own profile is read before each request, so that the session is \
             cached. A message goes to a conversation that exists; the list has a page size that its student has not used before, so it is not \
             cached. \
             Medians of {turns} turns, each of which has every distance{}. The number of round trips is the slope of the latency over the \
             distance (least squares).",
            if before.is_some() { " and both programs" } else { "" }
        ),
    );
    let model = bare::start(REPLY.as_bytes())?;
    let url = format!("http://{}/v1", model.address);
    let mut programs = Vec::new();
    if let Some(before) = before {
        programs.push(Program::start("before", system, before, &url).await?);
    }
    programs.push(Program::start("after", system, &system.tutord, &url).await?);
    for turn in 0..WARMING + turns {
        for index in 0..DISTANCES.len() {
            for place in 0..programs.len() {
                // Forward and backward, in turns.
                let program = if turn % 2 == 0 { place } else { programs.len() - 1 - place };
                programs[program].turn(index, turn >= WARMING).await?;
            }
        }
    }
    write(&programs, report)
}

/// Writes the table, the plot and the round trips.
fn write(programs: &[Program], report: &mut Report) -> anyhow::Result<()> {
    let (mut rows, mut lines, mut trips) = (Vec::new(), Vec::new(), Vec::new());
    for (route, (name, goal)) in ROUTES.iter().enumerate() {
        let mut row = vec![(*name).to_owned()];
        for program in programs {
            let spreads: Vec<Spread> = program.times.iter().map(|times| Spread::of(&times[route])).collect();
            let points: Vec<_> = DISTANCES.into_iter().zip(spreads.iter().map(|spread| spread.median)).collect();
            for (distance, spread) in DISTANCES.iter().zip(&spreads) {
                let numbers = [*distance, spread.median, spread.low, spread.high].map(|number| format!("{number:.2}"));
                rows.push([&[program.name.to_owned(), (*name).to_owned()], &numbers[..]].concat());
            }
            let slope = slope(&points);
            row.push(if program.name == "after" {
                report.ratio(&format!("{name}: round trips by time"), slope, Goal::AtMost(goal + SLOPE_TOLERANCE))
            } else {
                format!("{slope:.1}")
            });
            let line = if programs.len() > 1 { format!("{name}, {}", program.name) } else { (*name).to_owned() };
            lines.push(Line { name: line, points });
        }
        trips.push(row);
    }
    report.plot(
        "distance",
        "Latency by distance of the database",
        &Axes::linear("ms of a round trip", "ms (p50)"),
        &lines,
    )?;
    let names = programs.iter().map(|program| program.name);
    report.table("round-trips", &std::iter::once("round trips, by time").chain(names).collect::<Vec<_>>(), &trips)?;
    let columns = ["program", "route", "round trip in ms", "p50 in ms", "lowest quartile", "highest quartile"];
    report.table("distance", &columns, &rows)
}

impl Program {
    /// Fills a database by this program itself, as another version may have other tables, and starts it at each distance.
    async fn start(name: &'static str, system: &System, program: &Path, model: &str) -> anyhow::Result<Self> {
        let url = system.postgres.empty_database().await?;
        let (students, rows) = (STUDENTS.to_string(), (STUDENTS * 100).to_string());
        let status = server_command(program)
            .args([
                "seed",
                "--database-url",
                &url,
                "--users",
                &students,
                "--conversations",
                &(STUDENTS * 10).to_string(),
            ])
            .args(["--messages", &rows, "--exercises", &EXERCISES.to_string()])
            .env("RUST_LOG", "error")
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "{}: seed", program.display());
        let database = system.postgres.client(url.rsplit('/').next().context("a database")?).await?;
        database.batch_execute(&start_exercises()).await?;
        database.batch_execute("VACUUM ANALYZE").await?;
        let (mut connections, mut nodes) = (Vec::new(), Vec::new());
        for distance in DISTANCES {
            let server = system.postgres_address()?;
            let proxy = DelayProxy::start(server, Duration::from_secs_f64(distance / 1e3))?;
            let far = url.replace(server, &proxy.address);
            let arguments = ["--llm-model", "fake", "--llm-base-url", model];
            let node = system.serve(&far, server_command(program), &arguments).await?;
            connections.push(Connection::open(&node.address).await?);
            nodes.push(node);
        }
        let mut students = Vec::new();
        let near = &mut connections[0];
        for student in 1..=STUDENTS {
            let token = near.expect_success(&log_in(student)).await?.access_token.context("an access token")?;
            let begin = request("POST", "/api/chat/conversations", &token, r#"{"title": "Far away"}"#);
            let begun: Value = serde_json::from_slice(&near.expect_success(&begin).await?.body)?;
            let conversation = begun["conversation"]["id"].as_i64().context("a conversation")?;
            students.push((token, conversation));
        }
        let times = DISTANCES.map(|_| ROUTES.map(|_| Vec::new())).to_vec();
        Ok(Self { name, connections, students, turns: 0, times, _nodes: nodes })
    }

    /// Sends one request of each route over the distance with this index, by another student each time.
    async fn turn(&mut self, distance: usize, counts: bool) -> anyhow::Result<()> {
        let (student, number) = (self.turns % STUDENTS, self.turns / STUDENTS);
        ensure!(number < STARTED, "no student has so many started exercises");
        self.turns += 1;
        let (token, conversation) = &self.students[usize::try_from(student)?];
        let exercise = started(student + 1, number);
        let message = format!(r#"{{"message": "What about that?", "conversation_id": {conversation}}}"#);
        let path = format!("/api/exercises/{exercise}/complete");
        // No page that is cached, and not the default size: a message brings the cached one up to date.
        let limit = 21 + number;
        let asked = [
            request("POST", "/api/chat/message", token, &message),
            request("POST", &path, token, r#"{"time_spent_seconds": 600}"#),
            request("GET", &format!("/api/chat/conversations?limit={limit}"), token, ""),
            log_in(student + 1),
        ];
        let profile = request("GET", "/api/users/me", token, "");
        let connection = &mut self.connections[distance];
        for (asked, times) in asked.iter().zip(&mut self.times[distance]) {
            connection.expect_success(&profile).await?;
            let began = Instant::now();
            let answer = connection.send(asked).await?;
            let took = began.elapsed();
            // Nor that it was done before.
            ensure!(matches!(answer.status, 200..300), "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
            if counts {
                times.push(took.as_secs_f64() * 1e3);
            }
        }
        Ok(())
    }
}

fn log_in(student: u64) -> Vec<u8> {
    let body = format!(r#"{{"email": "{}", "password": "{PASSWORD}"}}"#, plan(STUDENTS).email(student));
    request("POST", "/api/auth/login", "", &body)
}
