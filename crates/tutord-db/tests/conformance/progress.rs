use rand::{RngExt as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;
use tutord_core::model::progress::{Board, starts_on, utc_day};
use tutord_core::model::{Grading, Metric, Moment, NewSubmission, Period, Requirement};
use tutord_core::{PageRequest, Position, Timestamp};

use crate::exercises::{achievement, done, exercise, grading, moment, ungraded};
use crate::fixture::Fixture;

crate::on_both!(
    a_completion_is_counted_everywhere,
    rebuilding_finds_what_was_counted,
    the_migration_finds_the_instants_of_streaks,
    ranks_are_those_of_a_recount,
    equal_values_share_a_rank,
    opting_out_hides_and_opting_in_shows,
    leaderboards_of_past_weeks_are_removed,
);

async fn a_completion_is_counted_everywhere(store: &Fixture) {
    let ids = store.catalogue(3).await;
    let achievements = [
        achievement("two-days", Requirement::Streak, 2, 15),
        achievement("perfect", Requirement::PerfectGrades, 1, 25),
    ];
    store.load_catalogue(&[], &achievements).await.unwrap();
    let ada = store.student("ada").await;
    store.start(ada.id, ids[0]).await;
    let first = done(store.complete_exercise(ada.id, ids[0], Some(100), moment(0, 0)).await.unwrap());
    assert_eq!((first.streak, first.user_exercise.points_earned, first.achievements.len()), (1, 20, 0));
    let submission = store.submit(ada.id, ids[1], &NewSubmission::new("x", Some(50)), moment(1, 0).at).await;
    let grading = Grading { grade: 100, feedback: "perfect".to_owned(), ..grading(100) };
    done(store.grade_submission(ada.id, &submission, &grading, moment(1, 0)).await.unwrap());
    let second = done(store.complete_exercise(ada.id, ids[1], None, moment(1, 5)).await.unwrap());
    assert_eq!((second.streak, second.user_exercise.points_earned), (2, 30 + 15 + 25));
    assert_eq!(second.achievements, ["two-days", "perfect"]);

    let progress = store.progress(ada.id).await.unwrap();
    let all = progress.all.unwrap();
    assert_eq!((all.exercises_completed, all.points, all.time_spent_seconds), (2, 90, 150));
    assert_eq!((all.medium, all.hard, all.easy, all.perfect_grades, all.no_hint_run), (1, 1, 0, 1, 2));
    assert_eq!((all.streak, all.achievements_unlocked), (2, 2));
    let user = store.user(ada.id).await.unwrap().unwrap();
    assert_eq!((user.current_streak, user.exercises_completed), (2, 2));
    let topics: Vec<_> =
        progress.skills.iter().map(|skill| (skill.topic.as_str(), skill.exercises_completed)).collect();
    assert_eq!(topics, [("all", 2), ("graphs", 1), ("strings", 1)]);
    assert!(progress.achievements.iter().all(|(_, unlocked_at)| unlocked_at.is_some()));
    let sums = store.activity(ada.id, moment(0, 0).day, moment(9, 0).day).await.unwrap();
    assert_eq!(sums.all, Some(all));
    let days: Vec<_> = sums.days.iter().map(|day| (day.starts_on, day.points, day.streak)).collect();
    assert_eq!(days, [(moment(0, 0).day, 20, 1), (moment(1, 0).day, 70, 2)]);
}

fn board(metric: Metric, period: Period, at: Timestamp, language: &str) -> Board {
    Board { metric, period, starts_on: starts_on(period, utc_day(at)), language: language.to_owned() }
}

/// Everything that is summed up, in one list of lines.
async fn sums(store: &Fixture) -> Vec<String> {
    let mut lines = Vec::new();
    for (from, columns) in [
        (
            "activity",
            "user_id, period, starts_on, exercises_completed, grade_sum, graded_count, perfect_grades, \
             time_spent_seconds, hints_used, points, achievements_unlocked, streak, no_hint_run, easy, medium, hard, \
             algorithm, data_structure, debugging, practical",
        ),
        (
            "skill_levels",
            "user_id, topic, level, COALESCE(previous_level, '-'), exercises_completed, grade_sum, graded_count, \
             time_spent_seconds, level_updated_at",
        ),
        (
            "leaderboard_entries e JOIN leaderboards l ON l.id = e.leaderboard_id",
            "metric, period, starts_on, language, user_id, value",
        ),
        (
            "users",
            "id, current_streak, longest_streak, exercises_completed, COALESCE(CAST(last_exercise_date AS TEXT), '-'), \
             COALESCE(CAST(last_completed_at AS TEXT), '-'), COALESCE(CAST(streak_since AS TEXT), '-'), \
             COALESCE(CAST(streak_day_since AS TEXT), '-')",
        ),
        ("user_exercises", "user_id, exercise_id, COALESCE(CAST(completed_on AS TEXT), '-')"),
    ] {
        let columns: Vec<_> = columns.split(", ").collect();
        // Commas within COALESCE were split too: put such parts together again.
        let mut parts: Vec<String> = Vec::new();
        for column in columns {
            match parts.last_mut() {
                Some(last) if last.matches('(').count() > last.matches(')').count() => *last += &format!(", {column}"),
                _ => parts.push(column.to_owned()),
            }
        }
        let texts: Vec<_> = parts.iter().map(|part| format!("CAST({part} AS TEXT)")).collect();
        let sql = format!("SELECT {} AS line FROM {from} ORDER BY 1", texts.join(" || ' ' || "));
        lines.extend(store.lines(&sql).await);
    }
    lines
}

/// The ranks by their definition, from the entries alone.
async fn recounted(store: &Fixture, board: &Board) -> Vec<(i64, i64, i64)> {
    let sql = format!(
        "SELECT CAST(user_id AS TEXT) || ' ' || value AS line FROM leaderboard_entries e \
         JOIN leaderboards l ON l.id = e.leaderboard_id WHERE NOT hidden AND metric = '{}' AND period = '{}' \
         AND CAST(starts_on AS TEXT) = '{}' AND language = '{}' ORDER BY value DESC, user_id",
        board.metric, board.period, board.starts_on, board.language
    );
    let entries: Vec<(i64, i64)> = store
        .lines(&sql)
        .await
        .iter()
        .map(|line| line.split_once(' ').map(|(user, value)| (user.parse().unwrap(), value.parse().unwrap())).unwrap())
        .collect();
    let rank = |value| 1 + i64::try_from(entries.iter().filter(|(_, other)| *other > value).count()).unwrap();
    entries.iter().map(|(user, value)| (rank(*value), *user, *value)).collect()
}

async fn shown(store: &Fixture, board: &Board, position: Position, limit: i64) -> Vec<(i64, i64, i64)> {
    let page = store.leaderboard(board, &PageRequest { limit, position }).await.unwrap();
    page.items.iter().map(|entry| (entry.rank, entry.user_id, entry.value)).collect()
}

/// The first and the last of the world among them.
const ZONES: [&str; 5] = ["UTC", "Pacific/Auckland", "America/Los_Angeles", "Pacific/Pago_Pago", "Pacific/Kiritimati"];

/// Histories of three students over some months, with changes of time zone, hints, grades and skips.
async fn random_history(store: &Fixture, seed: u64) -> Timestamp {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let exercises: Vec<_> = (1..=40).map(exercise).collect();
    let achievements = [
        achievement("streak-2", Requirement::Streak, 2, 15),
        achievement("exercises-3", Requirement::Exercises, 3, 10),
        achievement("perfect", Requirement::PerfectGrades, 2, 25),
        achievement("no-hints", Requirement::NoHintRun, 3, 5),
        achievement("topic", Requirement::TopicLevel, 1, 50),
    ];
    store.load_catalogue(&exercises, &achievements).await.unwrap();
    let mut students = Vec::new();
    for name in ["ada", "eve", "kim"] {
        students.push(store.student(&format!("{name}{seed}")).await.id);
    }
    let mut at = 1_790_000_000_i64;
    for _ in 0..90 {
        at += random.random_range(1..2 * 86_400);
        let zone = ZONES[random.random_range(0..ZONES.len())];
        let instant = Timestamp::from_micros(at * 1_000_000);
        let moment = Moment::new(instant, zone);
        let (user, id) = (students[random.random_range(0..3)], random.random_range(1..=40));
        match random.random_range(0..6) {
            0 => drop(store.skip_exercise(user, id, moment).await.unwrap()),
            1 => drop(store.take_hint(user, id, instant).await.unwrap()),
            2 | 3 => {
                let new = NewSubmission::new("x", Some(random.random_range(0..900)));
                let submitted = store.submit_solution(user, id, &new, instant).await.unwrap();
                if let tutord_core::model::Transition::Done(_) = submitted {
                    let submission = ungraded(submitted);
                    let grade = [40, 60, 75, 100, 100][random.random_range(0..5)];
                    done(store.grade_submission(user, &submission, &grading(grade), moment).await.unwrap());
                }
            }
            _ => {
                drop(store.submit_solution(user, id, &NewSubmission::new("x", None), instant).await.unwrap());
                drop(store.complete_exercise(user, id, Some(60), moment).await.unwrap());
            }
        }
    }
    Timestamp::from_micros(at * 1_000_000)
}

async fn rebuild(store: &Fixture, now: Timestamp) {
    let mut after = 0;
    while let Some(last) = store.rebuild_statistics(after, 2, now).await.unwrap().last() {
        after = *last;
    }
    store.recount_leaderboards().await.unwrap();
}

async fn purge(store: &Fixture, now: Timestamp) {
    while store.purge_leaderboards(utc_day(now), 2).await.unwrap() > 0 {}
}

async fn rebuilding_finds_what_was_counted(store: &Fixture) {
    let mut now = Timestamp::from_micros(0);
    for seed in 1..=4 {
        now = now.max(random_history(store, seed).await);
    }
    purge(store, now).await;
    let counted = sums(store).await;
    assert!(counted.len() > 60, "a history worth the name: {}", counted.len());
    rebuild(store, now).await;
    assert_eq!(sums(store).await, counted);
    // And it mends what was spoiled.
    store.execute("UPDATE activity SET points = points + 7; DELETE FROM skill_levels; UPDATE leaderboard_entries SET value = 3").await;
    store.execute("UPDATE users SET current_streak = 99, last_exercise_date = NULL, streak_since = NULL").await;
    rebuild(store, now).await;
    assert_eq!(sums(store).await, counted);
    let board = board(Metric::Points, Period::All, now, "");
    assert_eq!(shown(store, &board, Position::Offset(0), 99).await, recounted(store, &board).await);
}

async fn the_migration_finds_the_instants_of_streaks(store: &Fixture) {
    let ids = store.catalogue(7).await;
    let ada = store.student("ada").await.id;
    for (id, day) in ids.iter().zip([0, 1, 4, 5, 6, 6, 6]) {
        store.start(ada, *id).await;
        done(store.complete_exercise(ada, *id, None, moment(day, *id)).await.unwrap());
    }
    let instants = "SELECT current_streak || ' ' || CAST(last_completed_at AS TEXT) || ' ' || CAST(streak_since AS TEXT) \
         || ' ' || CAST(streak_day_since AS TEXT) AS line FROM users";
    let counted = store.lines(instants).await;
    assert!(counted[0].starts_with("3 "), "{counted:?}");
    let migration = match store.url.starts_with("sqlite") {
        true => include_str!("../../migrations/sqlite/0006_learning/up.sql"),
        false => include_str!("../../migrations/postgres/0006_learning/up.sql"),
    };
    store.execute("UPDATE users SET last_completed_at = NULL, streak_since = NULL, streak_day_since = NULL").await;
    store.execute(&migration[migration.find("UPDATE users").unwrap()..]).await;
    assert_eq!(store.lines(instants).await, counted);
}

async fn ranks_are_those_of_a_recount(store: &Fixture) {
    let now = random_history(store, 5).await;
    let boards = [
        board(Metric::Points, Period::All, now, ""),
        board(Metric::Points, Period::All, now, "rust"),
        board(Metric::Streak, Period::All, now, "python"),
        board(Metric::Streak, Period::Monthly, now, ""),
        board(Metric::Points, Period::Weekly, now, ""),
    ];
    // Exact while changes are waiting, while some are folded, and after all were.
    loop {
        for board in &boards {
            assert_eq!(shown(store, board, Position::Offset(0), 99).await, recounted(store, board).await, "{board:?}");
        }
        if store.fold_leaderboards(37).await.unwrap() == 0 {
            break;
        }
    }
    let sql = "SELECT CAST(leaderboard_id AS TEXT) || ' ' || level || ' ' || bucket || ' ' || students AS line \
         FROM leaderboard_counts WHERE students <> 0 ORDER BY 1";
    let before = store.lines(sql).await;
    store.recount_leaderboards().await.unwrap();
    assert_eq!(store.lines(sql).await, before);
}

/// Many students on the leaderboard of all time, past the rules that make points.
async fn crowd(store: &Fixture, values: &[i64]) -> (Board, Vec<i64>) {
    let ids = store.catalogue(1).await;
    let mut students = Vec::new();
    for index in 0..values.len() {
        let student = store.student(&format!("s{index}")).await;
        store.start(student.id, ids[0]).await;
        done(store.complete_exercise(student.id, ids[0], None, moment(0, 0)).await.unwrap());
        students.push(student.id);
    }
    for (student, value) in students.iter().zip(values) {
        store.execute(&format!("UPDATE leaderboard_entries SET value = {value} WHERE user_id = {student}")).await;
    }
    store.recount_leaderboards().await.unwrap();
    (board(Metric::Points, Period::All, moment(0, 0).at, ""), students)
}

async fn equal_values_share_a_rank(store: &Fixture) {
    let values = [70_000, 300, 300, 300, 299, 256, 255, 10, 10, 0];
    let (board, students) = crowd(store, &values).await;
    let ranks = [1, 2, 2, 2, 5, 6, 7, 8, 8, 10];
    let expected: Vec<_> = (0..10).map(|index| (ranks[index], students[index], values[index])).collect();
    assert_eq!(shown(store, &board, Position::Offset(0), 20).await, expected);
    for offset in 0..10 {
        let page = PageRequest { limit: 3, position: Position::Offset(offset) };
        let page = store.leaderboard(&board, &page).await.unwrap();
        assert_eq!((page.total, page.has_more), (10, offset < 7));
        let from = usize::try_from(offset).unwrap();
        let seen: Vec<_> = page.items.iter().map(|entry| (entry.rank, entry.user_id, entry.value)).collect();
        assert_eq!(seen, expected[from..(from + 3).min(10)]);
        if let Some(next) = page.next {
            assert_eq!(shown(store, &board, Position::Cursor(next), 20).await, expected[from + 3..]);
        }
        let around = store.leaderboard_around(&board, students[from], 2).await.unwrap();
        let own = around.own.unwrap();
        assert_eq!((own.rank, own.user_id), (expected[from].0, expected[from].1));
        let neighbours = |entries: &[tutord_core::model::progress::LeaderboardEntry]| -> Vec<_> {
            entries.iter().map(|entry| (entry.rank, entry.user_id, entry.value)).collect()
        };
        assert_eq!(neighbours(&around.before), expected[from.saturating_sub(2)..from]);
        assert_eq!(neighbours(&around.after), expected[from + 1..(from + 3).min(10)]);
    }
    let nobody = store.student("nobody").await;
    let around = store.leaderboard_around(&board, nobody.id, 2).await.unwrap();
    assert_eq!((around.own, around.total), (None, 10));
    let nowhere = Board { language: "cobol".to_owned(), ..board };
    assert_eq!(store.leaderboard(&nowhere, &PageRequest::first(3)).await.unwrap().total, 0);
}

async fn opting_out_hides_and_opting_in_shows(store: &Fixture) {
    let (board, students) = crowd(store, &[50, 40, 30]).await;
    let ranks = async || shown(store, &board, Position::Offset(0), 99).await;
    for _ in 0..2 {
        store.set_leaderboard_opt_out(students[1], true).await.unwrap();
    }
    assert_eq!(ranks().await, [(1, students[0], 50), (2, students[2], 30)]);
    let around = store.leaderboard_around(&board, students[1], 5).await.unwrap();
    assert_eq!((around.opted_out, around.own, around.total), (true, None, 2));
    // What is completed meanwhile counts, but shows nowhere.
    let second = store.catalogue(2).await[1];
    store.start(students[1], second).await;
    done(store.complete_exercise(students[1], second, None, moment(1, 0)).await.unwrap());
    assert_eq!(ranks().await.len(), 2);
    while store.fold_leaderboards(3).await.unwrap() > 0 {}
    store.set_leaderboard_opt_out(students[1], false).await.unwrap();
    assert_eq!(ranks().await, [(1, students[1], 70), (2, students[0], 50), (3, students[2], 30)]);
}

async fn leaderboards_of_past_weeks_are_removed(store: &Fixture) {
    crowd(store, &[50, 40, 30]).await;
    let today = |days| utc_day(moment(days, 0).at);
    assert_eq!(store.purge_leaderboards(today(0), 2).await.unwrap(), 0, "nothing has ended");
    let entries = store.count("leaderboard_entries").await;
    let mut rounds = 0;
    while store.purge_leaderboards(today(7), 2).await.unwrap() > 0 {
        rounds += 1;
    }
    assert!(rounds > 4, "in batches");
    let left = store.lines("SELECT DISTINCT period AS line FROM leaderboards ORDER BY 1").await;
    assert!(left.contains(&"all".to_owned()) && !left.contains(&"weekly".to_owned()), "{left:?}");
    assert!(store.count("leaderboard_entries").await < entries);
}
