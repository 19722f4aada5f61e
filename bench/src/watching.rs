//! The cost of querywatch.

use std::hint::black_box;
use std::time::{Duration, Instant};

use diesel::connection::{Instrumentation as _, InstrumentationEvent, StrQueryHelper};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::QueryFragment;
use futures_util::FutureExt as _;
use querywatch::{ConnectionInstrumentation, Scope, Watch, time_call};

use crate::client::request;
use crate::cores::cores;
use crate::load::{Plan, Target, interleaved, repeated};
use crate::report::{Goal, Report};
use crate::routes::POOL;
use crate::system::System;
use crate::turns::Spread;

diesel::table! {
    conversations (id) {
        id -> BigInt,
        user_id -> BigInt,
        title -> Text,
        context_type -> Text,
        message_count -> BigInt,
        last_message_at -> BigInt,
        last_message_preview -> Nullable<Text>,
        created_at -> BigInt,
        updated_at -> BigInt,
        deleted_at -> Nullable<BigInt>,
    }
}

/// Sends the events of a statement by diesel-async on PostgreSQL. The start event formats the text again.
fn statement(instrumentation: &mut ConnectionInstrumentation, query: &impl QueryFragment<Pg>, sql: &str) {
    instrumentation.on_connection_event(InstrumentationEvent::start_query(&diesel::debug_query::<Pg, _>(query)));
    instrumentation.on_connection_event(InstrumentationEvent::finish_query(&StrQueryHelper::new(sql), None));
}

/// Time for a request with these numbers of statements in its calls on a connection.
fn request_cost(calls: &[usize], capture_cancelled_sql: bool) -> anyhow::Result<Duration> {
    const TIMES: u32 = 20_000;
    let watch = Watch::builder().capture_cancelled_sql(capture_cancelled_sql).build();
    let mut instrumentation = watch.instrumentation();
    let query = conversations::table
        .filter(conversations::user_id.eq(1).and(conversations::deleted_at.is_null()))
        .order((conversations::last_message_at.desc(), conversations::id.desc()))
        .limit(21);
    let sql = diesel::debug_query::<Pg, _>(&query).to_string();
    let sql = sql.split(" -- binds").next().unwrap_or_default();
    let began = Instant::now();
    for _ in 0..TIMES {
        let request = async {
            for statements in calls {
                time_call(async {
                    for _ in 0..*statements {
                        statement(&mut instrumentation, black_box(&query), black_box(sql));
                    }
                })
                .await;
            }
        };
        // Nothing in it waits.
        let ended = Scope::new(&watch, "GET /api/chat/conversations").budget(5).run(request).now_or_never();
        anyhow::ensure!(ended.is_some(), "a request that waits for nothing");
    }
    Ok(began.elapsed() / TIMES)
}

/// Compares it with what a request takes of the machine.
pub(crate) async fn run(system: &System, quick: bool, report: &mut Report) -> anyhow::Result<()> {
    let plan = if quick { Plan::new(5, 150) } else { Plan::new(9, 500) };
    report.section(
        "What it costs to watch statements",
        "tutord has no switch for it, so it is measured by itself: the same calls of querywatch as for a list of 20 conversations, with a \
         statement of the same size, in a loop. At saturation a request takes a share of the servers' cores, databases included; of that, the time of these calls is what throughput would gain without them.",
    );
    let asked = repeated(request("GET", "/api/chat/conversations?limit=20", &system.tokens[0], ""));
    let plain = system.node(&[&POOL[..], &["--cache-enabled", "false"]].concat()).await?;
    let cached = system.node(&POOL).await?;
    let counters = system.counters();
    let targets = [Target::cached(&cached, &asked, &counters), Target::http(&plain, &asked)];
    let rates = interleaved(&targets, plan).await?;
    let cores = cores().servers.len() as f64;
    let mut rows = Vec::new();
    // tutord names no cancelled statements: for that the text of each would be written once more.
    for (name, calls, capture_cancelled_sql, rates, goal) in [
        ("cached", &[][..], false, &rates[0], Goal::AtMost(0.01)),
        ("uncached", &[1, 1][..], false, &rates[1], Goal::AtMost(0.01)),
        ("uncached, were cancelled statements named", &[1, 1][..], true, &rates[1], Goal::Less),
    ] {
        let costs: Vec<f64> = (0..15)
            .map(|_| Ok(request_cost(calls, capture_cancelled_sql)?.as_secs_f64()))
            .collect::<anyhow::Result<_>>()?;
        // The least: what another process took meanwhile is no cost of this.
        let cost = Spread::of(&costs).least;
        let all = cores / rates.median();
        let share = report.ratio(&format!("querywatch: share of a request, list of 20 {name}"), cost / all, goal);
        let micros = |seconds: f64| format!("{:.2}", seconds * 1e6);
        rows.push(vec![name.to_owned(), calls.iter().sum::<usize>().to_string(), micros(cost), micros(all), share]);
    }
    report.table(
        "querywatch",
        &["", "statements", "µs of querywatch", "µs of the servers' cores for a request", "share"],
        &rows,
    )
}
