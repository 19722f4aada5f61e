//! Users and their profiles.

use diesel::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Role, SkillLevel};
use crate::schema::users;
use crate::time::{LocalDate, Timestamp};

/// A user, without the password hash.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = users)]
pub struct User {
    /// Positive id.
    pub id: i64,
    /// The e-mail address as written at registration.
    pub email: String,
    /// The name shown to others.
    pub name: String,
    /// The URL of a picture.
    pub avatar_url: Option<String>,
    /// Free text about the user.
    pub bio: Option<String>,
    /// One of the five learning fields.
    pub programming_language: Option<String>,
    /// One of the five learning fields.
    pub skill_level: Option<SkillLevel>,
    /// One of the five learning fields.
    pub career_goals: Option<String>,
    /// One of the five learning fields.
    pub learning_style: Option<String>,
    /// One of the five learning fields.
    pub time_commitment: Option<String>,
    /// The role of the user.
    pub role: Role,
    /// Set if the account is active; inactive users can't log in.
    pub is_active: bool,
    /// Set if the user mentors others.
    pub is_mentor: bool,
    /// Set if the e-mail address is verified.
    pub email_verified: bool,
    /// Set if all five learning fields are answered.
    pub onboarding_completed: bool,
    /// The IANA name of the user's time zone, which defines local days.
    pub timezone: String,
    /// Consecutive local days with a completed exercise.
    pub current_streak: i32,
    /// The longest streak.
    pub longest_streak: i32,
    /// Exercises completed since registration.
    pub exercises_completed: i32,
    /// The local day of the newest completion.
    pub last_exercise_date: Option<LocalDate>,
    /// The time of the newest completion.
    pub last_completed_at: Option<Timestamp>,
    /// The time of registration.
    pub created_at: Timestamp,
    /// The time of the last change of the profile.
    pub updated_at: Timestamp,
    /// The time of the last log-in.
    pub last_login: Option<Timestamp>,
}

/// A user with the password hash, for log-in.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user.
    pub user: User,
    /// The password's hash in PHC string format.
    pub password_hash: String,
}

/// A new user.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// The e-mail address as written; unique in its [compared form](crate::rules::address).
    pub email: String,
    /// The password's hash in PHC string format.
    pub password_hash: String,
    /// The name shown to others.
    pub name: String,
    /// The role of the user.
    pub role: Role,
    /// Set if the address is verified from the start.
    pub email_verified: bool,
    /// The time of registration.
    pub created_at: Timestamp,
}

/// Changes to a profile: `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, AsChangeset)]
#[diesel(table_name = users)]
pub struct UserChanges {
    /// New name.
    pub name: Option<String>,
    /// New text about the user.
    pub bio: Option<String>,
    /// New language.
    pub programming_language: Option<String>,
    /// New level.
    pub skill_level: Option<SkillLevel>,
    /// New goals.
    pub career_goals: Option<String>,
    /// New style.
    pub learning_style: Option<String>,
    /// New commitment.
    pub time_commitment: Option<String>,
    /// New time zone (IANA name).
    pub timezone: Option<String>,
}

/// The five learning fields, all answered.
#[derive(Debug, Clone, PartialEq, Eq, AsChangeset)]
#[diesel(table_name = users)]
pub struct LearningProfile {
    /// The language the student learns.
    pub programming_language: String,
    /// The student's own skill level.
    pub skill_level: SkillLevel,
    /// The student's goals.
    pub career_goals: String,
    /// The student's preferred style of learning.
    pub learning_style: String,
    /// The time that the student has for learning.
    pub time_commitment: String,
}
