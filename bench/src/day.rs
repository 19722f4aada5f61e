//! A day of many students: what they read and write, mixed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};
use serde_json::Value;

use crate::bare;
use crate::client::{CONNECTIONS, Connection, request};
use crate::load::{Latencies, LoadRequest, Plan, RequestSource, Target, interleaved, open, quantile, repeated};
use crate::report::{Goal, Report};
use crate::system::{self, EXERCISES, Node, STARTED, System};
use crate::turns::Spread;

/// Of the Zipf distribution by which students are drawn: the k-th has a share of 1 / k^s.
const EXPONENT: f64 = 1.0;

/// The number of warm-up rounds, each with as many requests as are measured. After them each student has sent about
/// fifty requests.
const WARMING: u64 = 2;

/// The description of the request mix.
pub(crate) const MIX: &str = "Students are drawn by a Zipf distribution (s = 1). Of 100 requests, 90 read: the own profile 20, the list of \
     conversations 20, the first page of a conversation 20, an exercise 15, the history of exercises 5, statistics 5, progress 3, \
     the leaderboard 2. 10 write: a message (with its reply by a model that answers at once) 6, a change of the profile 1, a new \
     conversation 1, another title of one 1, a completed exercise 1";

/// Makes requests.
#[derive(Clone)]
pub(crate) struct Day {
    tokens: Arc<[String]>,
    /// Of each student, by number.
    conversations: Arc<[Vec<i64>]>,
    students: Zipf<f64>,
}

impl Day {
    pub(crate) async fn new(system: &System) -> anyhow::Result<Self> {
        let students = system.tokens.len();
        let mut conversations = vec![Vec::new(); students];
        let list =
            "SELECT user_id, id FROM conversations WHERE deleted_at IS NULL ORDER BY last_message_at DESC, id DESC";
        for row in system.client().await?.query(list, &[]).await? {
            let student = usize::try_from(row.get::<_, i64>(0))? - 1;
            if let Some(own) = conversations.get_mut(student) {
                own.push(row.get(1));
            }
        }
        Ok(Self {
            tokens: system.tokens.clone().into(),
            conversations: conversations.into(),
            students: Zipf::new(students as f64, EXPONENT)?,
        })
    }

