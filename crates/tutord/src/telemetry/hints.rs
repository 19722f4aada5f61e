//! Hints on expensive steps of a query plan.

/// The number of rows from which a full scan or a sort gets a hint.
const MANY_ROWS: f64 = 1_000.0;
/// The planner's cost from which a scan gets a hint; reading a page of 8 kB in order costs 1.
const HIGH_COST: f64 = 100.0;

/// A node of a PostgreSQL plan, such as `Sort  (cost=1.00..2.00 rows=3 width=4)`.
struct Node<'a> {
    name: &'a str,
    cost: f64,
    rows: f64,
    /// The detail lines of the node, such as `Filter: (title = $1)`.
    details: Vec<&'a str>,
}

impl Node<'_> {
    fn detail(&self, name: &str) -> Option<&str> {
        self.details.iter().find_map(|line| line.strip_prefix(name))
    }

    fn hint(&self) -> Option<String> {
        let rows = self.rows;
        let filter = self.detail("Filter: ").filter(|_| self.cost >= HIGH_COST);
        let name = self.name.strip_prefix("Parallel ").unwrap_or(self.name);
        if let Some(table) = name.strip_prefix("Seq Scan on ") {
            return match filter {
                Some(filter) => Some(format!(
                    "filter without index: scans all of {table} for {filter}; an index on these columns can help"
                )),
                None if rows >= MANY_ROWS => Some(format!(
                    "sequential scan: reads all of {table}, about {rows} rows; check whether all rows are needed"
                )),
                None => None,
            };
        }
        if name == "Sort" && rows >= MANY_ROWS {
            let key = self.detail("Sort Key: ").unwrap_or("an expression");
            return Some(format!("sort of about {rows} rows by {key}; an index in this order can avoid it"));
        }
        if let (Some(filter), Some((_, index))) =
            (filter, name.split_once(" using ").filter(|(scan, _)| scan.starts_with("Index")))
        {
            return Some(format!("filter without index: {index} returns rows that {filter} discards"));
        }
        None
    }
}

/// Returns the distinct hints for a plan of PostgreSQL or SQLite.
pub(super) fn hints(plan: &str) -> Vec<String> {
    let mut nodes: Vec<Node<'_>> = Vec::new();
    let mut hints = Vec::new();
    for line in plan.lines() {
        let line = line.trim_start().trim_start_matches("->").trim();
        if let Some((name, numbers)) = line.split_once("  (cost=") {
            nodes.push(Node { name, cost: last_cost(numbers), rows: number(numbers, "rows="), details: Vec::new() });
        } else if let Some(node) = nodes.last_mut() {
            node.details.push(line);
        } else {
            hints.extend(sqlite(line));
        }
    }
    hints.extend(nodes.iter().filter_map(Node::hint));
    let mut seen = std::collections::HashSet::new();
    hints.retain(|hint| seen.insert(hint.clone()));
    hints
}

/// Returns the hint for a step of a SQLite plan, which has no row estimates.
fn sqlite(step: &str) -> Option<String> {
    if let Some(table) = step.strip_prefix("SCAN ") {
        // One row, or an index in the order that is asked for: it ends as soon as there are enough.
        let reads_all = !step.contains("CONSTANT ROW") && !step.contains(" USING ") && !table.starts_with('(');
        return reads_all.then(|| format!("sequential scan: reads all of {table}; an index can help"));
    }
    step.strip_prefix("USE TEMP B-TREE FOR ").map(|what| format!("sort: {what} uses a sort instead of an index"))
}

/// Returns the total cost in `1.00..2.00 rows=…`, the second number.
fn last_cost(numbers: &str) -> f64 {
    number(numbers, "..")
}

/// Returns the number after a word, or 0 if there is none.
fn number(text: &str, word: &str) -> f64 {
    let rest = text.split_once(word).map_or("", |(_, rest)| rest);
    rest.split([' ', ')']).next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_by_indexes_needs_no_word() {
        let plan = "\
Limit  (cost=0.29..12.50 rows=21 width=140)
  ->  Index Scan using conversations_activity on conversations  (cost=0.29..80.10 rows=137 width=140)
        Index Cond: (user_id = $1)
        Filter: (deleted_at IS NULL)";
        assert!(hints(plan).is_empty());
        assert!(hints("").is_empty());
        assert!(hints("SEARCH conversations USING INDEX conversations_activity (user_id=?)").is_empty());
    }

    #[test]
    fn small_tables_may_be_read_whole() {
        let plan = "\
Sort  (cost=1.50..1.55 rows=20 width=40)
  Sort Key: title
  ->  Seq Scan on achievements  (cost=0.00..1.20 rows=20 width=40)
        Filter: (category = $1)";
        assert!(hints(plan).is_empty());
    }

    #[test]
    fn a_filter_that_no_index_serves() {
        let plan = "\
Aggregate  (cost=1834.00..1834.01 rows=1 width=8)
  ->  Seq Scan on messages  (cost=0.00..1834.00 rows=3 width=0)
        Filter: (content ~~ $1)";
        let expected =
            "filter without index: scans all of messages for (content ~~ $1); an index on these columns can help";
        assert_eq!(hints(plan), [expected]);
    }

    #[test]
    fn an_index_that_finds_too_much() {
        let plan = "\
Index Scan using messages_position on messages m  (cost=0.42..512.77 rows=9 width=8)
  Index Cond: (conversation_id = $1)
  Filter: (role = $2)";
        let expected = "filter without index: messages_position on messages m returns rows that (role = $2) discards";
        assert_eq!(hints(plan), [expected]);
    }

    #[test]
    fn all_of_a_large_table_and_a_large_sort() {
        let plan = "\
Limit  (cost=7000.00..7002.00 rows=20 width=40)
  ->  Sort  (cost=7000.00..7150.00 rows=60000 width=40)
        Sort Key: created_at DESC
        ->  Parallel Seq Scan on messages  (cost=0.00..1834.00 rows=60000 width=40)";
        let expected = [
            "sort of about 60000 rows by created_at DESC; an index in this order can avoid it",
            "sequential scan: reads all of messages, about 60000 rows; check whether all rows are needed",
        ];
        assert_eq!(hints(plan), expected);
    }

    #[test]
    fn the_same_is_told_once() {
        let scan = "  ->  Seq Scan on messages  (cost=0.00..1834.00 rows=60000 width=40)";
        assert_eq!(hints(&format!("Append  (cost=0.00..1.00 rows=1 width=1)\n{scan}\n{scan}")).len(), 1);
    }

    #[test]
    fn sqlite_tells_no_rows() {
        let plan = "SCAN messages\nUSE TEMP B-TREE FOR ORDER BY";
        let expected = [
            "sequential scan: reads all of messages; an index can help",
            "sort: ORDER BY uses a sort instead of an index",
        ];
        assert_eq!(hints(plan), expected);
        assert!(hints("SCAN conversations USING COVERING INDEX conversations_activity\nSCAN CONSTANT ROW").is_empty());
    }
}
