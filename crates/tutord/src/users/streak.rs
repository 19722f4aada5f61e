//! The streak that a profile shows.

use tutord_core::Timestamp;
use tutord_core::model::User;
use tutord_core::rules::streak;
use tutord_core::time::zone::local_day;

/// Returns the present streak: 0 after a whole local day without a completion.
pub(crate) fn current_streak(user: &User) -> i32 {
    if user.current_streak == 0 {
        return 0;
    }
    let (now, last) = (Timestamp::now(), user.last_exercise_date);
    streak::current_streak(last, user.last_completed_at, user.current_streak, now, local_day(now, &user.timezone))
}
