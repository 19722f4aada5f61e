//! The export of a student's whole history, read and sent page by page.
//!
//! The export holds no connection between two pages, and at most one page in memory. If a page can't be read, the
//! transfer breaks off, so that a client never mistakes a part for the whole.

use std::collections::VecDeque;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tutord_core::model::{Difficulty, ExerciseStatus, ExerciseType, HistoryItem};
use tutord_core::{Cursor, LocalDate, Timestamp};
use utoipa::ToSchema;

use super::dto::ProgressResponse;
use super::state::ProgressState;
use crate::auth::profile;
use crate::http::error::ApiError;

/// The number of exercises in a page.
const PAGE: i64 = 500;

/// The format of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// One object: progress, and the exercises.
    #[default]
    Json,
    /// The exercises only, one line each, after a header line.
    Csv,
}

/// A line of the CSV export.
#[derive(Serialize, ToSchema)]
#[schema(as = ExportedExercise)]
struct Row {
    exercise_id: i64,
    title: String,
    programming_language: String,
    difficulty: Difficulty,
    exercise_type: ExerciseType,
    topics: String,
    status: ExerciseStatus,
    grade: Option<i32>,
    hints_used: i32,
    submission_count: i32,
    time_spent_seconds: i32,
    points_earned: i32,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    completed_on: Option<LocalDate>,
}

impl From<HistoryItem> for Row {
    fn from(item: HistoryItem) -> Self {
        let user_exercise = item.user_exercise;
        Self {
            exercise_id: user_exercise.exercise_id,
            title: item.title,
            programming_language: item.programming_language,
            difficulty: item.difficulty,
            exercise_type: item.exercise_type,
            topics: item.topics,
            status: user_exercise.status,
            grade: user_exercise.grade,
            hints_used: user_exercise.hints_used,
            submission_count: user_exercise.submission_count,
            time_spent_seconds: user_exercise.time_spent_seconds,
            points_earned: user_exercise.points_earned,
            created_at: user_exercise.created_at,
            started_at: user_exercise.started_at,
            completed_at: user_exercise.completed_at,
            completed_on: user_exercise.completed_on,
        }
    }
}

/// The JSON of an export.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the description alone reads it: what is sent is written piece by piece")]
pub(super) struct Export {
    exported_at: Timestamp,
    progress: ProgressResponse,
    exercises: Vec<Row>,
}

/// The next part to send.
enum Step {
    Begin(Bytes),
    Page { cursor: Option<Cursor>, first: bool },
    End,
}

/// Returns the download. Reads the first page before the status is sent, so that a database failure gets an error
/// response.
pub(super) async fn respond(state: &ProgressState, user_id: i64, format: Format) -> Result<Response, ApiError> {
    let (content_type, name) = match format {
        Format::Json => ("application/json", "attachment; filename=\"progress.json\""),
        Format::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"progress.csv\""),
    };
    let begin = match format {
        Format::Json => {
            let user = profile(state.store.as_ref(), user_id).await?;
            let found = state.store.progress(user_id).await?;
            let progress = serde_json::to_string(&ProgressResponse::new(&user, found))
                .map_err(|error| ApiError::internal(&error))?;
            format!("{{\"exported_at\":\"{}\",\"progress\":{progress},\"exercises\":[", Timestamp::now()).into()
        }
        Format::Csv => Bytes::new(),
    };
    let steps = VecDeque::from([Step::Begin(begin), Step::Page { cursor: None, first: true }]);
    let body = stream::unfold((state.clone(), steps), move |(state, mut steps)| async move {
        let sent = match steps.pop_front()? {
            Step::Begin(bytes) => Ok(bytes),
            Step::End => Ok(Bytes::from_static(if format == Format::Json { b"]}" } else { b"" })),
            Step::Page { cursor, first } => match state.store.history_before(user_id, cursor, PAGE).await {
                Ok(page) => {
                    let last = page.last().map(HistoryItem::cursor);
                    let more = i64::try_from(page.len()).unwrap_or(i64::MAX) == PAGE;
                    steps.push_back(if more { Step::Page { cursor: last, first: false } } else { Step::End });
                    write(format, page, first)
                }
                Err(error) => Err(std::io::Error::other(format!("the export broke off: {error}"))),
            },
        };
        if sent.is_err() {
            steps.clear();
        }
        Some((sent, (state, steps)))
    });
    Ok(([(CONTENT_TYPE, content_type), (CONTENT_DISPOSITION, name)], Body::from_stream(body)).into_response())
}

fn write(format: Format, page: Vec<HistoryItem>, first: bool) -> std::io::Result<Bytes> {
    let mut out = Vec::new();
    match format {
        Format::Json => {
            for (index, item) in page.into_iter().enumerate() {
                if !first || index > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut out, &Row::from(item))?;
            }
        }
        Format::Csv => {
            let mut csv = csv::WriterBuilder::new().has_headers(first).from_writer(&mut out);
            if first && page.is_empty() {
                csv.write_record(NAMES)?;
            }
            for item in page {
                let mut row = Row::from(item);
                row.title = inert(row.title);
                row.topics = inert(row.topics);
                row.programming_language = inert(row.programming_language);
                csv.serialize(row).map_err(std::io::Error::other)?;
            }
            csv.flush()?;
            drop(csv);
        }
    }
    Ok(out.into())
}

/// Returns the column names, for an export without rows.
const NAMES: [&str; 16] = [
    "exercise_id",
    "title",
    "programming_language",
    "difficulty",
    "exercise_type",
    "topics",
    "status",
    "grade",
    "hints_used",
    "submission_count",
    "time_spent_seconds",
    "points_earned",
    "created_at",
    "started_at",
    "completed_at",
    "completed_on",
];

/// Escapes a text so that no spreadsheet interprets it as a formula (OWASP, "CSV Injection"): models write titles, and
/// students name languages.
fn inert(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_defused() {
        assert_eq!(inert("=1+1".to_owned()), "'=1+1");
        assert_eq!(inert("a = b".to_owned()), "a = b");
    }
}
