//! Users and what they tell of themselves.

use diesel::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Role, SkillLevel};
use crate::model::time::{LocalDate, Timestamp};
use crate::schema::users;

/// A user, without the password hash.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = users)]
pub struct User {
    /// Positive id.
    pub id: i64,
    /// The address as it was written at registration.
    pub email: String,
    /// The name shown to others.
    pub name: String,
    /// Address of a picture.
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
    /// What the user may do.
    pub role: Role,
    /// Inactive users can't log in.
    pub is_active: bool,
    /// Whether the user mentors others.
    pub is_mentor: bool,
    /// Whether the user has shown that the address is theirs.
    pub email_verified: bool,
    /// Whether all five learning fields were answered.
    pub onboarding_completed: bool,
    /// IANA name of the time zone that the user's days are counted in.
    pub timezone: String,
    /// Consecutive local days with a completed exercise.
    pub current_streak: i32,
    /// The longest such run so far.
    pub longest_streak: i32,
    /// Exercises completed since registration.
    pub exercises_completed: i32,
    /// Local day of the newest completion.
    pub last_exercise_date: Option<LocalDate>,
    /// When the newest completion was.
    pub last_completed_at: Option<Timestamp>,
    /// When the user registered.
    pub created_at: Timestamp,
    /// When the profile last changed.
    pub updated_at: Timestamp,
    /// When the user last logged in.
    pub last_login: Option<Timestamp>,
}

/// A user with the password hash, for a log-in alone.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Whose they are.
    pub user: User,
    /// The password's hash in PHC string format.
    pub password_hash: String,
}

/// A user to be created.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// The address as written; unique when case is folded.
    pub email: String,
    /// The password's hash in PHC string format.
    pub password_hash: String,
    /// The name shown to others.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// Whether the address counts as verified from the start.
    pub email_verified: bool,
    /// When the user registered.
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
    /// How far the student says to be.
    pub skill_level: SkillLevel,
    /// What the student wants to reach.
    pub career_goals: String,
    /// How the student likes to learn.
    pub learning_style: String,
    /// How much time the student has.
    pub time_commitment: String,
}
