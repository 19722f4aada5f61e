#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

// Imports point to the left in this list: format; parts; chart; view, remedy, assets, page; requests; layer, source; pages;
// shell; dashboard.
mod assets;
mod chart;
mod dashboard;
pub mod format;
mod layer;
mod page;
mod pages;
pub mod parts;
mod remedy;
mod requests;
mod shell;
mod source;
mod view;

pub use chart::{Chart, Series, milliseconds, rates};
pub use dashboard::Dashboard;
pub use layer::{WatchLayer, WatchService};
pub use maud;
pub use page::{Entry, Page, Period, SortColumn, TableOrder};
pub use querywatch::{self, Watch};
pub use requests::Requests;
pub use shell::{DefaultShell, Frame, Shell, controls};
pub use view::{News, PageUpdate, Section, View};
