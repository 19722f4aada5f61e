//! What is cached.

use readthrough::{Cache, Namespace, NamespaceOptions};
use serde::{Deserialize, Serialize};
use tutord_store::Timestamp;
use tutord_store::model::progress::{Activity, ActivityHistory, LeaderboardEntry, ProgressOverview, TopicSkill};
use tutord_store::model::{Conversation, ConversationPage, Exercise, HistoryItem, NewestDaily, User};
use tutord_store::page::Page;

use crate::config::CacheConfig;

/// Which session an access token belongs to. Holds for as long as the token does.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct TokenOwner {
    pub(super) session_id: i64,
    pub(super) user_id: i64,
    pub(super) expires_at: Timestamp,
}

/// An answer about one student's exercises.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum OwnExercises {
    Page(Page<HistoryItem>),
    Ended(Vec<HistoryItem>),
    Daily(Box<NewestDaily>),
}

/// An answer about one student's progress.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum OwnProgress {
    Overview(Box<ProgressOverview>),
    History(Box<ActivityHistory>),
    Newest(Box<Activity>),
    Skills(Vec<TopicSkill>),
}

/// One namespace for each kind of value. A change of a type's shape needs another version.
pub(super) struct Namespaces {
    /// By user: the profile.
    pub(super) profiles: Namespace<User>,
    /// By hash of the access token: its session.
    pub(super) tokens: Namespace<TokenOwner>,
    /// A group for each user, by session: present while it is not revoked.
    pub(super) sessions: Namespace<()>,
    /// By id: exercises of the catalogue.
    pub(super) exercises: Namespace<Exercise>,
    /// By exercise and student: those that were generated for one student.
    pub(super) own_exercises: Namespace<Exercise>,
    /// A group for each student: pages of the history, and the exercise of a day.
    pub(super) exercise_lists: Namespace<OwnExercises>,
    /// A group for each student: pages of the list.
    pub(super) conversations: Namespace<Page<Conversation>>,
    /// A group for each student and conversation: the page at either end.
    pub(super) messages: Namespace<ConversationPage>,
    /// A group for each student: sums, achievements, levels.
    pub(super) progress: Namespace<OwnProgress>,
    /// One group: pages of leaderboards.
    pub(super) leaderboards: Namespace<Page<LeaderboardEntry>>,
}

impl Namespaces {
    pub(super) fn open(cache: &Cache, config: &CacheConfig) -> Self {
        fn options<V>(name: &'static str, (ttl, l1): (u64, bool)) -> NamespaceOptions<V> {
            let options = NamespaceOptions::new(name).ttl(std::time::Duration::from_secs(ttl));
            if l1 { options } else { options.without_l1() }
        }
        // Without Redis the process's own copies are all there is.
        let l1 = config.cache_l1 || config.redis_url.is_none();
        Self {
            profiles: cache.namespace(options("user:profile", (config.user_profile_ttl, l1)).version(2)),
            tokens: cache.namespace(options("session:token", (config.session_ttl, l1))),
            sessions: cache.namespace(options("session", (config.session_ttl, l1))),
            exercises: cache.namespace(options("exercise", (config.exercise_ttl, l1)).version(2)),
            own_exercises: cache.namespace(options("exercise:own", (config.exercise_ttl, l1)).version(2)),
            exercise_lists: cache.namespace(options("exercise:list", (config.exercise_list_ttl, l1)).version(2)),
            conversations: cache.namespace(options("conversation:list", (config.conversation_ttl, l1))),
            messages: cache.namespace(options("conversation:messages", (config.conversation_ttl, l1))),
            progress: cache.namespace(options("progress", (config.progress_ttl, l1))),
            leaderboards: cache.namespace(options("leaderboard", (config.leaderboard_ttl, l1))),
        }
    }
}
