//! The JSON of the user routes.

use garde::Validate;
use serde::{Deserialize, Serialize};
use tutord_core::model::{LearningProfile, Role, SkillLevel, User, UserChanges};
use tutord_core::{LocalDate, Timestamp};
use utoipa::ToSchema;

use super::current_streak;
use crate::http::json::{trimmed, trimmed_option};
use crate::http::validation::time_zone;

#[derive(Serialize, ToSchema)]
pub(super) struct Profile {
    id: i64,
    email: String,
    name: String,
    avatar_url: Option<String>,
    bio: Option<String>,
    #[serde(flatten)]
    learning: LearningFields,
    role: Role,
    is_active: bool,
    is_mentor: bool,
    current_streak: i32,
    longest_streak: i32,
    exercises_completed: i32,
    last_exercise_date: Option<LocalDate>,
    onboarding_completed: bool,
    timezone: String,
    created_at: Timestamp,
    updated_at: Timestamp,
    last_login: Option<Timestamp>,
}

impl Profile {
    /// `streak` is the current streak.
    pub(super) fn new(user: User, streak: i32) -> Self {
        Self {
            learning: LearningFields::from(&user),
            current_streak: streak,
            id: user.id,
            email: user.email,
            name: user.name,
            avatar_url: user.avatar_url,
            bio: user.bio,
            role: user.role,
            is_active: user.is_active,
            is_mentor: user.is_mentor,
            longest_streak: user.longest_streak,
            exercises_completed: user.exercises_completed,
            last_exercise_date: user.last_exercise_date,
            onboarding_completed: user.onboarding_completed,
            timezone: user.timezone,
            created_at: user.created_at,
            updated_at: user.updated_at,
            last_login: user.last_login,
        }
    }
}

/// The five learning fields; unanswered ones are null.
#[derive(Serialize, ToSchema)]
pub(super) struct LearningFields {
    programming_language: Option<String>,
    skill_level: Option<SkillLevel>,
    career_goals: Option<String>,
    learning_style: Option<String>,
    time_commitment: Option<String>,
}

impl From<&User> for LearningFields {
    fn from(user: &User) -> Self {
        Self {
            programming_language: user.programming_language.clone(),
            skill_level: user.skill_level,
            career_goals: user.career_goals.clone(),
            learning_style: user.learning_style.clone(),
            time_commitment: user.time_commitment.clone(),
        }
    }
}

/// Learning fields to change; absent or null fields stay unchanged.
#[derive(Deserialize, Validate, ToSchema)]
pub(super) struct PreferencesUpdate {
    /// 1 to 50 characters.
    #[serde(default, deserialize_with = "trimmed_option")]
    #[schema(min_length = 1, max_length = 50)]
    #[garde(length(chars, min = 1, max = 50))]
    programming_language: Option<String>,
    #[garde(skip)]
    skill_level: Option<SkillLevel>,
    /// 10 to 1000 characters.
    #[serde(default, deserialize_with = "trimmed_option")]
    #[schema(min_length = 10, max_length = 1000)]
    #[garde(length(chars, min = 10, max = 1000))]
    career_goals: Option<String>,
    /// 3 to 100 characters.
    #[serde(default, deserialize_with = "trimmed_option")]
    #[schema(min_length = 3, max_length = 100)]
    #[garde(length(chars, min = 3, max = 100))]
    learning_style: Option<String>,
    /// 3 to 100 characters.
    #[serde(default, deserialize_with = "trimmed_option")]
    #[schema(min_length = 3, max_length = 100)]
    #[garde(length(chars, min = 3, max = 100))]
    time_commitment: Option<String>,
}

impl From<PreferencesUpdate> for UserChanges {
    fn from(update: PreferencesUpdate) -> Self {
        Self {
            programming_language: update.programming_language,
            skill_level: update.skill_level,
            career_goals: update.career_goals,
            learning_style: update.learning_style,
            time_commitment: update.time_commitment,
            ..Self::default()
        }
    }
}

