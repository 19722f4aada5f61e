use tutord_store::Error;
use tutord_store::model::{LearningProfile, SkillLevel, UserChanges};

use crate::fixture::{Fixture, new_user};

crate::on_both!(addresses_are_unique_whatever_their_case, changes_touch_only_what_they_name, onboarding_completes_once);

async fn addresses_are_unique_whatever_their_case(store: &Fixture) {
    let user = store.create_user(new_user("Ada.Löve@Example.com")).await.unwrap();
    assert_eq!(user.email, "Ada.Löve@Example.com");
    let taken = store.create_user(new_user("ada.lÖve@example.COM")).await;
    assert!(matches!(taken, Err(Error::Conflict(_))), "{taken:?}");
    let found = store.credentials("ADA.LÖVE@example.com").await.unwrap().unwrap();
    assert_eq!((found.user, found.password_hash.as_str()), (user.clone(), "$argon2id$fake"));
    assert_eq!(*store.user(user.id).await.unwrap().unwrap(), user);
    assert!(store.credentials("bob@example.com").await.unwrap().is_none());
    assert!(store.user(user.id + 1).await.unwrap().is_none());
}

async fn changes_touch_only_what_they_name(store: &Fixture) {
    let user = store.student("ada").await;
    let changes = UserChanges {
        bio: Some("I'm \"Ada\"; DROP TABLE users; --\n<b>é</b>".to_owned()),
        skill_level: Some(SkillLevel::Expert),
        timezone: Some("Europe/Berlin".to_owned()),
        ..UserChanges::default()
    };
    let changed = store.update_user(user.id, changes.clone()).await.unwrap().unwrap();
    assert_eq!(changed.bio, changes.bio);
    assert_eq!((changed.skill_level, changed.timezone.as_str()), (Some(SkillLevel::Expert), "Europe/Berlin"));
    assert_eq!((changed.name.as_str(), changed.career_goals.as_ref()), (user.name.as_str(), None));
    assert!(changed.updated_at > user.updated_at);
    assert_eq!(*store.user(user.id).await.unwrap().unwrap(), changed);
    assert!(store.update_user(user.id + 1, changes).await.unwrap().is_none());
}

async fn onboarding_completes_once(store: &Fixture) {
    let user = store.student("ada").await;
    let profile = LearningProfile {
        programming_language: "rust".to_owned(),
        skill_level: SkillLevel::Beginner,
        career_goals: "Write a compiler".to_owned(),
        learning_style: "reading".to_owned(),
        time_commitment: "weekends".to_owned(),
    };
    let completed = store.complete_onboarding(user.id, profile.clone()).await.unwrap().unwrap();
    assert!(completed.onboarding_completed && !user.onboarding_completed);
    assert_eq!(completed.programming_language.as_deref(), Some("rust"));
    let again = LearningProfile { programming_language: "go".to_owned(), ..profile.clone() };
    assert!(store.complete_onboarding(user.id, again).await.unwrap().is_none());
    assert_eq!(*store.user(user.id).await.unwrap().unwrap(), completed);
    assert!(store.complete_onboarding(user.id + 1, profile).await.unwrap().is_none(), "no such user");
}