    /// The n-th request.
    fn request(&self, number: u64) -> LoadRequest {
        let mut random = StdRng::seed_from_u64(number);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and the students")]
        let student = self.students.sample(&mut random) as usize - 1;
        let own = &self.conversations[student];
        // Of the newest; a student without any has the list.
        let conversation = own.get(random.random_range(0..own.len().clamp(1, 5)));
        let exercise = random.random_range(1..=EXERCISES);
        let started = system::started(student as u64 + 1, random.random_range(0..STARTED));
        let path = |id: &i64| format!("/api/chat/conversations/{id}");
        let list = || "/api/chat/conversations".to_owned();
        let (method, path, body) = match random.random_range(0..100) {
            0..20 => ("GET", "/api/users/me".to_owned(), String::new()),
            20..40 => ("GET", list(), String::new()),
            40..60 => ("GET", conversation.map_or_else(list, path), String::new()),
            60..75 => ("GET", format!("/api/exercises/{exercise}"), String::new()),
            75..80 => ("GET", "/api/exercises/history".to_owned(), String::new()),
            80..85 => ("GET", "/api/progress/statistics".to_owned(), String::new()),
            85..88 => ("GET", "/api/progress".to_owned(), String::new()),
            88..90 => ("GET", "/api/progress/leaderboard".to_owned(), String::new()),
            90..96 => {
                let conversation = conversation.map_or_else(String::new, |id| format!(r#", "conversation_id": {id}"#));
                let body = format!(r#"{{"message": "What about number {number}?"{conversation}}}"#);
                ("POST", "/api/chat/message".to_owned(), body)
            }
            96 => ("PUT", "/api/users/me".to_owned(), format!(r#"{{"bio": "number {number}"}}"#)),
            97 => ("POST", list(), format!(r#"{{"title": "Number {number}"}}"#)),
            98 => match conversation {
                Some(id) => ("PATCH", path(id), format!(r#"{{"title": "Number {number}"}}"#)),
                None => ("GET", list(), String::new()),
            },
            _ => ("POST", format!("/api/exercises/{started}/complete"), r#"{"time_spent_seconds": 600}"#.to_owned()),
        };
        LoadRequest { bytes: request(method, &path, &self.tokens[student], &body).into(), writes: method != "GET" }
    }

    /// As a load.
    pub(crate) fn requests(&self) -> RequestSource {
        let day = self.clone();
        Arc::new(move |number| day.request(number))
    }

    /// Sends these requests as fast as they are answered, to a node that tells its statements.
    async fn counted(&self, address: &str, requests: Range<u64>) -> anyhow::Result<Counts> {
        let began = Instant::now();
        let count = requests.end - requests.start;
        let clients = requests.clone().take(CONNECTIONS).map(|first| async move {
            let mut connection = Connection::open(address).await?;
            let mut counts = Counts::default();
            for number in (first..requests.end).step_by(CONNECTIONS) {
                let asked = self.request(number);
                let statements = connection.expect_success(&asked.bytes).await?.statements;
                if asked.writes {
                    counts.of_writes += statements;
                } else {
                    counts.of_reads += statements;
                }
            }
            anyhow::Ok(counts)
        });
        let mut total = Counts::default();
        for counts in try_join_all(clients).await? {
            total.of_reads += counts.of_reads;
            total.of_writes += counts.of_writes;
        }
        total.rate = count as f64 / began.elapsed().as_secs_f64();
        Ok(total)
    }
}

/// Statements, and requests a second.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) of_reads: u64,
    pub(crate) of_writes: u64,
    pub(crate) rate: f64,
}

/// The reply of a model that responds at once.
pub(crate) const REPLY: &str = r#"{"model": "fake", "choices": [{"message": {"role": "assistant", "content":
    "What have you tried, and what happened?"}, "finish_reason": "stop"}], "usage": {"total_tokens": 20}}"#;

/// Measures a day with the cache and without.
pub(crate) async fn run(system: &System, quick: bool, report: &mut Report) -> anyhow::Result<()> {
    let (requests, plan, turns, round) = if quick {
        (6_000, Plan::new(3, 400), 3, Duration::from_secs(1))
    } else {
        (30_000, Plan::new(9, 1_000), 9, Duration::from_secs(4))
    };
    let day = Day::new(system).await?;
    let model = bare::start(REPLY.as_bytes())?;
    let url = format!("http://{}/v1", model.address);
    let told = ["--server-timing", "true", "--llm-model", "fake", "--llm-base-url", &url];
    redis::cmd("FLUSHALL").query_async::<()>(&mut system.redis().await?).await?;
    let cached = system.node(&told).await?;
    let plain = system.node(&[&told[..], &["--cache-enabled", "false"]].concat()).await?;
    report.section(
        "A day of many students",
        &format!(
            "{MIX}. {} students.\n\n{requests} requests over {CONNECTIONS} connections as fast as they are answered, beginning with an \
             empty cache (cold); as many after {WARMING} times as many more, which are not counted (warm); and as many without a \
             cache:",
            system.tokens.len()
        ),
    );
    let cold = day.counted(&cached.address, 0..requests).await?;
    let reads_cold = reads(system, &cached).await?;
    let warmed = (1 + WARMING) * requests;
    day.counted(&cached.address, requests..warmed).await?;
    let reads_cold_and_warming = reads(system, &cached).await?;
    let warm = day.counted(&cached.address, warmed..warmed + requests).await?;
    let reads_warm = reads(system, &cached).await?;
    let without = day.counted(&plain.address, warmed + requests..warmed + 2 * requests).await?;
    let row = |name: &str, counts: &Counts| {
        vec![name.to_owned(), counts.of_reads.to_string(), counts.of_writes.to_string(), format!("{:.0}", counts.rate)]
    };
    report.table(
        "day",
        &["", "statements of reads", "of writes", "requests/s"],
        &[row("cold", &cold), row("warm", &warm), row("no cache", &without)],
    )?;
    for (name, counts, goal) in [("cold", &cold, Goal::More), ("warm", &warm, Goal::AtLeast(0.90))] {
        let less = 1.0 - counts.of_reads as f64 / without.of_reads as f64;
        let less = report.ratio(&format!("day {name}: statements of reads that the cache saves"), less, goal);
        report.text += &format!("\nStatements of reads that the cache saves, {name}, of all: {less}.\n");
    }
    report.text += "\nWhich share of the reads of each kind of value was found:\n";
    let mut rows = Vec::new();
    for (name, (all, found)) in &reads_warm {
        let goal = match name.as_str() {
            "user:profile" => Goal::AtLeast(0.95),
            "exercise" => Goal::AtLeast(0.99),
            _ => Goal::More,
        };
        let (all_cold, found_cold) = reads_cold.get(name).copied().unwrap_or_default();
        let rate = |found: u64, all: u64| if all == 0 { 0.0 } else { found as f64 / all as f64 };
        let (before, found_before) = reads_cold_and_warming.get(name).copied().unwrap_or_default();
        let (all, warm) = (all - before, rate(found - found_before, all - before));
        let shown = if goal == Goal::More {
            format!("{warm:.3}")
        } else {
            report.ratio(&format!("day warm: hit rate of {name}"), warm, goal)
        };
        rows.push(vec![
            name.clone(),
            all_cold.to_string(),
            format!("{:.3}", rate(found_cold, all_cold)),
            all.to_string(),
            shown,
        ]);
    }
    report.table("hit-rates", &["namespace", "reads, cold", "found", "reads, warm", "found"], &rows)?;

    let asked = day.requests();
    let saturation = interleaved(&[Target::http(&cached, &asked), Target::http(&plain, &asked)], plan).await?;
    report.text += &format!(
        "\nAt most {:.0} requests a second are answered with the cache and {:.0} without. The latencies at half of that: requests are \
         due at random times, as those of many students who think for a while are, and a latency counts from when its request was due. \
         Medians of {turns} turns, in milliseconds. A handler that has the bytes, asked as often, shows what of it is the machine's and the \
         client's.\n",
        saturation[0].median(),
        saturation[1].median(),
    );
    let nothing = repeated(request("GET", "/", "", ""));
    let [with, without] = [saturation[0].median() / 2.0, saturation[1].median() / 2.0];
    let loads = [
        ("with the cache", &cached, &asked, with, Goal::AtMost(5.0)),
        ("without", &plain, &asked, without, Goal::Less),
        // What the machine and the client make of a handler that does nothing, at the first one's rate.
        ("bare handler", &model, &nothing, with, Goal::Less),
    ];
    let mut runs = loads.map(|_| Vec::new());
    for turn in 0..turns {
        for place in 0..loads.len() {
            let index = if turn % 2 == 0 { place } else { loads.len() - 1 - place };
            let (_, node, asked, rate, _) = loads[index];
            runs[index].push(open(&node.address, asked, rate, round, true).await?);
        }
    }
    let mut rows = Vec::new();
    for ((name, _, _, rate, goal), runs) in loads.into_iter().zip(&runs) {
        let all = runs.iter().map(Latencies::all).collect::<anyhow::Result<Vec<_>>>()?;
        let tails: Vec<f64> = all.iter().map(|all| quantile(all, 0.99) / quantile(all, 0.5)).collect();
        let tail = report.spread(&format!("day {name}: p99 / p50 at half saturation"), &Spread::of(&tails), goal);
        let mut row = vec![name.to_owned(), format!("{rate:.0}")];
        for writes in [false, true] {
            for share in [0.5, 0.99, 0.999] {
                let of = |run: &Latencies| quantile(if writes { &run.writes } else { &run.reads }, share);
                let missing = runs.iter().any(|run| writes && run.writes.is_empty());
                row.push(if missing {
                    String::new()
                } else {
                    format!("{:.2}", Spread::of(&runs.iter().map(of).collect::<Vec<_>>()).median)
                });
            }
        }
        row.push(tail);
        rows.push(row);
    }
    let columns = ["", "requests/s", "reads p50", "p99", "p99.9", "writes p50", "p99", "p99.9", "all: p99 / p50"];
    report.table("day-latencies", &columns, &rows)
}

/// Of each namespace that was read: how often so far, and how often the value was found.
async fn reads(system: &System, node: &Node) -> anyhow::Result<BTreeMap<String, (u64, u64)>> {
    let answer = Connection::open(&node.address).await?.expect_success(&system.counters()).await?;
    let answer: Value = serde_json::from_slice(&answer.body)?;
    let of = |namespace: &Value| {
        let count = |name: &str| namespace[name].as_u64().unwrap_or(0);
        let found = count("l1_hits") + count("l2_hits") + count("coalesced");
        (namespace["name"].as_str().unwrap_or("").to_owned(), (found + count("misses"), found))
    };
    Ok(answer["namespaces"].as_array().context("namespaces")?.iter().map(of).filter(|(_, (all, _))| *all > 0).collect())
}
