//! The state that the pages read.

use std::sync::Arc;

use querywatch::{ShapeSnapshot, Watch};

use crate::format;
use crate::requests::Requests;
use crate::view::Section;

/// Renders a section of the host for a statement.
pub(crate) type StatementSection = Arc<dyn Fn(&ShapeSnapshot) -> Section + Send + Sync>;

/// The data of the pages, and the names of settings in their texts.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) watch: Watch,
    pub(crate) requests: Option<Requests>,
    pub(crate) statement_sections: Vec<StatementSection>,
    /// The name of the setting of the threshold of slow statements.
    pub(crate) threshold_setting: &'static str,
    /// The name of the setting of the limit of repetitions.
    pub(crate) repeat_setting: &'static str,
}

impl Source {
    pub(crate) fn new(watch: &Watch) -> Self {
        Self {
            watch: watch.clone(),
            requests: None,
            statement_sections: Vec::new(),
            threshold_setting: "WatchBuilder::slow_threshold",
            repeat_setting: "WatchBuilder::repeat_limit",
        }
    }

    /// Returns the threshold of slow statements with its unit.
    pub(crate) fn slow_threshold(&self) -> String {
        format!("{} ms", self.watch.slow_threshold().as_millis())
    }

    /// Returns the duration of the sliding window in words.
    pub(crate) fn window(&self) -> String {
        format::words(self.watch.window())
    }
}
