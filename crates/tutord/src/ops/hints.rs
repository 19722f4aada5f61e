//! What stands out in a plan: what somebody who knows the database would look at first.

/// From so many rows on, reading or sorting all of them is worth a word.
const MANY_ROWS: f64 = 1_000.0;
/// The planner's cost of a scan that is worth a word: it counts 1 for a page of 8 kB that is read in order.
const HIGH_COST: f64 = 100.0;

/// A node of PostgreSQL's text, such as `Sort  (cost=1.00..2.00 rows=3 width=4)`.
struct Node<'a> {
    name: &'a str,
    cost: f64,
    rows: f64,
    /// The lines below it that say more of it, such as `Filter: (title = $1)`.
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
                    "filter without index: all of {table} is read for {filter}; an index on these columns may serve it"
                )),
                None if rows >= MANY_ROWS => {
                    Some(format!("sequential scan: all of {table} is read, some {rows} rows; is all of it needed?"))
                }
                None => None,
            };
        }
        if name == "Sort" && rows >= MANY_ROWS {
            let key = self.detail("Sort Key: ").unwrap_or("an expression");
            return Some(format!("sort of some {rows} rows by {key}; an index in this order may save it"));
        }
        if let (Some(filter), Some((_, index))) =
            (filter, name.split_once(" using ").filter(|(scan, _)| scan.starts_with("Index")))
        {
            return Some(format!("filter without index: {index} finds rows of which {filter} leaves some out"));
        }
        None
    }
}

/// What stands out in a plan, PostgreSQL's or SQLite's. Each thing once.
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

/// A step of SQLite's, which estimates no rows.
fn sqlite(step: &str) -> Option<String> {
    if let Some(table) = step.strip_prefix("SCAN ") {
        // One row, or an index in the order that is asked for: it ends as soon as there are enough.
        let reads_all = !step.contains("CONSTANT ROW") && !step.contains(" USING ") && !table.starts_with('(');
        return reads_all.then(|| format!("sequential scan: all of {table} is read; an index may serve it"));
    }
    step.strip_prefix("USE TEMP B-TREE FOR ").map(|what| format!("sort: {what} is done by a sort, and by no index"))
}

/// The higher cost of `1.00..2.00 rows=…`, that of all rows.
fn last_cost(numbers: &str) -> f64 {
    number(numbers, "..")
}

/// The number after a word; 0 where there is none.
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
            "filter without index: all of messages is read for (content ~~ $1); an index on these columns may serve it";
        assert_eq!(hints(plan), [expected]);
    }

    #[test]
    fn an_index_that_finds_too_much() {
        let plan = "\
Index Scan using messages_position on messages m  (cost=0.42..512.77 rows=9 width=8)
  Index Cond: (conversation_id = $1)
  Filter: (role = $2)";
        let expected =
            "filter without index: messages_position on messages m finds rows of which (role = $2) leaves some out";
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
            "sort of some 60000 rows by created_at DESC; an index in this order may save it",
            "sequential scan: all of messages is read, some 60000 rows; is all of it needed?",
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
            "sequential scan: all of messages is read; an index may serve it",
            "sort: ORDER BY is done by a sort, and by no index",
        ];
        assert_eq!(hints(plan), expected);
        assert!(hints("SCAN conversations USING COVERING INDEX conversations_activity\nSCAN CONSTANT ROW").is_empty());
    }
}