/// Fields to change; absent or null fields stay unchanged.
#[derive(Deserialize, Validate, ToSchema)]
pub(super) struct ProfileUpdate {
    /// 1 to 255 characters.
    #[serde(default, deserialize_with = "trimmed_option")]
    #[schema(min_length = 1, max_length = 255)]
    #[garde(length(chars, min = 1, max = 255))]
    name: Option<String>,
    /// At most 2000 characters.
    #[schema(max_length = 2000)]
    #[garde(length(chars, max = 2000))]
    bio: Option<String>,
    /// IANA name, such as `Europe/Berlin`.
    #[schema(max_length = 64)]
    #[garde(custom(time_zone))]
    timezone: Option<String>,
    /// 1 to 50 characters.
    #[serde(default, deserialize_with = "trimmed_option")]
    #[schema(min_length = 1, max_length = 50)]
    #[garde(length(chars, min = 1, max = 50))]
    programming_language: Option<String>,
    #[garde(skip)]
    skill_level: Option<SkillLevel>,
    /// 10 to 1000 characters.
    #[serde(default, deserialize_with = "trimmed_option")]
    #[schema(min_length = 10, max_length = 1000)]
    #[garde(length(chars, min = 10, max = 1000))]
    career_goals: Option<String>,
    /// 3 to 100 characters.
    #[serde(default, deserialize_with = "trimmed_option")]
    #[schema(min_length = 3, max_length = 100)]
    #[garde(length(chars, min = 3, max = 100))]
    learning_style: Option<String>,
    /// 3 to 100 characters.
    #[serde(default, deserialize_with = "trimmed_option")]
    #[schema(min_length = 3, max_length = 100)]
    #[garde(length(chars, min = 3, max = 100))]
    time_commitment: Option<String>,
}

impl From<ProfileUpdate> for UserChanges {
    fn from(update: ProfileUpdate) -> Self {
        Self {
            name: update.name,
            bio: update.bio,
            timezone: update.timezone,
            programming_language: update.programming_language,
            skill_level: update.skill_level,
            career_goals: update.career_goals,
            learning_style: update.learning_style,
            time_commitment: update.time_commitment,
        }
    }
}

/// All five answers.
#[derive(Deserialize, Validate, ToSchema)]
pub(super) struct OnboardingRequest {
    /// 1 to 50 characters.
    #[serde(deserialize_with = "trimmed")]
    #[schema(min_length = 1, max_length = 50)]
    #[garde(length(chars, min = 1, max = 50))]
    programming_language: String,
    #[garde(skip)]
    skill_level: SkillLevel,
    /// 10 to 1000 characters.
    #[serde(deserialize_with = "trimmed")]
    #[schema(min_length = 10, max_length = 1000)]
    #[garde(length(chars, min = 10, max = 1000))]
    career_goals: String,
    /// 3 to 100 characters.
    #[serde(deserialize_with = "trimmed")]
    #[schema(min_length = 3, max_length = 100)]
    #[garde(length(chars, min = 3, max = 100))]
    learning_style: String,
    /// 3 to 100 characters.
    #[serde(deserialize_with = "trimmed")]
    #[schema(min_length = 3, max_length = 100)]
    #[garde(length(chars, min = 3, max = 100))]
    time_commitment: String,
}

impl From<OnboardingRequest> for LearningProfile {
    fn from(request: OnboardingRequest) -> Self {
        Self {
            programming_language: request.programming_language,
            skill_level: request.skill_level,
            career_goals: request.career_goals,
            learning_style: request.learning_style,
            time_commitment: request.time_commitment,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct ProfileUpdated {
    pub(super) message: &'static str,
    pub(super) profile: Profile,
}

#[derive(Serialize, ToSchema)]
pub(super) struct PreferencesUpdated {
    pub(super) message: &'static str,
    pub(super) preferences: LearningFields,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ProgressSummary {
    user_id: i64,
    current_streak: i32,
    longest_streak: i32,
    exercises_completed: i32,
    last_exercise_date: Option<LocalDate>,
    skill_level: Option<SkillLevel>,
    onboarding_completed: bool,
    member_since: Timestamp,
}

impl From<&User> for ProgressSummary {
    fn from(user: &User) -> Self {
        Self {
            user_id: user.id,
            current_streak: current_streak(user),
            longest_streak: user.longest_streak,
            exercises_completed: user.exercises_completed,
            last_exercise_date: user.last_exercise_date,
            skill_level: user.skill_level,
            onboarding_completed: user.onboarding_completed,
            member_since: user.created_at,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct OnboardingStatus {
    user_id: i64,
    onboarding_completed: bool,
    current_data: LearningFields,
}

impl From<&User> for OnboardingStatus {
    fn from(user: &User) -> Self {
        Self {
            user_id: user.id,
            onboarding_completed: user.onboarding_completed,
            current_data: LearningFields::from(user),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct OnboardingCompleted {
    user_id: i64,
    email: String,
    name: String,
    #[serde(flatten)]
    learning: LearningFields,
    onboarding_completed: bool,
    message: &'static str,
}

impl From<User> for OnboardingCompleted {
    fn from(user: User) -> Self {
        Self {
            user_id: user.id,
            learning: LearningFields::from(&user),
            email: user.email,
            name: user.name,
            onboarding_completed: user.onboarding_completed,
            message: "Onboarding completed.",
        }
    }
}
