//! Numbers by turn. Within a turn the compared programs alternate, so that their ratio holds whatever else the machine
//! does; the median over the turns is reported with its quartiles.

/// The numbers of one program, in the order of the turns.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns(pub(crate) Vec<f64>);

impl Turns {
    /// Returns the spread over the turns.
    pub(crate) fn spread(&self) -> Spread {
        Spread::of(&self.0)
    }

    /// Returns the median over the turns.
    pub(crate) fn median(&self) -> f64 {
        self.spread().median
    }

    /// Returns the spread of the ratios to another program, each within a turn.
    pub(crate) fn per(&self, other: &Self) -> Spread {
        let ratios: Vec<f64> = self.0.iter().zip(&other.0).map(|(own, other)| own / other).collect();
        Spread::of(&ratios)
    }
}

/// The distribution of at least one number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    /// The lowest quartile.
    pub(crate) low: f64,
    /// The highest quartile.
    pub(crate) high: f64,
    pub(crate) least: f64,
    /// The number of turns.
    pub(crate) turns: usize,
    /// The turns beyond 1.5 times the interquartile range from a quartile: their numbers from 1, and their values.
    pub(crate) outliers: Vec<(usize, f64)>,
}

impl Spread {
    /// Summarizes at least one number.
    pub(crate) fn of(numbers: &[f64]) -> Self {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (quantile(&sorted, 0.25), quantile(&sorted, 0.75));
        let fence = 1.5 * (high - low);
        let outside = |value: f64| value < low - fence || value > high + fence;
        let outliers =
            numbers.iter().enumerate().filter(|(_, value)| outside(**value)).map(|(turn, value)| (turn + 1, *value));
        Self {
            median: quantile(&sorted, 0.5),
            low,
            high,
            least: sorted[0],
            turns: numbers.len(),
            outliers: outliers.collect(),
        }
    }
}

/// Returns a quantile of sorted numbers, interpolated between the two nearest.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the slice")]
    let below = place as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// Returns the slope of the line with the least squared distances from the points; the points have at least two
/// different x.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let (common, own) = points.iter().fold((0.0, 0.0), |(common, own), point| {
        (common + (point.0 - x) * (point.1 - y), own + (point.0 - x) * (point.0 - x))
    });
    common / own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn the_spread_names_outliers_and_keeps_them() {
        let spread = Spread::of(&[1.0, 1.1, 5.0, 0.9, 1.0, 1.05, 0.95]);
        assert!(near(spread.median, 1.0) && near(spread.low, 0.975) && near(spread.high, 1.075), "{spread:?}");
        assert_eq!(spread.outliers, [(3, 5.0)]);
        assert_eq!(Spread::of(&[1.0, 1.1, 1.2, 0.9]).outliers, []);
        let single = Spread::of(&[2.0]);
        assert!(near(single.median, 2.0) && near(single.high, 2.0) && single.turns == 1, "{single:?}");
    }

    #[test]
    fn a_ratio_is_taken_within_its_turn() {
        // The machine is half as fast in the second turn: no ratio of medians of different turns.
        let (own, limit) = (Turns(vec![50.0, 25.0, 60.0]), Turns(vec![100.0, 50.0, 100.0]));
        assert!(near(own.per(&limit).median, 0.5));
    }

    #[test]
    fn the_slope_counts_round_trips() {
        assert!(near(slope(&[(0.0, 3.0), (1.0, 5.0), (2.0, 7.0), (10.0, 23.0)]), 2.0));
    }
}
