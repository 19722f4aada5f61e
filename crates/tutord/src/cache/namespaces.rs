//! The namespaces of the cache.

use readthrough::{Cache, ConfigError, Namespace, NamespaceOptions};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tutord_core::model::progress::{
    Activity, ActivityHistory, LeaderboardEntry, Neighbourhood, ProgressOverview, TopicSkill,
};
use tutord_core::model::{Conversation, ConversationPage, Exercise, HistoryItem, Identity, NewestDailyExercise, User};
use tutord_core::page::Page;

use super::CacheSettings;

/// A query result about one student's exercises.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum OwnExercises {
    Page(Page<HistoryItem>),
    Ended(Vec<HistoryItem>),
    Daily(Box<NewestDailyExercise>),
}

/// A query result about one student's progress.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum OwnProgress {
    Overview(Box<ProgressOverview>),
    History(Box<ActivityHistory>),
    Newest(Box<Activity>),
    Skills(Vec<TopicSkill>),
}

/// The namespaces, one for each kind of value. A change of a type's serialized form requires a new version.
pub(super) struct Namespaces {
    /// Profiles, by user.
    pub(super) profiles: Namespace<User>,
    /// Owners of access tokens, by hash of the token, in a group for each user.
    pub(super) identities: Namespace<Identity>,
    /// Catalogue exercises, by id.
    pub(super) exercises: Namespace<Exercise>,
    /// Generated exercises, by exercise and student.
    pub(super) own_exercises: Namespace<Exercise>,
    /// Pages of the exercise history and daily exercises, in a group for each student.
    pub(super) exercise_lists: Namespace<OwnExercises>,
    /// Pages of the conversation list, in a group for each student.
    pub(super) conversations: Namespace<Page<Conversation>>,
    /// The first and last page of conversations, in a group for each student and conversation.
    pub(super) messages: Namespace<ConversationPage>,
    /// Sums, achievements and levels, in a group for each student.
    pub(super) progress: Namespace<OwnProgress>,
    /// Leaderboard pages, in one group.
    pub(super) leaderboards: Namespace<Page<LeaderboardEntry>>,
    /// Students' own places on leaderboards, in one group.
    pub(super) places: Namespace<Neighbourhood>,
}

impl Namespaces {
    pub(super) fn open(cache: &Cache, config: &CacheSettings) -> Result<Self, ConfigError> {
        fn options<V: Serialize + DeserializeOwned>(name: &'static str, (ttl, l1): (u64, bool)) -> NamespaceOptions<V> {
            let options = NamespaceOptions::new(name).ttl(std::time::Duration::from_secs(ttl));
            if l1 { options } else { options.without_l1() }
        }
        let l1 = config.has_l1();
        Ok(Self {
            profiles: cache.namespace(options("user:profile", (config.user_profile_ttl, l1)).version(2))?,
            // The groups are those of earlier versions, so that processes of both invalidate each other's sessions.
            identities: cache.namespace(options("session", (config.session_ttl, l1)))?,
            exercises: cache.namespace(options("exercise", (config.exercise_ttl, l1)).version(2))?,
            own_exercises: cache.namespace(options("exercise:own", (config.exercise_ttl, l1)).version(2))?,
            exercise_lists: cache.namespace(options("exercise:list", (config.exercise_list_ttl, l1)).version(2))?,
            conversations: cache.namespace(options("conversation:list", (config.conversation_ttl, l1)))?,
            messages: cache.namespace(options("conversation:messages", (config.conversation_ttl, l1)))?,
            progress: cache.namespace(options("progress", (config.progress_ttl, l1)))?,
            leaderboards: cache.namespace(options("leaderboard", (config.leaderboard_ttl, l1)))?,
            places: cache.namespace(options("leaderboard:place", (config.leaderboard_ttl, l1)))?,
        })
    }
}
