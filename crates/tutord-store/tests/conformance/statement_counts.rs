//! How many statements each call issues, where the trait's documentation says so.

use std::future::Future;

use tutord_store::model::{
    ContextType, EmailTokenPurpose, LearningProfile, NewConversation, Order, SkillLevel, UserChanges,
};
use tutord_store::{PageRequest, Result, statements};

use crate::fixture::{Fixture, reply};

crate::on_both!(calls_cost_what_their_documentation_says);

async fn cost<T>(call: impl Future<Output = Result<T>>) -> u32 {
    let (outcome, issued) = statements::count(call).await;
    assert!(outcome.is_ok());
    issued
}

async fn calls_cost_what_their_documentation_says(store: &Fixture) {
    let user = store.student("ada").await;
    let profile = LearningProfile {
        programming_language: "rust".to_owned(),
        skill_level: SkillLevel::Beginner,
        career_goals: "Write a compiler".to_owned(),
        learning_style: "reading".to_owned(),
        time_commitment: "weekends".to_owned(),
    };
    assert_eq!(cost(store.user(user.id)).await, 1);
    assert_eq!(cost(store.credentials("ada@example.com")).await, 1);
    assert_eq!(cost(store.update_user(user.id, UserChanges::default())).await, 1);
    assert_eq!(cost(store.complete_onboarding(user.id, profile)).await, 1);

    assert_eq!(cost(store.identity(&[1; 32])).await, 1);
    assert_eq!(cost(store.revoke_session(1)).await, 1);
    assert_eq!(cost(store.revoke_session_of(&[1; 32])).await, 1);
    assert_eq!(cost(store.revoke_sessions(user.id)).await, 1);
    assert_eq!(cost(store.email_token_owner(&[1; 32], EmailTokenPurpose::VerifyEmail)).await, 1);

    let new = |exercise_id| NewConversation {
        user_id: user.id,
        title: "talk".to_owned(),
        context_type: ContextType::General,
        exercise_id,
    };
    store.seed(&crate::seed::plan(1, 0, 0, 1), &|_| {}).await.unwrap();
    assert_eq!(cost(store.create_conversation(new(None))).await, 1);
    assert_eq!(cost(store.create_conversation(new(Some(1)))).await, 2);
    let id = store.conversation(user.id, "talk").await;
    let question = store.say(user.id, id, "why?").await;
    store.append_reply(reply(user.id, &question, "because")).await.unwrap();
    let first = PageRequest::first(20);
    assert_eq!(cost(store.list_conversations(user.id, &first)).await, 2);
    assert_eq!(cost(store.conversation_page(user.id, id, Order::Desc, &first)).await, 2);
    assert_eq!(cost(store.history(user.id, id, 2, 20)).await, 1);
    assert_eq!(cost(store.last_exchange(user.id, id)).await, 2);
    assert_eq!(cost(store.rename_conversation(user.id, id, "renamed")).await, 1);
    assert_eq!(cost(store.delete_conversation(user.id, id)).await, 1);
    assert_eq!(cost(store.ping()).await, 1);
}
