//! Hints on expensive steps of a query plan.

/// The row count from which a full scan or a sort gets a hint.
const MIN_ROWS: f64 = 1_000.0;
/// The planner's cost from which a filtered scan gets a hint. Reading one 8 kB page sequentially costs 1.
const MIN_COST: f64 = 100.0;

/// A node of a PostgreSQL plan, such as `Sort  (cost=1.00..2.00 rows=3 width=4)`.
struct PlanNode<'a> {
    name: &'a str,
    cost: f64,
    rows: f64,
    /// The detail lines of the node, such as `Filter: (title = $1)`.
    details: Vec<&'a str>,
}

impl PlanNode<'_> {
    fn detail(&self, name: &str) -> Option<&str> {
        self.details.iter().find_map(|line| line.strip_prefix(name))
    }

    fn hint(&self) -> Option<String> {
        let rows = self.rows;
        let filter = self.detail("Filter: ").filter(|_| self.cost >= MIN_COST);
        let name = self.name.strip_prefix("Parallel ").unwrap_or(self.name);
        if let Some(table) = name.strip_prefix("Seq Scan on ") {
            return match filter {
                Some(filter) => Some(format!(
                    "filter without index: scans all of {table} for {filter}; an index on these columns can help"
                )),
                None if rows >= MIN_ROWS => Some(format!(
                    "sequential scan: reads all of {table}, about {rows} rows; check whether all rows are needed"
                )),
                None => None,
            };
        }
        if name == "Sort" && rows >= MIN_ROWS {
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
    let mut nodes: Vec<PlanNode<'_>> = Vec::new();
    let mut hints = Vec::new();
    for line in plan.lines() {
        let line = line.trim_start().trim_start_matches("->").trim();
        if let Some((name, numbers)) = line.split_once("  (cost=") {
            nodes.push(PlanNode {
                name,
                cost: last_cost(numbers),
                rows: number(numbers, "rows="),
                details: Vec::new(),
            });
        } else if let Some(node) = nodes.last_mut() {
            node.details.push(line);
        } else {
            hints.extend(sqlite_hint(line));
        }
    }
    hints.extend(nodes.iter().filter_map(PlanNode::hint));
    let mut seen = std::collections::HashSet::new();
    hints.retain(|hint| seen.insert(hint.clone()));
    hints
}

/// Returns the hint for a step of a SQLite plan, which has no row estimates.
fn sqlite_hint(step: &str) -> Option<String> {
    if let Some(table) = step.strip_prefix("SCAN ") {
        // A constant row or an index in the requested order ends the scan early.
        let reads_all = !step.contains("CONSTANT ROW") && !step.contains(" USING ") && !table.starts_with('(');
        return reads_all.then(|| format!("sequential scan: reads all of {table}; an index can help"));
    }
    step.strip_prefix("USE TEMP B-TREE FOR ").map(|what| format!("sort: {what} uses a sort instead of an index"))
}

/// Returns the total cost, which is the second number in `1.00..2.00 rows=…`.
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
    fn plans_with_indexes_get_no_hint() {
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
    fn scans_of_small_tables_get_no_hint() {
        let plan = "\
Sort  (cost=1.50..1.55 rows=20 width=40)
  Sort Key: title
  ->  Seq Scan on achievements  (cost=0.00..1.20 rows=20 width=40)
        Filter: (category = $1)";
        assert!(hints(plan).is_empty());
    }

    #[test]
    fn filters_without_index_get_a_hint() {
        let plan = "\
Aggregate  (cost=1834.00..1834.01 rows=1 width=8)
  ->  Seq Scan on messages  (cost=0.00..1834.00 rows=3 width=0)
        Filter: (content ~~ $1)";
        let expected =
            "filter without index: scans all of messages for (content ~~ $1); an index on these columns can help";
        assert_eq!(hints(plan), [expected]);
    }

    #[test]
    fn indexes_that_return_too_many_rows_get_a_hint() {
        let plan = "\
Index Scan using messages_position on messages m  (cost=0.42..512.77 rows=9 width=8)
  Index Cond: (conversation_id = $1)
  Filter: (role = $2)";
        let expected = "filter without index: messages_position on messages m returns rows that (role = $2) discards";
        assert_eq!(hints(plan), [expected]);
    }

    #[test]
    fn large_scans_and_large_sorts_get_a_hint() {
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
    fn equal_hints_appear_once() {
        let scan = "  ->  Seq Scan on messages  (cost=0.00..1834.00 rows=60000 width=40)";
        assert_eq!(hints(&format!("Append  (cost=0.00..1.00 rows=1 width=1)\n{scan}\n{scan}")).len(), 1);
    }

    #[test]
    fn sqlite_plans_get_hints_without_row_counts() {
        let plan = "SCAN messages\nUSE TEMP B-TREE FOR ORDER BY";
        let expected = [
            "sequential scan: reads all of messages; an index can help",
            "sort: ORDER BY uses a sort instead of an index",
        ];
        assert_eq!(hints(plan), expected);
        assert!(hints("SCAN conversations USING COVERING INDEX conversations_activity\nSCAN CONSTANT ROW").is_empty());
    }
}
