//! The five questions of the onboarding.

use serde::Serialize;
use tutord_core::model::SkillLevel;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
pub(super) struct Question {
    id: &'static str,
    question: &'static str,
    /// `select`, `textarea` or `text`.
    r#type: &'static str,
    /// The options of a `select`.
    options: Option<Vec<&'static str>>,
    required: bool,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Questions {
    questions: Vec<Question>,
    total_questions: usize,
    estimated_time: &'static str,
}

/// The languages of the catalogue that ships with tutord.
const IN_THE_CATALOGUE: [&str; 6] = ["python", "javascript", "java", "go", "rust", "sql"];
/// Languages in which only a model writes exercises.
const WRITTEN_BY_A_MODEL: [&str; 7] = ["typescript", "csharp", "cpp", "ruby", "php", "swift", "kotlin"];

/// Returns one question for each learning field; its id is the field's name. Languages without catalogue exercises are
/// offered only `with_model`, which writes them; otherwise students would get exercises in another language.
pub(super) fn questions(with_model: bool) -> Questions {
    let question = |id, question, options: Option<Vec<&'static str>>| Question {
        id,
        question,
        r#type: if options.is_some() { "select" } else { "textarea" },
        options,
        required: true,
    };
    let written: &[&str] = if with_model { &WRITTEN_BY_A_MODEL } else { &[] };
    let languages = [&IN_THE_CATALOGUE, written].concat();
    let levels = SkillLevel::ALL.iter().map(|level| level.as_str()).collect();
    let questions = vec![
        question(
            "programming_language",
            "Which programming language do you want to learn or practise?",
            Some(languages),
        ),
        question("skill_level", "How would you describe your programming skills today?", Some(levels)),
        question("career_goals", "What do you want to reach with programming?", None),
        question("learning_style", "How do you learn best?", Some(vec!["visual", "hands-on", "reading", "mixed"])),
        question(
            "time_commitment",
            "How much time can you spend on learning?",
            Some(vec![
                "15 minutes a day",
                "30 minutes a day",
                "1 hour a day",
                "2 hours a day or more",
                "weekends only",
            ]),
        ),
    ];
    Questions { total_questions: questions.len(), questions, estimated_time: "3-5 minutes" }
}
