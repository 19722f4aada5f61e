//! The enumerations of the API; the database stores the same texts as the API shows.

use std::fmt;
use std::str::FromStr;

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::Text;
use serde::{Deserialize, Serialize};

/// The error for a text that is not a value of an enumeration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be one of {allowed}")]
pub struct UnknownValue {
    /// The valid values, separated by `, `.
    pub allowed: &'static str,
}

macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $first:ident = $first_text:literal $(, $variant:ident = $text:literal)* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, AsExpression, FromSqlRow)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[diesel(sql_type = Text)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            #[doc = concat!("`", $first_text, "`")]
            $first,
            $(#[doc = concat!("`", $text, "`")] $variant,)*
        }

        impl $name {
            /// All values, in the order of the API description.
            pub const ALL: &[Self] = &[Self::$first, $(Self::$variant),*];

            /// Returns the text in the API and in the database.
            pub const fn as_str(self) -> &'static str {
                match self { Self::$first => $first_text, $(Self::$variant => $text),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownValue;
            fn from_str(text: &str) -> Result<Self, UnknownValue> {
                match text {
                    $first_text => Ok(Self::$first),
                    $($text => Ok(Self::$variant),)*
                    _ => Err(UnknownValue { allowed: concat!($first_text $(, ", ", $text)*) }),
                }
            }
        }

        impl<DB> ToSql<Text, DB> for $name
        where
            DB: Backend,
            str: ToSql<Text, DB>,
        {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
                ToSql::<Text, DB>::to_sql(self.as_str(), out)
            }
        }

        impl<DB> FromSql<Text, DB> for $name
        where
            DB: Backend,
            String: FromSql<Text, DB>,
        {
            fn from_sql(bytes: DB::RawValue<'_>) -> deserialize::Result<Self> {
                Ok(String::from_sql(bytes)?.parse()?)
            }
        }
    };
}

text_enum! {
    /// The role of a user.
    Role { Student = "student", Mentor = "mentor", Moderator = "moderator", Admin = "admin" }
}
text_enum! {
    /// A skill level, as stated by the student or reached in a topic.
    SkillLevel { Beginner = "beginner", Intermediate = "intermediate", Advanced = "advanced", Expert = "expert" }
}
text_enum! {
    /// The type of an exercise.
    ExerciseType { Algorithm = "algorithm", DataStructure = "data_structure", Debugging = "debugging", Practical = "practical" }
}
text_enum! {
    /// The difficulty of an exercise.
    Difficulty { Easy = "easy", Medium = "medium", Hard = "hard" }
}
text_enum! {
    /// The status of an exercise for a student.
    ExerciseStatus { Pending = "pending", InProgress = "in_progress", Completed = "completed", Skipped = "skipped" }
}
text_enum! {
    /// The category of an achievement.
    AchievementCategory {
        Streak = "streak", Exercise = "exercise", Github = "github", Community = "community",
        Mentorship = "mentorship", Skill = "skill", Special = "special",
    }
}
text_enum! {
    /// The rarity of an achievement.
    Rarity { Common = "common", Rare = "rare", Epic = "epic", Legendary = "legendary" }
}
text_enum! {
    /// The measure that an achievement's value refers to.
    Requirement {
        Streak = "streak", Exercises = "exercises", TopicLevel = "topic_level", PerfectGrades = "perfect_grades",
        NoHintRun = "no_hint_run",
    }
}
text_enum! {
    /// A period of sums.
    Period { Daily = "daily", Weekly = "weekly", Monthly = "monthly", All = "all" }
}
text_enum! {
    /// The compared value of a leaderboard.
    Metric { Points = "points", Streak = "streak" }
}
text_enum! {
    /// The author of a message.
    MessageRole { User = "user", Assistant = "assistant", System = "system" }
}
text_enum! {
    /// The context of a conversation.
    ContextType { General = "general", Exercise = "exercise" }
}
text_enum! {
    /// The kind of a session token.
    SessionTokenPurpose { Access = "access", Refresh = "refresh" }
}
text_enum! {
    /// The purpose of a mailed token.
    EmailTokenPurpose { VerifyEmail = "verify_email", PasswordReset = "password_reset" }
}
text_enum! {
    /// The kind of a mail.
    MailKind { VerifyEmail = "verify_email", PasswordReset = "password_reset", AddressTaken = "address_taken" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serde_and_database_texts_agree() {
        for value in ExerciseStatus::ALL {
            assert_eq!(serde_json::to_value(value).unwrap(), value.as_str());
        }
        for value in ExerciseType::ALL {
            assert_eq!(serde_json::to_value(value).unwrap(), value.as_str());
        }
        for value in Requirement::ALL {
            assert_eq!(serde_json::to_value(value).unwrap(), value.as_str());
        }
        assert_eq!(
            "nobody".parse::<Role>().unwrap_err().to_string(),
            "must be one of student, mentor, moderator, admin"
        );
    }
}
