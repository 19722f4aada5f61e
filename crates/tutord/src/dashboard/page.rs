//! The pages of the dashboard, and their parameters.

use querywatch_axum::{TableOrder, View};
use serde::Deserialize;

use super::PREFIX;
use super::state::DashboardState;
use super::{cache, llm, mail, overview, pool, replicas, server};

/// An entry of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Page {
    Overview,
    Queries,
    Slow,
    Findings,
    Cache,
    Pool,
    Server,
    Replicas,
    Llm,
    Mail,
}

impl Page {
    /// All pages, in the order of the navigation.
    pub(super) const ALL: [Self; 10] = [
        Self::Overview,
        Self::Queries,
        Self::Slow,
        Self::Findings,
        Self::Cache,
        Self::Pool,
        Self::Server,
        Self::Replicas,
        Self::Llm,
        Self::Mail,
    ];

    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Overview => "/ops",
            Self::Queries => "/ops/queries",
            Self::Slow => "/ops/slow",
            Self::Findings => "/ops/findings",
            Self::Cache => "/ops/cache",
            Self::Pool => "/ops/pool",
            Self::Server => "/ops/server",
            Self::Replicas => "/ops/replicas",
            Self::Llm => "/ops/llm",
            Self::Mail => "/ops/mail",
        }
    }

    /// Returns `true` for the pages of `querywatch_axum`.
    pub(super) const fn is_about_statements(self) -> bool {
        matches!(self, Self::Queries | Self::Slow | Self::Findings)
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Queries => "Queries",
            Self::Slow => "Slow statements",
            Self::Findings => "Findings",
            Self::Cache => "Cache",
            Self::Pool => "Pool",
            Self::Server => "Server",
            Self::Replicas => "Replicas",
            Self::Llm => "Model",
            Self::Mail => "Mail",
        }
    }
}

/// A page with its parameters. Also the query string of `/ops/live`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct PageRequest {
    pub(super) page: Page,
    /// The id of the statement shape, for the page of a statement.
    #[serde(default)]
    pub(super) shape: Option<String>,
    #[serde(flatten)]
    pub(super) ordering: TableOrder,
}

impl PageRequest {
    /// Returns the current content, or `None` if the shape does not exist.
    pub(super) async fn view(&self, state: &DashboardState) -> Option<View> {
        let of_statements = |page| state.statement_pages.view(&page, PREFIX);
        Some(match self.page {
            Page::Queries => match &self.shape {
                Some(id) => of_statements(querywatch_axum::Page::Statement(id.clone()))?,
                None => of_statements(querywatch_axum::Page::Queries(self.ordering))?,
            },
            Page::Slow => of_statements(querywatch_axum::Page::Slow)?,
            Page::Findings => of_statements(querywatch_axum::Page::Findings)?,
            Page::Overview => overview::view(state),
            Page::Cache => cache::view(state).await,
            Page::Pool => pool::view(state),
            Page::Server => server::view(state).await,
            Page::Replicas => replicas::view(state).await,
            Page::Llm => llm::view(state),
            Page::Mail => mail::view(state).await,
        })
    }

    /// Returns the URL of the page's updates.
    pub(super) fn live(&self) -> String {
        // serde reads the same names.
        let address = "/ops/live?";
        let mut query = url::form_urlencoded::Serializer::for_suffix(address.to_owned(), address.len());
        let page = match self.page {
            Page::Overview => "overview",
            Page::Queries => "queries",
            Page::Slow => "slow",
            Page::Findings => "findings",
            Page::Cache => "cache",
            Page::Pool => "pool",
            Page::Server => "server",
            Page::Replicas => "replicas",
            Page::Llm => "llm",
            Page::Mail => "mail",
        };
        query.append_pair("page", page);
        if let Some(shape) = &self.shape {
            query.append_pair("shape", shape);
        }
        query.append_pair("sort", self.ordering.sort.name()).append_pair("over", self.ordering.over.name());
        query.finish()
    }
}

#[cfg(test)]
mod tests {
    use querywatch_axum::{Period, SortColumn};

    use super::*;

    #[test]
    fn the_update_url_parses_as_its_page() {
        for page in Page::ALL {
            for sort in SortColumn::ALL {
                let ordering = TableOrder { sort, over: Period::Start };
                let request = PageRequest { page, shape: Some("a&b".to_owned()), ordering };
                let address = request.live();
                let (path, query) = address.split_once('?').unwrap();
                let read: PageRequest = serde_urlencoded::from_str(query).unwrap();
                assert_eq!(path, "/ops/live");
                assert_eq!((read.page, read.shape.as_deref()), (page, Some("a&b")));
                assert_eq!((read.ordering.sort, read.ordering.over), (sort, Period::Start));
            }
        }
    }
}
