//! The plan of generated rows for benchmarks.

/// The number of rows of each kind. The same plan generates the same rows on both databases at any time.
#[derive(Debug, Clone)]
pub struct SeedPlan {
    /// The number of students, all verified.
    pub users: u64,
    /// The number of conversations; a third of the students has most of them.
    pub conversations: u64,
    /// The number of messages, with a Pareto distribution over the conversations.
    pub messages: u64,
    /// The number of exercises.
    pub exercises: u64,
    /// The seed of all random values.
    pub seed: u64,
    /// The hash of the password of all students.
    pub password_hash: String,
}

impl SeedPlan {
    /// Returns the total number of rows.
    pub const fn rows(&self) -> u64 {
        self.users + self.conversations + self.messages + self.exercises
    }

    /// Returns the e-mail address of the student with this number (1 to `users`).
    pub fn email(&self, number: u64) -> String {
        format!("student{number:07}.seed{}@example.com", self.seed)
    }
}
