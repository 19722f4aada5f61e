//! The number of statements of each call, compared with the documentation of the trait.

use std::future::Future;

use tutord_core::model::progress::{Board, starts_on};
use tutord_core::model::{
    CandidateFilter, ContextType, Difficulty, EmailTokenPurpose, Metric, NewConversation, Order, Period, UserChanges,
};
use tutord_core::{PageRequest, Result};

use crate::exercises::{done, moment};
use crate::fixture::{self, Fixture, learning_profile, reply};

crate::on_both!(calls_cost_what_their_documentation_says, calls_about_exercises_cost_what_their_documentation_says,);

async fn cost<T>(call: impl Future<Output = Result<T>>) -> u32 {
    let (outcome, issued) = fixture::count(call).await;
    assert!(outcome.is_ok());
    issued
}

async fn calls_cost_what_their_documentation_says(store: &Fixture) {
    let user = store.student("ada").await;
    assert_eq!(cost(store.user(user.id)).await, 1);
    assert_eq!(cost(store.credentials("ada@example.com")).await, 1);
    assert_eq!(cost(store.update_user(user.id, UserChanges::default())).await, 1);
    assert_eq!(cost(store.complete_onboarding(user.id, learning_profile())).await, 1);

    assert_eq!(cost(store.identity(&[1; 32], None)).await, 1);
    assert_eq!(cost(store.revoke_session(user.id, 1)).await, 1);
    assert_eq!(cost(store.revoke_session_of(&[1; 32])).await, 1);
    assert_eq!(cost(store.revoke_sessions(user.id)).await, 1);
    assert_eq!(cost(store.is_trusted_device(user.id, &[1; 32])).await, 1);
    assert_eq!(cost(store.trust_device(user.id, &[1; 32], tutord_core::Timestamp::now())).await, 2);
    assert_eq!(cost(store.replace_password_hash(user.id, "x", "y")).await, 1);
    assert_eq!(cost(store.address_collisions(9)).await, 1);
    assert_eq!(cost(store.email_token_owner(&[1; 32], EmailTokenPurpose::VerifyEmail)).await, 1);

    let new = |exercise_id| NewConversation {
        user_id: user.id,
        title: "talk".to_owned(),
        context_type: ContextType::General,
        exercise_id,
    };
    store.seed(&crate::seed::plan(1, 0, 0, 1), &|_| {}).await.unwrap();
    assert_eq!(cost(store.create_conversation(new(None))).await, 1);
    assert_eq!(cost(store.create_conversation(new(Some(1)))).await, 1);
    let id = store.conversation(user.id, "talk").await;
    let question = store.say(user.id, id, "why?").await;
    store.append_reply(reply(user.id, &question, "because")).await.unwrap();
    let first = PageRequest::first(20);
    assert_eq!(cost(store.list_conversations(user.id, &first)).await, 1);
    assert_eq!(cost(store.conversation_page(user.id, id, Order::Desc, &first)).await, 2);
    assert_eq!(cost(store.last_exchange(user.id, id, 20)).await, 3);
    assert_eq!(cost(store.rename_conversation(user.id, id, "renamed")).await, 1);
    assert_eq!(cost(store.delete_conversation(user.id, id)).await, 1);
    assert_eq!(cost(store.ping()).await, 1);
}

async fn calls_about_exercises_cost_what_their_documentation_says(store: &Fixture) {
    let ids = store.catalogue(5).await;
    let user = store.student("ada").await.id;
    let now = moment(0, 0);
    for id in &ids {
        store.start(user, *id).await;
        done(store.complete_exercise(user, *id, None, now.clone()).await.unwrap());
    }
    assert_eq!(cost(store.exercise(user, ids[0])).await, 1);
    assert_eq!(cost(store.newest_daily(user)).await, 1);
    assert_eq!(cost(store.due_exercise(user, now.day)).await, 1);
    let any = CandidateFilter { language: None, difficulty: None };
    assert_eq!(cost(store.daily_candidates(user, &any, 9)).await, 1);
    assert_eq!(cost(store.exercise_history(user, None, &PageRequest::first(3))).await, 1);
    assert_eq!(cost(store.history_before(user, None, 3)).await, 1);
    assert_eq!(cost(store.ended_exercises(user, 3)).await, 1);
    assert_eq!(cost(store.exercise_difficulty(user)).await, 1);
    assert_eq!(cost(store.set_exercise_difficulty(user, Difficulty::Easy)).await, 1);
    assert_eq!(cost(store.progress(user)).await, 3);
    assert_eq!(cost(store.activity(user, now.day, now.day)).await, 1);
    assert_eq!(cost(store.newest_activity(user)).await, 1);
    assert_eq!(cost(store.skill_levels(user)).await, 1);
    assert_eq!(cost(store.skill_level(user, "all")).await, 1);
    let board = Board {
        metric: Metric::Points,
        period: Period::All,
        starts_on: starts_on(Period::All, now.day),
        language: String::new(),
    };
    assert_eq!(cost(store.leaderboard(&board, &PageRequest::first(3))).await, 1);
    assert_eq!(cost(store.leaderboard_around(&board, user, 5)).await, 2);
}
