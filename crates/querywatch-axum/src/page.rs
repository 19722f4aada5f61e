//! The pages of the dashboard, and their addresses.

use serde::Deserialize;

/// A page of the dashboard, with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Page {
    /// The newest findings, slow statements and requests.
    Overview,
    /// The routes and the newest requests with their statements. Exists if [`Dashboard::requests`] is set.
    ///
    /// [`Dashboard::requests`]: crate::Dashboard::requests
    Requests,
    /// The statements of one request, by its number.
    Request(u64),
    /// All statements with their statistics.
    Queries(TableOrder),
    /// One statement, by the id of its shape.
    Statement(String),
    /// The newest slow statements.
    Slow,
    /// The findings with suggested remedies.
    Findings,
}

impl Page {
    /// Returns the path and query of the page, below the prefix at which the dashboard is mounted.
    pub fn href(&self, base: &str) -> String {
        match self {
            Self::Overview if base.is_empty() => "/".to_owned(),
            Self::Overview => base.to_owned(),
            Self::Requests => format!("{base}/requests"),
            Self::Request(number) => format!("{base}/requests/{number}"),
            Self::Queries(TableOrder { sort, over }) => {
                format!("{base}/queries?sort={}&over={}", sort.name(), over.name())
            }
            Self::Statement(id) => format!("{base}/queries/{id}"),
            Self::Slow => format!("{base}/slow"),
            Self::Findings => format!("{base}/findings"),
        }
    }
}

/// An entry of the navigation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The name of the page.
    pub name: &'static str,
    /// The path of the page, with the prefix of the dashboard.
    pub href: String,
    /// The value of `aria-current`: `page` for the open page, `true` for the entry above the open page.
    pub current: Option<&'static str>,
}

/// The sort order and the period of the table of statements. Also the query string of the page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct TableOrder {
    /// The column to sort by.
    #[serde(default)]
    pub sort: SortColumn,
    /// The period of the statistics.
    #[serde(default)]
    pub over: Period,
}

/// A column to sort by, highest value first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SortColumn {
    /// The sum of the durations.
    #[default]
    Total,
    /// The number of calls.
    Calls,
    /// The median duration.
    P50,
    /// The 95th percentile.
    P95,
    /// The 99th percentile.
    P99,
    /// The longest duration.
    Max,
    /// Failed and cancelled calls.
    Errors,
    /// Calls above the threshold, since the start.
    Slow,
}

impl SortColumn {
    /// All columns, in the order of the table.
    pub const ALL: [Self; 8] =
        [Self::Calls, Self::Total, Self::P50, Self::P95, Self::P99, Self::Max, Self::Errors, Self::Slow];

    /// Returns the name in the query string.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Calls => "calls",
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Max => "max",
            Self::Errors => "errors",
            Self::Slow => "slow",
        }
    }

    pub(crate) const fn heading(self) -> &'static str {
        match self {
            Self::Total => "Total time",
            Self::Calls => "Calls",
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Max => "Longest",
            Self::Errors => "Errors",
            Self::Slow => "Slow, since the start",
        }
    }
}

/// The period of the statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// The sliding window of the watch.
    #[default]
    Window,
    /// Since the start.
    Start,
}

impl Period {
    /// Returns the name in the query string.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Start => "start",
        }
    }
}
